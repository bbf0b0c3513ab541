"""Policies that look ahead: who overtakes whom, and that nobody is delayed by those behind him."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from fluxkv.instances.line import ANY
from fluxkv.instances.turns import Feed, in_turns
from fluxkv.journal.claims import Claim
from fluxkv.journal.rset import NodeRecord
from fluxkv.schedulers import timeline
from fluxkv.schedulers.backfill import Backfill, Conservative, Easy, Hybrid
from fluxkv.schedulers.policy import Code, Pending, Place, Policy, Reserve, Wait, load_policy
from fluxkv.schedulers.policy_contract import check_policy, random_inventory, random_request
from fluxkv.schedulers.profile import Profile
from fluxkv.schedulers.request import Request, compile_request
from fluxkv.schedulers.resources import Pool, Unmatched
from fluxkv.schedulers.timeline import Span, Timeline

MINUTE = 60.0
# (cores, minutes), numbered from 1: a machine of 16 cores, and what each policy starts at once.
CLASSIC = [(8, 60), (10, 60), (12, 60), (14, 60), (16, 60), (6, 121), (4, 179), (4, 239), (2, 239), (2, 299), (2, 59)]


def cores(count: int, exclusive: int = 0) -> Request:
    top: dict[str, Any] = {"type": "slot", "count": count, "label": "t", "with": [{"type": "core", "count": 1}]}
    if exclusive:
        top = {"type": "node", "count": exclusive, "exclusive": True, "with": [{**top, "count": 1}]}
    return compile_request({"resources": [top]})


class Machine:
    """A pool with its running jobs, planned on by a policy; time is the test's."""

    def __init__(self, policy: Policy, nodes: list[NodeRecord]) -> None:
        self.policy = policy
        self.pool = Pool(nodes)
        self.pool.promised = {}
        self.running: dict[int, tuple[float, tuple[Claim, ...]]] = {}
        self.waiting: list[Pending] = []
        self.pool.holders = lambda: [(job, end, claims) for job, (end, claims) in self.running.items()]
        self.reserved: dict[int, Reserve] = {}
        self.waits: dict[int, Wait] = {}

    def submit(self, job: int, request: Request, seconds: float, priority: int = 16) -> None:
        self.waiting.append(Pending(job, priority, job, request, seconds, held=not priority))

    def plan(self, now: float) -> list[int]:
        """The jobs that start now."""
        self.pool.timeline = None
        self.reserved.clear()
        self.waits.clear()
        lengths = {entry.job: entry.duration_s for entry in self.waiting}
        started = []
        for decision in self.policy.plan(iter(sorted(self.waiting, key=lambda entry: entry.sort_key)), self.pool, now):
            if isinstance(decision, Place):
                started.append(decision.job)
                end = now + lengths[decision.job] if lengths[decision.job] else 0.0
                self.running[decision.job] = (end, decision.claims)
            elif isinstance(decision, Reserve):
                self.reserved[decision.job] = decision
            elif decision is not None:
                self.waits[decision.job] = decision
        self.waiting = [entry for entry in self.waiting if entry.job not in started]
        return started

    def cancel(self, job: int) -> None:
        """One that waits goes."""
        self.waiting = [entry for entry in self.waiting if entry.job != job]
        assert self.pool.promised is not None
        self.pool.promised.pop(job, None)

    def mark(self, drained: set[int]) -> None:
        """These nodes are out of use, and no others."""
        for i, node in enumerate(self.pool.nodes):
            held = [claim for _, claims in self.running.values() for claim in claims if claim.rank == node.rank]
            free = (self.pool.core_free[i], self.pool.gpu_free[i], self.pool.free.memory.counts[i])
            self.pool.set_node(node.rank, *free, node.rank not in drained, not held, "drained")

    def end(self, job: int) -> None:
        self.pool.give(self.running.pop(job)[1])


def nodes_of(count: int, each: int) -> list[NodeRecord]:
    return [NodeRecord(i, f"n{i}", (1 << each) - 1, 0, 0, ()) for i in range(count)]


