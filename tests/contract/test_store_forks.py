"""A history that lost what was acknowledged: said once and for all, written to by nobody, gone on from by adoption."""

from __future__ import annotations

from typing import Any

import pytest

from fluxkv.kvs.blobs import payload_hash
from fluxkv.kvs.children import Child
from fluxkv.kvs.epochs import Span, anchor, belongs, given_up, is_anchored, lost_beyond, settle, spans
from fluxkv.kvs.errors import Conflict, Corrupt, Rejected, Unavailable
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.kvs.port import Append, Appended, Conflicted, StaleEpoch


def _code(work: Any) -> str:
    with pytest.raises((Unavailable, Corrupt, Conflict)) as caught:
        work()
    return str(caught.value.code)


def test_nobody_writes_to_a_history_that_lost_something(bench: Any) -> None:
    bench.append(0)
    uid, epoch = bench.meta.uid, bench.meta.epoch
    assert bench.store.fence(uid, epoch, f"9-{epoch}") == f"9-{epoch}"
    assert bench.store.fence(uid, epoch, f"4-{epoch}") == f"9-{epoch}"  # the highest is kept
    with pytest.raises(Unavailable) as caught:
        bench.append(1)
    assert caught.value.code == "forked"
    assert f"9-{epoch}" in str(caught.value)
    assert "adopt" in caught.value.hint
    assert _code(lambda: bench.store.open_epoch(uid, epoch, 1)) == "forked"
    assert not bench.store.install_snapshot(uid, epoch, b"h", [])
    assert bench.store.meta().fork == f"9-{epoch}"
    assert [entry.version for entry in bench.store.read(0)] == [1]  # reading goes on


def test_nobody_fences_for_what_is_there(bench: Any) -> None:
    """A witness may have asked a server that lags, and says so to the one that does not."""
    bench.append(0)
    bench.append(1)
    uid, epoch = bench.meta.uid, bench.meta.epoch
    (entry,) = bench.store.entries([2])
    there, other = anchor(2, epoch, payload_hash(entry.payload)), anchor(2, epoch, payload_hash(b"0another"))
    assert is_anchored(entry, there)
    assert bench.store.fence(uid, epoch, f"2-{epoch}") == ""
    assert bench.store.fence(uid, epoch, there) == ""
    assert bench.append(2) == Appended(3, epoch)
    assert bench.store.fence(uid, epoch, f"2-{epoch + 1}") == f"2-{epoch + 1}"  # of another branch
    assert bench.store.fence(uid, epoch, other) == other  # the same id, and something else was there: that says more
    assert bench.store.fence(uid, epoch, there) == other
    with pytest.raises(Unavailable) as caught:
        bench.append(3)
    assert f" 2-{epoch} was in it" in str(caught.value)


def test_a_fence_is_taken_away_where_all_is_as_named(bench: Any) -> None:
    bench.append(0)
    uid, epoch = bench.meta.uid, bench.meta.epoch
    bench.store.fence(uid, epoch, f"9-{epoch}")
    assert _code(lambda: bench.store.unfence(uid, epoch, 1, f"8-{epoch}")) == "epoch"  # somebody knew more meanwhile
    assert _code(lambda: bench.store.unfence(uid, epoch, 2, f"9-{epoch}")) == "epoch"
    assert _code(lambda: bench.store.unfence(uid, epoch + 1, 1, f"9-{epoch}")) == "epoch"
    assert _refused(lambda: bench.store.unfence("other", epoch, 1, f"9-{epoch}")) == "gone"
    assert bench.store.meta().fork == f"9-{epoch}"
    for _ in range(2):
        bench.store.unfence(uid, epoch, 1, f"9-{epoch}")
    assert bench.append(1) == Appended(2, epoch)


