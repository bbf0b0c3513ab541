"""Which instance a command speaks to, and which moment it asks about. Decides where to look.

A reading command works on a running instance and on the state directory of one that is down: then a
throw-away server is started on a copy of its files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from ..kvs.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from ..journal.log import Journal

F = TypeVar("F", bound=Callable[..., Any])


def target_options(command: F) -> F:
    """Adds --uri and --state-dir (arguments `uri` and `state_dir` of the command)."""
    command = click.option(
        "--state-dir", metavar="DIR", help="Read the instance whose state is in DIR; it need not be running."
    )(command)  # fmt: skip
    return click.option(
        "--uri", metavar="URI", help="The instance to speak to (default: FLUXKV_URI, else the one running)."
    )(command)


@contextmanager
def open_journal(
    uri: str | None = None, state_dir: str | None = None, *, by: str = "cli", path: str | None = None
) -> Iterator[Journal]:
    """The journal of a running instance, or, with `state_dir`, of one that may be down (appends are lost).

    path: of a child instance of that one (`job_path`).
    """
    with open_at(uri, state_dir, by=by, path=path) as (journal, _):
        yield journal


@contextmanager
def open_at(
    uri: str | None = None, state_dir: str | None = None, *, by: str = "cli", path: str | None = None
) -> Iterator[tuple[Journal, str]]:
    """The same, and the URI where it was found: with `state_dir` perhaps of a server on a copy of its files.

    Raises `Unavailable` when there is nothing to talk to, `Rejected` when `state_dir` holds no instance.
    """
    from ..journal.cron import on_behalf_of
    from ..journal.log import Journal
    from ..kvs.redis_store import RedisStore, open_store

    if not state_dir or uri:
        from ..instances.paths import find_uri, open_instance

        store, address = open_instance(_below(find_uri(uri), path) if path else uri)
        try:
            yield _told(Journal(store, by, on_behalf_of(os.environ))), address
        finally:
            store.close()
        return
    address, copied = _locate(state_dir)
    try:
        address = _below(address, path)
        store = open_store(address)
        if isinstance(store, RedisStore):
            store.state_dir = os.path.abspath(os.path.expanduser(state_dir))
        try:
            yield _told(Journal(store, by, on_behalf_of(os.environ))), address
        finally:
            store.close()
    finally:
        if copied is not None:
            copied.close()


def _below(address: str, path: str | None) -> str:
    """Where the job paths of the command line lead from this instance."""
    from .job_paths import rest_of

    found = rest_of(click.get_current_context(silent=True))
    if path:
        from ..instances.job_path import parse_path

        found = parse_path(path) if found is None else found / parse_path(path)
    if found is None:
        return address
    from ..instances.job_path import instance_at

    return instance_at(address, found)


def _told(journal: Journal) -> Journal:
    """What is wrong and stops nobody is said on standard error."""
    from ..journal.schema import SCHEMA

    journal.warn = lambda text: click.echo(f"fluxkv: warning: {text}", err=True)
    if journal.meta.schema > SCHEMA:
        journal.warn(
            f"a newer fluxkv has written this journal (schema {journal.meta.schema}, this one knows {SCHEMA}): what it does not "
            "know is left out, and it writes nothing"
        )
    return journal


def _locate(state_dir: str) -> tuple[str, Any]:
    """(uri, read-only server or None) for a state directory."""
    from ..instances.paths import StateDir
    from ..kvs.server import attach_server
    from ..kvs.server_copy import open_readonly
    from ..kvs.uri import StoreUri, parse_server, parse_uri

    path = os.path.abspath(os.path.expanduser(state_dir))
    named = None
    folders = _server_folders(path)
    if os.path.exists(os.path.join(path, "instance.json")) or not _holds_journal(path):
        settings = StateDir(path).read()
        named = parse_uri(str(settings["uri"]))
        address = parse_server(named.server)
        if address.kind != "unix" or settings.get("outside"):
            return str(named), None
        folders.append(os.path.dirname(address.path))
    namespace = named.namespace if named is not None else "/"
    for folder in folders:
        if not _holds_journal(folder):
            continue
        running = attach_server(folder)
        if running is not None:
            return str(StoreUri(running.url, namespace)), None
        copied = open_readonly(folder)
        return str(StoreUri(copied.url, namespace)), copied
    if named is not None:
        return str(named), None
    raise Unavailable(
        f"{path} holds no journal", code="no-instance", hint="fluxkv list shows state directories"
    )


def _holds_journal(folder: str) -> bool:
    return os.path.isdir(os.path.join(folder, "appendonlydir"))


def _server_folders(path: str) -> list[str]:
    """Where the server's files may be: in this state directory, or in those of the instances around it."""
    folders = []
    while True:
        folders += [path, os.path.join(path, "server")]
        above = os.path.dirname(path)
        if os.path.basename(above) != "ns":
            return folders
        path = os.path.dirname(above)


class Moment(NamedTuple):
    """A point of the journal: a version, or a server time in Unix seconds; the other is None."""

    version: int | None = None
    time: float | None = None


_HINT = 'give a version (1234), a time ("2026-11-23 10:30", 10:30, "yesterday 17:00", @UNIX) or an age (-5m)'


def parse_moment(text: str, now: float | None = None) -> Moment:
    """What --at and --until take: an integer is a version, all else a time (local, unless it names a zone).

    now: Unix seconds. Raises `Rejected(code="bad-moment")`.
    """
    import time

    text = text.strip()
    if text.isdecimal() and len(text) < 19:
        return Moment(version=int(text))
    now = time.time() if now is None else now
    if text == "now":
        return Moment(time=now)
    try:
        if text.startswith("-") and len(text) > 1:
            from ..journal.duration import parse_duration

            return Moment(time=now - parse_duration(text[1:]))
        if text.startswith("@"):
            return Moment(time=float(text[1:]))
        return Moment(time=_clock(text, now))
    except (ValueError, OverflowError, Rejected):
        raise Rejected(f"bad moment {text[:40]!r}", code="bad-moment", hint=_HINT) from None


def _clock(text: str, now: float) -> float:
    from datetime import datetime, timedelta
    from datetime import time as clock

    words = text.lower().split()
    day = {"today": 0, "yesterday": 1}.get(words[0]) if words else None
    today = datetime.fromtimestamp(now)
    if day is not None:
        at = clock.fromisoformat(words[1]) if len(words) == 2 else clock()
        if len(words) > 2:
            raise ValueError(text)
        return datetime.combine((today - timedelta(days=day)).date(), at).timestamp()
    if ":" in text and "-" not in text and "T" not in text and len(words) == 1 and len(text) <= 8:
        return datetime.combine(
            today.date(), clock.fromisoformat(text if len(text) > 4 else "0" + text)
        ).timestamp()
    return datetime.fromisoformat(text).timestamp()
