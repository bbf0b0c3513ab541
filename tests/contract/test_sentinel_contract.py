"""Sentinels: three servers and three sentinels on loopback. The primary is killed, hangs, is replaced; who writes goes on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from servers import ADMIN, NAME, PASSWORDS, Group

from fluxkv.kvs.errors import FluxkvError, Rejected, Unavailable
from fluxkv.kvs.failover import FailOver
from fluxkv.kvs.health import findings
from fluxkv.kvs.port import Append, Appended, StaleEpoch
from fluxkv.kvs.reach import connect
from fluxkv.kvs.redis_store import RedisStore, open_store
from fluxkv.kvs.resp import ReplyError
from fluxkv.kvs.uri import parse_server


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    with Group(tmp_path) as made:
        yield made


@pytest.fixture
def keep() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def made(group: Group, keep: ExitStack) -> Any:
    store = keep.enter_context(closing(open_store(group.url + "#/a")))
    meta = store.create(durability="strict", origin_ms=0, created=0.0)
    return store, meta


def taken(store: Any, epoch: int, uid: str, number: int) -> tuple[Any, int]:
    """One commit; under a new epoch, once the history has been looked at as the keeper does."""
    while True:
        answer = store.append(Append(uid, epoch, 0, b"0%d" % number, producer="p", seq=number))
        if not isinstance(answer, StaleEpoch):
            return answer, epoch
        meta = store.meta()
        assert meta.version >= number - 1, f"{number - 1 - meta.version} acknowledged commits are lost"
        epoch = store.open_epoch(uid, meta.epoch, meta.version).epoch


def test_writing_goes_on_when_the_primary_hangs(group: Group, keep: ExitStack) -> None:
    """It says nothing any more, so only the sentinels' word ends the wait. (One that is killed: `live/test_outside_live.py`.)"""
    store, meta = made(group, keep)
    watcher = keep.enter_context(closing(store.subscribe({store.keys.journal: "0"})))
    epoch = meta.epoch
    for number in range(1, 51):
        answer, epoch = taken(store, epoch, meta.uid, number)
    for server in group.servers:
        server.until(lambda one=server: one.ask("XLEN", store.keys.journal) == 50)
    old = group.primary
    began = time.monotonic()
    old.signal(signal.SIGSTOP)
    for number in range(51, 101):
        answer, epoch = taken(store, epoch, meta.uid, number)
        assert isinstance(answer, Appended)
    took = time.monotonic() - began
    assert took < 9.0, "a time-out of ten seconds was waited for"
    assert group.primary is not old
    assert epoch != meta.epoch
    seen: list[bytes] = []
    deadline = time.monotonic() + 20
    while len(seen) < 100:
        assert time.monotonic() < deadline
        try:
            seen += [entry.payload for _, entries in watcher.poll(0.5) for entry in entries]
        except Unavailable:
            time.sleep(0.02)
    assert seen == [b"0%d" % number for number in range(1, 101)]
    old.signal(signal.SIGCONT)
    # The sentinels would make it a replica within ten seconds. Whoever knows it by its address alone is told.
    old.ask("REPLICAOF", "127.0.0.1", group.primary.port)
    late = keep.enter_context(closing(RedisStore(old.url, "/a", patience_s=0.0)))
    with pytest.raises(Unavailable) as caught:
        late.append(Append(meta.uid, epoch, 0, b"0x", producer="q", seq=1))
    assert caught.value.code in ("not-now", "disconnected")
    assert store.meta().version == 100


def test_a_switch_is_known_at_once_and_a_lost_sentinel_replaced(group: Group, keep: ExitStack) -> None:
    for url in (group.url.replace(f"/{NAME}", "/other"), "redis+sentinel://127.0.0.1:1/fluxkv"):
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            open_store(url).meta()
        assert caught.value.code == "no-primary"
        assert time.monotonic() - began < 3, "nothing is waited for"
    store, meta = made(group, keep)
    connection = keep.enter_context(closing(connect(group.url)))
    first = next(one for one in group.sentinels if f":{one.port}" in group.url.split(",")[0])
    first.kill()  # the one that is listened to
    assert connection.call("PING") == b"PONG"
    other = keep.enter_context(closing(connect(group.url)))
    # Nobody has died; the sentinels name another.
    group.sentinels[1].until(lambda: group.sentinels[1].ask("SENTINEL", "FAILOVER", NAME) == b"OK")
    group.sentinels[1].until(lambda: group.primary is not group.servers[0])
    with pytest.raises(Unavailable) as caught:
        all(iter(lambda: other.call("PING"), b""))
    assert caught.value.code in ("switched", "disconnected")
    epoch = meta.epoch
    answer, epoch = taken(store, epoch, meta.uid, 1)
    assert isinstance(answer, Appended)


