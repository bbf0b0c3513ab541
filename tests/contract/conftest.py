"""Three servers behind one contract: the memory model, fakeredis, and a real server."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pyredis import PyRedisConnection

from fluxkv.kvs.keys import Keys
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.kvs.port import Append, Meta, Store
from fluxkv.kvs.redis_store import RedisStore
from fluxkv.kvs.resp import RespConnection
from fluxkv.kvs.server import start_server

_numbers = itertools.count(1)


@dataclass
class Backend:
    """One way to get stores. `alien(key)` replaces a key by something of the wrong type."""

    name: str
    open: Callable[..., Store]
    alien: Callable[[str], None]
    forget: Callable[[str], None]  # delete a key behind the store's back
    raw: Any = None
    backup: Callable[[str], Callable[[], None]] | None = None  # of a namespace's keys; what puts it back under a running server


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="fluxkv-t-") as folder:
        handle = start_server(folder, "local")
        yield handle.url
        handle.stop()


def memory_backend() -> Backend:
    server = MemoryServer()

    def alien(key: str) -> None:
        server.tables.aliens.add(key)

    def backup(namespace: str) -> Callable[[], None]:
        tables = server.copy_tables()
        return lambda: server.put_back(tables)

    def forget(key: str) -> None:
        MemoryStore(server, key.partition("}")[0].removeprefix("{fluxkv:")).delete(key)

    return Backend(
        "memory", lambda ns="/", **options: MemoryStore(server, ns, **options), alien, forget, server, backup
    )


def fake_backend() -> Backend:
    import fakeredis

    server = fakeredis.FakeServer()

    def connect() -> PyRedisConnection:
        return PyRedisConnection(fakeredis.FakeRedis(server=server, protocol=2), "fakeredis")

    def alien(key: str) -> None:
        connect().pipeline([("DEL", key), ("SET", key, "x")])

    def forget(key: str) -> None:
        connect().call("DEL", key)

    return Backend(
        "fake",
        lambda ns="/", **options: RedisStore(connect, ns, fenced=False, **options),
        alien,
        forget,
        connect,
        lambda namespace: key_backup(connect(), namespace),
    )


def real_backend(url: str) -> Backend:
    def alien(key: str) -> None:
        connection = RespConnection(url)
        connection.pipeline([("DEL", key), ("SET", key, "x")])
        connection.close()

    def forget(key: str) -> None:
        connection = RespConnection(url)
        connection.call("DEL", key)
        connection.close()

    return Backend(
        "real", lambda ns="/", **options: RedisStore(url, ns, **options), alien, forget,
        lambda: RespConnection(url), lambda namespace: key_backup(RespConnection(url), namespace),
    )  # fmt: skip


def key_backup(connection: Any, namespace: str) -> Callable[[], None]:
    """DUMP of all keys of a namespace, and RESTORE of just these: what an operator may do under a running server."""
    pattern = Keys(namespace).prefix.replace("{", "[{]") + "*"
    kept = {key: connection.call("DUMP", key) for key in connection.call("KEYS", pattern)}

    def put_back() -> None:
        there = connection.call("KEYS", pattern)
        if there:
            connection.call("DEL", *there)
        for key, value in kept.items():
            connection.call("RESTORE", key, 0, value)
        connection.close()

    return put_back


@pytest.fixture(params=["memory", "fake", "real"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "memory":
        return memory_backend()
    if request.param == "fake":
        return fake_backend()
    return real_backend(request.getfixturevalue("server_url"))


class Bench:
    """A created store, its meta, and short forms for appends."""

    def __init__(self, backend: Backend, **options: Any) -> None:
        self.backend = backend
        self.namespace = f"/ƒ{next(_numbers)}"
        self.store = backend.open(self.namespace, **options)
        self.meta: Meta = self.store.create(durability="local", origin_ms=123, created=5.25)
        self.keys = self.store.keys  # type: ignore[attr-defined]

    def request(self, decided_at: int = 0, payload: bytes = b"0p", **fields: Any) -> Append:
        fields.setdefault("uid", self.meta.uid)
        fields.setdefault("epoch", self.meta.epoch)
        return Append(decided_at=decided_at, payload=payload, **fields)

    def append(self, decided_at: int = 0, payload: bytes = b"0p", **fields: Any) -> Any:
        return self.store.append(self.request(decided_at, payload, **fields))


@pytest.fixture
def bench(backend: Backend) -> Iterator[Bench]:
    made = Bench(backend)
    yield made
    made.store.close()


@pytest.fixture
def make_bench() -> type[Bench]:
    return Bench


@pytest.fixture
def make_backend() -> dict[str, Callable[..., Backend]]:
    return {"memory": memory_backend, "fake": fake_backend, "real": real_backend}
