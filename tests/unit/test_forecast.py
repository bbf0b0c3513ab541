"""Estimated starts: what is foretold is what happens when each job runs to its limit, under each policy."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from typing import Any

import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances.outlook import Outlook
from fluxkv.journal import decide
from fluxkv.journal.claims import Claim
from fluxkv.journal.job import RUN, SCHED
from fluxkv.journal.rset import NodeRecord
from fluxkv.schedulers.backfill import Conservative, Easy, Hybrid
from fluxkv.schedulers.fcfs import Fcfs
from fluxkv.schedulers.forecast import EACH, Forecast, Rough, forecast
from fluxkv.schedulers.policy import Code, Decision, Pending, Place, Policy
from fluxkv.schedulers.request import Request, compile_request
from fluxkv.schedulers.resources import Pool

POLICIES: list[Policy] = [Fcfs(), Easy(), Hybrid(3), Conservative()]
CLASSIC = [(8, 60), (10, 60), (12, 60), (14, 60), (16, 60), (6, 121), (4, 179), (4, 239), (2, 239), (2, 299), (2, 59)]


def cores(count: int) -> Request:
    slot = {"type": "slot", "count": count, "label": "t", "with": [{"type": "core", "count": 1}]}
    return compile_request({"resources": [slot]})


def wide(nodes: int) -> Request:
    slot = {"type": "slot", "count": 1, "label": "t", "with": [{"type": "core", "count": 1}]}
    return compile_request({"resources": [{"type": "node", "count": nodes, "exclusive": True, "with": [slot]}]})


class OneLine:
    """One queue of pending jobs under a policy."""

    def __init__(self, policy: Policy, entries: list[Pending]) -> None:
        self.policy = policy
        self.left = {entry.job: entry for entry in sorted(entries, key=lambda entry: entry.sort_key)}

    def plan(self, pool: Pool, now: float, rough: bool = False) -> Iterator[Decision]:
        policy = Rough(256) if rough else self.policy
        return policy.plan(iter(list(self.left.values())), pool, now)

    def begins(self, job: int, at: float) -> float:
        lasts = self.left.pop(job).duration_s
        return at + lasts if lasts else 0.0

    def ends(self, job: int) -> bool:
        return False

    def requests(self) -> Collection[Request]:
        return list({entry.request.key: entry.request for entry in self.left.values()}.values())


def pool_of(count: int, each: int) -> Pool:
    return Pool(NodeRecord(i, f"n{i}", (1 << each) - 1, 0, 0, ()) for i in range(count))


def what_happens(policy: Policy, pool: Pool, entries: list[Pending], now: float) -> dict[int, float]:
    """A plan at each end of a job, and what it places begins: the slow way, without looking ahead."""
    running: dict[int, tuple[float, tuple[Claim, ...]]] = {}
    waiting, begun = sorted(entries, key=lambda entry: entry.sort_key), dict[int, float]()
    pool.holders = lambda: [(job, end, claims) for job, (end, claims) in running.items()]
    while True:
        pool.timeline = None
        for decision in policy.plan(iter(list(waiting)), pool, now):
            if isinstance(decision, Place):
                entry = next(one for one in waiting if one.job == decision.job)
                waiting.remove(entry)
                begun[entry.job] = now
                running[entry.job] = (now + entry.duration_s, decision.claims)
        if not running:
            return begun
        now = min(end for end, _ in running.values())
        for job in [job for job, (end, _) in running.items() if end <= now]:
            pool.give(running.pop(job)[1])


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_what_is_foretold_happens(policy: Policy) -> None:
    for seed in range(6):
        rnd = random.Random(seed)
        entries = []
        for job in range(1, 30):
            request = wide(rnd.randrange(1, 5)) if rnd.random() < 0.3 else cores(rnd.choice([1, 2, 5, 9, 16]))
            entries.append(Pending(job, rnd.choice([16, 16, 20]), job, request, rnd.randrange(10, 500) * 1.0))
        told = forecast(OneLine(policy, entries), pool_of(4, 4), [], 1000.0)
        assert told.whole
        happened = what_happens(policy, pool_of(4, 4), entries, 1000.0)
        assert {job: start.time for job, start in told.starts.items()} == happened, seed


def classic(policy: Policy, **more: Any) -> Forecast:
    entries = [Pending(job, 16, job, cores(count), minutes * 60.0) for job, (count, minutes) in enumerate(CLASSIC, 1)]
    return forecast(OneLine(policy, entries), pool_of(1, 16), [], 0.0, **more)


def test_what_the_first_plan_reserves_is_marked() -> None:
    told = classic(Hybrid(3))
    assert {job: start.time / 60 for job, start in told.starts.items() if start.reserved} == {2: 60, 3: 120, 4: 180}
    assert told.starts[2].claims == (Claim(0, (1 << 10) - 1, 0, 0, 10),)
    assert told.waits[2].text == "needs 10 slots of 1 core; 8 fit now"
    assert told.starts[1].time == 0.0
    assert not told.starts[1].reserved


def test_it_ends_when_all_that_was_asked_for_is_known_or_no_time_is_left() -> None:
    one = classic(Fcfs(), wanted=[2])
    assert set(one.starts) == {1, 2}
    now_only = classic(Hybrid(3), wanted=())
    assert [job for job, start in now_only.starts.items() if start.reserved] == [2, 3, 4]
    asked = iter([False, False, True])
    few = classic(Fcfs(), spent=lambda: next(asked, True))
    assert not few.whole
    assert len(few.starts) < len(CLASSIC)
    assert not classic(Fcfs(), rounds=1).whole


def test_in_a_hurry_the_rest_is_estimated_roughly() -> None:
    exact, rough = classic(Easy()), classic(Easy(), hurry=lambda: True)
    assert not rough.whole
    assert set(rough.starts) == set(exact.starts) == set(range(1, 12))
    told = {job for job, start in rough.starts.items() if not start.rough}
    assert told == {1, 2, 6, 11}  # those that the plan of this moment starts, or reserves for
    assert all(rough.starts[job] == exact.starts[job] for job in told)
    conservative = {job: start.time for job, start in classic(Conservative()).starts.items()}
    assert {job for job in rough.starts if rough.starts[job].time != conservative[job]} <= {3, 4, 5, 6, 7, 8, 9, 10}


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_nobody_is_told_to_wait_for_the_end_of_a_job_without_one(policy: Policy) -> None:
    entries = [Pending(1, 16, 1, cores(3), 0.0), Pending(2, 16, 2, cores(4), 10.0), Pending(3, 16, 3, cores(1), 10.0)]
    told = forecast(OneLine(policy, entries), pool_of(1, 4), [(9, 50.0, (Claim(0, 1, 0, 0, 1),))], 10.0)
    assert 2 not in told.starts
    assert told.whole
    if isinstance(policy, Fcfs):
        assert set(told.starts) == {1}
    else:
        assert told.endless[2] == (Claim(0, 15, 0, 0, 4),)
        assert told.starts[3].time == 10.0


def test_a_holder_past_its_limit_is_expected_to_be_over_in_a_second() -> None:
    pool = pool_of(1, 4)
    pool.take([Claim(0, 3, 0, 0, 2)])
    told = forecast(OneLine(Fcfs(), [Pending(2, 16, 2, cores(4), 10.0)]), pool, [(1, 50.0, (Claim(0, 3, 0, 0, 2),))], 100.0)
    assert told.starts[2].time == 101.0


def test_reserved_starts_are_exact_however_many_jobs_end_before() -> None:
    """With very many ends to come not every one is planned at; those that a plan has promised something at are."""
    many = EACH * 4
    pool, holders = pool_of(many, 1), []
    for job in range(1, many + 1):
        claims = (Claim(job - 1, 1, 0, 0, 1),)
        pool.take(claims)
        holders.append((job, 100.0 + job, claims))
    entries = [Pending(5001, 16, 1, cores(many // 2 + 3), 10.0), Pending(5002, 16, 2, cores(many), 10.0)]
    told = forecast(OneLine(Easy(), entries), pool, holders, 0.0, wanted=[5001, 5002])
    assert told.starts[5001].time == 100.0 + many // 2 + 3
    assert told.starts[5002].time == 100.0 + many


# -- of a state ---------------------------------------------------------------------------------------------------


def spec(cores: int = 1, nodes: int = 0, duration: float = 0.0, queue: str = "") -> dict[str, Any]:
    found: dict[str, Any] = jobspec(cores, nodes, duration, queue)
    return found


def test_a_worker_does_what_was_foretold() -> None:
    rig = Rig(2)
    running = [rig.submit(spec(2, duration=seconds)) for seconds in (100.0, 230.0)]
    waiting = [rig.submit(spec(cores, duration=50.0)) for cores in (2, 1, 1, 2)]
    told = Outlook(rig.state, rig.now)
    while waiting:
        first = min(running, key=lambda id: rig.job(id).expiration)
        rig.started(first)
        rig.now = max(rig.now, rig.job(first).expiration)
        rig.over(first)
        rig.turn()
        running.remove(first)
        for id in [id for id in waiting if rig.job(id).state == RUN]:
            start = told.start(rig.job(id))
            assert start is not None
            assert abs(start.time - rig.now) < 1.0
            assert list(start.claims) == list(rig.job(id).claims)
            waiting.remove(id)
            running.append(id)


def test_who_keeps_a_time_though_he_would_fit_is_not_told_to_begin_now() -> None:
    """On what plans have promised only the worker that made them knows: it says so, once, and estimates go by that."""
    rig = Rig(16, config={"policy": {"scheduler": {"queue-policy": "conservative"}}})
    ids = [rig.submit(spec(2, nodes=count, duration=minutes * 60.0), turn=False) for count, minutes in CLASSIC]
    rig.turn()
    assert [number for number, id in enumerate(ids, 1) if rig.job(id).state == RUN] == [1, 7, 11]
    rig.turn(seconds=1.0)
    begun = rig.now
    rig.started(ids[6])
    rig.over(ids[6])
    rig.turn(seconds=1.0)
    ninth = rig.job(ids[8])
    assert ninth.state == SCHED
    code, _, start = ninth.reason
    assert code == "ahead"
    assert start > begun + 3600.0
    told = Outlook(rig.journal.load(), rig.now).start(ninth)
    assert told is not None
    assert (told.time, told.reserved) == (start, True)
    assert len(told.claims) == 2
    version = rig.state.version
    rig.turn(seconds=30.0)
    assert rig.state.version == version, "said once"
    blind = rig.journal.load()
    blind.jobs[ids[8]].reason = ["", ""]
    unknown = Outlook(blind, rig.now).start(ninth)
    assert unknown is not None
    assert unknown.time == rig.now, "what a plan without that memory would do"


def test_queues_limits_and_nodes_out_of_use() -> None:
    limit = {"limits": {"max-running-jobs-per-user": 1}}
    config = {"queues": {"a": {"requires": ["a"]}, "b": {"requires": ["b"], "policy": limit}},
              "policy": {"jobspec": {"defaults": {"system": {"queue": "a"}}}}}  # fmt: skip
    rig = Rig(2, {0: ("a",), 1: ("b",)}, config)
    long = rig.submit(spec(2, duration=300.0, queue="a"))
    limited = [rig.submit(spec(1, duration=100.0, queue="b")) for _ in range(3)]
    behind = rig.submit(spec(1, duration=100.0, queue="a"))
    told = Outlook(rig.state, rig.now)
    assert told.start(rig.job(behind)).time == rig.job(long).expiration  # type: ignore[union-attr]
    second, third = (told.start(rig.job(id)) for id in limited[1:])
    assert second is not None
    assert third is not None
    assert second.time == rig.job(limited[0]).expiration
    assert third.time == second.time + 100.0
    assert "as many as allowed" in told.limited[limited[1]]
    rig.do(decide.drain(rig.state, [0], "bad fan", 0, rig.now))
    rig.turn()
    told = Outlook(rig.state, rig.now)
    assert told.start(rig.job(behind)) is None
    assert told.wait(rig.job(behind)).code == Code.DRAINED  # type: ignore[union-attr]
    assert told.why_none(rig.job(behind)) == "no job's end will make it fit"
    rig.do(decide.change_queue("b", "stop", "why", rig.now))
    assert Outlook(rig.journal.load(), rig.now).start(rig.job(limited[1])) is None


def test_a_hurry_takes_nothing_from_who_stands_beside_a_backfilled_line() -> None:
    own = {"policy": {"scheduler": {"queue-policy": "easy"}}}
    config = {"queues": {"a": {"requires": ["a"], **own}, "b": {"requires": ["b"]}},
              "policy": {"jobspec": {"defaults": {"system": {"queue": "a"}}}}}  # fmt: skip
    rig = Rig(2, {0: ("a",), 1: ("b",)}, config)
    for queue in "aabb":
        rig.submit(spec(2, duration=300.0, queue=queue))
    waiting = [id for id, job in rig.state.jobs.items() if job.state == SCHED]
    told = Outlook(rig.state, rig.now, waiting, hurry=lambda: True)
    assert len(waiting) == 2
    assert all(told.start(rig.job(id)) is not None for id in waiting)


def test_who_has_no_time_limit_is_named() -> None:
    rig = Rig(1)
    endless = rig.submit(spec(2))
    waiting = rig.submit(spec(1, duration=10.0))
    told = Outlook(rig.state, rig.now)
    assert told.start(rig.job(waiting)) is None
    assert told.why_none(rig.job(waiting)) == "it waits for ƒ2, which has no time limit"
    assert endless == 1
    rig.state.instance["policy"] = "no-such-one"
    told = Outlook(rig.state, rig.now)
    assert told.why_none(rig.job(waiting)).startswith("no queue policy is called 'no-such-one'")
