"""What parts of a request take of what other parts of it may want, too, while a search on a live pool puts it together."""

from __future__ import annotations

from collections.abc import Iterable

from .layout import CONTAINER, MEMORY, NODE, Layout
from .match import Candidate
from .vertices import Vertex, all_below


class Spent:
    """What slots that were packed here take of what their neighbours may want, too. ids, units: by ordinal; of memory that is told
    apart, units are megabytes. megabytes: by position of the node."""

    def __init__(self) -> None:
        self.ids: dict[int, int] = {}
        self.units: dict[int, int] = {}
        self.megabytes: dict[int, int] = {}

    def copy(self) -> Spent:
        """One that can be changed by itself."""
        new = Spent()
        new.ids, new.units, new.megabytes = dict(self.ids), dict(self.units), dict(self.megabytes)
        return new

    def spend(self, layout: Layout, parts: Iterable[tuple[Candidate, int]], used: set[int]) -> None:
        """Take the parts of a slot. used: ordinals of containers that are taken as such."""
        for candidate, units in parts:
            vertex = candidate.vertex
            if vertex is None:
                self.spend(layout, candidate.parts, used)
                continue
            kind = layout.kinds[vertex.ordinal]
            if kind in (CONTAINER, NODE):
                for one in all_below(vertex, layout.subsystems):
                    used.add(one.ordinal)
                    self._take(layout, one, one.size, one.ids)
            else:
                more, less = candidate.ratio
                self._take(layout, vertex, -(-units * less // more), candidate.ids)

    def _take(self, layout: Layout, vertex: Vertex, units: int, ids: int) -> None:
        ordinal, at = vertex.ordinal, layout.position[vertex.ordinal]
        self.ids[ordinal] = self.ids.get(ordinal, 0) | ids
        self.units[ordinal] = self.units.get(ordinal, 0) + units
        if layout.kinds[ordinal] == MEMORY and at not in layout.memories:
            self.megabytes[at] = self.megabytes.get(at, 0) + units

    def touches(self, layout: Layout, vertex: Vertex) -> bool:
        """Is something of it, or below it, taken?"""
        return bool(self.units) and any(one.ordinal in self.units for one in all_below(vertex, layout.subsystems))
