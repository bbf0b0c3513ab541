"""The journal over a store: load, replay, append, follow. The one impure module here; decides nothing.

Readers never ask the worker: any process folds snapshot and tail.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from ..kvs.epochs import anchor, given_up, is_anchored
from ..kvs.errors import Conflict, Corrupt, FluxkvError, Rejected, Unavailable
from ..kvs.port import Answer, Appended, Conflicted, StaleEpoch, Store
from . import snapshot as snapshots
from .blocks import LazyJobs
from .columns import Sieve, Wanted
from .cron import CronTable
from .decide import Decision, together
from .decide import make_append as make_append
from .history import History
from .ids import f58
from .job import INACTIVE, Job
from .newest import NewestSnapshot
from .retired import records, versions_of
from .state import State
from .unreadable import READ, Reader
from .wire import Commit, Event, well_formed

TOGETHER = 2_000  # decisions that share a commit


@contextmanager
def no_collection() -> Iterator[None]:
    """Building a state makes many objects and no garbage; looking through them again and again doubles its time."""
    import gc

    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class Folded(Protocol):
    """What a journal is folded into: a `State`, or a part of one."""

    version: int
    epoch: int
    tail: bytes

    def apply(self, commit: Commit) -> object: ...


_F = TypeVar("_F", bound=Folded)


class Journal:
    """An instance's journal. `by` names the caller in each header ("cli", "worker", ...).

    patience_s: how long a write waits for somebody to take up the history of a restarted server.
    warn: called with what is wrong and does not stop a reader. base: the snapshot to begin with.
    cron: the cron entry on whose behalf this process writes (it is part of a job that entry started), 0 for none.
    """

    def __init__(self, store: Store, by: str = "", cron: int = 0) -> None:
        self.store = store
        self.by = by
        self.cron = cron
        self.patience_s = 5.0
        self.history = History(store)
        self.reader = Reader(self.history.read)
        self.warn: Callable[[str], object] = lambda text: None
        self.base = NewestSnapshot(store, lambda text: self.warn(text))
        self.meta = store.meta()

    # -- reading --------------------------------------------------------------------------------------------------

    def commits(self, after: int = 0, until: int | None = None) -> Iterator[Commit]:
        """Commits with after < version <= until, in order, checked one by one."""
        return self.reader.commits(after, until)

    def following(self, state: Folded) -> Iterator[Commit]:
        """Commits after those that were folded. Raises `Corrupt(code="forked")` if the journal has others up to there: it lost
        history, and has perhaps grown again."""
        if not state.version:
            return self.commits()
        entries = self.store.read(state.version - 1, READ)
        if not entries or entries[0].version == state.version:
            known = anchor(state.version, state.epoch, state.tail)
            if not entries or (not is_anchored(entries[0], known) if known else entries[0].epoch != state.epoch):
                there = f"is {entries[0].id} there" if entries else "ends before"
                raise Corrupt(
                    f"what was read up to version {state.version}-{state.epoch} is not this journal, which {there}: it lost "
                    "history", code="forked", hint="read it anew; fluxkv ops adopt says what is lost",
                )  # fmt: skip
            return self.reader.commits(state.version, None, entries[1:], READ - 1)
        return self.commits(state.version)  # the entry itself has been archived and trimmed

    def load(self, judge: Callable[[Any, Commit], object] | None = None) -> State:
        """The live state, to go on from: newest snapshot, its digest checked, then the tail, each commit of which `judge` sees."""
        with no_collection():
            return self._up_to_date(self.base.whole() or State(), judge)

    def look(self) -> State:
        """The live state, to look at: as `load`, but inactive jobs are unpacked when asked for, and checksums suffice."""
        with no_collection():
            return self._up_to_date(self.base.lazy() or State())

    def load_cron(self) -> CronTable:
        """The cron table alone, live: from the newest snapshot's, then the tail."""
        return self._up_to_date(self.base.cron() or CronTable())

    def _up_to_date(self, state: _F, judge: Callable[[Any, Commit], object] | None = None) -> _F:
        try:
            self.catch_up(state, judge)
        except FluxkvError as error:
            if self.base.damaged is None or error.code not in ("version-gap", "archive", "bad-chain") or state.version:
                raise
            raise Corrupt(f"{self.base.damaged}, and nothing is left to make it anew: {error}", code="bad-snapshot",
                          hint=error.hint) from None  # fmt: skip
        return state

    def catch_up(self, state: Folded, judge: Callable[[Any, Commit], object] | None = None) -> int:
        """Apply what came since, judged before it is; the number of commits."""
        before = state.version
        for commit in self.following(state):
            if judge is not None:
                judge(state, commit)
            state.apply(commit)
        return state.version - before

    def at(self, version: int | None = None, moment: float | None = None) -> State:
        """The state as of a version, or of a server time (Unix seconds), folded from the first commit.

        From the newest snapshot where an entry before it cannot be read; a moment before that snapshot is out of reach then.
        """
        with no_collection():
            state = self.history.begin(version, moment)
            try:
                return self._fold(state, version, moment)
            except Corrupt:
                newer = self.base.whole()
                if newer is None or newer.version <= state.version or (version is not None and version < newer.version) or (
                    moment is not None and moment < newer.time
                ):
                    raise
                self.warn(f"versions {state.version + 1} to {newer.version} are taken from the snapshot: one cannot be read")
                return self._fold(newer, version, moment)

    def _fold(self, state: State, version: int | None, moment: float | None) -> State:
        for commit in self.commits(state.version, version):
            if moment is not None and commit.time > moment:
                break
            state.apply(commit)
        return state

    def snapshot(self) -> State | None:
        """The newest snapshot as a state, its digest checked, or None. Raises `Corrupt` where `load` does without it."""
        return self.base.read()

    def save_snapshot(self, state: State) -> bool:
        """Install a snapshot of this state; False if the epoch has changed meanwhile."""
        head, chunks = snapshots.dump(state)
        there = anchor(state.version, state.epoch, state.tail)
        return self.store.install_snapshot(self.meta.uid, self.meta.epoch, head, chunks, there, state.version)

    def story(self, versions: Sequence[int], subject: int | str | None = None) -> list[tuple[Commit, Event]]:
        """The events in these commits, those about `subject` only when it is given."""
        found = []
        entries = self.history.entries(versions)
        if len(entries) < len(versions):
            self.warn(f"{len(versions) - len(entries)} of the commits looked for are no more in the journal: they were pruned")
        for entry in entries:
            commit = self.reader.commit(entry)
            for event in well_formed(commit.events):
                if subject is None or event[1] == subject:
                    found.append((commit, Event(*event)))
        return found

    def find_jobs(self, state: State, ids: Iterable[int]) -> dict[int, Job]:
        """The records of these jobs, of any age, live or retired, in the order asked; those that never were are left out.

        A retired job costs the reading of the few events that may hold it, however long the journal is.
        """
        wanted = list(ids)
        found = {id: state.jobs[id] for id in wanted if id in state.jobs}
        lost = [id for id in wanted if id not in found]
        if lost and state.retirements:
            for version, some in versions_of(state.retirements, lost).items():
                found.update(self._retired_in(version, some))
        return {id: found[id] for id in wanted if id in found}

    def known_jobs(self, state: State, ids: Iterable[int]) -> list[Job]:
        """As `find_jobs`, in a list. Raises `Rejected(code="no-such-job")` for one that never was."""
        wanted = list(ids)
        found = self.find_jobs(state, wanted)
        for id in wanted:
            if id not in found:
                raise no_such_job(id)
        return [found[id] for id in wanted]

    def find_job(self, state: State, id: int) -> Job:
        """One job's record, live or retired. Raises `Rejected(code="no-such-job")` if there never was one."""
        return self.known_jobs(state, [id])[0]

    def newest(
        self, state: State, count: int, keep: Callable[[Job], bool], since: float = 0.0, sieve: Sieve | None = None
    ) -> list[Job]:
        """The `count` jobs (0: all) that ended last among those to keep, the last first; reads no further back than that.

        sieve: lets all of them through, and spares the making of most other records.
        """
        found: dict[int, Job] = {}
        for t_last, read in self._ended_lists(state):
            if count and len(found) >= count:
                found = _first(found, _ended_last, count)
                if next(reversed(found.values())).t_inactive > t_last:
                    break
            if t_last < since:
                break
            found.update((job.id, job) for job in read(sieve) if keep(job))
        return list(_first(found, _ended_last, count).values())

    def _ended_lists(self, state: State) -> list[tuple[float, Callable[[Wanted], list[Job]]]]:
        """(when its last one ended, what reads it) of each list of inactive jobs, in falling order."""
        jobs = state.jobs
        unpacked = jobs.unpacked() if isinstance(jobs, LazyJobs) else jobs.values()
        loose = [job for job in unpacked if job.state == INACTIVE]
        lists: list[tuple[float, Callable[[Wanted], list[Job]]]] = []
        if loose:
            lists.append((max(job.t_inactive for job in loose), lambda wanted: loose))
        if isinstance(jobs, LazyJobs):
            lists += [(block.t_last, block.jobs) for block in jobs.blocks]
        ends: dict[int, float] = {}
        for line in state.retirements:  # a commit may have several such events
            ends[line[0]] = max(line[3], ends.get(line[0], line[3]))
        lists += [(t_last, partial(self._retired_list, state, version)) for version, t_last in ends.items()]
        return sorted(lists, key=lambda one: one[0], reverse=True)

    def last_submitted(self, state: State, count: int, keep: Callable[[Job], bool]) -> list[Job]:
        """The `count` jobs (0: all) submitted last among those to keep, the last first, of any age.

        Ids rise with the time of submission, so nothing is read whose ids are all below those found.
        """
        jobs = state.jobs
        lists: list[tuple[int, Callable[[], list[Job]]]] = []
        unpacked = jobs.unpacked() if isinstance(jobs, LazyJobs) else jobs.values()
        found = {job.id: job for job in unpacked if keep(job)}
        if isinstance(jobs, LazyJobs):
            lists += [(max(block.ended), block.jobs) for block in jobs.blocks]
        highest: dict[int, int] = {}
        for line in state.retirements:
            highest[line[0]] = max(*line[5::2], highest.get(line[0], 0))
        lists += [(id, partial(self._retired_list, state, version)) for version, id in highest.items()]
        for last_id, read in sorted(lists, key=lambda one: one[0], reverse=True):
            if count and len(found) >= count:
                found = _first(found, _submitted_last, count)
                if next(reversed(found.values())).id > last_id:
                    break
            found.update((job.id, job) for job in read() if keep(job))
        return list(_first(found, _submitted_last, count).values())

    def _retired_list(self, state: State, version: int, wanted: Wanted = None) -> list[Job]:
        """Two that retire the same jobs at once both have their records: what is still there is not among the retired."""
        return [job for id, job in self._retired_in(version, wanted).items() if id not in state.jobs]

    def _retired_in(self, version: int, wanted: Wanted = None) -> dict[int, Job]:
        """The jobs (only the wanted ones) that left the state in this commit."""
        found: dict[int, Job] = {}
        for _, event in self.story([version], "instance"):
            if event.name != "retire" or event.context is None:
                continue
            some = records(event.context, wanted)
            if some is None:  # of a program that kept no records there: fold up to the commit before
                only = set(event.context["jobs"])
                if wanted is not None and not isinstance(wanted, Sieve):
                    only.intersection_update(wanted)
                jobs = self.at(version - 1).jobs if only else {}
                some = {id: jobs[id] for id in event.context["jobs"] if id in only and id in jobs}
            found.update(some)
        return found

    # -- writing --------------------------------------------------------------------------------------------------

    def append(self, decision: Decision, decided_at: int, there: str = "") -> Answer:
        """One try. `Conflicted` and the rest are the caller's to answer. there: anchor of the entry at `decided_at`, if known."""
        return self.store.append(make_append(self.meta, decision, decided_at, extra=self.extra(), there=there))

    def extra(self) -> dict[str, Any]:
        """Who writes, for the header."""
        found: dict[str, Any] = {"by": self.by} if self.by else {}
        if self.cron:
            found["cron"] = self.cron
        return found

    def settle(self, decide: Callable[[State], Decision], state: State | None = None, tries: int = 50) -> Appended:
        """Decide against the state (now, if none is given) and append, deciding again as long as the premises move.

        Raises `Rejected` from `decide`, `Conflict` when it never settles, `Corrupt` when history forked.
        """
        if state is not None:
            return self.settle_in(state, decide, tries)
        while True:
            state = self.look()
            try:
                return self.settle_in(state, decide, tries)
            except Corrupt as error:
                if error.code != "forked" or not given_up(self.store.meta().epochs, state.version, state.epoch):
                    raise  # else what is left has been adopted meanwhile: decide on that

    def settle_in(self, state: _F, decide: Callable[[_F], Decision], tries: int = 50) -> Appended:
        """As `settle`, against whatever has been folded from this journal."""
        for _ in range(tries):
            decision = decide(state)
            if not decision.events:
                return Appended(state.version, state.epoch)
            answer = self.append(decision, state.version, anchor(state.version, state.epoch, state.tail))
            if isinstance(answer, Appended):
                return answer
            self.cope(answer)
            self.catch_up(state)
        raise Conflict("others keep changing the same things", hint="try again")

    def settle_each(
        self, decide: Callable[[State], Iterable[Decision]], state: State | None = None, tries: int = 50
    ) -> list[Any]:
        """As `settle`, for many decisions that stand each for itself, named by the first thing it guards; the events that went in.

        Where the premises of some have moved the others go in at once, in halves (what moves in a flood stands together, at the
        head of the line), and only those are decided again: jobs that begin and end all the time keep nobody from cancelling
        ten thousand of them.
        """
        state = state if state is not None else self.look()
        said: list[Any] = []
        done: set[str] = set()
        for _ in range(tries):
            left = [one for one in decide(state) if one.since[0] not in done]
            batches = [left[start : start + TOGETHER] for start in range(0, len(left), TOGETHER)]
            moved = False
            while batches:
                some = batches.pop()
                decision = together(some)
                answer = self.append(decision, state.version)
                if isinstance(answer, Appended):
                    said += decision.events
                    done.update(one.since[0] for one in some)
                    continue
                moved = True
                self.cope(answer)
                if not isinstance(answer, Conflicted):
                    break
                things = set(answer.things)
                some = [one for one in some if things.isdisjoint(one.since)]
                half = (len(some) + 1) // 2
                batches += [part for part in (some[:half], some[half:]) if part]
            if not moved:
                return said
            self.catch_up(state)
        raise Conflict("others keep changing the same things", hint="try again")

    def cope(self, answer: Answer) -> None:
        """After an answer that is not OK: re-read the identity if the epoch moved; raise if it can not be mended."""
        if isinstance(answer, StaleEpoch):
            deadline = time.monotonic() + self.patience_s  # the keeper is about to take up a restarted server's history
            before = self.meta.epoch  # the answer names the server's, which may be the new one already
            self.meta = self.store.meta()
            while self.meta.epoch == before and time.monotonic() < deadline:
                time.sleep(0.02)
                self.meta = self.store.meta()
            if self.meta.epoch == before:
                raise Unavailable(
                    "the server was restarted and its history has not been taken up again",
                    code="epoch",
                    hint="fluxkv status shows whether the keeper is alive; fluxkv start --state-dir DIR brings it up",
                )
        elif not isinstance(answer, Conflicted | Appended):
            raise Corrupt(f"unexpected answer {answer}", code="protocol")


def _first(jobs: dict[int, Job], key: Callable[[Job], Any], count: int) -> dict[int, Job]:
    """The first `count` (0: all) by a key, in its order."""
    ordered = sorted(jobs.values(), key=key)
    return {job.id: job for job in (ordered[:count] if count else ordered)}


def _ended_last(job: Job) -> tuple[float, int]:
    return -job.t_inactive, -job.order


def _submitted_last(job: Job) -> int:
    return -job.order


def no_such_job(id: int) -> Rejected:
    """The error for an id that no job has."""
    return Rejected(f"job {f58(id)}: no such job", code="no-such-job", hint="fluxkv jobs -a lists them")
