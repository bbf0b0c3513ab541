"""Whoever reads a journal notices that it lost history; adoption, and what follows for snapshots, deciders and agents."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fluxkv.instances import adopting, forks, witness
from fluxkv.instances.paths import StateDir
from fluxkv.instances.server_care import ServerCare
from fluxkv.instances.spool import Spool
from fluxkv.journal.decide import Decision, change_queue
from fluxkv.journal.log import Journal
from fluxkv.journal.rset import NodeRecord, ResourceSet, render_set
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Corrupt, Unavailable
from fluxkv.kvs.memory_server import shared_server
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore

NOW = 1_700_000_000.0


class World:
    """A journal on a memory server that can lose its end."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.server.remember = 100
        self.store = MemoryStore(self.server)
        self.store.create(durability="strict", origin_ms=0, created=0.0)
        self.journal = Journal(self.store, "test")
        self.journal.patience_s = 0.0

    def say(self, count: int, reason: str = "x") -> None:
        for _ in range(count):
            event = ["queue-stop", "queue/default", NOW, {"reason": reason}]
            self.journal.meta = self.store.meta()
            self.journal.append(Decision([event], bumps=["queue/default"]), self.journal.meta.version)

    def adopt(self, lost: int) -> int:
        return forks.adopt(self.store, (min(self.store.meta().version + 1, lost), lost), NOW, "test", ["me"]).version


@pytest.fixture
def world() -> World:
    return World()


def _code(work: Any) -> str:
    with pytest.raises((Corrupt, Unavailable)) as caught:
        work()
    return caught.value.code


def test_a_reader_that_has_seen_more_notices(world: World) -> None:
    world.say(5)
    state = world.journal.load()
    world.server.fail_over(2)
    assert _code(lambda: world.journal.catch_up(state)) == "forked"
    world.adopt(5)
    world.say(3)
    assert _code(lambda: world.journal.catch_up(state)) == "forked"  # longer again, and another
    assert world.journal.load().version == 7


def test_a_reader_notices_a_tail_that_regrew_under_the_same_epoch(world: World) -> None:
    """HAZARD 15: ids are equal; what stands there is not."""
    world.say(2)
    before = world.server.copy_tables()
    world.say(2, "lost")
    state = world.journal.load()
    world.server.put_back(before)
    world.say(4, "new")
    assert world.store.read(3)[0].id == f"{state.version}-{state.epoch}"
    assert _code(lambda: world.journal.catch_up(state)) == "forked"
    assert forks.missing(world.store, f"4-{state.epoch}:{state.tail.hex()}") == (4, 4)
    assert forks.missing(world.store, f"2-{state.epoch}") is None


def test_what_was_lost_is_said_with_its_range(world: World) -> None:
    world.say(6)
    epoch = world.store.meta().epoch
    world.server.fail_over(3)
    assert forks.missing(world.store, f"6-{epoch}") == (4, 6)
    assert forks.notice(world.store, f"6-{epoch}") == (4, 6)
    assert _code(lambda: world.store.open_epoch(world.store.meta().uid, epoch, 3)) == "forked"
    assert _code(lambda: world.say(1)) == "forked"
    error = forks.history_lost(3, (4, 6), "the agent of node/0")
    assert "versions 4 to 6 are lost" in str(error)
    assert "adopt" in error.hint
    version = world.adopt(5)  # the fence knows of more
    (commit,) = world.journal.commits(version - 1)
    assert commit.events == [["adopt", "instance", NOW, {"old": epoch, "lost": [4, 6], "known": ["me"]}]]
    assert world.journal.load().instance["adopted"] == [NOW, 4, 6, []]
    assert forks.notice(world.store, f"6-{epoch}") is None  # known, and given up


