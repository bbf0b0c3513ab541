"""A site's scripts on single nodes of a job that runs: a prolog where one comes, epilog and housekeeping where one leaves."""

from __future__ import annotations

from typing import Any

import pytest
from resize_rig import Site, instance

from fluxkv.instances.reactor import Lead
from fluxkv.instances.resize_client import Resizing
from fluxkv.instances.script_orders import attempt_key
from fluxkv.journal import decide, decide_hosts, decide_housekeeping
from fluxkv.journal.decide_resize import Terms, parse_resize
from fluxkv.journal.job import CLEANUP, INACTIVE, RUN
from fluxkv.journal.resizing import index_of, runs_on
from fluxkv.journal.wire import unpack
from fluxkv.kvs.errors import Rejected

PROLOG, EPILOG, HOUSEKEEPING = ({name: {"command": [name[0]], **more}} for name, more in (
    ("prolog", {"per-rank": True}), ("epilog", {"per-rank": True}), ("housekeeping", {})))  # fmt: skip
ALL = {**PROLOG, **EPILOG, **HOUSEKEEPING}


class Scripted(Site):
    """A site with scripts, in which a job runs on its first nodes."""

    def __init__(self, nodes: int, scripts: dict[str, Any], first: int = 2) -> None:
        super().__init__(nodes, config={"job-manager": scripts})
        self.id = self.submit(instance(first))
        if "prolog" in scripts:
            for rank in range(first):
                self.script(rank, self.id, "p")
            self.turn()
        self.started(self.id)
        assert self.job(self.id).state == RUN

    def told(self, rank: int) -> list[str]:
        """What a node was ordered: kinds of scripts, `launch`, `end` and what."""
        found = []
        for what, *rest in self.orders(rank):
            letter = rest[1].lstrip("0123456789-") if what == "end" else ""
            found.append(rest[0]["kind"] if what == "script" else f"{what} {letter}".rstrip())
        return found

    def well(self, rank: int, letter: str, status: int = 0, cause: str = "") -> None:
        """Its script is over there."""
        self.script(rank, self.id, letter, status, cause)
        self.turn()

    def ends(self) -> None:
        """All is over, everywhere, and everything was as it has to be."""
        for rank in self.job(self.id).ranks:
            if rank not in self.job(self.id).over:
                self.over(self.id, rank=rank)
        self.turn()
        for letter in "eheh":
            for rank in range(8):
                self.well(rank, letter) if rank in self.state.nodes else None
        assert self.job(self.id).state == INACTIVE
        assert not self.state.keeping
        assert not any(node.busy for node in self.state.nodes.values())
        self.sound()


def test_a_prolog_runs_where_a_node_comes_before_its_tasks_do() -> None:
    site = Scripted(3, ALL)
    site.ask(site.id, "+1N")
    assert site.job(site.id).ranks == [0, 1, 2]
    assert site.told(2) == ["prolog"]
    assert runs_on(site.job(site.id), 2) == "prolog"
    site.turn(seconds=100.0)
    assert site.told(2) == ["prolog"]
    site.well(2, "p")
    assert site.told(2) == ["prolog", "launch"]
    assert not runs_on(site.job(site.id), 2)
    assert index_of(site.job(site.id), 2) == 2
    site.started(site.id)
    site.ends()


@pytest.mark.parametrize(("status", "cause", "why"), [(3 << 8, "", "exit code 3"), (9, "timeout", "timed out")])
def test_where_it_fails_the_node_is_drained_and_goes_back_and_the_job_goes_on(status: int, cause: str, why: str) -> None:
    site = Scripted(3, ALL)
    site.ask(site.id, "+1N")
    site.well(2, "p", status, cause)
    assert site.state.nodes[2].drain[1].endswith(why)
    assert site.job(site.id).exceptions == [["prolog", 2, f"prolog on rank 2: {why}; the job goes on without it"]]
    assert site.told(2) == ["prolog", "epilog"]  # as after any prolog
    site.well(2, "e")
    site.well(2, "h")
    assert site.told(2) == ["prolog", "epilog", "housekeeping"]
    assert site.job(site.id).ranks == [0, 1]
    assert site.job(site.id).state == RUN
    site.ends()


