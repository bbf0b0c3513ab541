"""A worker process: fold, subscribe, take the lease, react."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial

from ..journal.agreement import load_agreed
from ..journal.ids import f58
from ..journal.job import Job
from ..journal.log import Journal
from ..journal.node_config import beat_period
from ..journal.schema import check_schema
from ..kvs.epochs import anchor
from ..kvs.errors import Conflict, Corrupt, FluxkvError, Unavailable
from ..kvs.failpoints import ARMED, reach
from ..kvs.keys import Keys
from ..kvs.port import Meta
from ..kvs.redis_store import open_store
from ..schedulers.policy import load_policy
from . import forks
from .beats import PULSE, Beat, pack_beat, pack_stops
from .daemon import KEPT, Daemon, Log
from .paths import StateDir
from .reactor import Found, Input, Lead, Lookup, Output, Snapshot, Stops
from .runner import Runner
from .worker import Worker

LEASE_MS = 3000  # instance.json may say otherwise, as `lease_ms`: tests do not wait so long
TELEMETRY_LIMIT = 2000
PATIENCE_S = 1.0
ASK_AGAIN_S = 10.0
FAR = 1 << 60


class WorkerRunner(Runner):
    """Performs snapshots and look-ups; renews the lease."""

    reactor: Worker

    def __init__(self, daemon: Daemon, uri: str, policy: str, log: Log, lease_ms: int = LEASE_MS) -> None:
        store = open_store(uri, patience_s=PATIENCE_S)
        keys = Keys(store.namespace)
        log.store, log.keys = open_store(uri, patience_s=0.0), keys
        self.journal = Journal(store, by=daemon.role)
        self.journal.warn = lambda text: log.say("warning", text)
        check_schema(self.journal.meta)
        state = load_agreed(self.journal)
        super().__init__(daemon, store, log, Worker(self.journal.meta, state, load_policy(policy), daemon.role))
        if self.journal.base.damaged is not None:
            self.reactor.snapshot_events = -FAR  # another one is due at once
        position = f"{state.version}-{state.epoch}" if state.version else "0"
        self.keys = keys
        self.follow(open_store(uri).subscribe({keys.journal: position, keys.telemetry: "$"}), {keys.telemetry: "telemetry"})
        self.reactor.watch.remember(store.messages(keys.telemetry, limit=2 * TELEMETRY_LIMIT))
        self.leading = False
        self.policy, self.reactor.planner.clock = policy, time.monotonic
        self.pending: list[Input] = []
        self.lease_ms = lease_ms
        self.unanswered: dict[int, None] = {}  # asked about, and not to be had now
        self.add_timer(lease_ms / 3000, self._renew)
        self.add_timer(1.0, self.watch_keeper)
        self.add_timer(ASK_AGAIN_S, self._ask_again)
        self.add_timer(beat_period(state.rules.offline_after_s), self._pulse)

    def _pulse(self) -> None:
        """Our own beat among those of the nodes: time goes on, and is looked at, as long as it is heard."""
        self.every[-1][0] = beat_period(self.reactor.state.rules.offline_after_s)
        if self.leading:
            try:
                self.store.push(self.keys.telemetry, [pack_beat(Beat(PULSE, time.time()))], limit=TELEMETRY_LIMIT)
            except Unavailable:
                return

    def known(self) -> list[str]:
        state = self.reactor.state
        return [*super().known(), anchor(state.version, state.epoch, state.tail) or f"{state.version}-{state.epoch}"]

    def reopened(self, meta: Meta) -> list[Input]:
        """Go on, with another fold if the one we have is of a branch that was given up."""
        if all(self.insist(partial(forks.missing, self.store, one)) is None for one in self.known()):
            return super().reopened(meta)
        self.log.say("warning", "what was folded is not this journal's history any more; reading it anew")
        self.seen, self.seen_seq = "", 0
        self.journal = self.insist(lambda: Journal(self.store, by=self.daemon.role))
        state = self.insist(lambda: load_agreed(self.journal))
        self.meta = self.journal.meta
        watch, self.reactor = self.reactor.watch, Worker(self.meta, state, load_policy(self.policy), self.daemon.role)
        self.reactor.watch.fence_s, self.reactor.watch.last_ms = watch.fence_s, watch.last_ms
        self.reactor.greet, self.reactor.planner.clock = True, time.monotonic
        self.unanswered.clear()
        if self.subscription is not None:
            self.subscription.follow(Keys(self.store.namespace).journal, f"{state.version}-{state.epoch}")
        return [Lead(self.leading)]

    def _renew(self) -> None:
        try:
            leading = self.store.lease(self.daemon.role, self.lease_ms)
        except Unavailable:
            return
        if leading != self.leading:
            self.leading = leading
            self.pending.append(Lead(leading))
            self.wake_at = time.time()

    def gather(self) -> list[Input]:
        pending, self.pending = self.pending, []
        return pending

    def perform(self, output: Output) -> list[Input]:
        if isinstance(output, Snapshot):
            try:
                self.journal.meta = self.reactor.meta
                if ARMED:
                    reach("snapshot.before", Unavailable)
                self.journal.save_snapshot(self.reactor.state)
                if ARMED:
                    reach("snapshot.after", Unavailable)
                self.store.prune_guards(self.meta.uid, self.reactor.meta.epoch, output.floor)
            except (Unavailable, Conflict) as error:
                self.log.say("warning", f"no snapshot: {error}")
            return []
        if isinstance(output, Lookup):
            return self._look_up(output.ids)
        if isinstance(output, Stops):
            with suppress(Unavailable):  # who stops the instance does not wait for long
                self.store.push(self.keys.telemetry, [pack_stops(output)], limit=TELEMETRY_LIMIT)
            return []
        return super().perform(output)

    def _look_up(self, ids: tuple[int, ...]) -> list[Input]:
        """What the journal says of jobs that have left the state. What cannot be read now, because the archive is away or an
        entry is damaged, is asked for again: whoever depends on those jobs waits, and nobody else does."""
        try:
            return [Found(ids, self.insist(lambda: self._find(ids)))]
        except FluxkvError as error:
            if len(ids) > 1 and error.code != "archive":
                return [found for id in ids for found in self._look_up((id,))]
            if not self.unanswered.keys() & ids:
                self.log.say("error", f"jobs wait to know what became of {f58(ids[0])}: {error}; asking again")
            self.unanswered.update(dict.fromkeys(ids))
            return []

    def _find(self, ids: tuple[int, ...]) -> dict[int, Job]:
        try:
            return self.journal.find_jobs(self.reactor.state, ids)
        except Unavailable as error:
            if error.code not in ("archive", "pruned"):
                raise
            raise Corrupt(str(error), code=error.code, hint=error.hint) from None  # the server is there: no reason to insist

    def _ask_again(self) -> None:
        for id in list(self.unanswered):
            found = self._look_up((id,))
            del self.unanswered[id]
            if not found:  # it may well be the same with the others: they are next
                self.unanswered[id] = None
                return
            self.pending += found
            self.wake_at = time.time()


def main(state_dir: StateDir, role: str, log: Log) -> None:
    """Body of the process. Raises `Stopping` at its ordered end."""
    import gc

    gc.set_threshold(50_000, 20, 50)  # a fold makes few cycles and many long-lived records
    daemon = Daemon(state_dir, role)
    settings = state_dir.read()
    try:
        what = (settings["uri"], settings.get("policy", "fcfs"), log, int(settings.get("lease_ms", LEASE_MS)))
        runner = daemon.reached(lambda: WorkerRunner(daemon, *what))
        KEPT.append(runner)
        runner.run()
    finally:
        daemon.done()
