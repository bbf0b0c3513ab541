"""What a child's user may do on the server it shares with its parent, who makes it, and when it is made again or taken away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fluxkv.instances import access, paths, sealing
from fluxkv.instances.paths import StateDir
from fluxkv.instances.server_care import ServerCare
from fluxkv.kvs import acl, redis_store
from fluxkv.kvs.children import Child
from fluxkv.kvs.errors import FluxkvError, Rejected, Unavailable
from fluxkv.kvs.port import Append, Store
from fluxkv.kvs.redis_store import open_store
from fluxkv.kvs.resp import RespConnection
from fluxkv.kvs.server import start_server
from fluxkv.kvs.uri import parse_server, parse_uri, with_namespace


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    handle = start_server(str(tmp_path_factory.mktemp("s")), "local")
    yield handle.url
    handle.stop()


def commit(store: Store, **more: Any) -> None:
    meta = store.meta()
    store.append(Append(uid=meta.uid, epoch=meta.epoch, decided_at=meta.version, payload=b"0p", **more))


class Parent:
    """An instance on the server, and its job 5, which runs."""

    def __init__(self, server: str, namespace: str, folder: Path) -> None:
        self.uri, self.folder = f"{server}#{namespace}", folder
        self.store = open_store(self.uri)
        self.store.create(durability="local", origin_ms=0, created=1.0)
        commit(self.store, bumps=("attempt/5",))
        meta = self.store.meta()
        self.child = Child("ƒ6", 5, f"{meta.version}-{meta.epoch}")
        self.given: dict[str, Any] = {}

    def give(self, **more: Any) -> dict[str, Any]:
        space = parse_uri(self.uri).namespace.rstrip("/")
        settings = {"parent": self.uri, "uri": with_namespace(self.uri, f"{space}/ƒ6"), **more}
        self.given = {**settings, **access.give(self.store, self.child, settings, StateDir(str(self.folder)))}
        return self.given


@pytest.fixture
def parent(server: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Parent]:
    made = Parent(server, f"/{request.node.name.partition('[')[0]}", tmp_path)
    yield made
    made.store.close()
    connection = RespConnection(server)
    for line in connection.call("ACL", "USERS"):
        if line != b"default":
            connection.call("ACL", "DELUSER", line)
    connection.close()


def code(work: Any) -> str:
    with pytest.raises(FluxkvError) as caught:
        work()
    return caught.value.code


def users(server: str) -> list[str]:
    connection = RespConnection(server)
    try:
        return sorted(line.decode() for line in connection.call("ACL", "USERS"))
    finally:
        connection.close()


def test_a_row_that_a_fail_over_took_back_is_written_again_with_the_user(parent: Parent, server: str) -> None:
    """The child took itself for over, though its attempt went on."""
    attempt = {"job": "ƒ6", "since": parent.store.meta().version, "entry": parent.child.entry}
    given = parent.give(**attempt)
    (row,) = parent.store.children()
    acl.drop_user(server, given["user"])
    parent.store.forget_child(row)
    assert access.renew(given)
    assert (parent.store.children(), users(server)) == ([row], sorted(["default", given["user"]]))
    acl.drop_user(server, given["user"])
    parent.store.forget_child(row)
    lost = {**given, "entry": f"9-{parent.store.meta().epoch}", "since": 9}
    assert code(lambda: access.renew(lost)) == "undecided", "its nodes have not said what they hold"
    commit(parent.store, clears=("attempt/5",))
    assert not access.renew(given)
    assert users(server) == ["default"]


def test_it_has_its_own_namespace_and_reads_its_parents_journal(parent: Parent, server: str) -> None:
    uri = parent.give()["uri"]
    space = parse_uri(uri).namespace
    for own in (space, f"{space}/ƒ7"):  # and what is inside it
        store = open_store(with_namespace(uri, own), patience_s=0.0)
        store.create(durability="local", origin_ms=0, created=1.0)
        commit(store, bumps=("x",))
        store.note_child(Child("ƒ8", 1, "1-1"))
        store.lease("w", 1000)
        store.close()
    above = open_store(with_namespace(uri, parse_uri(parent.uri).namespace), patience_s=0.0)
    meta = above.meta()
    assert above.bumps(["attempt/5"]) == [1]
    assert [entry.version for entry in above.read(0)] == [1]
    assert above.load_snapshot() is None
    keys = above.keys  # type: ignore[attr-defined]
    request = Append(uid=meta.uid, epoch=meta.epoch, decided_at=1, payload=b"0p")
    for work in (
        lambda: above.append(request), lambda: above.seal(meta.uid), lambda: above.push(keys.journal, [b"x"]),
        lambda: above.delete(keys.meta), lambda: above.children(), lambda: above.get_blobs(["a"]),
        lambda: above.messages(keys.inbox("node/0")), lambda: above.lease("w", 1),
    ):  # fmt: skip
        assert code(work) == "refused"
    above.close()
    for other in (f"{space}.2", f"{space}x", "/elsewhere"):  # a later attempt, a namesake, a stranger
        store = open_store(with_namespace(uri, other), patience_s=0.0)
        assert code(store.meta) == "refused"
        store.close()
    connection = RespConnection(parse_uri(uri).server)
    for words in (["CONFIG", "GET", "requirepass"], ["ACL", "LIST"], ["FLUSHALL"], ["KEYS", "*"], ["SHUTDOWN"], ["MONITOR"]):
        with pytest.raises(Exception, match="NOPERM"):
            connection.call(*words)
    connection.close()
    connection = RespConnection(parse_uri(uri).server)  # names of all keys are shown, for want of a finer rule, and no more
    assert keys.meta.encode() in connection.call("SCAN", "0", "COUNT", 10_000)[1]
    for words in (["TYPE", keys.children], ["EXISTS", keys.producers], ["PTTL", keys.lease], ["DUMP", keys.log]):
        with pytest.raises(Exception, match="NOPERM"):
            connection.call(*words)
    connection.close()
    assert (parent.folder / "password").stat().st_mode & 0o777 == 0o600
    assert [child.user for child in parent.store.children()] == [parent.given["user"]]


def test_each_node_comes_to_the_same_user(parent: Parent, server: str, tmp_path: Path) -> None:
    first = parent.give()
    parent.folder = tmp_path / "other"
    second = parent.give()
    assert second["user"] == first["user"]
    assert (tmp_path / "password").read_text() == (tmp_path / "other" / "password").read_text()
    parent.child = parent.child._replace(entry="1-2")
    parent.store.note_child(parent.child)
    commit(parent.store, bumps=("attempt/5",))
    meta = parent.store.meta()
    parent.child = parent.child._replace(entry=f"{meta.version}-{meta.epoch}")
    assert parent.give()["user"] not in ("", first["user"]), "another attempt"


def test_who_is_over_is_thrown_out_and_not_let_in_again(parent: Parent, server: str) -> None:
    given = parent.give()
    store = open_store(given["uri"], patience_s=0.0)
    store.create(durability="local", origin_ms=0, created=1.0)
    acl.drop_user(server, given["user"])  # as after a restart of the server
    assert code(store.meta) in ("disconnected", "refused")
    assert access.is_refused(Unavailable("", code=code(store.meta)), given)
    assert access.renew(given)
    assert store.meta().version == 0
    commit(parent.store, clears=("attempt/5",))
    access.take_away(given["user"], {"uri": parent.uri})
    assert code(store.meta) in ("disconnected", "refused"), "its connections are closed"
    with pytest.raises(Unavailable) as caught:
        store.meta()
    assert "has ended" in caught.value.hint
    assert not access.renew(given)
    assert users(server) == ["default"]
    access.take_away(given["user"], {"uri": parent.uri})
    store.close()


def test_a_keeper_makes_its_user_again_as_soon_as_it_is_refused(
    parent: Parent, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is who is waited for, so it does not wait itself."""
    given = parent.give()
    with closing(open_store(given["uri"], patience_s=0.0)) as made:
        made.create(durability="local", origin_ms=0, created=1.0)
        commit(made)
        given["uid"] = made.meta().uid
    log: Any = None
    care = ServerCare(StateDir(str(parent.folder)), log, given)
    care.store, _ = care._store()
    acl.drop_user(server, given["user"])
    slept: list[float] = []
    monkeypatch.setattr(redis_store, "time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append))
    assert care._seen() is None
    assert not care._is_over()
    assert care._seen() is not None
    assert len(slept) <= 1, "for the connection that was closed"
    care.store.close()


def test_a_command_waits_for_a_user_as_long_as_a_busy_keeper_may_take(
    parent: Parent, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = parent.give()
    with closing(open_store(given["uri"], patience_s=0.0)) as made:
        made.create(durability="local", origin_ms=0, created=1.0)
    acl.drop_user(server, given["user"])
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if 15 < sum(slept) < 15 + seconds:
            assert access.renew(given)

    monkeypatch.setattr(paths, "_comes_back", lambda uri: True)
    monkeypatch.setattr(redis_store, "time", SimpleNamespace(monotonic=lambda: sum(slept), sleep=sleep))
    store, _ = paths.open_instance(given["uri"])
    assert store.meta().version == 0
    store.close()


def test_who_is_struck_out_meanwhile_has_no_user(parent: Parent, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper looked between the row and the user: there was nothing to take away yet."""
    real = access.set_user

    def slow(*words: Any) -> None:
        parent.store.forget_child(parent.child)
        real(*words)

    monkeypatch.setattr(access, "set_user", slow)
    with pytest.raises(Rejected) as caught:
        parent.give()
    assert caught.value.code == "gone"
    assert users(server) == ["default"]


def test_inside_what_is_sealed_nobody_makes_a_user_again(parent: Parent, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job there is not over by the guards, but it has ended with all around it: its keeper is refused, and asks at once."""
    given = parent.give()
    with closing(open_store(given["uri"], patience_s=0.0)) as made:
        made.create(durability="local", origin_ms=0, created=1.0)
    parent.store.seal(parent.store.meta().uid)
    forget, renewed = parent.store.forget_child, list[bool]()

    def slow(child: Child) -> None:
        renewed.append(access.renew(given))
        forget(child)

    monkeypatch.setattr(parent.store, "forget_child", slow)
    sealing.seal_below(parent.store, given)
    assert renewed == [False]
    assert not access.renew(given)
    assert (users(server), parent.store.children()) == (["default"], [])


def test_an_instance_that_may_make_no_users_shares_its_own(parent: Parent, server: str, tmp_path: Path) -> None:
    space = parse_uri(parent.uri).namespace
    connection = RespConnection(server)
    connection.call("ACL", "SETUSER", "site", *acl.rule("site", space, "word").split()[2:])
    connection.close()
    (tmp_path / "site").write_text("word\n")
    given = parent.give(parent=f"{server}?user=site&password_file={tmp_path}/site#{space}")
    assert "NOPERM" in given["no_user"]
    assert "user" not in given
    assert given["uri"] == with_namespace(parent.uri, f"{space}/ƒ6")
    assert [child.user for child in parent.store.children()] == [""]
    # With somebody who may (as the instance around all others can), it has one all the same.
    given = parent.give(parent=given["parent"], granter=parent.uri)
    assert given["granter"] == parent.uri
    assert access.lasting(given["uri"], given) == with_namespace(parent.uri, f"{space}/ƒ6")
    assert parse_server(parse_uri(access.to_read_parent(given)).server).user == given["user"]


ADDRESSES = [
    ("unix:/a/kv.sock", "unix:/a/kv.sock?user=u&password_file=/p#/ƒA"),
    ("unix:/a/kv.sock?user=x&password_file=/y", "unix:/a/kv.sock?user=u&password_file=/p#/ƒA"),
    ("redis://h:1", "redis://u@h:1?password_file=/p#/ƒA"),
    ("rediss://x:w@h:1/2?cacert=/c&password_file=/y", "rediss://u@h:1/2?cacert=/c&password_file=/p#/ƒA"),
    ("redis+sentinel://:w@a:1,b:2/n?sentinel_user=s", "redis+sentinel://u@a:1,b:2/n?sentinel_user=s&password_file=/p#/ƒA"),
]


@pytest.mark.parametrize(("server_", "wanted"), ADDRESSES)
def test_the_same_server_for_another_user(server_: str, wanted: str) -> None:
    made = access._with_user(server_, "/ƒA", "u", "/p")
    assert made == wanted
    address = parse_server(parse_uri(made).server)
    assert (address.user, address.password, address.password_file) == ("u", "", "/p")


def test_names_can_be_read() -> None:
    assert access._readable("/ƒA/ƒB.2") == "fA.fB.2"
    assert access._readable("/my site/ƒA@1") == "my_site.fA_1"
    assert len(access._readable("/ƒ" + "A" * 99)) == access.LONGEST
