"""The keeper's part in handing up what children with servers of their own left on this host: their journals, when they could not.

Decides when a child is over and nobody of it is there any more: then a process of its own finishes what its keeper did not
(`run_handover`). A host's keeper looks after its own folders only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..journal.ids import parse_id
from ..kvs.errors import FluxkvError
from ..kvs.port import Store
from . import handover
from .daemon import spawn_role
from .paths import ROLES, StateDir, lock_held
from .whereabouts import OWN

AGAIN_S = 10.0  # between two tries of one child
FINISH_S = 20.0  # how long an instance that stops waits for what its children left


class HandoverDuty:
    """store: of the instance whose jobs the children are. say: the keeper's log."""

    look_s = 2.0  # between two looks

    def __init__(self, store: Store, state_dir: StateDir, say: Callable[[str, str], None]) -> None:
        self._store, self._state_dir, self._say = store, state_dir, say
        self._done: set[str] = set()  # names of folders in which there is nothing to do
        self._at_work: dict[int, str] = {}
        self._again: dict[str, float] = {}

    def look(self) -> None:
        """Begin what is to be done."""
        self._reap()
        for directory, settings in folders(self._state_dir, self._done):
            name = os.path.basename(directory.path)
            if handover.is_marked(directory):
                if handover.remove_files(directory, settings):
                    self._done.add(name)
            elif self._is_due(name) and self._is_over(directory, settings):
                self._again[name] = time.monotonic() + AGAIN_S
                self._begin(name, directory)

    def finish(self) -> None:
        """The same for an instance that stops: its jobs are over. Waits for what can be done, a while at most."""
        deadline = time.monotonic() + FINISH_S
        self._again.clear()
        self.look()
        while self._at_work and time.monotonic() < deadline:
            time.sleep(0.02)
            self._reap()

    def _is_due(self, name: str) -> bool:
        return name not in self._at_work.values() and time.monotonic() >= self._again.get(name, 0.0)

    def _is_over(self, directory: StateDir, settings: Mapping[str, Any]) -> bool:
        """Whether its attempt is, by this instance's word, and nobody of it lives. (A server may be left, of somebody who was doing
        this.)"""
        if _is_alive(directory):
            return False
        try:
            return self._store.bumps([f"attempt/{parse_id(settings['job'])}"])[0] != int(settings["since"])
        except FluxkvError:
            return False  # the server is away: said by others

    def _begin(self, name: str, directory: StateDir) -> None:
        try:
            self._at_work[spawn_role(directory, "handover")] = name
        except OSError as error:
            self._say("error", f"the journal in {directory.path} can not be handed up: {error}")

    def _reap(self) -> None:
        for pid, name in list(self._at_work.items()):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended, status = pid, 0
            if not ended:
                continue
            del self._at_work[pid]
            if os.WIFSIGNALED(status):
                self._again.pop(name, None)  # somebody killed it
            elif status:
                self._say("warning", f"the journal in ns/{name} is not handed up yet: see log/handover.log there")


def waiting(state_dir: StateDir) -> list[str]:
    """The folders of children in which nobody lives and whose journals are not handed up."""
    return [one.path for one, _ in folders(state_dir, set()) if not handover.is_marked(one) and not _is_alive(one)]


def folders(state_dir: StateDir, done: set[str]) -> Iterator[tuple[StateDir, Mapping[str, Any]]]:
    """The folders, on this host, of an instance's children with servers of their own, with their settings.

    done: names of those to be passed over; those that never will be such are put there.
    """
    try:
        names = os.listdir(state_dir.join("ns"))
    except OSError:
        return
    for name in sorted(set(names) - done):
        directory = StateDir(state_dir.join("ns", name))
        try:
            settings = directory.read()
        except FluxkvError:
            continue  # it is being made
        if settings.get("kvs") == OWN and settings.get("lead"):
            yield directory, settings
        else:
            done.add(name)


def _is_alive(directory: StateDir) -> bool:
    """Whether a daemon of it is there, or somebody who hands it up."""
    return any(lock_held(directory.lock_file(role)) for role in (*ROLES, "worker-0"))
