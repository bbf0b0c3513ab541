"""Retries: what a policy may be, which end it covers, and what the worker makes of it: attempts 1, 2, 3, never two at once."""

from __future__ import annotations

from typing import Any

import pytest
from journal_rules import Rules
from worker_rig import Rig, jobspec

from fluxkv.instances.attempts import Host, build_attempt
from fluxkv.instances.changing import Outcome, change_jobs
from fluxkv.instances.orders import launch_orders
from fluxkv.instances.reactor import Lead
from fluxkv.journal import decide, decide_update, snapshot
from fluxkv.journal.config import parse_rules
from fluxkv.journal.job import CLEANUP, INACTIVE, PRIORITY, RUN, SCHED, Result
from fluxkv.journal.jobspec_check import check
from fluxkv.journal.retry import DEFAULT_ON, again, causes_of, covers, end_of, parse_retry
from fluxkv.journal.wire import Event
from fluxkv.kvs.errors import Rejected
from fluxkv.tools.eventview import describe
from fluxkv.tools.inspect_cmd import attempts
from fluxkv.tools.jobfields import FIELDS, job_document
from fluxkv.tools.jobview import View
from fluxkv.tools.nodestory import jobs_on

FAILED = 75 << 8


@pytest.fixture
def rig() -> Rig:
    return Rig()


def spec(limit: int = 2, nodes: int = 0, cores: int = 1, queue: str = "", **policy: Any) -> dict[str, Any]:
    found = jobspec(cores=cores, nodes=nodes, queue=queue)
    found["attributes"]["system"]["retry"] = {"limit": limit, **policy}
    return found


def check_rules(rig: Rig) -> Rules:
    """The journal obeys the rules, and folds to the same from its beginning, a snapshot and lazily."""
    rules = Rules({rank: {0, 1} for rank in rig.state.nodes})
    rules.commits(rig.commits())
    assert not rules.wrong
    digest = rig.state.digest()
    assert rig.journal.at().digest() == digest
    head, chunks = snapshot.dump(rig.state)
    assert snapshot.load(snapshot.read_head(head), chunks).digest() == digest
    assert snapshot.load(snapshot.read_head(head), chunks, lazy=True).digest() == digest
    return rules


def fail(rig: Rig, id: int, status: int = FAILED, cause: str = "") -> None:
    rig.over(id, status, cause)
    rig.turn()


# -- the policy ----------------------------------------------------------------------------------------------------


def test_what_a_policy_may_be() -> None:
    assert parse_retry(3) == (3, DEFAULT_ON, 0.0)
    assert parse_retry({"limit": 0, "on": ["any"], "delay": "1m"}) == (0, ("any",), 60.0)
    assert parse_retry({}) == (1, DEFAULT_ON, 0.0)
    assert causes_of("exit=75, signal=9,signal=SIGKILL,exit=64-78,OOM,exit=5-5") == (
        "exit=75", "signal=KILL", "exit=64-78", "oom", "exit=5",
    )  # fmt: skip
    for value, named in {
        "exit=0": "exit=0", "exit=256": "256", "exit=9-8": "9-8", "exit=x": "exit=x", "signal=NO": "NO", "signal=": "signal=",
        "oom=1": "oom=1", "never": "never", "": "no cause", "exit=75,": "no cause",
    }.items():  # fmt: skip
        with pytest.raises(Rejected, match=named) as caught:
            causes_of(value)
        assert caught.value.code == "bad-retry"
        assert caught.value.hint
    for bad in (-1, True, "3", None, {"limit": 1.5}, {"limit": -1}, {"often": 1}, {"on": 5}, {"on": []}, {"on": [1]},
                {"delay": "soon"}, {"delay": -1}, {"delay": "inf"}):  # fmt: skip
        with pytest.raises(Rejected) as caught:
            parse_retry(bad)
        assert caught.value.code == "bad-retry"
    check(spec())
    with pytest.raises(Rejected, match=r"attributes.system.retry: 'never' is no cause"):
        check(spec(on=["never"]))


