"""What a child makes of what its job has, on two journals: after each step of either side R(child) is within its job's claims.

Who looks is always a keeper that has just begun, and looks twice: whatever it had done before it died, nothing is done again.
"""

from __future__ import annotations

from typing import Any

import pytest
from trees import racks, vertex

from fluxkv.instances.parent_claims import ParentClaims
from fluxkv.instances.reactor import Lead
from fluxkv.journal import decide, decide_granted
from fluxkv.journal.decide_resize import FORCE_S, Terms
from fluxkv.journal.graph_edit import granted
from fluxkv.journal.ids import f58
from fluxkv.journal.idset import ids_of_mask
from fluxkv.journal.job import CLEANUP, RUN
from fluxkv.journal.log import Journal
from fluxkv.journal.resizing import index_of, leaving_of
from fluxkv.journal.rset import NodeRecord, ResourceSet, render_set
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.memory_store import MemoryStore
from tests.support.resize_rig import Site, instance
from tests.support.worker_rig import Rig, jobspec


class Inside(Site):
    """The instance that a job of another one is, made of what the job has."""

    def __init__(self, outer: Rig, id: int) -> None:
        self.outer, self.id, self.now, self.next = outer, id, outer.now, 1
        self.server = outer.server
        self.store = MemoryStore(outer.server, f"/{f58(id)}")
        self.store.create(durability="strict", origin_ms=0, created=self.now)
        self.journal = Journal(self.store, "test")
        job = outer.job(id)
        self.since = job.attempt
        records = tuple(NodeRecord(n, f"n{claim.rank}", claim.cores, 0, 0, ()) for n, claim in enumerate(job.claims))
        graph = outer.state.graph
        tree = granted(graph, job.claims, rerank=True)[0].wire if graph is not None else None
        made = {"uid": "u", "owner": 0, "namespace": self.store.namespace, "schema": 5, "parent": "p"}
        self.say(["instance-create", "instance", self.now, made])
        inventory = {"method": "job-info", "R": render_set(ResourceSet(records, tree=tree))}
        self.say(["resource-define", "resource", self.now, inventory])
        for record in records:
            self.hello(record.rank)
        self.worker = self.new_worker()
        self.turn(Lead(True))
        self.lasting, self.looks = self.keeper(), 0

    def keeper(self) -> ParentClaims:
        return ParentClaims(self.outer.store, self.store, {"job": f58(self.id), "since": self.since})

    def look(self, *, busy: bool | None = None) -> None:
        """A keeper, in turn one that begins and one that has been there all along, says what there is to say; another has nothing
        to add."""
        self.now = self.outer.now = max(self.now, self.outer.now)
        self.looks += 1
        (self.keeper() if self.looks % 2 else self.lasting).look()
        version = self.store.meta().version
        again = self.keeper()
        again.look()
        assert self.store.meta().version == version
        assert busy is None or again.busy == busy
        self.turn()
        self.within()

    def within(self) -> None:
        """I3: what it has its job has."""
        hosts = {rank: node.host for rank, node in self.outer.state.nodes.items()}
        given = {(hosts[claim.rank], core) for claim in self.outer.job(self.id).claims for core in ids_of_mask(claim.cores)}
        for node in self.state.nodes.values():
            mine = {(node.host, core) for core in ids_of_mask(node.cores)}
            assert mine <= given or not (node.online or node.usable), node.rank

    def methods(self) -> list[str]:
        return [event[3]["method"] for commit in self.commits() for event in commit.events if event[0] == "resource-define"]

    def running_on(self, rank: int, **more: Any) -> int:
        spec = jobspec(cores=2, nodes=1)
        spec["attributes"]["system"]["constraints"] = {"ranks": [str(rank)]}
        spec["attributes"]["system"].update(more)
        id = self.submit(spec)
        self.started(id)
        assert self.job(id).ranks == [rank]
        return id


@pytest.fixture
def outer() -> Site:
    return Site(4)


