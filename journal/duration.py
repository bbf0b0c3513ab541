"""Durations as text, such as "90m" or "1.5h" (RFC 23, Flux Standard Duration).

Decides the grammar: one number as C's strtod reads it, and one suffix. Never compound forms ("1h30m") or
clock notation. Seconds are floats everywhere; infinity means no limit.
"""

from __future__ import annotations

import re
from math import inf, isinf, isnan

from ..kvs.errors import Rejected
from .shown import shown

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DECIMAL = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(ms|[smhd])?")
_DIGIT = "[0-9a-fA-F]"
_HEX = re.compile(rf"([+-]?0[xX](?:{_DIGIT}+\.?{_DIGIT}*|\.{_DIGIT}+)(?:[pP][+-]?[0-9]+)?)(ms|[smhd])?")
_INFINITE = re.compile(r"\+?inf(?:inity)?", re.IGNORECASE)
_HINT = "write a number and one of ms, s, m, h, d, such as 30s, 1.5h or inf"


def _fault(text: object, why: str) -> Rejected:
    return Rejected(f"bad duration {shown(text)}: {why}", code="bad-duration", hint=_HINT)


def parse_duration(text: str | float) -> float:
    """Seconds, 0 to infinity, of a text or of a number of seconds. Raises `Rejected` (code bad-duration)."""
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        raise _fault(text, "it is neither text nor a number")
    if isinstance(text, str):
        seconds = _parse_text(text)
    else:
        try:
            seconds = float(text)
        except OverflowError:
            raise _fault("(a number)", "it is too large") from None
    if isnan(seconds) or seconds < 0:
        raise _fault(text, "it must be from 0 to infinity")
    return seconds + 0.0  # -0.0 becomes 0.0


def _parse_text(text: str) -> float:
    if len(text) > 64:
        raise _fault(text, "it is too long")
    if _INFINITE.fullmatch(text):
        return inf
    found = _HEX.fullmatch(text) or _DECIMAL.fullmatch(text)
    if found is None:
        raise _fault(text, "not one number with one suffix")
    number, unit = found[1], found[2] or ""
    try:
        seconds = (float.fromhex(number) if "x" in number.lower() else float(number)) * _UNITS[unit]
    except OverflowError:
        seconds = inf
    if isinf(seconds):
        raise _fault(text, "it is too large")
    return seconds


def format_duration(seconds: float) -> str:
    """Text of a duration in the largest unit that leaves a number of at least one, six digits: "1.5h", "0s".

    Below a tenth of a second milliseconds are used; infinity is "infinity".
    """
    if seconds < 0 or isnan(seconds):
        raise _fault(seconds, "it must be from 0 to infinity")
    if isinf(seconds):
        return "infinity"
    if seconds == 0:
        return "0s"
    if seconds < 0.1:
        unit = "ms"
    elif seconds < 60:
        unit = "s"
    elif seconds < 3600:
        unit = "m"
    elif seconds < 86400:
        unit = "h"
    else:
        unit = "d"
    return f"{seconds / _UNITS[unit]:.6g}{unit}"
