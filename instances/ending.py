"""Ending an instance's jobs before its daemons: an exception that says why, and the wait for their facts.

Decides which jobs end when an instance stops (those that run; pending ones stay for the next start). Signals nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..journal.decide import Decision
from ..journal.job import CLEANUP, RUN
from ..journal.log import Journal
from ..journal.state import State
from ..kvs.errors import Unavailable
from ..kvs.keys import Keys
from ..kvs.redis_store import open_store
from .daemon import RETRY_S, Log

GRACE_S = 30.0
LOOK_S = 0.25


def stopping(state: State) -> Decision:
    """No more allocation, and an exception on each running job."""
    now = time.time()
    decision = Decision([["instance-stopping", "instance", now, None]])
    decision.bumps += [f"plan/{queue}" for queue in state.queues]  # what is being placed now has not seen this
    for job in state.active():
        if job.state == RUN and job.exception is None:
            context = {"type": "shutdown", "severity": 0, "note": "the instance is being stopped"}
            decision.events.append(["exception", job.id, now, context])
            decision.since.append(f"job/{job.id}")
            decision.bumps.append(f"job/{job.id}")
    return decision


def end_jobs(uri: str, log: Log, look: Callable[[], None]) -> None:
    """Stop allocation, raise an exception on each running job, and wait until all are over, `GRACE_S` at most.

    look: called every `LOOK_S`; brings back daemons that are still needed. Raises what the first write meets.
    """
    store = open_store(uri, patience_s=1.0)
    journal = Journal(store, by="keeper")
    journal.patience_s = 0.0
    try:
        state = journal.look()
        journal.settle(stopping, state)
        journal.catch_up(state)
        if not _busy(state):
            return
        subscription = store.subscribe({Keys(store.namespace).journal: f"{state.version}-{state.epoch}"})
        try:
            deadline = time.monotonic() + GRACE_S
            complained = False
            while _busy(state):
                left = deadline - time.monotonic()
                if left <= 0:
                    log.say("warning", "some jobs did not end in time; their processes are killed")
                    return
                look()
                try:
                    subscription.poll(min(left, LOOK_S))
                    journal.catch_up(state)
                    if any(job.state == RUN and job.exception is None for job in state.active()):
                        journal.settle(stopping, state)  # allocated in the same moment
                except Unavailable as error:
                    if not complained:
                        log.say("warning", f"while stopping: {error}")
                    complained = True
                    time.sleep(RETRY_S)
        finally:
            subscription.close()
    finally:
        store.close()


def _busy(state: State) -> bool:
    return bool(state.count(RUN | CLEANUP)) or any(node.busy or node.grants for node in state.nodes.values())