def test_a_config_s_default_is_for_jobs_that_say_nothing() -> None:
    """Whoever submits honours it, and so does the worker for what was appended otherwise; a queue may have its own."""
    policy = {"jobspec": {"defaults": {"system": {"queue": "a", "retry": {"limit": 1, "on": "node-failure, oom", "delay": "1m"}}}}}
    config = {"policy": policy, "queues": {"a": {}, "b": {"policy": {"jobspec": {"defaults": {"system": {"retry": 0}}}}}}}
    rules = parse_rules(config)
    wanted = {"limit": 1, "on": ["node-failure", "oom"], "delay": 60.0}
    assert rules.honour(jobspec())["attributes"]["system"]["retry"] == wanted
    assert rules.honour(jobspec(queue="b"))["attributes"]["system"]["retry"]["limit"] == 0
    assert rules.honour(spec(5))["attributes"]["system"]["retry"] == {"limit": 5}
    rig = Rig(config=config)
    id = rig.submit(jobspec())
    assert rig.job(id).jobspec["attributes"]["system"]["retry"] == wanted
    fail(rig, id, 9, "lost")
    assert rig.job(id).number == 2
    check_rules(rig)
    for bad in ({"limit": -1}, "often", {"on": ["no"]}):
        with pytest.raises(Rejected, match=r"policy.jobspec.defaults.system.retry is not valid"):
            parse_rules({"policy": {"jobspec": {"defaults": {"system": {"retry": bad}}}}})


@pytest.mark.parametrize(
    ("exception", "status", "causes", "on", "text"),
    [
        (None, FAILED, [""], ["exit", "exit=75", "exit=64-78", "any"], "exit code 75"),
        (None, 9, [""], ["signal", "signal=KILL", "any"], "killed by SIGKILL"),
        (None, 9, ["oom"], ["oom", "signal", "signal=KILL", "any"], "out of memory (killed by SIGKILL)"),
        (None, 137 << 8, ["oom"], ["oom", "exit", "exit=137", "any"], "out of memory (exit code 137)"),
        (["lost", "rank 0: lost"], 9, ["lost"], ["node-failure", "launcher-lost", "any"], "rank 0: lost"),
        (["lost", "rank 0: lost: new boot"], 9, ["lost: new boot", "lost"], ["node-failure", "any"], "rank 0: lost: new boot"),
        (["prolog", "prolog on rank 0: exit code 1"], 0, [], ["node-failure", "any"], "prolog on rank 0: exit code 1"),
        (["timeout", "expired"], 15, ["timeout"], ["timeout", "any"], "expired"),
        (["shutdown", ""], 15, ["shutdown"], ["shutdown", "any"], "shutdown"),
        (["exec", "task 1: no such file"], 127 << 8, ["spawn: x"], ["exit", "exit=127", "any"], "task 1: no such file"),
        (["cancel", "enough"], 15, [""], [], "enough"),
        (["mine", ""], 15, [""], [], "mine"),
        (None, 34, [""], ["signal", "any"], "killed by SIGRTMIN"),
        (None, 0, [""], [], ""),
    ],
)
def test_which_causes_cover_an_end(exception: Any, status: int, causes: list[str], on: list[str], text: str) -> None:
    end = end_of(exception, status, causes)
    everything = ("node-failure", "launcher-lost", "oom", "exit", "exit=75", "exit=64-78", "exit=127", "exit=137", "signal",
                  "signal=KILL", "signal=TERM", "timeout", "shutdown", "any")  # fmt: skip
    assert [one for one in everything if covers([one], end.words)] == [one for one in everything if one in on]
    assert end.text == text


# -- attempts ------------------------------------------------------------------------------------------------------


def test_a_failing_job_is_tried_again_and_then_no_more(rig: Rig) -> None:
    id = rig.submit(spec(2))
    first = rig.job(id).attempt
    for number in (1, 2):
        rig.started(id)
        assert rig.job(id).number == number
        fail(rig, id)
        job = rig.job(id)
        assert job.state == RUN  # there is room: it runs again at once
        assert job.requeued[3] == f"retry {number} of 2: exit code 75"
        assert (job.status, job.exception, job.started, job.over, job.t_finish) == (None, None, {}, {}, 0.0)
        assert job.attempt > first
    rig.started(id)
    fail(rig, id, 3 << 8)
    job = rig.job(id)
    assert (job.state, job.result, job.returncode, job.number) == (INACTIVE, Result.FAILED, 3, 3)
    names = rig.names(id)
    assert [names.count(name) for name in ("validate", "depend", "priority", "alloc", "finish", "requeue", "clean")] == [
        1, 1, 3, 3, 3, 2, 1,
    ]  # fmt: skip
    contexts = [event[3] for commit in rig.commits() for event in commit.events if event[0] == "requeue"]
    assert contexts == [
        {"attempt": 2, "cause": "exit", "note": "exit code 75", "retry": 1, "limit": 2},
        {"attempt": 3, "cause": "exit", "note": "exit code 75", "retry": 2, "limit": 2},
    ]
    check_rules(rig)


