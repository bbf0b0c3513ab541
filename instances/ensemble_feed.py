"""What runs inside each child of an ensemble: it takes shares, submits their members here, and tells the ensemble how they ended.

Decides how many members wait here at once (what about a second of work is, some thousands at most, so memory does not grow with the
ensemble), and when results are told: often at first, then less, each time together. Never what a share is: see `ensemble_record`.

A later attempt of this child has a journal of its own. It first tells what the earlier ones had come to and had not told
(`ensemble_salvage`), then runs what is left of their shares.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..journal.ensemble import Count, Ended, Indices, Part, Request, enough, share_size, telling_gap
from ..journal.job import Result
from ..journal.retry import WITH_INSTANCE
from ..kvs.errors import Unavailable
from .ensemble_record import Record, mark
from .follow import Follower, JobResult, Tail, bare_job

if TYPE_CHECKING:
    from ..journal.job import Job
    from .client import Instance

Cut = Callable[[int], dict[str, Any]]  # index -> jobspec
AT_ONCE = 1000  # members in a commit
TOGETHER = 2000  # results that are told at once at the latest
RATE_S = 0.5  # how fast members end is looked at so often
LOOK_S = 0.2
FULL_S = 1.0
BY_SIGNAL = (9, 15)


class Stopped(Exception):
    """We were told to end."""


class Feeder:
    """here: the child's instance. record: of the ensemble. me, attempt: which job of the ensemble's instance we are, which attempt.
    outer: the attempt of the ensemble itself. cut: makes a member's jobspec. slots: members that run here at once. is_told_to_end:
    a signal came; nothing is broken off in its middle."""

    def __init__(
        self, here: Instance, record: Record, request: Request, cut: Cut, *, me: int, attempt: int, outer: int, slots: int,
        is_told_to_end: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._is_told_to_end = is_told_to_end
        self.count = Count()
        self._here, self._record, self._cut = here, record, cut
        self._indices, self._env = Indices(request.ranges), request.env
        self._me, self._path, self._slots = me, (outer, me, attempt), slots
        self._children = max(1, record.info().children)
        self._todo: deque[list[int]] = deque()  # positions that we have taken and not submitted, a commit each
        self._dry = False  # there is nothing left to take
        self._stopping = False  # our own instance ends
        self._place: dict[int, int] = {}  # job -> position, of those that have not ended
        self._follower = Follower(())
        self._rows: list[Ended] = []
        self._told = 0
        self._began = self._told_at = time.monotonic()
        self._rate = self._ended = 0.0
        self._rated_at = self._began

    def resume(self, done: bytearray, salvaged: Iterator[Part], counts: Count) -> None:
        """Go on where earlier attempts of this child ended. done: which positions the record has as ended. salvaged: what they had
        come to and not told. counts: what they had told."""
        self.count = counts
        for part in salvaged:
            self.look_up()
            mark(done, part.positions)
            self._tell(part, list(part))
        for share in self._record.shares(self._record.kvs.view(), self._me):
            self._put([position for position in self._record.positions(share) if not done[position]])
        self._ended, self._rated_at = self.count.done, time.monotonic()  # how fast *these* ended says nothing of how fast we are

    def run(self) -> None:
        """Until no member is left. Raises `Stopped` when told to end; what had ended is told before."""
        tail = Tail(self._here.store, self._here.store.meta().version)
        try:
            while True:
                self.look_up()
                self._fill(tail.ours)
                if not self._place and not self._todo and self._dry:
                    break
                self._hear(tail, LOOK_S)
                self._rate_now()
                if self._is_due():
                    self._tell_rows()
        except Stopped:
            if not self._stopping:  # what is in the journal by now is told, or it runs again
                self._hear(tail, 0.0)
            raise
        finally:
            tail.close()
            self._tell_rows(last=True)

    def _hear(self, tail: Tail, wait_s: float) -> None:
        """Take what has ended. Raises `Stopped` where the instance ends: what ends from there on has not ended by itself."""
        for commit in tail.each(wait_s):
            if len(commit.events) < 3 and any(str(event[0]).startswith("instance-stop") for event in commit.events):
                self._stopping = True
                raise Stopped
            self._take(self._follower.take(commit))

    def look_up(self) -> None:
        """Raises `Stopped` when told to end."""
        if self._is_told_to_end():
            raise Stopped

    # -- members

    def _fill(self, ours: set[str]) -> None:
        """Have enough members here. ours: takes the entries that say so."""
        while len(self._place) < enough(self._slots, self._rate):
            self.look_up()
            if not self._todo:
                if self._dry or (taken := self._record.take(self._me, self._size)) is None:
                    self._dry = True
                    return
                self._put(list(self._record.positions(taken[0])))
            try:
                self._submit(self._todo[0], ours)
            except Unavailable as error:
                if error.code != "full":
                    raise
                time.sleep(FULL_S)  # ends make room, and so does the archive
                return
            self._todo.popleft()

    def _size(self, left: int) -> int:
        return share_size(left, self._children, self._slots, self._rate)

    def _put(self, positions: list[int]) -> None:
        self._todo.extend(positions[at : at + AT_ONCE] for at in range(0, len(positions), AT_ONCE))

    def _submit(self, positions: list[int], ours: set[str]) -> None:
        """All of them; those of commits that were taken leave the list, should a later one be refused."""
        every = tuple(positions)
        jobs = ((self._cut(self._indices[position]), self._env, 16, "") for position in every)
        at = 0
        for ids in self._here.submitter.stream(jobs, 0):
            ours.add(self._here.submitter.last)
            for id, position in zip(ids, every[at:], strict=False):
                self._place[id] = position
                self._follower.waiting[id] = bare_job(id)
            at += len(ids)
            del positions[: len(ids)]

    def _take(self, results: list[JobResult]) -> None:
        ending = self._is_told_to_end()  # so may they be, by whoever tells us
        for one in results:
            position = self._place.pop(one.id)
            if not (ending and interrupted(one)):
                self._rows.append(row_of(one, position))

    def _rate_now(self) -> None:
        now = time.monotonic()
        if (passed := now - self._rated_at) < RATE_S:
            return
        ended = self.count.done + len(self._rows)
        fresh = (ended - self._ended) / passed
        self._rate = fresh if not self._rate else (self._rate + fresh) / 2
        self._ended, self._rated_at = ended, now

    # -- results

    def _is_due(self) -> bool:
        now = time.monotonic()
        gap = telling_gap(self._children, now - self._began)
        return bool(self._rows) and (len(self._rows) >= TOGETHER or now - self._told_at >= gap)

    def _tell_rows(self, last: bool = False) -> None:
        rows, self._rows = self._rows, []
        if rows or last:
            self._tell(Part(self._path, rows), rows)

    def _tell(self, part: Part, rows: list[Ended]) -> None:
        self.count = self.count.plus(rows)._replace(running=len(self._place))
        self._record.report(part, self._me, self._path[2] << 20 | self._told, self.count)
        self._told += 1
        self._told_at = time.monotonic()


def interrupted(job: Job | JobResult) -> bool:
    """Whether a job ended because its instance did. One that had ended with 0 did not, whatever was raised on it then."""
    if job.exception and job.status != 0:
        return job.exception[0] in WITH_INSTANCE
    return job.status is not None and job.status & 0x7F in BY_SIGNAL


def row_of(one: JobResult, position: int) -> Ended:
    """A job's result as that of a member."""
    why = ": ".join(one.exception) if one.exception else ""
    status = -1 if one.status is None else one.status
    return Ended(position, one.id, int(Result[one.result]), status, one.attempt, one.t_run, one.runtime, why)


def slots_of(here: Instance, request: Request) -> int:
    """How many members can run at once on what the child has."""
    nodes = here.state().nodes.values()
    return max(1, sum(node.cores.bit_count() // max(1, request.cores) for node in nodes))


def keep_blobs(here: Instance, blobs: Mapping[str, bytes]) -> None:
    """Have the contents that jobspecs name where they are submitted."""
    for name, data in blobs.items():
        here.store.put_blobs({name: data})
