"""How a server is reached: the connection that an address asks for. Decides nothing about what is sent.

One small RESP connection serves all kinds: a socket file, TCP, TLS (`tls.py`), the primary that sentinels name (`sentinel.py`),
the node of a cluster that has a namespace's slot (`cluster.py`). What a plain address does not need is not imported.
"""

from __future__ import annotations

from .resp import Connection, Connector, RespConnection
from .uri import parse_server


def connector(server: str, namespace: str = "/") -> Connector:
    """A function that gives a new connection to the server with this URL (no fragment). Does not connect yet."""
    address = parse_server(server)
    if address.secure:
        from .tls import TlsConnection

        return lambda: TlsConnection(address)
    return lambda: RespConnection(address)


def connect(server: str, namespace: str = "/") -> Connection:
    """A new connection. Raises `Unavailable`."""
    return connector(server, namespace)()
