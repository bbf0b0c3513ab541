"""What an instance has, as frozen values for programs: nodes in their conditions (RFC 20 sets), queues, a job's resources.

Reads a state that was folded already; decides nothing, and nothing handed out changes with the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..journal.claims import Claim
from ..journal.config import QueueRules
from ..journal.job import Job
from ..journal.node import Node
from ..journal.rset import NodeRecord, ResourceSet, allocated_set
from ..journal.state import State
from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from ..journal.resource_graph import ResourceGraph
    from ..schedulers.resources import Pool


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node. state: "free", "allocated", "drained", "draining" (drained, jobs left) or "offline".

    ncores, ngpus, memory_mb: all it has; free_*: what no job holds, whatever the node's state. drain_reason: "" unless drained.
    jobs: ids of those that hold something here. t_drain: Unix seconds, 0.0 unless drained.
    """

    rank: int
    host: str
    state: str
    ncores: int
    ngpus: int
    memory_mb: int
    free_cores: int
    free_gpus: int
    free_memory_mb: int
    properties: tuple[str, ...]
    jobs: tuple[int, ...]
    drain_reason: str
    t_drain: float

    @property
    def up(self) -> bool:
        """May get new work: online and not drained."""
        return self.state in ("free", "allocated")


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources of an instance, as `flux resource list` divides them, each an RFC 20 `ResourceSet`.

        import fluxkv

        with fluxkv.connect() as instance:
            there = instance.resources()
            print(there.up.nnodes, "nodes up:", there.up.nodelist, "cores free:", there.free.ncores)
            print([node.host for node in there.nodes if node.drain_reason])

    all: everything. up: nodes that may get work; down: those that may not (offline or drained). drained: those that
    somebody drained. free: on nodes that are up, what no job holds. allocated: what jobs hold, on whatever nodes.
    nodes: one view each, by rank.
    """

    all: ResourceSet
    up: ResourceSet
    down: ResourceSet
    drained: ResourceSet
    free: ResourceSet
    allocated: ResourceSet
    nodes: tuple[NodeView, ...]


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue. enabled: takes submissions. started: its jobs are allocated. rules: what the config says of it, None if nothing."""

    name: str
    enabled: bool
    started: bool
    disable_reason: str
    stop_reason: str
    rules: QueueRules | None


def resources_of(state: State) -> Resources:
    """The resources of a state."""
    nodes = [state.nodes[rank] for rank in sorted(state.nodes)]
    up = [node for node in nodes if node.usable]
    return Resources(
        all=_whole(nodes),
        up=_whole(up),
        down=_whole(node for node in nodes if not node.usable),
        drained=_whole(node for node in nodes if node.drain is not None),
        free=_set(
            _record(node, node.cores & ~node.used_cores, node.gpus & ~node.used_gpus, node.memory_mb - node.used_memory_mb)
            for node in up
            if node.cores & ~node.used_cores
        ),
        allocated=_set(
            _record(node, node.used_cores, node.used_gpus, node.used_memory_mb)
            for node in nodes
            if node.used_cores or node.used_gpus or node.jobs
        ),
        nodes=tuple(map(node_view, nodes)),
    )


def node_view(node: Node) -> NodeView:
    """One node of a state."""
    return NodeView(
        node.rank, node.host, node.state,
        node.cores.bit_count(), node.gpus.bit_count(), node.memory_mb,
        (node.cores & ~node.used_cores).bit_count(), (node.gpus & ~node.used_gpus).bit_count(),
        node.memory_mb - node.used_memory_mb,
        node.properties, tuple(sorted(node.jobs)),
        str(node.drain[1]) if node.drain else "", float(node.drain[0]) if node.drain else 0.0,
    )  # fmt: skip


def queues_of(state: State) -> tuple[QueueView, ...]:
    """The queues of a state."""
    return tuple(
        QueueView(q.name, q.enabled, q.started, q.disable_reason, q.stop_reason, state.rules.of(q.name))
        for q in state.queues.values()
    )


def nodes_of_queues(state: State) -> dict[str, frozenset[int]]:
    """queue -> the ranks that its jobs may have. In a graph a property may be of what is above or inside of nodes."""
    found: dict[str, frozenset[int]] = {}
    pool: Pool | None = None
    for name, queue in state.rules.queues.items():
        own = state.rules.queues[queue.parent] if queue.parent else queue
        wanted = [f"+{own.name}"] if own.hosts else list(own.requires)
        if state.graph is None or not _beside_nodes(state.graph, wanted):
            found[name] = frozenset(rank for rank, node in state.nodes.items() if set(wanted) <= set(node.properties))
            continue
        from ..schedulers.request import compile_request
        from .plan_inputs import usable_pool

        pool = pool or usable_pool(state)[0]
        core = {"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 1}]}
        system = {"constraints": {"properties": wanted}}
        matching = pool.matching(compile_request({"resources": [core], "attributes": {"system": system}}))
        found[name] = frozenset(node.rank for at, node in enumerate(pool.nodes) if matching >> at & 1)
    return found


def _beside_nodes(graph: ResourceGraph, names: Iterable[str]) -> bool:
    """Is one of these a property of something else than a node?"""
    wanted, columns = set(names), graph.columns
    return any(columns.type(at) != "node" and not wanted.isdisjoint(own) for at, own in columns.properties.items())


def job_R(state: State, job: Job) -> ResourceSet | None:
    """What a job holds or held; None if nothing was allocated to it. A node that is gone has no name."""
    if not job.claims:
        return None
    nodes = {claim.rank: state.nodes[claim.rank] for claim in job.claims if claim.rank in state.nodes}
    hosts = {claim.rank: nodes[claim.rank].host if claim.rank in nodes else "" for claim in job.claims}
    properties = {rank: node.properties for rank, node in nodes.items()}
    found = allocated_set(job.claims, hosts, job.ntasks, job.t_alloc, job.expiration, properties)
    return found._replace(scheduling=scheduling_of(state, job.claims))


def scheduling_of(state: State, claims: Sequence[Claim]) -> dict[str, Any] | None:
    """What claims hold of the instance's graph, as JGF for R's `scheduling`; None where it has none of it."""
    if state.graph is None or not claims:
        return None
    from ..schedulers.tree.record import jgf_of_claims

    try:
        return jgf_of_claims(state.graph, claims)
    except Rejected as error:
        if error.code != "bad-graph":
            raise
        return None


def inventory_R(state: State) -> dict[str, Any] | None:
    """The instance's inventory as R (RFC 20), with its graph, if it has one, as JGF (RFC 40): another instance is made of it."""
    document = state.R
    if document is None or state.graph is None:
        return document
    from ..schedulers.tree.record import jgf_of

    return {**document, "scheduling": {**document.get("scheduling", {}), **jgf_of(state.graph)}}


def _whole(nodes: Iterable[Node]) -> ResourceSet:
    return _set(_record(node, node.cores, node.gpus, node.memory_mb) for node in nodes)


def _record(node: Node, cores: int, gpus: int, memory_mb: int) -> NodeRecord:
    return NodeRecord(node.rank, node.host, cores, gpus, memory_mb, tuple(sorted(node.properties)))


def _set(records: Iterable[NodeRecord]) -> ResourceSet:
    return ResourceSet(tuple(records))