def test_adoption_is_one_step_that_one_process_wins(bench: Any) -> None:
    bench.append(0)
    bench.append(1)
    uid, epoch = bench.meta.uid, bench.meta.epoch
    bench.store.fence(uid, epoch, f"9-{epoch}")
    assert _code(lambda: bench.store.adopt(uid, epoch, 1, (2, 9), b"0a")) == "epoch"  # not the tip
    made = bench.store.adopt(uid, epoch, 2, (3, 9), b"0adopted", b"\x81\xa2by\xa1x", (5, 6))
    assert made.version == 3
    assert made.epoch != epoch
    assert _code(lambda: bench.store.adopt(uid, epoch, 2, (3, 9), b"0a")) == "epoch"  # somebody was quicker
    meta = bench.store.meta()
    assert (meta.version, meta.epoch, meta.fork) == (3, made.epoch, "")
    assert spans(meta.epochs) == [Span(epoch, 1, 0, 0), Span(made.epoch, 3, 3, 9, (5, 6))]
    assert bench.store.read(2)[0].payload == b"0adopted"
    assert bench.append(3) == StaleEpoch(made.epoch)  # whoever decided on the old history decides again
    assert bench.append(3, epoch=made.epoch) == Appended(4, made.epoch)
    assert _code(lambda: bench.store.fence(uid, epoch, f"9-{epoch}")) == "epoch"  # late news of what was adopted


def test_what_is_left_of_a_sealed_history_is_adopted_and_gone_on_with(bench: Any) -> None:
    bench.append(0)
    uid, epoch = bench.meta.uid, bench.meta.epoch
    bench.store.fence(uid, epoch, f"9-{epoch}")
    bench.store.seal(uid)
    assert _code(lambda: bench.store.reopen(uid, epoch, 1)) == "forked"
    made = bench.store.adopt(uid, epoch, 1, (2, 9), b"0adopted")
    assert (bench.store.meta().sealed > 1e9, made.version) == (True, 2)  # that alone opens it to nobody
    meta = bench.store.reopen(uid, made.epoch, 2)
    assert (meta.sealed, meta.fork, meta.version, meta.uid != uid) == (0, "", 2, True)


def test_a_gone_instance_is_neither_fenced_nor_adopted(bench: Any) -> None:
    with pytest.raises(Rejected):
        bench.store.fence("other", bench.meta.epoch, "9-1")
    with pytest.raises(Rejected):
        bench.store.adopt("other", bench.meta.epoch, 0, (1, 9), b"0a")


def _refused(work: Any) -> str:
    with pytest.raises(Rejected) as caught:
        work()
    return str(caught.value.code)


def test_a_sealed_instance_is_read_and_written_by_nobody(bench: Any) -> None:
    bench.append(0)
    bench.store.put_blobs({"a": b"1"})
    uid = bench.meta.uid
    assert bench.store.meta().sealed == 0
    for _ in range(2):
        bench.store.seal(uid)
        assert _refused(lambda: bench.append(1)) == "ended"
        assert _refused(lambda: bench.store.put_blobs({"b": b"2"})) == "ended"
    meta = bench.store.meta()
    assert (meta.uid, meta.archive_uid, meta.sealed > 1e9) == (uid, uid, True)
    assert [entry.version for entry in bench.store.read(0)] == [1]
    assert bench.store.get_blobs(["a", "b"]) == [b"1", None]
    assert _refused(lambda: bench.store.seal("other")) == "gone"
    assert bench.store.touch_blobs(["a"]) == []


def test_children_are_over_when_what_began_them_guards_no_more(bench: Any) -> None:
    bench.append(0, bumps=("attempt/5", "attempt/6", "job/5"))
    entry = f"1-{bench.meta.epoch}"
    first, second, other = Child("ƒ6", 5, entry, "user"), Child("ƒ6.2", 5, "9-9"), Child("ƒ7", 6, entry)
    assert bench.store.children() == []
    for child in (other, first, second, first):
        bench.store.note_child(child)
    assert bench.store.children() == [first, second._replace(over=True), other]
    bench.append(1, clears=("attempt/5",))
    assert bench.store.children() == [first._replace(over=True), second._replace(over=True), other]
    for child in (second, second, Child("ƒ6", 7, entry)):
        bench.store.forget_child(child)
    assert bench.store.children() == [first._replace(over=True), other]


def test_no_child_is_over_while_the_guards_are_away(bench: Any) -> None:
    bench.append(0)
    bench.store.note_child(Child("ƒ6", 5, "1-1"))
    bench.backend.forget(bench.store.keys.guards)
    assert [child.over for child in bench.store.children()] == [False]


