"""A change of the graph of resources as an event has it: what changes, not all that there is then. Pure.

Whoever decides on a change and whoever folds it make the new graph by the same function, `edited`. Whole graphs stand only in
events that bring another one (an inventory is defined or reloaded, a host joins or leaves).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import graph_edit
from .graph_checks import bad
from .idset import format_ids, ids_of_mask, mask_of
from .resource_graph import ResourceGraph, from_wire
from .values import integer, text

Edit = dict[str, Any]  # {kind: {...}}, of one kind


def attached(tree: Mapping[str, Any], under: str, ranks: Mapping[int, int]) -> Edit:
    """What another graph has below its root, below the vertex of a path. ranks: of that graph, what they become here."""
    return {"attach": {"tree": tree, "under": under, "ranks": [list(pair) for pair in sorted(ranks.items())]}}


def removed(paths: Iterable[str]) -> Edit:
    """These vertices and what is below them."""
    return {"remove": {"paths": list(paths)}}


def named(paths: Iterable[str], ranks: Iterable[int], names: Mapping[str, str], gone: Sequence[str]) -> Edit:
    """Properties of vertices, and of the nodes of these ranks, set and taken away."""
    return {"property": {"paths": list(paths), "ranks": format_ids(ranks), "set": dict(names), "unset": list(gone)}}


def put(paths: Iterable[str], up: bool) -> Edit:
    """These vertices are in use for new jobs, or out of it."""
    return {"status": {"paths": list(paths), "up": up}}


def edited(graph: ResourceGraph, edit: Any) -> ResourceGraph:
    """The graph after a change. Raises `Rejected` for one that it does not allow, and what else the fold skips (`MALFORMED`) for
    one that makes no sense."""
    if not isinstance(edit, Mapping) or len(edit) != 1:
        raise bad("edit", "must say one change")
    ((kind, what),) = edit.items()
    if kind == "attach":
        ranks = {integer(rank): integer(becomes) for rank, becomes in what["ranks"]}
        return graph_edit.merged(graph, from_wire(what["tree"]), text(what["under"]), ranks)[0]
    if kind == "remove":
        return graph_edit.without(graph, _positions(graph, what["paths"]))
    if kind == "status":
        if type(what["up"]) is not bool:
            raise bad("edit.status.up", "must be true or false")
        return graph_edit.with_status(graph, _positions(graph, what["paths"]), up=what["up"])
    if kind == "property":
        nodes = graph.nodes()
        positions = {*_positions(graph, what["paths"]), *(nodes[rank].at for rank in ids_of_mask(mask_of(what["ranks"])))}
        names = {text(name): text(value) for name, value in what["set"].items()}
        return graph_edit.with_properties(graph, positions, names, [text(name) for name in what["unset"]])
    raise bad("edit", "is of no kind that is known")


def _positions(graph: ResourceGraph, paths: Any) -> list[int]:
    if not isinstance(paths, list):
        raise bad("edit.paths", "must be a list of paths")
    return [graph_edit.position(graph, text(path)) for path in paths]
