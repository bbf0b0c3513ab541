"""What ran on a node, and what befell it: from the records of jobs and a few commits, however long the journal is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..journal.ids import f58
from ..journal.idset import mask_of
from .eventview import caused_by

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.node import Node
    from ..journal.state import State


def jobs_on(journal: Journal, state: State, rank: int, since: float, until: float, limit: int) -> list[dict[str, Any]]:
    """The jobs that hold or held something on a node at some time in between, in order of allocation, each attempt by itself:
    all that hold it still, and those of the `limit` (0: all) jobs that ended last."""

    from ..journal.columns import Sieve

    def holds(claims: list[Any], t_alloc: float) -> bool:
        return bool(t_alloc) and t_alloc <= until and any(row[0] == rank for row in claims)

    def held(claims: list[Any], t_alloc: float, requeued: list[Any] | None, resized: list[Any] | None) -> bool:
        before = requeued is not None and bool(mask_of(requeued[5]) >> rank & 1)
        return holds(claims, t_alloc) or before or (resized is not None and rank in resized[4])

    def here(job: Job) -> bool:
        return held(job.claims_wire, job.t_alloc, job.requeued, job.resized)

    found = [job for job in state.active() if here(job)]
    found += journal.newest(state, limit, lambda job: here(job) and job.t_inactive >= since, since,
                            Sieve(("claims_wire", "t_alloc", "requeued", "resized"), held))  # fmt: skip
    rows = [(_document(job, rank), job.order) for job in found if job.resized is None and holds(job.claims_wire, job.t_alloc)]
    for job in found:
        if job.requeued is not None or job.resized is not None:
            rows += [(row, job.order) for row in _told(journal, job, rank)
                     if row["alloc"] <= until and (row["free"] is None or row["free"] >= since)]  # fmt: skip
    return [row for row, _ in sorted(rows, key=lambda pair: (pair[0]["alloc"], pair[1]))]


def _told(journal: Journal, job: Job, rank: int) -> list[dict[str, Any]]:
    """From its story: the attempts of a job before its last that were on a node; and of a job whose nodes have changed each time
    that it had this one."""
    rows: list[dict[str, Any]] = []
    claims: list[Any] = []
    alloc, status, raised = 0.0, None, ""
    for _, event in journal.story(job.commits, job.id):
        context = event.context or {}
        if event.name in ("alloc", "grow") and any(row[0] == rank for row in context["claims"]):
            claims, alloc = [row for row in context["claims"] if row[0] == rank], event.timestamp
        elif event.name == "free" and context.get("ranks") and claims and mask_of(context["ranks"]) >> rank & 1:
            rows.append(_row(job, claims[0], alloc, event.timestamp, None, "given back"))
            claims = []
        elif event.name == "finish":
            status = context["status"]
        elif event.name == "exception" and not context["severity"]:
            raised = raised or context["type"]
        elif event.name == "requeue":
            rows += [_row(job, row, alloc, event.timestamp, status, raised) for row in claims]
            claims, status, raised = [], None, ""
    if job.resized is not None and claims:
        rows.append({**_document(job, rank), "alloc": alloc})
    return rows


def _document(job: Job, rank: int) -> dict[str, Any]:
    """free: when it was over there, None while it holds something."""
    from ..journal.job import INACTIVE

    claim = next(row for row in job.claims_wire if row[0] == rank)
    free = (job.t_inactive if job.state == INACTIVE else job.t_finish) or None
    raised = str(job.exception[0]) if job.exception is not None else ""
    return _row(job, claim, job.t_alloc, None if job.holds else free, job.status, raised)


def _row(job: Job, claim: list[Any], alloc: float, free: float | None, status: int | None, raised: str) -> dict[str, Any]:
    from .eventview import status_text

    cores, gpus, memory_mb = claim[1:4]
    return {
        "id": f58(job.id), "name": job.name, "alloc": alloc, "free": free, "cores": cores, "gpus": gpus,
        "memory_mb": memory_mb, "end": status_text(status) if status is not None else raised,
    }  # fmt: skip


def node_events(journal: Journal, node: Node, since: float, until: float) -> list[dict[str, Any]]:
    """Drains, hellos and the like of a node in between, as far back as its record names their commits."""
    bit = 1 << node.rank
    history: list[dict[str, Any]] = []
    for commit, event in journal.story(node.commits):
        context = event.context or {}
        if event.name in ("drain", "undrain", "online", "offline"):
            told = bool(mask_of(context["idset"]) & bit)
        else:
            told = event.name in ("epoch", "resource-define") or (event.name == "hello" and context.get("rank") == node.rank)
        if told and since <= event.timestamp <= until:
            history.append({
                "timestamp": event.timestamp, "name": event.name, "what": _about(event.name, context),
                "by": caused_by(commit), "entry": commit.id,
            })  # fmt: skip
    return history


def _about(name: str, context: dict[str, Any]) -> str:
    if name == "hello":
        return f"boot {context['boot']}, spool {context['spool']}, {len(context['held'])} attempts held"
    if name == "epoch":
        return f"{context.get('reason', '')}; the node must speak again"
    return str(context.get("reason", ""))


