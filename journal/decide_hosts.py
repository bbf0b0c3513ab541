"""A host joins an instance, or leaves it, or somebody says that it is off: what is in the inventory, and what is over. Pure.

Nobody else's rank changes. The inventory changes as by `resource reload` (a `resource-define`, RFC 44), with method join or
leave; an event `join` says in the same commit which agent serves the node, so the instance's own never takes it for one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from .decide import Decision
from .decide_inventory import reload
from .idset import format_ids
from .job import Job
from .node import Node
from .resizing import runs_on
from .rset import NodeRecord, ResourceSet
from .scripts import HOUSEKEEPING
from .state import State


class Newcomer(NamedTuple):
    """A host that joins. cores, gpus: bit masks. spool: what its agent's state directory is known by. boot: of the host."""

    host: str
    cores: int
    gpus: int
    memory_mb: int
    properties: tuple[str, ...]
    spool: str
    boot: str


def rank_of(state: State, host: str, spool: str) -> int | None:
    """The rank of a host that was here before: by its state directory, or (that one lost) by its name; None for a new one.

    Raises `Rejected` (code host-exists) for the name of a node that the instance's own agent serves.
    """
    for node in state.nodes.values():
        if node.joined == spool:
            return node.rank
    for node in state.nodes.values():
        if node.host == host:
            if node.joined:
                return node.rank
            raise Rejected(
                f"the instance has a node {host} (rank {node.rank}), and it is not one that joined", code="host-exists",
                hint="give this host another name with --name",
            )  # fmt: skip
    return None


def join(state: State, new: Newcomer, now: float) -> tuple[Decision, int]:
    """The decision (nothing if all is as it was), and the rank: that of old, or one that nobody has.

    Raises `Rejected` as `rank_of` and `reload` do.
    """
    known = rank_of(state, new.host, new.spool)
    rank = known if known is not None else 1 + max(state.nodes, default=-1)
    record = NodeRecord(rank, new.host, new.cores, new.gpus, new.memory_mb, new.properties)
    decision, _ = reload(state, _inventory(state, rank, record), now, method="join")
    node = state.nodes.get(rank)
    if node is None or node.joined != new.spool or node.host != new.host:
        thing = f"node/{rank}"
        decision.events.append(["join", thing, now, {"host": new.host, "spool": new.spool, "boot": new.boot}])
        for things in (decision.since, decision.bumps):
            things.extend(word for word in ("resource", thing) if word not in things)
    return decision, rank


def leave(state: State, rank: int, now: float) -> Decision:
    """The inventory without this node. Raises `Rejected` while jobs hold some of it, or where it is the last one."""
    if rank not in state.nodes:
        return Decision([])
    if len(state.nodes) == 1:
        raise Rejected("the last node of an instance stays", code="in-use", hint="fluxkv stop ends the instance")
    return reload(state, _inventory(state, rank, None), now, method="leave")[0]


def _inventory(state: State, rank: int, record: NodeRecord | None) -> ResourceSet:
    """What there is, with this record for the rank."""
    others = [record_of(node) for node in state.nodes.values() if node.rank != rank]
    nodes = [*others, record] if record is not None else others
    tree = None
    if state.graph is not None:
        from .graph_edit import with_record

        tree = with_record(state.graph, rank, record).wire
    return ResourceSet(tuple(sorted(nodes)), expiration=state.expiration, tree=tree)


def record_of(node: Node) -> NodeRecord:
    """A node as an inventory has it."""
    return NodeRecord(node.rank, node.host, node.cores, node.gpus, node.memory_mb, node.properties)


def fence(state: State, ranks: Iterable[int], reason: str, userid: int, now: float) -> Decision:
    """A person's word that nothing runs on these nodes any more: what did is `lost`, and may begin again elsewhere.

    Raises `Rejected` for a node that is online: what runs there is ended by cancelling it, or with its agent.
    """
    decision = Decision([])
    nodes = []
    for rank in ranks:
        node = state.nodes.get(rank)
        if node is None:
            raise Rejected(f"there is no rank {rank}", code="no-such-node", hint="fluxkv resource list")
        if node.online:
            raise Rejected(
                f"rank {rank} ({node.host}) is online: its agent says by itself what runs there", code="online",
                hint="cancel its jobs, or stop its agent; a host just switched off is noticed after resource.offline-after",
            )  # fmt: skip
        nodes.append(node)
    context = {"idset": format_ids(node.rank for node in nodes), "reason": reason, "userid": userid}
    decision.events.append(["fence", "resource", now, context])
    events, things = lost_on(state, nodes, f"node fenced: {reason}" if reason else "node fenced", now)
    decision.events += events
    decision.since += things
    decision.bumps += things
    return decision


def lost_on(state: State, nodes: Iterable[Node], cause: str, now: float) -> tuple[list[list[Any]], list[str]]:
    """What is over where it is known that nothing runs any more: events, and what they guard and bump."""
    said: list[list[Any]] = []
    things: dict[str, None] = {}
    for node in nodes:
        things[f"node/{node.rank}"] = None
        for id in sorted(node.jobs | node.grants):
            job = state.jobs[id]
            events = _over(job, node.rank, cause, now)
            said += events
            things |= dict.fromkeys([f"job/{id}"] if events else [])
        for id in sorted(node.keeping):
            if node.rank not in state.keeping[id].results:
                context = {"rank": node.rank, "cause": cause}
                said.append([f"{HOUSEKEEPING}-lost", f"{HOUSEKEEPING}/{id}", now, context])
                things[f"job/{id}"] = None
    return said, list(things)


def _over(job: Job, rank: int, cause: str, now: float) -> list[list[Any]]:
    """What of a job is known to be over there now: its script, if one is going on, and its tasks."""
    context = {"rank": rank, "cause": cause}
    if job.script is not None and job.script[0]:
        _, _, ranks, results = job.script
        return [["lost", job.id, now, {**context, "script": job.script[0]}]] if rank in ranks and rank not in results else []
    if kind := runs_on(job, rank):
        return [["lost", job.id, now, {**context, "script": kind}]]
    return [["lost", job.id, now, context]] if rank not in job.over else []
