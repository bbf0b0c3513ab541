"""The keeper: brings an instance's daemons up, restarts whichever dies, ends them in order. Never schedules.

Each role is whoever holds its lock, so a new keeper takes over daemons it did not start. A role that ends three times within
30 s by its own doing is not started again; the reason is in `run/<role>.failed`, which `status` shows. One that is killed is.
"""

from __future__ import annotations

import os
import select
import selectors
import signal
import time
from contextlib import suppress

from ..journal.decide_config import LOAD
from ..journal.log import Journal
from ..kvs.errors import FluxkvError, Rejected, Unavailable
from ..kvs.keys import Keys
from ..kvs.redis_store import open_store
from ..kvs.server import stop_server, wait_ended
from ..kvs.uri import public
from . import boot, leaving, prefork, sealing, witness
from .archive_duty import ArchiveDuty
from .cron import CRON, LOOK_S, Cron
from .daemon import KEPT, RUNNING, Daemon, Log, spawn_role
from .duties import Duties
from .ending import end_jobs
from .handover_duty import HandoverDuty
from .paths import StateDir, lock_held, lock_holder, write_json
from .server_care import SERVER_AGAIN_S, ServerCare
from .spool import spool_id
from .supervised import WITHIN_S, Role, forgive, keep_owner, owner_file, remove, roles_of, write_word

SETTLE_S = 0.5
LONGEST_WAIT_S = 5.0
STOP_GRACE_S = 30.0
BESIDE_S = 60.0  # as long as whoever waits for us does