def test_a_primary_that_is_cut_off_acknowledges_nothing(group: Group, keep: ExitStack) -> None:
    """Its replicas hear nothing of it: within min-replicas-max-lag it refuses, though nobody has told it anything."""
    _, meta = made(group, keep)
    old = group.primary
    old.ask("CONFIG", "SET", "min-replicas-max-lag", "1")
    for sentinel in group.sentinels:
        sentinel.signal(signal.SIGSTOP)
    for server in group.servers[1:]:
        server.signal(signal.SIGSTOP)
    alone = keep.enter_context(closing(RedisStore(old.url, "/a", patience_s=0.0)))
    refused: FluxkvError | None = None
    deadline = time.monotonic() + 10
    number = 0
    while refused is None and time.monotonic() < deadline:
        try:
            alone.append(Append(meta.uid, meta.epoch, 0, b"0x", producer="p", seq=number + 1))
            number += 1
        except Unavailable as error:
            refused = error
    assert refused is not None
    assert "min-replicas-to-write" in str(refused) + refused.hint
    with pytest.raises(ReplyError, match="NOREPLICAS"):
        old.ask("SET", "x", "1")
    assert alone.meta().version == number, "what was refused was not written"


@pytest.mark.parametrize("coordinated", [None, False], ids=["coordinated", "paused"])
def test_a_planned_fail_over_loses_nothing_that_was_acknowledged(group: Group, keep: ExitStack, coordinated: bool | None) -> None:
    """HAZARD 21: while somebody writes without pause, by the old primary's own address."""
    store, meta = made(group, keep)
    old = group.primary
    password = group.servers[0].folder / "admin"
    password.write_text(PASSWORDS["admin"])
    said: list[str] = []
    work = FailOver(
        group.url + "#/a", user="admin", password_file=str(password), timeout_s=15.0, coordinated=coordinated, say=said.append
    )
    acknowledged: list[int] = []
    over = threading.Event()

    def write() -> None:
        writer = RedisStore(old.url, "/a", patience_s=0.0)
        for number in range(1, 100_000):
            try:
                if over.is_set() or not isinstance(
                    writer.append(Append(meta.uid, meta.epoch, 0, b"0%d" % number, producer="p", seq=number)), Appended
                ):
                    break
                acknowledged.append(number)
            except FluxkvError:
                break
        writer.close()

    found = work.survey()
    assert (found.primary[1], found.coordinated, len(found.replicas), found.warnings) == (old.port, coordinated is None, 2, ())
    assert len(work.steps(found)) >= 3
    assert group.primary is old
    assert said == [], "looking changes nothing"
    if coordinated is False:  # the instance's own user may not pause all others
        with pytest.raises(Rejected) as caught:
            FailOver(group.url + "#/a", timeout_s=1.0, coordinated=False).run(found)
        assert "--admin-user" in caught.value.hint
    thread = threading.Thread(target=write)
    thread.start()
    try:
        while len(acknowledged) < 50:
            time.sleep(0.005)
        new = work.run(found)
    finally:
        over.set()
        thread.join()
    assert new[1] == group.primary.port != old.port
    assert old.info("replication")["role"] == "slave"
    there = {entry.payload for entry in store.read(0, 100_000)}
    lost = [number for number in acknowledged if b"0%d" % number not in there]
    assert lost == [], f"{len(lost)} of {len(acknowledged)} acknowledged commits are lost"
    answer, _ = taken(store, meta.epoch, meta.uid, acknowledged[-1] + 1)
    assert isinstance(answer, Appended)


def test_doctor_s_findings(group: Group, keep: ExitStack) -> None:
    """Nothing is wrong with servers by the files of docker/; each thing that is not so is found, with what to do."""
    address = parse_server(group.url)
    connection = keep.enter_context(closing(connect(group.url)))

    def found(durability: str = "strict") -> dict[tuple[str, str], str]:
        every = list(findings(address, connection, durability))
        assert all(bool(one.mend) == (one.result != "ok") for one in every), every
        return {(one.result, one.name): one.text + one.mend for one in every}

    bad = {key: text for key, text in found().items() if key[0] != "ok"}
    assert set(bad) == {("warn", "durability"), ("warn", "secrets"), ("warn", "sentinels")}, bad
    assert "down-after-milliseconds" in bad["warn", "sentinels"], "the sentinels of the test are quick"
    primary = group.primary
    primary.ask("CONFIG", "SET", "appendfsync", "everysec")
    primary.ask("CONFIG", "SET", "min-replicas-to-write", "0")
    group.sentinels[2].kill()
    bad = {key: text for key, text in found("replicated").items() if key[0] == "fail"}
    assert set(bad) == {("fail", name) for name in ("persistence", "min-replicas", "sentinels")}
    for server in group.servers[1:]:
        server.kill()
    primary.until(lambda: primary.info("replication")["connected_slaves"] == "0")
    assert "bring a replica back" in found()["fail", "replicas"]
    # And nobody could take over in order.
    with pytest.raises(Rejected, match="nobody could take over"):
        FailOver(group.url.replace(f"fluxkv:{PASSWORDS['fluxkv']}@", ADMIN), timeout_s=1.0).survey()
    assert primary.info("replication")["role"] == "master"


@pytest.mark.parametrize("uri", ["unix:/nowhere", "redis://h", "redis+cluster://h"])
def test_no_fail_over_without_sentinels(uri: str) -> None:
    with pytest.raises(Rejected) as caught:
        FailOver(uri)
    assert caught.value.hint
