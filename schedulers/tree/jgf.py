"""JGF documents as trees (RFC 40 and what its readers write), and growing a tree by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...journal.graph_checks import MOST
from ..graph import read_jgf
from .vertices import CONTAINMENT, Tree, Vertex, fault, preorder


def from_jgf(doc: Mapping[str, Any]) -> Tree:
    """The tree of a JGF document. Raises Rejected (code "bad-jgf" or "bad-graph") with the path to the fault."""
    nodes, edges = read_jgf(doc)
    tree = Tree()
    made: dict[str, Vertex] = {}
    for outer, data in nodes:
        made[outer] = tree.add(_vertex(outer, data, len(made)))
    _link(tree, made, edges)
    tree.compile()
    for vertex in tree.vertices:
        if not vertex.parents:
            raise fault(f"{vertex.name} (id {vertex.outer}) is below no root", "graph.nodes")
        if vertex.size > MOST:
            raise fault(f"its size is above {MOST}", vertex.path() or vertex.name)
    return tree


def _vertex(outer: str, data: Mapping[str, Any], ordinal: int) -> Vertex:
    number = data["id"]
    properties = {str(k): "" if v is None else str(v) for k, v in data["properties"].items()}
    return Vertex(
        data["type"], data["basename"], number, name=data["name"], size=data["size"], unit=data["unit"],
        rank=data["rank"], ordinal=ordinal, outer=outer, properties=properties,
    )  # fmt: skip


def _link(tree: Tree, made: Mapping[str, Vertex], edges: list[tuple[str, str, str, str]]) -> None:
    """Roots are the vertices of a subsystem into which no edge of it leads; edges are linked from them down."""
    below: dict[str, dict[str, list[str]]] = {}
    inner: dict[str, set[str]] = {}
    for source, target, subsystem, relationship in edges:
        if relationship not in ("in", "draws_from", "conduit_of"):  # the way back up
            below.setdefault(subsystem, {}).setdefault(source, []).append(target)
            inner.setdefault(subsystem, set()).add(target)
    if not below and len(made) == 1:
        below[CONTAINMENT] = {next(iter(made)): []}
    for subsystem, out in sorted(below.items(), key=lambda item: item[0] != CONTAINMENT):
        tops = [source for source in out if source not in inner.get(subsystem, ())]
        if len(tops) != 1:
            several = f"{len(tops)}: {', '.join(made[top].name for top in tops[:3])}"
            why = f"it has {several if tops else 'none: ' + _round(made, out)}"
            raise fault(f"{subsystem} must have one root, {why}", "graph.edges")
        tree.root(made[tops[0]], subsystem)
        linked: set[str] = set()
        stack = [tops[0]]
        while stack:
            source = stack.pop()
            if source in linked:
                continue
            linked.add(source)
            for target in out.get(source, ()):
                tree.link(made[source], made[target], subsystem)
            stack.extend(reversed(out.get(source, ())))
        for source in out:
            if source not in linked:
                raise fault(f"{made[source].name} is not below the root of {subsystem}", "graph.edges")


def _round(made: Mapping[str, Vertex], out: Mapping[str, list[str]]) -> str:
    """A way that comes back to where it was, in a graph in which every vertex that has edges is below another."""
    above = {target: source for source, targets in out.items() for target in targets}
    one = next(iter(out))
    way: dict[str, None] = {}
    while one not in way:
        way[one] = None
        one = above[one]
    names = [made[outer].name for outer in way][list(way).index(one) :]
    return f"{names[0]} is below itself, by /{'/'.join((names[0], *names[:0:-1][-8:], names[0]))}"


def attach(tree: Tree, doc: Mapping[str, Any]) -> list[Vertex]:
    """Grow a tree by a JGF document, whose nodes repeat the way down from the root. Returns the new vertices.

    A vertex is the one that is there already when its path is. Raises Rejected, with the tree as it was.
    """
    grown = from_jgf(doc)
    if CONTAINMENT not in grown.roots:
        raise fault("what is attached has no containment", "graph.edges")
    top, root = grown.roots[CONTAINMENT], tree.roots[CONTAINMENT]
    if top.name != root.name or top.type != root.type:
        raise fault(f"the root is {top.name}, here it is {root.name}", "graph.nodes")
    here: dict[int, Vertex] = {top.ordinal: root}
    links: list[tuple[Vertex, Vertex]] = []
    new: list[Vertex] = []
    for vertex in preorder(top, CONTAINMENT):
        parent = here[vertex.ordinal]
        named = {child.name: child for child in parent.children.get(CONTAINMENT, ())} if parent is not vertex else {}
        for child in vertex.children.get(CONTAINMENT, ()):
            if child.ordinal in here:
                continue
            there = named.get(child.name)
            here[child.ordinal] = there if there is not None else child
            if there is None:
                links.append((parent, child))
                new.append(child)
            elif there.type != child.type:
                raise fault(f"{child.path()} is a {there.type} here", "graph.nodes")
    ranks = {vertex.rank for vertex in new if vertex.type == "node" and vertex.rank >= 0}
    for rank in sorted(ranks & tree.by_rank.keys()):
        raise fault(f"rank {rank} is there already", "graph.nodes")
    for vertex in new:
        vertex.children, vertex.parents = {}, {}
    ordinal = max(vertex.ordinal for vertex in tree.vertices) + 1
    for i, vertex in enumerate(new):
        vertex.ordinal = ordinal + i
        tree.add(vertex)
    for parent, child in links:
        tree.link(parent, child)
    return new


def named_in(tree: Tree, doc: Mapping[str, Any]) -> list[tuple[Vertex, int, bool]]:
    """The vertices of a tree that a JGF document speaks of, with units and exclusive: an allocation as it was written.

    Raises Rejected where one is not there, or a node has another rank.
    """
    nodes, _ = read_jgf(doc)
    found: list[tuple[Vertex, int, bool]] = []
    for i, (_, data) in enumerate(nodes):
        paths = data["paths"] if isinstance(data["paths"], Mapping) else {}
        path = paths.get(CONTAINMENT) or next(iter(paths.values()), "")
        vertex = tree.at(path) if isinstance(path, str) else None
        where = f"graph.nodes[{i}]"
        if vertex is None:
            raise fault(f"{path or 'a vertex without a path'} is not here", where)
        if vertex.type == "node" and vertex.rank != data["rank"]:
            raise fault(f"{path} has rank {vertex.rank}, not {data['rank']}", where)
        if not 0 < data["size"] <= vertex.size:
            raise fault(f"{path} has {vertex.size} units", where)
        found.append((vertex, data["size"], data["exclusive"]))
    return found
