"""Urgency (RFC 30): how people order jobs, with two special values, and the priority made from it."""

from __future__ import annotations

from ..kvs.errors import Rejected
from .shown import shown

HOLD = 0
DEFAULT = 16
EXPEDITE = 31
MAX_GUEST = 16
MAX_PRIORITY = (1 << 32) - 1

_WORDS = {"hold": HOLD, "default": DEFAULT, "expedite": EXPEDITE}


def parse_urgency(value: int | str | None, owner: bool = True) -> int:
    """Urgency 0..31 of a number, its text, or one of "hold", "default", "expedite"; None is the default.

    owner: the instance owner asks; others may use 0..16. Raises `Rejected` (code bad-urgency).
    """
    if value is None:
        return DEFAULT
    number: object = value
    if isinstance(value, str):
        text = value.strip().lower()
        if text in _WORDS:
            number = _WORDS[text]
        elif text.isascii() and text.isdigit() and len(text) <= 3:
            number = int(text)
    top = EXPEDITE if owner else MAX_GUEST
    if type(number) is not int or not HOLD <= number <= top:
        why = "" if owner else ": only the instance owner may exceed 16"
        raise Rejected(
            f"bad urgency {shown(value)}{why}",
            code="bad-urgency",
            hint=f'use 0 to {top}, "hold" or "default"' + (' or "expedite"' if owner else ""),
        )
    return number


def describe(urgency: int) -> str:
    """One word: held, expedited or normal."""
    return {HOLD: "held", EXPEDITE: "expedited"}.get(urgency, "normal")


def priority_of(urgency: int) -> int:
    """The priority of a job of this urgency when nothing else has a say: 0 for a held job."""
    return MAX_PRIORITY if urgency == EXPEDITE else urgency
