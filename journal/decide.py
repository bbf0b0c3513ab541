"""Commands to events: what people may ask, decided against a state. Pure; refuses with a reason and a hint.

A `Decision` is everything one append needs. Bumps follow the rule of the house: every event bumps its subject and each
pool it draws on (a report bumps nothing, see ARCHITECTURE.md).
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..kvs.errors import Rejected
from ..kvs.port import Append, Meta
from .ids import f58
from .idset import format_ids
from .job import INACTIVE, NEW, PENDING, RUN, Job
from .schema import check_schema
from .wire import pack, pack_events

if TYPE_CHECKING:  # a submit pays for no fold
    from .node import Node
    from .state import State


class Decision:
    """events: [name, subject, timestamp, context]; the rest as in `kvs.port.Append`.

    No dataclass: every command and daemon has these, and `dataclasses` alone is 13 ms of a daemon's start.
    """

    __slots__ = ("absent", "bumps", "clears", "events", "exact", "inbox", "refusable", "since")

    def __init__(
        self, events: list[list[Any]], since: list[str] | None = None, exact: list[tuple[str, int | str]] | None = None,
        absent: list[str] | None = None, bumps: list[str] | None = None, clears: list[str] | None = None,
        inbox: list[tuple[str, bytes]] | None = None, refusable: bool = False,
    ) -> None:  # fmt: skip
        self.events = events
        self.since = since if since is not None else []
        self.exact: list[tuple[str, int | str]] = exact if exact is not None else []
        self.absent = absent if absent is not None else []
        self.bumps = bumps if bumps is not None else []
        self.clears = clears if clears is not None else []
        self.inbox = inbox if inbox is not None else []
        self.refusable = refusable


def make_append(
    meta: Meta,
    decision: Decision,
    decided_at: int,
    *,
    producer: str = "",
    seq: int = 0,
    extra: Mapping[str, Any] | None = None,
    there: str = "",
) -> Append:
    """A decision as a store request. Raises `Corrupt` (code newer-schema) for a journal of a newer program."""
    check_schema(meta)
    return Append(
        uid=meta.uid,
        epoch=meta.epoch,
        decided_at=decided_at,
        payload=pack_events(decision.events),
        producer=producer,
        seq=seq,
        since=tuple(decision.since),
        exact=tuple(decision.exact),
        absent=tuple(decision.absent),
        bumps=tuple(decision.bumps),
        clears=tuple(decision.clears),
        inbox=tuple(decision.inbox),
        refusable=decision.refusable,
        extra=pack(extra) if extra else b"\x80",
        anchor=there,
    )


def together(decisions: Iterable[Decision]) -> Decision:
    """Several decisions as one: all of it happens, or none."""
    whole = Decision([])
    for one in decisions:
        whole.events += one.events
        whole.since += one.since
        whole.exact += one.exact
        whole.absent += one.absent
        whole.bumps += one.bumps
        whole.clears += one.clears
        whole.inbox += one.inbox
    return whole


def submit(
    jobs: Sequence[tuple[int, dict[str, Any]]], env: str | Sequence[str], urgency: int | Sequence[int], userid: int, flags: int,
    now: float, config: int = 0, keys: Mapping[int, tuple[str, str, str]] | None = None,
) -> Decision:  # fmt: skip
    """New jobs (id, jobspec without environment). env: the environment's blob, urgency: 0..31; of all, or of each.

    Needs no state: ids are guarded as absent, and so is the mark of a closed queue. config: the version of the config they
    were made to honour, 0 for none. keys: index -> (the key a job is to have alone, its guard, what it asked for).
    """
    events: list[list[Any]] = []
    context: dict[str, Any]
    things = []
    queues = set()
    envs = [env] * len(jobs) if isinstance(env, str) else env
    urgencies = [urgency] * len(jobs) if isinstance(urgency, int) else urgency
    for (id, jobspec), blob, level in zip(jobs, envs, urgencies, strict=True):
        context = {"urgency": level, "userid": userid, "flags": flags, "version": 1, "jobspec": jobspec, "env": blob}
        if keys and len(events) in keys:
            context["key"], thing, context["asked"] = keys[len(events)]
            things.append(thing)
        events.append(["submit", id, now, context])
        things.append(f"job/{id}")
        queues.add(((jobspec.get("attributes") or {}).get("system") or {}).get("queue") or "default")
    absent = [*things, *(f"closed/{queue}" for queue in sorted(queues))]
    if not config:
        absent.append("config")
    return Decision(events, exact=[("config", config)] if config else [], absent=absent, bumps=things, refusable=True)


def _job(state: State, id: int) -> Job:
    job = state.jobs.get(id)
    if job is None:
        raise Rejected(f"job {f58(id)}: no such job", code="no-such-job", hint="fluxkv jobs -a lists them")
    return job


def raise_exception(
    state: State, id: int, kind: str, severity: int, note: str, userid: int, now: float
) -> Decision:
    """An exception by a person; severity 0 ends the job."""
    job = _job(state, id)
    if job.state == INACTIVE:
        raise Rejected(f"job {f58(id)}: is inactive", code="inactive", hint="only active jobs can be cancelled")
    if not 0 <= severity <= 7:
        raise Rejected(f"severity {severity} is not in 0..7", code="bad-severity")
    context = {"type": kind, "severity": severity, "note": note, "userid": userid}
    thing = f"job/{id}"
    return Decision([["exception", id, now, context]], since=[thing], bumps=[thing])


def cancel_each(jobs: Iterable[Job], note: str, userid: int, now: float) -> list[Decision]:
    """Cancel jobs, a decision each; those already inactive or ending for good are left out. Their records must be true as of
    what it is decided on."""
    context = {"type": "cancel", "severity": 0, "note": note, "userid": userid}
    return [
        Decision([["exception", job.id, now, context]], since=[f"job/{job.id}"], bumps=[f"job/{job.id}"])
        for job in jobs
        if job.state != INACTIVE and ((job.exception is None and job.status is None) or _may_return(job))
    ]


def _may_return(job: Job) -> bool:
    from .retry import may_return

    return may_return(job)


def change_urgency(state: State, id: int, urgency: int, userid: int, now: float) -> Decision:
    """RFC 30: while pending."""
    job = _job(state, id)
    if not 0 <= urgency <= 31:
        raise Rejected(f"urgency {urgency} is not in 0..31", code="bad-urgency")
    if not job.state & (PENDING | NEW):
        raise Rejected(f"job {f58(id)}: urgency can change only while it is pending", code="not-pending")
    thing = f"job/{id}"
    return Decision([["urgency", id, now, {"urgency": urgency, "userid": userid}]], since=[thing], bumps=[thing])


def check_signal(signum: int) -> None:
    """Raises `Rejected` unless there is such a signal."""
    try:
        signal.Signals(signum)
    except ValueError:
        raise Rejected(f"signal {signum}: no such signal", code="bad-signal") from None


def kill(state: State, id: int, signum: int, userid: int, now: float) -> Decision:
    """Send a signal to a running job's tasks on all its nodes."""
    job = _job(state, id)
    if job.state != RUN or not job.holds:
        raise Rejected(f"job {f58(id)}: is not running", code="not-running")
    if job.script is not None and job.script[0]:
        raise Rejected(f"job {f58(id)}: its {job.script[0]} is going on", code="not-running", hint="cancel it, or wait")
    check_signal(signum)
    message = pack([["signal", id, job.attempt_id, signum]])
    return Decision(
        [["kill", id, now, {"signum": signum, "userid": userid}]],
        since=[f"job/{id}"],
        bumps=[f"job/{id}"],
        inbox=[(f"node/{rank}", message) for rank in job.ranks],
    )


