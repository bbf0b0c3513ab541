"""Lost requests, lost answers, restarted servers: what is written once, what is detected, what is said."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances.paths import open_instance
from fluxkv.kvs.errors import Corrupt, Rejected, Unavailable
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.kvs.port import Append, Appended, Conflicted, Gap, StaleEpoch
from fluxkv.kvs.redis_store import RedisStore
from fluxkv.kvs.resp import RespConnection
from fluxkv.kvs.server import start_server, wait_ended


class Flaky:
    """Connections that lose things as told: `plan` is eaten by the appends, "" is well."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.plan: list[str] = []
        self.connects = 0
        self.between: Any = None  # called after a lost answer
        self.away = 0  # so many connects find nobody

    def __call__(self) -> Any:
        self.connects += 1
        if self.away:
            self.away -= 1
            raise Unavailable("no server answers", code="unreachable")
        return _FlakyConnection(self)


class _FlakyConnection(RespConnection):
    __slots__ = ("flaky",)

    def __init__(self, flaky: Flaky) -> None:
        super().__init__(flaky.url)
        self.flaky = flaky

    def _lossy(self, work: Any, counted: bool) -> Any:
        fate = self.flaky.plan.pop(0) if counted and self.flaky.plan else ""
        if fate == "request":
            self.close()
            raise Unavailable("lost the request", code="disconnected")
        reply = work()
        if fate == "answer":
            self.close()
            if self.flaky.between is not None:
                self.flaky.between()
            raise Unavailable("lost the answer", code="timeout")
        return reply

    def call(self, *args: Any) -> Any:
        return self._lossy(lambda: super(_FlakyConnection, self).call(*args), args[0] in ("EVALSHA", "DEL"))

    def pipeline(self, commands: Any) -> Any:
        counted = commands[0][0] in ("EVALSHA", "XADD")
        return self._lossy(lambda: super(_FlakyConnection, self).pipeline(commands), counted)


@pytest.fixture
def flaky(make_bench: Any, make_backend: Any, server_url: str) -> Iterator[tuple[Flaky, Any]]:
    bench = make_bench(make_backend["real"](server_url))
    bench.append(0, b"0first")  # the script is known to the server now
    connect = Flaky(server_url)
    bench.plain, bench.store = bench.store, RedisStore(connect, bench.namespace, patience_s=2.0)
    yield connect, bench
    bench.store.close()
    bench.plain.close()


@pytest.mark.parametrize("fate", ["request", "answer"])
def test_a_producers_commit_is_taken_once(flaky: Any, fate: str) -> None:
    connect, bench = flaky
    connect.plan = [fate, fate, ""]
    answer = bench.append(1, b"0x", producer="p", seq=1)
    assert answer == Appended(2, bench.meta.epoch, fate == "answer")
    assert len(bench.store.read(0)) == 2
    assert connect.connects == 3


@pytest.mark.parametrize("fate", ["request", "answer"])
def test_a_guarded_commit_is_taken_once(flaky: Any, fate: str) -> None:
    connect, bench = flaky
    connect.plan = [fate, ""]
    answer = bench.append(1, b"0x", absent=("job/1",), bumps=("job/1",))
    assert answer == Appended(2, bench.meta.epoch, fate == "answer")
    assert len(bench.store.read(0)) == 2


def test_its_own_commit_is_found_behind_others(flaky: Any) -> None:
    connect, bench = flaky
    connect.plan = ["answer", ""]

    def others() -> None:
        for n in range(300):
            bench.plain.append(bench.request(2, b"0other%d" % n, bumps=("node/0", "job/1")))

    connect.between = others
    answer = bench.append(1, b"0x", since=("node/0", "job/1"), bumps=("job/1",))
    assert answer == Appended(2, bench.meta.epoch, True)
    assert bench.store.meta().version == 302


def test_a_real_conflict_after_a_loss_is_a_conflict(flaky: Any) -> None:
    connect, bench = flaky
    bench.plain.append(bench.request(1, bumps=("job/1",)))
    connect.plan = ["request", ""]
    assert bench.append(1, b"0x", since=("job/1",), bumps=("job/1",)) == Conflicted(("job/1",))


