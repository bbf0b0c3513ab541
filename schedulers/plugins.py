"""Plug-ins by the names of their entry points: the one place that reads the metadata of installed packages, and only for names that
are not built in. Whatever fails in one is told with its name and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def names_of(group: str, built_in: Iterable[str] = ()) -> list[str]:
    """What there is of a group, with what is built in."""
    from importlib.metadata import entry_points

    return sorted({*built_in, *(point.name for point in entry_points(group=group))})


def point_of(group: str, name: str) -> EntryPoint | None:
    """The entry point of a name; None if there is none."""
    from importlib.metadata import entry_points

    return next((point for point in entry_points(group=group) if point.name == name), None)


def installed(group: str, name: str, what: str, word: str, built_in: Iterable[str] = ()) -> tuple[Any, str]:
    """(what the entry point of a name stands for, where that is). what: in words, "queue policy".

    Raises Rejected: code "no-such-<word>" with the names there are, "bad-<word>" for what does not load.
    """
    point = point_of(group, name)
    if point is None:
        known = ", ".join(names_of(group, built_in))
        raise Rejected(f"no {what} is called {name[:60]!r}", code=f"no-such-{word}", hint=f"there are: {known}")
    return attempt(point.load, f"{what} {name!r} ({point.value})", word), point.value


def attempt(make: Callable[[], Any], what: str, word: str) -> Any:
    """What `make` gives. Raises Rejected (code "bad-<word>") for whatever it raises: whose fault it is must be in the message."""
    try:
        return make()
    except Exception as error:
        raise Rejected(f"{what} does not load: {type(error).__name__}: {error}", code=f"bad-{word}") from error
