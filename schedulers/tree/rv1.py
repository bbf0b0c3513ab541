"""R version 1 (RFC 20) as a tree, and as a choice of vertices of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...journal import idset
from ...journal.rset import parse_R
from .jgf import from_jgf
from .vertices import MAX_VERTICES, Tree, Vertex, fault, preorder

_NUMBERED = re.compile(r"(.*?)([0-9]+)\Z", re.S)


def from_rv1(R: str | Mapping[str, Any]) -> Tree:
    """cluster > nodes > cores and GPUs; a `scheduling` graph in JGF says it better, and is taken where there is one."""
    resources = parse_R(R)
    if resources.scheduling is not None and "graph" in resources.scheduling:
        return from_jgf(resources.scheduling)
    if sum(node.cores.bit_count() + node.gpus.bit_count() + 2 for node in resources.nodes) >= MAX_VERTICES:
        raise fault(f"more than {MAX_VERTICES} vertices", "execution.R_lite")
    tree = Tree()
    top = tree.add(Vertex("cluster", "cluster", 0))
    tree.root(top)
    for node in resources.nodes:
        found = _NUMBERED.match(node.host)
        basename, number = (found[1], int(found[2])) if found else (node.host, node.rank)
        properties = dict.fromkeys(node.properties, "")
        here = tree.add(Vertex("node", basename, number, name=node.host, rank=node.rank, properties=properties))
        tree.link(top, here)
        for kind, mask in (("core", node.cores), ("gpu", node.gpus)):
            for number in idset.ids_of_mask(mask):
                tree.link(here, tree.add(Vertex(kind, kind, number, rank=node.rank)))
        if node.memory_mb:
            tree.link(here, tree.add(Vertex("memory", "memory", 0, size=node.memory_mb, unit="MB", rank=node.rank)))
    return tree.compile()


def nodes_in(tree: Tree, R: str | Mapping[str, Any]) -> list[Vertex]:
    """The nodes of a tree that an R names by rank. Raises Rejected where one is not there."""
    return [_node(tree, node.rank) for node in parse_R(R).nodes]


def named_in(tree: Tree, R: str | Mapping[str, Any]) -> list[tuple[Vertex, int, bool]]:
    """The cores and GPUs that an R names, exclusively, and their nodes, shared."""
    found: list[tuple[Vertex, int, bool]] = []
    for node in parse_R(R).nodes:
        vertex = _node(tree, node.rank)
        found.append((vertex, vertex.size, False))
        wanted = {"core": node.cores, "gpu": node.gpus}
        for below in preorder(vertex, tree.dominant):
            mask = wanted.get(below.type, 0)
            if below.id >= 0 and mask >> below.id & 1:
                wanted[below.type] &= ~(1 << below.id)
                found.append((below, below.size, True))
        for kind, mask in wanted.items():
            if mask:
                raise fault(f"rank {node.rank} has no {kind} {idset.text_of(mask)}", "execution.R_lite")
    return found


def _node(tree: Tree, rank: int) -> Vertex:
    for vertex in tree.by_rank.get(rank, ()):
        if vertex.type == "node":
            return vertex
    raise fault(f"rank {rank} is not here", "execution.R_lite")
