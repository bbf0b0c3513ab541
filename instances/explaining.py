"""Why a job waits: what is short, who holds it, who comes first, when it is expected to begin. Pure; reads a folded state.

Everything here is found out when somebody asks, by what a worker's plan would see at that moment (`outlook`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from ..journal.claims import Claim, Draw, from_wire
from ..journal.job import SCHED, Job
from ..journal.node import Node
from ..journal.resizing import growth_of, place_in_line, stands_in_line
from ..journal.state import State
from ..kvs.errors import Rejected
from ..schedulers.explain import Reason, explain
from ..schedulers.forecast import Start
from ..schedulers.policy import Code
from ..schedulers.request import Request
from ..schedulers.resources import Pool
from ..schedulers.timeline import overlap
from .growth_request import request_of
from .outlook import ENDLESS, LASTING, Outlook, policy_name
from .plan_inputs import compiled, line_of, pool_of
from .views import nodes_of_queues

NO_REASON = Reason("", "", "")


class Holder(NamedTuple):
    """Who has a part of what somebody waits for. housekeeping: what looks after the nodes of a job that is over. until: Unix
    seconds, 0.0: it has no limit. amount: how much of `unit` ("core", "node", "gpu", "MB", a type of the graph, or "W" of
    "power") it holds there. decisive: the start that is expected waits for its end."""

    job: int
    housekeeping: bool
    until: float
    ranks: tuple[int, ...]
    amount: int
    unit: str
    decisive: bool
    of: str = ""


class Why(NamedTuple):
    """Of a job that stands in line. reason: code "ready" if it would fit, were it the only one that waits. start: None: `no_start`
    says why. after: jobs that wait, too, and are expected to begin, and end, on its nodes before. ahead: who comes before it in its
    line; promised: the first of those for whom the plan of this moment keeps something, and since when, None if there is none.
    elsewhere: queue -> who comes before it in other lines that share nodes with it. out: its nodes that are out of use. allowed:
    the nodes that a constraint, its own or its queue's, leaves it; None where there is none."""

    reason: Reason
    policy: str
    start: Start | None
    no_start: str
    holders: tuple[Holder, ...]
    after: tuple[int, ...]
    ahead: tuple[int, ...]
    promised: tuple[int, float] | None
    elsewhere: dict[str, tuple[int, ...]]
    out: tuple[Node, ...]
    allowed: tuple[Node, ...] | None = None


def why(
    state: State, job: Job, now: float, spent: Callable[[], bool] = lambda: False, hurry: Callable[[], bool] = lambda: False
) -> Why:
    """Why a job in state SCHED waits, or one that runs does for more nodes. Raises nothing: what can not be matched at all is a
    reason, too."""
    pool = pool_of(state)
    outlook = Outlook(state, now, [job.id], spent, hurry)
    growth = growth_of(job)
    try:
        request = compiled(state, job) if growth is None else request_of(state, job, growth.nodes)
        reason = explain(request, pool)
    except Rejected as error:
        request, reason = None, Reason(Code.UNSATISFIABLE, str(error), "")
    if job.reason[0] == Code.FAULTY:
        reason = Reason(Code.FAULTY, job.reason[1], "")
    wait = outlook.wait(job)
    if wait is not None and reason.code == Code.READY and wait.code != Code.READY:
        reason = Reason(wait.code, wait.text, wait.blocking)
    start = outlook.start(job)
    lines = _lines(state, job)
    held = _holders(state, pool, request, reason, start) if request is not None and reason.code != Code.UNSATISFIABLE else ()
    return Why(
        reason=reason,
        policy=policy_name(state, job.queue),
        start=start,
        no_start="" if start is not None else ENDLESS if reason.code in LASTING else outlook.why_none(job),
        holders=held,
        after=_after(outlook, job, start),
        ahead=(ahead := _before(job, lines.pop("", ()))),
        promised=next(((id, kept.time) for id in ahead if (kept := outlook.forecast.starts.get(id)) and kept.reserved), None),
        elsewhere={queue: ids for queue, jobs in sorted(lines.items()) if (ids := _before(job, jobs))},
        out=_out(state, pool, request),
        allowed=_allowed(state, pool, request),
    )


def _allowed(state: State, pool: Pool, request: Request | None) -> tuple[Node, ...] | None:
    if request is None or not request.constraint_key:
        return None
    among = pool.matching(request)
    return tuple(node for rank, node in sorted(state.nodes.items()) if among >> pool.index[rank] & 1)


def _out(state: State, pool: Pool, request: Request | None) -> tuple[Node, ...]:
    """The nodes it might have that are out of use."""
    if request is None:
        return ()
    among = pool.matching(request)
    return tuple(node for node in state.nodes.values() if not node.usable and among >> pool.index[node.rank] & 1)


# -- who holds it ------------------------------------------------------------------------------------------------------


