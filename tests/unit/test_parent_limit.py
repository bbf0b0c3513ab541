"""A child instance's end follows its job's in the parent, and what runs inside follows the child's."""

from __future__ import annotations

from typing import Any

import pytest

from fluxkv.instances import forks, parent_limit
from fluxkv.instances.parent_limit import ParentLimit
from fluxkv.instances.reactor import Lead
from fluxkv.journal import decide_update
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import f58
from fluxkv.kvs.errors import Unavailable
from tests.support.worker_rig import T0, Rig, jobspec


class Child:
    """A job that is an instance, and what its keeper puts into the child's journal."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.id = self.rig.submit(jobspec(duration=100.0))
        self.rig.started(self.id)
        self.ends: list[float] = []
        job = self.rig.job(self.id)
        self.settings: dict[str, Any] = {
            "job": f58(self.id), "since": job.attempt, "R": {"execution": {"expiration": job.expiration}},
            "parent_epoch": self.rig.store.meta().epoch,
        }  # fmt: skip
        self.limit = self.keeper()

    def keeper(self) -> ParentLimit:
        return ParentLimit(self.rig.store, self.settings, lambda events: self.ends.append(events[0][3]["expiration"]))

    def update(self, seconds: float) -> float:
        state = self.rig.journal.load()
        changes = [decide_update.parse_change(f"duration={seconds}")]
        self.rig.do(decide_update.update(state, state.jobs[self.id], changes, 1, self.rig.now))
        self.rig.turn()
        return self.rig.job(self.id).expiration


@pytest.fixture
def child() -> Child:
    return Child()


def test_each_move_is_said_once_whatever_came_between(child: Child) -> None:
    child.limit.look()
    assert child.ends == []
    first = child.update(500.0)
    child.rig.say(["memo", child.id, child.rig.now, {"a": 1}])
    child.limit.look()
    child.limit.look()
    assert child.ends == [first]
    child.update(900.0)
    last = child.update(300.0)
    child.limit.look()
    assert child.ends == [first, last]
    again = child.keeper()  # a keeper that is new says it once more, which changes nothing
    again.look()
    again.look()
    assert child.ends == [first, last, last]


def test_what_is_said_of_every_job_leaves_a_child_its_nodes(child: Child) -> None:
    """Nobody need fold a parent, which may be large, to know that a child has what it began with."""
    child.rig.say(["memo", child.id, child.rig.now, {"uri": "x"}])
    for _ in range(2):
        child.update(500.0)
        child.limit.look()
        assert child.limit.is_plain


@pytest.mark.parametrize(
    ("name", "context"),
    [("shrink", {"ranks": "0"}), ("exception", {"type": "x", "severity": 1, "note": ""}), ("unheard-of", {}),
     ("alloc", {"claims": [], "adopted": "1-1"})],
)  # fmt: skip
def test_what_may_have_to_do_with_its_nodes_is_remembered(child: Child, name: str, context: dict[str, Any]) -> None:
    for word in ([name, child.id, child.rig.now, context], ["memo", child.id, child.rig.now, {"uri": "x"}]):
        child.rig.do(Decision([word], bumps=[f"job/{child.id}"]))
        child.limit.look()
        assert not child.limit.is_plain
    late = child.keeper()
    late.look()
    assert not late.is_plain


def test_what_was_not_read_may_have_to_do_with_its_nodes(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    resumed = ParentLimit(child.rig.store, {**child.settings, "resume": {"number": 1}}, lambda _: None)
    of_another_epoch = ParentLimit(child.rig.store, {**child.settings, "parent_epoch": 1}, lambda _: None)
    for limit in (resumed, of_another_epoch):
        limit.look()
        assert not limit.is_plain
    with monkeypatch.context() as patch:
        patch.setattr(parent_limit, "FAR", 0)
        child.update(500.0)
        child.limit.look()
    assert not child.limit.is_plain
    limit = child.keeper()

    def away(*_: Any) -> Any:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(child.rig.store, "bumps", away)
        limit.look()
    limit.look()
    assert not limit.is_plain


@pytest.mark.parametrize("how", ["far", "pruned"])
def test_a_guard_that_is_gone_and_a_journal_that_is_long(child: Child, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    child.limit.look()
    wanted = child.update(500.0)
    if how == "far":
        monkeypatch.setattr(parent_limit, "FAR", 0)
    else:
        meta = child.rig.store.meta()
        child.rig.store.prune_guards(meta.uid, meta.epoch, meta.version)
        assert child.rig.store.bumps([f"job/{child.id}"]) == [0]
        child.limit.look()
        assert child.ends == []  # not every second
        monkeypatch.setattr(parent_limit, "UNSURE_S", 0.0)
    child.limit.look()
    assert child.ends == [wanted]


def test_a_guard_that_is_gone_is_no_news_of_the_job(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the keepers of all children would fold both journals each minute, as long as their parent is busy with others."""
    monkeypatch.setattr(parent_limit, "UNSURE_S", 0.0)

    def others() -> None:
        child.rig.submit(jobspec())
        meta = child.rig.store.meta()
        child.rig.store.prune_guards(meta.uid, meta.epoch, meta.version)

    child.limit.look()
    others()
    assert not child.limit.look()
    child.update(500.0)
    others()
    assert child.limit.look()
    others()
    assert not child.limit.look()


