"""What tables say of a job that waits for others (RFC 26): for what, and how that stands. Decides wording only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..journal.dependency import DESCRIBED, split_parts
from ..journal.ids import parse_id
from ..journal.job import CLEANUP, INACTIVE, RUN, Job
from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from ..journal.wire import Commit, Event
    from .jobview import View

SHOWN = 3  # dependencies that are named
_SCHEMES = {described: scheme for scheme, described in DESCRIBED.items() if scheme != "afterstart"}


def waits_for(job: Job, view: View) -> str:
    """ "waits for afterok:ƒ3kQ (running)": the first few of its dependencies, and how many more there are."""
    return "waits for " + _several(list(job.waiting), job, view)


def _several(descriptions: list[str], job: Job, view: View) -> str:
    texts = [told(one, job, view) for one in descriptions[:SHOWN]]
    more = len(descriptions) - SHOWN
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def told(description: str, job: Job, view: View) -> str:
    """One dependency as its user wrote it, and how it stands."""
    kind, _, value = description.partition("=")
    try:
        if kind in _SCHEMES:
            return f"{_SCHEMES[kind]}:{value}{_stands(parse_id(value), view)}"
        if kind == "begin-time":
            from .formats import iso_time

            return f"begin-time {iso_time(float(value))}"
        if description.startswith(("any(", "all(")) and description.endswith(")"):
            return f"{description[:3]}({_several(split_parts(description[4:-1], description), job, view)})"
    except (Rejected, ValueError, OverflowError, OSError):
        return description  # somebody else's words
    return f"singleton (other jobs named {job.name})" if description == "singleton" else description


def of_story(story: Iterable[tuple[Commit, Event]]) -> dict[str, bool]:
    """The dependencies a job's events tell of, by description: whether each was met."""
    found: dict[str, bool] = {}
    for _, event in story:
        if event.name in ("dependency-add", "dependency-remove"):
            found[str((event.context or {}).get("description"))] = event.name == "dependency-remove"
    return found


def _stands(id: int, view: View) -> str:
    other = view.state.jobs.get(id)
    if other is None:
        return ""
    if other.state == INACTIVE:
        return f" ({other.result.name.lower()})" if other.result is not None else ""
    return " (running)" if other.state == RUN else " (ending)" if other.state == CLEANUP else " (pending)"
