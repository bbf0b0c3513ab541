"""Time limits as the journal knows them: the backstop behind the node's own clock. Pure; one heap, derived from the state.

The launcher ends a job at its limit on the node's boot-time clock. A job whose allocation has expired well before, in
server time, and whose node has said nothing (cut off, its launcher stopped), gets its timeout exception from here. So does
a job under exit-timeout whose first task ended that long ago, and an instance on several nodes that nobody leads any more.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Any

from ..journal.derive import Group, fatal
from ..journal.job import RUN, Job
from ..journal.resizing import is_instance, lead_of
from ..journal.state import State
from ..journal.task_exits import deadline, overdue

BACKSTOP_S = 30.0
UNLED_S = 60.0  # how long an instance's other nodes may take to end after the first, as they do where it ends in order
FEW = 4096


class Deadlines:
    """Jobs by when they are overdue."""

    __slots__ = ("_exits", "_heap", "_instance_end", "_known")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._known: dict[int, float] = {}
        self._exits: dict[int, float] = {}  # job -> when exit-timeout, or its first node's end, ends it
        self._instance_end = 0.0  # that running jobs are in step with

    def note(self, job: Job) -> None:
        """A running job: remember its deadline, if it has one and it is new. While its prolog goes on it has none."""
        if job.script is not None and job.script[0]:
            return
        if job.expiration and self._known.get(job.id) != job.expiration:
            self._known[job.id] = job.expiration
            heappush(self._heap, (job.expiration + BACKSTOP_S, job.id))
        if job.exits or (job.over and len(job.claims) > 1):
            at = min(filter(None, (deadline(job), _unled(job))), default=0.0)
            if at and at < self._exits.get(job.id, inf) and _runs(job):
                self._exits[job.id] = at
                heappush(self._heap, (at, job.id))

    def forget(self, id: int) -> None:
        """A job's attempt is over, and another will have deadlines of its own."""
        self._known.pop(id, None)
        self._exits.pop(id, None)

    def next(self) -> float:
        """When to look again, 0.0 for never."""
        return self._heap[0][0] if self._heap else 0.0

    def _forget_ended(self, state: State) -> None:
        """Most jobs end long before their limit."""
        jobs = state.jobs
        running = {id for _, id in self._heap if (job := jobs.get(id)) is not None and job.state == RUN}
        self._known = {id: at for id, at in self._known.items() if id in running}
        self._exits = {id: at for id, at in self._exits.items() if id in running}
        self._heap = [one for one in self._heap if one[1] in running]
        heapify(self._heap)

    def due(self, state: State, now: float) -> list[Group]:
        """Exceptions for jobs that are overdue and still run."""
        if len(self._heap) > FEW and len(self._heap) > 4 * len(state.nodes) + 4 * state.count(RUN):
            self._forget_ended(state)
        groups = self._in_step(state, now) if state.expiration != self._instance_end else []
        while self._heap and self._heap[0][0] <= now:
            at, id = heappop(self._heap)
            job = state.jobs.get(id)
            if job is None or job.state != RUN:
                self._known.pop(id, None)
                self._exits.pop(id, None)
                continue
            if at == self._exits.get(id):
                del self._exits[id]
                if fatal(job) is None and job.exception is None and not job.timed_out and _runs(job):
                    groups.append(_ended(job, overdue(job) if at == deadline(job) else _without_lead(job), now))
                continue
            if at != job.expiration + BACKSTOP_S:
                continue  # its limit has been changed since
            self._known.pop(id, None)
            if job.exception is None and not job.timed_out and _runs(job):
                context = {"type": "timeout", "severity": 0, "note": "resource allocation expired (its node is silent)"}
                groups.append(_ended(job, context, now))
        return groups

    def _in_step(self, state: State, now: float) -> list[Group]:
        """The instance's own end has moved: so do those of jobs that end with it. Asked again until there is nothing to say."""
        end, groups = state.expiration, []
        for id in sorted({id for node in state.nodes.values() for id in node.jobs}):
            job = state.jobs[id]
            if job.state != RUN or not _runs(job) or (job.script is not None and job.script[0]):
                continue
            own = max(job.expiration, job.t_alloc + job.duration) if job.duration else 0.0  # what it has if the instance lives on
            wanted = min(own, end) if own and end else own or end
            if wanted != job.expiration:
                thing = f"job/{id}"
                groups.append(Group([["resource-update", id, now, {"expiration": wanted}]], [thing], [thing]))
        if not groups:
            self._instance_end = end
        return groups


def _runs(job: Job) -> bool:
    """Whether any of its nodes has not said that it is over."""
    return any(rank not in job.over for rank in job.ranks)


def _unled(job: Job) -> float:
    """When an instance is ended whose first node's part, which leads, was killed: the others would wait for it for ever. 0.0 for
    never: one that has ended by itself has told them."""
    row = job.over.get(lead_of(job)) if job.over and len(job.claims) > 1 else None
    return float(row[1]) + UNLED_S if row is not None and row[0] & 0x7F and is_instance(job) else 0.0


def _without_lead(job: Job) -> dict[str, Any]:
    rank = lead_of(job)
    note = f"what leads the instance, on rank {rank}, was killed by signal {job.over[rank][0] & 0x7F}"
    return {"type": "exec", "severity": 0, "note": note}


def _ended(job: Job, context: dict[str, Any], now: float) -> Group:
    thing = f"job/{job.id}"
    return Group([["exception", job.id, now, context]], [thing], [thing])
