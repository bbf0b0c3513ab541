"""Is a placement of a request of any shape enough, whoever found it, and what is in each of its slots? A search on nothing but what
is claimed answers both: so neither has to stand in a journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ...journal.claims import Claim
from ..stock import positions
from .claiming import counts
from .layout import CONTAINER, CORE, GPU, NODE, Layout
from .live import LiveSearch
from .match import Candidate
from .needs import Need, of_request, ways
from .vertices import Vertex

if TYPE_CHECKING:
    from ..request import Request
    from ..resources import Pool

NOTHING = (0, 0)


class Claimed:
    """A stand (`live.Stand`) on which what is claimed is free, and nothing else."""

    all_up = True

    def __init__(self, pool: Pool, request: Request, claims: Sequence[Claim]) -> None:
        self.layout = layout = pool.layout
        self.limits = pool.limits(request) if request.constraint_key else None
        self._held = {pool.index[claim.rank]: claim for claim in claims}
        self._drawn: dict[int, tuple[int, int]] = {}
        for claim in claims:
            for path, units, ids in claim.draws:
                self._drawn[layout.ordinals[path]] = (units, ids)
        inside: dict[int, list[int]] = {}
        for ordinal in self._drawn:
            inside.setdefault(layout.position[ordinal], []).append(ordinal)
        self._inside = inside
        self.among = sum(1 << at for at in self._held)
        self.idle = 0
        for at, claim in self._held.items():
            node = pool.nodes[at]
            if (claim.cores, claim.gpus, claim.memory_mb) == (node.cores, node.gpus, node.memory_mb):
                others = layout.extent(layout.node_at[at]).others
                self.idle |= all(map(self._whole, others)) << at

    def _whole(self, ordinal: int) -> bool:
        vertex = self.layout.vertices[ordinal]
        return self._drawn.get(ordinal, NOTHING)[0] >= vertex.size

    def cores(self, at: int) -> int:
        """Claimed ids."""
        return self._held[at].cores if at in self._held else 0

    def gpus(self, at: int) -> int:
        """Claimed ids."""
        return self._held[at].gpus if at in self._held else 0

    def memory(self, at: int) -> int:
        """Claimed megabytes."""
        return self._held[at].memory_mb if at in self._held else 0

    def drawn(self, ordinal: int) -> tuple[int, int]:
        """What is not claimed of it; of a container that is passed through nothing need be."""
        vertex, kind = self.layout.vertices[ordinal], self.layout.kinds[ordinal]
        if kind in (CONTAINER, NODE) and vertex.size < 2:
            return NOTHING
        units, ids = self._drawn.get(ordinal, NOTHING)
        return vertex.size - units, vertex.ids & ~ids

    def drawn_in(self, at: int) -> object:
        """What is claimed of vertices inside a node, as one value that no other kind of stand has."""
        places = self.layout.places
        return ("claimed", frozenset((places[ordinal], *self._drawn[ordinal]) for ordinal in self._inside.get(at, ())))

    def is_plain(self, at: int) -> bool:
        """Is the constraint about nodes only?"""
        return self.limits is None or not self.limits.inner

    def down(self, ordinal: int) -> bool:
        """What is out of use is judged elsewhere."""
        return False

    def in_use(self, vertex: Vertex) -> bool:
        """Is anything of it, or below it, not claimed?"""
        extent = self.layout.extent(vertex)
        if extent.nodes & ~self.idle or not all(map(self._whole, extent.others)):
            return True
        for at, cores, gpus, megabytes in extent.parts:
            if cores & ~self.cores(at) or gpus & ~self.gpus(at) or megabytes > self.memory(at):
                return True
        return False

    def serving(self, need: Need) -> int:
        """Any of the nodes."""
        return self.among

    def allows(self, vertex: Vertex) -> bool:
        """Does the constraint?"""
        return self.limits is None or self.limits.allows(vertex)


def enough(pool: Pool, request: Request, claims: Sequence[Claim]) -> bool:
    """Do these claims serve the request? Nothing is asked of what the pool has free. Of what a request says is shared
    (`exclusive: false`) nothing is claimed, so that is not judged."""
    if request.imposed is not None:
        asked = [(claim.rank, claim.cores, claim.gpus, claim.memory_mb) for claim in request.imposed.claims]
        return asked == [(claim.rank, claim.cores, claim.gpus, claim.memory_mb) for claim in claims]
    wanted = of_request(request, pool.traverser)
    if any(_shares(need) for need in wanted.needs):
        return True
    return _found(pool, request, claims) is not None


def slots_of(pool: Pool, request: Request, claims: Sequence[Claim]) -> dict[int, list[tuple[int, int]]]:
    """rank -> (cores, GPUs), as masks, of each slot that the job's tasks run in there, by their lowest cores; of a slot on several
    nodes what is on the one where it counts. Empty where that cannot be said (a request that names its R)."""
    if request.imposed is not None:
        return {}
    parts = _found(pool, request, claims)
    found: dict[int, list[tuple[int, int]]] = {}
    for slot, node in _slots(pool.layout, parts or (), -1, request.label):
        held: dict[int, list[int]] = {}
        _gather(pool, slot.parts, held)
        at = node if node >= 0 else min(held, default=-1)
        if at >= 0:
            cores, gpus = held.get(at, (0, 0))
            found.setdefault(pool.nodes[at].rank, []).append((cores, gpus))
    return {rank: sorted(slots, key=lambda one: one[0] & -one[0]) for rank, slots in found.items()}


def _found(pool: Pool, request: Request, claims: Sequence[Claim]) -> list[tuple[Candidate, int]] | None:
    """What a search finds in what is claimed, of alternatives the first for which that is enough."""
    wanted, stand = of_request(request, pool.traverser), Claimed(pool, request, claims)
    found = (LiveSearch(stand, pool.policy, wanted).answer(needs) for needs in ways(wanted.needs))
    return next((parts for parts in found if parts is not None), None)


def _slots(layout: Layout, parts: Iterable[tuple[Candidate, int]], node: int, label: str) -> Iterator[tuple[Candidate, int]]:
    """The slots that tasks run in, each with the position of the node that it is in, -1 for none."""
    for candidate, _ in parts:
        here, via = node, candidate.via
        while via is not None:
            here = layout.position[via.vertex.ordinal] if layout.kinds[via.vertex.ordinal] == NODE else here
            via = via.rest
        if candidate.vertex is None:
            if counts(candidate, label):
                yield candidate, here
            continue
        if layout.kinds[candidate.vertex.ordinal] == NODE:
            here = layout.position[candidate.vertex.ordinal]
        yield from _slots(layout, candidate.parts, here, label)


def _gather(pool: Pool, parts: Iterable[tuple[Candidate, int]], held: dict[int, list[int]]) -> None:
    """position -> [cores, GPUs] of what is in a slot, where containers are held with all below them."""
    layout = pool.layout
    for candidate, _ in parts:
        vertex = candidate.vertex
        if vertex is None:
            continue
        kind, at = layout.kinds[vertex.ordinal], layout.position[vertex.ordinal]
        if kind in (CORE, GPU):
            mine = held.setdefault(at, [0, 0])
            mine[0 if kind == CORE else 1] |= candidate.ids or vertex.ids
            continue
        extent = layout.extent(vertex)
        for position in positions(extent.nodes):
            node = pool.nodes[position]
            held[position] = [node.cores, node.gpus]
        for position, cores, gpus, _ in extent.parts:
            mine = held.setdefault(position, [0, 0])
            mine[0], mine[1] = mine[0] | cores, mine[1] | gpus


def _shares(need: Need) -> bool:
    return need.exclusive is False or any(map(_shares, need.children)) or any(map(_shares, need.alternatives))
