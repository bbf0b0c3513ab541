"""Another graph of resources made of one: a part of it, more of it, other properties. Pure; decides nothing about who may ask.

Each answer is a new `ResourceGraph`, checked as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..kvs.errors import Rejected
from .claims import MEMORY_UNITS, Claim
from .graph_checks import bad
from .resource_graph import CONTAINMENT, Columns, ResourceGraph, of_columns
from .rset import NodeRecord


class Kept(NamedTuple):
    """What stays of a vertex. ids: 0 where it is no pool of singles."""

    size: int
    ids: int
    rank: int


def total(graph: ResourceGraph) -> int:
    """How many vertices there are, those of pools of singles one by one."""
    return sum(place.ids.bit_count() or 1 for place in graph.places.values())


def part(graph: ResourceGraph, kept: Mapping[int, Kept]) -> ResourceGraph:
    """The graph of these positions. Edges between them stay where their subsystem's root leads to them; who is below no root any
    more goes, too. Raises `Rejected` where nothing is left."""
    columns = graph.columns
    edges: dict[str, tuple[list[int], list[int]]] = {}
    inside: set[int] = set()
    for name, (out, into) in columns.edges.items():
        below: dict[int, list[int]] = {}
        for parent, child in zip(out, into, strict=True):
            if parent in kept and child in kept:
                below.setdefault(parent, []).append(child)
        root = next(iter(set(out).difference(into)))
        reached: set[int] = set()
        stack = [root] if root in kept else []
        while stack:
            at = stack.pop()
            if at not in reached:
                reached.add(at)
                stack.extend(below.get(at, ()))
        if len(reached) > 1 or name == CONTAINMENT:
            inside |= reached
        stay = [(one, other) for one, other in zip(out, into, strict=True) if one in reached and other in kept]
        if stay:
            edges[name] = [one for one, _ in stay], [other for _, other in stay]
    positions = sorted(inside)
    new = {at: n for n, at in enumerate(positions)}
    if not positions:
        raise bad("graph", "nothing is left of it")
    return of_columns(Columns(
        columns.kinds, [columns.kind[at] for at in positions], [columns.id[at] for at in positions],
        [kept[at].size for at in positions], [kept[at].rank for at in positions],
        {new[at]: name for at, name in columns.names.items() if at in new},
        {new[at]: kept[at].ids for at in positions if kept[at].ids},
        {new[at]: found for at, found in columns.properties.items() if at in new},
        {new[at] for at in columns.down if at in new},
        {name: ([new[at] for at in out], [new[at] for at in into]) for name, (out, into) in edges.items()},
    ))  # fmt: skip


def whole(columns: Columns) -> dict[int, Kept]:
    """All of it."""
    return {at: Kept(size, columns.ids.get(at, 0), columns.rank[at]) for at, size in enumerate(columns.size)}


def without(graph: ResourceGraph, positions: Iterable[int]) -> ResourceGraph:
    """All but these and what is below them in containment. Raises `Rejected` where a root goes."""
    columns = graph.columns
    kept = whole(columns)
    for at in below(columns, positions):
        kept.pop(at, None)
    for name, (out, into) in columns.edges.items():
        root = next(iter(set(out).difference(into)))
        if root not in kept:
            why = f"{columns.name(root)} is the root of {name}, and stays"
            raise Rejected(why, code="bad-path", hint="remove what is below it")
    return part(graph, kept)


def below(columns: Columns, positions: Iterable[int]) -> set[int]:
    """These and all below them in containment."""
    children: dict[int, list[int]] = {}
    for parent, child in zip(*columns.edges.get(CONTAINMENT, ((), ())), strict=True):
        children.setdefault(parent, []).append(child)
    found: set[int] = set()
    stack = list(positions)
    while stack:
        at = stack.pop()
        if at not in found:
            found.add(at)
            stack.extend(children.get(at, ()))
    return found


def with_node(graph: ResourceGraph, record: NodeRecord) -> ResourceGraph:
    """One node more, below the root, with pools of its cores, GPUs and memory."""
    columns = graph.columns
    vertices: list[tuple[tuple[str, str, str], int, int, str, int]] = [(("node", "node", ""), record.rank, 1, record.host, 0)]
    for kind, mask in (("core", record.cores), ("gpu", record.gpus)):
        if mask:
            lowest = (mask & -mask).bit_length() - 1
            vertices.append(((kind, kind, ""), lowest, mask.bit_count(), kind, mask))
    if record.memory_mb:
        vertices.append((("memory", "memory", "MB"), 0, record.memory_mb, "memory", 0))
    kinds = list(dict.fromkeys([*columns.kinds, *(kind for kind, *_ in vertices)]))
    first = len(columns.kind)
    out, into = columns.edges.get(CONTAINMENT, ([], []))
    root = next(iter(set(out).difference(into))) if out else 0
    edges = {
        **columns.edges,
        CONTAINMENT: ([*out, root, *[first] * (len(vertices) - 1)], [*into, *range(first, first + len(vertices))]),
    }
    properties = {first: dict.fromkeys(_own(record.properties), "")} if _own(record.properties) else {}
    return of_columns(columns._replace(
        kinds=kinds, kind=[*columns.kind, *(kinds.index(kind) for kind, *_ in vertices)],
        id=[*columns.id, *(number for _, number, *_ in vertices)], size=[*columns.size, *(size for _, _, size, *_ in vertices)],
        rank=[*columns.rank, *[record.rank] * len(vertices)],
        names={**columns.names, **{first + n: name for n, (_, _, _, name, _) in enumerate(vertices)}},
        ids={**columns.ids, **{first + n: ids for n, (*_, ids) in enumerate(vertices) if ids}},
        properties={**columns.properties, **properties}, edges=edges,
    ))  # fmt: skip


def _own(properties: Iterable[str]) -> list[str]:
    return [name for name in properties if not name.startswith("+")]


def with_record(graph: ResourceGraph, rank: int, record: NodeRecord | None) -> ResourceGraph:
    """The graph in which a rank has this record, or is not there; as it was where it is so already."""
    found = graph.nodes().get(rank)
    here = (found.name, found.cores, found.gpus) if found is not None else None
    if record is None:
        return without(graph, [found.at]) if found is not None else graph
    if found is None:
        return with_node(graph, record)
    return graph if here == (record.host, record.cores, record.gpus) else _changed(graph, found.at, record)


def _changed(graph: ResourceGraph, at: int, record: NodeRecord) -> ResourceGraph:
    """A node with other cores, GPUs or name: its place and all else that is in it stay. What is new is right below it."""
    columns, kept = graph.columns, whole(graph.columns)
    missing = {"core": record.cores, "gpu": record.gpus}
    for place in graph.places.values():
        kind = columns.type(place.at)
        if place.node == record.rank and kind in missing:
            ids = place.ids & missing[kind]
            missing[kind] &= ~ids
            kept[place.at] = Kept(ids.bit_count(), ids, record.rank)
            if not ids:
                del kept[place.at]
    graph = part(graph, kept)
    columns, at = graph.columns, graph.nodes()[record.rank].at
    ids_of, size, edges = dict(columns.ids), list(columns.size), dict(columns.edges)
    right_below = {child for parent, child in zip(*edges.get(CONTAINMENT, ((), ())), strict=True) if parent == at}
    new: list[tuple[tuple[str, str, str], int]] = []
    for kind, mask in missing.items():
        pool = next((child for child in right_below if columns.type(child) == kind and columns.ids.get(child)), None)
        if mask and pool is not None:
            ids_of[pool] |= mask
            size[pool] = ids_of[pool].bit_count()
        elif mask:
            new.append(((kind, kind, ""), mask))
    first, numbers = len(columns.kind), [(mask & -mask).bit_length() - 1 for _, mask in new]
    kinds = list(dict.fromkeys([*columns.kinds, *(kind for kind, _ in new)]))
    out, into = edges.get(CONTAINMENT, ([], []))
    edges[CONTAINMENT] = [*out, *[at] * len(new)], [*into, *range(first, first + len(new))]
    return of_columns(columns._replace(
        kinds=kinds, kind=[*columns.kind, *(kinds.index(kind) for kind, _ in new)], id=[*columns.id, *numbers],
        size=[*size, *(mask.bit_count() for _, mask in new)], rank=[*columns.rank, *[record.rank] * len(new)],
        names={**columns.names, at: record.host, **{first + n: kind[0] for n, (kind, _) in enumerate(new)}},
        ids={**ids_of, **{first + n: mask for n, (_, mask) in enumerate(new)}}, edges=edges,
    ))  # fmt: skip


def merged(
    graph: ResourceGraph, more: ResourceGraph, under: str, ranks: Mapping[int, int]
) -> tuple[ResourceGraph, set[int]]:  # fmt: skip
    """What another graph has below its root, in each subsystem, below the vertex of a path; and the ranks of `more` that are new.

    A vertex whose path is there already is that one. ranks: of `more`, what they become where they are new. Raises `Rejected`.
    """
    if under not in graph.places:
        raise no_such_path(under)
    columns, other = graph.columns, more.columns
    here = _known(graph, more, under)
    fresh = [at for at in range(len(other.kind)) if at not in here]
    ranks = {**{other.rank[at]: columns.rank[ours] for at, ours in here.items() if other.type(at) == "node"}, **ranks}
    here.update((at, len(columns.kind) + n) for n, at in enumerate(fresh))
    kinds = list(dict.fromkeys([*columns.kinds, *other.kinds]))
    edges = {name: (list(out), list(into)) for name, (out, into) in columns.edges.items()}
    for name, (out, into) in other.edges.items():
        ours = edges.setdefault(name, ([], []))
        there = set(zip(*ours, strict=True))
        for parent, child in zip(out, into, strict=True):
            if (here[parent], here[child]) not in there:
                ours[0].append(here[parent])
                ours[1].append(here[child])
    return of_columns(columns._replace(
        kinds=kinds, kind=[*columns.kind, *(kinds.index(other.kinds[other.kind[at]]) for at in fresh)],
        id=[*columns.id, *(other.id[at] for at in fresh)], size=[*columns.size, *(other.size[at] for at in fresh)],
        rank=[*columns.rank, *(ranks.get(other.rank[at], -1) for at in fresh)],
        names={**columns.names, **{here[at]: other.names[at] for at in fresh if at in other.names}},
        ids={**columns.ids, **{here[at]: other.ids[at] for at in fresh if at in other.ids}},
        properties={**columns.properties, **{here[at]: other.properties[at] for at in fresh if at in other.properties}},
        down={*columns.down, *(here[at] for at in fresh if at in other.down)}, edges=edges,
    )), {other.rank[at] for at in fresh if other.type(at) == "node" and other.rank[at] >= 0}  # fmt: skip


def _known(graph: ResourceGraph, more: ResourceGraph, under: str) -> dict[int, int]:
    """Which vertices of another graph are there already: its position -> ours. Raises `Rejected` for one that is another thing."""
    columns, other = graph.columns, more.columns
    top = "/" + other.name(_root(other))
    here: dict[int, int] = {}
    for path, place in more.places.items():
        ours = graph.places.get(under + path[len(top) :] if path == top or path.startswith(top + "/") else path)
        if ours is None:
            continue
        same = other.type(place.at) == columns.type(ours.at) and (place.size, place.ids) == (ours.size, ours.ids)
        if not same and path != top:
            raise Rejected(
                f"{path} is there already, as {columns.type(ours.at)} of size {ours.size}", code="exists",
                hint="give what is attached another name, or remove what is there first",
            )  # fmt: skip
        here[place.at] = ours.at
    return here


def _root(columns: Columns) -> int:
    out, into = columns.edges.get(CONTAINMENT) or next(iter(columns.edges.values()), ([0], []))
    return next(iter(set(out).difference(into)))


def with_properties(
    graph: ResourceGraph, positions: Iterable[int], names: Mapping[str, str], gone: Sequence[str] = ()
) -> ResourceGraph:  # fmt: skip
    """These vertices have these properties, and those that are gone no more."""
    columns = graph.columns
    properties = dict(columns.properties)
    for at in positions:
        found = {name: value for name, value in {**properties.get(at, {}), **names}.items() if name not in gone}
        if found:
            properties[at] = found
        else:
            properties.pop(at, None)
    return of_columns(columns._replace(properties=properties))


def with_status(graph: ResourceGraph, positions: Iterable[int], *, up: bool) -> ResourceGraph:
    """These vertices, and so all below them, are in use for new jobs, or out of it."""
    down = graph.columns.down.difference(positions) if up else graph.columns.down.union(positions)
    return of_columns(graph.columns._replace(down=down))


def granted(
    graph: ResourceGraph, claims: Sequence[Claim], *, rerank: bool = False, ranks: Mapping[int, int] | None = None
) -> tuple[ResourceGraph, set[int]]:
    """What claims hold of it, in its containers: cores, GPUs, memory and draws; and at which positions of it these are.

    rerank: for a child instance: ranks are counted from 0, in the order of the claims' (RFC 20), or are those that `ranks` gives
    for the claims', and what is only passed through has nothing to hand out where it is a quantity (a switch's bandwidth).
    """
    columns = graph.columns
    wanted = {claim.rank: (claim, (ranks or {}).get(claim.rank, n) if rerank else claim.rank)
              for n, claim in enumerate(sorted(claims))}  # fmt: skip
    draws = {draw.vertex: draw for claim in claims for draw in claim.draws}
    memory = {claim.rank: claim.memory_mb for claim in claims}
    for draw in draws.values():
        place = graph.places.get(draw.vertex)
        if place is not None and columns.type(place.at) == "memory" and place.node in memory:
            memory[place.node] -= draw.units * MEMORY_UNITS[columns.kinds[columns.kind[place.at]][2] or "MB"]
    kept: dict[int, Kept] = {}
    for path, place in graph.places.items():
        kind, drawn = columns.type(place.at), draws.get(path)
        claim, rank = wanted.get(place.node, (None, -1))
        if drawn is not None:
            kept[place.at] = Kept(drawn.units, drawn.ids, rank)
        elif claim is None:
            continue
        elif kind in ("core", "gpu"):
            ids = place.ids & (claim.cores if kind == "core" else claim.gpus)
            if ids:
                kept[place.at] = Kept(ids.bit_count(), ids if columns.ids.get(place.at) else 0, rank)
        elif kind == "node":
            kept[place.at] = Kept(place.size, 0, rank)
        elif kind == "memory" and memory[place.node] > 0:
            units, memory[place.node] = _memory(columns.kinds[columns.kind[place.at]][2], place.size, memory[place.node])
            kept[place.at] = Kept(units, 0, rank)
    if not kept:
        raise bad("graph", "nothing of it is held")
    held = {at for at in kept if columns.type(at) != "node"}
    inside = _with_containers(columns, kept, {rank: n for rank, (_, n) in wanted.items()})
    if rerank:
        passed = {at: one._replace(size=0, ids=0) for at, one in inside.items() if at not in kept and one.size > 1}
        inside.update(passed)
    return part(graph, inside), {n for n, at in enumerate(sorted(inside)) if at in held}


def _memory(unit: str, size: int, wanted_mb: int) -> tuple[int, int]:
    """(units of a vertex of memory, what is to be found elsewhere)."""
    factor = MEMORY_UNITS[unit or "MB"]
    units = min(size, -(-wanted_mb // factor))
    return units, wanted_mb - units * factor


def _with_containers(columns: Columns, kept: dict[int, Kept], ranks: Mapping[int, int]) -> dict[int, Kept]:
    above: dict[int, list[int]] = {}
    for out, into in columns.edges.values():
        for parent, child in zip(out, into, strict=True):
            above.setdefault(child, []).append(parent)
    found = dict(kept)
    stack = list(kept)
    while stack:
        for parent in above.get(stack.pop(), ()):
            if parent not in found:
                found[parent] = Kept(columns.size[parent], columns.ids.get(parent, 0), ranks.get(columns.rank[parent], -1))
                stack.append(parent)
    return found


def position(graph: ResourceGraph, path: str) -> int:
    """Where the vertex of a path is. Raises `Rejected`."""
    place = graph.places.get(path)
    if place is None:
        raise no_such_path(path)
    return place.at


def no_such_path(path: str) -> Rejected:
    """Of a path that leads to no vertex."""
    return Rejected(f"no vertex is at {path}", code="no-such-path", hint="fluxkv resource show --tree shows what there is")