def test_a_loss_that_nobody_adopted_is_noticed_in_a_later_epoch(world: World) -> None:
    """A keeper whose own witness was older opened an epoch; who knows better stops everybody all the same."""
    world.say(6)
    meta = world.store.meta()
    world.server.fail_over(2)
    world.store.open_epoch(meta.uid, meta.epoch, 4)
    world.say(4)
    assert forks.notice(world.store, f"6-{meta.epoch}") == (5, 6)
    assert _code(lambda: world.say(1)) == "forked"
    forks.adopt(world.store, (5, 6), NOW, "test")
    assert forks.notice(world.store, f"6-{meta.epoch}") is None  # once is enough
    world.say(1)


def test_a_snapshot_of_the_lost_branch_is_passed_over_once_it_is_given_up(world: World) -> None:
    """HAZARD 19: it was installed before, or came with the files of a backup."""
    world.say(5)
    assert world.journal.save_snapshot(world.journal.load())
    snapshot = world.store.load_snapshot()
    assert snapshot is not None
    epoch = world.store.meta().epoch
    world.server.fail_over(2)
    world.server.tables.instances["/"].snapshot = snapshot
    assert _code(world.journal.load) == "snapshot-ahead"
    world.adopt(5)
    world.say(4)  # past the snapshot's version
    state = world.journal.load()
    assert state.version == 8
    fresh = State()
    world.journal.catch_up(fresh)
    assert state.digest() == fresh.digest()
    lost = State()
    lost.version, lost.epoch, lost.tail = 5, epoch, b"x" * 16
    world.journal.meta = world.store.meta()
    assert not world.journal.save_snapshot(lost)


def test_who_decided_on_the_lost_branch_decides_again(world: World) -> None:
    world.say(5)
    seen: list[int] = []

    def decide(state: State) -> Decision:
        seen.append(state.version)
        if len(seen) == 1:
            world.server.fail_over(2)
            world.adopt(5)
        return change_queue("default", "start", "", NOW)

    assert world.journal.settle(decide).version == 5
    assert seen == [5, 4]


def test_what_was_adopted_long_ago_gives_up_nothing_that_is_lost_later(world: World) -> None:
    """The epoch of what is lost now began after the replica's last word, so this history never had it, either time."""
    world.say(5)
    world.server.fail_over(1)
    world.adopt(5)
    world.say(3)
    meta = world.store.meta()
    world.server.restart()
    later = world.store.open_epoch(meta.uid, meta.epoch, meta.version)
    world.journal.meta = later
    world.say(4)
    tip = world.store.meta().version
    world.server.fail_over(4)
    assert world.store.meta().epoch == meta.epoch
    assert forks.notice(world.store, f"{tip - 1}-{later.epoch}") == (meta.version + 1, tip - 1)
    assert _code(lambda: world.say(1)) == "forked"
    lost = forks.missing(world.store, world.store.meta().fork)
    assert lost is not None
    forks.adopt(world.store, lost, NOW, "test")
    world.journal.meta = world.store.meta()
    world.say(6)
    assert forks.notice(world.store, f"{tip}-{later.epoch}") is None  # of the same branch, though nobody knew that it went so far
    assert forks.notice(world.store, f"{tip}-12345") is not None


@pytest.mark.parametrize("on_fork", ["adopt", "refuse"])
def test_a_keeper_that_is_to_adopt_tries_again_where_something_stood_in_the_way(world: World, tmp_path: Path, on_fork: str) -> None:
    world.say(5)
    epoch = world.store.meta().epoch
    world.server.fail_over(2)
    said: list[str] = []
    log: Any = SimpleNamespace(say=lambda level, text: said.append(text))
    care = ServerCare(StateDir(str(tmp_path)), log, {"on_fork": on_fork})
    care.state_dir.create()
    care.store = world.store
    forks.notice(world.store, f"5-{epoch}")
    care._lost_history(Corrupt("the tables beside the journal are damaged", hint="fluxkv ops rebuild"))
    care._take_up()
    assert (care.lost, bool(world.store.meta().fork)) == ((False, False) if on_fork == "adopt" else (True, True))


