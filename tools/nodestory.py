"""What ran on a node, and what befell it: from the records of jobs and a few commits, however long the journal is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..journal.ids import f58
from .eventview import caused_by

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.node import Node
    from ..journal.state import State


def jobs_on(journal: Journal, state: State, rank: int, since: float, until: float, limit: int) -> list[dict[str, Any]]:
    """The jobs that hold or held something on a node at some time in between, in order of allocation: all that hold it
    still, and the `limit` (0: all) that ended last."""

    from ..journal.columns import Sieve

    def holds(claims: list[Any], t_alloc: float) -> bool:
        return bool(t_alloc) and t_alloc <= until and any(row[0] == rank for row in claims)

    def here(job: Job) -> bool:
        return holds(job.claims_wire, job.t_alloc)

    found = [job for job in state.active() if here(job)]
    found += journal.newest(state, limit, lambda job: here(job) and job.t_inactive >= since, since,
                            Sieve(("claims_wire", "t_alloc"), holds))  # fmt: skip
    found.sort(key=lambda job: (job.t_alloc, job.order))
    return [_document(job, rank) for job in found]


def _document(job: Job, rank: int) -> dict[str, Any]:
    """free: when it was over there, None while it holds something."""
    from ..journal.job import INACTIVE
    from .eventview import status_text

    _, cores, gpus, memory_mb, _ = next(row for row in job.claims_wire if row[0] == rank)
    end = status_text(job.status) if job.status is not None else ""
    if not end and job.exception is not None:
        end = str(job.exception[0])
    free = (job.t_inactive if job.state == INACTIVE else job.t_finish) or None
    return {
        "id": f58(job.id), "name": job.name, "alloc": job.t_alloc, "free": None if job.holds else free, "cores": cores,
        "gpus": gpus, "memory_mb": memory_mb, "end": end,
    }  # fmt: skip


def node_events(journal: Journal, node: Node, since: float, until: float) -> list[dict[str, Any]]:
    """Drains, hellos and the like of a node in between, as far back as its record names their commits."""
    from ..journal.idset import mask_of

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


