"""A simulated world: one server, the processes of an instance, their clients, and a calendar of what happens when.

Everything is drawn from one seed. Nothing here has a meaning of its own: it only says when, and what goes wrong.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from fluxkv.instances.paths import StateDir
from fluxkv.instances.witness import ADOPT, REFUSE
from fluxkv.journal import decide_config
from fluxkv.journal.decide import Decision
from fluxkv.journal.idset import mask_of
from fluxkv.journal.log import Journal
from fluxkv.journal.node_config import beat_period
from fluxkv.journal.rset import NodeRecord, ResourceSet, render_set
from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.memory_server import share
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.schedulers.tree.record import to_record

from . import handover, own
from .clients import Clients
from .faults import CHANCES, Faults
from .keepers import KeeperProcess
from .own import Courier, Server
from .process import Process
from .realm import Realm
from .roles import BEAT_S, TELEMETRY_LIMIT, Machine, WorkerProcess
from .sites import CORES, DEEP, GRAPHS, LATE, MACHINES, SILENT, Site
from .truth import Broken

T0 = 1_700_000_000.0
SKEW_S = 9.0
FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a keeper's tip file is written often
KINDS = ("plain", "queues", "plain", "scripts", "plain", "changing")
MOST = 150_000  # moves of a seed


class World(Realm):
    """forks: what each fail-over took away. times: entry id -> true time.

    faults: what may go wrong in this seed, and when. eager: news is delivered while a commit is in flight.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.now = T0
        self.calendar: list[tuple[float, int, Callable[..., None], tuple[Any, ...], Process | None, int]] = []
        self.moves = 0
        self.happened: Counter[str] = Counter()
        self.calm = False
        self.beating = ""  # namespace of the instance to which a heartbeat is being written
        self.eager = rng.random() < 0.5
        self.cores = CORES
        self.depth = 0
        kind = "nested" if seed % 12 == 10 else KINDS[seed % len(KINDS)]
        if seed >= DEEP:
            self.site = Site("deep", seed - DEEP)
        else:
            for name, first in (("silent", SILENT), ("late", LATE), ("graph", GRAPHS)):
                kind = name if seed >= first else kind
            self.site = Site(kind, seed // len(KINDS))
        self.faults = Faults(self)
        self.server_skew = self.draw_skew()
        self.server = Server(lambda: self.now + self.server_skew, random.Random(seed + 1))
        self.server.told = self._told
        self.server.remember = 600 if self.faults.on("failover") else 0
        self.own_servers: list[Server] = []
        self.spawned: list[Courier] = []  # by pid
        self.locks: dict[str, Courier | None] = {}
        self.at_work: Realm = self  # whose keeper it is that acts
        self.times: dict[str, float] = {}
        self.dead = 0  # children that are over
        self.state_dir = StateDir(tempfile.mkdtemp(prefix="fluxkv-sim-", dir=FOLDER))
        self.root = self
        self.uri = "memory:sim#/"
        share("sim", self.server)
        self.on_fork = ADOPT if self.faults.on("adopts") else REFUSE
        self.open("/")
        self._create()
        self.journal = Journal(self.store, "audit")
        self.clients = Clients(self)

    def _create(self) -> None:
        meta = self.store.create(durability="strict", origin_ms=int(T0 * 1000), created=T0)
        nodes = tuple(
            NodeRecord(rank, f"n{rank}", mask_of(f"0-{CORES - 1}"), 0, 0, ()) for ranks in MACHINES for rank in ranks
        )
        journal = Journal(self.store, "keeper")
        first = {"uid": meta.uid, "owner": 1, "namespace": "/", "schema": 1}
        tree = self.site.tree()
        inventory = render_set(ResourceSet(nodes, tree=to_record(tree).wire if tree is not None else None))
        journal.append(Decision([
            ["instance-create", "instance", T0, first],
            ["resource-define", "resource", T0, {"method": "configuration", "R": inventory}],
        ], absent=["instance"], bumps=["instance", "resource"]), 0)  # fmt: skip
        if self.site.config:
            document = self.site.config
            journal.settle(lambda state: decide_config.load(state, document, "", 1, T0))

    def begin(self) -> None:
        """Everybody is started."""
        for number in range(2 if self.faults.on("two-workers") else 1):
            self.workers.append(WorkerProcess(self, f"worker-{number}"))
        self.machines = [Machine(self, number, ranks) for number, ranks in enumerate(MACHINES)]
        self.keepers = [KeeperProcess(self, f"keeper-{number}") for number in range(2 if self.faults.on("two-drivers") else 1)]
        for process in self.processes():
            self.after(self.rng.uniform(0.0, 0.05), process.birth, owner=process)
        if self.site.owns:
            own.look_on(self)

    def random_of(self, number: int) -> random.Random:
        """For what one of several servers draws."""
        return random.Random(f"{self.seed} {number}")

    # -- what processes ask of their world ------------------------------------------------------------------------

    def beat_s(self, offline_after_s: float) -> float:
        """Seconds from one heartbeat to the next."""
        if not self.calm:
            return beat_period(offline_after_s)
        return min(BEAT_S, 0.75 * offline_after_s) if offline_after_s else BEAT_S

    def at_server(self, do: Callable[..., None], *args: Any) -> None:
        """Do something when a heartbeat has come to the server: at once in the calm."""
        if self.calm:
            do(*args)
        else:
            self.after(self.latency(), do, *args)

    def push_beat(self, store: MemoryStore, data: bytes) -> bool:
        """A heartbeat is at the server; only workers follow these. False where nobody answers."""
        self.beating = store.namespace
        try:
            store.push(store.keys.telemetry, [data], limit=TELEMETRY_LIMIT)
        except Unavailable:
            return False
        finally:
            self.beating = ""
        return True

    def draw_skew(self) -> float:
        if not self.faults.on("skew"):
            return 0.0
        return self.rng.choice((0.0, 0.0, 0.3, -0.3, SKEW_S, -SKEW_S))

    def strikes(self, what: str, odds: float = 0.0) -> bool:
        """Whether this goes wrong now. odds: others than usual."""
        return not self.calm and self.faults.on(what) and self.rng.random() < (odds or CHANCES[what])

    def latency(self, slow: str = "slow") -> float:
        """Seconds on the net. slow: the fault that makes it up to a minute."""
        if self.calm:
            return 0.0005
        luck = self.rng.random()
        if luck < 0.85:
            return 0.0002 + 0.002 * self.rng.random()
        if luck < 0.98:
            return 0.04 * self.rng.random()
        if luck < 0.995 or not self.faults.on(slow):
            return self.rng.random()
        return 60.0 * self.rng.random()

    def pause(self) -> float:
        """How long something stays dead."""
        return 0.05 if self.calm else self.rng.choice((0.01, 0.3, 2.0, 9.0))

    def hardware(self, ever: bool = False) -> dict[int, set[int]]:
        return {rank: set(range(self.cores)) for rank in range(4)}

    def pools(self) -> dict[str, int]:
        tree = self.site.tree()
        return {path: place.size for path, place in to_record(tree).places.items()} if tree is not None else {}

    def realms(self) -> list[Realm]:
        """The instance and those inside it that live."""
        found: list[Realm] = [self]
        for realm in found:
            found += [child for child in realm.children if not child.over]
        return found

    def everybody(self) -> list[Process]:
        return [process for realm in self.realms() for process in realm.processes()]

    def _told(self) -> None:
        """Something has come: to one instance, or nobody knows to whom."""
        realms = self.realms()
        if self.beating:
            for realm in realms:
                for worker in realm.workers if realm.namespace == self.beating else ():
                    worker.news()
            return
        changed = [realm for realm in realms if realm.store._tip() != realm.book.tip]
        for realm in changed:
            self.times.setdefault(realm.store._tip(), self.now)
        handover.look(changed)
        for realm in changed or realms:
            for worker in realm.workers:
                worker.news()
            for machine in realm.machines:
                machine.agent.news()

    # -- the calendar ---------------------------------------------------------------------------------------------

    def after(self, delay: float, do: Callable[..., None], *args: Any, owner: Process | None = None) -> None:
        """Do something after so many seconds; not if its owner has died by then, later if it is frozen."""
        if delay == float("inf"):
            return
        self.moves += 1
        if self.moves > MOST:
            raise Broken("there is no end of it")
        heappush(self.calendar, (self.now + delay, self.moves, do, args, owner, owner.life if owner else 0))

    def run_until(self, end: float) -> None:
        """Let happen what is to happen."""
        calendar = self.calendar
        while calendar and calendar[0][0] <= end:
            at, number, do, args, owner, life = heappop(calendar)
            if owner is not None:
                if owner.life != life:
                    continue
                if owner.frozen_until > at:
                    heappush(calendar, (owner.frozen_until, number, do, args, owner, life))
                    continue
            self.now = max(self.now, at)
            do(*args)
        self.now = max(self.now, end)
