"""A running job gets more nodes, and gives some back: what may be asked, what a worker makes of it, what the fold refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from fluxkv.instances import deadlines, sealing_led
from fluxkv.instances.reactor import Lead
from fluxkv.journal import decide, decide_hosts, decide_resize
from fluxkv.journal.claims import Claim
from fluxkv.journal.decide_resize import Terms, parse_resize
from fluxkv.journal.derive import Group
from fluxkv.journal.derive_resize import give_back
from fluxkv.journal.job import INACTIVE, RUN, Job
from fluxkv.journal.resizing import first_parts, growth_of, index_of, leaving_of
from fluxkv.journal.scripts import NO_SCRIPTS
from fluxkv.kvs.errors import Rejected
from tests.support.resize_rig import Site, instance
from tests.support.worker_rig import T0, jobspec


@pytest.mark.parametrize(
    ("text", "sign", "nodes"), [("+2N", "+", 2), ("-1n", "-", 1), ("=4N", "=", 4), ("4N", "=", 4)]
)
def test_what_may_be_asked(text: str, sign: str, nodes: int) -> None:
    assert parse_resize(text) == (sign, nodes)


@pytest.mark.parametrize("text", ["+8c", "+2", "2", "=0N", "+-1N", "++1N", "", "N", "+99999999N", "1.5N"])
def test_what_may_not(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_resize(text)
    assert caught.value.code == "bad-resize"
    assert ("cores are for another" in caught.value.hint) == (text == "+8c")
    assert caught.value.hint


def test_it_grows_as_nodes_come_free_and_its_new_nodes_are_parts_of_it() -> None:
    site = Site(4)
    id = site.running(2)
    other = site.submit(jobspec(cores=2, nodes=1))
    site.started(other)
    site.ask(id, "+2N")
    assert growth_of(site.job(id)) == (2, site.job(id).commits[-1], False)  # one is free, and that is not two
    assert site.job(id).ranks == [0, 1]
    site.over(other)
    site.turn()
    job = site.job(id)
    assert job.ranks == [0, 1, 2, 3]
    assert growth_of(job) is None
    assert [index_of(job, rank) for rank in job.ranks] == [0, 1, 2, 3]
    assert (job.nnodes, job.ntasks, job.ncores) == (4, 4, 8)
    site.started(id)
    for rank in job.ranks:
        site.over(id, rank=rank)
    site.turn()
    assert site.job(id).state == INACTIVE
    assert site.job(id).returncode == 0
    assert site.names(id)[-5:] == ["grow", "finish", "release", "free", "clean"]
    site.sound()


def test_who_asks_later_stands_behind_who_waits() -> None:
    """More nodes are planned like a request, in the order in which they were asked for."""
    site = Site(3)
    id = site.running(2)
    first = site.submit(jobspec(cores=2, nodes=2))
    site.ask(id, "+1N")
    assert site.job(id).ranks == [0, 1]  # a node is free, and fcfs lets nobody pass
    site.do(decide.raise_exception(site.journal.load(), first, "cancel", 0, "", 1, site.now))
    site.turn()
    assert site.job(id).ranks == [0, 1, 2]
    site.sound()


def test_what_cannot_be_had_at_once_is_refused_by_the_plan() -> None:
    site = Site(2)
    id = site.running(1)
    other = site.submit(jobspec(cores=2, nodes=1))
    site.started(other)
    site.ask(id, "+1N", at_once=True)
    site.turn(seconds=1.0)
    assert growth_of(site.job(id)) is None
    asked, refused = [event[3] for commit in site.commits() for event in commit.events if event[0] == "resize"]
    assert (asked["nodes"], refused["nodes"]) == (1, 0)
    assert refused["note"]
    site.over(other)
    site.turn()
    assert site.job(id).ranks == [0]
    site.sound()


def test_what_is_to_be_had_at_once_does_not_wait_for_a_queue_that_is_stopped() -> None:
    """It was neither refused nor forgotten, and nodes came when the queue was started, hours later."""
    site = Site(3)
    id = site.running(1)
    site.say(["queue-stop", "queue/default", site.now, {}])
    site.ask(id, "+1N")
    assert growth_of(site.job(id)) is not None  # this waits
    site.ask(id, "+2N", at_once=True)
    assert growth_of(site.job(id)) is None
    (note,) = [event[3]["note"] for commit in site.commits() for event in commit.events if "note" in (event[3] or {})]
    assert note == "queue default is stopped"
    site.say(["queue-start", "queue/default", site.now, None])
    site.turn(seconds=1.0)
    assert site.job(id).ranks == [0]
    site.sound()


def test_what_it_waits_for_is_taken_back_before_nodes_leave() -> None:
    site = Site(2)
    id = site.running(2)
    site.worker.leading = False  # nobody plans: it waits
    site.ask(id, "+2N")
    site.ask(id, "-1N")
    job = site.journal.load().jobs[id]
    assert growth_of(job) is not None
    assert growth_of(job).nodes == 1
    assert not leaving_of(job)
    site.ask(id, "=1N")
    job = site.journal.load().jobs[id]
    assert growth_of(job) is None
    assert list(leaving_of(job)) == [1]
    assert decide_resize.resize(site.journal.load(), job, parse_resize("=1N"), Terms(), 1, site.now).events == []


def test_a_node_that_cannot_be_is_refused_by_the_worker_in_words() -> None:
    site = Site(2)
    id = site.running(2)
    site.ask(id, "+1N")  # the command would have looked: anybody may append
    (event,) = [event for commit in site.commits() for event in commit.events if event[0] == "resize" and not event[3]["nodes"]]
    assert "node" in event[3]["note"]
    assert growth_of(site.job(id)) is None
    site.turn(seconds=5.0)
    site.sound()


def test_a_node_goes_back_on_its_own_agent_s_word_and_not_before() -> None:
    """HAZARD 5: the grace is over, its tree is being ended, and until its agent says that it has gone the node is the job's."""
    site = Site(3)
    id = site.running(3)
    site.ask(id, "-1N", Terms(grace_s=10.0, jobs="requeue"))
    until = site.now + 10.0
    leaving = leaving_of(site.job(id))
    assert list(leaving) == [2]
    assert leaving[2][1:] == (until + decide_resize.FORCE_S, "requeue", False)
    waits = site.submit(jobspec(cores=2, nodes=1))
    site.turn(seconds=20.0)  # the child has said nothing, and may still place jobs there
    assert "end" not in [order[0] for order in site.orders(2)]
    site.turn(seconds=10.0)
    assert site.orders(2)[-1] == ["end", id, site.job(id).attempt_id, "shrink"]
    site.turn(seconds=1000.0)
    assert site.job(waits).state != RUN
    assert site.job(id).ranks == [0, 1, 2]
    assert [event for event in site.names(id) if event in ("release", "free")] == []
    site.over(id, status=9, cause="ended:shrink", rank=2)
    site.turn()
    assert site.job(id).ranks == [0, 1]
    assert site.job(id).state == RUN
    assert site.job(waits).ranks == [2]
    release, free = [event[3] for commit in site.commits() for event in commit.events if event[0] in ("release", "free")]
    assert release == {"ranks": "2", "final": False}
    assert free == {"ranks": "2"}
    site.started(waits)
    site.over(id)
    site.turn()
    assert site.job(id).returncode == 0  # that its tree was ended there is no fault of the job's
    site.sound()


