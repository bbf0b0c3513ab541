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
from .looks import FOR_EVER, Look
from .request import Flat, Request
from .resources import Pool
from .stock import lowest, positions

LOOKS = 64  # kinds of requests for which is remembered how far one has looked
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


class Growth:
    """When units come free, what runs being all there is. times ascending; units[k]: how many there are from times[k] on.

    firsts: ascending, when there is one on a node, and its position: `nodes[k]` has one from `firsts[k]` on. gains: (when, how many
    more, position). seen: of how many changes of a profile's nodes this is.
    """

    __slots__ = ("firsts", "gains", "nodes", "seen", "times", "units")

    def __init__(self, gains: list[tuple[float, int, int]], firsts: list[tuple[float, int]], seen: int) -> None:
        gains.sort()
        firsts.sort()
        self.gains, self.seen = gains, seen
        self.times = [time for time, _, _ in gains]
        self.units = list(accumulate([units for _, units, _ in gains]))
        self.firsts = [time for time, _ in firsts]
        self.nodes = [i for _, i in firsts]

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
        self.times: list[list[float]] = [[now] for _ in pool.nodes]
        last: list[Free] = list(zip(pool.core_free, pool.gpu_free, memory, strict=True))
        self.free: list[list[Free]] = [[free] for free in last]
        self._ends: list[float] = []  # each once, ascending
        self._begin(running, last)
        self.counts = [[cores.bit_count() for cores, _, _ in free] for free in self.free]
        self.kept: dict[int, Kept] = {}  # by job
        self.by_end: list[Kept] = []
        self.by_start: list[Kept] = []
        #: Position -> what is reserved there: (start, end, mask of cores, of GPUs, MB, job). Every position has a list, so that the
        #: many looks need not ask.
        self.on: list[list[tuple[float, float, int, int, int, int]]] = [[] for _ in pool.nodes]
        self._growth: dict[tuple[Need, bytes], Growth] = {}
        self._touched: list[int] = []  # positions at which somebody has begun since, one after the other
        self._looks: dict[tuple[Need, bytes, float], Look] = {}
        # (constraint, what, length, start): who asks for no less of everything begins no earlier in this plan.
        self._least: list[tuple[bytes, Need, float, float]] = []

    def _begin(self, running: Iterable[tuple[float, Sequence[Claim]]], last: list[Free]) -> None:
        """Who runs ends, one after the other. last: what is free before."""
        index, times, steps, ends, before = self.pool.index, self.times, self.free, self._ends, -FOR_EVER
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
            times, free = self.times[i], self.free[i]
            at = bisect_right(times, end)
            times.insert(at, end)
            free.insert(at, free[at - 1])
            for k in range(at):
                cores, gpus, memory_mb = free[k]
                free[k] = (cores & ~claim[1], gpus & ~claim[2], memory_mb - claim[3])
            self.counts[i] = [cores.bit_count() for cores, _, _ in free]
            self._touched.append(i)
        self._looks.clear()
        insort(self._ends, end)

    def keep(self, job: int, start: float, end: float, claims: Iterable[Claim]) -> None:
        """Reserve this."""
        held = {self.pool.index[claim[0]]: (claim[1], claim[2], claim[3]) for claim in claims}
        kept = self.kept[job] = Kept(start, end, job, held, sum(free[0].bit_count() for free in held.values()))
        for i, one in held.items():
            self.on[i].append((start, end, *one, job))
        insort(self.by_end, kept, key=_end_of)
        insort(self.by_start, kept, key=_start_of)
        for look in self._looks.values():
            look.joined(kept)

    def release(self, job: int) -> None:
        """A reservation is not needed any more."""
        kept = self.kept.pop(job, None)
        if kept is None:
            return
        self.by_end.remove(kept)
        self.by_start.remove(kept)
        for i in kept.held:
            self.on[i] = [one for one in self.on[i] if one[5] != job]
        self._least.clear()
        self._looks.clear()

    def go_on(self, now: float) -> None:
        """It is later, and nothing is reserved any more."""
        self.now = now
        for i in {i for kept in self.kept.values() for i in kept.held}:
            self.on[i] = []
        self.kept, self.by_start, self.by_end = {}, [], []
        self._least.clear()
        self._looks.clear()

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
        look = self._look(need, request.constraint_key, growth, among, length, moment)
        while (moment := self._not_before(growth, need.total, moment)) < FOR_EVER:
            if moment <= self.now:  # what fits now is no reservation
                moment = self._next_end(moment)
                continue
            short = need.total - look.room(moment)
            if short <= 0:
                self._least.append((request.constraint_key, need, length, moment))
                return moment, self._pick(flat, need, growth, look, moment)
            moment = look.when_more(short)
        return None

    def _look(self, need: Need, constraint_key: bytes, growth: Growth, among: int, length: float, moment: float) -> Look:
        """One that may begin at this moment: somebody's who has asked for the same, if his window was not later."""
        key = (need._replace(total=0), constraint_key, length)
        found = self._looks.get(key)
        if found is None or found.start > moment:
            if len(self._looks) >= LOOKS:
                self._looks.clear()
            found = self._looks[key] = Look(self, need, growth, among, length)
        found.need = need
        return found

    def at(self, request: Request, start: float, length: float) -> tuple[Claim, ...] | None:
        """What the request would get in all of [start, start + length); None if it does not fit then."""
        flat = request.flat
        assert flat is not None
        need, among = _need(flat), self.pool.usable & self.pool.matching(request)
        growth = self._grown(need, request.constraint_key, among)
        look = Look(self, need, growth, among, length)
        return self._pick(flat, need, growth, look, start) if look.room(start) >= need.total else None

    # -- looks ----------------------------------------------------------------------------------------------------

    def free_in(self, i: int, start: float, end: float) -> Free:
        """What is free on a node in all of [start, end)."""
        free = self.free[i][bisect_right(self.times[i], start) - 1]
        on = self.on[i]
        if not on:
            return free
        cores, gpus, memory_mb = free
        within: list[tuple[float, float, int]] = []
        for begins, ends, its_cores, its_gpus, its_memory_mb, _ in on:
            if begins < end and ends > start:
                cores &= ~its_cores
                gpus &= ~its_gpus
                if its_memory_mb:
                    within.append((begins, ends, its_memory_mb))
        if within:  # the most of it that is held at any one time
            memory_mb -= max(
                sum(held for begins, ends, held in within if begins <= max(at, start) < ends) for at, _, _ in within
            )
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
            found = self._growth[key] = Growth(*self._gains(need, positions(among)), len(self._touched))
        elif found.seen < len(self._touched):
            changed = set(self._touched[found.seen :])
            gains, firsts = self._gains(need, [i for i in changed if among >> i & 1])
            gains += [gain for gain in found.gains if gain[2] not in changed]
            firsts += [(time, i) for time, i in zip(found.firsts, found.nodes, strict=True) if i not in changed]
            found = self._growth[key] = Growth(gains, firsts, len(self._touched))
        return found

    def _gains(self, need: Need, among: Iterable[int]) -> tuple[list[tuple[float, int, int]], list[tuple[float, int]]]:
        """Of these nodes: (when, how many units more, position), and (when there is the first one, position)."""
        gains: list[tuple[float, int, int]] = []
        firsts: list[tuple[float, int]] = []
        simple = not (need.gpus or need.memory_mb or need.exclusive)
        for i in among:
            times, had = self.times[i], 0
            if simple and need.by_node:
                at = bisect_left(self.counts[i], need.cores)
                if at < len(times):
                    gains.append((times[at], 1, i))
                    firsts.append((times[at], i))
                continue
            if simple:
                units = [count // need.cores for count in self.counts[i]]
            else:
                units = [self.units(need, i, free) for free in self.free[i]]
            for time, here in zip(times, units, strict=True):
                if here > had:
                    if not had:
                        firsts.append((time, i))
                    gains.append((time, here - had, i))
                    had = here
        return gains, firsts

    def _known_least(self, need: Need, constraint_key: bytes, length: float) -> float:
        found = self.now
        for key, less, as_long, start in self._least:
            if start > found and as_long <= length and key == constraint_key and less.within(need):
                found = start
        return found

    def _next_end(self, moment: float) -> float:
        """When something ends, the first time after this one."""
        at, then = bisect_right(self._ends, moment), bisect_right(self.by_end, moment, key=_end_of)
        runs = self._ends[at] if at < len(self._ends) else FOR_EVER
        return min(runs, self.by_end[then].end) if then < len(self.by_end) else runs

    @staticmethod
    def _not_before(growth: Growth, total: int, moment: float) -> float:
        """The first time, not before this one, at which there would be as many units if nothing were reserved."""
        return max(moment, growth.reached(total))

    def fewer(self, need: Need, i: int, start: float, end: float) -> int:
        """How many units there are less on a node in all of [start, end) for what is reserved there."""
        at = bisect_right(self.times[i], start) - 1
        return self.units(need, i, self.free[i][at]) - self.units(need, i, self.free_in(i, start, end))

    def _pick(self, flat: Flat, need: Need, growth: Growth, look: Look, start: float) -> tuple[Claim, ...]:
        """The claims, lowest positions first: as `Pool.match` would, were it then."""
        left, claims = need.total, []
        fewer, end = look.fewer if look.exact else None, start + look.length
        for i in sorted(growth.nodes[: bisect_right(growth.firsts, start)]):
            if fewer is not None and look.simple and i in fewer:
                had = self.counts[i][bisect_right(self.times[i], start) - 1]
                if fewer[i] >= (had >= need.cores if need.by_node else had // need.cores):
                    continue
            free = self.free_in(i, start, end)
            units = min(left, self.units(need, i, free))
            if not units:
                continue
            left -= units
            node = self.pool.nodes[i]
            if flat.exclusive:
                claims.append(self.pool.whole(i, flat.slots_per_node))
            else:
                slots = flat.slots_per_node if need.by_node else units
                memory_mb = slots * flat.memory_mb + (flat.node_memory_mb if need.by_node else 0)
                gpus = lowest(free[1], slots * flat.gpus) if flat.gpus else 0
                claims.append(Claim(node.rank, lowest(free[0], slots * flat.cores), gpus, memory_mb, slots))
            if not left:
                break
        return tuple(claims)


def _need(flat: Flat) -> Need:
    if not flat.nnodes:
        return Need(flat.nslots, flat.cores, flat.gpus, flat.memory_mb, False, False)
    slots = flat.slots_per_node
    memory_mb = slots * flat.memory_mb + flat.node_memory_mb
    return Need(flat.nnodes, slots * flat.cores, slots * flat.gpus, memory_mb, True, flat.exclusive)
