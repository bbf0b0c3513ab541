"""A graph of resources in few lines: siblings of one kind, shape and state are one group, from the root down.

A state is `free`, `allocated`, `mixed` (some of it is in use), `drained`, `draining` (drained, and some of it is in use),
`offline` or `down`; a container is free where anything in it is, and nothing is in use. What is below a group's members is
grouped over all of them, so the number of groups depends on how many kinds, shapes and states there are, not on how many
vertices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ...journal import hostlist, idset
from ...kvs.errors import Rejected
from .vertices import CONTAINMENT, Tree, Vertex

if TYPE_CHECKING:
    from ...journal.node import Node

STATES = ("mixed", "allocated", "draining", "drained", "offline", "down", "free")
IN_USE = ("mixed", "allocated")
_BUSY = (*IN_USE, "draining")
MAX_SHAPES = 4  # more different siblings than these are not told apart

Shape = tuple[tuple[str, int], ...]


class Holding(NamedTuple):
    """What is held of a vertex. ids: which, of a pool of single resources. jobs: who is on it or below it, as ids."""

    units: int
    jobs: frozenset[int] = frozenset()
    ids: int = 0


NOTHING = Holding(0)


class Part:
    """A vertex, or `count` equal ones in one state (their ids are in `mask`). size: units of all of them; held: of these, those
    in use. shape: kind -> size at and below it. busy: something of it, or below it, is in use, whatever its state is called."""

    __slots__ = (
        "basename", "busy", "children", "count", "held", "jobs", "kind", "mask", "name", "number", "shape", "size", "state", "unit",
    )  # fmt: skip

    def __init__(
        self, kind: str, name: str, basename: str, number: int, state: str, children: list[Part], *, count: int = 1, size: int = 1,
        held: int = 0, unit: str = "", mask: int = 0, jobs: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        self.kind = kind
        self.name = name
        self.basename = basename
        self.number = number
        self.state = state
        self.children = children
        self.count = count
        self.size = size
        self.held = held
        self.unit = unit
        self.mask = mask
        self.jobs = jobs
        self.busy: bool = state in _BUSY or held > 0 or any(child.busy for child in children)
        if not children:
            self.shape: Shape = ((kind, size),)
            return
        totals = {kind: size}
        for child in children:
            for below, units in child.shape:
                totals[below] = totals.get(below, 0) + units
        self.shape = tuple(totals.items())


@dataclass(slots=True)
class Tally:
    """Vertices of one kind at and below a group. leaf: nothing is below any of them."""

    count: int = 0
    size: int = 0
    held: int = 0
    unit: str = ""
    leaf: bool = True
    by_state: dict[str, int] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Those of another group, too."""
        self.count += other.count
        self.size += other.size
        self.held += other.held
        self.unit = self.unit or other.unit
        self.leaf = self.leaf and other.leaf
        for state, count in other.by_state.items():
            self.by_state[state] = self.by_state.get(state, 0) + count

    @property
    def busy(self) -> int:
        """Those of which something is in use, drained ones too."""
        return sum(self.by_state.get(state, 0) for state in _BUSY)


