"""A journal handed up in memory: broken off at every single write, gone on with, and compared; and what it may not do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from worker_rig import Rig, jobspec

from fluxkv.instances import door_folders, forks, handover, handover_duty, own_server, run_handover, spool, whereabouts
from fluxkv.instances.daemon import Log, take_lock
from fluxkv.instances.departing import Departing
from fluxkv.instances.paths import StateDir
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import f58
from fluxkv.journal.log import Journal
from fluxkv.kvs.errors import Conflict, Corrupt, Rejected, Unavailable
from fluxkv.kvs.keys import Keys
from fluxkv.kvs.memory_server import MemoryServer, share
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.tools import doctor_cmd, status_children

PATH = "/ƒA"


def history() -> MemoryStore:
    """A journal with some jobs, a snapshot, contents, and what a job printed."""
    rig = Rig()
    for _ in range(3):
        rig.submit(jobspec(cores=1))
        rig.turn()
    store = MemoryStore(rig.server, "/")
    Journal(store).save_snapshot(Journal(store).load())
    rig.submit(jobspec(cores=1))
    store.put_blobs({"ab" * 20: b"content"})
    store.push(Keys("/").output(7), [b"said", b"more"])
    store.push(Keys("/").log, [b"a line"])
    return store


def handed(source: MemoryStore, target: MemoryStore) -> None:
    handover.bring(source, target, lambda: None)


def same(source: MemoryStore, target: MemoryStore) -> None:
    here, there = Keys(source.namespace), Keys(target.namespace)
    assert target.read(0) == source.read(0)
    assert target.meta()._replace(sealed=0) == source.meta()._replace(sealed=0, room=0)
    assert target.meta().sealed, "whose journal has come is over"
    assert target.load_snapshot() == source.load_snapshot()
    assert target.get_blobs(["ab" * 20]) == [b"content"]
    for one, other in ((here.output(7), there.output(7)), (here.log, there.log)):
        assert target.messages(other) == source.messages(one)
    assert list(target.guards()) == list(source.guards())
    assert Journal(target).look().digest() == Journal(source).look().digest()


@pytest.mark.parametrize("commits", [1, 2])
def test_what_a_fail_over_takes_back_while_it_comes_is_brought_again(commits: int) -> None:
    """Whenever that is: it is whole, or not there."""
    source = history()
    for nth in range(1, 1000):
        target = MemoryStore(MemoryServer(), PATH)
        other = MemoryStore(target.server, "/")
        meta = other.create(durability="strict", origin_ms=1, created=1.0)
        target.server.remember = 100
        left = nth

        def fault(operation: str, when: str, target: MemoryStore = target, other: MemoryStore = other, uid: str = meta.uid) -> None:
            nonlocal left
            left -= 1
            if left == 0 or left == -1:
                target.server.fault = None
                Journal(other, "x").append(Decision([["x", "instance", 1.0, None]]), other.meta().version)
                target.server.fault = fault
            if left == -1:
                target.server.fail_over(commits)

        target.server.fault = fault
        try:
            handed(source, target)
        except Conflict:
            pass  # it is tried again
        target.server.fault = None
        if target.namespace in target.server.tables.instances:
            same(source, target)
        handed(source, target)
        same(source, target)
        if left >= 0:
            break
    assert nth > 8


@pytest.mark.parametrize("size", [1, 200])
def test_broken_off_at_any_write_it_is_gone_on_with(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(handover, "BATCH", size)
    source = history()
    for nth in range(1, 1000):
        target = MemoryStore(MemoryServer(), PATH)
        left = nth

        def fault(operation: str, when: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Unavailable("this request is lost")

        target.server.fault = fault
        try:
            handed(source, target)
        except Unavailable:
            target.server.fault = None
            if PATH in target.server.tables.instances:  # the answer was lost, and no more: whoever looks sees all or nothing
                same(source, target)
            handed(source, target)
            same(source, target)
            continue
        assert nth >= 10
        break
    target.server.fault = None
    handed(source, target)
    same(source, target)


def test_what_came_of_a_branch_that_was_lost_since_does_not_stay() -> None:
    source = history()
    target = MemoryStore(MemoryServer(), PATH)
    word = handover.word_of(source.meta())
    target.arriving(word, "0-0")
    target.arrive(word, [entry._replace(epoch=7) for entry in source.read(0, 3)])
    handed(source, target)
    same(source, target)


def test_where_an_older_copy_of_it_was_handed_up_it_is_not_taken_for_done() -> None:
    source, copy, longer = history(), history(), history()  # made alike: the same word, and the same entries
    target = MemoryStore(MemoryServer(), PATH)
    handed(copy, target)
    handed(source, target)
    same(source, target)
    assert handover.word_of(source.meta()) == handover.word_of(copy.meta())
    Journal(longer).append(Decision([["x", "instance", 1.0, None]]), 0)
    with pytest.raises(Rejected) as caught:
        handed(longer, target)
    assert caught.value.code == "copied"
    same(copy, target)


def test_nobody_writes_any_more_to_what_is_handed_up() -> None:
    """A submission that is taken when its end has been read would be acknowledged, and not come up."""
    source, target = history(), MemoryStore(MemoryServer(), PATH)

    def fault(operation: str, when: str) -> None:
        if operation == "arrive.end" and when == "before":
            with pytest.raises(Rejected) as caught:
                Journal(source).append(Decision([["x", "instance", 1.0, None]]), 0)
            assert caught.value.code == "ended"
            seen.append(operation)

    seen: list[str] = []
    target.server.fault = fault
    handed(source, target)
    assert seen
    same(source, target)


def test_a_journal_whose_beginning_is_in_an_archive_comes_without_it() -> None:
    source = history()
    meta = source.meta()
    at = source.read(2, 1)[0]
    source.trim_journal(meta.uid, meta.epoch, at.id, "file:/somewhere")
    target = MemoryStore(MemoryServer(), PATH)
    handed(source, target)
    assert (target.meta().trimmed, target.meta().archive, target.meta().first) == (at.id, "file:/somewhere", at.version + 1)
    assert target.read(0) == source.read(0)


def test_what_a_fail_over_took_back_before_the_last_one_came_is_brought_again() -> None:
    """What is inside a child comes first; the server that it goes to loses it, and only then the child's own journal comes."""
    own, root = MemoryServer(), MemoryServer()
    share("handover-own", own)
    share("handover-above", root)
    for server, namespace in ((root, "/"), (own, PATH), (own, f"{PATH}/ƒB")):
        store = MemoryStore(server, namespace)
        store.create(durability="local", origin_ms=1, created=1.0)
        Journal(store).append(Decision([["x", "instance", 1.0, None]]), 0)

    def fault(operation: str, when: str) -> None:
        if operation == "arrive.begin" and lost == [0] and f"{PATH}/ƒB" in root.tables.instances:
            lost[0] = 1
            del root.tables.instances[f"{PATH}/ƒB"], root.tables.journals[f"{PATH}/ƒB"]

    lost = [0]
    root.fault = fault
    given = {"uri": f"memory:handover-own#{PATH}", "parent": "memory:handover-above#/", "job": "ƒA"}
    assert handover.hand_up("memory:handover-own", given) == 2
    assert lost == [1]
    for namespace in (PATH, f"{PATH}/ƒB"):
        assert MemoryStore(root, namespace).read(0) == MemoryStore(own, namespace).read(0)