@pytest.mark.parametrize(
    ("policy", "first", "ended", "then"),
    [
        (Easy(), [1, 6, 11], 6, [7, 9]),
        (Hybrid(3), [1, 7, 11], 7, [9]),
        (Conservative(), [1, 7, 11], 7, []),
        (load_policy("fcfs"), [1], 0, []),
    ],
)
def test_who_starts_on_sixteen_cores(policy: Policy, first: list[int], ended: int, then: list[int]) -> None:
    machine = Machine(policy, nodes_of(1, 16))
    for job, (count, minutes) in enumerate(CLASSIC, 1):
        machine.submit(job, cores(count), minutes * MINUTE)
    assert machine.plan(0.0) == first
    if ended:
        machine.end(ended)
    assert machine.plan(1.0) == then


def test_reservations_tell_when_and_where() -> None:
    machine = Machine(Hybrid(3), nodes_of(1, 16))
    for job, (count, minutes) in enumerate(CLASSIC, 1):
        machine.submit(job, cores(count), minutes * MINUTE)
    machine.plan(0.0)
    assert {job: kept.start / MINUTE for job, kept in machine.reserved.items()} == {2: 60.0, 3: 120.0, 4: 180.0}
    assert machine.reserved[2].claims == (Claim(0, (1 << 10) - 1, 0, 0, 10),)
    assert machine.reserved[2].wait == Wait(2, Code.RESOURCES, "needs 10 slots of 1 core; 8 fit now", "core")


def test_jobs_without_a_limit_do_not_overtake_onto_what_is_reserved() -> None:
    machine = Machine(Easy(), nodes_of(2, 4))
    machine.submit(1, cores(4), 100.0)
    machine.submit(2, cores(0, exclusive=2), 100.0)
    machine.submit(3, cores(2), 0.0)
    machine.submit(4, cores(2), 90.0)
    assert machine.plan(0.0) == [1, 4]
    assert machine.reserved[2].start == 100.0


def test_a_job_past_its_limit_still_holds_what_it_holds() -> None:
    machine = Machine(Easy(), nodes_of(1, 4))
    machine.submit(1, cores(3), 100.0)
    assert machine.plan(0.0) == [1]
    machine.submit(2, cores(4), 10.0)
    machine.submit(3, cores(1), 10.0)
    assert machine.plan(500.0) == []
    assert 500.0 < machine.reserved[2].start < 510.0
    machine.end(1)
    assert machine.plan(501.0) == [2]


def test_who_waits_for_nodes_that_are_down_holds_up_nobody() -> None:
    machine = Machine(Easy(), nodes_of(2, 4))
    machine.pool.set_node(1, 15, 0, 0, False, True, "drained")
    machine.submit(1, cores(0, exclusive=2), 10.0)
    machine.submit(2, cores(4), 1000.0)
    assert machine.plan(0.0) == [2]
    assert machine.waits[1].code == Code.DRAINED


def test_what_is_free_but_reserved_is_said_to_be() -> None:
    machine = Machine(Hybrid(2), nodes_of(1, 4))
    machine.submit(1, cores(3), 100.0)
    machine.submit(2, cores(4), 100.0)
    machine.submit(3, cores(1), 200.0)
    assert machine.plan(0.0) == [1]
    assert machine.reserved[3].wait == Wait(3, Code.AHEAD, "what is free is reserved for ƒ3", "job/2")
    assert machine.reserved[3].start == 200.0


@pytest.mark.parametrize("name", ["easy", "hybrid", "conservative"])
@pytest.mark.parametrize("seed", range(25))
def test_they_keep_the_contract(name: str, seed: int) -> None:
    check_policy(lambda: load_policy(name), random.Random(seed))