@dataclass(slots=True)
class Group:
    """Vertices that look alike. name: of all of them, folded ("rack[0-31]"). tallies: kind -> what is at and below them."""

    kind: str
    name: str
    state: str
    tallies: dict[str, Tally]
    jobs: frozenset[int]
    children: list[Group]

    @property
    def own(self) -> Tally:
        """Of the group's members themselves."""
        return self.tallies[self.kind]

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Group]]:
        """It and all groups below it, with how deep they are, parents first."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


# --- parts


def of_tree(
    tree: Tree, subsystem: str = CONTAINMENT, held: Mapping[int, Holding] | None = None, marks: Mapping[int, str] | None = None
) -> Part:  # fmt: skip
    """The parts of a subsystem. held: ordinal -> what is held there; marks: ordinal -> "drained", "offline" or "down"; a vertex
    that is not up is down. Raises Rejected where there is no such subsystem."""
    if subsystem not in tree.roots:
        raise Rejected(
            f"the graph has no subsystem {subsystem[:40]!r}", code="bad-subsystem", hint=f"it has {', '.join(tree.roots)}"
        )
    held, marks = held or {}, marks or {}

    def parts(vertex: Vertex, inherited: str, inside: bool) -> list[Part]:
        own = marks.get(vertex.ordinal, "" if vertex.up else "down")
        mark = own or inherited
        units, jobs, ids = held.get(vertex.ordinal, NOTHING)
        whole = inside or (units > 0 and units >= vertex.size)
        below = vertex.children.get(subsystem, ())
        children = [one for child in below if child.parents[subsystem][0] is vertex for one in parts(child, mark, whole)]
        if vertex.ids and not children:
            return list(_apart(vertex.type, vertex.ids, vertex.ids if whole else ids, mark, vertex.basename))
        state = _of_container(children, own, whole, inherited) if children else _of_leaf(vertex.size, units, mark, whole)
        jobs = jobs.union(*(child.jobs for child in children if child.jobs))
        return [Part(
            vertex.type, vertex.name, vertex.basename, vertex.id, state, children, size=vertex.size, unit=vertex.unit,
            held=vertex.size if whole else units, jobs=jobs,
        )]  # fmt: skip

    return parts(tree.roots[subsystem], "", False)[0]


def of_inventory(nodes: Iterable[Node], name: str = "cluster0") -> Part:
    """The parts of an instance's nodes: cluster > nodes > cores, GPUs and memory, those in use apart from those that are not."""
    parts = [_of_node(node) for node in nodes]
    jobs = frozenset().union(*(part.jobs for part in parts))
    return Part("cluster", name, "cluster", 0, _of_container(parts, "", False), parts, jobs=jobs)


def _of_node(node: Node) -> Part:
    mark = "drained" if node.drain is not None else "" if node.online else "offline"
    children: list[Part] = []
    for kind, there, used in (("core", node.cores, node.used_cores), ("gpu", node.gpus, node.used_gpus)):
        children += _apart(kind, there, used, mark, kind)
    if node.memory_mb:
        used = node.used_memory_mb
        state = _of_leaf(node.memory_mb, used, mark, used >= node.memory_mb)
        children.append(Part("memory", "memory", "memory", -1, state, [], size=node.memory_mb, held=used, unit="MB"))
    state = _of_container(children, mark, False)
    if state == "mixed" and node.used_cores == node.cores:  # no job fits there any more, whatever memory is left
        state = "allocated"
    return Part("node", node.host, "", node.rank, state, children, jobs=frozenset(node.jobs | node.keeping))


def _apart(kind: str, there: int, used: int, mark: str, basename: str) -> Iterator[Part]:
    """Of a pool of single resources those in use, and the others."""
    for state, mask in (("allocated", there & used), (mark or "free", there & ~used)):
        if count := mask.bit_count():
            held = count if state == "allocated" else 0
            yield Part(kind, basename, basename, -1, state, [], count=count, size=count, held=held, mask=mask)


def _of_leaf(size: int, units: int, mark: str, whole: bool) -> str:
    if whole:
        return "allocated"
    return "mixed" if units else mark or "free"


def _of_container(children: list[Part], mark: str, whole: bool, inherited: str = "") -> str:
    if mark == "drained":
        return "draining" if whole or any(child.busy for child in children) else "drained"
    if mark or whole:
        return mark or "allocated"
    states = {child.state for child in children}
    if len(states) == 1:
        return states.pop()
    if any(child.busy for child in children):
        return "draining" if inherited == "drained" else "mixed"
    return "free" if "free" in states or not states else "down"


