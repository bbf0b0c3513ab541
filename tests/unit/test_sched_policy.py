"""Queue policies: first come first served, the contract of all, and how one is found."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from fluxkv.journal.claims import Claim
from fluxkv.journal.rset import NodeRecord
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.fcfs import Fcfs
from fluxkv.schedulers.policy import Code, Decision, Pending, Place, Policy, Wait, ahead_of, held, load_policy
from fluxkv.schedulers.policy_contract import check_policy
from fluxkv.schedulers.request import Request, compile_request
from fluxkv.schedulers.resources import Pool


def ask(cores: int, nnodes: int = 0) -> Request:
    top: dict[str, Any] = {
        "type": "slot",
        "count": 1,
        "label": "t",
        "with": [{"type": "core", "count": cores}],
    }
    return compile_request(
        {"resources": [{"type": "node", "count": nnodes, "with": [top]} if nnodes else top]}
    )


def pool_of(nodes: int, cores: int) -> Pool:
    return Pool([NodeRecord(i, f"n{i}", (1 << cores) - 1, 0, 0, ()) for i in range(nodes)])


def plan(pending: Iterable[Pending], pool: Pool) -> list[Decision]:
    return list(Fcfs().plan(pending, pool, 0.0))


@pytest.mark.parametrize("seed", range(60))
def test_fcfs_keeps_the_contract(seed: int) -> None:
    check_policy(Fcfs, random.Random(seed))


def test_the_contract_places_jobs_and_catches_a_policy_that_breaks_it() -> None:
    assert sum(check_policy(Fcfs, random.Random(seed)) for seed in range(20)) > 50

    class Greedy:
        """Gives everybody the first free core, held or not, and takes nothing."""

        def plan(self, pending: Iterable[Pending], pool: Pool, now: float) -> Iterator[Decision]:
            for entry in pending:
                yield Place(entry.job, (Claim(pool.nodes[0].rank, 1, 0, 0, 1),))

    broken = 0
    for seed in range(10):
        try:
            check_policy(Greedy, random.Random(seed))
        except AssertionError:
            broken += 1
    assert broken == 10


def test_nobody_overtakes_the_head() -> None:
    pool = pool_of(2, 4)
    jobs = [
        Pending(1, 16, 1, ask(3)),
        Pending(2, 16, 2, ask(4)),
        Pending(3, 16, 3, ask(4)),
        Pending(4, 16, 4, ask(1)),
    ]
    assert plan(jobs, pool) == [
        Place(1, (Claim(0, 0b111, 0, 0, 1),)),
        Place(2, (Claim(1, 0b1111, 0, 0, 1),)),
        Wait(3, "resources", "needs 4 cores on one node; at most 1 is free (node 0)", "core"),
    ]


def test_held_and_impossible_jobs_are_stepped_over() -> None:
    jobs = [Pending(1, 20, 1, ask(1), held=True), Pending(2, 19, 2, ask(64)), Pending(3, 16, 3, ask(1))]
    on_hold, never, placed = plan(jobs, pool_of(1, 4))
    assert isinstance(on_hold, Wait)
    assert on_hold.code == Code.HELD
    assert never == Wait(
        2, "unsatisfiable", "unsatisfiable: needs 64 cores on one node; the largest has 4", "core"
    )
    assert placed == Place(3, (Claim(0, 1, 0, 0, 1),))


def test_a_crowd_of_held_jobs_costs_nothing() -> None:
    read = []

    def stream() -> Iterator[Pending]:
        for job in range(100_000):
            read.append(job)
            yield Pending(job, int(job == 0), job, ask(1), held=job > 0)

    assert plan(stream(), pool_of(1, 4)) == [Place(0, (Claim(0, 1, 0, 0, 1),))]
    assert len(read) == 2
    assert held(7) == Wait(7, "held", "held: its urgency is 0 or its queue is stopped", "")


def test_pending_is_read_lazily_and_a_plan_can_be_left_half_way() -> None:
    read = []

    def stream() -> Iterator[Pending]:
        for job in range(100_000):
            read.append(job)
            yield Pending(job, 16, job, ask(1))

    assert len(plan(stream(), pool_of(1, 4))) == 5
    assert len(read) == 5
    pool = pool_of(1, 4)
    steps = Fcfs().plan([Pending(1, 16, 1, ask(1)), Pending(2, 16, 2, ask(1))], pool, 0.0)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert pool.free.cores.counts == [3]


def test_drained_head_says_so() -> None:
    pool = pool_of(3, 4)
    pool.set_node(1, 0b1111, 0, 0, False, True, "drained")
    (wait,) = plan([Pending(1, 16, 1, ask(1, nnodes=3))], pool)
    assert wait == Wait(1, "drained", "needs 3 nodes; 2 are up (1 drained)", "node")


def test_values() -> None:
    assert ahead_of(2, 1) == Wait(2, "ahead", "waits for the job ahead of it", "job/1")
    entries = [Pending(1, 16, 1, ask(1)), Pending(2, 31, 2, ask(1)), Pending(3, 16, 0, ask(1))]
    assert [entry.job for entry in sorted(entries, key=lambda entry: entry.sort_key)] == [2, 3, 1]


def test_policies_are_found_by_name() -> None:
    assert isinstance(load_policy("fcfs"), Fcfs)
    assert isinstance(load_policy("fcfs"), Policy)
    with pytest.raises(Rejected, match="no queue policy is called 'nosuch'") as caught:
        load_policy("nosuch")
    assert "fcfs" in caught.value.hint


class _Broken:
    value = "somewhere:Thing"

    def __init__(self, name: str, thing: object) -> None:
        self.name, self.thing = name, thing

    def load(self) -> Any:
        if isinstance(self.thing, Exception):
            raise self.thing
        return self.thing


def test_a_plug_in_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    points = [_Broken("bad", ImportError("no module")), _Broken("odd", object), _Broken("mine", Fcfs)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    assert isinstance(load_policy("mine"), Fcfs)
    with pytest.raises(Rejected, match=r"'bad' \(somewhere:Thing\) does not load: ImportError"):
        load_policy("bad")
    with pytest.raises(Rejected, match="has no method `plan`"):
        load_policy("odd")


def test_a_scheduling_worker_does_not_pay_for_heavy_imports() -> None:
    heavy = {"networkx", "numpy", "redis", "yaml", "importlib.metadata"}
    code = (
        "import sys; before = set(sys.modules);"
        "from fluxkv.schedulers.policy import load_policy; load_policy('fcfs');"
        "import fluxkv.schedulers.graph;"
        f"print(sorted((set(sys.modules) - before) & {heavy}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