def random_history(policy: Policy, seed: int, on_plan: Callable[[Machine, float], None], ends_early: bool) -> int:
    """Jobs come and end in virtual time; the number of those that overtook somebody."""
    rng = random.Random(seed)
    machine = Machine(policy, list(random_inventory(rng)))
    moment, job, overtaken = 0.0, 0, 0
    def plan() -> None:
        nonlocal overtaken
        started = machine.plan(moment)
        overtaken += sum(any(entry.job < one for entry in machine.waiting) for one in started)
        on_plan(machine, moment)

    for _ in range(40):
        until = moment + rng.choice([0.0, 5.0, 20.0])
        while machine.running and min(end for end, _ in machine.running.values()) <= until:
            moment = min(end for end, _ in machine.running.values())
            for running in [running for running, (end, _) in machine.running.items() if end == moment]:
                machine.end(running)
            plan()
        moment = until
        for running in [running for running in machine.running if ends_early and rng.random() < 0.1]:
            machine.end(running)
        for _ in range(rng.randrange(0, 3)):
            request = random_request(rng)
            if machine.pool.satisfiable(request) is None:
                job += 1
                machine.submit(job, request, rng.choice([10.0, 30.0, 100.0]))
        plan()
    return overtaken


def test_a_reservation_is_never_put_off_by_who_comes_later() -> None:
    """While jobs end when they said they would, the first that waits starts when it was first told, or before."""
    overtaken = 0
    for seed in range(25):
        promised: dict[int, float] = {}

        def check(machine: Machine, now: float, seed: int = seed, promised: dict[int, float] = promised) -> None:
            for job, kept in machine.reserved.items():
                assert kept.start <= promised.get(job, kept.start) + 1e-6, f"seed {seed}: job {job} at {now}"
                promised[job] = min(promised.get(job, kept.start), kept.start)

        for policy in (Easy(), Conservative()):
            promised.clear()
            overtaken += random_history(policy, seed, check, False)
    assert overtaken > 100


def test_the_head_s_time_is_never_put_off_where_jobs_end_early_or_are_cancelled() -> None:
    seen = 0
    for seed in range(30):
        promised: dict[int, float] = {}

        def check(machine: Machine, now: float, seed: int = seed, promised: dict[int, float] = promised) -> None:
            nonlocal seen
            for job, kept in machine.reserved.items():
                seen += 1
                assert kept.start <= promised.get(job, kept.start) + 1e-6, f"seed {seed}: job {job} at {now}"
                promised[job] = kept.start
            if machine.waiting and seed % 3 == 0:
                machine.cancel(machine.waiting[seed % len(machine.waiting)].job)

        random_history(Easy(), seed, check, True)
    assert seen > 200


class Two(Machine):
    """Two queues on one pool, planned by a policy each, in turns. Before each plan, one without the last jobs is made aside."""

    def __init__(self, first: Policy, second: Policy, nodes: list[NodeRecord], rng: random.Random) -> None:
        super().__init__(first, nodes)
        self.both, self.rng, self.compared = (first, second), rng, 0

    def decisions(self, pool: Pool, waiting: list[Pending], now: float) -> dict[int, float]:
        """Job -> when it begins, as one plan of both queues has it. Jobs of odd numbers are in the second."""
        pool.timeline = None
        entries = sorted(waiting, key=lambda entry: entry.sort_key)
        feeds = [Feed([("q", ANY, [entry for entry in entries if entry.job % 2 == odd])], lambda queue, user: "") for odd in (0, 1)]
        found: dict[int, float] = {}
        self.last = []
        for decision in in_turns(feeds, lambda feed: self.both[feeds.index(feed)].plan(feed, pool, now)):
            if isinstance(decision, Place):
                found[decision.job] = now
                self.last.append(decision)
            elif isinstance(decision, Reserve):
                found[decision.job] = decision.start
        return found

    def plan(self, now: float) -> list[int]:
        until = max((entry.job for entry in self.waiting), default=0) - self.rng.randrange(0, 3)
        some = [entry for entry in self.waiting if entry.job < until]
        aside = self.pool.copy()
        aside.holders, aside.promised = self.pool.holders, dict(self.pool.promised or {})
        without = self.decisions(aside, some, now)
        starts = self.decisions(self.pool, self.waiting, now)
        for job, start in without.items():
            self.compared += 1
            assert starts.get(job, float("inf")) <= start, f"job {job} at {now}: {start} without those who come later"
        lengths = {entry.job: entry.duration_s for entry in self.waiting}
        for place in self.last:
            self.running[place.job] = (now + lengths[place.job], place.claims)
        self.waiting = [entry for entry in self.waiting if entry.job not in self.running]
        return [place.job for place in self.last]


