"""The launcher's children: whose each is, when an attempt's whole tree is gone, and how a tree is ended.

Orphans of tasks come to us (child subreaper). One belongs to an attempt by the mark in its environment, by
its session or process group, or because no other running attempt can have it. Decides nothing about seats,
limits or reports.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Iterable

from . import proctree
from .leftovers import send
from .spawning import Attempt

_KILL_PASSES = 4


class Trees:
    """Reaps, adopts, signals. `owner` is filled by whoever spawns: child pid -> attempt."""

    __slots__ = ("_children", "_helpers", "_strays", "_suffix", "owner")

    def __init__(self, suffix: str) -> None:
        """suffix: what this spool's marks end with."""
        self.owner: dict[int, Attempt] = {}  # tasks, and orphans of attempts whose tasks are all gone
        self._strays: dict[int, Attempt] = {}  # orphans of attempts whose tasks still run
        self._helpers: set[int] = set()
        self._children = proctree.Children()
        self._suffix = suffix

    def reap(self) -> list[tuple[Attempt, int | None, int]]:
        """Children that have ended: (attempt, task rank or None for an orphan, wait status), in order."""
        reaped: list[tuple[Attempt, int | None, int]] = []
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return reaped
            if not pid:
                return reaped
            attempt = self.owner.pop(pid, None)
            if attempt is None:
                self._helpers.discard(pid)
                self._strays.pop(pid, None)
                continue
            rank = attempt.alive.pop(pid, None)
            attempt.orphans.discard(pid)
            attempt.cpu_s += usage.ru_utime + usage.ru_stime
            attempt.max_rss_kib = max(attempt.max_rss_kib, usage.ru_maxrss)
            reaped.append((attempt, rank, status))
            if not (self.owner or self._strays or self._helpers):
                return reaped  # what else may have come to us is looked for now that a tree may be gone, see `gone`

    def gone(self, attempt: Attempt, held: Collection[Attempt]) -> bool:
        """Whether nothing is left of an attempt whose tasks are all reaped; what is left is told to end.

        held: all attempts not over. Complete, since a process's children come to us before it can be reaped.
        """
        owner, strays = self.owner, self._strays
        while True:
            again, new = False, set[int]()
            for pid in self._children.pids():
                if pid in owner or pid in self._helpers:
                    continue
                whose = strays.get(pid)
                if whose is None:
                    found = proctree.stat(pid)
                    if found is None or found.dead:
                        again = True  # its own children may have come to us after we looked
                        self._bury(pid)
                        continue
                    whose = self._whose(pid, found, attempt, held)
                    if whose is not None and whose is not attempt:
                        strays[pid] = whose
                if whose is attempt:
                    strays.pop(pid, None)
                    owner[pid] = attempt
                    attempt.orphans.add(pid)
                    new.add(pid)
            if new:
                self._end_orphans(new, hard=attempt.ending == 2)
            if not again:
                return not attempt.orphans

    def kill(self, attempts: Iterable[Attempt]) -> None:
        """KILL to whole trees; what is forked meanwhile is caught by another pass, or by the next call."""
        wanted: set[str] = set()
        roots: set[int] = set()
        killed: set[int] = set()
        for attempt in attempts:
            self.signal_groups(attempt, signal.SIGKILL)
            wanted.add(attempt.key + self._suffix)
            roots.update(attempt.alive, attempt.orphans)
        for _ in range(_KILL_PASSES):
            found = {*roots, *proctree.descendants(roots), *proctree.marked(wanted)} - killed
            if not found:
                break
            for pid in sorted(found):  # an instance's daemons before its tasks, whose ends they would take for those of its jobs
                send(pid, signal.SIGKILL)
            killed |= found

    @staticmethod
    def signal_groups(attempt: Attempt, signum: int) -> None:
        """To the group of every task not yet reaped: its number cannot be anybody else's."""
        for pid in attempt.alive:
            try:
                os.killpg(pid, signum)
            except (OSError, OverflowError):
                pass  # gone, not ours, or no such signal

    def remove_tree(self, path: str) -> None:
        """A directory that is empty goes at once, a full one by a helper, so that nobody waits for it."""
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError:
            try:
                self._helpers.add(os.posix_spawn("/bin/rm", ["rm", "-rf", "--", path], {}, setpgroup=0, setsigmask=()))
            except OSError as error:
                print(f"launcher: cannot remove {path}: {error}", file=sys.stderr, flush=True)

    def _whose(
        self, pid: int, found: proctree.Stat, ending: Attempt, held: Collection[Attempt]
    ) -> Attempt | None:
        """None: perhaps another's, who looks again when its own tasks are gone."""
        started = [attempt for attempt in held if attempt.t_start]
        for mark in reversed(proctree.marks(pid)):
            if mark.endswith(self._suffix):
                key = mark[: -len(self._suffix)]
                return next((attempt for attempt in started if attempt.key == key), ending)
        for attempt in started:
            if found.session in attempt.pids or found.group in attempt.pids:
                return attempt
        for attempt in started:
            if attempt is not ending and attempt.start_boot <= found.start_s + proctree.CLOCK_STEP_S:
                return None
        return ending

    def _end_orphans(self, pids: set[int], *, hard: bool) -> None:
        """What is below them as well; but tasks of an instance that runs inside are left to that one's launcher, which knows of
        them, as long as they can be asked to end."""
        for each in (*pids, *proctree.descendants(pids)):
            if hard:
                send(each, signal.SIGKILL)
            elif each in pids or not self._inside(each):
                send(each, signal.SIGTERM)
                send(each, signal.SIGCONT)  # a stopped process would not hear it

    def _inside(self, pid: int) -> bool:
        """Whether another launcher, of an instance inside, has begun this process."""
        marks = proctree.marks(pid)
        return bool(marks) and not marks[-1].endswith(self._suffix)

    @staticmethod
    def _bury(pid: int) -> None:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
