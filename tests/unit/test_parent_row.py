"""What a child's keeper writes again in its parent's namespace where a fail-over took it back: its row, and its server's door."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from worker_rig import Rig

from fluxkv.instances import access, child, forks, server_care
from fluxkv.instances.handover_duty import HandoverDuty
from fluxkv.instances.parent_row import UNTOLD, ParentRow
from fluxkv.instances.paths import StateDir
from fluxkv.instances.sealing import seal_over
from fluxkv.instances.server_care import ServerCare
from fluxkv.instances.whereabouts import beside, read_door
from fluxkv.journal.claims import to_wire
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import f58
from fluxkv.journal.job import RUN, SCHED
from fluxkv.journal.log import Journal
from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.memory_server import share
from fluxkv.kvs.port import Appended

URI = "memory:lost-row"


class Family(Rig):
    """An instance whose job is a child, which is where no fail-over of its parent's server reaches it."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.server.remember = 1000
        share("lost-row", self.server)
        self.id = self.submit()
        self.started(self.id)
        job = self.job(self.id)
        here = child.Place(URI, self.id, job.attempt, 0, 1, 0, "", job.number, job.attempt_id)
        self.settings = child.make_settings(here, options)
        self.key, self.rank, self.claim = job.key, job.ranks[0], to_wire(job.claims)[0]

    def lose_the_alloc(self) -> None:
        """And adopt what is left."""
        lost = self.store.meta().version
        self.server.fail_over(lost - self.job(self.id).attempt + 1)
        forks.adopt(self.store, (self.store.meta().version + 1, lost), self.now, "test", ["the test"])
        self.worker = self.new_worker()
        self.lead()
        assert self.job(self.id).state == SCHED

    def hears_of_the_attempt(self) -> None:
        """All nodes speak, and the attempt is adopted."""
        self.hello(1 - self.rank)
        meta = self.store.meta()
        claims = {self.key: [self.claim, 1, self.now]}
        context = {"rank": self.rank, "host": f"n{self.rank}", "boot": "b", "spool": "s", "epoch": meta.epoch,
                   "cursor": f"{meta.version}-{meta.epoch}", "held": [self.key], "claims": claims}  # fmt: skip
        hello = Decision([["hello", f"node/{self.rank}", self.now, context]], bumps=[f"node/{self.rank}"])
        assert isinstance(self.journal.append(hello, 0), Appended)
        self.turn()
        assert (self.job(self.id).state, self.job(self.id).key) == (RUN, self.key)


def test_a_child_that_is_adopted_is_sealed_when_it_is_over() -> None:
    family = Family({})
    (row,) = family.store.children()
    family.lose_the_alloc()
    assert family.store.children() == []
    keeper = ParentRow(family.settings)
    keeper.look(family.store.meta())
    assert family.store.children() == [], "it would be taken for over"
    family.hears_of_the_attempt()
    assert family.store.children() == []
    keeper.look(family.store.meta())
    assert family.names(family.id).count("memo") == 0, "there is no journal"
    space = beside(family.store, child.child_namespace("/", family.id))
    space.create(durability="strict", origin_ms=0, created=family.now)
    for _ in range(2):
        keeper.look(family.store.meta())
    assert family.store.children() == [row]
    assert family.journal.look().jobs[family.id].memo == {"uri": f"{URI}#/{f58(family.id)}"}, "it is an instance again"
    assert family.names(family.id).count("memo") == 1
    assert seal_over(family.store, {"uri": URI}) == []
    family.over(family.id)
    family.turn()
    assert seal_over(family.store, {"uri": URI}) == [space.namespace]
    assert space.meta().sealed
    keeper.look(family.store.meta()._replace(epoch=1))
    assert family.store.children() == [], "its time is over"


