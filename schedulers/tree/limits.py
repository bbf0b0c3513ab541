"""What a constraint (RFC 31) says of each vertex of a graph, where not only nodes have properties.

A property concerns the types of which some vertex has it: who asks for `a100` where GPUs have that gets such GPUs, whatever other
properties the node has, and who asks for `row1` where racks have it gets what is in such racks. Of vertices of other types it says
nothing (None), and `and`, `or` and `not` go on from there: a vertex is left out only by what is known of it. A node is also asked
for what is inside: one without any such GPU is left out, too. A property that nothing has is one that no node has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...journal import constraint as constraints
from .layout import NODE, Layout
from .vertices import Vertex, all_below


class Limits:
    """inner: the constraint is also about what is inside nodes. nodes: positions of those that it allows."""

    def __init__(self, layout: Layout, constraint: Mapping[str, Any]) -> None:
        self.layout = layout
        self._names: set[str] = set()
        self._verdict = self._read(constraint)
        types = {kind for name in self._names for kind in layout.properties.get(name, ())}
        self._inside = {kind for kind in types if kind in layout.inner and kind != "node"}
        self.inner = bool(self._inside)
        self.nodes = 0
        for at, node in layout.node_at.items():
            if self._verdict(node) is not False:
                self.nodes |= 1 << at
        for vertex in layout.vertices if types - layout.inner else ():
            if layout.position[vertex.ordinal] < 0 and vertex.type in types and self._verdict(vertex) is False:
                self.nodes &= ~layout.spans[vertex.ordinal]

    def allows(self, vertex: Vertex) -> bool:
        """May it be used? Nodes, and what is in them where nothing is asked of that, are not looked at again."""
        if self.layout.position[vertex.ordinal] >= 0 and vertex.type not in self._inside:
            return True
        return self._verdict(vertex) is not False

    def _read(self, constraint: Mapping[str, Any]) -> Callable[[Vertex], bool | None]:
        if not constraint:
            return lambda vertex: True
        ((operator, values),) = constraint.items()
        if operator == "properties":
            self._names.update(str(value).removeprefix("^") for value in values)
            return lambda vertex: _all(self._has(vertex, value) for value in values)
        if operator in ("and", "or", "not"):
            parts = [self._read(value) for value in values]
            if operator == "and":
                return lambda vertex: _all(part(vertex) for part in parts)
            if operator == "not":
                return lambda vertex: _not(_all(part(vertex) for part in parts))
            return lambda vertex: _not(_all(_not(part(vertex)) for part in parts)) if parts else True
        holds = constraints.compile(constraint)
        layout = self.layout

        def about_nodes(vertex: Vertex) -> bool | None:
            if layout.kinds[vertex.ordinal] != NODE:
                return None
            node = layout.nodes[layout.position[vertex.ordinal]]
            return holds(node.rank, node.host, frozenset((*vertex.properties, *node.properties)))

        return about_nodes

    def _has(self, vertex: Vertex, value: str) -> bool | None:
        if value.startswith("^"):
            return _not(self._has(vertex, value[1:]))
        layout = self.layout
        types = layout.properties.get(value, frozenset(("node",)))
        if vertex.type in types:
            own = value in vertex.properties
            if not own and layout.kinds[vertex.ordinal] == NODE:
                own = value in layout.nodes[layout.position[vertex.ordinal]].properties
            return own
        if layout.kinds[vertex.ordinal] == NODE and types <= layout.inner and not self._inside_of(vertex, value):
            return False
        return None

    def _inside_of(self, node: Vertex, name: str) -> bool:
        return any(name in one.properties for one in all_below(node, self.layout.subsystems))


def _not(verdict: bool | None) -> bool | None:
    return None if verdict is None else not verdict


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    found: bool | None = True
    for verdict in verdicts:
        if verdict is False:
            return False
        if verdict is None:
            found = None
    return found
