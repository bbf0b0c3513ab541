"""Following an instance from outside: commits as they come, and the results of jobs. Only reads.

Waiting never folds the instance: it reads the journal from a version on and keeps what concerns its jobs.
Results follow RFC 21 (the rules stand in `journal.job`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ..journal import history
from ..journal.ids import f58
from ..journal.job import CLEANUP, INACTIVE, NEW, Job, Result
from ..journal.wire import Commit, well_formed
from ..kvs.errors import Corrupt, Unavailable
from ..kvs.keys import Keys
from ..kvs.port import Entry, Message, Store, Subscription

if TYPE_CHECKING:
    from .left_behind import Patience

PATIENCE_S = 60.0  # how long a follower lives with a server it cannot reach
_ASK_AGAIN_S = 0.1
TOLD = frozenset(("submit", "start", "finish", "requeue", "exception", "clean", "invalidate"))  # what a result is made of


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended.

    status: wait word of its `finish`, None if it never ran. returncode: as a shell gives it (128 + signal).
    result: "COMPLETED", "FAILED", "CANCELED" or "TIMEOUT". exception: (type, note) of its first
    fatal one.
    t_*: Unix seconds, 0.0 when not reached. attempt: which attempt all this is of, the last one.
    """

    id: int
    status: int | None
    returncode: int
    result: str
    exception: tuple[str, str] | None
    t_submit: float = 0.0
    t_run: float = 0.0
    t_finish: float = 0.0
    t_inactive: float = 0.0
    attempt: int = 1

    @property
    def ok(self) -> bool:
        """It ran and ended with status 0 and no fatal exception."""
        return self.result == "COMPLETED"

    @property
    def f58(self) -> str:
        """Its id as it is printed."""
        return f58(self.id)

    @property
    def runtime(self) -> float:
        """Seconds from start to finish, 0.0 if it never started."""
        return max(0.0, self.t_finish - self.t_run) if self.t_run and self.t_finish else 0.0


def result_of(job: Job) -> JobResult:
    """The result of an inactive job."""
    result = job.result or Result.FAILED
    failed = job.exception if result != Result.COMPLETED else None
    exception = (str(failed[0]), str(failed[1])) if failed else None
    returncode = job.returncode
    if not returncode and result != Result.COMPLETED:
        returncode = 1
    return JobResult(
        job.id,
        job.status,
        returncode,
        result.name,
        exception,
        job.t_submit,
        job.t_run,
        job.t_finish,
        job.t_inactive,
        job.number,
    )


def bare_job(id: int) -> Job:
    """A job of which only the id is known yet, with no more than a result needs: there may be very many."""
    job = Job.__new__(Job)
    job.id, job.state = id, NEW
    job.status = job.exception = job.requeued = None
    job.t_submit = job.t_run = job.t_finish = job.t_inactive = 0.0
    return job


class Tail:
    """Commits after a version as they come, and messages of further streams beside them.

    position: the entry id of that version if it is known (then a forked history is noticed at once). streams:
    key -> last message id seen ("0": all). patience_s: how long a server that is away is asked again. ours: ids of entries that
    whoever reads has written, and need not be handed: each is passed over once, unread.
    """

    def __init__(
        self, store: Store, version: int, position: str = "", streams: dict[str, str] | None = None, *,
        patience_s: float = PATIENCE_S,
    ) -> None:  # fmt: skip
        self.version = version
        self.position = position or str(version)  # the id of the last commit handed on, where it is known
        self.patience_s = patience_s
        self._journal = Keys(store.namespace).journal
        self._store = store
        self._reader = history.reader(store)
        self._lost_at = 0.0
        self._left: list[Entry] = []  # came, and could not be read
        self.ours: set[str] = set()
        self.subscription: Subscription = store.subscribe(
            {self._journal: self.position, **(streams or {})}
        )

    def poll(self, timeout_s: float = 0.0) -> tuple[list[Commit], list[tuple[str, list[Message]]]]:
        """What came; both empty if nothing did in time. A lost server is asked again for `patience_s`."""
        entries, messages = self._came(timeout_s)
        commits: list[Commit] = []
        try:
            commits += self._decoded(entries)
        except (Corrupt, Unavailable):
            if not commits and not messages:
                raise  # else at the next poll
        return commits, messages

    def each(self, timeout_s: float = 0.0) -> Iterator[Commit]:
        """The commits of `poll`, decoded one by one: of very many jobs they are large. To be read to the end."""
        return self._decoded(self._came(timeout_s)[0])

    def _came(self, timeout_s: float) -> tuple[list[Entry], list[tuple[str, list[Message]]]]:
        try:
            batch = self.subscription.poll(timeout_s)
        except Unavailable:
            now = time.monotonic()
            self._lost_at = self._lost_at or now
            if now - self._lost_at > self.patience_s:
                raise
            time.sleep(min(_ASK_AGAIN_S, timeout_s))
            return [], []
        self._lost_at = 0.0
        entries, self._left = self._left, []
        messages: list[tuple[str, list[Message]]] = []
        for key, items in batch:
            if key == self._journal:
                entries += cast("list[Entry]", items)
            else:
                messages.append((key, cast("list[Message]", items)))
        return entries, messages

    def _decoded(self, entries: list[Entry]) -> Iterator[Commit]:
        """What was set aside is a hole; what was trimmed before it came to us stands in the archive."""
        try:
            for entry in entries:
                if entry.version > self.version + 1:
                    for commit in self._reader.commits(self.version, entry.version - 1):
                        self.version, self.position = commit.version, str(commit.version)
                        yield commit
                if entry.version > self.version:
                    if self.ours and entry.id in self.ours:
                        self.ours.discard(entry.id)
                        self.version, self.position = entry.version, entry.id
                        continue
                    commit = self._reader.commit(entry)
                    self.version, self.position = entry.version, entry.id
                    yield commit
        except (Corrupt, Unavailable):
            self._left = entries
            raise

    @property
    def lost_s(self) -> float:
        """How long the server has been away, in seconds; 0.0 while it answers."""
        return time.monotonic() - self._lost_at if self._lost_at else 0.0

    def patience(self) -> Patience:
        """For whoever waits for one of its commits: whether the instance is there at all."""
        from .left_behind import Patience

        return Patience(self._store)

    def fileno(self) -> int:
        """A descriptor that is readable when `poll` may have something; -1 while the server is away."""
        try:
            return self.subscription.fileno()
        except Unavailable:
            return -1

    def close(self) -> None:
        self.subscription.close()


