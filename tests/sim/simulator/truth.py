"""What really happens on the nodes: launchers without processes, and the diary of what ran where and when.

The diary is the physical truth that the journal is measured by. It raises `Broken` the moment something runs that must not.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from heapq import heappush
from typing import Any, cast

from fluxkv.instances.attempts import PART, split_key
from fluxkv.instances.fake_launcher import FakeLauncher, _Run
from fluxkv.instances.fence import CUT_OFF, Fence
from fluxkv.instances.script_orders import letter_of
from fluxkv.instances.seats import Seats
from fluxkv.journal.scripts import KINDS


class Broken(AssertionError):
    """Something that must never be. job: whose story explains it (0: nobody's)."""

    def __init__(self, what: str, job: int = 0) -> None:
        super().__init__(what)
        self.job = job


class Held:
    """What `Fence` knows of a running attempt."""

    def __init__(self, key: str, grace_s: float) -> None:
        self.key, self.grace_s = key, grace_s


class SimLauncher(FakeLauncher):
    """A launcher that can die: its tasks end with it, and its spool says so to the next one. It ends what has a fence, by the
    production's own `Fence` and its host's boot-time clock. booted: when that began. cut_off: how many it has ended so."""

    def __init__(self, booted: float) -> None:
        super().__init__()
        self.fence = Fence()
        self.booted = booted
        self.cut_off = 0

    def handle(self, message: list[Any], now: float) -> None:
        if message[0] == "alive":
            self.fence.alive(message[1], message[2], message[3])
        else:
            super().handle(message, now)

    def due(self) -> float | None:
        due = super().due()
        if not self.fence.held or (at := self.booted + self.fence.at()) == float("inf"):
            return due
        return at if due is None else min(due, at)

    def advance(self, now: float) -> list[list[Any]]:
        for held in self.fence.due(now - self.booted):
            self._cut_off(cast(Held, held), now)
        return super().advance(now)

    def _cut_off(self, held: Held, now: float) -> None:
        """Every other one does not obey TERM, and is killed."""
        run = self._runs.get(held.key)
        if run is None or run.at < 0:
            return
        self.cut_off += 1
        self._stop(held.key, signal.SIGTERM, self.fence.cause())
        if run.spec.get("fake_s") and sum(held.key.encode()) % 2:
            self._ripe.remove(run)
            run.at, run.status = now + held.grace_s, int(signal.SIGKILL)
            self._count += 1
            heappush(self._ends, (run.at, self._count, run))

    def leave(self, key: str) -> None:
        """A task that goes on until it is told to end ends by itself."""
        run = self._runs.get(key)
        if run is not None and run.at >= 0:
            run.at, run.status, run.cause = -1.0, 0, ""
            self._ripe.append(run)

    def _schedule(self, run: _Run) -> None:
        if not run.cause.startswith("lost"):
            super()._schedule(run)

    def _start(self, key: str, spec: dict[str, Any], now: float) -> None:
        if not spec.get("fence"):
            super()._start(key, spec, now)
        elif not self.fence.bars(key, now - self.booted):
            super()._start(key, spec, now)
            self.fence.hold(cast(Any, Held(key, spec.get("kill_grace_s", 5.0))))
        else:  # it may be known to be over, and have begun elsewhere
            run = self._runs[key] = _Run(key, spec, 0.0)
            run.status, run.cause, run.at = int(signal.SIGKILL), self.fence.cause(), -1.0
            self._ripe.append(run)

    def _finish(self, run: _Run, now: float) -> None:
        self.fence.held.pop(run.key, None)
        if run.cause.startswith(CUT_OFF):
            self._give_back(self._seats.dismiss(run.key))
        super()._finish(run, now)

    def die(self, now: float, *, with_spool: bool) -> None:
        """Whatever it was about to say is unsaid. with_spool: the whole host went down, and what was not journalled is void."""
        for run in list(self._runs.values()):
            over = ["over", run.key, 9, run.started, now, None, "lost", "", 0, 0.0, run.spec["job"]]
            self._over[run.key] = over
        self._runs.clear()
        self._waiting.clear()
        self._ripe.clear()
        self._ends.clear()
        self._events.clear()
        self._recent.clear()
        self._seats = Seats(self._seats.linger_s)
        self.fence = Fence()
        if with_spool:
            self._over.clear()
            self.booted = now


class Run:
    """One thing that ran. begun, over: true times (over: 0.0 while it runs). limit_s: its time limit, 0.0 for none."""

    __slots__ = ("begun", "cores", "home", "job", "key", "limit_s", "over", "rank", "version")

    def __init__(self, key: str, home: str, cores: frozenset[int], begun: float, limit_s: float) -> None:
        self.key, self.home, self.cores, self.begun, self.limit_s = key, home, cores, begun, limit_s
        self.job, self.version, self.rank = split_key(key)
        self.over = 0.0


class Diary:
    """Every run by its key. started, handed: how many began, how many of them on another's seat. single: whether scripts may run
    on a node of a job while its tasks go on on others. prolog: the site's, where that never changes."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.running: dict[str, Run] = {}
        self.by_job: dict[int, list[Run]] = {}
        self.seats: dict[str, frozenset[int]] = {}
        self.limits: dict[str, float] = {}
        self.later: dict[str, str] = {}  # attempt -> what has begun after its tasks
        self.handed = 0
        self.single = False
        self.prolog: dict[str, Any] = {}
        self.begins: Callable[[str], None] = lambda key: None
        self.ends: Callable[[str], None] = lambda key: None
        self.forked = 0.0  # when history last lost something
        self.deaths: dict[str, float] = {}  # home -> when its launcher last died, and with it what it remembered

    def brought(self, attempt: dict[str, Any]) -> None:
        """What a launcher is given; an attempt that is not queued brings its seat."""
        self.limits[attempt["key"]] = attempt.get("limit_s") or 0.0
        if not attempt["queued"]:
            self.seats.setdefault(attempt["key"], frozenset(attempt["seat"]["cpus"]))

    def saw(self, home: str, events: list[list[Any]], now: float) -> None:
        """What the launcher of a host has to tell."""
        for event in events:
            if event[0] == "start":
                self._start(home, event[1], now)
            elif event[0] == "over":
                if event[7]:
                    self.handed += event[7] not in self.seats
                    self.seats[event[7]] = self.seats[event[1]]
                if event[1] in self.running:
                    self._over(event[1], now)

    def _over(self, key: str, now: float) -> None:
        self.running.pop(key).over = now
        self.ends(key)

    def died(self, home: str, now: float) -> None:
        """A launcher and its tasks are gone."""
        self.deaths[home] = now
        for key in [key for key, run in self.running.items() if run.home == home]:
            self._over(key, now)

    def _start(self, home: str, key: str, now: float) -> None:
        job, version, rank = split_key(key)
        if key in self.runs:
            before = self.runs[key]
            dead = before.home != home or (letter_of(key) and self.deaths.get(home, 0.0) >= before.over)
            forgotten = before.begun < self.forked and before.over and dead
            if not forgotten and (key not in self.running or self.running[key].home != home):
                raise Broken(f"attempt {key} starts twice", job)
            if not forgotten:
                return  # told again
        letter = letter_of(key)
        self._scripts(key, rank, letter)
        cores = self.seats[key]
        run = Run(key, home, cores, now, self.limits.get(key, 0.0))
        for other in self.running.values():
            if other.rank == rank and other.cores & cores:
                raise Broken(f"{key} and {other.key} run on the same cores {sorted(other.cores & cores)} of rank {rank}", job)
        for other in self.by_job.get(job, ()):
            if not other.over and other.version != version:
                raise Broken(f"{key} starts while {other.key} runs: two attempts at once", job)
        self.runs[key] = self.running[key] = run
        self.by_job.setdefault(job, []).append(run)
        self.begins(key)

    def _scripts(self, key: str, rank: int, letter: str) -> None:
        """A script stands alone: no task of its job runs beside it; tasks begin after their prolog and before all else."""
        job = split_key(key)[0]
        attempt = key.rpartition(".")[0].rstrip("".join(KINDS))
        stay = f"{attempt}.{rank}{PART}{key.partition(PART)[2]}" if self.single else attempt
        for other in self.by_job.get(job, ()):
            if other.over:
                continue
            theirs, beside = letter_of(other.key), other.rank != rank
            if letter == "" and theirs and not (beside and self.single):
                raise Broken(f"a task of {job} starts while {other.key} runs", job)
            if letter and not theirs and not (beside and (letter == "h" or self.single)):
                raise Broken(f"{KINDS[letter]} of {job} starts while {other.key} runs", job)
        if letter == "" and self.later.get(stay):
            raise Broken(f"a task of {job} starts after {self.later[stay]}", job)
        if letter == "" and self.prolog.get("per-rank") and f"{attempt}p{key[len(attempt) :]}" not in self.runs:
            raise Broken(f"{key} starts where no prolog ran", job)
        if letter in ("e", "h"):
            self.later[stay] = KINDS[letter]
