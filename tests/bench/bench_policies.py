"""What a plan costs in processor time, beside its budgets: a long backlog on a full machine, and one full of reservations."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import process_time

from bench_graph import GENERAL, graph
from bench_match import _ask
from rig import Figure, figure

from fluxkv.journal.claims import Claim
from fluxkv.journal.rset import NodeRecord
from fluxkv.schedulers.graph_pool import GraphPool
from fluxkv.schedulers.policy import Pending, Place, Policy, Reserve, load_policy
from fluxkv.schedulers.request import compile_request
from fluxkv.schedulers.resources import Pool, Unmatched
from fluxkv.schedulers.timeline import Timeline
from fluxkv.schedulers.tree.pooling import compact, nodes_of

NODES, CORES, PENDING = 1000, 64, 10_000
GRAPH_NODES = 1024


def plans() -> list[Figure]:
    """Passes of each policy that looks ahead, and how fast 192 jobs of 16 nodes are placed or reserved on 1,024 nodes; both
    without and with a graph."""
    small = compact(graph(GRAPH_NODES))
    nodes = nodes_of(small)
    found = passes(backlog_pool(), f"{NODES:,} nodes")
    found += passes(pool := GraphPool(nodes, small), f"a graph of {GRAPH_NODES:,} nodes")
    for what, asked in GENERAL.items():
        request = compile_request({"resources": [asked]})
        if pool.satisfiable(request) is None:
            plan = Timeline(pool, 1000.0, pool.holders())
            ms = [timed_cpu(lambda plan=plan, request=request: plan.reserve(0, request, 3600.0)) for _ in range(2)]
            text = f"reserve {what} on that graph, while 8,192 jobs run"
            found.append(figure(text, ms[0], "ms", 250.0, better="lower", note=f"and beside that once more: {ms[1]:.0f}"))
    for what, make in (("1,024", lambda: Pool(nodes)), ("a graph of 1,024", lambda: GraphPool(nodes, small))):
        for exclusive in (False, True):
            rate = max(_reservations(make(), exclusive) for _ in range(3))
            whole = "whole nodes" if exclusive else "nodes"
            found.append(figure(f"placed or reserved, 192 jobs of 16 {whole} on {what}", rate, "jobs/s", 364, better="higher"))
    return found


def timed_cpu(call: Callable[[], object]) -> float:
    """Milliseconds of processor time."""
    start = process_time()
    call()
    return (process_time() - start) * 1e3


def passes(pool: Pool, where: str) -> list[Figure]:
    """The first pass of each policy, and a further one."""
    pool, pending = backlog(random.Random(1), pool)
    found = []
    what = f"10,000 pending, {len(list(pool.holders())):,} running, {where}"
    for name, budget in (("easy", 250.0), ("hybrid", 150.0), ("conservative", 150.0)):
        pool.promised = {}
        first = _pass(load_policy(name), pool, pending)
        value = min(_pass(load_policy(name), pool, pending) for _ in range(3))
        # The design has a budget for easy; conservative plans 256 windows and is interrupted on its way.
        most = 250.0 if name != "conservative" else 500.0
        found.append(figure(f"first {name} pass, {what}", first * 1e3, "ms", most, better="lower"))
        found.append(figure(f"each further {name} pass, {what}", value * 1e3, "ms", budget, better="lower"))
    return found


def backlog_pool() -> Pool:
    """The machine of `backlog` without a graph."""
    return Pool(NodeRecord(i, f"n{i}", (1 << CORES) - 1, 0, 0, ()) for i in range(NODES))


def backlog(rng: random.Random, pool: Pool | None = None) -> tuple[Pool, list[Pending]]:
    """A machine that is full of jobs of an eighth of a node, and jobs of many sizes and lengths that wait for it."""
    pool = pool or backlog_pool()
    cores = pool.nodes[0].cores.bit_count()
    running: list[tuple[int, float, tuple[Claim, ...]]] = []
    for job in range(8 * len(pool.nodes)):
        got = pool.match(_ask(0, 1, cores // 8))
        assert not isinstance(got, Unmatched)
        pool.take(got)
        running.append((job, 1000.0 + rng.uniform(10.0, 36_000.0), got))
    pool.holders = lambda: running
    pending = []
    for order in range(PENDING):
        if rng.random() < 0.5:
            request = _ask(0, rng.randrange(1, 65), rng.choice([1, 2, 4]))
        else:
            request = _ask(rng.randrange(1, 17), 1, rng.choice([cores // 4, cores // 2, cores]))
        pending.append(Pending(len(running) + order, 16, order, request, rng.choice([600.0, 3600.0, 7200.0])))
    return pool, pending


def _pass(policy: Policy, pool: Pool, pending: list[Pending]) -> float:
    pool.timeline = None
    start = process_time()
    decisions = [decision for decision in policy.plan(iter(pending), pool, 1000.0) if decision is not None]
    seconds = process_time() - start
    assert sum(isinstance(decision, Reserve) for decision in decisions) in (1, 64, 256)
    for decision in decisions:
        if isinstance(decision, Place):
            pool.give(decision.claims)
    return seconds


def _reservations(pool: Pool, exclusive: bool = False) -> float:
    pending = [Pending(job, 16, job, _ask(16, 1, 32, exclusive), 3600.0) for job in range(192)]
    start = process_time()
    decisions = [one for one in load_policy("conservative").plan(iter(pending), pool, 0.0) if one is not None]
    seconds = process_time() - start
    assert [sum(isinstance(one, kind) for one in decisions) for kind in (Place, Reserve)] == [64, 128]
    return 192 / seconds


if __name__ == "__main__":
    for one in plans():
        print(one["name"], round(one["value"], 1), one["unit"], one["budget"])
