"""How many jobs each user has, where the config limits that. Derived, kept by the fold; no part of the digest. Pure.

Without such a limit there is no `Usage`, and it costs nothing. Who decides by a count guards it: `active/<scope>/<user>` is bumped
by whatever makes the first grow, `running/<scope>/<user>` by whatever makes the second grow. What makes one shrink bumps nothing: a
view that has not heard of it is merely cautious.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .job import ACTIVE, Job

if TYPE_CHECKING:
    from .config import Rules

Counts = dict[tuple[str, int], int]  # (scope, user) -> jobs; a scope is a queue, or "" for all of them


class Usage:
    """active: jobs taken in and not over. running: those of them that hold resources, or are placed ahead of a seat."""

    __slots__ = ("active", "rules", "running")

    def __init__(self, rules: Rules, jobs: Iterable[Job]) -> None:
        self.rules = rules
        self.active: Counts = {}
        self.running: Counts = {}
        for job in jobs:
            self.add(job, 1)

    def add(self, job: Job, by: int) -> None:
        """Count a job with all it counts for (by 1), or no more (by -1)."""
        if job.state & ACTIVE:
            self.count_active(job, by)
        if job.holds or job.granted is not None:
            self.count_running(job, by)

    def count_active(self, job: Job, by: int) -> None:
        """It was taken in (by 1), or is over (by -1)."""
        for scope, _ in self.rules.active_limits(job.queue):
            _add(self.active, (scope, job.userid), by)

    def count_running(self, job: Job, by: int) -> None:
        """It was given resources or placed ahead (by 1), or gave that back (by -1)."""
        for scope, _ in self.rules.running_limits(job.queue):
            _add(self.running, (scope, job.userid), by)

    def active_full(self, queue: str, user: int, more: Mapping[tuple[str, int], int]) -> str:
        """Why this user may have no further job in the queue, "" if one may be. more: counts on top of these."""
        return _full(self.rules.active_limits(queue), self.active, more, user, "active")

    def running_full(self, queue: str, user: int, more: Mapping[tuple[str, int], int]) -> str:
        """Why no further job of this user's may run in the queue, "" if one may. more: counts on top of these."""
        return _full(self.rules.running_limits(queue), self.running, more, user, "running")


def _add(counts: Counts, key: tuple[str, int], by: int) -> None:
    left = counts.get(key, 0) + by
    if left:
        counts[key] = left
    else:
        counts.pop(key, None)


def _full(
    limits: Iterable[tuple[str, int]], counts: Counts, more: Mapping[tuple[str, int], int], user: int, word: str
) -> str:
    for scope, most in limits:
        if counts.get((scope, user), 0) + more.get((scope, user), 0) >= most:
            where = f" in queue {scope}" if scope else ""
            return f"user {user} has {most} {word} {'job' if most == 1 else 'jobs'}{where}, as many as allowed"
    return ""