@pytest.mark.parametrize(
    ("scripts", "letters"), [(EPILOG, "e"), (HOUSEKEEPING, "h"), ({**EPILOG, **HOUSEKEEPING}, "eh"), (PROLOG, "")]
)
def test_a_node_that_leaves_is_free_when_it_has_been_looked_after(scripts: dict[str, Any], letters: str) -> None:
    site = Scripted(3, scripts, 3)
    site.ask(site.id, "-1N")
    site.over(site.id, rank=2)
    site.turn()
    for letter in letters:
        assert site.job(site.id).ranks == [0, 1, 2]
        assert site.told(2)[-1][0] == letter
        site.turn(seconds=1000.0)
        site.well(2, letter)
    assert site.job(site.id).ranks == [0, 1]
    names = [name for name in site.names(site.id) if name in ("shrink", "release", "free")]
    assert names == ["shrink", "release", "free"]
    site.ends()


def test_housekeeping_on_a_node_that_leaves_is_listed_and_signalled_like_that_after_a_job() -> None:
    site = Scripted(3, HOUSEKEEPING, 3)
    assert decide_housekeeping.going_on(site.state) == {}
    with pytest.raises(Rejected, match="no housekeeping is going on"):
        decide_housekeeping.kill(site.journal.load(), [site.id], None, 15, 1, site.now)
    site.ask(site.id, "=1N")
    for rank in (1, 2):
        site.over(site.id, rank=rank)
    site.turn()
    site.well(1, "h")
    (keeping,) = decide_housekeeping.going_on(site.state).values()
    assert (keeping.job, keeping.ranks, keeping.attempt_id) == (site.id, [2], site.job(site.id).attempt_id)
    assert not decide_housekeeping.kill(site.journal.load(), None, [0, 1], 15, 1, site.now).events
    site.do(decide_housekeeping.kill(site.journal.load(), None, None, 15, 1, site.now))
    assert site.orders(2)[-1] == ["signal", site.id, f"{site.job(site.id).attempt_id}h", 15]
    assert "signal" not in [order[0] for rank in (0, 1) for order in site.orders(rank)]
    site.well(2, "h", 15)
    assert site.state.nodes[2].drain[1].endswith("was killed by signal 15")
    assert (site.job(site.id).ranks, decide_housekeeping.going_on(site.state)) == ([0], {})
    site.ends()


def test_a_node_that_comes_twice_has_each_script_twice_and_late_words_say_nothing() -> None:
    """HAZARD 9: what is said again of the first time, with the second one's order under way."""
    site = Scripted(2, ALL)
    site.ask(site.id, "-1N")
    site.over(site.id, rank=1)
    site.turn()
    said: list[list[Any]] = []
    for letter in "eh":
        said.append([site.id, site.job(site.id).attempt, letter, site.now, site.now, 0, ""])
        site.report(1, script=said[-1:])
        site.turn()
    assert site.job(site.id).ranks == [0]
    site.ask(site.id, "+1N")
    said.append([site.id, site.job(site.id).attempt, "p", site.now, site.now, 0, ""])
    site.report(1, script=said[-1:])
    site.turn()
    site.started(site.id)
    site.ask(site.id, "-1N")
    site.over(site.id, rank=1)
    site.turn()
    assert runs_on(site.job(site.id), 1) == "epilog"
    site.report(1, script=said)
    site.turn()
    assert runs_on(site.job(site.id), 1) == "epilog"
    keys = [attempt_key(order[1], "9-9", 1) for message in site.store.messages(site.store.keys.inbox("node/1"))
            for order in unpack(message.data) if order[0] in ("script", "launch")]  # fmt: skip
    assert len(keys) == len(set(keys)) == 7
    site.well(1, "e")
    site.well(1, "h")
    assert site.job(site.id).ranks == [0]
    site.ends()


