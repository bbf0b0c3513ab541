"""The worker alone: what it derives from facts that are put into the journal by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances.foreign import Adopting
from fluxkv.instances.greeting import answer_hello
from fluxkv.instances.reactor import Answered, Entries, Input, Lead, Reopened, Snapshot, WakeAt, Write
from fluxkv.instances.worker import PROBE
from fluxkv.journal import decide
from fluxkv.journal.decide import Decision
from fluxkv.journal.job import CLEANUP, INACTIVE, PRIORITY, RUN, SCHED, Result, job_value
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Rejected
from fluxkv.kvs.port import Append, Appended, Conflicted, Gap


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def busy() -> Rig:
    rig = Rig()
    rig.busy()
    return rig


def test_a_job_s_whole_life_in_rfc_21_order(rig: Rig) -> None:
    id = rig.submit()
    rig.started(id)
    rig.over(id, 3 << 8)
    rig.turn()
    assert rig.names(id) == ["submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free", "clean"]
    assert (rig.job(id).result, rig.job(id).returncode) == (Result.FAILED, 3)


def test_the_first_write_asks_for_the_sequence(rig: Rig) -> None:
    id = rig.submit()
    worker = rig.new_worker()  # the same name: the sequence goes on where the dead one stopped
    rig.worker = worker
    assert worker.seq == PROBE
    rig.over(id)
    rig.turn(Lead(True))
    assert 0 < worker.seq < 100
    assert rig.job(id).state == INACTIVE
    assert [c.seq for c in rig.commits() if c.producer == "worker-0"] == list(range(1, worker.seq + 1))


def test_a_repeated_answer_is_taken_once(rig: Rig) -> None:
    rig.do(decide.submit([(9, jobspec())], "", 16, 1, 0, rig.now))
    (write,) = [one for one in rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))]) if isinstance(one, Write)]
    rig.store.append(write.request)  # the answer is lost; it is sent again
    answer = rig.store.append(write.request)
    assert isinstance(answer, Appended)
    assert answer.duplicate
    rig.turn(Answered(write.request, answer))
    assert rig.names(9).count("alloc") == 1


def test_an_epoch_lost_between_write_and_answer_is_settled_by_the_journal(rig: Rig) -> None:
    rig.do(decide.submit([(9, jobspec())], "", 16, 1, 0, rig.now))
    (write,) = [one for one in rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))]) if isinstance(one, Write)]
    rig.store.append(write.request)
    meta = rig.store.meta()
    rig.server.restart()
    new = rig.store.open_epoch(meta.uid, meta.epoch, meta.version)
    rig.turn(Answered(write.request, rig.store.append(write.request)), Reopened(new))
    assert rig.names(9).count("validate") == 1
    assert rig.names(9).count("alloc") == 1
    assert rig.worker.inflight is None


# -- conflicts -----------------------------------------------------------------------------------------------------


def test_losers_stay_behind_and_the_rest_goes_out(rig: Rig) -> None:
    rig.do(decide.submit([(8, jobspec()), (9, jobspec())], "", 16, 1, 0, rig.now))
    (write,) = [one for one in rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))]) if isinstance(one, Write)]
    rig.do(Decision([["urgency", 8, rig.now, {"urgency": 0, "userid": 1}]], bumps=["job/8"]))
    answer = rig.store.append(write.request)
    assert answer == Conflicted(("job/8",))
    outputs = rig.worker.step(rig.now, [Answered(write.request, answer)])
    (second,) = [one for one in outputs if isinstance(one, Write)]
    assert "job/8" not in second.request.since
    assert "job/9" in second.request.since
    rig.turn(Answered(second.request, rig.store.append(second.request)))
    assert rig.job(9).state == RUN
    assert (rig.job(8).state, rig.job(8).priority) == (SCHED, 0)
    assert len(rig.worker.planner.seat_by_job) == 1


def test_who_would_take_what_a_loser_frees_loses_too(rig: Rig) -> None:
    first, second, third, fourth = (rig.submit() for _ in range(4))
    waiting = rig.submit()
    assert rig.job(waiting).state == SCHED
    rig.over(first)
    (write,) = [one for one in rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))]) if isinstance(one, Write)]
    assert f"attempt/{waiting}" in write.request.bumps
    rig.do(Decision([["memo", first, rig.now, {"a": 1}]], bumps=[f"job/{first}"]))
    answer = rig.store.append(write.request)
    outputs = rig.worker.step(rig.now, [Answered(write.request, answer)])
    assert not [one for one in outputs if isinstance(one, Write)]
    rig.turn()
    assert rig.job(first).state == INACTIVE
    assert rig.job(waiting).state == RUN
    assert rig.worker.planner.seats == {(0, rig.worker.planner.shape_of(second)): 2, (1, rig.worker.planner.shape_of(third)): 2}
    assert rig.job(fourth).holds


def test_after_a_conflict_nothing_is_decided_before_the_news(rig: Rig) -> None:
    rig.do(decide.submit([(8, jobspec())], "", 16, 1, 0, rig.now))
    (write,) = [one for one in rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))]) if isinstance(one, Write)]
    rig.do(Decision([["memo", 8, rig.now, {"a": 1}]], bumps=["job/8"]))
    assert rig.worker.step(rig.now, [Answered(write.request, rig.store.append(write.request))]) == []
    assert rig.worker.step(rig.now, []) == []
    rig.turn()
    assert rig.job(8).state == RUN


def test_a_reason_that_lost_is_said_again(rig: Rig) -> None:
    id = rig.submit(jobspec(nodes=2, cores=2))
    waiting = rig.submit()
    rig.turn(seconds=5.0)
    rig.turn()
    assert rig.job(waiting).reason[0] == "resources"
    assert rig.job(id).state == RUN
    assert rig.names(waiting).count("reason") == 1


# -- refusals ------------------------------------------------------------------------------------------------------


def test_what_can_never_run_ends_at_once_with_the_reason(rig: Rig) -> None:
    id = rig.submit(jobspec(cores=9))
    assert rig.job(id).state == INACTIVE
    assert rig.job(id).exception is not None
    assert "unsatisfiable" in rig.job(id).exception[1]
    assert "9 cores" in rig.job(id).exception[1] or "fit" in rig.job(id).exception[1]


def test_an_unknown_queue_ends_the_job(rig: Rig) -> None:
    id = rig.submit(jobspec(queue="nope"))
    assert rig.job(id).state == INACTIVE
    assert rig.job(id).exception == ["alloc", "queue nope is not defined"]


# -- urgency -------------------------------------------------------------------------------------------------------


def test_a_held_job_waits_until_it_is_released(rig: Rig) -> None:
    id = rig.submit(urgency=0)
    assert (rig.job(id).state, rig.job(id).priority) == (SCHED, 0)
    rig.do(decide.change_urgency(rig.state, id, 16, 1, rig.now))
    rig.turn()
    assert rig.job(id).state == RUN


def test_an_expedited_job_overtakes(rig: Rig) -> None:
    held = [rig.submit() for _ in range(4)]
    one, two = rig.submit(), rig.submit()
    rig.do(decide.change_urgency(rig.state, two, 31, 1, rig.now))
    rig.turn()
    assert rig.job(two).priority == 4294967295
    rig.over(held[0], 1 << 8)
    rig.turn()
    assert (rig.job(two).state, rig.job(one).state) == (RUN, SCHED)


def test_another_worker_s_priority_reorders_the_line(rig: Rig) -> None:
    """A standby folds urgency and priority in one go: the state is SCHED again, the place in the line is not."""
    id = rig.submit(urgency=0)
    rig.do(decide.change_urgency(rig.state, id, 16, 1, rig.now))
    rig.say(["priority", id, rig.now, {"priority": 16}])
    rig.turn()
    assert rig.job(id).state == RUN


# -- several nodes -------------------------------------------------------------------------------------------------


def test_start_is_all_ranks_and_finish_is_the_worst_status(rig: Rig) -> None:
    id = rig.submit(jobspec(nodes=2))
    rig.report(0, start=[[id, rig.job(id).attempt, 5.0]])
    rig.turn()
    assert not rig.job(id).t_run
    rig.report(1, start=[[id, rig.job(id).attempt, 7.0]])
    rig.turn()
    assert rig.job(id).t_run == 7.0
    rig.over(id, 2 << 8, rank=0)
    rig.turn()
    assert rig.job(id).state == RUN
    rig.over(id, 1 << 8, rank=1)
    rig.turn()
    assert (rig.job(id).state, rig.job(id).status) == (INACTIVE, 2 << 8)
    assert not rig.state.nodes[0].jobs | rig.state.nodes[1].jobs


def test_a_rank_that_cannot_start_ends_the_others(rig: Rig) -> None:
    id = rig.submit(jobspec(nodes=2))
    rig.report(1, start=[[id, rig.job(id).attempt, 5.0]])
    rig.over(id, 127 << 8, "spawn: x: No such file or directory", rank=0)
    rig.turn()
    assert rig.job(id).state == CLEANUP
    assert ["end", id, rig.job(id).attempt_id, "exec"] in rig.orders(1)
    rig.over(id, 15, "ended:exec", rank=1)
    rig.turn()
    assert rig.job(id).exception == ["exec", "x: No such file or directory"]
    assert rig.job(id).returncode == 127


def test_a_job_that_cannot_be_executed_says_so(rig: Rig) -> None:
    id = rig.submit()
    rig.over(id, 127 << 8, "spawn: x: No such file or directory")
    rig.turn()
    assert rig.job(id).exception == ["exec", "x: No such file or directory"]
    assert (rig.job(id).returncode, rig.job(id).result) == (127, Result.FAILED)


# -- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False])
def test_a_timeout_is_known_by_its_fact_or_by_its_end(rig: Rig, told: bool) -> None:
    id = rig.submit(jobspec(duration=5.0))
    rig.started(id)
    if told:
        rig.report(0, timeout=[[id, rig.job(id).attempt, rig.now]])
        rig.turn()
        assert rig.job(id).state == CLEANUP
    rig.over(id, 15, "timeout")
    rig.turn()
    assert (rig.job(id).result, rig.job(id).returncode) == (Result.TIMEOUT, 142)
    assert rig.names(id).count("exception") == 1


@pytest.mark.parametrize(("status", "code"), [(9, 137), (3 << 8, 3), (0, 1)])
def test_what_a_job_says_for_itself_when_its_time_is_up_stands(rig: Rig, status: int, code: int) -> None:
    id = rig.submit(jobspec(duration=5.0))
    rig.started(id)
    rig.over(id, status, "timeout")
    rig.turn()
    assert (rig.job(id).result, rig.job(id).returncode) == (Result.TIMEOUT, code)


# -- slot grants ahead ---------------------------------------------------------------------------------------------


def test_a_grant_goes_behind_a_running_job_and_a_chain_comes_in_one_report(busy: Rig) -> None:
    one, two = busy.granted(), busy.granted()
    rank = busy.job(one).granted[0]  # type: ignore[index]
    assert ["launch", one, True] in busy.orders(rank)
    first = next(id for id in busy.held if busy.job(id).ranks == [rank])
    if busy.job(two).granted[0] != rank:  # type: ignore[index]
        two = next(id for id in [busy.granted(), busy.granted(), busy.granted()] if busy.job(id).granted[0] == rank)  # type: ignore[index]
    a, b, c = busy.job(first), busy.job(one), busy.job(two)
    busy.report(rank, over=[[first, a.attempt, 1.0, 2.0, 0, "", one], [one, b.attempt, 2.0, 3.0, 256, "", two]],
                start=[[two, c.attempt, 3.0]])  # fmt: skip
    busy.turn()
    assert (a.state, b.state, c.state) == (INACTIVE, INACTIVE, RUN)
    assert b.result == Result.FAILED
    assert c.claims_wire == a.claims_wire
    assert (c.t_run, c.seat_of) == (3.0, one)
    assert c.attempt < busy.state.version  # its grant's, not its alloc's
    assert busy.names(one)[3:] == ["priority", "grant", "alloc", "start", "finish", "release", "free", "clean"]
    busy.over(two)
    busy.turn()
    assert c.state == INACTIVE


def test_who_begins_anew_elsewhere_takes_no_seat_of_one_that_waits_for_its_node(busy: Rig) -> None:
    """Where their node is cut off the journal gives up the one and keeps the other, which would have its seat from nobody."""
    again = jobspec()
    again["attributes"]["system"]["retry"] = {"limit": 1, "on": "node-failure"}
    assert busy.job(busy.submit()).granted is not None
    first = busy.submit(again)
    assert busy.job(first).granted is None
    for id in busy.held:
        busy.over(id)
    busy.turn()
    assert busy.job(first).holds
    assert busy.worker.planner.shape_of(first) not in {"", busy.worker.planner.shape_of(busy.submit())}


def test_a_successor_that_cannot_be_spawned_fails_and_the_next_one_runs(busy: Rig) -> None:
    one = busy.granted()
    rank = busy.job(one).granted[0]  # type: ignore[index]
    first = next(id for id in busy.held if busy.job(id).ranks == [rank])
    over = [[first, busy.job(first).attempt, 1.0, 2.0, 0, "", one],
            [one, busy.job(one).attempt, 0.0, 2.0, 127 << 8, "spawn: x: not found", 0]]  # fmt: skip
    busy.report(rank, over=over)
    busy.turn()
    assert busy.job(one).exception == ["exec", "x: not found"]
    assert busy.job(one).state == INACTIVE
    assert busy.submit() not in busy.state.nodes[rank].grants  # its core is free again


def test_a_granted_job_cancelled_before_its_start_is_recalled_then_cleaned(busy: Rig) -> None:
    id = busy.granted()
    rank = busy.job(id).granted[0]  # type: ignore[index]
    busy.do(decide.raise_exception(busy.state, id, "cancel", 0, "", 1, busy.now))
    busy.turn()
    assert busy.job(id).state == CLEANUP
    assert ["recall", id, busy.job(id).attempt_id] in busy.orders(rank)
    busy.report(rank, unstarted=[[id, busy.job(id).attempt]])
    busy.turn()
    assert busy.job(id).state == INACTIVE
    assert busy.job(id).result == Result.CANCELED
    assert not busy.state.nodes[rank].grants


def test_a_granted_job_cancelled_after_its_start_is_allocated_then_ended(busy: Rig) -> None:
    id = busy.granted()
    rank = busy.job(id).granted[0]  # type: ignore[index]
    first = next(one for one in busy.held if busy.job(one).ranks == [rank])
    busy.do(decide.raise_exception(busy.state, id, "cancel", 0, "", 1, busy.now))
    busy.report(rank, over=[[first, busy.job(first).attempt, 1.0, 2.0, 0, "", id]], start=[[id, busy.job(id).attempt, 2.0]])
    busy.turn()
    assert busy.job(id).holds
    assert ["end", id, busy.job(id).attempt_id, "cancel"] in busy.orders(rank)
    busy.report(rank, unstarted=[[id, busy.job(id).attempt]])  # a late answer to the recall changes nothing
    busy.over(id, 15, "ended:cancel")
    busy.turn()
    assert (busy.job(id).state, busy.job(id).result) == (INACTIVE, Result.CANCELED)


def test_what_started_never_comes_back_unstarted(busy: Rig) -> None:
    """The recall reached its node after the job was over and acknowledged; the worker had not yet looked."""
    id = busy.granted()
    job = busy.job(id)
    rank = job.granted[0]  # type: ignore[index]
    first = next(one for one in busy.held if busy.job(one).ranks == [rank])
    over = [[first, busy.job(first).attempt, 1.0, 2.0, 0, "", id], [id, job.attempt, 2.0, 3.0, 0, "", 0]]
    busy.report(rank, over=over)
    busy.report(rank, unstarted=[[id, job.attempt]])
    busy.hello(rank, held=[])
    busy.turn()
    assert (job.state, job.result) == (INACTIVE, Result.COMPLETED)
    assert busy.names(id).count("alloc") == 1


def test_urgency_of_a_granted_job_does_not_place_it_twice(busy: Rig) -> None:
    id = busy.granted()
    busy.do(decide.change_urgency(busy.state, id, 20, 1, busy.now))
    busy.over(busy.held[3], 0)
    busy.turn()
    job = busy.job(id)
    assert job.state == SCHED
    assert job.granted is not None
    assert not job.holds
    busy.do(decide.change_urgency(busy.state, id, 0, 1, busy.now))
    busy.turn()
    assert job.recalled  # held: it must not start


def test_urgency_and_hand_over_in_one_batch(busy: Rig) -> None:
    id = busy.granted()
    rank = busy.job(id).granted[0]  # type: ignore[index]
    first = next(one for one in busy.held if busy.job(one).ranks == [rank])
    busy.report(rank, over=[[first, busy.job(first).attempt, 1.0, 2.0, 0, "", id]])
    busy.do(decide.change_urgency(busy.state, id, 20, 1, busy.now))
    busy.turn()
    assert busy.job(id).state == RUN
    assert busy.names(id).count("priority") == 2


def test_drain_recalls_and_the_job_runs_elsewhere(busy: Rig) -> None:
    id = busy.granted()
    rank = busy.job(id).granted[0]  # type: ignore[index]
    busy.do(decide.drain(busy.state, [rank], "fan", 0, busy.now))
    busy.turn()
    assert ["recall", id, busy.job(id).attempt_id] in busy.orders(rank)
    busy.report(rank, unstarted=[[id, busy.job(id).attempt]])
    other = next(one for one in busy.held if busy.job(one).ranks != [rank])
    busy.over(other, 256)
    busy.turn()
    assert busy.job(id).state == RUN
    assert busy.job(id).ranks == [1 - rank]


def test_a_stopped_queue_recalls_what_was_placed_ahead(busy: Rig) -> None:
    id = busy.granted()
    busy.do(decide.change_queue("default", "stop", "x", busy.now))
    busy.turn()
    assert busy.job(id).recalled


def test_a_grant_that_lingered_too_long_is_pending_again(busy: Rig) -> None:
    id = busy.granted()
    attempt, rank = busy.job(id).attempt, busy.job(id).granted[0]  # type: ignore[index]
    busy.report(rank, unstarted=[[id, attempt]])
    busy.turn()
    assert busy.job(id).state == SCHED
    assert busy.job(id).attempt != attempt
    assert len(busy.state.nodes[0].grants | busy.state.nodes[1].grants) <= 1


def test_jobs_on_several_nodes_are_never_granted_ahead() -> None:
    rig = Rig(4)
    spec = jobspec(nodes=2, cores=2)
    first = rig.submit(spec)
    rig.over(first)
    rig.turn()
    held = [rig.submit(spec), rig.submit(spec)]
    waiting = rig.submit(spec)
    assert all(rig.job(id).state == RUN for id in held)
    assert rig.job(waiting).granted is None
    assert not rig.worker.planner.seats


# -- hello ---------------------------------------------------------------------------------------------------------


def test_hello_settles_what_the_node_lost(rig: Rig) -> None:
    one, two = rig.submit(), rig.submit()
    assert rig.job(one).ranks == rig.job(two).ranks == [0]
    rig.hello(0, held=[rig.job(two).key])
    rig.turn()
    assert rig.job(one).exception == ["lost", "rank 0: lost: its node no longer has it"]
    assert rig.job(one).state == INACTIVE
    assert rig.job(two).state == RUN


def test_orders_the_agent_has_not_read_are_not_lost(rig: Rig) -> None:
    id = rig.submit()
    rig.hello(0, held=[], cursor=rig.job(id).attempt - 1)
    rig.turn()
    assert rig.job(id).state == RUN


def test_a_start_at_no_time_is_one_all_the_same(rig: Rig) -> None:
    """Else it would be derived again and again, and the journal would fill."""
    id = rig.submit()
    rig.report(rig.job(id).ranks[0], start=[[id, rig.job(id).attempt, 0.0]])
    rig.turn()
    assert rig.names(id).count("start") == 1
    assert rig.job(id).t_run == rig.now


def test_hello_with_attempts_nobody_knows_is_told_to_forget_them(rig: Rig) -> None:
    rig.hello(1, held=["77.5-99"])
    rig.turn()
    assert ["forget", "77.5-99"] in rig.orders(1)


def test_nothing_is_placed_on_a_node_that_the_same_pass_takes_offline(rig: Rig) -> None:
    rig.hello(0, held=["77.5-99"])
    id = rig.submit()
    assert not rig.state.nodes[0].online
    assert rig.job(id).ranks == [1]


def test_what_has_ended_since_its_node_listed_it_is_asked_for_anew(rig: Rig) -> None:
    """Neither given up nor taken for what is not in the journal: the worker was slow to answer, no more."""
    spec = jobspec()
    spec["attributes"]["system"]["retry"] = {"limit": 1, "on": ["any"], "delay": 5.0}
    id = rig.submit(spec)
    rig.hello(0, held=[rig.job(id).key])
    rig.over(id, status=256)
    rig.turn()
    assert "requeue" in rig.names(id)
    state = State()
    for commit in rig.commits():
        state.apply(commit)
    group = answer_hello(state, 0, rig.now, Adopting())
    assert group is not None
    assert (group.events, group.to_nodes) == ([], [(0, ["hello"])])


def test_an_earlier_wake_does_not_swallow_a_later_one(rig: Rig) -> None:
    """A runner keeps the earliest; when that has come, the worker says again when it is due."""
    spec = jobspec()
    spec["attributes"]["system"]["retry"] = {"limit": 1, "on": ["any"], "delay": 5.0}
    id = rig.submit(spec)
    rig.over(id, status=256)
    rig.turn()
    due = rig.job(id).requeued[2]  # type: ignore[index]
    assert WakeAt(due) in rig.worker.step(rig.now + 0.1, [])


def test_what_was_in_flight_when_an_epoch_began_is_decided_again(rig: Rig) -> None:
    """Nobody says what became of it, and it is not in the journal."""
    id = rig.submit(turn=False)
    entries = rig.store.read(rig.state.version)
    assert any(isinstance(one, Write) for one in rig.worker.step(rig.now, [Entries(entries)]))
    rig.turn(Reopened(rig.store.meta()))
    assert rig.job(id).state == RUN


def test_a_worker_that_waits_for_nodes_does_not_spin(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was about to say of a job when the wait began."""
    for _ in range(5):
        rig.submit()
    assert rig.worker.planner.say_at > rig.now
    monkeypatch.setattr("fluxkv.instances.worker.wait_until", lambda state, now: now + 30.0)
    rig.turn(seconds=1.0)
    rig.submit()
    assert rig.worker.due > rig.now