def test_what_nothing_protects_is_not_sent_twice(flaky: Any) -> None:
    connect, bench = flaky
    connect.plan = ["answer"]
    with pytest.raises(Unavailable) as caught:
        bench.append(1, b"0x", exact=(), bumps=("job/1",))
    assert caught.value.code == "outcome-unknown"
    assert len(bench.store.read(0)) == 2


def test_a_pipeline_whose_answers_are_lost(flaky: Any) -> None:
    connect, bench = flaky
    connect.plan = ["answer", ""]
    requests = [bench.request(1, b"0%d" % n, producer="p", seq=n, bumps=("a",)) for n in (1, 2, 3)]
    assert bench.store.append_many(requests) == [Appended(n + 1, bench.meta.epoch, True) for n in (1, 2, 3)]
    assert bench.store.meta().version == 4
    assert bench.append(1, b"04", producer="p", seq=5) == Gap(3)


def test_a_push_is_never_doubled(flaky: Any) -> None:
    connect, bench = flaky
    connect.plan = ["answer"]
    with pytest.raises(Unavailable):
        bench.store.push(bench.keys.log, [b"x"])
    assert len(bench.store.messages(bench.keys.log)) == 1


def test_patience_ends(flaky: Any) -> None:
    connect, bench = flaky
    impatient = RedisStore(connect, bench.namespace, patience_s=0.05)
    impatient.meta()
    connect.plan = ["answer"] * 50
    with pytest.raises(Unavailable) as caught:
        impatient.append(bench.request(1, b"0x", producer="p", seq=1))
    assert caught.value.code == "outcome-unknown"
    impatient.close()


def test_who_begins_to_follow_while_the_server_comes_back_waits_for_it(flaky: Any) -> None:
    connect, bench = flaky
    tip = bench.store.read(0)[-1].id
    connect.away = 2
    with contextlib.closing(bench.store.subscribe({bench.keys.journal: tip})) as subscription:
        bench.plain.append(bench.request(1, b"0x"))
        ((_, (entry,)),) = subscription.poll(5.0)
    assert (connect.away, entry.payload) == (0, b"0x")
    connects = connect.connects
    with pytest.raises(Corrupt) as caught:
        bench.store.subscribe({bench.keys.journal: "9-9"})
    assert (caught.value.code, connect.connects - connects) == ("tail-behind", 1), "waiting mends no history"
    impatient = RedisStore(connect, bench.namespace, patience_s=0.0)
    connect.away = 1
    with pytest.raises(Unavailable, match="no server answers"):
        impatient.subscribe({bench.keys.journal: "0"})


def test_a_child_that_cannot_be_opened_leaves_no_connection(flaky: Any, server_url: str) -> None:
    _, bench = flaky
    bench.backend.alien(bench.keys.meta)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Corrupt) as caught:
        open_instance(f"{server_url}#{bench.namespace}")
    assert len(os.listdir("/proc/self/fd")) == len(before), caught.traceback


def test_another_instance_after_a_reconnect(flaky: Any) -> None:
    _, bench = flaky
    bench.store.meta()
    bench.store._connection.close()
    bench.backend.forget(bench.keys.meta)
    with pytest.raises(Rejected) as caught:
        bench.store.read(0)
    assert caught.value.code == "gone"


def test_nobody_there_is_said_at_once(tmp_path: Path) -> None:
    store = RedisStore(f"unix:{tmp_path}/no.sock", "/")
    with pytest.raises(Unavailable) as caught:
        store.meta()
    assert caught.value.code == "unreachable"
    assert f"{tmp_path}/no.sock" in str(caught.value)
    assert caught.value.hint