def at(part: Part, path: str) -> Part:
    """The part of a path ("/cluster0/rack3"). Raises Rejected, with how far it leads."""
    first, *rest = path.strip("/").split("/")
    here, done = part, f"/{part.name}"
    if first != part.name:
        raise Rejected(f"no {path!r} here: the root is {done}", code="no-such-path", hint=f"begin with {done}")
    for name in rest:
        found = next((child for child in here.children if child.name == name), None)
        if found is None:
            there = hostlist_of([child.name for child in here.children])
            hint = f"there {there[:60]}{'…' if len(there) > 60 else ''}" if there else "nothing is below it"
            raise Rejected(f"no {name[:60]!r} below {done}", code="no-such-path", hint=hint)
        here, done = found, f"{done}/{name}"
    return here


# --- groups


def summary(part: Part) -> Group:
    """A part and all below it, in groups."""
    return _group([part])


def _group(parts: list[Part]) -> Group:
    """One group of parts that are alike, and those below them."""
    first = parts[0]
    tally = Tally(unit=first.unit)
    for part in parts:
        tally.count += part.count
        tally.size += part.size
        tally.held += part.held
    tally.leaf = not any(part.children for part in parts)
    tally.by_state = {first.state: tally.count}
    tallies = {first.kind: tally}
    children = [_group(alike) for alike in _sorted_out([child for part in parts for child in part.children])]
    for child in children:
        for kind, one in child.tallies.items():
            tallies.setdefault(kind, Tally()).add(one)
    jobs = frozenset().union(*(part.jobs for part in parts))
    return Group(first.kind, _name(parts), first.state, tallies, jobs, children)


def _sorted_out(parts: list[Part]) -> Iterator[list[Part]]:
    """Those that are alike, kind by kind in the order of the graph, each in the order of `STATES`."""
    kinds: dict[str, list[Part]] = {}
    for part in parts:
        kinds.setdefault(part.kind, []).append(part)
    for alike in kinds.values():
        shapes: dict[Shape, int] = {}
        for part in alike:
            if part.children:
                shapes.setdefault(part.shape, len(shapes))
        apart = len(shapes) <= MAX_SHAPES
        found: dict[tuple[int, int], list[Part]] = {}
        for part in alike:
            key = (shapes.get(part.shape, 0) if apart else 0, STATES.index(part.state))
            found.setdefault(key, []).append(part)
        for key in sorted(found):
            yield found[key]


def _name(parts: list[Part]) -> str:
    first = parts[0]
    mask, numbers = 0, set()
    for part in parts:
        if part.mask:
            mask |= part.mask
        elif part.basename == first.basename and part.number >= 0 and part.name == f"{part.basename}{part.number}":
            numbers.add(part.number)
        else:
            return hostlist_of([part.name for part in parts])
    ids = [*idset.ids_of_mask(mask), *numbers]
    if len(ids) == 1:
        return f"{first.basename}{ids[0]}"
    return f"{first.basename}[{idset.format_ids(ids)}]"


def hostlist_of(names: Iterable[str]) -> str:
    """Names folded, each once; as they are where one cannot be a host's."""
    once = list(dict.fromkeys(names))
    try:
        return hostlist.compress(once)
    except Rejected:
        return ",".join(once)


def document(group: Group, depth: int | None = None) -> dict[str, object]:
    """A group as plain values: {type, name, state, count, size, held, unit, jobs, below: {kind: {...}}, children: [...]}."""
    from ...journal.ids import f58

    own = group.own
    below = {
        kind: {"count": one.count, "size": one.size, "held": one.held, "unit": one.unit, "states": one.by_state}
        for kind, one in group.tallies.items()
        if kind != group.kind
    }
    children = [] if depth == 0 else [document(child, depth - 1 if depth else None) for child in group.children]
    return {
        "type": group.kind, "name": group.name, "state": group.state, "count": own.count, "size": own.size, "held": own.held,
        "unit": own.unit, "jobs": [f58(job) for job in sorted(group.jobs)], "below": below, "children": children,
    }  # fmt: skip
