"""A journal that comes from another server: seen by nobody before all of it has come, then as it was; on every kind of server."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest

from fluxkv.kvs.errors import Conflict, Corrupt, Rejected, Unavailable
from fluxkv.kvs.keys import Keys
from fluxkv.kvs.port import Append

WORD = "made at 5.25"


def source(bench: Any) -> tuple[Any, Any]:
    """A journal with a bit of everything, and the place it goes to: a namespace of the same server serves."""
    store = bench.store
    for version in range(5):
        bench.append(version, b"0" + b"p" * version, bumps=(f"job/{version}", "config"))
    store.put_blobs({"a" * 40: b"blob"})
    store.install_snapshot(bench.meta.uid, bench.meta.epoch, b"head", [b"one", b"two"], version=3)
    store.push(bench.keys.output(7), [b"said", b"and said"])
    there = bench.backend.open(f"{bench.namespace}x")
    return store, there


def bring(store: Any, there: Any) -> None:
    there.arrive(WORD, store.read(0))
    there.arrive_messages(WORD, Keys(there.namespace).output(7), store.messages(Keys(store.namespace).output(7)))
    for guards in store.guards():
        there.arrive_tables(WORD, guards)
    there.arrive_tables(WORD, {}, (3, *store.load_snapshot()))


def test_it_is_as_it_was_and_may_be_broken_off_anywhere(bench: Any) -> None:
    store, there = source(bench)
    entries = store.read(0)
    assert there.arriving(WORD, "0-0") == "0-0"
    there.arrive(WORD, entries[:2])
    there.arrive(WORD, entries[:2])
    assert there.arriving(WORD, "0-0") == entries[1].id, "it goes on from there"
    with pytest.raises(Conflict):
        there.arrive(WORD, entries[3:])
    with pytest.raises(Unavailable, match="no instance"):
        there.meta()
    there.put_blobs({"a" * 40: b"blob"})
    for _ in range(2):
        bring(store, there)
    there.arrived(WORD, store.meta())
    assert there.arriving(WORD, "0-0") == ""
    bring(store, there)
    there.arrived(WORD, store.meta())
    assert there.meta().sealed > 1e9
    assert there.meta()._replace(sealed=0) == store.meta()
    assert there.read(0) == entries
    assert there.load_snapshot() == (b"head", [b"one", b"two"])
    assert there.get_blobs(["a" * 40]) == [b"blob"]
    assert there.messages(Keys(there.namespace).output(7)) == store.messages(bench.keys.output(7))
    assert list(there.outputs()) == [7]
    assert there.bumps(["job/4", "config"]) == [5, 5]
    meta = there.meta()
    with pytest.raises(Rejected) as caught:
        there.append(Append(uid=meta.uid, epoch=meta.epoch, decided_at=5, payload=b"0q"))
    assert caught.value.code == "ended", "what was handed up is over"
    there.close()


def test_it_is_not_there_before_its_end_has_come(bench: Any) -> None:
    """As after a fail-over that took it back."""
    store, there = source(bench)
    there.arriving(WORD, "0-0")
    there.arrive(WORD, store.read(0)[:-1])
    with pytest.raises(Conflict) as caught:
        there.arrived(WORD, store.meta())
    assert caught.value.code == "live"
    with pytest.raises(Unavailable, match="no instance"):
        there.meta()
    there.arriving(WORD, "0-0")
    bring(store, there)
    there.arrived(WORD, store.meta())
    assert there.read(0) == store.read(0)
    there.close()


def test_one_that_was_sealed_or_had_another_name_stays_so(bench: Any) -> None:
    store, there = source(bench)
    there.arriving(WORD, "0-0")
    bring(store, there)
    meta = store.meta()._replace(sealed=5, origin_uid="first")
    there.arrived(WORD, meta)
    assert there.meta() == meta
    there.close()


def test_nobody_comes_where_somebody_is_or_comes(bench: Any) -> None:
    store, there = source(bench)
    there.arriving(WORD, "0-0")
    with pytest.raises(Rejected) as caught:
        there.arriving("another", "0-0")
    assert caught.value.code == "exists"
    with pytest.raises(Rejected):
        store.arriving(WORD, "0-0")
    there.close()


def test_what_came_of_a_lost_branch_is_dropped(bench: Any) -> None:
    store, there = source(bench)
    there.arriving(WORD, "0-0")
    there.arrive(WORD, [entry._replace(epoch=9) for entry in store.read(0, 2)])
    assert there.arriving(WORD, "0-0") == "2-9"
    assert there.arriving(WORD, "0-0", anew=True) == "0-0"
    bring(store, there)
    there.arrived(WORD, store.meta())
    assert there.read(0) == store.read(0)
    there.close()


def test_what_goes_down_is_what_has_come_when_it_comes_up_again(bench: Any) -> None:
    store, below = source(bench)
    below.arriving(WORD, "0-0")
    bring(store, below)
    meta, entries = store.meta(), store.read(0)
    below.arrived(WORD, meta)
    for uid, epoch, tip in (("x", meta.epoch, meta.version), (meta.uid, meta.epoch + 1, meta.version), (meta.uid, meta.epoch, 4)):
        with pytest.raises((Rejected, Conflict)):
            store.depart(uid, epoch, tip, "life 2")
    assert (store.meta(), store.come()) == (meta, "")
    for _ in range(2):
        store.depart(meta.uid, meta.epoch, meta.version, "life 2")
    with pytest.raises(Unavailable, match="no instance"):
        store.meta()
    with pytest.raises(Rejected) as caught:
        store.append(Append(uid=meta.uid, epoch=meta.epoch, decided_at=5, payload=b"0q"))
    assert caught.value.code == "gone"
    assert (store.come(), store.entries([5])) == (entries[-1].id, entries[-1:])
    with pytest.raises(Rejected):
        store.arriving(WORD, "0-0")  # whose files were handed up before
    made = below.reopen(meta.uid, meta.epoch, meta.version)
    assert below.append(Append(uid=made.uid, epoch=made.epoch, decided_at=5, payload=b"0new", bumps=("job/9",))).version == 6
    more = below.read(5)
    assert store.arriving("life 2", "0-0") == entries[-1].id
    with pytest.raises(Rejected):
        store.arrive_over("life 3", "4-4")
    another = bench.backend.open(bench.namespace)  # of who has not begun it
    another.arrive_over("life 3", entries[-1].id)
    with pytest.raises(Rejected):
        store.arriving("life 2", "0-0")
    another.arrive("life 3", more)
    for guards in below.guards():
        another.arrive_tables("life 3", guards)
    another.arrived("life 3", below.meta())
    another.close()
    assert (store.read(0), store.come()) == ([*entries, *more], "")
    assert store.meta()._replace(sealed=0) == below.meta()
    assert store.bumps(["job/9", "job/4"]) == [6, 5]
    below.close()


def test_which_namespaces_there_are(bench: Any) -> None:
    inside = bench.backend.open(f"{bench.namespace}/ƒA")
    inside.create(durability="local", origin_ms=1, created=1.0)
    beside = bench.backend.open(f"{bench.namespace}z")
    beside.create(durability="local", origin_ms=1, created=1.0)
    door = bench.backend.open(f"{bench.namespace}/ƒB")
    door.push(Keys(door.namespace).door, [b"x"])
    assert bench.store.spaces() == [bench.namespace, f"{bench.namespace}/ƒA", f"{bench.namespace}/ƒB"]
    for store in (inside, beside, door):
        store.close()


def test_children_are_found_on_every_node(bench: Any) -> None:
    assert not bench.store.may_have_inside()
    names = [f"{bench.namespace}/ƒ{letter}" for letter in "123456789A"]  # of one node alone: once in 6,561
    metas = {}
    for name in names:
        with contextlib.closing(bench.backend.open(name)) as child:
            child.create(durability="local", origin_ms=1, created=1.0)
            metas[name] = child.meta()
    if bench.backend.name == "cluster":
        held = [node.ask("SCAN", 0, "MATCH", f"*{bench.namespace}/*", "COUNT", 10_000)[1] for node in bench.backend.nodes]
        assert sum(map(bool, held)) > 1
    assert bench.store.may_have_inside()
    assert {name: one.meta for name, one in bench.store.inside().items()} == metas
    assert bench.store.spaces() == [bench.namespace, *names]


def test_a_damaged_child_hides_no_other(bench: Any) -> None:
    names = [f"{bench.namespace}/ƒ{letter}" for letter in "1234"]
    metas = {}
    for name in names:
        with contextlib.closing(bench.backend.open(name)) as child:
            child.create(durability="local", origin_ms=1, created=1.0)
            child.push(Keys(name).output(7), [b"said"])
            metas[name] = child.meta()
    damaged = Keys(names[1])
    bench.backend.alien(damaged.meta)
    bench.backend.alien(Keys(names[2]).output(7))
    if bench.backend.name != "cluster":  # where such a key is nobody's, and has no slot of an instance's
        bench.backend.alien(f"{{fluxkv:{bench.namespace}/no one}}:meta")
    found = bench.store.inside()
    assert [*found] == names == bench.store.spaces()[1:]
    assert {name: one.meta for name, one in found.items()} == {**metas, names[1]: None}
    assert {damaged.meta, damaged.output(7)} <= set(found[names[1]].keys), "nothing of it is forgotten"
    assert [name for name, one in found.items() if one.damage] == [names[1]]
    assert found[names[1]].damage.startswith(f"{damaged.meta}: WRONGTYPE")
    with contextlib.closing(bench.backend.open(names[1])) as child:
        with pytest.raises(Corrupt, match=f"^{re.escape(damaged.meta)}: WRONGTYPE"):
            child.meta()
        for step in ("mark", "stay", "back", "go", "rest"):
            with pytest.raises(Corrupt):
                child.leave(metas[names[1]].uid, "0-0", step, found[names[1]].keys)
        assert len(child.messages(damaged.output(7))) == 1
    with contextlib.closing(bench.backend.open(names[2])) as child:
        child.push(Keys(names[2]).output(8), [b"said"])
        assert [*child.outputs()] == [8]


def test_one_that_ended_leaves_a_while_after_it_was_marked(bench: Any) -> None:
    store, meta = bench.store, bench.meta
    keys = bench.keys
    for version in range(2):
        bench.append(version, b"0p", bumps=("config",))
    store.push(keys.output(7), [b"said"])
    store.put_blobs({"a" * 40: b"blob"})
    tip = store.read(0)[-1].id
    around = bench.backend.open("/")
    assert not store.leave(meta.uid, tip, "mark"), "it goes on"
    store.seal(meta.uid)
    assert "/" not in around.inside()
    assert around.may_have_inside()
    assert not store.may_have_inside()
    assert store.inside() == {}
    found = around.inside()[store.namespace]
    assert found.meta == store.meta()
    assert {keys.output(7), keys.meta} <= set(found.keys)
    assert not store.leave("another", tip, "mark")
    assert not store.leave(meta.uid, "1-1", "mark"), "it has another history"
    assert not store.leave(meta.uid, tip, "go", found.keys), "nobody has said where it is read then"
    assert store.leave(meta.uid, tip, "mark")
    assert store.meta().leaving > 1e9
    assert store.leave(meta.uid, tip, "stay")
    assert (store.meta().leaving, store.meta().back) == (0, 0)
    assert store.leave(meta.uid, tip, "mark")
    assert store.leave(meta.uid, tip, "back")
    assert store.meta().leaving == 0 < store.meta().back
    assert store.leave(meta.uid, tip, "mark")
    assert not store.leave(meta.uid, tip, "go", found.keys, 1e6), "it was marked a moment ago"
    assert store.read(0), "nothing went"
    for _ in range(2):
        assert store.leave(meta.uid, tip, "go", found.keys)
    assert store.namespace not in around.inside()
    assert store.read(0) == []
    around.close()


def test_streams_of_jobs_go_after_the_rest_and_not_from_one_that_comes_back(bench: Any) -> None:
    store, meta, keys = bench.store, bench.meta, bench.keys
    bench.append(0, b"0p")
    tip = store.read(0)[-1].id
    outputs = [keys.output(job) for job in range(1_200)]
    for key in (outputs[0], outputs[700], outputs[-1]):
        store.push(key, [b"said"])
    store.seal(meta.uid)
    assert not store.leave("", "", "rest", outputs), "it is there"
    store.leave(meta.uid, tip, "mark")
    around = bench.backend.open(bench.namespace.rpartition("/")[0] or "/")
    assert store.leave(meta.uid, tip, "go", around.inside()[bench.namespace].keys)
    assert bench.namespace not in around.inside()
    store.push(outputs[0], [b"said"])  # as if whoever dropped it had died there
    store.arriving(WORD, "0-0")
    assert not store.leave("", "", "rest", outputs), "it is on its way here"
    assert store.messages(outputs[0])
    bench.backend.forget(keys.arriving)
    if bench.backend.name == "memory":
        bench.backend.raw.tables.arriving.clear()
    assert store.leave("", "", "rest", outputs)
    assert bench.namespace not in around.inside()
    around.close()


def test_who_goes_on_with_one_that_was_to_leave_keeps_it(bench: Any) -> None:
    store, meta = bench.store, bench.meta
    bench.append(0, b"0p", bumps=("config",))
    tip = store.read(0)[-1].id
    store.seal(meta.uid)
    store.leave(meta.uid, tip, "mark")
    again = store.reopen(meta.uid, meta.epoch, 1)
    assert not again.leaving
    assert not store.meta().leaving
    assert not store.leave(meta.uid, tip, "go", [bench.keys.journal])
    assert store.read(0)
