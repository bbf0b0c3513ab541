"""What the `fluxkv kvs` commands share: the namespace they mean, the store they speak to, how an entry looks on one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .target import open_journal

if TYPE_CHECKING:
    from ..instances.kvs_client import Kvs
    from ..instances.kvs_view import View

F = TypeVar("F", bound=Callable[..., Any])
PRIMARY = "primary"
SETTINGS = {"help_option_names": ["-h", "--help"]}


def namespace_option(command: F) -> F:
    """Adds -N/--namespace (argument `namespace`)."""
    return click.option(
        "-N", "--namespace", metavar="NAME", default=PRIMARY, help="This namespace (default: the primary one)."
    )(command)


def timeout_option(command: F) -> F:
    """Adds -t/--timeout (argument `timeout`), seconds once read by `seconds`."""
    return click.option("-t", "--timeout", metavar="FSD", help="How long to wait at most: 30s, 5m.")(command)


def seconds(text: str | None) -> float | None:
    """A timeout in seconds. Raises `Rejected` (code bad-duration)."""
    if text is None:
        return None
    from ..journal.duration import parse_duration

    found = parse_duration(text)
    return None if found == float("inf") else found


@contextmanager
def open_kvs(uri: str | None, state_dir: str | None = None, namespace: str = PRIMARY) -> Iterator[Kvs]:
    """The namespace of a running instance, or of one that is down."""
    from ..instances.kvs_client import Kvs

    with open_journal(uri, state_dir) as journal:
        yield Kvs(journal, namespace)


def view_at(kvs: Kvs, at: str | None) -> View:
    """The namespace now, or as of the moment `at` names."""
    if not at:
        return kvs.view()
    from ..instances.kvs_client import state_at
    from ..instances.kvs_view import View
    from .target import parse_moment

    moment = parse_moment(at, kvs.journal.store.now())
    state = state_at(kvs.journal, moment.version, moment.time)
    return View(kvs.journal.store, state.kvs, kvs.name)


def key_of(text: str) -> str:
    """A key as it was typed (a dot at its end is no part of it), checked."""
    from ..kvs.tree import check_key

    return check_key(text[:-1] if text.endswith(".") and len(text) > 1 else text)


def shown_bytes(data: bytes) -> str:
    """A value on one line."""
    text = data.decode(errors="backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]


def as_json(key: str, version: int, data: bytes) -> str:
    """A value as one JSON object: as text if it is UTF-8, else in base64."""
    from .render import json_text

    try:
        return json_text({"key": key, "version": version, "value": data.decode()})
    except UnicodeDecodeError:
        from base64 import b64encode

        return json_text({"key": key, "version": version, "encoding": "base64", "value": b64encode(data).decode()})
