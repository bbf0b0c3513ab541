"""How a job comes by resources and gives them back (RFC 21's alloc and free, and grants ahead). Pure; part of the fold.

Handlers as in `fold_jobs`. What contradicts the nodes raises `Impossible`, with the nodes that it leaves in doubt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .claims import from_wire
from .fold_resize import free_some
from .holding import give, take
from .job import CLEANUP, RUN, SCHED, Job
from .quarantine import Impossible
from .summary import ntasks_on
from .updates import merge
from .values import end_time, integer, text
from .wire import whole

if TYPE_CHECKING:
    from .state import State

Context = dict[str, Any]


def misplaced(job: Job, name: str, context: Context, attempt: str) -> Impossible:
    """Of an event in a state where it has no place. One that allots a node leaves it in doubt: its agent may have been told."""
    if name == "alloc":
        return _impossible_alloc("state", job.state, _ranks_of(context), context, attempt)
    if name == "grant":
        return Impossible("state", job.state, [integer(context["rank"])], attempt)
    return Impossible("state", job.state)


def _ranks_of(context: Context) -> list[int]:
    return [claim.rank for claim in from_wire(context["claims"])]


def _impossible_alloc(code: str, number: int, ranks: list[int], context: Context, attempt: str) -> Impossible:
    """A granted job's alloc begins no attempt: its grant has."""
    return Impossible(code, number, ranks, "" if "attempt" in context else attempt)


def _entry(value: Any) -> tuple[int, int]:
    """Version and epoch of an entry's id."""
    version, _, epoch = text(value).partition("-")
    return whole(version), whole(epoch)


def alloc(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    wire = context["claims"]
    claims, expiration = from_wire(wire), end_time(context.get("expiration", 0.0))
    annotations = merge(job.annotations, context["annotations"]) if "annotations" in context else job.annotations
    adopted = _entry(context["adopted"]) if "adopted" in context else None  # begun on a branch that is lost
    started = {integer(rank): end_time(at) for rank, at in context["since"]} if "since" in context else {}
    if job.holds:
        raise _impossible_alloc("holds", 0, _ranks_of(context), context, f"{version}-{state.epoch}")
    if job.state == CLEANUP and job.granted is None:
        raise _impossible_alloc("state", job.state, _ranks_of(context), context, f"{version}-{state.epoch}")
    held = take(state, claims, job.id)
    if held is not None:
        raise _impossible_alloc("not-free", held.rank, _ranks_of(context), context, f"{version}-{state.epoch}")
    job.claims, job.claims_wire, job.holds = claims, wire, True
    job.script = None
    if state.usage is not None:
        state.usage.count_running(job, 1)
    job.nnodes = len(claims)
    job.ntasks = ntasks_on(job.jobspec, claims) or job.ntasks
    job.expiration = expiration
    job.t_alloc = ts
    job.annotations = annotations
    job.reason = ["", ""]
    ungrant(state, job)
    if "attempt" not in context:  # a granted job keeps the attempt its grant began
        job.attempt, job.epoch = adopted or (version, state.epoch)
        job.started, job.over, job.exits, job.next = started, {}, {}, 0
    else:
        job.started.update(started)
    if job.state == SCHED:
        state.move(job, RUN)


def grant(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    rank, shape = integer(context["rank"]), text(context["shape"])
    if job.granted is not None:
        raise Impossible("again", 0, [rank], f"{version}-{state.epoch}")
    job.granted = [rank, shape]
    if state.usage is not None:
        state.usage.count_running(job, 1)
    job.recalled = False
    job.attempt, job.epoch, job.seat_of, job.next = version, state.epoch, 0, 0
    job.started, job.over, job.exits = {}, {}, {}
    node = state.nodes.get(rank)
    if node is not None:
        node.grants.add(job.id)
        state.dirty_words.add(node.rank)


def recall(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    job.recalled = True


def ungrant(state: State, job: Job) -> None:
    if job.granted is not None:
        node = state.nodes.get(job.granted[0])
        if node is not None:
            node.grants.discard(job.id)
            state.dirty_words.add(node.rank)
        job.granted = None
        job.recalled = False
        if state.usage is not None:
            state.usage.count_running(job, -1)


def return_grant(state: State, job: Job) -> None:
    """A grant came back unstarted: the job is plainly pending again (or may be cleaned)."""
    ungrant(state, job)
    job.attempt = 0
    job.seat_of = 0


def free(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    if "ranks" in context:
        free_some(state, job, context["ranks"])
        return
    if job.state == RUN:
        raise Impossible("state", RUN)
    if not job.holds:
        raise Impossible("holds-nothing")
    if not job.started.keys() <= job.over.keys():
        raise Impossible("not-over", min(job.started.keys() - job.over.keys()))
    job.holds = False
    if state.usage is not None:
        state.usage.count_running(job, -1)
    for claim in job.claims:
        give(state, claim, job.id)
