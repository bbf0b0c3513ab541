"""When pending jobs are expected to begin: the policy's own plans, played forward. Pure; no clock.

What is assumed: each job runs to its limit, nobody comes, nobody is cancelled, no node comes or goes. Then what a plan reserves is
what it will do, and who has no reservation begins at the first end at which a plan places him. A job without a limit never ends
here, and nobody gets an estimate that waits for that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple, Protocol

from ..journal.claims import Claim
from .backfill import Backfill
from .policy import Decision, Pending, Place, Reserve, Wait
from .request import Request
from .resources import Pool, Unmatched
from .timeline import FOREVER_S, OVERDUE_S, Timeline, least_cores, timeline_of

ROUNDS = 2_000  # plans made at most
FEW = 16  # so many kinds of requests are tried one by one before a plan is made
EACH = 256  # with more ends to come than this, plans in which nobody begins are made less and less often

Holder = tuple[int, float, tuple[Claim, ...]]  # job, when it ends or 0, what it holds


class Start(NamedTuple):
    """When and where a job is expected to begin. time: Unix seconds. reserved: the plan of this moment keeps the claims for it.

    rough: not played forward to there: it is when it would fit behind all who are ahead of it, if each of them had a reservation.
    """

    time: float
    claims: tuple[Claim, ...]
    reserved: bool
    rough: bool = False


class Forecast(NamedTuple):
    """starts: of jobs for which there is an estimate. waits: what the plan of this moment says of those that wait. endless: of
    those that wait for the end of a job without a limit, what they would get. whole: False where it was broken off early."""

    starts: dict[int, Start]
    waits: dict[int, Wait]
    endless: dict[int, tuple[Claim, ...]]
    whole: bool


class Rough(Backfill):
    """A reservation for each of so many jobs, beside what the plan that was just made has reserved for some."""

    __slots__ = ()

    def __init__(self, depth: int) -> None:
        super().__init__(depth, depth)

    def plan(self, pending: Iterable[Pending], pool: Pool, now: float) -> Iterator[Decision | None]:
        told = {span.job for span in timeline_of(pool, now).reserved}
        return super().plan((entry for entry in pending if entry.job not in told), pool, now)


class Queues(Protocol):
    """The pending jobs, as they stand in line."""

    def plan(self, pool: Pool, now: float, rough: bool = False) -> Iterator[Decision | None]:
        """The policy's decisions about those that are left. rough: those of `Rough`, where the policy makes reservations."""
        ...

    def begins(self, job: int, at: float) -> float:
        """A job leaves the line; until when it holds what it got, 0 for ever."""
        ...

    def ends(self, job: int) -> bool:
        """A job is over, one of the holders or one that left the line. One that runs and waits for more may be both, and is told of
        twice; True if it leaves the line only now."""
        ...

    def requests(self) -> Collection[Request]:
        """What those that are left ask for, each once; where nobody overtakes, those that come first in their lines."""
        ...


def forecast(
    queues: Queues, pool: Pool, holders: Iterable[Holder], now: float, *, wanted: Collection[int] | None = None,
    rounds: int = ROUNDS, spent: Callable[[], bool] = lambda: False, hurry: Callable[[], bool] = lambda: False,
) -> Forecast:  # fmt: skip
    """Play forward on this pool, which is changed. wanted: stop once all of these have an estimate (None: go on to the end; of
    none: only the plan of this moment).

    spent: asked again and again; True breaks it off. hurry: asked after each plan; True has the rest of lines with reservations
    estimated by one plan in which each has one, and the play goes on only for those of `wanted` who have no estimate then.
    """
    play = _Play(queues, pool, holders, now, spent)
    asked = set(wanted) if wanted is not None else None
    hurried = False
    while play.round():
        rounds -= 1
        if asked is not None and play.starts.keys() >= asked:
            return play.told(True)
        if not rounds:
            break
        if not hurried and hurry():
            hurried = True
            if not play.round(rough=True) or asked is None or play.starts.keys() >= asked:
                break
        if not play.go_on():
            return play.told(not spent())
    return play.told(False)


