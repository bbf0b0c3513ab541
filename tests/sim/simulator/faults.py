"""What may go wrong, how likely, and the calendar of a storm. Each seed has some of it, so that rare things meet.

Nothing here knows what is right: it only breaks things.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fluxkv.instances.witness import read_tip  # as it is here: a planted fault does not reach it

from .process import ReactorProcess

if TYPE_CHECKING:
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

    def strike(self, name: str) -> None:
        if not self.world.calm:
            getattr(self, f"_{name}")()

    def machines(self) -> list[Machine]:
        return [machine for realm in self.world.realms() for machine in realm.machines if not machine.gone]

    # -- processes ------------------------------------------------------------------------------------------------

    def _crash(self) -> None:
        up = [process for process in self.world.everybody() if process.up]
        if up:
            self.world.rng.choice(up).die()

    def _launcher(self) -> None:
        self.world.rng.choice(self.machines()).kill_launcher()

    def _reboot(self) -> None:
        self.world.rng.choice(self.world.machines).reboot(wipe=self.world.rng.random() < 0.4)

    def _cut(self) -> None:
        """A process loses its way to the server; it goes on, and so does what it has started."""
        rng = self.world.rng
        process = rng.choice(self.world.everybody())
        process.cut_until = self.world.now + rng.choice((0.2, 3.0, 20.0, 70.0))

    def _freeze(self) -> None:
        """SIGSTOP."""
        rng = self.world.rng
        process = rng.choice(self.world.everybody())
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
        server, world = self.world.server, self.world
        self._note_restart()
        server.restart()
        server.down = True
        world.after(world.rng.choice((0.0, 0.1, 2.0)), self.server_back)

    def server_back(self) -> None:
        self.world.server.down = False

    def _failover(self) -> None:
        """A replica that is some commits behind becomes the primary."""
        world, server = self.world, self.world.server
        wanted = world.rng.choice((1, 1, 2, 5, 20, 50))
        if server.down:
            return
        before = {realm: {entry.id for entry in realm.store.read(0, 1_000_000)} for realm in world.realms()}
        count = min(wanted, len(before[world]) - 6)
        if count < 1:
            return
        server.fail_over(count)
        self._note_restart()
        for realm, ids in before.items():
            left = realm.store.read(0, 1_000_000)
            gone = frozenset(ids.difference(entry.id for entry in left))
            if gone or realm is world:
                realm.diary.forked = world.now
                tip = read_tip(realm.state_dir)
                kept = left[-1].version if left else 0
                realm.forks.append(Fork(kept, gone, tip.known.partition(":")[0] if tip else ""))

    def _note_restart(self) -> None:
        for realm in self.world.realms():
            found = self.world.server.tables.instances.get(realm.namespace)
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
            process.cut_until = 0.0
            process.frozen_until = min(process.frozen_until, self.world.now)
        for reader in [one for one in self.world.everybody() if isinstance(one, ReactorProcess)]:
            reader.polling = False  # what it waits for may be a minute away
            reader.news()