def test_success_and_other_causes_are_the_end(rig: Rig) -> None:
    well, other, none = rig.submit(spec()), rig.submit(spec(on=["exit=75", "oom"])), rig.submit(spec(0))
    for id, status in ((well, 0), (other, 9), (none, FAILED)):
        fail(rig, id, status)
        assert rig.job(id).state == INACTIVE
        assert "requeue" not in rig.names(id)
    check_rules(rig)


def test_a_retry_rests_for_its_delay(rig: Rig) -> None:
    """Also after the worker has died; it says why, holds nothing, and can be cancelled."""
    id, other = rig.submit(spec(delay=30.0)), rig.submit(spec(delay=60.0))
    fail(rig, id)
    fail(rig, other)
    job = rig.job(id)
    assert (job.state, job.reason) == (PRIORITY, ["requeue", "retry 1 of 2: exit code 75"])
    assert not job.holds
    assert not rig.state.nodes[0].busy
    rig.turn(seconds=29.0)
    assert rig.job(id).state == PRIORITY
    rig.worker = rig.new_worker()
    rig.turn(Lead(True))
    assert rig.worker.due == pytest.approx(rig.job(id).requeued[2])
    rig.turn(seconds=1.1)
    assert rig.job(id).state == RUN
    rig.do(decide.raise_exception(rig.state, other, "cancel", 0, "", 1, rig.now))
    rig.turn()
    assert (rig.job(other).state, rig.job(other).result) == (INACTIVE, Result.CANCELED)
    rig.turn(seconds=60.0)
    check_rules(rig)


def test_cancel_wins_over_a_retry(rig: Rig) -> None:
    """While it runs, and when its attempt has ended and waits for an epilog."""
    id = rig.submit(spec(on=["any"]))
    rig.started(id)
    (decision,) = decide.cancel_each([rig.job(id)], "", 1, rig.now)
    rig.do(decision)
    rig.turn()
    fail(rig, id, 15)
    assert (rig.job(id).state, rig.job(id).result) == (INACTIVE, Result.CANCELED)
    rig.configure({"job-manager": {"epilog": {"command": ["e"]}}})
    ids = [rig.submit(spec(on=["any"])) for _ in range(2)]
    for id in ids:
        rig.started(id)
        fail(rig, id)
        assert (rig.job(id).state, rig.job(id).status) == (CLEANUP, FAILED)
    (decision,) = decide.cancel_each([rig.job(ids[0])], "", 1, rig.now)
    rig.do(decision)
    for id in ids:
        job = rig.job(id)
        rig.report(job.ranks[0], script=[[id, job.attempt, "e", rig.now, rig.now, 0, ""]])
    rig.turn()
    assert rig.job(ids[0]).state == INACTIVE
    assert rig.job(ids[1]).number == 2
    assert not decide.cancel_each([rig.job(ids[0])], "", 1, rig.now)
    check_rules(rig)


def test_late_and_repeated_words_of_attempt_1_change_nothing_of_attempt_2(rig: Rig) -> None:
    """HAZARD 9: its report, its hello, its lost node never free what the next attempt holds."""
    id = rig.submit(spec())
    rig.started(id)
    old = rig.job(id)
    first, key, rank = old.attempt, old.key, old.ranks[0]
    fail(rig, id)
    assert rig.job(id).state == RUN
    before = rig.state.digest()  # of all values
    row = [id, first, rig.now, rig.now, FAILED, "", 0]
    rig.report(rank, over=[row], start=[[id, first, rig.now]], timeout=[[id, first, rig.now]], exit=[[id, first, 0, 256, rig.now]])
    rig.report(rank, script=[[id, first, "e", rig.now, rig.now, 0, ""]], unstarted=[[id, first]])
    rig.turn()
    assert (rig.job(id).over, rig.job(id).started, rig.job(id).timed_out, rig.job(id).holds) == ({}, {}, False, True)
    assert rig.state.digest() == before
    rig.hello(rank, held=[key])  # the node still lists the old attempt, and has not read the new order yet
    rig.turn()
    assert ["forget", key] in rig.orders(rank)
    assert rig.job(id).holds
    assert rig.store.bumps([f"attempt/{id}"]) == [rig.job(id).attempt]  # so its agent's reports are refused
    check_rules(rig)


