"""A process that runs a reactor: its mail, its commit in flight, its clock; it can crash, be cut off, be frozen, come back.

Does what `instances/runner.py` does, in virtual time: sends a commit until it is answered, follows its streams, obeys `WakeAt`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxkv.instances import forks
from fluxkv.instances.reactor import Answered, Entries, Input, Messages, Note, Output, Reopened, WakeAt, Write
from fluxkv.instances.runner import FORKED
from fluxkv.instances.witness import ADOPT
from fluxkv.kvs.blobs import payload_hash
from fluxkv.kvs.epochs import anchor
from fluxkv.kvs.errors import Corrupt, Rejected, Unavailable
from fluxkv.kvs.port import Append, Appended, Conflicted, Gap, Message, Meta, StaleEpoch

from .truth import Broken

if TYPE_CHECKING:
    from .world import World

NEVER = float("inf")
TICK = 1e-6  # what a float of Unix seconds can still tell apart


class Process:
    """life: counts deaths; what was scheduled for an earlier one does not happen. skew: its clock's error, seconds. deaf_until:
    when its reader has found its way to the server again, later than the rest of it."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.life = 0
        self.up = False
        self.skew = world.draw_skew()
        self.frozen_until = self.cut_until = self.deaf_until = 0.0
        self.deaths = 0
        self.forgotten = False  # idle for so long that the store has dropped its sequence
        self.ended = False

    def clock(self) -> float:
        return self.world.now + self.skew

    def die(self, back_s: float | None = None) -> None:
        """kill -9. Whoever watches it starts it again after a while."""
        self.life += 1
        self.deaths += 1
        self.up = False
        self.frozen_until = 0.0
        if not self.ended:
            self.world.after(self.world.pause() if back_s is None else back_s, self.birth, owner=self)

    def end(self) -> None:
        """It dies, and nobody starts it again."""
        self.ended = True
        self.die()

    def birth(self) -> None:
        raise NotImplementedError


