"""The graph of resources as events and snapshots have it: columns of plain data, checked once. Pure.

Decides the form and what a graph may be: every vertex below the one root of some subsystem, no cycles, no two vertices of one path.
Never decides who gets what. `schedulers/tree/record.py` makes the tree of it that a matcher walks.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from ..kvs.hashes import blake2b
from .claims import MAX_PATH, MEMORY_UNITS
from .graph_checks import bad, check, integers
from .idset import MAX_ID, format_ids, mask_of, parse, text_of
from .shown import shown
from .wire import pack, unpack

if TYPE_CHECKING:
    from .rset import ResourceSet

CONTAINMENT = "containment"
_KEYS = ("kinds", "kind", "id", "size", "rank", "names", "ids", "properties", "down", "edges")


class Columns(NamedTuple):
    """The vertices by position, and the edges by subsystem.

    kinds: (type, basename, unit), which `kind` points to. id: -1 for none. rank: -1 for none. names: of those whose name is not
    basename and id. ids: masks, of pools of single resources with ids. properties: of those that have any. down: those set down.
    edges: subsystem -> (parents, children), in the order of the edges, which is the order of each vertex' children and parents.
    """

    kinds: list[tuple[str, str, str]]
    kind: list[int]
    id: list[int]
    size: list[int]
    rank: list[int]
    names: dict[int, str]
    ids: dict[int, int]
    properties: dict[int, dict[str, str]]
    down: set[int]
    edges: dict[str, tuple[list[int], list[int]]]

    def name(self, at: int) -> str:
        """The name of a vertex."""
        found = self.names.get(at)
        return found if found is not None else f"{self.kinds[self.kind[at]][1]}{self.id[at]}"

    def type(self, at: int) -> str:
        """The type of a vertex."""
        return self.kinds[self.kind[at]][0]


class Place(NamedTuple):
    """Where a vertex is. node: rank of the node that it is, or is inside of, -1 for none."""

    at: int
    size: int
    ids: int
    node: int


class NodeParts(NamedTuple):
    """A node that has a rank, and what is inside: cores and GPUs as masks, mebibytes of memory."""

    name: str
    at: int
    cores: int
    gpus: int
    memory_mb: int


class ResourceGraph:
    """A graph that does not change: another one takes its place. raw: its wire form, packed; equal graphs have equal bytes."""

    __slots__ = ("_columns", "_compressed", "_places", "hash", "raw")

    def __init__(self, raw: bytes, columns: Columns | None = None, compressed: bytes = b"") -> None:
        self.raw = raw
        self.hash = blake2b(raw, digest_size=16).digest()
        self._columns = columns
        self._compressed = compressed
        self._places: dict[str, Place] | None = None

    @property
    def columns(self) -> Columns:
        """Its vertices and edges."""
        if self._columns is None:
            self._columns = _decoded(unpack(self.raw))
        return self._columns

    @property
    def compressed(self) -> bytes:
        """As a snapshot keeps it: each graph is compressed once."""
        if not self._compressed:
            self._compressed = zlib.compress(self.raw, 1)
        return self._compressed

    @property
    def wire(self) -> dict[str, Any]:
        """As an inventory has it."""
        found: dict[str, Any] = unpack(self.raw)
        return found

    @property
    def places(self) -> dict[str, Place]:
        """Every vertex by its path: the one in containment, else in the first subsystem it is in."""
        if self._places is None:
            self._places = _places(self.columns)
        return self._places

    def shut(self) -> frozenset[int]:
        """Ranks of the nodes that are set down, or below something that is, in any subsystem."""
        columns = self.columns
        below: dict[int, list[int]] = {}
        if columns.down:
            for out, into in columns.edges.values():
                for parent, child in zip(out, into, strict=True):
                    below.setdefault(parent, []).append(child)
        seen, stack = set[int](), list(columns.down)
        while stack:
            at = stack.pop()
            if at not in seen:
                seen.add(at)
                if columns.type(at) != "node":  # what is below a node is its own
                    stack.extend(below.get(at, ()))
        return frozenset(columns.rank[at] for at in seen if columns.type(at) == "node" and columns.rank[at] >= 0)

    def nodes(self) -> dict[int, NodeParts]:
        """By rank. Raises `Rejected` where two of a node's cores, or GPUs, have one id, or none, and where its memory is in no
        known unit."""
        columns = self.columns
        found: dict[int, list[Any]] = {}
        for place in self.places.values():
            kind, _, unit = columns.kinds[columns.kind[place.at]]
            if place.node < 0 or kind not in ("node", "core", "gpu", "memory"):
                continue
            row = found.setdefault(place.node, ["", -1, 0, 0, 0])
            if kind == "node":
                row[:2] = columns.name(place.at), place.at
                continue
            if kind == "memory":
                if (unit or "MB") not in MEMORY_UNITS:
                    raise bad("kinds", f"memory of rank {place.node} is in {shown(unit)}; known are {', '.join(MEMORY_UNITS)}")
                row[4] += place.size * MEMORY_UNITS[unit or "MB"]
                continue
            held = 2 if kind == "core" else 3
            if place.ids.bit_count() != place.size or place.ids & row[held]:
                raise bad("ids", f"{columns.name(place.at)} of rank {place.node} has no id that is its own: each {kind} needs one")
            row[held] |= place.ids
        return {rank: NodeParts(*row) for rank, row in found.items()}


def from_wire(wire: Any) -> ResourceGraph:
    """The graph of its wire form. Raises `Rejected` (code bad-graph) with the place of the fault."""
    if not isinstance(wire, Mapping) or set(wire) != set(_KEYS):
        raise bad("graph", f"must have exactly {', '.join(_KEYS)}")
    try:
        columns = _decoded(wire)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise bad("graph", f"it is not a graph's columns: {error}") from None
    return of_columns(columns)


def graph_of(inventory: ResourceSet) -> ResourceGraph | None:
    """The graph of an inventory, None if it has none. Raises `Rejected` where the two speak of different nodes, cores or GPUs."""
    return None if inventory.tree is None else fitting(from_wire(inventory.tree), inventory)


def fitting(graph: ResourceGraph, inventory: ResourceSet) -> ResourceGraph:
    """The graph, if it is one of the nodes of an inventory. Raises `Rejected` as `graph_of`."""
    nodes = graph.nodes()
    for node in inventory.nodes:
        parts = nodes.pop(node.rank, None)
        if parts is None or parts.at < 0:
            raise bad("graph", f"rank {node.rank} ({node.host}) is not in it")
        name, cores, gpus = parts.name, parts.cores, parts.gpus
        if (cores, gpus) != (node.cores, node.gpus):
            raise bad("graph", f"rank {node.rank} ({name}) has cores {text_of(cores)} and GPUs {text_of(gpus) or 'none'}, and in R "
                               f"cores {text_of(node.cores)} and GPUs {text_of(node.gpus) or 'none'}")  # fmt: skip
    if nodes:
        raise bad("graph", f"has rank {min(nodes)}, which R has not")
    return graph


def without_tree(document: dict[str, Any]) -> dict[str, Any]:
    """An R without its graph in columns: the state has that for itself."""
    scheduling = document.get("scheduling")
    if not isinstance(scheduling, dict) or "tree" not in scheduling:
        return document
    return {**document, "scheduling": {key: value for key, value in scheduling.items() if key != "tree"}}


def of_columns(columns: Columns) -> ResourceGraph:
    """The graph of these columns. Raises `Rejected` (code bad-graph)."""
    check(columns)
    places = _places(columns)
    if len(places) != len(columns.kind):
        raise bad("names", f"two vertices are at {_twice(columns)}: give one of them another name")
    graph = ResourceGraph(pack(_encoded(columns)), columns)
    graph._places = places
    return graph


def _encoded(columns: Columns) -> dict[str, Any]:
    """Ranks and edges as differences: what repeats from node to node is the same bytes then."""
    return {
        "kinds": [list(kind) for kind in columns.kinds], "kind": columns.kind, "id": columns.id, "size": columns.size,
        "rank": _differences(columns.rank),
        "names": [list(columns.names), list(columns.names.values())],
        "ids": _grouped({at: text_of(mask) for at, mask in columns.ids.items()}),
        "properties": _grouped(columns.properties),
        "down": format_ids(columns.down),
        "edges": [[name, _differences(out), _differences(into)] for name, (out, into) in columns.edges.items()],
    }  # fmt: skip


def _decoded(wire: Mapping[str, Any]) -> Columns:
    kind, ids = wire["kind"], {}
    for text, where in wire["ids"]:
        ids.update(dict.fromkeys(parse(where), mask_of(text)))
    properties: dict[int, dict[str, str]] = {}
    for named, where in wire["properties"]:
        properties.update((at, dict(named)) for at in parse(where))
    at, names = wire["names"]
    edges = {name: (_sums(out), _sums(into)) for name, out, into in wire["edges"]}
    if len(edges) != len(wire["edges"]):
        raise ValueError("a subsystem is there twice")
    kinds = [(str(one[0]), str(one[1]), str(one[2])) for one in wire["kinds"]]
    return Columns(kinds, list(kind), list(wire["id"]), list(wire["size"]), _sums(wire["rank"]),
                   dict(zip(at, names, strict=True)), ids, properties, set(parse(wire["down"])), edges)  # fmt: skip


def _differences(numbers: Sequence[int]) -> list[int]:
    return [number - before for before, number in zip([0, *numbers], numbers, strict=False)]


def _sums(differences: Sequence[int]) -> list[int]:
    if not integers(differences, -MAX_ID, MAX_ID):
        raise ValueError("a difference is no integer, or too large")
    return list(accumulate(differences))


def _grouped(values: Mapping[int, Any]) -> list[list[Any]]:
    """[[value, idset of positions], ...] by first position."""
    groups: dict[bytes, tuple[Any, list[int]]] = {}
    for at, value in sorted(values.items()):
        groups.setdefault(pack(value), (value, []))[1].append(at)
    return [[value, format_ids(where)] for value, where in groups.values()]


def _places(columns: Columns) -> dict[str, Place]:
    """Raises Rejected for paths that are too long. Two vertices of one path are one here: `_check` compares the numbers."""
    paths = paths_of(columns)
    found: dict[str, Place] = {}
    for at, (path, node) in paths.items():
        ids = columns.ids.get(at)
        if ids is None:
            number = columns.id[at]
            single = node >= 0 and columns.size[at] == 1 and 0 <= number < MAX_ID and columns.type(at) in ("core", "gpu")
            ids = 1 << number if single else 0
        found[path] = Place(at, columns.size[at], ids, node)
    return found


def paths_of(columns: Columns, subsystem: str = "") -> dict[int, tuple[str, int]]:
    """position -> (path, rank of the node around it, -1 for none), by first parents, in one subsystem, or by what goes first."""
    paths: dict[int, tuple[str, int]] = {}
    if not columns.edges:
        return {0: (f"/{columns.name(0)}", columns.rank[0] if columns.type(0) == "node" else -1)}
    order = [subsystem] if subsystem else sorted(columns.edges, key=lambda name: name != CONTAINMENT)
    for one in order:
        out, into = columns.edges[one]
        first: dict[int, int] = {}
        below: dict[int, list[int]] = {}
        for parent, child in zip(out, into, strict=True):
            if first.setdefault(child, parent) == parent:
                below.setdefault(parent, []).append(child)
        root = next(parent for parent in out if parent not in first)
        stack = [(root, "", -1)]
        while stack:
            at, above, node = stack.pop()
            path = f"{above}/{columns.name(at)}"
            if len(path) > MAX_PATH:
                raise bad(f"edges of {one}", f"the path of {columns.name(at)} has more than {MAX_PATH} characters")
            if columns.type(at) == "node" and columns.rank[at] >= 0:
                node = columns.rank[at]
            paths.setdefault(at, (path, node))
            stack.extend([(child, path, node) for child in reversed(below.get(at, ()))])
    return paths


def _twice(columns: Columns) -> str:
    seen: set[str] = set()
    for path, _ in paths_of(columns).values():
        if path in seen:
            return path
        seen.add(path)
    return ""
