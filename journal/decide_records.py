"""Decisions about jobs' records: notes on them, and which inactive ones leave the state.

Pure; see `decide`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..kvs.errors import Rejected
from .decide import Decision
from .ids import f58
from .job import INACTIVE, Job
from .retired import retirement
from .state import State
from .wire import pack

MAX_MEMO = 16_384  # bytes of a job's memo
MAX_EVENTS = 8  # `retire` events in one commit


def memo(state: State, id: int, notes: dict[str, Any], now: float) -> Decision:
    """Merge notes into an active job's memo (RFC 21); None forgets a key."""
    job = state.jobs.get(id)
    if job is None:
        raise Rejected(f"job {f58(id)}: no such job", code="no-such-job", hint="fluxkv jobs -a lists them")
    if job.state == INACTIVE:
        raise Rejected(f"job {f58(id)}: is inactive", code="inactive", hint="only active jobs take notes")
    for key in notes:
        if not key or "." in key:
            raise Rejected(f"bad memo key {key!r}", code="bad-memo", hint="a key is a word without dots")
    if len(pack({**job.memo, **notes})) > MAX_MEMO:
        raise Rejected(f"job {f58(id)}: its memo would exceed {MAX_MEMO} bytes", code="too-large")
    thing = f"job/{id}"
    return Decision([["memo", id, now, notes]], since=[thing], bumps=[thing])


def purge(state: State, ids: Iterable[int], now: float) -> Decision:
    """Inactive jobs leave the state, as many of these as fit one commit; the journal keeps them.

    Needs no guard: an inactive job does not change any more, and of two that retire it the second says nothing.
    """
    left: list[Job] = []
    for id in dict.fromkeys(ids):
        job = state.jobs.get(id)
        if job is not None and job.state == INACTIVE:
            left.append(job)
        elif job is not None:
            raise Rejected(f"job {f58(id)}: is active", code="active", hint="fluxkv cancel ends it")
    decision = Decision([])
    while left and len(decision.events) < MAX_EVENTS:
        context = retirement(left)
        del left[: len(context["jobs"])]
        decision.events.append(["retire", "instance", now, context])
    return decision


def oldest(state: State, now: float, age_s: float | None, count: int | None) -> list[int]:
    """Inactive jobs that ended more than `age_s` ago, or that are beyond the `count` latest, oldest first."""
    ended = [job for job in state.jobs.values() if job.state == INACTIVE]
    ended.sort(key=lambda job: (job.t_inactive, job.order))
    many = 0
    if count is not None:
        many = max(0, len(ended) - count)
    if age_s is not None:
        many = max(many, sum(1 for job in ended if job.t_inactive < now - age_s))
    return [job.id for job in ended[:many]]
