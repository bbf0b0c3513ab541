"""Named queues as the worker plans them: over nodes of their own and over shared ones, stopped, limited, reconfigured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances.ending import stopping
from fluxkv.instances.reactor import Answered, Entries, Lead, Write
from fluxkv.journal import decide
from fluxkv.journal.decide import Decision
from fluxkv.journal.job import INACTIVE, NEW, RUN, SCHED
from fluxkv.journal.state import State
from fluxkv.journal.usage import Usage
from fluxkv.kvs.port import Appended, Conflicted

DEFAULT = {"jobspec": {"defaults": {"system": {"queue": "a"}}}}
DISJOINT = {"queues": {"a": {"requires": ["a"]}, "b": {"requires": ["b"]}}, "policy": DEFAULT}
SHARED = {"queues": {"a": {}, "b": {}}, "policy": DEFAULT}
SOME = {0: ("a",), 1: ("b",)}


def two(config: dict[str, Any], nodes: int = 2) -> Rig:
    return Rig(nodes, SOME, config)


def spec(queue: str = "", cores: int = 1, nodes: int = 0, duration: float = 0.0) -> dict[str, Any]:
    found: dict[str, Any] = jobspec(cores, nodes, duration, queue)
    return found


def replay_is_equal(rig: Rig) -> None:
    whole: State = rig.journal.at()
    assert whole.subjects() == rig.state.subjects()
    assert whole.digest() == rig.state.digest()
    if whole.usage is not None:
        again = Usage(whole.rules, whole.active())
        assert (again.active, again.running) == (whole.usage.active, whole.usage.running)


# -- nodes of their own, and shared ones ----------------------------------------------------------------------


def test_each_queue_has_its_nodes() -> None:
    rig = two(DISJOINT)
    ids = [rig.submit(spec(queue)) for queue in "abab"]
    assert [rig.job(id).ranks for id in ids] == [[0], [1], [0], [1]]
    waiting = rig.submit(spec("a"))
    free = rig.submit(spec("b", cores=2))
    rig.turn(seconds=1.0)
    assert (rig.job(waiting).state, rig.job(free).state) == (SCHED, SCHED)
    assert rig.job(waiting).reason[0] == "resources"
    for id in ids[1::2]:
        rig.over(id)
    rig.turn()
    assert (rig.job(waiting).state, rig.job(free).state) == (SCHED, RUN)
    replay_is_equal(rig)


def test_the_queues_constraint_is_added_to_the_jobs() -> None:
    rig = Rig(3, {0: ("a",), 1: ("a", "ssd"), 2: ("ssd",)}, DISJOINT)
    wanted = spec("a")
    wanted["attributes"]["system"]["constraints"] = {"properties": ["ssd"]}
    assert rig.job(rig.submit(wanted)).ranks == [1]
    wanted["attributes"]["system"]["constraints"] = {"hostlist": ["n[1-2]"]}
    assert rig.job(rig.submit(wanted)).ranks == [1]
    wanted["attributes"]["system"]["constraints"] = {"hostlist": ["n2"]}
    lost = rig.job(rig.submit(wanted))
    assert lost.state == INACTIVE
    assert lost.exception is not None
    assert "unsatisfiable" in lost.exception[1]


def test_a_stopped_queue_holds_up_no_other() -> None:
    rig = two(SHARED)
    rig.do(decide.change_queue("a", "stop", "why", rig.now))
    first, second = rig.submit(spec("a")), rig.submit(spec("b"))
    assert (rig.job(first).state, rig.job(second).state) == (SCHED, RUN)
    assert rig.names(first).count("reason") == 0
    rig.do(decide.change_queue("a", "start", "", rig.now))
    rig.turn()
    assert rig.job(first).state == RUN
    replay_is_equal(rig)


def test_a_queue_whose_head_cannot_run_holds_up_no_other() -> None:
    rig = two(SHARED)
    busy = rig.submit(spec("a"))
    big = rig.submit(spec("a", nodes=2, cores=2))
    behind, other = rig.submit(spec("a")), rig.submit(spec("b"))
    assert [rig.job(id).state for id in (busy, big, behind, other)] == [RUN, SCHED, SCHED, RUN]


def test_on_shared_nodes_the_older_job_has_the_first_choice_and_urgency_comes_before_age() -> None:
    rig = two(SHARED)
    held = [rig.submit(spec("a", cores=2)), rig.submit(spec("b", cores=2))]
    older, newer = rig.submit(spec("b", cores=2)), rig.submit(spec("a", cores=2))
    urgent = rig.submit(spec("a", cores=2), urgency=20)
    rig.over(held[0], 256)
    rig.turn()
    assert [rig.job(id).state for id in (older, newer, urgent)] == [SCHED, SCHED, RUN]
    rig.over(held[1], 256)
    rig.turn()
    assert [rig.job(id).state for id in (older, newer)] == [RUN, SCHED]


def test_a_virtual_queue_stands_in_its_parents_line() -> None:
    rig = two({"queues": {"a": {}, "v": {"parent": "a"}}, "policy": DEFAULT})
    held = [rig.submit(spec("a", cores=2)) for _ in range(2)]
    first, second = rig.submit(spec("v", cores=2)), rig.submit(spec("a", cores=2))
    rig.do(decide.change_queue("v", "stop", "", rig.now))
    rig.over(held[0], 256)
    rig.turn()
    assert (rig.job(first).state, rig.job(second).state) == (SCHED, RUN)
    rig.do(decide.change_queue("v", "start", "", rig.now))
    rig.do(decide.change_queue("a", "stop", "", rig.now))
    rig.over(held[1], 256)
    rig.turn()
    assert rig.job(first).state == SCHED, "both must be started"
    rig.do(decide.change_queue("a", "start", "", rig.now))
    rig.turn()
    assert rig.job(first).state == RUN


# -- grants ahead ---------------------------------------------------------------------------------------------


def test_stopping_a_queue_recalls_what_it_placed_ahead_and_nothing_else() -> None:
    rig = two(SHARED)
    first = rig.submit(spec("a"))
    rig.report(0, over=[[first, rig.job(first).attempt, rig.now - 0.06, rig.now, 0, "", 0]])
    rig.turn()
    for _ in range(4):
        rig.submit(spec("a"))
    one, other = rig.submit(spec("a")), rig.submit(spec("b"))
    assert rig.job(one).granted is not None
    assert rig.job(other).granted is not None
    rig.do(decide.change_queue("a", "stop", "", rig.now))
    rig.turn()
    assert (rig.job(one).recalled, rig.job(other).recalled) == (True, False)


def test_nobody_is_placed_ahead_where_an_older_job_of_another_queue_waits() -> None:
    rig = two(SHARED)
    first = rig.submit(spec("b"))
    rig.report(0, over=[[first, rig.job(first).attempt, rig.now - 0.06, rig.now, 0, "", 0]])
    rig.turn()
    held = [rig.submit(spec("b")) for _ in range(4)]
    older = rig.submit(spec("a", cores=2))
    newer = rig.submit(spec("b"))
    assert (rig.job(older).granted, rig.job(newer).granted) == (None, None)
    for id in held[:2]:
        rig.over(id)
    rig.turn()
    assert (rig.job(older).state, rig.job(newer).state) == (RUN, SCHED)


# -- limits ---------------------------------------------------------------------------------------------------

PER_USER = {"queues": {"a": {"policy": {"limits": {"max-running-jobs-per-user": 2}}}, "b": {}}, "policy": DEFAULT}


def test_a_job_over_the_number_of_running_jobs_waits_with_the_reason_and_others_go_on() -> None:
    rig = two(PER_USER)
    ids = [rig.submit(spec("a"), user=7) for _ in range(4)]
    others = [rig.submit(spec("a"), user=8), rig.submit(spec("b"), user=7)]
    rig.turn(seconds=1.0)
    assert [rig.job(id).state for id in ids] == [RUN, RUN, SCHED, SCHED]
    assert [rig.job(id).state for id in others] == [RUN, RUN]
    assert rig.job(ids[2]).reason == ["limit", "user 7 has 2 running jobs in queue a, as many as allowed"]
    rig.over(others[0])
    rig.turn()
    assert rig.job(ids[2]).state == SCHED
    rig.over(ids[0])
    rig.turn()
    assert [rig.job(id).state for id in ids[1:]] == [RUN, RUN, SCHED]
    replay_is_equal(rig)
    rig.configure(SHARED)
    rig.turn()
    assert rig.job(ids[3]).state == RUN
    assert rig.state.usage is None


def test_a_job_placed_ahead_counts_as_running() -> None:
    rig = Rig(2, SOME, {"policy": {"limits": {"max-running-jobs-per-user": 5}}})
    first = rig.submit(user=7)
    rig.report(0, over=[[first, rig.job(first).attempt, rig.now - 0.06, rig.now, 0, "", 0]])
    rig.turn()
    ids = [rig.submit(user=7) for _ in range(7)]
    assert [rig.job(id).state for id in ids[:4]] == [RUN] * 4
    assert [rig.job(id).granted is not None for id in ids[4:]] == [True, False, False]
    replay_is_equal(rig)
    rank, attempt = rig.job(ids[4]).granted[0], rig.job(ids[4]).attempt  # type: ignore[index]
    rig.report(rank, unstarted=[[ids[4], attempt]])
    rig.turn()
    replay_is_equal(rig)
    for id in ids[:2]:
        rig.over(id, 256)
    rig.turn()
    running = sum(rig.job(id).state == RUN or rig.job(id).granted is not None for id in ids)
    assert running == 5
    replay_is_equal(rig)


def test_a_job_over_the_number_of_active_jobs_is_refused_in_the_order_of_the_journal() -> None:
    rig = two({"policy": {"limits": {"max-active-jobs-per-user": 3}}})
    ids = [rig.submit(spec(cores=2), user=7, turn=False) for _ in range(5)]
    other = rig.submit(spec(), user=8)
    assert [rig.job(id).state == INACTIVE for id in ids] == [False, False, False, True, True]
    assert rig.job(ids[4]).exception == ["validate", "user 7 has 3 active jobs, as many as allowed"]
    assert rig.job(other).state != INACTIVE
    rig.over(ids[0])
    rig.turn()
    assert rig.job(rig.submit(user=7)).state != INACTIVE
    replay_is_equal(rig)


def test_a_number_that_a_stale_view_read_is_guarded() -> None:
    """The guard alone: two placements of jobs on different nodes in different queues, decided on the same version."""
    rig = two({**DISJOINT, "policy": {**DEFAULT, "limits": {"max-running-jobs-per-user": 1}}})
    rig.do(decide.change_queue("a", "stop", "", rig.now))
    rig.do(decide.change_queue("b", "stop", "", rig.now))
    one, other = rig.submit(spec("a"), user=7), rig.submit(spec("b"), user=7)
    assert [rig.job(id).state for id in (one, other)] == [SCHED, SCHED]
    writes = []
    for name, queue in (("worker-1", "a"), ("worker-2", "b")):
        worker = rig.new_worker(name)
        worker.state.queues[queue].started = True  # as each of them would see it
        (write,) = [out for out in worker.step(rig.now, [Lead(True)]) if isinstance(out, Write)]
        probe = rig.store.append(write.request)
        (write,) = [out for out in worker.step(rig.now, [Answered(write.request, probe)]) if isinstance(out, Write)]
        writes.append(write.request)
    first, second = (rig.store.append(request) for request in writes)
    assert isinstance(first, Appended)
    assert isinstance(second, Conflicted)
    assert second.things == ("running//7",)


# -- what the worker does for jobs that somebody else appended -------------------------------------------------


def test_defaults_reach_a_job_that_was_appended_without_them() -> None:
    rig = two({**SHARED, "policy": {"jobspec": {"defaults": {"system": {"queue": "b", "duration": "1h"}}}}})
    id = rig.submit()
    assert rig.names(id)[:3] == ["submit", "jobspec-update", "validate"]
    assert (rig.job(id).queue, rig.job(id).duration, rig.job(id).state) == ("b", 3600.0, RUN)
    replay_is_equal(rig)


@pytest.mark.parametrize(
    ("job", "why"),
    [
        (spec("c"), "queue c is not defined"),
        (spec("a", duration=7200.0), "queue a: time limit 2h is above the 1h allowed"),
        (spec("a", nodes=2, duration=60.0), "queue a: 2 nodes are more than the 1 allowed"),
    ],
)
def test_limits_hold_for_a_job_that_was_appended_past_them(job: dict[str, Any], why: str) -> None:
    limits = {"limits": {"duration": "1h", "job-size": {"max": {"nnodes": 1}}}}
    rig = two({"queues": {"a": {"policy": limits}, "b": {}}, "policy": DEFAULT})
    id = rig.submit(job)
    assert rig.job(id).exception == ["validate", why]
    assert rig.names(id) == ["submit", "validate", "exception", "clean"]
    replay_is_equal(rig)


def test_a_malformed_job_is_refused_under_a_config_too() -> None:
    rig = two(SHARED)
    systems = ([], 0, {"queue": "a"}, {"queue": "a", "duration": "x"}, {"queue": ["a"]})
    for made in ({}, {"attributes": 3}, {"resources": []}, *({"attributes": {"system": one}} for one in systems)):
        id, rig.next = rig.next, rig.next + 1
        context = {"urgency": 16, "userid": [1], "flags": 0, "version": 1, "jobspec": made, "env": ""}
        rig.do(Decision([["submit", id, rig.now, context]], bumps=[f"job/{id}"]))
        rig.turn()
        assert rig.job(id).state == INACTIVE
    replay_is_equal(rig)


# -- another config -------------------------------------------------------------------------------------------


def test_a_job_whose_queue_goes_waits_until_it_comes_back() -> None:
    rig = two(SHARED)
    held = [rig.submit(spec("b", cores=2)) for _ in range(2)]
    waiting = rig.submit(spec("b"))
    rig.configure({"queues": {"a": {}}, "policy": DEFAULT})
    rig.turn()
    assert rig.job(waiting).reason == ["no-such-queue", "queue b is not defined"]
    for id in held:
        rig.over(id)
    rig.turn(seconds=5.0)
    assert rig.job(waiting).state == SCHED
    rig.worker = rig.new_worker()  # as after a restart
    rig.turn(Lead(True))
    assert rig.names(waiting).count("reason") == 1, "it is said once"
    rig.configure(SHARED)
    rig.turn()
    assert rig.job(waiting).state == RUN
    replay_is_equal(rig)


def test_what_a_queue_requires_may_change_under_a_pending_job() -> None:
    rig = two(DISJOINT)
    rig.do(decide.change_queue("a", "stop", "", rig.now))
    rig.submit(spec("b", cores=2))
    waiting = rig.submit(spec("a", cores=2))
    rig.configure({**DISJOINT, "queues": {"a": {"requires": ["nosuch"]}, "b": {}}})
    rig.do(decide.change_queue("a", "start", "", rig.now))
    rig.turn()
    assert rig.job(waiting).state == SCHED
    assert rig.job(waiting).reason[0] == "unsatisfiable"
    rig.configure({**DISJOINT, "queues": {"a": {}, "b": {}}})
    rig.turn()
    assert rig.job(waiting).ranks == [0]


def test_a_config_change_makes_a_plan_in_flight_conflict() -> None:
    rig = two(SHARED)
    id = rig.submit(spec("a"), turn=False)
    (write,) = [one for one in rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))]) if isinstance(one, Write)]
    assert rig.state.jobs[id].state == NEW
    rig.configure(DISJOINT)
    answer = rig.store.append(write.request)
    assert isinstance(answer, Conflicted)
    assert "plan/a" in answer.things
    rig.turn(Answered(write.request, answer))
    assert rig.job(id).state == RUN


def test_status_of_queues_survives_a_restart_and_a_snapshot() -> None:
    rig = two(SHARED)
    rig.do(decide.change_queue("a", "stop", "fan is broken", rig.now))
    rig.do(decide.change_queue("b", "disable", "full", rig.now))
    assert rig.journal.save_snapshot(rig.journal.load())
    state = rig.journal.load()
    assert [queue.value() for queue in state.queues.values()] == [
        ["a", True, False, "", "fan is broken"], ["b", False, True, "full", ""],
    ]  # fmt: skip
    assert state.config == SHARED


# -- the commands ---------------------------------------------------------------------------------------------

SITE = """
[queues.batch]
requires = ["big"]
policy.limits = { duration = "8h", job-size.max.nnodes = 4, max-running-jobs-per-user = 3 }
[queues.debug]
policy.jobspec.defaults.system.duration = "10m"
policy.limits.job-size.min.ncores = 2
[queues.low]
parent = "batch"
[policy.jobspec.defaults.system]
queue = "debug"
"""


@pytest.fixture
def site(shell: Any, tmp_path: Path) -> Any:
    """The sample history under a config with three queues."""
    (tmp_path / "site.toml").write_text(SITE)
    status, _, error = shell("config", "load", str(tmp_path / "site.toml"))
    assert status == 0, error
    assert "4 jobs in queue default, which this config does not have" in error
    return shell


def test_queue_list_has_defaults_limits_and_numbers(site: Any) -> None:
    assert site.out("queue", "list").splitlines() == [
        "QUEUE    EN ST TDEFAULT   TLIMIT   NNODES   NCORES    NGPUS PENDING RUNNING REASON",
        "batch     ✔  ✔      inf       8h      0-4    0-inf    0-inf       0       0",
        "debug*    ✔  ✔      10m      inf    0-inf    2-inf    0-inf       0       0",
        "low       ✔  ✔      inf       8h      0-4    0-inf    0-inf       0       0",
    ]
    asked = "{queue} {limits.timelimit!F} {limits.max.nnodes} {defaults.timelimit} {parent} {submission} {enabled.ascii}"
    assert site.out("queue", "list", "-n", "-q", "low,debug", "-o", asked).splitlines() == [
        "low 8h 4 inf batch enabled y", "debug infinity inf 600.0  enabled y",
    ]  # fmt: skip
    assert "limits.range.ngpus" in site.out("queue", "list", "-o", "help")
    assert site.out("queue", "list", "-n", "-o", "users").split()[:5] == ["batch", "0", "3", "0", "inf"]
    low = json.loads(site.out("queue", "list", "--json"))["queues"][2]
    assert (low["parent"], low["limits"]) == ("batch", {"timelimit": 28800.0, "max": {"nnodes": 4}})
    assert site("queue", "list", "-q", "nosuch")[0] == 1
    assert site("queue", "list", "-o", "{nosuch}")[0] == 1


def test_queue_status_of_several(site: Any) -> None:
    assert "there are several queues" in site("queue", "stop")[2]
    assert site.out("queue", "stop", "batch", "-m", "fan") == "batch: Scheduling is stopped: fan\n"
    assert site.out("queue", "disable", "-q", "debug", "-m", "full") == "debug: Job submission is disabled: full\n"
    assert site.out("queue", "status").splitlines() == [
        "batch: Job submission is enabled", "batch: Scheduling is stopped: fan",
        "debug: Job submission is disabled: full", "debug: Scheduling is started",
        "low: Job submission is enabled", "low: Scheduling is stopped: its parent batch is stopped: fan",
    ]  # fmt: skip
    assert site.out("queue", "status", "-v", "low").splitlines()[2:] == [
        "low: virtual: its parent is batch", "low: longest time limit 8h", "low: nnodes 0-4", "low: 0 pending, 0 running",
    ]  # fmt: skip
    assert json.loads(site.out("queue", "status", "low", "--json"))["queues"][0]["blocked"] == "parent"
    assert site.out("queue", "start", "--all").count("started") == 3
    assert site("queue", "drain", "-q", "low")[2] == "queue low is a virtual queue: its jobs count for its parent"
    assert site("queue", "drain", "-q", "batch", "-t", "1s")[0] == 0


def test_config_commands(site: Any, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    assert json.loads(site.out("config", "get", "queues.debug.policy.limits")) == {"job-size": {"min": {"ncores": 2}}}
    assert site.out("config", "get", "--type", "string", "queues.low.parent") == "batch\n"
    assert site.out("config", "get", "--type", "fsd-integer", "queues.batch.policy.limits.duration") == "28800\n"
    assert site.out("config", "get", "-d", "7", "no.such.key") == "7\n"
    assert site("config", "get", "-q", "no.such.key") == (1, "", "")
    assert site("config", "get", "no.such.key")[2] == "config: no.such.key is not set"
    assert site("config", "get", "-t", "integer", "queues.low.parent")[2] == "config: queues.low.parent is no integer"
    before = site.sample.journal.store.meta().version
    assert "has already" in site("config", "reload")[2]
    assert site.sample.journal.store.meta().version == before
    path.write_text("[queues.batch]\nrequires = 3\n")
    assert f"config {path}: queues.batch.requires must be a list" in site("config", "reload")[2]
    path.write_text("[resource]\nfake = true\n")
    assert "a reload does not change it" in site("config", "reload")[2]
    path.write_text("[queues.batch]\n")
    assert "is valid" in site("config", "reload", "--dry-run")[2]
    assert site.sample.journal.store.meta().version == before
    site.out("config", "reload")
    assert list(site.sample.journal.load().queues) == ["batch"]
    assert json.loads(site.out("config", "get", "--at", str(before), "queues.low")) == {"parent": "batch"}
    assert site.out("config", "get") == '{"queues": {"batch": {}}}\n'
    assert site("config", "load", str(tmp_path / "nosuch.toml"))[2].endswith("nosuch.toml: No such file or directory")


def test_a_waiting_jobs_reason_is_that_of_now(shell: Any, tmp_path: Path) -> None:
    def reasons() -> dict[str, str]:
        jobs = json.loads(shell.out("jobs", "-A", "--json"))["jobs"]
        return {job["name"]: job.get("reason", "") for job in jobs}

    (tmp_path / "site.toml").write_text("[policy]\nlimits.max-running-jobs-per-user = 1\n")
    shell.out("config", "load", str(tmp_path / "site.toml"))
    assert reasons()["small"] == "alice has 1 running job, as many as allowed"
    shell.out("queue", "stop", "-m", "fan")
    assert reasons()["small"] == "queue default is stopped: fan"


def test_a_queue_is_not_closed_behind_the_back_of_a_config() -> None:
    """The mark would outlive the queue, and refuse submissions to one of that name which says that it is open."""
    rig = Rig(config=SHARED)
    seen = rig.store.meta().version
    rig.configure({"queues": {"a": {}}, "policy": DEFAULT})
    answer = rig.journal.append(decide.change_queue("b", "disable", "", rig.now), seen)
    assert isinstance(answer, Conflicted)
    rig.configure(SHARED)
    rig.turn()
    id = rig.submit(jobspec(queue="b"))
    assert rig.job(id).state == RUN


def test_nothing_is_placed_behind_the_back_of_a_stop() -> None:
    """Whatever queue it is in: a job placed at that moment would be ended by the stop instead of waiting for the next start."""
    rig = Rig(config=SHARED)
    id = rig.submit(jobspec(queue="b"), turn=False)
    outputs = rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))])
    (request,) = [output.request for output in outputs if isinstance(output, Write)]
    rig.do(stopping(rig.journal.load().queues))
    answer = rig.store.append(request)
    assert isinstance(answer, Conflicted)
    assert "plan/b" in answer.things
    rig.turn(Answered(request, answer))
    assert rig.job(id).state == SCHED
