"""Simulations in virtual time: the same starts as by asking the policy at every moment, and what an entry's fields mean."""

from __future__ import annotations

import random
from math import inf

import pytest

from fluxkv.instances.turns import in_turns
from fluxkv.journal.claims import Claim
from fluxkv.journal.rset import NodeRecord
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.backfill import Conservative, Easy, Hybrid
from fluxkv.schedulers.fcfs import Fcfs
from fluxkv.schedulers.policy import Place, Policy
from fluxkv.schedulers.policy_contract import random_inventory, random_request
from fluxkv.schedulers.request import Request, compile_request
from fluxkv.schedulers.resources import Pool
from fluxkv.schedulers.whatif import simulate
from fluxkv.schedulers.workload import After, Begun, Held, Work

CLASSIC = [(8, 60), (10, 60), (12, 60), (14, 60), (16, 60), (6, 121), (4, 179), (4, 239), (2, 239), (2, 299), (2, 59)]


def cores(count: int) -> Request:
    slot = {"type": "slot", "count": count, "label": "t", "with": [{"type": "core", "count": 1}]}
    return compile_request({"resources": [slot]})


def machine(count: int = 1, each: int = 16) -> Pool:
    return Pool([NodeRecord(rank, f"n{rank}", (1 << each) - 1, 0, 0, ()) for rank in range(count)])


def classic() -> list[Work]:
    return [Work(job, 0.0, 60.0 * m, cores(n), 60.0 * m, order=job) for job, (n, m) in enumerate(CLASSIC, 1)]


def starts(works: list[Work], policy: Policy, pool: Pool | None = None) -> dict[int, float]:
    return {one.job: one.start for one in simulate(works, pool or machine(), policy)}


def random_workload(rng: random.Random, queues: tuple[str, ...]) -> list[Work]:
    """Bursts and gaps, jobs without a limit, that overrun theirs, or end at once, dependencies, priorities."""
    works, now = [], 0.0
    gap = rng.choice((1, 5, 20))
    for job in range(1, rng.randrange(5, 70)):
        now += rng.choice((0, 0, 1, rng.random() * gap))
        limit = rng.choice((0, 5, 10, 20, 40, rng.random() * 50))
        over = rng.random() * 60 if rng.random() < 0.1 else 1.0
        run = rng.choice((limit or 7, rng.random() * (limit or 30), over, 0.0))
        after: tuple[tuple[After, ...], ...] = ()
        if job > 2 and rng.random() < 0.2:
            first = After(rng.randrange(1, job), rng.random() < 0.3, rng.choice((0, 0, 3.0)))
            after = ((first, After(rng.randrange(1, job))),)
        priority, queue = rng.choice((16, 16, 16, 20, 5)), rng.choice(queues)
        works.append(Work(job, now, run, random_request(rng), limit, priority, job, queue, after))
    return works


@pytest.mark.parametrize("seed", range(10))
def test_what_is_left_out_changes_no_start(seed: int) -> None:
    rng = random.Random(seed)
    nodes = random_inventory(rng)
    works = random_workload(rng, ("", "b") if seed % 4 == 0 else ("",))
    policies: list[Policy] = [
        Fcfs(), Fcfs(2), Easy(), Hybrid(rng.randrange(1, 4)), Hybrid(rng.randrange(1, 4), rng.randrange(1, 8)), Conservative(),
        Conservative(rng.randrange(1, 9)),
    ]  # fmt: skip
    for policy in policies:
        quick, slow = (list(simulate(works, Pool(nodes), policy, turns=in_turns, thorough=thorough)) for thorough in (False, True))
        assert quick == slow
        _check(works, nodes, quick)
    mixed = [list(simulate(works, Pool(nodes), lambda queue: Easy() if queue else Fcfs(), turns=in_turns, thorough=thorough))
             for thorough in (False, True)]  # fmt: skip
    assert mixed[0] == mixed[1]


