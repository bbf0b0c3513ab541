"""Store addresses: which server, which namespace, how to get in. Parses and formats; never connects.

    unix:/path/to/kv.sock#/ƒA                     a socket file and the namespace /ƒA
    redis://[user[:pw]@]host[:port][/db]#/ƒA      valkey:// is the same
    rediss://...                                  the same over TLS; valkeys:// is the same
    redis+sentinel://host[:port],.../name[/db]    whichever server these sentinels call the primary `name`
    redis+cluster://host[:port],...               the node of that cluster which has the namespace's slot
    memory:[name]#/                               a store inside this process, gone with it
    ended:PLACE/FILE#/ƒA                          a file with instances that have ended, to be read (`bundle.py`)

Without a fragment the namespace is `/`. Percent escapes are taken in paths, users and passwords. What stands behind `?`:

    password_file=FILE                  its first line is the password (read at each connect, so it may be changed)
    user=NAME                           for unix:, which has no place for it
    sentinel_user=NAME, sentinel_password_file=FILE
    cacert=FILE, cert=FILE, key=FILE    TLS: whom to trust (default: what this machine trusts), what to show
    servername=NAME, insecure=1         TLS: the name in the server's certificate; ask for no certificate at all

Files are absolute paths: daemons live elsewhere. An address with `password_file` instead of a password may be shown to anybody.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from .errors import Rejected, Unavailable
from .keys import check_namespace

PASSWORD_VARIABLE = "FLUXKV_REDIS_PASSWORD"
CHILD_USER = "fluxkv-"  # how the users begin that children have on the server of the instance around them
PASSWORD_FILE = "server.password"  # of an instance's owner, beside its socket file if its server wants one
_HINT = "use unix:/path/to/socket, redis://host:port, rediss://, redis+sentinel:// or memory:, then #/ƒJOBID for a child"
_SCHEMES = {  # scheme: (kind, TLS, port)
    "redis": ("tcp", False, 6379), "rediss": ("tls", True, 6379),
    "redis+sentinel": ("sentinel", False, 26379), "rediss+sentinel": ("sentinel", True, 26379),
    "redis+cluster": ("cluster", False, 6379), "rediss+cluster": ("cluster", True, 6379),
}  # fmt: skip
_FILES = ("password_file", "sentinel_password_file", "cacert", "cert", "key")
_WORDS = (*_FILES, "user", "sentinel_user", "servername", "insecure")


class ServerAddress(NamedTuple):
    """A parsed server URL. kind: "unix" (path), "tcp" or "tls" (host, port), "sentinel" (its hosts, name), "cluster" (hosts),
    "memory" (path is its name), "ended" (path is the file's, with the address of its place).

    hosts: all that are named; host and port are the first. secure: over TLS. password: only one that stands in the URL.
    """

    kind: str
    path: str = ""
    hosts: tuple[tuple[str, int], ...] = ()
    name: str = ""
    secure: bool = False
    user: str = ""
    password: str = ""
    db: int = 0
    password_file: str = ""
    sentinel_user: str = ""
    sentinel_password_file: str = ""
    cacert: str = ""
    cert: str = ""
    key: str = ""
    servername: str = ""
    insecure: str = ""
    keyless: bool = False  # no password but one that stands here: never the variable's

    @property
    def host(self) -> str:
        return self.hosts[0][0] if self.hosts else ""

    @property
    def port(self) -> int:
        return self.hosts[0][1] if self.hosts else 0

    def __str__(self) -> str:
        """How messages name it: without any secret."""
        if self.kind in ("unix", "memory", "ended"):
            return f"{self.kind}:{self.path}"
        scheme = ("rediss" if self.secure else "redis") + (f"+{self.kind}" if self.kind in ("sentinel", "cluster") else "")
        name, db = f"/{self.name}" if self.name else "", "" if self.kind == "cluster" else f"/{self.db}"
        return f"{scheme}://{','.join(host_port(*one) for one in self.hosts)}{name}{db}"


class StoreUri(NamedTuple):
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


def same_instance(one: str, other: str) -> bool:
    """Whether two URIs name one instance, however its password and its TLS files are given."""
    if one == other:
        return True
    try:
        a, b = parse_uri(one), parse_uri(other)
        return a.namespace == b.namespace and str(parse_server(a.server)) == str(parse_server(b.server))
    except Rejected:
        return False


def public(uri: str) -> str:
    """The URI as it may be shown: a password in it is starred out, and whatever stands where one might."""
    head, mark, rest = uri.partition("://")
    if not mark:
        return uri
    end = min([len(rest), *[place for sign in "/?#" if (place := rest.find(sign)) >= 0]])
    if "@" not in rest[:end] and "@" in rest:
        end = len(rest)  # a password that should have been quoted
    who, at, where = rest[:end].rpartition("@")
    user, colon, _ = who.partition(":")
    places = [_place(one) for one in where.split(",")]
    return f"{head}{mark}{user}{':***' if colon else ''}{at}{','.join(places)}{rest[end:]}"


def heading(uri: str) -> str:
    """How a heading names an instance: its server and its namespace, whoever acts there."""
    found = parse_uri(uri)
    return str(StoreUri(str(parse_server(found.server)), found.namespace))


def _place(text: str) -> str:
    host, colon, port = text.rpartition(":")
    return text if not colon or port.isdecimal() or text.startswith("[") else f"{host.partition(':')[0]}:***"


def with_password_file(uri: str, path: str) -> tuple[str, str]:
    """(the same URI with the password's file instead of the password, the password); ("", "") if it has none in it."""
    parsed = parse_uri(uri)
    password = parse_server(parsed.server).password
    if not password:
        return "", ""
    scheme, _, rest = parsed.server.partition("://")
    where, mark, query = rest.partition("?")
    who, _, place = where.rpartition("@")
    user = who.partition(":")[0]
    words = (query + "&" if mark and query else "") + f"password_file={quote(path)}"
    return str(StoreUri(f"{scheme}://{user}{'@' if user else ''}{place}?{words}", parsed.namespace)), password


def secret_of(address: ServerAddress) -> str:
    """The password to give, or "". Raises `Unavailable(code="no-password")` when its file can not be read."""
    if address.password:
        return address.password
    if address.password_file:
        return read_secret(address.password_file)
    if address.keyless or (address.kind == "unix" and not address.user):
        return ""
    return os.environ.get(PASSWORD_VARIABLE, "")


def read_secret(path: str) -> str:
    """The first line of a file. Raises `Unavailable(code="no-password")`."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().rstrip("\r\n")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        hint = "the address names it as password_file: put the password there, readable by this user"
        raise Unavailable(f"can not read the password in {path}: {why}", code="no-password", hint=hint) from None


def password_beside(socket_file: str) -> str:
    """The owner's password for a server's socket file, "" if its server wants none."""
    folder = os.path.dirname(socket_file)
    for place in (folder, os.path.join(folder, "state")):  # a socket that lies elsewhere points back to its directory
        try:
            with open(os.path.join(place, PASSWORD_FILE), encoding="utf-8") as file:
                return file.readline().strip()
        except OSError:
            continue
    return ""


def parse_server(url: str) -> ServerAddress:
    """Parse the part before the fragment. Raises `Rejected(code="bad-uri")`, which shows no password."""
    scheme, mark, rest = url.partition(":")
    shown = public(url)[:200]
    if not mark:
        raise Rejected(f"bad store address {shown!r}: no scheme", code="bad-uri", hint=_HINT)
    if scheme in ("memory", "ended"):
        return ServerAddress(scheme, path=_unquote(rest))
    rest, _, query = rest.partition("?")
    words = _query(query, shown)
    if scheme == "unix":
        path = rest[2:] if rest.startswith("///") else rest
        if not path.startswith("/"):
            raise Rejected(f"bad store address {shown!r}: not an absolute path", code="bad-uri", hint=_HINT)
        return ServerAddress("unix", path=_unquote(path), **words)
    scheme = scheme.replace("valkey", "redis", 1)
    if scheme not in _SCHEMES or not rest.startswith("//"):
        raise Rejected(f"bad store address {scheme[:40]}:…: unknown form", code="bad-uri", hint=_HINT)
    kind, secure, port = _SCHEMES[scheme]
    where, _, db = rest[2:].partition("/")
    name = ""
    if kind == "sentinel":
        name, _, db = db.partition("/")
        if not name:
            hint = "redis+sentinel://host:26379,host:26379/NAME, with the name of the sentinels' `sentinel monitor`"
            raise Rejected(f"bad store address {shown!r}: it does not name the primary", code="bad-uri", hint=hint)
    credentials, at, places = where.rpartition("@")
    user, _, password = credentials.partition(":") if at else ("", "", "")
    several = kind in ("sentinel", "cluster")
    hosts = tuple(_host_port(one, port, shown) for one in (places.split(",") if several else [places]))
    if (db and not db.isdigit()) or (kind == "cluster" and int(db or 0)):
        raise Rejected(f"bad store address {shown!r}: bad database {db!r}", code="bad-uri", hint=_HINT)
    if user:
        words["user"] = _unquote(user)
    return ServerAddress(
        kind, hosts=hosts, name=_unquote(name), secure=secure, password=_unquote(password), db=int(db or 0), **words,
    )  # fmt: skip


def at_host(address: ServerAddress, host: str, port: int) -> ServerAddress:
    """One server of those behind an address, reached in the same way."""
    return address._replace(kind="tls" if address.secure else "tcp", hosts=((host, port),), name="")


def sentinel_at(address: ServerAddress, host: str, port: int) -> ServerAddress:
    """One of an address' sentinels, which have users of their own."""
    own = at_host(address, host, port)._replace(user=address.sentinel_user, db=0, password="")
    return own._replace(password_file=address.sentinel_password_file, keyless=True)


def unix_url(path: str) -> str:
    """The URL of a socket file."""
    return f"unix:{quote(path)}"


def quote(path: str) -> str:
    """A path as it stands in a URI."""
    for character in "%#?&":
        path = path.replace(character, f"%{ord(character):02x}")
    return path


def host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _query(text: str, shown: str) -> dict[str, Any]:
    """The words behind the ?, as the fields of an address."""
    words: dict[str, Any] = {}
    for part in text.split("&") if text else ():
        name, mark, value = part.partition("=")
        if name not in _WORDS or not mark:
            raise Rejected(
                f"bad store address {shown!r}: unknown word {name[:40]!r} behind the ?", code="bad-uri",
                hint=f"known are {', '.join(_WORDS)}",
            )  # fmt: skip
        words[name] = _unquote(value)
        if name in _FILES and not words[name].startswith("/"):
            raise Rejected(
                f"bad store address {shown!r}: {name} is not an absolute path", code="bad-uri",
                hint="daemons read it, too, and they live in other directories",
            )  # fmt: skip
    return words


def _host_port(text: str, port: int, shown: str) -> tuple[str, int]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        mark, digits = rest[:1], rest[1:]
    else:
        host, mark, digits = text.partition(":")
    if not host or set(host) & set(",@/ ") or (mark and not (mark == ":" and digits.isdecimal() and int(digits) < 65536)):
        raise Rejected(f"bad store address {shown!r}: {_place(text)!r} is not host:port", code="bad-uri", hint=_HINT)
    return host, int(digits) if mark else port


def _unquote(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text)
