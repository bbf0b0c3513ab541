"""The archiver's process: one run of `archiving`, started by the keeper as often as the config says. Decides nothing.

It is a process of its own: a place that hangs, or a large history, holds up nobody else.
"""

from __future__ import annotations

import time

from ..journal.archive_config import archive_rules
from ..journal.log import Journal
from ..kvs.errors import FluxkvError, Unavailable
from ..kvs.keys import Keys
from ..kvs.redis_store import open_store
from .archiving import Archiver, place_of, run
from .daemon import Log
from .paths import StateDir, write_json

NOTE = "archive.json"  # in the state directory: how the last run went


def main(state_dir: StateDir, log: Log) -> None:
    """Body of the process."""
    settings = state_dir.read()
    store = open_store(settings["uri"])
    log.store, log.keys = open_store(settings["uri"], patience_s=0.0), Keys(store.namespace)
    journal = Journal(store, by="archiver")
    rules = archive_rules(journal.look().config)
    if not rules.on:
        return
    place = place_of(rules, journal.meta, state_dir)
    try:
        done = run(Archiver(journal, place, settings), rules, store.now(), trim=rules.trims)
    except Unavailable as error:
        if error.code == "busy":
            return
        _note(state_dir, place, error)
        raise
    except FluxkvError as error:
        _note(state_dir, place, error)
        raise
    if done.lost:
        log.say("warning", f"versions {done.lost[0]} to {done.lost[1]} in {place} are of a branch that was lost: set aside")
    if done.archived:
        size = sum(part.size for part in done.segments)
        log.say("info", f"versions {done.archived[0]} to {done.archived[1]} archived in {place} ({size} bytes)")
    if done.trimmed:
        log.say("info", f"versions {done.trimmed[0]} to {done.trimmed[1]} taken out of the server")
    _note(state_dir, place, None)


def _note(state_dir: StateDir, place: str, error: FluxkvError | None) -> None:
    write_json(state_dir.join(NOTE), {"time": time.time(), "url": place, "error": str(error) if error else ""})
