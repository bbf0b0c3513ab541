"""An agent process: inboxes in, launcher and reports out. Hosts all of an instance's nodes on this machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from ..journal.log import Journal
from ..journal.node_config import beat_period
from ..journal.schema import check_schema
from ..kvs.appending import refusal
from ..kvs.epochs import settle
from ..kvs.errors import Rejected, Unavailable
from ..kvs.failpoints import ARMED, reach
from ..kvs.keys import Keys
from ..kvs.port import Store
from ..kvs.redis_store import open_store
from . import forks
from .adoption import adopt
from .agent import Agent
from .attempts import Host
from .beats import Beat, held_sums, pack_beat
from .daemon import Daemon, Log
from .discover import binding
from .fake_launcher import FakeLauncher
from .fence import Contact
from .forward import LOOK_S, Forwarder
from .inbox import read_on
from .job_input import JobInput
from .launch_client import LaunchClient, end_all
from .memory_line import is_past
from .pace import pace_of
from .paths import StateDir
from .reactor import Follow, Input, Launched, LauncherLost, Messages, Output, Reopened, ToLauncher, Trim
from .runner import Runner
from .script_orders import letter_of
from .script_output import tell
from .spool import boot_id, boot_time, spool_id
from .staging import BlobFolder
from .terminals import Wake
from .wire import unpack as unpack_environment

NOT_OURS = "not-ours"  # the nodes are not this host's any more
INVENTORY = ("resource", "config/load")  # what an agent follows by asking, beat by beat
PATIENCE_S = 1.0
REST_S = 10.0  # how often what has nothing to do is looked at
TELEMETRY_LIMIT = 2000
ENVIRONMENTS = 256


class AgentRunner(Runner):
    """Routes attempts to the real or the fake launcher, sees to output and input, keeps the cursors on disk."""

    reactor: Agent

    def __init__(self, daemon: Daemon, settings: dict[str, Any], log: Log) -> None:
        uri = settings["uri"]
        store = open_store(uri, patience_s=PATIENCE_S)
        self.keys = Keys(store.namespace)
        log.store, log.keys = open_store(uri, patience_s=0.0), self.keys
        begun, meta = boot_time(), store.meta()
        check_schema(meta)
        spool = self.spool = daemon.state_dir.spool
        self.fake_nodes = bool(settings.get("fake"))
        self.settings = settings
        self.inventory = store.bumps(INVENTORY)
        self.spool_id = spool_id(spool)
        names, cpus = self._nodes(store, begins=True)
        self.contact = Contact()
        self.contact.answered(begun, self.offline_after_s, meta.version)  # else what begins before a beat never ends by itself
        host = Host(names, boot_id(), self.spool_id, uri, settings.get("tmp") or spool + "/tmp", cpus, daemon.state_dir.path,
                    meta.origin_ms, bool(settings.get("join")), pace_of(settings).report_s)  # fmt: skip
        self.cursor_file = os.path.join(spool, "cursors.json")
        self.cursor_fd = os.open(self.cursor_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.cursor_length = os.fstat(self.cursor_fd).st_size
        cursors = self._cursors(host, f"{meta.version}-{meta.epoch}")
        for cursor in set(cursors.values()):
            forks.notice(store, cursor)
        if (meta := store.meta()).fork:
            raise refusal("LOST", meta.fork, store.namespace)  # until it is adopted
        cursors = {rank: settle(meta.epochs, meta.version, cursor) for rank, cursor in cursors.items()}
        super().__init__(daemon, store, log, Agent(meta, host, cursors))
        self._save_cursors()  # the next agent begins here, whatever came before the first report
        self.unsaved: list[str] = []  # ended attempts whose acknowledgement waits for the cursors
        self.environments: dict[str, dict[str, str]] = {}
        self.forwarder = Forwarder(store, self.keys, spool, host.names[host.ranks[0]])
        self.blobs = BlobFolder(spool, lambda names: self.insist(lambda: self.store.get_blobs(names)))
        self.client = LaunchClient(spool)
        self.fake = FakeLauncher()
        self.fake_keys: set[str] = set()
        self.input = JobInput(self.keys, self.forwarder, lambda: self.reactor.placed, self.client.send, self._passed)
        self.wake = Wake(spool)
        self.sources += [self.client.fileno, self.wake.fileno]
        names_of = {self.keys.inbox(f"node/{rank}"): f"node/{rank}" for rank in host.ranks}
        positions = {key: cursors[int(name[5:])] for key, name in names_of.items()}
        self.ready: list[Input] = [*read_on(store, names_of, positions)]
        self.follow(open_store(uri).subscribe(positions), names_of)
        if self.fake_nodes:
            self.ready.append(Launched([["held", []]]))
        else:
            self.connecting = self.add_timer(REST_S, self._connect)
        self.looking = self.add_timer(REST_S, self._look)
        self.add_timer(1.0, self.watch_keeper)
        self.add_timer(beat_period(self.offline_after_s), self._beat)

    def _nodes(self, store: Store, begins: bool = False) -> tuple[dict[int, str], dict[int, list[int]]]:
        """The nodes that are ours (rank -> host), and which CPUs their cores are where tasks are bound to them."""
        ranks, joined = self.settings.get("ranks"), self.spool_id if self.settings.get("join") else ""
        state = Journal(store, by="agent").look()
        nodes, self.offline_after_s = state.nodes, state.rules.offline_after_s
        names = {rank: node.host for rank, node in nodes.items() if node.joined == joined and (ranks is None or rank in ranks)}
        self.unheard = not all(nodes[rank].online for rank in names)
        if not names and (joined or begins):
            raise Rejected(
                f"rank {ranks} is not this host's any more: it was taken out of the inventory, or joined from elsewhere",
                code=NOT_OURS, hint="run fluxkv agent --join again",
            )  # fmt: skip
        bind = not self.fake_nodes and len(names) == 1 and self.settings.get("bind", True)
        return names, binding(nodes[min(names)].cores, inside="parent" in self.settings) if bind else {}

    def _adopt(self, inventory: list[int], tip: str) -> None:
        """Somebody has reloaded the inventory, or the config."""
        names, self.reactor.host.cpus = self._nodes(self.store)
        if not names:
            return  # its node goes: whoever has started us ends us
        for rank in adopt(self.reactor, names, tip):
            key = self.keys.inbox(f"node/{rank}")
            self.names[key] = f"node/{rank}"
            if self.subscription is not None:
                self.subscription.follow(key, tip)
        for key in [key for key, name in self.names.items() if int(name.partition("/")[2]) not in names]:
            del self.names[key]
            if self.subscription is not None:
                self.subscription.forget(key)
        self._save_cursors()  # before the hello: who comes after us must not take orders to a new node for old ones
        self.inventory, self.wake_at = inventory, time.time()
        self.reactor.hello_due = self.reactor.hello_due or self.unheard  # out of the inventory and back, say

    # -- cursors --------------------------------------------------------------------------------------------------

    def _cursors(self, host: Host, tip: str) -> dict[int, str]:
        """Where to read each inbox from. Without a file the spool is new, and after a reboot nothing runs that was ordered
        before, though some of it may have: what was sent before is not ours to start."""
        try:
            with open(self.cursor_file) as file:
                found = json.load(file)
            boot = found.pop("boot", host.boot)
            kept = {int(rank): str(id) for rank, id in found.items()} if boot == host.boot else {}
        except (OSError, ValueError, AttributeError):
            kept = {}
        return {rank: kept.get(rank, tip) for rank in host.ranks}

    def _save_cursors(self) -> bool:
        """One small write in place, padded to the length of the last: a process that dies leaves the old or the new.

        False when the disk is full.
        """
        text = json.dumps({"boot": self.reactor.host.boot, **self.reactor.cursors}).encode()
        padded = text.ljust(self.cursor_length)
        self.cursor_length = len(text)
        try:
            return os.pwrite(self.cursor_fd, padded, 0) == len(padded)
        except OSError as error:
            self.log.say("warning", f"{self.cursor_file}: {error.strerror}; what has ended is kept in the spool")
            return False

    # -- sources --------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """(Re)connect to the launcher; its list of what it holds comes first."""
        if self.client.connected:
            return
        if self.client.try_connect():
            self.client.send(*self.contact.again())
            self.ready.append(LauncherLost(False))
            self.wake_at = time.time()

    def wait(self, busy: bool) -> list[Input]:
        """Soon, where tasks have not read their input, or the launcher is away. A host at rest is let sleep."""
        soon = time.monotonic() + LOOK_S
        if self.input.waits():
            self.looking[1] = min(self.looking[1], soon)
        if not self.fake_nodes and not self.client.connected:
            self.connecting[1] = min(self.connecting[1], soon)
        return super().wait(busy)

    def _sleep(self, timeout_s: float) -> None:
        if self.forwarder.sleep(partial(self._hears, self._poller()), timeout_s):
            self.looking[1] = 0.0

    def gather(self) -> list[Input]:
        inputs, self.ready = self.ready, []
        if (due := self.wake.told(time.monotonic())) == 0.0:
            self._forward(self.forwarder.hurry)
        self.looking[1] = min(self.looking[1], due or self.looking[1])
        if self.client.connected:
            self.client.flush()
            events = self.client.poll()
            if events and events[-1][0] == "gone" and events.pop():
                inputs.append(LauncherLost(True))
                self.log.say("warning", "the launcher is gone; its tasks go on or are reported when it is back")
            if events:
                self._before_reports(events)
                inputs.append(Launched(events))
        if self.fake_keys:
            events = self.fake.advance(time.time())
            if events:
                inputs.append(Launched(events))
            due = self.fake.due()
            if due is not None:
                self.wake_at = min(self.wake_at or due, due) or 0.001
        return inputs

    def _before_reports(self, events: list[list[Any]]) -> None:
        """What a task wrote is in the store before its end is."""
        forwarder = self.forwarder
        for event in events:
            if event[0] in ("over", "start") and letter_of(event[1]):
                if event[0] == "over":
                    tell(self.reactor.host, self.spool, event, self.log.say)
            elif event[0] == "over":
                self.insist(partial(forwarder.finish, event[1], quiet=len(event) > 12 and bool(event[12])))
                for stream in self.input.leave(event[1], self.subscription, failed=event[2] != 0):
                    self.insist(partial(self.store.delete, stream))
            elif event[0] == "unstarted":
                for key in event[1]:
                    self._never_ran(key)
            elif event[0] == "held":
                held = {row[0] for row in event[1]}
                for key in [key for key in forwarder.fresh if key not in held]:  # a dead launcher had them in its memory
                    self._never_ran(key)
                for key, job, state, _, _, over, *_ in event[1]:
                    if state == "past":
                        continue  # its output was handed on then
                    if letter_of(key):
                        if over is not None:
                            tell(self.reactor.host, self.spool, over, self.log.say)
                        continue
                    if state != "queued":
                        self.insist(partial(forwarder.adopt, job, key))
                    if over is not None:
                        self.insist(partial(forwarder.finish, key))
                self.input.follow(self.subscription)
            elif event[0] == "start":
                self.insist(partial(forwarder.started, event[1]))

    def _never_ran(self, key: str) -> None:
        """It was taken back. Whoever is attached writes on: its input waits for the job's next attempt."""
        self.forwarder.unstarted(key)
        self.input.leave(key, self.subscription)

    def poll(self) -> list[Input]:
        inputs = super().poll()
        kept: list[Input] = []
        for one in inputs:
            if isinstance(one, Messages) and not one.name.startswith("node/"):
                self.input.take(one.name, one.messages)
            else:
                kept.append(one)
        return kept

    # -- performing -----------------------------------------------------------------------------------------------

    def known(self) -> list[str]:
        return [*super().known(), *set(self.reactor.cursors.values())]

    def perform(self, output: Output) -> list[Input]:
        if isinstance(output, ToLauncher):
            return self._to_launcher(output.message)
        if isinstance(output, Trim):
            self._passed(self.keys.inbox(output.key), output.through)
            return []
        if isinstance(output, Follow):
            if self.subscription is not None:
                self.subscription.follow(self.keys.inbox(output.name), output.position)
            self._save_cursors()
            return []
        return super().perform(output)

    def _to_launcher(self, message: list[Any]) -> list[Input]:
        what = message[0]
        if what == "launch":
            return self._launch(message[1])
        if what == "ack":
            if ARMED:
                reach("ack.before")
            if not self._save_cursors():
                self.unsaved += message[1]  # an agent after us would read those orders again: the launcher must know them
                return []
            message = ["ack", self.unsaved + message[1]]
            self.unsaved = []
            fake = [key for key in message[1] if key in self.fake_keys]
            if fake:
                self.fake.handle(["ack", fake], time.time())
                self.fake_keys.difference_update(fake)
            real = message[1] if not fake else sorted(set(message[1]).difference(fake))
            if real:
                self.client.send(["ack", real])
            if ARMED:
                self.client.flush()
                reach("ack.after")
            return []
        if what == "list" and self.fake_nodes:  # all that the launcher has; on nodes that only pretend it is in this process
            self.fake.handle(message, time.time())
            return [Launched(self.fake.advance(time.time()))]
        if what == "list":
            self.client.send(message)
            return []
        keys = message[1] if what == "recall" else [message[1]]
        fake = [key for key in keys if key in self.fake_keys]
        if fake:
            self.fake.handle([what, fake] if what == "recall" else message, time.time())
            return []
        self.client.send(message)
        return []

    def _launch(self, attempts: list[dict[str, Any]]) -> list[Input]:
        real, fake = [], []
        for attempt in attempts:
            if self.fake_nodes or "fake_s" in attempt:
                attempt.setdefault("fake_s", 0.0)
                fake.append(attempt)
                self.fake_keys.add(attempt["key"])
            else:
                real.append(attempt)
                if "files" in attempt and "refuse" not in attempt:
                    problem = self.blobs.provide(attempt["files"], time.time())
                    if problem:
                        attempt["refuse"] = f"files of the job: {problem}"
                if "script" not in attempt:
                    self.forwarder.add(attempt)
                if attempt["env"]:
                    self._send_environment(attempt)
        self.input.follow(self.subscription)
        if real:
            if ARMED:
                reach("launch.before")
            self.client.launch(real)
            if ARMED:
                self.client.flush()
                reach("launch.after")
        if fake:
            now = time.time()
            self.fake.handle(["launch", fake], now)
            return [Launched(self.fake.advance(now))]
        return []

    def _send_environment(self, attempt: dict[str, Any]) -> None:
        """What its tasks need of variables goes before them. A job whose environment nobody has any more does not run without."""
        name = attempt["env"]
        found = self.environments.get(name)
        if found is None:
            data = self.insist(lambda: self.store.get_blobs([name])[0])
            if data is None:
                attempt.setdefault("refuse", f"environment of the job: {name} is not in the store")
                return
            found = unpack_environment(data)
            if len(self.environments) >= ENVIRONMENTS:
                self.environments.pop(next(iter(self.environments)))
            self.environments[name] = found
        self.client.environment(name, found)

    # -- timers ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if self.forwarder.young or self.forwarder.watched:
            self.input.go_on()
            self._forward(self.forwarder.collect)

    def _forward(self, forward: Callable[[], None]) -> None:
        try:
            forward()
        except Unavailable as error:
            self.log.say("warning", f"output waits: {error}")

    def _passed(self, stream: str, through: str) -> None:
        with suppress(Unavailable):  # the next one takes these with it
            self.store.trim(stream, through)

    def _beat(self) -> None:
        """Say that this host lives; notice a new epoch, or another inventory, even when there is nothing to report."""
        self.every[-1][0] = beat_period(self.offline_after_s)
        ranks, placed, begun = self.reactor.host.ranks, self.reactor.placed, boot_time()
        held = () if self.fake_nodes or self.reactor.held is None else held_sums(placed.values(), ranks)
        beat = Beat(tuple(ranks), time.time(), len(placed), os.getloadavg()[0], self.offline_after_s, held)
        self.client.send(*self.contact.shortened(self.offline_after_s))
        try:
            self.store.push(self.keys.telemetry, [pack_beat(beat)], limit=TELEMETRY_LIMIT)
            meta = self.store.meta()
            self.client.send(self.contact.answered(begun, self.offline_after_s, meta.version))
            check_schema(meta)
            self.forwarder.full = is_past(self.store, meta)
            inventory = self.store.bumps(INVENTORY)
            if inventory != self.inventory:
                self._adopt(inventory, f"{meta.version}-{meta.epoch}")
        except Unavailable:
            return
        if meta.epoch != self.reactor.meta.epoch and not meta.fork and not self._say_known():
            self.meta = meta
            self.ready.append(Reopened(meta))
            self.wake_at = time.time()


def main(state_dir: StateDir, role: str, log: Log) -> None:
    """Body of the process. Raises `Stopping` at its ordered end."""
    daemon = Daemon(state_dir, role)
    os.makedirs(os.path.join(state_dir.spool, "tmp"), mode=0o700, exist_ok=True)
    try:
        daemon.reached(lambda: AgentRunner(daemon, state_dir.read(), log)).run()
    except Rejected as error:
        if error.code == NOT_OURS:
            end_all(state_dir.spool)
        raise
    finally:
        daemon.done()
