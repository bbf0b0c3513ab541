"""asyncio over the same followers as the synchronous client: results and events without a thread, by the subscription's descriptor.

Decides only how an event loop waits. The one module that imports asyncio. An `Instance` belongs to one thread, its loop's:
reading the state (10,000 active jobs: some 100 ms) happens there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..journal.ids import f58
from ..journal.job import Job
from ..journal.wire import Event
from ..kvs.errors import FluxkvError, Unavailable
from .event_stream import event_batches
from .follow import JobResult, Tail, end_job, note_event, result_of, timed_out
from .hub import Hub

if TYPE_CHECKING:
    from ..journal.state import State
    from .client import Instance

LOOK_S = 1.0  # how often a subscription that is silent is looked at
AWAY_S = 0.1  # how often a server that is away is asked
PATIENCE_S = 60.0  # how long it is asked, as the synchronous client does


class _Awaited:
    """A job that somebody awaits."""

    def __init__(self, job: Job, future: asyncio.Future[JobResult]) -> None:
        self.id = job.id
        self.future = future
        self._job = job

    def take(self, name: str, timestamp: float, context: dict[str, Any]) -> bool:
        if name not in ("clean", "invalidate"):
            note_event(self._job, name, timestamp, context)
            return False
        if not self.future.done():
            self.future.set_result(end_job(self._job, name, timestamp))
        return True


class LoopHub:
    """All jobs of an instance that are awaited in one event loop: one subscription for all of them."""

    def __init__(self, instance: Instance, loop: asyncio.AbstractEventLoop) -> None:
        self._instance = instance
        self._loop = loop
        self._hub = Hub(instance.store)
        self._fd = -1
        self._timer: asyncio.TimerHandle | None = None
        self._awaited: set[_Awaited] = set()
        self._seen: State | None = None

    @property
    def awaits(self) -> bool:
        """Whether somebody awaits something."""
        return bool(self._awaited)

    def watch(self, ids: Iterable[int]) -> list[asyncio.Future[JobResult]]:
        """A future for each job's result. Raises `Rejected` for an unknown id."""
        known, (version, position) = self._instance.known(list(ids), look=self._state)
        found = []
        try:
            for job in known:
                future: asyncio.Future[JobResult] = self._loop.create_future()
                found.append(future)
                if job.t_inactive:
                    future.set_result(result_of(job))
                    continue
                awaited = _Awaited(job, future)
                self._awaited.add(awaited)
                future.add_done_callback(partial(self._drop, awaited))
                self._hub.add(awaited, version, position)
        except BaseException:
            for future in found:
                future.cancel()
            raise
        if self._awaited and self._timer is None:
            self._timer = self._loop.call_later(0, self._look)  # not at once: others may begin to wait in this turn of the loop
        return found

    def _state(self) -> State:
        """The state, read once for all who begin to wait in this turn of the loop: thousands often do."""
        if self._seen is None:
            self._seen = self._instance.state()
            self._loop.call_soon(self._forget)
        return self._seen

    def _forget(self) -> None:
        self._seen = None

    def _drop(self, awaited: _Awaited, _: object) -> None:
        self._awaited.discard(awaited)
        self._hub.drop(awaited)
        if not self._awaited:
            self._rest()

    def _look(self) -> None:
        """Take what came, and see to being called again."""
        self._unregister()  # looking may close the connection, and another's may get its number, or the next one the same
        try:
            self._hub.poll(0.0)
            if self._hub.lost_s > PATIENCE_S:
                raise Unavailable(f"{self._instance.uri}: the server has been away for {PATIENCE_S:.0f} s", code="disconnected")
        except FluxkvError as error:
            for awaited in tuple(self._awaited):
                if not awaited.future.done():
                    awaited.future.set_exception(error)
            return
        fd = self._fd = self._hub.fileno()
        if fd >= 0:
            self._loop.add_reader(fd, self._look)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(LOOK_S if fd >= 0 else AWAY_S, self._look)

    def _rest(self) -> None:
        """Nobody waits: give the connection back, and be forgotten."""
        _hubs.pop((self._instance, self._loop), None)
        self._unregister()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hub.close()

    def _unregister(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._fd = -1


_hubs: dict[tuple[Instance, asyncio.AbstractEventLoop], LoopHub] = {}  # of those that are awaited now


def _watch(instance: Instance, ids: list[int]) -> list[asyncio.Future[JobResult]]:
    """A future for each of these jobs in the running loop. Raises `Rejected` for an unknown id."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get((instance, loop)) or LoopHub(instance, loop)
    futures = hub.watch(ids)
    if hub.awaits:
        _hubs[instance, loop] = hub
    return futures


async def wait(instance: Instance, id: int, timeout: float | None) -> JobResult:
    """See `JobHandle.wait_async`."""
    (future,) = _watch(instance, [id])
    try:
        return await asyncio.wait_for(future, timeout)
    except TimeoutError:
        raise timed_out(f"job {f58(id)} is still active") from None


async def as_ended(instance: Instance, ids: list[int], timeout: float | None) -> AsyncIterator[JobResult]:
    """See `Instance.as_ended_async`."""
    deadline = None if timeout is None else time.monotonic() + timeout
    ended: asyncio.Queue[asyncio.Future[JobResult]] = asyncio.Queue()
    futures = _watch(instance, ids)
    try:
        for future in futures:
            future.add_done_callback(ended.put_nowait)
        for left in range(len(futures), 0, -1):
            try:
                future = await asyncio.wait_for(ended.get(), None if deadline is None else deadline - time.monotonic())
            except TimeoutError:
                raise timed_out(f"{left} job{'s' if left > 1 else ''} still active") from None
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


class _Readable:
    """A tail that does not wait, and a way to wait for it in a loop."""

    tail: Tail | None = None

    def make(self, *args: Any) -> Tail:
        self.tail = _QuickTail(*args)
        return self.tail

    async def wait(self, timeout_s: float) -> None:
        """Until there may be something."""
        fd = self.tail.fileno() if self.tail is not None else -1
        if fd < 0:
            await asyncio.sleep(AWAY_S if self.tail is not None else 0)
            return
        loop = asyncio.get_running_loop()
        came: asyncio.Future[None] = loop.create_future()
        loop.add_reader(fd, _set, came)
        try:
            await asyncio.wait_for(came, timeout_s)
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(fd)


def _set(came: asyncio.Future[None]) -> None:
    if not came.done():
        came.set_result(None)


async def drive(steps: Callable[..., Generator[None, None, None]], deadline: float | None) -> bool:
    """Take the steps of a generator that follows journals (`resize_client`) as something comes; False if the time (of the monotonic
    clock) is up before their end. Called with the deadline and what makes its tails."""
    readable = _Readable()
    following = steps(deadline, readable.make)
    try:
        for _ in following:
            left = LOOK_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            await readable.wait(min(left, LOOK_S))
    finally:
        following.close()
    return True


class _QuickTail(Tail):
    def poll(self, timeout_s: float = 0.0) -> Any:
        return super().poll(0.0)


async def events(instance: Instance, id: int | None, follow: bool, timeout: float | None) -> AsyncIterator[Event]:
    """See `Instance.events_async`."""
    deadline = None if timeout is None else time.monotonic() + timeout
    readable = _Readable()
    batches = event_batches(instance, id, follow, timeout, readable.make)
    try:
        for batch in batches:
            for event in batch:
                yield event
            if batch:
                await asyncio.sleep(0)  # others have their turn
            else:
                await readable.wait(LOOK_S if deadline is None else max(0.0, min(LOOK_S, deadline - time.monotonic())))
    finally:
        batches.close()  # type: ignore[attr-defined]
