"""The simulator while its site is changed under it: scripts come and go with the config, nodes and cores with the inventory."""

from __future__ import annotations

from typing import Any

from mini_sim import CORES, HOSTS, Actor, Sim

from fluxkv.instances.adoption import adopt
from fluxkv.journal import decide_config, decide_inventory, decide_update
from fluxkv.journal.decide import Decision
from fluxkv.journal.idset import mask_of
from fluxkv.journal.rset import NodeRecord, ResourceSet
from fluxkv.journal.state import State

KINDS: dict[str, tuple[dict[str, Any], ...]] = {
    "prolog": ({"command": ["p"], "per-rank": True}, {"command": ["p"]}),
    "epilog": ({"command": ["e"], "per-rank": True}, {"command": ["e"]}),
    "housekeeping": ({"command": ["h"], "release-after": "0"}, {"command": ["h"]}),
}


class ChangeSim(Sim):
    """A seed. changes: how many configs, inventories and time limits it had beside the first."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, actions=450)
        self.changes = {"config": 0, "inventory": 0, "limit": 0}

    def _signal(self) -> None:
        if self.rng.random() < 0.6:
            self._configure()
        else:
            super()._signal()

    def _queue(self) -> None:
        if self.rng.random() < 0.6:
            self._reload(full=False)
        else:
            super()._queue()

    def _configure(self) -> None:
        tables = {kind: self.rng.choice(some) for kind, some in KINDS.items() if self.rng.random() < 0.4}
        document = {"job-manager": tables} if tables else {}
        self.changes["config"] += 1
        self._say(lambda state: decide_config.load(state, document, "", 1, self.now))

    def _reload(self, full: bool) -> None:
        """Some nodes, with some of their cores; refused where that is in use."""
        ranks = range(4) if full else sorted(self.rng.sample(range(4), self.rng.choice((2, 3, 4, 4))))
        records = []
        for rank in ranks:
            cores = CORES if full else self.rng.choice((2, 3, CORES, CORES))
            records.append(NodeRecord(rank, f"n{rank}", mask_of(f"0-{cores - 1}"), 0, 0, ()))
        inventory, made = ResourceSet(tuple(records)), []

        def decision(state: State) -> Decision:
            found, _ = decide_inventory.reload(state, inventory, self.now)
            made[:] = found.events
            return found

        self._say(decision)
        self.changes["inventory"] += bool(made)
        self.cli.catch_up(self.view)
        for at, actor in enumerate(self.agents):
            if actor.request is None and (full or self.rng.random() < 0.9):  # else it hears so at a later beat
                self._adopt(actor, HOSTS[at])

    def _adopt(self, actor: Actor, ranks: tuple[int, ...]) -> None:
        names = {rank: f"n{rank}" for rank in ranks if rank in self.view.nodes}
        if names.keys() == actor.reactor.host.names.keys():  # type: ignore[union-attr]
            return
        meta = self.store.meta()
        adopt(actor.reactor, names, f"{meta.version}-{meta.epoch}")  # type: ignore[arg-type]
        cursors = actor.reactor.cursors  # type: ignore[union-attr]
        actor.subscription.close()
        actor.names = {self.store.keys.inbox(f"node/{rank}"): f"node/{rank}" for rank in names}
        at = {key: cursors[int(name[5:])] for key, name in actor.names.items()}
        actor.subscription = self.store.subscribe(at)
        actor.last, actor.due = [], 0.0
        actor.saved = {rank: actor.saved.get(rank, cursors[rank]) for rank in names} if actor.saved else {}

    def _urgency(self) -> None:
        if self.rng.random() < 0.5:
            super()._urgency()
            return
        id = self._some_job()
        change = [decide_update.parse_change(self.rng.choice(("duration=+1m", "duration=0.1s", "duration=+0.02s")))]

        def decision(state: State) -> Decision:
            job = state.jobs.get(id)
            if job is None:
                return Decision([])
            if decide_update.wait_for_node(job):
                return decide_update.recall(job, self.now)
            return decide_update.update(state, job, change, 1, self.now)

        self.changes["limit"] += 1
        self._say(decision)

    def _tick(self) -> None:
        if not self.calm and self.rng.random() < 0.02:
            self.now += self.rng.choice((3.0, 60.0))  # somebody sets the clock
        super()._tick()

    def _settle(self) -> None:
        self._open_epoch()
        self._epoch_event()
        self._reload(full=True)
        self._say(lambda state: decide_config.load(state, {}, "", 1, self.now))
        for at, actor in enumerate(self.agents):  # one that had a commit under way hears of the inventory by this
            self._die(actor)
            if not actor.saved:
                self.diary.died(actor.number)
            self.agents[at] = self._agent(HOSTS[at], actor)
        super()._settle()
