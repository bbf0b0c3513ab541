"""What follows from facts: the events a worker owes a job, without any choice of resources. Pure.

RFC 21's order in every path: validate, depend, priority; start, finish, release, free, clean; exceptional ends leave out
what makes no sense. A `Group` goes into the journal whole or not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .holding import words_of
from .job import CLEANUP, DEPEND, NAMES, NEW, PRIORITY, RUN, SINGLETON, Job
from .retry import LAUNCHER_LOST, OOM, REQUEUE, SHUTDOWN, again
from .scripts import NO_SCRIPTS, PROLOG, Scripts
from .task_exits import failure
from .waitstatus import from_exit, shell_exit_code

HOLD, EXPEDITE = 0, 31
EXPEDITE_PRIORITY = 4294967295
SIGTERM = 15
EXPIRED = "resource allocation expired"
OUT_OF_TIME = (128 + 14) << 8  # of a job that went when its time was up, as in Flux, whose tasks get SIGALRM then


@dataclass(slots=True)
class Group:
    """Events that stand or fall together. things: guarded since and bumped. sets: (thing, entry id). frees/takes: node ranks, and
    the words of vertices that are drawn on (`holding.words_of`).

    to_nodes: (rank, message) for agents, delivered with the commit.
    """

    events: list[list[Any]] = field(default_factory=list)
    things: list[str] = field(default_factory=list)
    bumps: list[str] = field(default_factory=list)
    clears: list[str] = field(default_factory=list)
    sets: list[tuple[str, str]] = field(default_factory=list)
    frees: list[int | str] = field(default_factory=list)
    takes: list[int | str] = field(default_factory=list)
    to_nodes: list[tuple[int, list[Any]]] = field(default_factory=list)
    ready: bool = False  # the job enters (or re-enters) the queue with this group
    hello: int = -1  # the rank whose hello it answers
    later: bool = False  # not all that was to be decided about that hello can be decided yet
    run: str = ""  # what its nodes are to begin: "launch" (the tasks), or a kind of script
    failed: list[tuple[int, str]] = field(default_factory=list)  # (rank, why): nodes to be drained
    partly: bool = False  # it frees some nodes of a job that goes on
    parts: list[tuple[str, list[int]]] = field(default_factory=list)  # the same as run, on these of its nodes alone


class Step(NamedTuple):
    """What a job's dependencies bring it (RFC 26), by description: new ones, those met now, and whether any is left.

    never: why one of them cannot be met, which ends the job with an exception of type `kind`.
    """

    add: Sequence[str] = ()
    met: Sequence[str] = ()
    left: bool = False
    never: str = ""
    kind: str = "dependency"


def priority_of(urgency: int) -> int:
    """flux-core's default: urgency, but hold is 0 and expedite the maximum."""
    return EXPEDITE_PRIORITY if urgency == EXPEDITE else urgency


def advance(
    job: Job, now: float, step: Step | None = None, group: Group | None = None, *,
    scripts: Scripts = NO_SCRIPTS,
) -> Group | None:  # fmt: skip
    """What is owed to a job now, or None. step: of its dependencies, if it has any. group: to add it to."""
    group = group or Group()
    before = len(group.events)
    if job.state & (NEW | DEPEND | PRIORITY):
        _toward_sched(job, now, group, step or Step(left=bool(job.waiting)))
    elif job.state == RUN:
        _running(job, now, group, scripts)
    elif job.state == CLEANUP:
        _cleaning(job, now, group, scripts)
    if len(group.events) == before:
        return None
    thing = f"job/{job.id}"
    group.things.append(thing)
    group.bumps.append(thing)
    return group


def _toward_sched(job: Job, now: float, group: Group, step: Step) -> None:
    events, id = group.events, job.id
    state = job.state
    if state == NEW:
        events.append(["validate", id, now, None])
        state = DEPEND
        if job.exception is not None:  # raised while NEW, where RFC 21 does not move it: now it does
            kind, note = job.exception
            events.append(["exception", id, now, {"type": kind, "severity": 0, "note": note}])
            events.append(["clean", id, now, None])
            return
    if state == DEPEND:
        events.extend(["dependency-add", id, now, {"description": one}] for one in step.add)
        events.extend(["dependency-remove", id, now, {"description": one}] for one in step.met)
        if SINGLETON in step.met:  # somebody may be giving an active job this one's name
            group.things.append(NAMES)
        if step.never:
            events.append(["exception", id, now, {"type": step.kind, "severity": 0, "note": step.never}])
            events.append(["clean", id, now, None])
            return
        if step.left:
            return
        events.append(["depend", id, now, None])
        state = PRIORITY
    if state == PRIORITY:
        if job.granted is not None and job.seat_of:
            return  # it runs already: `hand_over` says this too
        if job.requeued is not None and job.requeued[2] > now:
            return  # it is begun again, and not yet
        events.append(["priority", id, now, {"priority": priority_of(job.urgency)}])
        group.ready = True