@pytest.fixture
def inner(outer: Site) -> Inside:
    return Inside(outer, outer.running(2))


def part_over(outer: Site, id: int, rank: int, status: int = 0, cause: str = "") -> None:
    outer.over(id, status=status, cause=cause, rank=rank)
    outer.turn()


def test_it_has_more_once_its_job_has_and_new_nodes_get_new_ranks(outer: Site, inner: Inside) -> None:
    inner.look(busy=False)
    outer.ask(inner.id, "+1N")
    assert inner.methods() == ["job-info"]  # parent first
    inner.look(busy=False)
    assert inner.methods() == ["job-info", "grow"]
    assert {rank: node.host for rank, node in inner.state.nodes.items()} == {0: "n0", 1: "n1", 2: "n2"}
    inner.hello(2)
    inner.turn()
    job = inner.submit(jobspec(cores=2, nodes=3))
    assert inner.job(job).ranks == [0, 1, 2]


def test_an_idle_node_leaves_at_once_and_the_next_one_is_another(outer: Site, inner: Inside) -> None:
    outer.ask(inner.id, "-1N")
    inner.look(busy=True)  # until its parent has it back
    assert (inner.methods(), sorted(inner.state.nodes)) == (["job-info", "shrink"], [0])
    part_over(outer, inner.id, 1)
    inner.look(busy=False)
    outer.ask(inner.id, "+1N")
    inner.look(busy=False)
    assert {rank: node.host for rank, node in inner.state.nodes.items()} == {0: "n0", 2: "n1"}


@pytest.mark.parametrize(("policy", "kind"), [("finish", ""), ("requeue", "requeue"), ("fail", "node-failure")])
def test_what_runs_on_a_leaving_node_ends_as_was_asked(outer: Site, inner: Inside, policy: str, kind: str) -> None:
    job = inner.running_on(1)
    outer.ask(inner.id, "-1N", Terms(grace_s=10.0, jobs=policy))
    inner.look(busy=True)
    assert (inner.state.nodes[1].drain is not None, sorted(inner.state.nodes)) == (True, [0, 1])
    exception = inner.job(job).exception
    assert (exception[0] if exception is not None else "") == kind
    waits = inner.submit(jobspec(cores=2, nodes=2))
    inner.look(busy=True)
    assert inner.job(waits).state != RUN
    if policy == "finish":
        inner.now += 11.0
        inner.look(busy=True)
        assert inner.job(job).exception[0] == "requeue"  # type: ignore[index]
    assert inner.job(job).state == CLEANUP
    inner.over(job, status=15, cause="ended:x")
    inner.turn()
    assert (inner.job(job).requeued is not None) == (policy != "fail")
    inner.look(busy=True)
    assert sorted(inner.state.nodes) == [0]
    inner.sound()


def test_what_ends_by_itself_in_time_is_left_alone(outer: Site, inner: Inside) -> None:
    job = inner.running_on(1)
    outer.ask(inner.id, "-1N")
    inner.look()
    inner.over(job)
    inner.turn()
    inner.look()
    assert (inner.job(job).returncode, sorted(inner.state.nodes)) == (0, [0])


def test_an_instance_inside_is_asked_in_its_turn_unless_it_leads_there(outer: Site, inner: Inside) -> None:
    wide = inner.running(2)
    outer.ask(inner.id, "-1N", Terms(grace_s=10.0, jobs="fail"))
    inner.look()
    leaving = leaving_of(inner.job(wide))
    above = leaving_of(outer.job(inner.id))[1]
    assert list(leaving) == [1]
    assert above.until < leaving[1].force < above.force  # it is forced before its parent is
    assert inner.job(wide).exception is None
    part_over(inner, wide, 1)
    inner.look()
    assert (sorted(inner.state.nodes), inner.job(wide).state) == ([0], RUN)
    part_over(outer, inner.id, 1)
    inner.look(busy=False)


