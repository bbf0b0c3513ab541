"""Events that are well-formed and impossible: the fold sets their subject aside, the worker says so, ends the job, and the
rest goes on. In every case nothing that may still run is sold."""

from __future__ import annotations

from typing import Any

import pytest
from worker_rig import Rig, jobspec

from fluxkv.journal import snapshot
from fluxkv.journal.decide import Decision
from fluxkv.journal.job import CLEANUP, DEPEND, INACTIVE, NEW, RUN, SCHED, Result
from fluxkv.journal.quarantine import WORDS, Quarantine, entry_word
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit

ALLOC = {"claims": [[0, "0", "", 0, 1]]}
CONFIG = {"job-manager": {"housekeeping": {"command": ["h"]}}}


def settled(rig: Rig) -> None:
    """All folds agree, whatever way they came; all that was owed has been said."""
    rig.turn()
    state = rig.state
    assert not state.quarantine.news
    head, chunks = snapshot.dump(rig.journal.at())
    for other in (rig.journal.at(), *(snapshot.load(snapshot.read_head(head), chunks, lazy=lazy) for lazy in (False, True))):
        assert other.subjects() == state.subjects()
        assert other.digest() == state.digest()
        assert not other.quarantine.news


def held(rig: Rig) -> dict[int, set[int]]:
    return {rank: set(node.jobs) for rank, node in rig.state.nodes.items() if node.jobs}


@pytest.mark.parametrize(
    ("name", "context"),
    [("start", None), ("finish", {"status": 0}), ("free", None), ("clean", None), ("validate", None), ("depend", None),
     ("release", {"ranks": "all", "final": True}), ("submit", {"urgency": 16, "userid": 1, "flags": 0, "version": 1})],
)  # fmt: skip
def test_a_pending_job_ends_with_a_cause_and_the_next_one_runs(name: str, context: dict[str, Any] | None) -> None:
    rig = Rig()
    rig.busy()
    id = rig.submit(jobspec(cores=2))
    assert rig.job(id).state == SCHED
    version = rig.say([name, id, rig.now, context])
    settled(rig)
    job = rig.job(id)
    assert (job.state, job.result, job.status) == (INACTIVE, Result.FAILED, None)
    assert job.exception[0] == "quarantine"
    assert f"version {version}: {name}" in job.exception[1]
    assert rig.names(id)[-4:] == [name, "quarantine", "exception", "clean"]
    assert version in job.commits
    aside = rig.state.quarantine.table[id]
    assert (aside.version, aside.name, aside.count) == (version, name, 1)
    assert not any(node.drain for node in rig.state.nodes.values())
    rig.over(rig.held[0])
    rig.turn()
    assert rig.job(rig.submit()).state == RUN


def test_a_second_alloc_of_a_core_is_not_sold_twice() -> None:
    """Whose is it? The first holds it on; the node is drained, what may have been begun there is ended."""
    rig = Rig()
    owner, thief = rig.submit(), rig.submit(jobspec(cores=2, nodes=2))
    claims = rig.job(owner).claims_wire
    assert rig.job(thief).state == SCHED
    version = rig.say(["alloc", thief, rig.now, {"claims": claims}], ["start", thief, rig.now, None])
    settled(rig)
    rank, epoch = claims[0][0], rig.state.epoch
    assert rig.job(thief).state == INACTIVE
    assert rig.state.quarantine.table[thief].count == 2
    assert held(rig) == {rank: {owner}}
    assert rig.job(owner).state == RUN
    node = rig.state.nodes[rank]
    assert "quarantine: job" in node.drain[1]
    assert ["forget", f"{thief}.{version}-{epoch}"] in rig.orders(rank)
    assert rig.job(rig.submit()).ranks == [1 - rank]