class _Play:
    """Where the play stands. As a worker's, its pool remembers what plans have reserved. live: number -> who holds what until when;
    ends: (when, number), a heap; stride: how many ends there are between two plans."""

    def __init__(
        self, queues: Queues, pool: Pool, holders: Iterable[Holder], now: float, spent: Callable[[], bool]
    ) -> None:
        self.queues = queues
        self.pool = pool
        self.at = now
        self.spent = spent
        self.first = True
        self.live = dict(enumerate(holders))
        self.ends = [(max(end, now + OVERDUE_S), number) for number, (_, end, _) in self.live.items() if end]
        heapify(self.ends)
        self.next = len(self.live)
        self.stride = 1
        self.promised = 0.0  # the earliest time that the last plan has reserved
        self.starts: dict[int, Start] = {}
        self.waits: dict[int, Wait] = {}
        self.endless: dict[int, tuple[Claim, ...]] = {}
        self.told_all = True  # whether the timeline of the last plan knows all who have begun since
        if pool.promised is None:
            pool.promised = {}
        pool.holders = lambda: list(self.live.values())

    def told(self, whole: bool) -> Forecast:
        """What has come out."""
        endless = {job: claims for job, claims in self.endless.items() if job not in self.starts}
        return Forecast(self.starts, self.waits, endless, whole)

    def round(self, rough: bool = False) -> bool:
        """One plan: who begins, and who is promised what. False: it was broken off."""
        at, first, self.first, told = self.at, self.first, False, self.pool.promised
        timeline = self.pool.timeline
        if rough:  # nobody is promised this
            self.pool.promised = None
        elif isinstance(timeline, Timeline) and self.told_all:
            timeline.go_on(at)
        else:
            self.pool.timeline, self.told_all = None, True
        self.promised = 0.0
        before = self.next
        for decision in self.queues.plan(self.pool, at, rough):
            if isinstance(decision, Place):
                self._begins(decision.job, decision.claims)
            elif isinstance(decision, Reserve):
                self._promised(decision, first, rough)
            elif first and decision is not None:
                self.waits[decision.job] = decision
            if self.spent():
                return False
        self.pool.promised = told
        self.stride = 1 if self.next > before or len(self.ends) <= EACH else self.stride * 2
        return True

    def _promised(self, decision: Reserve, first: bool, rough: bool) -> None:
        job, start = decision.job, decision.start
        if first:
            self.waits[job] = decision.wait
        if start - self.at >= FOREVER_S / 2:
            self.endless[job] = decision.claims
            return
        self.promised = min(self.promised or start, start)
        self.starts.setdefault(job, Start(start, decision.claims, first, rough))

    def _begins(self, job: int, claims: tuple[Claim, ...]) -> None:
        end = self.queues.begins(job, self.at)
        self.live[self.next] = (job, end, claims)
        if end:
            heappush(self.ends, (end, self.next))
        self.next += 1
        timeline = self.pool.timeline
        self.told_all = self.told_all and isinstance(timeline, Timeline) and timeline.knows(job)
        if self.pool.promised:
            self.pool.promised.pop(job, None)
        self.starts.setdefault(job, Start(self.at, claims, False))

    def go_on(self) -> bool:
        """To the next moment at which somebody may begin, who ended by then having given back what he held; False: there is none,
        or no more time to look for it."""
        requests, ends, skip = self.queues.requests(), self.ends, self.stride
        least = min(map(least_cores, requests), default=0)
        while ends and requests:
            at, left = ends[0][0], False
            self.at = at
            while ends and ends[0][0] <= at:
                job, _, claims = self.live.pop(heappop(ends)[1])
                self.pool.give(claims)
                left |= self.queues.ends(job)
                skip -= 1
            if left:
                requests = self.queues.requests()
                least = min(map(least_cores, requests), default=0)
            if self.pool.free.cores.total() < least or (skip > 0 and ends and not 0 < self.promised <= at):
                continue
            if len(requests) > FEW or not all(isinstance(self.pool.match(request), Unmatched) for request in requests):
                return True
            if self.spent():
                return False
        return False
