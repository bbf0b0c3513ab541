"""How each job event changes a job (RFC 21 and ours). Pure: the fold's job half, one small function an event.

A handler gets (state, job, time, context, version), and a job in a state where its event has a place. It never decides: an
event that cannot follow from the state raises `Impossible` before it has changed anything, any other unexpected one is a
no-op, as RFC 21's table says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..kvs.hashes import blake2b
from . import fold_node_scripts
from .fold_alloc import alloc, free, grant, recall, return_grant, ungrant
from .fold_resize import count, forced, grow, resize, shrink
from .idset import format_ids, ids_of_mask, mask_of
from .job import (
    CLEANUP,
    DEPEND,
    FATAL_FROM,
    INACTIVE,
    PRIORITY,
    RUN,
    SCHED,
    Job,
)
from .quarantine import Impossible
from .resizing import is_stale, ranks_left
from .retry import NEVER, REQUEUE, describe
from .scripts import EPILOG, PROLOG
from .summary import summarize
from .task_exits import wait_word
from .updates import update_paths
from .values import end_time, integer, text
from .wire import LATEST, pack

if TYPE_CHECKING:
    from .state import State

Context = dict[str, Any]
Handler = Callable[["State", Job, float, Context, int], None]
HOLD = 0
EXPEDITE_PRIORITY = 4294967295


def submit(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    jobspec = context.get("jobspec")
    job.t_submit = float(ts)
    urgency = context.get("urgency", 16)
    job.urgency = urgency if type(urgency) is int and 0 <= urgency <= 31 else 16
    userid = context.get("userid", 0)
    job.userid = userid if type(userid) is int else 0
    flags, env = context.get("flags", 0), context.get("env", "")
    job.flags = flags if type(flags) is int and flags >= 0 else 0
    job.env = env if isinstance(env, str) else ""
    try:
        set_jobspec(job, jobspec or {})
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        job.jobspec = {}  # whoever wrote it checked nothing: the worker refuses it, with a reason


def set_jobspec(job: Job, jobspec: dict[str, Any]) -> None:
    """Take over a jobspec and what is derived from it."""
    spec_hash, found = blake2b(pack(jobspec), digest_size=12).digest(), summarize(jobspec)
    job.jobspec, job.spec_hash = jobspec, spec_hash
    job.name, job.queue, job.duration, (job.nnodes, job.ntasks, job.ncores) = found


def validate(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    job.t_depend = ts
    state.move(job, DEPEND)


def invalidate(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    state.forget(job)


def depend(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    state.move(job, PRIORITY)


def dependency_add(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    description = text(context["description"])
    if description in job.met:
        raise ValueError(f"dependency {description} is met")
    job.waiting[description] = None


def dependency_remove(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    del job.waiting[context["description"]]
    job.met[context["description"]] = None


def priority(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    job.priority = integer(context["priority"])
    if job.state == PRIORITY:
        state.move(job, SCHED)


def urgency(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    asked = context["urgency"]
    if type(asked) is not int or not 0 <= asked <= 31:
        raise ValueError(f"urgency {asked!r}")
    if not asked and job.urgency:
        job.urgency_before = job.urgency
    job.urgency = asked
    if job.state == SCHED:
        state.move(job, PRIORITY)


def flux_restart(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    if job.state == SCHED:
        state.move(job, PRIORITY)


def jobspec_update(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    if job.jobspec is None:
        return
    updated, tasks = update_paths(job.jobspec, context), job.ntasks
    if state.usage is not None:  # it may go to another queue, where it counts for others
        state.usage.add(job, -1)
    try:
        set_jobspec(job, updated)
        if job.resized is not None:
            job.ntasks = tasks
            count(job, 0)
        elif job.holds:  # not what it asks for, but what it has
            job.nnodes = len(job.claims)
    finally:
        if state.usage is not None:
            state.usage.add(job, 1)
    if job.state == SCHED:
        state.move(job, PRIORITY)


def resource_update(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    job.expiration = end_time(context["expiration"])


def set_flags(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    if "debug" in context["flags"]:
        job.flags |= 2


def script_start(kind: str) -> Handler:
    """prolog-start or epilog-start of ours, which names ranks; one of somebody else's blocks nothing here.

    A prolog is begun by the commit that allocates, an epilog when the tasks are over, or will not be after the prolog's end.
    """

    def handler(state: State, job: Job, ts: float, context: Context, version: int) -> None:
        if "ranks" not in context or not job.holds:
            return
        ranks = list(ids_of_mask(mask_of(context["ranks"])))
        if job.script is not None and job.script[0]:
            raise Impossible("again")
        never = kind == EPILOG and job.script is not None and job.script[1] == version
        if not never and (job.attempt != version if kind == PROLOG else job.status is None):
            raise Impossible("state")
        job.script = [kind, version, ranks, {}]

    return handler


def script_finish(kind: str) -> Handler:
    def handler(state: State, job: Job, ts: float, context: Context, version: int) -> None:
        if job.script is not None and job.script[0] == kind:
            job.script = ["", version, [], {}] if kind == PROLOG else None

    return handler


def start(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    if not job.holds:
        raise Impossible("holds-nothing")
    if job.t_run:
        raise Impossible("again")
    job.t_run = ts


def finish(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    status = integer(context["status"])
    if not 0 <= status <= 0xFFFF:
        raise ValueError(f"{status} is no wait status")
    if not job.holds:
        raise Impossible("holds-nothing")
    if job.status is not None:
        raise Impossible("again")
    job.status = status
    job.t_finish = ts
    if job.state == RUN:
        job.t_cleanup = ts
        state.move(job, CLEANUP)


def release(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    """Says that process trees are gone; resources go back with `free`."""
    if not job.holds:
        raise Impossible("holds-nothing")
    if job.state == RUN and context.get("final", True):
        raise Impossible("state", RUN)


def clean(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    if job.holds:
        raise Impossible("holds")
    job.t_inactive = float(ts)
    ungrant(state, job)
    # What only an active job needs goes; the journal still has it (commits[0] names the entry).
    job.jobspec = None
    job.started, job.over, job.exits, job.reason, job.waiting, job.met, job.script = {}, {}, {}, ["", ""], {}, {}, None
    if job.resized is not None:
        job.resized = [None, {}, {}, 0, job.resized[-1]]
    state.end(job)


def requeue(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    """An attempt is over and another will follow: the job is as it was before the first was placed, but for `requeued`."""
    if job.holds:
        raise Impossible("holds")
    times, retries, _, _, started, before = job.requeued or NEVER
    if context["attempt"] != times + 2:
        raise ValueError(f"attempt {context['attempt']!r} follows attempt {times + 1}")
    after, retries = end_time(context.get("after", 0.0)), integer(context.get("retry", retries))
    if after > LATEST:
        raise ValueError("no time")
    cause, size = describe(context), summarize(job.jobspec or {})[3]
    ungrant(state, job)
    where = format_ids({*ids_of_mask(mask_of(before)), *ranks_left(job), *job.ranks})
    job.requeued = [times + 1, retries, max(float(ts), after), cause, started or bool(job.t_run), where]
    job.reason = [REQUEUE, cause]
    job.attempt = job.epoch = job.seat_of = job.next = 0
    job.claims, job.claims_wire = (), []
    job.nnodes, job.ntasks, job.ncores = size
    job.started, job.over, job.exits, job.exceptions = {}, {}, {}, []
    job.status = job.exception = job.exception_status = job.script = job.resized = None
    job.ending = ""
    job.timed_out = False
    job.t_alloc = job.t_run = job.t_finish = job.t_cleanup = job.expiration = 0.0
    state.move(job, PRIORITY)


def exception(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    kind, severity, note = text(context["type"]), integer(context["severity"]), text(context["note"])
    ended = wait_word(context["wait_status"]) if "wait_status" in context else None
    job.exceptions = [*job.exceptions, [kind, severity, note]]
    if severity == 0:
        if job.exception is None and job.status is None and job.state != INACTIVE:  # later ones do not change how it ended
            job.exception, job.exception_status = [kind, note], ended
        if job.state & FATAL_FROM:
            job.t_cleanup = ts
            state.move(job, CLEANUP)


def memo(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    job.memo = {key: value for key, value in {**job.memo, **context}.items() if value is not None}


def reason(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    told: list[Any] = [text(context["code"]), text(context["text"])]
    if "start" in context:
        if not 0 <= context["start"] <= LATEST:
            raise ValueError("no time")
        told.append(float(context["start"]))
    job.reason = told


def quarantine(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    state.answered(job.id)


def end(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    cause = text(context["cause"])
    if "ranks" in context:  # of some of its nodes
        forced(job, context["ranks"])
    else:
        job.ending = cause


def script_result(state: State, job: Job, attempt: int, kind: str, rank: int, result: list[Any]) -> bool:
    """How a script ended on a node, [wait status, time, cause, when it began]; False for late and repeated words, which change
    nothing, and for housekeeping that is not a single node's."""
    if fold_node_scripts.result(job, attempt, kind, rank, result):
        return True
    found, result = job.script, result[:3]
    if found is None or job.attempt != attempt or found[0] != kind or rank not in found[2] or rank in found[3]:
        return False
    found[3][rank] = result
    return True