@pytest.mark.parametrize("has_door", [True, False])
def test_one_that_is_damaged_keeps_down_no_other(has_door: bool) -> None:
    """It is found by a door of its own then, in the files that stay. Without one nobody would find it: what is around it stays."""
    own, root = MemoryServer(), MemoryServer()
    share("handover-damaged", own)
    share("handover-sound", root)
    bad, sound = f"{PATH}/ƒB", [f"{PATH}/ƒA", f"{PATH}/ƒC", f"{PATH}/ƒB/ƒD"]
    for server, namespace in ((root, "/"), (own, PATH), *((own, name) for name in (bad, *sound))):
        store = MemoryStore(server, namespace)
        store.create(durability="local", origin_ms=1, created=1.0)
        Journal(store).append(Decision([["x", "instance", 1.0, None]]), 0)
    door = whereabouts.Door("unix:/nowhere/kv.sock", "", "/nowhere", "far", "another boot")
    if has_door:
        whereabouts.leave_door(MemoryStore(root, PATH), door)
    own.tables.aliens.add(Keys(bad).meta)
    given = {"uri": f"memory:handover-damaged#{PATH}", "parent": "memory:handover-sound#/", "job": "ƒA"}
    for _ in range(2):
        with pytest.raises(Corrupt, match="ƒB"):
            handover.hand_up("memory:handover-damaged", given)
        assert root.tables.instances.keys() == {"/", *sound, *([PATH] if has_door else [])}
        assert whereabouts.read_door(MemoryStore(root, bad)) == (door if has_door else None)
    own.tables.aliens.clear()
    assert handover.hand_up("memory:handover-damaged", given) == 5
    assert root.tables.instances.keys() == {"/", PATH, bad, *sound}
    assert whereabouts.read_door(MemoryStore(root, bad)) is None


