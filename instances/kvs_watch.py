"""Waiting for the user's KVS to change. Follows the journal from the version it began with; never asks on a timer.

Each watcher folds the KVS for itself: what it tells of is the tree as of the very commit, not as of later ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..journal.fold_kvs import KvsState
from ..kvs.errors import Rejected, Unavailable
from ..kvs.namespaces import Touched
from ..kvs.tree import size_of
from .follow import Tail
from .kvs_view import Entry, View, entry_of, read_value, shown_key

if TYPE_CHECKING:
    from ..journal.log import Journal
    from ..journal.wire import Event
    from ..kvs.tree import Payload

_LONG_S = 30.0  # how long one wait on the journal lasts before it is asked again


class Change(NamedTuple):
    """Something that changed. entry: what stands there now, None if it is gone. payload: of a value, as the commit has it."""

    key: str
    version: int
    entry: Entry | None
    payload: Payload | None = None


def timed_out(what: str) -> Unavailable:
    """The error of a wait that took too long; a command ends with 1 then, as Flux's do."""
    error = Unavailable(f"timed out: {what}", code="timeout")
    error.exit_status = 1
    return error


class Follower:
    """The KVS as of a commit, and what the next ones change. Close it."""

    def __init__(self, journal: Journal) -> None:
        state = journal.look()
        self.store = journal.store
        self.state = KvsState(state.kvs, state.version, state.epoch)
        self._tail = Tail(journal.store, state.version, f"{state.version}-{state.epoch}" if state.version else "")

    def commits(self, deadline: float | None, what: str) -> Iterator[Touched]:
        """What each commit touched, applied before it is told; [] for one that is not about the KVS.

        deadline: of `time.monotonic`. Raises `Unavailable` (code timeout) past it.
        """
        while True:
            left = _LONG_S if deadline is None else min(_LONG_S, deadline - time.monotonic())
            if left <= 0:
                raise timed_out(what)
            for commit in self._tail.poll(left)[0]:
                yield self.state.apply(commit)

    def close(self) -> None:
        self._tail.close()


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _place(state: KvsState, namespace: str, key: str) -> tuple[str, str] | None:
    """Where a key leads, or None while it leads nowhere."""
    try:
        tree, where = state.kvs.resolve(namespace, key)
    except Rejected:
        return None
    return tree.name, where


def _node(state: KvsState, place: tuple[str, str] | None) -> Any:
    return None if place is None else state.kvs.trees[place[0]].node(place[1])


def _told(asked: str, where: str, path: str, node: Any, version: int) -> Iterator[Change]:
    """A node as changes: a value, a link, or everything in a directory."""
    stack = [(path, node)]
    while stack:
        at, here = stack.pop()
        if isinstance(here, dict) and here:
            base = "" if at == "." else at + "."
            stack.extend((base + name, here[name]) for name in sorted(here, reverse=True))
            continue
        key = shown_key(asked, where, at)
        if here is None:
            yield Change(key, version, None)
        else:
            entry = entry_of(key, here)
            yield Change(key, entry.version or version, entry, here[1] if entry.kind == "value" else None)


def watch(journal: Journal, namespace: str, key: str, initial: bool, timeout: float | None) -> Iterator[Change]:
    """See `Kvs.watch`."""
    deadline = _deadline(timeout)
    follower = Follower(journal)
    state = follower.state
    try:
        state.kvs.tree(namespace)
        place = _place(state, namespace, key)
        node = _node(state, place)
        if initial and place is not None and node is not None:
            yield from _told(key, place[1], place[1], node, state.version)
        for touched in follower.commits(deadline, f"no more changes of {key}"):
            if not touched:
                continue
            before, place = place, _place(state, namespace, key)
            if place != before:  # a link on the way to it has changed
                where = place[1] if place is not None else key
                yield from _told(key, where, where, _node(state, place), state.version)
                continue
            if place is not None:
                yield from _changes(state, key, place, touched)
    finally:
        follower.close()


def _changes(state: KvsState, asked: str, place: tuple[str, str], touched: Touched) -> Iterator[Change]:
    """What touched places mean for a key: those below it, or the key itself if the place is above."""
    space, where = place
    for name, path in dict.fromkeys(touched):
        if name != space:
            continue
        below = where == "." or path == where or path.startswith(where + ".")
        if not below and path != "." and not where.startswith(path + "."):
            continue
        at = path if below else where
        tree = state.kvs.trees.get(space)
        node = None if tree is None else tree.node(at)
        yield from _told(asked, where, at, node, state.version)


def wait(journal: Journal, namespace: str, key: str, timeout: float | None) -> Entry:
    """See `Kvs.wait`."""
    deadline = _deadline(timeout)
    follower = Follower(journal)
    try:
        follower.state.kvs.tree(namespace)
        node = _node(follower.state, _place(follower.state, namespace, key))
        commits = follower.commits(deadline, f"{key} is not there")
        while node is None:
            if next(commits):
                node = _node(follower.state, _place(follower.state, namespace, key))
        return entry_of(key, node)
    finally:
        follower.close()


def wait_version(journal: Journal, version: int, timeout: float | None) -> None:
    """See `Kvs.wait_version`."""
    deadline = _deadline(timeout)
    tip = journal.store.meta().version
    if tip >= version:
        return
    tail = Tail(journal.store, tip)
    try:
        while tail.version < version:
            left = _LONG_S if deadline is None else min(_LONG_S, deadline - time.monotonic())
            if left <= 0:
                raise timed_out(f"the journal is at version {tail.version}, not yet at {version}")
            tail.poll(left)
    finally:
        tail.close()


def values(
    journal: Journal, namespace: str, key: str, wait_for_it: bool, timeout: float | None
) -> Iterator[tuple[Payload, int]]:
    """(payload, version) of a key now and each time its value is written; it need not change by that.

    wait_for_it: it need not be there yet. Raises `Rejected` if it is not, or goes.
    """
    deadline = _deadline(timeout)
    follower = Follower(journal)
    state = follower.state
    try:
        view = View(journal.store, state.kvs, namespace)
        last = None
        commits = follower.commits(deadline, f"no more changes of {key}")
        touched: Touched = [(namespace, key)]
        while True:
            place = _place(state, namespace, key) if touched else None
            node = _node(state, place)
            if touched and (node is not None or not wait_for_it):
                payload = view.payload(key)
                version = int(node[0])
                if (place, version) != last:
                    last, wait_for_it = (place, version), False
                    yield payload, version
            touched = next(commits)
    finally:
        follower.close()


def read_events(journal: Journal, namespace: str, key: str, follow: bool, timeout: float | None) -> Iterator[Event]:
    """See `Kvs.events`."""
    from ..journal.eventlog import parse_event
    from ..journal.wire import Event

    rest = b""
    offset = 0
    for payload, _ in values(journal, namespace, key, follow, timeout):
        if size_of(payload) < offset:
            offset, rest = 0, b""  # it was written anew
        data = rest + b"".join(read_value(journal.store, payload, offset))
        offset += len(data) - len(rest)
        *lines, rest = data.split(b"\n")
        for line in lines:
            event = parse_event(line)
            yield Event(event.name, key, event.timestamp, event.context)
        if not follow:
            return
