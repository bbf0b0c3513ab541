"""Small graphs and requests for tests of the matcher of trees."""

from __future__ import annotations

from typing import Any

from fluxkv.schedulers.tree.grug import from_grug
from fluxkv.schedulers.tree.needs import TreeRequest, compile_request
from fluxkv.schedulers.tree.system import System
from fluxkv.schedulers.tree.vertices import Tree

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
