"""GRUG: recipes in GraphML that generate a system, as the Flux project's scheduler reads them.

A vertex of the recipe is a kind of pool; an edge says how it is made below another: `MULTIPLY` makes
`multi_scale` copies below each vertex of its source, `ASSOCIATE_IN` puts all vertices of the target's type that
another subsystem has below it, `ASSOCIATE_BY_PATH_IN` only those whose ancestor `as_tgt_uplvl` up is the
source's `as_src_uplvl` up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from xml.etree import ElementTree

from .vertices import CONTAINMENT, MAX_VERTICES, Tree, Vertex, ancestors, fault

_NODE = {"root": 0, "type": "", "basename": "", "unit": "", "size": 1, "subsystem": CONTAINMENT}
_EDGE = {
    "e_subsystem": CONTAINMENT, "id_scope": 0, "id_start": 0, "id_stride": 1, "gen_method": "MULTIPLY", "multi_scale": 1,
    "as_tgt_subsystem": CONTAINMENT, "as_tgt_uplvl": 1, "as_src_uplvl": 1, "relation": "contains", "rrelation": "in",
}  # fmt: skip


class _Edge(NamedTuple):
    name: str
    target: str
    data: dict[str, Any]


def from_grug(text: str) -> Tree:
    """The tree that a recipe makes. Raises Rejected (code "bad-graph") with the element at fault."""
    return _Grower(*_recipe(text)).grow()


def _recipe(text: str) -> tuple[dict[str, dict[str, Any]], dict[str, list[_Edge]]]:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise fault("entities are not read", "GraphML")
    try:
        top = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:  # a lone surrogate is no text that could be parsed
        raise fault(f"not XML: {error}", "GraphML") from None
    names, defaults = _keys(top)
    kinds: dict[str, dict[str, Any]] = {}
    edges: dict[str, list[_Edge]] = {}
    graph = next(_named(top, "graph"), None)
    if graph is None:
        raise fault("has no graph", "GraphML")
    for element in _named(graph, "node"):
        name = element.get("id") or ""
        if not name or name in kinds:
            raise fault(f"node {name!r} has no id of its own", "GraphML")
        kinds[name] = _data(element, names, {**_NODE, **defaults["node"]}, f"node {name!r}")
        if not kinds[name]["type"]:
            raise fault("has no type", f"node {name!r}")
    for element in _named(graph, "edge"):
        name = element.get("id") or f"{element.get('source')}->{element.get('target')}"
        source, target = element.get("source", ""), element.get("target", "")
        for end in (source, target):
            if end not in kinds:
                raise fault(f"names no node: {end!r}", f"edge {name!r}")
        data = _data(element, names, {**_EDGE, **defaults["edge"]}, f"edge {name!r}")
        edges.setdefault(source, []).append(_Edge(name, target, data))
    return kinds, edges


def _named(top: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in top if child.tag.rpartition("}")[2] == name)


def _keys(top: ElementTree.Element) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """key id -> attribute's name; "node" and "edge" -> defaults that the file gives."""
    names: dict[str, str] = {}
    defaults: dict[str, dict[str, Any]] = {"node": {}, "edge": {}}
    for key in _named(top, "key"):
        name = key.get("attr.name") or key.get("id") or ""
        names[key.get("id", "")] = name
        for default in _named(key, "default"):
            known = {"node": _NODE, "edge": _EDGE}.get(key.get("for", ""), {})
            if name in known:
                value = _value(default.text, known[name], f"key {name!r}")
                defaults[key.get("for", "")][name] = value
    return names, defaults


def _data(element: ElementTree.Element, names: dict[str, str], data: dict[str, Any], where: str) -> dict[str, Any]:
    for item in _named(element, "data"):
        name = names.get(item.get("key", ""), item.get("key", ""))
        if name in data:
            data[name] = _value(item.text, data[name], f"{where}.{name}")
    return data


def _value(text: str | None, like: object, where: str) -> Any:
    text = (text or "").strip()
    if not isinstance(like, int):
        return text
    try:
        number = int(text)
    except ValueError:
        raise fault(f"must be a whole number, not {text[:40]!r}", where) from None
    if number < 0:
        raise fault("must not be negative", where)
    return number


