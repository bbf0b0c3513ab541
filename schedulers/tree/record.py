"""Trees as the columns that events and snapshots keep, and back; and as JGF (RFC 40) for whoever asks for R.

What is written is the tree itself: vertices in its order, edges in theirs. Ordinals are counted anew, spans and sums are not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...journal.claims import Claim
from ...journal.idset import ids_of_mask
from ...journal.resource_graph import CONTAINMENT, Columns, ResourceGraph, of_columns, paths_of
from ..graph import WRITER
from ..request import MEMORY_UNITS
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


def jgf_of(record: ResourceGraph, claims: Iterable[Claim] | None = None) -> dict[str, Any]:
    """R's `scheduling` (RFC 20, 40): all of a graph, or what these claims hold of it, in the containers that it is in.

    Each resource of a pool with ids is a vertex of its own, which is all other readers know.
    """
    columns = record.columns
    held = None if claims is None else _held(record, claims)
    inside = None if held is None else _with_containers(columns, held)
    where = {name: paths_of(columns, name) for name in columns.edges} or {CONTAINMENT: paths_of(columns)}
    nodes: list[dict[str, Any]] = []
    stands_for: dict[int, list[str]] = {}
    for n in range(len(columns.id)):
        if inside is not None and n not in inside:
            continue
        whole = columns.size[n], columns.ids.get(n, 0)
        units, ids = whole if held is None else held.get(n, whole)
        basename, pool = columns.kinds[columns.kind[n]][1], whole[1].bit_count() > 1
        taken = held is not None and n in held
        paths = {name: found[n][0] for name, found in where.items() if n in found}
        stands_for[n] = []
        for number in ids_of_mask(ids) if pool else (None,):
            own = columns.name(n) if number is None else f"{basename}{number}"
            stands_for[n].append(str(len(nodes)))
            nodes.append(_vertex(columns, n, len(nodes), own, number, units if number is None else 1, paths, taken))
    edges = [
        {"source": one, "target": other, "metadata": {"subsystem": name, "relationship": "contains"}}
        for name, (out, into) in columns.edges.items()
        for parent, child in zip(out, into, strict=True)
        if parent in stands_for and child in stands_for
        for one in stands_for[parent]
        for other in stands_for[child]
    ]
    return {"writer": WRITER, "graph": {"nodes": nodes, "edges": edges}}


def _vertex(
    columns: Columns, n: int, outer: int, name: str, number: int | None, size: int, paths: Mapping[str, str], exclusive: bool
) -> dict[str, Any]:  # fmt: skip
    kind, basename, unit = columns.kinds[columns.kind[n]]
    return {
        "id": str(outer),
        "metadata": {
            "type": kind, "basename": basename, "name": name, "id": columns.id[n] if number is None else number, "uniq_id": outer,
            "rank": columns.rank[n], "exclusive": exclusive, "unit": unit, "size": size,
            "properties": dict(columns.properties.get(n, {})),
            "paths": {sub: f"{path.rpartition('/')[0]}/{name}" for sub, path in paths.items()},
        },
    }  # fmt: skip


def _held(record: ResourceGraph, claims: Iterable[Claim]) -> dict[int, tuple[int, int]]:
    """position -> (units, ids) of what claims hold: cores, GPUs, memory and draws."""
    columns, found = record.columns, dict[int, tuple[int, int]]()
    wanted = {claim.rank: claim for claim in claims}
    memory = {rank: claim.memory_mb for rank, claim in wanted.items()}
    for claim in wanted.values():
        for draw in claim.draws:
            place = record.places.get(draw.vertex)
            if place is not None:
                found[place.at] = (draw.units, draw.ids)
    for place in record.places.values():
        if place.node not in wanted or place.at in found:
            continue
        claim = wanted[place.node]
        kind = columns.type(place.at)
        ids = place.ids & (claim.cores if kind == "core" else claim.gpus if kind == "gpu" else 0)
        if ids:
            found[place.at] = (ids.bit_count(), ids)
        elif kind == "memory" and memory[place.node] > 0:
            factor = MEMORY_UNITS.get(columns.kinds[columns.kind[place.at]][2] or "MB", 1)
            units = min(place.size, -(-memory[place.node] // factor))
            memory[place.node] -= units * factor
            found[place.at] = (units, 0)
        elif kind == "node":
            found.setdefault(place.at, (1, 0))
    return found


def _with_containers(columns: Columns, held: Iterable[int]) -> set[int]:
    """These positions and all above them, in every subsystem."""
    above: dict[int, list[int]] = {}
    for out, into in columns.edges.values():
        for parent, child in zip(out, into, strict=True):
            above.setdefault(child, []).append(parent)
    inside: set[int] = set()
    stack = list(held)
    while stack:
        n = stack.pop()
        if n not in inside:
            inside.add(n)
            stack.extend(above.get(n, ()))
    return inside
