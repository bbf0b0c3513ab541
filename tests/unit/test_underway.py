"""Long plans are interrupted: what else a worker has to do goes on between their slices, and nothing is placed on old premises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from trees import racks
from worker_rig import Rig, jobspec

from fluxkv.instances.line import Line
from fluxkv.instances.reactor import Answered, Entries, Note, WakeAt, Write
from fluxkv.instances.underway import SLICE_S
from fluxkv.journal import decide
from fluxkv.journal.decide import Decision as Decided
from fluxkv.journal.job import INACTIVE, RUN, SCHED
from fluxkv.schedulers.backfill import Easy
from fluxkv.schedulers.policy import Decision, Pending
from fluxkv.schedulers.request import compile_request
from fluxkv.schedulers.resources import Pool
from fluxkv.schedulers.tree.vertices import Tree

LOOK_S = 0.01
WAITING = 40


class Slow(Easy):
    """Each job it looks at takes ten milliseconds of the test's clock."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def plan(self, pending: Iterable[Pending], pool: Pool, now: float) -> Iterator[Decision | None]:
        def looks() -> Iterator[Pending]:
            for entry in pending:
                self.seconds += LOOK_S
                yield entry

        return super().plan(looks(), pool, now)


def cancelled(rig: Rig, id: int) -> Decided:
    return decide.raise_exception(rig.state, id, "cancel", 0, "", 1, rig.now)


class Stepped(Rig):
    """Two nodes of two cores, all but one core in use, and a line of jobs for a whole node, and a short one; planned slowly, step
    by step. long: the first in line is for both nodes, and all others for one core and longer than it would have to wait."""

    def __init__(self, config: dict[str, Any] | None = None, tree: Tree | None = None, long: bool = False) -> None:
        super().__init__(2, config=config, tree=tree)
        self.slow = Slow()
        self.held = [self.submit(jobspec(2, 0, 1000.0)), self.submit(jobspec(1, 0, 1000.0))]
        self.started(*self.held)
        asked = [jobspec(2, 2, 500.0), *[jobspec(1, 0, 5000.0)] * (WAITING - 1)] if long else [jobspec(2, 0, 500.0)] * WAITING
        self.wide = [self.submit(one, turn=False) for one in asked]
        self.short = self.submit(jobspec(1, 0, 5000.0 if long else 100.0), turn=False)
        self.worker.planner.policies.own = self.slow
        self.worker.planner.clock = lambda: self.slow.seconds
        self.answers: list[Answered] = []
        self.notes: list[Note] = []
        self.longest = 0.0

    def step(self) -> bool:
        """One turn of the loop; False when nothing was left to do."""
        before = self.slow.seconds
        entries = self.store.read(self.state.version)
        outputs = self.worker.step(self.now, [*self.answers, Entries(entries)])
        self.longest = max(self.longest, self.slow.seconds - before)
        self.answers = [Answered(one.request, self.store.append(one.request)) for one in outputs if isinstance(one, Write)]
        self.notes += [one for one in outputs if isinstance(one, Note) and one.level == "error"]
        return bool(self.answers) or any(isinstance(one, WakeAt) and one.time <= self.now for one in outputs)

    def until_under_way(self) -> None:
        for _ in range(10):
            self.step()
            if self.worker.planner.underway is not None:
                return
        raise AssertionError("the plan was not interrupted")

    def to_rest(self) -> None:
        for _ in range(300):
            if not self.step() and self.state.version == self.store.meta().version:
                return
        raise AssertionError("it never comes to rest")


def test_what_else_there_is_to_do_waits_for_a_slice_and_not_for_a_plan() -> None:
    rig = Stepped()
    rig.until_under_way()
    late = rig.submit(jobspec(2, 0, 500.0), turn=False)
    rig.do(cancelled(rig, rig.wide[3]))
    steps = 0
    while rig.state.jobs.get(late) is None or rig.job(late).state != SCHED or rig.job(rig.wide[3]).state != INACTIVE:
        rig.step()
        steps += 1
        assert steps < 8
    assert rig.job(rig.short).state == SCHED, "the plan is not over yet"
    rig.to_rest()
    assert rig.longest <= SLICE_S + 8 * LOOK_S
    assert rig.job(rig.short).state == RUN
    assert not rig.notes
    assert rig.journal.at().digest() == rig.state.digest()


def test_a_node_that_is_drained_between_two_slices_gets_nothing() -> None:
    rig = Stepped()
    rig.until_under_way()
    rig.do(decide.drain(rig.state, [1], "fan", 0, rig.now))
    rig.to_rest()
    assert rig.job(rig.short).state == SCHED
    assert not rig.notes


def test_who_is_cancelled_before_he_is_looked_at_is_not_placed() -> None:
    rig = Stepped()
    rig.until_under_way()
    rig.do(cancelled(rig, rig.short))
    rig.to_rest()
    assert rig.job(rig.short).state == INACTIVE
    assert not rig.notes


