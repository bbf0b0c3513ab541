"""The memory store's server: tables of many namespaces, which can be restarted, go down, be copied and put back.

Holds data and faults only; what an append does to it is `memory_store`'s word.
"""

from __future__ import annotations

import copy
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .errors import Unavailable
from .memory_streams import MemoryStream, MemorySubscription
from .port import Entry, Meta

SCHEMA = 1


class RandomSource(Protocol):
    def getrandbits(self, k: int, /) -> int: ...


@dataclass(slots=True)
class Instance:
    """The tables of one namespace."""

    uid: str
    epoch: int
    replid: str
    origin_ms: int
    durability: str
    created: float
    version: int = 0
    tip: str = "0-0"
    floor: int = 0
    schema: int = SCHEMA
    room: int = 0
    mark: int | None = 0  # the guard table's own version; None: the table is lost
    epochs: str = ""
    fork: str = ""
    replicas: str = ""
    guards: dict[str, str] = field(default_factory=dict)  # thing -> version, or entry id (`appending.by_id`)
    producers: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    snapshot: tuple[bytes, list[bytes]] | None = None
    snapshot_version: int = 0
    trimmed: str = "0-0"
    archive: str = ""
    came: str = ""  # whom another server has handed over as
    sealed: int = 0
    origin_uid: str = ""
    leaving: int = 0
    back: int = 0
    children: dict[str, str] = field(default_factory=dict)

    def meta(self) -> Meta:
        return Meta(
            self.uid,
            self.epoch,
            self.version,
            self.floor,
            self.origin_ms,
            self.durability,
            self.schema,
            self.created,
            self.epochs,
            self.fork,
            self.trimmed,
            self.archive,
            self.room,
            self.replicas,
            self.sealed,
            self.origin_uid,
            self.leaving,
            self.back,
        )


@dataclass(slots=True)
class Arriving:
    """A journal that another server is handing over: what has come beside its entries and streams."""

    uid: str
    tip: str
    guards: dict[str, str] = field(default_factory=dict)
    snapshot: tuple[int, bytes, list[bytes]] | None = None


@dataclass(slots=True)
class _Tables:
    instances: dict[str, Instance] = field(default_factory=dict)
    journals: dict[str, list[Entry]] = field(default_factory=dict)
    streams: dict[str, MemoryStream] = field(default_factory=dict)
    blobs: dict[str, dict[str, bytes]] = field(default_factory=dict)
    touched: dict[str, dict[str, float]] = field(default_factory=dict)
    leases: dict[str, tuple[str, float]] = field(default_factory=dict)
    arriving: dict[str, Arriving] = field(default_factory=dict)
    aliens: set[str] = field(default_factory=set)  # keys that hold something of the wrong type


class MemoryServer:
    """What a server holds. clock: Unix seconds. rng: for uids, epochs, replication ids.

    remember: how many changes `fail_over` can take back (0: none, and nothing is kept for it).
    replicas: how many replicas are there and keep up.
    down: every call raises Unavailable. fault: called with (operation, "before" | "after"); may raise
    Unavailable, which is how a lost request or a lost answer is played. used_memory: what the soft line is
    compared with.
    """

    def __init__(self, clock: Callable[[], float] = time.time, rng: RandomSource | None = None) -> None:
        self.clock = clock
        self.rng: RandomSource = rng if rng is not None else random.SystemRandom()
        self.replid = f"{self.rng.getrandbits(160):040x}"
        self.tables = _Tables()
        self.down = False
        self.used_memory = 0
        self.fault: Callable[[str, str], None] | None = None
        self.remember = self.replicas = 0
        self._past: deque[tuple[bool, Callable[[], None]]] = deque()
        self.changed = threading.Condition(threading.RLock())
        self.watchers: weakref.WeakSet[MemorySubscription] = weakref.WeakSet()

    def restart(self) -> None:
        """As after a crash: all is there, under another replication id."""
        self.replid = f"{self.rng.getrandbits(160):040x}"

    def took(self, commit: bool, undo: Callable[[], None]) -> None:
        """Note how a change is taken back. commit: whether it is one of those that `fail_over` counts."""
        if self.remember:
            self._past.append((commit, undo))
            while len(self._past) > self.remember:
                self._past.popleft()

    def drop_stream(self, key: str) -> None:
        """It is there no more, until a replica that is behind becomes the server."""
        streams = self.tables.streams
        gone = streams.pop(key, None)
        if gone is not None:
            self.took(False, lambda: streams.__setitem__(key, gone))

    def fail_over(self, commits: int) -> int:
        """A replica that lags by so many commits (of all namespaces, at most `remember`) becomes the server: what they, and
        all that was changed since in journals, guards, inboxes and snapshots, had written is gone. How many went.

        The replication id is another then: nobody's append is taken until a keeper has compared the history with what it knows
        (`store.open_epoch` after a loss of nothing, `store.adopt` after a loss).
        """
        gone = 0
        with self.changed:
            while self._past and (gone < commits or not self._past[-1][0]):
                counted, undo = self._past.pop()
                undo()
                gone += counted
            self.restart()
            self.wake()
        return gone

    def copy_tables(self) -> object:
        """All it holds, for `put_back`."""
        return copy.deepcopy(self.tables)

    def put_back(self, tables: object) -> None:
        """Hold what `copy_tables` gave: everything since is lost."""
        assert isinstance(tables, _Tables)
        self.tables = copy.deepcopy(tables)
        self._past.clear()

    def wipe(self) -> None:
        """FLUSHDB."""
        self.tables = _Tables()
        self._past.clear()

    def random_epoch(self) -> int:
        return self.rng.getrandbits(48) or 1

    def check(self, operation: str, when: str = "before") -> None:
        if self.down:
            raise Unavailable("no server answers: it is down", code="unreachable")
        if self.fault is not None:
            self.fault(operation, when)

    def wake(self) -> None:
        self.changed.notify_all()
        for watcher in list(self.watchers):
            watcher.wake()


_shared: dict[str, MemoryServer] = {}


def share(name: str, server: MemoryServer) -> None:
    """Make a server known under a name, as `shared_server` (and a `memory:` address) finds it."""
    _shared[name] = server


def shared_server(name: str = "") -> MemoryServer:
    """This process's server of that name, for `memory:` addresses."""
    return _shared.setdefault(name, MemoryServer())
