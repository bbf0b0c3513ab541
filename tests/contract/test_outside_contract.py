"""Servers that are not ours, where they differ: whom TLS trusts, what an ACL's user may do, a cluster's slot on its way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import DOCKER, PASSWORDS, Served, TlsFront, certificates, redis_server

from fluxkv.instances import outside
from fluxkv.kvs.acl import rule
from fluxkv.kvs.errors import Rejected, Unavailable
from fluxkv.kvs.health import findings
from fluxkv.kvs.keys import Keys
from fluxkv.kvs.port import Append, Appended
from fluxkv.kvs.reach import connect
from fluxkv.kvs.redis_store import RedisStore, open_store
from fluxkv.kvs.resp import NOT_YET, ReplyError
from fluxkv.kvs.uri import parse_server


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TlsFront, dict[str, Path]]]:
    folder = tmp_path_factory.mktemp("t")
    with certificates(folder / "tls") as files, Served(folder / "s") as served:
        front = TlsFront(served.port, files)
        yield front, files
        front.close()


def test_large_replies_and_waiting_over_tls(tls: Any) -> None:
    front, files = tls
    shown = f"cert={files['client.crt']}&key={files['client.key']}"
    connection = connect(f"rediss://127.0.0.1:{front.port}?cacert={files['ca.crt']}&{shown}")
    big = bytes(range(256)) * 20_000
    assert connection.call("SET", "big", big) == b"OK"
    assert connection.pipeline([("GET", "big"), ("STRLEN", "big")]) == [big, len(big)]
    # Nothing is there to read: neither the tickets of the handshake nor half a record may make us wait.
    assert connection.try_read() is NOT_YET
    connection.send("BLPOP", "list", 0)
    assert connection.try_read(0.01) is NOT_YET
    other = connect(f"rediss://localhost:{front.port}?insecure=1&{shown}")
    other.call("RPUSH", "list", big)
    assert connection.try_read(5.0) == [b"list", big]
    address = parse_server(f"rediss://localhost:{front.port}?key={files['client.key']}")
    (ends,) = [one for one in findings(address, connection, "strict") if one.name == "tls"]
    assert (ends.result, "in 19 days" in ends.text or "in 20 days" in ends.text) == ("warn", True)
    connection.close()
    other.close()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("cacert={ca}", "lost the connection"),
        ("cacert={stranger}&cert={cert}&key={key}", "unable to get local issuer|self.signed|verify"),
        ("cert={cert}&key={key}", "verify|issuer|self.signed"),
        ("cacert={ca}&cert={cert}&key={key}&servername=other", "ostname|match|not valid"),
        ("cacert=/nowhere/ca.crt", "No such file"),
        ("cacert={key}", "no use"),
    ],
)  # fmt: skip
def test_who_is_not_trusted(tls: Any, words: str, why: str) -> None:
    front, files = tls
    words = words.format(ca=files["ca.crt"], stranger=files["stranger.crt"], cert=files["client.crt"], key=files["client.key"])
    with pytest.raises(Unavailable, match=why) as caught:
        connect(f"rediss://localhost:{front.port}?{words}").call("PING")
    assert caught.value.code in ("tls", "disconnected")
    assert "cert" in caught.value.hint


def test_plain_words_to_a_server_that_speaks_tls(tls: Any) -> None:
    front, _ = tls
    with pytest.raises(Unavailable), contextlib.closing(RedisStore(f"redis://localhost:{front.port}", patience_s=0.0)) as store:
        store.meta()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("acl")) as made:
        yield made


@pytest.mark.parametrize("namespace", ["/site/a", "/[a-z]*^x"])
def test_a_user_has_its_own_namespace_and_no_other(served: Served, namespace: str) -> None:
    served.ask("ACL", "SETUSER", *rule("tenant", namespace, "pw", 0).split()[1:])
    uri = f"redis://tenant:pw@{served.place}"
    mine = [namespace, f"{namespace}/ƒ3kQ", f"{namespace}/ƒ3kQ/ƒ2"]
    for one in mine:
        with contextlib.closing(open_store(f"{uri}#{one}")) as store:
            meta = store.create(durability="strict", origin_ms=0, created=0.0)
            commit = Append(meta.uid, meta.epoch, 0, b"0x", bumps=("a",), inbox=(("n", b"m"),))
            assert store.append(commit) == Appended(1, meta.epoch)
    for other in ("/", f"{namespace}x", "/site/bxx", "/ax", "/b"):
        with contextlib.closing(open_store(f"{uri}#{other}")) as store:
            with pytest.raises(Rejected) as caught:
                store.create(durability="strict", origin_ms=0, created=0.0)
            assert caught.value.code == "refused"
            with pytest.raises(Rejected):
                store.meta()
    connection = connect(uri)
    for command in (("KEYS", "*"), ("SELECT", 1), ("FLUSHALL",), ("CONFIG", "SET", "maxmemory", 1), ("SHUTDOWN",), ("ACL", "LIST"),
                    ("CLIENT", "PAUSE", 1), ("REPLICAOF", "no", "one"), ("EVAL", "return redis.call('KEYS', '*')", 0)):  # fmt: skip
        with pytest.raises(ReplyError, match=r"NOPERM|can't run this command|ACL"):
            connection.call(*command)
    connection.close()


def test_the_file_for_a_site_has_the_rule_for_all_namespaces() -> None:
    lines = (DOCKER / "users.acl").read_text().splitlines()
    assert lines[0] == "user default off"
    assert any(line.startswith("user fluxkv ") for line in lines)
    for line in lines:
        assert line.startswith("user "), "servers take no comments in it"
        if line.startswith("user fluxkv "):
            ours = rule("fluxkv", "/", PASSWORDS["fluxkv"]).split()
            assert line.split()[5:] == ours[5:], "write what fluxkv.kvs.acl.rule says"


def test_a_slot_moves_while_its_instance_writes(cluster: Any) -> None:
    """ASK while keys are on their way, MOVED when they are there; nothing is lost or taken twice."""
    namespace = "/moving"
    with contextlib.closing(cluster.open(namespace)) as store:
        meta = store.create(durability="strict", origin_ms=0, created=0.0)
        keys = Keys(namespace)
        watcher = store.subscribe({keys.journal: "0"})

        def write(number: int) -> None:
            request = Append(meta.uid, store.meta().epoch, 0, b"0%d" % number, producer="p", seq=number)
            answer = store.append(request)
            if not isinstance(answer, Appended):  # another node's replication id: its history is looked at first
                found = store.meta()
                assert found.version == number - 1
                store.open_epoch(meta.uid, found.epoch, found.version)
                write(number)

        write(1)
        nodes = cluster.nodes
        slot = nodes[0].ask("CLUSTER", "KEYSLOT", keys.meta)
        owner = next(node for node in nodes if node.ask("CLUSTER", "COUNTKEYSINSLOT", slot))
        target = next(node for node in nodes if node is not owner)
        name = {node: node.ask("CLUSTER", "MYID") for node in nodes}
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", name[owner])
        owner.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", name[target])
        assert store.load_snapshot() is None  # the one key that is not there: ASK
        write(2)
        moved = owner.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)
        owner.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *moved)
        assert [entry.version for entry in store.read(0)] == [1, 2]  # all are gone: ASK again
        for node in (target, owner, *nodes):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", name[target])
        for number in range(3, 20):
            write(number)
        seen: list[int] = []
        while len(seen) < 19:
            with contextlib.suppress(Unavailable):
                seen += [entry.version for _, entries in watcher.poll(0.5) for entry in entries]
        assert seen == list(range(1, 20))
        watcher.close()
        with contextlib.closing(RedisStore(owner.url, namespace, patience_s=0.0)) as plain:
            with pytest.raises(Unavailable) as caught:
                plain.meta()
            assert "redis+cluster://" in caught.value.hint
        with pytest.raises(Rejected, match=r"redis\+cluster://"):
            outside.check({"uri": owner.url}, alive=False)


def test_a_cluster_that_lets_us_not_in_says_so(served: Served) -> None:
    served.ask("ACL", "SETUSER", "nobody", "on", ">pw", "-@all")
    with pytest.raises(Rejected) as caught:
        connect(f"redis+cluster://nobody:pw@{served.place}")
    assert caught.value.code == "refused"


@pytest.mark.skipif(not redis_server(), reason="no redis-server on PATH: the contract was not run on it")
def test_the_contract_was_run_on_redis_itself(redis: Any) -> None:
    connection = redis.raw()
    said = connection.call("INFO", "server").decode()
    connection.close()
    assert "valkey_version" not in said
