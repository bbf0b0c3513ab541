"""What `status` says is wrong with the instances that jobs of an instance are, or were. Reads only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..instances.paths import StateDir
    from ..journal.log import Journal
    from ..journal.state import State

MADE_WITHIN_S = 30.0  # a child that has no journal after that has lost it
LOOKED_AT = 200  # of those that run
SHOWN = 3


def children_lost(journal: Journal, state: State) -> list[str]:
    """Those whose job runs, and of whose journal nothing is left: a fail-over took it, and they wait for ever."""
    from ..instances.whereabouts import is_made
    from ..journal.ids import f58
    from ..kvs.errors import FluxkvError

    found, now = list[str](), time.time()
    try:
        rows = journal.store.children()
    except FluxkvError:
        return []
    for row in rows[:LOOKED_AT]:
        job = state.jobs.get(row.job)
        if row.over or job is None or not job.holds or not job.t_run or job.t_run > now - MADE_WITHIN_S:
            continue
        try:
            if is_made(journal.store, f"{journal.store.namespace.rstrip('/')}/{row.name}"):
                continue
        except FluxkvError:
            continue  # on a server that is away, so it has one
        id = f58(job.id)
        found.append(
            f"job {id} is an instance of whose journal nothing is left on the server: it does nothing any more, and cannot be gone "
            f"on with (fluxkv cancel {id} ends it; fluxkv start --on-fork=adopt begins such children anew)"
        )
    more = [f"{len(found) - SHOWN} more instances in jobs have lost their journals"] if len(found) > SHOWN else []
    return found[:SHOWN] + more


def children_not_up(directory: StateDir) -> list[str]:
    """What its keeper has noted of journals on this host that do not come up to their parent's server."""
    from ..instances.handover import refusal_in

    return [said] if (said := refusal_in(directory)) else []