def test_what_is_begun_anew_may_be_written_to_whatever_the_launcher_s_record_knows(tmp_path: Path) -> None:
    """The server has nothing left. Found by hand: every start was refused, since a task of the old history stood in the record."""
    directory = StateDir(str(tmp_path))
    directory.create()
    directory.write({"uri": "memory:begun-anew", "R": render_set(ResourceSet((NodeRecord(0, "n0", 1, 0, 0, ()),)))})
    Spool(directory.spool).intent("1.12-777.0", 1, NOW, 1.0, None, "", [])
    loss = witness.Loss(1, 14, [witness.Witness("14-777", "the keeper's tip file"), witness.Witness("12-777", "the launcher")])
    (lost,) = [one for one in witness.witnesses(directory) if one.known == "12-777"]
    store = MemoryStore(shared_server("begun-anew"))
    adopting.adopt(store, directory, adopting.Report("/", 0, 0, NOW, loss, True, [], 0), "test")
    assert witness.find_loss(store, store.meta(), [lost]) is None
    assert witness.take_up(store, directory) is None
    assert store.meta().fork == ""
    assert Journal(store).look().instance["adopted"][1:3] == [1, 14]


class Lagging:
    """A store whose first answer about where the journal ends is a replica's that lags."""

    def __init__(self, store: MemoryStore, behind: int) -> None:
        self.store, self.behind = store, behind

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def meta(self) -> Any:
        meta = self.store.meta()
        behind, self.behind = self.behind, 0
        return meta._replace(version=meta.version - behind)


def test_who_has_asked_a_server_that_lags_fences_nobody(world: World) -> None:
    world.say(6)
    epoch = world.store.meta().epoch
    lagging: Any = Lagging(world.store, 3)
    assert forks.notice(lagging, f"6-{epoch}") is None
    assert lagging.behind == 0
    world.say(1)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_fence_for_what_is_there_after_all_is_taken_away(world: World, tmp_path: Path, is_there: bool) -> None:
    """Nobody could: the keeper waited for an operator, whose `ops adopt` said that nothing was lost, and did nothing."""
    world.say(5)
    state = world.journal.load()
    there = f"5-{state.epoch}:{state.tail.hex()}"
    world.server.tables.instances["/"].fork = there if is_there else f"5-{state.epoch}:{bytes(16).hex()}"
    assert _code(lambda: world.say(1)) == "forked"
    report = adopting.examine(world.store, None)
    assert (report.loss is None, report.fenced) == (is_there, f"5-{state.epoch}" if is_there else "")
    care = ServerCare(StateDir(str(tmp_path)), SimpleNamespace(say=lambda level, text: None), {})  # type: ignore[arg-type]
    care.state_dir.create()
    care.store, care.lost = world.store, True
    care._take_up()
    assert (care.lost, bool(world.store.meta().fork)) == (not is_there, not is_there)
    if is_there:
        world.say(1)
        assert world.journal.load().version == 6


def test_an_operator_takes_such_a_fence_away(world: World) -> None:
    world.say(3)
    world.server.tables.instances["/"].fork = f"3-{world.store.meta().epoch}"
    report = adopting.examine(world.store, None)
    assert adopting.adopt(world.store, None, report, "cli") == 3
    world.say(1)
    assert adopting.examine(world.store, None).fenced == ""


def test_a_tip_is_noted_anew_where_another_history_is_as_long(world: World, tmp_path: Path) -> None:
    """What the keeper had seen was given up by somebody else between two looks; whoever goes by that notices no further loss."""
    directory = StateDir(str(tmp_path))
    directory.create()
    world.say(5)
    witness.watch(world.store, directory)
    world.server.fail_over(2)
    world.adopt(5)
    world.say(1)
    assert world.store.meta().version == 5
    witness.watch(world.store, directory, world.store.meta())
    world.server.fail_over(1)
    assert _code(lambda: witness.watch(world.store, directory)) == "history-lost"
