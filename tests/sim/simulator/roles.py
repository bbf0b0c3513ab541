"""The processes of an instance but its keepers: workers, agents with their hosts' launchers."""

from __future__ import annotations

import random
from itertools import count
from typing import TYPE_CHECKING, Any

from fluxkv.instances import forks
from fluxkv.instances.adoption import adopt
from fluxkv.instances.agent import Agent
from fluxkv.instances.attempts import Host
from fluxkv.instances.beats import PULSE, Beat, held_sums, pack_beat
from fluxkv.instances.fence import Contact
from fluxkv.instances.inbox import read_on
from fluxkv.instances.reactor import (
    Follow,
    Found,
    Launched,
    LauncherLost,
    Lead,
    Lookup,
    Messages,
    Output,
    Snapshot,
    ToLauncher,
    Trim,
)
from fluxkv.instances.run_agent import INVENTORY, TELEMETRY_LIMIT
from fluxkv.instances.underway import SLICE_S
from fluxkv.instances.worker import Worker
from fluxkv.journal.agreement import load_agreed
from fluxkv.journal.log import Journal
from fluxkv.kvs.epochs import anchor, settle
from fluxkv.kvs.errors import Conflict, Unavailable
from fluxkv.kvs.port import Meta

from .process import NEVER, ReactorProcess
from .truth import SimLauncher

if TYPE_CHECKING:
    from .world import World

LEASE_S = 3.0
BEAT_S = 5.0  # in the calm nothing is lost, and fewer beats do


class WorkerProcess(ReactorProcess):
    """What `instances/run_worker.py` is."""

    reactor: Worker

    def begin(self) -> None:
        world = self.world
        self.journal = Journal(self.store, by=self.name)
        state = load_agreed(self.journal)
        self.reactor = Worker(self.journal.meta, state, world.new_policy(), self.name)
        ticks = count()
        self.reactor.planner.clock = lambda: next(ticks) * SLICE_S / 4  # plans are interrupted after a few looks
        position = f"{state.version}-{state.epoch}" if state.version else "0"
        telemetry = self.store.keys.telemetry
        self.names = {telemetry: "telemetry"}
        self.subscription = self.store.subscribe({self.store.keys.journal: position, telemetry: "$"})
        self.reactor.watch.remember(self.store.messages(telemetry, limit=2 * TELEMETRY_LIMIT))
        self.leading = False
        if world.strikes("liar"):  # stopped for long while it led: it believes that it still does
            self._lead(True)
        self._renew()
        self._pulse()

    def _pulse(self) -> None:
        """Its own beat among those of the nodes."""
        self.world.after(self.world.beat_s(self.reactor.state.rules.offline_after_s), self._pulse, owner=self)
        if self.leading and self.world.now >= self.cut_until and not self.world.strikes("lost"):
            self.world.at_server(self.world.push_beat, self.store, pack_beat(Beat(PULSE, self.clock())))

    def known(self) -> list[str]:
        state = self.reactor.state
        return [*super().known(), anchor(state.version, state.epoch, state.tail) or f"{state.version}-{state.epoch}"]

    def reopened(self, meta: Meta) -> None:
        if any(forks.missing(self.store, one, meta) is not None for one in self.known()):
            self.die(0.0)  # it folds anew
        else:
            super().reopened(meta)

    def _renew(self) -> None:
        self.world.after(LEASE_S / 3 if not self.world.calm else LEASE_S, self._renew, owner=self)
        if self.world.now < self.cut_until or self.world.strikes("liar"):
            return
        try:
            self._lead(self.store.lease(self.name, int(LEASE_S * 1000)))
        except Unavailable:
            pass

    def _lead(self, leading: bool) -> None:
        if leading != self.leading:
            self.leading = leading
            self.mail.append(Lead(leading))
            self.wake()

    def perform(self, output: Output) -> None:
        if isinstance(output, Snapshot):
            try:
                self.journal.meta = self.reactor.meta
                self.journal.save_snapshot(self.reactor.state)
                self.world.snapshots += 1
                self.store.prune_guards(self.reactor.meta.uid, self.reactor.meta.epoch, output.floor)
            except (Unavailable, Conflict):
                pass
        elif isinstance(output, Lookup):
            self.world.lookups += 1
            self._look_up(output)

    def _look_up(self, output: Lookup) -> None:
        try:
            self.mail.append(Found(output.ids, self.journal.find_jobs(self.reactor.state, output.ids)))
            self.wake()
        except Unavailable:
            self.world.after(0.1, self._look_up, output, owner=self)