def test_a_lost_node_s_job_is_tried_elsewhere(rig: Rig) -> None:
    """HAZARD 7: attempt 2 begins only when attempt 1 is known to be over on each of its nodes."""
    id = rig.submit(spec(nodes=2, on=["node-failure"]))
    rig.started(id)
    rig.say(["lost", id, rig.now, {"rank": 1, "cause": "new boot"}])
    rig.turn()
    job = rig.job(id)
    assert (job.state, job.exception[0], job.number) == (CLEANUP, "lost", 1)  # the other node's tasks are being ended
    assert ["end", id, job.attempt_id, "lost"] in rig.orders(0)
    rig.turn(seconds=3600.0)
    assert rig.job(id).number == 1
    rig.over(id, 15, "lost", rank=0)
    rig.turn()
    job = rig.job(id)
    assert (job.state, job.number, job.requeued[3]) == (RUN, 2, "retry 1 of 2: rank 1: lost: new boot")
    check_rules(rig)


def test_a_lost_launcher_counts_as_node_failure(rig: Rig) -> None:
    ids = [rig.submit(spec(on=[on])) for on in ("node-failure", "launcher-lost", "oom", "signal=KILL")]
    for id in ids:
        rig.started(id)
        fail(rig, id, 9, "lost")
    assert [rig.job(id).number for id in ids] == [2, 2, 1, 1]
    gone = [rig.submit(spec(on=[on])) for on in ("node-failure", "launcher-lost")]
    for id in gone:
        rig.started(id)
        rig.say(["lost", id, rig.now, {"rank": rig.job(id).ranks[0], "cause": "new boot"}])
    rig.turn()
    assert [rig.job(id).number for id in gone] == [2, 1]
    check_rules(rig)


def test_a_node_that_was_rebooted_has_nothing_more_and_its_jobs_run_again(rig: Rig) -> None:
    """After a power cut: its agent comes back, has read the order, and has no such attempt."""
    again, plain = rig.submit(spec(on=["node-failure"])), rig.submit(jobspec())
    rig.started(again, plain)
    rank = rig.job(again).ranks[0]
    assert rig.job(plain).ranks == [rank]
    rig.hello(rank, held=[])
    rig.turn()
    job = rig.job(again)
    assert (job.state, job.number, job.requeued[3]) == (RUN, 2, "retry 1 of 2: rank 0: lost: its node no longer has it")
    assert rig.job(plain).state == INACTIVE
    check_rules(rig)


def test_memory_that_ran_out_is_told(rig: Rig) -> None:
    id = rig.submit(spec(1, on=["oom"]))
    rig.started(id)
    fail(rig, id, 9, "oom")
    assert rig.job(id).requeued[3] == "retry 1 of 1: out of memory (killed by SIGKILL)"
    rig.started(id)
    fail(rig, id, 9, "oom")
    job = rig.job(id)
    assert (job.state, job.exception, job.status) == (INACTIVE, None, 9)
    assert job.exceptions == [["oom", 1, "rank 0: out of memory, the kernel ended a process"]]
    check_rules(rig)


def test_time_limits_are_anew_for_each_attempt(rig: Rig) -> None:
    found = spec(on=["timeout"])
    found["attributes"]["system"]["duration"] = 60.0
    id = rig.submit(found)
    rig.started(id)
    first = rig.job(id).expiration
    rig.turn(seconds=60.0)
    rig.report(0, timeout=[[id, rig.job(id).attempt, rig.now]])
    rig.turn()
    fail(rig, id, 15, "timeout")
    job = rig.job(id)
    assert (job.state, job.number, job.exception, job.timed_out) == (RUN, 2, None, False)
    assert job.expiration == pytest.approx(first + 60.0, abs=1.0)
    rig.turn(seconds=40.0)  # past the first attempt's backstop: that is no deadline of this one
    assert rig.job(id).state == RUN
    rig.turn(seconds=51.0)  # past its own: its node is silent
    assert rig.job(id).exception[0] == "timeout"
    check_rules(rig)