def test_hello_of_a_node_that_should_end_something_gets_the_order_again(rig: Rig) -> None:
    id = rig.submit()
    rig.do(decide.raise_exception(rig.state, id, "cancel", 0, "", 1, rig.now))
    rig.turn()
    rig.hello(0, held=[rig.job(id).key])
    rig.turn()
    assert rig.orders(0).count(["end", id, rig.job(id).attempt_id, "cancel"]) == 2


@pytest.mark.parametrize("how", ["snapshot", "conflict"])
def test_what_a_hello_listed_is_not_forgotten(rig: Rig, how: str) -> None:
    """Neither by a new worker that starts from a snapshot, nor by a conflict about the node."""
    id = rig.submit()
    meta = rig.store.meta()
    rig.server.restart()
    new = rig.store.open_epoch(meta.uid, meta.epoch, meta.version)
    rig.journal.meta = new
    rig.say(["epoch", "instance", rig.now, {"old": meta.epoch, "new": new.epoch, "reason": "x"}])
    rig.hello(0, held=[rig.job(id).key])
    if how == "snapshot":
        assert rig.journal.save_snapshot(rig.journal.load())
        rig.worker = rig.new_worker()
        rig.turn(Lead(True))
    else:
        inputs: list[Input] = [Reopened(new), Entries(rig.store.read(rig.state.version))]
        (write,) = [one for one in rig.worker.step(rig.now, inputs) if isinstance(one, Write)]
        answer = rig.store.append(write.request)
        assert isinstance(answer, Gap)
        (write,) = [one for one in rig.worker.step(rig.now, [Answered(write.request, answer)]) if isinstance(one, Write)]
        rig.do(decide.drain(rig.state, [0], "x", 0, rig.now))
        rig.turn(Answered(write.request, rig.store.append(write.request)))
    assert rig.state.nodes[0].online
    assert rig.job(id).state == RUN
    assert "lost" not in rig.names(id)


