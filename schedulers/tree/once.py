"""What was found so far: that it is enough, that a candidate counts once where several ways lead to it, and that nobody gets a
vertex twice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from .vertices import all_below

if TYPE_CHECKING:
    from .match import Candidate, Pool
    from .needs import Need


class Once:
    """Takes out of a pool, as it grows, what is there already: several ways may lead to one vertex. used: what is in slots beside
    what is looked for."""

    __slots__ = ("seen", "used")

    def __init__(self, used: Collection[int]) -> None:
        self.used = used
        self.seen: dict[str | Need, tuple[int, set[int]]] = {}

    def keep(self, pool: Pool) -> None:
        """Only what is new of what was added since the last time. What came by one way may overlap: slots share what is left."""
        for key, candidates in pool.items():
            at, seen = self.seen.get(key) or (0, set(self.used) if isinstance(key, str) else set())
            fresh = [(c, _made_of(c)) for c in candidates[at:]]
            kept = [(c, vertices) for c, vertices in fresh if seen.isdisjoint(vertices)]
            candidates[at:] = [c for c, _ in kept]
            seen.update(ordinal for _, vertices in kept for ordinal in vertices)
            self.seen[key] = (len(candidates), seen)


def _made_of(candidate: Candidate) -> list[int]:
    """Its vertex, or those of the parts of a bundle."""
    if candidate.vertex is not None:
        return [candidate.vertex.ordinal]
    return [part.vertex.ordinal for part, _ in candidate.parts if part.vertex is not None]


def twice(parts: Sequence[tuple[Candidate, int]], subsystems: Sequence[str]) -> bool:
    """Is a vertex that is to be had alone there twice: by different ways, or in a slot and beside it?"""
    alone: set[int] = set()
    shared: set[int] = set()
    stack = [candidate for candidate, _ in parts]
    while stack:
        candidate = stack.pop()
        vertex = candidate.vertex
        mine: list[int] = []
        if vertex is not None and candidate.whole:
            mine = [one.ordinal for one in all_below(vertex, subsystems)]
            if twice(candidate.parts, subsystems):
                return True
        else:
            stack.extend(part for part, _ in candidate.parts)
            if vertex is not None and candidate.exclusive:
                mine = [vertex.ordinal]
            elif vertex is not None:
                shared.add(vertex.ordinal)
        if not alone.isdisjoint(mine):
            return True
        alone.update(mine)
    return not alone.isdisjoint(shared)


class Progress:
    """How far what is found for a need, or for all of a type, reaches, counted as it comes. high: the most that is of use."""

    __slots__ = ("at", "got", "high", "key", "wanted")

    def __init__(self, key: str | Need, high: int, bundles: int) -> None:
        self.key = key
        self.high = high
        self.wanted = bundles
        self.got = self.at = 0

    def short(self, pool: Pool) -> bool:
        """Is more wanted?"""
        candidates = pool.get(self.key, ())
        while self.wanted and self.at < len(candidates):
            self.got += candidates[self.at].count
            self.at += 1
            if self.got >= self.high:
                self.wanted, self.got = self.wanted - 1, 0
        return self.wanted > 0
