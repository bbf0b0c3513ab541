"""Trees as the columns that events and snapshots keep, and back; and as JGF (RFC 40) for whoever asks for R.

What is written is the tree itself: vertices in its order, edges in theirs. Ordinals are counted anew, spans and sums are not kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...journal.claims import Claim
from ...journal.graph_edit import granted
from ...journal.idset import ids_of_mask
from ...journal.resource_graph import CONTAINMENT, Columns, ResourceGraph, of_columns, paths_of
from ..graph import WRITER
from .vertices import Tree, Vertex


def to_record(tree: Tree) -> ResourceGraph:
    """The record of a tree. Raises `Rejected` (code bad-graph) for one that is not to be kept: see `resource_graph`."""
    at = {vertex.ordinal: position for position, vertex in enumerate(tree.vertices)}
    kinds: dict[tuple[str, str, str], int] = {}
    kind = [kinds.setdefault((v.type, v.basename, v.unit), len(kinds)) for v in tree.vertices]
    vertices = tree.vertices
    return of_columns(Columns(
        list(kinds), kind, [max(-1, v.id) for v in vertices], [v.size for v in vertices], [v.rank for v in vertices],
        {n: v.name for n, v in enumerate(vertices) if v.name != f"{v.basename}{max(-1, v.id)}"},
        {n: v.ids for n, v in enumerate(vertices) if v.ids},
        {n: dict(v.properties) for n, v in enumerate(vertices) if v.properties},
        {n for n, v in enumerate(vertices) if not v.up},
        {name: edges for name in tree.roots if (edges := _edges(tree, name, at))[0]},
    ))  # fmt: skip


def _edges(tree: Tree, subsystem: str, at: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """Vertex by vertex, in the order of its children; an edge to a child of several waits for those of the parents before."""
    out: list[int] = []
    into: list[int] = []
    turn: dict[int, int] = {}  # child -> how many of its parents are written
    done: dict[int, int] = {}  # parent -> how many of its children are
    for vertex in tree.vertices:
        stack = [vertex]
        while stack:
            parent = stack.pop()
            children = parent.children.get(subsystem, ())
            for child in children[done.get(parent.ordinal, 0) :]:
                above = child.parents[subsystem]
                number = turn.get(child.ordinal, 0)
                if above[number] is not parent:
                    break
                turn[child.ordinal] = number + 1
                done[parent.ordinal] = done.get(parent.ordinal, 0) + 1
                out.append(at[parent.ordinal])
                into.append(at[child.ordinal])
                if number + 1 < len(above):
                    stack.append(above[number + 1])
    return out, into


def to_tree(record: ResourceGraph) -> Tree:
    """The tree of a record: the inverse of `to_record`."""
    columns = record.columns
    tree = Tree()
    none: dict[str, str] = {}
    for n, number in enumerate(columns.id):
        kind, basename, unit = columns.kinds[columns.kind[n]]
        vertex = Vertex(
            kind, basename, number, name=columns.names.get(n), size=columns.size[n], unit=unit, rank=columns.rank[n],
            properties=columns.properties.get(n, none), ids=columns.ids.get(n, 0),
        )  # fmt: skip
        vertex.up = n not in columns.down
        tree.add(vertex)
    made = tree.vertices
    if not columns.edges:
        tree.root(made[0], CONTAINMENT)
    for name, (out, into) in columns.edges.items():
        tree.root(made[next(iter(set(out).difference(into)))], name)
        for parent, child in zip(out, into, strict=True):
            tree.link(made[parent], made[child], name)
    return tree.compile()


# -- JGF -----------------------------------------------------------------------------------------------------------


def jgf_of(record: ResourceGraph, exclusive: Collection[int] = ()) -> dict[str, Any]:
    """R's `scheduling` (RFC 20, 40). exclusive: positions to be marked so.

    Each resource of a pool with ids is a vertex of its own, which is all other readers know.
    """
    columns = record.columns
    where = {name: paths_of(columns, name) for name in columns.edges} or {CONTAINMENT: paths_of(columns)}
    nodes: list[dict[str, Any]] = []
    stands_for: list[list[str]] = []
    for n, size in enumerate(columns.size):
        ids = columns.ids.get(n, 0)
        paths = {name: found[n][0] for name, found in where.items() if n in found}
        outers = []
        for number in ids_of_mask(ids) if ids and columns.name(n) != _single(columns, n, columns.id[n]) else (None,):
            outers.append(str(len(nodes)))
            nodes.append(_vertex(columns, n, len(nodes), number, size if number is None else 1, paths, n in exclusive))
        stands_for.append(outers)
    edges = [
        {"source": one, "target": other, "metadata": {"subsystem": name, "relationship": "contains"}}
        for name, (out, into) in columns.edges.items()
        for parent, child in zip(out, into, strict=True)
        for one in stands_for[parent]
        for other in stands_for[child]
    ]
    return {"writer": WRITER, "graph": {"nodes": nodes, "edges": edges}}


def jgf_of_claims(record: ResourceGraph, claims: Sequence[Claim]) -> dict[str, Any]:
    """What claims hold, in its containers; what is held is exclusive."""
    found, held = granted(record, claims)
    return jgf_of(found, held)


def _single(columns: Columns, n: int, number: int) -> str:
    return f"{columns.kinds[columns.kind[n]][1]}{number}"


def _vertex(
    columns: Columns, n: int, outer: int, number: int | None, size: int, paths: Mapping[str, str], exclusive: bool
) -> dict[str, Any]:  # fmt: skip
    kind, basename, unit = columns.kinds[columns.kind[n]]
    name = columns.name(n) if number is None else _single(columns, n, number)
    return {
        "id": str(outer),
        "metadata": {
            "type": kind, "basename": basename, "name": name, "id": columns.id[n] if number is None else number, "uniq_id": outer,
            "rank": columns.rank[n], "exclusive": exclusive, "unit": unit, "size": size,
            "properties": dict(columns.properties.get(n, {})),
            "paths": {sub: f"{path.rpartition('/')[0]}/{name}" for sub, path in paths.items()},
        },
    }  # fmt: skip
