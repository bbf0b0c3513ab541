"""The matcher of `resource query`: one search in a window of time, and what it took as a selection."""

from __future__ import annotations

from collections.abc import Sequence

from .match import Candidate, Pool, Search, Window
from .needs import TreeRequest, flexible
from .once import twice
from .policies import Policy
from .selection import Selection
from .vertices import Tree, Vertex


class Matcher:
    """subsystems: the first one dominates. prune_by: types by whose sums sub-trees are passed over; it never changes
    an answer. flexible: slots side by side are `or_slot`s (see `needs.flexible`); else all of them are wanted.
    """

    def __init__(
        self, tree: Tree, policy: Policy, subsystems: Sequence[str], prune_by: Sequence[str] = (), flexible: bool = False
    ) -> None:  # fmt: skip
        self.tree = tree
        self.policy = policy
        self.subsystems = tuple(subsystems)
        self.flexible = flexible
        self.prune_by = tuple(prune_by)
        self.refresh()

    def refresh(self) -> None:
        """To be called after the tree was changed."""
        dominant = self.subsystems[0]
        self.root = self.tree.roots[dominant]
        if len(self.subsystems) > 1:
            self.tree.check(self.subsystems)
        self.tree.count(dominant)
        # Is there one way to each vertex? Where there are several, sums, which count it once, say too little to prune by.
        alone = all(len(v.parents.get(dominant, ())) < 2 for v in self.tree.vertices)
        self.apart = self.simple = alone and len(self.subsystems) == 1

    def match(self, request: TreeRequest, window: Window) -> tuple[Selection | None, bool]:
        """The selection, or None. The second value tells that something was there, but not enough of it."""
        if self.flexible:
            request = flexible(request)
        search = Search(self, request, window)
        pool: Pool = {}
        search.visit(self.root, request.needs, True, False, pool)
        parts = search.resolve(pool, request.needs)
        if parts is None:
            return None, any(not n.is_slot and search.ready(pool.get(n.type, []), 1) for n in request.needs)
        if (request.crowded or not self.apart) and twice(parts, self.subsystems):
            return None, True
        selection = Selection(self.root)
        selection.take(self.root, self.root.size, False)
        for candidate, units in parts:
            self._place(selection, candidate, units, self.root)
        return selection, True

    def _place(self, selection: Selection, candidate: Candidate, units: int, parent: Vertex) -> None:
        via = candidate.via
        while via is not None:
            selection.edge(parent, via.vertex)
            parent = via.vertex
            if self.policy.whole_nodes and parent.type == "node":
                selection.take_all(parent, self.subsystems)
            else:
                selection.take(parent, parent.size, False)
            via = via.rest
        vertex = candidate.vertex
        if vertex is not None:
            selection.edge(parent, vertex)
            if candidate.whole:
                selection.take_all(vertex, self.subsystems)
            selection.take(vertex, candidate.units(units), candidate.exclusive)
            parent = vertex
        for part, part_units in candidate.parts:
            self._place(selection, part, part_units, parent)
