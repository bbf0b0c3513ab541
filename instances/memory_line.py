"""Room to finish: from how much memory of the server on new work is refused, while what ends jobs still passes.

A setting says it (`start --memory-limit`: bytes with a unit, a share in percent, `none`); without it the line is at half of what
there is: the server's own `maxmemory` (of that, nine tenths: it is meant for it alone), the machine's memory, or the limit of
the control group that we are in. Half, as a rewrite of the append-only file may need as much again, and jobs want some, too.
"""

from __future__ import annotations

import os

from ..kvs.errors import Rejected, Unavailable
from ..kvs.port import Meta, Store

OF_MACHINE, OF_MAXMEMORY = 50, 90  # percent
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
LEAST = 1 << 20
CGROUPS = "/sys/fs/cgroup"


def parse_line(text: str) -> tuple[int, int]:
    """(bytes, 0) or (0, percent) of what `--memory-limit` says; (0, 0) for `none`. Raises `Rejected` (code bad-memory-limit)."""
    word = text.strip().lower()
    if word == "none":
        return 0, 0
    number = word.rstrip("%kmgtib")
    unit = word[len(number) :].removesuffix("ib").removesuffix("b")
    try:
        if len(number) > 20 or not number.replace(".", "", 1).isascii() or not number.replace(".", "", 1).isdigit():
            raise ValueError(number)
        if unit == "%":
            percent = int(number)
            if not 1 <= percent <= 100:
                raise ValueError(percent)
            return 0, percent
        size = int(float(number) * _UNITS[unit])
        if not LEAST <= size < 1 << 60:
            raise ValueError(size)
        return size, 0
    except (ValueError, KeyError, OverflowError):
        raise Rejected(
            f"bad memory limit {text[:40]!r}", code="bad-memory-limit", hint="like 4G, 500M (1M at least), 30%, or none"
        ) from None


def line_for(text: str, maxmemory: int, machine: int) -> int:
    """The line in bytes, 0 for none. maxmemory: the server's, 0 if it has none; machine: what there is beside it, 0: unknown."""
    size, percent = parse_line(text) if text else (0, OF_MAXMEMORY if maxmemory else OF_MACHINE)
    return size or (maxmemory or machine) * percent // 100


def machine_memory(cgroups: str = CGROUPS) -> int:
    """Bytes of memory this process may count on: the machine's, or the lowest limit of the control groups around it."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open("/proc/self/cgroup") as file:
            own = next(line.split(":", 2)[2].strip() for line in file if line.startswith(("0::", "1:")) or ":memory:" in line)
    except (OSError, StopIteration, IndexError):
        own = "/"
    folder = own.strip("/")
    while True:
        for name in ("memory.max", "memory/memory.limit_in_bytes", "memory.limit_in_bytes"):
            try:
                with open(os.path.join(cgroups, folder, name)) as file:
                    found = min(found, int(file.read()))
            except (OSError, ValueError):  # "max", or none there
                pass
        if not folder:
            return found
        folder = os.path.dirname(folder)


def is_past(store: Store, meta: Meta) -> bool:
    """Whether the server holds more than its line allows."""
    return bool(meta.room) and store.memory()[0] > meta.room


def set_line(store: Store, text: str) -> int:
    """Draw the line for an instance, where the scripts of its server see it; its place in bytes, 0 for none."""
    try:
        _, maxmemory, total = store.memory()
    except Unavailable:  # it does not say: a line that somebody named holds all the same
        maxmemory = total = 0
    meta = store.meta()
    line = line_for(text, maxmemory, min(filter(None, (total, machine_memory())), default=0) if total else 0)
    if line != meta.room:
        store.set_room(meta.uid, line)
    return line