def test_a_node_that_is_given_back_in_time_is_not_taken() -> None:
    site = Site(2)
    id = site.running(2)
    site.ask(id, "-1N")
    site.over(id, rank=1)  # its part ended by itself: the child has done with it
    site.turn()
    assert site.job(id).ranks == [0]
    site.turn(seconds=1000.0)
    assert [order[0] for order in site.orders(1)] == ["launch"]
    assert not any(node.jobs for node in site.state.nodes.values() if node.rank == 1)
    site.ask(id, "+1N")  # the same node again: another part of the job, under the same name
    job = site.job(id)
    assert job.ranks == [0, 1]
    assert index_of(job, 1) == 2
    began = [event[3]["start"][0][2] for commit in site.commits() for event in commit.events if event[0] == "report"
             and event[3]["rank"] == 1 and "start" in event[3]]  # fmt: skip
    site.report(1, over=[[id, job.attempt, began[0], site.now, 0, "", 0]])  # HAZARD 9: the first part's end, once more
    site.turn()
    assert 1 not in site.job(id).over
    site.started(id)
    site.over(id)
    site.turn()
    assert site.job(id).state == INACTIVE
    site.sound()


def test_a_worker_that_begins_knows_what_is_to_be_taken_and_who_waits() -> None:
    site = Site(3)
    id = site.running(2)
    other = site.submit(jobspec(cores=2, nodes=1))
    site.started(other)
    site.ask(id, "+1N")
    site.worker = site.new_worker("worker-1")
    site.turn(Lead(True))
    site.over(other)
    site.turn()
    assert site.job(id).ranks == [0, 1, 2]
    site.ask(id, "=2N", Terms(grace_s=1.0))
    site.worker = site.new_worker("worker-2")
    site.turn(Lead(True))
    site.turn(seconds=17.0)
    assert site.orders(2)[-1][0] == "end"
    site.sound()


