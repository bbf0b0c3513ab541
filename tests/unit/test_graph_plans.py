"""Reservations on an instance that has a graph: flat requests are looked up as without one, and get what the search finds."""

from __future__ import annotations

import random
from typing import Any

import pytest
from trees import recipe, vertex

from fluxkv.schedulers import timeline
from fluxkv.schedulers.graph_pool import GraphPool
from fluxkv.schedulers.profile import Profile
from fluxkv.schedulers.request import Request, compile_request
from fluxkv.schedulers.resources import Unmatched
from fluxkv.schedulers.timeline import Span, Timeline
from fluxkv.schedulers.tree.grug import from_grug
from fluxkv.schedulers.tree.pooling import compact, nodes_of


def site(nodes: int) -> GraphPool:
    """Racks of three nodes, each of two sockets with four cores and a GPU, and two NVMes."""
    small = compact(
        from_grug(
            recipe(
                ("cluster", "rack", nodes // 3), ("rack", "node", 3), ("node", "socket", 2), ("node", "nvme", 2),
                ("socket", "core", 4), ("socket", "gpu", 1), scopes={"node": 1, "core": 1, "gpu": 1},
            )
        )
    )  # fmt: skip
    return GraphPool(nodes_of(small), small)


def ask(top: dict[str, Any]) -> Request:
    return compile_request({"resources": [top]})


def slots(count: int, *held: dict[str, Any]) -> dict[str, Any]:
    return vertex("slot", count, *held, label="task")


def flat(dice: random.Random) -> Request:
    """Slots, nodes, whole nodes; some with GPUs."""
    gpus = [vertex("gpu", 1)] if dice.random() < 0.2 else []
    one = slots(dice.randrange(1, 3), vertex("core", dice.randrange(1, 5)), *gpus)
    if dice.random() < 0.4:
        return ask(one)
    return ask({**vertex("node", dice.randrange(1, 4), one), **({"exclusive": True} if dice.random() < 0.4 else {})})


def general(dice: random.Random) -> Request:
    """What hangs on claims as draws: an NVMe beside cores, or wherever there is one."""
    beside = slots(1, vertex("core", 1), vertex("nvme", 1))
    if dice.random() < 0.7:
        return ask(vertex("node", dice.randrange(1, 3), beside))
    return compile_request({"resources": [vertex("nvme", 1), slots(1, vertex("core", 1))]})


@pytest.mark.parametrize("seed", range(30))
def test_a_flat_request_is_looked_up_and_gets_what_the_search_finds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside jobs and reservations of any kind: the same time, the same claims, the draws of whole nodes included."""
    monkeypatch.setattr(timeline, "FEW", -1)
    looked_up = 0
    quick = Timeline._look_up

    def counted(self: Timeline, profile: Profile, job: int, request: Request, length: float) -> Span | None:
        nonlocal looked_up
        looked_up += 1
        return quick(self, profile, job, request, length)

    monkeypatch.setattr(Timeline, "_look_up", counted)
    dice, pool, running = random.Random(seed), site(9), []
    for job in range(30):
        claims = pool.match((flat if dice.random() < 0.7 else general)(dice))
        if not isinstance(claims, Unmatched):
            pool.take(claims)
            running.append((job, 100.0 + dice.randrange(1, 40) * 10.0, claims))
    plan = Timeline(pool, 100.0, running)
    for job in range(100, 130):
        request, length = (flat if dice.random() < 0.7 else general)(dice), dice.choice((50.0, 120.0, 400.0))
        monkeypatch.setattr(timeline, "SOME", 1_000)
        monkeypatch.setattr(timeline, "PATIENCE", 0)
        slow = plan._search(job, request, length)
        monkeypatch.setattr(timeline, "SOME", 0)
        monkeypatch.setattr(timeline, "PATIENCE", 1)
        plan._searched.clear()
        assert plan._search(job, request, length) == slow, "from where it may fit on"
        assert plan._search(job, request, length) == slow, "from where it fitted the last time on"
        found = plan.reserve(job, request, length)
        assert found == slow, f"job {job}: {request.tree}"
        if found is not None and dice.random() < 0.2:
            assert plan.can_keep(found) is False  # somebody has it now
            plan.release(job)
            assert plan.can_keep(found)
    assert looked_up > 5


def test_whoever_holds_only_something_inside_a_node_keeps_others_from_having_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cores, GPUs and memory tell nothing of that."""
    monkeypatch.setattr(timeline, "FEW", -1)
    pool = site(3)
    first = pool.match(ask(vertex("node", 1, slots(1, vertex("core", 8)))))
    assert not isinstance(first, Unmatched)
    pool.take(first)
    apart = pool.match(compile_request({"resources": [vertex("nvme", 1), slots(1, vertex("core", 1))]}))
    assert not isinstance(apart, Unmatched)
    assert [(claim.rank, claim.cores) for claim in apart] == [(0, 0), (1, 1)]
    pool.take(apart)
    plan = Timeline(pool, 100.0, [(1, 200.0, first), (2, 300.0, apart)])
    whole = ask({**vertex("node", 1, slots(1, vertex("core", 1))), "exclusive": True})
    assert plan.match_now(whole, 1000.0) == (pool.whole(2, 1),)
    plan.placed(3, (pool.whole(2, 1),), 1000.0)
    span = plan.reserve(4, whole, 10.0)
    assert span is not None
    assert (span.start, span.claims) == (300.0, (pool.whole(0, 1),))
    plan.release(4)
    assert plan.can_keep(span)
    assert not plan.can_keep(span._replace(start=250.0))
