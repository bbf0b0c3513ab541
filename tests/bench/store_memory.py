"""How much memory the server uses, and for which keys."""

from __future__ import annotations

from collections import Counter

import redis

from fluxkv.kvs.keys import Keys
from fluxkv.kvs.uri import parse_uri


def _client(uri: str) -> redis.Redis:
    server = parse_uri(uri).server
    return redis.Redis(unix_socket_path=server.removeprefix("unix://").removeprefix("unix:"))


def of_server(uri: str) -> int:
    """Bytes of data (without the server's own base and its clients' buffers)."""
    with _client(uri) as client:
        return int(client.info("memory")["used_memory_dataset"])


def keys_by_kind(uri: str) -> dict[str, int]:
    """Bytes by kind of key ("journal", "guards", "inbox", ...), of the URI's namespace."""
    prefix = Keys(parse_uri(uri).namespace).prefix.encode()
    found: Counter[str] = Counter()
    with _client(uri) as client:
        for key in client.scan_iter(count=1000):
            if key.startswith(prefix):
                kind = key[len(prefix) :].split(b":")[0].decode()
                found[kind] += int(client.memory_usage(key, samples=0) or 0)
    return dict(found)
