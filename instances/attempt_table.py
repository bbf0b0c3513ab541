"""The launcher's attempts: held, started, ended, over. When an attempt is over, its limits, and what is written down.

The half of the launcher that acts on attempts; `launcher` is the loop and the messages. An attempt is over when its whole
tree of processes is gone, and not before.
"""

from __future__ import annotations

import signal
import sys
import time
from heapq import heapify, heappush
from typing import Any

from ..kvs.failpoints import ARMED, reach
from .fence import CUT_OFF, Fence
from .leftovers import LeftOvers
from .oom import OomWatch
from .seats import Seats
from .spawning import Attempt, Spawner, SpawnError, badness, unlink_if_empty
from .spool import Lost, Spool, boot_time, input_path, output_paths, take_lock
from .trees import Trees
from .wire import pack

_KILL_AGAIN_S = 0.1
_SWEEP_S = 0.02


class AttemptTable:
    """All attempts of one spool. `events` is what the agent is to be told."""

    def __init__(self, folder: str, linger_s: float) -> None:
        """Raises `Unavailable` when another launcher serves this spool."""
        self.folder = folder
        self.lock = take_lock(folder)
        self.spool = Spool(folder)
        self.seats = Seats(linger_s)
        self.spawner = Spawner(folder, self.spool.tag)
        self.held: dict[str, Attempt] = {}
        self.over: dict[str, list[Any]] = self.spool.over  # not yet acked
        self.trees = Trees(self.spawner.mark(""))
        self.timers: list[tuple[float, int, str, Attempt]] = []
        self.timer_count = 0
        self.events: list[list[Any]] = []
        self.leftovers = LeftOvers(self.spool.lost, self.spawner.mark(""))
        self.lost = self.leftovers.lost
        self.oom = OomWatch()
        self.fence = Fence()
        self.sweep()

    def arm(self, attempt: Attempt, kind: str, at: float) -> None:
        """One timer per attempt and kind ("limit_at", "warn_at", "kill_at"): the newest holds, 0 clears."""
        setattr(attempt, kind, at)
        if not at:
            return
        self.timer_count += 1
        heappush(self.timers, (at, self.timer_count, kind, attempt))
        if len(self.timers) > 1024 + 6 * len(self.held):  # most belong to attempts long over
            self.timers = [t for t in self.timers if t[3].event is None and getattr(t[3], t[2]) == t[0]]
            heapify(self.timers)

    def write_down(self) -> None:
        """The end of a turn."""
        self.spawner.scratch.fresh = ""
        try:
            said = bool(ARMED) and self.spool.pending
            if said:
                reach("spool.before")
            self.spool.flush()
            if said:
                reach("spool.after")
            if self.spool.wants_rewrite:
                self.spool.rewrite(self.records())
        except OSError as error:  # disk full: the facts stay in memory, the next rewrite mends the file
            print(f"launcher: spool {self.folder}: {error}", file=sys.stderr, flush=True)

    def records(self) -> list[bytes]:
        out = [pack(["x", event]) for event in self.over.values()]
        for lost in self.lost.values():
            out += lost.records()
        for a in self.held.values():
            if a.t_start:
                tmpdir = a.spec.get("tmpdir", "")
                out.append(pack(["i", a.key, a.job, a.t_start, a.start_boot, a.kind.ranks, tmpdir, a.lent]))
                out.append(pack(["p", a.key, a.start_boot, a.pids]))
        return out

    # ---- starting

    def start(self, attempt: Attempt) -> bool:
        """Start a holder of a seat; False when nothing of it runs, so that it is over already."""
        if attempt.kind.fence and self.fence.bars(attempt.key, boot_time(), attempt.kind.fence):
            attempt.cause = self.fence.cause()  # it may be known to be over: begun elsewhere
            attempt.statuses.update(dict.fromkeys((task[0] for task in attempt.tasks), int(signal.SIGKILL)))
            return False
        attempt.t_start = time.time()
        attempt.start_boot = boot_time()
        try:
            self.spawner.lend(attempt)
            self.spool.intent(
                attempt.key,
                attempt.job,
                attempt.t_start,
                attempt.start_boot,
                attempt.kind.ranks,
                attempt.spec.get("tmpdir", ""),
                attempt.lent,
            )
            self.spawner.start(attempt, self.seats.seat(attempt.key), self.trees.owner)
            if ARMED:
                reach("spawn.after")
        except SpawnError as error:
            self.spawn_failed(attempt, str(error), error.status)
        except OSError as error:
            self.spawn_failed(attempt, f"{error.filename or self.folder}: {error.strerror}", 1 << 8)
        except Exception as error:  # whatever it is, it must not end everybody else's tasks
            self.spawn_failed(attempt, f"bad attempt: {error!r}", 1 << 8)
        if not attempt.alive:
            return False
        if attempt.kind.fence:
            self.fence.hold(attempt)
        self.spool.add(pack(("p", attempt.key, boot_time(), attempt.pids)))
        self.events.append(["start", attempt.key, attempt.t_start, attempt.pids])
        if attempt.limit_s:
            self.arm_limit(attempt)
        if attempt.cause:
            self.begin_end(attempt, attempt.cause)
        return True

    @staticmethod
    def spawn_failed(attempt: Attempt, text: str, status: int) -> None:
        attempt.cause = "spawn: " + text
        for task in attempt.tasks[len(attempt.pids) :]:
            attempt.statuses[task[0]] = status

    def arm_limit(self, attempt: Attempt) -> None:
        limit_s, warn_s = attempt.limit_s, attempt.spec.get("warn_s") or 0.0
        if not limit_s:
            attempt.limit_at = attempt.warn_at = 0.0
            return
        self.arm(attempt, "limit_at", attempt.start_boot + limit_s)
        if warn_s:
            self.arm(attempt, "warn_at", attempt.start_boot + max(limit_s - warn_s, 0.0))

    # ---- ending

    def on_limit_reached(self, attempt: Attempt) -> None:
        if not attempt.ending:
            self.events.append(["timeout", attempt.key, time.time()])
            self.begin_end(attempt, "timeout")

    def begin_end(self, attempt: Attempt, cause: str) -> None:
        """TERM to the tasks' groups and to what came to us from them;

        KILL for the whole tree after the grace.
        """
        if attempt.ending:
            return
        attempt.ending = 1
        attempt.cause = attempt.cause or cause
        self.trees.signal_groups(attempt, signal.SIGTERM)
        self.trees.signal_groups(attempt, signal.SIGCONT)  # a stopped process would not hear it
        self.arm(attempt, "kill_at", boot_time() + attempt.grace_s)

    def reap(self) -> None:
        touched: dict[Attempt, None] = {}
        for attempt, rank, status in self.trees.reap():
            if rank is not None:
                attempt.statuses[rank] = status
                if attempt.exits is not None:
                    self.note_exit(attempt, rank, status)
                if len(attempt.tasks) > 1:
                    self.events.append(["exit", attempt.key, rank, status, time.time()])
            touched[attempt] = None
        for attempt in touched:
            if attempt.alive:
                continue
            if self.trees.gone(attempt, self.held.values()):
                self.finish(attempt)
            elif not attempt.ending:
                attempt.ending = 1
                self.arm(attempt, "kill_at", boot_time() + attempt.grace_s)

    def note_exit(self, attempt: Attempt, rank: int, status: int) -> None:
        """The first end of a task, and the first failure, for a job that wants to know at once; not of those we end."""
        exits = attempt.exits
        if exits is not None and not attempt.ending and (not exits or (status and not any(one[1] for one in exits))):
            exits.append([rank, status, time.time()])
            self.events.append(["first-exit", attempt.key, *exits[-1]])

    def finish(self, attempt: Attempt) -> None:
        """The tree is gone: tell it, and let the head of the line take the seat, without asking anybody."""
        while True:
            key = attempt.key
            wrote = self.spawner.release(attempt)
            tmpdir = attempt.spec.get("tmpdir")
            if tmpdir and not self.spawner.scratch.give(tmpdir):
                self.trees.remove_tree(tmpdir)
            statuses = attempt.statuses
            if len(attempt.tasks) == 1:
                (worst,) = statuses.values()
                each = None
            else:
                worst = max(statuses.values(), key=badness)
                each = [statuses[task[0]] for task in attempt.tasks]
            if worst and not attempt.cause and self.oom.ended(statuses.values()):
                attempt.cause = "oom"
            self.fence.held.pop(key, None)
            if attempt.cause.startswith(CUT_OFF) and (back := self.seats.dismiss(key)):
                self.give_back(back)
            heir = self.seats.over(key)
            del self.held[key]
            self.conclude(
                [
                    "over",
                    key,
                    worst,
                    attempt.t_start,
                    time.time(),
                    each,
                    attempt.cause,
                    heir,
                    attempt.max_rss_kib,
                    attempt.cpu_s,
                    attempt.job,
                    *([attempt.exits] if wrote and attempt.exits else () if wrote else (attempt.exits or [], True)),
                ]
            )
            attempt.event = self.over[key]
            if not heir:
                return
            place, attempt = attempt.spec.get("held"), self.held[heir]
            attempt.spec["held"] = place
            if self.start(attempt):
                return

    def conclude(self, event: list[Any]) -> None:
        self.over[event[1]] = event
        self.events.append(event)
        self.spool.add(pack(("x", event)))

    def give_back(self, keys: list[str]) -> None:
        for key in keys:
            del self.held[key]
        self.events.append(["unstarted", keys])

    # ---- after a launcher's death

    def sweep(self) -> None:
        for lost in self.leftovers.sweep():
            self.bury(lost)

    def bury(self, lost: Lost) -> None:
        for rank in [None, *(lost.ranks or ())]:
            for path in output_paths(self.folder, lost.job, lost.key, rank):
                unlink_if_empty(path)
            unlink_if_empty(input_path(self.folder, lost.job, lost.key, rank))
        if lost.tmpdir:
            self.trees.remove_tree(lost.tmpdir)
        self.conclude(
            [
                "over",
                lost.key,
                int(signal.SIGKILL),
                lost.t_start,
                time.time(),
                None,
                "lost",
                "",
                0,
                0.0,
                lost.job,
            ]
        )