class Follower:
    """Tracks some jobs through commits. Give it each commit after the state its jobs were taken from.

    jobs: what is known of them so far (a fresh `Job(id)` for one whose `submit` is still to come).
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.waiting: dict[int, Job] = {job.id: job for job in jobs}

    def take(self, commit: Commit) -> list[JobResult]:
        """The results of the tracked jobs that ended in this commit."""
        waiting = self.waiting
        ended: list[JobResult] = []
        for name, subject, timestamp, context in well_formed(commit.events, TOLD):
            job = waiting.get(subject)
            if job is None:
                continue
            if name == "clean" or name == "invalidate":
                del waiting[subject]
                ended.append(end_job(job, name, timestamp))
            else:
                note_event(job, name, timestamp, context or {})
        return ended


def end_job(job: Job, name: str, timestamp: float) -> JobResult:
    """Its result, at its last event (clean or invalidate)."""
    if name == "invalidate" and job.exception is None:
        job.exception = ["invalidate", "the jobspec was refused"]
    job.state, job.t_inactive = INACTIVE, timestamp
    return result_of(job)


def note_event(job: Job, name: str, timestamp: float, context: dict[str, Any]) -> None:
    """Keep what a result needs of an event, short of the end. One that somebody wrote badly by hand is passed over, as the
    fold does."""
    try:
        if name == "submit":
            job.t_submit = timestamp
        elif name == "start":
            job.t_run = timestamp
        elif name == "finish":
            status = context["status"]
            if type(status) is int and 0 <= status <= 0xFFFF:
                job.status, job.t_finish, job.state = status, timestamp, CLEANUP
        elif name == "requeue":  # the attempt is over, and the job is not
            job.requeued = [context["attempt"] - 1, 0, 0.0, "", False, ""]
            job.state, job.status, job.exception, job.t_run, job.t_finish = NEW, None, None, 0.0, 0.0
        elif name == "exception" and context["severity"] == 0 and job.exception is None and job.status is None:
            kind, note = context["type"], context["note"]
            if isinstance(kind, str) and isinstance(note, str):
                job.exception = [kind, note]
    except (KeyError, TypeError):
        pass


def timed_out(what: str) -> Unavailable:
    """The error of a wait that took too long; a command ends with 1 then, as Flux's do."""
    error = Unavailable(
        f"timed out: {what}", code="timeout", hint="the jobs go on; wait again, or cancel them"
    )
    error.exit_status = 1
    return error


def follow_results(tail: Tail, follower: Follower, deadline: float | None) -> Iterator[list[JobResult]]:
    """Batches of results as jobs end, until none is left; [] about once a second in between.

    deadline: of `time.monotonic`. Raises Unavailable(code="timeout") past it, Unavailable(code="ended") if the instance ends first.
    """
    patience = tail.patience()
    while follower.waiting:
        left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
        if left <= 0:
            count = len(follower.waiting)
            raise patience.late(f"{count} job{'s' if count > 1 else ''} still active")
        ended: list[JobResult] = []
        before = tail.version
        for commit in tail.each(left):
            ended += follower.take(commit)
        yield ended
        if tail.version > before:
            patience.something()
        else:
            patience.nothing()
