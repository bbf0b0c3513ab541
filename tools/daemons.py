"""What is known about an instance's daemons and its directory, from the files in it. Decides who counts as
alive.

`run/<role>.json` says who a daemon is, `run/<role>.lock` whether it lives (its holder does),
`run/<role>.failed` why it was given up. Several daemons of a role have names such as `agent-3`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..instances.paths import StateDir

ORDER = ("server", "worker", "agent", "launcher", "keeper")


def processes(directory: StateDir) -> list[dict[str, Any]]:
    """The daemons that have a file in run/: pid, role, name, state ("running" or "dead"), started (Unix
    seconds)."""
    import json

    from ..instances.paths import lock_held

    found = []
    try:
        files = sorted(os.listdir(directory.join("run")))
    except OSError:
        return []
    for file in files:
        name, dot, kind = file.rpartition(".")
        if not dot or kind != "json":
            continue
        try:
            with open(directory.join("run", file)) as stream:
                values = json.load(stream)
            pid, role = int(values["pid"]), str(values.get("role") or name.partition("-")[0])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        alive = lock_held(directory.lock_file(name))
        found.append({
            "pid": pid, "role": role, "name": name, "state": "running" if alive else "dead",
            "started": values.get("started", 0.0),
        })  # fmt: skip
    return sorted(
        found, key=lambda one: (ORDER.index(one["role"]) if one["role"] in ORDER else 9, one["name"])
    )


def given_up(directory: StateDir) -> dict[str, str]:
    """name -> reason of daemons that are not started again, since they kept ending."""
    found = {}
    try:
        files = sorted(os.listdir(directory.join("run")))
    except OSError:
        return {}
    for file in files:
        if file.endswith(".failed"):
            try:
                with open(directory.join("run", file), errors="replace") as stream:
                    found[file.removesuffix(".failed")] = " ".join(stream.read().split()) or "the reason could not be written"
            except OSError as error:
                found[file.removesuffix(".failed")] = str(error)
    return found


def way_out(directory: StateDir, why: str) -> str:
    """What to do about a daemon that was given up for this reason: start it again, unless the reason says itself what (adopt)."""
    return "" if "fluxkv ops" in why else f"fluxkv start --detach --state-dir {directory.path}"


def server_process(connection: Any, here: bool) -> dict[str, Any] | None:
    """The server as a process entry, by its own word; None if it is on another host."""
    from .servers import server_facts

    if not here:
        return None
    facts = server_facts(connection, "server")
    pid = int(facts.get("process_id", 0))
    started = int(facts.get("server_time_usec", 0)) / 1e6 - int(facts.get("uptime_in_seconds", 0))
    return (
        {"pid": pid, "role": "server", "name": "server", "state": "running", "started": round(started, 3)}
        if pid
        else None
    )


def disk(path: str) -> dict[str, Any]:
    """Total and free bytes of the file system that holds `path`, and what the directory itself takes."""
    try:
        found = os.statvfs(path)
    except OSError:
        return {"path": path}
    used = 0
    for folder, _, files in os.walk(path):
        for file in files:
            try:
                used += os.lstat(os.path.join(folder, file)).st_size
            except OSError:
                continue
    return {
        "path": path, "total": found.f_blocks * found.f_frsize, "free": found.f_bavail * found.f_frsize,
        "used_here": used,
    }  # fmt: skip


def megabytes(number: float) -> str:
    """Bytes for people: "512 kB", "3.2 MB", "12 GB"."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} B"
