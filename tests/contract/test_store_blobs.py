"""Blobs come, are wanted and go: the same on all stores, and never one that somebody is about to name (HAZARD 22)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from fluxkv.instances import retention
from fluxkv.instances.submission import Submitter, keep_files
from fluxkv.journal.archive import Archive
from fluxkv.journal.archive_config import SHORTEST_UNUSED_S
from fluxkv.journal.decide import Decision
from fluxkv.journal.file_archive import make_file
from fluxkv.journal.log import Journal
from fluxkv.kvs.blobs import blob_name
from fluxkv.kvs.errors import Conflict, Rejected, Unavailable
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.kvs.port import Appended, Store

OLD, NEW = b"old " * 10, b"new " * 10
SOON = 1e12  # later than anything was touched


def test_idle_blobs_go_and_others_stay(bench: Any) -> None:
    store, names = bench.store, [blob_name(data) for data in (OLD, NEW)]
    store.put_blobs({names[0]: OLD})
    assert store.touch_blobs(names) == [names[1]]
    store.put_blobs({names[1]: NEW})
    assert store.idle_blobs(0.0) == []
    assert sorted(store.idle_blobs(SOON)) == sorted(names)
    tip = bench.append(0).id
    with pytest.raises(Conflict, match="ends at"):
        store.collect_blobs(bench.meta.uid, "0-0", SOON, names)
    with pytest.raises(Rejected, match="not the one it was"):
        store.collect_blobs("x", tip, SOON, names)
    assert store.collect_blobs(bench.meta.uid, tip, 1.0, names) == 0  # touched since
    assert store.collect_blobs(bench.meta.uid, tip, SOON, [names[0], "0" * 40]) == 1
    assert store.get_blobs(names) == [None, NEW]
    assert store.idle_blobs(SOON) == [names[1]]


def test_outputs_are_found(bench: Any) -> None:
    keys = bench.keys
    for key in (keys.output(7), keys.input(8), keys.log, keys.inbox("output:9")):
        bench.store.push(key, [b"x"])
    found = bench.store.outputs()
    assert set(found) == {7, 8}
    assert all(abs(bench.store.now() - at) < 60 for at in found.values())
    bench.store.delete(*keys.streams_of_job(7), *keys.streams_of_job(8))
    assert bench.store.outputs() == {}


# -- HAZARD 22 --------------------------------------------------------------------------------------------------------


def named(store: Store, data: bytes) -> Decision:
    """A commit that names a blob."""
    return Decision([["submit", 1, store.now(), {"env": blob_name(data), "jobspec": {}}]])


class Interrupting:
    """A store whose n-th call lets somebody else act before it."""

    def __init__(self, store: Store, at: int, act: Callable[[], object]) -> None:
        self._store, self._left, self._act = store, at, act

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def call(*args: Any, **more: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self._act()
            return found(*args, **more)

        return call


def age(bench: Any, name: str, data: bytes = OLD) -> None:
    """A blob that lies there, touched long ago."""
    bench.store.put_blobs({name: data})
    if bench.backend.name == "memory":
        bench.store.server.tables.touched[bench.store.namespace][name] = 0.0
    else:
        bench.store._ask("HSET", bench.keys.touched, name, "0")


def collected(bench: Any, wanted_at: int, want: Callable[[], object], named_at: int) -> bool:
    """A run of the collector; before its call of these numbers the blob is wanted, and then named; if there are not so many,
    after all. Whether it was named before the end."""
    inner: Any = Interrupting(bench.store, named_at, lambda: say(bench))
    collector = Journal(bench.store)
    collector.store = watched = Interrupting(inner, wanted_at, want)  # type: ignore[assignment]
    retention.collect(collector, bench.store.now() - 1.0)
    during = inner._left <= 0
    for one, act in ((watched, want), (inner, lambda: say(bench))):
        if one._left > 0:
            act()
    return during


def say(bench: Any) -> None:
    answer = Journal(bench.store).append(named(bench.store, OLD), bench.store.meta().version)
    assert isinstance(answer, Appended)


@pytest.mark.parametrize("how", ["put", "touch", "late"])
def test_a_blob_wanted_and_then_named_is_never_collected(backend: Any, make_bench: Any, how: str) -> None:
    """HAZARD 22: it lies there unnamed for long, is wanted, then named, before any two steps of the collector. Who is slower
    than the collector's patience is safe, too, once the name is in the journal ("late")."""
    name, within = blob_name(OLD), 0
    steps = range(1, 9) if backend.name == "memory" else (5, 7)  # the model is asked everything, servers the steps that matter

    def want() -> None:
        if how == "put" or (how == "touch" and bench.store.touch_blobs([name])):
            bench.store.put_blobs({name: OLD})

    for wanted_at, named_at in itertools.combinations_with_replacement(steps, 2):
        bench = make_bench(backend)
        bench.append(0)
        age(bench, name)
        during = collected(bench, wanted_at, want, named_at)
        if during or how != "late":
            assert bench.store.get_blobs([name]) == [OLD], (wanted_at, named_at)
        within += during
        bench.store.close()
    assert within >= 1


