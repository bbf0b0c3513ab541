"""Which of many servers say nothing: all are asked at the same time, so that those that are away cost one wait together."""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .errors import Rejected
from .uri import ServerAddress, parse_server

if TYPE_CHECKING:
    import socket

PING = b"PING\r\n"  # whatever comes back will do: an answer, a refusal, an alert of TLS


def silent(servers: Iterable[str], within_s: float) -> set[str]:
    """Those of these URLs from which no word comes within so many seconds. What is refused at once is not silent, nor is what is
    reached in another way than by one address (sentinels, clusters, memory)."""
    import socket

    waiting: dict[int, tuple[socket.socket, str, bool]] = {}  # by descriptor; whether it has been asked
    poller = select.poll()
    quiet: set[str] = set()
    try:
        for url in dict.fromkeys(servers):
            made = _begin(url)
            if isinstance(made, socket.socket):
                waiting[made.fileno()] = made, url, False
                poller.register(made, select.POLLOUT)
            elif made:
                quiet.add(url)
        deadline = time.monotonic() + within_s
        while waiting and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(left * 1000 + 1):
                connection, url, asked = waiting.pop(descriptor)
                if not asked and _ask(connection):
                    waiting[descriptor] = connection, url, True
                    poller.modify(connection, select.POLLIN)
                else:
                    poller.unregister(connection)
                    connection.close()
        return quiet | {url for _, url, _ in waiting.values()}
    finally:
        for connection, _, _ in waiting.values():
            connection.close()


def _begin(url: str) -> socket.socket | bool:
    """A connection under way; else whether the server is silent: its line of those who want in is full."""
    import socket

    try:
        address = parse_server(url)
    except Rejected:
        return False
    if address.kind not in ("unix", "tcp", "tls"):
        return False
    try:
        where = _place(address)
    except OSError:
        return False  # a name that nobody knows
    connection = socket.socket(where[0], socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        connection.connect(where[1])
    except BlockingIOError as error:
        if error.errno != errno.EINPROGRESS:
            connection.close()
            return True
    except OSError:
        connection.close()
        return False
    return connection


def _place(address: ServerAddress) -> tuple[int, Any]:
    import socket

    if address.kind == "unix":
        return socket.AF_UNIX, address.path
    family, _, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    return family, place


def _ask(connection: socket.socket) -> bool:
    """Whether there is an answer to wait for."""
    import socket

    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return False
    try:
        connection.send(PING)
    except OSError:
        return False
    return True
