"""What is free on each node from now on, as steps: the earliest time at which a flat request fits beside what runs and what is
reserved. Pure.

What runs only ends, so without reservations the room for a request grows with time, and its growth is a sorted list, made once for
each kind of request; what is reserved is looked at exactly, node by node, where that room alone might do. No time is looked at
that cannot be the answer: after a look that found too little, the next is where enough may have come free at the earliest.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from ..journal.claims import Claim
from .looks import Look
from .request import Flat, Request
from .resources import Pool
from .stock import lowest, positions

FOR_EVER = float("inf")
Free = tuple[int, int, int]  # masks of cores and GPUs, MB


class Kept(NamedTuple):
    """A reservation by positions: [start, end), on each node what it holds, and how many cores in all."""

    start: float
    end: float
    job: int
    held: dict[int, Free]
    cores: int


def _end_of(kept: Kept) -> float:
    return kept.end


def _start_of(kept: Kept) -> float:
    return kept.start


class Need(NamedTuple):
    """What one unit of a request is: a whole node's share, or a slot. total: how many are asked for."""

    total: int
    cores: int
    gpus: int
    memory_mb: int
    by_node: bool
    exclusive: bool

    def within(self, other: Need) -> bool:
        """Whether whatever serves the other would serve this one."""
        alike = self.by_node == other.by_node and self.exclusive == other.exclusive
        return alike and all(mine <= its for mine, its in zip(self[:4], other[:4], strict=True))


class Growth(NamedTuple):
    """When units come free, what runs being all there is. times ascending; units[k]: how many there are from times[k] on."""

    times: list[float]
    units: list[int]

    def reached(self, units: int) -> float:
        """When there are so many."""
        at = bisect_left(self.units, units)
        return self.times[at] if at < len(self.times) else FOR_EVER