class Keeper(ServerCare):
    """Supervises one state directory."""

    def __init__(self, state_dir: StateDir, daemon: Daemon, log: Log, owner: int) -> None:
        super().__init__(state_dir, log, state_dir.read())
        self.daemon = daemon
        self.owner = owner
        self.owner_fd = -1
        self.restart_asked = False
        self.cron: Cron | None = None
        self.archiving: ArchiveDuty | None = None
        self.roles = roles_of(self.settings, state_dir)
        signal.signal(signal.SIGUSR1, self._restart_told)
        signal.signal(signal.SIGUSR2, self._revive_told)

    # -- up -------------------------------------------------------------------------------------------------------

    def bring_up(self) -> None:
        """Server, namespace, daemons. Raises what stands in the way."""
        remove(self.state_dir.join("run", "stopping"))
        remove(self.state_dir.join("run", "ready"))
        forgive(self.roles, self.state_dir)
        launcher = next((role for role in self.roles if role.name == "launcher"), None)
        if launcher is not None and not lock_held(launcher.lock):
            self._spawn(launcher)  # needs no store: starts beside the server
        self._server_up()
        known = "uid" in self.settings
        store, new = self._store()
        self.store = store
        self.log.store, self.log.keys = open_store(self.settings["uri"], patience_s=0.0), Keys(store.namespace)
        if self.settings.get("lead", True) and (known or not new) and (done := self._taken_up("server started")):
            self.log.say("info", done)  # (of one that has just been made nobody knows anything)
        for name in ("keeper", "server"):
            remove(self.state_dir.join("run", f"{name}.failed"))
        if self.settings.get("lead", True) and not self.joined:
            self._say_started(store)
        for role in self.roles:
            if role.pid:
                continue
            if lock_held(role.lock):
                self._adopt(role)
            else:
                self._spawn(role)
        prefork.dismiss()
        if self.owner:
            self._watch_owner()
        what = "joined" if self.joined else "started" if new else "resumed"
        self.log.say("info", f"{what} {public(self.settings['uri'])}")

    def _spawn(self, role: Role) -> None:
        if role.name == "launcher":
            role.pid = spawn_role(self.state_dir, "launcher")
            run = {"pid": role.pid, "role": "launcher", "started": time.time()}
            write_json(self.state_dir.run_file("launcher"), run)
        else:
            role.pid = spawn_role(self.state_dir, role.name.split("-")[0], "--role", role.name, *role.options)
        self._watch(role)

    def _adopt(self, role: Role) -> None:
        """Watch a daemon that somebody else started."""
        import json

        role.pid = lock_holder(role.lock)
        try:
            if not role.pid:
                with open(self.state_dir.run_file(role.name)) as file:
                    role.pid = int(json.load(file)["pid"])
            self._watch(role)
        except (OSError, ValueError, KeyError):
            role.pid = 0

    def _watch(self, role: Role) -> None:
        try:
            role.pidfd = os.pidfd_open(role.pid)
        except OSError:
            role.pidfd, role.pid = -1, 0
            return
        self.selector.register(role.pidfd, selectors.EVENT_READ, role)

    def _watch_owner(self) -> None:
        try:
            self.owner_fd = os.pidfd_open(max(self.owner, 0))
        except OSError:
            self.daemon.stopping = True
            return
        self.selector.register(self.owner_fd, selectors.EVENT_READ, "owner")

    # -- watching -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until told to stop, then end everything."""
        self.selector.register(self.daemon.wake_read, selectors.EVENT_READ, "wake")
        duties: Duties | None = None
        settled = time.monotonic() + SETTLE_S
        try:
            while not (self.daemon.stopping or self.over):
                if duties is None and time.monotonic() >= settled:
                    duties = self._begin_duties()  # the start of the daemons goes first
                for key, _ in self.selector.select(duties.wait_s(LONGEST_WAIT_S) if duties else SETTLE_S):
                    if key.data == "wake":
                        self.daemon.drain_wakeups()
                    elif key.data == "owner":
                        self.log.say("info", "the command that started this instance has ended")
                        self.daemon.stopping = True
                    elif key.data == "server":
                        self._server_died()
                    elif key.data != "duties" and key.fd == key.data.pidfd:
                        self._died(key.data)
                if duties is not None and not self.daemon.stopping:
                    duties.run_due()
                if self.restart_asked:
                    self.restart_asked = False
                    self._restart()
        finally:
            if duties is not None:
                duties.stop()
            if self.archiving is not None:
                self.archiving.stop()
        self.shut_down()

    def _begin_duties(self) -> Duties:
        duties = Duties()
        duties.add("look", LOOK_S, self._look)
        if self.store is not None:
            self.handing = HandoverDuty(self.store, self.state_dir, self.log.say)
            duties.add("handover", self.handing.look_s, self.handing.look)
        if self.store is not None and self.settings.get("lead", True):
            self.cron = Cron(self.store, duties, self.log.say)
            if not self.joined:
                self.archiving = ArchiveDuty(self.store, self.state_dir, self.log.say)
            duties.add("agenda", LOOK_S, self._agenda)
            look = sealing.duty(self.store, self.settings, lambda: self.daemon.stopping, self.log.say, sealing.Left())
            duties.add("children", LOOK_S, look)
            if self.settings.get("parent"):
                from .parent_limit import duty

                duties.add("parent", LOOK_S, duty(self.store, self.settings, self.state_dir))
        self.selector.register(duties, selectors.EVENT_READ, "duties")
        self._agenda()  # what fell due while nobody was there
        return duties

    def _agenda(self) -> None:
        """What the journal has cron and the archiver do, if it does; where it cannot be asked, others say so."""
        if self.cron is None or self.lost or self.store is None:
            return
        with suppress(FluxkvError):
            cron, config = self.store.bumps([CRON, LOAD])
            self.cron.look(cron)
            if self.archiving is not None:
                self.archiving.look(config)

    def _restart_told(self, signum: int, frame: object) -> None:
        self.restart_asked = True

    def _revive_told(self, signum: int, frame: object) -> None:
        """Somebody ran `start` again."""
        forgive(self.roles, self.state_dir)
        self.lost = False
        self.server_started = 0.0

    def _unwatch(self, role: Role) -> None:
        if role.pidfd >= 0:
            self.selector.unregister(role.pidfd)
            os.close(role.pidfd)
            role.pidfd = -1
        if role.pid:
            role.ended(self.state_dir.run_file(role.name))

    def _died(self, role: Role) -> None:
        self._unwatch(role)
        if role.count(time.monotonic(), blameless=self.lost):
            role.failed = f"{role.name} died {len(role.deaths)} times within {WITHIN_S:.0f} s: {self._last_words(role)}"
            write_word(self.state_dir.join("run", f"{role.name}.failed"), role.failed)
            self.log.say("error", role.failed)
            if role.name == "agent":
                self._nodes_offline(role.failed)
            return
        pause = f" in a moment, since that was {len(role.kills)} times within {WITHIN_S:.0f} s" if role.again_at else ""
        self.log.say("warning", f"{role.name} died ({self._last_words(role)}); starting it again{pause}")
        if not role.again_at:
            self._spawn(role)

    def _nodes_offline(self, why: str) -> None:
        """Nobody serves this host's nodes: say so, so that pending jobs can name the reason."""
        if self.store is None:
            return
        from ..journal.idset import format_ids

        try:
            ours, ranks = spool_id(self.state_dir.spool) if self.joined else "", self.settings.get("ranks")
            nodes = Journal(self.store).look().nodes.values()
            ranks = [node.rank for node in nodes if node.joined == ours and (ranks is None or node.rank in ranks)]
            boot.say(self.store, [["offline", "resource", time.time(), {"idset": format_ids(ranks), "reason": why}]])
        except FluxkvError as error:
            self.log.say("error", f"the nodes could not be marked offline: {error}")

    def _last_words(self, role: Role) -> str:
        if role.how:
            return role.how
        try:
            with open(self.state_dir.log_file(role.name), errors="replace") as file:
                lines = [line.strip() for line in file.readlines()[-5:] if line.strip()]
            return lines[-1][-200:] if lines else "it said nothing"
        except OSError:
            return "it said nothing"

    def _look(self) -> None:
        """The history, and whatever was missed: a server that did not come back, roles whose death left no trace (found by their
        locks)."""
        if (meta := self._seen()) is not None:
            self._witness(meta)
        if self.embedded and self.server_fd < 0:
            if time.monotonic() - self.server_started >= SERVER_AGAIN_S:
                self._server_back()
        else:
            self._take_up(meta)
        self._missing()

    def _missing(self) -> None:
        """Roles that nobody has, and whose turn has come: found by their locks."""
        for role in self.roles:
            if role.pid or role.failed or role.again_at > time.monotonic():
                continue
            if lock_held(role.lock):
                self._adopt(role)
            else:
                self._spawn(role)

    def _restart(self) -> None:
        """Replace worker and agent; launcher, server and tasks go on."""
        self.log.say("info", "restarting the daemons")
        forgive(self.roles, self.state_dir)
        for role in self.roles:
            if role.name != "launcher":
                self._end(role, signal.SIGTERM)
                self._spawn(role)

    def _end(self, role: Role, signum: int, timeout_s: float = 10.0) -> None:
        if not _tell_to_end(role, signum):
            return
        if not _ended_within(role.pidfd, timeout_s):
            _tell_to_end(role, signal.SIGKILL)
            _ended_within(role.pidfd, 5.0)
        self._unwatch(role)

    # -- down -----------------------------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """End running jobs with an exception that says so, then the daemons, then the server."""
        write_word(self.state_dir.join("run", "stopping"), "")
        remove(self.state_dir.join("run", "ready"))
        if self.joined:
            if self.settings.get("ranks"):
                leaving.end_here(self.settings, self.log, self._end_roles)
        elif self.settings.get("lead", True) and not self.over:
            try:
                KEPT.append(known := end_jobs(self.settings["uri"], self.log, self._notice))
                self._say_totals(known)
            except FluxkvError as error:
                self.log.say("error", f"jobs could not be ended in order: {error}")
        self._end_roles("agent", "worker", "launcher")
        if self.store is not None and self.settings.get("lead", True) and not self.joined:
            try:
                if not self.child:  # a child's own children are sealed with it by its parent's keeper, which nobody waits for
                    sealing.seal_over(self.store, self.settings)
                boot.say(self.store, [["instance-stop", "instance", time.time(), {"reason": "stop"}]])
                if not self.child:
                    witness.write_tip(self.state_dir, self.store, self.store.meta())
                elif self.store.meta().uid == self.settings["uid"]:
                    self.store.delete(Keys(self.store.namespace).telemetry)  # nobody hears it any more; the journal stays
                    self.store.seal(self.settings["uid"])
            except (FluxkvError, OSError):
                pass
        self._hand_up()
        self.log.say("info", "stopped")
        if self.log.store is not None:
            self.log.store.close()
            self.log.store = None
        if self.server is not None and self.server_fd >= 0:
            self.selector.unregister(self.server_fd)
            stop_server(self.server.url, self.server.pid)
            wait_ended(self.server.pid, 10.0)
        for path in (*map(self.state_dir.run_file, ("server", "launcher")), owner_file(self.state_dir)):
            remove(path)

    def _end_roles(self, *names: str) -> None:  # together; but the launcher is the agent's to the last
        roles = sorted((role for role in self.roles if role.name.startswith(names)), key=lambda role: role.name == "launcher")
        for role in (role for role in roles if role.name != "launcher"):
            _tell_to_end(role, signal.SIGTERM)
        for role in roles:
            self._end(role, signal.SIGTERM, STOP_GRACE_S if role.name == "launcher" else 10.0)

    def _notice(self) -> None:
        """While stopping: whoever dies is still needed until the last job is over."""
        for key, _ in self.selector.select(0):
            if key.data == "server":
                self._server_died()
            elif isinstance(key.data, Role) and key.fd == key.data.pidfd:
                self._died(key.data)
        if self.embedded and self.server_fd < 0 and time.monotonic() - self.server_started >= SERVER_AGAIN_S:
            self._server_back()
        self._missing()


