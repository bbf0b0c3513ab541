"""What was found in one node, said of another that is like it: the same candidates, of the vertices that stand in the same places.

Most nodes of a system are equal, and most of these are equally used: a search looks into one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

from .match import Candidate, Via
from .vertices import Vertex

if TYPE_CHECKING:
    from .layout import Layout


class Moved(Sequence[tuple[Candidate, int]]):
    """Parts that were found in the node `there`, as parts of the node `here`. Made when they are read: few are."""

    __slots__ = ("here", "layout", "parts", "there")

    def __init__(self, parts: Sequence[tuple[Candidate, int]], layout: Layout, there: Vertex, here: Vertex) -> None:
        self.parts = parts
        self.layout = layout
        self.there = there
        self.here = here

    def __len__(self) -> int:
        return len(self.parts)

    @overload
    def __getitem__(self, at: int) -> tuple[Candidate, int]: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[tuple[Candidate, int]]: ...
    def __getitem__(self, at: int | slice) -> tuple[Candidate, int] | Sequence[tuple[Candidate, int]]:
        if isinstance(at, slice):
            return Moved(self.parts[at], self.layout, self.there, self.here)
        candidate, units = self.parts[at]
        return moved(candidate, self.layout, self.there, self.here), units

    def __iter__(self) -> Iterator[tuple[Candidate, int]]:
        for candidate, units in self.parts:
            yield moved(candidate, self.layout, self.there, self.here), units


def moved(candidate: Candidate, layout: Layout, there: Vertex, here: Vertex) -> Candidate:
    """A copy of a candidate found in `there`, of the vertex at the same place in `here`."""
    vertex = candidate.vertex
    parts = candidate.parts if there is here or not candidate.parts else Moved(candidate.parts, layout, there, here)
    where = None if vertex is None else layout.counterpart(vertex, here)
    new = Candidate(where, candidate.count, candidate.score, parts, candidate.exclusive, candidate.whole)
    new.ratio, new.ids, new.need = candidate.ratio, candidate.ids, candidate.need
    if candidate.via is not None:
        new.via = _way(candidate.via, layout, here)
    return new


def _way(via: Via, layout: Layout, here: Vertex) -> Via:
    return Via(layout.counterpart(via.vertex, here), None if via.rest is None else _way(via.rest, layout, here))
