"""Estimated starts in listings: computed when a table shows them, in bounded time. Decides wording only (Flux's "eta:23.1m")."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..journal.job import RUN, SCHED, Job
from ..journal.resizing import growth_of

if TYPE_CHECKING:
    from ..instances.outlook import Outlook
    from .jobview import View

BUDGET_S = 0.2  # of a listing; what is not found by then has no estimate there (`fluxkv explain` takes longer)
PATIENCE = 3.0
SHOWN_BY = frozenset(("contextual_info", "info", "reason", "t_estimate", "eta", "annotations", "sched", "sched.t_estimate",
                      "annotations.sched", "annotations.sched.t_estimate", "sched.reason_pending",
                      "annotations.sched.reason_pending"))  # fmt: skip


class Budget:
    """So many seconds of processor time from now on, and no more than `PATIENCE` times as long by the clock: on a busy machine a
    listing waits a moment longer rather than to have no estimates."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at, self._end = time.thread_time(), time.monotonic() + PATIENCE * seconds

    def spent(self) -> bool:
        """No more of it is left."""
        return time.thread_time() - self._at > self._seconds or time.monotonic() > self._end

    def half_spent(self) -> bool:
        """The other half is left at most."""
        used, left = time.thread_time() - self._at, self._end - time.monotonic()
        return used > self._seconds / 2 or left < PATIENCE * self._seconds / 2


def foresee(view: View, jobs: Iterable[Job], fields: Iterable[str], budget_s: float = BUDGET_S) -> None:
    """Give the view an outlook, if one of these jobs stands in line and one of these fields shows what it says."""
    waiting = [job.id for job in jobs if _waits(job)]
    if waiting and view.outlook is None and not SHOWN_BY.isdisjoint(fields):
        from ..instances.outlook import Outlook

        budget = Budget(budget_s if view.budget_s is None else view.budget_s)
        view.outlook = Outlook(view.state, view.now, waiting, budget.spent, budget.half_spent)


def _waits(job: Job) -> bool:
    return growth_of(job) is not None if job.state == RUN else job.state == SCHED and job.priority > 0 and job.granted is None


def t_estimate(job: Job, view: View) -> float | str:
    """When a pending job is expected to begin, Unix seconds (Flux: annotations.sched.t_estimate); "" if nobody can say."""
    outlook: Outlook | None = view.outlook
    start = outlook.start(job) if outlook is not None and job.state == SCHED else None
    return start.time if start is not None else ""


def eta(job: Job, view: View) -> str:
    """How long that is from now (of a job that runs: until it gets the nodes that it waits for): "23.1m", "now", or ""."""
    start = view.outlook.start(job) if view.outlook is not None and _waits(job) else None
    return eta_text(start.time - view.now) if start is not None else ""


def eta_text(left: float) -> str:
    """Seconds from now as Flux has them, to the second: "now" (or as soon as who is past his limit ends), "4s", "23.1m"."""
    from .formats import fsd

    return fsd(float(round(left))) if left >= 1.5 else "now"
