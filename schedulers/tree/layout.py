"""What follows from a compact tree and the nodes of an instance alone: where each vertex is, and what is at and below it.

Copies of a pool share it. Nothing in it says what is in use. Positions are those of the pool's nodes; sets of them are ints.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ..resources import Node
from ..stock import Stock, set_of
from .needs import ratio
from .pooling import CLAIMED, inside, is_node, memory_mb, paths_of, subsystems_of
from .vertices import Tree, Vertex, all_below, below, postorder

CORE, GPU, MEMORY, LEAF, CONTAINER, NODE = range(6)


class Extent(NamedTuple):
    """What a vertex is with all below it. nodes: whole ones, a set of positions. parts: (position, cores, GPUs, MB) inside nodes
    that are not whole. others: ordinals of all other vertices, and of memory that is told apart."""

    nodes: int
    parts: tuple[tuple[int, int, int, int], ...]
    others: frozenset[int]


class Layout:
    """position: by ordinal, of the node that a vertex is, or is inside of, -1 outside of nodes and for nodes that are not in the
    inventory. kinds: by ordinal. paths: by ordinal. spans: by ordinal, the nodes at and below what is outside of nodes.
    memories: by position, the vertices of memory where there are several. homes: types -> the first sub-system they are in.
    apart: there is one way only to each vertex. inner: types that are inside nodes, or are nodes, and nowhere else.
    """

    def __init__(self, tree: Tree, nodes: Sequence[Node]) -> None:
        self.tree = tree
        #: As the inventory has them, by position.
        self.nodes = nodes
        self.subsystems = subsystems_of(tree)
        named = paths_of(tree)
        self.ordinals = {path: vertex.ordinal for path, vertex in named.items()}
        count = len(tree.vertices)
        self.vertices = tree.vertices
        self.paths = [""] * count
        for path, vertex in named.items():
            self.paths[vertex.ordinal] = path
        self.position = [-1] * count
        self.kinds = bytearray([CONTAINER]) * count
        self.node_at: dict[int, Vertex] = {}
        self.memories: dict[int, tuple[Vertex, ...]] = {}
        self._place({node.rank: at for at, node in enumerate(nodes)})
        self.spans = self._spans()
        self.apart = all(sum(map(len, vertex.parents.values())) < 2 for vertex in tree.vertices)
        self.homes: dict[str, str] = {}
        for subsystem in self.subsystems:
            for vertex in postorder(tree.roots[subsystem], subsystem):
                self.homes.setdefault(vertex.type, subsystem)
        outside = {vertex.type for vertex in tree.vertices if self.position[vertex.ordinal] < 0}
        self.inner = frozenset(self.homes.keys() - outside)
        found: dict[str, set[str]] = {}
        for vertex in tree.vertices:
            for name in vertex.properties:
                found.setdefault(name, set()).add(vertex.type)
        for node in nodes:
            for name in node.properties:
                found.setdefault(name, set()).add("node")
        #: Property -> the types of which some vertex has it; nodes have those of the inventory, too (which queues they belong to).
        self.properties = {name: frozenset(types) for name, types in found.items()}
        self._likeness: dict[int, int] = {}
        self._alike: dict[object, int] = {}
        #: By position, what is inside a node, and by ordinal, where in that: of nodes that were compared.
        self.members: dict[int, tuple[Vertex, ...]] = {}
        self.places = array("i", bytes(4 * count))
        #: What searches found in nodes: `live` says by what it is known.
        self.known: dict[object, tuple[Vertex, Any]] = {}
        self._types: dict[int, frozenset[str]] = {}
        self._interned: dict[frozenset[str], frozenset[str]] = {}
        self._extents: dict[int, Extent] = {}
        self._orders: dict[tuple[int, bool], list[int]] = {}
        self._rows: dict[int, tuple[int, dict[int, Vertex]]] = {}
        self._gaps = -1
        self._counted: dict[str, Stock] | None = None

    def gaps(self) -> int:
        """The positions whose node's number does not follow that of the one before."""
        if self._gaps < 0:
            ids = [self.node_at[at].id for at in sorted(self.node_at)]
            self._gaps = set_of((at for at, (one, other) in enumerate(pairwise(ids), 1) if other - one != 1), len(ids))
        return self._gaps

    def counted(self, kind: str) -> Stock | None:
        """What nodes have of a type in all, by position; None where that is not to be counted so: of cores, GPUs and memory, which
        the pool counts, of nodes, and of what is not inside of one node only."""
        if self._counted is None:
            self._counted = self._counts()
        return self._counted.get(kind)

    def _counts(self) -> dict[str, Stock]:
        found: dict[str, list[int]] = {}
        for kind in self.inner - {"node", "core", "gpu", "memory"}:
            found[kind] = [0] * len(self.nodes)
        for at, node in self.node_at.items():
            for vertex in all_below(node, self.subsystems):
                if vertex.type not in found:
                    continue
                if self.position[vertex.ordinal] == at:
                    found[vertex.type][at] += vertex.size
                else:  # below two nodes
                    del found[vertex.type]
        return {kind: Stock(counts) for kind, counts in found.items()}

    def _place(self, index: Mapping[int, int]) -> None:
        kinds, position = self.kinds, self.position
        for vertex in self.tree.vertices:
            if not any(vertex.children.values()):
                kinds[vertex.ordinal] = LEAF
        for vertex in self.tree.vertices:
            at = index.get(vertex.rank, -1) if is_node(vertex) else -1
            if at < 0:
                continue
            kinds[vertex.ordinal] = NODE
            position[vertex.ordinal] = at
            self.node_at[at] = vertex
            memories = []
            for one in inside(vertex):
                position[one.ordinal] = at
                if one.type in CLAIMED and one.ids:
                    kinds[one.ordinal] = CORE if one.type == "core" else GPU
                elif one.type == "memory":
                    kinds[one.ordinal] = MEMORY
                    memories.append(one)
            if len(memories) > 1:
                self.memories[at] = tuple(memories)

    def _spans(self) -> list[int]:
        """In each sub-system by itself, and joined: what is below in one may have more below it in another."""
        spans = [0] * len(self.vertices)
        for at, vertex in self.node_at.items():
            spans[vertex.ordinal] = 1 << at
        for _ in self.subsystems:
            for subsystem in self.subsystems:
                for vertex in postorder(self.tree.roots[subsystem], subsystem):
                    if self.position[vertex.ordinal] < 0:
                        for child in vertex.children.get(subsystem, ()):
                            spans[vertex.ordinal] |= spans[child.ordinal]
        return spans

    def extent(self, vertex: Vertex) -> Extent:
        """What a vertex is with all below it."""
        found = self._extents.get(vertex.ordinal)
        if found is None:
            found = self._extents[vertex.ordinal] = self._measured(vertex)
        return found

    def likeness(self, at: int) -> int:
        """A number that nodes have in common which are equal but for their own name, number, rank and properties; -1 where what is
        below a node is not all inside of it."""
        found = self._likeness.get(at)
        if found is None:
            found = self._likeness[at] = self._compared(at)
        return found

    def _compared(self, at: int) -> int:
        node, order = self.node_at[at], list[Vertex]()
        places: dict[int, int] = {node.ordinal: 0}
        for vertex in all_below(node, self.subsystems):
            if vertex is not node:
                if self.position[vertex.ordinal] != at or self.kinds[vertex.ordinal] == NODE:
                    return -1
                order.append(vertex)
                places[vertex.ordinal] = len(order)
        ways = [tuple(places[c.ordinal] for c in below(vertex, self.subsystems)) for vertex in (node, *order)]
        sizes = tuple((v.type, v.basename, v.id, v.ids, v.size, v.unit, tuple(v.properties.items())) for v in order)
        own = self.nodes[at]
        number = self._alike.setdefault((tuple(ways), sizes, own.cores, own.gpus, own.memory_mb), len(self._alike))
        self.members[at] = tuple(order)
        for place, vertex in enumerate(order):
            self.places[vertex.ordinal] = place
        return number

    def counterpart(self, vertex: Vertex, node: Vertex) -> Vertex:
        """What is in a node where a vertex is in one that is like it."""
        if self.kinds[vertex.ordinal] == NODE:
            return node
        return self.members[self.position[node.ordinal]][self.places[vertex.ordinal]]

    def types_in(self, node: Vertex) -> frozenset[str]:
        """The types of what is inside a node."""
        found = self._types.get(node.ordinal)
        if found is None:
            found = frozenset(vertex.type for vertex in all_below(node, self.subsystems) if vertex is not node)
            found = self._types[node.ordinal] = self._interned.setdefault(found, found)
        return found

    def _measured(self, top: Vertex) -> Extent:
        nodes, others = 0, set[int]()
        parts: dict[int, list[int]] = {}
        for vertex in all_below(top, self.subsystems):
            at, kind = self.position[vertex.ordinal], self.kinds[vertex.ordinal]
            if kind == NODE:
                nodes |= 1 << at
            elif kind in (CORE, GPU):
                part = parts.setdefault(at, [0, 0, 0])
                part[0 if kind == CORE else 1] |= vertex.ids
            elif kind == MEMORY:
                parts.setdefault(at, [0, 0, 0])[2] += memory_mb(vertex)
                if at in self.memories:
                    others.add(vertex.ordinal)
            elif vertex.size:
                others.add(vertex.ordinal)
        rest = tuple((at, part[0], part[1], part[2]) for at, part in sorted(parts.items()) if not nodes >> at & 1)
        return Extent(nodes, rest, frozenset(others))

    def by_number(self, vertex: Vertex, row: tuple[int, dict[int, Vertex]], among: int, descending: bool) -> Iterator[Vertex]:
        """Those of a row that are among these positions, by their numbers; equal ones in the order of the row."""
        order = self._orders.get((vertex.ordinal, descending))
        if order is None:
            sign = -1 if descending else 1
            order = self._orders[vertex.ordinal, descending] = sorted(row[1], key=lambda at: sign * row[1][at].id)
        spelled = _spelled(among)
        end = len(spelled)
        return (row[1][at] for at in order if at >> 3 < end and spelled[at >> 3] >> (at & 7) & 1)

    def row(self, vertex: Vertex) -> tuple[int, dict[int, Vertex]] | None:
        """The nodes right below a container, as a set and by position, if nothing else is there and ranks are in order."""
        found = self._rows.get(vertex.ordinal)
        if found is None:
            children = below(vertex, self.subsystems)
            places = [self.position[c.ordinal] if self.kinds[c.ordinal] == NODE else -1 for c in children]
            nodes = 0
            if places and min(places) >= 0 and places == sorted(places):
                for at in places:
                    nodes |= 1 << at
            found = self._rows[vertex.ordinal] = (nodes, dict(zip(places, children, strict=True)) if nodes else {})
        return found if found[0] else None


