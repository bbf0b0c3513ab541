"""The bare connection: what it says when things go wrong, and that it stays closed."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyredis import PyRedisConnection

from fluxkv.kvs.errors import FluxkvError, Unavailable
from fluxkv.kvs.port import Append, Appended
from fluxkv.kvs.redis_store import RedisStore
from fluxkv.kvs.resp import NOT_YET, ReplyError, RespConnection
from fluxkv.kvs.server import ServerHandle, start_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerHandle]:
    handle = start_server(str(tmp_path_factory.mktemp("s")), "local")
    yield handle
    handle.stop()


def test_calls_and_pipelines(server: ServerHandle) -> None:
    connection = RespConnection(server.url)
    assert connection.call("SET", "k", b"\x00\xff") == b"OK"
    replies = connection.pipeline([("GET", "k"), ("LPUSH", "k", 1), ("GET", "none"), ("STRLEN", "k")])
    assert (replies[0], replies[2:]) == (b"\x00\xff", [None, 2])
    assert isinstance(replies[1], ReplyError)
    assert str(replies[1]).startswith("WRONGTYPE")
    with pytest.raises(ReplyError, match="WRONGTYPE"):
        connection.call("LPUSH", "k", 1)
    assert connection.call("PING") == b"PONG"
    big = bytes(range(256)) * 20_000
    connection.call("SET", "big", big)
    assert connection.call("GET", "big") == big
    connection.close()
    connection.close()
    with pytest.raises(Unavailable):
        connection.call("PING")


def test_reading_without_waiting(server: ServerHandle) -> None:
    connection = RespConnection(server.url)
    connection.send("BLPOP", "list", 0)
    assert connection.try_read() is NOT_YET
    assert connection.try_read(0.01) is NOT_YET
    other = RespConnection(server.url)
    other.call("RPUSH", "list", "x")
    assert connection.try_read(5.0) == [b"list", b"x"]
    connection.send("NONSENSE")
    with pytest.raises(ReplyError):
        connection.try_read(5.0)
    connection.close()
    other.close()


@contextmanager
def interrupted() -> Iterator[None]:
    """What is waited for in here is broken off, as by Ctrl-C or by a signal's handler that raises."""

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def test_an_answer_that_nobody_waited_for_is_nobody_else_s(server: ServerHandle) -> None:
    one, many, other = (RespConnection(server.url) for _ in range(3))
    store = RedisStore(server.url, "/interrupted", patience_s=0.0)
    with interrupted():
        one.call("BLPOP", "for-ever", 0)
    with interrupted():
        many.pipeline([("PING",), ("BLPOP", "for-ever", 0)])
    with interrupted():
        store._ask("BLPOP", "for-ever", 0)
    other.call("RPUSH", "for-ever", "x", "y", "z")
    for connection in (one, many):
        with pytest.raises(Unavailable):
            connection.call("ECHO", "mine")
    assert store._ask("ECHO", "mine") == b"mine"
    store.close()
    other.call("DEL", "for-ever")
    other.close()


def test_wrong_password(server: ServerHandle) -> None:
    connection = RespConnection(server.url)
    connection.call("ACL", "SETUSER", "tester", "on", ">secret", "~*", "+@all")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    connection.call("CONFIG", "SET", "bind", "127.0.0.1")
    connection.call("CONFIG", "SET", "port", port)
    good = RespConnection(f"redis://tester:secret@127.0.0.1:{port}/0")
    assert good.call("ACL", "WHOAMI") == b"tester"
    good.close()
    with pytest.raises(Unavailable) as caught:
        RespConnection(f"redis://tester:wrong@127.0.0.1:{port}")
    assert caught.value.code == "refused"
    assert "wrong" not in str(caught.value)
    with pytest.raises(Unavailable) as caught:
        RespConnection(f"redis://127.0.0.1:{port}/7")
    assert caught.value.code == "refused"
    connection.call("CONFIG", "SET", "port", 0)
    connection.close()


class Listener:
    """A server that answers with `data`, then says no more; `hang_up` closes at once."""

    def __init__(self, path: Path, data: bytes, *, hang_up: bool) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen(1)
        self.data, self.hang_up = data, hang_up
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        peer, _ = self.socket.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(self.data)
            if not self.hang_up:
                self.done.wait(10)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: Any) -> None:
        self.done.set()
        self.thread.join()
        self.socket.close()


@pytest.mark.parametrize(
    ("data", "hang_up", "code"),
    [
        (b"", False, "timeout"),
        (b"$10\r\nabc", True, "disconnected"),
        (b"!nonsense\r\n", False, "disconnected"),
    ],
)
def test_failures_close_for_good(tmp_path: Path, data: bytes, hang_up: bool, code: str) -> None:
    path = tmp_path / "s"
    with Listener(path, data, hang_up=hang_up):
        connection = RespConnection(f"unix:{path}", timeout_s=0.1)
        with pytest.raises(Unavailable) as caught:
            connection.call("PING")
        assert caught.value.code == code
        assert str(path) in str(caught.value)
        assert connection.closed
        with pytest.raises(Unavailable):
            connection.call("PING")


def test_a_store_over_redis_py(server: ServerHandle) -> None:
    import redis

    def connect() -> PyRedisConnection:
        client = redis.Redis(unix_socket_path=server.url.removeprefix("unix:"), protocol=2)
        return PyRedisConnection(client, server.url)

    store = RedisStore(connect, "/ƒpy")
    meta = store.create(durability="local", origin_ms=0, created=0.0)
    watcher = store.subscribe({store.keys.journal: "0"})
    assert watcher.fileno() > 0
    assert watcher.poll() == []
    request = Append(meta.uid, meta.epoch, 0, b"0x", producer="p", seq=1)
    assert store.append(request) == Appended(1, meta.epoch)
    assert store.append(request) == Appended(1, meta.epoch, True)
    assert watcher.poll(5.0) == [(store.keys.journal, store.read(0))]
    killer = RespConnection(server.url)
    killer.call("SCRIPT", "FLUSH")
    killer.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert store.append(request) == Appended(1, meta.epoch, True)
    with pytest.raises(Unavailable):
        watcher.poll(5.0)
    assert watcher.poll() == []
    with pytest.raises(ReplyError, match="WRONGTYPE"):
        connect().call("LPUSH", store.keys.meta, "x")
    watcher.close()
    store.close()
    killer.close()


def test_whoever_could_not_see_which_instance_answers_asks_it_again(server: ServerHandle) -> None:
    store, other = RedisStore(server.url, "/unseen", patience_s=0.0), RespConnection(server.url)
    store.create(durability="local", origin_ms=0, created=0.0)
    other.call("RENAME", store.keys.meta, "kept")
    other.call("LPUSH", store.keys.meta, "x")
    other.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    for _ in range(3):
        with pytest.raises(FluxkvError):
            store.push(store.keys.telemetry, [b"for the instance that was there"])
    assert other.call("EXISTS", store.keys.telemetry) == 0
    other.call("RENAME", "kept", store.keys.meta)
    store.push(store.keys.telemetry, [b"x"])
    assert other.call("XLEN", store.keys.telemetry) == 1
    store.close()
    other.close()
