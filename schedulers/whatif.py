"""What would become of a workload under a policy: a discrete-event simulation in virtual time. Pure.

Decides nothing that a policy decides: at each arrival and each end it asks the policy for a plan on the pool, as the live
planner does, and takes what is placed. What it decides is when asking can be left out: under the built-in policies a job that
could not start does not start later unless something is given back or somebody comes before it in the line, so
most moments need no plan, or one of the newcomer alone. A policy of somebody else is asked at every moment.

All is as the policy sees it: jobs have limits, and their real lengths are known to the simulation only.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush, merge
from math import inf
from typing import Any

from ..journal.claims import Claim
from ..kvs.errors import Rejected
from .backfill import Backfill
from .fcfs import Fcfs
from .policy import Code, Decision, Pending, Place, Policy, Reserve
from .request import Request
from .resources import Pool
from .timeline import FOREVER_S, OVERDUE_S, Timeline, least_cores
from .workload import Begun, Held, Work

Key = tuple[int, int, int]
Holder = tuple[int, float, tuple[Claim, ...]]
Policies = Policy | Callable[[str], Policy]
Turns = Callable[[Iterable[Any], Callable[[Any], Iterator[Decision | None]]], Iterator[Decision | None]]
LAST = (inf, 0, 0)


def simulate(
    works: Iterable[Work], pool: Pool, policy: Policies, *, held: Iterable[Held] = (), now: float = -inf,
    turns: Turns | None = None, thorough: bool = False,
) -> Iterator[Begun]:  # fmt: skip
    """Each job of the workload as it begins, in that order; who can never begin is left out.

    pool: with what is free when it all begins, less `held`, which is taken from it; it is changed. now: nothing happens before.
    policy: of all queues, or a function that says which one a queue has.
    turns: how the queues take turns in one plan (`instances.turns.in_turns`), needed where there are several.
    thorough: ask the policy at every moment; the answer is the same (it is what tests compare with), and comes much later.
    """
    return _Run(works, pool, policy, held, now, turns, thorough).run()


class _Lane:
    """The jobs of one queue that wait, in order, and by what they ask for."""

    __slots__ = ("backfill", "entries", "fcfs", "keys", "kinds", "left", "limited", "policy", "remembers")

    def __init__(self, policy: Policy, works: int, thorough: bool) -> None:
        self.policy = policy
        kind = type(policy).plan
        self.backfill = not thorough and kind is Backfill.plan
        self.fcfs = not thorough and kind is Fcfs.plan
        #: Whether what a plan reserves depends on what plans before it have: then none may be left out as long as somebody waits.
        self.remembers = isinstance(policy, Backfill) and policy.reservation_depth > 1
        #: Whether a second plan at the same moment may place somebody: the first looked at so many only, or moved reservations.
        depth = getattr(policy, "queue_depth", works) if kind in (Backfill.plan, Fcfs.plan) else 0
        self.limited = self.remembers or (depth is not None and depth < works)
        self.keys: list[Key] = []
        self.entries: dict[Key, Pending] = {}
        self.kinds: dict[Request, list[Key]] = {}  # equal requests, each with its keys in order
        self.left: float = inf  # reservations that the plan under way has still to make

    def add(self, key: Key, entry: Pending) -> None:
        insort(self.keys, key)
        insort(self.kinds.setdefault(entry.request, []), key)
        self.entries[key] = entry

    def remove(self, key: Key) -> None:
        del self.keys[bisect_left(self.keys, key)]
        request = self.entries.pop(key).request
        same = self.kinds[request]
        del same[bisect_left(same, key)]
        if not same:
            del self.kinds[request]


class _Feed:
    """The jobs of a lane for one plan, lazily. key: that of the next, as `in_turns` wants it."""

    def __init__(self, lane: _Lane) -> None:
        self._lane, self._keys, self.policy = lane, lane.keys, lane.policy
        self._next, self.queue = 0, ""
        self.read: list[object] = [0, ""]  # as `in_turns` wants it: nobody asks here who was looked at last

    @property
    def key(self) -> tuple[float, int, int]:
        return self._keys[self._next] if self._next < len(self._keys) else LAST

    def __iter__(self) -> Iterator[Pending]:
        return self

    def __next__(self) -> Pending:
        if self._next >= len(self._keys):
            raise StopIteration
        self._next += 1
        return self._lane.entries[self._keys[self._next - 1]]


class _Run:
    """One simulation under way."""

    def __init__(
        self, works: Iterable[Work], pool: Pool, policy: Policies, held: Iterable[Held], now: float, turns: Turns | None,
        thorough: bool,
    ) -> None:  # fmt: skip
        self.pool, self.policy, self.turns, self.thorough = pool, policy, turns, thorough
        self.works = {work.job: work for work in works}
        self.begin = now
        self.lanes: dict[str, _Lane] = {}
        self.running: dict[int, tuple[float, tuple[Claim, ...]]] = {}  # job -> (expiration or 0, claims)
        self.ends: list[tuple[float, int]] = []
        self.expirations: list[tuple[float, int]] = []
        self.arrivals: list[tuple[float, int, int]] = []
        self.wake = inf  # when somebody's time comes who might have begun before
        self.ready: dict[int, float] = {}
        self.unmet: dict[int, int] = {}  # job -> groups of its dependencies that are not met
        self.when: dict[int, float] = {}  # job -> when those that are met let it go
        self.dependents: dict[tuple[int, bool], list[tuple[int, int, float]]] = {}
        self.met: set[tuple[int, int]] = set()
        self.fresh = False  # the pool's timeline is that of the last plan, and nothing was given back since
        for one in held:
            pool.take(one.claims)
            self._hold(one.job, one.end, one.expiration, one.claims)
        for work in self.works.values():
            self._expect(work)
        heapify(self.arrivals)
        pool.holders, pool.promised = self._holders, {}

    # -- what happens ---------------------------------------------------------------------------------------------

    def run(self) -> Iterator[Begun]:
        ends, arrivals = self.ends, self.arrivals
        while True:
            now = max(self.begin, min(ends[0][0] if ends else inf, arrivals[0][0] if arrivals else inf, self.wake))
            if now == inf:
                return
            given = now >= self.wake
            self.wake = inf if given else self.wake
            while ends and ends[0][0] <= now:
                job = heappop(ends)[1]
                self.pool.give(self.running.pop(job)[1])
                given = True
                self._fire(job, False, now)
            came: list[Key] = []
            while arrivals and arrivals[0][0] <= now:
                came.append(self._arrive(heappop(arrivals)[2], now))
            if given:
                self.fresh = False
            again = True
            while again:
                again = False
                for lane, placed in self._plans(came, now):
                    again = again or (bool(placed) and lane.limited)
                    yield from self._begin(lane, placed, now)
                came = []

    def _expect(self, work: Work) -> None:
        """Work out what it waits for. Who can never run is not waited for by those behind him, nor let into a line."""
        if self.pool.satisfiable(work.request) is not None:
            return
        groups = 0
        for number, group in enumerate(work.after):
            if all(one.job in self.works or (one.job in self.running and not one.start) for one in group):
                groups += 1
                for one in group:
                    self.dependents.setdefault((one.job, one.start), []).append((work.job, number, one.delay_s))
        if groups:
            self.unmet[work.job] = groups
        else:
            self.arrivals.append((work.submit, work.order, work.job))

    def _fire(self, job: int, start: bool, now: float) -> None:
        """A job has started, or ended: others may have waited for it."""
        for other, group, delay_s in self.dependents.pop((job, start), ()):
            if (other, group) in self.met:
                continue
            self.met.add((other, group))
            self.when[other] = max(self.when.get(other, -inf), now + delay_s)
            self.unmet[other] -= 1
            if not self.unmet[other]:
                work = self.works[other]
                heappush(self.arrivals, (max(work.submit, self.when[other]), work.order, other))

    def _arrive(self, job: int, now: float) -> Key:
        work = self.works[job]
        self.ready[job] = max(work.submit, self.when.get(job, work.submit))
        key = (-work.priority, work.order, job)
        lane = self.lanes.get(work.queue)
        if lane is None:
            policy = self.policy if isinstance(self.policy, Policy) else self.policy(work.queue)
            lane = self.lanes[work.queue] = _Lane(policy, len(self.works), self.thorough)
        lane.add(key, Pending(job, work.priority, work.order, work.request, work.limit_s))
        return key

    def _hold(self, job: int, end: float, expiration: float, claims: tuple[Claim, ...]) -> None:
        self.running[job] = (expiration, claims)
        heappush(self.ends, (end, job))
        if expiration:
            heappush(self.expirations, (expiration, job))

    def _holders(self) -> Iterator[Holder]:
        return ((job, expiration, claims) for job, (expiration, claims) in self.running.items())

    def _begin(self, lane: _Lane, placed: Sequence[Place], now: float) -> Iterator[Begun]:
        """Jobs were placed: they leave the line and hold what they got."""
        keys = []
        for place in placed:
            work = self.works[place.job]
            key = (-work.priority, work.order, work.job)
            lane.remove(key)
            keys.append(key)
            expiration = now + work.limit_s if work.limit_s else 0.0
            self._hold(work.job, now + work.run_s, expiration, place.claims)
        first = lane.keys[0] if lane.keys else LAST
        for place, key in zip(placed, keys, strict=True):
            self._fire(place.job, True, now)
            yield Begun(place.job, self.ready.pop(place.job), now, now + self.works[place.job].run_s, place.claims, key > first)

    # -- who is asked ---------------------------------------------------------------------------------------------

    def _plans(self, came: list[Key], now: float) -> Iterator[tuple[_Lane, list[Place]]]:
        """What is placed at this moment, by lane."""
        lanes = [lane for lane in self.lanes.values() if lane.keys]
        if not lanes:
            return
        if len(lanes) == 1 and lanes[0].backfill:
            yield from self._newcomers(lanes[0], sorted(came), now)
        elif any(self._may_start(lane) for lane in lanes):
            yield from self._ask(lanes, now)

    def _may_start(self, lane: _Lane) -> bool:
        """Whether a plan might place somebody of this lane, as far as can be told without making one."""
        if lane.fcfs:
            return self._fits(lane.entries[lane.keys[0]].request)
        return not lane.backfill or lane.remembers or bool(self._fitting(lane))

    def _newcomers(self, lane: _Lane, came: list[Key], now: float) -> Iterator[tuple[_Lane, list[Place]]]:
        """Backfill with one line. came: keys of those who have just come, in order.

        As long as the last plan holds, who comes last in the line is planned by himself behind it. Where nobody waits, there is
        nothing to respect.
        """
        if len(lane.keys) == len(came):
            while came and self._fits(lane.entries[came[0]].request):
                self.pool.timeline, self.pool.holders = None, tuple
                placed = self._by_itself(lane, came.pop(0), now, 0)
                self.pool.holders = self._holders
                self.fresh = False
                yield lane, placed
        tail = came and lane.keys[len(lane.keys) - len(came)] == came[0]
        if lane.remembers:  # those who wait for their time have the first choice where he fits
            tail = tail and not any(self._fits(lane.entries[key].request) for key in came)
        if self.fresh and (tail or not came) and self._soonest() > now + OVERDUE_S and self._none_due(now):
            depth = getattr(lane.policy, "queue_depth", inf)
            for key in came:
                if bisect_left(lane.keys, key) < depth:
                    yield lane, self._by_itself(lane, key, now, lane.left)
        elif lane.keys and ((fitting := self._fitting(lane)) or lane.remembers):
            yield from self._ask_one(lane, fitting, now)
        elif came:
            self.fresh = False

    def _soonest(self) -> float:
        """When the first of those that run is over by his limit, from when on plans shift with the clock."""
        while self.expirations:
            expiration, job = self.expirations[0]
            if self.running.get(job, (0.0, ()))[0] == expiration:
                return expiration
            heappop(self.expirations)
        return inf

    def _by_itself(self, lane: _Lane, key: Key, now: float, left: float) -> list[Place]:
        """A plan of one job, behind all that the pool's timeline knows."""
        timeline = self.pool.timeline
        if isinstance(timeline, Timeline):
            timeline.now = now
        placed = []
        for decision in Backfill(int(min(left, 1)), 1).plan([lane.entries[key]], self.pool, now):
            if isinstance(decision, Place):
                placed.append(decision)
            elif isinstance(decision, Reserve):
                self._reserved(lane, decision, now)
        self.fresh = self.fresh and self._lasts(now)
        return placed

    def _reserved(self, lane: _Lane, decision: Reserve, now: float) -> None:
        """Somebody was told a time. Where he waits for nothing but that, no end will bring it about that he is looked at then."""
        lane.left -= 1
        if decision.code == Code.AHEAD and decision.start > now:
            self.wake = min(self.wake, decision.start)

    def _none_due(self, now: float) -> bool:
        timeline = self.pool.timeline
        return isinstance(timeline, Timeline) and (not timeline.reserved or timeline.reserved[0].start > now)

    def _lasts(self, now: float) -> bool:
        """Whether no reservation waits for somebody without a limit: such ones shift with the clock, too."""
        timeline = self.pool.timeline
        return isinstance(timeline, Timeline) and (not timeline.reserved or timeline.reserved[-1].start < now + FOREVER_S / 2)

    def _fits(self, request: Request) -> bool:
        """Whether it fits now, were nothing reserved."""
        pool, flat = self.pool, request.flat
        if flat is not None and not flat.exclusive and pool.by_counts(request):
            return pool.fits(request, pool.free, pool.usable) is None
        return bool(pool.match(request))

    def _fitting(self, lane: _Lane) -> list[list[Key]]:
        """The keys of jobs that would fit now, were nothing reserved; a list for each request."""
        free = self.pool.free.cores.total()
        idle = (self.pool.idle & self.pool.usable).bit_count()
        found = []
        for request, keys in lane.kinds.items():
            flat = request.flat
            if least_cores(request) > free or (flat is not None and flat.exclusive and flat.nnodes > idle):
                continue
            if self._fits(request):
                found.append(keys)
        return found

    def _ask_one(self, lane: _Lane, fitting: list[list[Key]], now: float) -> Iterator[tuple[_Lane, list[Place]]]:
        """A whole plan of one line under a backfill policy. Once it has made its reservations it passes over who does not fit
        without a word, so these are not shown to it."""
        policy = lane.policy
        assert isinstance(policy, Backfill)
        lane.left = policy.reservation_depth
        keys = lane.keys if len(lane.keys) <= policy.queue_depth else lane.keys[: policy.queue_depth]
        end = keys[-1]

        def feed() -> Iterator[Pending]:
            for key in keys:
                yield lane.entries[key]
                if lane.left <= 0:
                    break
            else:
                return
            rest = ([*kind[bisect_right(kind, key) : bisect_right(kind, end)]] for kind in fitting)
            for key in merge(*rest):
                yield lane.entries[key]

        self.pool.timeline, self.wake = None, inf
        placed = []
        for decision in policy.plan(feed(), self.pool, now):
            if isinstance(decision, Place):
                placed.append(decision)
            elif isinstance(decision, Reserve):
                self._reserved(lane, decision, now)
        self.fresh = self._lasts(now) and not (placed and lane.limited)
        yield lane, placed

    def _ask(self, lanes: list[_Lane], now: float) -> Iterator[tuple[_Lane, list[Place]]]:
        """A whole plan of all lines, as the live planner makes it."""
        self.pool.timeline, self.wake = None, inf
        self.fresh = False
        feeds = [_Feed(lane) for lane in lanes]
        if len(feeds) == 1:
            decisions = lanes[0].policy.plan(feeds[0], self.pool, now)
        elif self.turns is not None:
            decisions = self.turns(feeds, lambda feed: feed.policy.plan(feed, self.pool, now))
        else:
            raise ValueError("several queues need `turns`")
        placed: dict[int, Place] = {}
        for decision in decisions:
            if isinstance(decision, Reserve):
                self._reserved(lanes[0], decision, now)
            elif isinstance(decision, Place):
                if decision.job not in self.ready or decision.job in placed:
                    raise Rejected(
                        f"the policy places job {decision.job!r}, which is not in line", code="bad-policy",
                        hint="schedulers/policy_contract.py checks a policy",
                    )  # fmt: skip
                placed[decision.job] = decision
        by_lane: dict[str, list[Place]] = {}
        for place in placed.values():
            by_lane.setdefault(self.works[place.job].queue, []).append(place)
        for queue, places in by_lane.items():
            yield self.lanes[queue], places
