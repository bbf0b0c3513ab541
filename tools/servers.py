"""A plain connection to the server behind a store address, for commands that ask the server about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..kvs.resp import Connection


def connect(uri: str) -> Connection | None:
    """A new connection, or None for a store inside this process. Raises `Unavailable`."""
    from ..kvs.reach import connect as reach
    from ..kvs.uri import parse_server, parse_uri

    parsed = parse_uri(uri)
    return None if parse_server(parsed.server).kind in ("memory", "ended") else reach(parsed.server, parsed.namespace)


def server_facts(connection: Connection, *sections: str) -> dict[str, str]:
    """What INFO says, by name."""
    facts: dict[str, str] = {}
    for section in sections:
        for line in connection.call("INFO", section).decode(errors="replace").splitlines():
            name, mark, value = line.partition(":")
            if mark:
                facts[name] = value
    return facts
