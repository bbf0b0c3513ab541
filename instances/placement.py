"""What a policy proposes, held against the state: a plug-in may fail in any way, and must not sell what is not free. Pure.

A policy works on its planner's pool, which it may have spoiled, so nothing of that is asked here. The first proposal that can
not be ends the plan: what comes after it was made on wrong premises, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from ..journal.claims import Claim
from ..journal.holding import fits, path_of
from ..journal.ids import f58
from ..journal.job import Job
from ..journal.state import State
from ..schedulers.policy import Decision, Place
from ..schedulers.request import Request
from ..schedulers.resources import Pool
from .bench import Bench
from .line import Lines
from .plan_inputs import copy_drawn, copy_into, time_is_up
from .reactor import Note, Output


class Plan(Protocol):
    """What is read of a planner, and what is told to it. given: claims that this pass gives back. more: running jobs that it adds,
    by (scope, user). nonsense: why the policy's plan was broken off, "" if it was not. resync: ranks, and words of vertices, whose
    copy in the pool is not to be trusted; spoiled: nothing in it is. leaving: now taken offline."""

    state: State
    lines: Lines
    pool: Pool
    more: dict[tuple[str, int], int]
    given: dict[int, Sequence[Claim]]
    nonsense: str
    resync: set[int | str]
    spoiled: bool
    bench: Bench
    leaving: set[int]
    say_at: float

    @property
    def underway(self) -> object: ...


def copy_held(plan: Plan, word: int | str) -> None:
    """Bring the pool's copy of a node (its rank), or of what is drawn on a vertex (its word), if there is one, in step with the
    state."""
    if isinstance(word, str):
        copy_drawn(plan.pool, plan.state, path_of(word))
    else:
        copy_node(plan, word)


def copy_node(plan: Plan, rank: int) -> None:
    """As `copy_held`, of a node."""
    node = plan.state.nodes.get(rank)
    if node is None:
        return
    copy_into(plan.pool, node, node.usable and rank not in plan.leaving)


def give_back(plan: Plan, job: Job) -> None:
    """What a job holds is free again in this very pass: nobody who looks ahead may count on its end. A plan under way does not
    learn of it."""
    if plan.underway is not None:
        return
    plan.pool.give(job.claims)
    plan.given[job.id] = job.claims


def complaints(plan: Plan) -> list[Output]:
    """What is to be said of the last plan."""
    said, plan.nonsense = plan.nonsense, ""
    return [Note("error", said)] if said else []


def sound(decisions: Iterable[Decision | None], plan: Plan, now: float) -> Iterator[Decision | None]:
    """The decisions of a policy up to the first that can not be, or up to whatever it raised."""
    taken: dict[int | str, list[int]] = {}
    placed: set[int] = set()
    iterator = iter(decisions)
    while True:
        decision = None
        about = 0
        try:
            decision = next(iterator)
        except StopIteration:
            plan.bench.went_well()
            return
        except Exception as error:  # whose fault it is must be in the message
            why = f"it raised {type(error).__name__}: {error}"
        else:
            if decision is None:
                yield None
                continue
            why = fault(decision, plan, taken, placed) if isinstance(decision, Place) else unknown(decision, plan)
            named = decision.job if why and isinstance(decision, Place) and type(decision.job) is int else 0
            about = named if plan.lines.get(named) is not None else 0
        if why:
            plan.nonsense = plan.bench.failed(why, now, about)
            plan.spoiled = True
            plan.say_at = now  # the others at once
            return
        yield decision


def unknown(decision: Decision, plan: Plan) -> str:
    """Why there can be no such wait or reservation, "" if there can."""
    id = getattr(decision, "job", None)
    return "" if id in plan.state.jobs else f"it speaks of job {id!r}, which is not there"


def fault(place: Place, plan: Plan, taken: dict[int | str, list[int]], placed: set[int]) -> str:
    """Why this can not be, "" if it can. taken: rank -> [cores, GPUs, MB], path of a vertex -> [units, ids] of this plan so far,
    grows with a good placement."""
    found = plan.lines.get(place.job) if type(place.job) is int else None
    if found is None or place.job in placed:
        return f"it places job {place.job!r}, which {'has a place already' if place.job in placed else 'is not in line'}"
    entry, name = found[0], f58(place.job)
    if entry.held or entry.priority <= 0:
        return f"it places job {name}, which is held"
    if len({claim.rank for claim in place.claims}) != len(place.claims):
        return f"it places job {name} twice on one node"
    if not taken:
        taken.update(_given_back(plan))
    for claim in place.claims:
        node = plan.state.nodes.get(claim.rank)
        if node is None or not node.usable or claim.rank in plan.leaving:
            return f"it places job {name} on rank {claim.rank}, which {'is not there' if node is None else 'is not usable'}"
        if claim.rank not in taken:
            taken[claim.rank] = [node.used_cores, node.used_gpus, node.used_memory_mb]
        used = taken[claim.rank]
        much = claim.memory_mb and claim.memory_mb + used[2] > node.memory_mb
        if claim.cores & (used[0] | ~node.cores) or claim.gpus & (used[1] | ~node.gpus) or much:
            return f"it gives job {name} what is not free on rank {claim.rank}"
    why = _drawn(place.claims, plan, taken) or _amount(entry.request, place.claims, plan.pool)
    why = why or _elsewhere(plan.pool, entry.request, place.claims)
    if why:
        return f"it gives job {name} {why}"
    if place.job in plan.state.attention:
        return ""  # it is not placed: something has happened to it since
    if why := _barred(plan, plan.state.jobs[place.job]):
        return f"it places job {name}, {why}"
    for claim in place.claims:
        used = taken[claim.rank]
        taken[claim.rank] = [used[0] | claim.cores, used[1] | claim.gpus, used[2] + claim.memory_mb]
        for draw in claim.draws:
            used = taken[draw.vertex]
            taken[draw.vertex] = [used[0] + draw.units, used[1] | draw.ids]
    placed.add(place.job)
    return ""


def _barred(plan: Plan, job: Job) -> str:
    """Why a job may not begin whatever is free, "" if it may."""
    state = plan.state
    if not state.may_start(job.queue):
        return f"whose queue {job.queue} starts nothing"
    if why := time_is_up(state, plan.bench.now):
        return f"but {why}"
    if state.usage is None or job.holds:  # who only wants more counts already
        return ""
    full = state.usage.running_full(job.queue, job.userid, plan.more)
    return f"which would be one too many: {full}" if full else ""


def _given_back(plan: Plan) -> dict[int | str, list[int]]:
    """Of nodes and vertices of which this pass gives something back: what is in use then, as `fault` has it."""
    found: dict[int | str, list[int]] = {}
    nodes, drawn = plan.state.nodes, plan.state.drawn
    for claims in plan.given.values():
        for claim in claims:
            if (used := found.get(claim.rank)) is None:
                if (node := nodes.get(claim.rank)) is None:
                    continue
                used = found[claim.rank] = [node.used_cores, node.used_gpus, node.used_memory_mb]
            used[:] = used[0] & ~claim.cores, used[1] & ~claim.gpus, used[2] - claim.memory_mb
            for draw in claim.draws:
                units, ids = found[draw.vertex] if draw.vertex in found else drawn.get(draw.vertex, (0, 0))
                found[draw.vertex] = [units - draw.units, ids & ~draw.ids]
    return found


def _drawn(claims: Sequence[Claim], plan: Plan, taken: dict[int | str, list[int]]) -> str:
    """What of it can not be drawn, "" if all can."""
    seen: set[str] = set()
    for claim in claims:
        for draw in claim.draws:
            if draw.vertex in seen:
                return f"{draw.vertex} twice"
            seen.add(draw.vertex)
            if draw.vertex not in taken:
                taken[draw.vertex] = [*plan.state.drawn.get(draw.vertex, (0, 0))]
            if draw.units < 1 or not fits(plan.state.graph, draw, *taken[draw.vertex]):
                return f"what is not free of {draw.vertex}"
    return ""


def _elsewhere(pool: Pool, request: Request, claims: Sequence[Claim]) -> str:
    """Which node is none of those that the job, or its queue, may have, "" if all are (the inventory alone says which)."""
    if not request.constraint_key:
        return ""
    among = pool.matching(request)
    wrong = [claim.rank for claim in claims if not among >> pool.index[claim.rank] & 1]
    return f"rank {wrong[0]}, which its constraint, or its queue's, leaves out" if wrong else ""


def _amount(request: Request, claims: Sequence[Claim], pool: Pool) -> str:
    """What is wrong with the amount, "" if it is what was asked for (by the inventory alone)."""
    flat = request.flat
    if flat is None or not claims:
        from ..schedulers.tree.enough import enough

        return "nothing" if not claims else "" if enough(pool, request, claims) else "not all that it asks for"
    slots = sum(claim.slots for claim in claims)
    if flat.nslots and slots != flat.nslots:
        return f"{slots} of {flat.nslots} slots"
    for claim in claims:
        cores, gpus = claim.cores.bit_count(), claim.gpus.bit_count()
        few = cores < claim.slots * flat.cores or gpus < claim.slots * flat.gpus
        if few or (not flat.exclusive and (cores, gpus) != (claim.slots * flat.cores, claim.slots * flat.gpus)):
            return f"{cores} cores and {gpus} GPUs for {claim.slots} slots on rank {claim.rank}"
    if flat.nnodes and len(claims) != flat.nnodes:
        return f"{len(claims)} of {flat.nnodes} nodes"
    return ""
