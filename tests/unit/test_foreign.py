"""What a worker makes of attempts that nodes hold and the journal does not know, because the branch that began them was lost."""

from __future__ import annotations

from typing import Any

import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances import foreign, forks
from fluxkv.journal import decide_hosts
from fluxkv.journal.claims import to_wire
from fluxkv.journal.decide import Decision
from fluxkv.journal.job import RUN, SCHED
from fluxkv.kvs.port import Appended


class Forked(Rig):
    """A rig whose server may lose its last commits; what was begun in them stays on its nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.server.remember = 1000

    def lose(self, commits: int) -> None:
        lost = self.store.meta().version
        self.server.fail_over(commits)
        there = self.store.meta().version
        forks.adopt(self.store, (there + 1, lost), self.now, "test", ["the test"])
        self.worker = self.new_worker()
        self.lead()

    def speaks(self, rank: int, claims: dict[str, list[Any]] | None = None) -> None:
        """claims: attempt -> [claim, number of nodes, start]."""
        meta = self.store.meta()
        context = {"rank": rank, "host": f"n{rank}", "boot": "b", "spool": "s", "epoch": meta.epoch,
                   "cursor": f"{meta.version}-{meta.epoch}", "held": list(claims or ()), "claims": claims or {}}  # fmt: skip
        decision = Decision([["hello", f"node/{rank}", self.now, context]], bumps=[f"node/{rank}"])
        assert isinstance(self.journal.append(decision, 0), Appended)

    def begun(self, id: int) -> tuple[str, dict[str, list[Any]]]:
        """Of a job: the name of its attempt, and what a node that has it says."""
        job = self.job(id)
        return job.key, {job.key: [to_wire(job.claims)[0], len(job.claims), self.now]}


@pytest.fixture
def rig() -> Forked:
    return Forked()


def allocs(rig: Rig, id: int) -> list[dict[str, Any]]:
    return [event[3] for commit in rig.commits() for event in commit.events if event[0] == "alloc" and event[1] == id]


def test_an_attempt_of_the_lost_branch_is_adopted(rig: Forked) -> None:
    id = rig.submit()
    before = rig.store.meta().version
    name, claims = rig.begun(id)
    rank = rig.job(id).ranks[0]
    rig.lose(before - rig.job(id).attempt + 1)
    assert rig.job(id).state == SCHED
    rig.journal.meta = rig.store.meta()
    rig.speaks(1 - rank)
    rig.speaks(rank, claims)
    rig.turn()
    assert (rig.job(id).state, rig.job(id).key) == (RUN, name)
    assert not rig.state.quarantine


def test_a_node_that_only_the_lost_branch_may_have_heard_is_waited_for(rig: Forked) -> None:
    state = rig.state
    state.said_hello.clear()
    state.instance = {**state.instance, "adopted": [rig.now, 5, 6, [0]]}
    node = state.nodes[1]
    assert foreign.wait_until(state, rig.now) == 0.0
    node.online = False
    assert foreign.wait_until(state, rig.now) == 0.0  # it was away then, and is
    node.hello = None
    assert foreign.wait_until(state, rig.now) == rig.now + foreign.WAIT_S
    assert foreign.wait_until(state, rig.now + foreign.WAIT_S) == 0.0


def test_what_is_adopted_is_placed_nowhere_else_in_the_same_pass(rig: Forked) -> None:
    full = rig.submit(jobspec(cores=2))
    id = rig.submit(jobspec(cores=2))
    rank = rig.job(id).ranks[0]
    name, claims = rig.begun(id)
    rig.lose(rig.store.meta().version - rig.job(id).attempt + 1)
    rig.journal.meta = rig.store.meta()
    rig.speaks(1 - rank, rig.begun(full)[1])
    rig.turn()
    rig.turn(seconds=31.0)  # nobody waits for the other node any longer
    rig.started(full)
    assert (rig.job(full).state, rig.job(id).state) == (RUN, SCHED)
    rig.over(full)  # what was in the way ends, and the other node comes back, in one pass
    rig.speaks(rank, claims)
    rig.turn()
    assert len(allocs(rig, id)) == 1
    assert not rig.state.quarantine
    assert rig.job(id).key == name


def test_of_two_attempts_of_one_job_one_is_adopted(rig: Forked) -> None:
    """Begun on two branches that were both lost, on nodes of which one could not hear of the other."""
    id = rig.submit()
    base = rig.job(id).attempt - 1
    _, first = rig.begun(id)
    rank = rig.job(id).ranks[0]
    rig.lose(rig.store.meta().version - base)
    rig.journal.meta = rig.store.meta()
    rig.speaks(1 - rank)
    rig.turn(seconds=31.0)
    assert rig.job(id).ranks == [1 - rank]
    _, second = rig.begun(id)
    rig.lose(rig.store.meta().version - rig.job(id).attempt + 1)
    rig.journal.meta = rig.store.meta()
    rig.speaks(rank, first)
    rig.speaks(1 - rank, second)
    rig.turn()
    assert len(allocs(rig, id)) == 1
    assert not rig.state.quarantine


def test_what_was_given_up_on_this_very_history_is_not_adopted(rig: Forked) -> None:
    """A branch was lost a while ago; now a node comes back that somebody had declared dead, with what is to begin anew."""
    rig.submit()
    rig.lose(1)
    rig.journal.meta = rig.store.meta()
    for rank in (0, 1):
        rig.speaks(rank)
    rig.turn()
    spec = jobspec(cores=2)
    spec["attributes"]["system"]["retry"] = {"limit": 1, "on": ["node-failure"]}
    id = rig.submit(spec)
    rig.started(id)
    name, claims = rig.begun(id)
    (rank,) = rig.job(id).ranks
    for _ in range(2):
        rig.submit()  # the other node is full then
    rig.say(["offline", "resource", rig.now, {"idset": str(rank), "reason": "x", "heard": rig.now, "fence": 1.0}])
    rig.turn()
    rig.do(decide_hosts.fence(rig.state, [rank], "it burns", 0, rig.now))
    rig.turn()
    assert (rig.job(id).state, rig.job(id).number) == (SCHED, 2)
    rig.speaks(rank, claims)
    rig.turn()
    assert rig.job(id).state == SCHED
    assert ["forget", name] in rig.orders(rank)
    rig.speaks(rank)
    rig.turn()
    assert (rig.job(id).state, rig.job(id).ranks, rig.job(id).key != name) == (RUN, [rank], True)
