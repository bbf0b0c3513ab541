"""How a server of ours is configured: the append-only file, no eviction, a private socket file. Starts nothing."""

from __future__ import annotations

import os

from . import listening

_POLICIES = {"strict": "always", "local": "everysec", "replicated": "always", "none": "no"}


def server_args(
    state_dir: str, socket: str, durability: str, *, truncated: bool = False, listen: listening.Listen | None = None
) -> list[str]:
    """The options of a server of ours. listen: where it listens beside its socket file."""
    options = {
        "port": "0", "unixsocket": socket, "unixsocketperm": "600", "dir": state_dir,
        "daemonize": "no", "save": "", "appendonly": "yes", "appendfsync": _POLICIES[durability],
        "aof-load-truncated": "yes" if truncated else "no", "no-appendfsync-on-rewrite": "no",
        "auto-aof-rewrite-percentage": "100", "auto-aof-rewrite-min-size": "64mb",
        "maxmemory": "0", "maxmemory-policy": "noeviction", "stream-node-max-bytes": "8192",
        "stream-node-max-entries": "100", "tcp-keepalive": "60", "timeout": "0",
        "hash-max-listpack-entries": "32",  # guards are looked up by the hundred: no lists
        "databases": "1", "loglevel": "notice", "logfile": os.path.join(state_dir, "server.log"),
        **(listening.options(state_dir, listen) if listen is not None else {}),
    }  # fmt: skip
    return [part for name, value in options.items() for part in (f"--{name}", value)]
