"""An ensemble as it is looked at from the instance whose job it is. Only reads; a job that is none is refused.

Of one that is over, what its children had come to and had not told counts, too: cancelled, it has no time for that, and what it
does not know would run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from ..journal.ensemble import FILE, Count, Ended, Indices, Part, Request, Rows, decode, total_of
from ..journal.file_archive import read_archive
from ..journal.history import History
from ..journal.ids import f58
from ..journal.job import INACTIVE
from ..kvs.errors import Corrupt, Rejected, Unavailable
from .child import child_namespace, child_number
from .ensemble_record import Record, fresh, mark
from .follow import Follower, Tail
from .whereabouts import store_of

if TYPE_CHECKING:
    from ..journal.job import Job
    from .client import Instance
    from .follow import JobResult
    from .handle import JobHandle
    from .kvs_view import View

LOOK_S, REST_S = 0.25, 1.0  # between two looks: of who draws a bar, and where nobody looks on
AWAY_S = 5.0  # children's own servers are waited for in the end, while they hand up


class Seen(NamedTuple):
    """counts: what has ended so far. failed: members that did not succeed and have not been told yet, with the part they are in.
    result: of the ensemble's own job, once that is over."""

    counts: Count
    failed: Iterable[tuple[Part, Ended]]
    result: JobResult | None


