"""What a queue policy may not propose: the plan ends there, the worker says why, and nothing of it is in the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances.explaining import why as why_it_waits
from fluxkv.journal.claims import Claim
from fluxkv.journal.ids import f58
from fluxkv.journal.job import RUN, SCHED
from fluxkv.schedulers.fcfs import Fcfs
from fluxkv.schedulers.policy import Code, Decision, Pending, Place, Wait
from fluxkv.schedulers.resources import Pool

ONE = Claim(0, 1, 0, 0, 1)


def raises(entry: Pending) -> Iterator[Decision]:
    raise KeyError("of a plug-in")


WRONG: dict[str, tuple[Callable[[Pending], Iterable[Decision]], str]] = {
    "no node": (lambda entry: [Place(entry.job, (ONE._replace(rank=9),))], "rank 9, which is not there"),
    "in use": (lambda entry: [Place(entry.job, (ONE,))], "what is not free on rank 0"),
    "not its own": (lambda entry: [Place(entry.job, (ONE._replace(rank=1, cores=8),))], "what is not free on rank 1"),
    "too much": (lambda entry: [Place(entry.job, (ONE._replace(rank=1, cores=3),))], "2 cores and 0 GPUs for 1 slots"),
    "nothing": (lambda entry: [Place(entry.job, ())], "nothing"),
    "too little": (lambda entry: [Place(entry.job, (ONE._replace(rank=1, slots=0, cores=0),))], "0 of 1 slots"),
    "one node twice": (lambda entry: [Place(entry.job, (ONE._replace(rank=1),) * 2)], "twice on one node"),
    "elsewhere": (lambda entry: [Place(entry.job, (ONE._replace(rank=1),))], "rank 1, which its constraint"),
    "no job": (lambda entry: [Place(77, (ONE._replace(rank=1),))], "job 77, which is not in line"),
    "what is no id": (lambda entry: [Place("x", (ONE,))], "job 'x', which is not in line"),  # type: ignore[arg-type]
    "twice": (lambda entry: [Place(entry.job, (ONE._replace(rank=1),))] * 2, "has a place already"),
    "reason of nobody": (lambda entry: [Wait(77, "resources", "", "")], "job 77, which is not there"),
    "an error": (raises, "KeyError: 'of a plug-in'"),
}


class Wrong(Fcfs):
    """Does what it is told to, once."""

    __slots__ = ("make",)
    make: Callable[[Pending], Iterable[Decision]] | None

    def __init__(self) -> None:
        super().__init__()
        self.make = None

    def plan(self, pending: Iterable[Pending], pool: Pool, now: float) -> Iterator[Decision]:
        if self.make is None:
            yield from super().plan(pending, pool, now)
            return
        for entry in pending:
            make, self.make = self.make, None
            yield from make(entry)


@pytest.mark.parametrize("name", WRONG)
def test_what_can_not_be_is_not_placed(name: str) -> None:
    rig = Rig()
    holder = rig.submit()
    assert rig.job(holder).claims == (ONE,)
    policy = rig.worker.planner.policies.own = Wrong()
    policy.make, why = WRONG[name]
    said = rig.listen()
    spec = jobspec()
    if name == "elsewhere":
        spec["attributes"]["system"]["constraints"] = {"ranks": ["0"]}
    id = rig.submit(spec)
    assert len(said) == 1
    assert said[0].startswith(f"the queue policy's plan was broken off at job {f58(id)}, which sits out for a while: ")
    assert why in said[0]
    rig.turn(seconds=1.1)  # it is asked again by itself
    assert rig.job(id).state == RUN  # for "twice": what came before the mistake stands
    assert rig.job(id).claims == ((ONE._replace(rank=1),) if name == "twice" else (ONE._replace(cores=2),))
    assert rig.state.digest() == rig.journal.at().digest()


class Trips(Fcfs):
    """Fails on some jobs."""

    __slots__ = ("on",)

    def plan(self, pending: Iterable[Pending], pool: Pool, now: float) -> Iterator[Decision]:
        def careful() -> Iterator[Pending]:
            for entry in pending:
                if entry.job in self.on:
                    raise ValueError("not this one")
                yield entry

        yield from super().plan(careful(), pool, now)


def tripping(rig: Rig, *jobs: int) -> Trips:
    policy = rig.worker.planner.policies.own = Trips()
    policy.on = set(jobs)
    return policy


def test_a_job_on_which_plans_fail_sits_out_and_the_others_go_on() -> None:
    rig = Rig()
    policy = tripping(rig, 1)
    said = rig.listen()
    bad = rig.submit()
    good = [rig.submit() for _ in range(2)]
    assert bad == 1
    assert [rig.job(id).state for id in (bad, *good)] == [SCHED, RUN, RUN]
    for _ in range(200):  # 100 seconds
        rig.turn(seconds=0.5)
    assert len(said) == 1, said
    assert rig.names(bad).count("reason") == 1
    assert rig.job(bad).reason == ["faulty", "no plan can be made with it: it raised ValueError: not this one"]
    assert why_it_waits(rig.journal.at(), rig.job(bad), rig.now).reason.code == "faulty"
    failed = rig.worker.planner.bench.jobs[bad]
    assert failed.times in (7, 8)  # after 1, 2, 4, ... seconds
    bench = rig.worker.planner.bench
    assert bench.due(rig.now) == failed.until
    assert bench.due(failed.until) == 0.0  # nobody is woken for it again and again while no plan is made
    late = rig.submit()
    assert rig.job(late).state == RUN
    policy.on.clear()
    rig.turn(seconds=failed.until - rig.now + 0.1)
    assert rig.job(bad).state in (RUN, SCHED)
    assert rig.job(bad).reason[0] != "faulty" or rig.job(bad).state == RUN
    assert bad not in rig.worker.planner.bench.jobs or rig.job(bad).state == SCHED


def test_a_policy_that_always_fails_is_asked_less_and_less_and_other_queues_go_on() -> None:
    config = {"queues": {"a": {"requires": ["a"]}, "b": {"requires": ["b"]}},
              "policy": {"jobspec": {"defaults": {"system": {"queue": "a"}}}}}  # fmt: skip
    rig = Rig(2, {0: ("a",), 1: ("b",)}, config)
    jobs = range(1, 40)
    broken = tripping(rig, *jobs)
    rig.worker.planner.policies._by_queue["b"] = Fcfs()
    said = rig.listen()
    bad = [rig.submit(jobspec(queue="a")) for _ in range(6)]
    good = rig.submit(jobspec(queue="b"))
    assert rig.job(good).state == RUN
    assert {rig.job(id).state for id in bad} == {SCHED}
    asked = 0
    plan = Trips.plan

    def counted(*args: object) -> Iterator[Decision]:
        nonlocal asked
        asked += 1
        return plan(*args)  # type: ignore[arg-type]

    Trips.plan = counted  # type: ignore[method-assign,assignment]
    try:
        for _ in range(600):
            rig.turn(seconds=0.5)
    finally:
        Trips.plan = plan  # type: ignore[method-assign]
    assert asked < 30  # in 300 seconds
    assert len(said) < 8, said
    assert any("queue a rests" in text for text in said)
    broken.on.clear()
    rig.turn(seconds=700.0)
    rig.turn(seconds=1.0)
    assert {rig.job(id).state for id in bad} & {RUN}


def test_where_a_policy_fails_before_it_reads_a_job_the_first_in_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(2)

    def plan(*args: object) -> Iterator[Decision]:
        raise ZeroDivisionError("bad policy")

    with monkeypatch.context() as patch:
        patch.setattr(Fcfs, "plan", plan)
        jobs = [rig.submit(jobspec()) for _ in range(3)]
        for _ in range(20):
            rig.turn(seconds=0.5)
        first, *others = (rig.job(id) for id in jobs)
        assert first.reason[0] == Code.FAULTY
        assert "no plan of its queue can be made: it raised ZeroDivisionError: bad policy" in first.reason[1]
        assert all(job.reason[0] != Code.FAULTY for job in others)
    for _ in range(200):
        rig.turn(seconds=1.0)
    assert {rig.job(id).state for id in jobs} == {RUN}
