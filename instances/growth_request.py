"""A running job that wants more nodes, as a plan sees it: what it asks for, its place in line. Pure.

It stands in its queue's line like a job that was submitted when it asked, with the time it has left as its limit. Each new node
is like those that its jobspec describes: its `node` with all that is below, or where it names none a node with as many of its
slots as its first one has. What it draws above nodes (a rack's power) does not grow with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..journal.derive_scripts import phase
from ..journal.ids import f58
from ..journal.idset import format_ids
from ..journal.job import Job
from ..journal.jobspec_check import SLOTS
from ..journal.resizing import growth_of, place_in_line
from ..journal.state import State
from ..journal.wire import pack
from ..kvs.errors import Rejected
from ..schedulers.policy import Pending
from ..schedulers.request import Request, compile_request


def jobspec_of(job: Job, nodes: int) -> dict[str, Any]:
    """The jobspec of a request for as many nodes more. Raises `Rejected` where it cannot be told what a node of the job is."""
    spec = job.jobspec or {}
    attributes = spec.get("attributes") or {}
    system = attributes.get("system") or {}
    other = {"not": [{"ranks": [format_ids(job.ranks)]}]}
    asked = system.get("constraints")
    constraint = {"and": [asked, other]} if asked else other
    return {
        **spec, "resources": [_node_of(job, spec.get("resources") or [], nodes)],
        "attributes": {**attributes, "system": {**system, "constraints": constraint}},
    }  # fmt: skip


def _node_of(job: Job, resources: Sequence[Mapping[str, Any]], nodes: int) -> dict[str, Any]:
    stack, slot = list(resources), None
    while stack:
        vertex = stack.pop(0)
        if vertex.get("type") == "node":
            return {**vertex, "count": nodes}
        if slot is None and vertex.get("type") in SLOTS:
            slot = vertex
        stack += vertex.get("with") or ()
    if slot is None:
        raise Rejected(f"job {f58(job.id)}: asks for no nodes and no slots", code="bad-jobspec")
    return {"type": "node", "count": nodes, "with": [{**slot, "count": max(1, job.claims[0].slots)}]}


def request_of(state: State, job: Job, nodes: int) -> Request:
    """The same, compiled, with its queue's constraint. Raises `Rejected`."""
    return compile_request(state.rules.constrained(jobspec_of(job, nodes), job.queue))


def made_of(job: Job) -> bytes:
    """What its place in line rests on."""
    growth = growth_of(job)
    return pack([growth, job.ranks, job.expiration]) if growth is not None and not phase(job) else b""


def entry_of(state: State, job: Job, now: float) -> Pending | None:
    """What a policy is given of it; None if it asks for nothing, or a prolog is still to let its tasks begin. Raises `Rejected`."""
    growth = growth_of(job)
    if growth is None or phase(job):
        return None
    left = max(1.0, job.expiration - now) if job.expiration else 0.0
    priority, order = place_in_line(job)
    return Pending(job.id, -priority, order, request_of(state, job, growth.nodes), left)
