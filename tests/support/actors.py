"""Processes that speak to memory stores, of which one at a time has its turn, and each may die at any request.

A world has `gate()` (in an actor's thread: whose turn it is next), `refuse(namespace)` (raises where nobody answers) and `local`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fluxkv.kvs.memory_store import MemoryStore

REQUESTS = ("append", "meta", "read", "entries", "get_blobs", "put_blobs", "touch_blobs", "messages", "bumps", "load_snapshot")


class Killed(BaseException):
    """By a signal that nobody hears."""


class Actor:
    """A process that speaks to stores. It runs only between `turn` and its next request."""

    def __init__(self, world: Any, name: str, program: Callable[[], int]) -> None:
        self.world, self.name = world, name
        self.dead = self.over = False
        self.code = -1
        self.error: BaseException | None = None
        self._program = program
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._go.acquire()
        self.world.local.actor = self
        try:
            if not self.dead:
                self.code = self._program()
        except Killed:
            self.code = -9
        except BaseException as error:
            self.error = error
        self.over = True
        self._back.release()

    def turn(self) -> None:
        """Run to its next request, or its end."""
        assert not self.over
        self._go.release()
        self._back.acquire()
        if self.over:
            self._thread.join()
            if self.error is not None:
                raise self.error

    def gate(self) -> None:
        """In its own thread: whose turn it is next, the world says."""
        if not self.dead:
            self._back.release()
            self._go.acquire()
        if self.dead:
            raise Killed

    def kill(self) -> None:
        self.dead = True
        if not self.over:
            self.turn()
        assert self.over


class Sight:
    """A subscription that never blocks: what has not come yet comes another time."""

    def __init__(self, world: Any, inner: Any) -> None:
        self._world, self._inner = world, inner

    def poll(self, timeout_s: float = 0.0) -> Any:
        self._world.gate()
        return self._inner.poll(0.0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Store(MemoryStore):
    """At each request of an actor it may be another one's turn, before and after it."""

    def subscribe(self, positions: dict[str, str]) -> Any:
        world = self.server.world  # type: ignore[attr-defined]
        world.gate()
        return Sight(world, super().subscribe(positions))


def _gated(name: str) -> Callable[..., Any]:
    plain = getattr(MemoryStore, name)

    def request(self: Store, *args: Any, **named: Any) -> Any:
        world = self.server.world  # type: ignore[attr-defined]
        if getattr(world.local, "inside", False):
            return plain(self, *args, **named)
        world.gate()
        world.refuse(self.namespace)
        world.local.inside = True
        try:
            return plain(self, *args, **named)
        finally:
            world.local.inside = False
            world.gate()

    return request


for _name in REQUESTS:
    setattr(Store, _name, _gated(_name))
