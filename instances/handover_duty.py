"""The keeper's part in handing up what children with servers of their own left on this host: their journals, when they could not.

Decides when a child is over and nobody of it is there any more: then a process of its own finishes what its keeper did not
(`run_handover`). What is inside a child that is over, with a server or without, is looked at in the same way: nobody else is left
who would. One that shares this instance's server and is in its table no more, though nobody has sealed it, is put there again.
A host's keeper looks after its own folders only.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from ..kvs.errors import FluxkvError
from ..kvs.port import Store
from . import door_folders, handover, parent_row
from .daemon import spawn_role
from .paths import ROLES, StateDir, lock_held
from .supervised import remove, write_word
from .whereabouts import OWN

AGAIN_S, LONGEST_S = 10.0, 60.0  # between two tries of one child, longer each time
AT_ONCE = 4  # each is a process, and a server that it starts: of many children that were killed together the others wait
FINISH_S = 20.0  # how long an instance that stops waits for what its children left
SWEEP_S = 3600.0
MADE_S = 3600.0  # nobody takes so long to make a state directory
KEPT_S = 7 * 86400.0  # what a child that is over left: its spool, which who goes on with it may need, and logs


class HandoverDuty:
    """store: of the instance whose jobs the children are. say: the keeper's log."""

    look_s = 2.0  # between two looks

    def __init__(self, store: Store, state_dir: StateDir, say: Callable[[str, str], None]) -> None:
        self._store, self._state_dir, self._say = store, state_dir, say
        self._known: dict[str, Mapping[str, Any]] = {}  # settings by folder, without those in which nothing is left to do
        self._done: set[str] = set()
        self._at_work: dict[int, str] = {}
        self._again: dict[str, float] = {}
        self._pause: dict[str, float] = {}
        self._failed, self._told = set[str](), ""
        self._here: tuple[int, list[StateDir]] = 0, []  # when folders were made or removed last, those in which something is left
        self._sweep_at = time.monotonic() + SWEEP_S

    def look(self) -> None:
        """Begin what is to be done."""
        self._reap()
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP_S
            self._sweep()
        here = self._left()
        settings = {one.path: found for one in here if (found := self._settings(one)) is not None}
        try:
            over = parent_row.over(self._store, settings.values())
        except FluxkvError:
            return  # the server is away: said by others
        for (path, one), is_over in zip(settings.items(), over, strict=True):
            if is_over:
                try:
                    parent_row.note_unsealed(self._store, one)
                except FluxkvError:
                    continue  # looked at again
                self._look_at(StateDir(path), one)
        self._tell()

    def _tell(self) -> None:
        """Whoever asks how this instance is learns what does not come up, and why."""
        self._failed = {path for path in self._failed if not handover.is_marked(StateDir(path)) and os.path.isdir(path)}
        text = ""
        if self._failed:
            path = min(self._failed)
            more = f", and {len(self._failed) - 1} more" if len(self._failed) > 1 else ""
            text = f"the journal in {path} does not come up: {handover.refusal_in(StateDir(path)) or 'its log says why'}{more}"
        if text != self._told:
            self._told, word = text, self._state_dir.join("run", handover.REFUSED)
            write_word(word, text) if text else remove(word)

    def _left(self) -> list[StateDir]:
        """The folders in which something may be left to do. All are listed only when there are others than before: thousands of
        children may have ended here."""
        try:
            changed = os.stat(self._state_dir.join("ns")).st_mtime_ns
        except OSError:
            return []
        before, here = self._here
        here = [one for one in (here if before == changed else folders(self._state_dir)) if one.path not in self._done]
        # In a moment that has just been there may be two changes, of which the second one shows by nothing.
        self._here = (changed if abs(time.time_ns() - changed) > 1_000_000_000 else 0), here
        return here

    def _sweep(self) -> None:
        """Remove what children left that have been over for long, with all that is inside; and what was never more than folders."""
        half = {one.path for one in self._here[1] if is_half_made(one)}
        for path in sorted(self._done | half, key=len):
            directory = StateDir(path)
            if not os.path.isdir(path):
                self._done.discard(path)  # it went with the one around it
            elif _last_written(directory) < time.time() - KEPT_S and not is_alive(directory):
                door_folders.remove_all(path)
                shutil.rmtree(path, ignore_errors=True)
                self._done.discard(path)

    def _look_at(self, directory: StateDir, settings: Mapping[str, Any]) -> bool:
        """One that is over; whether nothing is left to do about it and what is inside."""
        if directory.path in self._done:
            return True
        if is_alive(directory):
            return False
        left = False
        if is_leading(settings):
            if not handover.is_marked(directory):
                self._begin(directory)  # which hands up what is inside, too
                return False
            left = not handover.remove_files(directory, settings)
        for one in folders(directory):
            found = self._settings(one)
            something = not is_half_made(one) if found is None else not self._look_at(one, found)
            left = something or left
        if not left:
            door_folders.remove_launcher_s(directory.path)
            self._done.add(directory.path)
            for table in (self._known, self._again, self._pause):
                table.pop(directory.path, None)
        return not left

    def finish(self) -> None:
        """The same for an instance that stops: its jobs are over. Waits for what can be done, a while at most."""
        deadline = time.monotonic() + FINISH_S
        self._again.clear()
        self.look()
        while self._at_work and time.monotonic() < deadline:
            time.sleep(0.02)
            before = len(self._at_work)
            self._reap()
            if len(self._at_work) < before == AT_ONCE:
                self.look()  # others may wait for their turn

    def _settings(self, directory: StateDir) -> Mapping[str, Any] | None:
        """None while it is being made."""
        if directory.path not in self._known:
            try:
                self._known[directory.path] = directory.read()
            except FluxkvError:
                return None
        return self._known[directory.path]

    def _begin(self, directory: StateDir) -> None:
        path, now = directory.path, time.monotonic()
        if path in self._at_work.values() or len(self._at_work) >= AT_ONCE or now < self._again.get(path, 0.0):
            return
        pause = self._pause.get(path, AGAIN_S)
        self._again[path], self._pause[path] = now + pause, min(LONGEST_S, 2 * pause)
        try:
            self._at_work[spawn_role(directory, "handover")] = path
        except OSError as error:
            self._say("error", f"the journal in {path} can not be handed up: {error}")

    def _reap(self) -> None:
        for pid, path in list(self._at_work.items()):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended, status = pid, 0
            if not ended:
                continue
            del self._at_work[pid]
            if os.WIFSIGNALED(status):
                self._again.pop(path, None)  # somebody killed it
            elif status:
                self._failed.add(path)
                self._say("warning", f"the journal in {path} is not handed up yet: see log/handover.log there")


