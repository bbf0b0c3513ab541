"""HAZARD 16: the tables beside a journal, made anew of its entries' headers, on every kind of server."""

from __future__ import annotations

from typing import Any

import pytest

from fluxkv.journal.tables import Tables
from fluxkv.journal.wire import read_header
from fluxkv.kvs.errors import Conflict, Corrupt
from fluxkv.kvs.port import Append, Appended, Conflicted, StaleEpoch


def rebuild(bench: Any, epoch: int = 0, tip: int = -1) -> bool:
    tables, meta = Tables(), bench.store.meta()
    for entry in bench.store.read(0):
        tables.take(entry, read_header(entry))
    inboxes = sorted(tables.inboxes)
    done: bool = bench.store.rebuild(
        meta.uid, epoch or meta.epoch, meta.version if tip < 0 else tip, tables.guards, tables.producers, inboxes
    )
    return done


def written(bench: Any) -> None:
    bench.append(0, b"0a", bumps=("job/1", "closed/default", "attempt/1"), producer="worker", seq=1, inbox=(("node/0", b"x"),))
    bench.append(1, b"0b", bumps=("config",), clears=("closed/default",), producer="worker", seq=2)
    bench.append(2, b"0c", bumps=("closed/debug", "job/1"))


@pytest.mark.parametrize("table", ["guards", "producers", "inbox", "lost guards"])
def test_lost_and_mixed_up_tables_are_made_anew(bench: Any, table: str) -> None:
    written(bench)
    before = bench.store.meta()
    if table == "lost guards":
        bench.backend.forget(bench.keys.guards)
    else:
        bench.backend.alien(bench.keys.inbox("node/0") if table == "inbox" else getattr(bench.keys, table))
    some = {"bumps": ("x",), "producer": "worker", "seq": 3, "inbox": (("node/0", b"y"),)}
    with pytest.raises(Corrupt) as caught:
        bench.append(3, b"0d", **some)
    assert "fluxkv ops rebuild" in caught.value.hint
    assert rebuild(bench)
    assert not rebuild(bench)  # nothing is wrong any more
    after = bench.store.meta()
    assert after.epoch != before.epoch
    assert (after.version, after.floor) == (3, 3)
    assert isinstance(bench.append(3, b"0d", **some), StaleEpoch)
    here = {"epoch": after.epoch}
    # exact guards name what they named, what was cleared is absent, a job's own guard lies below the floor
    said = bench.append(3, b"0e", exact=(("attempt/1", f"1-{before.epoch}"), ("config", f"2-{before.epoch}")),
                        absent=("closed/default",), since=("job/1",), **here)  # fmt: skip
    assert (said.version, said.epoch) == (4, after.epoch)
    assert bench.append(3, since=("closed/debug",), **here) == Appended(5, after.epoch)  # bumped in 3, decided at 3
    assert bench.append(2, since=("closed/debug", "job/1"), **here) == Conflicted(("closed/debug", "job/1"))
    assert bench.append(3, absent=("closed/debug",), **here) == Conflicted(("closed/debug",))
    # what a producer has said is known
    assert bench.append(1, b"0b", producer="worker", seq=2, **here) == Appended(2, before.epoch, True)
    assert bench.append(5, b"0d", **some, **here).version == 6
    assert [message.data for message in bench.store.messages(bench.keys.inbox("node/0"))][-1] == b"y"


def test_whole_tables_are_left_alone_and_a_journal_that_went_on_too(bench: Any) -> None:
    written(bench)
    meta = bench.store.meta()
    assert not rebuild(bench)
    assert bench.store.meta() == meta
    bench.backend.forget(bench.keys.guards)
    for epoch, tip in ((meta.epoch, 2), (meta.epoch + 1, 3)):
        with pytest.raises(Conflict):
            rebuild(bench, epoch, tip)
    assert bench.store.meta() == meta


def test_a_journal_that_is_not_where_its_meta_says_is_not_mended(bench: Any) -> None:
    written(bench)
    bench.backend.forget(bench.keys.journal)
    with pytest.raises(Corrupt) as caught:
        bench.store.rebuild(bench.meta.uid, bench.meta.epoch, 3, {}, {}, [])
    assert "fluxkv journal salvage" in caught.value.hint


def test_more_rows_than_go_into_one_command(make_bench: Any, make_backend: Any, server_url: str) -> None:
    bench = make_bench(make_backend["real"](server_url))
    things = [f"key/{n}" for n in range(9_001)]
    bench.append(0, bumps=things)
    bench.backend.forget(bench.keys.guards)
    assert rebuild(bench)
    assert bench.store.bumps(things) == [1] * 9_001
    bench.store.close()


def test_half_of_it_lets_nobody_append(make_bench: Any, make_backend: Any, server_url: str) -> None:
    """Who dies on the way leaves a journal that says what is to be done, and a second one overtakes a first."""
    bench = make_bench(make_backend["real"](server_url))
    written(bench)
    bench.backend.forget(bench.keys.guards)
    keys, meta = bench.keys, bench.store.meta()
    tables = [keys.journal, keys.meta, keys.guards, keys.producers]
    step = bench.store._script
    assert step("rebuild", tables, [meta.uid, 77, "begin", meta.epoch, 3, "1"], resend=True) == [b"OK"]
    assert step("rebuild", tables, [meta.uid, 77, "guards", "x", "1"], resend=True) == [b"OK"]
    with pytest.raises(Corrupt):
        bench.store.append(Append(meta.uid, 77, 3, b"0x"))
    assert rebuild(bench)
    assert step("rebuild", tables, [meta.uid, 77, "end"], resend=True)[0] == b"MOVED"
    late = [meta.uid, bench.store.meta().epoch, "guards", "config", "1"]  # of the second one: a copy that comes when all is done
    assert step("rebuild", tables, late, resend=True)[0] == b"MOVED"
    assert bench.store.bumps(["x", "config"]) == [0, 2]
    bench.store.close()