def _nodes(state: State, ranks: Iterable[int]) -> list[Node]:
    found = []
    for rank in ranks:
        if rank not in state.nodes:
            raise Rejected(
                f"rank {rank}: no such node", code="no-such-node", hint=f"ranks are {format_ids(state.nodes)}"
            )
        found.append(state.nodes[rank])
    if not found:
        raise Rejected("no node named", code="no-such-node", hint="give ranks (0-3) or host names")
    return found


def _resource_event(name: str, nodes: list[Node], now: float, context: dict[str, Any]) -> Decision:
    from .hostlist import compress

    where = {"idset": format_ids(node.rank for node in nodes), "nodelist": compress([node.host for node in nodes])}
    things = [f"node/{node.rank}" for node in nodes]
    return Decision([[name, "resource", now, {**where, **context}]], since=things, bumps=things)


def drain(state: State, ranks: Iterable[int], reason: str, overwrite: int, now: float) -> Decision:
    """RFC 44 drain. overwrite 0: refuse if one is drained already; 1: new reason; 2: new reason and time."""
    nodes = _nodes(state, ranks)
    already = [node for node in nodes if node.drain is not None]
    if already and overwrite == 0:
        raise Rejected(
            f"rank {format_ids(node.rank for node in already)}: already drained",
            code="already-drained",
            hint="--force updates the reason",
        )
    return _resource_event("drain", nodes, now, {"overwrite": overwrite, "reason": reason})


def undrain(state: State, ranks: Iterable[int], reason: str, now: float, force: bool = False) -> Decision:
    """RFC 44 undrain."""
    nodes = _nodes(state, ranks)
    not_drained = [node for node in nodes if node.drain is None]
    if not_drained and not force:
        raise Rejected(f"rank {format_ids(node.rank for node in not_drained)}: not drained", code="not-drained")
    return _resource_event("undrain", nodes, now, {"reason": reason, "overwrite": 0})


def change_queue(name: str, verb: str, reason: str, now: float) -> Decision:
    """verb: start, stop (allocation), enable, disable (submission). The queue must be there: a config that takes it away in
    between would else leave a mark that keeps a later queue of this name closed."""
    context = {"reason": reason} if verb in ("stop", "disable") else None
    event = [f"queue-{verb}", f"queue/{name}", now, context]
    decision = Decision([event], since=["config/load"], bumps=[f"queue/{name}", f"plan/{name}"])
    if verb == "disable":
        decision.bumps.append(f"closed/{name}")
    if verb == "enable":
        decision.clears.append(f"closed/{name}")
    return decision


def active_ids(state: State) -> list[int]:
    """Ids of all active jobs, in order of submission."""
    return [job.id for job in sorted(state.active(), key=lambda job: job.order)]