@pytest.mark.parametrize("name", ["start", "alloc", "free", "clean", "grant"])
def test_a_running_job_is_ended_by_its_nodes_word(name: str) -> None:
    rig = Rig()
    id = rig.submit()
    if name == "start":
        rig.started(id)
    context = {"alloc": ALLOC, "grant": {"rank": 1, "shape": "s"}}.get(name)
    rig.say([name, id, rig.now, context])
    settled(rig)
    job = rig.job(id)
    assert job.state == CLEANUP
    assert job.holds
    assert ["end", id, job.attempt_id, "quarantine"] in rig.orders(job.ranks[0])
    rig.over(id, status=15, cause="ended")
    settled(rig)
    assert (rig.job(id).state, rig.job(id).result) == (INACTIVE, Result.FAILED)
    assert not held(rig)
    doubt = {"alloc": [0], "grant": [1]}.get(name, [])
    assert [rank for rank, node in rig.state.nodes.items() if node.drain] == doubt


def test_free_before_its_tasks_are_over_sells_nothing() -> None:
    rig = Rig()
    id = rig.submit()
    rig.started(id)
    rig.say(["exception", id, rig.now, {"type": "cancel", "severity": 0, "note": ""}])
    rig.say(["free", id, rig.now, None], ["clean", id, rig.now, None])
    settled(rig)
    assert held(rig) == {0: {id}}
    rig.over(id, status=15, cause="ended")
    settled(rig)
    assert rig.job(id).result == Result.CANCELED  # it was ending already: how it ended stays
    assert not held(rig)


def test_what_is_over_stays_as_it_is() -> None:
    rig = Rig()
    id = rig.submit()
    rig.over(id)
    rig.turn()
    before = rig.job(id)
    assert before.result == Result.COMPLETED
    rig.say(["start", id, rig.now, None], ["free", id, rig.now, None])
    settled(rig)
    job = rig.job(id)
    assert (job.result, job.exceptions, rig.names(id)[-1]) == (Result.COMPLETED, [], "quarantine")
    for _ in range(3):  # one word is enough
        rig.say(["clean", id, rig.now, None])
    settled(rig)
    assert rig.names(id).count("quarantine") == 1
    assert rig.state.quarantine.table[id].count == 5
    rig.say(["retire", "instance", rig.now, {"jobs": [id]}])
    settled(rig)
    assert not rig.state.quarantine.table
    assert rig.state.quarantine.total == 5


def test_a_new_job_and_one_that_waits() -> None:
    rig = Rig()
    waits = jobspec()
    waits["attributes"]["system"]["dependencies"] = [{"scheme": "begin-time", "value": "4000000000"}]
    waiting = rig.submit(waits)
    assert rig.job(waiting).state == DEPEND
    new = rig.submit(turn=False)
    rig.journal.catch_up(rig.state)
    assert rig.job(new).state == NEW
    rig.say(["depend", new, rig.now, None], ["start", waiting, rig.now, None])
    settled(rig)
    for id in (new, waiting):
        assert (rig.job(id).state, rig.job(id).result) == (INACTIVE, Result.FAILED)


def test_a_job_placed_ahead() -> None:
    rig = Rig()
    rig.busy()
    id = rig.granted()
    rig.say(["grant", id, rig.now, {"rank": 0, "shape": "s"}])
    settled(rig)
    job = rig.job(id)
    assert (job.state, job.recalled) == (CLEANUP, True)  # its node must answer first
    rig.report(job.granted[0], unstarted=[[id, job.attempt]])
    settled(rig)
    assert rig.job(id).state == INACTIVE


def test_housekeeping_that_takes_what_is_not_free() -> None:
    rig = Rig(config=CONFIG)
    id = rig.submit()
    claims = rig.job(id).claims_wire
    rig.say(["housekeeping-start", "housekeeping/77", rig.now, {"claims": claims, "attempt": "5-5"}])
    settled(rig)
    assert held(rig) == {0: {id}}
    assert rig.state.nodes[0].drain
    assert ["forget", "77.5-5h"] in rig.orders(0)
    assert rig.job(id).state == RUN


