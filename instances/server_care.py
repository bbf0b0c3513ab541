"""The keeper's care for the server: started again on its files, its history checked and taken up, its tip witnessed.

Decides when a restarted server may be written to: only when nothing that was acknowledged is missing.
"""

from __future__ import annotations

import os
import selectors
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from ..journal.schema import SCHEMA
from ..kvs.appending import refusal
from ..kvs.errors import Corrupt, FluxkvError, Unavailable
from ..kvs.port import Meta, Store
from ..kvs.redis_store import open_store
from ..kvs.server import ServerHandle
from ..kvs.uri import public
from . import access, boot, forks, outside, parent_row, witness
from .daemon import Log
from .handover_duty import HandoverDuty
from .paths import StateDir, lock_held
from .supervised import remove, write_word
from .whereabouts import has_own

if TYPE_CHECKING:
    from ..journal.state import State
    from .reactor import Stops

SERVER_AGAIN_S = 2.0  # a server that died again so soon is not started at once
UNDECIDED_S, UNDECIDED_LOOK_S = 35.0, 0.5  # nodes are waited for after an adoption, a little longer


class ServerCare:
    """The half of a keeper that knows the server. lost: it came back without acknowledged history; nothing is taken up.

    over: this is a child, and its job has ended: somebody has sealed it, and nothing is left to be done but to end. given_up:
    nothing is left of its journal, and its job has been told to end.
    child: the server is not this keeper's business: a parent instance's, that of the child's first node, or (joined) that of the
    instance this host has joined.
    """

    def __init__(self, state_dir: StateDir, log: Log, settings: dict[str, Any]) -> None:
        self.state_dir = state_dir
        self.log = log
        self.settings = settings
        self.selector = selectors.DefaultSelector()
        self.joined = bool(settings.get("join"))
        self.child = not has_own(settings) or self.joined
        self.embedded = not self.child and not settings.get("outside")  # whether the server is ours to start
        self.store: Store | None = None
        self.server: ServerHandle | None = None
        self.server_fd = -1
        self.server_started = 0.0  # when it was last started again
        self.server_failed = ""
        self.lost = self.over = self.given_up = False
        self.handing: HandoverDuty | None = None

    def _server_up(self) -> None:
        """The server at the beginning: ours is started, somebody else's looked at. Raises what is wrong with it."""
        if self.embedded:
            self.server = boot.start_or_attach_server(self.state_dir, self.settings)
            self._watch_server()
            if self.server.repaired:
                self.log.say("warning", self.server.repaired)
        elif not self.child:
            for problem in outside.check(self.settings, alive=lock_held(self.state_dir.lock_file("agent"))):
                self.log.say("warning", f"the server: {problem}")

    def _let_in(self) -> None:
        """See to it that the server knows a child's user. Raises `Rejected` (code ended) if its time is over."""
        with closing(open_store(self.settings["uri"], patience_s=0.0)) as store:
            try:
                store.meta()
            except Unavailable as error:
                if error.code == "no-instance":
                    return
                if not access.is_refused(error, self.settings):
                    raise
                if not self._renewed():
                    raise refusal("ENDED", "", store.namespace) from None

    def _renewed(self) -> bool:
        """As `access.renew`; an attempt that the parent's history lost is waited for as long as its adoption may take."""
        deadline = time.monotonic() + UNDECIDED_S
        while True:
            try:
                return access.renew(self.settings)
            except Unavailable as error:
                if error.code != "undecided" or time.monotonic() > deadline:
                    raise
            time.sleep(UNDECIDED_LOOK_S)

    def _store(self) -> tuple[Store, bool]:
        """The instance's store, and whether it is new."""
        if self.joined:
            return boot.joined_store(self.settings), False
        if self.server is not None and self.settings.get("resume") and not self.settings.get("uid"):
            from .handing_down import hand_down
            from .own_server import door_of

            journals = hand_down(self.server.url, self.settings, door_of(self.settings, self.state_dir), self.state_dir)
            self.log.say("info", f"{journals} journals handed down from {public(str(self.settings['parent']))}")
        try:
            store, new = boot.ensure_instance(self.settings, self.state_dir)
        except Corrupt as error:
            if error.code == "history-lost":
                self._fail_job()
            raise
        except Unavailable as error:
            if not access.is_refused(error, self.settings):
                raise
            self._let_in()
            store, new = boot.ensure_instance(self.settings, self.state_dir)
        remove(self.state_dir.join("run", parent_row.LOST))
        if self.settings.get("uid") != (uid := store.meta().uid):
            self.settings["uid"] = uid
            self.state_dir.write(self.settings)
        return store, new

    def _say_totals(self, known: State | Stops) -> None:
        """What a child had come to, which its parent's listings sum up."""
        if self.store is not None and self.settings.get("parent") and self.settings.get("entry"):
            from . import final_totals

            final_totals.say(self.store, self.settings, known)

    def _hand_up(self) -> None:
        """Before the server ends: what our children left here is handed up, then, if it is a child's own server, all that it holds.
        What can not be now, the parent's keeper on this host finishes, from the files."""
        if self.handing is not None:
            self.handing.finish()
        if self.server is None or not self.settings.get("parent"):
            return
        from . import handover

        try:
            names = set[str]()
            journals = handover.hand_up(self.server.url, self.settings, names)
            handover.mark(self.state_dir, str(self.settings["parent"]), names)
            self.log.say("info", f"{journals} journals handed up to {public(str(self.settings['parent']))}")
        except (FluxkvError, OSError) as error:
            self.log.say("warning", f"{error}; it stays in {self.state_dir.path} until it can be")

    def _watch_server(self) -> None:
        assert self.server is not None
        self.server_fd = os.pidfd_open(self.server.pid)
        self.selector.register(self.server_fd, selectors.EVENT_READ, "server")

    def _server_died(self) -> None:
        self.selector.unregister(self.server_fd)
        os.close(self.server_fd)
        self.server_fd = -1
        if self.server is not None:
            self.server.alive()  # reaps it
        if time.monotonic() - self.server_started < SERVER_AGAIN_S:
            return  # `_check` tries again
        self.log.say("error", "the server died; starting it again on its files")
        self._server_back()

    def _server_back(self) -> None:
        """Start the server on its files, and take its history up."""
        self.server_started = time.monotonic()
        try:
            self.server = boot.start_or_attach_server(self.state_dir, self.settings)
            self._watch_server()
        except (FluxkvError, OSError) as error:
            self._server_fails(f"the server does not come back: {error}")
            return
        if self.server.repaired:
            self.log.say("warning", self.server.repaired)
        self._take_up()

    def _seen(self) -> Meta | None:
        """The meta table for all that look at it in one round; None where it cannot be read."""
        try:
            return self.store.meta() if self.store is not None else None
        except FluxkvError:
            return None

    def _is_over(self, meta: Meta | None = None) -> bool:
        """Whether this is a child whose job is over by its parent's word: what its own agents still run here is to end."""
        if self.settings.get("parent") and self.store is not None and not self.over:
            with suppress(FluxkvError):
                self.over = bool(meta.sealed) if meta is not None else self._is_sealed(self.store)
            if self.over:
                self.log.say("warning", "the job that this instance is has ended: so does this")
        return self.over

    def _is_sealed(self, store: Store) -> bool:
        """Where the server does not know the child's user any more, it is made again, unless its time is over."""
        try:
            return bool(store.meta().sealed)
        except Unavailable as error:
            if not access.is_refused(error, self.settings):
                raise
            return not access.renew(self.settings)

    def _take_up(self, meta: Meta | None = None) -> None:
        """Open a new epoch if the server has been restarted since the last one was, and its history is whole. meta: as it has just
        been read.

        If it is not: adopt what is left where the instance is set so, else say it, and wait for an operator who does.
        """
        if self._is_over(meta) or self.store is None or not self.settings.get("lead", True):
            return
        try:
            if self.lost and self.settings.get("on_fork") != witness.ADOPT and forks.is_fenced(self.store):
                return  # until somebody adopts
            done = "" if witness.is_current(self.store, meta) else self._taken_up("server restarted")
            if self.lost:
                self.lost = False
                remove(self.state_dir.join("run", parent_row.LOST))
                witness.write_tip(self.state_dir, self.store, self.store.meta())
                done = done or "what was missed of the history is there, or given up"
            if done:
                self.log.say("warning", f"the server is back, {done}")
            if self.server_failed:
                self.server_failed = ""
                remove(self.state_dir.join("run", "server.failed"))
        except Corrupt as error:
            self._lost_history(error)
        except FluxkvError as error:
            if error.code in ("no-instance", "gone") and self._made_anew():
                return
            if error.code in ("no-instance", "gone") and self.settings.get("uid"):
                self._lost_history(witness.all_lost(self.state_dir, self.store.namespace))
                self._fail_job()
            elif not self.child:
                self._server_fails(f"the server does not take writes: {error}")

    def _made_anew(self) -> bool:
        """Begin again where the server has nothing left of the instance, and it is set to go on with whatever is left: as the next
        keeper would. Its daemons end, since it is another one now, and are started again; what runs is ended when they speak. (Of
        a child only while its attempt stands by its parent's word: another job may have gone on with it, elsewhere.)"""
        if self.settings.get("on_fork") != witness.ADOPT or self.joined or not self.settings.get("uid") or self.store is None:
            return False
        try:
            if self.settings.get("parent") and not parent_row.stands(self.settings):
                return False
            made, _ = boot.ensure_instance(self.settings, self.state_dir)
            with closing(made):
                meta = made.meta()
            self.settings["uid"] = meta.uid
            self.state_dir.write(self.settings)
            witness.is_current(self.store, meta)
            self._taken_up("its journal was lost")
            self._say_started(self.store)
        except FluxkvError:
            return False  # another one is there, or the server is away: said by who asked
        self.lost = False
        self.log.say("warning", "the server had nothing left of this instance: it is made anew")
        return True

    def _fail_job(self) -> None:
        """Where nothing is left of a child, on its parent's server or its own, and it is not to be made anew, its job is told to
        end."""
        if self.given_up or self.joined or not self.settings.get("parent") or not self.settings.get("lead", True):
            return
        with suppress(FluxkvError):  # asked again
            self.given_up = (
                parent_row.fail_job(self.settings) if self.child else parent_row.fail_own(self.settings, self.state_dir)
            )
        if self.given_up:
            self.log.say("error", "nothing is left of this instance's journal: its job ends")

    def _say_started(self, store: Store) -> None:
        context = {"pid": os.getpid(), "host": os.uname().nodename, "schema": SCHEMA}
        boot.say(store, [["instance-start", "instance", time.time(), context]])

    def _taken_up(self, reason: str) -> str:
        """As `boot.take_up`, the way this instance is set."""
        assert self.store is not None
        return boot.take_up(self.store, self.state_dir, reason, self.settings.get("on_fork") or witness.REFUSE)

    def _lost_history(self, error: Corrupt) -> None:
        self.lost = True
        self._server_fails(f"{error} ({error.hint})")

    def _server_fails(self, text: str) -> None:
        if text == self.server_failed:
            return
        self.server_failed = text
        write_word(self.state_dir.join("run", "server.failed"), text)
        self.log.say("error", text)

    def _witness(self, meta: Meta) -> None:
        if self.store is None or self.lost or not self.settings.get("lead", True):
            return
        try:
            witness.watch(self.store, self.state_dir, meta)
        except Corrupt as error:
            if self.settings.get("on_fork") == witness.ADOPT:
                self._take_up()
            else:
                self._lost_history(error)
        except FluxkvError:
            pass  # said by whoever brings the server back
        except OSError as error:
            self.log.say("warning", f"tip not noted: {error.strerror or error}")
