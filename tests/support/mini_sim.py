"""The production reactors on a memory store in virtual time, stepped in a seeded random order.

Decides only what happens when: who steps, what is lost, late or delivered twice, who dies. Everything that has a
meaning is production code (`Worker`, `Agent`, `FakeLauncher`, `decide`, `Journal`, `MemoryStore`). The launchers'
diaries are the physical truth: what really ran, where, on which cores.
"""

from __future__ import annotations

import random
from typing import Any

from jobspecs import jobspec

from fluxkv.instances import agent as agent_module
from fluxkv.instances import worker as worker_module
from fluxkv.instances.agent import Agent
from fluxkv.instances.attempts import Host, split_key
from fluxkv.instances.fake_launcher import FakeLauncher
from fluxkv.instances.reactor import (
    Answered,
    Entries,
    Found,
    Input,
    Launched,
    LauncherLost,
    Lead,
    Lookup,
    Messages,
    Output,
    Reopened,
    Snapshot,
    ToLauncher,
    Trim,
    WakeAt,
    Write,
)
from fluxkv.instances.script_orders import letter_of
from fluxkv.instances.worker import Worker
from fluxkv.journal import decide, decide_config
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import compose
from fluxkv.journal.idset import mask_of
from fluxkv.journal.job import ACTIVE, NEW
from fluxkv.journal.log import Journal
from fluxkv.journal.rset import NodeRecord, ResourceSet, render_set
from fluxkv.journal.scripts import KINDS
from fluxkv.journal.state import State
from fluxkv.kvs.errors import Conflict, Rejected, Unavailable
from fluxkv.kvs.memory_store import MemoryServer, MemoryStore
from fluxkv.kvs.port import Append, Message, StaleEpoch
from fluxkv.schedulers.fcfs import Fcfs

T0 = 1_700_000_000.0
CORES = 4
HOSTS = ((0, 1), (2,), (3,))
RUNS = (0.0, 0.001, 0.004, 0.02, 0.02, 0.1, 0.7)


class Broken(AssertionError):
    """Something that must never be. job: whose story explains it (0: nobody's)."""

    def __init__(self, what: str, job: int = 0) -> None:
        super().__init__(what)
        self.job = job


class Diary:
    """What really runs. Raises `Broken` the moment something runs that must not."""

    def __init__(self) -> None:
        self.begun: dict[str, int] = {}  # key -> launcher it started on
        self.running: dict[str, tuple[int, frozenset[int]]] = {}  # key -> (rank, cores)
        self.seats: dict[str, frozenset[int]] = {}
        self.home: dict[str, int] = {}
        self.later: dict[int, str] = {}  # job -> what has begun after its tasks
        self.started = self.handed = 0

    def brought(self, attempt: dict[str, Any]) -> None:
        """An attempt that is not queued brings its seat."""
        if not attempt["queued"]:
            self.seats.setdefault(attempt["key"], frozenset(attempt["seat"]["cpus"]))

    def saw(self, launcher: int, events: list[list[Any]]) -> None:
        for event in events:
            if event[0] == "start":
                self._start(launcher, event[1])
            elif event[0] == "over" and event[1] in self.running:
                del self.running[event[1]]
                if event[7]:
                    self.seats[event[7]] = self.seats[event[1]]
                    self.handed += 1

    def _scripts(self, job: int, rank: int, letter: str) -> None:
        """A script stands alone: no task of its job runs beside it; tasks begin after prologs and before all else."""
        for other, (there, _) in self.running.items():
            if split_key(other)[0] != job:
                continue
            if letter == "" and letter_of(other):
                raise Broken(f"a task of {job} starts while {other} runs", job)
            if letter and not letter_of(other) and (letter != "h" or there == rank):
                raise Broken(f"{KINDS[letter]} of {job} starts while {other} runs", job)
        if letter == "" and self.later.get(job):
            raise Broken(f"a task of {job} starts after {self.later[job]}", job)
        if letter in ("e", "h"):
            self.later[job] = KINDS[letter]

    def _start(self, launcher: int, key: str) -> None:
        job, version, rank = split_key(key)
        if key in self.begun:
            if self.begun[key] != launcher:
                raise Broken(f"attempt {key} started twice", job)
            return  # told again
        self._scripts(job, rank, letter_of(key))
        self.begun[key] = launcher
        self.home[key] = launcher
        cores = self.seats[key]
        for other, (there, used) in self.running.items():
            if there == rank and used & cores:
                raise Broken(f"{key} and {other} run on the same cores {sorted(used & cores)} of rank {rank}", job)
            if split_key(other)[0] == job and split_key(other)[1] != version:
                raise Broken(f"{key} starts while {other} runs", job)
        self.running[key] = (rank, cores)
        self.started += 1

    def died(self, launcher: int) -> None:
        """A launcher and its tasks are gone."""
        for key in [key for key in self.running if self.home[key] == launcher]:
            del self.running[key]


