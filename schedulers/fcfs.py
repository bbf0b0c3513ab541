"""First come, first served: strictly by priority, then by submission. Nobody overtakes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from .explain import explain
from .policy import Code, Decision, Pending, Place, Wait, held
from .resources import Pool, Unmatched


class Fcfs:
    """The first job that does not fit ends the plan.

    Held jobs and jobs that no node of the inventory could ever serve are stepped over: they would stop the
    queue for ever. Only the head of the queue gets a reason with numbers; those behind it wait for it
    (`policy.ahead_of`). queue_depth: how many jobs a plan looks at, None: as many as there is room for.
    """

    __slots__ = ("queue_depth",)

    def __init__(self, queue_depth: int | None = None) -> None:
        self.queue_depth = queue_depth

    def plan(self, pending: Iterable[Pending], pool: Pool, now: float) -> Iterator[Decision]:
        """Yield a Place for each job that fits, in order, then a Wait for the first that does not."""
        for entry in islice(pending, self.queue_depth):
            if entry.priority <= 0:  # held, as are all that follow; there may be very many
                return
            if entry.held:
                yield held(entry.job)
                continue
            got = pool.match(entry.request)
            if not isinstance(got, Unmatched):
                pool.take(got)
                yield Place(entry.job, got)
                continue
            reason = explain(entry.request, pool)
            yield Wait(entry.job, reason.code, reason.text, reason.blocking)
            if reason.code != Code.UNSATISFIABLE:
                return


class Throughput(Fcfs):
    """`fcfs` for floods of short jobs: the same order, with more work placed ahead on the seats of running jobs.

    ahead: seconds of work (fcfs: 0.12); in a flood an agent of such an instance reports twice a second. A match of its own for
    equal jobs would save a tenth of 4 us a job, where a whole job costs the worker some 200: there is none.
    """

    __slots__ = ("ahead_s",)

    def __init__(self, queue_depth: int | None = None, ahead: float = 1.0) -> None:
        super().__init__(queue_depth)
        self.ahead_s = ahead
