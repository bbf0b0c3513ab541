"""Small graphs and requests for tests of the matcher of trees."""

from __future__ import annotations

from typing import Any

from fluxkv.schedulers.tree.grug import from_grug
from fluxkv.schedulers.tree.needs import TreeRequest, compile_request
from fluxkv.schedulers.tree.system import System
from fluxkv.schedulers.tree.vertices import Tree, Vertex

HEAD = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'


def recipe(*edges: tuple[str, str, int], sizes: dict[str, int] | None = None, scopes: dict[str, int] | None = None) -> str:
    """A GRUG recipe of (above, below, copies); the first vertex is the root. sizes and scopes: by type below."""
    kinds = list(dict.fromkeys([kind for edge in edges for kind in edge[:2]]))
    lines = [HEAD, '<graph id="test" edgedefault="directed">']
    for n, kind in enumerate(kinds):
        data = f'<data key="type">{kind}</data><data key="size">{(sizes or {}).get(kind, 1)}</data>'
        lines.append(f'<node id="{kind}"><data key="root">{int(n == 0)}</data>{data}</node>')
    for above, below, copies in edges:
        data = f'<data key="multi_scale">{copies}</data><data key="id_scope">{(scopes or {}).get(below, 0)}</data>'
        lines.append(f'<edge id="{above}2{below}" source="{above}" target="{below}">{data}</edge>')
    return "\n".join([*lines, "</graph></graphml>"])


def tree(racks: int = 1, nodes: int = 2, sockets: int = 2, cores: int = 4, memories: int = 2, memory_size: int = 4) -> Tree:
    """cluster > rack > node > socket > core, memory; nodes are numbered over the cluster, cores over the node."""
    return from_grug(
        recipe(
            ("cluster", "rack", racks), ("rack", "node", nodes), ("node", "socket", sockets), ("socket", "core", cores),
            ("socket", "memory", memories), sizes={"memory": memory_size}, scopes={"node": 1, "core": 1, "memory": 1},
        )
    )  # fmt: skip


def racks(racks: int = 2, nodes: int = 2, cores: int = 2) -> Tree:
    """cluster > racks (10 kW) > nodes (cores, two NVMe); a switch with bandwidth above all nodes in a subsystem of its own."""
    tree = Tree()
    top = tree.add(Vertex("cluster", "cluster", 0))
    tree.root(top)
    switch = tree.add(Vertex("switch", "switch", 0, size=100, unit="Gb"))
    tree.root(switch, "network")
    for r in range(racks):
        rack = tree.add(Vertex("rack", "rack", r, properties={"row": str(r % 2)}))
        tree.link(top, rack)
        tree.link(rack, tree.add(Vertex("power", "power", r, size=10, unit="kW", name="power0")))
        for n in range(r * nodes, (r + 1) * nodes):
            node = tree.add(Vertex("node", "n", n, rank=n))
            tree.link(rack, node)
            tree.link(switch, node, "network")
            tree.link(node, tree.add(Vertex("core", "core", 0, name="core", size=cores, ids=(1 << cores) - 1, rank=n)))
            tree.link(node, tree.add(Vertex("nvme", "nvme", 0, name="nvme", size=2, ids=3, rank=n)))
    return tree.compile()


def vertex(kind: str, count: Any = 1, *below: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A vertex of a jobspec."""
    made = {"type": kind, "count": count, **more}
    return {**made, "with": list(below)} if below else made


def request(*resources: dict[str, Any], duration: int = 100, **system: Any) -> TreeRequest:
    """The compiled request for some resources."""
    return compile_request({"resources": list(resources), "attributes": {"system": {"duration": duration, **system}}})


def taken(system: System, job: int) -> list[str]:
    """What a job holds exclusively, by path."""
    uses = system.ledger.jobs[job].uses.values()
    return sorted(v.path(system.subsystem) for v, _, exclusive in uses if exclusive)


def overbooked(system: System) -> list[str]:
    """What is wrong with who holds what: more units than there are, or company for one who asked for none."""
    wrong = []
    jobs = list(system.ledger.jobs.values())
    for moment in sorted({job.start for job in jobs}):
        on: dict[int, list[tuple[Any, int, bool]]] = {}
        for job in jobs:
            if job.start <= moment < job.end:
                for use in job.uses.values():
                    on.setdefault(use[0].ordinal, []).append(use)
        for uses in on.values():
            vertex = uses[0][0]
            held = sum(units for _, units, exclusive in uses if exclusive)
            if held > vertex.size or (len(uses) > 1 and held):
                wrong.append(f"{vertex!r} at {moment}: {uses}")
    return wrong
