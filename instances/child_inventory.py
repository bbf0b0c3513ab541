"""A child's inventory, as its first node begins with it: what the parent granted, ranks renumbered from 0. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..journal.claims import Claim
from ..journal.log import Journal
from ..journal.rset import NodeRecord, ResourceSet, parse_R, render_set
from ..kvs.errors import Rejected
from ..kvs.port import Store

if TYPE_CHECKING:
    from ..journal.resource_graph import ResourceGraph


def inventory(store: Store, uri: str, around: Mapping[str, Any], claims: Sequence[Claim]) -> dict[str, Any]:
    """R of what a job holds. store, uri: of the parent; around: its settings, {} where they are on another host."""
    first = _first_inventory(store, uri, around)
    nodes = {node.rank: node for node in _parent_nodes(store, first, {claim.rank for claim in claims})}
    graph = _parent_graph(store, first)
    records = []
    for rank, claim in enumerate(sorted(claims)):
        if (node := nodes.get(claim.rank)) is not None:  # else our parent has lost it since, and so have we
            kept = tuple(name for name in node.properties if not name.startswith("+"))
            records.append(NodeRecord(rank, node.host, claim.cores, claim.gpus, claim.memory_mb, kept))
    document = render_set(ResourceSet(tuple(records)))
    if graph is not None:
        _put_graph(document, graph, sorted(claims), records)
    return document


def _first_inventory(store: Store, uri: str, around: Mapping[str, Any]) -> ResourceSet | None:
    """What the parent began with, from its state directory; None where that is on another host, and where another inventory, other
    properties among it, may have taken its place since."""
    try:
        found = parse_R(around["R"]) if around.get("uri") == uri else None
    except (Rejected, KeyError):
        return None
    return found if found is not None and store.bumps(["resource"])[0] <= 1 else None


def _parent_nodes(store: Store, first: ResourceSet | None, ranks: set[int]) -> Any:
    """The parent's inventory."""
    if first is not None and ranks <= {node.rank for node in first.nodes}:  # it knows nothing of hosts that joined later
        return first.nodes
    return Journal(store).look().nodes.values()


def _parent_graph(store: Store, first: ResourceSet | None) -> ResourceGraph | None:
    """The parent's graph of resources, None if it has none. It is asked for only where it may have one."""
    if first is not None and first.tree is None:
        return None
    return Journal(store).look().graph


def _put_graph(
    document: dict[str, Any], graph: ResourceGraph, claims: Sequence[Claim], records: Sequence[NodeRecord]
) -> None:
    """Give the child what its job holds of the graph; nothing where the graph is another one by now, and has not got that."""
    from ..journal.graph_edit import granted as granted_part
    from ..journal.resource_graph import graph_of

    try:
        ranks = {claims[record.rank].rank: record.rank for record in records}
        held = [claim for claim in claims if claim.rank in ranks]
        part, _ = granted_part(graph, held, rerank=True, ranks=ranks)
        graph_of(parse_R(document)._replace(tree=part.wire))
    except Rejected:
        return
    document["scheduling"] = {"writer": "fluxkv", "memory_mb": {}, **document.get("scheduling", {}), "tree": part.wire}
