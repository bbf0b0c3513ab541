"""Store addresses, key names, blob names."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxkv.kvs.blobs import blob_name, checked_blob, is_blob_name
from fluxkv.kvs.errors import Corrupt, Rejected, Unavailable
from fluxkv.kvs.keys import Keys, keys_of
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.kvs.redis_store import RedisStore, open_store
from fluxkv.kvs.uri import (
    heading,
    parse_server,
    parse_uri,
    public,
    same_instance,
    secret_of,
    unix_url,
    with_namespace,
    with_password_file,
)  # fmt: skip


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
    assert parse_server(unix_url("/a#b%c?d&e")).path == "/a#b%c?d&e"
    assert parse_server("unix:/s?user=me&password_file=/p").user == "me"
    assert str(parse_server("valkey://h")) == "redis://h:6379/0"
    assert parse_server("valkeys://h").secure
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
        "redis://h:",
        "redis://h:70000",
        "redis://h?nonsense=1",
        "redis://h?cacert=relative",
        "redis://h?user",
        "redis://a,b",
        "redis+sentinel://h",
        "redis+sentinel://h/",
        "redis+sentinel://h,/name",
        "redis+cluster://h/3",
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


def test_several_hosts() -> None:
    found = parse_server("redis+sentinel://me:pw@a,b:7,[::1]:8/main/2?sentinel_user=s&cacert=/ca")
    assert found.hosts == (("a", 26379), ("b", 7), ("::1", 8))
    assert (found.kind, found.name, found.db, found.user, found.sentinel_user) == ("sentinel", "main", 2, "me", "s")
    assert str(found) == "redis+sentinel://a:26379,b:7,[::1]:8/main/2"
    cluster = parse_server("rediss+cluster://a:1,b:2")
    assert (cluster.kind, cluster.secure, str(cluster)) == ("cluster", True, "rediss+cluster://a:1,b:2")


SECRET = "geheim"


@pytest.mark.parametrize(
    "uri",
    [
        f"redis://:{SECRET}@h#/a", f"redis://me:{SECRET}@h:1/2?cacert=/ca#/a", f"redis+sentinel://me:{SECRET}@a,b/n",
        f"redis://me:{SECRET}/x@h", f"nonsense://me:{SECRET}@h", f"redis://me:{SECRET}@h?x=1", f"redis://me:{SECRET}@h:x",
        f"redis://me:{SECRET}#1@h", f"redis://me:{SECRET}?a@h", f"redis://me:{SECRET}@{SECRET}@h:port",
    ],
)  # fmt: skip
def test_a_password_is_shown_to_nobody(uri: str) -> None:
    assert SECRET not in public(uri)
    try:
        said = str(parse_server(parse_uri(uri).server))
    except Rejected as error:
        said = str(error) + error.hint
    assert SECRET not in said


def test_a_password_file_in_place_of_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a b&c#"
    uri, password = with_password_file("valkey://me:p%40ss@h:1?cacert=/ca#/x", str(path))
    assert password == "p@ss"
    address = parse_server(parse_uri(uri).server)
    assert (address.user, address.password, address.password_file, address.cacert) == ("me", "", str(path), "/ca")
    assert public(uri) == uri
    assert same_instance(uri, "redis://you:else@h:1#/x")
    assert not same_instance(uri, "redis://h:1#/y")
    with pytest.raises(Unavailable) as caught:
        secret_of(address)
    assert caught.value.code == "no-password"
    path.write_text("p@ss\nnot this\n")
    assert secret_of(address) == "p@ss"
    assert with_password_file("redis://me@h", "/p") == ("", "")
    monkeypatch.setenv("FLUXKV_REDIS_PASSWORD", "other")
    assert [secret_of(parse_server(one)) for one in ("redis://h", "unix:/s", "unix:/s?user=me")] == ["other", "", "other"]


@pytest.mark.parametrize(("uri", "text"), [
    ("unix:/s/kv.sock?user=fluxkv-fA-1&password_file=/s/ns/password#/ƒA", "unix:/s/kv.sock#/ƒA"),
    ("unix:/s/kv.sock", "unix:/s/kv.sock"),
    ("redis://me:secret@head:6379/2?cacert=/ca#/ƒA/ƒB", "redis://head:6379/2#/ƒA/ƒB"),
    ("memory:x#/ƒA", "memory:x#/ƒA"),
])  # fmt: skip
def test_a_heading_names_the_instance_alone(uri: str, text: str) -> None:
    assert heading(uri) == text
