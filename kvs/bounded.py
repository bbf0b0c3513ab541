"""Reads of files that may never end: a network file system whose server is away answers nothing, for as long as it likes.

Decides how long such a read is waited for, and that who does not answer is not asked again for a while: of many files in one place
a listing waits for one. Nothing can break such a read off, so it is left to a thread that ends with the process, some at most in a
place: whoever lives for long would have one more every half minute.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from .errors import Unavailable

T = TypeVar("T")
STILL_S = 5.0  # without getting on
SILENT_S = 30.0  # who did not answer is not asked for so long
STUCK = 4  # reads of one place that are left to themselves; then nobody asks until one has come back
CHUNK = 4 << 20  # bytes; whoever reads them has got on

_silent: dict[str, float] = {}  # places that did not answer, and when (monotonic)
_stuck: dict[str, list[threading.Thread]] = {}  # the reads there that have not come back


def within(place: str, work: Callable[[Callable[[], None]], T]) -> T:
    """What `work` gives; it calls what it is handed whenever it has got on. place: where it reads, for the error and to know it
    again. Raises what it does, and `Unavailable` (code archive) when it has not got on for `STILL_S`."""
    stuck = [one for one in _stuck.pop(place, ()) if one.is_alive()]
    if stuck:
        _stuck[place] = stuck
    if len(stuck) >= STUCK or (place in _silent and time.monotonic() - _silent[place] < SILENT_S):
        raise _away(place)
    moved = [time.monotonic()]
    found: list[T] = []
    failed: list[BaseException] = []
    over = threading.Event()

    def move() -> None:
        moved[0] = time.monotonic()

    def run() -> None:
        try:
            found.append(work(move))
        except BaseException as error:
            failed.append(error)
        over.set()

    reader = threading.Thread(target=run, name=f"read {place}", daemon=True)
    reader.start()
    while not over.wait(max(0.0, moved[0] + STILL_S - time.monotonic())):
        if time.monotonic() >= moved[0] + STILL_S:
            _silent[place] = time.monotonic()
            _stuck.setdefault(place, []).append(reader)
            raise _away(place)
    _silent.pop(place, None)
    if failed:
        raise failed[0]
    return found[0]


def read_file(place: str, path: str) -> bytes:
    """What is in a file. Raises OSError as `open` does, and as `within`."""

    def read(move: Callable[[], None]) -> bytes:
        parts = []
        with open(path, "rb", buffering=0) as file:
            while part := file.read(CHUNK):
                parts.append(part)
                move()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    return within(place, read)


def is_dir(place: str, path: str) -> bool:
    """Whether a directory is there. Raises as `within`."""
    return within(place, lambda move: os.path.isdir(path))


def _away(place: str) -> Unavailable:
    return Unavailable(
        f"the archive {place} does not answer: its file system has hung for {STILL_S:g} s", code="archive",
        hint="see to its file server, or unmount it; if the archive has moved, name the place it is at now with FLUXKV_ARCHIVE",
    )  # fmt: skip
