"""What a request gets: vertices with units, and the edges by which they were reached."""

from __future__ import annotations

from collections.abc import Sequence

from .vertices import Vertex, all_below, below


class Selection:
    """The answer. taken: ordinal -> (vertex, units, exclusive). edges: ordinal -> ordinals below it that count."""

    def __init__(self, root: Vertex) -> None:
        self.root = root
        self.taken: dict[int, tuple[Vertex, int, bool]] = {}
        self.edges: dict[int, set[int]] = {}

    def take(self, vertex: Vertex, units: int, exclusive: bool) -> None:
        """Exclusive use wins over shared."""
        before = self.taken.get(vertex.ordinal)
        if before is None or (exclusive and not before[2]):
            self.taken[vertex.ordinal] = (vertex, units, exclusive)

    def edge(self, parent: Vertex, child: Vertex) -> None:
        """`child` was reached from `parent`."""
        if parent is not child:
            self.edges.setdefault(parent.ordinal, set()).add(child.ordinal)

    def take_all(self, vertex: Vertex, subsystems: Sequence[str]) -> None:
        """A vertex and everything below it, exclusively."""
        for one in all_below(vertex, subsystems):
            self.take(one, one.size, True)
            for child in below(one, subsystems):
                self.edge(one, child)
