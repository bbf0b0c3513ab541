"""The TCP side of the embedded server: where it listens, and who may enter. Starts nothing.

A server that listens lets nobody in without a password, over its socket file either: `default` is whoever can read the private
state directory, `join` is whoever was given the join address, and may do no more than an instance needs. The server gets hashes.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from .errors import Rejected
from .keys import ALL_KEYS
from .uri import PASSWORD_FILE, host_port, read_secret

JOIN_FILE = "join.password"
USERS_FILE = "server.users"
JOIN_USER = "join"
_ANY = ("0.0.0.0", "::", "*")
# What a joined host never does: change the server, or look at keys of others. INFO: the append script asks whose history it is.
_JOIN_RULES = f"~{ALL_KEYS} resetchannels +@all -@dangerous -@admin +info"
_HINT = "--listen[=PORT], --listen=ADDR or =ADDR:PORT, with [...] around an IPv6 address; a command behind it needs --"


class Listen(NamedTuple):
    """Where to listen. host: an address or name of this host, "0.0.0.0" for all. port: 0 until one is chosen."""

    host: str
    port: int


def parse_listen(text: str) -> Listen:
    """[ADDR][:PORT], or a port alone. Raises `Rejected(code="bad-listen")`, also for an address that is not this host's."""
    host, port = text.strip(), ""
    if host.isdigit():
        host, port = "", host
    elif host.startswith("["):
        host, closed, port = host[1:].partition("]")
        port = port.removeprefix(":") if closed else "?"
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    if port and not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise Rejected(f"cannot listen on {text[:60]!r}: bad port {port[:20]!r}", code="bad-listen", hint=_HINT)
    found = Listen("0.0.0.0" if host in ("", "*") else host, int(port or 0))
    _probe(found, text)
    return found


def with_port(listen: Listen) -> Listen:
    """The same with a port that is free now, if it has none. It is kept, so that joined hosts find the server again."""
    return listen if listen.port else Listen(listen.host, _probe(listen, listen.host))


def _probe(listen: Listen, shown: str) -> int:
    """Whether that can be listened on; the port that was free."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            return int(probe.getsockname()[1])
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise Rejected(f"cannot listen on {shown!r}: {why}", code="bad-listen", hint=_HINT) from None


def prepare(state_dir: str) -> None:
    """Make the passwords, once, and the file of users that the server reads. The directory is private already."""
    import hashlib
    import secrets

    users = []
    for user, name, rules in (("default", PASSWORD_FILE, "~* &* +@all"), (JOIN_USER, JOIN_FILE, _JOIN_RULES)):
        path = os.path.join(state_dir, name)
        if not os.path.exists(path):
            write_secret(path, secrets.token_urlsafe(24))
        users.append(f"user {user} on #{hashlib.sha256(read_secret(path).encode()).hexdigest()} {rules}")
    write_secret(os.path.join(state_dir, USERS_FILE), "\n".join(users))


def write_secret(path: str, text: str) -> None:
    """Replace a file that only its owner may read, in one step."""
    scratch = f"{path}.{os.getpid()}"
    with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    os.replace(scratch, path)


def options(state_dir: str, listen: Listen) -> dict[str, str]:
    """The server's options for it. No secret is among them: they are in `ps`."""
    return {"port": str(listen.port), "bind": "* -::*" if listen.host in _ANY else listen.host,
            "aclfile": os.path.join(state_dir, USERS_FILE)}  # fmt: skip


def join_url(state_dir: str, listen: Listen) -> str:
    """The address another host joins by, its password in it."""
    password = read_secret(os.path.join(state_dir, JOIN_FILE))
    host = _outward() if listen.host in _ANY else listen.host
    return f"redis://{JOIN_USER}:{password}@{host_port(host, listen.port)}"


def _outward() -> str:
    """The address by which this host is likely reached: the one it would use itself to go outside (nothing is sent)."""
    for family, there in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((there, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return socket.gethostname()
