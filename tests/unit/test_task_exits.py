"""exit-on-error and exit-timeout: what they may be, what the worker makes of reports, and what agents report."""

from __future__ import annotations

from typing import Any

import pytest

from fluxkv.instances.attempts import Placed
from fluxkv.instances.deadlines import Deadlines
from fluxkv.instances.fake_launcher import FakeLauncher
from fluxkv.instances.reactor import Lead
from fluxkv.instances.shell_options import parse_shell_options
from fluxkv.journal import snapshot
from fluxkv.journal.job import CLEANUP, INACTIVE, RUN, Result
from fluxkv.journal.task_exits import parse_exit_rules
from fluxkv.kvs.errors import Rejected
from tests.support.worker_rig import Rig, jobspec


@pytest.fixture
def rig() -> Rig:
    return Rig()


def spec(nodes: int = 2, **options: Any) -> dict[str, Any]:
    found = jobspec(nodes=nodes)
    given = {name.replace("_", "-"): value for name, value in options.items()}
    found["attributes"]["system"]["shell"] = {"options": given}
    return found


def exited(rig: Rig, id: int, rank: int, task: int, status: int) -> None:
    rig.report(rank, exit=[[id, rig.job(id).attempt, task, status, rig.now]])


def test_what_the_options_may_be() -> None:
    assert parse_exit_rules({}) == (False, None)
    assert parse_exit_rules({"exit-on-error": 1, "exit-timeout": "1.5m"}) == (True, 90.0)
    for never in ("none", "NONE", "inf", None):
        assert parse_exit_rules({"exit-timeout": never}) == (False, None)
    assert parse_exit_rules({"exit-timeout": 0}) == (False, 0.0)
    for name, values in {"exit-timeout": ("soon", True, -1), "exit-on-error": ("yes", [], 2)}.items():
        for value in values:
            with pytest.raises(Rejected, match=name):
                parse_shell_options({name: value})
        with pytest.raises(Rejected) as caught:
            parse_shell_options({name: [values]})
        assert caught.value.code == "bad-shell-option"
    assert parse_shell_options({"exit-on-error": True}).exits
    assert not parse_shell_options({"exit-timeout": "none"}).exits


def test_the_first_failing_task_ends_the_job_with_its_status(rig: Rig) -> None:
    id = rig.submit(spec(exit_on_error=True))
    rig.started(id)
    exited(rig, id, 0, 0, 0)  # one that succeeds ends nothing
    rig.turn()
    assert rig.job(id).state == RUN
    exited(rig, id, 1, 1, 3 << 8)
    rig.turn()
    assert rig.job(id).state == CLEANUP
    assert rig.job(id).exception == ["exec", "task 1 exited with exit code 3 and exit-on-error is set"]
    for rank in (0, 1):
        assert ["end", id, rig.job(id).attempt_id, "exec"] in rig.orders(rank)
    rig.over(id, 3 << 8, rank=1)
    rig.over(id, 42 << 8, "ended:exec", rank=0)  # what it answers to TERM is not why the job failed
    rig.turn()
    assert (rig.job(id).state, rig.job(id).status, rig.job(id).result) == (INACTIVE, 3 << 8, Result.FAILED)
    assert rig.job(id).exits == {}
    assert rig.names(id).count("exception") == 1


def test_a_signal_counts_as_a_shell_says_it_and_one_report_says_the_same_as_two(rig: Rig) -> None:
    id = rig.submit(spec(nodes=1, exit_on_error=True))
    rig.started(id)
    attempt = rig.job(id).attempt
    over = [[id, attempt, rig.now, rig.now, 11, "", 0]]
    rig.report(rig.job(id).ranks[0], over=over, exit=[[id, attempt, 0, 11, rig.now]])
    rig.turn()
    assert rig.job(id).exception == ["exec", "task 0 was killed by signal 11 and exit-on-error is set"]
    assert (rig.job(id).status, rig.job(id).returncode) == (139 << 8, 139)
    names = rig.names(id)
    assert names.index("exception") < names.index("finish")


def test_what_a_cancel_ends_is_no_failure_and_without_the_option_nothing_happens(rig: Rig) -> None:
    plain = rig.submit(spec(exit_on_error=False))
    rig.started(plain)
    exited(rig, plain, 0, 0, 256)
    rig.turn()
    assert rig.job(plain).state == RUN
    rig.say(["exception", plain, rig.now, {"type": "cancel", "severity": 0, "note": ""}])
    exited(rig, plain, 1, 1, 15)
    rig.over(plain, 15)
    rig.turn()
    assert rig.job(plain).result == Result.CANCELED


