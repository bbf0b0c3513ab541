"""A tree of resources that a matcher walks: vertices with what uses them, edges by subsystem, paths, ranks.

A subsystem ("containment", "power", ...) is a directed graph with one root. A vertex may have several parents
in one, but no cycles; its path follows the first. The order of edges is the order of output and of ties.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...kvs.errors import Rejected
from .spans import Spans

CONTAINMENT = "containment"
MAX_DEPTH = 64
MAX_VERTICES = 2_000_000
WAYS = 16  # ways to each vertex, on average
UNTOUCHED = 1 << 62

_NONE: dict[Any, Any] = {}  # never written to


class Vertex:
    """One resource, or a pool of `size` equal ones.

    ordinal: order of creation. rank: of the broker, -1 for none. children: subsystem -> vertices, in edge order.
    totals: type -> units at and below it. exclusive: spans of those who hold units of it.
    users: job -> (start, end) of everyone on it or below it. below: type -> units used at and below it, kept
    for the types that the tree prunes by. left: what was free below it when a job last got some of it, UNTOUCHED before
    that. ids: the mask of the single resources that a pooled vertex stands for (`pooling`), 0 for none. Empty tables are one
    shared object: most vertices are leaves.
    """

    __slots__ = (
        "basename", "below", "children", "exclusive", "id", "ids", "left", "name", "ordinal", "outer", "parents", "properties",
        "rank", "size", "totals", "type", "unit", "up", "users",
    )  # fmt: skip

    def __init__(
        self, kind: str, basename: str, number: int, *, name: str | None = None, size: int = 1, unit: str = "",
        rank: int = -1, ordinal: int = -1, outer: str = "", properties: Mapping[str, str] | None = None, ids: int = 0,
    ) -> None:  # fmt: skip
        self.type = kind
        self.basename = basename
        self.id = number
        self.name = f"{basename}{number}" if name is None else name
        self.size = size
        self.unit = unit
        self.rank = rank
        self.ordinal = ordinal
        self.outer = outer
        self.ids = ids
        self.properties: dict[str, str] = dict(properties) if properties else _NONE
        self.up = True
        self.left = UNTOUCHED
        self.children: dict[str, list[Vertex]] = _NONE
        self.parents: dict[str, list[Vertex]] = {}
        self.totals: dict[str, int] = _NONE
        self.exclusive: Spans | None = None
        self.users: dict[int, tuple[int, int]] = _NONE
        self.below: dict[str, Spans] = _NONE

    def __repr__(self) -> str:
        return f"<{self.path()}>"

    def path(self, subsystem: str = CONTAINMENT) -> str:
        """Its names from the root ("/cluster0/node1"), by first parents; "" where it is not in the subsystem."""
        if subsystem not in self.parents:
            return ""
        names = [self.name, *[above.name for above in ancestors(self, subsystem)]]
        return "/" + "/".join(reversed(names))

    def table(self, name: str) -> dict[Any, Any]:
        """One of its tables, its own from now on."""
        table: dict[Any, Any] = getattr(self, name)
        if table is _NONE:
            table = {}
            setattr(self, name, table)
        return table

    def free(self, start: int, end: int) -> int:
        """Units that nobody holds in all of [start, end)."""
        return self.size if self.exclusive is None else self.size - self.exclusive.peak(start, end)

    def in_use(self, start: int, end: int) -> bool:
        """Does anybody use it, or something below it, in [start, end)?"""
        return any(s < end and start < e for s, e in self.users.values())

    def left_below(self, kind: str, start: int, end: int) -> int:
        """Units of a type at and below it that nobody holds in all of [start, end)."""
        total = self.totals.get(kind, 0)
        spans = self.below.get(kind)
        return total if spans is None else total - spans.peak(start, end)


class Tree:
    """All vertices. roots: subsystem -> its root. dominant: the subsystem by which `totals` count."""

    def __init__(self) -> None:
        self.vertices: list[Vertex] = []
        self.roots: dict[str, Vertex] = {}
        self.dominant = CONTAINMENT
        self.by_rank: dict[int, list[Vertex]] = {}
        self._counted = False  # do `totals` say how the tree is?

    def add(self, vertex: Vertex) -> Vertex:
        """One more vertex; it gets the next ordinal, and that as its id for others unless it has one."""
        if vertex.ordinal < 0:
            vertex.ordinal = len(self.vertices)
        vertex.outer = vertex.outer or str(vertex.ordinal)
        self._counted = False
        if len(self.vertices) == MAX_VERTICES:
            raise fault(f"more than {MAX_VERTICES} vertices")
        self.vertices.append(vertex)
        if vertex.rank >= 0:
            self.by_rank.setdefault(vertex.rank, []).append(vertex)
        return vertex

    def root(self, vertex: Vertex, subsystem: str = CONTAINMENT) -> None:
        """Make it the root of a subsystem."""
        if subsystem in self.roots:
            raise fault(f"two roots of {subsystem}: {self.roots[subsystem].name} and {vertex.name}")
        self.roots[subsystem] = vertex
        vertex.parents[subsystem] = []

    def link(self, parent: Vertex, child: Vertex, subsystem: str = CONTAINMENT) -> None:
        """One more edge."""
        children = parent.children
        if children is _NONE:
            parent.children = children = {}
        children.setdefault(subsystem, []).append(child)
        child.parents.setdefault(subsystem, []).append(parent)
        self._counted = False

    def at(self, path: str) -> Vertex | None:
        """The vertex of a path, in whichever subsystem."""
        first, *rest = path.strip("/").split("/")
        for subsystem, vertex in self.roots.items():
            found: Vertex | None = vertex if vertex.name == first else None
            for name in rest:
                below = found.children.get(subsystem, ()) if found is not None else ()
                found = next((child for child in below if child.name == name), None)
            if found is not None:
                return found
        return None

    def compile(self, subsystems: Iterable[str] | None = None) -> Tree:
        """Check each subsystem by itself, and count what is below each vertex. Returns the tree."""
        if not self.roots:
            raise fault("it has no root")
        for subsystem in self.roots if subsystems is None else subsystems:
            self.check((subsystem,))
        self.count(CONTAINMENT if CONTAINMENT in self.roots else next(iter(self.roots)))
        return self

    def check(self, subsystems: Sequence[str]) -> None:
        """Raise Rejected where the edges of these subsystems, from the root of the first, lead back or too deep, or where so many
        ways lead to the same vertices that a search, which goes all of them, would not end."""
        named = "+".join(subsystems)
        order = _inner(self.roots[subsystems[0]], subsystems, named)
        ways: dict[int, int] = {order[0].ordinal: 1}
        depths: dict[int, int] = {order[0].ordinal: 1}
        most, total = WAYS * len(self.vertices) + 100_000, 0
        for vertex in order:  # parents before children
            here, depth = ways[vertex.ordinal], depths[vertex.ordinal] + 1
            children = below(vertex, subsystems)
            total += here * len(children)
            if total > most:
                raise fault(f"more than {most} ways lead down to {vertex.name} and what is beside and below it ({named})")
            if children and depth > MAX_DEPTH:
                names = [vertex.name, *(above.name for above in ancestors(vertex, subsystems[0]))]
                raise fault(f"{children[0].name} is more than {MAX_DEPTH} deep ({named})", _shown(names[::-1]))
            for child in children:
                if child.children:
                    ways[child.ordinal] = ways.get(child.ordinal, 0) + here
                    depths[child.ordinal] = max(depths.get(child.ordinal, 0), depth)

    def count(self, subsystem: str) -> None:
        """Let `totals` say what is below each vertex in one subsystem; by first parents, so each is counted once."""
        if self.dominant == subsystem and self._counted:
            return
        self.dominant, self._counted = subsystem, True
        for vertex in self.vertices:
            vertex.totals = _NONE
        leaves: dict[tuple[str, int], dict[str, int]] = {}
        inner = [self.roots[subsystem]]
        for vertex in inner:  # it grows: parents before children
            below = vertex.children.get(subsystem, ())
            inner.extend(c for c in below if subsystem in c.children and c.parents[subsystem][0] is vertex)
        for vertex in reversed(inner):
            totals = {vertex.type: vertex.size}
            for child in vertex.children.get(subsystem, ()):
                if child.parents[subsystem][0] is not vertex:
                    continue
                if subsystem not in child.children:
                    kind, size = child.type, child.size
                    child.totals = leaves.get((kind, size)) or leaves.setdefault((kind, size), {kind: size})
                    totals[kind] = totals.get(kind, 0) + size
                    continue
                for kind, units in child.totals.items():
                    totals[kind] = totals.get(kind, 0) + units
            vertex.totals = totals

    def below(self, top: Vertex) -> list[Vertex]:
        """What goes when a vertex goes: it, and all below it in the dominant subsystem and in containment."""
        gone = {vertex.ordinal: vertex for vertex in preorder(top, self.dominant)}
        if self.dominant != CONTAINMENT:
            for vertex in list(gone.values()):
                gone.update({v.ordinal: v for v in preorder(vertex, CONTAINMENT)})
        return list(gone.values())

    def remove(self, top: Vertex) -> None:
        """Take a vertex and all that goes with it out. `count` is to be called after."""
        self._counted = False
        gone = {vertex.ordinal: vertex for vertex in self.below(top)}
        for vertex in gone.values():
            for subsystem, parents in vertex.parents.items():
                for parent in parents:
                    if parent.ordinal not in gone:
                        parent.children[subsystem].remove(vertex)
            for subsystem, children in vertex.children.items():
                for child in children:
                    if child.ordinal not in gone:
                        child.parents[subsystem].remove(vertex)
                        _forget(child, subsystem)
            if vertex.rank >= 0:
                self.by_rank[vertex.rank].remove(vertex)
                if not self.by_rank[vertex.rank]:
                    del self.by_rank[vertex.rank]
        self.vertices = [vertex for vertex in self.vertices if vertex.ordinal not in gone]
        self.roots = {subsystem: root for subsystem, root in self.roots.items() if root.ordinal not in gone}


def _shown(names: list[str]) -> str:
    """A way down; of a long one both ends."""
    return "/" + "/".join(names if len(names) < 10 else [*names[:4], "...", *names[-4:]])


def _inner(root: Vertex, subsystems: Sequence[str], named: str) -> list[Vertex]:
    """The root and all below it that have edges, each before those below it. Raises Rejected for a cycle."""
    left: list[Vertex] = []
    seen: set[int] = set()
    on_the_way: dict[int, str] = {}
    stack: list[tuple[Vertex, bool]] = [(root, False)]
    while stack:
        vertex, leaving = stack.pop()
        if leaving:
            del on_the_way[vertex.ordinal]
            left.append(vertex)
        elif vertex.ordinal in on_the_way:
            raise fault(f"{vertex.name} is below itself ({named})", _shown([*on_the_way.values(), vertex.name]))
        elif vertex.ordinal not in seen:
            seen.add(vertex.ordinal)
            on_the_way[vertex.ordinal] = vertex.name
            stack.append((vertex, True))
            stack.extend([(child, False) for child in below(vertex, subsystems) if child.children])
    left.reverse()
    return left


def _forget(top: Vertex, subsystem: str) -> None:
    """Take a vertex that lost its last parent in a subsystem out of it, with all that was only below it there."""
    stack = [top]
    while stack:
        vertex = stack.pop()
        if not vertex.parents.get(subsystem):
            vertex.parents.pop(subsystem, None)
            for child in vertex.children.pop(subsystem, ()):
                child.parents[subsystem].remove(vertex)
                stack.append(child)


def ancestors(vertex: Vertex, subsystem: str = CONTAINMENT) -> Iterator[Vertex]:
    """Those above it, nearest first, along first parents."""
    parents = vertex.parents.get(subsystem)
    while parents:
        yield parents[0]
        parents = parents[0].parents.get(subsystem)


def preorder(top: Vertex, subsystem: str = CONTAINMENT) -> Iterator[Vertex]:
    """It and all below it, each once."""
    seen: set[int] = set()
    stack = [top]
    while stack:
        vertex = stack.pop()
        if vertex.ordinal not in seen:
            seen.add(vertex.ordinal)
            yield vertex
            stack.extend(reversed(vertex.children.get(subsystem, ())))


def postorder(top: Vertex, subsystem: str = CONTAINMENT) -> Iterator[Vertex]:
    """All below it and it, children first, each once."""
    seen: set[int] = set()
    stack = [(top, False)]
    while stack:
        vertex, leaving = stack.pop()
        if leaving:
            yield vertex
        elif vertex.ordinal not in seen:
            seen.add(vertex.ordinal)
            stack.append((vertex, True))
            stack.extend([(child, False) for child in reversed(vertex.children.get(subsystem, ()))])


def below(vertex: Vertex, subsystems: Sequence[str]) -> Sequence[Vertex]:
    """Its children in the subsystems that are looked at."""
    if len(subsystems) == 1:
        return vertex.children.get(subsystems[0], ())
    return list({c.ordinal: c for s in subsystems for c in vertex.children.get(s, ())}.values())


def all_below(vertex: Vertex, subsystems: Sequence[str]) -> Iterator[Vertex]:
    """It and all below it in these subsystems, each once."""
    seen: set[int] = set()
    stack = [vertex]
    while stack:
        one = stack.pop()
        if one.ordinal not in seen:
            seen.add(one.ordinal)
            yield one
            stack.extend(below(one, subsystems))


def fault(why: str, where: str = "") -> Rejected:
    """What a graph that cannot be used is refused with."""
    return Rejected(f"bad resource graph: {where + ': ' if where else ''}{why}", code="bad-graph", hint="mend the graph file")