def test_a_guard_that_is_pruned_while_it_is_asked_for_is_looked_behind(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two questions of one look: what came before the tip that it had been told is not passed over."""
    child.limit.look()
    wanted = child.update(500.0)
    ask, store = child.rig.store.bumps, child.rig.store

    def late(things: list[str]) -> list[int]:
        meta = store.meta()
        store.prune_guards(meta.uid, meta.epoch, meta.version)
        return ask(things)

    monkeypatch.setattr(parent_limit, "UNSURE_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(store, "bumps", late)
        child.limit.look()
    assert child.limit.look()
    assert child.ends == [wanted]


def test_what_stands_where_lost_words_stood_is_read(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fail-over took back what was read, and other words have the same versions: not one is passed over, and the end that was
    lost is the child's no more, even if its server was away when that was to be said."""

    def away(_: Any) -> None:
        raise Unavailable("away")

    rig, store = child.rig, child.rig.store
    rig.server.remember = 1000
    before, kept = rig.job(child.id).expiration, store.meta().version
    lost = child.update(500.0)
    for number in range(20):
        rig.say(["memo", child.id, rig.now, {"n": number}])
    child.limit.look()
    assert child.ends == [lost]
    told = store.meta().version
    rig.server.fail_over(told - kept)
    assert not child.limit.look()  # nobody has said yet what becomes of it
    forks.adopt(store, (kept + 1, told), rig.now, "test", ["the test"])
    with monkeypatch.context() as patch:
        patch.setattr(child.limit, "_say", away)
        assert not child.limit.look()
    assert child.limit.look()
    assert child.ends == [lost, before]
    rig.worker = rig.new_worker()
    rig.lead()
    last = child.update(700.0)
    assert store.meta().version < told
    assert child.limit.look()
    assert child.ends == [lost, before, last]
    assert not child.limit.look()


def test_a_parent_that_is_away_is_asked_again(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = child.update(500.0)

    def away(*_: Any) -> Any:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(child.rig.store, "bumps", away)
        child.limit.look()
    child.limit.look()
    assert child.ends == [wanted]


def test_jobs_that_end_with_the_instance_move_with_it() -> None:
    rig = Rig(nodes=2)
    end = T0 + 1000.0

    def move(at: float) -> None:
        rig.say(["resource-update", "resource", rig.now, {"expiration": at}])
        rig.turn()

    move(end)
    endless, long, short, over = (rig.submit(jobspec(duration=seconds)) for seconds in (0.0, 5000.0, 50.0, 0.0))
    rig.started(endless, long, short, over)
    assert [rig.job(id).expiration == end for id in (endless, long, short)] == [True, True, False]
    before = rig.job(short).expiration
    rig.over(over)
    for at, ends in ((end + 1000.0, (end + 1000.0, end + 1000.0)), (0.0, (0.0, rig.job(long).t_alloc + 5000.0)), (end, (end, end))):
        move(at)
        assert (rig.job(endless).expiration, rig.job(long).expiration, rig.job(short).expiration) == (*ends, before)
    assert "resource-update" not in rig.names(short) + rig.names(over)
    count = rig.store.meta().version
    rig.worker = rig.new_worker()
    rig.turn(Lead(True))
    assert rig.store.meta().version == count  # nothing is left to say


@pytest.mark.parametrize("context", [None, {}, {"expiration": "soon"}, {"expiration": float("nan")}, {"expiration": -1.0}])
def test_an_end_that_makes_no_sense_is_passed_over_as_the_fold_does(child: Child, context: Any) -> None:
    """Somebody wrote it by hand; a keeper that fell over it would do so for ever."""
    end = child.update(500.0)
    child.rig.do(Decision([["resource-update", child.id, T0, context]], bumps=[f"job/{child.id}"]))
    child.limit.look()
    assert child.ends == [end]