def _spelled(bits: int) -> bytes:
    return bits.to_bytes((bits.bit_length() >> 3) + 1, "little")


def tree_of(nodes: Sequence[Node]) -> Tree:
    """The compact tree of an inventory without a graph: cluster > nodes > cores, GPUs and memory."""
    tree = Tree()
    top = tree.add(Vertex("cluster", "cluster", 0))
    tree.root(top)
    named: set[str] = set()
    for node in nodes:
        name = node.host if node.host and node.host not in named and "/" not in node.host else f"node.{node.rank}"
        named.add(name)
        here = tree.add(Vertex("node", "node", node.rank, name=name, rank=node.rank, properties=dict.fromkeys(node.properties, "")))
        tree.link(top, here)
        for kind, mask in (("core", node.cores), ("gpu", node.gpus)):
            if mask:
                pool = Vertex(kind, kind, 0, name=kind, size=mask.bit_count(), rank=node.rank, ids=mask)
                tree.link(here, tree.add(pool))
        if node.memory_mb:
            memory = Vertex("memory", "memory", 0, name="memory", size=node.memory_mb, unit="MB", rank=node.rank)
            tree.link(here, tree.add(memory))
    return tree.compile()


def in_units(vertex: Vertex, megabytes: int, unit: str) -> tuple[int, int] | None:
    """As `needs.ratio`, of one megabyte of a vertex of memory to the unit that is asked for ("" for the vertex' own)."""
    if not unit:
        return 1, memory_mb(vertex) // vertex.size if vertex.size else 1
    return ratio(unit, "MB")


def roots_for(layout: Layout, types: Sequence[str]) -> list[str]:
    """The sub-systems at whose roots to begin, for some types: where each can first be found."""
    return list(dict.fromkeys(layout.homes[kind] for kind in types if kind in layout.homes))