def test_a_time_after_the_first_end_the_rest_is_ended_by_any_worker(rig: Rig) -> None:
    id = rig.submit(spec(exit_timeout="20s"))
    rig.started(id)
    exited(rig, id, 0, 0, 0)
    rig.over(id, 0, rank=0)
    rig.turn()
    assert 19.0 < rig.worker.due - rig.now < 20.1
    rig.turn(seconds=10.0)
    rig.worker = rig.new_worker("worker-1")  # the first one has died
    rig.turn(Lead(True))
    assert rig.job(id).state == RUN
    assert rig.worker.due
    rig.turn(seconds=11.0)
    assert rig.job(id).exception == ["exec", "task 0 exited with exit code 0, and exit-timeout=20s is over"]
    assert ["end", id, rig.job(id).attempt_id, "exec"] in rig.orders(1)
    rig.over(id, 15, "ended:exec", rank=1)
    rig.turn(seconds=60.0)
    assert (rig.job(id).result, rig.job(id).status) == (Result.FAILED, 15)
    assert rig.names(id).count("exception") == 1


def test_a_job_that_ends_in_time_is_not_ended(rig: Rig) -> None:
    id = rig.submit(spec(exit_timeout=20))
    rig.started(id)
    exited(rig, id, 0, 0, 0)
    rig.turn()
    rig.over(id, 0)
    rig.turn(seconds=60.0)
    assert rig.job(id).result == Result.COMPLETED
    assert rig.names(id).count("exception") == 0


def test_the_timer_s_memory_does_not_grow(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluxkv.instances.deadlines.FEW", 0)
    deadlines = Deadlines()
    for _ in range(30):
        id = rig.submit(spec(exit_timeout="1h"))
        rig.started(id)
        exited(rig, id, 0, 0, 0)
        rig.turn()
        deadlines.note(rig.job(id))
        rig.over(id, 0)
        rig.turn()
        deadlines.due(rig.state, rig.now)
    assert len(deadlines._heap) < 20
    assert len(deadlines._exits) < 20


def test_exits_are_in_snapshots_and_strange_ones_harm_nobody(rig: Rig) -> None:
    id = rig.submit(spec(exit_timeout="1h"))
    rig.started(id)
    attempt = rig.job(id).attempt
    skipped = rig.state.skipped
    for row in ([id, attempt, 0, "x", 1.0], [id, attempt, 0, 0x80, 1.0], [id, attempt, 0, 0, "now"], [id, attempt]):
        rig.report(0, exit=[row])
    rig.say(["exception", id, rig.now, {"type": "x", "severity": 3, "note": "", "wait_status": "x"}])
    rig.turn()
    assert rig.state.skipped == skipped + 4
    assert rig.job(id).exits == {}
    rig.report(0, exit=[[id, attempt, 5, 256, 4.5]])
    rig.turn()
    head, chunks = snapshot.dump(rig.state)
    again = snapshot.load(snapshot.read_head(head), chunks)
    assert again.jobs[id].exits == rig.job(id).exits == {key: [5, 256, 4.5] for key in ("first", "failed")}
    assert again.digest() == rig.state.digest()


def test_an_agent_says_each_first_exit_once() -> None:
    placed = Placed("5.12-7.0", 5, 12, 0)
    assert placed.untold([[1, 0, 2.0]]) == [[5, 12, 1, 0, 2.0]]
    assert placed.untold([[1, 0, 2.0], [3, 256, 4.0]]) == [[5, 12, 3, 256, 4.0]]
    assert placed.untold() == []


def test_simulated_tasks_say_it_too() -> None:
    launcher = FakeLauncher()
    tasks = [[7, ["x"], None, {}], [8, ["x"], None, {}]]
    for key, more in (("a", {"first_exits": True}), ("b", {})):
        launcher.handle(["launch", [{"key": key, "job": 1, "tasks": tasks, "fake_s": 2.0, "fake_status": 256, **more}]], 1.0)
    ends = {event[1]: event[11:] for event in launcher.advance(5.0) if event[0] == "over"}
    assert ends == {"a": [[[7, 256, 3.0]]], "b": []}
