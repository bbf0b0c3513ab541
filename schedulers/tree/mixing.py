"""Which mix of alternative slots one place holds (`or_slot`, Fluxion's flexible traverser). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MOST_STATES = 20_000  # after so many the best that was found is taken


def mixture(there: Mapping[str, int], each: Sequence[Mapping[str, int]], most: int) -> list[int]:
    """How many of each alternative make the most slots in all, at most `most`; of equal mixes the one with most of the first, then
    of the second, and so on.

    there: type -> units. each: type -> units in one slot of an alternative, {} for one that cannot be here.
    """
    if len(each) == 1:
        return [_fit(there, each[0], most)]
    known: dict[tuple[int, tuple[int, ...]], tuple[int, tuple[int, ...]]] = {}
    kinds = sorted(there)
    room = [MOST_STATES]

    def best(at: int, left: tuple[int, ...], most: int) -> tuple[int, tuple[int, ...]]:
        one = each[at]
        many = _fit(dict(zip(kinds, left, strict=True)), one, most)
        if at == len(each) - 1:
            return many, (many,)
        if (at, left) in known:
            return known[at, left]
        found: tuple[int, tuple[int, ...]] = (-1, ())
        others_at_most = sum(_fit(dict(zip(kinds, left, strict=True)), other, most) for other in each[at + 1 :])
        while many >= 0 and many + others_at_most > found[0]:
            rest = tuple(units - many * one.get(kind, 0) for kind, units in zip(kinds, left, strict=True))
            total, others = best(at + 1, rest, most - many)
            if many + total > found[0]:
                found = many + total, (many, *others)
            many -= 1
            room[0] -= 1
            if room[0] < 0:
                break
        known[at, left] = found
        return found

    return list(best(0, tuple(there[kind] for kind in kinds), most)[1])


def _fit(there: Mapping[str, int], one: Mapping[str, int], most: int) -> int:
    """How many of one alternative fit."""
    return min(most, *(there.get(kind, 0) // units for kind, units in one.items())) if one else 0