def test_what_a_fail_over_takes_back_inside_what_came_up_is_found_in_its_files() -> None:
    """Each time that it comes the server loses it again; who looks for it then is led to where it came from, until it is there."""
    own, root = MemoryServer(), MemoryServer()
    share("handover-own", own)
    share("handover-above", root)
    inner = f"{PATH}/ƒB"
    for server, namespace in ((root, "/"), (own, PATH), (own, inner)):
        store = MemoryStore(server, namespace)
        store.create(durability="local", origin_ms=1, created=1.0)
        Journal(store).append(Decision([["x", "instance", 1.0, None]]), 0)
    door = whereabouts.Door("memory:handover-own", "", "/somewhere", "here", spool.boot_id())
    whereabouts.leave_door(MemoryStore(root, PATH), door)
    root.remember = 100

    def fault(operation: str, when: str) -> None:
        if operation == "arrive.begin" and inner in root.tables.instances:
            while inner in root.tables.instances:
                kept.append(root._past.pop())
                kept[-1][1]()

    kept: list[Any] = []
    root.fault = fault
    given = {"uri": f"memory:handover-own#{PATH}", "parent": "memory:handover-above#/", "job": "ƒA"}
    names = set[str]()
    handover.hand_up("memory:handover-own", given, names)
    assert names == {PATH, inner}
    root.fault = None
    assert kept
    fault("arrive.begin", "before")
    assert [name in root.tables.instances for name in (PATH, inner)] == [True, False]
    assert whereabouts.read_door(MemoryStore(root, inner)) == door
    handover.hand_up("memory:handover-own", given)
    assert MemoryStore(root, inner).read(0) == MemoryStore(own, inner).read(0)
    assert [whereabouts.read_door(MemoryStore(root, name)) for name in (PATH, inner)] == [None, None]


def test_what_began_on_a_lost_branch_does_not_come_up_in_another_attempt_s_place() -> None:
    """The parent has lost the entry that began it: whoever has its name now is another. Unless it was adopted."""
    rig = Rig()
    ended, pending = rig.submit(jobspec(cores=1)), rig.submit(jobspec(cores=1))
    meta = rig.store.meta()
    epoch, lost = meta.epoch, f"{meta.version + 3}-{meta.epoch}"

    def check(id: int, entry: str) -> None:
        handover._check_attempt(rig.store, rig.store.meta(), {"job": f58(id), "entry": entry})

    check(ended, rig.job(ended).key.partition(".")[2])
    check(ended, "")
    with pytest.raises(Unavailable) as caught:
        check(ended, lost)
    assert caught.value.code == "undecided", "nobody has adopted what is left"
    adopted = forks.adopt(rig.store, (meta.version + 1, meta.version + 3), 1.0, "keeper", [f"{lost}, of a test"])
    with pytest.raises(Rejected) as refused:
        check(ended, lost)
    assert refused.value.code == handover.LOST
    claims = {"claims": [[0, "0", "", 0, 1]], "expiration": 0.0}
    assert adopted.epoch != epoch
    rig.journal.meta = rig.store.meta()
    rig.say(["alloc", pending, 1.0, {**claims, "adopted": lost}])
    check(pending, lost)
    with pytest.raises(Rejected):
        check(99, lost)


