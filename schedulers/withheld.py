"""What is in use and withheld of the vertices of a graph that are no nodes: the part of `timeline`'s windows for draws. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..journal.claims import Claim, Draw

if TYPE_CHECKING:
    from .resources import Pool
    from .timeline import Span


class WithheldDraws:
    """pool: the window's copy, which is kept in step. Units that are in use and units that are withheld add up, though they may
    not be at the same time: a window may be found later than it could be, never on what is not there."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._used = {pool.layout.paths[ordinal]: [units, ids] for ordinal, (units, ids) in pool.drawn.items()}
        self._held: dict[str, tuple[int, int]] = {}

    def withhold(self, spans: Sequence[Span], changed: Sequence[Span]) -> None:
        """These are withheld now, and no others. changed: those that came or went."""
        touched = {draw.vertex for span in changed for claim in span.claims for draw in claim.draws}
        if not touched:
            return
        found: dict[str, list[tuple[Span, Draw]]] = {}
        for span in spans:
            for claim in span.claims:
                for draw in claim.draws:
                    if draw.vertex in touched:
                        found.setdefault(draw.vertex, []).append((span, draw))
        for path in sorted(touched):
            self._held.pop(path, None)
            if pairs := found.get(path):
                ids = 0
                for _, draw in pairs:
                    ids |= draw.ids
                self._held[path] = (_most(pairs), ids)
            self._refresh(path)

    def give(self, claims: Iterable[Claim]) -> None:
        """Somebody ends."""
        for claim in claims:
            for path, units, ids in claim.draws:
                used = self._used.setdefault(path, [0, 0])
                used[0], used[1] = max(0, used[0] - units), used[1] & ~ids
                self._refresh(path)

    def take(self, claims: Iterable[Claim]) -> None:
        """Somebody begins, perhaps on what is withheld here."""
        for claim in claims:
            for path, units, ids in claim.draws:
                used = self._used.setdefault(path, [0, 0])
                used[0], used[1] = used[0] + units, used[1] | ids
                self._refresh(path)

    def _refresh(self, path: str) -> None:
        used, ids = self._used.get(path, (0, 0))
        held, held_ids = self._held.get(path, (0, 0))
        both = ids | held_ids
        self.pool.set_vertex(path, both.bit_count() if both else used + held, both)


def _most(pairs: Sequence[tuple[Span, Draw]]) -> int:
    """The most units that are withheld at any one time."""
    return max(sum(draw.units for span, draw in pairs if span.start <= moment.start < span.end) for moment, _ in pairs)
