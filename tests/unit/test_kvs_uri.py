"""Store addresses, key names, blob names."""

from __future__ import annotations

import pytest

from fluxkv.kvs.blobs import blob_name, checked_blob, is_blob_name
from fluxkv.kvs.errors import Corrupt, Rejected
from fluxkv.kvs.keys import Keys, keys_of
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.kvs.redis_store import RedisStore, open_store
from fluxkv.kvs.uri import parse_server, parse_uri, unix_url, with_namespace


@pytest.mark.parametrize(
    ("text", "server", "namespace"),
    [
        ("unix:/run/kv.sock", "unix:/run/kv.sock", "/"),
        ("unix:/run/kv.sock#/ƒA/ƒB", "unix:/run/kv.sock", "/ƒA/ƒB"),
        ("redis://host:7000/2#/ƒA", "redis://host:7000/2", "/ƒA"),
        ("redis://u:p%40ss@[::1]", "redis://u:p%40ss@[::1]", "/"),
        ("memory:#/%C6%92A", "memory:", "/ƒA"),
    ],
)
def test_uris_both_ways(text: str, server: str, namespace: str) -> None:
    found = parse_uri(text)
    assert (found.server, found.namespace) == (server, namespace)
    assert parse_uri(str(found)) == found
    assert parse_uri(with_namespace(text, "/ƒZ")).namespace == "/ƒZ"
    assert with_namespace(text, "/") == server


def test_servers() -> None:
    found = parse_server("redis://user:p%40ss@[::1]:7001/3")
    assert (found.kind, found.host, found.port, found.db) == ("tcp", "::1", 7001, 3)
    assert (found.user, found.password) == ("user", "p@ss")
    assert "p@ss" not in str(found)
    assert str(found) == "redis://[::1]:7001/3"
    assert parse_server("rediss://h").kind == "tls"
    assert parse_server("redis://:secret@h").password == "secret"
    assert parse_server(unix_url("/a#b%c")).path == "/a#b%c"
    assert parse_server("unix:///run/x").path == "/run/x"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "http://x",
        "unix:relative",
        "redis:/x",
        "redis://",
        "redis://h:port",
        "redis://h/db",
        "unix:/a#b",
    ],
)
def test_bad_uris(text: str) -> None:
    with pytest.raises(Rejected):
        parse_uri(text)


def test_open_store_takes_its_kind_from_the_address() -> None:
    store = open_store("unix:/nowhere#/ƒA")
    assert isinstance(store, RedisStore)
    assert store.namespace == "/ƒA"
    memory = open_store("memory:shared#/ƒA")
    assert isinstance(memory, MemoryStore)
    made = memory.create(durability="local", origin_ms=0, created=0.0)
    assert open_store("memory:shared#/ƒA").meta() == made


def test_keys_know_their_owner() -> None:
    keys = Keys("/ƒA")
    found = keys_of(keys.inbox("3"))
    assert found is not None
    assert found.journal == keys.journal
    assert keys.is_inbox(keys.inbox("3"))
    assert not keys.is_inbox(keys.journal)
    assert keys_of("elsewhere") is None


def test_blob_names() -> None:
    assert is_blob_name(blob_name(b"x"))
    assert not is_blob_name("x" * 40)
    assert checked_blob(blob_name(b"x"), b"x") == b"x"
    with pytest.raises(Corrupt):
        checked_blob(blob_name(b"x"), b"y")