def test_killed_and_restarted_server(tmp_path: Path) -> None:
    """kill -9, restart, silent reconnect: the old epoch is over, the journal whole, a new one goes on."""
    handle = start_server(str(tmp_path / "s"), "strict")
    store = RedisStore(handle.url, "/")
    meta = store.create(durability="strict", origin_ms=0, created=0.0)

    def request(version: int, epoch: int) -> Append:
        job = f"job/{version}"
        return Append(meta.uid, epoch, version, b"0x", absent=(job,), bumps=(job,))

    for version in range(20):
        assert isinstance(store.append(request(version, meta.epoch)), Appended)
    watcher = store.subscribe({store.keys.journal: f"20-{meta.epoch}"})
    os.kill(handle.pid, signal.SIGKILL)
    wait_ended(handle.pid, 10.0)
    handle = start_server(str(tmp_path / "s"), "strict")
    assert handle.started
    assert store.append(request(20, meta.epoch)) == StaleEpoch(meta.epoch)
    assert not store.install_snapshot(meta.uid, meta.epoch, b"h", [])
    assert store.meta().version == 20
    assert len(store.read(0)) == 20
    new = store.open_epoch(meta.uid, meta.epoch, 20)
    assert store.append(request(20, new.epoch)) == Appended(21, new.epoch)
    with pytest.raises(Unavailable):  # it says so once, then goes on from its position
        watcher.poll(0.0)
    assert watcher.poll(5.0)[0][1] == store.read(20)
    watcher.close()
    # FLUSHDB keeps the replication id; the uid is gone with the rest.
    raw = RespConnection(handle.url)
    watcher = store.subscribe({store.keys.journal: f"21-{new.epoch}"})
    raw.call("FLUSHDB")
    raw.close()
    with pytest.raises(Rejected) as caught:
        store.append(request(21, new.epoch))
    assert caught.value.code == "gone"
    with pytest.raises((Rejected, Corrupt)):
        watcher.poll(10.0)  # within a second of silence
    store.close()
    watcher.close()
    handle.stop()


def test_memory_server_faults() -> None:
    """The simulator's disk: restarts, outages, lost answers, a tail that goes back."""
    server = MemoryServer()
    store = MemoryStore(server, "/")
    meta = store.create(durability="strict", origin_ms=0, created=0.0)
    request = Append(meta.uid, meta.epoch, 0, b"0x", producer="p", seq=1)
    before = server.copy_tables()

    def lose(operation: str, when: str) -> None:
        if (operation, when) == ("append", "after"):
            raise Unavailable("lost the answer", code="timeout")

    server.fault = lose
    with pytest.raises(Unavailable):
        store.append(request)
    server.fault = None
    assert store.append(request) == Appended(1, meta.epoch, True)
    watcher = store.subscribe({store.keys.journal: f"1-{meta.epoch}"})
    server.put_back(before)
    with pytest.raises(Corrupt) as caught:
        watcher.poll()
    assert caught.value.code == "tail-behind"
    server.restart()
    assert store.append(request) == StaleEpoch(meta.epoch)
    new = store.open_epoch(meta.uid, meta.epoch, 0)
    assert store.append(Append(meta.uid, new.epoch, 0, b"0y")) == Appended(1, new.epoch)
    with pytest.raises(Corrupt) as caught:
        watcher.poll()
    assert caught.value.code == "forked"
    server.down = True
    with pytest.raises(Unavailable):
        store.read(0)
    server.down = False
    server.wipe()
    with pytest.raises(Rejected):
        store.append(request)
    watcher.close()


def test_memory_watcher_has_a_descriptor() -> None:
    import select

    server = MemoryServer()
    store = MemoryStore(server, "/")
    meta = store.create(durability="strict", origin_ms=0, created=0.0)
    watcher = store.subscribe({store.keys.journal: "0"})
    descriptor = watcher.fileno()
    watcher.poll()
    assert select.select([descriptor], [], [], 0)[0] == []
    store.append(Append(meta.uid, meta.epoch, 0, b"0x"))
    assert select.select([descriptor], [], [], 0)[0] == [descriptor]
    assert len(watcher.poll()[0][1]) == 1
    watcher.close()
