"""The future of a job, as `concurrent.futures` has it, with Flux's additions: job id, event callbacks, exit code.

Decides when a future is running, done or cancelled by its job's events (RFC 21). Submits and reads nothing: an executor's
thread feeds it. May be shared between threads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Protocol

from ..journal.catalogue import CATALOGUE
from ..journal.ids import f58
from ..journal.job import INACTIVE, Job
from ..journal.retry import KEY, REQUEUE, WITH_INSTANCE, may_return
from ..journal.wire import Event
from ..kvs.errors import FluxkvError
from .follow import JobResult, end_job, note_event, result_of

if TYPE_CHECKING:
    from .calls import Outcome

EVENTS = frozenset(name for subject, name in CATALOGUE if subject == "job")
_log = logging.getLogger("fluxkv")


class JobException(FluxkvError):
    """A job that did not end well (Flux's name). Raised by `JobFuture.result`.

    id: the job. type, severity, note, timestamp: of the fatal exception (RFC 21); type is "exit" when there was none and a
    function's process ended before the function did. returncode: as `JobResult.returncode`.
    """

    default_code = "job-exception"

    def __init__(
        self, id: int, type: str, note: str, *, severity: int = 0, timestamp: float = 0.0, returncode: int = 1
    ) -> None:
        super().__init__(
            f"job {f58(id)}: {type}" + (f": {note}" if note else ""),
            hint=f"fluxkv job attach {f58(id)} shows its output, fluxkv inspect job {f58(id)} its story",
        )
        self.id, self.type, self.note = id, type, note
        self.severity, self.timestamp, self.returncode = severity, timestamp, returncode

    def __reduce__(self) -> Any:
        return _rebuilt, (self.id, self.type, self.note, self.severity, self.timestamp, self.returncode)


def _rebuilt(id: int, type: str, note: str, severity: int, timestamp: float, returncode: int) -> JobException:
    return JobException(id, type, note, severity=severity, timestamp=timestamp, returncode=returncode)


class Owner(Protocol):
    """The executor's side of a future."""

    def cancelled(self, future: JobFuture, note: str) -> None:
        """The future was cancelled, or its job shall be: see to the job."""
        ...

    def ended(self, future: JobFuture) -> None:
        """Its job's processes have ended, or it never ran."""
        ...

    def in_thread(self) -> bool:
        """Whether the caller is the thread that feeds futures."""
        ...

    def outcome(self, future: JobFuture, result: JobResult) -> Outcome | None:
        """What a function's job left; None if it left nothing. Only for futures whose `folder` is set."""
        ...


class JobFuture(Future[Any]):
    """A job as a future; made by an `Executor`.

    It is pending until its job starts, running while it runs, and done when its processes have ended (`finish`; those of its
    last attempt, if there are several), or at its end if it never ran. `result()` of a function is its value, or raises what it
    raised; of a command it is the exit code, or -N if signal N ended it (as Flux and `subprocess` have it;
    `job_result().returncode` is 128 + N). A job that ended by an exception (RFC 21: cancelled by somebody else, timed out,
    refused, lost) raises `JobException`.

        import fluxkv

        with fluxkv.Executor() as executor:
            future = executor.submit_command(["sleep", "60"])
            future.add_event_callback("start", lambda future, event: future.cancel_job("seen enough"))
            try:
                future.result()
            except fluxkv.JobException as error:
                print(error.type, error.note, future.job_result().result)

    `cancel()` succeeds while the job is not known to run, and cancels it in the instance; a job that runs is ended by
    `cancel_job()`. Callbacks are called by the executor's thread: they must be short, and must not wait for futures.
    """

    EVENTS = EVENTS

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self.id = 0  # 0: not known yet
        self.folder = ""  # where a function's result will be
        self.call_file = ""  # a large call's file, to be removed once the job is over
        self._owner = owner
        self._failure: BaseException | None = None
        self._lock = threading.Condition()  # of what follows; never held while a callback runs
        self._jobid_callbacks: list[Callable[[JobFuture], object]] = []
        self._event_callbacks: dict[str, list[Callable[[JobFuture, Event], object]]] = {}
        self._events: list[Event] = []
        self.job = Job(0)  # what is known of it, for the executor's thread
        self._job_result: JobResult | None = None
        self._settled = False  # pending no more

    def __repr__(self) -> str:
        text = super().__repr__()
        return f"{text[:-1]} job={f58(self.id)}>" if self.id else text

    # -- the job's id

    def jobid(self, timeout: float | None = None) -> int:
        """The job's id; waits until it is submitted.

        timeout: seconds; raises TimeoutError after it, CancelledError if the future was cancelled before it was submitted,
        and whatever made the submission fail.
        """
        with self._lock:
            if not self.id and self._failure is None:
                self._may_wait()
                self._lock.wait_for(lambda: self.id or self._failure is not None, timeout)
            if self.id:
                return self.id
            if self._failure is not None:
                raise self._failure
        raise TimeoutError

    @property
    def job_id(self) -> int:
        """As `jobid()`."""
        return self.jobid()

    def add_jobid_callback(self, callback: Callable[[JobFuture], object]) -> JobFuture:
        """Call back with this future once its id is known or it is known that it will have none; at once if so already."""
        with self._lock:
            if not self.id and self._failure is None:
                self._jobid_callbacks.append(callback)
                return self
        self._call(callback)
        return self

    # -- events

    def add_event_callback(self, name: str, callback: Callable[[JobFuture, Event], object]) -> JobFuture:
        """Call back with this future and the `Event`, for each event of that name (`EVENTS`), past ones at once.

        Raises ValueError for a name that no event of a job has. "exception" comes for those that are not fatal, too.
        """
        if name not in self.EVENTS:
            raise ValueError(f"{name!r} is no event of a job; there are {', '.join(sorted(self.EVENTS))}")
        with self._lock:
            past = [event for event in self._events if event.name == name]
            self._event_callbacks.setdefault(name, []).append(callback)
        for event in past:
            self._call(callback, event)
        return self

    def events(self) -> list[Event]:
        """The job's events so far."""
        with self._lock:
            return list(self._events)

    # -- the end

    def result(self, timeout: float | None = None) -> Any:
        """See the class. timeout: seconds; raises TimeoutError after it, CancelledError if the future was cancelled."""
        if not self.done():
            self._may_wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What `result` would raise, None if nothing."""
        if not self.done():
            self._may_wait()
        return super().exception(timeout)

    def job_result(self, timeout: float | None = None) -> JobResult:
        """How the job ended, whatever `result` would raise. Raises that if the job was never submitted or is not known to
        have ended (its instance is gone)."""
        error = self.exception(timeout)
        if self._job_result is None:
            raise error if error is not None else CancelledError
        return self._job_result

    def cancel(self) -> bool:
        """Cancel it and its job unless the job is known to run or to have ended; whether it is cancelled."""
        if not super().cancel():
            return False
        self.begin()  # who waits for it is told now, even while the server is away
        self._owner.cancelled(self, "its future was cancelled")
        return True

    def cancel_job(self, note: str = "") -> None:
        """Cancel the job even if it runs; the future then raises `JobException` when its processes have ended."""
        self._owner.cancelled(self, note)

    # -- for the executor's thread

    def begin(self) -> bool:
        """Pending no more; False if it had been cancelled. Of any thread."""
        with self._lock:
            if self._settled:
                return not self.cancelled()
            self._settled = True
            return self.set_running_or_notify_cancel()

    def submitted(self, id: int) -> None:
        """Its job has this id."""
        with self._lock:
            self.id = id
            self.job.id = id
            self._lock.notify_all()
        self._tell_id()

    def fail(self, error: BaseException) -> None:
        """There is nothing to wait for any more."""
        with self._lock:
            self._failure = error
            self._lock.notify_all()
        self._tell_id()
        if not self.done() and self.begin():
            self.set_exception(error)

    def drop(self) -> None:
        """It was cancelled before it was submitted."""
        self.begin()
        self.fail(CancelledError())

    def take(self, name: str, timestamp: float, context: dict[str, Any]) -> bool:
        """One event of the job; True when no more will come."""
        event, job = Event(name, self.id, timestamp, context), self.job
        last = name == "clean" or name == "invalidate"
        note_event(job, name, timestamp, context)
        if name == "start":
            self.begin()
        elif name == "submit":
            self._note_retry(context.get("jobspec"))
        with self._lock:
            self._events.append(event)
            callbacks = tuple(self._event_callbacks.get(name, ()))
        for callback in callbacks:  # before the result: who has that has heard of the event
            self._call(callback, event)
        if last:
            self._end(end_job(job, name, timestamp))
        elif name == "finish" and job.status is not None and not self._may_go_on():
            job.state = INACTIVE  # of its processes nothing more is to be learnt
            self._end(result_of(job))
        return last

    def _note_retry(self, jobspec: Any) -> None:
        """Its first failure may not be its last."""
        try:
            if KEY in jobspec["attributes"]["system"]:
                self.job.jobspec = jobspec
        except (LookupError, TypeError):
            pass  # somebody wrote it by hand

    def _may_go_on(self) -> bool:
        """Whether another attempt may follow the one that has just ended: then only `clean` is the end. A job that was lost with
        the instance it was in, one inside a job, is in line again when that is resumed."""
        job = self.job
        if not job.status:
            return False
        return (job.exception is not None and job.exception[0] in WITH_INSTANCE) or may_return(job)

    @property
    def ending(self) -> bool:
        """Whether its job is over, or told to end for good, as far as is known."""
        return self.job.state == INACTIVE or (self.job.exception is not None and not may_return(self.job))

    @property
    def wants_events(self) -> bool:
        """Whether somebody would miss the events after its end."""
        return any(name in self._event_callbacks for name in ("release", "epilog-start", "epilog-finish", "free", "clean"))

    def _end(self, result: JobResult) -> None:
        first = self._job_result is None
        self._job_result = result
        if not first:
            return
        self._owner.ended(self)
        if self.done() or not self.begin():
            return
        try:
            self._resolve(result)
        except Exception as error:  # a result that cannot be loaded must not stop the others
            _log.exception("result of job %s", f58(result.id))
            self.set_exception(error)

    def _resolve(self, result: JobResult) -> None:
        if result.exception is not None:
            kind, note = result.exception
            self.set_exception(self._job_exception(result, kind, note))
        elif not self.folder:
            signum = (result.status or 0) & 0x7F
            self.set_result(-signum if signum else result.returncode)
        elif (outcome := self._owner.outcome(self, result)) is None:
            self.set_exception(self._job_exception(result, "exit", without_result(result)))
        elif outcome.error is not None:
            self.set_exception(outcome.error)
        else:
            self.set_result(outcome.value)

    def _job_exception(self, result: JobResult, kind: str, note: str) -> JobException:
        at: list[Event] = []
        for event in self.events():
            if event.name == REQUEUE:
                at.clear()
            elif event.name == "exception" and (event.context or {}).get("severity") == 0:
                at.append(event)
        timestamp = at[0].timestamp if at else result.t_finish
        return JobException(result.id, kind, note, timestamp=timestamp, returncode=result.returncode)

    def _tell_id(self) -> None:
        with self._lock:
            callbacks, self._jobid_callbacks = self._jobid_callbacks, []
        for callback in callbacks:
            self._call(callback)

    def _call(self, callback: Callable[..., object], *args: Any) -> None:
        try:
            callback(self, *args)
        except Exception:
            _log.exception("callback of %r", self)

    def _may_wait(self) -> None:
        if self._owner.in_thread():
            raise RuntimeError("a callback of an executor must not wait for its futures: it would wait for itself")


def without_result(result: JobResult) -> str:
    """Why a function's job has no result."""
    if result.returncode == 0:
        return "it left no result, or that was removed or is older than results are kept (nodes that pretend run nothing)"
    if result.returncode > 128:
        return f"signal {result.returncode - 128} ended the process before the function returned"
    if result.returncode == 125:
        return "its result could not be kept; its standard error says why"
    return f"the process ended with exit code {result.returncode} before the function returned"
