"""The keepers of an instance: their care for the server's history, their cron, a child's end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxkv.instances import adopting, sealing
from fluxkv.instances.cron import Cron
from fluxkv.instances.parent_row import ParentRow
from fluxkv.instances.server_care import ServerCare
from fluxkv.kvs.errors import Conflict, Corrupt, FluxkvError, Unavailable

from .own import Hands
from .process import Process
from .truth import Broken

if TYPE_CHECKING:
    from .realm import Realm


class Timers:
    """What cron asks its keeper for; the keeper looks often enough."""

    def add(self, *args: Any) -> None: ...
    def at(self, *args: Any) -> None: ...
    def cancel(self, *args: Any) -> None: ...


class Said:
    """A keeper's log."""

    def __init__(self, world: Realm) -> None:
        self.world = world

    def say(self, level: str, text: str) -> None:
        self.world.complaints.append(text)


class KeeperProcess(Process):
    """A keeper's care for the server's history (`instances/server_care.py` itself), and its cron."""

    def __init__(self, world: Realm, name: str) -> None:
        super().__init__(world, name)
        self.store = world.new_store()

    def birth(self) -> None:
        world = self.world
        try:
            world.bring_up()
        except (Unavailable, Conflict):
            world.after(0.2, self.birth, owner=self)
            return
        except Corrupt as error:
            world.noticed(self.name, error)
            world.after(1.0, self.birth, owner=self)
            return
        self.up = True
        settings = {"lead": True, "on_fork": world.root.on_fork, **getattr(world, "settings", {})}
        self.care = ServerCare(world.state_dir, Said(world), settings)
        self.care.selector.close()
        self.care.store = self.store
        self.cron = Cron(world.client_store(), Timers(), lambda level, text: world.complaints.append(text))
        self.seal = sealing.duty(self.store, settings, say=Said(world).say)
        self.limit = getattr(world, "limit", None)
        self.claims = world.new_claims()
        self.row = ParentRow(settings, world.state_dir) if world.depth and world.root.site.passes else None
        self.hands = Hands(self) if world.root.site.owns else None
        if self.hands is not None:
            self.care.handing = self.hands.duty
            self.care.server = getattr(world, "handle", None) if world.depth else None
        self._tick()

    def _tick(self) -> None:
        world = self.world
        world.after(2.0 if world.calm else world.rng.choice((0.3, 1.0)), self._tick, owner=self)
        if world.now < self.cut_until:
            return
        if self.hands is not None:
            self.hands.look()
        if (meta := self.care._seen()) is not None:
            self.care._witness(meta)
        self.care._take_up(meta)
        if self.care.lost:
            world.detections.append((world.now, self.name, "history-lost"))
            world.after(world.pause(), self._adopt, owner=self)
            return
        if self.limit is not None:
            news = self.limit.look()
            if self.claims is not None:
                self.claims.look(news, plain=self.limit.is_plain)
            if self.row is not None:
                self.row.look(self.limit.meta)
        self.seal()
        try:
            self.cron.step(self.clock())
        except FluxkvError as error:
            self.cron.table = None
            if isinstance(error, Corrupt) and not world.forks:
                raise Broken(f"{self.name}'s cron: {error}") from error
            world.complaints.append(str(error))

    def _adopt(self) -> None:
        """An operator, who has read what is lost."""
        try:
            report = adopting.examine(self.store, self.world.state_dir)
            if report.loss is not None and not (report.fresh and self.world.depth):  # a child that is lost whole is given up
                adopting.adopt(self.store, self.world.state_dir, report, "operator")
        except (Unavailable, Conflict):
            pass  # still lost at the next look
