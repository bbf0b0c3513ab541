"""What a graph of resources must be to be kept: the form of its columns, names, one root a subsystem, no circles, limits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..kvs.errors import Rejected
from .idset import MAX_ID
from .shown import shown

if TYPE_CHECKING:
    from .resource_graph import Columns

MAX_VERTICES = 1 << 19
MAX_EDGES = 1 << 20
MAX_DEPTH = 64
MAX_NAME = 256
MAX_SUBSYSTEMS = 64
MOST = 1 << 53


def check(columns: Columns) -> None:
    """Raise `Rejected` (code bad-graph) with the place of the fault; that two vertices are at one path is not looked for."""
    count = len(columns.kind)
    if not 0 < count <= MAX_VERTICES:
        raise bad("graph", f"has {count} vertices; from 1 to {MAX_VERTICES} are possible")
    for name, low, high in (("kind", 0, len(columns.kinds) - 1), ("id", -1, MOST), ("size", 0, MOST), ("rank", -1, MAX_ID - 1)):
        column = getattr(columns, name)
        if len(column) != count or not integers(column, low, high):
            raise bad(name, f"must be {count} integers from {low} to {high}")
    for where, named in enumerate(columns.kinds):
        for text in named[:2]:
            _check_name(f"kinds[{where}]", text)
        if len(named[2]) > MAX_NAME:
            raise bad(f"kinds[{where}]", "has a unit that is too long")
    for at, text in columns.names.items():
        _check_name("names", text)
        _check_position("names", at, count)
    for at, mask in columns.ids.items():
        _check_position("ids", at, count)
        if mask.bit_count() != columns.size[at]:
            raise bad("ids", f"{columns.name(at)} has {mask.bit_count()} ids and the size {columns.size[at]}")
    for at, named_values in columns.properties.items():
        _check_position("properties", at, count)
        _check_properties(named_values)
    for at in columns.down:
        _check_position("down", at, count)
    if not columns.edges and count > 1:
        raise bad("edges", "there are none")
    if len(columns.edges) > MAX_SUBSYSTEMS or sum(len(out) for out, _ in columns.edges.values()) > MAX_EDGES:
        raise bad("edges", f"are more than {MAX_EDGES}, or of more than {MAX_SUBSYSTEMS} subsystems")
    inside: set[int] = set() if columns.edges else {0}
    for name, (out, into) in columns.edges.items():
        inside |= _check_edges(name, out, into, count)
    if len(inside) != count:
        lost = next(at for at in range(count) if at not in inside)
        raise bad("edges", f"{columns.name(lost)} is below no root")
    if len(columns.edges) > 1:
        _check_together(columns)
    _check_nodes(columns)


def _check_name(where: str, text: Any) -> None:
    if not isinstance(text, str) or not 0 < len(text) <= MAX_NAME or "/" in text or not text.isprintable():
        raise bad(where, f"{shown(text)} is no name: it has 1 to {MAX_NAME} characters, and no /")


def _check_position(where: str, at: Any, count: int) -> None:
    if type(at) is not int or not 0 <= at < count:
        raise bad(where, f"there is no vertex {shown(at)}")


def _check_properties(values: Any) -> None:
    if not isinstance(values, dict) or len(values) > 4096:
        raise bad("properties", "must be an object with at most 4096 names")
    for name, value in values.items():
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not isinstance(value, str) or len(value) > 4096:
            raise bad("properties", f"{shown(name)} is no name with a text as its value")


def _check_edges(name: str, out: list[int], into: list[int], count: int) -> set[int]:
    """The vertices of one subsystem, which has one root, no cycle and no more than so many levels. Positions are as they were
    decoded, so within limits only when seen here."""
    _check_name("edges", name)
    if len(out) != len(into) or not out or not integers(out, 0, count - 1) or not integers(into, 0, count - 1):
        raise bad(f"edges of {name}", "must be as many parents as children, which are there")
    if len(set(zip(out, into, strict=True))) != len(out):
        raise bad(f"edges of {name}", "one is there twice")
    members = {*out, *into}
    roots = set(out).difference(into)
    if len(roots) != 1:
        raise bad(f"edges of {name}", f"must lead from one root, not from {len(roots)}")
    _check_levels(f"edges of {name}", out, into, roots, len(members))
    return members


def _check_levels(where: str, out: Sequence[int], into: Sequence[int], roots: Iterable[int], count: int) -> None:
    """No circle among so many vertices, and no more than so many levels."""
    below: dict[int, list[int]] = {}
    missing: dict[int, int] = {}
    for parent, child in zip(out, into, strict=True):
        below.setdefault(parent, []).append(child)
        missing[child] = missing.get(child, 0) + 1
    level, seen, depth = list(roots), 0, 0
    while level:
        seen, depth = seen + len(level), depth + 1
        if depth > MAX_DEPTH:
            raise bad(where, f"lead more than {MAX_DEPTH} deep")
        following = []
        for parent in level:
            for child in below.get(parent, ()):
                missing[child] -= 1
                if not missing[child]:
                    following.append(child)
        level = following
    if seen != count:
        raise bad(where, "lead in a circle")


def _check_together(columns: Columns) -> None:
    """A search goes from one subsystem to another: what is below in one must not be above in another."""
    out = [parent for parents, _ in columns.edges.values() for parent in parents]
    into = [child for _, children in columns.edges.values() for child in children]
    members = {*out, *into}
    _check_levels(f"edges of {' and '.join(columns.edges)}", out, into, members.difference(into), len(members))


def _check_nodes(columns: Columns) -> None:
    """A rank is one node's."""
    seen: dict[int, int] = {}
    for at, kind in enumerate(columns.kind):
        if columns.rank[at] >= 0 and columns.kinds[kind][0] == "node" and seen.setdefault(columns.rank[at], at) != at:
            first = columns.name(seen[columns.rank[at]])
            raise bad("rank", f"{first} and {columns.name(at)} are both the node of rank {columns.rank[at]}")


def integers(values: Sequence[Any], low: int, high: int) -> bool:
    """Are these all integers within these limits?"""
    return set(map(type, values)) <= {int} and (not values or (min(values) >= low and max(values) <= high))


def bad(where: str, why: str) -> Rejected:
    """What a graph that cannot be is refused with."""
    return Rejected(f"bad resource graph: {where}: {why}", code="bad-graph", hint="mend the graph")
