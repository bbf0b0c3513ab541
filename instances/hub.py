"""Many jobs followed over one subscription: their events are handed to whoever watches each. Only reads; folds nothing.

The executor's thread and the asyncio adapter drive it; it starts no thread and waits only where `poll` is told to.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from ..journal import history
from ..journal.wire import well_formed
from ..kvs.errors import Unavailable
from ..kvs.port import Store
from .follow import Tail


class Watcher(Protocol):
    """Whoever watches a job."""

    id: int

    def take(self, name: str, timestamp: float, context: dict[str, Any]) -> bool:
        """One event of the job, in order; True when no more are wanted."""
        ...


class Hub:
    """Follows the journal from the first job watched on. stopped_at: monotonic time since when the instance is stopped, or 0.0."""

    def __init__(self, store: Store) -> None:
        self.watching: dict[int, list[Watcher]] = {}
        self.stopped_at = 0.0
        self._store = store
        self._tail: Tail | None = None
        self._version = 0
        self._position = ""  # the id of that version, where it is known
        self._lost_at = 0.0
        self._from: dict[Watcher, int] = {}  # those who know more than the tail has brought so far

    @property
    def lost_s(self) -> float:
        """How long the server has been out of reach, in seconds; 0.0 while it answers."""
        if self._tail is not None:
            return self._tail.lost_s
        return time.monotonic() - self._lost_at if self._lost_at else 0.0

    @property
    def connected(self) -> bool:
        """Whether there is a subscription."""
        return self._tail is not None

    def add(self, watcher: Watcher, version: int, position: str = "") -> None:
        """Hand on the events of its job in commits after `version`, whose entry id is `position` where that is known. Raises what
        reading the journal raises."""
        if not self.watching and self._tail is None:
            self._version, self._position = version, position
        elif version < self.version:
            if self._catch_up(watcher, version):
                return
        elif version > self.version:
            self._from[watcher] = version
        self.watching.setdefault(watcher.id, []).append(watcher)

    def drop(self, watcher: Watcher) -> None:
        """Watch it no more."""
        self._from.pop(watcher, None)
        found = self.watching.get(watcher.id, [])
        if watcher in found:
            found.remove(watcher)
            if not found:
                del self.watching[watcher.id]

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Hand on what came, waiting at most that long; whether anything came. A server that is away is no error, see
        `lost_s`. Raises `Corrupt` or `Rejected` when the history that was followed is not there any more."""
        if self._tail is None:
            try:
                self._tail = Tail(self._store, self._version, self._position, patience_s=float("inf"))
            except Unavailable:
                self._lost_at = self._lost_at or time.monotonic()
                return False
            self._lost_at = 0.0
        commits, _ = self._tail.poll(timeout_s)
        for commit in commits:
            self._hand_on(commit.version, commit.events)
        self._version, self._position = self._tail.version, self._tail.position
        return bool(commits)

    def fileno(self) -> int:
        """Readable when `poll` may have something; -1 while there is no connection."""
        return self._tail.fileno() if self._tail is not None else -1

    def close(self) -> None:
        """Let go of the connection; `poll` makes another and goes on where this one was."""
        if self._tail is not None:
            self._tail.close()
            self._tail = None

    @property
    def version(self) -> int:
        """The last commit handed on."""
        return self._tail.version if self._tail is not None else self._version

    def _hand_on(self, version: int, events: list[Any]) -> None:
        watching = self.watching
        for name, subject, timestamp, context in well_formed(events):
            if subject in watching:
                for watcher in tuple(watching.get(subject, ())):
                    if self._from and self._from.get(watcher, 0) >= version:
                        continue
                    if watcher.take(name, timestamp, context or {}):
                        self.drop(watcher)
            elif subject == "instance":
                if name == "instance-stop":
                    self.stopped_at = time.monotonic()
                elif name == "instance-start":
                    self.stopped_at = 0.0

    def _catch_up(self, watcher: Watcher, version: int) -> bool:
        """Read what the tail has passed by already; whether that was all the watcher wanted."""
        for commit in history.reader(self._store).commits(version, self.version):
            for name, subject, timestamp, context in well_formed(commit.events):
                if subject == watcher.id and watcher.take(name, timestamp, context or {}):
                    return True
        return False