def test_a_job_that_ends_meanwhile_has_its_prolog_ended_and_waits_for_the_others() -> None:
    site = Scripted(4, ALL, 3)
    site.ask(site.id, "+1N")
    site.ask(site.id, "-1N", Terms(ranks=(2,)))
    site.over(site.id, rank=2)
    site.turn()
    assert [runs_on(site.job(site.id), rank) for rank in (2, 3)] == ["epilog", "prolog"]
    site.do(decide.raise_exception(site.journal.load(), site.id, "cancel", 0, "", 1, site.now))
    site.turn()
    assert site.told(3) == ["prolog", "end p"]
    assert site.told(2)[-1] == "epilog"  # an epilog runs to its end
    site.over(site.id, 15, "ended:cancel", rank=0)
    site.over(site.id, 15, "ended:cancel", rank=1)
    site.turn()
    assert "finish" not in site.names(site.id)
    site.well(3, "p", 15, "ended:cancel")
    assert site.names(site.id)[-2:] == ["node-script-finish", "finish"] or "finish" in site.names(site.id)
    assert site.state.nodes[3].drain is None
    assert site.job(site.id).state == CLEANUP
    assert "epilog-start" not in site.names(site.id)
    site.well(2, "e")
    site.well(2, "h")
    assert site.job(site.id).ranks == [0, 1, 3]
    assert "epilog-start" in site.names(site.id)
    site.ends()


def test_an_instance_that_has_ended_begins_nothing_where_a_node_came_last() -> None:
    site = Scripted(3, PROLOG)
    site.ask(site.id, "+1N")
    site.over(site.id, rank=0)
    site.over(site.id, rank=1)
    site.well(2, "p")
    assert site.told(2) == ["prolog"]
    assert site.job(site.id).state == INACTIVE
    assert site.job(site.id).returncode == 0
    site.sound()


def test_a_node_asked_back_before_its_prolog_is_over_never_gets_its_tasks() -> None:
    site = Scripted(3, PROLOG)
    site.ask(site.id, "+1N")
    site.ask(site.id, "-1N", Terms(5.0, ranks=(2,)))
    site.turn(seconds=30.0)
    assert site.told(2) == ["prolog", "end p"]
    site.well(2, "p", 15, "ended:shrink")
    assert site.job(site.id).ranks == [0, 1]
    assert site.state.nodes[2].drain is None
    site.ends()


@pytest.mark.parametrize("letter", ["p", "e", "h"])
def test_a_script_that_is_lost_with_its_node_drains_it_and_keeps_nobody(letter: str) -> None:
    site = Scripted(3, ALL)
    site.ask(site.id, "+1N")
    if letter != "p":
        site.well(2, "p")
        site.started(site.id)
        site.ask(site.id, "-1N")
        site.over(site.id, rank=2)
        site.turn()
    if letter == "h":
        site.well(2, "e")
    site.say(["offline", "resource", site.now, {"idset": "2", "reason": "gone", "heard": site.now}])
    site.do(decide_hosts.fence(site.journal.load(), [2], "power is off", 0, site.now))
    site.turn()
    assert site.job(site.id).ranks == [0, 1]
    assert site.state.nodes[2].drain[1].endswith("was lost")
    site.ends()


def test_who_asked_hears_of_a_prolog_that_failed_whatever_came_after() -> None:
    site = Scripted(6, ALL)
    resizing = Resizing(site.journal, "memory:none", site.id).ask(parse_resize("+4N"), Terms())
    site.turn()
    site.well(2, "p", 1 << 8)
    for rank in (3, 4, 5):
        site.well(rank, "p")
    site.well(2, "e")
    site.well(2, "h")
    assert site.job(site.id).ranks == [0, 1, 3, 4, 5]
    resizing.size()
    with pytest.raises(Rejected, match="prolog on rank 2: exit code 1"):
        resizing.told()
    site.ask(site.id, "-1N")
    assert resizing.ask(parse_resize("=2N"), Terms()).size().leaving
    assert resizing.told()  # that is another question
    site.sound()