def test_no_node_is_used_in_a_new_epoch_before_its_hello(rig: Rig) -> None:
    meta = rig.store.meta()
    rig.server.restart()
    rig.journal.meta = rig.store.open_epoch(meta.uid, meta.epoch, meta.version)
    rig.do(decide.submit([(50, jobspec())], "", 16, 1, 0, rig.now))  # before anybody said `epoch`
    rig.turn(Reopened(rig.journal.meta))
    assert rig.job(50).state == SCHED
    rig.hello(1)
    rig.turn()
    assert rig.job(50).ranks == [1]


def test_a_hello_quicker_than_the_epoch_event_counts(rig: Rig) -> None:
    meta = rig.store.meta()
    rig.server.restart()
    new = rig.journal.meta = rig.store.open_epoch(meta.uid, meta.epoch, meta.version)
    rig.hello(0)
    rig.turn(Reopened(new))
    rig.say(["epoch", "instance", rig.now, {"old": meta.epoch, "new": new.epoch, "reason": "x"}])
    rig.turn()
    assert rig.state.nodes[0].online
    assert not rig.state.nodes[1].online


def test_a_backlog_does_not_place_what_another_worker_placed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxkv.instances import worker as module

    rig.do(decide.change_queue("default", "stop", "x", rig.now))
    rig.turn()
    ids = [rig.submit() for _ in range(3)]
    assert all(rig.job(id).state == SCHED for id in ids)
    monkeypatch.setattr(module, "BATCH", 1)
    rig.do(decide.change_queue("default", "start", "", rig.now))
    rig.say(*[["memo", id, rig.now, {"a": 1}] for id in ids[:2]],
            ["alloc", ids[2], rig.now, {"claims": [[0, "0", "", 0, 1]], "expiration": 0.0}])  # fmt: skip
    rig.turn()
    assert [rig.names(id).count("alloc") for id in ids] == [1, 1, 1]