def _running(job: Job, now: float, group: Group, scripts: Scripts) -> None:
    id = job.id
    if not job.holds:
        return
    if job.script is not None and job.script[0]:
        _scripted(job, now, group, scripts)
        return
    ranks = job.ranks
    if (job.resized is not None or (len(ranks) > 1 and job.over)) and _resized(job, now, group, scripts):
        return
    if job.timed_out and job.exception is None:
        group.events.append(["exception", id, now, {"type": "timeout", "severity": 0, "note": EXPIRED}])
    if all(rank in job.over for rank in ranks):
        finish(job, ranks, now, group, scripts)
        return
    failed = fatal(job)
    if failed is not None:  # the other nodes would wait for it for ever, or its user wants no more of it: the job ends
        group.events.append(["exception", id, now, failed])
    elif not job.t_run and all(rank in job.started for rank in ranks):
        group.events.append(["start", id, _begun(job, now), None])


def _resized(job: Job, now: float, group: Group, scripts: Scripts) -> bool:
    from . import derive_resize

    return derive_resize.give_back(job, now, group, scripts)


def _spared(job: Job) -> Collection[int]:
    from .resizing import spared

    return spared(job) if len(job.claims) > 1 else ()


def _begun(job: Job, now: float) -> float:
    """When the last of its ranks began; now, if none says (a start at no time would never be over)."""
    return max(job.started.values(), default=0.0) or now


def fatal(job: Job) -> dict[str, Any] | None:
    """The exception's context that is owed to a job whose rank could not start its tasks or was lost, or whose task failed
    under exit-on-error; None if there is no such thing, or it has one (or its time is up) already."""
    if job.exception is not None or job.timed_out:
        return None
    spared: Collection[int] | None = None
    for rank in sorted(job.over):
        cause = job.over[rank][2]
        what = cause.partition(":")[0]
        if what in ("spawn", "lost"):
            spared = _spared(job) if spared is None else spared
            if rank in spared:
                continue
        if what == "spawn":
            return {"type": "exec", "severity": 0, "note": cause.partition(":")[2].strip()}
        if what == "lost":
            why = "its launcher died, and its tasks were ended" if cause == LAUNCHER_LOST else cause
            return {"type": "lost", "severity": 0, "note": f"rank {rank}: {why}"}
    return failure(job) if job.exits else None


def _scripted(job: Job, now: float, group: Group, scripts: Scripts) -> None:
    from . import derive_scripts

    if job.script is not None and job.script[0] == PROLOG:
        derive_scripts.with_prolog(job, now, group, scripts)
    else:
        derive_scripts.with_epilog(job, now, group, scripts)


def finish(job: Job, ranks: Sequence[int], now: float, group: Group, scripts: Scripts = NO_SCRIPTS) -> None:
    """Everything from the last rank's end to clean, or to what has to come before that."""
    id, events = job.id, group.events
    over, exception = job.over, job.exception
    if not job.t_run and any(job.started.values()):
        events.append(["start", id, _begun(job, now), None])
    spared = _spared(job) if len(over) > 1 and any(one[0] for one in over.values()) else ()
    status = max((one[0] for rank, one in over.items() if rank not in spared), default=0)
    ended = max((one[1] for one in over.values()), default=now)  # none: allocated by hand, and nothing
    named = job.exception_status
    if job.exception is None and not job.timed_out:
        failed = fatal(job)
        if failed is not None:
            events.append(["exception", id, ended, failed])
            named = failed.get("wait_status")
            exception = [failed["type"], failed["note"]]
    elif status == 0 and not _had_ended(job, spared):
        status = 1 << 8
    if job.timed_out and exception is None:
        exception = ["timeout", EXPIRED]
    if status == SIGTERM and exception is not None and exception[0] == "timeout":
        status = OUT_OF_TIME
    if named:  # the status of the task that is the reason for all, as RFC 21 wants it
        status = from_exit(shell_exit_code(named))
    starved = [rank for rank in sorted(over) if over[rank][2] == OOM]
    if starved:
        note = f"rank {starved[0]}: out of memory, the kernel ended a process"
        events.append(["exception", id, ended, {"type": OOM, "severity": 1, "note": note}])
    events.append(["finish", id, ended, {"status": status}])
    events.append(["release", id, ended, {"ranks": "all", "final": True}])
    if job.resized is None or not _looked_after(job):
        _conclude(job, now, group, scripts, status, exception)