@pytest.mark.parametrize("lost_first", [True, False])
@pytest.mark.parametrize("again", [True, False])
def test_a_lost_node_that_is_asked_back_is_looked_after_when_it_is_there_again(lost_first: bool, again: bool) -> None:
    """It was the job's until its end, and whoever had asked waited for that. again: it never comes, and is fenced once more."""
    site = Scripted(3, ALL, 3)
    steps = [
        lambda: site.ask(site.id, "-1N", Terms(ranks=(2,))),
        lambda: site.do(decide_hosts.fence(site.journal.load(), [2], "power is off", 0, site.now)),
    ]
    site.say(["offline", "resource", site.now, {"idset": "2", "reason": "gone", "heard": site.now}])
    for step in reversed(steps) if lost_first else steps:
        step()
        site.turn()
    assert (site.job(site.id).ranks, site.told(2)[-1]) == ([0, 1, 2], "epilog")
    if again:
        site.do(decide_hosts.fence(site.journal.load(), [2], "it is scrapped", 0, site.now))
        site.turn()
        assert site.state.nodes[2].drain[1].endswith("was lost")
    else:
        site.well(2, "e")
        site.well(2, "h")
    assert (site.job(site.id).ranks, site.job(site.id).state) == ([0, 1], RUN)
    site.ends()


def test_what_a_node_no_longer_has_is_lost_and_what_it_has_goes_on() -> None:
    """An agent's hello, before and after it has read the order."""
    site = Scripted(3, ALL)
    site.ask(site.id, "+1N")
    name = f"{site.job(site.id).key}p"
    site.hello(2, held=[name])
    site.turn()
    assert runs_on(site.job(site.id), 2) == "prolog"
    site.hello(2, held=[])
    site.turn()
    assert site.job(site.id).ranks == [0, 1]


def test_a_worker_that_begins_goes_on_where_the_last_one_was() -> None:
    site = Scripted(4, ALL)
    site.ask(site.id, "+2N")
    site.script(2, site.id, "p")
    site.worker = site.new_worker("worker-1")
    site.turn(Lead(True))
    site.script(3, site.id, "p")
    site.turn()
    assert [site.told(rank) for rank in (2, 3)] == [["prolog", "launch"]] * 2
    site.started(site.id)
    site.ask(site.id, "=2N")
    for rank in (2, 3):
        site.over(site.id, rank=rank)
    site.worker = site.new_worker("worker-2")
    site.turn(Lead(True))
    site.script(2, site.id, "e")
    site.worker = site.new_worker("worker-3")
    site.turn(Lead(True))
    assert [site.told(rank)[-1] for rank in (2, 3)] == ["housekeeping", "epilog"]
    site.ends()


def test_events_that_contradict_it_are_set_aside() -> None:
    site = Scripted(4, PROLOG, 3)
    bad = (
        ("node-script-start", {"kind": "prolog", "ranks": "1"}), ("node-script-start", {"kind": "epilog", "ranks": "1"}),
        ("node-script-start", {"kind": "epilog", "ranks": "0"}), ("node-script-start", {"kind": "epilog", "ranks": "3"}),
        ("node-script-finish", {"kind": "prolog", "ranks": "1", "status": 0, "launch": True}),
    )  # fmt: skip
    for total, (name, context) in enumerate(bad, 1):
        site.say([name, site.id, site.now, context])
        assert site.journal.load().quarantine.total == total


@pytest.mark.parametrize("scripts", [ALL, {}])
def test_a_word_of_a_node_that_it_had_on_a_lost_branch_alone_is_nothing(scripts: dict[str, Any]) -> None:
    """Its agent told it before it knew; the node may come in earnest later."""
    site = Scripted(3, scripts, first=1)
    site.over(site.id, status=9, rank=2)
    site.say(["lost", site.id, site.now, {"rank": 2, "cause": "node fenced"}])
    site.turn()
    job = site.job(site.id)
    assert (job.state, job.over, [*job.started], job.resized) == (RUN, {}, [0], None)
    site.ask(site.id, "=3N")
    assert site.job(site.id).ranks == [0, 1, 2]
    assert site.job(site.id).over == {}
    for rank in (1, 2) if scripts else ():
        site.well(rank, "p")
    site.started(site.id)
    site.ends()
