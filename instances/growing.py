"""A running job that wants more nodes, as a worker has it: in line, given nodes, refused; what its new nodes are told. Pure.

What it asks for is in `growth_request`.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from ..journal.claims import Claim, to_wire
from ..journal.config import SIZES
from ..journal.decide_resize import several, staying
from ..journal.derive import Group
from ..journal.fold_node_scripts import START
from ..journal.holding import pools_of, words_of
from ..journal.ids import f58
from ..journal.idset import format_ids
from ..journal.job import RUN, Job
from ..journal.resizing import force_at, growth_of, index_of, next_index
from ..journal.scripts import PROLOG
from ..journal.state import State
from ..journal.summary import sizes
from ..kvs.errors import Rejected
from ..schedulers.explain import explain
from ..schedulers.request import Request, compile_request
from ..schedulers.resources import Pool
from .commits import premises
from .growth_request import entry_of, jobspec_of, made_of, request_of
from .orders import launch_orders
from .plan_inputs import usable_pool
from .script_orders import script_orders

if TYPE_CHECKING:
    from .planner import Planner


def check(state: State, job: Job, nodes: int) -> None:
    """Raise `Rejected` where a job can never have as many nodes more: there are not as many of its kind, or its queue's limits."""
    request = request_of(state, job, nodes)
    pool, _ = usable_pool(state)
    if pool.satisfiable(request) is not None:
        raise Rejected(f"job {f58(job.id)}: {_never(nodes, request, pool)}", code="unsatisfiable", hint="fluxkv resource list")
    rules = state.rules.of(job.queue)
    if rules is not None and rules.limits.most != (None, None, None):
        kept = [claim for claim in job.claims if claim.rank in staying(job)]
        more = sizes(jobspec_of(job, nodes))
        held = (len(kept), sum(one.cores.bit_count() for one in kept), sum(one.gpus.bit_count() for one in kept))
        for name, mine, new, most in zip(SIZES, held, more, rules.limits.most, strict=True):
            if most is not None and mine + new > most:
                where = f"queue {rules.name}: " if state.rules.queues else ""
                why = f"{where}{mine + new} {name[1:]} are more than the {most} allowed"
                raise Rejected(f"job {f58(job.id)}: {why}", code="limit", hint=f"limits.job-size.max.{name}")


def _never(nodes: int, request: Request, pool: Pool) -> str:
    why = explain(request, pool).text.removeprefix("unsatisfiable: ")
    return f"{several(nodes)} more can never be had here, beside its own: {why}"


def grown(state: State, job: Job, claims: tuple[Claim, ...], now: float) -> Group:
    """The group that gives it these nodes. They are told what the others were, as parts of the same attempt."""
    group = Group([["grow", job.id, now, {"claims": to_wire(claims)}]])
    nodes = [*(f"node/{claim.rank}" for claim in claims), *pools_of(state.graph, claims)]
    plans = [thing for thing in premises(state, job) if thing.startswith("plan/")]
    group.things = [f"job/{job.id}", *plans, *nodes]
    group.bumps = list(group.things)
    group.takes = words_of(claims)
    prolog, ranks = state.rules.scripts.prolog, [claim.rank for claim in claims]
    if prolog is not None and prolog.per_rank:
        group.events.append([START, job.id, now, {"kind": PROLOG, "ranks": format_ids(ranks)}])
        indices = {rank: next_index(job) + at for at, rank in enumerate(ranks)}
        group.to_nodes = script_orders(job, PROLOG, prolog, [*job.ranks, *ranks], ranks, job.attempt_id, indices)
    else:
        group.to_nodes = _orders(state, job, claims, next_index(job), len(job.claims) + len(claims))
    return group


def launched(state: State, job: Job, ranks: Sequence[int]) -> list[tuple[int, list[Any]]]:
    """Orders to nodes of it whose prologs are over."""
    found: list[tuple[int, list[Any]]] = []
    for claim in job.claims:
        if claim.rank in ranks:
            found += _orders(state, job, [claim], index_of(job, claim.rank), len(job.claims))
    return found


def _orders(state: State, job: Job, claims: Sequence[Claim], index: int, total: int) -> list[tuple[int, list[Any]]]:
    """One task on each: more of a job's tasks than its first nodes have, nobody has asked for.

    A node's launcher may have come later than the job began, and begins nothing that was ordered before that (`fence`): it is told
    up to which version the order is not older.
    """
    request = compile_request(job.jobspec or {})
    found = launch_orders(job, request, claims, "", False, state.nodes)
    for at, (_, message) in enumerate(found):
        order = message[1]
        for name in ("ranks", "refuse"):
            order.pop(name, None)
        if "fence" in order:
            order["fence"] = state.version
        order.update(
            attempt=job.attempt_id, index=index + at, part=index + at, nodes=total, first=max(job.ntasks, index) + at, count=1,
            shape="", total=max(job.ntasks, index) + len(claims),
        )  # fmt: skip
    return found


def refresh(planner: Planner, job: Job, now: float) -> Group | None:
    """Have a running job stand in line for what it asks for, and only then; the group that refuses it, if it can not."""
    wanted, found = made_of(job), planner.lines.get(job.id)
    growth = growth_of(job)
    if growth is not None and growth.at_once and not planner.state.may_start(job.queue):  # no plan looks at it
        planner.dequeue(job.id)
        return withdrawn(job, f"queue {job.queue} is stopped", now)
    if (found[1] if found is not None else b"") == wanted:
        return None
    planner.dequeue(job.id)
    try:
        entry = entry_of(planner.state, job, now)
        if entry is not None and planner.pool.satisfiable(entry.request) is not None:
            raise Rejected(_never(growth.nodes if growth is not None else 0, entry.request, planner.pool), code="unsatisfiable")
    except Rejected as error:
        return withdrawn(job, str(error), now)
    if entry is not None:
        planner.line_up(entry, job.queue, wanted)
    return None


def withdrawn(job: Job, why: str, now: float) -> Group:
    """It cannot have what it asks for, or not at once."""
    thing = f"job/{job.id}"
    return Group([["resize", job.id, now, {"nodes": 0, "note": why}]], [thing], [thing])


class Leaves:
    """Nodes that are to be taken from running jobs, by when."""

    __slots__ = ("_heap", "_known")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._known: set[tuple[float, int]] = set()

    def note(self, job: Job, now: float) -> None:
        """Remember when its nodes are to be taken. Whose time is up is looked at now; where that says nothing (a script runs, the
        job ends as a whole) it is looked at again when that changes, and not all the time."""
        for at in force_at(job):
            if at > now and (at, job.id) not in self._known:
                self._known.add((at, job.id))
                heappush(self._heap, (at, job.id))

    def look(self, planner: Planner, job: Job, group: Group | None, now: float) -> Group | None:
        """What is owed to a job that was resized, where nothing else is. Of whom something is said, or who ends, is in no line."""
        self.note(job, now)
        if job.state == RUN and group is None:
            return refresh(planner, job, now)
        planner.dequeue(job.id)
        return group

    def next(self) -> float:
        """When to look again, 0.0 for never."""
        return self._heap[0][0] if self._heap else 0.0

    def due(self, state: State, now: float) -> None:
        """Have those looked at whose time has come."""
        while self._heap and self._heap[0][0] <= now:
            one = heappop(self._heap)
            self._known.discard(one)
            if one[1] in state.jobs:
                state.attention[one[1]] = None


