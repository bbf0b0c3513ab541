"""The model of resources: a directed multigraph of typed vertices (RFC 4), and its text form JGF (RFC 40).

A vertex is a pool: its data are `type, basename, name, id, properties, size, unit, rank, exclusive, uuid,
extra`, and `ids` (an RFC 22 idset) where a pool of `size` > 1 stands for single resources with ids. An edge's
key is its subsystem ("containment", "power", ...), its data `relationship`. networkx is loaded only when a
graph is made: the matcher never needs one, it is compiled straight from an inventory, and `inventory_of`
gives the same inventory back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..journal.claims import MEMORY_UNITS
from ..journal.idset import ids_of_mask, mask_of, text_of
from ..journal.rset import NodeRecord
from ..kvs.errors import Rejected
from .resources import Node

if TYPE_CHECKING:
    from networkx import MultiDiGraph  # type: ignore[import-untyped,unused-ignore]

CONTAINMENT = "containment"
WRITER = "fluxkv:jgf"

_TRAILING_NUMBER = re.compile(r"[0-9]{1,18}$")
_FIELDS: dict[str, type] = {
    "basename": str, "exclusive": bool, "id": int, "ids": str, "name": str, "properties": Mapping,
    "rank": int, "size": int, "uniq_id": int, "unit": str, "uuid": str,
}  # fmt: skip
_KNOWN = frozenset({"type", "paths", *_FIELDS})


def _is_number(text: str) -> bool:
    """Whether an id is one that counts as a number; thousands of digits are a name like any other."""
    return text.isascii() and text.isdigit() and len(text) < 19


def new_graph() -> MultiDiGraph:
    """An empty graph."""
    import networkx

    return networkx.MultiDiGraph()


def from_inventory(nodes: Iterable[Node], cluster_name: str = "cluster0") -> MultiDiGraph:
    """cluster > node > pools of core, gpu and memory. Vertices are named "0", "1", ... in preorder."""
    graph = new_graph()
    _add(graph, None, type="cluster", name=cluster_name, rank=-1)
    for node in sorted(nodes, key=lambda n: n.rank):
        properties = dict.fromkeys(sorted(node.properties), "")
        here = _add(graph, "0", type="node", name=node.host, rank=node.rank, properties=properties)
        for kind, mask in (("core", node.cores), ("gpu", node.gpus)):
            if mask:
                size = mask.bit_count()
                _add(graph, here, type=kind, name=kind, rank=node.rank, size=size, ids=text_of(mask))
        if node.memory_mb:
            _add(graph, here, type="memory", name="memory", rank=node.rank, size=node.memory_mb, unit="MB")
    return graph


def _add(graph: MultiDiGraph, parent: str | None, **data: Any) -> str:
    """One more vertex, contained in `parent`; what is not given has RFC 40's defaults. Its id."""
    outer = str(len(graph))
    graph.add_node(outer, **_vertex(outer, len(graph), data))
    if parent is not None:
        graph.add_edge(parent, outer, key=CONTAINMENT, relationship="contains")
    return outer


