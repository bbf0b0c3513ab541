"""Who of an instance is here or elsewhere, where no state directory says it: by the processes of this host, and by what was heard
on the server: the lease of who plans, heartbeats, the daemons' log. Decides nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..instances.paths import StateDir
    from ..journal.log import Journal

BEATS_S = 300  # how far back heartbeats are looked for
LINES = 500  # of the log, the latest
NAMED = 8  # hosts that are named one by one


def directory_here(address: str) -> StateDir | None:
    """A state directory that lies where nobody looks, such as a container's, or a joined host's: the one that has the address's
    password, else one that a running daemon of this instance names on its command line."""
    from ..instances.paths import StateDir, named_by_daemons
    from ..kvs.errors import FluxkvError
    from ..kvs.uri import parse_server, parse_uri, same_instance

    def candidates() -> Iterator[str]:
        yield os.path.dirname(parse_server(parse_uri(address).server).password_file)
        yield from named_by_daemons()

    seen = {""}
    for path in candidates():
        if path in seen:
            continue
        seen.add(path)
        try:
            if same_instance(str(StateDir(path).read()["uri"]), address):
                return StateDir(path)
        except (FluxkvError, KeyError):  # none, another user's, or just gone
            continue
    return None


def heard(journal: Journal, address: str, hosts: dict[int, str]) -> list[dict[str, Any]]:
    """name, host ("" where that is not known), how ("lease": plans now; "beat"; "log"), ago (seconds). hosts: rank -> name."""
    from ..journal.wire import unpack
    from ..kvs.keys import Keys
    from .servers import connect

    store, keys = journal.store, Keys(journal.store.namespace)
    now = store.now()
    found: list[dict[str, Any]] = []
    connection = connect(address)
    lines: list[Any] = []
    if connection is not None:
        try:
            owner, lines = connection.pipeline([("GET", keys.lease), ("XREVRANGE", keys.log, "+", "-", "COUNT", LINES)])
        finally:
            connection.close()
        if isinstance(owner, bytes):
            name, _, host = owner.decode(errors="replace").partition("@")
            found.append({"name": name, "host": host, "how": "lease", "ago": 0.0})
    beats: dict[str, float] = {}
    for message in store.messages(keys.telemetry, f"{int((now - BEATS_S) * 1000)}-0", limit=10_000):
        try:
            at = int(message.id.partition("-")[0]) / 1000
            beats |= {hosts[rank]: at for rank in unpack(message.data)[0] if rank in hosts}
        except (ValueError, TypeError, LookupError):
            continue
    for host, at in sorted(beats.items()):
        found.append({"name": "agent", "host": host, "how": "beat", "ago": round(max(0.1, now - at), 1)})
    said = {(one["name"], one["host"]) for one in found}
    for id, fields in lines if isinstance(lines, list) else ():
        try:
            full = str(unpack(fields[1])[1])
        except (ValueError, TypeError, LookupError):
            continue
        name, _, host = full.partition("@")
        if (name, host) not in said and not (name == "agent" and beats):
            said.add((name, host))
            ago = max(0.1, now - int(id.partition(b"-")[0]) / 1000)
            found.append({"name": name, "host": host, "how": "log", "ago": round(ago, 1)})
    return found


def in_words(found: list[dict[str, Any]]) -> str:
    """One line of it."""
    from .render import duration_text

    texts = [f"{one['name']}{'@' * bool(one['host'])}{one['host']} plans" for one in found if one["how"] == "lease"]
    beats = [one for one in found if one["how"] == "beat"]
    if len(beats) > NAMED:
        texts.append(f"agents of {len(beats)} hosts, the last of them {duration_text(max(one['ago'] for one in beats))} ago")
    elif beats:
        texts.append("agents of " + ", ".join(f"{one['host']} {duration_text(one['ago'])} ago" for one in beats))
    texts += [
        f"{one['name']}{'@' * bool(one['host'])}{one['host']} last said something {duration_text(one['ago'])} ago"
        for one in found if one["how"] == "log"
    ]  # fmt: skip
    return "; ".join(texts)