def test_an_instance_that_leads_on_a_leaving_node_ends_like_any_job(outer: Site, inner: Inside) -> None:
    spec = instance(1)
    spec["attributes"]["system"]["constraints"] = {"ranks": ["1"]}
    id = inner.submit(spec)
    inner.started(id)
    outer.ask(inner.id, "-1N", Terms(jobs="requeue"))
    inner.look()
    assert inner.job(id).exception[0] == "requeue"  # type: ignore[index]


def test_what_was_taken_by_force_is_lost_and_then_gone(outer: Site, inner: Inside) -> None:
    """HAZARD 5: the child learns of it last; what it has placed meanwhile has not begun, and never will."""
    job = inner.running_on(1, retry={"limit": 1, "on": ["node-failure"]})
    outer.ask(inner.id, "-1N", Terms(grace_s=1.0))
    outer.turn(seconds=1.0 + FORCE_S + 0.1)
    assert outer.orders(1)[-1][0] == "end"
    part_over(outer, inner.id, 1, 9, "ended:shrink")
    assert outer.job(inner.id).ranks == [0]
    inner.look(busy=True)
    assert not inner.state.nodes[1].online
    assert inner.job(job).requeued is not None
    inner.look(busy=False)
    assert sorted(inner.state.nodes) == [0]
    inner.sound()


def test_a_lost_node_goes_in_the_same_way_and_jobs_are_lost(outer: Site, inner: Inside) -> None:
    job = inner.running_on(1)
    outer.say(["lost", inner.id, outer.now, {"rank": 1, "cause": "node rebooted"}])
    inner.look()  # its parent's worker has not answered yet
    outer.turn()
    inner.look()
    inner.look(busy=False)
    assert (inner.job(job).exception[0], sorted(inner.state.nodes)) == ("lost", [0])  # type: ignore[index]


def test_a_node_that_is_asked_back_before_it_was_used_never_comes(outer: Site, inner: Inside) -> None:
    outer.ask(inner.id, "+1N")
    outer.ask(inner.id, "-1N")
    assert list(leaving_of(outer.job(inner.id))) == [2]
    inner.look(busy=True)
    assert inner.methods() == ["job-info"]
    part_over(outer, inner.id, 2)
    inner.look(busy=False)


def test_of_another_attempt_and_of_a_job_that_is_over_nothing_is_taken_over(outer: Site, inner: Inside) -> None:
    inner.since += 1
    outer.ask(inner.id, "+1N")
    inner.look(busy=True)
    inner.since -= 1
    outer.do(decide.raise_exception(outer.journal.load(), inner.id, "cancel", 0, "", 1, outer.now))
    outer.turn()
    for rank in (0, 1, 2):
        outer.over(inner.id, rank=rank)
    outer.turn()
    before = inner.store.meta().version
    inner.keeper().look()
    assert inner.store.meta().version == before