def test_what_comes_free_under_way_is_for_those_who_come_first() -> None:
    rig = Stepped()
    rig.until_under_way()
    rig.over(rig.held[0])
    rig.to_rest()
    assert [rig.job(id).state for id in rig.wide[:2]] == [RUN, SCHED]
    assert rig.job(rig.short).state == RUN
    assert not rig.notes


def test_a_job_that_comes_before_those_looked_at_begins_the_plan_anew() -> None:
    rig = Stepped()
    rig.until_under_way()
    urgent = rig.submit(jobspec(1, 0, 1000.0), urgency=20, turn=False)
    rig.to_rest()
    assert rig.job(urgent).state == RUN
    assert rig.job(rig.short).state == SCHED


def test_what_was_reserved_for_those_who_left_is_forgotten() -> None:
    rig = Stepped()
    rig.to_rest()
    pool = rig.worker.planner.pool
    assert pool.promised is not None
    (kept,) = pool.promised.values()
    assert kept.job == rig.wide[0]
    for id in range(1000, 1100):
        pool.promised[id] = kept
    rig.submit(turn=False)
    rig.to_rest()
    assert set(rig.worker.planner.pool.promised or ()) == {kept.job}


@pytest.mark.parametrize("size", [1, 127, 128, 129, 400])
def test_a_line_may_change_while_it_is_read(size: int) -> None:
    line, request = Line(), compile_request(jobspec())
    for job in range(size):
        line.add(Pending(job, 16, job, request))
    read = []
    for entry in line:
        read.append(entry.job)
        line.remove(entry.job)
        line.remove(entry.job + 1)
        if entry.job < 1000:
            line.add(Pending(1000 + entry.job, 16, 1000 + entry.job, request))
    assert read == [*range(0, size, 2), *read[-(len(read) - (size + 1) // 2) :]]
    assert len(read) == len(set(read))


def test_who_comes_while_a_plan_is_under_way_is_looked_at_all_the_same() -> None:
    rig = Stepped()
    rig.until_under_way()
    rig.do(cancelled(rig, rig.short))
    late = rig.submit(jobspec(1, 0, 100.0), turn=False)
    rig.to_rest()
    assert rig.job(late).state == RUN
    assert not rig.notes


def test_who_comes_when_his_queue_has_been_looked_at_has_his_turn_afterwards() -> None:
    defaults = {"jobspec": {"defaults": {"system": {"queue": "default"}}}}
    rig = Stepped({"queues": {"default": {}, "other": {}}, "policy": defaults})
    rig.until_under_way()
    rig.do(cancelled(rig, rig.short))
    late = rig.submit(jobspec(1, 0, 100.0, "other"), turn=False)
    rig.to_rest()
    assert rig.job(late).state == RUN
    assert not rig.notes


@pytest.mark.parametrize("urgency", [1, 15, 17, 31])
@pytest.mark.parametrize("which", ["first", "last"])
def test_who_gets_another_urgency_while_a_plan_is_under_way_is_not_forgotten(which: str, urgency: int) -> None:
    rig = Stepped()
    rig.until_under_way()
    id = rig.short if which == "last" else rig.wide[0]
    rig.do(decide.change_urgency(rig.state, id, urgency, 1, rig.now))
    rig.to_rest()
    assert rig.job(rig.short).state == RUN
    assert not rig.notes


def test_whoever_waited_for_what_was_reserved_for_somebody_who_left_has_it() -> None:
    rig = Stepped(long=True)
    rig.until_under_way()
    rig.do(cancelled(rig, rig.wide[0]))
    rig.to_rest()
    assert [rig.job(id).state for id in (*rig.wide[1:3], rig.short)] == [RUN, SCHED, SCHED]
    assert not rig.notes


def test_those_far_back_in_the_line_are_looked_at_however_often_somebody_comes_before_them() -> None:
    rig = Stepped()
    rig.until_under_way()
    for _ in range(60):
        rig.submit(jobspec(2, 0, 500.0), urgency=20, turn=False)
        rig.step()
        rig.step()
        if rig.job(rig.short).state == RUN:
            break
    assert rig.job(rig.short).state == RUN
    assert not rig.notes


def test_on_a_graph_an_end_and_what_a_plan_draws_itself_do_not_begin_it_anew() -> None:
    rig = Stepped(tree=racks(1, 2))
    planner, held = rig.worker.planner, rig.held[0]
    rig.until_under_way()
    going, pool = planner.underway, planner.pool
    drawing = jobspec(1, 0, 50.0)
    drawing["resources"] = [{"type": "rack", "count": 1, "with": [{"type": "power", "count": 4}, *drawing["resources"]]}]
    rig.submit(drawing, turn=False)
    rig.step()
    rig.over(held)
    rig.step()
    assert planner.underway is going
    rig.to_rest()
    assert planner.pool is pool
    assert [rig.job(id).state for id in rig.wide[:2]] == [RUN, SCHED]
    assert rig.job(rig.short).state == RUN
    assert not rig.notes