def test_a_blob_that_nobody_names_is_collected(bench: Any) -> None:
    name = blob_name(OLD)
    bench.append(0)
    age(bench, name)
    assert retention.collect(Journal(bench.store), bench.store.now() - 1.0, dry_run=True) == 1
    assert retention.collect(Journal(bench.store), bench.store.now() - 1.0) == 1
    assert bench.store.get_blobs([name]) == [None]


class Now:
    """time.monotonic that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_a_submitter_of_long_ago_puts_its_environment_again(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """HAZARD 22: an executor that remembers for days what it has put."""
    from fluxkv.instances import submission

    clock = Now()
    monkeypatch.setattr(submission, "time", clock)
    submitter = Submitter(bench.store)
    submitter._put({blob_name(OLD): OLD})
    age(bench, blob_name(OLD))
    submitter._put({blob_name(OLD): OLD})
    assert bench.store.idle_blobs(1.0) == [blob_name(OLD)]  # it was put a moment ago: nothing to do
    clock.now += submission.PUT_AGAIN_S
    assert submission.PUT_AGAIN_S < SHORTEST_UNUSED_S / 2
    submitter._put({blob_name(OLD): OLD})
    assert bench.store.idle_blobs(1.0) == []


def test_files_that_a_job_names_are_wanted_or_brought_back(bench: Any, tmp_path: Any) -> None:
    """A job submitted anew names contents of an old one: they stay, or come back from the archive."""
    blobs: dict[str, bytes] = {}
    files = {"data": make_file(NEW * 200, 0o644, 0, blobs)}
    jobspec = {"attributes": {"system": {"files": files}}}
    (name,) = blobs
    age(bench, name, blobs[name])
    keep_files(bench.store, [jobspec, {}, {"attributes": None}])
    assert bench.store.idle_blobs(1.0) == []
    place = Archive(bench.store.depot(str(tmp_path)), bench.meta.uid)
    ids = [bench.append(n).id for n in range(3)]
    place.add(bench.store.read(0, 2))
    place.put_blob(name, blobs[name])
    assert bench.store.install_snapshot(bench.meta.uid, bench.meta.epoch, b"head", [], version=2)
    bench.store.trim_journal(bench.meta.uid, bench.meta.epoch, ids[1], str(tmp_path))
    assert bench.store.collect_blobs(bench.meta.uid, ids[2], SOON, [name]) == 1
    keep_files(bench.store, [jobspec])
    assert bench.store.get_blobs([name]) == [blobs[name]]


def test_past_the_soft_line_no_blob_comes_that_is_not_there(bench: Any) -> None:
    """A blob is put before the commit that is refused: what is refused must not fill the memory all the same."""
    if bench.backend.name == "fake":
        pytest.skip("fakeredis has no INFO")
    store, (old, new) = bench.store, (blob_name(OLD), blob_name(NEW))
    store.put_blobs({old: OLD})
    uid = store.meta().uid
    if isinstance(store, MemoryStore):
        store.server.used_memory = 1000
    store.set_room(uid, 10)
    with pytest.raises(Unavailable) as caught:
        store.put_blobs({old: OLD, new: NEW})
    assert caught.value.code == "full"
    store.put_blobs({old: OLD})
    assert store.touch_blobs([old, new]) == [new]
    store.set_room(uid, 1 << 50)
    store.put_blobs({new: NEW})
    assert store.get_blobs([old, new]) == [OLD, NEW]
