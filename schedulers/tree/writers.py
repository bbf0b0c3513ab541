"""A selection as text: `simple pretty_simple jgf jgf_shorthand rlite rv1 rv1_nosched`.

Vertices come children first, siblings in the order of the graph's edges. Each text ends with a newline, or is "".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...journal import hostlist, idset
from .selection import Selection
from .vertices import Vertex, below, preorder

Sums = Callable[[Vertex], Mapping[str, str]]
Row = tuple[Vertex, int, bool, int, Vertex | None]  # vertex, units, exclusive, depth, the vertex above


def write(
    form: str, selection: Selection, subsystems: Sequence[str], start: int = 0, end: int = 0, sums: Sums | None = None
) -> str:  # fmt: skip
    """What was selected. start, end: seconds, for R. sums: what to show of a vertex's sums in JGF, {} for nothing."""
    rows = list(_rows(selection, subsystems))
    if not rows:
        return ""
    if form in ("simple", "pretty_simple"):
        pretty = form == "pretty_simple"
        lines = [_line(row, ("shared", "exclusive") if pretty else ("s", "x")) for row in rows]
        return "".join(reversed(lines) if pretty else lines)
    if form in ("jgf", "jgf_shorthand"):
        return json.dumps(_graph(rows, form == "jgf_shorthand", sums)) + "\n"
    lite = _lite(rows, subsystems[0])
    if form == "rlite":
        return json.dumps(lite) + "\n"
    execution = {"R_lite": lite, "nodelist": _nodelist(rows), **_properties(rows), "starttime": start, "expiration": end}
    R: dict[str, Any] = {"version": 1, "execution": execution}
    if form == "rv1":
        R["scheduling"] = _graph(rows, False, sums)
    return json.dumps(R) + "\n"


FORMATS = ("simple", "pretty_simple", "jgf", "jgf_shorthand", "rlite", "rv1", "rv1_nosched")


def _rows(selection: Selection, subsystems: Sequence[str]) -> Iterator[Row]:
    taken, edges = selection.taken, selection.edges
    if selection.root.ordinal not in taken:
        return
    seen: set[int] = set()
    stack: list[tuple[Vertex, int, Vertex | None, bool]] = [(selection.root, 0, None, False)]
    while stack:
        vertex, depth, above, leaving = stack.pop()
        if leaving:
            _, units, exclusive = taken[vertex.ordinal]
            yield vertex, units, exclusive, depth, above
        elif vertex.ordinal not in seen:
            seen.add(vertex.ordinal)
            stack.append((vertex, depth, above, True))
            wanted = edges.get(vertex.ordinal, ())
            children = [c for c in below(vertex, subsystems) if c.ordinal in wanted and c.ordinal in taken]
            stack.extend([(child, depth + 1, vertex, False) for child in reversed(children)])


def _line(row: Row, modes: tuple[str, str]) -> str:
    vertex, units, exclusive, depth, _ = row
    return f"      {'---' * (depth + 1)}{vertex.name}[{units}:{modes[exclusive]}]\n"


def _graph(rows: Sequence[Row], short: bool, sums: Sums | None) -> dict[str, Any]:
    inside: set[int] = set()
    if short:
        closed = {row[0].ordinal for row in rows if row[2]}
        for vertex, _, _, _, above in reversed(rows):
            if above is not None and above.ordinal in closed:
                inside.add(vertex.ordinal)
                closed.add(vertex.ordinal)
    nodes, edges = [], []
    for vertex, units, exclusive, _, above in rows:
        if vertex.ordinal in inside:
            continue
        nodes.append({"id": vertex.outer, "metadata": _metadata(vertex, units, exclusive, sums)})
        if above is not None:
            edges.append({"source": above.outer, "target": vertex.outer})
    return {"graph": {"nodes": nodes, "edges": edges}}


def _metadata(vertex: Vertex, units: int, exclusive: bool, sums: Sums | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"type": vertex.type}
    if vertex.basename != vertex.type:
        metadata["basename"] = vertex.basename
    if vertex.name != f"{vertex.basename}{vertex.id}":
        metadata["name"] = vertex.name
    metadata |= {"id": vertex.id, "rank": vertex.rank}
    if exclusive:
        metadata["exclusive"] = True
    if units != 1:
        metadata["size"] = units
    if vertex.properties:
        metadata["properties"] = dict(vertex.properties)
    metadata["paths"] = {subsystem: vertex.path(subsystem) for subsystem in vertex.parents}
    shown = sums(vertex) if sums is not None else {}
    if shown:
        metadata["agfilter"] = dict(shown)
    return metadata


def _lite(rows: Sequence[Row], subsystem: str) -> list[dict[str, Any]]:
    """R_lite: cores and GPUs by the rank of their node; ranks with equal children are one entry. What is taken without
    anything below it being named stands for all that is there."""
    inner = {row[4].ordinal for row in rows if row[4] is not None}
    above = {row[0].ordinal: row[4] for row in rows}
    children: dict[int, dict[str, int]] = {}
    for vertex, _, exclusive, _, _ in rows:
        if vertex.type == "node" and vertex.rank >= 0:
            children.setdefault(vertex.rank, {})
        if not exclusive or vertex.ordinal in inner:
            continue
        node: Vertex | None = vertex
        while node is not None and node.type != "node":
            node = above[node.ordinal]
        rank = node.rank if node is not None else vertex.rank
        for one in preorder(vertex, subsystem) if rank >= 0 else ():
            if one.type in ("core", "gpu") and one.id >= 0:
                masks = children.setdefault(rank, {})
                masks[one.type] = masks.get(one.type, 0) | 1 << one.id
    groups: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for rank in sorted(children):
        groups.setdefault(tuple(sorted(children[rank].items())), []).append(rank)
    return [
        {"rank": idset.format_ids(ranks), "children": {kind: idset.text_of(mask) for kind, mask in masks}}
        for masks, ranks in groups.items()
    ]


def _nodes(rows: Sequence[Row]) -> list[Vertex]:
    return sorted((row[0] for row in rows if row[0].type == "node"), key=lambda v: v.rank)


def _nodelist(rows: Sequence[Row]) -> list[str]:
    return [hostlist.compress([node.name for node in _nodes(rows)])]


def _properties(rows: Sequence[Row]) -> dict[str, Any]:
    ranks: dict[str, list[int]] = {}
    for node in _nodes(rows):
        for name in node.properties:
            if node.rank >= 0:
                ranks.setdefault(name, []).append(node.rank)
    if not ranks:
        return {}
    return {"properties": {name: idset.format_ids(ranks[name]) for name in sorted(ranks)}}