def test_a_reopened_instance_is_somebody_else_s(bench: Any) -> None:
    """Sealed or not: uid and epoch are new in one step, which one of several wins; whoever wrote before is refused."""
    bench.append(0)
    before = bench.meta
    assert _code(lambda: bench.store.reopen(before.uid, before.epoch, 7)) == "epoch"  # not the tip
    made = bench.store.reopen(before.uid, before.epoch, 1)
    assert (made.version, made.uid != before.uid, made.epoch != before.epoch) == (1, True, True)
    assert spans(made.epochs) == [Span(before.epoch, 1, 0, 0), Span(made.epoch, 2, 0, 0)]
    for work in (lambda: bench.append(1), lambda: bench.store.reopen(before.uid, before.epoch, 1)):
        with pytest.raises(Rejected) as caught:
            work()
        assert caught.value.code == "gone"
    assert bench.store.append(Append(made.uid, made.epoch, 1, b"0again", bumps=("a",))) == Appended(2, made.epoch)
    bench.store.seal(made.uid)
    again = bench.store.reopen(made.uid, made.epoch, 2)
    assert (again.uid != made.uid, again.archive_uid, made.archive_uid, again.sealed) == (True, before.uid, before.uid, 0)
    bench.store.fence(again.uid, again.epoch, f"9-{again.epoch}")
    assert _code(lambda: bench.store.reopen(again.uid, again.epoch, 2)) == "forked"


def test_what_has_ended_takes_less_and_is_read_as_before(bench: Any) -> None:
    """Messages for those who are gone go; the streams that are kept are the same, entry for entry. Only of what is sealed."""
    bench.append(0, b"0one", bumps=("job/1", "node/0"))
    keys, uid = bench.store.keys, bench.meta.uid
    bench.store.push(keys.log, [b"a word"] * 3)
    bench.store.push(keys.output(1), [b"printed"])
    bench.store.push(keys.telemetry, [b"beat"])
    entries, log = bench.store.read(0), bench.store.messages(keys.log)
    bench.store.push(keys.output(205), [b"printed last"])
    packed = [keys.journal, keys.log, keys.guards, *(keys.output(job) for job in range(1, 206))]  # more than one step
    dropped = [keys.telemetry, keys.waited, keys.inbox("node/0")]
    assert not bench.store.shrink(uid, packed, dropped)
    assert len(bench.store.messages(keys.telemetry)) == 1
    bench.store.seal(uid)
    assert not bench.store.shrink("other", packed, dropped)
    for _ in range(2):
        assert bench.store.shrink(uid, packed, dropped)
        assert bench.store.messages(keys.telemetry) == []
        assert (bench.store.read(0), bench.store.messages(keys.log)) == (entries, log)
        assert bench.store.bumps(["job/1", "node/0"]) == [1, 1]
        assert [one.data for one in bench.store.messages(keys.output(1))] == [b"printed"]
        assert bench.store.messages(keys.output(2)) == []
        assert [one.data for one in bench.store.messages(keys.output(205))] == [b"printed last"]
    made = bench.store.reopen(uid, bench.meta.epoch, 1)
    assert not bench.store.shrink(uid, packed, dropped)
    assert bench.store.append(Append(made.uid, made.epoch, 1, b"0two", bumps=("job/1",))) == Appended(2, made.epoch)
    assert [one.version for one in bench.store.read(0)] == [1, 2]


def test_every_epoch_is_remembered(bench: Any) -> None:
    bench.append(0)
    meta = bench.store.open_epoch(bench.meta.uid, bench.meta.epoch, 1)
    assert spans(meta.epochs) == [Span(bench.meta.epoch, 1, 0, 0), Span(meta.epoch, 2, 0, 0)]
    again = bench.store.open_epoch(meta.uid, meta.epoch, 1)
    assert again.epoch not in (meta.epoch, bench.meta.epoch)


def test_what_was_decided_on_another_tail_of_the_same_epoch_is_refused(bench: Any) -> None:
    """HAZARD 15: the tail was cut and has grown again under the same epoch: ids fit, what stands there does not."""
    bench.append(0, b"0ours", bumps=("a",))
    entry = bench.store.read(0)[0]
    ours, theirs = (anchor(1, entry.epoch, payload_hash(payload)) for payload in (b"0ours", b"0theirs"))
    assert is_anchored(entry, ours)
    assert not is_anchored(entry, theirs)
    assert _code(lambda: bench.append(1, anchor=theirs)) == "forked"
    assert _code(lambda: bench.append(2)) == "forked"  # decided on a tip that is not there any more
    assert bench.append(1, anchor=ours).version == 2
    assert bench.append(1, anchor=ours).version == 3  # one that is not the tip is looked up
    assert _code(lambda: bench.append(1, anchor=theirs)) == "forked"
    assert bench.store.install_snapshot(bench.meta.uid, entry.epoch, b"head", [], version=2)
    bench.store.trim_journal(bench.meta.uid, entry.epoch, f"1-{entry.epoch}", "place")
    assert bench.append(1, anchor=theirs).version == 4  # archived: nothing to compare with


