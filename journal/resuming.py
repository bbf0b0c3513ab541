"""An instance inside a job that ends before its jobs do, and is taken up again by another job. Pure.

Decides which ends of attempts are the instance's own and no failure of their jobs, which go back in line then (`back_in_line`); and
what is said when somebody goes on with such a journal (`take_up`): what was held is over, and there is another inventory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..kvs.errors import Corrupt
from .decide import Decision
from .derive import Group, advance, hand_over
from .derive_scripts import housekeeping
from .job import CLEANUP, INACTIVE, RUN, Job
from .resizing import runs_on
from .retry import AGAIN, NEVER, NOTE, REQUEUE, SHUTDOWN
from .scripts import HOUSEKEEPING
from .state import State
from .wire import Commit

TIMEOUT, LOST = "timeout", "lost"
UNSATISFIABLE = "unsatisfiable"  # why a job waits that is larger than all there is
CAUSE = "the instance it was in has ended"
ROUNDS = 1000  # a chain of seats is as long as what an agent was given ahead


def is_child(state: State) -> bool:
    """Whether the instance is a job of another one."""
    return bool(state.instance.get("parent"))


def fitted_once(state: State, job: Job) -> bool:
    """Whether a job was taken in, or begun, when there was more than now: then it waits for as much, and is not refused."""
    resumed = state.instance.get("resumed")
    return job.requeued is not None or (resumed is not None and job.t_submit < resumed[0])


def back_in_line(state: State, group: Group, now: float, kinds: frozenset[str] = frozenset((SHUTDOWN, TIMEOUT))) -> None:
    """A job of an instance inside a job that ends only because that one does is not over: in place of `clean` it has a `requeue`,
    and is pending when the instance is taken up again. Those that have ended by themselves, or were cancelled, are over.

    kinds: types of exceptions that are the instance's end; a time-out counts where the job would have had more time by itself. A
    job that would be tried again by its own policy is so without that counting.
    """
    if not is_child(state):
        return
    said: dict[int, list[dict[str, Any]]] = {}  # exceptions of the group by job: one look at it, however long a chain of seats is
    statuses: dict[int, int] = {}
    for name, id, _, context in group.events:
        if name == "exception":
            said.setdefault(id, []).append(context)
        elif name == "finish":
            statuses[id] = context["status"]
    for at, (name, id, _, context) in enumerate(group.events):
        job = state.jobs.get(id) if name == "clean" or (name == REQUEUE and "retry" in context) else None
        if job is None:
            continue
        fatal = [(one[0], one[1]) for one in job.exceptions if one[1] == 0]
        fatal += [(one["type"], 0) for one in said.get(id, ()) if one["severity"] == 0]
        why = job.exception[0] if job.exception is not None else fatal[0][0] if fatal else ""
        if why and statuses.get(id, job.status) == 0:
            continue  # it had ended by itself before it was to end
        if not why and any(one[2] == f"ended:{SHUTDOWN}" for one in job.over.values()):
            why = SHUTDOWN  # its launcher was told to go, by whoever ends what the instance is made of
        if why not in kinds or not AGAIN.issuperset(kind for kind, _ in fatal):
            continue
        if why == TIMEOUT and not _with_instance(state, job):
            continue
        times = (job.requeued or NEVER)[0]
        note = {SHUTDOWN: CAUSE, TIMEOUT: "the instance it was in ran out of time"}.get(why, CAUSE)
        group.events[at] = [REQUEUE, id, now, {"attempt": times + 2, "cause": why, "note": note[:NOTE]}]


def is_with_instance(context: Mapping[str, Any]) -> bool:
    """Whether a `requeue` is of a job that ended because the instance it was in did: no policy and no person asked for it."""
    return "retry" not in context and context.get("cause") in (SHUTDOWN, TIMEOUT, LOST)


def _with_instance(state: State, job: Job) -> bool:
    """Whether the end of a job's time is that of its instance."""
    own = job.t_alloc + job.duration if job.duration else 0.0
    return bool(state.expiration) and job.expiration >= state.expiration and not 0.0 < own <= state.expiration


def take_up(
    state: State, by: Mapping[str, Any], R: dict[str, Any], epoch: int, now: float, told: Sequence[list[Any]] = ()
) -> Decision:
    """The first commit of who goes on with this journal, under a new epoch. by: the context of `resume`: the job that does. R: what
    it has been given. told: reports that were not journalled any more. Changes the state.

    Every attempt that the journal knows of is known to be over, since the job that the instance was has given everything back: each
    is lost, and its job back in line. Raises `Corrupt` if what is held cannot be settled.
    """
    old = state.epoch
    decision = Decision(
        [["epoch", "instance", now, {"old": old, "new": epoch, "reason": "resumed"}], ["resume", "instance", now, dict(by)], *told],
        bumps=["instance", "resource", *(f"plan/{name}" for name in state.queues), *(f"node/{rank}" for rank in state.nodes)],
    )  # fmt: skip
    _fold(state, decision.events, epoch, now)
    for group in _settling(state, now):
        decision.events += group.events
        decision.bumps += [thing for thing in group.bumps if thing not in decision.bumps]
        decision.clears += [thing for thing in group.clears if thing not in decision.clears]
    for job in state.active():
        if job.reason[0] == UNSATISFIABLE:  # of the nodes that were there then
            decision.events.append(["reason", job.id, now, {"code": "", "text": ""}])
    held = next((node for node in state.nodes.values() if node.busy or node.grants), None)
    if held is not None:
        ids = sorted({*held.jobs, *held.grants})
        raise Corrupt(
            f"the instance cannot be resumed: what jobs hold on its rank {held.rank} ({held.host}) is not settled ({ids[:3]})",
            code="unsettled", hint="fluxkv journal verify says what is wrong with it",
        )  # fmt: skip
    define = ["resource-define", "resource", now, {"method": "resume", "R": R}]
    decision.events.append(define)
    _fold(state, [define], epoch, now)
    decision.bumps += [thing for thing in (f"node/{rank}" for rank in state.nodes) if thing not in decision.bumps]
    decision.clears = [thing for thing in decision.clears if thing not in decision.bumps]
    return decision


