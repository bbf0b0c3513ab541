"""What a child instance takes over from its parent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances import boot, child, forks
from fluxkv.instances.daemon import take_lock
from fluxkv.instances.paths import StateDir, state_dir_of
from fluxkv.journal import decide_graph
from fluxkv.journal.decide import Decision
from fluxkv.kvs.errors import Rejected, Unavailable
from fluxkv.kvs.memory_server import share
from fluxkv.kvs.memory_store import MemoryStore

CASES = [
    ("adopt", None, "adopt"),
    (None, "adopt", "adopt"),
    ("adopt", "refuse", "refuse"),
    (None, None, None),
    ("elsewhere", None, None),
]


@pytest.mark.parametrize(("parent", "asked", "wanted"), CASES)
def test_a_loss_is_met_as_by_the_parent(tmp_path: Path, parent: Any, asked: Any, wanted: Any) -> None:
    """Their server is one: a parent that goes on with what is left would else wait for a child that waits for a person."""
    rig = Rig()
    share("parent-of-a-child", rig.server)
    id = rig.submit(jobspec(cores=2))
    if parent != "elsewhere":
        (tmp_path / "instance.json").write_text(json.dumps({"uri": "memory:another", "on_fork": parent}))
    here = child.Place("memory:parent-of-a-child", id, rig.job(id).attempt, 0, 1, 0, str(tmp_path), 1, rig.job(id).attempt_id)
    options: dict[str, Any] = {"on_fork": asked}
    assert child.make_settings(here, options)["on_fork"] == wanted


@pytest.mark.parametrize("changed", [False, True])
def test_nodes_are_as_they_are_now_and_not_as_the_parent_began(tmp_path: Path, changed: bool) -> None:
    rig = Rig()
    share("parent-that-changes", rig.server)
    first = rig.commits()[0].events[0][3]["R"]
    (tmp_path / "instance.json").write_text(json.dumps({"uri": "memory:parent-that-changes", "R": first}))
    if changed:
        rig.do(decide_graph.properties(rig.state, [], [0], {"ssd": ""}, (), rig.now)[0])
        rig.turn()
    id = rig.submit(jobspec(cores=2))
    here = child.Place("memory:parent-that-changes", id, rig.job(id).attempt, 0, 1, 0, str(tmp_path), 1, rig.job(id).attempt_id)
    properties = child.make_settings(here, {})["R"]["execution"].get("properties")
    assert properties == ({"ssd": "0"} if changed else None)


def test_what_an_attempt_of_a_lost_branch_left_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the name of the job's first attempt, too, perhaps the very version, and an R that is nobody's any more."""
    rig = Rig()
    share("parent-of-two-branches", rig.server)
    id = rig.submit(jobspec(cores=2))
    here = child.Place("memory:parent-of-two-branches", id, rig.job(id).attempt, 0, 1, 0, str(tmp_path), 1, rig.job(id).attempt_id)
    lost = here._replace(entry=f"{here.version}-777")
    old = child.directory(lost)
    old.create()
    settings = child.make_settings(here, {})
    old.write({**settings, "entry": lost.entry, "R": "of before"})
    assert child.directory(lost).path == old.path
    assert child.directory(here).path != old.path
    assert child.directory(here).path == f"{old.path}-{here.entry.partition('-')[2]}"
    create = MemoryStore.create

    def late(store: MemoryStore, **more: Any) -> Any:
        """Its process goes on in this very moment."""
        monkeypatch.setattr(MemoryStore, "create", create)
        boot.ensure_instance({**settings, "entry": lost.entry})
        return create(store, **more)

    monkeypatch.setattr(MemoryStore, "create", late)
    for _ in range(2):
        with pytest.raises(Rejected) as caught:
            boot.ensure_instance(dict(settings))
        assert caught.value.code == "exists"
    store, new = boot.ensure_instance({**settings, "entry": lost.entry})
    assert (store.meta().version, new) == (1, False)


def test_another_attempt_s_alloc_is_not_taken_for_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own may have gone with a branch that was lost, while its tasks still run: what its job gets next is on other nodes."""
    rig = Rig()
    share("parent-that-lost-a-branch", rig.server)
    id = rig.submit(jobspec(cores=2))
    here = child.Place("memory:parent-that-lost-a-branch", id, rig.job(id).attempt, 0, 1, 0, "", 1, rig.job(id).attempt_id)
    store = rig.store
    assert child.granted(store, here)[0] == rig.job(id).claims
    monkeypatch.setattr(child, "ALLOC_WAIT_S", 0.05)
    lost = here._replace(entry=f"{here.version}-12345")
    with pytest.raises(Unavailable, match="has not said what it was given"):
        child.granted(store, lost)
    placed_ahead = lost._replace(version=here.version - 1, entry=f"{here.version - 1}-12345")
    with pytest.raises(Unavailable, match="has not said what it was given"):
        child.granted(store, placed_ahead)
    adopted = [["alloc", id, rig.now, {"claims": [[1, "0", "", 0, 1]], "adopted": lost.entry}]]
    rig.journal.append(Decision(adopted), rig.journal.meta.version)
    assert [claim.rank for claim in child.granted(store, lost)[0]] == [1]


def test_an_attempt_adopted_at_a_lower_version_than_it_began_at_finds_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fail-over took back more than its alloc: what adopts it may come well before the version that it knows."""
    monkeypatch.setattr(child, "ALLOC_WAIT_S", 0.05)
    rig = Rig()
    rig.server.remember = 1000
    share("parent-that-adopts-early", rig.server)
    first, id = rig.submit(jobspec(cores=2, nodes=2)), rig.submit(jobspec(cores=2))
    kept = rig.store.meta().version
    rig.started(first)
    rig.over(first)
    rig.turn()
    here = child.Place("memory:parent-that-adopts-early", id, rig.job(id).attempt, 0, 1, 0, "", 1, rig.job(id).attempt_id)
    assert here.version > kept + 2
    rig.server.fail_over(rig.store.meta().version - kept)
    store = MemoryStore(rig.server)
    with pytest.raises(Unavailable, match="has not said what it was given"):  # nobody has said yet what becomes of it
        child.granted(store, here)
    forks.adopt(store, (kept + 1, here.version), rig.now, "test", ["the test"])
    rig.journal.meta = store.meta()
    rig.journal.append(Decision([["alloc", id, rig.now, {"claims": [[1, "0", "", 0, 1]], "adopted": here.entry}]]), kept + 1)
    for number in range(5):
        assert [claim.rank for claim in child.granted(store, here)[0]] == [1]
        rig.journal.append(Decision([["memo", id, rig.now, {"n": number}]]), store.meta().version)


def test_of_the_folders_that_had_an_instance_one_after_the_other_the_living_one_is_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FLUXKV_STATE_DIR", raising=False)
    root = StateDir(str(tmp_path / "root"))
    root.create()
    server = f"unix:{root.path}/kv.sock"
    root.write({"uri": server})
    lives = {}
    for name, since, lead in (("fA-5-0", 5, True), ("fB-30-0", 30, True), ("fB-30-1", 30, False), ("fC-20-0", 20, True)):
        lives[name] = StateDir(root.join("ns", name))
        lives[name].create()
        lives[name].write({"uri": f"{server}#/ƒA", "parent": server, "since": since, "lead": lead})

    def found() -> str:
        directory = state_dir_of(f"{server}#/ƒA")
        assert directory is not None
        return os.path.basename(directory.path)

    assert found() == "fB-30-0"
    lock = take_lock(lives["fC-20-0"].lock_file("keeper"), 0.0)
    assert found() == "fC-20-0"
    os.close(lock)
    assert found() == "fB-30-0"
