"""Changing jobs: their jobspec while they wait, their time limit while they run, holding and releasing them. Pure.

Pending: a `jobspec-update` (RFC 21); the job goes back to PRIORITY and is lined up anew. Running: only the duration, as a
`jobspec-update`, a `resource-update` with the new expiration, and the new limit for its nodes. A job that is placed ahead is asked
back first (`wait`): its node may start it any moment as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from .config import no_such_queue
from .decide import Decision
from .duration import format_duration, parse_duration
from .ids import f58
from .job import CLEANUP, INACTIVE, NAMES, NEW, PENDING, RUN, Job
from .jobspec_build import parse_setting
from .jobspec_check import check, check_plain
from .retry import REQUEUE, may_return
from .state import State
from .updates import update_paths
from .wire import pack, unpack

SYSTEM = "attributes.system."
DURATION, QUEUE = f"{SYSTEM}duration", f"{SYSTEM}queue"
SHORT = {
    "duration": DURATION, "queue": QUEUE, "name": f"{SYSTEM}job.name", "bank": f"{SYSTEM}bank", "project": f"{SYSTEM}project",
    "constraints": f"{SYSTEM}constraints",
}  # fmt: skip
FIXED = {
    f"{SYSTEM}dependencies": "what a job waits for is settled when it is submitted",
    f"{SYSTEM}environment": "its environment is kept beside the jobspec",
}


class Change(NamedTuple):
    """One KEY=VALUE. path: into the jobspec. value: the new one; for a duration, seconds. sign: "+" or "-" for a duration
    that is added or taken away, "" else."""

    path: str
    value: Any
    sign: str = ""


def parse_change(text: str) -> Change:
    """duration=1h, duration=+10m, queue=NAME, attributes.user.note=text ... Raises `Rejected` (code bad-update)."""
    key, given, value = text.partition("=")
    if not given or not key:
        raise _bad(f"{text[:60]!r} is no KEY=VALUE", "write duration=+10m, queue=NAME, name=NAME or attributes.KEY=VALUE")
    path = SHORT.get(key, key)
    words = path.split(".")
    if words[0] != "attributes" or len(words) < 3 or words[1] not in ("system", "user") or not all(words):
        raise _bad(
            f"{key}: is no key that can be changed", f"there are {', '.join(SHORT)}, attributes.system.KEY, attributes.user.KEY"
        )
    for fixed, why in FIXED.items():
        if path == fixed or path.startswith(f"{fixed}."):
            raise _bad(f"{key}: can not be changed: {why}", "submit it anew")
    if path == DURATION:
        sign = value[:1] if value[:1] in ("+", "-") else ""
        seconds = parse_duration(value.removeprefix(sign))
        if sign and seconds == float("inf"):
            raise _bad(f"{key}={value}: adds or takes no end of time", "write duration=inf for no limit")
        return Change(path, 0.0 if seconds == float("inf") else seconds, sign)
    return Change(path, value if key in ("queue", "name", "bank", "project") else parse_setting(f"x={value}")[1])


def wait_for_node(job: Job) -> bool:
    """Whether a job's node has to be heard first: it is placed ahead, or runs on a seat and the journal has yet to say so."""
    return job.granted is not None and not job.holds


def recall(job: Job, now: float) -> Decision:
    """Ask a job back that is placed ahead, so that it can be changed. No events if there is nothing to ask."""
    if job.granted is None or job.recalled or job.seat_of:
        return Decision([])
    thing, message = f"job/{job.id}", pack([["recall", job.id, job.attempt_id]])
    return Decision(
        [["recall", job.id, now, None]], since=[thing], bumps=[thing], inbox=[(f"node/{job.granted[0]}", message)]
    )


def update(state: State, job: Job, changes: Iterable[Change], userid: int, now: float) -> Decision:
    """Change a job. Its node must have been heard (`wait_for_node`). Raises `Rejected` with what stands in the way."""
    changes = list(changes)
    if job.state & (PENDING | NEW):
        return _update_pending(state, job, changes, userid, now)
    if job.state == RUN and job.exception is None:
        for change in changes:
            if change.path != DURATION:
                raise _refuse(job, "is running: only its duration can be changed", "not-pending")
        return _update_running(state, job, changes, now)
    raise _refuse(job, "is over, or ending: it can not be changed any more", "inactive")