def test_a_child_that_has_what_it_began_with_folds_nothing(outer: Site, inner: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = inner.keeper()
    with monkeypatch.context() as patch:
        patch.setattr(keeper, "_look", lambda: pytest.fail("it was folded"))
        keeper.look(news=True, plain=True)
    outer.ask(inner.id, "+1N")
    keeper.look(news=True)
    assert 2 in Journal(inner.store).look().nodes


def test_who_cannot_read_or_write_now_looks_again(outer: Site, inner: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = inner.keeper()
    keeper.look()
    outer.ask(inner.id, "+1N")

    def away(*_: Any) -> Any:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(inner.store, "append", away)
        keeper.look(news=True)
    assert keeper.busy
    keeper.look(news=False)
    assert 2 in Journal(inner.store).look().nodes


def test_a_placement_and_a_shrink_in_the_same_moment_meet(outer: Site, inner: Inside) -> None:
    """The node is idle in what the keeper has read, and not any more: it decides again, and drains it instead."""
    outer.ask(inner.id, "-1N")
    state = inner.journal.load()
    grant = _grant(outer, inner)
    decision = decide_granted.follow(state, grant, inner.now)
    assert decision.events[0][3]["method"] == "shrink"
    inner.running_on(1)
    assert type(inner.journal.append(decision, state.version)).__name__ == "Conflicted"
    inner.look(busy=True)
    assert inner.state.nodes[1].drain is not None


def _grant(outer: Site, inner: Inside) -> decide_granted.Grant:
    from fluxkv.instances.parent_claims import _granted

    parent = outer.journal.load()
    return decide_granted.Grant(*_granted(parent, parent.jobs[inner.id]), parent.graph)


def test_with_a_graph_its_part_of_it_comes_and_goes_and_draws_do() -> None:
    outer = Site(4, tree=racks())
    spec = instance(1)
    slot = vertex("slot", 1, vertex("core", 2), vertex("nvme", 2), label="t")
    spec["resources"] = [vertex("rack", 1, vertex("power", 4), vertex("node", 1, slot))]
    id = outer.submit(spec)
    outer.started(id)
    inner = Inside(outer, id)
    outer.ask(id, "+2N")
    assert [index_of(outer.job(id), rank) for rank in outer.job(id).ranks] == [0, 1, 2]
    assert outer.state.drawn["/cluster0/rack0/n1/nvme"] == [2, 3]
    assert outer.state.drawn["/cluster0/rack0/power0"] == [4, 0]  # what is above nodes does not grow with them
    inner.look(busy=False)
    paths = inner.state.graph.places
    assert {place.node for place in paths.values() if place.node >= 0} == {0, 1, 2}
    assert sum(path.endswith("/nvme") for path in paths) == 3
    outer.ask(id, "=1N")
    inner.look()
    assert {place.node for place in inner.state.graph.places.values() if place.node >= 0} == {0}
    for rank in outer.job(id).ranks[1:]:
        outer.over(id, rank=rank)
    outer.turn()
    assert sorted(outer.state.drawn) == ["/cluster0/rack0/n0/nvme", "/cluster0/rack0/power0"]
    inner.look(busy=False)
    outer.over(id)
    outer.turn()
    assert outer.state.drawn == {}


def test_what_nodes_share_stays_with_those_that_stay() -> None:
    """Power of a rack hangs on the first claim below it, and goes back with the last of the job's nodes in that rack."""
    outer = Site(4, tree=racks())
    spec = instance(1, **{"critical-ranks": "0"})
    one = vertex("node", 2, vertex("slot", 1, vertex("core", 2), label="t"))
    spec["resources"] = [vertex("rack", 2, vertex("power", 3), one)]
    id = outer.submit(spec)
    outer.started(id)
    power = [f"/cluster0/rack{n}/power0" for n in (0, 1)]

    def back(rank: int) -> list[str]:
        outer.say(["lost", id, outer.now, {"rank": rank, "cause": "fenced"}])
        outer.turn()
        state = State()
        for commit in outer.commits():
            state.apply(commit)
        assert state.digest() == outer.journal.load().digest()
        return [path for path in power if path in outer.state.drawn]

    assert outer.job(id).ranks == [0, 1, 2, 3]
    assert back(2) == power  # another node of the job is in that rack
    assert back(3) == power[:1]
    assert back(1) == power[:1]
    outer.over(id)
    outer.turn()
    assert outer.state.drawn == {}


def test_a_node_that_ends_first_where_all_of_the_job_ends_is_no_lost_one(outer: Site, inner: Inside) -> None:
    """Else what ran there would fail by it, in the moment before its instance is ended, and nobody would go on with it."""
    job = inner.running_on(1)
    outer.do(decide.raise_exception(outer.journal.load(), inner.id, "cancel", 0, "", 1, outer.now))
    outer.turn()
    part_over(outer, inner.id, 1)
    inner.look()
    assert (inner.job(job).state, inner.job(job).exception) == (RUN, None)
