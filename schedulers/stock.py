"""Counted resources by position, indexed so that "who has at least n?" needs no scan.

Positions 0..n-1 are vertices in the order of preference (nodes by rank; other kinds of vertices work the same
way). A set of positions is one int used as a bit mask, so that the usual set operations over thousands of
nodes cost a microsecond and "the first that fits" is the lowest bit. Pure arithmetic: what the counts mean is
decided in `resources`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import compress, islice

_DIGIT = bytes.maketrans(b"01", b"\x00\x01")
_FEW = 24  # below this, picking bits one by one is faster than spelling the whole mask out


def positions(bits: int) -> Iterator[int]:
    """The members of a set, ascending."""
    if bits.bit_count() < _FEW:
        return _one_by_one(bits)
    return compress(range(bits.bit_length()), format(bits, "b")[::-1].encode().translate(_DIGIT))


def _one_by_one(bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def first(bits: int, n: int) -> list[int]:
    """The lowest `n` members (all, if there are fewer), ascending."""
    if n >= _FEW:
        return list(islice(positions(bits), n))
    found = []
    while n and bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits ^= low
        n -= 1
    return found


def set_of(members: Iterable[int], n: int) -> int:
    """The set of `members`, all below `n`, made in one go."""
    spelled = bytearray((n >> 3) + 1)
    for i in members:
        spelled[i >> 3] |= 1 << (i & 7)
    return int.from_bytes(spelled, "little")


def lowest(mask: int, n: int) -> int:
    """The `n` lowest ids of `mask`, as a mask. Precondition: it has that many."""
    run = (mask & -mask) * ((1 << n) - 1)  # the common case: they are side by side
    if mask & run == run:
        return run
    got = 0
    for _ in range(n):
        low = mask & -mask
        got |= low
        mask ^= low
    return got


def highest(mask: int, n: int) -> int:
    """The `n` highest ids of `mask`, as a mask. Precondition: it has that many."""
    run = ((1 << n) - 1) << max(mask.bit_length() - n, 0)
    if mask & run == run:
        return run
    got = 0
    for _ in range(n):
        high = 1 << mask.bit_length() - 1
        got |= high
        mask ^= high
    return got


class Stock:
    """How many of one resource each position has, and for each number the set of positions that have exactly
    so many.

    counts: by position. levels: number -> set of positions, none empty; together they hold every position
    once.
    """

    __slots__ = ("counts", "levels")

    def __init__(self, counts: Iterable[int]) -> None:
        self.counts = list(counts)
        by_level: dict[int, list[int]] = {}
        for i, count in enumerate(self.counts):
            by_level.setdefault(count, []).append(i)
        self.levels = {count: set_of(members, len(self.counts)) for count, members in by_level.items()}

    def copy(self) -> Stock:
        """One that can be changed by itself."""
        new = Stock.__new__(Stock)
        new.counts, new.levels = list(self.counts), dict(self.levels)
        return new

    def total(self) -> int:
        """What all positions have together."""
        return sum(count * members.bit_count() for count, members in self.levels.items())

    def at_least(self, n: int) -> int:
        """The set of positions with `n` or more."""
        found = 0
        for count, members in self.levels.items():
            if count >= n:
                found |= members
        return found

    def set(self, i: int, count: int) -> None:
        """Position `i` now has `count`."""
        old = self.counts[i]
        if old == count:
            return
        self.counts[i] = count
        levels, bit = self.levels, 1 << i
        rest = levels[old] ^ bit
        if rest:
            levels[old] = rest
        else:
            del levels[old]
        levels[count] = levels.get(count, 0) | bit

    def set_many(self, changes: Mapping[int, int]) -> None:
        """`set` for many positions: one pass over each level, not one a change."""
        counts = self.counts
        moved: dict[tuple[int, int], list[int]] = {}
        for i, count in changes.items():
            old = counts[i]
            if old != count:
                counts[i] = count
                moved.setdefault((old, count), []).append(i)
        levels = self.levels
        for (old, count), members in moved.items():
            bits = set_of(members, len(counts))
            rest = levels[old] ^ bits
            if rest:
                levels[old] = rest
            else:
                del levels[old]
            levels[count] = levels.get(count, 0) | bits

    def units(self, each: int, among: int) -> int:
        """How many whole units of `each` (>= 1) the positions `among` hold, added up; none spans two."""
        return sum(count // each * (members & among).bit_count() for count, members in self.levels.items())

    def largest(self, among: int) -> tuple[int, int]:
        """(greatest count, lowest position that has it) among these positions; (0, -1) if there are none."""
        best, where = -1, 0
        for count, members in self.levels.items():
            if count > best and members & among:
                best, where = count, members & among
        return (best, (where & -where).bit_length() - 1) if where else (0, -1)