class Machine:
    """A host: its boots, its disk, its launcher. saved: the cursors on disk, {} when there are none."""

    def __init__(self, world: World, number: int, ranks: tuple[int, ...]) -> None:
        self.world, self.number, self.ranks = world, number, ranks
        self.boots = self.spools = 1
        self.launcher = SimLauncher(world.now)
        self.launcher_up = True
        self.saved: dict[int, str] = {}
        self.pump_at = NEVER
        self.gone = False
        self.agent = AgentProcess(world, self)

    @property
    def home(self) -> str:
        """Names the launcher's spool: an attempt that starts in two of them has started twice."""
        return f"{self.number}.{self.spools}.{self.boots}"

    def pump(self) -> None:
        """Have the launcher tell what has happened, and look again when more will have."""
        world = self.world
        if self.pump_at > world.now:
            return
        self.pump_at = NEVER
        events = self.launcher.advance(world.now)
        world.diary.saw(self.home, events, world.now)
        if events and self.agent.up:
            self.agent.mail.append(Launched(events))
            self.agent.wake(0.0 if world.calm else world.rng.choice((0.0, 0.0002, 0.003)))
        self.look()

    def look(self) -> None:
        due = self.launcher.due()
        if due is None:
            return
        due = max(due, self.world.now)
        if due < self.pump_at:
            self.pump_at = due
            self.world.after(due - self.world.now + (1e-6 if due > self.world.now else 0.0), self.pump)

    def tell(self, message: list[Any]) -> None:
        """A message to the launcher; one that is not there hears nothing."""
        if self.launcher_up:
            self.launcher.handle(message, self.world.now)
            self.look()

    def _unheard(self) -> None:
        """What a launcher says while nobody listens happens all the same."""
        self.world.diary.saw(self.home, self.launcher.advance(self.world.now), self.world.now)

    def kill_launcher(self) -> None:
        """Its tasks end with it; the next one, a while later, says so."""
        if not self.launcher_up:
            return
        self._unheard()
        self.world.downs.append((self.world.now, self.ranks))
        self.launcher.die(self.world.now, with_spool=False)
        self.world.diary.died(self.home, self.world.now)
        self.launcher_up = False
        if self.agent.up:
            self.agent.mail.append(LauncherLost(True))
            self.agent.wake()
        self.world.after(self.world.pause(), self.launcher_back)

    def leave(self, key: str) -> None:
        """A task that is an instance ends by itself."""
        self.launcher.leave(key)
        self.look()

    def end(self) -> None:
        """The task that all this runs in is over."""
        self.gone = True
        self._unheard()
        self.launcher.die(self.world.now, with_spool=True)
        self.world.diary.died(self.home, self.world.now)
        self.launcher_up = False
        self.agent.end()

    def launcher_back(self) -> None:
        if not (self.launcher_up or self.gone):
            self.launcher_up = True
            if self.agent.up:
                self.agent.connect()
                self.agent.read_again()

    def reboot(self, wipe: bool) -> None:
        """The whole host goes down and comes back. wipe: with an empty disk."""
        self._unheard()
        self.world.downs.append((self.world.now, self.ranks))
        self.launcher.die(self.world.now, with_spool=True)
        self.world.diary.died(self.home, self.world.now)
        self.launcher_up = False
        self.agent.die(NEVER)
        self.boots += 1
        self.saved = {}  # cursors are of a boot: what was ordered before it is not started in this one
        if wipe:
            self.spools += 1
        self.world.after(self.world.pause() * 3, self._boot, self.boots)

    def _boot(self, boot: int) -> None:
        if boot == self.boots and not self.agent.up:
            self.launcher_up = True
            self.agent.birth()


