"""The archiver's process: one run of `archiving`, and of `departing` for children that ended, started by the keeper as often as the
config says. Decides nothing.

It is a process of its own: a place that hangs, or a large history, holds up nobody else.
"""

from __future__ import annotations

import signal
import time
from typing import Any

from ..journal.archive_config import ArchiveRules, archive_rules
from ..journal.log import Journal
from ..kvs.errors import FluxkvError, Unavailable
from ..kvs.keys import Keys
from ..kvs.redis_store import open_store
from .archive_duty import moves_children
from .archive_note import read_note, write_children_note, write_note
from .archiving import Archiver, place_of, run
from .daemon import Log, Stopping
from .departing import PRESSED_S, Departing, tell
from .memory_line import is_past
from .paths import StateDir


def main(state_dir: StateDir, log: Log) -> None:
    """Body of the process."""
    signal.signal(signal.SIGTERM, _told)
    settings = state_dir.read()
    store = open_store(settings["uri"])
    log.store, log.keys = open_store(settings["uri"], patience_s=0.0), Keys(store.namespace)
    journal = Journal(store, by="archiver")
    rules = archive_rules(journal.look().config)
    place = place_of(rules, journal.meta, state_dir)
    failed: FluxkvError | None = None
    try:
        if rules.on:
            _history(state_dir, settings, journal, rules, place, log)
    except FluxkvError as error:
        failed = error
    if moves_children(settings, rules):
        _children(state_dir, settings, journal, rules, place, log)
    if failed is not None:
        raise failed


def _children(
    state_dir: StateDir, settings: dict[str, Any], journal: Journal, rules: ArchiveRules, place: str, log: Log
) -> None:
    """Those that ended long ago leave the server."""
    store = journal.store
    keep_s = min(rules.keep_children_s, PRESSED_S) if is_past(store, journal.meta) else rules.keep_children_s
    error, moved, size = "", 0, 0
    try:
        done = Departing(store, place, settings["uri"], keep_s).finish()
        tell(log.say, done)
        error, moved, size = next(iter(done.failed.values()), ""), len(done.written), done.size
    except FluxkvError as failure:
        if failure.code == "busy":
            return
        error = str(failure)
        log.say("error", f"children that ended stay in the server: {failure}")
    write_children_note(state_dir, time.time(), place, error, moved, size)


def _history(
    state_dir: StateDir, settings: dict[str, Any], journal: Journal, rules: ArchiveRules, place: str, log: Log
) -> None:
    """This instance's own."""
    store = journal.store
    try:
        sweep = rules.trims and time.time() - float(read_note(state_dir).get("swept", 0.0)) > rules.unused_blobs_s
        done = run(Archiver(journal, place, settings), rules, store.now(), trim=rules.trims, sweep=sweep)
    except Unavailable as error:
        if error.code == "busy":
            return
        write_note(state_dir, time.time(), place, str(error), False)
        raise
    except FluxkvError as error:
        write_note(state_dir, time.time(), place, str(error), False)
        raise
    if done.warning:
        log.say("warning", done.warning)
    if done.lost:
        log.say("warning", f"versions {done.lost[0]} to {done.lost[1]} in {place} are of a branch that was lost: set aside")
    if done.archived:
        size = sum(part.size for part in done.segments)
        log.say("info", f"versions {done.archived[0]} to {done.archived[1]} archived in {place} ({size} bytes)")
    if done.trimmed:
        log.say("info", f"versions {done.trimmed[0]} to {done.trimmed[1]} taken out of the server")
    if done.unnamed or done.printed:
        log.say("info", f"{done.unnamed} contents that nothing names and the output of {done.printed} jobs removed")
    write_note(state_dir, time.time(), place, "", sweep)


def _told(signum: int, frame: object) -> None:
    raise Stopping  # what is begun is given up: the next run finds all that a manifest names