def test_no_later_submission_puts_anybody_off() -> None:
    """In two queues on the same nodes, while jobs end early, are cancelled, and nodes are drained and come back: who was given a
    time in a plan without the last to come has none that is later in the plan with them."""
    assert sum(later_submissions(seed) for seed in range(25)) > 1000


def later_submissions(seed: int) -> int:
    """One history; how many times were compared."""
    rng = random.Random(seed)
    policies = [Easy(), Hybrid(2), Hybrid(4), Conservative()]
    machine = Two(rng.choice(policies), rng.choice(policies), list(random_inventory(rng)), rng)
    moment, job, drained = 0.0, 0, set[int]()
    for _ in range(60):
        moment += rng.choice([0.0, 3.0, 15.0])
        for running in [one for one, (end, _) in machine.running.items() if end <= moment or rng.random() < 0.1]:
            machine.end(running)
        if machine.waiting and rng.random() < 0.1:
            machine.cancel(rng.choice(machine.waiting).job)
        if rng.random() < 0.1:
            drained ^= {rng.choice(machine.pool.nodes).rank}
            machine.mark(drained)
        for _ in range(rng.randrange(0, 4)):
            request = random_request(rng)
            if machine.pool.satisfiable(request) is None:
                job += 1
                machine.submit(job, request, rng.choice([10.0, 30.0, 100.0]))
        machine.plan(moment)
    return machine.compared


def test_a_newcomer_begins_only_after_those_who_would_fit_and_keep_their_time() -> None:
    machine = Machine(Conservative(), nodes_of(1, 16))
    for job, (count, minutes) in enumerate(CLASSIC, 1):
        machine.submit(job, cores(count), minutes * MINUTE)
    machine.plan(0.0)
    machine.end(7)
    assert machine.plan(1.0) == []
    assert machine.reserved[9].start == 300 * MINUTE
    machine.submit(12, cores(2), 239 * MINUTE)  # like job 9
    assert machine.plan(2.0) == [9]
    machine.end(1)
    assert 2 in machine.plan(3.0), "the head moves up"


def test_a_time_that_was_told_is_kept_until_the_line_moves_up() -> None:
    machine = Machine(Hybrid(2), nodes_of(1, 4))
    machine.submit(1, cores(4), 100.0)
    machine.submit(2, cores(4), 100.0)
    machine.submit(3, cores(4), 100.0)
    machine.plan(0.0)
    assert {job: kept.start for job, kept in machine.reserved.items()} == {2: 100.0, 3: 200.0}
    machine.plan(20.0)
    assert {job: kept.start for job, kept in machine.reserved.items()} == {2: 100.0, 3: 200.0}
    machine.end(1)
    assert machine.plan(30.0) == [2]
    assert machine.reserved[3].start == 130.0
    machine.pool.set_node(0, 0, 0, 0, False, False, "drained")
    assert machine.plan(40.0) == []
    assert machine.waits[3].code == Code.DRAINED


def test_whoever_is_a_moment_late_for_his_time_begins_and_moves_nobody_s() -> None:
    """A worker that waits for a time is always late for it, and the next may be told the very moment at which one would be over."""
    machine = Machine(Conservative(), nodes_of(1, 4))
    for job, (count, seconds) in enumerate([(1, 50.0), (3, 100.0), (4, 100.0), (1, 50.0), (4, 100.0), (4, 100.0)]):
        machine.submit(job, cores(count), seconds)
    assert machine.plan(0.0) == [0, 1]
    assert {job: kept.start for job, kept in machine.reserved.items()} == {2: 100.0, 3: 50.0, 4: 200.0, 5: 300.0}
    machine.end(0)
    assert machine.plan(50.001) == [3]
    assert {job: round(kept.start, 6) for job, kept in machine.reserved.items()} == {2: 100.0, 4: 200.0, 5: 300.0}
    machine.end(1)
    machine.end(3)
    assert machine.plan(100.001) == [2]
    assert {job: round(kept.start, 6) for job, kept in machine.reserved.items()} == {4: 200.001, 5: 300.0}
    machine.end(2)
    machine.submit(6, cores(1), 100.0)
    assert machine.plan(203.0) == [4], "who is later than that has no claim to his time, and begins where he fits all the same"


