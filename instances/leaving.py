"""A joined host stops in order: nothing new is placed on it, its tasks are ended, and their end is in the journal before it goes.

What it ran is lost with the cause that its node has left; the rest of the instance goes on. Used by its keeper.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from ..journal.decide import Decision
from ..journal.idset import format_ids
from ..journal.log import Journal
from ..journal.node import STOPPED
from ..journal.state import State
from ..kvs.errors import FluxkvError
from ..kvs.keys import Keys
from ..kvs.redis_store import open_store
from .daemon import Log

TOLD_S = 5.0  # how long ends that the launcher has told are waited for in the journal


def gone(ranks: list[int], reason: str) -> Decision:
    """These nodes are not there any more, from this moment. It has no premise; who places jobs there now has not seen it."""
    now = time.time()
    context = {"idset": format_ids(ranks), "reason": reason, "heard": now}
    return Decision([["offline", "resource", now, context]], bumps=[f"node/{rank}" for rank in ranks])


def end_here(settings: dict[str, Any], log: Log, end: Callable[[str], None]) -> None:
    """Say that the nodes go, have the launcher end its tasks, and the agent once their ends are known.

    Without the store the daemons end all the same; what they know is in the spool then, and is told when they are back.
    """
    ranks = list(settings.get("ranks", ()))
    try:
        with closing(open_store(settings["uri"], patience_s=1.0)) as store:
            journal = Journal(store, by="keeper")
            journal.patience_s = 0.0
            state = journal.look()
            journal.settle(lambda state: _only_those_there(state, ranks), state)
            journal.catch_up(state)
            end("launcher")
            _wait_for_ends(journal, state, ranks)
    except FluxkvError as error:
        log.say("warning", f"the instance may not know how what ran here has ended: {error}")
    end("launcher")
    end("agent")


def _only_those_there(state: State, ranks: list[int]) -> Decision:
    there = [rank for rank in ranks if rank in state.nodes and state.nodes[rank].online]
    return gone(there, STOPPED) if there else Decision([])


def _wait_for_ends(journal: Journal, state: State, ranks: list[int]) -> None:
    deadline = time.monotonic() + TOLD_S
    key = Keys(journal.store.namespace).journal
    with closing(journal.store.subscribe({key: f"{state.version}-{state.epoch}"})) as subscription:
        while any(_unsettled(state, rank) for rank in ranks) and (left := deadline - time.monotonic()) > 0:
            subscription.poll(min(left, 0.5))
            journal.catch_up(state)


def _unsettled(state: State, rank: int) -> bool:
    """Whether something is held there of which nobody has told the end."""
    node = state.nodes.get(rank)
    return node is not None and any(rank not in state.jobs[id].over for id in node.jobs)
