"""What a dead launcher's attempts left running: find it, kill it, say when nothing of an attempt is left.

Any process that carries this spool's mark and is not below the living launcher is such a left-over, whether
the record knows it or not (a launcher may die between spawn and record). Tasks that cleared their
environment are found by the recorded numbers and start times. Decides nothing about what happens to the
attempt.
"""

from __future__ import annotations

import os
import signal

from . import proctree
from .spool import Lost


class LeftOvers:
    """`sweep` until `active` is False."""

    __slots__ = ("_dying", "_suffix", "active", "lost")

    def __init__(self, lost: dict[str, Lost], suffix: str) -> None:
        """lost: key -> attempts nobody has seen the end of. suffix: what this spool's marks end with."""
        self.lost = dict(lost)
        self.active = True
        self._dying: dict[tuple[int, float], str] = {}  # (pid, start time) -> key, of what has been killed
        self._suffix = suffix

    def sweep(self) -> list[Lost]:
        """Kill every left-over found now;

        the attempts that have none any more, which are then forgotten here.
        """
        found = {pid: key for pid in proctree.all_pids() if (key := self._key(pid))}
        if found:  # nearly always there is nothing, and whose child is whose need not be asked
            me = os.getpid()
            below = proctree.families()
            spare = {me, *proctree.ancestors(me), *proctree.descendants([me], below)}
            found = {pid: key for pid, key in found.items() if pid not in spare}
            for root in list(found):
                for pid in proctree.descendants([root], below):
                    if pid not in spare:
                        found.setdefault(pid, found[root])
        for pid in found:
            send(pid, signal.SIGKILL)
        # One that ends shows no mark as soon as it has given its memory back, and holds files, locks and its number still.
        self._dying = {one: key for one, key in self._dying.items() if self._lives(one)}
        for pid, key in found.items():
            process = proctree.stat(pid)
            if process is not None and not process.dead:
                self._dying[pid, process.start_s] = key
        busy = {*self._dying.values()}
        gone = [self.lost.pop(key) for key in list(self.lost) if key not in busy]
        self.active = bool(busy)
        return gone

    @staticmethod
    def _lives(one: tuple[int, float]) -> bool:
        process = proctree.stat(one[0])
        return process is not None and not process.dead and process.start_s == one[1]

    def _key(self, pid: int) -> str:
        for mark in reversed(proctree.marks(pid)):
            if mark.endswith(self._suffix):
                return mark[: -len(self._suffix)]
        found = proctree.stat(pid) if self.lost else None
        if found is None or found.dead:
            return ""
        for lost in self.lost.values():
            if found.start_s < lost.t_boot - proctree.CLOCK_STEP_S:
                continue
            if pid in lost.pids and found.start_s > lost.spawned_boot + proctree.CLOCK_STEP_S:
                continue  # the number was given to somebody else since
            if pid in lost.pids or found.session in lost.pids or found.group in lost.pids:
                return lost.key
        return ""


def send(pid: int, signum: int) -> None:
    """Signal a process that may be gone, or not ours to signal."""
    try:
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        pass