def test_times_that_are_kept_are_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(Conservative(), nodes_of(2, 4))
    for job in range(12):
        machine.submit(job, cores(3), 100.3 + job / 7)
    machine.plan(1000.1)
    told = {job: kept.start for job, kept in machine.reserved.items()}
    searched: list[int] = []
    reserve = Timeline.reserve
    monkeypatch.setattr(Timeline, "reserve", lambda self, job, *rest: searched.append(job) or reserve(self, job, *rest))
    machine.plan(1007.9)
    assert {job: kept.start for job, kept in machine.reserved.items()} == told
    assert searched == [2], "the head alone might move up"


def test_the_quick_look_finds_what_the_slow_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile's earliest time is that of a look at each end, whatever runs and is reserved."""
    quick, seen = Timeline._look_up, 0

    def both(self: Timeline, profile: Profile, job: int, request: Request, length: float) -> Span | None:
        nonlocal seen
        found, slow = quick(self, profile, job, request, length), self._search(job, request, length)
        assert (found and found.start) == (slow and slow.start), f"job {job} for {length} s at {self.now}"
        seen += 1
        return found

    monkeypatch.setattr(Timeline, "_look_up", both)
    monkeypatch.setattr(timeline, "FEW", -1)
    for seed in range(25):
        random_history(Hybrid(6), seed, lambda machine, now: None, True)
    assert seen > 500


def test_windows_never_hold_more_than_there_is() -> None:
    """At each moment what runs and what is reserved is disjoint and inside the inventory."""
    for seed in range(40):

        def check(machine: Machine, now: float, seed: int = seed) -> None:
            spans = [(now, end or 1e12, claims) for end, claims in machine.running.values()]
            lengths = {entry.job: entry.duration_s for entry in machine.waiting}
            spans += [(kept.start, kept.start + lengths[job], kept.claims) for job, kept in machine.reserved.items()]
            by_rank = {node.rank: node for node in machine.pool.nodes}
            for start, _, _ in spans:
                held: dict[int, list[Claim]] = {}
                for begin, end, claims in spans:
                    if begin <= start < end:
                        for claim in claims:
                            held.setdefault(claim.rank, []).append(claim)
                for rank, claims_there in held.items():
                    for kind in ("cores", "gpus"):
                        ids = [getattr(claim, kind) for claim in claims_there]
                        total = 0
                        for mask in ids:
                            assert not mask & total, f"seed {seed}: {kind} of node {rank} twice at {start}"
                            total |= mask
                        assert not total & ~getattr(by_rank[rank], kind)
                    assert sum(claim.memory_mb for claim in claims_there) <= by_rank[rank].memory_mb

        random_history(Hybrid(5), seed, check, True)


def test_the_earliest_window_is_that_of_a_slow_look() -> None:
    """A first reservation of a plan is at the first end at which the request fits a pool to which all that ends was given back."""
    seen = 0
    for seed in range(40):

        def check(machine: Machine, now: float, seed: int = seed) -> None:
            nonlocal seen
            for job, kept in machine.reserved.items():
                seen += 1
                request = next(entry.request for entry in machine.waiting if entry.job == job)
                slow = machine.pool.copy()
                for end, claims in sorted(machine.running.values()):
                    slow.give(claims)
                    later = [other for other, _ in machine.running.values() if other == end]
                    if len(later) == 1 and not isinstance(slow.match(request), Unmatched):
                        assert kept.start <= max(end, now + 1.0), f"seed {seed}: job {job} at {now}"
                        break
                break

        random_history(Backfill(1), seed, check, True)
    assert seen > 100
