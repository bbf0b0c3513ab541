"""What a plan costs, beside its budgets: a long backlog on a full machine, and a backlog whose jobs all get reservations."""

from __future__ import annotations

import random
from time import perf_counter

from bench_match import _ask
from rig import Figure, figure

from fluxkv.journal.claims import Claim
from fluxkv.journal.rset import NodeRecord
from fluxkv.schedulers.policy import Pending, Place, Policy, Reserve, load_policy
from fluxkv.schedulers.resources import Pool, Unmatched

NODES, CORES, RUNNING, PENDING = 1000, 64, 8000, 10_000


def plans() -> list[Figure]:
    """Passes of each policy that looks ahead, and how fast 192 jobs of 16 nodes are placed or reserved on 1,024 nodes."""
    pool, pending = backlog(random.Random(1))
    found = []
    what = "10,000 pending, 8,000 running, 1,000 nodes"
    for name, budget in (("easy", 250.0), ("hybrid", 150.0), ("conservative", 150.0)):
        pool.promised = {}
        first = _pass(load_policy(name), pool, pending)
        value = min(_pass(load_policy(name), pool, pending) for _ in range(3))
        found.append(figure(f"first {name} pass, {what}", first * 1e3, "ms", 250.0, better="lower"))
        found.append(figure(f"each further {name} pass, {what}", value * 1e3, "ms", budget, better="lower"))
    rate = max(_reservations() for _ in range(3))
    return [*found, figure("placed or reserved, 192 jobs of 16 nodes on 1,024", rate, "jobs/s", 364, better="higher")]


def backlog(rng: random.Random) -> tuple[Pool, list[Pending]]:
    """A machine that is full of jobs of eight cores, and jobs of many sizes and lengths that wait for it."""
    pool = Pool(NodeRecord(i, f"n{i}", (1 << CORES) - 1, 0, 0, ()) for i in range(NODES))
    running: list[tuple[int, float, tuple[Claim, ...]]] = []
    for job in range(RUNNING):
        got = pool.match(_ask(0, 1, 8))
        assert not isinstance(got, Unmatched)
        pool.take(got)
        running.append((job, 1000.0 + rng.uniform(10.0, 36_000.0), got))
    pool.holders = lambda: running
    pending = []
    for order in range(PENDING):
        if rng.random() < 0.5:
            request = _ask(0, rng.randrange(1, 65), rng.choice([1, 2, 4]))
        else:
            request = _ask(rng.randrange(1, 17), 1, rng.choice([16, 32, 64]))
        pending.append(Pending(RUNNING + order, 16, order, request, rng.choice([600.0, 3600.0, 7200.0])))
    return pool, pending


def _pass(policy: Policy, pool: Pool, pending: list[Pending]) -> float:
    pool.timeline = None
    start = perf_counter()
    decisions = [decision for decision in policy.plan(iter(pending), pool, 1000.0) if decision is not None]
    seconds = perf_counter() - start
    assert sum(isinstance(decision, Reserve) for decision in decisions) in (1, 64, 256)
    for decision in decisions:
        if isinstance(decision, Place):
            pool.give(decision.claims)
    return seconds


def _reservations() -> float:
    pool = Pool(NodeRecord(i, f"n{i}", (1 << 32) - 1, 0, 0, ()) for i in range(1024))
    pending = [Pending(job, 16, job, _ask(16, 1, 32), 3600.0) for job in range(192)]
    start = perf_counter()
    decisions = [one for one in load_policy("conservative").plan(iter(pending), pool, 0.0) if one is not None]
    seconds = perf_counter() - start
    assert [sum(isinstance(one, kind) for one in decisions) for kind in (Place, Reserve)] == [64, 128]
    return 192 / seconds


if __name__ == "__main__":
    for one in plans():
        print(one["name"], round(one["value"], 1), one["unit"], one["budget"])
