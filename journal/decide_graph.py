"""Changes of the graph of resources that people ask for: more of it, less, properties, status. Pure.

Each is another inventory (RFC 44's `resource-define`, with a method of its own), so it is guarded, refused and folded as `reload`
is, and what is in use is never taken away. Of the graph its event has what changes (`graph_events`), not the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..kvs.errors import Rejected
from . import graph_edit, graph_events
from .decide import Decision
from .decide_inventory import GRAPH_OF, reload
from .graph_edit import no_such_path
from .graph_events import Edit, edited
from .node import Node
from .resource_graph import Place, ResourceGraph, graph_of
from .rset import NodeRecord, ResourceSet, check_property
from .state import State

Answer = tuple[Decision, list[str]]  # and what it changes, in words


def attach(state: State, more: ResourceSet, under: str, now: float) -> Answer:
    """What another inventory's graph has, below the vertex of a path ("": the root); new nodes get ranks that nobody has.

    Raises `Rejected`: no graph here or there, no such path, or another thing of that path.
    """
    graph, found = _graph(state), graph_of(more)
    if found is None:
        raise Rejected("what is to be attached has no graph", code="no-graph", hint="give JGF, GraphML or hwloc's XML")
    first = 1 + max(state.nodes, default=-1)
    _, new = graph_edit.merged(graph, found, under or _root(graph), {})
    ranks = {rank: first + n for n, rank in enumerate(sorted(new))}
    edit = graph_events.attached(found.wire, under or _root(graph), ranks)
    merged = edited(graph, edit)
    fresh = [node._replace(rank=ranks[node.rank]) for node in more.nodes if node.rank in ranks]
    more_of_it = f"{_many(graph_edit.total(merged) - graph_edit.total(graph))} more"
    return _define(state, merged, edit, [*_records(state), *fresh], now, "attach", more_of_it)


def remove(state: State, paths: Iterable[str], now: float) -> Answer:
    """The graph without these vertices and what is below them, nodes included. Raises `Rejected`: what is in use stays."""
    graph, edit = _graph(state), graph_events.removed(paths)
    left = edited(graph, edit)
    ranks = left.nodes().keys()
    records = [record for record in _records(state) if record.rank in ranks]
    if not records:
        raise Rejected("the last node of an instance stays", code="in-use", hint="fluxkv stop ends the instance")
    return _define(state, left, edit, records, now, "remove", f"{_many(graph_edit.total(graph) - graph_edit.total(left))} fewer")


def properties(
    state: State, paths: Sequence[str], ranks: Iterable[int], names: Mapping[str, str], gone: Sequence[str], now: float
) -> Answer:  # fmt: skip
    """Properties of vertices (paths) and of nodes (ranks), set and taken away. A node's are those of RFC 31's constraints.

    Raises `Rejected` for names that are none, or that belong to queues.
    """
    for name in (*names, *gone):
        check_property(name)
        if name.startswith("+"):
            raise Rejected(f"{name} says which queue a node belongs to", code="bad-property", hint="the config's queues say that")
    graph, wanted, edit = state.graph, set(ranks), None
    for path in paths:
        place = _place(_graph(state), path)
        if place.node >= 0 and _graph(state).columns.type(place.at) == "node":
            wanted.add(place.node)
    if graph is not None:
        edit = graph_events.named(paths, wanted, names, gone)
        graph = edited(graph, edit)
    records = []
    for record in _records(state):
        if record.rank in wanted:
            kept = {*record.properties, *names}.difference(gone)
            record = record._replace(properties=tuple(sorted(kept)))
        records.append(record)
    return _define(state, graph, edit, records, now, "property", f"properties of {', '.join(paths)}" if paths else "")


def status(state: State, paths: Sequence[str], *, up: bool, now: float) -> Answer:
    """Vertices, and so all below them, out of use for new jobs, or back. Raises `Rejected`."""
    graph, edit = _graph(state), graph_events.put(paths, up)
    what = f"{', '.join(paths)} {'is' if len(paths) == 1 else 'are'} set {'up' if up else 'down'}"
    return _define(state, edited(graph, edit), edit, _records(state), now, "status", what)


def _define(
    state: State, graph: ResourceGraph | None, edit: Edit | None, records: Sequence[NodeRecord], now: float, method: str, what: str
) -> Answer:  # fmt: skip
    """what: is said of the graph, "" where what is said of nodes says all."""
    if graph is not None and state.graph is not None:
        records = _in_graph(records, state.graph, graph)
    tree = graph.wire if graph is not None else None
    decision, words = reload(state, ResourceSet(tuple(sorted(records)), expiration=state.expiration, tree=tree), now, method, edit)
    return decision, [said for word in words if (said := what if word.startswith(GRAPH_OF) else word)]


def _in_graph(records: Sequence[NodeRecord], before: ResourceGraph, after: ResourceGraph) -> list[NodeRecord]:
    """Nodes with the cores, GPUs and memory that another graph has of them; memory that no graph speaks of stays."""
    old, new = before.nodes(), after.nodes()
    found = []
    for record in records:
        had, has = old.get(record.rank), new[record.rank]
        more = has.memory_mb - had.memory_mb if had is not None else 0
        found.append(record._replace(cores=has.cores, gpus=has.gpus, memory_mb=max(0, record.memory_mb + more)))
    return found


def _records(state: State) -> list[NodeRecord]:
    return [_record(node) for node in state.nodes.values()]


def _record(node: Node) -> NodeRecord:
    own = tuple(name for name in node.properties if not name.startswith("+"))
    return NodeRecord(node.rank, node.host, node.cores, node.gpus, node.memory_mb, own)


def _graph(state: State) -> ResourceGraph:
    if state.graph is None:
        raise Rejected("this instance has no graph of resources", code="no-graph", hint="fluxkv resource reload FILE gives it one")
    return state.graph


def _many(n: int) -> str:
    return f"{n:,} {'vertex' if n == 1 else 'vertices'}"


def _root(graph: ResourceGraph) -> str:
    return next(iter(graph.places))


def _place(graph: ResourceGraph, path: str) -> Place:
    place = graph.places.get(path)
    if place is None:
        raise no_such_path(path)
    return place
