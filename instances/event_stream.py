"""Events of an instance or of one job, from the first one on and then as they come, in batches. Only reads.

One generator serves the synchronous client and asyncio: they differ in the `Tail` they give it, which waits or does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ..journal.wire import Commit, Event, well_formed
from .follow import Tail, timed_out

if TYPE_CHECKING:
    from .client import Instance

HISTORY = 200  # commits of the past in a batch


def event_batches(
    instance: Instance, id: int | None, follow: bool, timeout: float | None, tail_of: Callable[..., Tail] = Tail
) -> Iterator[list[Event]]:
    """Lists of events; an empty one whenever a wait (of a second at most) brought nothing.

    id: of one job only, which ends with its last event. tail_of: makes the tail that is followed.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    version, ended = 0, False
    commits: Iterable[Commit] = instance.journal.commits()
    if id is not None:
        state = instance.state()
        job = instance.journal.find_job(state, id)
        version, ended = state.version, bool(job.t_inactive)
        commits = (commit for commit, _ in instance.journal.story(job.commits))
    seen, batch, count = 0, [], 0
    for commit in commits:
        if commit.version <= seen:
            continue
        seen = commit.version
        batch += _of(commit, id)
        count += 1
        if count % HISTORY == 0:
            yield batch
            batch = []
    yield batch
    if not follow or ended:
        return
    tail = tail_of(instance.store, max(version, seen))
    patience = tail.patience()
    try:
        while not ended:
            left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            if left <= 0:
                raise patience.late("no more events came") if id is not None else timed_out("no more events came")
            batch = [event for commit in tail.poll(left)[0] for event in _of(commit, id)]
            ended = id is not None and any(event.name in ("clean", "invalidate") for event in batch)
            yield batch
            if batch:
                patience.something()
            elif id is not None:
                patience.nothing()
    finally:
        tail.close()


def _of(commit: Commit, id: int | None) -> list[Event]:
    return [Event(*event) for event in well_formed(commit.events) if id is None or event[1] == id]