def test_a_prolog_that_fails_sends_its_job_elsewhere() -> None:
    rig = Rig(config={"job-manager": {"prolog": {"command": ["p"]}, "epilog": {"command": ["e"]}}})
    id = rig.submit(spec(on=["node-failure"]))
    job = rig.job(id)
    (rank,) = job.ranks
    rig.report(rank, script=[[id, job.attempt, "p", rig.now, rig.now, 256, ""]])
    rig.turn()
    rig.report(rank, script=[[id, job.attempt, "e", rig.now, rig.now, 0, ""]])
    rig.turn()
    job = rig.job(id)
    assert rig.state.nodes[rank].drain is not None
    assert (job.number, job.state, job.ranks) == (2, RUN, [1 - rank])
    assert job.script[0] == "prolog"  # each attempt has its own
    check_rules(rig)


def test_the_next_attempt_waits_for_the_housekeeping_of_the_last() -> None:
    rig = Rig(config={"job-manager": {"housekeeping": {"command": ["h"]}}})
    id = rig.submit(spec())
    rig.started(id)
    first, (rank,) = rig.job(id).attempt, rig.job(id).ranks
    fail(rig, id)
    assert id in rig.state.keeping
    assert rig.job(id).state == PRIORITY
    rig.turn(seconds=100.0)
    assert rig.job(id).state == PRIORITY
    rig.report(rank, script=[[id, first, "h", rig.now, rig.now, 0, ""]])
    rig.turn()
    assert id not in rig.state.keeping
    assert (rig.job(id).state, rig.job(id).number) == (RUN, 2)
    rig.started(id)
    fail(rig, id, 0)
    assert rig.job(id).state == INACTIVE
    assert id in rig.state.keeping
    check_rules(rig)


def test_seats_pass_on_though_the_job_before_is_tried_again(rig: Rig) -> None:
    """A job that failed gives its seat to the one placed ahead; one that took a seat and failed is requeued as any other."""
    rig.busy()
    first = rig.held[0]
    ahead = rig.submit(spec(on="exit"))
    assert rig.job(ahead).granted is not None
    (rank,) = rig.job(first).ranks
    last = rig.submit(spec(on="exit"))
    assert rig.job(last).granted is not None
    rig.report(
        rank,
        over=[[first, rig.job(first).attempt, rig.now, rig.now, 0, "", ahead],
              [ahead, rig.job(ahead).attempt, rig.now, rig.now, FAILED, "", last]],
        start=[[last, rig.job(last).attempt, rig.now]],
    )  # fmt: skip
    rig.turn()
    assert rig.job(first).state == INACTIVE
    assert (rig.job(last).state, rig.job(last).holds) == (RUN, True)
    job = rig.job(ahead)
    assert job.number == 2
    assert job.state == SCHED
    assert job.seat_of == job.next == 0
    check_rules(rig)
    while rig.job(ahead).state != RUN:
        running = [id for id in (*rig.held, last) if rig.job(id).state == RUN]
        rig.over(running[0])
        if rig.job(ahead).granted is not None and rig.job(ahead).granted[0] == rig.job(running[0]).ranks[0]:
            rig.report(rig.job(ahead).granted[0], unstarted=[[ahead, rig.job(ahead).attempt]])
        rig.turn()
    check_rules(rig)


def test_dependents_judge_the_last_attempt(rig: Rig) -> None:
    def after(scheme: str, id: int) -> dict[str, Any]:
        found = jobspec()
        found["attributes"]["system"]["dependencies"] = [{"scheme": scheme, "value": str(id)}]
        return found

    id = rig.submit(spec(1, delay=10.0))
    waiting = {scheme: rig.submit(after(scheme, id)) for scheme in ("afterok", "afternotok", "afterany", "after", "afterexcept")}
    fail(rig, id)
    assert rig.names(waiting["after"]).count("depend") == 1  # it has started, if only once
    for scheme in ("afterok", "afternotok", "afterany", "afterexcept"):
        assert "depend" not in rig.names(waiting[scheme])
    rig.turn(seconds=11.0)
    rig.started(id)
    fail(rig, id, 0)
    assert rig.job(id).result == Result.COMPLETED
    went = {scheme: "depend" in rig.names(one) for scheme, one in waiting.items()}
    assert went == {"afterok": True, "afternotok": False, "afterany": True, "after": True, "afterexcept": False}
    check_rules(rig)


