"""A worker's groups of events as one commit, and which of them stay behind when its premises have moved. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..journal.derive import Group
from ..journal.job import Job
from ..journal.node import REBOOTED
from ..journal.schema import SCHEMA
from ..journal.state import State
from ..journal.wire import pack, pack_events
from ..kvs.epochs import anchor
from ..kvs.port import Append, Meta

if TYPE_CHECKING:
    from .planner import Planner
    from .waiting import Waiting


def assemble(groups: Iterable[Group], meta: Meta, state: State, producer: str, seq: int) -> Append:
    """The commit of these groups, decided against this state, with the state's digest."""
    events: list[list[Any]] = []
    since: dict[str, None] = {}
    bumps: dict[str, None] = {}
    clears: list[str] = []
    inbox: dict[int, list[Any]] = {}
    sets: list[tuple[str, str]] = []
    for group in groups:
        events.extend(group.events)
        since.update(dict.fromkeys(group.things))
        bumps.update(dict.fromkeys(group.bumps))
        clears.extend(group.clears)
        sets.extend(group.sets)
        for rank, message in group.to_nodes:
            inbox.setdefault(rank, []).append(message)
    if not events:  # a commit has at least one event: say whose word it is
        events.append(["lively", "resource", state.time, {"idset": ",".join(map(str, sorted(inbox)))}])
    return Append(
        uid=meta.uid,
        epoch=meta.epoch,
        decided_at=state.version,
        payload=pack_events(events),
        producer=producer,
        seq=seq,
        since=tuple(since),
        bumps=tuple(bumps),
        clears=tuple(clear for clear in clears if clear not in bumps),
        inbox=tuple((f"node/{rank}", pack(messages)) for rank, messages in inbox.items()),
        sets=tuple(sets),
        anchor=anchor(state.version, state.epoch, state.tail),
        extra=pack({"by": producer, "digest": state.digest(), "schema": SCHEMA}),
    )


def without_losers(groups: Iterable[Group], things: set[str]) -> tuple[list[Group], list[Group]]:
    """(kept, dropped) when these things have moved: with a group goes whoever would have taken what it frees, and
    whatever follows about its jobs."""
    lost_ranks: set[int | str] = set()
    lost_jobs: set[str] = set()
    kept: list[Group] = []
    dropped: list[Group] = []
    for group in groups:
        if (
            things.intersection(group.things)
            or lost_jobs.intersection(group.things)
            or lost_ranks.intersection(group.takes)
        ):
            dropped.append(group)
            lost_ranks.update(group.frees)
            lost_jobs.update(thing for thing in group.things if thing.startswith("job/"))
        else:
            kept.append(group)
    return kept, dropped


def look_again(
    groups: Iterable[Group], state: State, planner: Planner, waiting: Waiting, inactive: dict[int, None]
) -> bool:
    """Nothing of these groups happened: look at their jobs and nodes again. True: nodes are to be asked to speak.

    inactive: jobs that are over, in the order in which they are retired.
    """
    greet = False
    planner.start_over()
    for group in groups:
        for event in group.events:
            name, subject = event[0], event[1]
            if isinstance(subject, int):
                job = state.jobs.get(subject)
                if job is None:
                    continue
                state.attention[subject] = None
                waiting.forget(subject)
                if name == "alloc" and not job.holds:
                    planner.unseated(subject)
                elif name == "priority":
                    planner.dequeue(subject)  # it was lined up on the strength of this
                elif name == "reason":
                    planner.said.pop(subject, None)
                    planner.parked.discard(subject)
                elif name == "recall" and job.granted is not None:
                    state.dirty_words.add(job.granted[0])
            elif name == "housekeeping-finish":
                state.keeping_news[int(subject.partition("/")[2])] = None
            elif name == "retire":  # in front again: the oldest go first
                others = list(inactive)
                inactive.clear()
                inactive.update(dict.fromkeys([*(id for id in event[3]["jobs"] if id in state.jobs), *others]))
        if group.hello >= 0:
            rebooted = any(event[3] and event[3].get("cause") == REBOOTED for event in group.events)
            state.said_hello[group.hello] = rebooted or state.said_hello.get(group.hello, False)
        elif not group.events:
            greet = True
        planner.resync.update(group.frees)
        planner.resync.update(group.takes)
    return greet


def premises(state: State, job: Job) -> list[str]:
    """What a placement of this job rests on beside the job and its nodes: the plan of its queue, numbers of jobs."""
    rules = state.rules.of(job.queue)
    things = [f"plan/{job.queue}"]
    if rules is not None and rules.parent:
        things.append(f"plan/{rules.parent}")
    if state.usage is not None:
        things += [f"running/{scope}/{job.userid}" for scope, _ in state.rules.running_limits(job.queue)]
    return things