class Actor:
    """A reactor with its mail. due: when it wants to be stepped."""

    def __init__(self, reactor: Worker | Agent, subscription: Any, names: dict[str, str]) -> None:
        self.reactor = reactor
        self.subscription = subscription
        self.names = names
        self.request: Append | None = None
        self.due: float | None = 0.0
        self.mail: list[Input] = []
        self.last: list[Input] = []
        self.launcher = FakeLauncher()
        self.number = 0
        self.saved: dict[int, str] = {}


class Sim:
    """`run()` plays a seed to its calm end; then `store` holds the journal to look at."""

    def __init__(
        self, seed: int, actions: int = 400, scripts: dict[str, Any] | None = None, config: dict[str, Any] | None = None
    ) -> None:
        self.seed, self.actions = seed, actions
        self.rng = random.Random(seed)
        self.now = T0
        self.server = MemoryServer(lambda: self.now, random.Random(seed + 1))
        self.store = MemoryStore(self.server)
        meta = self.store.create(durability="strict", origin_ms=int(T0 * 1000), created=T0)
        nodes = tuple(
            NodeRecord(rank, f"n{rank}", mask_of(f"0-{CORES - 1}"), 0, 0, ()) for ranks in HOSTS for rank in ranks
        )
        self.cli = Journal(self.store, "cli")
        first = {"uid": meta.uid, "owner": 1, "namespace": "/", "schema": 1}
        inventory = render_set(ResourceSet(nodes))
        self.cli.append(Decision([
            ["instance-create", "instance", T0, first],
            ["resource-define", "resource", T0, {"method": "configuration", "R": inventory}],
        ], absent=["instance"], bumps=["instance"]), 0)  # fmt: skip
        document = {**(config or {}), **({"job-manager": scripts} if scripts else {})}
        if document:
            self.cli.settle(lambda state: decide_config.load(state, document, "", 1, T0))
        self.view = State()
        self.cli.catch_up(self.view)
        self.diary = Diary()
        self.ids: list[int] = []
        self.runs: dict[int, tuple[float, int]] = {}
        self.epoch_event: list[Any] | None = None
        self.launchers = self.lives = self.lookups = 0
        self.calm = False
        self.eager = self.rng.random() < 0.5  # deliver news even while a commit is in flight
        self.workers = [self._worker(0)]
        self.agents = [self._agent(ranks, None) for ranks in HOSTS]
        self.workers[0].mail.append(Lead(True))

    # -- births and deaths ------------------------------------------------------------------------------------

    def _worker(self, number: int) -> Actor:
        state = self.cli.load() if self.rng.random() < 0.6 else self.cli.at()
        worker = Worker(self.store.meta(), state, Fcfs(), f"worker-{number}")
        position = f"{state.version}-{state.epoch}"
        return Actor(worker, self.store.subscribe({self.store.keys.journal: position}), {})

    def _agent(self, ranks: tuple[int, ...], before: Actor | None) -> Actor:
        meta = self.store.meta()
        kept = before.saved if before is not None else {}
        cursors = {rank: kept.get(rank, f"{meta.version}-{meta.epoch}") for rank in ranks}
        self.lives += 1
        cpus = {core: [core] for core in range(CORES)}
        spool = f"s{before.number if before is not None and kept else self.lives}"
        host = Host({rank: f"n{rank}" for rank in ranks}, "boot", spool, "memory:", "/t", cpus)
        names = {self.store.keys.inbox(f"node/{rank}"): f"node/{rank}" for rank in ranks}
        at = {key: cursors[int(name[5:])] for key, name in names.items()}
        actor = Actor(Agent(meta, host, dict(cursors)), self.store.subscribe(at), names)
        actor.saved = dict(cursors)
        if before is not None and kept:
            actor.launcher, actor.number = before.launcher, before.number
        else:
            self.launchers += 1
            actor.number = self.launchers
        self._unheard(actor)
        actor.launcher.handle(["list"], self.now)
        actor.mail.append(LauncherLost(False))
        return actor

    def _die(self, actor: Actor) -> None:
        """Its last commit may or may not have arrived."""
        if actor.request is not None and self.rng.random() < 0.5:
            try:
                self.store.append(actor.request)
            except Unavailable:
                pass
        actor.subscription.close()

    # -- the world's moves ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Random moves, then calm."""
        saved = (worker_module.SNAPSHOT_EVENTS, worker_module.RETIRE_ABOVE, worker_module.RETIRE_CHUNK,
                 worker_module.BATCH, agent_module.ROWS)  # fmt: skip
        pick = self.rng.choice
        worker_module.SNAPSHOT_EVENTS, worker_module.RETIRE_ABOVE, worker_module.RETIRE_CHUNK = pick((40, 200)), 15, 5
        worker_module.BATCH, agent_module.ROWS = pick((3, 12, 1500)), pick((1, 3, 2000))
        try:
            moves = [(self._step_any, 60), (self._tick, 18), (self._submit, 9), (self._cancel, 3), (self._urgency, 2),
                     (self._drain, 2), (self._queue, 1), (self._signal, 1), (self._kill_worker, 1.5),
                     (self._second_worker, 1), (self._kill_agent, 1.2), (self._kill_launcher, 0.5),
                     (self._new_epoch, 0.6), (self._epoch_event, 2)]  # fmt: skip
            for move in self.rng.choices([one for one, _ in moves], [weight for _, weight in moves], k=self.actions):
                move()
            self._settle()
        finally:
            (worker_module.SNAPSHOT_EVENTS, worker_module.RETIRE_ABOVE, worker_module.RETIRE_CHUNK,
             worker_module.BATCH, agent_module.ROWS) = saved  # fmt: skip

    def _settle(self) -> None:
        """No more faults: everything must come to its end."""
        self.calm = True
        self._open_epoch()
        self._epoch_event()
        for rank in range(4):
            self._say(lambda state, rank=rank: decide.undrain(state, [rank], "", self.now, force=True))
        self._say(lambda state: decide.change_queue("default", "start", "", self.now))
        for worker in self.workers[1:]:
            self._die(worker)
        self.workers = self.workers[:1]
        self.workers[0].mail.append(Lead(True))
        released = False
        for turn in range(4000):
            for actor in [*self.workers, *self.agents]:
                self._step(actor)
            self._tick()
            if turn % 20 == 19:
                self.cli.catch_up(self.view)
                if not released:
                    released = True
                    for job in list(self.view.jobs.values()):
                        if job.urgency == 0:
                            self._say(lambda state, id=job.id: decide.change_urgency(state, id, 16, 1, self.now))
                elif not self.view.count(ACTIVE | NEW) and not any(one.reactor.inflight for one in self.agents):
                    if self.view.quarantine:  # nobody here writes what is impossible
                        raise Broken(f"set aside: {[one.why for one in self.view.quarantine.table.values()]}", 0)
                    if not self.view.keeping:
                        return
                elif any(node.drain for node in self.view.nodes.values()):  # by a script that failed before it was calm
                    self._say(lambda state: decide.undrain(state, list(state.nodes), "", self.now, force=True))
        stuck = next(job for job in self.view.jobs.values() if job.state & (ACTIVE | NEW))
        raise Broken(f"{self.view.count(ACTIVE | NEW)} jobs never end", stuck.id)

    def _tick(self) -> None:
        times = [actor.due for actor in [*self.workers, *self.agents] if actor.due is not None]
        times += [due for actor in self.agents if (due := actor.launcher.due()) is not None]
        later = [time for time in times if time > self.now]
        if later and (self.calm or self.rng.random() < 0.7):
            self.now = min(later) + 1e-6
        else:
            self.now += self.rng.choice((0.0005, 0.003, 0.03))

    def _forked(self) -> bool:
        """The server was restarted and nobody has taken up its history yet."""
        return self.server.tables.instances["/"].replid != self.server.replid

    def _say(self, decision: Any) -> None:
        if self._forked():
            return  # a command would wait
        self.cli.meta = self.store.meta()
        try:
            self.cli.settle(decision, self.view)
        except (Rejected, Unavailable, Conflict):
            pass

    def _submit(self) -> None:
        jobs = []
        shapes = ((1, 0, 1), (1, 0, 1), (1, 0, 1), (2, 0, 1), (1, 0, 3), (2, 2, 1), (4, 1, 1), (9, 0, 1))
        cores, nodes, slots = self.rng.choice(shapes)
        limit = self.rng.choice((0.0, 0.0, 0.0, 0.05))
        queue = "none" if self.rng.random() < 0.02 else ""
        for _ in range(self.rng.choice((1, 1, 2, 6))):
            id = compose(1 + len(self.ids), 0, 0)
            self.ids.append(id)
            self.runs[id] = (self.rng.choice(RUNS), self.rng.choice((0, 0, 0, 256)))
            waits = [self._dependency() for _ in range(self.rng.choice((0, 0, 0, 1, 1, 2)))]
            name = self.rng.choice(("", "", "a", "b"))
            if name and self.rng.random() < 0.4:
                waits.append({"scheme": "singleton", "value": ""})
            jobs.append((id, jobspec(cores, nodes, slots, limit, queue, name, waits)))
        urgency = self.rng.choice((16, 16, 16, 16, 20, 31, 0))
        self._say(lambda state: decide.submit(jobs, "", urgency, 1, 0, self.now))

    def _dependency(self, nested: bool = False) -> dict[str, Any]:
        """On a job of any age, rarely on one that never was; on a time; on several of these."""
        luck = self.rng.random()
        if luck < 0.1:
            return {"scheme": "begin-time", "value": f"{self.now + self.rng.choice((-1, 0.05, 0.5)):.3f}"}
        if luck < 0.25 and not nested:
            parts = [self._dependency(True) for _ in range(self.rng.choice((1, 2, 3)))]
            return {"scheme": self.rng.choice(("any", "all")), "value": ",".join(f"{p['scheme']}:{p['value']}" for p in parts)}
        recent = self.rng.random() < 0.7
        id = self.rng.choice(self.ids[-8:] if recent else self.ids) + (luck > 0.98)
        schemes = ("after", "afterany", "afterany", "afterok", "afterok", "afterok", "afternotok", "afterexcept")
        return {"scheme": self.rng.choice(schemes), "value": str(id)}

    def _some_job(self) -> int:
        active = decide.active_ids(self.view) or [0]
        return self.rng.choice(active)

    def _cancel(self) -> None:
        id = self._some_job()
        self._say(lambda state: decide.raise_exception(state, id, "cancel", 0, "", 1, self.now))

    def _urgency(self) -> None:
        id, urgency = self._some_job(), self.rng.choice((0, 5, 16, 31))
        self._say(lambda state: decide.change_urgency(state, id, urgency, 1, self.now))

    def _signal(self) -> None:
        id = self._some_job()
        self._say(lambda state: decide.kill(state, id, 15, 1, self.now))

    def _drain(self) -> None:
        rank = self.rng.randrange(4)
        if self.rng.random() < 0.4:
            self._say(lambda state: decide.drain(state, [rank], "x", 2, self.now))
        else:
            self._say(lambda state: decide.undrain(state, [rank], "x", self.now, force=True))

    def _queue(self) -> None:
        verb = self.rng.choice(("stop", "start", "start"))
        self._say(lambda state: decide.change_queue("default", verb, "x", self.now))

    def _kill_worker(self) -> None:
        at = self.rng.randrange(len(self.workers))
        self._die(self.workers[at])
        self.workers[at] = self._worker(at)
        self.workers[at].mail.append(Lead(True))

    def _second_worker(self) -> None:
        if len(self.workers) == 1:
            self.workers.append(self._worker(1))
        self.workers[1].mail.append(Lead(self.rng.random() < 0.6))

    def _kill_agent(self) -> None:
        at = self.rng.randrange(len(self.agents))
        actor = self.agents[at]
        self._die(actor)
        if self.rng.random() < 0.3:  # its whole host, spool included
            actor.saved = {}
        if not actor.saved:
            self.diary.died(actor.number)
        self.agents[at] = self._agent(HOSTS[at], actor)

    def _kill_launcher(self) -> None:
        """The launcher dies and comes back: tasks and spool survive; queued attempts and what it was about to say do
        not. Its agent lives."""
        actor = self.rng.choice(self.agents)
        self._unheard(actor)
        actor.launcher._seats.withdraw_all()
        actor.launcher._waiting.clear()
        actor.launcher.handle(["list"], self.now)
        actor.mail += [LauncherLost(True), LauncherLost(False)]

    def _unheard(self, actor: Actor) -> None:
        """What a launcher says while nobody listens happens all the same."""
        self.diary.saw(actor.number, actor.launcher.advance(self.now))

    def _new_epoch(self) -> None:
        """The server is restarted; its history is taken up at once, or a little later."""
        self.server.restart()
        if self.rng.random() < 0.7:
            self._open_epoch()

    def _open_epoch(self) -> None:
        meta = self.store.meta()
        if not self._forked():
            return
        new = self.store.open_epoch(meta.uid, meta.epoch, meta.version)
        self.cli.meta = new
        self.epoch_event = ["epoch", "instance", self.now, {"old": meta.epoch, "new": new.epoch, "reason": "x"}]

    def _epoch_event(self) -> None:
        self._open_epoch()
        event, self.epoch_event = self.epoch_event, None
        if event is not None:
            self._say(lambda state: Decision([event]))

    # -- stepping ---------------------------------------------------------------------------------------------

    def _step_any(self) -> None:
        self._step(self.rng.choice([*self.workers, *self.agents]))

    def _step(self, actor: Actor) -> None:
        inputs: list[Input] = []
        if actor.request is not None:
            inputs = self._serve(actor)
            if not inputs and not self.eager:
                return
        inputs = [*inputs, *self._news(actor)]
        if isinstance(actor.reactor, Agent):
            inputs += self._launched(actor)
        if actor.due is not None and actor.due <= self.now:
            actor.due = None
        self._perform(actor, actor.reactor.step(self.now, inputs))

    def _serve(self, actor: Actor) -> list[Input]:
        """Send the commit in flight; request or answer may be lost, then it will be sent again."""
        assert actor.request is not None
        luck = 1.0 if self.calm else self.rng.random()
        if luck < 0.04:
            return []
        answer = self.store.append(actor.request)
        if luck < 0.10:
            return []
        found: list[Input] = [Answered(actor.request, answer)]
        if isinstance(answer, StaleEpoch):
            meta = self.store.meta()
            if meta.epoch == actor.request.epoch:
                return []  # nobody has taken up the history yet
            found.append(Reopened(meta))
        actor.request = None
        return found

    def _news(self, actor: Actor) -> list[Input]:
        """Mail, and a part of what the subscription has; sometimes what came last comes again."""
        inputs, actor.mail = actor.mail, []
        if not self.calm and self.rng.random() < 0.1:
            return inputs + actor.last
        news: list[Input] = []
        if self.calm or self.rng.random() < 0.8:
            for key, items in actor.subscription.poll():
                if isinstance(items[0], Message):
                    news.append(Messages(actor.names[key], items))
                else:
                    news.append(Entries(items))
        meta = self.store.meta()
        if isinstance(actor.reactor, Agent) and actor.request is None and meta.epoch != actor.reactor.meta.epoch:
            news.append(Reopened(meta))  # its heartbeat noticed
        actor.last = [one for one in news if isinstance(one, (Messages, Entries))] or actor.last
        return inputs + news

    def _launched(self, actor: Actor) -> list[Input]:
        events = actor.launcher.advance(self.now)
        self.diary.saw(actor.number, events)
        return [Launched(events)] if events else []

    def _perform(self, actor: Actor, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Write):
                if actor.request is not None:
                    raise Broken(f"{actor.reactor!r} has two commits in flight")
                actor.request = output.request
            elif isinstance(output, WakeAt):
                actor.due = output.time if actor.due is None else min(actor.due, output.time)
            elif isinstance(output, Snapshot):
                assert isinstance(actor.reactor, Worker)
                self.cli.meta = self.store.meta()
                if self.cli.meta.epoch == actor.reactor.meta.epoch and self.cli.save_snapshot(actor.reactor.state):
                    self.store.prune_guards(self.cli.meta.uid, self.cli.meta.epoch, output.floor)
            elif isinstance(output, Lookup):
                assert isinstance(actor.reactor, Worker)
                self.lookups += 1
                actor.mail.append(Found(output.ids, self.cli.find_jobs(actor.reactor.state, output.ids)))
            elif isinstance(output, Trim):
                self.store.trim(self.store.keys.inbox(output.key), output.through)
            elif isinstance(output, ToLauncher):
                self._to_launcher(actor, output.message)

    def _to_launcher(self, actor: Actor, message: list[Any]) -> None:
        assert isinstance(actor.reactor, Agent)
        if message[0] == "launch":
            for attempt in message[1]:
                if "script" in attempt:
                    luck = random.Random(f"{self.seed} {attempt['key']}")
                    attempt["fake_s"] = luck.choice((0.0, 0.002, 0.02, 0.2))
                    attempt["fake_status"] = 256 if luck.random() < 0.05 and not self.calm else 0
                else:
                    attempt["fake_s"], attempt["fake_status"] = self.runs[attempt["job"]]
                self.diary.brought(attempt)
        elif message[0] == "ack":
            actor.saved = dict(actor.reactor.cursors)
        actor.launcher.handle(message, self.now)
