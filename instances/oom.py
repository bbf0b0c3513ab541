"""Whether the kernel ended a task for want of memory: told from its count of such kills, since a wait status says only SIGKILL.

The count is that of the launcher's own control group with all below it (version 2: `memory.events`), else the whole host's
(`/proc/vmstat`). A kill is credited to one attempt whose task died by SIGKILL, not ended by us, within the time since the last
look (some 30 s at most). Decides only that. What it cannot tell: a process further down whose parent hides it by an exit code of
its own; and on the host's count, a kill of ours from one elsewhere in the same moment.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

LOOK_S = 1.0
_KILLED = (int(signal.SIGKILL), (128 + signal.SIGKILL) << 8)  # the second is what a shell makes of it


def counter_file() -> str:
    """Where the kernel counts: a file with a line "oom_kill N"; "" if nowhere."""
    try:
        with open("/proc/self/cgroup") as file:
            own = [line.rstrip("\n").partition("0::")[2] for line in file if line.startswith("0::")]
    except OSError:
        own = []
    found = [f"/sys/fs/cgroup{path.rstrip('/')}/memory.events" for path in own]
    return next((path for path in (*found, "/proc/vmstat") if os.path.exists(path)), "")


class OomWatch:
    """Looks at most once in `LOOK_S`, and whenever something was killed."""

    __slots__ = ("_credit", "_last", "_path", "_seen")

    def __init__(self, path: str | None = None) -> None:
        self._path = counter_file() if path is None else path
        self._seen = self._read()
        self._credit = 0
        self._last = 0.0

    def look(self, now: float) -> None:
        """From time to time: kills until now that nobody had are nobody's."""
        if now - self._last >= LOOK_S:
            self._last, self._seen, self._credit = now, self._read(), 0

    def ended(self, statuses: Iterable[int]) -> bool:
        """Whether a task that ended like this (wait statuses of an attempt) was such a kill; it is credited then."""
        if not any(status in _KILLED for status in statuses):
            return False
        count = self._read()
        self._credit += max(0, count - self._seen)
        self._seen = count
        if not self._credit:
            return False
        self._credit -= 1
        return True

    def _read(self) -> int:
        try:
            with open(self._path, "rb") as file:
                for line in file:
                    name, _, value = line.partition(b" ")
                    if name == b"oom_kill":
                        return int(value)
        except (OSError, ValueError):
            pass
        return 0
