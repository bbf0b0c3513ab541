"""Store addresses: which server, which namespace. Parses and formats; never connects.

    unix:/path/to/kv.sock#/ƒA        a socket file and the namespace /ƒA
    redis://[user:pw@]host[:port][/db]#/ƒA
    rediss://...                     the same over TLS
    memory:[name]#/                  a store inside this process, gone with it

Without a fragment the namespace is `/`. Percent escapes are taken in paths, users and passwords.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import Rejected
from .keys import check_namespace

_HINT = "use unix:/path/to/socket, redis://host:port or memory:, then #/ƒJOBID for a child"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A parsed server URL. kind: "unix" (path), "tcp" or "tls" (host, port), "memory" (path is its name)."""

    kind: str
    path: str = ""
    host: str = ""
    port: int = 6379
    user: str = ""
    password: str = ""
    db: int = 0

    def __str__(self) -> str:
        """How messages name it: without the password."""
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "memory":
            return f"memory:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.kind == 'tls' else 'redis'}://{host}:{self.port}/{self.db}"


@dataclass(frozen=True, slots=True)
class StoreUri:
    """A server URL (with its secrets, without fragment) and a namespace path."""

    server: str
    namespace: str = "/"

    def __str__(self) -> str:
        return self.server if self.namespace == "/" else f"{self.server}#{self.namespace}"


def parse_uri(text: str) -> StoreUri:
    """Split and check a store URI. Raises `Rejected(code="bad-uri")` or "bad-namespace"."""
    server, mark, namespace = text.strip().partition("#")
    parse_server(server)
    return StoreUri(server, check_namespace(_unquote(namespace)) if mark and namespace else "/")


def with_namespace(uri: str, path: str) -> str:
    """The same server, another namespace."""
    return str(StoreUri(parse_uri(uri).server, check_namespace(path)))


def parse_server(url: str) -> ServerAddress:
    """Parse the part before the fragment. Raises `Rejected(code="bad-uri")`."""
    scheme, mark, rest = url.partition(":")
    if not mark:
        raise Rejected(f"bad store address {url!r}: no scheme", code="bad-uri", hint=_HINT)
    if scheme == "unix":
        path = rest[2:] if rest.startswith("///") else rest
        if not path.startswith("/"):
            raise Rejected(f"bad store address {url!r}: not an absolute path", code="bad-uri", hint=_HINT)
        return ServerAddress("unix", path=_unquote(path))
    if scheme == "memory":
        return ServerAddress("memory", path=_unquote(rest))
    if scheme not in ("redis", "rediss") or not rest.startswith("//"):
        raise Rejected(f"bad store address {scheme}:…: unknown form", code="bad-uri", hint=_HINT)
    where, _, db = rest[2:].partition("/")
    credentials, at, hostport = where.rpartition("@")
    user, _, password = credentials.partition(":") if at else ("", "", "")
    host, port = _host_port(hostport)
    if not host or not port.isdigit() or int(port) > 65535 or (db and not db.isdigit()):
        raise Rejected(f"bad store address {scheme}://{hostport}/{db}", code="bad-uri", hint=_HINT)
    return ServerAddress(
        "tls" if scheme == "rediss" else "tcp",
        host=host, port=int(port), user=_unquote(user), password=_unquote(password), db=int(db or 0),
    )  # fmt: skip


def unix_url(path: str) -> str:
    """The URL of a socket file."""
    for character in "%#":
        path = path.replace(character, f"%{ord(character):02x}")
    return f"unix:{path}"


def _host_port(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest[1:] if rest.startswith(":") else "6379"
    host, mark, port = text.partition(":")
    return host, port if mark else "6379"


def _unquote(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text)
