"""What every `Store` answers, whatever is behind it."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from fluxkv.kvs.appending import header_time, pack_things, unpack_things
from fluxkv.kvs.blobs import blob_name, payload_hash
from fluxkv.kvs.errors import Conflict, Corrupt, Rejected, Unavailable
from fluxkv.kvs.port import Appended, Conflicted, Gap, StaleEpoch


def test_create_once_and_read_back(bench: Any) -> None:
    assert bench.store.meta() == bench.meta
    assert (bench.meta.version, bench.meta.floor, bench.meta.origin_ms) == (0, 0, 123)
    assert 0 < bench.meta.epoch < 2**48
    with pytest.raises(Rejected) as caught:
        bench.store.create(durability="local", origin_ms=1, created=0.0)
    assert caught.value.code == "exists"


def test_no_instance(backend: Any) -> None:
    store = backend.open("/ƒnobody")
    with pytest.raises(Unavailable) as caught:
        store.meta()
    assert caught.value.code == "no-instance"
    assert store.read(0) == []
    assert store.load_snapshot() is None
    store.close()


def test_versions_are_dense_and_entries_read_back(bench: Any) -> None:
    answers = [bench.append(n, b"0" + bytes([n]) * 10, bumps=(f"job/{n}",)) for n in range(5)]
    assert answers == [Appended(n, bench.meta.epoch) for n in range(1, 6)]
    entries = bench.store.read(0)
    assert [entry.version for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.payload for entry in bench.store.read(3)] == [b"0" + bytes([n]) * 10 for n in (3, 4)]
    assert bench.store.read(2, 1) == [entries[2]]
    assert bench.store.entries([4, 9, 2]) == [entries[3], entries[1]]
    assert bench.store.meta().version == 5


def test_header_says_what_was_done(bench: Any) -> None:
    before = bench.store.now()
    bench.append(
        0, b"0abc", producer="w:1", seq=1, bumps=("job/1", "node/0"), clears=("attempt/1",),
        inbox=(("0", b"go"),), extra=msgpack.packb({"by": "x"}),
    )  # fmt: skip
    header = msgpack.unpackb(bench.store.read(0)[0].header)
    assert header[:4] == ["w:1", 1, 0, payload_hash(b"0abc")]
    assert [unpack_things(header[index]) for index in (4, 5)] == [["job/1", "node/0"], ["attempt/1"]]
    assert header[6:8] == [["0"], {"by": "x"}]
    assert before - 1 < header_time(bench.store.read(0)[0].header) < bench.store.now() + 1
    assert len(header[8]) == 16


@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_things_in_headers_both_ways(count: int) -> None:
    things = tuple(f"job/{n}" for n in range(count))
    assert unpack_things(pack_things(things)) == list(things)


def test_since_guard(bench: Any) -> None:
    bench.append(0, bumps=("job/1", "node/0"))
    bench.append(1, bumps=("node/1",))
    assert bench.append(0, since=("job/1", "job/2", "node/1")) == Conflicted(("job/1", "node/1"))
    assert bench.append(1, since=("job/1", "job/2")) == Appended(3, bench.meta.epoch)
    assert bench.store.meta().version == 3


def test_exact_guard(bench: Any) -> None:
    bench.append(0, bumps=("attempt/1",))
    bench.append(0, bumps=("attempt/2",))
    wrong = (("attempt/1", 2), ("attempt/2", 2), ("attempt/3", 1))
    assert bench.append(0, exact=wrong) == Conflicted(("attempt/1", "attempt/3"))
    assert bench.append(0, exact=(("attempt/1", 1), ("attempt/2", 2))).version == 3


def test_absent_guard_and_clears(bench: Any) -> None:
    bench.append(0, bumps=("closed/default",))
    assert bench.append(1, absent=("job/5", "closed/default")) == Conflicted(("closed/default",))
    bench.append(1, clears=("closed/default", "never/there"))
    assert bench.append(1, absent=("job/5", "closed/default"), bumps=("job/5",)).version == 3
    assert bench.append(3, absent=("job/5",), bumps=("job/5",)) == Conflicted(("job/5",))


def test_last_bumps_can_be_read(bench: Any) -> None:
    bench.append(0, bumps=("config", "job/1"))
    bench.append(1, bumps=("config",))
    assert bench.store.bumps(["config", "job/1", "never/there"]) == [2, 1, 0]
    assert bench.store.bumps([]) == []
    bench.append(2, clears=("config",))
    assert bench.store.bumps(["config"]) == [0]


def test_all_kinds_of_guards_are_named_together(bench: Any) -> None:
    bench.append(0, bumps=("a", "b", "c"))
    answer = bench.append(0, since=("a", "x"), exact=(("b", 7),), absent=("c", "y"))
    assert answer == Conflicted(("a", "b", "c"))


def test_what_is_bumped_and_cleared_is_forgotten(bench: Any) -> None:
    bench.append(0, bumps=("attempt/1",), clears=("attempt/1",))
    assert bench.append(0, absent=("attempt/1",)).version == 2


def test_thousands_of_things(bench: Any) -> None:
    things = tuple(f"node/{n}" for n in range(9001))
    assert bench.append(0, since=things, bumps=things).version == 1
    assert bench.append(1, exact=tuple((thing, 1) for thing in things)).version == 2
    assert bench.append(0, since=things) == Conflicted(things)
    assert bench.append(0, absent=things[::2]) == Conflicted(things[::2])
    assert bench.append(2, clears=things).version == 3
    assert bench.append(0, absent=things).version == 4


def test_conflict_writes_nothing(bench: Any) -> None:
    bench.append(0, bumps=("a",))
    before = (bench.store.meta(), bench.store.read(0))
    bench.append(0, since=("a",), bumps=("b",), inbox=(("7", b"m"),), producer="p", seq=1)
    assert (bench.store.meta(), bench.store.read(0)) == before
    assert bench.store.messages(bench.keys.inbox("7")) == []
    assert bench.append(1, absent=("b",), producer="p", seq=1).version == 2


def test_producer_duplicate_and_gap(bench: Any) -> None:
    first = bench.append(0, b"0one", producer="p", seq=1)
    assert first == Appended(1, bench.meta.epoch)
    assert bench.append(0, b"0one", producer="p", seq=1) == Appended(1, bench.meta.epoch, True)
    assert bench.append(0, b"0three", producer="p", seq=3) == Gap(1)
    assert bench.append(0, b"0two", producer="p", seq=2).version == 2
    assert bench.append(0, b"0new", producer="q", seq=1).version == 3
    assert bench.append(0, b"0new", producer="r", seq=2) == Gap(0)


def test_duplicate_comes_before_conflict(bench: Any) -> None:
    request = bench.request(0, absent=("job/1",), bumps=("job/1",), producer="p", seq=1)
    assert bench.store.append(request) == Appended(1, bench.meta.epoch)
    assert bench.store.append(request) == Appended(1, bench.meta.epoch, True)


def test_older_sequence_is_a_gap_or_found(bench: Any) -> None:
    bench.append(0, b"0one", producer="p", seq=1)
    bench.append(0, b"0two", producer="p", seq=2)
    answer = bench.append(0, b"0other", producer="p", seq=1)
    assert answer == Gap(2)


def test_one_sequence_for_two_payloads(bench: Any) -> None:
    bench.append(0, b"0one", producer="p", seq=1)
    with pytest.raises(Corrupt):
        bench.append(0, b"0other", producer="p", seq=1)


def test_a_conflict_stops_the_pipeline(bench: Any) -> None:
    """5, 6, 7 in flight and 6 conflicts: 7 must not be taken, or a resent 6 would look like a duplicate."""
    bench.append(0, bumps=("a",))
    pipeline = [
        bench.request(1, b"05", producer="p", seq=1, bumps=("b",)),
        bench.request(0, b"06", producer="p", seq=2, since=("a",)),
        bench.request(1, b"07", producer="p", seq=3, bumps=("c",)),
    ]
    assert bench.store.append_many(pipeline) == [Appended(2, bench.meta.epoch), Conflicted(("a",)), Gap(1)]
    assert bench.append(0, b"06", producer="p", seq=2, since=("a",)) == Conflicted(("a",))
    assert bench.append(2, b"07", producer="p", seq=2, bumps=("c",)).version == 3
    assert [entry.payload for entry in bench.store.read(1)] == [b"05", b"07"]


def test_append_many(bench: Any) -> None:
    requests = [bench.request(0, b"0%d" % n, absent=(f"job/{n}",), bumps=(f"job/{n}",)) for n in range(20)]
    assert [answer.version for answer in bench.store.append_many(requests)] == list(range(1, 21))
    assert bench.store.append_many([]) == []


def test_inbox_has_the_commits_own_id(bench: Any) -> None:
    bench.append(0, bumps=("a",))
    answer = bench.append(1, inbox=(("0", b"zero"), ("1", b"one")))
    for name, data in (("0", b"zero"), ("1", b"one")):
        messages = bench.store.messages(bench.keys.inbox(name))
        assert messages == [(answer.id, data)]
    bench.append(2, inbox=(("0", b"more"),))
    assert [m.data for m in bench.store.messages(bench.keys.inbox("0"), answer.id)] == [b"more"]
    bench.store.trim(bench.keys.inbox("0"), answer.id)
    assert [m.data for m in bench.store.messages(bench.keys.inbox("0"))] == [b"more"]


def test_an_emptied_inbox_takes_more(bench: Any) -> None:
    answer = bench.append(0, inbox=(("0", b"zero"),))
    bench.store.trim(bench.keys.inbox("0"), answer.id)
    assert bench.store.messages(bench.keys.inbox("0")) == []
    assert bench.append(0, inbox=(("0", b"one"),)).version == 2


def test_two_messages_to_one_inbox_are_refused(bench: Any) -> None:
    with pytest.raises(Rejected):
        bench.append(0, inbox=(("0", b"a"), ("0", b"b")))


@pytest.mark.parametrize("fields", [{"bumps": ("!",)}, {"clears": ("!",)}, {"producer": "p"}, {"seq": 3}])
def test_requests_that_make_no_sense(bench: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(Rejected) as caught:
        bench.append(0, **fields)
    assert caught.value.code == "bad-append"


@pytest.mark.parametrize("table", ["journal", "meta", "guards", "producers", "inbox"])
def test_keys_of_the_wrong_type_write_nothing(bench: Any, table: str) -> None:
    key = bench.keys.inbox("0") if table == "inbox" else getattr(bench.keys, table)
    bench.append(0, bumps=("a",))
    bench.backend.alien(key)
    with pytest.raises(Corrupt):
        bench.append(1, bumps=("b",), inbox=(("1", b"x"), ("0", b"y")), producer="p", seq=1)
    if table in ("producers", "inbox"):  # the others can not be read any more
        assert bench.store.meta().version == 1
        assert len(bench.store.read(0)) == 1
        assert bench.store.messages(bench.keys.inbox("1")) == []
        assert bench.append(1, absent=("b",)).version == 2


@pytest.mark.parametrize("table", ["journal", "guards"])
def test_a_lost_table_is_noticed(bench: Any, table: str) -> None:
    bench.append(0, bumps=("a",))
    assert bench.store.bumps(["!", "a"]) == [1, 1]
    bench.backend.forget(getattr(bench.keys, table))
    assert bench.store.bumps(["!", "a"]) == ([0, 0] if table == "guards" else [1, 1])
    with pytest.raises(Corrupt):
        bench.append(1, bumps=("b",))
    assert bench.store.meta().version == 1


def test_gone(bench: Any) -> None:
    with pytest.raises(Rejected) as caught:
        bench.append(0, uid="somebody else")
    assert caught.value.code == "gone"
    bench.backend.forget(bench.keys.meta)
    with pytest.raises(Rejected) as caught:
        bench.append(0)
    assert caught.value.code == "gone"


def test_the_highest_schema_is_kept(bench: Any) -> None:
    store, meta = bench.store, bench.store.meta()
    assert meta.schema == 1
    for schema, expected in ((2, 2), (7, 7), (3, 7)):
        store.raise_schema(meta.uid, schema)
        assert store.meta().schema == expected
    with pytest.raises(Rejected):
        store.raise_schema("another", 9)


def test_stale_epoch_and_open_epoch(bench: Any) -> None:
    bench.append(0, bumps=("a",))
    assert bench.append(1, epoch=bench.meta.epoch + 1) == StaleEpoch(bench.meta.epoch)
    with pytest.raises(Conflict):
        bench.store.open_epoch(bench.meta.uid, bench.meta.epoch, 7)
    with pytest.raises(Conflict):
        bench.store.open_epoch(bench.meta.uid, bench.meta.epoch + 1, 1)
    with pytest.raises(Rejected):
        bench.store.open_epoch("x", bench.meta.epoch, 1)
    new = bench.store.open_epoch(bench.meta.uid, bench.meta.epoch, 1)
    assert new.epoch != bench.meta.epoch
    assert new.version == 1
    assert bench.append(1) == StaleEpoch(new.epoch)
    assert bench.append(1, epoch=new.epoch, since=("a",)) == Appended(2, new.epoch)
    assert [entry.epoch for entry in bench.store.read(0)] == [bench.meta.epoch, new.epoch]


def test_snapshots(bench: Any) -> None:
    assert bench.store.load_snapshot() is None
    assert bench.store.install_snapshot(bench.meta.uid, bench.meta.epoch, b"head", [b"a" * 65536, b"", b"c"])
    assert bench.store.load_snapshot() == (b"head", [b"a" * 65536, b"", b"c"])
    assert not bench.store.install_snapshot(bench.meta.uid, bench.meta.epoch + 1, b"other", [])
    assert not bench.store.install_snapshot("x", bench.meta.epoch, b"other", [])
    assert bench.store.load_snapshot() == (b"head", [b"a" * 65536, b"", b"c"])
    chunks = [b"%d" % n for n in range(30)]
    assert bench.store.install_snapshot(bench.meta.uid, bench.meta.epoch, b"next", chunks)
    assert bench.store.load_snapshot() == (b"next", chunks)


def test_prune_and_floor(bench: Any) -> None:
    jobs = tuple(f"job/{n}" for n in range(2500))
    bench.append(0, bumps=(*jobs, "attempt/1", "closed/q", "node/0"))
    bench.append(1, bumps=("job/1",), producer="p", seq=1)
    bench.append(2, bumps=("z",))
    with pytest.raises(Conflict):
        bench.store.prune_guards(bench.meta.uid, bench.meta.epoch, 4)
    with pytest.raises(Conflict):
        bench.store.prune_guards(bench.meta.uid, bench.meta.epoch + 1, 1)
    with pytest.raises(Rejected):
        bench.store.prune_guards("x", bench.meta.epoch, 1)
    assert bench.store.prune_guards(bench.meta.uid, bench.meta.epoch, 1) == 2499
    assert bench.store.meta().floor == 1
    # Who decided below the floor can not know whether a pruned thing moved.
    assert bench.append(0, since=("job/7",)) == Conflicted(("job/7",))
    assert bench.append(0, absent=("job/7",)) == Conflicted(("job/7",))  # a submission that comes once more, much later
    assert bench.append(1, since=("job/7",)).version == 4
    assert bench.append(4, absent=("attempt/1", "closed/q", "node/0")) == Conflicted(
        ("attempt/1", "closed/q", "node/0")
    )
    assert bench.append(0, since=("job/1",)) == Conflicted(("job/1",))
    # Producers go with the floor too; who is forgotten begins again at 1.
    assert bench.append(1, producer="p", seq=3) == Gap(1)
    assert bench.store.prune_guards(bench.meta.uid, bench.meta.epoch, 2) == 1
    assert bench.append(2, producer="p", seq=2) == Gap(0)
    assert bench.store.prune_guards(bench.meta.uid, bench.meta.epoch, 1) == 0
    assert bench.store.meta().floor == 2


def test_blobs(bench: Any) -> None:
    data = [b"", b"a" * 100_000, bytes(range(256))]
    names = [blob_name(item) for item in data]
    assert len(set(names)) == 3
    bench.store.put_blobs(dict(zip(names, data, strict=True)))
    bench.store.put_blobs({})
    assert bench.store.get_blobs([names[2], "0" * 40, names[0]]) == [data[2], None, data[0]]
    assert bench.store.get_blobs([]) == []


def test_plain_streams(bench: Any) -> None:
    key = bench.keys.telemetry
    bench.store.push(key, [b"a", b"b", b"c"])
    bench.store.push(key, [])
    messages = bench.store.messages(key)
    assert [message.data for message in messages] == [b"a", b"b", b"c"]
    assert bench.store.messages(key, messages[0].id) == messages[1:]
    assert bench.store.messages(key, limit=1) == messages[:1]
    bench.store.trim(key, messages[1].id)
    assert bench.store.messages(key) == messages[2:]
    bench.store.delete(key)
    assert bench.store.messages(key) == []
    bench.store.delete()


def test_capped_stream(bench: Any) -> None:
    for _ in range(10):
        bench.store.push(bench.keys.log, [b"x" * 200] * 100, limit=50)
    assert 50 <= len(bench.store.messages(bench.keys.log)) < 500


def test_the_journal_keeps_its_tip(bench: Any) -> None:
    answers = [bench.append(n) for n in range(4)]
    uid, epoch = bench.meta.uid, bench.meta.epoch
    with pytest.raises(Rejected, match="only by what has archived it"):
        bench.store.trim(bench.keys.journal, answers[1].id)
    with pytest.raises(Conflict, match="snapshot is of version 0"):
        bench.store.trim_journal(uid, epoch, answers[1].id, "place")
    assert bench.store.install_snapshot(uid, epoch, b"head", [], version=3)
    for wrong in (f"2-{epoch + 1}", f"4-{epoch}"):  # another branch's entry; newer than the snapshot (and the tip)
        with pytest.raises((Conflict, Rejected)):
            bench.store.trim_journal(uid, epoch, wrong, "place")
    with pytest.raises(Conflict, match="its epoch is"):
        bench.store.trim_journal(uid, epoch + 1, answers[1].id, "place")
    with pytest.raises(Rejected, match="not the one it was"):
        bench.store.trim_journal("x", epoch, answers[1].id, "place")
    assert len(bench.store.read(0)) == 4
    for _ in range(2):  # a lost answer: the same again
        meta = bench.store.trim_journal(uid, epoch, answers[1].id, "place")
        assert (meta.trimmed, meta.first, meta.archive, meta.version) == (answers[1].id, 3, "place", 4)
    assert [entry.version for entry in bench.store.read(0)] == [3, 4]
    assert [entry.version for entry in bench.store.entries([1, 2, 3])] == [3]
    assert bench.store.install_snapshot(uid, epoch, b"four", [], version=4)
    assert not bench.store.install_snapshot(uid, epoch, b"one", [], version=1)  # its next entry is gone
    with pytest.raises(Rejected, match="the tip"):
        bench.store.trim_journal(uid, epoch, answers[3].id, "place")
    assert bench.append(4).version == 5
    assert bench.store.meta().first == 3


def test_entries_of_another_journal_are_put_in_as_they_were(make_bench: Any, backend: Any) -> None:
    """A journal made again: ids, times and bytes stay; guards and epochs are given; then it goes on under its own epoch."""
    one, other = make_bench(backend), make_bench(backend)
    for n in range(5):
        one.append(n, b"0%d" % n, bumps=("a", f"job/{n}"))
    entries = one.store.read(0)
    with pytest.raises(Conflict, match="can not follow"):
        other.store.restore(other.meta.uid, entries[1:])
    other.store.restore(other.meta.uid, entries[:3])
    other.store.restore(other.meta.uid, entries[1:])  # a lost answer: what is there is passed over
    with pytest.raises(Rejected, match="not the one it was"):
        other.store.restore("x", entries)
    text = f"{one.meta.epoch}:1 {other.meta.epoch}:6"
    meta = other.store.restored(other.meta.uid, {"a": "5", "attempt/1": entries[2].id}, text)
    assert (meta.version, meta.floor, meta.epochs) == (5, 5, text)
    assert other.store.read(0) == entries
    assert other.store.bumps(["a", "attempt/1", "job/1"]) == [5, 3, 0]
    assert isinstance(other.append(4, since=("a",)), Conflicted)
    assert other.append(5, exact=(("attempt/1", entries[2].id),)).version == 6
    for late in (lambda: other.store.restore(other.meta.uid, entries), lambda: other.store.restored(other.meta.uid, {}, "")):
        with pytest.raises(Conflict, match="can not follow"):
            late()
    one.store.close()
    other.store.close()


def test_lease(bench: Any) -> None:
    assert bench.store.lease("one", 60_000)
    assert bench.store.lease("one", 60_000)
    assert not bench.store.lease("two", 60_000)
    assert not bench.store.lease("two", 0)
    assert bench.store.lease("one", 0)
    assert bench.store.lease("two", 60_000)


def test_subscription_follows_several_streams(bench: Any) -> None:
    keys = bench.keys
    bench.append(0, b"01")
    watcher = bench.store.subscribe({keys.journal: "0", keys.inbox("0"): "0"})
    try:
        assert watcher.poll(5.0) == [(keys.journal, bench.store.read(0))]
        assert watcher.poll(0.0) == []
        answer = bench.append(1, b"02", inbox=(("0", b"go"),))
        seen: dict[str, list[Any]] = {}
        while len(seen) < 2:
            for key, entries in watcher.poll(5.0):
                seen.setdefault(key, []).extend(entries)
        assert seen == {keys.journal: bench.store.read(1), keys.inbox("0"): [(answer.id, b"go")]}
        watcher.follow(keys.telemetry, "0")
        bench.store.push(keys.telemetry, [b"t"])
        [(key, messages)] = watcher.poll(5.0)
        assert (key, messages[0].data) == (keys.telemetry, b"t")
    finally:
        watcher.close()


def test_subscription_from_now_on(bench: Any) -> None:
    bench.append(0, b"01")
    watcher = bench.store.subscribe({bench.keys.journal: "$", bench.keys.log: "$"})
    assert watcher.poll(0.0) == []
    bench.append(1, b"02")
    assert [entry.payload for entry in watcher.poll(5.0)[0][1]] == [b"02"]
    watcher.close()


def test_a_watcher_ahead_of_the_tail_is_told(bench: Any) -> None:
    bench.append(0)
    for key in (bench.keys.journal, bench.keys.inbox("0")):
        with pytest.raises(Corrupt) as caught:
            bench.store.subscribe({key: f"9-{bench.meta.epoch}"}).poll(0.0)
        assert caught.value.code == "tail-behind"
    with pytest.raises(Corrupt) as caught:
        bench.store.subscribe({bench.keys.journal: f"1-{bench.meta.epoch + 1}"})
    assert caught.value.code == "forked"
    watcher = bench.store.subscribe({bench.keys.inbox("0"): f"1-{bench.meta.epoch}"})
    bench.append(1, inbox=(("0", b"go"),))
    assert watcher.poll(5.0)[0][1][0].data == b"go"
    watcher.close()


def test_namespaces_do_not_touch(bench: Any, make_bench: Any) -> None:
    other = make_bench(bench.backend)
    bench.append(0, bumps=("a",))
    assert other.store.meta().version == 0
    assert other.append(0, absent=("a",)).version == 1
    other.store.close()


def test_soft_memory_line(make_bench: Any, backend: Any) -> None:
    if backend.name == "fake":
        pytest.skip("fakeredis has no INFO")
    if backend.name == "memory":
        backend.raw.used_memory = 10
    bench = make_bench(backend, memory_limit=1)
    with pytest.raises(Unavailable) as caught:
        bench.append(0, refusable=True)
    assert caught.value.code == "full"
    assert bench.append(0).version == 1
    bench.store.close()
