"""How long the live matcher takes on graphs and under each match policy, and what a graph costs to compile and to keep.

`python tests/bench/bench_graph.py [NODES ...]` prints it beside the budgets.
"""

from __future__ import annotations

import sys
import tracemalloc
from time import perf_counter, process_time
from typing import Any

from rig import micros

from fluxkv.schedulers.graph_pool import GraphPool
from fluxkv.schedulers.request import Request, compile_request
from fluxkv.schedulers.resources import Unmatched
from fluxkv.schedulers.tree.pooling import compact, nodes_of
from fluxkv.schedulers.tree.vertices import Tree, Vertex

CORES = 32
SIZES = (64, 1024, 4096, 16384)
BEST_ID = ("first", "low", "high", "lonode", "hinode")
BUDGETED = (*BEST_ID, "locality")
BUDGETS_US = {64: 1000.0, 1024: 1000.0, 4096: 3000.0, 16384: 12000.0}
PEERS_US = {64: 20_000.0, 1024: 20_000.0, 4096: 97_000.0}  # nested requests: what Fluxion takes for plain ones


def graph(nodes: int) -> Tree:
    """Racks of 64 nodes; each node has 2 sockets with half of 32 cores, 8 GPUs and 2 memories, and 2 NVMes: 49 vertices."""
    tree = Tree()
    top = tree.add(Vertex("cluster", "cluster", 0))
    tree.root(top)
    for rank in range(nodes):
        if rank % 64 == 0:
            rack = tree.add(Vertex("rack", "rack", rank // 64))
            tree.link(top, rack)
        node = tree.add(Vertex("node", "node", rank, rank=rank))
        tree.link(rack, node)
        for s in range(2):
            socket = tree.add(Vertex("socket", "socket", s, rank=rank))
            tree.link(node, socket)
            for kind, each in (("core", CORES // 2), ("gpu", 4)):
                for n in range(each):
                    tree.link(socket, tree.add(Vertex(kind, kind, s * each + n, rank=rank)))
            tree.link(socket, tree.add(Vertex("memory", "memory", s, size=256, unit="GB", rank=rank)))
        for n in range(2):
            tree.link(node, tree.add(Vertex("nvme", "nvme", n, rank=rank)))
    return tree.compile()


def _slot(count: Any, *held: dict[str, Any]) -> dict[str, Any]:
    return {"type": "slot", "count": count, "label": "task", "with": list(held)}


def _of(kind: str, count: Any, *held: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "count": count, **({"with": list(held)} if held else {})}


FLAT = {
    "1 core": _slot(1, _of("core", 1)),
    "8 whole nodes": _of("node", 8, _slot(1, _of("core", CORES))),
    "64 slots of 4 cores": _slot(64, _of("core", 4)),
    "too many nodes": _of("node", 1 << 20, _slot(1, _of("core", CORES))),
}
GENERAL = {
    "8 nodes, a socket each": _of("node", 8, _slot(1, _of("socket", 1, _of("core", 4), _of("gpu", 1)))),
    "4-16 nodes": _of("node", {"min": 4, "max": 16}, _slot(1, _of("core", 8))),
    "a rack of nodes": _of("rack", 1, _of("node", 16, _slot(2, _of("core", 4)))),
    "an nvme beside a slot": _of("node", 2, _of("nvme", 1), _slot(1, _of("core", 2))),
    "no node has three sockets": _of("node", 1, _slot(1, _of("socket", 3))),
}


def _ask(resource: dict[str, Any]) -> Request:
    return compile_request({"resources": [resource]})


def _filled(pool: GraphPool, share: float) -> GraphPool:
    """The low ranks full, so that what is free comes last."""
    full = int(len(pool.nodes) * share)
    if full:
        got = pool.match(_ask(_of("node", full, _slot(1, _of("core", CORES)))))
        assert not isinstance(got, Unmatched)
        pool.take(got)
    return pool


def _fill(pool: GraphPool, jobs: int) -> float:
    request = _ask(_slot(1, _of("core", 4)))
    start = perf_counter()
    for _ in range(jobs):
        got = pool.match(request)
        assert not isinstance(got, Unmatched)
        pool.take(got)
    return jobs / (perf_counter() - start)


def figures(sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """`[{name, value, unit, budget}, ...]`. A budget is the most allowed, or for a rate ("/s") the least."""
    found: list[dict[str, Any]] = []

    def add(name: str, value: float, unit: str, budget: float | None) -> None:
        found.append({"name": name, "value": round(value, 2), "unit": unit, "budget": budget})

    for count in sizes:
        loaded = graph(count)
        start = process_time()
        tree = compact(loaded)
        nodes = nodes_of(tree)
        GraphPool(nodes, tree)
        add(f"compile a graph of {count} nodes (processor time)", process_time() - start, "s", 5.0 if count <= 4096 else None)
        del loaded
        empty = {policy: GraphPool(nodes, tree, policy) for policy in (*BEST_ID, "lonodex", "locality", "variation")}
        for word, share in (("empty", 0.0), ("half full", 0.5), ("nearly full", 0.99)):
            for policy, base in empty.items():
                pool = _filled(base.copy(), share)
                budget = BUDGETS_US.get(count) if policy in BUDGETED else None
                for text, resource in FLAT.items():
                    request = _ask(resource)
                    repeat = 1 if policy not in BUDGETED else 20
                    value = micros(lambda pool=pool, request=request: pool.match(request), repeat, 3)
                    add(f"{policy}: match {text}, {count} nodes {word}", value, "us", budget)
                if policy in ("first", "low"):
                    for text, resource in GENERAL.items():
                        request = _ask(resource)
                        value = micros(lambda pool=pool, request=request: pool.match(request), 1, 3)
                        add(f"{policy}: match {text}, {count} nodes {word}", value, "us", PEERS_US.get(count))
        if count == 1024:
            for policy in BEST_ID:
                add(f"{policy}: fill 1024 nodes with 8192 four-core jobs", _fill(empty[policy].copy(), 8192), "/s", 2400)
    add("a graph of 4096 nodes in memory, with its pool", _megabytes(4096), "MB", 100)
    return found


def _megabytes(count: int) -> float:
    loaded = graph(count)
    tracemalloc.start()
    tree = compact(loaded)
    pool = GraphPool(nodes_of(tree), tree)
    for resource in (*FLAT.values(), *GENERAL.values()):
        pool.match(_ask(resource))
    size = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    return size


def main() -> None:
    """Print the figures beside their budgets."""
    for line in figures(tuple(map(int, sys.argv[1:])) or SIZES):
        budget, value = line["budget"], line["value"]
        within = budget is None or (value >= budget if line["unit"] == "/s" else value <= budget)
        shown = "" if budget is None else f"budget {budget:>8,.0f}  {'ok' if within else 'MISSED'}"
        print(f"{line['name']:<70} {value:>12,.2f} {line['unit']:<3} {shown}")


if __name__ == "__main__":
    main()
