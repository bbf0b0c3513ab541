"""The process that hands up the journal of a child whose own keeper did not: it is over, and nobody of it lives. Decides nothing.

It has the keeper's lock of that child meanwhile, so there is one at most, and starts its server on its files.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any

from ..kvs.errors import FluxkvError, Rejected, Unavailable
from ..kvs.listening import Listen
from ..kvs.redis_store import open_store
from ..kvs.server import start_server
from ..kvs.uri import StoreUri, parse_uri
from . import forks, handover, witness
from .daemon import Log, take_lock
from .handover_duty import folders, is_leading
from .paths import StateDir
from .supervised import remove, write_word


def main(state_dir: StateDir, log: Log) -> None:
    """Body of the process. Raises what stands in the way."""
    lock = take_lock(state_dir.lock_file("keeper"), 0.0)
    why = state_dir.join("run", handover.REFUSED)
    try:
        finish(state_dir, state_dir.read(), log)
        remove(why)
    except FluxkvError as error:
        write_word(why, f"{error} ({error.hint})" if error.hint else str(error))
        raise
    finally:
        os.close(lock)


def finish(state_dir: StateDir, settings: dict[str, Any], log: Log) -> None:
    """Hand it up, and before that what is left of children of its own on this host."""
    if handover.is_marked(state_dir):
        return
    names = set[str]()
    if os.path.isdir(state_dir.join("appendonlydir")):  # else its server never came to be
        # Nobody is to come in from elsewhere; its passwords hold on the socket as before.
        listen = Listen("127.0.0.1", 0) if settings.get("listen") else None
        handle = start_server(state_dir.path, settings.get("durability", "strict"), listen=listen)
        try:
            if handle.repaired:
                log.say("warning", handle.repaired)
            _below(state_dir, handle.url, log)
            _notice(state_dir, settings, handle.url, log)  # last: the server may have lost some of it while others came
            handover.hand_up(handle.url, settings, names)
        except Rejected as error:
            if error.code not in (handover.LOST, handover.NOTHING_LEFT):
                raise
            handover.mark(state_dir, "")
            log.say("warning", str(error))
            return
        finally:
            handle.stop()
    handover.mark(state_dir, handover.target_of(settings), names)
    log.say("info", f"{len(names)} journals handed up")


def _notice(state_dir: StateDir, settings: dict[str, Any], server: str, log: Log) -> None:
    """Fence a journal that lost its end with its server: it goes up as it is, and whoever is to go on with it there is told."""
    with closing(open_store(str(StoreUri(server, parse_uri(str(settings["uri"])).namespace)))) as store:
        try:
            for one in witness.witnesses(state_dir):
                if (lost := forks.notice(store, one.known)) is not None:
                    log.say("error", f"{forks.history_lost(store.meta().version, lost, one.who)}; what is left is handed up")
                    return
        except Unavailable as error:
            if error.code != "no-instance":
                raise


def _below(state_dir: StateDir, server: str, log: Log) -> None:
    """Those of children inside it, first, into the server that runs again now. One that can not be is left: its door goes up."""
    for directory in folders(state_dir):
        try:
            settings = directory.read()
            if is_leading(settings):
                main(directory, log)
            else:
                _below(directory, server, log)
                _notice(directory, settings, server, log)
        except FluxkvError as error:
            log.say("warning", f"{directory.path} is not handed up: {error}")
