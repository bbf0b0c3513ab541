"""How a server is reached: the connection that an address asks for. Decides nothing about what is sent.

One small RESP connection serves all kinds: a socket file, TCP, TLS (`tls.py`), the primary that sentinels name (`sentinel.py`),
the node of a cluster that has a namespace's slot (`cluster.py`). What an address does not need is not imported.
"""

from __future__ import annotations

from typing import Protocol

from .resp import Connection, RespConnection
from .uri import ServerAddress, parse_server


class Reach(Protocol):
    """Gives a new connection at each call. reached: whether somebody there has answered yet, though perhaps not as a primary."""

    reached: bool

    def __call__(self) -> Connection: ...


class PlainConnector:
    """Connections to one server, and to no other."""

    reached = False

    def __init__(self, address: ServerAddress) -> None:
        self.address = address

    def __call__(self) -> Connection:
        return plain(self.address)


def connector(server: str, namespace: str = "/") -> Reach:
    """What gives connections to the server with this URL (no fragment). Does not connect yet."""
    address = parse_server(server)
    if address.kind == "sentinel":
        from .sentinel import SentinelConnector

        return SentinelConnector(address)
    if address.kind == "cluster":
        from .cluster import ClusterConnector

        return ClusterConnector(address, namespace)
    return PlainConnector(address)


def connect(server: str, namespace: str = "/") -> Connection:
    """A new connection. Raises `Unavailable`."""
    return connector(server, namespace)()


def plain(address: ServerAddress, *, timeout_s: float = 10.0, connect_timeout_s: float = 2.0) -> RespConnection:
    """A connection to one server, over TLS where the address says so. Raises `Unavailable`."""
    if address.secure:
        from .tls import TlsConnection

        return TlsConnection(address, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s)
    return RespConnection(address, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s)
