"""Trees in which equal resources side by side are one vertex, and what the nodes of a tree have: what a live instance matches on.

Decides which resources are told apart by a mask of ids rather than by vertices of their own, and which ids the cores and GPUs of
a node have: those are the bits of a job's claims. What a match costs does not grow with the number of equal leaves then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...journal.claims import MEMORY_UNITS
from ...journal.graph_checks import MOST
from ...journal.idset import MAX_ID
from ...journal.rset import NodeRecord
from .vertices import CONTAINMENT, Tree, Vertex, fault, preorder

CLAIMED = ("core", "gpu")


def compact(tree: Tree) -> Tree:
    """A new tree in which leaves with the same parents, type, size, unit, properties and rank are one pool, at the place of the
    first; sub-systems, order and roots are as they were. Raises Rejected (code "bad-graph").

    Singles become a vertex with `ids`, named as they are without their numbers; memory becomes one quantity; other vertices of
    several units are quantities already, each by itself. What is below a core or a GPU (hardware threads) is not handed out by
    itself and is left out. Cores and GPUs of a node have ids of their own in it: their numbers, or, where these are missing or
    there twice, new ones in the order of the graph.
    """
    _check(tree)
    dropped = _below_claimed(tree)
    vertices = [vertex for vertex in tree.vertices if vertex.ordinal not in dropped]
    ids = _numbered(tree, dropped)
    groups: dict[object, list[Vertex]] = {}
    for vertex in vertices:
        groups.setdefault(_kind(vertex, dropped, ids), []).append(vertex)
    for key, group in list(groups.items()):
        if len(group) > 1 and not _poolable(group, ids):
            del groups[key]
            groups.update(((key, vertex.ordinal), [vertex]) for vertex in group)
    new = Tree()
    made: dict[int, Vertex] = {}
    for group in sorted(groups.values(), key=lambda one: one[0].ordinal):
        pool = _pool(group, ids)
        made.update((vertex.ordinal, pool) for vertex in group)
        new.add(pool)
    _link(tree, new, made, dropped)
    _names(new)
    return new.compile()


def _check(tree: Tree) -> None:
    """Raise Rejected for numbers that no instance could keep: ids and ranks are bits of masks, units travel in 64 bits."""
    for vertex in tree.vertices:
        units = MAX_ID if vertex.type in CLAIMED else MOST
        for what, number, most in (("size", vertex.size, units), ("rank", vertex.rank, MAX_ID - 1), ("id", vertex.id, MOST)):
            if number > most:
                raise fault(f"its {what} is above {most}", vertex.path() or vertex.name)


def _below_claimed(tree: Tree) -> set[int]:
    """The ordinals of what is below cores and GPUs."""
    dropped: set[int] = set()
    stack = [child for v in tree.vertices if v.type in CLAIMED for below in v.children.values() for child in below]
    while stack:
        vertex = stack.pop()
        if vertex.ordinal not in dropped:
            dropped.add(vertex.ordinal)
            stack.extend(child for below in vertex.children.values() for child in below)
    return dropped


def node_above(vertex: Vertex) -> Vertex | None:
    """The node with a rank that a vertex is inside of, by first parents; None where there is none."""
    one = vertex
    while True:
        parents = one.parents.get(CONTAINMENT) or next((found for found in one.parents.values() if found), None)
        if not parents:
            return None
        one = parents[0]
        if is_node(one):
            return one


def is_node(vertex: Vertex) -> bool:
    """Is it a node that jobs can run on?"""
    return vertex.type == "node" and vertex.rank >= 0


def _numbered(tree: Tree, dropped: set[int]) -> dict[int, int]:
    """ordinal -> mask of ids: of cores and GPUs, within their node; of other singles, as they are numbered."""
    ids: dict[int, int] = {}
    inside: dict[tuple[int, str], list[Vertex]] = {}
    for vertex in _in_order(tree):
        if vertex.ordinal in dropped:
            continue
        own = vertex.ids if vertex.ids.bit_count() == vertex.size else 0
        ids[vertex.ordinal] = own or (1 << vertex.id if vertex.size == 1 and 0 <= vertex.id < MAX_ID else 0)
        if vertex.type in CLAIMED and (node := node_above(vertex)) is not None:
            inside.setdefault((node.ordinal, vertex.type), []).append(vertex)
    for members in inside.values():
        seen = 0
        for vertex in members:
            mask = ids[vertex.ordinal]
            if mask.bit_count() != vertex.size or mask & seen:
                break
            seen |= mask
        else:
            continue
        at = 0
        for vertex in members:
            ids[vertex.ordinal] = ((1 << vertex.size) - 1) << at
            at += vertex.size
            if at > MAX_ID:
                raise fault(f"has more than {MAX_ID} of them in one node", vertex.path() or vertex.name)
    return ids


def _in_order(tree: Tree) -> Iterator[Vertex]:
    seen: set[int] = set()
    for subsystem in subsystems_of(tree):
        for vertex in preorder(tree.roots[subsystem], subsystem):
            if vertex.ordinal not in seen:
                seen.add(vertex.ordinal)
                yield vertex


def subsystems_of(tree: Tree) -> tuple[str, ...]:
    """The subsystems of a tree, containment first."""
    return tuple(sorted(tree.roots, key=lambda name: name != CONTAINMENT))


def _kind(vertex: Vertex, dropped: set[int], ids: dict[int, int]) -> object:
    """What vertices must have in common to be one pool; something of its own for one that is none."""
    leaf = all(child.ordinal in dropped for below in vertex.children.values() for child in below)
    quantity = vertex.type != "memory" and not (vertex.size == 1 or vertex.type in CLAIMED)
    if not leaf or quantity or is_node(vertex) or not vertex.up or not any(vertex.parents.values()):
        return vertex.ordinal
    above = tuple((name, tuple(p.ordinal for p in parents)) for name, parents in vertex.parents.items())
    size = 0 if vertex.type in CLAIMED else vertex.size
    return (above, vertex.type, vertex.basename, size, vertex.unit, vertex.rank, *sorted(vertex.properties.items()))


def _poolable(group: list[Vertex], ids: dict[int, int]) -> bool:
    """Whether the ids of a group say which is which."""
    if group[0].type == "memory":
        return True
    seen = 0
    for vertex in group:
        mask = ids.get(vertex.ordinal, 0)
        if not mask or mask & seen:
            return False
        seen |= mask
    return True


def _pool(group: list[Vertex], ids: dict[int, int]) -> Vertex:
    first = group[0]
    mask = 0
    if first.type != "memory":
        for vertex in group:
            mask |= ids.get(vertex.ordinal, 0)
    single = len(group) == 1
    claimed = first.type in CLAIMED and mask.bit_count() == sum(vertex.size for vertex in group)
    number = first.id if single or not mask else (mask & -mask).bit_length() - 1
    new = Vertex(
        first.type, first.basename, number, name=first.name if single else first.basename,
        size=sum(vertex.size for vertex in group), unit=first.unit, rank=first.rank, outer=first.outer if single else "",
        properties=first.properties, ids=mask if not single or claimed else first.ids,
    )  # fmt: skip
    new.up = first.up
    return new


def _link(old: Tree, new: Tree, made: dict[int, Vertex], dropped: set[int]) -> None:
    for subsystem, root in old.roots.items():
        if root.ordinal in dropped:
            continue
        new.root(made[root.ordinal], subsystem)
        linked: set[tuple[int, int]] = set()
        for vertex in preorder(root, subsystem):
            if vertex.ordinal in dropped:
                continue
            parent = made[vertex.ordinal]
            for child in vertex.children.get(subsystem, ()):
                if child.ordinal in dropped:
                    continue
                pair = (parent.ordinal, made[child.ordinal].ordinal)
                if pair not in linked:
                    linked.add(pair)
                    new.link(parent, made[child.ordinal], subsystem)


def _names(tree: Tree) -> None:
    """Pools of one name below one parent, which differ in something else, get their ids into their names."""
    from ...journal.idset import text_of

    for vertex in tree.vertices:
        for below in vertex.children.values():
            named: dict[str, list[Vertex]] = {}
            for child in below:
                named.setdefault(child.name, []).append(child)
            if len(named) < len(below):
                for same in named.values():
                    if len(same) > 1:
                        for child in same:
                            if child.ids:
                                child.name = f"{child.basename}[{text_of(child.ids)}]"


def paths_of(tree: Tree) -> dict[str, Vertex]:
    """Every vertex by its path: in containment, else in the first subsystem it is in, by first parents. Raises Rejected where two
    have the same."""
    paths: dict[str, Vertex] = {}
    seen: set[int] = set()
    for subsystem in subsystems_of(tree):
        stack = [(tree.roots[subsystem], "")]
        while stack:
            vertex, above = stack.pop()
            path = f"{above}/{vertex.name}"
            if vertex.ordinal not in seen:
                seen.add(vertex.ordinal)
                if paths.setdefault(path, vertex) is not vertex:
                    raise fault("two vertices are there: give one of them another name", path)
            for child in reversed(vertex.children.get(subsystem, ())):
                if child.parents[subsystem][0] is vertex:
                    stack.append((child, path))
    return paths


def memory_mb(vertex: Vertex) -> int:
    """The megabytes of a vertex of memory; without a unit its size is in megabytes."""
    factor = MEMORY_UNITS.get(vertex.unit or "MB")
    if factor is None:
        raise fault(f"has memory in {vertex.unit!r}; known are {', '.join(MEMORY_UNITS)}", vertex.path() or vertex.name)
    return vertex.size * factor


def nodes_of(tree: Tree) -> tuple[NodeRecord, ...]:
    """The nodes of a compact tree, by rank, with all cores, GPUs and memory inside. Raises Rejected (code "bad-graph")."""
    records: dict[int, NodeRecord] = {}
    for vertex in tree.vertices:
        if not is_node(vertex):
            continue
        if vertex.rank in records:
            raise fault(f"two nodes have the rank {vertex.rank}", vertex.path() or vertex.name)
        cores = gpus = memory = 0
        for below in inside(vertex):
            if below.type == "core":
                cores |= below.ids
            elif below.type == "gpu":
                gpus |= below.ids
            elif below.type == "memory":
                memory += memory_mb(below)
                if memory > MOST:
                    raise fault("has more memory than can be counted", below.path() or below.name)
        records[vertex.rank] = NodeRecord(vertex.rank, vertex.name, cores, gpus, memory, tuple(sorted(vertex.properties)))
    return tuple(records[rank] for rank in sorted(records))


def inside(node: Vertex) -> Iterable[Vertex]:
    """All below a node whose way up, by first parents, leads to it before any other node."""
    found: list[Vertex] = []
    seen = {node.ordinal}
    stack = [node]
    while stack:
        one = stack.pop()
        for below in one.children.values():
            for child in below:
                if child.ordinal not in seen and not is_node(child) and _home(child) is one:
                    seen.add(child.ordinal)
                    found.append(child)
                    stack.append(child)
    return found


def _home(vertex: Vertex) -> Vertex | None:
    """Its parent on its path: in containment, else in the first subsystem it is in."""
    parents = vertex.parents.get(CONTAINMENT) or next((found for found in vertex.parents.values() if found), None)
    return parents[0] if parents else None