def test_whoever_is_ending_neither_grows_nor_shrinks() -> None:
    site = Site(3)
    id = site.running(1)
    other = site.submit(jobspec(cores=2, nodes=2))
    site.started(other)
    site.ask(id, "+1N")
    site.do(decide.raise_exception(site.journal.load(), id, "cancel", 0, "", 1, site.now))
    site.over(other)
    site.turn()
    assert site.job(id).ranks == [0]
    with pytest.raises(Rejected, match="is ending"):
        site.ask(id, "+1N")
    site.over(id, status=15, cause="ended:cancel")
    site.turn()
    with pytest.raises(Rejected, match="is inactive"):
        site.ask(id, "-1N")
    site.sound()


def test_a_node_that_was_to_be_taken_keeps_no_worker_busy_whose_job_ends_as_a_whole() -> None:
    site = Site(3)
    id = site.running(3)
    site.ask(id, "-1N", Terms(grace_s=10.0))
    site.do(decide.raise_exception(site.journal.load(), id, "cancel", 0, "", 1, site.now))
    site.turn()
    site.turn(seconds=1000.0)  # its nodes are silent: it comes to rest even so
    assert [order[0] for order in site.orders(2)] == ["launch", "end"]
    for rank in (0, 1, 2):
        site.over(id, status=15, cause="ended:cancel", rank=rank)
    site.turn()
    assert site.job(id).state == INACTIVE
    site.sound()


def test_scripts_on_a_job_s_first_node_alone_are_in_nobody_s_way() -> None:
    """As Flux has it unless `per-rank` is set. What is asked for while its prolog runs waits until its tasks begin."""
    site = Site(4, config={"job-manager": {"prolog": {"command": ["p"]}, "epilog": {"command": ["e"]}}})
    id = site.submit(instance(2))
    site.ask(id, "+1N")
    assert site.job(id).ranks == [0, 1]
    assert growth_of(site.job(id)) is not None
    site.script(0, id, "p")
    site.turn()
    assert site.job(id).ranks == [0, 1, 2]
    assert [order[0] for order in site.orders(2)] == ["launch"]
    site.started(id)
    site.ask(id, "-1N")
    site.over(id, rank=2)
    site.turn()
    assert site.job(id).ranks == [0, 1]
    for rank in (0, 1):
        site.over(id, rank=rank)
    site.turn()
    site.script(0, id, "e")
    site.turn()
    assert site.job(id).state == INACTIVE
    site.sound()


def test_nor_one_whose_prolog_runs_still() -> None:
    site = Site(3, config={"job-manager": {"prolog": {"command": ["p"]}}})
    id = site.submit(jobspec(cores=2, nodes=3))
    assert site.job(id).state == RUN
    site.ask(id, "-1N")
    assert list(leaving_of(site.job(id))) == [2]


