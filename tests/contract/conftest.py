"""Servers behind one contract: the memory model, fakeredis, our embedded Valkey; and those that are not ours: a site's Valkey
over TLS as a user of its ACL, a cluster of three, and Redis where it is installed."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from pyredis import PyRedisConnection
from servers import ADMIN, DOCKER, PASSWORDS, Served, TlsFront, certificates, free_port, redis_server, users
from servers import cluster as make_cluster

from fluxkv.kvs.keys import Keys, keys_of
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.kvs.port import Append, Meta, Store
from fluxkv.kvs.reach import connect
from fluxkv.kvs.redis_store import RedisStore, open_store
from fluxkv.kvs.resp import RespConnection
from fluxkv.kvs.server import start_server

_numbers = itertools.count(1)
_shared: list[Callable[[], RespConnection]] = []  # connections to the servers of this session that tests have been given


@dataclass
class Backend:
    """One way to get stores. `alien(key)` replaces a key by something of the wrong type."""

    name: str
    open: Callable[..., Store]
    alien: Callable[[str], None]
    forget: Callable[[str], None]  # delete a key behind the store's back
    raw: Any = None
    backup: Callable[[str], Callable[[], None]] | None = None  # of a namespace's keys; what puts it back under a running server
    nodes: Any = None  # of a cluster


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="fluxkv-t-") as folder:
        handle = start_server(folder, "local")
        _shared.append(lambda: RespConnection(handle.url))
        yield handle.url
        handle.stop()


@pytest.fixture(autouse=True)
def leavings() -> Iterator[None]:
    """What a test leaves on a server that others use is seen by none of them."""
    yield
    for reach in _shared:
        with contextlib.closing(reach()) as connection:
            connection.call("FLUSHALL")


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


def outside_backend(name: str, uri: str, admin: Callable[[], Any], node: Callable[[str], Any] | None = None) -> Backend:
    """Servers that are not ours, reached by their URI. admin: a connection that may do anything; node: one for a namespace."""

    def behind(*commands: tuple[str, ...]) -> None:
        connection = admin()
        for command in commands:
            connection.call(*command)
        connection.close()

    return Backend(
        name, lambda ns="/", **options: open_store(f"{uri}#{ns}", **options),
        lambda key: behind(("DEL", key), ("SET", key, "x")), lambda key: behind(("DEL", key)), admin,
        lambda namespace: key_backup(node(namespace) if node else admin(), namespace),
    )  # fmt: skip


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A site's Valkey: docker/server.conf, docker/users.acl, and TLS with certificates on both sides."""
    folder = tmp_path_factory.mktemp("site")
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(certificates(folder / "tls"))
        served = stack.enter_context(Served(folder / "s", *users(folder / "users"), user=ADMIN))
        front = TlsFront(served.port, files)
        stack.callback(front.close)
        _shared.append(lambda: RespConnection(served.url))
        password = folder / "password"
        password.write_text(PASSWORDS["fluxkv"] + "\n")
        words = f"password_file={password}&cacert={files['ca.crt']}&cert={files['client.crt']}&key={files['client.key']}"
        yield outside_backend("site", f"rediss://fluxkv@localhost:{front.port}?{words}", lambda: RespConnection(served.url))


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Redis itself, where it is installed, by docker/tls.conf."""
    folder = tmp_path_factory.mktemp("redis")
    with certificates(folder / "tls") as files:
        port = free_port()
        text = (DOCKER / "tls.conf").read_text().replace("/etc/fluxkv/tls", str(folder / "tls"))
        config = folder / "s" / "tls.conf"
        config.parent.mkdir()
        config.write_text(text)
        (config.parent / "server.conf").write_text((DOCKER / "server.conf").read_text())
        with Served(folder / "s", "--tls-port", str(port), config=config, program=redis_server()) as served:
            words = f"cacert={files['ca.crt']}&cert={files['client.crt']}&key={files['client.key']}"
            _shared.append(lambda: RespConnection(served.url))
            yield outside_backend("redis", f"rediss://localhost:{port}?{words}", lambda: RespConnection(served.url))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Three nodes; namespaces are spread over them."""
    nodes = make_cluster(tmp_path_factory.mktemp("cluster"))
    uri = "redis+cluster://" + ",".join(node.place for node in nodes)
    _shared.extend(partial(RespConnection, node.url) for node in nodes)

    class Anywhere:
        """Each command goes to the node that has its key."""

        def call(self, command: str, key: str, *rest: Any) -> Any:
            connection = connect(uri, keys_of(key).namespace)  # type: ignore[union-attr]
            try:
                return connection.call(command, key, *rest)
            finally:
                connection.close()

        def close(self) -> None: ...

    made = outside_backend("cluster", uri, Anywhere, lambda namespace: connect(uri, namespace))
    made.nodes = nodes
    yield made
    for node in nodes:
        node.kill()


@pytest.fixture(params=["memory", "fake", "real", "site", "cluster", *(["redis"] if redis_server() else [])])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "memory":
        return memory_backend()
    if request.param == "fake":
        return fake_backend()
    if request.param == "real":
        return real_backend(request.getfixturevalue("server_url"))
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


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
