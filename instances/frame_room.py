"""Room for the frames of a process that calls the same functions for ever, however deep in the stack it begins.

CPython keeps Python's frames in chunks of 16 KiB, and gives a chunk back when its first frame returns. A loop that stands near the
end of one has the next mapped, touched and unmapped again by each call that goes deep enough: some 6 us each, six times a job in
the worker of a child that was forked from its launcher's frames. A frame that asks for much gets a chunk of its own, and what is
called from it stands behind it there. What is not touched of it is no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
_SLOTS = 7200  # with the 1,000 that CPython adds, eight bytes each, more than 64 KiB: a chunk of 128, more than half of it free


def with_room(call: Callable[[], _T]) -> _T:
    """Call it where more than 64 KiB of frames follow one another without a gap."""
    return call()


with_room.__code__ = with_room.__code__.replace(co_stacksize=_SLOTS)