def test_numbers_of_jobs_per_user_follow_the_attempts() -> None:
    rig = Rig(config={"policy": {"limits": {"max-running-jobs-per-user": 1, "max-active-jobs-per-user": 2}}})
    id, other = rig.submit(spec(delay=5.0)), rig.submit(spec())
    assert (rig.job(id).state, rig.job(other).state) == (RUN, SCHED)
    fail(rig, id)
    assert (rig.job(id).state, rig.job(other).state) == (PRIORITY, RUN)  # it runs no more, but it is active
    assert rig.state.usage.active == {("", 1): 2}
    assert rig.state.usage.running == {("", 1): 1}
    rig.turn(seconds=6.0)
    assert rig.job(id).state == SCHED
    fail(rig, other, 0)
    assert rig.job(id).state == RUN
    check_rules(rig)


def test_a_stop_takes_along_nobody_who_is_tried_again(rig: Rig) -> None:
    id = rig.submit(spec())
    rig.started(id)
    rig.do(decide.raise_exception(rig.state, id, "shutdown", 0, "the instance is being stopped", 1, rig.now))
    rig.turn()
    fail(rig, id, 15, "shutdown")
    assert rig.job(id).number == 2
    assert rig.job(id).requeued[3] == "retry 1 of 2: the instance is being stopped"
    check_rules(rig)


# -- by hand -------------------------------------------------------------------------------------------------------


def requeue(rig: Rig, *ids: int, hold: bool = False) -> Outcome:
    found = change_jobs(rig.journal, ids, lambda state, job, now: decide_update.requeue(job, "because", hold, 1, now))
    rig.turn()
    return found


def test_a_running_job_is_requeued_whatever_its_policy(rig: Rig) -> None:
    """Its attempt ends first, then the next begins; said twice it is done once; retries are not used up by it."""
    id, with_policy = rig.submit(jobspec()), rig.submit(spec(1))
    rig.started(id, with_policy)
    assert requeue(rig, id, with_policy) == ([id, with_policy], {})
    job = rig.job(id)
    assert (job.state, job.number, job.ending) == (CLEANUP, 1, "requeue")
    assert ["end", id, job.attempt_id, "requeue"] in rig.orders(job.ranks[0])
    assert requeue(rig, id) == ([], {})
    fail(rig, id, 15, "requeue")
    fail(rig, with_policy, 15, "requeue")
    assert (rig.job(id).state, rig.job(id).number, rig.job(id).requeued[3]) == (RUN, 2, "requeued: because")
    for number in (2, 3):
        rig.started(with_policy)
        assert rig.job(with_policy).number == number
        fail(rig, with_policy)
    assert (rig.job(with_policy).state, rig.job(with_policy).number) == (INACTIVE, 3)
    fail(rig, id)
    assert rig.job(id).state == INACTIVE
    check_rules(rig)


def test_requeued_and_held(rig: Rig) -> None:
    id = rig.submit(jobspec())
    rig.started(id)
    requeue(rig, id, hold=True)
    fail(rig, id, 15, "requeue")
    job = rig.job(id)
    assert (job.state, job.priority, job.urgency) == (SCHED, 0, 0)
    change_jobs(rig.journal, [id], lambda state, job, now: decide_update.release(job, 1, now))
    rig.turn()
    assert (rig.job(id).state, rig.job(id).urgency) == (RUN, 16)
    check_rules(rig)


def test_what_cannot_be_requeued_says_why(rig: Rig) -> None:
    running = [rig.submit(jobspec(cores=2)) for _ in range(2)]
    pending = rig.submit(jobspec(cores=2))
    fail(rig, running[0], 0)
    rig.do(decide.raise_exception(rig.state, running[1], "cancel", 0, "", 1, rig.now))
    rig.turn()
    waiting = rig.submit(jobspec(nodes=2, cores=2))
    outcome = requeue(rig, *running, waiting, 99)
    assert outcome.changed == []
    found = {id: (error.code, error.hint) for id, error in outcome.refused.items()}
    assert found[running[0]][0] == "inactive"
    assert "resubmit" in found[running[0]][1]
    assert found[running[1]][0] == "not-running"
    assert found[waiting][0] == "not-running"
    assert found[99][0] == "no-such-job"
    assert rig.job(pending).state == RUN