def _check(works: list[Work], nodes: tuple[NodeRecord, ...], begun: list[Begun]) -> None:
    """Nobody begins too early, and nothing is held twice."""
    by_job, at = {work.job: work for work in works}, {one.job: one for one in begun}
    assert len(at) == len(begun)
    for one in begun:
        work = by_job[one.job]
        assert one.start >= one.ready >= work.submit
        assert one.end == one.start + work.run_s
        for group in work.after:
            moments = [(at[a.job].start if a.start else at[a.job].end) + a.delay_s for a in group if a.job in at]
            assert min(moments) <= one.ready
        for other in begun:
            if other.job != one.job and other.start <= one.start < min(one.end, other.end):
                for a in one.claims:
                    assert not any(a.rank == b.rank and (a.cores & b.cores or a.gpus & b.gpus) for b in other.claims)
    pool = Pool(nodes)
    possible = {work.job for work in works if pool.satisfiable(work.request) is None}
    assert at.keys() == possible - _behind(works, possible)


def _behind(works: list[Work], possible: set[int]) -> set[int]:
    """Who waits for somebody that never runs."""
    never: set[int] = set()
    for work in works:
        for group in work.after:
            if all(one.job not in possible or one.job in never for one in group):
                never.add(work.job)
    return never


@pytest.mark.parametrize(
    ("policy", "first"),
    [(Easy(), [1, 6, 11]), (Hybrid(3), [1, 7, 11]), (Conservative(), [1, 7, 11]), (Fcfs(), [1])],
)
def test_who_starts_on_sixteen_cores(policy: Policy, first: list[int]) -> None:
    found = starts(classic(), policy)
    assert [job for job, start in found.items() if start == 0.0] == first
    assert found.keys() == set(range(1, 12))


def test_who_overtakes_is_told() -> None:
    works = [Work(1, 0.0, 10.0, cores(12), 10.0, order=1), Work(2, 1.0, 5.0, cores(16), 5.0, order=2),
             Work(3, 2.0, 3.0, cores(4), 3.0, order=3), Work(4, 3.0, 50.0, cores(4), 50.0, order=4)]  # fmt: skip
    found = list(simulate(works, machine(), Easy()))
    assert [(one.job, one.start, one.backfilled) for one in found] == [
        (1, 0.0, False), (3, 2.0, True), (2, 10.0, False), (4, 15.0, False),
    ]  # fmt: skip


def test_the_real_length_is_hidden_from_the_policy() -> None:
    works = [Work(1, 0.0, 10.0, cores(16), 100.0, order=1), Work(2, 1.0, 5.0, cores(16), 5.0, order=2)]
    assert starts(works, Easy()) == {1: 0.0, 2: 10.0}
    early = [*works, Work(3, 20.0, 500.0, cores(8), 10.0, order=3), Work(4, 21.0, 5.0, cores(16), 5.0, order=4)]
    assert starts(early, Easy())[4] == 520.0


def test_what_is_held_at_first() -> None:
    pool = machine()
    held = Held(9, 50.0, 80.0, (Claim(0, 0xFF, 0, 0, 8),))
    works = [Work(1, 5.0, 10.0, cores(16), 10.0, order=1), Work(2, 5.0, 30.0, cores(8), 30.0, order=2)]
    found = list(simulate(works, pool, Easy(), held=[held], now=20.0))
    assert [(one.job, one.ready, one.start) for one in found] == [(2, 5.0, 20.0), (1, 5.0, 50.0)]
    forever = Held(9, inf, 0.0, (Claim(0, 1, 0, 0, 1),))
    assert list(simulate(works[:1], machine(), Easy(), held=[forever])) == []


def test_a_policy_of_somebody_else() -> None:
    class Newest:
        """Last come, first served; one at a time."""

        def plan(self, pending, pool, now):  # type: ignore[no-untyped-def]
            entry = list(pending)[-1]
            got = pool.match(entry.request)
            if got:
                pool.take(got)
                yield Place(entry.job, got)

    works = [Work(job, float(job > 2), 10.0, cores(8), 10.0, order=job) for job in range(1, 6)]
    assert starts(works, Newest()) == {2: 0.0, 1: 0.0, 5: 10.0, 4: 10.0, 3: 20.0}

    class Twice:
        def plan(self, pending, pool, now):  # type: ignore[no-untyped-def]
            for entry in list(pending)[:1] * 2:
                yield Place(entry.job, (Claim(0, 1, 0, 0, 1),))

    with pytest.raises(Rejected, match="places job 1, which is not in line"):
        starts(works, Twice())