def _vertex(outer: str, ordinal: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """All data of a vertex. Its id is the number at the end of its name; without a name, its unique id."""
    kind = given["type"]
    uniq_id = given.get("uniq_id", int(outer) if _is_number(outer) else ordinal)
    name, number = given.get("name"), given.get("id")
    found = _TRAILING_NUMBER.search(name) if name else None
    if number is None:
        number = int(found.group()) if found else -1 if name else uniq_id
    basename = given.get("basename")
    if basename is None:
        basename = kind
    return {
        "type": kind,
        "basename": basename,
        "name": name if name is not None else f"{basename}{number}",
        "id": number,
        "properties": given.get("properties") or {},
        "size": given.get("size", 1),
        "unit": given.get("unit", ""),
        "rank": given.get("rank", -1),
        "exclusive": given.get("exclusive", False),
        "uuid": given.get("uuid", outer),
        "uniq_id": uniq_id,
        "ids": given.get("ids", ""),
        "extra": {key: value for key, value in given.items() if key not in _KNOWN},
    }


def children(graph: MultiDiGraph, outer: str, subsystem: str = CONTAINMENT) -> Iterator[str]:
    """The vertices right below one, in a subsystem, in the order they were added."""
    for _, below, key, relationship in graph.out_edges(outer, keys=True, data="relationship"):
        if key == subsystem and relationship != "in":  # some writers also give the way back up
            yield below


def below(graph: MultiDiGraph, outer: str, subsystem: str = CONTAINMENT) -> Iterator[str]:
    """All vertices below one, in preorder; each once, though a subsystem may join again further down."""
    seen = {outer}
    stack = list(children(graph, outer, subsystem))[::-1]
    while stack:
        vertex = stack.pop()
        if vertex not in seen:
            seen.add(vertex)
            yield vertex
            stack.extend(list(children(graph, vertex, subsystem))[::-1])


def to_jgf(graph: MultiDiGraph, *, expand: bool = True) -> dict[str, Any]:
    """`{"writer": ..., "graph": {"nodes": [...], "edges": [...]}}`, with the keys of RFC 40 and those of its
    readers.

    expand: write each resource of a pool with ids as a vertex of its own, which is all other readers know.
    """
    paths = _paths(graph)
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    fresh = max((int(v) for v in graph if _is_number(v)), default=-1) + 1
    stands_for: dict[str, list[str]] = {}
    for outer, data in graph.nodes(data=True):
        singles = ids_of_mask(mask_of(data["ids"])) if expand and data["ids"] else ()
        if not singles:
            stands_for[outer] = [outer]
            nodes.append(_jgf_vertex(outer, data, paths.get(outer, {})))
            continue
        stands_for[outer] = []
        for n, single in enumerate(singles):
            name = outer if n == 0 else str(fresh)
            fresh += n > 0
            own = dict(data, name=f"{data['basename']}{single}", id=single, size=1, ids="", uuid=name)
            own["uniq_id"] = int(name) if _is_number(name) else data["uniq_id"]
            where = {
                s: f"{path.rpartition('/')[0]}/{own['name']}" for s, path in paths.get(outer, {}).items()
            }
            stands_for[outer].append(name)
            nodes.append(_jgf_vertex(name, own, where))
    for source, target, subsystem, relationship in graph.edges(keys=True, data="relationship"):
        metadata = {"subsystem": subsystem, "relationship": relationship}
        for one in stands_for[source]:
            for other in stands_for[target]:
                edges.append({"source": one, "target": other, "metadata": dict(metadata)})
    return {"writer": WRITER, "graph": {"nodes": nodes, "edges": edges}}


def _jgf_vertex(outer: str, data: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    metadata = {key: value for key, value in data.items() if key not in ("extra", "ids")}
    if data["ids"]:
        metadata["ids"] = data["ids"]
    return {"id": outer, "metadata": {**data["extra"], **metadata, "paths": dict(paths)}}


def _paths(graph: MultiDiGraph) -> dict[str, dict[str, str]]:
    """Per vertex, per subsystem it is in: its path from the root ("/cluster0/node0"), by its first parent."""
    subsystems: dict[str, set[str]] = {}
    inner: dict[str, set[str]] = {}
    for source, target, key, relationship in graph.edges(keys=True, data="relationship"):
        if relationship != "in":
            subsystems.setdefault(key, set()).update((source, target))
            inner.setdefault(key, set()).add(target)
    paths: dict[str, dict[str, str]] = {}
    for subsystem in sorted(subsystems):
        stack = [(v, "") for v in graph if v in subsystems[subsystem] and v not in inner[subsystem]][::-1]
        while stack:
            vertex, prefix = stack.pop()
            own = paths.setdefault(vertex, {})
            if subsystem not in own:
                own[subsystem] = path = f"{prefix}/{graph.nodes[vertex]['name']}"
                stack.extend([(child, path) for child in children(graph, vertex, subsystem)][::-1])
    for vertex in graph:
        if vertex not in paths:
            paths[vertex] = {CONTAINMENT: f"/{graph.nodes[vertex]['name']}"}
    return paths


def from_jgf(doc: Mapping[str, Any]) -> MultiDiGraph:
    """The graph of a JGF document: `{"graph": {...}}`, with or without a writer, in RFC 40's form or its
    readers'.

    Unknown metadata is kept in `extra`. Raises Rejected (code "bad-jgf") with the path to the fault.
    """
    graph = new_graph()
    nodes, edges = read_jgf(doc)
    for outer, data in nodes:
        del data["paths"]
        graph.add_node(outer, **data)
    for source, target, subsystem, relationship in edges:
        graph.add_edge(source, target, key=subsystem, relationship=relationship)
    return graph


def read_jgf(
    doc: Mapping[str, Any],
) -> tuple[list[tuple[str, dict[str, Any]]], list[tuple[str, str, str, str]]]:
    """What a JGF document says: `(id, data)` of each vertex, with its `paths` as given, and
    `(source, target, subsystem, relationship)` of each edge. Raises Rejected (code "bad-jgf") with the path to the fault.
    """
    body = doc.get("graph", doc) if isinstance(doc, Mapping) else None
    if not isinstance(body, Mapping):
        raise _bad("graph", "must be an object")
    for key in ("nodes", "edges"):
        if not isinstance(body.get(key), list):
            raise _bad(f"graph.{key}", "must be there and be a list")
    nodes: dict[str, dict[str, Any]] = {}
    for i, vertex in enumerate(body["nodes"]):
        outer, metadata = _checked_vertex(vertex, f"graph.nodes[{i}]")
        if outer in nodes:
            raise _bad(f"graph.nodes[{i}].id", f"{outer!r} is there twice")
        nodes[outer] = {**_vertex(outer, i, metadata), "paths": metadata.get("paths")}
    return list(nodes.items()), [_checked_edge(edge, f"graph.edges[{i}]", nodes) for i, edge in enumerate(body["edges"])]


def _checked_edge(edge: object, path: str, nodes: Mapping[str, Any]) -> tuple[str, str, str, str]:
    if not isinstance(edge, Mapping):
        raise _bad(path, "must be an object")
    for end in ("source", "target"):
        if not isinstance(edge.get(end), str) or edge[end] not in nodes:
            raise _bad(f"{path}.{end}", f"names no vertex: {edge.get(end)!r}")
    metadata = edge.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise _bad(f"{path}.metadata", "must be an object")
    subsystem = metadata.get("subsystem", CONTAINMENT)
    relationship = metadata.get("relationship", "contains")
    if not isinstance(subsystem, str) or not isinstance(relationship, str):
        raise _bad(f"{path}.metadata", "has a subsystem or relationship that is not a string")
    return edge["source"], edge["target"], subsystem, relationship


def _checked_vertex(vertex: object, path: str) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(vertex, Mapping):
        raise _bad(path, "must be an object")
    outer = vertex.get("id")
    if not isinstance(outer, str) or not outer:
        raise _bad(f"{path}.id", "must be there and be a string")
    metadata = vertex.get("metadata")
    if not isinstance(metadata, Mapping):
        raise _bad(f"{path}.metadata", "must be there and be an object")
    if not isinstance(metadata.get("type"), str) or not metadata["type"]:
        raise _bad(f"{path}.metadata.type", "must be there and be a string")
    for key, kind in _FIELDS.items():
        value = metadata.get(key)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise _bad(f"{path}.metadata.{key}", f"must not be {value!r}")
    if (metadata.get("size") or 0) < 0:
        raise _bad(f"{path}.metadata.size", "must not be negative")
    return outer, {key: value for key, value in metadata.items() if value is not None}


def inventory_of(graph: MultiDiGraph) -> tuple[NodeRecord, ...]:
    """The nodes of the graph, by rank, with the cores, gpus and memory contained in each at any depth.

    Ranks are the vertices'; where no node has one they are counted from 0 in the graph's order. Raises
    Rejected.
    """
    found = [(outer, data) for outer, data in graph.nodes(data=True) if data["type"] == "node"]
    ranked = [data["rank"] for _, data in found if data["rank"] >= 0]
    if ranked and len(ranked) < len(found):
        raise _bad("graph", "some nodes have a rank and some have none")
    if len(set(ranked)) < len(ranked):
        raise _bad("graph", "two nodes have the same rank")
    records = [
        _record(graph, outer, data, data["rank"] if ranked else i) for i, (outer, data) in enumerate(found)
    ]
    return tuple(sorted(records))


def _record(graph: MultiDiGraph, outer: str, data: Mapping[str, Any], rank: int) -> NodeRecord:
    held = {"core": 0, "gpu": 0}
    memory_mb = 0
    for vertex in below(graph, outer):
        part = graph.nodes[vertex]
        kind = part["type"]
        if kind in held:
            mask = mask_of(part["ids"]) if part["ids"] else 1 << part["id"] if part["id"] >= 0 else 0
            if mask.bit_count() != part["size"] or mask & held[kind]:
                why = f"has {kind} vertex {vertex!r} whose ids are missing or there twice"
                raise _bad(f"node {data['name']!r}", why)
            held[kind] |= mask
        elif kind == "memory":
            factor = MEMORY_UNITS.get(part["unit"])
            if factor is None:
                raise _bad(f"node {data['name']!r}", f"has memory in {part['unit']!r}, not in MB or GB")
            memory_mb += part["size"] * factor
    properties = tuple(sorted(data["properties"]))
    return NodeRecord(rank, data["name"], held["core"], held["gpu"], memory_mb, properties)


def _bad(path: str, why: str) -> Rejected:
    return Rejected(f"JGF: {path} {why}", code="bad-jgf", hint="RFC 40 describes the form")
