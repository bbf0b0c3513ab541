"""What a plan is made of, read off a folded state: the pool, who holds what, the queues' lines. Pure; decides nothing.

A worker keeps its pool and lines in step with the fold; whoever only asks what is to come (`outlook`) makes them once. Both make
them by the same lines, so that what is foretold is what a worker would do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from heapq import nsmallest
from typing import TYPE_CHECKING

from ..journal.claims import Claim, from_wire
from ..journal.job import SCHED, Job
from ..journal.jobspec_check import check, check_plain
from ..journal.node import Node
from ..journal.resizing import growth_of, place_in_line, stands_in_line
from ..journal.state import State
from ..kvs.errors import Rejected
from ..schedulers.policy import Pending
from ..schedulers.request import Request, compile_request
from ..schedulers.resources import Pool
from . import growth_request
from .layout import TASKS_MAX
from .line import ANY
from .shell_options import check_system
from .turns import Feed

if TYPE_CHECKING:
    from ..journal.resource_graph import ResourceGraph
    from ..journal.rset import NodeRecord
    from ..schedulers.tree.vertices import Tree

Kind = tuple[str, int, Iterable[Pending]]  # queue, user (or `ANY`), its jobs in order


def new_pool(state: State) -> Pool:
    """The inventory's pool, with everything free and every node usable. Raises `Rejected` for a graph that no matcher can use."""
    pool = free_pool(state.nodes.values(), state.graph, state.rules.match_policy)
    pool.traverser = state.rules.traverser
    return pool


def free_pool(nodes: Iterable[NodeRecord | Node], graph: ResourceGraph | None, match_policy: str) -> Pool:
    """The pool of an inventory, with or without a graph. Raises `Rejected` as `new_pool`."""
    if graph is None:
        return Pool(nodes, match_policy)
    from ..schedulers.graph_pool import GraphPool

    return GraphPool(nodes, _tree_of(graph), match_policy)


def usable_pool(state: State) -> tuple[Pool, str]:
    """As `new_pool`; where the graph, or the match policy, is one that no matcher can use, without it, and why."""
    try:
        return new_pool(state), ""
    except Rejected as error:
        return Pool(state.nodes.values()), f"nodes are matched without their graph and match policy: {error}"


@lru_cache(maxsize=1)
def _tree_of(graph: ResourceGraph) -> Tree:
    """Pools only read it: what a node holds, and what is drawn, they keep for themselves."""
    from ..schedulers.tree.record import to_tree

    return to_tree(graph)


def pool_of(state: State) -> Pool:
    """The pool as it is now."""
    pool, _ = usable_pool(state)
    for node in state.nodes.values():
        copy_into(pool, node, node.usable)
    for path in state.drawn:
        copy_drawn(pool, state, path)
    return pool


def copy_drawn(pool: Pool, state: State, path: str) -> None:
    """Bring the pool's copy of what is drawn on a vertex in step with the fold's."""
    place = state.graph.places.get(path) if state.graph is not None else None
    if place is not None and state.graph is not None:
        units, ids = state.drawn.get(path, (0, 0))
        pool.set_vertex(path, units, ids, place.at not in state.graph.columns.down)


def copy_into(pool: Pool, node: Node, usable: bool) -> None:
    """Bring the pool's copy of a node in step with the fold's."""
    pool.set_node(
        node.rank,
        node.cores & ~node.used_cores,
        node.gpus & ~node.used_gpus,
        node.memory_mb - node.used_memory_mb,
        usable,
        not node.busy,
        "" if usable else "drained" if node.drain is not None else "down" if node.online and node.shut else "offline",
    )


def check_jobspec(job: Job) -> None:
    """Raise `Rejected` for what no submit command would have let through: anybody may append to the journal."""
    jobspec = job.jobspec or {}
    try:
        check_plain(jobspec)
        check(jobspec, general=True)
        check_system(jobspec["attributes"].get("system") or {})
    except RecursionError:
        raise Rejected("bad jobspec: nested too deep", code="bad-jobspec") from None
    ((how, amount),) = jobspec["tasks"][0]["count"].items()
    ntasks = job.ncores * amount["count"] if how == "per_resource" else job.ntasks
    if ntasks > TASKS_MAX:
        raise Rejected(f"{ntasks} tasks are more than {TASKS_MAX}", code="unsupported")


