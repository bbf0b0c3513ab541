"""Files that say which resources there are: R (RFC 20), JGF (RFC 40, Fluxion's), GRUG recipes (GraphML), hwloc's XML.

Decides which form a text has, and what of it an instance's inventory is: nodes with ranks, and the graph where there is one.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..journal.rset import ResourceSet, parse_R
from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from ..schedulers.tree.vertices import Tree

AUTO, RV1, JGF, GRUG, HWLOC = FORMS = ("auto", "rv1", "jgf", "grug", "hwloc")
MOST = 1 << 28  # characters of a file


def read(path: str) -> str:
    """The text of a file, "-" for standard input. Raises `Rejected` (code unreadable)."""
    try:
        if path == "-":
            return sys.stdin.read(MOST)
        with open(path, encoding="utf-8") as file:
            return file.read(MOST)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"it is not text: {error.reason} at byte {error.start}") from None


def _unreadable(path: str, why: str) -> Rejected:
    return Rejected(f"{path}: {why}", code="unreadable", hint=f"a file of resources is one of {', '.join(FORMS[1:])}")


def form_of(text: str) -> str:
    """Which form a text has. Raises `Rejected` (code bad-format) where it is none of them."""
    head = text.lstrip("\ufeff \t\r\n")[:4096]
    if head.startswith("<"):
        if "<graphml" in head:
            return GRUG
        if "<topology" in head:
            return HWLOC
        raise _no_form("it is XML, but neither GraphML nor a topology of hwloc")
    if not head.startswith(("{", "[")):
        raise _no_form("it is neither JSON nor XML")
    document = _json(text)
    keys = document if isinstance(document, dict) else {}
    if "execution" in keys or "version" in keys:
        return RV1
    if "graph" in keys or "nodes" in keys:
        return JGF
    raise _no_form("it is JSON, but has neither execution (R) nor graph (JGF)")


def _no_form(why: str) -> Rejected:
    return Rejected(why, code="bad-format", hint=f"known are {', '.join(FORMS[1:])}")


def load(paths: Sequence[str], form: str = AUTO) -> ResourceSet:
    """The inventory in these files; several only of hwloc, one a node. Raises `Rejected`, naming the file."""
    texts = [(path, read(path)) for path in paths]
    enabled = gc.isenabled()
    gc.disable()  # nothing of a graph is garbage, and looking for some takes longer than reading it
    try:
        return _loaded(texts, form)
    finally:
        if enabled:
            gc.enable()


def _loaded(texts: Sequence[tuple[str, str]], form: str) -> ResourceSet:
    trees: list[Tree] = []
    for path, text in texts:
        try:
            kind = form if form != AUTO else form_of(text)
            if len(texts) > 1 and kind != HWLOC:
                raise Rejected("several files are one machine each, as hwloc has it", code="bad-format", hint="give one file")
            if kind == RV1:
                return from_R(_json(text))
            trees.append(_tree(text, kind))
            if len(trees) == len(texts):
                return inventory_of(_joined(trees))
        except Rejected as error:
            where = "standard input" if path == "-" else path
            raise Rejected(f"{where}: {error}", code=error.code, hint=error.hint) from None
    raise Rejected("no file is given", code="bad-format", hint="give a file of resources")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"not JSON: {error}", code="bad-format", hint=f"known are {', '.join(FORMS[1:])}") from None


def _tree(text: str, form: str) -> Tree:
    if form == GRUG:
        from ..schedulers.tree.grug import from_grug

        return from_grug(text)
    if form == HWLOC:
        from ..schedulers.tree.hwloc import from_hwloc

        return from_hwloc(text)
    from ..schedulers.tree.jgf import from_jgf

    return from_jgf(_json(text))


def _joined(trees: Sequence[Tree]) -> Tree:
    """One cluster of several machines, whose ranks are in the order in which they are given."""
    first = trees[0]
    for rank, tree in enumerate(trees):
        for vertex in tree.vertices:
            vertex.rank = rank if len(trees) > 1 else vertex.rank
        if rank:
            top, root = tree.roots["containment"], first.roots["containment"]
            for vertex in tree.vertices:
                if vertex is not top:
                    vertex.ordinal = -1
                    first.add(vertex)
            for child in top.children["containment"]:
                child.parents["containment"] = []
                first.link(root, child)
    if len(trees) > 1:
        first.roots["containment"].rank = -1
    return first.compile()


def from_R(document: str | Mapping[str, Any]) -> ResourceSet:
    """The inventory of an R. With a graph in `scheduling` (JGF of any writer, or ours) that says what there is; nodes keep
    the properties that R gives them besides. Raises `Rejected`."""
    resources = parse_R(document)
    if resources.tree is not None:
        from ..journal.resource_graph import graph_of

        graph_of(resources)
        return resources
    if resources.scheduling is None or "graph" not in resources.scheduling:
        return resources
    from ..schedulers.tree.jgf import from_jgf

    found = inventory_of(from_jgf(resources.scheduling))
    known = {node.rank: node for node in found.nodes}
    nodes = []
    for node in resources.nodes:
        graph = known.pop(node.rank, None)
        if graph is None:
            raise _bad_R(f"rank {node.rank} ({node.host}) is not in the graph of scheduling")
        listed, drawn = ((one.cores.bit_count(), one.gpus.bit_count()) for one in (node, graph))
        if listed != drawn:
            raise _bad_R(
                f"rank {node.rank} ({node.host}) has {listed[0]} cores and {listed[1]} GPUs, in the graph {drawn[0]} and {drawn[1]}"
            )
        names = tuple(sorted({*node.properties, *graph.properties}))
        nodes.append(graph._replace(host=node.host, properties=names, memory_mb=graph.memory_mb or node.memory_mb))
    if known:
        raise _bad_R(f"rank {min(known)} of the graph of scheduling is not in R_lite")
    return resources._replace(nodes=tuple(nodes), scheduling=None, tree=found.tree)


def _bad_R(why: str) -> Rejected:
    return Rejected(f"bad R: {why}", code="bad-R", hint="see RFC 20")


def inventory_of(tree: Tree) -> ResourceSet:
    """What a graph has for jobs to run on: its nodes, numbered in its order where they have no ranks. Raises `Rejected`."""
    from ..schedulers.tree.pooling import compact, nodes_of
    from ..schedulers.tree.record import to_record

    number_nodes(tree)
    small = compact(tree)
    nodes = nodes_of(small)
    for node in nodes:
        if not node.cores:
            raise Rejected(f"the graph has no core in {node.host}", code="bad-graph", hint="a node that jobs run on has cores")
    return ResourceSet(nodes, tree=to_record(small).wire)


def number_nodes(tree: Tree, first: int = 0) -> None:
    """Give nodes ranks, in the order of the graph, from `first` on, where none has one. Raises `Rejected` where only some have."""
    nodes = [vertex for vertex in tree.vertices if vertex.type == "node"]
    without = [vertex for vertex in nodes if vertex.rank < 0]
    if not nodes:
        raise Rejected("the graph has no vertex of type node", code="bad-graph", hint="jobs run on nodes")
    if without and len(without) < len(nodes):
        why = f"the graph: {without[0].name} has no rank, and {_ranked(nodes)} has one"
        raise Rejected(why, code="bad-graph", hint="give all nodes a rank, or none")
    if without:
        tree.by_rank.clear()
        for rank, vertex in enumerate(_in_order(tree), first):
            vertex.rank = rank
            tree.by_rank[rank] = [vertex]


def _ranked(nodes: Iterable[Any]) -> str:
    return str(next(vertex.name for vertex in nodes if vertex.rank >= 0))


def _in_order(tree: Tree) -> list[Any]:
    from ..schedulers.tree.vertices import preorder

    found: dict[int, Any] = {}
    for subsystem, root in tree.roots.items():
        for vertex in preorder(root, subsystem):
            if vertex.type == "node":
                found.setdefault(vertex.ordinal, vertex)
    return list(found.values())
