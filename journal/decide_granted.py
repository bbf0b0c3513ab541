"""What a child instance makes of what its job has in its parent: nodes come, nodes leave, nodes are gone. Pure.

Each look at both journals gives what is left to do, so that whoever leads the child may die at any line of it. A node that is asked
back gets no new jobs; what runs there ends as was asked: by itself (finish), or another attempt follows (requeue), or as after the
failure of a node (fail), at the end of the grace in any case. When nothing is there it leaves the inventory, and its part of the
child ends. What is gone without that is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from .claims import Claim
from .decide import Decision
from .decide_hosts import lost_on, record_of
from .decide_inventory import redefine
from .decide_resize import Terms, shrink
from .graph_edit import granted, with_record
from .hostlist import compress
from .idset import format_ids
from .job import RUN, Job
from .node import Node
from .resizing import Leaving, is_instance, leaving_of, spared
from .resource_graph import ResourceGraph, graph_of
from .retry import REQUEUE
from .rset import NodeRecord, ResourceSet
from .state import State

TAKEN = "its job has it no more"
NODE_FAILURE = "node-failure"


class Grant(NamedTuple):
    """What the job has in the parent, by rank in the child. nodes: those that it has and that are not known to be over. leaving:
    those of them that are asked back. claims, graph: of the parent, for a child that has a graph."""

    nodes: Mapping[int, NodeRecord]
    leaving: Mapping[int, Leaving]
    claims: Mapping[int, Claim]
    graph: ResourceGraph | None = None


def follow(state: State, grant: Grant, now: float) -> Decision:
    """What the child is to say now; nothing where all is as it is to be, or has to be waited for."""
    decision = Decision([])
    gone = [node for rank, node in state.nodes.items() if rank not in grant.nodes]
    leaving = [node for rank, node in state.nodes.items() if rank in grant.nodes and rank in grant.leaving]
    _lose(state, [node for node in gone if node.busy or node.grants], decision, now)
    _drain([node for node in leaving if _holds(node)], decision, now)
    _end(state, {node.rank: grant.leaving[node.rank] for node in leaving if node.jobs}, decision, now)
    if decision.events:
        return decision
    out = {node.rank for node in (*gone, *leaving) if not _holds(node)}
    new = [rank for rank in grant.nodes if rank not in state.nodes and rank not in grant.leaving]
    stuck = any(_holds(node) for node in gone)
    if not (out or new) or (stuck and state.graph is not None):  # the graph to come has them no more
        return decision
    stay = [record_of(node) for rank, node in state.nodes.items() if rank not in out]
    records = sorted([*stay, *(grant.nodes[rank] for rank in new)])
    inventory = ResourceSet(tuple(records), expiration=state.expiration, tree=_tree(state, grant, records, out))
    found, _ = redefine(state, inventory, now, "grow" if new else "shrink")
    return found


def settled(state: State, grant: Grant) -> bool:
    """Whether the child has what its job has, and nothing of it is asked back."""
    return not grant.leaving and state.nodes.keys() == grant.nodes.keys()


def _holds(node: Node) -> bool:
    return bool(node.busy or node.grants)


def _lose(state: State, nodes: Sequence[Node], decision: Decision, now: float) -> None:
    """The parent's agents have seen that nothing is left there."""
    events, things = lost_on(state, nodes, TAKEN, now)
    online = [node for node in nodes if node.online]
    if online:
        where = {"idset": format_ids(node.rank for node in online), "reason": TAKEN}
        decision.events.append(["offline", "resource", now, where])
    decision.events += events
    if decision.events:
        _guard(decision, things)


def _drain(nodes: Sequence[Node], decision: Decision, now: float) -> None:
    """No new jobs there. Who has been drained for another reason stays so."""
    used = [node for node in nodes if node.drain is None]
    if used:
        context = {
            "idset": format_ids(node.rank for node in used), "nodelist": compress([node.host for node in used]), "overwrite": 0,
            "reason": "it is asked back by the instance around this one",
        }  # fmt: skip
        decision.events.append(["drain", "resource", now, context])
        _guard(decision, [f"node/{node.rank}" for node in used])


def _end(state: State, leaving: Mapping[int, Leaving], decision: Decision, now: float) -> None:
    """What becomes of jobs on these nodes."""
    ranks: dict[int, list[int]] = {}
    ended: list[str] = []
    for rank in sorted(leaving):
        for id in sorted(state.nodes[rank].jobs):
            ranks.setdefault(id, []).append(rank)
    for id, where in ranks.items():
        job = state.jobs[id]
        if job.state != RUN or job.exception is not None or job.timed_out:
            continue
        until, policy = min(leaving[rank].until for rank in where), leaving[where[0]].jobs
        event = _handed_on(job, where, leaving[where[0]], now)
        if event is None and (policy != "finish" or now >= until) and not leaving_of(job).keys() >= set(where):
            kind = NODE_FAILURE if policy == "fail" else REQUEUE
            note = f"rank {format_ids(where)} is asked back by the instance around this one"
            event = ["exception", id, now, {"type": kind, "severity": 0, "note": note}]
        if event is not None:
            decision.events.append(event)
            ended.append(f"job/{id}")
    _guard(decision, ended)


def _handed_on(job: Job, ranks: Sequence[int], leaving: Leaving, now: float) -> list[Any] | None:
    """A job that can do without these nodes gives them back itself: an instance is asked in its turn, and has as long, less what
    is left to take it there by force."""
    asked = [rank for rank in ranks if rank not in leaving_of(job)]
    if not asked or not spared(job).issuperset(ranks):
        return None
    nested = is_instance(job)
    if not nested and leaving.jobs == "finish" and now < leaving.until:
        return None
    event = shrink(job, asked, Terms(max(0.0, leaving.until - now), leaving.jobs), None, now)
    if nested:
        event[3]["force"] = max(now, (leaving.until + leaving.force) / 2)
    return event


def _tree(state: State, grant: Grant, records: Sequence[NodeRecord], out: set[int]) -> Mapping[str, Any] | None:
    """The graph of a child that has one: its part of the parent's, or, where that is another by now, its own, by nodes."""
    if state.graph is None:
        return None
    claims = [grant.claims[record.rank] for record in records if record.rank in grant.claims]
    if grant.graph is not None and len(claims) == len(records):
        try:
            ranks = {claim.rank: rank for rank, claim in grant.claims.items()}
            found = granted(grant.graph, claims, rerank=True, ranks=ranks)[0].wire
            graph_of(ResourceSet(tuple(records), tree=found))
            return found
        except Rejected:
            pass
    graph = state.graph
    for rank in sorted(out):
        graph = with_record(graph, rank, None)
    for record in records:
        if record.rank not in state.nodes:
            graph = with_record(graph, record.rank, record)
    return graph.wire


def _guard(decision: Decision, things: Sequence[str]) -> None:
    for found in (decision.since, decision.bumps):
        found[:] = dict.fromkeys([*found, *things])