def test_one_that_is_killed_before_it_has_written_its_row_again_is_sealed(tmp_path: Path) -> None:
    """By who looks after what it has left: nobody else knows that it was there. Its journal is in a part of a cluster that has lost
    nothing."""
    family = Family({})
    (row,) = family.store.children()
    family.lose_the_alloc()
    space = beside(family.store, child.child_namespace("/", family.id))
    space.create(durability="strict", origin_ms=0, created=family.now)
    folder = StateDir(str(tmp_path / "ns" / "f2-7-0"))
    folder.create()
    folder.write({**family.settings, "uid": space.meta().uid})
    duty = HandoverDuty(family.store, StateDir(str(tmp_path)), lambda level, text: None)
    family.hears_of_the_attempt()
    duty.look()
    assert family.store.children() == [], "it would write it itself"
    family.over(family.id)
    family.turn()
    duty.look()
    assert family.store.children() == [row._replace(over=True)]
    assert seal_over(family.store, {"uri": URI}) == [space.namespace]
    assert space.meta().sealed
    HandoverDuty(family.store, StateDir(str(tmp_path)), lambda level, text: None).look()
    assert family.store.children() == [], "it is sealed"


def test_nothing_is_written_where_the_parent_s_epoch_is_the_one_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Family({})
    monkeypatch.setattr("fluxkv.instances.parent_row.open_store", lambda *_, **__: pytest.fail("it need not look"))
    ParentRow(family.settings).look(family.store.meta())


def test_what_its_start_could_not_say_its_keeper_says(tmp_path: Path) -> None:
    """The parent's server was away in that moment; its history has lost nothing."""
    family = Family({})
    beside(family.store, child.child_namespace("/", family.id)).create(durability="strict", origin_ms=0, created=family.now)
    state_dir = StateDir(str(tmp_path))
    (tmp_path / "run").mkdir()
    mark = tmp_path / "run" / UNTOLD
    mark.touch()
    keeper = ParentRow(family.settings, state_dir)
    keeper.look(None)
    assert mark.exists()
    for _ in range(2):
        keeper.look(family.store.meta())
    assert family.names(family.id).count("memo") == 1
    assert family.journal.look().jobs[family.id].memo == {"uri": f"{URI}#/{f58(family.id)}"}
    assert not mark.exists()


def test_the_door_of_a_server_of_its_own_is_left_again(tmp_path: Path) -> None:
    family = Family({"kvs": "own"})
    state_dir = StateDir(str(tmp_path))
    family.lose_the_alloc()
    family.hears_of_the_attempt()
    settings = {name: value for name, value in family.settings.items() if name != "listen"}
    keeper = ParentRow(settings, state_dir)
    keeper.look(family.store.meta())
    assert [one.job for one in family.store.children()] == [family.id]
    door = read_door(beside(family.store, child.child_namespace("/", family.id)))
    assert door is not None
    assert door.folder == state_dir.path


@pytest.mark.parametrize("adopted", [True, False])
def test_a_child_is_made_anew_only_while_its_attempt_stands(tmp_path: Path, adopted: bool) -> None:
    """Else another job may have taken its journal elsewhere."""
    family = Family({})
    store = beside(family.store, child.child_namespace("/", family.id))
    log: Any = SimpleNamespace(say=lambda level, text: None)
    care = ServerCare(StateDir(str(tmp_path)), log, {**family.settings, "uid": "of before", "on_fork": "adopt"})
    care.state_dir.create()
    care.state_dir.write(care.settings)
    care.store = store
    if not adopted:
        family.over(family.id)
        family.turn()
    care._take_up()
    if not adopted:
        assert care.lost
        with pytest.raises(Unavailable):
            store.meta()
        return
    assert not care.lost
    assert (care.settings["uid"], store.meta().version) == (store.meta().uid, 2)
    assert next(iter(Journal(store).commits())).events[0][0] == "instance-create"


@pytest.mark.parametrize("adopted", [True, False])
def test_a_keeper_waits_until_it_is_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adopted: bool) -> None:
    """One that begins in that moment, and whose user the new primary does not know."""
    answers = ["undecided", "undecided", *(["adopted"] if adopted else [])]

    def renew(settings: Any) -> bool:
        if (answers.pop(0) if answers else "undecided") == "undecided":
            raise Unavailable("not yet", code="undecided")
        return True

    monkeypatch.setattr(access, "renew", renew)
    monkeypatch.setattr(server_care, "UNDECIDED_LOOK_S", 0.0)
    monkeypatch.setattr(server_care, "UNDECIDED_S", 60.0 if adopted else 0.0)
    log: Any = None
    care = ServerCare(StateDir(str(tmp_path)), log, {})
    if adopted:
        assert care._renewed()
        return
    with pytest.raises(Unavailable):
        care._renewed()
