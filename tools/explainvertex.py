"""`fluxkv explain` of a vertex of the resource graph: who draws on it, how much is left, who has something below it."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from ..instances.explaining import Holder, holders_on
from ..journal.ids import f58
from ..kvs.errors import Rejected
from .explainnode import when
from .explainpage import Page, count, hosts_of, until, whose
from .explainpending import NAME, SHOWN, holder_document, holder_row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..instances.outlook import Outlook
    from ..journal.claims import Claim
    from ..journal.job import Job
    from ..journal.resource_graph import Place, ResourceGraph
    from ..journal.state import State


def place_of(state: State, path: str) -> Place:
    """Where a vertex is. Raises `Rejected` for a path that leads to none."""
    if state.graph is None:
        raise Rejected(f"{path[:60]}: the instance has no graph of resources", code="no-such-vertex", hint="name a node, or a rank")
    path = path.rstrip("/")
    found = state.graph.places.get(path)
    if found is None:
        near = difflib.get_close_matches(path, list(state.graph.places)[:5000], 3)
        hint = f"there are {', '.join(near)}" if near else "fluxkv resource show --json names them"
        raise Rejected(f"{path[:200] or '/'}: no such vertex", code="no-such-vertex", hint=hint)
    return found


def explain_vertex(state: State, path: str, place: Place, outlook: Outlook, now: float) -> tuple[dict[str, Any], Page]:
    """(document, page)."""
    graph = state.graph
    assert graph is not None
    path = path.rstrip("/")
    columns = graph.columns
    unit = columns.kinds[columns.kind[place.at]][2] or columns.type(place.at)
    held = _drawing(state, path)
    used = sum(units for _, units in held)
    ranks = _ranks_below(graph, path)
    below = holders_on(state, ranks) if ranks else _within(state, path, place)
    down = _set_down(graph, path)
    page = Page(_answer(path, columns.type(place.at), place.size, used, unit, len(held), len(ranks), len(below), down))
    page.table("held by", [_row(job, units, unit, now, state) for job, units in held[:SHOWN]], len(held) - SHOWN, "job")
    coming = [(id, start, units) for id, start in outlook.forecast.starts.items() if (units := _units(start.claims, path))]
    coming.sort(key=lambda one: (one[1].time, one[0]))
    rows = [[f58(id), whose(state, id)[0][:NAME], f"{units:,} {unit}", when(start, now)] for id, start, units in coming[:SHOWN]]
    page.table("next", rows, len(coming) - SHOWN, "job")
    inside = [holder_row(one, state, now) for one in below[:SHOWN]]
    page.table("below it" if ranks else "held by", inside, len(below) - SHOWN, "job")
    page.add("nodes", hosts_of(state, ranks) if ranks else "")
    document = {
        "vertex": path, "type": columns.type(place.at), "size": place.size, "unit": unit, "down": bool(down), "held": used,
        "answer": page.answer, "ranks": sorted(ranks),
        "holders": [{"id": f58(job.id), "name": job.name, "amount": units, "until": job.expiration or None} for job, units in held],
        "next": [{"id": f58(id), "time": start.time, "reserved": start.reserved, "amount": n} for id, start, n in coming],
        "below": [holder_document(one, state) for one in below],
    }  # fmt: skip
    return document, page


def _drawing(state: State, path: str) -> list[tuple[Job, int]]:
    """The jobs that draw on a vertex, and how much, by when they end."""
    found = []
    for job in state.active():
        units = _units(job.claims, path) if job.holds else 0
        if units:
            found.append((job, units))
    return sorted(found, key=lambda pair: (not pair[0].expiration, pair[0].expiration, pair[0].id))


def _units(claims: Iterable[Claim], path: str) -> int:
    """How much of a vertex these claims draw."""
    return sum(draw.units for claim in claims for draw in claim.draws if draw.vertex == path)


def _ranks_below(graph: ResourceGraph, path: str) -> set[int]:
    """The nodes below a vertex (not those that it is inside of)."""
    return {place.node for other, place in graph.places.items() if place.node >= 0 and other.startswith(f"{path}/")} - {
        graph.places[path].node
    }


def _within(state: State, path: str, place: Place) -> tuple[Holder, ...]:
    """Who has cores or GPUs of a part of a node, or of the node."""
    graph, node = state.graph, state.nodes.get(place.node)
    if graph is None or node is None:
        return ()
    held = {"core": 0, "gpu": 0}
    for other, one in graph.places.items():
        if one.node == place.node and f"{other}/".startswith(f"{path}/") and (kind := graph.columns.type(one.at)) in held:
            held[kind] |= one.ids
    found = []
    for job in sorted((state.jobs[id] for id in node.jobs), key=lambda job: (not job.expiration, job.expiration, job.id)):
        for claim in job.claims:
            amounts = {"core": (claim.cores & held["core"]).bit_count(), "gpu": (claim.gpus & held["gpu"]).bit_count()}
            unit = next((unit for unit, amount in amounts.items() if amount), "")
            if claim.rank == place.node and unit:
                found.append(Holder(job.id, False, job.expiration, (place.node,), amounts[unit], unit, False))
    return tuple(found)


def _set_down(graph: ResourceGraph, path: str) -> str:
    """The vertex that was set down, this one or the first above it; "" for none."""
    while path:
        if (place := graph.places.get(path)) is not None and place.at in graph.columns.down:
            return path
        path = path.rpartition("/")[0]
    return ""


def _answer(path: str, kind: str, size: int, used: int, unit: str, jobs: int, nodes: int, below: int, down: str) -> str:
    name = path.rpartition("/")[2]
    parts = [f"{'it' if down == path else down} is set down: no new jobs there"] if down else []
    if jobs:
        have = f"{count(jobs, 'job')} {'has' if jobs == 1 else 'have'}"
        parts.append(f"{have} {used:,} of {size:,} {unit}, {max(0, size - used):,} left")
    elif nodes:
        who = f"{count(below, 'job')} {'has' if below == 1 else 'have'} something" if below else "nobody has anything"
        parts.append(f"{count(nodes, 'node')} below it, of which {who}")
    elif below:
        parts.append(f"{count(below, 'job')} {'has' if below == 1 else 'have'} something of it")
    else:
        parts.append(f"nobody has anything of its {size:,} {unit}")
    return f"{name} ({path}, a {kind}): {'; '.join(parts)}."


def _row(job: Job, units: int, unit: str, now: float, state: State) -> list[str]:
    name, user = whose(state, job.id)
    return [f58(job.id), name[:NAME], user, f"{units:,} {unit}", until(job.expiration, now)]
