"""What a keeper knows of each daemon it keeps, and of whoever started the instance. Decides nothing.

Small words in run/ (`<role>.failed`, `ready`, `stopping`, `owner`) are written here.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Mapping
from typing import Any

from . import proctree
from .daemon import STARVED
from .paths import StateDir, write_json

GONE = -1  # an owner that has ended
DEATHS, WITHIN_S = 3, 30.0  # so many in so long: given up, or, if it was killed by somebody, started again with pauses
PAUSE_S = 0.5


class Role:
    """One supervised daemon. pidfd: -1 while it is not watched. again_at: not started before (monotonic clock)."""

    __slots__ = ("again_at", "deaths", "failed", "how", "kills", "lock", "name", "options", "pid", "pidfd", "spared")

    def __init__(self, name: str, lock: str, *options: str) -> None:
        self.name = name
        self.lock = lock
        self.options = options
        self.pid = 0
        self.pidfd = -1
        self.deaths: list[float] = []  # by its own doing
        self.kills: list[float] = []  # by somebody's kill -9, the kernel's when memory is short, or for want of room
        self.failed = ""
        self.how = ""  # how it ended last, when that was by a signal
        self.spared = False  # whether it ended by no doing of its own
        self.again_at = 0.0

    def ended(self, run_file: str) -> None:
        """Learn how it ended: by its wait status, or, where it is not our child, by what it left behind."""
        self.how, self.spared = "", False
        try:
            status = os.waitpid(self.pid, os.WNOHANG)[1]
            if os.WIFSIGNALED(status):
                self.how = f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
                self.spared = os.WTERMSIG(status) == signal.SIGKILL
            elif os.WEXITSTATUS(status) == STARVED:
                self.how, self.spared = "it found no room on the disk, or no memory", True
        except ChildProcessError:
            self.spared = self.name != "launcher" and _run_file_of(run_file, self.pid)  # who leaves by itself takes it along
            self.how = "killed" if self.spared else ""
        except ValueError:
            pass
        self.pid = 0

    def count(self, now: float, *, blameless: bool = False) -> bool:
        """One more death, at `now`; whether it is to be given up: one that was killed, or starved, never is, only started less
        eagerly.

        blameless: it could not live, whatever it did (history is lost, and nobody has adopted what is left).
        """
        spared = self.spared or blameless
        of = self.kills if spared else self.deaths
        of[:] = [t for t in of if now - t < WITHIN_S] + [now]
        often = len(of) >= DEATHS + (2 if self.name == "launcher" else 0)
        self.again_at = now + PAUSE_S if often else 0.0
        return often and not spared


def forgive(roles: Iterable[Role], state_dir: StateDir) -> None:
    """Those that were given up get another chance."""
    for role in roles:
        role.failed, role.deaths = "", []
        remove(state_dir.join("run", f"{role.name}.failed"))


def roles_of(settings: Mapping[str, Any], state_dir: StateDir) -> list[Role]:
    """The daemons a state directory has, by its settings, in the order in which they start."""
    names = []
    if settings.get("lead", True):
        # On a host that has joined each plans by a name of its own: it is its lease's owner, and its producer.
        where = f"@{settings['host']['name']}" if settings.get("join") else ""
        names += [f"worker-{number}{where}" for number in range(int(settings.get("workers", 1)))]
    if settings.get("ranks") != []:
        names += ["agent"] if settings.get("fake") else ["launcher", "agent"]
    return [Role(name, state_dir.lock_file(name)) for name in names]


def _run_file_of(path: str, pid: int) -> bool:
    try:
        with open(path) as file:
            return bool(json.load(file)["pid"] == pid)
    except (OSError, ValueError, KeyError):
        return False


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