class Profile:
    """pool: what is free now. running: (end, claims), in the order of their ends."""

    def __init__(self, pool: Pool, now: float, running: Iterable[tuple[float, Sequence[Claim]]]) -> None:
        self.pool = pool
        self.now = now
        memory = pool.free.memory.counts
        self._times: list[list[float]] = [[now] for _ in pool.nodes]
        last: list[Free] = list(zip(pool.core_free, pool.gpu_free, memory, strict=True))
        self._free: list[list[Free]] = [[free] for free in last]
        self._ends: list[float] = []  # each once, ascending
        self._begin(running, last)
        self._counts = [[cores.bit_count() for cores, _, _ in free] for free in self._free]
        self.kept: dict[int, Kept] = {}  # by job
        self.by_end: list[Kept] = []
        self.by_start: list[Kept] = []
        self._on: dict[int, dict[int, Kept]] = {}  # position -> job -> its reservation there
        self._growth: dict[tuple[Need, bytes], Growth] = {}
        # (constraint, what, length, start): who asks for no less of everything begins no earlier in this plan.
        self._least: list[tuple[bytes, Need, float, float]] = []
        self._freed: list[int] | None = None
        self._events: list[tuple[float, int]] | None = None
        self._totals: tuple[list[float], list[int], list[float], list[int], list[int]] | None = None

    def _begin(self, running: Iterable[tuple[float, Sequence[Claim]]], last: list[Free]) -> None:
        """Who runs ends, one after the other. last: what is free before."""
        index, times, steps, ends, before = self.pool.index, self._times, self._free, self._ends, -FOR_EVER
        whole = [(node.cores, node.gpus, node.memory_mb) for node in self.pool.nodes]
        for end, claims in running:
            for claim in claims:
                i = index.get(claim[0])
                if i is None:  # on a node that has left the inventory
                    continue
                if end != before:
                    ends.append(end)
                    before = end
                cores, gpus, memory_mb = last[i]
                its_cores, its_gpus, its_memory_mb = whole[i]
                cores |= claim[1] & its_cores
                if claim[2] or claim[3]:
                    gpus, memory_mb = gpus | (claim[2] & its_gpus), min(its_memory_mb, memory_mb + claim[3])
                last[i] = free = (cores, gpus, memory_mb)
                times[i].append(end)
                steps[i].append(free)

    # -- what it is told ------------------------------------------------------------------------------------------

    def begun(self, claims: Iterable[Claim], end: float) -> None:
        """A job begins now, and holds this until `end`."""
        for claim in claims:
            i = self.pool.index[claim[0]]
            times, free = self._times[i], self._free[i]
            at = bisect_right(times, end)
            times.insert(at, end)
            free.insert(at, free[at - 1])
            for k in range(at):
                cores, gpus, memory_mb = free[k]
                free[k] = (cores & ~claim[1], gpus & ~claim[2], memory_mb - claim[3])
            self._counts[i] = [cores.bit_count() for cores, _, _ in free]
        self._growth.clear()
        self._freed = self._events = self._totals = None
        insort(self._ends, end)

    def keep(self, job: int, start: float, end: float, claims: Iterable[Claim]) -> None:
        """Reserve this."""
        held = {self.pool.index[claim[0]]: (claim[1], claim[2], claim[3]) for claim in claims}
        kept = self.kept[job] = Kept(start, end, job, held, sum(free[0].bit_count() for free in held.values()))
        for i in held:
            self._on.setdefault(i, {})[job] = kept
        insort(self._ends, end)
        insort(self.by_end, kept, key=_end_of)
        insort(self.by_start, kept, key=_start_of)
        self._totals = None

    def release(self, job: int) -> None:
        """A reservation is not needed any more."""
        kept = self.kept.pop(job, None)
        if kept is None:
            return
        self.by_end.remove(kept)
        self.by_start.remove(kept)
        for i in kept.held:
            del self._on[i][job]
        self._totals = None
        self._least.clear()

    # -- what it answers ------------------------------------------------------------------------------------------

    def holds(self, claims: Iterable[Claim], start: float, end: float) -> bool:
        """Whether exactly this is free in all of [start, end)."""
        for claim in claims:
            i = self.pool.index.get(claim[0])
            if i is None or not self.pool.usable >> i & 1:
                return False
            cores, gpus, memory_mb = self.free_in(i, start, end)
            if claim[1] & ~cores or claim[2] & ~gpus or claim[3] > memory_mb:
                return False
        return True

    def earliest(self, request: Request, length: float) -> tuple[float, tuple[Claim, ...]] | None:
        """(start, claims) of the first window of this length in which the request fits, later than now; None if there is none."""
        flat = request.flat
        assert flat is not None
        need = _need(flat)
        among = self.pool.usable & self.pool.matching(request)
        growth = self._grown(need, request.constraint_key, among)
        moment = self._known_least(need, request.constraint_key, length)
        cores, look = need.total * need.cores, Look(self, need, growth, among, length)
        while (moment := self._not_before(growth, need.total, moment)) < FOR_EVER:
            if moment <= self.now:  # what fits now is no reservation
                moment = self._next_end(moment)
                continue
            blocked = self._blocked(cores, moment, moment + length)
            if blocked:
                moment = self._next_end(blocked)
                continue
            short = need.total - look.room(moment)
            if short <= 0:
                self._least.append((request.constraint_key, need, length, moment))
                return moment, self._pick(flat, need, among, moment, moment + length)
            moment = look.when_more(short)
        return None

    # -- looks ----------------------------------------------------------------------------------------------------

    def free_in(self, i: int, start: float, end: float) -> Free:
        """What is free on a node in all of [start, end)."""
        free = self._free[i][bisect_right(self._times[i], start) - 1]
        on = self._on.get(i)
        if not on:
            return free
        cores, gpus, memory_mb = free
        within: list[Kept] = []
        for kept in on.values():
            if kept.start < end and kept.end > start:
                held = kept.held[i]
                cores &= ~held[0]
                gpus &= ~held[1]
                if held[2]:
                    within.append(kept)
        if within:  # the most of it that is held at any one time
            memory_mb -= max(sum(one.held[i][2] for one in within if one.start <= max(at.start, start) < one.end) for at in within)
        return cores, gpus, memory_mb

    def units(self, need: Need, i: int, free: Free) -> int:
        cores, gpus, memory_mb = free
        if need.exclusive:
            node = self.pool.nodes[i]
            return int(cores == node.cores and gpus == node.gpus and memory_mb == node.memory_mb and self._serves(need, free))
        if need.by_node:
            return int(self._serves(need, free))
        units = cores.bit_count() // need.cores
        if units and need.gpus:
            units = min(units, gpus.bit_count() // need.gpus)
        if units and need.memory_mb:
            units = min(units, memory_mb // need.memory_mb)
        return max(units, 0)

    @staticmethod
    def _serves(need: Need, free: Free) -> bool:
        return free[0].bit_count() >= need.cores and free[1].bit_count() >= need.gpus and free[2] >= need.memory_mb

    def _grown(self, need: Need, constraint_key: bytes, among: int) -> Growth:
        key = (need._replace(total=0), constraint_key)
        found = self._growth.get(key)
        if found is None:
            gains: list[tuple[float, int]] = []
            simple = not (need.gpus or need.memory_mb or need.exclusive)
            for i in positions(among):
                times, had = self._times[i], 0
                if simple and need.by_node:
                    at = bisect_left(self._counts[i], need.cores)
                    if at < len(times):
                        gains.append((times[at], 1))
                    continue
                if simple:
                    units = [count // need.cores for count in self._counts[i]]
                else:
                    units = [self.units(need, i, free) for free in self._free[i]]
                for time, here in zip(times, units, strict=True):
                    if here > had:
                        gains.append((time, here - had))
                        had = here
            gains.sort()
            found = self._growth[key] = Growth([time for time, _ in gains], list(accumulate(gain for _, gain in gains)))
        return found

    def _known_least(self, need: Need, constraint_key: bytes, length: float) -> float:
        found = self.now
        for key, less, as_long, start in self._least:
            if start > found and as_long <= length and key == constraint_key and less.within(need):
                found = start
        return found

    def _next_end(self, moment: float) -> float:
        """When something ends, the first time after this one."""
        at = bisect_right(self._ends, moment)
        return self._ends[at] if at < len(self._ends) else FOR_EVER

    def _blocked(self, cores: int, start: float, end: float) -> float:
        """A moment in [start, end) at which not even so many cores are free in all, 0.0 if there is none: the latest."""
        if self._totals is None:
            self._count()
            assert self._totals is not None
        begins, begun, ends, ended, left = self._totals
        low, high = bisect_right(begins, start), bisect_left(begins, end)
        if low < high and min(left[low:high]) < cores:
            return next(begins[at] for at in range(high - 1, low - 1, -1) if left[at] < cores)
        held = (begun[low - 1] if low else 0) - (ended[back - 1] if (back := bisect_right(ends, start)) else 0)
        return start if self._all_free(start) - held < cores else 0.0

    def _all_free(self, moment: float) -> int:
        """How many cores what runs leaves free then."""
        if self._freed is None:
            gains: dict[float, int] = {}
            for i in range(len(self._times)):
                had = 0
                for time, count in zip(self._times[i], self._counts[i], strict=True):
                    gains[time] = gains.get(time, 0) + count - had
                    had = count
            self._freed_at = sorted(gains)
            self._freed = list(accumulate(gains[time] for time in self._freed_at))
        at = bisect_right(self._freed_at, moment)
        return self._freed[at - 1] if at else 0

    def _count(self) -> None:
        """Cores reserved, by begin and by end, added up; and how many are free just after each begin."""
        begins, begun = _added((kept.start, kept.cores) for kept in self.by_start)
        ends, ended = _added((kept.end, kept.cores) for kept in self.by_end)
        over = [ended[back - 1] if (back := bisect_right(ends, moment)) else 0 for moment in begins]
        left = [self._all_free(moment) - held + gone for moment, held, gone in zip(begins, begun, over, strict=True)]
        self._totals = begins, begun, ends, ended, left

    @staticmethod
    def _not_before(growth: Growth, total: int, moment: float) -> float:
        """The first time, not before this one, at which there would be as many units if nothing were reserved."""
        return max(moment, growth.reached(total))

    def next_end(self, i: int, moment: float, end: float) -> float:
        """The first end on a node after `moment`, of those that run and of what is reserved there in [moment, end)."""
        times = self._times[i]
        at = bisect_right(times, moment)
        found = times[at] if at < len(times) else FOR_EVER
        for kept in self._on[i].values():
            if moment < kept.end < found and kept.start < end:
                found = kept.end
        return found

    def ending(self, after: float, until: float) -> set[int]:
        """The positions at which somebody ends in (after, until]."""
        if self._events is None:
            self._events = sorted((time, i) for i, times in enumerate(self._times) for time in times[1:])
        low, high = bisect_right(self._events, (after, len(self._times))), bisect_right(self._events, (until, len(self._times)))
        return {i for _, i in self._events[low:high]}

    def fewer(self, need: Need, i: int, start: float, end: float) -> int:
        """How many units there are less on a node in all of [start, end) for what is reserved there."""
        at = bisect_right(self._times[i], start) - 1
        if need.gpus or need.memory_mb or need.exclusive:
            return self.units(need, i, self._free[i][at]) - self.units(need, i, self.free_in(i, start, end))
        cores = self._free[i][at][0]
        for kept in self._on[i].values():
            if kept.start < end and kept.end > start:
                cores &= ~kept.held[i][0]
        had, has = self._counts[i][at], cores.bit_count()
        if need.by_node:
            return int(had >= need.cores > has)
        return had // need.cores - has // need.cores

    def _pick(self, flat: Flat, need: Need, among: int, start: float, end: float) -> tuple[Claim, ...]:
        """The claims, lowest positions first: as `Pool.match` would, were it then."""
        left, claims = need.total, []
        touched: set[int] = set()
        for kept in self.kept.values():
            if kept.start < end and kept.end > start:
                touched.update(kept.held)
        for i in positions(among):
            at = bisect_right(self._times[i], start) - 1
            if self._counts[i][at] < need.cores:
                continue
            free = self.free_in(i, start, end) if i in touched else self._free[i][at]
            units = min(left, self.units(need, i, free))
            if not units:
                continue
            left -= units
            node = self.pool.nodes[i]
            if flat.exclusive:
                claims.append(Claim(node.rank, node.cores, node.gpus, node.memory_mb, flat.slots_per_node))
            else:
                slots = flat.slots_per_node if need.by_node else units
                memory_mb = slots * flat.memory_mb + (flat.node_memory_mb if need.by_node else 0)
                gpus = lowest(free[1], slots * flat.gpus) if flat.gpus else 0
                claims.append(Claim(node.rank, lowest(free[0], slots * flat.cores), gpus, memory_mb, slots))
            if not left:
                break
        return tuple(claims)


def _added(amounts: Iterable[tuple[float, int]]) -> tuple[list[float], list[int]]:
    """Times, and what has come together by then. amounts: in the order of their times."""
    pairs = list(amounts)
    return [time for time, _ in pairs], list(accumulate(amount for _, amount in pairs))


def _need(flat: Flat) -> Need:
    if not flat.nnodes:
        return Need(flat.nslots, flat.cores, flat.gpus, flat.memory_mb, False, False)
    slots = flat.slots_per_node
    memory_mb = slots * flat.memory_mb + flat.node_memory_mb
    return Need(flat.nnodes, slots * flat.cores, slots * flat.gpus, memory_mb, True, flat.exclusive)