class Failed:
    """Those that did not succeed of some parts, each with its part. Made as they are asked for: a million may have failed."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = [part for part in parts if part.failed]

    def __iter__(self) -> Iterator[tuple[Part, Ended]]:
        return ((part, row) for part in self._parts for row in part if not row.ok)


class EnsembleView:
    """instance: the one whose job `id` the ensemble is. Raises `Rejected` (code no-ensemble, no-such-job). unread: what could not
    be read of one that is over, and so counts as not ended, a sentence each.

        import fluxkv

        with fluxkv.connect() as instance:
            job = instance.submit_ensemble(["sh", "-c", "exit $(( {cc} == 7 ))"], range(20))
            with instance.ensemble(job) as ensemble:
                print(ensemble.wait(timeout=60))
                for index, part, row in ensemble.rows():
                    if not row.ok:
                        print(index, row.returncode, ensemble.path(part, row))
    """

    def __init__(self, instance: Instance, id: int) -> None:
        self.instance, self.id = instance, id
        self.job = instance.job(id)
        self.request = _request_of(instance, self.job)
        self.indices = Indices(self.request.ranges)
        self.total = len(self.indices)
        self._rows = Rows(self.request.rows)
        self._record: tuple[int, Record] | None = None
        self._told: dict[str, tuple[int, int]] = {}  # key -> its version, and how many bytes, that were told
        self._last: dict[int, int] = {}
        self._late: tuple[int, list[Part]] | None = None  # how many were told, what was not
        self.unread: list[str] = []

    def __enter__(self) -> EnsembleView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout: float | None = None) -> Count:
        """What all members have come to, when it is over. timeout: seconds; raises `Unavailable(code="timeout")`."""
        count = Count()
        for seen in self.follow(timeout, REST_S):
            count = seen.counts
        return count

    @property
    def over(self) -> bool:
        return self.job.state == INACTIVE

    def record(self) -> Record | None:
        """What it knows of itself; None before it is an instance."""
        from .client import Instance

        number = self._number()
        if not number:
            return None
        if self._record is None or self._record[0] != number:
            here = self.instance.store
            store = store_of(here, child_namespace(here.namespace, self.id, number), over=self.over)
            if store is None:
                return None
            try:
                self._record = number, Record(Instance(store).kvs)
            except (Rejected, Unavailable) as error:
                store.close()
                if error.code not in ("no-instance", "gone"):
                    raise
                return None
            self._told, self._late = {}, None
        return self._record[1]

    def close(self) -> None:
        if self._record is not None:
            self._record[1].kvs.journal.store.close()
            self._record = None

    def count(self) -> Count:
        """What has ended so far, all children together."""
        return total_of(self.counts().values())

    def counts(self) -> dict[int, Count]:
        """What has ended so far under each child, by its job; under 0 what had in earlier attempts of the ensemble."""
        record = self.record()
        return {} if record is None else self._counts(record, record.kvs.view())

    def _counts(self, record: Record, view: View) -> dict[int, Count]:
        found, here = record.counts(view), self._number()
        for part in self._untold(record, view):
            child = part.path[1] if part.path[0] == here else 0
            found[child] = found.get(child, Count()).plus(part)
        return found

    def _untold(self, record: Record, view: View) -> list[Part]:
        """What children of one that is over had come to and had not told, read once unless more is told."""
        from . import left_spool
        from .ensemble_salvage import Salvage

        if not self.over or (told := total_of(record.counts(view).values()).done) >= self.total:
            return []
        if self._late is None or self._late[0] != told:
            done, self.unread = record.finished(self.total, view), []
            there = Salvage(self.indices, done, self.unread.append, AWAY_S, roots=left_spool.roots(self.instance.uri))
            parts = there.of_ensemble(self.instance.store, self.id, range(self._number(), 0, -1))
            self._late = told, [news for part in parts if len(news := fresh(part, done))]
        return self._late[1]

    def _number(self) -> int:
        """Its last attempt that is an instance, 0 if there is none."""
        return child_number(self.job, self.instance.store.namespace)

    def rows(self, keep: Callable[[Ended], bool] | None = None) -> Iterator[tuple[int, Part, Ended]]:
        """(index, part, result) of members that have ended, in the order of their indices."""
        record = self.record()
        if record is not None:
            for part, row in record.rows(self.total, keep, self._untold(record, record.kvs.view())):
                yield self.indices[row.position], part, row

    def finished(self, keep: Callable[[Ended], bool]) -> bytearray:
        """A byte for each position, 1 where a member has ended so."""
        done = bytearray(self.total)
        if (record := self.record()) is not None:
            view = record.kvs.view()
            for part in chain(self._untold(record, view), (part for _, part in record.parts(view))):
                mark(done, (row.position for row in part if keep(row)))
        return done

    def inputs(self, index: int) -> tuple[str, ...]:
        """What a member got for its command, () where members have numbers alone. Those of neighbours are quick to read."""
        return self._rows[index] if self.request.rows else ()

    def rerun(self, *, failed: bool = True, unfinished: bool = True) -> JobHandle | None:
        """Submit members of one that is over once more, as an ensemble of their own: those that ended and did not succeed, and
        those that did not run to an end. None where there are none. Raises `Rejected` (code active) while some of them run."""
        from .ensemble_rerun import rerun
        from .handle import JobHandle

        self.job = self.instance.job(self.id)
        made = rerun(self, failed=failed, unfinished=unfinished)
        return JobHandle(self.instance, made.id) if made.id else None

    def path(self, part: Part, row: Ended) -> str:
        """The path of a member's job, as other commands take it."""
        outer, child, attempt = part.path
        here = self._number()
        first = f58(self.id) + (f".{outer}" if outer != here else "")
        last = attempt if outer != here else self._last_attempt(child, attempt)
        return f"{first}/{f58(child)}" + (f".{attempt}" if last != attempt or outer != here else "") + f"/{f58(row.id)}"

    def _last_attempt(self, child: int, attempt: int) -> int:
        """Which attempt of a child was its last so far; asked for once each."""
        if attempt > self._last.get(child, 0) and self._record is not None:
            journal = self._record[1].kvs.journal
            job = journal.look().jobs.get(child)
            self._last[child] = max(attempt, child_number(job, journal.store.namespace) if job is not None else 0)
        return self._last.get(child, attempt)

    def follow(self, timeout: float | None = None, every_s: float = LOOK_S) -> Iterator[Seen]:
        """What has changed, every so often, until its job is over. timeout: seconds; raises Unavailable (code timeout)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        known, at = self.instance.known([self.id])
        self.job = known[0]
        follower = Follower([] if self.job.t_inactive else [self.job])
        with closing(Tail(self.instance.store, *at)) as tail:
            patience = tail.patience()
            while follower.waiting:
                left = every_s if deadline is None else min(every_s, deadline - time.monotonic())
                if left <= 0:
                    raise patience.late(f"ensemble {f58(self.id)} still active")
                ended: list[JobResult] = []
                before = tail.version
                for commit in tail.each(left):
                    ended += follower.take(commit)
                    self._hear(commit.events)
                if ended:
                    break
                yield self._seen(None)
                if tail.version > before:
                    patience.something()
                else:
                    patience.nothing()
        self.job = self.instance.job(self.id)
        from .follow import result_of

        yield self._seen(result_of(self.job))

    def _hear(self, events: list[list[object]]) -> None:
        """That it is an instance now, or another one."""
        if any(event[0] in ("memo", "requeue") and event[1] == self.id for event in events):
            self.job = self.instance.job(self.id)

    def _seen(self, result: JobResult | None) -> Seen:
        record = self.record()
        if record is None:
            return Seen(Count(), (), result)
        view = record.kvs.view()
        late = self._untold(record, view) if result is not None else ()
        failed = Failed(chain(record.news(view, self._told), late))
        return Seen(total_of(self._counts(record, view).values()), failed, result)


def _request_of(instance: Instance, job: Job) -> Request:
    """What the job's file holds. Raises `Rejected` (code no-ensemble), `Corrupt`."""
    spec = job.jobspec or _submitted(instance, job)
    files = ((spec.get("attributes") or {}).get("system") or {}).get("files")
    command = spec["tasks"][0]["command"]
    if not isinstance(files, dict) or FILE not in files or "ensemble" not in command:
        raise Rejected(f"{f58(job.id)} is no ensemble", code="no-ensemble", hint="fluxkv ensemble submit makes one")
    (file,) = read_archive({FILE: files[FILE]})
    if not file.parts:
        return decode(file.data)
    found = History(instance.store).blobs([name for _, _, name in file.parts])
    if None in found:
        raise Corrupt(f"{f58(job.id)}: its request is no more in the store", code="no-blob")
    return decode(b"".join(one for one in found if one is not None))


def _submitted(instance: Instance, job: Job) -> dict[str, Any]:
    for _, event in instance.journal.story(job.commits[:1], job.id):
        if event.name == "submit" and event.context:
            found: dict[str, Any] = event.context["jobspec"]
            return found
    raise Rejected(f"{f58(job.id)}: its jobspec is no more in the journal", code="archived", hint="look into the archive")
