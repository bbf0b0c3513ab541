"""Jobs that are begun again, as the worker knows them: when they may be in line, and what is to be forgotten of them. Pure."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from ..journal.job import Job

if TYPE_CHECKING:
    from .deadlines import Deadlines
    from .planner import Planner


class Requeued:
    """Requeued jobs (PRIORITY) rest until their delay is over, and the housekeeping of the attempt before."""

    __slots__ = ("_deadlines", "_heap", "_known", "_planner")

    def __init__(self, planner: Planner, deadlines: Deadlines) -> None:
        self._planner, self._deadlines = planner, deadlines
        self._heap: list[tuple[float, int]] = []
        self._known: dict[int, float] = {}

    def rests(self, job: Job, now: float) -> bool:
        """Whether the job is not to be lined up yet. Nothing that was known of its last attempt holds for the next."""
        self._planner.unseated(job.id)
        self._planner.forget_ahead(job.id)
        self._deadlines.forget(job.id)
        if job.id in self._planner.state.keeping:
            return True  # its end brings the job back to attention
        at = job.requeued[2] if job.requeued is not None else 0.0
        if at <= now:
            return False
        if self._known.get(job.id) != at:
            self._known[job.id] = at
            heappush(self._heap, (at, job.id))
        return True

    def next(self) -> float:
        """When to look again, 0.0 for never."""
        return self._heap[0][0] if self._heap else 0.0

    def due(self, now: float) -> None:
        """Have those looked at whose time has come."""
        state = self._planner.state
        while self._heap and self._heap[0][0] <= now:
            at, id = heappop(self._heap)
            if self._known.get(id) == at:
                del self._known[id]
            if id in state.jobs:
                state.attention[id] = None