def test_cancel_after_requeue_is_the_last_word(rig: Rig) -> None:
    id = rig.submit(jobspec())
    rig.started(id)
    requeue(rig, id)
    (decision,) = decide.cancel_each([rig.job(id)], "", 1, rig.now)
    rig.do(decision)
    rig.turn()
    fail(rig, id, 15, "requeue")
    assert rig.job(id).state == INACTIVE
    assert rig.job(id).number == 1
    check_rules(rig)


def test_listings_tell_the_attempt_and_why(rig: Rig) -> None:
    id = rig.submit(spec(2, delay=90.0))
    rig.started(id)
    fail(rig, id)
    job = rig.job(id)

    def field(name: str) -> Any:
        return FIELDS[name][1](job, View(rig.state, rig.now))

    assert field("attempt") == 2
    assert field("info") == "retry 1 of 2: exit code 75; rests for 1.5m"
    rig.turn(seconds=90.0)
    assert job_document(rig.job(id), View(rig.state, rig.now))["attempt"] == 2
    full = rig.submit(jobspec(nodes=2, cores=2))
    rig.turn(seconds=1.0)
    assert "retry" not in FIELDS["info"][1](rig.job(full), View(rig.state, rig.now))
    story = [(commit, Event(*event)) for commit in rig.commits() for event in commit.events if event[1] == id]
    assert [(one["number"], one["end"], one.get("then")) for one in attempts(story, id, {})] == [
        (1, "exit code 75", "retry 1 of 2: exit code 75"), (2, "", None),
    ]  # fmt: skip
    (event,) = [event for _, event in story if event.name == "requeue"]
    assert describe(event, {}).startswith("attempt 2: retry 1 of 2: exit code 75, not before 2023-")


def test_a_node_s_story_has_every_attempt(rig: Rig) -> None:
    rig.do(decide.drain(rig.state, [1], "x", 0, rig.now))
    id = rig.submit(spec(2))
    rig.started(id)
    fail(rig, id)
    rig.do(decide.undrain(rig.state, [1], "", rig.now))
    rig.do(decide.drain(rig.state, [0], "x", 0, rig.now))
    rig.turn()
    rig.started(id)
    fail(rig, id, 3 << 8)
    assert (rig.job(id).ranks, rig.job(id).number) == ([1], 3)
    rig.started(id)
    fail(rig, id, 0)
    rows = {rank: jobs_on(rig.journal, rig.state, rank, 0.0, rig.now, 0) for rank in (0, 1)}
    assert {rank: [one["end"] for one in found] for rank, found in rows.items()} == {
        0: ["exit code 75", "exit code 3"], 1: ["exit code 0"],
    }  # fmt: skip
    assert all(one["free"] >= one["alloc"] for found in rows.values() for one in found)


# -- what tasks see ------------------------------------------------------------------------------------------------


def test_tasks_know_their_attempt(rig: Rig) -> None:
    host = Host({0: "n0"}, "b", "s", "uri", "/tmp", {}, origin_ms=0)
    id = rig.submit(spec())
    found = []
    for number in (1, 2):
        job = rig.job(id)
        request = rig.worker.planner.compiled(job)
        ((_, (_, order)),) = launch_orders(job, request, job.claims, "x", False, rig.state.nodes)
        order["command"] = ["echo", "{{attempt}}"]
        attempt = build_attempt(host, 0, order, f"{id}.{job.attempt_id}.0")
        found.append((attempt["env_set"]["FLUX_JOB_ATTEMPT"], attempt["tasks"][0][1]))
        assert ("since" in order) == (number == 2)
        rig.started(id)
        fail(rig, id)
    assert found == [("1", ["echo", "1"]), ("2", ["echo", "2"])]


def test_a_policy_that_cannot_be_read_is_refused_by_the_worker(rig: Rig) -> None:
    id = rig.submit(spec(on=["never"]))
    job = rig.job(id)
    assert job.state == INACTIVE
    assert "never" in job.exception[1]
    assert again(job, FAILED, None, 1.0) is None
