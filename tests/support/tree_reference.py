"""A slow, obvious answer to "does it fit then?", to hold the matcher of trees against: no policies, no sums, no spans.

It reads who uses what off the jobs themselves, and counts. It expects pools of one type to have one size.
"""

from __future__ import annotations

from collections.abc import Iterable

from fluxkv.schedulers.tree.needs import Need, TreeRequest
from fluxkv.schedulers.tree.system import System
from fluxkv.schedulers.tree.vertices import Vertex


class Reference:
    """Does a request fit on a system in [start, start + its duration)?"""

    def __init__(self, system: System, request: TreeRequest, start: int) -> None:
        end = start + request.duration_s
        self.request = request
        self.whole_nodes = system.matcher.policy.whole_nodes
        self.used: set[int] = set()
        self.held: set[int] = set()
        for job in system.ledger.jobs.values():
            if job.start < end and start < job.end:
                self.used |= set(job.uses)
                self.held |= {ordinal for ordinal, (_, _, exclusive) in job.uses.items() if exclusive}
        self.answer = all(self.found([system.root], need, True, False) >= need.low for need in request.needs)

    def found(self, among: Iterable[Vertex], need: Need, pristine: bool, exclusive: bool) -> int:
        """Units of a need at these vertices, or, while nothing was named, at or below them."""
        units = 0
        for vertex in among:
            whole = self.whole_nodes and vertex.type == "node"
            named = vertex.type == need.type
            alone = whole or (named and (exclusive or bool(need.exclusive)))
            if not vertex.up or vertex.ordinal in self.held or (alone and vertex.ordinal in self.used):
                continue
            below = vertex.children.get("containment", [])
            if named:
                inner = all(self.below(vertex, part, exclusive or bool(need.exclusive)) >= part.low for part in need.children)
                units += vertex.size if inner else 0
            elif pristine and need.is_slot and {p.type for p in need.children} <= {c.type for c in below}:
                units += self.below(vertex, need, exclusive)
            elif pristine:
                units += self.found(below, need, True, exclusive)
        return units

    def below(self, vertex: Vertex, need: Need, exclusive: bool) -> int:
        """Units of a need right below a vertex; of a slot: how many bundles."""
        children = vertex.children.get("containment", [])
        if not need.is_slot:
            return self.found(children, need, False, exclusive)
        bundles = []
        for part in need.children:
            sizes = {child.size for child in children if child.type == part.type}
            each = -(-part.low // max(sizes, default=1)) * max(sizes, default=1)
            bundles.append(self.found(children, part, False, True) // each)
        return min(bundles)
