"""Is a placement of a request of any shape enough, whoever found it? A search on nothing but what it claims answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...journal.claims import Claim
from .layout import CONTAINER, NODE
from .live import LiveSearch
from .needs import Need, of_request
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
        """Never asked: nothing here is plain."""
        return None

    def is_plain(self, at: int) -> bool:
        """What is found here holds nowhere else."""
        return False

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
    return LiveSearch(Claimed(pool, request, claims), pool.policy, wanted).answer() is not None


def _shares(need: Need) -> bool:
    return need.exclusive is False or any(map(_shares, need.children)) or any(map(_shares, need.alternatives))
