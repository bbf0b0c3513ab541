"""Who uses what of an instance's graph of resources, by vertex: for views of it. Reads a folded state; decides nothing."""

from __future__ import annotations

from ..journal.claims import MEMORY_UNITS, from_wire
from ..journal.resource_graph import ResourceGraph
from ..journal.state import State
from ..schedulers.tree.overview import Holding


def use_of(state: State, graph: ResourceGraph) -> tuple[dict[int, Holding], dict[int, str]]:
    """(position -> units held and by which jobs, position -> "drained" or "offline"). Positions are the ordinals of `to_tree`."""
    held: dict[int, Holding] = {}
    marks: dict[int, str] = {}
    jobs = _drawn_by(state)
    columns = graph.columns
    drawn = _drawn_memory(state, graph)
    memory = {rank: node.used_memory_mb - drawn.get(rank, 0) for rank, node in state.nodes.items()}
    for path, place in graph.places.items():
        units, ids = state.drawn.get(path, (0, 0))
        node = state.nodes.get(place.node)
        kind = columns.type(place.at)
        if node is not None and kind == "node":
            marks[place.at] = "drained" if node.drain is not None else "" if node.online else "offline"
            if node.busy:
                held[place.at] = Holding(0, frozenset(node.jobs | node.keeping))
            continue
        if node is not None and kind in ("core", "gpu"):
            ids = place.ids & (node.used_cores if kind == "core" else node.used_gpus)
            units = ids.bit_count()
        elif node is not None and kind == "memory" and not units and memory[node.rank] > 0:
            factor = MEMORY_UNITS[columns.kinds[columns.kind[place.at]][2] or "MB"]
            units = min(place.size, -(-memory[node.rank] // factor))
            memory[node.rank] -= units * factor
        if units:
            there = frozenset(node.jobs | node.keeping) if node is not None else frozenset[int]()
            held[place.at] = Holding(units, jobs.get(path, there), ids)
    return held, {at: mark for at, mark in marks.items() if mark}


def _drawn_memory(state: State, graph: ResourceGraph) -> dict[int, int]:
    """rank -> mebibytes that claims draw from vertices of their own; the rest is of no vertex in particular."""
    found: dict[int, int] = {}
    for path, (units, _) in state.drawn.items():
        place, columns = graph.places[path], graph.columns
        kind, _, unit = columns.kinds[columns.kind[place.at]]
        if kind == "memory" and place.node >= 0:
            found[place.node] = found.get(place.node, 0) + units * MEMORY_UNITS[unit or "MB"]
    return found


def _drawn_by(state: State) -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for id in {id for node in state.nodes.values() for id in node.jobs}:
        for claim in state.jobs[id].claims:
            for draw in claim.draws:
                found.setdefault(draw.vertex, set()).add(id)
    for id, keeping in state.keeping.items():
        for claim in from_wire(keeping.claims):
            if claim.rank not in keeping.back:
                for draw in claim.draws:
                    found.setdefault(draw.vertex, set()).add(id)
    return {path: frozenset(jobs) for path, jobs in found.items()}