def _tell_to_end(role: Role, signum: int) -> bool:
    """Whether there is such a process, or was until somebody asks for its end."""
    if not role.pid or role.pidfd < 0:
        return False
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(role.pidfd, signum)
    return True


def _ended_within(pidfd: int, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))


def _take_place(state_dir: StateDir, ready_fd: int) -> Daemon | None:
    """The keeper's place; None when somebody else who was started in the same moment has brought all up."""
    deadline = time.monotonic() + BESIDE_S
    while True:
        try:
            return Daemon(state_dir, "keeper", patience_s=0.0 if ready_fd < 0 else 0.05)
        except Unavailable as error:
            if ready_fd < 0 or error.code != RUNNING or time.monotonic() > deadline:
                raise
        try:
            with open(state_dir.join("run", "ready")) as file:
                if lock_holder(state_dir.lock_file("keeper")) in (0, int(file.read())):
                    return None
        except (OSError, ValueError):
            pass


def main(state_dir: StateDir, log: Log, owner: int, ready_fd: int) -> None:
    """Body of the keeper's process. Writes one line to `ready_fd`: "ready", "error: ..." or "refused: ..."."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if ready_fd >= 0:
        os.set_inheritable(ready_fd, False)  # our daemons must not keep it open: our end has to be noticed
    daemon = _take_place(state_dir, ready_fd)
    if daemon is None:
        _tell(ready_fd, "ready\n")
        return
    if ready_fd < 0 and os.path.exists(state_dir.join("run", "stopping")):
        daemon.done()  # called to life by a daemon, while another keeper has ended the instance in order
        return
    keeper = Keeper(state_dir, daemon, log, keep_owner(state_dir, owner, ready_fd < 0))
    try:
        keeper.bring_up()
    except Exception as error:
        hint = getattr(error, "hint", "")
        known = isinstance(error, FluxkvError | OSError)
        what = f"{error}" if known else f"this is a fault in fluxkv: {type(error).__name__}: {error}"
        write_word(state_dir.join("run", "keeper.failed"), f"{what} ({hint})" if hint else what)
        _tell(ready_fd, f"{'refused' if isinstance(error, Rejected) else 'error'}: {what}\n{hint}")
        keeper.daemon.stopping = True
        for role in keeper.roles:
            keeper._end(role, signal.SIGTERM, 2.0)
        if keeper.server is not None and keeper.server.started:
            stop_server(keeper.server.url, keeper.server.pid)
        daemon.done()
        raise
    write_word(state_dir.join("run", "ready"), str(os.getpid()))
    _tell(ready_fd, "ready\n")
    try:
        keeper.run()
    finally:
        daemon.done()


def _tell(fd: int, text: str) -> None:
    if fd >= 0:
        try:
            os.write(fd, text.encode())
        except OSError:
            pass  # whoever asked is gone
        os.close(fd)
