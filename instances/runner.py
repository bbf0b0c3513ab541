"""The only event loop: drives reactors on a real store, clock and launcher. Decides nothing about jobs.

One process runs one reactor. Appends are synchronous (a commit at a time, resent under the same sequence until the store
has answered); what waits is a subscription, the launcher's socket, or a time.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from ..kvs.blobs import payload_hash
from ..kvs.epochs import anchor
from ..kvs.errors import Corrupt, FluxkvError, Unavailable
from ..kvs.port import Answer, Append, Appended, Gap, Message, Meta, StaleEpoch, Store, Subscription
from . import forks
from .daemon import RETRY_S, Daemon, Log, Stopping
from .reactor import Answered, Entries, Input, Messages, Note, Output, Reopened, WakeAt, Write

LONGEST_WAIT_S = 1.0
FORKED = ("forked", "tail-behind", "history-lost", "snapshot-ahead")


_T = TypeVar("_T")


class Core(Protocol):
    """A reactor, and whatever of its outputs is not the runner's."""

    meta: Meta

    def step(self, now: float, inputs: list[Input]) -> list[Output]: ...


class Runner:
    """Loop of one reactor. `perform` handles outputs other than Write, WakeAt and Note."""

    def __init__(self, daemon: Daemon, store: Store, log: Log, reactor: Core) -> None:
        self.daemon = daemon
        self.store = store
        self.log = log
        self.reactor = reactor
        self.subscription: Subscription | None = None
        self.sources: list[Callable[[], int]] = [self._subscribed]  # descriptors to wait for, -1: none now
        self.names: dict[str, str] = {}  # stream key -> name of an inbox
        self.wake_at = 0.0
        self.every: list[list[Any]] = []  # [period_s, next time, function]
        self.meta: Meta = store.meta()
        self.seen, self.seen_seq = "", 0  # our last append that was taken: the entry's anchor, its sequence
        self.away = False  # whether the subscription has lost its server

    # -- wiring ---------------------------------------------------------------------------------------------------

    def follow(self, subscription: Subscription, names: dict[str, str]) -> None:
        """Feed the reactor from this subscription: journals as Entries, other streams as Messages under their name."""
        self.subscription = subscription
        self.names = names

    def add_timer(self, period_s: float, function: Callable[[], None]) -> list[Any]:
        """Call a function every so often, the first time at once. The timer: [period, when it is due next, function]."""
        self.every.append([period_s, 0.0, function])
        return self.every[-1]

    def perform(self, output: Output) -> list[Input]:
        """Outputs the base does not know; roles override this."""
        raise TypeError(f"no way to perform {output!r}")

    def gather(self) -> list[Input]:
        """Inputs from sources the base does not know."""
        return []

    # -- the loop -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until told to stop. Timers have their turn however busy the reactor is."""
        inputs: list[Input] = []
        while not self.daemon.stopping:
            now = time.monotonic()
            for one in self.every:
                if one[1] <= now:
                    one[1] = now + one[0]
                    one[2]()
            inputs += self.wait(busy=bool(inputs))
            inputs = self.turn(inputs)
        raise Stopping

    def wait(self, busy: bool) -> list[Input]:
        """Wait for something to happen (or, when busy, only look), and take it all."""
        timeout = 0.0
        if not busy:
            timeout = min([one[1] for one in self.every], default=LONGEST_WAIT_S + time.monotonic()) - time.monotonic()
            if self.wake_at:
                timeout = min(timeout, self.wake_at - time.time())
            timeout = min(max(0.0, timeout), LONGEST_WAIT_S)
        self._sleep(timeout)
        if self.wake_at and time.time() >= self.wake_at:
            self.wake_at = 0.0
        return [*self.poll(), *self.gather()]

    def _sleep(self, timeout_s: float) -> None:
        """Until a signal, a source with news, or the time is over."""
        self._hears(self._poller(), timeout_s)

    def _poller(self) -> select.poll:
        """Of all that can wake us; made for each sleep: one that was closed may have its number in another's hands by now."""
        poller = select.poll()
        poller.register(self.daemon.wake_read, select.POLLIN)
        for source in self.sources:
            if (fd := source()) >= 0:
                poller.register(fd, select.POLLIN)
        return poller

    def _hears(self, poller: select.poll, timeout_s: float) -> bool:
        """Wait; whether there was something before the time was over."""
        heard = poller.poll(math.ceil(timeout_s * 1000))
        if any(fd == self.daemon.wake_read for fd, _ in heard):
            self.daemon.drain_wakeups()
        return bool(heard)

    def _subscribed(self) -> int:
        """The subscription's descriptor, which changes when it reconnects; -1 while it is away."""
        try:
            return self.subscription.fileno() if self.subscription is not None else -1
        except Unavailable:
            return -1

    def poll(self) -> list[Input]:
        """What the subscription has."""
        if self.subscription is None:
            return []
        inputs: list[Input] = []
        try:
            for key, items in self.subscription.poll(0.0):
                name = self.names.get(key)
                if items and isinstance(items[0], Message):
                    inputs.append(Messages(name or key, items))
                else:
                    inputs.append(Entries(items))  # type: ignore[arg-type]
            self.away = False
        except Corrupt as error:
            if error.code not in FORKED:
                raise
            return self.doubt(error)
        except Unavailable as error:
            if not self.away:
                self.away = True
                self.log.say("warning", f"{error}; trying again")
            time.sleep(RETRY_S)
        return inputs

    def turn(self, inputs: list[Input]) -> list[Input]:
        """Step and perform; what performing brought is the next turn's input."""
        brought: list[Input] = []
        for output in self.reactor.step(time.time(), inputs):
            if isinstance(output, Write):
                brought.extend(self._append(output.request))
            elif isinstance(output, WakeAt):
                self.wake_at = min(self.wake_at or output.time, output.time) or 0.001
            elif isinstance(output, Note):
                self.log.say(output.level, output.text)
            else:
                brought.extend(self.perform(output))
        return brought

    # -- the store ------------------------------------------------------------------------------------------------

    def _append(self, request: Append) -> list[Input]:
        try:
            answer = self._until_answered(request)
        except Corrupt as error:
            if error.code not in FORKED:
                raise
            return self.doubt(error)
        if isinstance(answer, Appended):
            self.seen, self.seen_seq = anchor(answer.version, answer.epoch, payload_hash(request.payload)), request.seq
        elif isinstance(answer, Gap) and answer.last < self.seen_seq:  # forgotten by pruning, or lost
            self.seen_seq = 0
            lost = self.insist(lambda: forks.notice(self.store, self.seen))
            if lost is not None:
                return self.doubt(forks.history_lost(self.insist(self.store.meta).version, lost, self.daemon.role))
        if not isinstance(answer, StaleEpoch):
            return [Answered(request, answer)]
        return [Answered(request, answer), *self._reopened(request.epoch)]

    # -- another history ------------------------------------------------------------------------------------------

    def known(self) -> list[str]:
        """Entries that this process knows were in the journal: ids, or anchors."""
        return [self.seen] if self.seen else []

    def doubt(self, error: FluxkvError) -> list[Input]:
        """The journal is not what it was. Say what we know, so that nobody writes to it, and wait until what is left is adopted."""
        self.log.say("error", str(error))
        meta = self.insist(self.store.meta)
        if not self._say_known() and meta.epoch == self.reactor.meta.epoch and not meta.fork:
            raise error
        return self._reopened(self.reactor.meta.epoch)

    def _say_known(self) -> bool:
        """Whether the journal lacks something we know, and nobody has given it up."""
        return any(self.insist(partial(forks.notice, self.store, one)) is not None for one in self.known())

    def _reopened(self, old: int) -> list[Input]:
        """Wait for a new epoch, and go on in it, if it has all that we know or somebody has adopted it without."""
        while True:
            meta = self._new_epoch(old)
            if not self._say_known():
                return self.reopened(meta)

    def reopened(self, meta: Meta) -> list[Input]:
        """History goes on under another epoch."""
        return [Reopened(meta)]

    def _until_answered(self, request: Append) -> Answer:
        return self.insist(lambda: self.store.append(request))

    def insist(self, ask: Callable[[], _T]) -> _T:
        """Ask the store until it answers: a server that is away is no reason to die. Raises `Stopping`."""
        complained = False
        while True:
            try:
                return ask()
            except Unavailable as error:
                if self.daemon.stopping:
                    raise Stopping from None
                if not complained:
                    self.log.say("warning", f"{error}; trying again until the server is back")
                    complained = True
                self.watch_keeper()  # nobody else may be left to bring the server back
                time.sleep(RETRY_S)

    def _new_epoch(self, old: int) -> Meta:
        """Wait until somebody has taken up the history of a restarted server under a new epoch."""
        while True:
            if self.daemon.stopping:
                raise Stopping
            try:
                meta = self.store.meta()
                if meta.epoch != old and not meta.fork:
                    self.meta = meta
                    return meta
            except Unavailable:
                pass
            self.watch_keeper()
            time.sleep(RETRY_S)

    def watch_keeper(self) -> None:
        """Restart the keeper if it died."""
        if self.daemon.keeper_revived():
            self.log.say("warning", "the keeper was gone; started a new one")