def compiled(state: State, job: Job) -> Request:
    """The job's request, with the constraint of its queue. Raises `Rejected` for what no matcher can do."""
    jobspec, rules = job.jobspec or {}, state.rules
    return compile_request(rules.constrained(jobspec, job.queue) if rules.queues and jobspec else jobspec)


def holders_of(state: State) -> Iterator[tuple[int, float, tuple[Claim, ...]]]:
    """Who holds something, and until when as far as is known (0: for ever): for policies that look ahead."""
    for id in sorted({id for node in state.nodes.values() for id in node.jobs}):
        job = state.jobs[id]
        yield id, job.expiration, job.claims
    for id, keeping in sorted(state.keeping.items()):
        yield id, keeping.started, from_wire([claim for claim in keeping.claims if claim[0] not in keeping.back])


def time_is_up(state: State, now: float) -> str:
    """Why nothing may begin in an instance any more, "" if its own time is not up. (It would be ended in the same moment; and where
    that leaves it in line, for whoever goes on with the instance, begin again, hundreds of times a second.)"""
    return "the time of this instance is up" if state.expiration and now >= state.expiration else ""


def feeds_of(state: State, kinds: Iterable[Kind], blocked: Callable[[str, int], str], now: float) -> list[Feed]:
    """One for each queue that has jobs to place. blocked: as `Feed` asks it."""
    late = time_is_up(state, now)
    found = dict[str, list[Kind]]()
    for queue, user, line in kinds:
        rules = state.rules.of(queue)
        if rules is not None and state.may_start(queue):
            found.setdefault(rules.line, []).append((queue, user, line))
    return [Feed(lines, blocked, queue, late) for queue, lines in sorted(found.items())]


def user_of_line(state: State, job: Job) -> int:
    """In whose line of its queue a job stands: its user's where running jobs are counted, else everybody's (`ANY`)."""
    return job.userid if state.usage is not None and state.rules.running_limits(job.queue) else ANY


def entry_of(job: Job, request: Request, priority: int) -> Pending:
    """What a policy is given of a job."""
    return Pending(job.id, priority, job.order, request, job.duration, held=priority == 0)


def lines_of(state: State, depth: int, now: float) -> list[Kind]:
    """The lines of pending jobs and of those that run and wait for more nodes, no more than the first `depth` of each queue's.
    Left out are held jobs, those that a worker has placed ahead, and those that can not be matched here."""
    by_line: dict[str, list[Job]] = {}
    for job in state.active():
        if stands_in_line(job):
            rules = state.rules.of(job.queue)
            if rules is not None:
                by_line.setdefault(rules.line, []).append(job)
    found: dict[tuple[str, int], list[Pending]] = {}
    for jobs in by_line.values():
        for job in nsmallest(depth, jobs, key=place_in_line):
            try:
                if job.state == SCHED:
                    entry, user = entry_of(job, compiled(state, job), job.priority), user_of_line(state, job)
                elif (more := growth_request.entry_of(state, job, now)) is not None:
                    entry, user = more, ANY
                else:
                    continue
            except Rejected:  # its worker has refused it, or will
                continue
            found.setdefault((job.queue, user), []).append(entry)
    return [(queue, user, entries) for (queue, user), entries in found.items()]


def some_wait(state: State) -> bool:
    """Whether anybody stands in line at all."""
    return bool(state.count(SCHED)) or any(growth_of(job) is not None for job in state.active())


def line_of(state: State, queue: str) -> str:
    """The queue in whose line a queue's jobs stand: its own, or its parent's."""
    rules = state.rules.of(queue)
    return rules.line if rules is not None else queue
