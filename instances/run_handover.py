"""The process that hands up the journal of a child whose own keeper did not: it is over, and nobody of it lives. Decides nothing.

It has the keeper's lock of that child meanwhile, so there is one at most, and starts its server on its files.
"""

from __future__ import annotations

import os
from typing import Any

from ..kvs.errors import FluxkvError
from ..kvs.listening import Listen
from ..kvs.server import start_server
from . import handover
from .daemon import Log, take_lock
from .handover_duty import folders, is_leading
from .paths import StateDir


def main(state_dir: StateDir, log: Log) -> None:
    """Body of the process. Raises what stands in the way."""
    lock = take_lock(state_dir.lock_file("keeper"), 0.0)
    try:
        finish(state_dir, state_dir.read(), log)
    finally:
        os.close(lock)


def finish(state_dir: StateDir, settings: dict[str, Any], log: Log) -> None:
    """Hand it up, and before that what is left of children of its own on this host."""
    if handover.is_marked(state_dir):
        return
    journals = 0
    if os.path.isdir(state_dir.join("appendonlydir")):  # else its server never came to be
        # Nobody is to come in from elsewhere; its passwords hold on the socket as before.
        listen = Listen("127.0.0.1", 0) if settings.get("listen") else None
        handle = start_server(state_dir.path, settings.get("durability", "strict"), listen=listen)
        try:
            if handle.repaired:
                log.say("warning", handle.repaired)
            _below(state_dir, log)
            journals = handover.hand_up(handle.url, settings)
        finally:
            handle.stop()
    handover.mark(state_dir, handover.target_of(settings))
    log.say("info", f"{journals} journals handed up")


def _below(state_dir: StateDir, log: Log) -> None:
    """Those of children inside it, first, into the server that runs again now. One that can not be is left: its door goes up."""
    for directory in folders(state_dir):
        try:
            if is_leading(directory.read()):
                main(directory, log)
            else:
                _below(directory, log)
        except FluxkvError as error:
            log.say("warning", f"{directory.path} is not handed up: {error}")
