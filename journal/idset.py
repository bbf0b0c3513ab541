"""Sets of non-negative integers as text and as bit masks (RFC 22).

Decides the grammar and the canonical text (ranges folded, no brackets). Inside the program a set is an int
used as a bit mask: bit i set means i is a member. Never holds ids of `MAX_ID` or more, so hostile text
cannot ask for gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..kvs.errors import Rejected
from .shown import shown

MAX_ID = 1 << 20  # ids are below this

_ITEM = re.compile(r"(0|[1-9][0-9]{0,6})(?:-(0|[1-9][0-9]{0,6}))?")
_RUN = re.compile("1+")
_MAX_TEXT = 8 * MAX_ID  # the longest canonical text is shorter
_CACHED = 1 << 16  # entries in each cache
_CACHED_BITS = 4096  # a bigger set is not cached: entries times size is the bound on memory
_CACHED_TEXT = 1024

_masks: dict[str, int] = {"": 0}
_texts: dict[int, str] = {0: ""}


def _fault(text: object, why: str) -> Rejected:
    return Rejected(f"bad idset {shown(text)}: {why}", code="bad-idset", hint='write it like "0-3,7"')


def _runs(text: str) -> list[tuple[int, int]]:
    """The (low, high) pairs of `text`, strictly ascending; adjacent ones are not merged."""
    if not isinstance(text, str):
        raise _fault(text, "it is not a string")
    if len(text) > _MAX_TEXT:
        raise _fault(text[:60], "it is too long")
    body = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    runs: list[tuple[int, int]] = []
    if not body:
        return runs
    match = _ITEM.fullmatch
    above = -1
    for item in body.split(","):
        found = match(item)
        if found is None:
            raise _fault(text, f"{item[:20]!r} is neither an id nor a range of ids below {MAX_ID}")
        low = int(found[1])
        high = low if found[2] is None else int(found[2])
        if low <= above or high < low:
            raise _fault(text, f"not ascending at {item!r}")
        if high >= MAX_ID:
            raise _fault(text, f"ids must be below {MAX_ID}")
        above = high
        runs.append((low, high))
    return runs


def parse(text: str) -> tuple[int, ...]:
    """The ids of an idset text, ascending. Raises `Rejected` (code bad-idset)."""
    return tuple([i for low, high in _runs(text) for i in range(low, high + 1)])


def format_ids(ids: Iterable[int]) -> str:
    """Canonical text of any iterable of ids (order and repeats do not matter), e.g. "0-3,7"."""
    members = sorted(set(ids))
    if members and (members[0] < 0 or members[-1] >= MAX_ID):
        raise _fault(f"{members[0]}...{members[-1]}", f"ids must be from 0 to {MAX_ID - 1}")
    parts: list[str] = []
    at = 0
    while at < len(members):
        end = at
        while end + 1 < len(members) and members[end + 1] == members[end] + 1:
            end += 1
        low, high = members[at], members[end]
        parts.append(str(low) if low == high else f"{low}-{high}")
        at = end + 1
    return ",".join(parts)


def mask_of(text: str) -> int:
    """Bit mask of an idset text. Cached: a dictionary look-up for texts seen before. Raises `Rejected`."""
    try:
        return _masks[text]
    except (KeyError, TypeError):
        pass
    runs = _runs(text)
    mask = 0
    if len(runs) <= 64:
        for low, high in runs:
            mask |= ((1 << (high - low + 1)) - 1) << low
    else:  # one pass over binary digits: joining many runs into a long int would be quadratic
        top = runs[-1][1]
        digits = bytearray(b"0") * (top + 1)
        for low, high in runs:
            digits[top - high : top - low + 1] = b"1" * (high - low + 1)
        mask = int(digits, 2)
    if mask.bit_length() <= _CACHED_BITS and len(text) <= _CACHED_TEXT:
        if len(_masks) >= _CACHED:
            _masks.clear()
        _masks[text] = mask
    return mask


def text_of(mask: int) -> str:
    """Canonical idset text of a bit mask, "" for 0. Cached. Raises `Rejected` for a mask that is none."""
    try:
        return _texts[mask]
    except (KeyError, TypeError):
        pass
    if not isinstance(mask, int) or mask < 0 or mask.bit_length() > MAX_ID:
        raise _fault(mask if not isinstance(mask, int) else "", "not a mask of permitted ids")
    parts = []
    first = max(0, (mask & -mask).bit_length() - 1)
    for run in _RUN.finditer(bin(mask >> first)[:1:-1]):
        low, high = first + run.start(), first + run.end() - 1
        parts.append(str(low) if low == high else f"{low}-{high}")
    text = ",".join(parts)
    if mask.bit_length() <= _CACHED_BITS:
        if len(_texts) >= _CACHED:
            _texts.clear()
        _texts[mask] = text
    return text


def ids_of_mask(mask: int) -> tuple[int, ...]:
    """The members of a mask, ascending."""
    if mask.bit_length() > 256:  # whoever is alone far up must not cost what all below would
        first = (mask & -mask).bit_length() - 1
        digits = bin(mask >> first)[:1:-1]
        return tuple([first + at for run in _RUN.finditer(digits) for at in range(run.start(), run.end())])
    ids = []
    while mask:
        lowest = mask & -mask
        ids.append(lowest.bit_length() - 1)
        mask ^= lowest
    return tuple(ids)


def mask_from_ids(ids: Iterable[int]) -> int:
    """Bit mask of an iterable of ids (few, or small): the inverse of `ids_of_mask`."""
    mask = 0
    for i in ids:
        if not 0 <= i < MAX_ID:
            raise _fault(str(i), f"ids must be from 0 to {MAX_ID - 1}")
        mask |= 1 << i
    return mask


def popcount(mask: int) -> int:
    """How many members a mask has."""
    return mask.bit_count()
