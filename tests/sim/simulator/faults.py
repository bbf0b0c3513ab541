"""What may go wrong, how likely, and the calendar of a storm. Each seed has some of it, so that rare things meet.

Nothing here knows what is right: it only breaks things.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fluxkv.instances.witness import read_tip  # as it is here: a planted fault does not reach it

from . import handover
from .clients import DEEPEST
from .own import everybody
from .process import Process, ReactorProcess

if TYPE_CHECKING:
    from .own import Server
    from .realm import Realm
    from .roles import Machine
    from .world import World

# For each occasion, if the seed has this fault at all.
CHANCES = {
    "between": 0.004,  # a crash between two outputs of a reactor
    "lost": 0.04,  # a request or an answer
    "twice": 0.02,  # a request arrives once more, up to a minute later
    "again": 0.05,  # a reader gets what it had already
    "liar": 0.3,  # a worker believes that it leads
    "meddle": 0.15,  # a client is quicker than a commit under way
    "behind": 0.3,  # a reader is given an older state of the journal
}
# What happens at moments of its own: name -> weight.
BLOWS = {
    "crash": 4.0, "launcher": 1.0, "reboot": 1.0, "cut": 1.5, "freeze": 1.5, "restart": 1.5, "failover": 1.5, "full": 1.0,
    "jump": 1.0, "mute": 1.5,
}  # fmt: skip
ROLES = ("worker", "agent", "keeper", "launcher")
SWITCHES = ("nonsense", "poison", "slow", "stale", "skew", "two-workers", "two-drivers", "cron", "adopts")


class Fork(NamedTuple):
    """A fail-over: the version up to which history was kept, ids of the entries that were lost, what the keeper's file knew."""

    kept: int
    lost: frozenset[str]
    witness: str


