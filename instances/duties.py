"""Duties of a keeper, periodic or at a time. What is due at once is done once, and nothing is ever too late to be done.

Periods are kept here, by the monotonic clock. Times, which go by a calendar, APScheduler keeps (memory store, coalescing); it is
imported when the first of them is asked for, since most keepers never have one. Its thread only says what is due; the keeper's
own thread does it, so no duty runs beside another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any


class Duties:
    """Named functions with periods, and with times. Call `run_due` when `fileno` becomes readable, or `wait_s` are over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._every: dict[float, dict[str, Callable[[], None]]] = {}  # by period: what is due at once wakes the keeper once
        self._next: dict[float, float] = {}
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._timed: dict[int, Callable[[], None]] = {}
        self._numbers: dict[Callable[[], None], int] = {}
        self._scheduler: Any = None

    def add(self, name: str, period_s: float, function: Callable[[], None]) -> None:
        """Run `function` every `period_s` seconds from now on, with all others of that period."""
        if not self._every.setdefault(period_s, {}):
            self._next[period_s] = self._clock() + period_s
        self._every[period_s][name] = function

    def at(self, name: str, trigger: Any, when: datetime, function: Callable[[], None]) -> None:
        """Run `function` at a time, and from then on when an APScheduler trigger says; in place of what had this name."""
        number = self._numbers.setdefault(function, len(self._numbers))  # one byte: there are few functions for many names
        self._timed[number] = function
        self._times().add_job(self._due, trigger, args=[number], id=name, next_run_time=when, replace_existing=True)

    def cancel(self, name: str) -> None:
        """Forget a duty; one that is over has been forgotten already."""
        for functions in self._every.values():
            if functions.pop(name, None) is not None:
                return
        if self._scheduler is not None:
            from apscheduler.jobstores.base import JobLookupError

            with suppress(JobLookupError):
                self._scheduler.remove_job(name)

    def fileno(self) -> int:
        return self._read

    def wait_s(self, longest_s: float) -> float:
        """Seconds until the next duty that has a period, at most `longest_s`."""
        due = min((self._next[period] for period, functions in self._every.items() if functions), default=float("inf"))
        return min(longest_s, max(0.0, due - self._clock()))

    def run_due(self) -> None:
        """Run what is due, each once."""
        now = self._clock()
        due = [period for period, at in self._next.items() if at <= now]
        functions = dict.fromkeys(function for period in due for function in self._every[period].values())
        for period in due:
            self._next[period] = now + period
        with suppress(BlockingIOError):
            functions.update(dict.fromkeys(self._timed[number] for number in os.read(self._read, 4096)))
        for function in functions:
            function()

    def stop(self) -> None:
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)

    def _times(self) -> Any:
        if self._scheduler is None:
            from apscheduler.schedulers.background import BackgroundScheduler

            defaults = {"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
            self._scheduler = BackgroundScheduler(timezone="UTC", job_defaults=defaults)
            self._scheduler.start()
        return self._scheduler

    def _due(self, number: int) -> None:
        with suppress(BlockingIOError):  # a duty long overdue is not forgotten: its byte is in the pipe already
            os.write(self._write, bytes((number,)))
