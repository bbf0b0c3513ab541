"""`fluxkv dmesg`: the daemons' own log, as it stands on the server. Reads only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..kvs.port import Message, Store

ROLES = ("worker", "agent", "keeper", "launcher")
LEVELS = ("debug", "info", "notice", "warning", "error", "critical")


@click.command()
@click.option("-F", "-f", "--follow", "follow", is_flag=True, help="Go on with what comes.")
@click.option("--new", is_flag=True, help="With --follow: only what comes from now on.")
@click.option("-n", "--lines", metavar="N", type=click.IntRange(1), help="Only the last N lines.")
@click.option("--role", metavar="ROLE", help="Only what these said: worker, agent, keeper, launcher, or one: agent@node7.")
@click.option("-l", "--level", metavar="LEVEL", help=f"Only this level and graver ones: {', '.join(LEVELS)}.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: time, role, level, text.")
@target_options
def dmesg(
    follow: bool, new: bool, lines: int | None, role: str | None, level: str | None, as_json: bool,
    uri: str | None,
    state_dir: str | None,
) -> None:  # fmt: skip
    """Print what the daemons said: time, role (with its host, if that has joined, or its rank in an instance that is a job), level,
    text.

    \b
    Examples:
      fluxkv dmesg
      fluxkv dmesg --follow --role worker
      fluxkv dmesg -l warning --state-dir ~/old
    """
    if role is not None and _kind(role) not in ROLES:
        raise Rejected(f"{role!r} is no daemon that logs", code="bad-option", hint=f"there are {', '.join(ROLES)}")
    with open_journal(uri, state_dir) as journal:
        store = journal.store
        last = "0"
        kept: list[list[Any]] = []
        for message in _stored(store):
            last = message.id
            if not new:
                kept += _chosen([message], role, level)
        _print(kept[-lines:] if lines else kept, as_json)
        if follow:
            for message in _coming(store, last):
                _print(_chosen([message], role, level), as_json)
                sys.stdout.flush()


def _kind(name: str) -> str:
    """The role of worker-0, agent@node7, worker-0@node7."""
    return name.partition("@")[0].partition("-")[0]


def _key(store: Store) -> str:
    from ..kvs.keys import Keys

    return Keys(store.namespace).log


def _stored(store: Store) -> Iterator[Message]:
    after = "0"
    while True:
        messages = store.messages(_key(store), after, 1000)
        yield from messages
        if len(messages) < 1000:
            return
        after = messages[-1].id


def _coming(store: Store, last: str) -> Iterator[Message]:
    from ..kvs.port import Message
    from .reading import batches

    subscription = store.subscribe({_key(store): last})
    try:
        for batch in batches(subscription):
            for _, messages in batch:
                for message in messages:
                    if isinstance(message, Message):
                        yield message
    finally:
        subscription.close()


def _chosen(messages: Iterable[Message], role: str | None, level: str | None) -> list[list[Any]]:
    """The lines wanted, as [time, role, level, text]; one that cannot be read is shown as it is."""
    from ..journal.wire import unpack
    from ..kvs.errors import Rejected

    if level and level not in LEVELS:
        raise Rejected(f"{level!r} is no level", code="bad-level", hint=f"there are {', '.join(LEVELS)}")
    found = []
    for message in messages:
        try:
            line = list(unpack(message.data))
            line[3]
        except (ValueError, TypeError, IndexError):
            line = [0.0, "?", "error", repr(message.data[:200])]
        grave = LEVELS.index(line[2]) if line[2] in LEVELS else len(LEVELS)
        if role and role not in (line[1], _kind(str(line[1]))):
            continue
        if level and grave < LEVELS.index(level):
            continue
        found.append(line)
    return found


def _print(lines: list[list[Any]], as_json: bool) -> None:
    from . import render
    from .eventview import precise_time

    for at, role, level, text in (line[:4] for line in lines):
        if as_json:
            render.print_json({"time": at, "role": role, "level": level, "text": text})
        else:
            render.out(f"{precise_time(at)} {role}.{level}: {text}")
