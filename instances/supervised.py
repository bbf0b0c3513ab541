"""What a keeper knows of each daemon it keeps, and of whoever started the instance. Decides nothing.

Small words in run/ (`<role>.failed`, `ready`, `stopping`, `owner`) are written here.
"""

from __future__ import annotations

import json
import os

from . import proctree
from .paths import StateDir, write_json

GONE = -1  # an owner that has ended


class Role:
    """One supervised daemon. pidfd: -1 while it is not watched."""

    __slots__ = ("deaths", "failed", "how", "lock", "name", "options", "pid", "pidfd")

    def __init__(self, name: str, lock: str, *options: str) -> None:
        self.name = name
        self.lock = lock
        self.options = options
        self.pid = 0
        self.pidfd = -1
        self.deaths: list[float] = []
        self.failed = ""
        self.how = ""  # how it ended last, when that was by a signal


def write_word(path: str, text: str) -> None:
    """A word in run/; on a full disk it is in the log only."""
    try:
        with open(path, "w") as file:
            file.write(text + "\n")
    except OSError:
        pass


def remove(path: str) -> None:
    """Unlink a file that may be gone."""
    try:
        os.unlink(path)
    except OSError:
        pass


def owner_file(state_dir: StateDir) -> str:
    """Where the first keeper writes down whose end ends the instance."""
    return state_dir.join("run", "owner")


def keep_owner(state_dir: StateDir, owner: int, revived: bool) -> int:
    """The process whose end ends the instance; a keeper started by a daemon reads what the first one wrote down."""
    path = owner_file(state_dir)
    if not revived:
        if owner:
            found = proctree.stat(owner)
            write_json(path, {"pid": owner, "start_s": found.start_s if found else 0.0})
        else:
            remove(path)
        return owner
    try:
        with open(path) as file:
            kept = json.load(file)
        owner, start_s = int(kept["pid"]), float(kept["start_s"])
    except (OSError, ValueError, KeyError):
        return 0
    found = proctree.stat(owner)
    return owner if found is not None and found.start_s == start_s else GONE