def updated(job: Job, changes: Iterable[Change]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the event's context, the jobspec with it), checked as a submission is. Raises `Rejected`."""
    context: dict[str, Any] = {}
    for change in changes:
        context[change.path] = _duration(job, change) if change.path == DURATION else change.value
    jobspec = update_paths(job.jobspec or {}, context)
    check_plain(jobspec)
    check(jobspec, general=True)
    return context, jobspec


def _duration(job: Job, change: Change) -> float:
    if not change.sign:
        return float(change.value)
    if not job.duration:
        raise _refuse(job, "has no time limit that could be made longer or shorter", "bad-update", "write duration=TIME")
    seconds = job.duration + (change.value if change.sign == "+" else -change.value)
    if seconds <= 0:
        raise _refuse(job, f"has a time limit of {format_duration(job.duration)}; nothing of it would be left", "bad-update")
    return float(seconds)


def _update_pending(state: State, job: Job, changes: list[Change], userid: int, now: float) -> Decision:
    context, jobspec = updated(job, changes)
    thing = f"job/{job.id}"
    decision = Decision([["jobspec-update", job.id, now, context]], since=[thing, "config/load"], bumps=[thing])
    if any(f"{path}.".startswith(f"{SYSTEM}job.") for path in context):
        decision.bumps.append(NAMES)
    queue = context.get(QUEUE, job.queue)
    if not isinstance(queue, str) or queue not in state.queues:
        raise no_such_queue(queue, state.queues)
    if queue != job.queue:
        found = state.queues[queue]
        if not found.enabled:
            why = f": {found.disable_reason}" if found.disable_reason else ""
            raise Rejected(f"queue {queue} does not accept jobs{why}", code="queue-closed", hint="choose another")
        decision.absent.append(f"closed/{queue}")
        _count_there(state, job, queue, decision)
    state.rules.check_limits(jobspec)
    return decision


def _count_there(state: State, job: Job, queue: str, decision: Decision) -> None:
    """A job that moves to another queue must find room there among its user's active jobs; the number is guarded."""
    if state.usage is None or job.state == NEW:
        return
    before = {scope for scope, _ in state.rules.active_limits(job.queue)}
    scopes = {scope for scope, _ in state.rules.active_limits(queue)} - before
    own = {(scope, job.userid): -1 for scope in before}  # where it counts already it may stay
    full = state.usage.active_full(queue, job.userid, own)
    if full:
        raise Rejected(full, code="limit")
    things = [f"active/{scope}/{job.userid}" for scope in sorted(scopes)]
    decision.since += things
    decision.bumps += things


def _update_running(state: State, job: Job, changes: list[Change], now: float) -> Decision:
    context, jobspec = updated(job, changes)
    seconds = context[DURATION]
    if state.rules.of(job.queue) is not None:  # else its queue is gone, and its limits with it
        state.rules.check_limits(jobspec)
    begun = job.t_run if job.script is not None and job.t_run else job.t_alloc  # a prolog does not count
    expiration = begun + seconds if seconds else 0.0
    if state.expiration and (not expiration or expiration > state.expiration):
        left = format_duration(max(0.0, state.expiration - job.t_alloc))
        raise _refuse(job, "would outlive the instance", "bad-update", f"a limit of {left} is what it can have")
    if expiration and expiration <= now:
        gone = format_duration(max(0.0, round(now - begun, 1)))
        raise _refuse(job, f"has run for {gone}: a limit of {format_duration(seconds)} has passed already", "bad-update")
    thing = f"job/{job.id}"
    message = pack([["limit", job.id, job.attempt_id, seconds]])
    return Decision(
        [["jobspec-update", job.id, now, context], ["resource-update", job.id, now, {"expiration": expiration}]],
        since=[thing, "config/load"], bumps=[thing],
        inbox=[(f"node/{rank}", message) for rank in job.ranks if rank not in job.over],
    )  # fmt: skip


def hold(job: Job, userid: int, now: float) -> Decision:
    """Urgency 0 (RFC 30). No events if it is held already."""
    return _urgency(job, 0, userid, now) if job.urgency else _pending(job, "held")


def release(job: Job, userid: int, now: float) -> Decision:
    """Back to the urgency it had before it was held, or the default. No events if it is not held."""
    return _pending(job, "released") if job.urgency else _urgency(job, job.urgency_before, userid, now)


def _urgency(job: Job, urgency: int, userid: int, now: float) -> Decision:
    _pending(job, "released" if urgency else "held")
    thing = f"job/{job.id}"
    return Decision([["urgency", job.id, now, {"urgency": urgency, "userid": userid}]], since=[thing], bumps=[thing])


def _pending(job: Job, word: str) -> Decision:
    if not job.state & (PENDING | NEW):
        raise _refuse(job, f"is not pending: it can not be {word}", "not-pending")
    return Decision([])


def requeue(job: Job, note: str, hold: bool, userid: int, now: float) -> Decision:
    """End a running job's attempt and have it followed by another, whatever its retry policy. hold: it is held then.

    No events if that is under way. Raises `Rejected` for a job that is pending (not-running), ending or inactive.
    """
    if job.state & (PENDING | NEW):
        raise _refuse(job, "is pending: there is nothing to end", "not-running")
    if job.state == INACTIVE:
        raise _refuse(job, "is inactive", "inactive", f"fluxkv resubmit {f58(job.id)} submits it once more")
    if job.state == CLEANUP:
        if job.exception is not None and job.exception[0] == REQUEUE and may_return(job):
            return Decision([])
        raise _refuse(job, "is ending already", "not-running", f"once it has ended, fluxkv resubmit {f58(job.id)}")
    thing = f"job/{job.id}"
    context = {"type": REQUEUE, "severity": 0, "note": note, "userid": userid}
    events: list[list[Any]] = [["exception", job.id, now, context]]
    if hold and job.urgency:
        events.append(["urgency", job.id, now, {"urgency": 0, "userid": userid}])
    return Decision(events, since=[thing], bumps=[thing])


def merge(decisions: Iterable[Decision]) -> Decision:
    """Several decisions as one commit: messages to the same node become one entry of its inbox."""
    whole = Decision([])
    inbox: dict[str, list[Any]] = {}
    for one in decisions:
        whole.events += one.events
        whole.since += one.since
        whole.absent += one.absent
        whole.bumps += one.bumps
        for node, message in one.inbox:
            inbox.setdefault(node, []).extend(unpack(message))
    whole.since, whole.absent, whole.bumps = (list(dict.fromkeys(them)) for them in (whole.since, whole.absent, whole.bumps))
    whole.inbox = [(node, pack(messages)) for node, messages in inbox.items()]
    return whole


def _refuse(job: Job, why: str, code: str, hint: str = "") -> Rejected:
    return Rejected(f"job {f58(job.id)}: {why}", code=code, hint=hint)


def _bad(why: str, hint: str) -> Rejected:
    return Rejected(why, code="bad-update", hint=hint)
