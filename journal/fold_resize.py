"""How a running job comes by more nodes, and gives some back (ours; release and free of some ranks as RFC 21 has them). Pure.

Part of the fold; handlers as in `fold_jobs`. What contradicts the state raises `Impossible` before anything is changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .claims import Claim, Draw, from_wire, to_wire
from .event_check import WAYS
from .holding import give, put_back, take
from .idset import ids_of_mask, mask_of
from .job import Job
from .quarantine import Impossible
from .resizing import first_parts, lead_of, script_on
from .summary import ntasks_on
from .values import end_time, integer

if TYPE_CHECKING:
    from .resource_graph import ResourceGraph
    from .state import State

Context = dict[str, Any]


def resize(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    """So many nodes more are wanted; 0: none any more."""
    nodes, at_once = integer(context["nodes"]), context.get("at_once", False)
    if nodes < 0 or at_once.__class__ is not bool:
        raise ValueError("no number of nodes")
    if not job.holds:
        raise Impossible("holds-nothing")
    _, *rest = job.resized or first_parts(job)
    job.resized = [[nodes, version, at_once] if nodes else None, *rest]
    job.reason = ["", ""]


def grow(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    """More nodes, all of which it has not: the tasks there are part of the attempt that goes on."""
    wire = context["claims"]
    claims = from_wire(wire)
    ranks = [claim.rank for claim in claims]
    if not claims or len(set(ranks)) < len(ranks):
        raise ValueError("no nodes")
    if not job.holds:
        raise Impossible("holds-nothing", 0, ranks, job.attempt_id)
    twice = set(ranks).intersection(job.ranks)
    held = min(twice) if twice else None
    if held is None and (first := take(state, claims, job.id)) is not None:
        held = first.rank
    if held is not None:
        raise Impossible("not-free", held, ranks, job.attempt_id)
    growth, leaving, parts, index, left = job.resized or first_parts(job)
    parts = {**parts, **{rank: [number, version] for number, rank in enumerate(ranks, index)}}
    if growth is not None:
        growth = [growth[0] - len(ranks), *growth[1:]] if growth[0] > len(ranks) else None
    job.resized = [growth, leaving, parts, index + len(ranks), left]
    job.claims, job.claims_wire = (*job.claims, *claims), [*job.claims_wire, *wire]
    count(job, len(claims))
    job.reason = ["", ""]


def shrink(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    """Nodes are asked back: not its first, nor any that is not its."""
    until, force, policy = end_time(context["until"]), end_time(context["force"]), context["jobs"]
    if policy not in WAYS:
        raise ValueError("no way to end jobs")
    ranks = later_nodes(job, context["ranks"])
    growth, leaving, *rest = job.resized or first_parts(job)
    asked = {rank: [until, force, policy, False] for rank in ranks if rank not in leaving}
    job.resized = [growth, {**leaving, **asked}, *rest]


def later_nodes(job: Job, idset: str) -> tuple[int, ...]:
    """Ranks of nodes that a job has, of which none is its first."""
    ranks = ids_of_mask(mask_of(idset))
    if not ranks:
        raise ValueError("no nodes")
    if not job.holds or not set(ranks) <= set(job.ranks):
        raise Impossible("holds-nothing")
    if lead_of(job) in ranks:
        raise Impossible("lead")
    return ranks


def forced(job: Job, ranks: str) -> None:
    """The trees on these nodes are being ended."""
    if job.resized is None:
        raise ValueError("none of its nodes leaves")
    growth, leaving, *rest = job.resized
    told = {rank: [*leaving[rank][:3], True] for rank in ids_of_mask(mask_of(ranks))}
    job.resized = [growth, {**leaving, **told}, *rest]


def free_some(state: State, job: Job, ranks: str) -> None:
    """Nodes go back while the job goes on with the others. What is shared by nodes stays where some of these stay."""
    gone = set(ids_of_mask(mask_of(ranks)))
    if not job.holds or not gone or not gone < set(job.ranks):
        raise Impossible("holds-nothing")
    if lead_of(job) in gone:
        raise Impossible("lead")
    running = {rank for rank in gone if rank not in job.over or script_on(job, rank)}
    if running:
        raise Impossible("not-over", min(running))
    back = [claim for claim in job.claims if claim.rank in gone]
    stay = [claim for claim in job.claims if claim.rank not in gone]
    back, stay, loose = _shared(state.graph, back, stay)
    for claim in back:
        give(state, claim, job.id)
    put_back(state, loose)
    growth, leaving, parts, index, left = job.resized or first_parts(job)
    left = {**left, **{rank: _times(job, parts[rank], rank) for rank in sorted(gone)}}
    job.resized = [growth, _without(leaving, gone), _without(parts, gone), index, left]
    job.claims, job.claims_wire = tuple(stay), to_wire(stay)
    job.started, job.over = _without(job.started, gone), _without(job.over, gone)
    count(job, 0)


def _times(job: Job, part: list[Any], rank: int) -> float | list[float]:
    began = job.started.get(rank, 0.0)
    return [began, *part[4]] if len(part) > 2 and part[4] else began


def count(job: Job, more: int) -> None:
    """What tables say of a job that was resized is what it has. more: nodes that have come."""
    job.nnodes = len(job.claims)
    job.ntasks = ntasks_on(job.jobspec, job.claims) or job.ntasks + more
    job.ncores = sum(claim.cores.bit_count() for claim in job.claims)


def _without(rows: dict[int, Any], ranks: set[int]) -> dict[int, Any]:
    return {rank: row for rank, row in rows.items() if rank not in ranks}


def _shared(graph: ResourceGraph | None, back: list[Claim], stay: list[Claim]) -> tuple[list[Claim], list[Claim], list[Draw]]:
    """What is beside or above nodes goes back with the last of the job's nodes below where it is, whatever claim it hangs on:
    (claims that go, claims that stay, draws that go though their claim stays). What stays though its claim goes hangs on the first
    one."""
    if graph is None or not any(claim.draws for claim in (*back, *stay)):
        return back, stay, []
    ranks = {claim.rank for claim in stay}
    moved = [draw for claim in back for draw in claim.draws if _stays(graph, draw, ranks)]
    loose = [draw for claim in stay for draw in claim.draws if not _stays(graph, draw, ranks)]
    found = [claim._replace(draws=tuple(draw for draw in claim.draws if draw not in moved)) for claim in back]
    kept = [claim._replace(draws=tuple(draw for draw in claim.draws if draw not in loose)) for claim in stay]
    if moved:
        kept[0] = kept[0]._replace(draws=tuple(sorted((*kept[0].draws, *moved))))
    return found, kept, loose


def _stays(graph: ResourceGraph, draw: Draw, ranks: set[int]) -> bool:
    place = graph.places.get(draw.vertex)
    if place is None or place.node >= 0:
        return place is not None and place.node in ranks
    around = draw.vertex.rpartition("/")[0] + "/"
    below = {one.node for path, one in graph.places.items() if one.node >= 0 and path.startswith(around)}
    return not below or bool(below & ranks)  # beside all nodes: it cannot be told whose it is