class Faults:
    """The faults a seed has: each with even odds, few seeds have none."""

    def __init__(self, world: World) -> None:
        self.world = world
        rng = world.rng
        quiet = rng.random() < 0.05
        self.chosen = set() if quiet else {name for name in (*CHANCES, *BLOWS, *SWITCHES) if rng.random() < 0.5}
        self.deep = world.site.kind == "deep"
        if self.deep:
            self.chosen.discard("poison")  # what is written by hand keeps no rules
        if world.site.kind == "silent":
            self.chosen -= {"poison", "nonsense"}
        if world.site.kind == "late":
            self.chosen |= {"launcher", "poison" if world.seed % 2 else "again"}
            self.chosen -= {"again" if world.seed % 2 else "poison"}
        self.blows = [name for name in BLOWS if name in self.chosen]

    def on(self, name: str) -> bool:
        return name in self.chosen

    def plan(self, begin: float, length: float, count: int) -> None:
        """Blows at random moments of the storm."""
        world = self.world
        if not self.blows:
            return
        weights = [BLOWS[name] for name in self.blows]
        for name in world.rng.choices(self.blows, weights, k=count):
            world.after(begin - world.now + world.rng.random() * length, self.strike, name)

    def plan_deep(self, length: float) -> None:
        """Deaths of every role at every level."""
        world = self.world
        for depth in range(DEEPEST + 1):
            for role in ROLES:
                if world.rng.random() < 0.2 + 0.2 * depth:  # the deeper, the less time there is
                    world.after(world.rng.random() * length, self._kill, role, depth)

        if world.rng.random() < 0.7:
            world.after(world.rng.uniform(1.0, 6.0), self._silence)

    def _silence(self) -> None:
        """A node with an instance on it loses its way to the server, for longer than what runs there and may begin again elsewhere
        lives; somebody has just submitted more of that kind."""
        world = self.world
        found = [machine for one in world.children for _, machine in one.parts.values() if not one.over]
        if world.calm:
            return
        if not found:
            world.after(0.5, self._silence)
            return
        self._cut_for_long(world.rng.choice(found))

    def silence(self) -> None:
        """The same of any node, for which there are such jobs: their orders wait for it until nobody wants them any more."""
        if not self.world.calm:
            machine = self.world.rng.choice(self.world.machines)
            self._cut_for_long(machine, f"n{machine.ranks[-1]}")
            machine.agent.deaf_until = machine.agent.cut_until + self.world.rng.uniform(0.0, 3.0)

    def _cut_for_long(self, machine: Machine, host: str = "") -> None:
        world = self.world
        machine.agent.cut_until = world.now + world.rng.choice((12.0, 25.0))
        world.happened["silences"] += 1
        for _ in range(3):
            world.after(world.rng.uniform(0.0, 2.0), machine.world.clients.submit_fenced, host)

    def _kill(self, role: str, depth: int) -> None:
        world = self.world
        realms = [realm for realm in world.realms() if realm.depth == depth]
        if world.calm:
            return
        machines = [machine for realm in realms for machine in realm.machines if machine.launcher_up]
        up = [process for realm in realms for process in realm.processes() if process.up and process.name.startswith(role)]
        if role == "launcher" and machines:
            self._kill_launcher(world.rng.choice(machines))
        elif up:
            self._kill_process(world.rng.choice(up))
        else:
            world.after(0.5, self._kill, role, depth)  # there is nobody yet

    def _kill_process(self, process: Process) -> None:
        self.world.happened[f"{process.name.partition('-')[0]} killed at depth {process.world.depth}"] += 1
        process.die()

    def _kill_launcher(self, machine: Machine) -> None:
        self.world.happened[f"launcher killed at depth {machine.world.depth}"] += 1
        machine.kill_launcher()

    def _anybody(self) -> list[Process]:
        """Whom something may happen to; where there are many levels, of one of them."""
        found = self.world.everybody()
        if self.deep:
            depth = self.world.rng.choice(sorted({process.world.depth for process in found}))
            found = [process for process in found if process.world.depth == depth]
        return found

    def strike(self, name: str) -> None:
        if not self.world.calm:
            getattr(self, f"_{name}")()

    def machines(self) -> list[Machine]:
        found = [machine for realm in self.world.realms() for machine in realm.machines if not machine.gone]
        if self.deep and not self.world.calm:
            depth = self.world.rng.choice(sorted({machine.world.depth for machine in found}))
            found = [machine for machine in found if machine.world.depth == depth]
        return found

    # -- processes ------------------------------------------------------------------------------------------------

    def _crash(self) -> None:
        up = [process for process in self._anybody() if process.up]
        if up:
            self._kill_process(self.world.rng.choice(up))

    def _launcher(self) -> None:
        self._kill_launcher(self.world.rng.choice(self.machines()))

    def _reboot(self) -> None:
        self.world.rng.choice(self.world.machines).reboot(wipe=self.world.rng.random() < 0.4)

    def _cut(self) -> None:
        """A process loses its way to the server; it goes on, and so does what it has started."""
        rng = self.world.rng
        process = rng.choice(self._anybody())
        process.cut_until = self.world.now + rng.choice((0.2, 3.0, 20.0, 70.0))

    def _freeze(self) -> None:
        """SIGSTOP."""
        rng = self.world.rng
        process = rng.choice(self._anybody())
        if process.up:
            process.frozen_until = self.world.now + rng.choice((0.1, 2.0, 8.0, 40.0))

    def _mute(self) -> None:
        """An agent's heartbeats are lost, and nothing else."""
        rng = self.world.rng
        rng.choice(self.machines()).agent.mute_until = self.world.now + rng.choice((3.0, 20.0, 70.0))

    def _jump(self) -> None:
        """Somebody sets a clock."""
        world = self.world
        by = world.rng.choice((-90.0, -3.0, 3.0, 60.0))
        at = world.rng.randrange(1 + len(world.everybody()))
        if at == len(world.everybody()):
            world.server_skew += by
        else:
            world.everybody()[at].skew += by

    # -- the server -----------------------------------------------------------------------------------------------

    def _restart(self) -> None:
        world, server = self.world, self._some_server()
        self._note_restart(server)
        server.restart()
        server.down = True
        if server is world.server:  # else its keeper starts it again
            world.after(world.rng.choice((0.0, 0.1, 2.0)), self.server_back)

    def _some_server(self) -> Server:
        """The first one, or that of an instance that has its own, and lives."""
        world = self.world
        if not world.site.owns:
            return world.server
        return world.rng.choice([world.server, *(realm.server for realm in world.realms() if realm.depth and realm.own)])

    def server_back(self) -> None:
        self.world.server.down = False

    def _failover(self) -> None:
        """A replica that is some commits behind becomes the primary; or a server dies, and the end of its file was not written."""
        world, server = self.world, self._some_server()
        wanted = world.rng.choice((1, 1, 2, 5, 20, 50))
        if not server.down and self.tear(server, wanted) and server is not world.server:
            server.down = True

    def tear(self, server: Server, wanted: int) -> bool:
        """The last commits on a server are gone; whether there were as many."""
        world = self.world
        found = [one for one in everybody(world) if not one.over or world.site.owns]
        there: list[Realm] = [realm for realm in (world, *found) if realm.server is server]
        before = {realm: {entry.id for entry in realm.store.read(0, 1_000_000)} for realm in there}
        count = min(wanted, len(before[there[0]]) - 6)
        if count < 1:
            return False
        server.fail_over(count)
        self._note_restart(server)
        for realm, ids in before.items():
            left = realm.store.read(0, 1_000_000)
            gone = frozenset(ids.difference(entry.id for entry in left))
            if gone or realm is there[0]:
                realm.diary.forked = world.now
                tip = read_tip(realm.state_dir)
                kept = left[-1].version if left else 0
                realm.forks.append(Fork(kept, gone, tip.known.partition(":")[0] if tip else ""))
        handover.look([realm for realm in there if realm.over and realm.ready])  # not what has come of one that is on its way
        return True

    def _note_restart(self, server: Server) -> None:
        for realm in self.world.realms():
            found = server.tables.instances.get(realm.namespace) if realm.server is server else None
            if found is not None:
                realm.restarts.append((self.world.now, found.epoch))

    def _full(self) -> None:
        """Past the soft line of memory for a while, or for good."""
        world = self.world
        world.server.used_memory = 2
        world.after(world.rng.choice((1.0, 10.0, 1e9)), self.room)

    def room(self) -> None:
        self.world.server.used_memory = 0

    def heal(self) -> None:
        """The storm is over: everything works, at once, and is where it was."""
        self.server_back()
        for machine in self.machines():
            machine.agent.mute_until = 0.0
        for process in self.world.everybody():
            process.cut_until = process.deaf_until = 0.0
            process.frozen_until = min(process.frozen_until, self.world.now)
        for reader in [one for one in self.world.everybody() if isinstance(one, ReactorProcess)]:
            reader.polling = False  # what it waits for may be a minute away
            reader.news()
