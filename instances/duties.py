"""Duties of a keeper, periodic or at a time, timed by APScheduler (memory store, coalescing, never too late to run).

The scheduler's thread only says what is due; the keeper's own thread does it, so no duty runs beside another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any


class Duties:
    """Named functions with periods. `fileno` becomes readable when one is due; `run_due` runs those."""

    def __init__(self) -> None:
        from apscheduler.schedulers.background import BackgroundScheduler

        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._functions: dict[int, Callable[[], None]] = {}
        self._numbers: dict[Callable[[], None], int] = {}
        self._together: dict[float, dict[str, int]] = {}  # by period, then name: what is due at once wakes one thread once
        self._scheduler: Any = BackgroundScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
        )

    def add(self, name: str, period_s: float, function: Callable[[], None]) -> None:
        """Run `function` every `period_s` seconds, with all others of that period."""
        numbers = self._together.setdefault(period_s, {})
        if not numbers:
            self._scheduler.add_job(self._due, "interval", seconds=period_s, args=[numbers], id=_every(period_s))
        numbers[name] = self._number(function)

    def at(self, name: str, trigger: Any, when: datetime, function: Callable[[], None]) -> None:
        """Run `function` at a time, and from then on when an APScheduler trigger says; in place of what had this name."""
        self._scheduler.add_job(
            self._due, trigger, args=[{name: self._number(function)}], id=name, next_run_time=when, replace_existing=True
        )

    def cancel(self, name: str) -> None:
        """Forget a duty; one that is over has been forgotten already."""
        from apscheduler.jobstores.base import JobLookupError

        for period_s, numbers in self._together.items():
            if numbers.pop(name, None) is not None:
                if not numbers:
                    self._scheduler.remove_job(_every(period_s))
                return
        with suppress(JobLookupError):
            self._scheduler.remove_job(name)

    def _number(self, function: Callable[[], None]) -> int:
        """What stands for a function in the pipe: one byte, as there are few functions for however many duties."""
        number = self._numbers.setdefault(function, len(self._numbers))
        self._functions[number] = function
        return number

    def _due(self, numbers: dict[str, int]) -> None:
        try:
            os.write(self._write, bytes(numbers.values()))
        except BlockingIOError:
            pass  # a duty long overdue is not forgotten: its byte is in the pipe already

    def start(self) -> None:
        self._scheduler.start()

    def fileno(self) -> int:
        return self._read

    def run_due(self) -> None:
        """Run what is due, each once."""
        try:
            due = os.read(self._read, 4096)
        except BlockingIOError:
            return
        for number in sorted(set(due)):
            self._functions[number]()

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)


def _every(period_s: float) -> str:
    """The name of the one job that all duties of a period are."""
    return f"every {period_s} s"
