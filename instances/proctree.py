"""Which processes belong to which attempt: reading /proc, and nothing else.

A task's tree is recognised three ways: by parentage (the launcher is a child subreaper, so orphans come to
it), by the marks in `FLUXKV_ATTEMPT` (which nested instances only append to), and by session or process
group. Decides nothing: never signals, never waits. Linux only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

ATTEMPT_VARIABLE = "FLUXKV_ATTEMPT"
_MARK = ATTEMPT_VARIABLE.encode() + b"="
CLOCK_STEP_S = 0.02  # how far a start time in /proc may be off, in steps of 10 ms as it is
_PF_EXITING = 4  # of a process's flags, see Linux's include/linux/sched.h
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """The part of /proc/PID/stat that matters. start_s: seconds on the boot-time clock, in steps of 10 ms."""

    state: str
    parent: int
    group: int
    session: int
    start_s: float

    @property
    def dead(self) -> bool:
        """A zombie runs nothing and can be sent nothing."""
        return self.state in "ZXx"


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(fd, 65536)
        if len(data) < 4096:  # the common case without a second call
            return data
        parts = [data]
        while data:
            data = os.read(fd, 65536)
            parts.append(data)
        return b"".join(parts)
    except OSError:
        return None
    finally:
        os.close(fd)


def stat(pid: int) -> Stat | None:
    """None when the process is gone."""
    data = _read(f"/proc/{pid}/stat")
    if not data:
        return None
    fields = data[data.rindex(b")") + 2 :].split()  # the command may hold anything, parentheses included
    return Stat(
        fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]) / TICKS_PER_S
    )


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    found = stat(pid)
    return found is not None and not found.dead


def ends(pid: int) -> bool:
    """Whether a process has begun to end, or has ended: what it had open is closed only after that."""
    data = _read(f"/proc/{pid}/stat")
    return not data or bool(int(data[data.rindex(b")") + 2 :].split()[6]) & _PF_EXITING)


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


class Children:
    """Children of this (single-threaded) process, zombies included.

    Complete while other processes come and go: only we reap our children, and orphans are added at the end.
    """

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        try:
            self._fd = os.open("/proc/thread-self/children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1  # a kernel without CONFIG_PROC_CHILDREN

    def pids(self) -> list[int]:
        if self._fd >= 0:
            data = more = os.pread(self._fd, 65536, 0)
            while len(more) > 4000:  # the kernel gives a page at a time
                more = os.pread(self._fd, 65536, len(data))
                data += more
            return [int(pid) for pid in data.split()]
        me = os.getpid()
        return [pid for pid in all_pids() if (found := stat(pid)) is not None and found.parent == me]


def marks(pid: int) -> list[str]:
    """Marks in the environment the process was started with; [] when unreadable, gone, or cleared."""
    data = _read(f"/proc/{pid}/environ")
    if not data or _MARK not in data:
        return []
    for entry in data.split(b"\0"):
        if entry.startswith(_MARK):
            return os.fsdecode(entry[len(_MARK) :]).split()
    return []


def marked(wanted: set[str]) -> list[int]:
    """All processes carrying one of the marks; zombies have none."""
    return [pid for pid in all_pids() if not wanted.isdisjoint(marks(pid))]


def parents() -> dict[int, int]:
    """pid -> parent pid, of everything that runs (zombies too)."""
    table = {}
    for pid in all_pids():
        found = stat(pid)
        if found is not None:
            table[pid] = found.parent
    return table


def families() -> dict[int, list[int]]:
    """pid -> its children, of everything that has some."""
    below: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        below.setdefault(parent, []).append(pid)
    return below


def descendants(roots: Iterable[int], below: Mapping[int, Sequence[int]] | None = None) -> list[int]:
    """Everything below `roots`, without them, parents before children. below: `families`, for who asks about many."""
    below = families() if below is None else below
    todo = list(roots)
    seen = set(todo)
    found = []
    for pid in todo:
        for child in below.get(pid, ()):
            if child not in seen:
                seen.add(child)
                found.append(child)
                todo.append(child)
    return found


def ancestors(pid: int) -> list[int]:
    """`pid`'s parent, its parent, and so on up to 1."""
    line: list[int] = []
    found = stat(pid)
    while found is not None and found.parent > 0:
        line.append(found.parent)
        found = stat(found.parent)
    return line
