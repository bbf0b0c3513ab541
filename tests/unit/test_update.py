"""Changing jobs: what may be changed, what becomes of it in the worker, on the node and in the journal."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances.changing import Outcome, Update, change_jobs
from fluxkv.journal import decide, decide_update
from fluxkv.journal.decide_update import Change, parse_change
from fluxkv.journal.job import INACTIVE, PRIORITY, RUN, SCHED
from fluxkv.journal.log import Journal
from fluxkv.journal.summary import tasks_of
from fluxkv.kvs.errors import Rejected
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.tools.jobfields import job_document
from fluxkv.tools.jobview import View

TWO = {
    "queues": {"a": {"requires": ["a"], "policy": {"limits": {"duration": "1h"}}},
               "b": {"requires": ["b"], "policy": {"limits": {"max-active-jobs-per-user": 1}}}},
    "policy": {"jobspec": {"defaults": {"system": {"queue": "a", "duration": "10m"}}}},
}  # fmt: skip


def two() -> Rig:
    return Rig(2, {0: ("a",), 1: ("b",)}, TWO)


def update(rig: Rig, ids: int | list[int], *changes: str) -> Outcome:
    ids = [ids] if isinstance(ids, int) else ids
    outcome = change_jobs(rig.journal, ids, Update(changes, 1), from_node=True)
    rig.turn()
    return outcome


def why(outcome: Outcome) -> str:
    (error,) = outcome.refused.values()
    assert not outcome.changed
    return str(error).partition(": ")[2] if str(error).startswith("job ") else str(error)


def replay_is_equal(rig: Rig) -> None:
    whole = rig.journal.at()
    assert whole.subjects() == rig.state.subjects()
    assert whole.digest() == rig.state.digest()


# -- what is asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("duration=1h", Change("attributes.system.duration", 3600.0)),
        ("duration=+10m", Change("attributes.system.duration", 600.0, "+")),
        ("duration=-5", Change("attributes.system.duration", 5.0, "-")),
        ("duration=inf", Change("attributes.system.duration", 0.0)),
        ("queue=12", Change("attributes.system.queue", "12")),
        ("name=a=b", Change("attributes.system.job.name", "a=b")),
        ("attributes.user.n=[1,2]", Change("attributes.user.n", [1, 2])),
        ("attributes.system.duration=+1m", Change("attributes.system.duration", 60.0, "+")),
    ],
)
def test_changes(text: str, change: Change) -> None:
    assert parse_change(text) == change


@pytest.mark.parametrize(
    "text",
    ["duration", "=1h", "durtion=1h", "duration=", "duration=+inf", "duration=1x", "attributes.system=1", "attributes..x=1",
     "resources=1", "tasks.command=x", "attributes.system.dependencies=[]", "attributes.system.environment.X=1"],
)  # fmt: skip
def test_what_is_no_change(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_change(text)
    assert caught.value.code in ("bad-update", "bad-duration")


# -- jobs that wait -------------------------------------------------------------------------------------------


def test_a_pending_job_is_changed_and_lined_up_anew() -> None:
    rig = two()
    rig.submit(jobspec(cores=2, queue="a"))
    id = rig.submit(jobspec(cores=2, queue="a"))
    assert rig.job(id).state == SCHED
    assert update(rig, id, "queue=b", "name=again", "attributes.user.note=1").changed == [id]
    job = rig.job(id)
    assert (job.queue, job.name, job.state, job.ranks) == ("b", "again", RUN, [1])
    assert job.jobspec is not None
    assert job.jobspec["attributes"]["user"] == {"note": 1}
    assert rig.names(id).count("jobspec-update") == 2, "the first are the defaults"
    replay_is_equal(rig)


def test_a_longer_or_shorter_time_limit() -> None:
    rig = two()
    rig.do(decide.change_queue("a", "stop", "", rig.now))
    id = rig.submit(jobspec(queue="a", duration=600.0))
    update(rig, id, "duration=+10m")
    assert rig.job(id).duration == 1200.0
    update(rig, id, "duration=-15m")
    assert rig.job(id).duration == 300.0
    assert "nothing of it would be left" in why(update(rig, id, "duration=-5m"))
    assert "time limit 1.00028h is above the 1h allowed" in why(update(rig, id, "duration=3601"))
    assert "needs a time limit here" in why(update(rig, id, "duration=inf"))
    rig.do(decide.change_queue("a", "start", "", rig.now))
    rig.turn()
    assert rig.job(id).expiration == pytest.approx(rig.now + 300.0)


def test_refusals_of_an_update_are_exact() -> None:
    rig = two()
    rig.do(decide.change_queue("a", "stop", "", rig.now))
    rig.submit(jobspec(queue="b"))
    id, big = rig.submit(jobspec(queue="a")), rig.submit(jobspec(nodes=1, cores=2, queue="a"))
    assert why(update(rig, id, "queue=c")) == "queue c is not defined"
    assert why(update(rig, id, "queue=b")) == "user 1 has 1 active job in queue b, as many as allowed"
    rig.do(decide.change_queue("b", "disable", "full", rig.now))
    assert why(update(rig, id, "queue=b")) == "queue b does not accept jobs: full"
    assert "unsatisfiable" in why(update(rig, big, 'constraints={"properties": ["b"]}'))
    assert "bad jobspec" in why(update(rig, id, "attributes.system.cwd=3"))
    assert "kill-timeout" in why(update(rig, id, "attributes.system.shell.options.kill-timeout=soon"))
    assert update(rig, 99, "name=x").refused[99].code == "no-such-job"
    assert rig.job(id).name == "x", "its command's, as before"
    outcome = update(rig, [id, 99, big], "name=y")
    assert (outcome.changed, list(outcome.refused)) == ([id, big], [99])


def test_a_job_that_moves_makes_room_and_takes_it() -> None:
    rig = two()
    rig.do(decide.change_queue("a", "stop", "", rig.now))
    rig.do(decide.change_queue("b", "stop", "", rig.now))
    one, other = rig.submit(jobspec(queue="b")), rig.submit(jobspec(queue="a"))
    assert "as many as allowed" in why(update(rig, other, "queue=b"))
    assert update(rig, one, "queue=a").changed
    assert update(rig, other, "queue=b").changed
    assert rig.state.usage.active == {("b", 1): 1}
    replay_is_equal(rig)


def test_the_number_that_a_move_read_is_guarded() -> None:
    rig = two()
    rig.do(decide.change_queue("a", "stop", "", rig.now))
    ids = [rig.submit(jobspec(queue="a")) for _ in range(2)]
    state = rig.journal.load()
    decisions = [decide_update.update(state, state.jobs[id], [parse_change("queue=b")], 1, rig.now) for id in ids]
    answers = [rig.journal.append(decision, state.version) for decision in decisions]
    assert answers[1] == type(answers[1])(("active/b/1",))


def test_a_job_placed_ahead_is_asked_back_first() -> None:
    rig = Rig()
    rig.busy()
    id = rig.granted()
    rank, attempt = rig.job(id).granted[0], rig.job(id).attempt  # type: ignore[index]
    journal, outcomes = Journal(MemoryStore(rig.server)), list[Outcome]()
    changing = threading.Thread(
        target=lambda: outcomes.append(change_jobs(journal, [id], Update(["name=new", "duration=1h"], 1), from_node=True))
    )
    changing.start()
    subscription = rig.store.subscribe({rig.store.keys.journal: f"{rig.state.version}-{rig.store.meta().epoch}"})
    assert subscription.poll(10.0)  # the recall
    assert ["recall", id, f"{attempt}-{rig.store.meta().epoch}"] in rig.orders(rank)
    rig.report(rank, unstarted=[[id, attempt]])
    changing.join(10.0)
    assert outcomes[0].changed == [id]
    rig.turn()
    names = rig.names(id)
    assert names.index("recall") < names.index("jobspec-update")
    assert (rig.job(id).name, rig.job(id).duration) == ("new", 3600.0)
    replay_is_equal(rig)


def test_an_update_in_the_worker_s_way_makes_the_worker_decide_again() -> None:
    rig = two()
    rig.do(decide.change_queue("a", "stop", "", rig.now))
    id = rig.submit(jobspec(queue="a"))
    rig.do(decide.change_queue("a", "start", "", rig.now))
    change_jobs(rig.journal, [id], Update(["queue=b"], 1), from_node=True)
    assert rig.journal.load().jobs[id].state == PRIORITY
    rig.turn()
    assert (rig.job(id).state, rig.job(id).ranks) == (RUN, [1])


# -- jobs that run --------------------------------------------------------------------------------------------


def test_tables_show_the_tasks_of_a_job_that_was_updated_as_of_what_it_has() -> None:
    """A batch job of two slots, one on each node: one task a node."""
    rig = Rig()
    spec = jobspec(cores=2, duration=600.0)
    spec["resources"][0]["count"] = 2
    spec["attributes"]["system"]["shell"] = {"options": {"per-resource": {"type": "node"}}}
    id = rig.submit(spec)
    assert (rig.job(id).ranks, tasks_of(rig.job(id))) == ([0, 1], 2)
    assert update(rig, id, "duration=+1m").changed == [id]
    assert tasks_of(rig.job(id)) == 2
    assert job_document(rig.job(id), View(rig.state, rig.now))["ntasks"] == 2


def test_a_running_job_gets_another_limit_and_its_node_is_told() -> None:
    rig = Rig()
    id = rig.submit(jobspec(nodes=2, duration=600.0))
    began = rig.job(id).t_alloc
    assert update(rig, id, "duration=+1m").changed == [id]
    job = rig.job(id)
    assert (job.duration, job.expiration, job.nnodes, job.state) == (660.0, began + 660.0, 2, RUN)
    for rank in (0, 1):
        assert rig.orders(rank)[-1] == ["limit", id, job.attempt_id, 660.0]
    assert rig.names(id)[-2:] == ["jobspec-update", "resource-update"]
    update(rig, id, "duration=0")
    assert rig.job(id).expiration == 0.0
    assert "has no time limit" in why(update(rig, id, "duration=+1m"))
    rig.now += 120.0
    assert "a limit of 1m has passed already" in why(update(rig, id, "duration=1m"))
    assert why(update(rig, id, "duration=1h", "name=x")) == "is running: only its duration can be changed"
    for rank in (0, 1):
        rig.over(id, rank=rank)
    rig.turn()
    assert "is over" in why(update(rig, id, "duration=1h"))
    replay_is_equal(rig)


def test_the_new_limit_is_the_one_that_the_backstop_heeds() -> None:
    rig = Rig()
    id = rig.submit(jobspec(duration=60.0))
    update(rig, id, "duration=10m")
    rig.turn(seconds=200.0)
    assert rig.job(id).exception is None
    rig.turn(seconds=500.0)
    assert rig.job(id).exception is not None
    assert rig.job(id).exception[0] == "timeout"


# -- hold and release -----------------------------------------------------------------------------------------


def test_hold_and_release_give_back_the_urgency_there_was() -> None:
    rig = Rig()
    rig.do(decide.change_queue("default", "stop", "", rig.now))
    ids = [rig.submit(urgency=urgency) for urgency in (20, 16, 0)]
    rig.do(decide.change_queue("default", "start", "", rig.now))
    held = change_jobs(rig.journal, ids, lambda state, job, now: decide_update.hold(job, 1, now))
    assert held.changed == ids[:2]
    rig.turn()
    assert [rig.job(id).state for id in ids] == [SCHED] * 3
    assert [rig.job(id).urgency for id in ids] == [0, 0, 0]
    rig.worker = rig.new_worker()
    released = change_jobs(rig.journal, ids, lambda state, job, now: decide_update.release(job, 1, now))
    assert released.changed == ids
    again = change_jobs(rig.journal, ids, lambda state, job, now: decide_update.release(job, 1, now))
    assert again == Outcome([], {})
    assert [rig.journal.load().jobs[id].urgency for id in ids] == [20, 16, 16]
    rig.do(decide.change_urgency(rig.journal.load(), ids[0], 25, 1, rig.now))


def test_only_what_waits_is_held() -> None:
    rig = Rig()
    running, over = rig.submit(), rig.submit()
    rig.over(over)
    rig.turn()
    assert (rig.job(running).state, rig.job(over).state) == (RUN, INACTIVE)
    outcome = change_jobs(rig.journal, [running, over, 99], lambda state, job, now: decide_update.hold(job, 1, now))
    assert [error.code for error in outcome.refused.values()] == ["not-pending", "not-pending", "no-such-job"]


# -- many, and others in the way ------------------------------------------------------------------------------


def test_many_in_few_commits_though_some_are_in_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.do(decide.change_queue("default", "stop", "", rig.now))
    ids = [rig.submit(turn=False) for _ in range(40)]
    rig.turn()
    moving = ids[7]
    append = rig.journal.append
    moves: list[int] = []

    def move_then_append(decision: Any, decided_at: int) -> Any:
        if len(moves) < 3:
            moves.append(len(moves))
            append(decide.change_urgency(rig.journal.load(), moving, 10 + len(moves), 1, rig.now), rig.store.meta().version)
        return append(decision, decided_at)

    journal = Journal(rig.store)
    monkeypatch.setattr(journal, "append", move_then_append)
    before = rig.store.meta().version
    outcome = change_jobs(journal, ids, Update(["name=new"], 1), from_node=True)
    assert sorted(outcome.changed) == ids
    assert len(set(outcome.changed)) == 40
    assert rig.store.meta().version - before < 12
    rig.turn()
    assert {rig.job(id).name for id in ids} == {"new"}


# -- the commands ---------------------------------------------------------------------------------------------


def test_update_hold_release_and_cancel_as_commands(shell: Any) -> None:
    m, l_, j = shell.id("m"), shell.id("l"), shell.id("j")
    assert json.loads(shell.out("update", "-n", m, "duration=1h")) == {"id": m, "update": {"attributes.system.duration": 3600.0}}
    before = shell.sample.journal.store.meta().version
    status, out, error = shell("update", "-v", m, j, "duration=2h")
    assert (status, out) == (0, "")
    assert f"job {m}: attributes.system.duration=7200.0" in error
    assert shell.sample.journal.store.meta().version == before + 1
    assert f"job {j}: is running: only its duration can be changed" in shell("update", m, j, "name=x")[2]
    assert "nothing to change" in shell("update", m)[2]
    assert "name jobs" in shell("update", "name=x")[2]
    assert shell("update", m, "durtion=1h")[2] == "durtion: is no key that can be changed"
    assert shell("hold", "--all")[2] == "fluxkv: held 3 jobs\n"
    assert {job["urgency"] for job in json.loads(shell.out("jobs", "--json", "-f", "pending"))["jobs"]} == {0}
    assert shell("release", l_)[2] == ""
    assert shell("release", "--all", "--name", "x")[2] == "fluxkv: released 1 job\n"
    assert shell("hold", "--name", "nobody's")[2] == "fluxkv: held 0 jobs\n"
    assert "no state of an active job" in shell("cancel", "--states", "inactive")[2]
    assert shell("cancel", "--queue", "nosuch")[2] == "queue nosuch is not defined"
    assert shell("cancel", "--all", "-S", "running", "-n")[1].split() == [j]
    assert shell("cancel", "--all", "--states=pending", "--user=all")[2] == "fluxkv: cancelled 4 jobs\n"
    assert "not both" in shell("cancel", "--all", m)[2]


def test_a_big_update_is_not_quadratic(shell: Any, sample_journal: Any, tmp_path: Path) -> None:
    writer = sample_journal.Writer(shell.sample.journal.store, shell.sample.clock)
    writer.state = shell.sample.journal.load()
    writer.seq = sum(1 for commit in shell.sample.journal.commits() if commit.producer)
    sample_journal.many(writer, 3000, active=3000)
    before = shell.sample.journal.store.meta().version
    assert shell("update", "--all", "--name", "true", "name=new")[2] == "fluxkv: changed 3,000 jobs\n"
    assert shell.sample.journal.store.meta().version == before + 6