def folders(state_dir: StateDir) -> Iterator[StateDir]:
    """The state directories, on this host, of the children of an instance."""
    try:
        names = sorted(os.listdir(state_dir.join("ns")))
    except OSError:
        return
    for name in names:
        yield StateDir(state_dir.join("ns", name))


def is_half_made(directory: StateDir) -> bool:
    """Whether somebody was killed before there was an instance in it, some time ago."""
    return not os.path.lexists(directory.instance_file) and _last_written(directory) < time.time() - MADE_S


def _last_written(directory: StateDir) -> float:
    """When a child's daemons last wrote here, or its journal was handed up (Unix seconds)."""
    files = ("instance.json", "tip", handover.MARK, "log/keeper.log", "spool/launcher.record")
    found = [time.time()]
    with suppress(FileNotFoundError):
        found = [os.stat(directory.path).st_mtime]
    for file in files:
        with suppress(FileNotFoundError):
            found.append(os.stat(directory.join(file)).st_mtime)
    return max(found)


def is_leading(settings: Mapping[str, Any]) -> bool:
    """Whether the files of a child's own server are in this folder."""
    return settings.get("kvs") == OWN and bool(settings.get("lead"))


def is_alive(directory: StateDir) -> bool:
    """Whether a daemon of it is there, or somebody who hands it up. (A server may be left, of somebody who was doing that.)"""
    return any(lock_held(directory.lock_file(role)) for role in (*ROLES, "worker-0"))


def waiting(state_dir: StateDir) -> list[str]:
    """The folders of children, at any depth, in which nobody lives and whose journals are not handed up."""
    found = []
    for one in folders(state_dir):
        try:
            settings = one.read()
        except FluxkvError:
            continue  # it is being made
        if is_leading(settings) and not handover.is_marked(one) and not is_alive(one):
            found.append(one.path)
        found += waiting(one)
    return found
