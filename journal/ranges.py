"""Ranges such as "2-32:2:*" (RFC 45), and the `count` of a requested resource (RFC 14) as one value.

Decides which amounts a count accepts. Never decides what a job gets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from . import idset
from .shown import shown

MAX_COUNT = (1 << 31) - 1
_NUMBER = "(0|[1-9][0-9]{0,9})"
_RANGE = re.compile(rf"{_NUMBER}(?:-{_NUMBER}|\+)(?::{_NUMBER}(?::([+*^]))?)?")
_PLAIN = re.compile(_NUMBER)
_STOP_BITS = 1024  # an open range is followed no further than numbers of this length


class Range(NamedTuple):
    """min, then `operator operand` applied again and again up to max (None: without end).

    A fixed count n is Range(n, n). All methods take time logarithmic in their argument.
    """

    min: int
    max: int | None = None
    operator: str = "+"
    operand: int = 1

    def values(self) -> Iterator[int]:
        """Acceptable amounts, ascending; an open range ends at numbers of a thousand bits."""
        value = self.min
        while self.max is None or value <= self.max:
            yield value
            if self.operator == "+":
                value += self.operand
            elif self.operator == "*":
                value *= self.operand
            elif self.operand * (value.bit_length() - 1) > _STOP_BITS:
                return
            else:
                value **= self.operand
            if value.bit_length() > _STOP_BITS:
                return

    def largest(self, available: int) -> int:
        """The greatest acceptable amount that is at most `available`; 0 when there is none."""
        top = available if self.max is None else min(available, self.max)
        if top < self.min:
            return 0
        if self.operator == "+":
            return top - (top - self.min) % self.operand
        best = self.min
        for value in Range(self.min, top, self.operator, self.operand).values():
            best = value
        return best

    @property
    def fixed(self) -> bool:
        """Whether it accepts one amount only."""
        return self.max == self.min


class Choice(NamedTuple):
    """A count given as an idset: any of the amounts in the bit mask."""

    mask: int

    @property
    def min(self) -> int:
        """The least acceptable amount."""
        return (self.mask & -self.mask).bit_length() - 1

    @property
    def max(self) -> int:
        """The greatest acceptable amount."""
        return self.mask.bit_length() - 1

    @property
    def fixed(self) -> bool:
        """Whether it accepts one amount only."""
        return self.mask.bit_count() == 1

    def values(self) -> Iterator[int]:
        """Acceptable amounts, ascending."""
        return iter(idset.ids_of_mask(self.mask))

    def largest(self, available: int) -> int:
        """The greatest acceptable amount that is at most `available`; 0 when there is none."""
        if available >= self.max:  # also keeps the shift below short
            return self.max
        return max((self.mask & ((1 << (available + 1)) - 1)).bit_length() - 1, 0) if available > 0 else 0


def _fault(text: object, why: str) -> Rejected:
    return Rejected(
        f"bad count {shown(text)}: {why}",
        code="bad-count",
        hint='write a positive integer, a set "2,4,8" or a range such as "2-32:2:*" or "4+"',
    )


def _checked(shown: object, low: int, high: int | None, operator: str, operand: int) -> Range:
    if low < 1 or operand < 1:
        raise _fault(shown, "min and operand must be positive")
    if max(low, operand, high or 0) > MAX_COUNT:
        raise _fault(shown, f"numbers must be at most {MAX_COUNT}")
    if high is not None and high < low:
        raise _fault(shown, "max is below min")
    if operator != "+" and operand < 2:
        raise _fault(shown, f"the operand of {operator} must be at least 2")
    if operator == "^" and low < 2:
        raise _fault(shown, "min must be at least 2 for ^")
    return Range(low, high, operator, operand)


def _unwrapped(text: str) -> str:
    return text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text


def parse_range(text: str) -> Range:
    """The range of a text `min-max[:operand[:operator]]` or `min+...`. Raises `Rejected` (bad-count)."""
    found = _RANGE.fullmatch(_unwrapped(text)) if isinstance(text, str) and len(text) <= 64 else None
    if found is None:
        raise _fault(text, "not a range")
    high = None if found[2] is None else int(found[2])
    return _checked(text, int(found[1]), high, found[4] or "+", int(found[3] or 1))


def format_range(value: Range) -> str:
    """The shortest text of a range: "2-32:2:*", "4+", "3-30"."""
    text = f"{value.min}+" if value.max is None else f"{value.min}-{value.max}"
    if value.operator != "+":
        return f"{text}:{value.operand}:{value.operator}"
    return text if value.operand == 1 else f"{text}:{value.operand}"


def parse_count(value: Any) -> Range | Choice:
    """What a jobspec `count` accepts: an integer, a set or range text, or {min, max, operator, operand}.

    Raises `Rejected` (code bad-count).
    """
    if type(value) is int:
        if not 1 <= value <= MAX_COUNT:
            raise _fault(value, f"must be from 1 to {MAX_COUNT}")
        return Range(value, value)
    if isinstance(value, str):
        if len(value) <= 64:
            if _RANGE.fullmatch(_unwrapped(value)):
                return parse_range(value)
            if _PLAIN.fullmatch(_unwrapped(value)):
                return parse_count(int(_unwrapped(value)))
        try:
            mask = idset.mask_of(value)
        except Rejected:
            raise _fault(value, "neither a set nor a range") from None
        if mask == 0 or mask & 1:
            raise _fault(value, "must not be empty nor contain 0")
        return Choice(mask)
    if not isinstance(value, Mapping):
        raise _fault(value, "must be an integer, a text or an object")
    unknown = [key for key in value if key not in ("min", "max", "operator", "operand")]
    if unknown:
        raise _fault(value, f"unknown key {shown(unknown[0], 40)}")
    for key in ("min", "max", "operand"):
        if (key in value or key == "min") and type(value.get(key)) is not int:
            raise _fault(value, f"{key} must be an integer")
    if ("operator" in value) != ("operand" in value):
        raise _fault(value, "operator and operand come together")
    operator = value.get("operator", "+")
    if operator not in ("+", "*", "^"):
        raise _fault(value, "operator must be one of + * ^")
    return _checked(value, value["min"], value.get("max"), operator, value.get("operand", 1))
