"""Ending an instance's jobs before its daemons: an exception that says why, and the wait for their facts.

Decides which jobs end when an instance stops (those that run; pending ones stay for the next start). Signals nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress

from ..journal.config import parse_rules
from ..journal.decide import Decision
from ..journal.job import RUN, Job
from ..journal.log import Journal
from ..journal.retry import SHUTDOWN
from ..journal.state import State
from ..kvs.errors import FluxkvError, Unavailable
from ..kvs.keys import Keys
from ..kvs.port import Appended, Message, Store, Subscription
from ..kvs.redis_store import open_store
from .attention import is_busy
from .beats import read_stops
from .daemon import RETRY_S, Log
from .reactor import Stops
from .submit_rules import SubmitRules

GRACE_S = 30.0
LOOK_S = 0.25
WORD_S = 0.25  # how long a worker's word is waited for


def stopping(queues: Iterable[str]) -> Decision:
    """No more allocation, nor anything for jobs that only wait. It has no premise: nobody need read the state before."""
    plans = [f"plan/{queue}" for queue in queues]  # what is being placed now has not seen this
    return Decision([["instance-stopping", "instance", time.time(), None]], bumps=plans)


def ending(state: State) -> Decision:
    """An exception on each running job."""
    now = time.time()
    decision = Decision([])
    for job in _running(state):
        context = {"type": SHUTDOWN, "severity": 0, "note": "the instance is being stopped"}
        decision.events.append(["exception", job.id, now, context])
        decision.since.append(f"job/{job.id}")
        decision.bumps.append(f"job/{job.id}")
    return decision


def _running(state: State) -> list[Job]:
    """Jobs to be told that the instance stops. They are found by their nodes: there may be very many that only wait."""
    ids = sorted({id for node in state.nodes.values() for id in node.jobs})
    return [job for job in map(state.jobs.__getitem__, ids) if job.state == RUN and job.exception is None]


def end_jobs(uri: str, log: Log, look: Callable[[], None]) -> State | Stops:
    """Stop allocation, raise an exception on each running job, and wait until all are over, `GRACE_S` at most.

    look: called every `LOOK_S`; brings back daemons that are still needed. Raises what the first write meets. The state at the
    end (who keeps it need not take hundreds of thousands of records apart before it goes on), or the word that spared reading it.
    """
    store = open_store(uri, patience_s=1.0)
    journal = Journal(store, by="keeper")
    journal.patience_s = 0.0
    try:
        with closing(store.subscribe({Keys(store.namespace).telemetry: "$"})) as words:
            with suppress(FluxkvError):  # it is one way to learn what a fold says, too
                words.poll()  # from here on
            stop = _announce(journal)  # reading the state may take a while, and meanwhile others would go on
            if (word := _word(words, stop)) is not None and not word.busy:
                return word
        return _end(store, journal, log, look)
    finally:
        store.close()


def _word(words: Subscription, stop: Appended) -> Stops | None:
    """What a worker, which has the state, says in time of what is left to end. Nothing begins behind a stop, so what it says of a
    later version is as good."""
    deadline = time.monotonic() + WORD_S
    try:
        while (left := deadline - time.monotonic()) > 0:
            for _, messages in words.poll(left):
                for one in messages:
                    word = read_stops(one.data) if isinstance(one, Message) else None
                    if word is not None and word.version >= stop.version and word.epoch == stop.epoch:
                        return word
    except FluxkvError:
        pass
    return None


def _end(store: Store, journal: Journal, log: Log, look: Callable[[], None]) -> State:
    """End what runs."""
    state = journal.look()
    journal.settle(ending, state)
    journal.catch_up(state)
    if not is_busy(state):
        return state
    subscription = store.subscribe({Keys(store.namespace).journal: f"{state.version}-{state.epoch}"})
    try:
        deadline = time.monotonic() + GRACE_S
        complained = False
        while is_busy(state):
            left = deadline - time.monotonic()
            if left <= 0:
                log.say("warning", "some jobs did not end in time; their processes are killed")
                return state
            look()
            try:
                subscription.poll(min(left, LOOK_S))
                journal.catch_up(state)
                if _running(state):
                    journal.settle(ending, state)  # allocated in the same moment
            except Unavailable as error:
                if not complained:
                    log.say("warning", f"while stopping: {error}")
                complained = True
                time.sleep(RETRY_S)
        return state
    finally:
        subscription.close()


def _announce(journal: Journal) -> Appended:
    rules = SubmitRules(journal.store)
    rules.learn()
    decision = stopping(parse_rules(rules.document).names)
    while not isinstance(answer := journal.append(decision, journal.meta.version), Appended):
        journal.cope(answer)
    return answer