class ReactorProcess(Process):
    """One reactor, one subscription, at most one commit in flight."""

    reactor: Any
    subscription: Any

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.reactor = self.subscription = None
        self.store = world.new_store()
        self.names: dict[str, str] = {}
        self.mail: list[Input] = []
        self.request: Append | None = None
        self.polling = False
        self.step_at = NEVER
        self.due = 0.0  # by its own clock, when its reactor asked to be woken; 0.0: it did not. Kept until then, as a runner does
        self.seen, self.seen_seq = "", 0
        self.doubting = False  # it waits for somebody to adopt what is left

    def birth(self) -> None:
        """Begin anew. A server that is away is asked again."""
        try:
            self.begin()
        except Unavailable:
            self.world.after(0.2, self.birth, owner=self)
            return
        except Corrupt as error:
            self.world.noticed(self.name, error)
            self.world.after(self.world.pause(), self.birth, owner=self)
            return
        self.up = True
        self.news()
        self.wake()

    def begin(self) -> None:
        raise NotImplementedError

    def die(self, back_s: float | None = None) -> None:
        if self.subscription is not None:
            self.subscription.close()
        self.subscription, self.request = None, None
        self.mail, self.polling, self.step_at, self.due = [], False, NEVER, 0.0
        self.seen, self.seen_seq, self.doubting = "", 0, False
        super().die(back_s)

    # -- stepping -------------------------------------------------------------------------------------------------

    def wake(self, delay: float = 0.0) -> None:
        """Step after this delay at the latest."""
        due = self.world.now + delay
        if due < self.step_at:
            self.step_at = due
            self.world.after(delay, self._step, owner=self)

    def _step(self) -> None:
        world = self.world
        if self.step_at > world.now or not self.up:
            return
        self.step_at = NEVER
        if self.request is not None and not world.eager and not any(isinstance(one, Answered) for one in self.mail):
            return  # it waits for the store: what has come is seen afterwards
        inputs, self.mail = self.mail, []
        if self.due <= self.clock():
            self.due = 0.0
        try:
            outputs = self.reactor.step(self.clock(), inputs)
        except Exception as error:
            if world.excused(error):
                self.die()
                return
            raise Broken(f"{self.name} fell over {type(error).__name__}: {error}", world.job_in(str(error))) from error
        self._perform(outputs)
        if self.up and self.due:
            self.wake(max(0.0, self.due - self.clock()) + TICK)

    def _perform(self, outputs: list[Output]) -> None:
        life, world = self.life, self.world
        for output in outputs:
            if world.strikes("between"):
                self.die()
                return
            if isinstance(output, Write):
                if self.request is not None:
                    raise Broken(f"{self.name} has two commits in flight")
                self.request = output.request
                self._send(output.request)
            elif isinstance(output, WakeAt):
                self.due = min(self.due or output.time, output.time) or TICK
            elif isinstance(output, Note):
                if output.level == "error":
                    world.errors.append(output.text)
            else:
                self.perform(output)
                if self.life != life:
                    return

    def perform(self, output: Output) -> None:
        raise NotImplementedError

    # -- the store ------------------------------------------------------------------------------------------------

    def _send(self, request: Append) -> None:
        """Over the net: it may be lost, late, or there twice; and again when no answer comes."""
        world = self.world
        if self.request is not request:
            return
        if world.now >= self.cut_until and not world.strikes("lost"):
            world.after(world.latency(), self._arrive, request, self.life)
            if world.strikes("meddle"):  # somebody does something about what this is about, and is quicker
                world.clients.meddle(request)
        if world.strikes("twice"):
            world.after(world.rng.uniform(0.0, 60.0), self._arrive, request, self.life)
        world.after(world.rng.uniform(0.05, 2.0) if not world.calm else 2.0, self._send, request, owner=self)

    def _arrive(self, request: Append, life: int) -> None:
        """At the server, whether its sender still lives or not."""
        world = self.world
        try:
            answer = self.store.append(request)
        except Unavailable:
            return  # asked again later
        except Rejected as error:
            if self.life == life:
                self._gone(error)
            return
        except Corrupt as error:
            if self.life == life and self.request is request:
                if world.forks and error.code in FORKED:
                    self._doubt(error)
                    return
                if not self.deaths and not self.forgotten and not world.faults.on("twice"):
                    raise Broken(f"{self.name}'s commit was answered: {error}") from error
                self.die()  # an earlier life's commit came late, or one so old that its producer was forgotten: it starts anew
            return
        if not world.strikes("lost") and world.now >= self.cut_until:
            world.after(world.latency(), self._answer, request, answer, life)

    def _answer(self, request: Append, answer: Any, life: int) -> None:
        if self.life != life or self.request is not request:
            return
        if isinstance(answer, StaleEpoch):
            self._reopen(request, answer)
            return
        self.world.conflicts += isinstance(answer, Conflicted)
        if isinstance(answer, Appended):
            self.seen, self.seen_seq = anchor(answer.version, answer.epoch, payload_hash(request.payload)), request.seq
        elif isinstance(answer, Gap) and answer.last < self.seen_seq:  # forgotten by pruning, or lost
            self.seen_seq, self.forgotten = 0, True
            try:
                lost = self._say_known()
            except Unavailable:
                lost = False  # whoever asks next will hear it
            if lost:
                self._doubt(Corrupt("a sequence goes back", code="history-lost"))
                return
        self.request = None
        self.mail.insert(0, Answered(request, answer))
        self.wake()

    def _reopen(self, request: Append, answer: StaleEpoch) -> None:
        """Wait until somebody has taken up the history."""
        if self.request is not request:
            return
        try:
            meta = self.store.meta()
        except Unavailable:
            meta = None
        if meta is None or self.world.now < self.cut_until or not self._goes_on(meta, request.epoch):
            self.world.after(0.1, self._reopen, request, answer, owner=self)
            return
        self._poll()  # a runner looks at its streams before each turn
        if self.request is not request:
            return
        self.request = None
        self.mail.insert(0, Answered(request, answer))
        self.reopened(meta)

    def _gone(self, error: Rejected) -> None:
        """Its instance is sealed: it is given up. Or it was lost as a whole: its keeper may make it anew, and begins all again."""
        if error.code not in ("gone", "ended") or self.world is self.world.root:
            raise error
        if error.code == "gone" and self.world.root.on_fork == ADOPT:
            self.die()
        else:
            self.end()

    # -- another history ------------------------------------------------------------------------------------------

    def known(self) -> list[str]:
        return [self.seen] if self.seen else []

    def _say_known(self) -> bool:
        return any(forks.notice(self.store, one) is not None for one in self.known())

    def _goes_on(self, meta: Meta, old: int) -> bool:
        """Whether there is an epoch to go on in, which has all we know or was adopted without."""
        try:
            return meta.epoch != old and not meta.fork and not self._say_known()
        except Unavailable:
            return False

    def _doubt(self, error: Corrupt) -> None:
        self.world.noticed(self.name, error)
        self.request = None
        try:
            meta = self.store.meta()
            if not self._say_known() and meta.epoch == self.reactor.meta.epoch and not meta.fork:
                self.die()  # what it has folded, or read, is of a branch that was given up: it begins anew
                return
        except Unavailable:
            pass
        if not self.doubting:
            self.doubting = True
            self._await_epoch(self.reactor.meta.epoch)

    def _await_epoch(self, old: int) -> None:
        try:
            meta = self.store.meta()
        except Unavailable:
            meta = None
        if meta is None or self.world.now < self.cut_until or not self._goes_on(meta, old):
            self.world.after(0.1, self._await_epoch, old, owner=self)
            return
        self.doubting = False
        self.request = None  # a runner sends nothing while it doubts: what was sent here is not waited for
        self.reopened(meta)

    def reopened(self, meta: Meta) -> None:
        self.mail.append(Reopened(meta))
        self.wake()
        self.news()

    # -- streams --------------------------------------------------------------------------------------------------

    def news(self) -> None:
        """The server has something for somebody."""
        if self.up and not self.polling:
            self.polling = True
            self.world.after(self.world.latency("stale"), self._poll, owner=self)

    def _poll(self) -> None:
        world, until = self.world, max(self.cut_until, self.deaf_until)
        if world.now < until:
            world.after(until - world.now, self._poll, owner=self)
            return
        self.polling = False
        try:
            found = self.subscription.poll()
        except Unavailable:
            self.polling = True
            world.after(0.1, self._poll, owner=self)
            return
        except Corrupt as error:
            self._doubt(error)
            return
        except Rejected as error:
            self._gone(error)
            return
        if not found:
            return
        for key, items in found:
            if isinstance(items[0], Message):
                self._deliver([Messages(self.names[key], part) for part in self._parts(items)])
            else:
                self._deliver([Entries(part) for part in self._parts(items)])
        self.news()  # there may be more
        self.wake()

    def _parts(self, items: list[Any]) -> list[list[Any]]:
        if len(items) > 1 and not self.world.calm and self.world.rng.random() < 0.2:
            at = self.world.rng.randrange(1, len(items))
            return [items[:at], items[at:]]
        return [items]

    def _deliver(self, inputs: list[Any]) -> None:
        self.mail += inputs
        if self.world.strikes("again"):  # a reader that reconnected reads some of it once more
            self.world.after(self.world.latency(), self._redeliver, inputs, owner=self)

    def _redeliver(self, inputs: list[Any]) -> None:
        if self.up:
            self.mail += inputs
            self.wake()
