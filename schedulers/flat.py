"""What flat requests get of a pool (`resources`), and the shapes of what is asked of it. Pure arithmetic on sets and counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..journal.claims import Claim
from .request import Flat
from .stock import Stock, first, lowest, positions

if TYPE_CHECKING:
    from .resources import Pool

_new = tuple.__new__  # a claim without its constructor's argument handling: one match may make thousands


@dataclass(frozen=True, slots=True)
class Unmatched:
    """Why a request got nothing, in numbers: `found` of the `needed` nodes or slots (`what`) fit.

    code: "resources" (not now) or "unsatisfiable" (never, with these nodes). `explain` says it in full.
    False in a condition, where claims are true.
    """

    code: str
    what: str
    needed: int
    found: int

    def __bool__(self) -> bool:
        return False

    @property
    def text(self) -> str:
        """One line for people."""
        what = self.what if self.needed == 1 else f"{self.what}s"
        return f"needs {self.needed} {what}; {self.found} fit{'s' if self.found == 1 else ''}"

    @property
    def short_by(self) -> int:
        """How many more nodes or slots would do."""
        return self.needed - self.found


class Stocks(NamedTuple):
    """The counts of each kind of resource per node, either free now or in all."""

    cores: Stock
    gpus: Stock
    memory: Stock


def match_nodes(pool: Pool, flat: Flat, among: int) -> tuple[Claim, ...] | Unmatched:
    """One claim on each of the lowest nodes that can serve."""
    found = serving_nodes(flat, pool.free, among)
    if found.bit_count() < flat.nnodes:
        return Unmatched("resources", "node", flat.nnodes, found.bit_count())
    slots = flat.slots_per_node
    chosen = first(found, flat.nnodes)
    if flat.exclusive:
        whole = map(pool.nodes.__getitem__, chosen)
        return tuple([_new(Claim, (n.rank, n.cores, n.gpus, n.memory_mb, slots, ())) for n in whole])
    cores, gpus = slots * flat.cores, slots * flat.gpus
    memory_mb = slots * flat.memory_mb + flat.node_memory_mb
    core_free, gpu_free, known = pool.core_free, pool.gpu_free, dict[int, int]()
    ranks, claims = pool.ranks, []
    for i in chosen:
        mask = core_free[i]
        ids = known.get(mask)  # nodes have few different free masks
        if ids is None:
            ids = known[mask] = lowest(mask, cores)
        gpu_ids = lowest(gpu_free[i], gpus) if gpus else 0
        claims.append(_new(Claim, (ranks[i], ids, gpu_ids, memory_mb, slots, ())))
    return tuple(claims)


def match_slots(pool: Pool, flat: Flat, among: int) -> tuple[Claim, ...] | Unmatched:
    """Slots wherever they fit. They are independent, so filling up nodes in order finds a way if any."""
    found = serving_slots(flat, pool.free, among)
    if found < flat.nslots:
        return Unmatched("resources", "slot", flat.nslots, found)
    cores, gpus, memory_mb = flat.cores, flat.gpus, flat.memory_mb
    core_count, gpu_count, memory = (stock.counts for stock in pool.free)
    core_free, gpu_free, ranks = pool.core_free, pool.gpu_free, pool.ranks
    left, known = flat.nslots, dict[tuple[int, int], int]()
    claims = []
    for i in positions(among):
        n = core_count[i] // cores
        if n > left:
            n = left
        if gpus:
            n = min(n, gpu_count[i] // gpus)
        if memory_mb:
            n = min(n, memory[i] // memory_mb)
        wanted = (core_free[i], n * cores)
        ids = known.get(wanted) or known.setdefault(wanted, lowest(*wanted))
        gpu_ids = lowest(gpu_free[i], n * gpus) if gpus else 0
        claims.append(_new(Claim, (ranks[i], ids, gpu_ids, n * memory_mb, n, ())))
        left -= n
        if not left:
            break
    return tuple(claims)


def serving_nodes(flat: Flat, stocks: Stocks, among: int) -> int:
    """The positions among these that could be one of the request's nodes. Idleness is the caller's."""
    slots = flat.slots_per_node
    among &= stocks.cores.at_least(slots * flat.cores)
    if among and flat.gpus:
        among &= stocks.gpus.at_least(slots * flat.gpus)
    memory_mb = slots * flat.memory_mb + flat.node_memory_mb
    if among and memory_mb:
        among &= stocks.memory.at_least(memory_mb)
    return among


def serving_slots(flat: Flat, stocks: Stocks, among: int) -> int:
    """How many slots these positions could hold: exact below what is asked for, else at least that."""
    cores, gpus, memory_mb = flat.cores, flat.gpus, flat.memory_mb
    bound = stocks.cores.units(cores, among)
    if not gpus and not memory_mb:
        return bound
    if gpus:
        among &= stocks.gpus.at_least(gpus)
    if memory_mb:
        among &= stocks.memory.at_least(memory_mb)
    total = 0
    for i in positions(among & stocks.cores.at_least(cores)):
        n = stocks.cores.counts[i] // cores
        if gpus:
            n = min(n, stocks.gpus.counts[i] // gpus)
        if memory_mb:
            n = min(n, stocks.memory.counts[i] // memory_mb)
        total += n
        if total >= flat.nslots:
            break
    return total
