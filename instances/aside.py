"""What a worker owes to what the fold has set aside: the event that says so, the end of the job, drained nodes. Pure.

Frees nothing: a job that holds resources ends like any other, by its nodes' word. What an impossible event would have begun
on a node is ended there, and the node drained: it is not known who has it until an operator has looked.
"""

from __future__ import annotations

from typing import Any

from ..journal.derive import Group
from ..journal.hostlist import compress
from ..journal.idset import format_ids
from ..journal.job import INACTIVE, Job
from ..journal.quarantine import Aside, listed
from ..journal.retry import may_return
from ..journal.scripts import HOUSEKEEPING
from ..journal.state import State
from .reactor import Note, Output

TYPE = "quarantine"  # of the exception that ends a job


def set_aside(state: State, now: float, limit: int, outputs: list[Output]) -> list[Group]:
    """A group for each subject (the first `limit` of them, in the journal's order) about which an event is owed, and a note."""
    if not state.quarantine.news:
        return []
    owed = listed(state.quarantine.owed())[:limit]
    outputs.extend(Note("error", f"set aside: {aside.what}: {aside.why}") for aside in owed)
    return [_group(state, aside, now) for aside in owed]


def _group(state: State, aside: Aside, now: float) -> Group:
    subject, group = aside.subject, Group()
    context: dict[str, Any] = {"version": aside.version, "event": aside.name, "reason": aside.why}
    ranks = sorted(rank for rank in aside.doubts if rank in state.nodes)
    if ranks:
        context["ranks"] = format_ids(ranks)
    group.events.append([TYPE, subject, now, context])
    for rank in ranks:
        _drain(state, rank, f"quarantine: {aside.what}: {aside.why}", now, group)
        for attempt in aside.doubts[rank]:
            group.to_nodes.append((rank, ["forget", f"{_job_id(subject)}.{attempt}"]))
    job = state.jobs.get(subject) if isinstance(subject, int) else None
    if job is not None:
        _end(job, aside, now, group)
    return group


def _job_id(subject: int | str) -> str:
    """Of the job whose attempts are meant; housekeeping is named by it."""
    return str(subject).removeprefix(f"{HOUSEKEEPING}/")


def _drain(state: State, rank: int, reason: str, now: float, group: Group) -> None:
    """In front of all else; a node that is drained already keeps its reason."""
    node = state.nodes[rank]
    group.things.append(f"node/{rank}")
    group.bumps.append(f"node/{rank}")
    if node.drain is None:
        context = {"idset": str(rank), "nodelist": compress([node.host]), "overwrite": 0, "reason": reason}
        group.events.insert(0, ["drain", "resource", now, context])


def _end(job: Job, aside: Aside, now: float, group: Group) -> None:
    """The exception that ends it, unless it is over, or ending for good for another cause."""
    thing = f"job/{job.id}"
    group.things.append(thing)
    group.bumps.append(thing)
    if job.state != INACTIVE and ((job.exception is None and job.status is None) or may_return(job)):
        context = {"type": TYPE, "severity": 0, "note": aside.why}
        group.events.append(["exception", job.id, now, context])