def test_what_goes_nowhere_keeps_its_files_until_they_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = StateDir(str(tmp_path))
    (tmp_path / "appendonlydir").mkdir()
    monkeypatch.setattr(handover, "KEPT_S", -1.0)
    handover.mark(folder, "")
    assert handover.remove_files(folder, settings("memory:nowhere")), "nothing is left to do"
    assert (tmp_path / "appendonlydir").exists()


def settings(parent: str, *above: str) -> dict[str, Any]:
    return {"uri": "memory:own#/ƒA/ƒB", "parent": parent, "above": list(above)}


def test_it_goes_where_the_parent_s_journal_is() -> None:
    """The parent has a server of its own; later that is gone, and its journal further up."""
    root, middle = MemoryServer(), MemoryServer()
    share("handover-root", root)
    share("handover-middle", middle)
    given = settings("memory:handover-middle#/ƒA", "memory:handover-root")
    MemoryStore(root, "/").create(durability="local", origin_ms=1, created=1.0)
    MemoryStore(middle, PATH).create(durability="local", origin_ms=1, created=1.0)
    assert handover.target_of(given) == "memory:handover-middle#/ƒA"
    middle.down = True
    with pytest.raises(Unavailable) as caught:
        handover.target_of(given)
    assert caught.value.code == "parent-away"
    MemoryStore(root, PATH).create(durability="local", origin_ms=1, created=1.0)
    assert handover.target_of(given) == "memory:handover-root#/ƒA"


def test_past_its_line_a_parent_gets_nothing() -> None:
    parent = MemoryStore(MemoryServer(), "/")
    meta = parent.create(durability="local", origin_ms=1, created=1.0)
    parent.set_room(meta.uid, 100)
    parent.server.used_memory = 50
    handover.check_room(parent, parent.meta())
    parent.server.used_memory = 200
    with pytest.raises(Unavailable, match="soft memory line"):
        handover.check_room(parent, parent.meta())


def test_who_is_on_the_way_is_found_by_its_door(tmp_path: Path) -> None:
    """A child that could not hand up before its parent did: what the parent hands up says where it is."""
    door = whereabouts.Door("unix:/nowhere/kv.sock", "", str(tmp_path), "far", "another boot")
    middle, root = MemoryStore(MemoryServer(), "/ƒA/ƒB"), MemoryStore(MemoryServer(), "/ƒA/ƒB")
    whereabouts.leave_door(middle, door)
    for _ in range(2):
        handed(middle, root)
    assert whereabouts.read_door(root) == door
    assert len(root.messages(Keys(root.namespace).door)) == 1
    above = MemoryStore(root.server, "/ƒA")
    with pytest.raises(Unavailable) as caught:
        whereabouts.server_of(above, "/ƒA/ƒB")
    assert caught.value.code == "server-away"
    assert "on host far" in str(caught.value)
    assert whereabouts.server_of(above, "/ƒA/ƒC") is None


