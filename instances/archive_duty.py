"""The keeper's part in archiving: starts the archiver as often as the instance's config says. Decides when, and nothing else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..journal.archive_config import ArchiveRules, archive_rules
from ..journal.decide_config import LOAD
from ..kvs.errors import FluxkvError
from ..kvs.port import Store
from .daemon import spawn_role
from .paths import StateDir
from .submit_rules import config_at
from .whereabouts import has_own


def moves_children(settings: Mapping[str, Any], rules: ArchiveRules) -> bool:
    """Whether an instance's keeper moves what ended inside it: that of one with a server to care for. A job's only where its
    config names a place: its own folders are removed some time after it."""
    return rules.keep_children_s < float("inf") and has_own(dict(settings)) and (not settings.get("parent") or bool(rules.url))


class ArchiveDuty:
    """say: the keeper's log. An instance whose config has neither [archive] nor [retention] costs one question each look, and
    now and then another: whether there are children, which are moved when they ended long ago."""

    def __init__(self, store: Store, state_dir: StateDir, say: Callable[[str, str], None]) -> None:
        self.store = store
        self.state_dir = state_dir
        self.settings = state_dir.read()
        self.say = say
        self.rules = ArchiveRules()
        self.pid = 0
        self._version = -1  # of the config that `rules` are of
        self._due = 0.0

    def look(self, config: int | None = None) -> None:
        """Start the archiver if it is due and not at work. config: the version of the config, where it has just been read."""
        self._reap()
        try:
            self._learn(self.store.bumps([LOAD])[0] if config is None else config)
        except FluxkvError:
            return  # the server is away, or the config is none: said by others
        now = time.monotonic()
        if self.pid or now < self._due:
            return
        self._due = now + self.rules.every_s
        if not self.rules.on and not self._has_children():
            return
        try:
            self.pid = spawn_role(self.state_dir, "archiver")
        except OSError as error:
            self.say("error", f"the archiver could not be started: {error}")

    def _has_children(self) -> bool:
        """Whether there are any that may have ended, and it is for us to move them."""
        try:
            return moves_children(self.settings, self.rules) and self.store.may_have_inside()
        except FluxkvError:
            return False

    def _learn(self, version: int) -> None:
        if version != self._version:
            self.rules = archive_rules(config_at(self.store, version)) if version else ArchiveRules()
            self._version = version
            self._due = 0.0

    def _reap(self) -> None:
        if self.pid:
            try:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    self.pid = 0
            except ChildProcessError:
                self.pid = 0

    def stop(self) -> None:
        """End an archiver at work: what it has not finished is done next time."""
        self._reap()
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
            self.pid = 0