def _had_ended(job: Job, spared: Collection[int]) -> bool:
    """Whether a job that is to end with its instance had done so by itself: none of its launchers had anything left to end (they
    would name it as the cause), only their word came after the exception. In Flux, too, that is theirs to say (RFC 32)."""
    ends_with_instance = job.exception is not None and job.exception[0] == SHUTDOWN and not job.timed_out
    return ends_with_instance and not any(one[2] for rank, one in job.over.items() if rank not in spared)


def _conclude(
    job: Job, now: float, group: Group, scripts: Scripts, status: int | None, exception: Sequence[Any] | None
) -> None:
    if scripts is not NO_SCRIPTS:
        from . import derive_scripts

        derive_scripts.conclude(job, now, group, scripts, status, exception)
        return
    free_and_close(job, now, group, status, exception)
    group.frees.extend(words_of(job.claims))
    group.clears.append(f"attempt/{job.id}")


def _looked_after(job: Job) -> bool:
    from .resizing import looked_after

    return looked_after(job)


def free_and_close(job: Job, now: float, group: Group, status: int | None, exception: Sequence[Any] | None) -> None:
    """`free`, and `clean` or, where its attempt is to be followed by another, `requeue`. status, exception: how it ended (None:
    no task of it ran)."""
    group.events.append(["free", job.id, now, None])
    context = again(job, status, exception, now)
    group.events.append([REQUEUE, job.id, now, context] if context else ["clean", job.id, now, None])


def _cleaning(job: Job, now: float, group: Group, scripts: Scripts) -> None:
    id = job.id
    if job.granted is not None and not job.seat_of:
        if not job.recalled:  # it may start any moment: its node must answer first
            group.events.append(["recall", id, now, None])
            group.to_nodes.append((job.granted[0], ["recall", id, job.attempt_id]))
        return
    if job.seat_of and not job.holds and job.granted is not None:
        return  # started on a seat: its predecessor's end allocates it, then it is ended like any other
    if not job.holds:
        group.events.append(["clean", id, now, None])
        group.clears.append(f"attempt/{id}")
        return
    if job.script is not None and job.script[0]:
        _scripted(job, now, group, scripts)
    elif job.resized is not None and _resized(job, now, group, scripts):
        return
    elif job.status is not None:  # what was to be done on nodes that it had given back is done
        if not _looked_after(job):
            _conclude(job, now, group, scripts, job.status, job.exception)
    elif all(rank in job.over for rank in job.ranks):
        finish(job, job.ranks, now, group, scripts)
    elif not job.ending and not job.timed_out:
        cause = job.exception[0] if job.exception else "end"
        group.events.append(["end", id, now, {"cause": cause}])
        for rank in job.ranks:
            if rank not in job.over and not _lets_end(job, rank, scripts):
                group.to_nodes.append((rank, ["end", id, _name_on(job, rank), cause]))


def _lets_end(job: Job, rank: int, scripts: Scripts) -> bool:
    """Whether a prolog on that node alone runs to its end, whatever becomes of the job."""
    return job.resized is not None and _name_on(job, rank) != job.attempt_id and scripts.prolog is not None and not (
        scripts.prolog.cancel_on_exception
    )


def _name_on(job: Job, rank: int) -> str:
    from .resizing import name_on

    return job.attempt_id if job.resized is None else name_on(job, rank)


def hand_over(jobs: Mapping[int, Job], job: Job, now: float, group: Group) -> None:
    """The chain of granted jobs that took over this freed job's seat, one after the other, in the same group.

    The agent started them by itself; the journal says it here, in order: each is allocated what its predecessor freed.
    """
    wire, ranks = job.claims_wire, job.ranks
    previous, following = job, job.next
    while following:
        successor = jobs.get(following)
        if successor is None or successor.granted is None or successor.holds or successor.seat_of != previous.id:
            return  # it has come back unstarted since, and may be placed anew
        id = successor.id
        if successor.state == PRIORITY:  # its urgency changed while it waited for the seat
            group.events.append(["priority", id, now, {"priority": priority_of(successor.urgency)}])
        expiration = now + successor.duration if successor.duration else 0.0
        context = {"claims": wire, "expiration": expiration, "attempt": successor.attempt, "via": previous.id}
        group.events.append(["alloc", id, now, context])
        group.things.append(f"job/{id}")
        group.bumps.append(f"job/{id}")
        if not all(rank in successor.over for rank in ranks):
            group.takes.extend(words_of(job.claims))
            if all(rank in successor.started for rank in ranks):
                group.events.append(["start", id, _begun(successor, now), None])
            return
        if successor.timed_out and successor.exception is None:
            context = {"type": "timeout", "severity": 0, "note": EXPIRED}
            group.events.append(["exception", id, now, context])
        finish(successor, ranks, now, group)
        previous, following = successor, successor.next
