"""The thread behind an `Executor`: submits what is queued in few commits, follows all jobs over one subscription, cancels.

Decides when to give up: on a server that stays away, or an instance that has been stopped. Everything that touches the store
happens in this thread; callers only put things in its queue.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from ..kvs.errors import FluxkvError, Rejected, Unavailable
from ..kvs.redis_store import open_store
from . import pyjob
from .at_exit import at_exit
from .calls import KEEP_S, Outcome, Results, mark_of, read_result, remove, sweep
from .follow import JobResult
from .futures import JobFuture
from .hub import Hub
from .stopped import OrderlyStop
from .submission import CHUNK, Environment, Submitter

if TYPE_CHECKING:
    from ..journal.log import Journal

BY = "executor"  # who the journal says caused the commits
STOPPED_S = 10.0  # how long after an orderly stop the instance may be started again before futures fail
HINT = "its pending jobs go on when it is started again, and attach(id) finds them"
IDLE_S = 5.0  # when nothing is left to follow, the subscription is kept this long
SWEEP_EVERY_S = 3600.0
_log = logging.getLogger("fluxkv")


class Work(NamedTuple):
    """A job to be submitted."""

    future: JobFuture
    jobspec: dict[str, Any]
    env: Environment
    urgency: int
    flags: int
    key: str = ""


class Core:
    """What an executor and its futures share; one thread. Raises `Unavailable` if there is no instance at `uri`."""

    def __init__(self, uri: str, patience_s: float, keep_results: bool) -> None:
        self.results: Results | None = None
        self._uri = uri
        self._patience_s, self._keep_results = patience_s, keep_results
        self._stop = OrderlyStop(uri)
        self._store = open_store(uri, patience_s=patience_s, hopeless=self._stopped)
        self._hub = Hub(self._store)
        self.strict = self._store.meta().durability != "local"
        self._submitter = Submitter(self._store, BY, patience_s=patience_s)
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.RLock()  # of what follows; a collection inside may call `close` in the same thread
        self._rung = self._closed = self._over = False
        self._works: list[Work] = []
        self._attaches: list[JobFuture] = []
        self._cancels: list[tuple[JobFuture, str]] = []
        self._waiting: set[Future[Any]] = set()  # whatever is not done
        # The thread's own:
        self._doomed: dict[JobFuture, str] = {}  # to be cancelled, with the note
        self._journal: Journal | None = None
        self._sweep_at = 0.0
        at_exit(self)

    # -- for callers, of any thread

    def put(self, work: Work) -> None:
        """Submit soon. Raises RuntimeError after `close`."""
        self._need_own_process()
        with self._lock:
            self._need_open()
            self._works.append(work)
            self._expect(work.future)
            self._ring()

    def attach(self, future: JobFuture) -> None:
        """Follow a job that is there already. Raises RuntimeError after `close`."""
        self._need_own_process()
        with self._lock:
            self._need_open()
            self._attaches.append(future)
            self._expect(future)
            self._ring()

    def cancelled(self, future: JobFuture, note: str) -> None:
        """See `futures.Owner`."""
        self._need_own_process()
        with self._lock:
            if not self._over:
                self._cancels.append((future, note))
                self._ring()

    def in_thread(self) -> bool:
        """See `futures.Owner`."""
        return threading.current_thread() is self._thread

    def close(self, *, cancel: bool = False) -> None:
        """Take no more; end when all is done. cancel: cancel what does not run yet."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._closed = True
            if self._thread is None:
                self._release()
                return
            futures = list(self._waiting) if cancel else []
            self._ring()
        for future in futures:
            future.cancel()

    def join(self) -> None:
        """Wait for the end after `close`."""
        if self._thread is not None and not self.in_thread() and os.getpid() == self._pid:
            self._thread.join()

    def _expect(self, future: JobFuture) -> None:
        """It is waited for until it is done, however that comes about; the lock is held."""
        self._waiting.add(future)
        future.add_done_callback(self._done)

    def _done(self, future: Future[Any]) -> None:
        with self._lock:
            self._waiting.discard(future)

    def _need_own_process(self) -> None:
        if os.getpid() != self._pid:
            raise Unavailable(
                f"this executor belongs to process {self._pid}, of which this one is a fork",
                code="forked",
                hint="make an Executor in this process; attach(id) finds the other's jobs",
            )

    def _need_open(self) -> None:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _ring(self) -> None:
        """Wake the thread, starting it the first time; the lock is held."""
        if self._over:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="fluxkv-executor", daemon=True)
            self._thread.start()
        if not self._rung:
            self._rung = True
            os.eventfd_write(self._bell, 1)

    def _release(self) -> None:
        if not self._over:
            self._over = True
            self._hub.close()
            self._store.close()
            os.close(self._bell)

    # -- for futures, in the thread

    def outcome(self, future: JobFuture, result: JobResult) -> Outcome | None:
        """See `futures.Owner`."""
        found = read_result(future.folder, result.id)
        if not self._keep_results and found is not None:
            remove(pyjob.result_path(future.folder, result.id))
        return found

    def ended(self, future: JobFuture) -> None:
        """See `futures.Owner`."""
        if future.call_file:
            remove(future.call_file)

    # -- the thread

    def _run(self) -> None:
        try:
            while self._turn():
                self._wait()
            with self._lock:
                self._release()
        except BaseException as error:  # a fault of ours: nobody shall wait for ever
            _log.exception("the executor's thread has ended")
            with self._lock:
                self._closed = True
                self._works, self._attaches = [], []
                self._release()
            self._fail_all(error)

    def _turn(self) -> bool:
        """Do what is there to do; False when nothing is left for ever."""
        with self._lock:
            if self._rung:
                os.eventfd_read(self._bell)
                self._rung = False
            works, self._works = self._works, []
            attaches, self._attaches = self._attaches, []
            cancels, self._cancels = self._cancels, []
        from ..journal.log import no_collection

        with no_collection():  # thousands of jobs and events, none of them garbage
            self._submit(works)
            self._attach(attaches)
            self._cancel(cancels)
            if self._hub.watching:
                self._follow()
        if self._doomed:
            try:
                self._send_cancels()
            except FluxkvError as error:
                _log.warning("%d jobs were not cancelled: %s", len(self._doomed), error)
                self._doomed.clear()
        if time.monotonic() >= self._sweep_at and self.results is not None:
            self._sweep()
        with self._lock:
            more = bool(self._waiting or self._cancels or self._doomed)
            if more or not self._closed:
                return True
        return any(watcher.wants_events for watcher in self._futures())

    def _wait(self) -> None:
        """Until something comes: from callers, or from the journal."""
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        timeout_ms: int | None = None
        if self._hub.watching:
            fileno = self._hub.fileno()
            timeout_ms = 1000 if fileno >= 0 else 100
            if fileno >= 0:
                poller.register(fileno, select.POLLIN)
        elif self._hub.connected:
            timeout_ms = int(IDLE_S * 1000)
        if not poller.poll(timeout_ms) and not self._hub.watching:
            self._hub.close()

    def _submit(self, works: list[Work]) -> None:
        groups: dict[Any, list[Work]] = {}
        for work in works:
            system = work.jobspec["attributes"].get("system") or {}
            # A job that waits for others goes alone: "#-1" must not name whom it happens to share a commit with.
            alone = id(work) if system.get("dependencies") else 0
            groups.setdefault((work.urgency, work.flags, system.get("queue"), id(work.env), alone), []).append(work)
        for group in groups.values():
            for start in range(0, len(group), CHUNK):
                self._commit(group[start : start + CHUNK])

    def _commit(self, works: list[Work]) -> None:
        """Commit these, and what becomes of their futures. Who is refused is found by halves, and harms no other."""
        wanted = []
        for work in works:
            if work.future.cancelled():
                work.future.drop()
                self.ended(work.future)
            else:
                wanted.append(work)
        if not wanted:
            return
        items = ((work.jobspec, work.env, work.urgency, work.key) for work in wanted)
        left, taken, refused = iter(wanted), list[tuple[int, Work]](), None
        try:
            for ids in self._submitter.stream(items, wanted[0].flags):  # what is large takes more than one commit
                taken += zip(ids, left, strict=False)
        except FluxkvError as error:
            refused = error
        there = []  # had its key before: a job of any age
        for id, work in taken:
            work.future.submitted(id)
            since = self._submitter.submitted.pop(id, None)
            if since is not None:
                self._hub.add(work.future, since)
                continue
            self.ended(work.future)
            work.future.call_file = ""
            there.append(work.future)
        self._attach(there)
        rest = list(left)
        if isinstance(refused, Rejected) and refused.code != "queue-closed" and len(rest) > 1:
            half = len(rest) // 2
            self._commit(rest[:half])
            self._commit(rest[half:])
        elif refused is not None:
            why = self._why(refused)
            for work in rest:
                work.future.fail(why)
                if isinstance(refused, Rejected):  # else its job may be in the journal
                    self.ended(work.future)

    def _attach(self, futures: list[JobFuture]) -> None:
        """Past events from the journal, further ones as they come."""
        if not futures:
            return
        from .executor_attach import tell_past

        try:
            active, version = tell_past(self._own_journal(), futures)
            for future in active:
                self._hub.add(future, version)
        except FluxkvError as error:
            for future in futures:
                self._hub.drop(future)
                future.fail(self._why(error))

    def _cancel(self, cancels: list[tuple[JobFuture, str]]) -> None:
        """Note whose jobs are to be cancelled."""
        self._doomed.update((future, note) for future, note in cancels if future.id)

    def _send_cancels(self) -> None:
        """Cancel as of what the subscription has brought, without a fold; jobs that have moved since come again next turn."""
        from ..journal.decide import cancel_each, together
        from ..kvs.port import Appended, Conflicted

        journal = self._own_journal()
        doomed = {f: note for f, note in self._doomed.items() if not f.ending}
        self._doomed = dict(doomed)
        by_note: dict[str, list[JobFuture]] = {}
        for future, note in doomed.items():
            by_note.setdefault(note, []).append(future)
        for note, futures in by_note.items():
            for start in range(0, len(futures), CHUNK):
                left = futures[start : start + CHUNK]
                while left:
                    decision = together(cancel_each([f.job for f in left], note, os.getuid(), time.time()))
                    answer = journal.append(decision, self._hub.version)
                    if isinstance(answer, Appended):
                        for future in left:
                            del self._doomed[future]
                        break
                    if not isinstance(answer, Conflicted):
                        journal.cope(answer)
                        continue
                    moved = set(answer.things)
                    left = [f for f in left if f"job/{f.id}" not in moved]

    def _own_journal(self) -> Journal:
        if self._journal is None:
            from ..journal.log import Journal

            self._journal = Journal(self._store, BY)
            self._journal.patience_s = self._patience_s
        return self._journal

    def _follow(self) -> None:
        """Hand on what came; give up when there is nothing to wait for."""
        hub = self._hub
        try:
            hub.poll(0.0)
        except FluxkvError as error:  # another history, or another instance; an outage is waited for below
            self._give_up(error)
            return
        if self._stopped():
            self._give_up(Unavailable(f"{self._uri}: the instance was stopped", code="stopped", hint=HINT))
        elif hub.lost_s > self._patience_s:
            why = f"{self._uri}: the server has been away for {hub.lost_s:.0f} s"
            self._give_up(Unavailable(why, code="disconnected", hint=HINT))

    def _stopped(self) -> bool:
        """Whether the instance was stopped in order, and has had its time to come back."""
        since = self._hub.stopped_at or self._stop.since()
        return bool(since) and time.monotonic() - since > STOPPED_S and not self._stop.is_back()

    def _why(self, error: FluxkvError) -> FluxkvError:
        """What to tell of jobs that could not be submitted or found."""
        if isinstance(error, Unavailable) and self._stopped():
            unknown = "; whether the job was submitted before is not known" if error.code == "outcome-unknown" else ""
            return Unavailable(f"{self._uri}: the instance was stopped{unknown}", code="stopped", hint=HINT)
        return error

    def _give_up(self, error: FluxkvError) -> None:
        self._fail_all(error)
        self._doomed.clear()
        self._hub.close()
        self._hub = Hub(self._store)

    def _futures(self) -> Iterator[JobFuture]:
        return (w for several in self._hub.watching.values() for w in several if isinstance(w, JobFuture))

    def _fail_all(self, error: BaseException) -> None:
        with self._lock:
            futures = [future for future in self._waiting if isinstance(future, JobFuture)]
        for future in futures:
            future.fail(error)

    def _sweep(self) -> None:
        self._sweep_at = time.monotonic() + SWEEP_EVERY_S
        if self.results is None:
            return
        try:
            sweep(self.results.root, KEEP_S, self._calls_in_use)
        except (FluxkvError, OSError) as error:
            _log.warning("old results are not removed: %s", error)

    def _calls_in_use(self) -> list[str]:
        """Call files that active jobs still need."""
        jobs = self._own_journal().load().active()
        return [str(mark_of(job.jobspec).get("call", "")) for job in jobs]
