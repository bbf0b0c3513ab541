"""Durability `replicated` on a primary and its replica: what is acknowledged both have; what one of them has not is said so."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.kvs.port import Append, Appended
from fluxkv.kvs.redis_store import RedisStore
from fluxkv.kvs.replicated import wanted
from fluxkv.kvs.resp import RespConnection
from tests.support.servers import Served

WAIT_MS = 150


class Pair:
    """A primary and a replica that can be stopped and go on."""

    def __init__(self, folder: Path) -> None:
        common = ("--repl-diskless-sync-delay", "0", "--appendonly", "yes", "--appendfsync", "always", "--save", "")
        self.primary = Served(folder / "primary", *common, config=None)
        self.replica = Served(folder / "replica", *common, config=None)

    def start(self) -> None:
        self.primary.start()
        self.replica.options += ("--replicaof", "127.0.0.1", str(self.primary.port))
        self.replica.start()
        self.replica.until(lambda: self.replica.info("replication").get("master_link_status") == "up")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("pair"))
    try:
        made.start()
        yield made
    finally:
        made.replica.kill()
        made.primary.kill()


@pytest.fixture
def place(pair: Pair, request: pytest.FixtureRequest) -> Iterator[tuple[Pair, RedisStore, Any]]:
    pair.primary.ask("FLUSHALL")
    pair.primary.ask("CONFIG", "SET", "min-replicas-to-write", "0")
    store = RedisStore(pair.primary.url, "/", patience_s=0.5)
    meta = store.create(durability="replicated", origin_ms=0, created=0.0, replicas=wanted(1, WAIT_MS))
    yield pair, store, meta
    pair.replica.signal(signal.SIGCONT)
    store.close()


def _request(meta: Any, version: int, **fields: Any) -> Append:
    return Append(meta.uid, meta.epoch, version, b"0x", bumps=(f"job/{version}",), absent=(f"job/{version}",), **fields)


def test_what_is_acknowledged_the_replica_has(place: Any) -> None:
    pair, store, meta = place
    assert store.meta().replicas == f"1:{WAIT_MS}"
    for version in range(20):
        assert store.append(_request(meta, version)) == Appended(version + 1, meta.epoch)
        with_replica = RespConnection(pair.replica.url)
        assert with_replica.call("HGET", store.keys.meta, "version") == b"%d" % (version + 1)
        with_replica.close()
    assert store.append_many([_request(meta, version, producer="p", seq=version - 19) for version in (20,)])[0].version == 21


def test_without_the_replica_nothing_is_acknowledged_and_soon_said_so(place: Any) -> None:
    pair, store, meta = place
    pair.replica.signal(signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        store.append(_request(meta, 0))
    assert WAIT_MS / 1000 <= time.monotonic() - begin < 5 * WAIT_MS / 1000 + 1.0
    assert caught.value.code == "not-replicated"
    assert "0 of 1 replica had it after 0.15 s" in str(caught.value)
    assert f"1-{meta.epoch}" in str(caught.value)
    assert "twice" in caught.value.hint
    assert [entry.version for entry in store.read(0)] == [1]  # honest: it is there, and not acknowledged
    pair.replica.signal(signal.SIGCONT)
    assert store.append(_request(meta, 1)) == Appended(2, meta.epoch)


def test_a_new_connection_after_a_duplicate_writes_before_it_waits(place: Any) -> None:
    """HAZARD 13: WAIT on a connection that wrote nothing says at once that the replicas have everything."""
    pair, store, meta = place
    request = Append(meta.uid, meta.epoch, 0, b"0x", producer="w", seq=1)
    pair.replica.signal(signal.SIGSTOP)
    with pytest.raises(Unavailable):
        store.append(request)
    store.close()
    fresh = RespConnection(pair.primary.url)
    assert fresh.call("WAIT", 1, WAIT_MS) >= 1  # what a client must not believe
    fresh.close()
    with pytest.raises(Unavailable) as caught:
        store.append(request)  # DUP, on a new connection
    assert caught.value.code == "not-replicated"
    pair.replica.signal(signal.SIGCONT)
    assert store.append(request) == Appended(1, meta.epoch, True)
    assert pair.replica.ask("HGET", store.keys.meta, "version") == b"1"


def test_a_primary_that_misses_its_replicas_writes_nothing(place: Any) -> None:
    pair, store, meta = place
    pair.primary.ask("CONFIG", "SET", "min-replicas-to-write", "2")
    with pytest.raises(Unavailable) as caught:
        store.append(_request(meta, 0))
    assert caught.value.code == "not-replicated"
    assert "nothing was written" in caught.value.hint
    pair.primary.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    assert store.append(_request(meta, 0)) == Appended(1, meta.epoch)


def test_the_memory_store_says_the_same() -> None:
    server = MemoryServer()
    store = MemoryStore(server)
    meta = store.create(durability="replicated", origin_ms=0, created=0.0, replicas=wanted(1, WAIT_MS))
    request = Append(meta.uid, meta.epoch, 0, b"0x", producer="w", seq=1)
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            store.append(request)
        assert caught.value.code == "not-replicated"
    server.replicas = 1
    assert store.append(request) == Appended(1, meta.epoch, True)