def test_a_bare_version_of_another_branch_matches_no_attempt(bench: Any) -> None:
    """HAZARD 15: a report about attempt 1 of the lost branch must not pass for attempt 1 of this one."""
    bench.append(0, bumps=("attempt/5", "config", "job/5"))
    epoch = bench.meta.epoch
    for thing in ("attempt/5", "config"):
        assert bench.append(1, exact=((thing, f"1-{epoch}"),)).version
        assert bench.append(1, exact=((thing, f"1-{epoch + 1}"),)) == Conflicted((thing,))
        assert bench.append(1, exact=((thing, 1),)).version  # as an older program names it
        assert bench.append(1, exact=((thing, 2),)) == Conflicted((thing,))
    assert bench.store.bumps(["attempt/5", "config", "job/5"]) == [1, 1, 1]
    assert bench.append(1, since=("attempt/5",)).version


def test_an_attempt_can_be_set_to_another_branch_s(bench: Any) -> None:
    tip = bench.append(0, sets=(("attempt/5", "77-123"),)).version
    assert bench.append(tip, exact=(("attempt/5", "77-123"),)).version == 2
    assert bench.append(tip, exact=(("attempt/5", f"1-{bench.meta.epoch}"),)) == Conflicted(("attempt/5",))
    header = bench.store.read(0)[0].header
    assert b"attempt/5=77-123" in header  # the table can be made again from the headers
    for wrong in (("job/5", "77-1"), ("attempt/5", "77"), ("attempt/5", "0-0")):
        with pytest.raises(Rejected):
            bench.append(tip, sets=(wrong,))


def test_a_snapshot_of_another_branch_is_not_installed(bench: Any) -> None:
    """HAZARD 19."""
    bench.append(0, b"0x")
    uid, epoch = bench.meta.uid, bench.meta.epoch
    there = anchor(1, epoch, payload_hash(b"0x"))
    assert bench.store.install_snapshot(uid, epoch, b"h", [b"c"], there)
    assert not bench.store.install_snapshot(uid, epoch, b"no", [], there.replace("1-", "2-", 1))  # ahead
    assert not bench.store.install_snapshot(uid, epoch, b"no", [], f"1-{epoch}:0011223344556677")  # another entry
    assert not bench.store.install_snapshot(uid, epoch, b"no", [], anchor(1, epoch + 1, payload_hash(b"0x")))
    assert bench.store.load_snapshot() == (b"h", [b"c"])


def _again(watcher: Any) -> Any:
    """Poll as after a lost connection: positions are compared at once, not after a second of silence."""
    watcher._drop() if hasattr(watcher, "_drop") else None
    return watcher.poll(0.0)


def test_a_watcher_of_a_tail_that_was_cut_and_has_regrown_is_told(bench: Any) -> None:
    """HAZARD 15, 20: a backup was put back under a running server: same epoch, same replication id, even the same ids."""
    for version in range(2):
        bench.append(version)
    restore = bench.backend.backup(bench.namespace)
    for version in range(2, 4):
        bench.append(version, b"0lost")
    watcher = bench.store.subscribe({bench.keys.journal: "0"})
    assert [entry.version for entry in watcher.poll(5.0)[0][1]] == [1, 2, 3, 4]
    restore()
    assert _code(lambda: _again(watcher)) == "tail-behind"
    for version in range(2, 6):
        bench.append(version, b"0new")
    assert bench.store.read(3, 1)[0].id == f"4-{bench.meta.epoch}"
    assert _code(lambda: _again(watcher)) == "forked"
    watcher.close()


