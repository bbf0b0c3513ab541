"""What a handler of the fold takes out of an event's context. Raises `ValueError` for any other kind of value: it is skipped."""

from __future__ import annotations

from typing import Any


def text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} is no text")
    return value


def integer(value: Any) -> int:
    """An integer; True is none."""
    if type(value) is not int:
        raise ValueError(f"{type(value).__name__} is no integer")
    return value


def end_time(value: Any) -> float:
    """When something is to be over, Unix seconds; 0.0 for never."""
    if not value >= 0:  # nor is NaN, which would keep its place before all others in a heap
        raise ValueError(f"{value} is no time")
    return float(value)