def holders_on(
    state: State, ranks: Collection[int], reason: Reason = NO_REASON, claims: Iterable[Claim] = ()
) -> tuple[Holder, ...]:
    """Who holds something on these nodes: those first who hold what `claims` name, then by when they end, who has no end last."""
    wanted = list(claims)
    unit = {"memory": "MB"}.get(reason.blocking, reason.blocking if reason.blocking.isalnum() else "core")
    found = _all_on(state, ranks, unit, wanted) or _all_on(state, ranks, "core", wanted)  # nobody draws on a socket that is in use
    return tuple(sorted(found, key=lambda one: (not one.decisive, not one.until, one.until, one.job)))


def _all_on(state: State, ranks: Collection[int], unit: str, wanted: list[Claim]) -> list[Holder]:
    found = list[Holder]()
    for id in {id for rank in ranks for id in state.nodes[rank].jobs}:
        job = state.jobs[id]
        found += _holder(id, False, job.expiration, job.claims, ranks, unit, wanted)
    for id in {id for rank in ranks for id in state.nodes[rank].keeping}:
        keeping = state.keeping[id]
        held = from_wire([claim for claim in keeping.claims if claim[0] not in keeping.back])
        found += _holder(id, True, 0.0, held, ranks, unit, wanted)
    measure = _measure(state, unit) if found else ""
    return [one._replace(unit=measure, of=unit) for one in found] if measure else found


def _measure(state: State, kind: str) -> str:
    """The unit that the graph has for a type of vertex, "" for none."""
    kinds = state.graph.columns.kinds if state.graph is not None and kind not in ("node", "gpu", "MB", "core") else ()
    return next((unit for name, _, unit in kinds if name == kind and unit), "")


def _holder(
    id: int, housekeeping: bool, until: float, claims: tuple[Claim, ...], ranks: Collection[int], unit: str, wanted: list[Claim]
) -> list[Holder]:
    here = [claim for claim in claims if claim.rank in ranks]
    amounts = {
        "node": len(here), "gpu": sum(claim.gpus.bit_count() for claim in here), "MB": sum(claim.memory_mb for claim in here),
        "core": sum(claim.cores.bit_count() for claim in here),
    }  # fmt: skip
    amount = amounts[unit] if unit in amounts else sum(draw.units for claim in here for draw in claim.draws if _is_a(draw, unit))
    if not amount:
        return []
    decisive = bool(overlap(here, wanted))
    return [Holder(id, housekeeping, until, tuple(claim.rank for claim in here), amount, unit, decisive)]


def _is_a(draw: Draw, kind: str) -> bool:
    """Whether a draw is from a vertex of this type, as far as its name tells."""
    return draw.vertex.rpartition("/")[2].rstrip("0123456789") == kind


def _holders(state: State, pool: Pool, request: Request, reason: Reason, start: Start | None) -> tuple[Holder, ...]:
    among = pool.matching(request) & pool.usable
    ranks = {node.rank for i, node in enumerate(pool.nodes) if among >> i & 1}
    found = holders_on(state, ranks, reason, start.claims if start is not None else ())
    # who would fit now, or waits for nodes that are out of use, waits for no other holder than those on what it will get
    return found if reason.code == Code.RESOURCES else tuple(one for one in found if one.decisive)


def _after(outlook: Outlook, job: Job, start: Start | None) -> tuple[int, ...]:
    """Who is expected to begin before it on what it will get, the first first."""
    if start is None:
        return ()
    starts = outlook.forecast.starts
    found = [
        (other.time, id) for id, other in starts.items()
        if id != job.id and other.time < start.time and overlap(other.claims, start.claims)
    ]  # fmt: skip
    return tuple(id for _, id in sorted(found))


# -- who comes first ---------------------------------------------------------------------------------------------------


def _lines(state: State, job: Job) -> dict[str, list[Job]]:
    """Jobs in line: of its own line under "", of others that share a node with it under their queues."""
    own = line_of(state, job.queue)
    found: dict[str, list[Job]] = {}
    ranks = nodes_of_queues(state) if len(state.rules.queues) > 1 else {}
    mine = ranks.get(own, frozenset())
    for other in state.active():
        if stands_in_line(other) and other.id != job.id:
            line = line_of(state, other.queue)
            found.setdefault("" if line == own else line, []).append(other)
    return {
        line: jobs for line, jobs in found.items() if not line or (state.may_start(line) and mine & ranks.get(line, frozenset()))
    }  # fmt: skip


def _before(job: Job, others: Iterable[Job]) -> tuple[int, ...]:
    mine = place_in_line(job)
    if not job.priority and job.state == SCHED:  # held: all are before it, and none matters
        return ()
    return tuple(other.id for other in sorted(others, key=place_in_line) if place_in_line(other) < mine)
