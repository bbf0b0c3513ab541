"""Calls from a loop that begins at any depth cost no memory of their own."""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest

from fluxkv.instances.frame_room import with_room

CALLS, DEEP, DEPTHS = 300, 60, range(0, 240, 6)  # frames; all the depths together fill some chunks


def _deep(left: int) -> int:
    return _deep(left - 1) if left else 0


def _loop() -> int:
    """Pages that were touched for the first time while the same calls are made again and again."""
    _deep(DEEP)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(CALLS):
        _deep(DEEP)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _below(depth: int, call: Callable[[], int]) -> int:
    return _below(depth - 1, call) if depth else call()


def _worst(call: Callable[[], int]) -> int:
    return max(_below(depth, call) for depth in DEPTHS)


def test_a_loop_with_room_touches_no_new_page_at_any_depth() -> None:
    assert _worst(_loop) >= CALLS, "there is nothing to mend: has CPython's stack changed?"
    assert _worst(lambda: with_room(_loop)) < CALLS // 10


def test_what_is_called_gives_and_raises_as_ever() -> None:
    assert with_room(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        with_room(lambda: 1 // 0)
