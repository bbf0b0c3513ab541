"""A launcher without processes: the same messages, the same events; for simulated nodes and run durations.

An attempt lasts `fake_s` seconds (0: over as soon as it started) and ends with `fake_status` (a wait
status, default 0). Pure: time is an argument, seconds since the epoch, and nothing is done. Keeps `seats`'
rules as the real one does, so what an agent learns here is true there; a fake task dies at once of any
signal that would kill a plain program.
"""

from __future__ import annotations

import signal
from collections import deque
from heapq import heapify, heappop, heappush
from typing import Any

from .seats import LINGER_S, Seats
from .wire import Message

RECENT = 1024
_HARMLESS = frozenset(
    {
        0,
        *map(
            int,
            (
                signal.SIGCHLD,
                signal.SIGCONT,
                signal.SIGURG,
                signal.SIGWINCH,
                signal.SIGSTOP,
                signal.SIGTSTP,
                signal.SIGTTIN,
                signal.SIGTTOU,
            ),
        ),
    }
)


class _Run:
    """A started attempt. status: how it will end, should nothing intervene."""

    __slots__ = ("at", "cause", "key", "spec", "started", "status")

    def __init__(self, key: str, spec: dict[str, Any], started: float) -> None:
        self.key = key
        self.spec = spec
        self.started = started
        self.status: int = spec.get("fake_status", 0)
        self.cause = ""
        self.at = 0.0  # when it ends