@pytest.mark.parametrize(
    ("text", "terms", "code"),
    [
        ("-2N", Terms(), "lead"), ("=5N", Terms(ranks=(1,)), "bad-resize"), ("+1N", Terms(ranks=(1,)), "bad-resize"),
        ("-1N", Terms(ranks=(0,)), "lead"), ("-1N", Terms(ranks=(2,)), "no-such-node"), ("-1N", Terms(jobs="x"), "bad-resize"),
        ("-1N", Terms(ranks=(0, 1)), "bad-resize"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, terms: Terms, code: str) -> None:
    site = Site(3)
    id = site.running(2)
    with pytest.raises(Rejected) as caught:
        site.ask(id, text, terms)
    assert caught.value.code == code


def test_of_an_ordinary_job_tasks_on_a_node_end_and_it_goes_on() -> None:
    site = Site(3)
    id = site.submit(jobspec(cores=2, nodes=3))
    site.started(id)
    with pytest.raises(Rejected, match="is no instance"):
        site.ask(id, "+1N")
    site.ask(id, "-1N", Terms(ranks=(1,)))
    assert site.orders(1)[-1][0] == "end"
    site.over(id, status=15, cause="ended:shrink", rank=1)
    site.turn()
    assert site.job(id).ranks == [0, 2]
    assert site.job(id).state == RUN
    site.over(id)
    site.turn()
    assert site.job(id).returncode == 0
    site.sound()


def test_a_lost_node_is_given_back_and_the_instance_goes_on() -> None:
    site = Site(3)
    id = site.running(3)
    state = site.journal.load()
    site.say(["offline", "resource", site.now, {"idset": "1", "reason": "gone", "heard": site.now}])
    site.turn()
    state = site.journal.load()
    site.do(decide_hosts.fence(state, [1], "power is off", 0, site.now))
    site.turn()
    job = site.job(id)
    assert job.state == RUN
    assert job.ranks == [0, 2]
    (kind, severity, note), = job.exceptions
    assert (kind, severity) == ("node-failure", 2)
    assert "power is off" in note
    site.over(id)
    site.turn()
    assert site.job(id).returncode == 0
    site.sound()


@pytest.mark.parametrize(("rank", "options"), [(0, {}), (1, {"critical-ranks": "all"}), (1, {"critical-ranks": "0-1"})])
def test_a_critical_node_is_not_spared(rank: int, options: dict[str, Any]) -> None:
    site = Site(3)
    id = site.running(3, **options)
    site.say(["lost", id, site.now, {"rank": rank, "cause": "node fenced"}])
    site.turn()
    assert site.job(id).exception is not None
    assert site.job(id).exception[0] == "lost"


def test_an_ordinary_job_may_say_which_nodes_it_can_do_without() -> None:
    site = Site(3)
    spec = jobspec(cores=2, nodes=3)
    spec["attributes"]["system"]["shell"] = {"options": {"critical-ranks": "0"}}
    id = site.submit(spec)
    site.started(id)
    site.over(id, status=9, cause="lost: node rebooted", rank=2)
    site.turn()
    assert site.job(id).ranks == [0, 1]
    site.sound()


def test_events_that_contradict_the_nodes_are_set_aside() -> None:
    site = Site(3)
    id = site.running(2)
    for event, context in (
        ("grow", {"claims": [[1, "0-1", "", 0, 1]]}), ("grow", {"claims": [[0, "0", "", 0, 1]]}), ("free", {"ranks": "1"}),
        ("free", {"ranks": "0"}), ("free", {"ranks": "0-1"}), ("free", None), ("free", {"ranks": "2"}),
        ("shrink", {"ranks": "0", "until": 1.0, "force": 1.0, "jobs": "fail"}),
        ("shrink", {"ranks": "2", "until": 1.0, "force": 1.0, "jobs": "fail"}), ("release", {"ranks": "all", "final": True}),
    ):  # fmt: skip
        state = site.journal.load()
        before = state.jobs[id].claims_wire, state.nodes[1].value(), state.nodes[2].value()
        site.say([event, id, site.now, context])
        state = site.journal.load()
        assert state.quarantine.table[id].count == state.quarantine.total
        assert before == (state.jobs[id].claims_wire, state.nodes[1].value(), state.nodes[2].value())
    assert site.journal.load().quarantine.total == 10


def test_what_nobody_can_look_after_any_more_stays_until_the_job_s_end() -> None:
    """A lost node, where housekeeping is to run before others have it."""
    site = Site(2, config={"job-manager": {"housekeeping": {"command": ["h"]}}})
    id = site.running(2)
    site.say(["lost", id, site.now, {"rank": 1, "cause": "node fenced"}])
    site.turn()
    assert site.job(id).state == RUN
    assert site.job(id).ranks == [0, 1]
    site.over(id, rank=0)
    site.turn()
    assert site.job(id).state == INACTIVE
    assert site.job(id).returncode == 0


def test_when_the_part_of_a_job_that_leads_ended_is_known_whatever_came_and_went() -> None:
    """Asked by whoever seals a child that nobody leads any more, also when its job has ended."""
    site = Site(3)
    id = site.running(2)
    site.ask(id, "+1N")
    assert sealing_led._led_until(site.job(id)) == 0.0
    site.do(decide.raise_exception(site.journal.load(), id, "cancel", 0, "", 1, site.now))
    site.over(id, status=15, cause="ended:cancel", rank=0)
    assert sealing_led._led_until(site.journal.load().jobs[id]) == pytest.approx(site.now, abs=1.0)
    for rank in (1, 2):
        site.over(id, status=15, cause="ended:cancel", rank=rank)
    site.turn()
    assert site.job(id).state == INACTIVE
    assert sealing_led._led_until(site.job(id)) == 0.0


@pytest.mark.parametrize(("status", "killed"), [(9, True), (0, False), (256, False)])
def test_an_instance_whose_first_node_s_part_was_killed_ends(status: int, killed: bool) -> None:
    """The others' parts wait for its word. One that ended by itself has told them, and they may be long in ending."""
    site = Site(nodes=3)
    id = site.running(3)
    first, *others = site.job(id).ranks
    site.over(id, status=status, rank=first)
    site.turn()
    site.turn(seconds=deadlines.UNLED_S - 1.0)
    assert site.job(id).exception is None
    site.worker = site.new_worker("another")
    site.lead()
    site.turn(seconds=2.0)
    told = site.job(id).exception
    assert told == (["exec", f"what leads the instance, on rank {first}, was killed by signal 9"] if killed else None)
    assert site.names(id).count("end") == int(killed)
    for rank in others:
        site.over(id, status=15 if killed else 0, rank=rank)
    site.turn()
    assert (site.job(id).state, site.job(id).status) == (INACTIVE, status)
    site.sound()


def test_other_jobs_on_several_nodes_go_on_without_the_first() -> None:
    site = Site(nodes=2)
    id = site.submit(jobspec(cores=2, nodes=2))
    site.started(id)
    site.over(id, status=9, rank=site.job(id).ranks[0])
    site.turn(seconds=2 * deadlines.UNLED_S)
    assert site.job(id).exception is None


def calls(work: Callable[[], object]) -> int:
    """How many functions are called in it."""
    count = 0

    def seen(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def shrunk(nodes: int, status: int) -> Job:
    """An instance whose nodes but the first are over. status: of what ran there; if 0, they were asked back."""
    job = Job(1)
    job.state, job.attempt, job.jobspec = RUN, 5, instance(1)
    job.claims = tuple(Claim(rank, 3, 0, 0, 1) for rank in range(nodes))
    job.over = {rank: [status, T0, ""] for rank in range(1, nodes)}
    job.resized = first_parts(job)
    job.resized[1] = {rank: [T0, T0, "finish", False] for rank in range(1, nodes) if not status}
    return job


@pytest.mark.parametrize("status", [0, 256])
def test_thousands_of_nodes_go_back_in_one_look_at_each(status: int) -> None:
    made = {nodes: Group() for nodes in (100, 400)}
    few, many = (calls(partial(give_back, shrunk(nodes, status), T0, made[nodes], NO_SCRIPTS)) for nodes in made)
    assert [event[0] for event in made[400].events][-2:] == ["release", "free"]
    assert made[400].events[-1][3] == {"ranks": "1-399"}
    assert many < 5 * few