class AgentProcess(ReactorProcess):
    """What `instances/run_agent.py` is. Cursors are kept on disk before the launcher forgets anything."""

    reactor: Agent

    def __init__(self, world: World, machine: Machine) -> None:
        super().__init__(world, f"agent-{machine.number}")
        self.machine = machine
        self.inventory: list[int] = []
        self.offline_after_s = 0.0
        self.unheard = False
        self.mute_until = 0.0
        self.read: list[Messages] = []  # orders that it has been given in this life

    def _nodes(self) -> dict[int, str]:
        """The nodes of the inventory that are this machine's."""
        state = Journal(self.store).look()
        self.offline_after_s = state.rules.offline_after_s
        here = {rank: state.nodes[rank].host for rank in self.machine.ranks if rank in state.nodes}
        self.unheard = not all(state.nodes[rank].online for rank in here)
        return here

    def begin(self) -> None:
        machine, store = self.machine, self.store
        self.contact, begun = Contact(), self.world.now - machine.launcher.booted
        meta = store.meta()
        self.inventory = store.bumps(INVENTORY)
        here = self._nodes()
        if not here:
            raise Unavailable("no node of this host is in the inventory")
        self.contact.answered(begun, self.offline_after_s, meta.version)
        tip = f"{meta.version}-{meta.epoch}"
        cursors = {rank: machine.saved.get(rank, tip) for rank in here}
        for cursor in set(cursors.values()):
            forks.notice(store, cursor)
        if (meta := store.meta()).fork:
            raise Unavailable("not adopted yet")
        cursors = {rank: settle(meta.epochs, meta.version, cursor) for rank, cursor in cursors.items()}
        self.read = []
        cpus = {core: [core] for core in range(self.world.cores)}
        host = Host(here, f"boot{machine.boots}", f"spool{machine.number}.{machine.spools}", self.world.uri, "/t", cpus)
        self.names = {store.keys.inbox(f"node/{rank}"): f"node/{rank}" for rank in here}
        positions = {key: cursors[int(name[5:])] for key, name in self.names.items()}
        self.mail += read_on(store, self.names, positions)
        self.subscription = store.subscribe(positions)
        self.reactor = Agent(meta, host, cursors)
        machine.saved = dict(cursors)
        if machine.launcher_up:
            self.connect()
        self._beat()

    def connect(self) -> None:
        self.mail.append(LauncherLost(False))
        self._tell(self.contact.again())
        self.machine.tell(["list"])

    def _deliver(self, inputs: list[Any]) -> None:
        super()._deliver(inputs)
        self.read += [one for one in inputs if isinstance(one, Messages)]

    def read_again(self) -> None:
        """What took its launcher took its way to the server, too: its reader begins a while before where it was."""
        if self.world.site.kind == "late" and self.world.strikes("again", 0.5):
            self.world.root.happened["orders read again"] += 1
            self.world.after(self.world.rng.uniform(0.0, 1.0), self._redeliver, self.read[-20:], owner=self)

    def _tell(self, messages: list[list[Any]]) -> None:
        for message in messages:
            self.machine.tell(message)

    def _beat(self) -> None:
        """Say that this host lives; notice a new epoch, or another inventory, even when there is nothing to report."""
        world, reactor = self.world, self.reactor
        world.after(world.beat_s(self.offline_after_s), self._beat, owner=self)
        if world.now < self.cut_until:
            return
        if world.now >= self.mute_until and not world.strikes("lost"):
            placed, ranks = reactor.placed.values(), reactor.host.ranks
            held = held_sums(placed, ranks) if reactor.held is not None else ()
            beat = Beat(tuple(ranks), self.clock(), len(placed), 0.0, self.offline_after_s, held)
            begun = world.now - self.machine.launcher.booted
            self._tell(self.contact.shortened(self.offline_after_s))
            world.at_server(self._beats, pack_beat(beat), begun, self.offline_after_s, self.life)
        if self.request is not None:
            return
        try:
            meta = self.store.meta()
            inventory = self.store.bumps(INVENTORY)
        except Unavailable:
            return
        if inventory != self.inventory:
            self._adopt(inventory, f"{meta.version}-{meta.epoch}")
        if self._goes_on(meta, reactor.meta.epoch):
            self.reopened(meta)

    def _beats(self, data: bytes, begun: float, fence_s: float, life: int) -> None:
        """A beat is at the server, whether its sender still lives or not; its launcher hears of it when the answer is there."""
        world = self.world
        if world.push_beat(self.store, data) and self.life == life and not world.strikes("lost") and world.now >= self.cut_until:
            try:
                tip = self.store.meta().version
            except Unavailable:
                return  # lost as a whole
            if world.calm:
                self._answered(begun, fence_s, tip)
            else:
                world.after(world.latency(), self._answered, begun, fence_s, tip, owner=self)

    def _answered(self, begun: float, fence_s: float, tip: int) -> None:
        self.machine.tell(self.contact.answered(begun, fence_s, tip))

    def _adopt(self, inventory: list[int], tip: str) -> None:
        names = self._nodes()
        for rank in adopt(self.reactor, names, tip):
            key = self.store.keys.inbox(f"node/{rank}")
            self.names[key] = f"node/{rank}"
            self.subscription.follow(key, tip)
        for key in [key for key, name in self.names.items() if int(name[5:]) not in names]:
            del self.names[key]
            self.subscription.forget(key)
        self.mail = [one for one in self.mail if getattr(one, "name", "") in ("", *self.names.values())]
        self.machine.saved = dict(self.reactor.cursors)
        self.inventory = inventory
        self.reactor.hello_due = self.reactor.hello_due or self.unheard
        self.wake()

    def known(self) -> list[str]:
        return [*super().known(), *set(self.reactor.cursors.values())]

    def perform(self, output: Output) -> None:
        if isinstance(output, Follow):
            self.subscription.follow(self.store.keys.inbox(output.name), output.position)
            self.machine.saved = dict(self.reactor.cursors)
        elif isinstance(output, Trim):
            try:
                self.store.trim(self.store.keys.inbox(output.key), output.through)
            except Unavailable:
                pass
        elif isinstance(output, ToLauncher):
            message = output.message
            if message[0] == "ack":
                self.machine.saved = dict(self.reactor.cursors)
            elif message[0] == "launch":
                for attempt in message[1]:
                    self._pretend(attempt)
            self.machine.tell(message)

    def _pretend(self, attempt: dict[str, Any]) -> None:
        """How long it takes and how it ends depends on the seed and its name alone."""
        world = self.world
        if "script" in attempt:
            luck = random.Random(f"{world.seed} {attempt['key']}")
            attempt["fake_s"] = luck.choice((0.0, 0.002, 0.02, 0.2))
            attempt["fake_status"] = 256 if luck.random() < 0.05 and not world.calm else 0
        else:
            attempt["fake_s"], attempt["fake_status"] = world.runs.get(attempt["job"], (0.01, 0))
            if attempt["job"] in world.nested:
                world.orders[attempt["key"]] = attempt
            if attempt.get("number", 1) > 1 and attempt["job"] not in world.nested:  # each attempt ends in its own way
                attempt["fake_status"] = random.Random(f"{world.seed} {attempt['key']}").choice((0, 0, 256, 9))
        world.diary.brought(attempt)