def test_an_inbox_cursor_past_the_inbox_s_new_end_is_told(bench: Any) -> None:
    """HAZARD 20: whoever reads an inbox from there on would wait in silence, or miss what comes."""
    bench.append(0, inbox=(("node/0", b"one"),))
    restore = bench.backend.backup(bench.namespace)
    bench.append(1)
    bench.append(2, inbox=(("node/0", b"lost"),))
    inbox = bench.keys.inbox("node/0")
    watcher = bench.store.subscribe({inbox: f"3-{bench.meta.epoch}"})
    assert watcher.poll(0.0) == []
    restore()
    assert _code(lambda: _again(watcher)) == "tail-behind"
    made = bench.store.adopt(bench.meta.uid, bench.meta.epoch, 1, (2, 3), b"0adopted")
    for version in range(2, 6):
        bench.append(version, epoch=made.epoch, inbox=(("node/0", b"new"),))
    assert _code(lambda: _again(watcher)) == "forked"  # though the tip is past its position again
    cursor = settle(bench.store.meta().epochs, 6, f"3-{bench.meta.epoch}")
    assert cursor == f"1-{bench.meta.epoch}"
    watcher.follow(inbox, cursor)
    assert [message.data for message in watcher.poll(5.0)[0][1]] == [b"new"] * 4
    watcher.close()


def test_a_fail_over_of_the_memory_server_takes_back_the_last_commits() -> None:
    server = MemoryServer()
    server.remember = 50
    store = MemoryStore(server)
    meta = store.create(durability="strict", origin_ms=0, created=0.0)

    def append(version: int, **fields: Any) -> Any:
        return store.append(Append(meta.uid, store.meta().epoch, version, b"0x", **fields))

    append(0, bumps=("job/1", "attempt/1"), producer="w", seq=1)
    append(1, bumps=("job/1",), inbox=(("node/0", b"first"),))
    before = server.copy_tables()
    watcher = store.subscribe({store.keys.journal: f"2-{meta.epoch}"})
    append(2, bumps=("job/2",), clears=("job/1",), sets=(("attempt/1", "9-9"),), producer="w", seq=2)
    append(3, bumps=("job/3",), inbox=(("node/0", b"lost"),))
    assert store.install_snapshot(meta.uid, meta.epoch, b"h", [])
    store.trim(store.keys.inbox("node/0"), f"2-{meta.epoch}")
    store.prune_guards(meta.uid, meta.epoch, 3)
    assert server.fail_over(2) == 2
    assert server.tables == before  # journal, guards, producers, inboxes, snapshot, floor
    assert store.append(Append(meta.uid, meta.epoch, 2, b"0x")) == StaleEpoch(meta.epoch)
    made = store.adopt(meta.uid, meta.epoch, 2, (3, 4), b"0adopt")
    assert append(3, producer="w", seq=2) == Appended(4, made.epoch)
    watcher.close()


def test_positions_and_epochs() -> None:
    """`settle`: whoever reads on after a fork goes on at the last entry both branches have."""
    text, tip = "70:1 80:11 90:21!21-33 95:26", 40
    assert belongs(text, tip, 10, 70)
    assert belongs(text, tip, 20, 80)
    assert not belongs(text, tip, 21, 80)  # regrown
    assert belongs(text, tip, 20, 90)  # where the next epoch begins
    assert not belongs(text, tip, 19, 90)
    assert not belongs(text, tip, 41, 95)
    assert not belongs(text, tip, 15, 81)
    assert belongs(text, tip, 0, 0)
    assert settle(text, tip, "15-80") == "15-80"
    assert settle(text, tip, "30-80") == "20-80"
    assert settle(text, tip, "33-99") == "20-80"  # an epoch that only the lost branch had
    assert settle(text, tip, "60-95") == "40-95"
    assert lost_beyond(text, tip, 33, 80) == (21, 33)
    assert lost_beyond(text, tip, 60, 95) == (41, 60)
    assert given_up(text, 33, 80)
    assert given_up(text, 33, 99)
    assert not given_up(text, 60, 95)
    late = "70:1 80:11 90:13!11-15"  # the loss of 11 to 15 of epoch 70 was noticed when 80 had been opened already
    assert given_up(late, 15, 70)
    assert given_up(late, 11, 70)
    assert not given_up(late, 16, 70)
    assert not given_up("70:1 80:11", 15, 70)  # taken up by somebody who knew of no loss
    assert belongs("90:21!21-33", 40, 15, 7)  # of what lies before the first line nothing is known
    assert settle("", 40, "41-7") == "40-7"