class _Grower:
    """Walks the recipe depth first, edge by edge; an edge is done for all vertices of its source at once."""

    def __init__(self, kinds: dict[str, dict[str, Any]], edges: dict[str, list[_Edge]]) -> None:
        self.kinds = kinds
        self.edges = edges
        self.tree = Tree()
        self.made: dict[str, list[Vertex]] = {}
        self.ranks = 0

    def grow(self) -> Tree:
        roots = [name for name, kind in self.kinds.items() if kind["root"]]
        if not roots:
            raise fault("no node of the recipe is a root", "GraphML")
        for name in roots:
            kind = self.kinds[name]
            vertex = self.tree.add(self._vertex(kind, 0))
            self.tree.root(vertex, kind["subsystem"])
            self.made[name] = [vertex]
            self._below(name, (name,))
        return self.tree.compile()

    def _below(self, source: str, way: tuple[str, ...]) -> None:
        for edge in self.edges.get(source, ()):
            if edge.target in way:
                raise fault("leads back to where it came from", f"edge {edge.name!r}")
            method = edge.data["gen_method"]
            if method == "MULTIPLY":
                self._multiply(source, edge)
            elif method in ("ASSOCIATE_IN", "ASSOCIATE_BY_PATH_IN"):
                self._associate(source, edge, method.endswith("PATH_IN"))
            else:
                raise fault(f"unknown gen_method {method[:40]!r}", f"edge {edge.name!r}")
            self._below(edge.target, (*way, edge.target))

    def _multiply(self, source: str, edge: _Edge) -> None:
        data, kind = edge.data, self.kinds[edge.target]
        made: list[Vertex] = []
        counts: dict[int, int] = {}
        parents = self.made[source]
        if len(self.tree.vertices) + len(parents) * data["multi_scale"] > MAX_VERTICES:
            raise fault(f"makes more than {MAX_VERTICES} vertices", f"edge {edge.name!r}")
        for parent in parents:
            scope = parent
            for _, above in zip(range(data["id_scope"]), ancestors(parent, data["e_subsystem"]), strict=False):
                scope = above
            at = counts.get(scope.ordinal, 0)
            counts[scope.ordinal] = at + data["multi_scale"]
            for i in range(at, at + data["multi_scale"]):
                vertex = self.tree.add(self._vertex(kind, data["id_start"] + i * data["id_stride"]))
                self.tree.link(parent, vertex, data["e_subsystem"])
                made.append(vertex)
        self.made[edge.target] = made

    def _associate(self, source: str, edge: _Edge, by_path: bool) -> None:
        """Put vertices of another subsystem, which are there already, below those of the source."""
        data, kind = edge.data, self.kinds[edge.target]["type"]
        subsystem, of = data["e_subsystem"], data["as_tgt_subsystem"]
        targets = [v for v in self.tree.vertices if v.type == kind and of in v.parents]
        groups: dict[int, list[Vertex]] = {}
        for target in targets:
            groups.setdefault(_above(target, of, data["as_tgt_uplvl"]) if by_path else -1, []).append(target)
        made: list[Vertex] = []
        if len(self.made[source]) * max(map(len, groups.values()), default=0) > MAX_VERTICES:
            raise fault(f"puts more than {MAX_VERTICES} vertices below others", f"edge {edge.name!r}")
        for parent in self.made[source]:
            where = _above(parent, of, data["as_src_uplvl"]) if by_path else -1
            for target in groups.get(where, ()):
                self.tree.link(parent, target, subsystem)
                made.append(target)
        self.made[edge.target] = list(dict.fromkeys(made))

    def _vertex(self, kind: dict[str, Any], number: int) -> Vertex:
        rank = -1
        if kind["type"] == "node":
            rank, self.ranks = self.ranks, self.ranks + 1
        basename = kind["basename"] or kind["type"]
        return Vertex(kind["type"], basename, number, size=kind["size"], unit=kind["unit"], rank=rank)


def _above(vertex: Vertex, subsystem: str, levels: int) -> int:
    """The ordinal of the vertex so many levels up; -2 where there is none."""
    for level, above in enumerate(ancestors(vertex, subsystem), 1):
        if level == levels:
            return above.ordinal
    return vertex.ordinal if not levels else -2
