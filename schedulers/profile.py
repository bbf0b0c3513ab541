"""What is free on each node from now on, as steps: the earliest time at which a flat request fits beside what runs and what is
reserved. Pure.

What runs only ends, so without reservations the room for a request grows with time, and its growth is a sorted list, made once for
each kind of request; what is reserved is looked at exactly, node by node, where that room alone might do. No time is looked at
that cannot be the answer: after a look that found too little, the next is where enough may have come free at the earliest.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from ..journal.claims import Claim
from .request import Flat, Request
from .resources import Pool
from .stock import lowest, positions

FOR_EVER = float("inf")
Free = tuple[int, int, int]  # masks of cores and GPUs, MB


class Kept(NamedTuple):
    """A reservation by positions: [start, end), and on each node what it holds."""

    start: float
    end: float
    job: int
    held: dict[int, Free]


class _Need(NamedTuple):
    """What one unit of a request is: a whole node's share, or a slot. total: how many are asked for."""

    total: int
    cores: int
    gpus: int
    memory_mb: int
    by_node: bool
    exclusive: bool


class _Growth(NamedTuple):
    """When units come free, what runs being all there is. times ascending; units[k]: how many there are from times[k] on."""

    times: list[float]
    units: list[int]


class Profile:
    """pool: what is free now. running: (end, claims), in the order of their ends."""

    def __init__(self, pool: Pool, now: float, running: Iterable[tuple[float, Sequence[Claim]]]) -> None:
        self.pool = pool
        self.now = now
        memory = pool.free.memory.counts
        self._times: list[list[float]] = [[now] for _ in pool.nodes]
        self._free: list[list[Free]] = [[free] for free in zip(pool.core_free, pool.gpu_free, memory, strict=True)]
        index, nodes = pool.index, pool.nodes
        for end, claims in running:
            for claim in claims:
                i = index.get(claim[0])
                if i is None:  # on a node that has left the inventory
                    continue
                node, (cores, gpus, memory_mb) = nodes[i], self._free[i][-1]
                self._times[i].append(end)
                self._free[i].append(
                    (cores | (claim[1] & node.cores), gpus | (claim[2] & node.gpus), min(node.memory_mb, memory_mb + claim[3]))
                )
        self._kept: dict[int, Kept] = {}  # by job
        self._on: dict[int, dict[int, Kept]] = {}  # position -> job -> its reservation there
        self._growth: dict[tuple[_Need, bytes], _Growth] = {}
        self._changed: set[int] = set()  # positions of which growths say too much
        self._least: dict[bytes, tuple[float, float]] = {}  # request -> (length, start): no earlier for one that is as long

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
            self._changed.add(i)

    def keep(self, job: int, start: float, end: float, claims: Iterable[Claim]) -> None:
        """Reserve this."""
        held = {self.pool.index[claim[0]]: (claim[1], claim[2], claim[3]) for claim in claims}
        kept = self._kept[job] = Kept(start, end, job, held)
        for i in held:
            self._on.setdefault(i, {})[job] = kept

    # -- what it answers ------------------------------------------------------------------------------------------

    def holds(self, claims: Iterable[Claim], start: float, end: float) -> bool:
        """Whether exactly this is free in all of [start, end)."""
        for claim in claims:
            i = self.pool.index.get(claim[0])
            if i is None or not self.pool.usable >> i & 1:
                return False
            cores, gpus, memory_mb = self._in(i, start, end)
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
        known, start = self._least.get(request.key, (FOR_EVER, 0.0))
        moment = max(self._after(self.now), start if known <= length else 0.0)
        while moment < FOR_EVER:
            moment = self._not_before(growth, need.total, moment)
            if moment == FOR_EVER:
                return None
            short = need.total - self._room(need, growth, among, moment, moment + length)
            if short <= 0:
                self._least[request.key] = (length, moment)
                return moment, self._pick(flat, need, among, moment, moment + length)
            moment = self._when_more(need, growth, short, moment)
        return None

    # -- looks ----------------------------------------------------------------------------------------------------

    def _in(self, i: int, start: float, end: float) -> Free:
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

    def _units(self, need: _Need, i: int, free: Free) -> int:
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
    def _serves(need: _Need, free: Free) -> bool:
        return free[0].bit_count() >= need.cores and free[1].bit_count() >= need.gpus and free[2] >= need.memory_mb

    def _grown(self, need: _Need, constraint_key: bytes, among: int) -> _Growth:
        key = (need._replace(total=0), constraint_key)
        found = self._growth.get(key)
        if found is None:
            gains: list[tuple[float, int]] = []
            for i in positions(among):
                had = 0
                for time, free in zip(self._times[i], self._free[i], strict=True):
                    units = self._units(need, i, free)
                    if units > had:
                        gains.append((time, units - had))
                        had = units
                        if need.by_node:
                            break
            gains.sort()
            found = self._growth[key] = _Growth([time for time, _ in gains], list(accumulate(gain for _, gain in gains)))
        return found

    def _after(self, moment: float) -> float:
        """Windows begin when something ends: the first such time after this one."""
        later = [times[at] for times in self._times if (at := bisect_right(times, moment)) < len(times)]
        ends = [kept.end for kept in self._kept.values() if kept.end > moment]
        return min(min(later, default=FOR_EVER), min(ends, default=FOR_EVER))

    @staticmethod
    def _not_before(growth: _Growth, total: int, moment: float) -> float:
        """The first time, not before this one, at which there would be as many units if nothing were reserved."""
        at = bisect_left(growth.units, total)
        return FOR_EVER if at == len(growth.units) else max(moment, growth.times[at])

    def _room(self, need: _Need, growth: _Growth, among: int, start: float, end: float) -> int:
        """How many units there are in all of [start, end): exact where it is less than what is asked for."""
        at = bisect_right(growth.times, start)
        units = growth.units[at - 1] if at else 0
        within = [kept for kept in self._kept.values() if kept.start < end and kept.end > start]
        touched = set(self._changed)
        for kept in within:
            touched.update(kept.held)
        for i in touched:
            if among >> i & 1:
                units -= self._units(need, i, self._free_as_known(i, start)) - self._units(need, i, self._in(i, start, end))
        return units

    def _free_as_known(self, i: int, moment: float) -> Free:
        return self._free[i][bisect_right(self._times[i], moment) - 1]

    def _when_more(self, need: _Need, growth: _Growth, short: int, moment: float) -> float:
        """The first time after this one at which so many units more may have come free."""
        at = bisect_right(growth.times, moment)
        have = growth.units[at - 1] if at else 0
        ends = sorted((kept.end, kept) for kept in self._kept.values() if kept.end > moment)
        back, reached = 0, moment
        for end, kept in ends:
            by_itself = self._reached(growth, have + short - back)
            if by_itself <= end:
                return max(by_itself, self._after(reached)) if by_itself <= reached else by_itself
            back += self._most_units(need, kept)
            reached = end
            if back >= short:
                return end
        return self._reached(growth, have + short - back)

    @staticmethod
    def _reached(growth: _Growth, units: int) -> float:
        at = bisect_left(growth.units, units)
        return growth.times[at] if at < len(growth.times) else FOR_EVER

    @staticmethod
    def _most_units(need: _Need, kept: Kept) -> int:
        if need.by_node or need.gpus or need.memory_mb:
            return len(kept.held) if need.by_node else FOR_EVER_UNITS
        return sum(held[0].bit_count() // need.cores + 1 for held in kept.held.values())

    def _pick(self, flat: Flat, need: _Need, among: int, start: float, end: float) -> tuple[Claim, ...]:
        """The claims, lowest positions first: as `Pool.match` would, were it then."""
        left, claims = need.total, []
        for i in positions(among):
            free = self._in(i, start, end)
            units = min(left, self._units(need, i, free))
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


FOR_EVER_UNITS = 1 << 60


def _need(flat: Flat) -> _Need:
    if not flat.nnodes:
        return _Need(flat.nslots, flat.cores, flat.gpus, flat.memory_mb, False, False)
    slots = flat.slots_per_node
    memory_mb = slots * flat.memory_mb + flat.node_memory_mb
    return _Need(flat.nnodes, slots * flat.cores, slots * flat.gpus, memory_mb, True, flat.exclusive)