def come_to(state: State, now: float, told: Sequence[list[Any]] = ()) -> None:
    """Change the state of a journal with which nobody goes on to what somebody would find who did: what ended there has ended, all
    else is back in line. For who only reads. told: as in `take_up`, which says when this is true."""
    if told:
        _fold(state, [*told], state.epoch, now)
    for _ in _settling(state, now):
        pass


def _settling(state: State, now: float) -> Iterator[Group]:
    """What is known of jobs and their housekeeping, once nothing of them runs, until there is nothing more. All is folded."""
    for _ in range(ROUNDS):
        groups = [group for id in _unsettled(state) if (group := _settled(state, state.jobs[id], now)) is not None]
        groups += [_kept(state, id, now) for id in sorted(state.keeping)]
        yield from groups
        if not any(group.events for group in groups):
            return


def _fold(state: State, events: list[list[Any]], epoch: int, now: float) -> None:
    """What is said goes out in one commit in the end; what follows from it has to be known before."""
    state.apply(Commit(state.version + 1, epoch, "", 0, state.version, now, events, {}, b""))


def _unsettled(state: State) -> list[int]:
    """Jobs that hold something, were placed ahead or are on their way out, in an order in which a seat's holder comes first."""
    found = {id for node in state.nodes.values() for id in (*node.jobs, *node.grants)}
    if state.count(RUN | CLEANUP):
        found.update(job.id for job in state.active() if job.state & (RUN | CLEANUP))
    found.intersection_update(state.jobs)
    return sorted(found, key=lambda id: (not state.jobs[id].holds, id))


def _settled(state: State, job: Job, now: float) -> Group | None:
    """The next that is known of a job, folded; None if there is nothing more."""
    if job.state == INACTIVE:
        return None
    thing = f"job/{job.id}"
    group = Group(things=[thing], bumps=[thing], clears=[f"attempt/{job.id}"])
    group.events = _lost(job, now)
    if not group.events:
        if not (job.holds or job.state == CLEANUP):
            return None
        found = advance(job, now)
        if found is None:
            return None
        group.events = [event for event in found.events if event[0] not in ("end", "recall")]  # nobody is there to hear it
        if any(event[0] == "free" for event in group.events):
            hand_over(state.jobs, job, now, group)
        back_in_line(state, group, now, frozenset((SHUTDOWN, TIMEOUT, LOST)))
        group.bumps = list(dict.fromkeys([*group.bumps, *found.bumps]))
    if not group.events:
        return None
    _fold(state, group.events, state.epoch, now)
    return group


def _lost(job: Job, now: float) -> list[list[Any]]:
    """What has to be said to have all of an attempt over: nothing, if it is."""
    id = job.id
    if job.granted is not None and not job.holds:
        return [] if job.seat_of else [["lost", id, now, {"rank": job.granted[0], "cause": CAUSE}]]
    if not job.holds:
        return []
    if job.script is not None and job.script[0]:
        kind, _, ranks, results = job.script
        left = [["lost", id, now, {"rank": rank, "cause": CAUSE, "script": kind}] for rank in ranks if rank not in results]
    else:
        kinds = {rank: runs_on(job, rank) for rank in job.ranks}
        left = [["lost", id, now, {"rank": rank, "cause": CAUSE, **({"script": kinds[rank]} if kinds[rank] else {})}]
                for rank in job.ranks if rank not in job.over or kinds[rank]]  # fmt: skip
    if left and job.exception is None and job.status is None and not job.timed_out:
        left.insert(0, ["exception", id, now, {"type": LOST, "severity": 0, "note": CAUSE}])
    return left


def _kept(state: State, id: int, now: float) -> Group:
    """The same for a job's housekeeping: what it did on its nodes nobody will say."""
    keeping = state.keeping[id]
    group = Group()
    group.events = [[f"{HOUSEKEEPING}-lost", f"{HOUSEKEEPING}/{id}", now, {"rank": rank, "cause": CAUSE}]
                    for rank in keeping.ranks if rank not in keeping.results]  # fmt: skip
    if not group.events:
        group = housekeeping(keeping, now, None) or group
    if group.events:
        _fold(state, group.events, state.epoch, now)
    return group