def test_an_inventory_without_what_is_in_use_is_none() -> None:
    rig = Rig()
    id = rig.submit()
    smaller = Rig(nodes=1).state.R
    smaller["execution"]["nodelist"] = ["other"]
    version = rig.say(["resource-define", "resource", rig.now, {"method": "reload", "R": smaller}])
    rig.say(["instance-create", "instance", rig.now, {"uid": "x"}], ["instance-create", "instance", rig.now, {"uid": "y"}])
    settled(rig)
    assert (len(rig.state.nodes), rig.state.nodes[0].host, held(rig)) == (2, "n0", {0: {id}})
    assert rig.state.instance["uid"] == "x"
    assert [(aside.subject, aside.version) for aside in rig.state.quarantine.table.values()] == [
        ("resource", version), ("instance", version + 1),
    ]  # fmt: skip
    rig.over(id)
    rig.turn()
    rig.say(["resource-define", "resource", rig.now, {"method": "reload", "R": smaller}])
    rig.turn()
    assert [node.host for node in rig.state.nodes.values()] == ["other"]


def test_what_fills_the_table_does_not_fill_the_state() -> None:
    state = State()
    claims = [[5, "0", "", 0, 1]]
    for number in range(WORDS + 50):
        context = {"claims": claims, "attempt": "1-5"}
        event = ["housekeeping-start", f"housekeeping/{number}", 1.0, context]
        state.apply(Commit(number + 1, 5, "", 0, 0, 1.0, [event, ["housekeeping-start", [], 1.0, context]], {}))
    assert len(state.quarantine.table) == WORDS
    assert state.quarantine.total == WORDS + 50
    assert state.skipped == WORDS + 50  # of a subject that is none
    assert state.digest() == snapshot.load(*read(state)).digest()


def read(state: State) -> tuple[dict[str, Any], list[bytes]]:
    head, chunks = snapshot.dump(state)
    return snapshot.read_head(head), chunks


def test_a_state_without_any_is_digested_as_before_there_was_a_table() -> None:
    state = Rig().state
    assert entry_word(1) == "quarantine/1"
    assert not any(name.startswith("quarantine") for name in state.subjects())
    assert Quarantine.load(None).dump() == [0, []]


def test_a_conflict_or_a_new_worker_loses_nothing_of_it() -> None:
    """The job is changed in the very moment; the worker dies before it has said anything."""
    rig = Rig()
    rig.busy()
    id = rig.submit(jobspec(cores=2))
    rig.say(["start", id, rig.now, None])
    stale = rig.new_worker("worker-1")
    assert stale.state.quarantine.news == {id: None}
    rig.do(Decision([["memo", id, rig.now, {"a": 1}]], bumps=[f"job/{id}"]))
    settled(rig)
    assert rig.names(id).count("quarantine") == 1


def test_no_retry_policy_covers_it() -> None:
    """Whatever made its history contradict itself would do so again."""
    rig = Rig()
    spec = jobspec()
    spec["attributes"]["system"]["retry"] = {"limit": 3, "on": ["any"]}
    id = rig.submit(spec)
    rig.started(id)
    rig.say(["start", id, rig.now, None])
    rig.turn()
    rig.over(id, status=15, cause="ended")
    settled(rig)
    assert (rig.job(id).state, rig.job(id).result) == (INACTIVE, Result.FAILED)


@pytest.mark.parametrize("asked", ["by policy", "by hand"])
def test_an_attempt_that_had_failed_before_is_not_begun_again(asked: str) -> None:
    """What is set aside while its job is on the way to another attempt stays aside."""
    rig = Rig()
    spec = jobspec(nodes=2)
    if asked == "by policy":
        spec["attributes"]["system"]["retry"] = {"limit": 3, "on": ["any"]}
    id = rig.submit(spec)
    rig.started(id)
    if asked == "by hand":
        rig.say(["exception", id, rig.now, {"type": "requeue", "severity": 0, "note": "again", "userid": 1}])
    rig.over(id, status=256, rank=0)
    rig.turn()
    rig.say(["alloc", id, rig.now, ALLOC])
    rig.turn()
    rig.over(id, status=256, rank=1)
    settled(rig)
    assert (rig.job(id).state, rig.job(id).number) == (INACTIVE, 1)
    assert not rig.state.nodes[0].busy