class FakeLauncher:
    """`handle` messages, then `advance` to the present; sleep until `due`."""

    __slots__ = ("_count", "_ends", "_events", "_leaving", "_over", "_recent", "_ripe", "_runs", "_seats", "_waiting")

    def __init__(self, *, linger_s: float = LINGER_S) -> None:
        self._seats = Seats(linger_s)
        self._waiting: dict[str, dict[str, Any]] = {}
        self._runs: dict[str, _Run] = {}
        self._over: dict[str, list[Any]] = {}  # not yet acked
        self._recent: dict[str, list[Any]] = {}  # acked a short while ago
        self._ripe: deque[_Run] = deque()  # over as soon as time is told
        self._ends: list[tuple[float, int, _Run]] = []
        self._events: list[list[Any]] = []
        self._count = 0
        self._leaving = False

    @property
    def finished(self) -> bool:
        """Told to shut down, and nothing runs."""
        return self._leaving and not self._runs

    def handle(self, message: Message, now: float) -> None:
        """Take in one message; what it causes comes from the next `advance`."""
        kind = message[0]
        if kind == "launch":
            self._launch(message[1], now)
        elif kind == "ack":
            for key in message[1]:
                over = self._over.pop(key, None)
                if over is not None:
                    self._recent[key] = over
            while len(self._recent) > RECENT:
                del self._recent[next(iter(self._recent))]
        elif kind == "recall":
            self._give_back(self._seats.withdraw(message[1]))
        elif kind == "end":
            if self._seats.queued(message[1]):
                self._give_back(self._seats.withdraw([message[1]]))
            else:
                self._stop(message[1], signal.SIGTERM, f"ended:{message[2]}")
        elif kind == "signal":
            if message[2] not in _HARMLESS:
                self._stop(message[1], message[2], "")
        elif kind == "limit":
            if message[1] in self._runs:
                run = self._runs[message[1]]
                run.spec["limit_s"] = message[2]
                self._schedule(run)
            elif message[1] in self._waiting:
                self._waiting[message[1]]["limit_s"] = message[2]
        elif kind == "list":
            self._events.append(["held", self._rows(recent=len(message) > 1)])
        elif kind == "shutdown":
            self._leaving = True
            self._give_back(self._seats.withdraw_all())
            if message[1]:
                for key in list(self._runs):
                    self._stop(key, signal.SIGTERM, "ended:shutdown")

    def due(self) -> float | None:
        """When `advance` has something to do:

        an end, a lingering queued attempt, or events now (0.0). None: never.
        """
        if self._events or self._ripe:
            return 0.0
        linger = self._seats.deadline()
        while self._ends and self._ends[0][0] != self._ends[0][2].at:
            heappop(self._ends)
        if not self._ends:
            return linger
        return self._ends[0][0] if linger is None else min(linger, self._ends[0][0])

    def advance(self, now: float) -> list[list[Any]]:
        """Everything that has happened up to `now`, in order."""
        ripe, ends = self._ripe, self._ends
        while True:
            while ripe:
                self._finish(ripe.popleft(), now)
            if not ends or ends[0][0] > now:
                break
            at, _, run = heappop(ends)
            if at == run.at:
                self._finish(run, at)
        late = self._seats.expired(now)
        if late:
            self._give_back(late)
        events = self._events
        self._events = []
        return events

    def _launch(self, specs: list[dict[str, Any]], now: float) -> None:
        seats, back = self._seats, []
        for spec in specs:
            key = spec["key"]
            if key in self._runs:
                self._events.append(["start", key, self._runs[key].started, []])
            elif key in self._over:
                self._events.append(self._over[key])
            elif key in self._recent:  # resent late, or ordered again by a journal that lost its end
                self._over[key] = self._recent.pop(key)
                self._events.append(self._over[key])
            elif key in self._waiting:
                continue
            elif self._leaving:
                back.append(key)
            elif not spec.get("queued"):
                seats.hold(key, spec.get("group", ""), None)
                self._start(key, spec, now)
            elif seats.wait(key, spec.get("group", ""), now):
                self._waiting[key] = spec
            else:
                back.append(key)
        if back:
            self._events.append(["unstarted", back])

    def _start(self, key: str, spec: dict[str, Any], now: float) -> None:
        run = self._runs[key] = _Run(key, spec, now)
        self._events.append(["start", key, now, []])
        if spec.get("fake_s"):
            self._schedule(run)
        else:
            run.at = now
            self._ripe.append(run)

    def _schedule(self, run: _Run) -> None:
        """(Again) decide when and how the run ends: of itself, or by its limit."""
        if run.cause.startswith("ended") or not run.spec.get("fake_s"):
            return
        limit_s = run.spec.get("limit_s") or 0.0
        run.at = run.started + run.spec["fake_s"]
        run.cause, run.status = "", run.spec.get("fake_status", 0)
        if limit_s and run.started + limit_s < run.at:
            run.at, run.cause, run.status = run.started + limit_s, "timeout", int(signal.SIGTERM)
        self._count += 1
        heappush(self._ends, (run.at, self._count, run))
        if len(self._ends) > 64 + 4 * len(self._runs):
            self._ends = [end for end in self._ends if end[0] == end[2].at]
            heapify(self._ends)

    def _stop(self, key: str, signum: int, cause: str) -> None:
        run = self._runs.get(key)
        if run is None or run.at < 0:
            return
        if run.spec.get("fake_s"):
            run.at = -1.0  # its place among the ends no longer counts
            self._ripe.append(run)
        run.status, run.cause = int(signum), cause

    def _finish(self, run: _Run, now: float) -> None:
        key, spec, events = run.key, run.spec, self._events
        run.at = -2.0
        count = len(spec["tasks"]) if "tasks" in spec else 1
        if run.cause == "timeout":
            events.append(["timeout", key, now])
        if count > 1:
            for task in spec["tasks"]:
                events.append(["exit", key, task[0], run.status, now])
        heir = self._seats.over(key)
        del self._runs[key]
        over = [
            "over",
            key,
            run.status,
            run.started,
            now,
            [run.status] * count if count > 1 else None,
            run.cause,
            heir,
            0,
            0.0,
            spec["job"],
        ]
        if spec.get("first_exits") and not run.cause:
            over.append([[spec["tasks"][0][0], run.status, now]])
        self._over[key] = over
        events.append(over)
        if heir:
            self._start(heir, self._waiting.pop(heir) | {"held": spec.get("held")}, now)

    def _give_back(self, keys: list[str]) -> None:
        if keys:
            for key in keys:
                del self._waiting[key]
            self._events.append(["unstarted", keys])

    def _rows(self, *, recent: bool = False) -> list[list[Any]]:
        rows: list[list[Any]] = [
            [key, spec["job"], "queued", 0.0, [], None] for key, spec in self._waiting.items()
        ]
        rows += [
            [run.key, run.spec["job"], "running", run.started, [], None, run.spec.get("held")] for run in self._runs.values()
        ]
        rows += [[over[1], over[10], "over", over[3], [], over] for over in self._over.values()]
        if recent:
            rows += [[over[1], over[10], "past", over[3], [], over] for over in self._recent.values()]
        return rows