@pytest.mark.parametrize("moment", ["between journal and door", "between door and server"])
def test_a_journal_that_arrives_while_somebody_looks_is_found(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    source, target = history(), MemoryStore(MemoryServer(), PATH)
    whereabouts.leave_door(target, whereabouts.Door("unix:/nowhere/kv.sock", "", "/nowhere", "far", "another boot"))
    above = MemoryStore(target.server, "/")
    name = "read_door" if moment == "between journal and door" else "through"
    work = getattr(whereabouts, name)

    def arrives(*args: Any) -> Any:
        handed(source, target)
        return work(*args)

    for look in (whereabouts.server_of, whereabouts.store_of):
        target.server.tables.instances.pop(PATH, None)
        target.server.tables.streams.clear()
        whereabouts.leave_door(target, whereabouts.Door("unix:/nowhere/kv.sock", "", "/nowhere", "far", "another boot"))
        monkeypatch.setattr(whereabouts, name, arrives)
        found = look(above, PATH)
        monkeypatch.undo()
        assert found is not None
        assert found == "" or found.meta().version == source.meta().version  # type: ignore[union-attr]


def test_files_stay_until_the_journal_is_seen_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = MemoryServer()
    share("handover-files", server)
    MemoryStore(server, PATH).create(durability="local", origin_ms=1, created=1.0)
    folder = StateDir(str(tmp_path))
    (tmp_path / "appendonlydir").mkdir()
    given = settings("memory:handover-files#/ƒA")
    assert not handover.remove_files(folder, given), "it is not marked"
    handover.mark(folder, "memory:handover-files")
    assert not handover.remove_files(folder, given), "it is too early"
    monkeypatch.setattr(handover, "KEPT_S", -1.0)
    assert not handover.remove_files(folder, given), "the server has lost it"
    assert not handover.is_marked(folder), "so it is handed up again"
    handover.mark(folder, "memory:handover-files")
    child = MemoryStore(server, "/ƒA/ƒB")
    uid = child.create(durability="local", origin_ms=1, created=1.0).uid
    child.seal(uid)
    for _ in range(2):
        done = Departing(MemoryStore(server, PATH), str(tmp_path / "archive"), "memory:handover-files#/ƒA", -1.0, grace_s=0.0).run()
    assert done.gone == ["/ƒA/ƒB"]
    os.rename(tmp_path / "archive", tmp_path / "elsewhere")
    assert not handover.remove_files(folder, given), "it has left for an archive that is not to be seen"
    assert handover.is_marked(folder)
    os.rename(tmp_path / "elsewhere", tmp_path / "archive")
    assert handover.remove_files(folder, given)
    assert not (tmp_path / "appendonlydir").exists()


def with_files(folder: Path, name: str, *there: str) -> tuple[MemoryServer, StateDir, dict[str, Any]]:
    """(A server that has these journals, a child's state directory with its server's files, the child's settings)."""
    server = MemoryServer()
    share(name, server)
    (folder / "appendonlydir").mkdir()
    for one in there:
        MemoryStore(server, one).create(durability="local", origin_ms=1, created=1.0)
    return server, StateDir(str(folder)), settings(f"memory:{name}#/ƒA")


def test_files_are_handed_up_once_more_where_a_fail_over_took_the_last_step_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, folder, given = with_files(tmp_path, "handover-again", PATH)
    above = MemoryStore(server, "/ƒA/ƒB")
    monkeypatch.setattr(handover, "KEPT_S", -1.0)
    for door, stays in ((str(tmp_path), False), ("/nowhere/of-a-later-life", True)):
        handover.mark(folder, "memory:handover-again")
        whereabouts.leave_door(above, whereabouts.Door("unix:/nowhere/kv.sock", "", door, "far", "another boot"))
        assert not handover.remove_files(folder, given)
        assert handover.is_marked(folder) == stays
    assert (tmp_path / "appendonlydir").exists()


def test_files_are_handed_up_once_more_where_a_fail_over_took_back_what_was_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["/ƒA/ƒB", "/ƒA/ƒB/ƒC"]
    server, folder, given = with_files(tmp_path, "handover-inside", PATH, names[0])
    inside = MemoryStore(server, names[1])
    monkeypatch.setattr(handover, "KEPT_S", -1.0)
    for door, stays in (("", False), (str(tmp_path / "ns" / "C"), False), ("/nowhere/of-a-later-life", True)):
        handover.mark(folder, "memory:handover-inside", names)
        if door:
            whereabouts.leave_door(inside, whereabouts.Door("unix:/nowhere/kv.sock", "", door, "far", "another boot"))
        assert handover.remove_files(folder, given) == stays
        assert handover.is_marked(folder) == stays
    assert not (tmp_path / "appendonlydir").exists()


def test_up_from_a_child_leads_to_another_server() -> None:
    root, own = MemoryServer(), MemoryServer()
    share("up-root", root)
    share("up-own", own)
    MemoryStore(root, "/").create(durability="local", origin_ms=1, created=1.0)
    rig = Rig()
    share("up-rig", rig.server)
    with pytest.raises(Rejected):
        whereabouts.parent_of("memory:up-root")
    assert whereabouts.root_of("memory:up-root") == "memory:up-root"
    MemoryStore(own, PATH).create(durability="local", origin_ms=1, created=1.0)
    assert whereabouts.parent_of("memory:up-own#/ƒA/ƒB") == "memory:up-own#/ƒA"


class Nobody:
    """A store by which each attempt is over, but one."""

    def __init__(self, living: int) -> None:
        self.living = living

    def bumps(self, things: list[str]) -> list[int]:
        return [7 if thing in ("!", f"attempt/{self.living}") else 0 for thing in things]


def test_what_children_left_goes_a_week_after_their_end_and_no_ended_one_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    around = StateDir(str(tmp_path))

    def child(id: int, inside: str = "ns") -> StateDir:
        made = StateDir(str(tmp_path / inside / f"f{id}-7-0"))
        made.create()
        made.write({"job": f58(id), "since": 7, "kvs": "parent"})
        return made

    def grow_old(*folders: StateDir) -> None:
        for path in [Path(folder.path) for folder in folders]:
            for file in (*path.rglob("*"), path):
                os.utime(file, (1.0, 1.0))

    monkeypatch.setattr(spool, "MAX_SOCKET_PATH", 8)  # so that sockets are below /tmp, of launchers that were killed
    sockets = [Path(spool.socket_path(str(tmp_path / "ns" / name / "spool"))) for name in ("f1-7-0", "f2-7-0", "f2-7-0/ns/f4-7-0")]
    for socket in sockets:
        spool.private_folder(str(socket.parent))
        socket.touch()
    living, old, new = child(1), child(2), child(3)
    inner = child(4, "ns/f2-7-0/ns")
    duty = handover_duty.HandoverDuty(Nobody(1), around, lambda level, text: None)  # type: ignore[arg-type]
    duty.look()
    assert duty._done == {old.path, new.path, inner.path}
    assert [socket.parent.is_dir() for socket in sockets] == [True, False, False]
    door_folders.remove_all(living.path)
    assert not sockets[0].parent.is_dir()
    ns = tmp_path / "ns"
    os.utime(ns, (1.0, 1.0))
    duty.look()
    monkeypatch.setattr(handover_duty, "folders", lambda state_dir: pytest.fail("all of them are listed again"))
    duty.look()
    assert [one.path for one in duty._left()] == [living.path]
    monkeypatch.undo()
    later = child(5)
    duty.look()
    assert later.path in duty._done
    duty._sweep()
    assert all(os.path.isdir(one.path) for one in (living, old, new, inner, later))
    grow_old(living, old)
    duty._sweep()
    assert [os.path.isdir(one.path) for one in (living, old, new, inner, later)] == [True, False, True, False, True]
    assert duty._done == {new.path, later.path}


def test_what_does_not_come_up_is_said_by_status_until_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    around, child = StateDir(str(tmp_path)), StateDir(str(tmp_path / "ns" / "f2-7-0"))
    around.create()
    child.create()
    child.write({"job": f58(2), "since": 7, "kvs": "own", "lead": True})

    def refused(*_: Any) -> None:
        raise Rejected("one of the two is a copy", code="copied", hint="export it")

    def spawn(directory: StateDir, role: str) -> int:
        pid = os.fork()
        if not pid:
            try:
                run_handover.main(directory, Log("handover", None, None))
            finally:
                os._exit(1)
        return pid

    monkeypatch.setattr(run_handover, "finish", refused)
    monkeypatch.setattr(handover_duty, "spawn_role", spawn)
    duty = handover_duty.HandoverDuty(Nobody(1), around, lambda level, text: None)  # type: ignore[arg-type]
    duty.finish()
    assert status_children.children_not_up(around) == []
    duty.look()
    (said,) = status_children.children_not_up(around)
    assert said == f"the journal in {child.path} does not come up: one of the two is a copy (export it)"
    assert ["one of the two is a copy (export it)" in str(one) for one in doctor_cmd._children(around)] == [True]
    handover.mark(child, "memory:x")
    duty.look()
    assert status_children.children_not_up(around) == []


def test_of_many_that_were_killed_together_a_few_are_handed_up_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each is a process and a server; an instance that ends has them all come up all the same."""
    around = StateDir(str(tmp_path))
    around.create()
    for number in range(10):
        child = StateDir(str(tmp_path / "ns" / f"f{number + 2}-7-0"))
        child.create()
        child.write({"job": f58(number + 2), "since": 7, "kvs": "own", "lead": True})
    alive: list[int] = []
    most: list[int] = []

    def spawn(directory: StateDir, role: str) -> int:
        pid = os.posix_spawn("/bin/sleep", ["sleep", "0.05"], {})
        alive.append(pid)
        handover.mark(directory, "memory:x")
        most.append(len(duty._at_work) + 1)
        return pid

    monkeypatch.setattr(handover_duty, "spawn_role", spawn)
    duty = handover_duty.HandoverDuty(Nobody(1), around, lambda level, text: None)  # type: ignore[arg-type]
    duty.finish()
    assert (len(alive), max(most)) == (10, handover_duty.AT_ONCE)


@pytest.mark.parametrize("held", [True, False])
def test_a_server_that_is_being_started_to_hand_up_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, held: bool
) -> None:
    source, target = history(), MemoryStore(MemoryServer(), PATH)
    folder = StateDir(str(tmp_path))
    folder.create()
    whereabouts.leave_door(target, whereabouts.Door("unix:/nowhere/kv.sock", "", folder.path, "here", spool.boot_id()))
    lock = take_lock(folder.lock_file("server"), 0.0) if held else -1
    tried = []

    def through(*args: Any) -> str:
        tried.append(args)
        if len(tried) == 3:
            handed(source, target)
        raise Unavailable("it does not answer", code="server-away")

    monkeypatch.setattr(whereabouts, "through", through)
    above = MemoryStore(target.server, "/")
    if held:
        assert whereabouts.server_of(above, PATH, over=True) == ""
        os.close(lock)
    else:
        with pytest.raises(Unavailable, match="does not answer"):
            whereabouts.server_of(above, PATH, over=True)
    assert len(tried) == (3 if held else 1)


def test_passwords_of_servers_that_are_gone_do_not_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def kept() -> list[Path]:
        return sorted(tmp_path.glob("**/.doors/*"))

    first = whereabouts._without_password("redis://:one@host:1/0")
    assert "one" not in first
    (path,) = kept()
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("one\n", 0o600)
    os.utime(path, (1.0, 1.0))
    assert whereabouts._without_password("redis://:one@host:1/0") == first  # it is used still
    whereabouts._without_password("redis://:two@host:2/0")
    assert len(kept()) == 2
    os.utime(path, (1.0, 1.0))
    whereabouts._without_password("redis://:three@host:3/0")
    assert path not in kept()
    assert len(kept()) == 2


def test_files_that_are_gone_are_not_handed_up_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal was seen above, so they went; what has become of it since is not for these folders to say."""
    server = MemoryServer()
    share("handover-gone", server)
    MemoryStore(server, PATH).create(durability="local", origin_ms=1, created=1.0)
    folder, given = StateDir(str(tmp_path)), settings("memory:handover-gone#/ƒA")
    monkeypatch.setattr(handover, "KEPT_S", -1.0)
    handover.mark(folder, "memory:handover-gone", [PATH])
    assert handover.remove_files(folder, given)
    assert handover.is_marked(folder)


def test_who_dies_while_files_go_leaves_no_half_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server would begin on what is left, and it would come up in place of the journal."""
    server = MemoryServer()
    share("handover-half", server)
    for name in (PATH, "/ƒA/ƒB"):
        MemoryStore(server, name).create(durability="local", origin_ms=1, created=1.0)
    folder, given = StateDir(str(tmp_path)), settings("memory:handover-half#/ƒA")
    (tmp_path / "appendonlydir").mkdir()
    for name in ("appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof", "appendonly.aof.manifest"):
        (tmp_path / "appendonlydir" / name).write_text("x")
    monkeypatch.setattr(handover, "KEPT_S", -1.0)
    handover.mark(folder, "memory:handover-half", [])
    real = os.unlink

    def die(path: Any, **more: Any) -> None:
        if "manifest" in str(path):
            raise KeyboardInterrupt
        real(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            handover.remove_files(folder, given)
    assert not (tmp_path / "appendonlydir").exists()
    assert handover.remove_files(folder, given)
    assert [*tmp_path.glob("append*")] == []


def test_a_folder_that_somebody_was_killed_over_is_removed_too(tmp_path: Path) -> None:
    around = StateDir(str(tmp_path))
    half, over = StateDir(str(tmp_path / "ns" / "f3-7-0")), StateDir(str(tmp_path / "ns" / "f2-7-0"))
    inner = StateDir(over.join("ns", "f4-7-0"))
    damaged = StateDir(str(tmp_path / "ns" / "f5-7-0"))
    for one in (half, over, inner, damaged):
        one.create()
    over.write({"job": f58(2), "since": 7, "kvs": "parent"})
    Path(damaged.instance_file).write_text("{")
    duty = handover_duty.HandoverDuty(Nobody(1), around, lambda level, text: None)  # type: ignore[arg-type]
    duty.look()
    assert duty._done == set(), "somebody may be about to begin there"
    duty._sweep()
    for file in (*tmp_path.rglob("*"), tmp_path):
        os.utime(file, (1.0, 1.0))
    duty.look()
    assert duty._done == {over.path}
    duty._sweep()
    assert [os.path.isdir(one.path) for one in (half, over, damaged)] == [False, False, True]


def test_waits_of_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that lives for days looks each second at a child whose server does not answer."""
    above = MemoryStore(MemoryServer(), "/")
    there = MemoryStore(above.server, PATH)
    whereabouts.leave_door(there, whereabouts.Door("unix:/nowhere/kv.sock", "", "/nowhere", "far", "another boot"))
    clock = [0.0]

    def now() -> float:
        clock[0] += 0.5
        return clock[0]

    monkeypatch.setattr(whereabouts, "_waited", [])
    monkeypatch.setattr(whereabouts.time, "monotonic", now)
    for _ in range(200):
        with pytest.raises(Unavailable):
            whereabouts.server_of(above, PATH)
    assert 0 < len(whereabouts._waited) <= 2 * whereabouts.SILENT_S


def test_while_guards_are_made_anew_nobody_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child whose keeper is being begun again in that moment would be sealed, and its node's others would leave."""
    server = MemoryServer()
    share("handover-guards", server)
    store = MemoryStore(server, "/")
    store.create(durability="local", origin_ms=1, created=1.0)
    Journal(store).append(Decision([["x", "instance", 1.0, None]], bumps=["attempt/2"]), 0)
    around, child = StateDir(str(tmp_path)), StateDir(str(tmp_path / "ns" / "f2-1-0"))
    for one in (around, child):
        one.create()
    given = {"job": f58(2), "since": 1, "kvs": "own", "lead": True, "uri": "memory:x#/ƒ2", "parent": "memory:handover-guards#/"}
    child.write(given)
    begun: list[str] = []
    monkeypatch.setattr(handover_duty, "spawn_role", lambda directory, role: begun.append(directory.path) or 1)
    monkeypatch.setattr(handover_duty.HandoverDuty, "_reap", lambda self: None)
    duty = handover_duty.HandoverDuty(store, around, lambda level, text: None)
    found = server.tables.instances["/"]
    guards, found.guards, found.mark = found.guards, {}, None
    duty.look()
    assert (begun, own_server.is_over(given)) == ([], False)
    found.guards, found.mark = guards, 1
    duty.look()
    assert (begun, own_server.is_over(given)) == ([], False)
    found.guards = {}
    duty.look()
    assert (begun, own_server.is_over(given)) == ([child.path], True)
