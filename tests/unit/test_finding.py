"""Finding an instance whose server does not answer just now: waited for while somebody is there to start it again."""

from __future__ import annotations

import fcntl
import gc
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from fluxkv.instances import follower
from fluxkv.instances.follower import wait_until_stopped
from fluxkv.instances.paths import StateDir, open_instance
from fluxkv.journal.decide import Decision
from fluxkv.journal.log import Journal
from fluxkv.journal.schema import SCHEMA
from fluxkv.kvs.errors import Corrupt, Rejected, Unavailable
from fluxkv.kvs.keys import Keys
from fluxkv.kvs.redis_store import open_store
from fluxkv.kvs.resp import RespConnection
from fluxkv.kvs.server import ServerHandle, start_server


@pytest.fixture
def held(tmp_path: Path) -> Iterator[IO[str]]:
    """The lock of a keeper that is alive."""
    lock = Path(StateDir(str(tmp_path)).lock_file("keeper"))
    lock.parent.mkdir()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def uri(folder: Path) -> str:
    return f"unix:{folder}/kv.sock"


def test_nobody_waits_for_an_instance_that_is_down(tmp_path: Path) -> None:
    store, _ = open_instance(uri(tmp_path))
    store.patience_s = 60.0  # type: ignore[attr-defined]
    with pytest.raises(Unavailable):
        store.meta()


def test_nor_for_one_that_is_being_stopped(tmp_path: Path, held: IO[str]) -> None:
    (tmp_path / "run" / "stopping").touch()
    store, _ = open_instance(uri(tmp_path))
    store.patience_s = 60.0  # type: ignore[attr-defined]
    with pytest.raises(Unavailable):
        store.meta()


def test_a_server_that_is_being_brought_back_is_waited_for(tmp_path: Path, held: IO[str]) -> None:
    first = start_server(str(tmp_path))
    store, _ = open_instance(uri(tmp_path))
    made = store.create(durability="strict", origin_ms=1, created=1.0)
    store.close()
    first.stop()
    late, _ = open_instance(uri(tmp_path))
    late.patience_s = 60.0  # type: ignore[attr-defined]
    refused = threading.Event()
    expected = late._expected  # type: ignore[attr-defined]

    def asked() -> bool:
        refused.set()
        return bool(expected())

    late._expected = asked  # type: ignore[attr-defined]
    again: list[ServerHandle] = []

    def bring_back() -> None:
        refused.wait(30)
        again.append(start_server(str(tmp_path)))

    keeper = threading.Thread(target=bring_back)
    keeper.start()
    try:
        assert late.meta().uid == made.uid
    finally:
        keeper.join()
        late.close()
        again[0].stop()


def test_a_child_that_cannot_be_opened_leaves_no_connection(tmp_path: Path) -> None:
    """One that is left to the collector is warned of, and warnings are errors."""
    server = start_server(str(tmp_path))
    try:
        with closing(open_store(uri(tmp_path))) as root:
            root.create(durability="strict", origin_ms=1, created=1.0)
            root.push(Keys("/ƒA").door, [b"what is no door"])
        with pytest.raises(Corrupt):
            open_instance(f"{uri(tmp_path)}#/ƒA")
        gc.collect()
    finally:
        server.stop()


def test_who_has_waited_for_an_instance_s_end_leaves_no_connection(tmp_path: Path) -> None:
    server = start_server(str(tmp_path))
    try:
        with closing(open_store(uri(tmp_path))) as root:
            root.create(durability="strict", origin_ms=1, created=1.0)
            Journal(root).append(Decision([["instance-stop", "instance", 1.0, {"reason": "stop"}]]), 0)
        wait_until_stopped(uri(tmp_path))
        gc.collect()
    finally:
        server.stop()


@pytest.mark.parametrize("maker", ["ours", "another"])
def test_who_follows_an_instance_that_was_lost_whole_takes_up_its_own_only(
    maker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper of its own attempt has made it anew; or somebody else has something there."""
    monkeypatch.setattr(follower, "MEMBER_LOOK_S", 0.05)
    server = start_server(str(tmp_path))

    def make(attempt: str) -> None:
        with closing(open_store(uri(tmp_path))) as store:
            store.create(durability="strict", origin_ms=1, created=1.0)
            for _ in range(2 if read.is_set() else 0):  # it is looked at while it is empty, which says nothing yet
                looked.clear()
                assert looked.wait(30.0)
            first = {"uid": store.meta().uid, "owner": 0, "namespace": "/", "schema": SCHEMA, "attempt": attempt}
            Journal(store).append(Decision([["instance-create", "instance", 1.0, first]]), 0)

    read, looked = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        looked.set()
        time.sleep(0.01)

    monkeypatch.setattr(follower, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))

    def never() -> bool:
        read.set()
        return False

    made: list[object] = []

    def follow() -> None:
        try:
            made.append(wait_until_stopped(uri(tmp_path), never=never, entry="7-1"))
        except Rejected as error:
            made.append(error.code)

    try:
        make("7-1")
        waits = threading.Thread(target=follow)
        waits.start()
        assert read.wait(30.0)
        with closing(RespConnection(server.url)) as owner:
            owner.call("FLUSHALL")
        make("7-1" if maker == "ours" else "9-1")
        waits.join(30.0)
        assert made == [True if maker == "ours" else "another"]
    finally:
        server.stop()