def lost(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    rank = integer(context["rank"])
    if "script" in context:
        script_result(state, job, job.attempt, context["script"], rank, [9, ts, f"lost: {context['cause']}", 0.0])
        return
    if job.granted is not None and not job.holds and not job.seat_of:
        return_grant(state, job)  # it was placed ahead there, and nobody heard of a start
        return
    if is_stale(job, rank, 0.0, state.nodes.get(rank)):
        return
    job.started.setdefault(rank, ts)
    job.over.setdefault(rank, [9, ts, f"lost: {context['cause']}"])


HANDLERS: dict[str, Handler] = {
    "submit": submit,
    "validate": validate,
    "invalidate": invalidate,
    "depend": depend,
    "dependency-add": dependency_add,
    "dependency-remove": dependency_remove,
    "priority": priority,
    "urgency": urgency,
    "flux-restart": flux_restart,
    "jobspec-update": jobspec_update,
    "resource-update": resource_update,
    "set-flags": set_flags,
    "alloc": alloc,
    "grant": grant,
    "recall": recall,
    "resize": resize,
    "grow": grow,
    "shrink": shrink,
    fold_node_scripts.START: fold_node_scripts.start,
    fold_node_scripts.FINISH: fold_node_scripts.finish,
    "prolog-start": script_start(PROLOG),
    "prolog-finish": script_finish(PROLOG),
    "epilog-start": script_start(EPILOG),
    "epilog-finish": script_finish(EPILOG),
    "start": start,
    "finish": finish,
    "release": release,
    "free": free,
    "clean": clean,
    "requeue": requeue,
    "exception": exception,
    "memo": memo,
    "reason": reason,
    "quarantine": quarantine,
    "end": end,
    "lost": lost,
}