def test_retired_jobs_are_counted_once(rig: Rig) -> None:
    id = rig.submit()
    rig.over(id)
    rig.turn()
    rig.say(["retire", "instance", rig.now, {"jobs": [id]}])
    rig.say(["retire", "instance", rig.now, {"jobs": [id]}])
    rig.turn()
    assert rig.state.retired == 1
    assert id not in rig.state.jobs


def test_the_oldest_retire_with_their_records(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxkv.instances import worker as module

    ids = [rig.submit() for _ in range(4)]
    for id in (ids[2], ids[0], ids[3], ids[1]):
        rig.now += 1
        rig.over(id)
        rig.turn()
    rig.worker = rig.new_worker("worker-1")  # as after a restart: the order is that of the ends, not of the submissions
    monkeypatch.setattr(module, "RETIRE_ABOVE", 0)
    monkeypatch.setattr(module, "RETIRE_CHUNK", 2)
    before = {id: rig.job(id) for id in ids}
    rig.turn(Lead(True))
    assert set(rig.state.jobs) == {ids[3], ids[1]}
    found = rig.journal.find_jobs(rig.state, ids)
    assert list(found) == ids
    assert [job_value(found[id]) for id in ids] == [job_value(before[id]) for id in ids]


def test_a_retirement_that_lost_keeps_only_what_is_there(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody purged the same jobs meanwhile: what is gone must not stand first in the line for ever."""
    from fluxkv.instances import worker as module

    ids = [rig.submit() for _ in range(3)]
    for id in ids:
        rig.over(id)
        rig.turn()
    rig.worker.inactive.clear()
    rig.worker._requeue([module.Group([["retire", "instance", rig.now, {"jobs": [99, *ids[:2]]}]])])
    assert list(rig.worker.inactive) == ids[:2]


def test_a_snapshot_when_nothing_happens(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxkv.instances import worker as module

    monkeypatch.setattr(module, "QUIET_EVENTS", 10)
    rig.do(decide.change_queue("default", "stop", "x", rig.now))
    for _ in range(5):
        rig.submit()
    wakes = [one.time for one in rig.worker.step(rig.now, []) if isinstance(one, WakeAt)]
    assert wakes[-1] == rig.worker.moved + module.QUIET_S
    assert not any(isinstance(one, Snapshot) for one in rig.worker.step(wakes[-1] - 0.01, []))
    assert any(isinstance(one, Snapshot) for one in rig.worker.step(wakes[-1], []))
    assert rig.worker.step(wakes[-1] + 1, []) == []


# -- what people may ask -------------------------------------------------------------------------------------------

REFUSALS: list[tuple[Callable[[Rig], object], str]] = [
    (lambda r: decide.raise_exception(r.state, 99, "cancel", 0, "", 1, 1.0), "no-such-job"),
    (lambda r: decide.raise_exception(r.state, 1, "cancel", 0, "", 1, 1.0), "inactive"),
    (lambda r: decide.raise_exception(r.state, 2, "cancel", 8, "", 1, 1.0), "bad-severity"),
    (lambda r: decide.change_urgency(r.state, 2, 32, 1, 1.0), "bad-urgency"),
    (lambda r: decide.change_urgency(r.state, 2, 5, 1, 1.0), "not-pending"),
    (lambda r: decide.kill(r.state, 2, 4000, 1, 1.0), "bad-signal"),
    (lambda r: decide.kill(r.state, 1, 15, 1, 1.0), "not-running"),
    (lambda r: decide.drain(r.state, [9], "", 0, 1.0), "no-such-node"),
    (lambda r: decide.drain(r.state, [], "", 0, 1.0), "no-such-node"),
    (lambda r: decide.drain(r.state, [1], "", 0, 1.0), "already-drained"),
    (lambda r: decide.undrain(r.state, [0], "", 1.0), "not-drained"),
]


@pytest.mark.parametrize(("ask", "code"), REFUSALS, ids=[f"{n}-{code}" for n, (_, code) in enumerate(REFUSALS)])
def test_refusals_have_a_code(rig: Rig, ask: Callable[[Rig], object], code: str) -> None:
    rig.over(rig.submit())
    rig.turn()
    rig.submit()
    rig.do(decide.drain(rig.state, [1], "x", 0, rig.now))
    rig.turn()
    with pytest.raises(Rejected) as caught:
        ask(rig)
    assert caught.value.code == code


def test_cancelling_leaves_out_what_is_ending(rig: Rig) -> None:
    one, two = rig.submit(), rig.submit()
    rig.do(decide.raise_exception(rig.state, one, "cancel", 0, "", 1, rig.now))
    rig.turn()
    decisions = decide.cancel_each([rig.job(one), rig.job(two)], "", 1, rig.now)
    assert [decision.events[0][1] for decision in decisions] == [two]


def test_a_closed_queue_refuses_by_its_guard(rig: Rig) -> None:
    rig.do(decide.change_queue("default", "disable", "x", rig.now))
    answer = rig.journal.append(decide.submit([(60, jobspec())], "", 16, 1, 0, rig.now), 0)
    assert answer == Conflicted(("closed/default",))
    rig.do(decide.change_queue("default", "enable", "", rig.now))
    rig.do(decide.submit([(60, jobspec())], "", 16, 1, 0, rig.now))
    rig.turn()
    assert rig.job(60).state == RUN


def test_urgency_before_any_worker_looked(rig: Rig) -> None:
    rig.do(decide.submit([(70, jobspec())], "", 16, 1, 0, rig.now))
    rig.journal.catch_up(rig.state)
    rig.do(decide.change_urgency(rig.state, 70, 0, 1, rig.now))
    rig.turn()
    rig.turn(Lead(False))
    assert (rig.job(70).state, rig.job(70).priority) == (SCHED, 0)
    assert rig.job(70).state != PRIORITY


def _ask(rig: Rig, *inputs: Input) -> Append:
    """One step in which the worker writes: what it asks for, which is not appended yet."""
    outputs = rig.worker.step(rig.now, [*inputs, Entries(rig.store.read(rig.state.version))])
    (request,) = [one.request for one in outputs if isinstance(one, Write)]
    return request


def test_a_snapshot_between_a_fold_and_a_pass_hides_no_node_from_the_plan() -> None:
    rig = Rig()
    rig.do(decide.drain(rig.state, [0], "fan", 0, rig.now))
    rig.turn()
    wide = rig.submit(jobspec(1, 2))
    assert rig.job(wide).state == SCHED
    rig.submit(turn=False)
    request = _ask(rig)
    rig.do(decide.undrain(rig.state, [0], "", rig.now))
    rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))])
    rig.submit(turn=False)
    rig.worker.snapshot_events = -100_000
    outputs = rig.worker.step(rig.now, [Answered(request, rig.store.append(request))])
    assert any(isinstance(one, Snapshot) for one in outputs)
    assert rig.journal.save_snapshot(rig.state)
    rig.turn()
    assert rig.job(wide).state == RUN


def test_a_recall_that_lost_is_said_again_though_the_rest_of_its_commit_goes_out() -> None:
    rig = Rig()
    rig.busy()
    granted = rig.granted()
    rig.submit(turn=False)
    rig.do(decide.drain(rig.state, list(rig.state.nodes), "fan", 0, rig.now))
    request = _ask(rig)
    rig.do(decide.change_urgency(rig.state, granted, 20, 1, rig.now))
    answer = rig.store.append(request)
    assert isinstance(answer, Conflicted)
    assert answer.things == (f"job/{granted}",)
    rig.turn(Answered(request, answer))
    assert rig.job(granted).recalled
