"""Jobs that wait for others (RFC 26), as the worker knows them: who waits for whom, until when. Pure, no I/O.

Derived from the state: built anew by every worker that begins to plan, kept in step from then on. An end or a start
finds those that wait for it without a look at anybody else. A job that has left the state is asked of the journal
(`asks`, `answer`); whoever waits for it waits meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import islice
from typing import Any

from ..journal.antecedent import UNKNOWN, Antecedent, Find, Unknown, antecedent_of, judge
from ..journal.dependency import DESCRIBED, Dependency, nameless, of_jobspec, read
from ..journal.derive import Group, Step, advance
from ..journal.job import DEPEND, INACTIVE, NEW, Job
from ..journal.state import State
from ..kvs.errors import Rejected
from .singletons import Singletons, name_of

LOOKUPS = 256  # ids asked about at once: each may be a read of a large entry
KEPT = 1000  # answers kept though nobody waits for them now
STALE = 64

Ready = Callable[[Job, Group, float], None]
Dependents = dict[int, dict[int, list[str]]]


class Waiter:
    """One job. deps: what is not met yet, by description. ready: what to judge at the next look."""

    __slots__ = ("deps", "ready")

    def __init__(self, deps: dict[str, Dependency]) -> None:
        self.deps = deps
        self.ready: dict[str, None] = dict.fromkeys(deps)


class Waiting:
    """The index. `state.attention` is where whoever may go on is put. can_run: raises `Rejected` for a job that never can."""

    def __init__(self, state: State, can_run: Callable[[Job], object]) -> None:
        self.state = state
        self.can_run = can_run
        self.waiters: dict[int, Waiter] = {}
        self.on_start: Dependents = {}  # job -> who waits for its start, and by which descriptions
        self.on_end: Dependents = {}
        self.known: dict[int, Antecedent | None] = {}  # what the journal said of jobs that have left the state
        self.recent: dict[int, Antecedent | None] = {}  # the same, though nobody waits for them now
        self.ask: dict[int, None] = {}
        self.asking: set[int] = set()
        self.singletons: Singletons | None = None
        self._clock = 0.0  # a time that has come stays so, whatever the clock does
        self._times: list[tuple[float, int, str]] = []
        self._timed = 0  # entries of _times that somebody waits for

    # -- one job's dependencies -----------------------------------------------------------------------------------

    def step(self, job: Job, now: float, facts: dict[int, Antecedent] | None = None) -> Step | None:
        """What a NEW or DEPEND job's dependencies bring it; None if it has none. One that could never run does not wait first.

        facts: of jobs as they will be once the group under way is in the journal.
        """
        waiter = self.waiters.get(job.id)
        add: list[str] = []
        if waiter is None:
            asked = of_jobspec(job.jobspec)
            if asked is None or (job.state == DEPEND and not job.waiting):
                return None
            if job.state == NEW:
                try:
                    self.can_run(job)
                except Rejected as error:
                    return Step(never=str(error), kind="alloc")
            try:
                deps = {one.description: one for one in read(asked)}
                if "singleton" in deps and not name_of(job):
                    raise nameless()
            except Rejected as error:
                return Step(never=str(error))
            if job.state == NEW:
                add = [*deps]
            else:
                deps = {name: one for name, one in deps.items() if name in job.waiting}
            waiter = Waiter(deps)
            self._register(job.id, waiter)
        return self._judge(job, waiter, add, now, facts)

    def _judge(
        self, job: Job, waiter: Waiter, add: list[str], now: float, facts: dict[int, Antecedent] | None
    ) -> Step:
        met: list[str] = []
        now = max(now, self._clock)
        find = self._find if not facts else _with(facts, self._find)
        ready, waiter.ready = waiter.ready, {}
        for name in ready:
            one = waiter.deps.get(name)
            if one is None:
                continue
            if job.state == DEPEND and name not in job.waiting:  # another worker has said so already
                self._unregister(job.id, name, waiter.deps.pop(name))
                continue
            if one.scheme == "singleton":
                if self._singletons().go(job):
                    met.append(name)
                continue
            verdict = judge(one, job, find, now)
            if verdict.met is False:
                self.forget(job.id)
                return Step(add, met, True, verdict.why)
            if verdict.met:
                met.append(name)
        for name in met:
            self._unregister(job.id, name, waiter.deps.pop(name))
        left = len(waiter.deps) if job.state == NEW else len(job.waiting) - len(met)
        if not waiter.deps:
            self.waiters.pop(job.id, None)
        return Step(add, met, left > 0)

    def _singletons(self) -> Singletons:
        if self.singletons is None:
            self.singletons = Singletons(self.state)
        return self.singletons

    def _find(self, id: int) -> Antecedent | Unknown | None:
        job = self.state.jobs.get(id)
        if job is not None:
            return antecedent_of(job)
        if id in self.recent:
            self.known[id] = self.recent.pop(id)
        if id in self.known:
            return self.known[id]
        if not self.state.retirements:
            return None  # no job has ever left the state
        if id not in self.asking:
            self.ask[id] = None
        return UNKNOWN

    # -- the index ------------------------------------------------------------------------------------------------

    def _register(self, id: int, waiter: Waiter) -> None:
        self.waiters[id] = waiter
        for name, one in waiter.deps.items():
            for leaf in one.leaves():
                if leaf.scheme in DESCRIBED:
                    self.on_end.setdefault(leaf.job, {}).setdefault(id, []).append(name)
                    if leaf.scheme in ("after", "afterstart"):
                        self.on_start.setdefault(leaf.job, {}).setdefault(id, []).append(name)
                elif leaf.scheme == "begin-time":
                    heappush(self._times, (leaf.at, id, name))
                    self._timed += 1

    def _unregister(self, id: int, name: str, one: Dependency) -> None:
        for leaf in one.leaves():
            if leaf.scheme in DESCRIBED:
                _take_out(self.on_start, leaf.job, id, name)
                if _take_out(self.on_end, leaf.job, id, name) and leaf.job in self.known:
                    self._keep(leaf.job, self.known.pop(leaf.job))
            elif leaf.scheme == "begin-time":
                self._timed -= 1

    def _keep(self, id: int, found: Antecedent | None) -> None:
        """An answer that nobody waits for may be asked for again soon."""
        self.recent[id] = found
        if len(self.recent) > KEPT:
            del self.recent[next(iter(self.recent))]

    def forget(self, id: int) -> None:
        """A job does not wait any more, or is to be looked at from the beginning."""
        waiter = self.waiters.pop(id, None)
        if waiter is not None:
            for name, one in waiter.deps.items():
                self._unregister(id, name, one)

    def _wake(self, dependents: dict[int, list[str]]) -> None:
        for id, names in dependents.items():
            waiter = self.waiters.get(id)
            if waiter is not None:
                waiter.ready.update(dict.fromkeys(names))
                self.state.attention[id] = None

    def touched(self, job: Job) -> None:
        """Something happened to a job: whoever waits for that is looked at."""
        if job.id in self.on_start and job.ever_started:
            self._wake(self.on_start.pop(job.id))
        if job.state == INACTIVE and job.id in self.on_end:
            self._wake(self.on_end[job.id])
        if job.id in self.waiters and not job.state & (NEW | DEPEND):
            self.forget(job.id)
        if self.singletons is not None:
            self.singletons.note(job)
            self._wake_singletons(self.singletons)

    def renamed(self, ids: Iterable[int]) -> None:
        """Before any of these is brought forward: whose name is another by now. What was just submitted comes in its order."""
        if self.singletons is None:
            return
        for id in (*ids, *self.state.attention):
            job = self.state.jobs.get(id)
            if job is not None and job.state != NEW:
                self.singletons.note(job)
        self._wake_singletons(self.singletons)

    def _wake_singletons(self, singletons: Singletons) -> None:
        if singletons.woken:
            self._wake({id: ["singleton"] for id in singletons.woken})
            singletons.woken.clear()

    def gone(self) -> None:
        """Jobs have left the state, perhaps before this worker looked at their end: ask the journal about those."""
        jobs = self.state.jobs
        for id in [id for id in self.waiters if id not in jobs]:
            self.forget(id)
        for id, dependents in self.on_end.items():
            if id not in jobs and id not in self.known and id not in self.asking:
                self._wake(dependents)
        if self.singletons is not None:
            self.singletons.forget_gone()
            self._wake_singletons(self.singletons)

    # -- time -----------------------------------------------------------------------------------------------------

    def next(self) -> float:
        """When to look again, 0.0 for never."""
        return self._times[0][0] if self._times else 0.0

    def due(self, now: float) -> None:
        """Wake those whose time has come."""
        times = self._times
        if len(times) > 2 * self._timed + STALE:  # of jobs that were cancelled meanwhile
            waiters = self.waiters
            live = {one for one in times if one[1] in waiters and one[2] in waiters[one[1]].deps}
            self._times = times = sorted(live)
        self._clock = max(self._clock, now)
        while times and times[0][0] <= now:
            _, id, name = heappop(times)
            self._wake({id: [name]})

    # -- jobs of any age ------------------------------------------------------------------------------------------

    def asks(self) -> tuple[int, ...]:
        """Ids to ask the journal about now, a bounded number."""
        if not self.ask:
            return ()
        ids = tuple(islice(self.ask, LOOKUPS))
        for id in ids:
            del self.ask[id]
        self.asking.update(ids)
        return ids

    def answer(self, ids: Iterable[int], jobs: dict[int, Job]) -> None:
        """What the journal said."""
        for id in ids:
            if id in self.asking:
                self.asking.discard(id)
                found = antecedent_of(jobs[id]) if id in jobs else None
                if id in self.on_end:
                    self.known[id] = found
                    self._wake(self.on_end[id])
                else:
                    self._keep(id, found)

    # -- in the same commit ---------------------------------------------------------------------------------------

    def follow(self, group: Group, now: float, room: int, done: set[int], ready: Ready) -> None:
        """Bring on, in this very group, at most `room` jobs that wait for the ends in it, and those that wait for
        theirs: a chain that cannot go on ends in a few commits. done: jobs of which all is said in this pass."""
        jobs = self.state.jobs
        seen: dict[int, dict[str, Any]] = {}
        facts: dict[int, Antecedent] = {}
        at = 0
        while at < len(group.events):
            name, id, _, context = group.events[at]
            at += 1
            if name in ("alloc", "start", "finish", "exception"):
                seen.setdefault(id, {}).setdefault(name, context)
            if name != "clean" or id not in self.on_end or id not in jobs:
                continue
            facts[id] = _ended(antecedent_of(jobs[id]), seen.get(id, {}))
            for other, names in list(islice(self.on_end[id].items(), max(0, room))):
                job = jobs.get(other)
                if job is None or job.state != DEPEND or other in done or other not in self.waiters:
                    continue
                self.waiters[other].ready.update(dict.fromkeys(names))
                group.ready = False
                if advance(job, now, self.step(job, now, facts), group) is not None:
                    done.add(other)
                    room -= 1
                    if group.ready:
                        ready(job, group, now)
        group.ready = False


def _with(facts: dict[int, Antecedent], find: Find) -> Find:
    return lambda id: facts[id] if id in facts else find(id)


def _ended(before: Antecedent, seen: dict[str, Any]) -> Antecedent:
    """A job's facts once these events about it are in the journal, `clean` the last of them."""
    raised = seen.get("exception")
    exception = before.exception or ((raised["type"], raised["note"]) if raised and not raised["severity"] else None)
    status = seen["finish"]["status"] if "finish" in seen else before.status
    return before._replace(
        ended=True, ran=before.ran or "alloc" in seen, started=before.started or "start" in seen, status=status,
        exception=exception,
    )  # fmt: skip


def _take_out(index: Dependents, job: int, id: int, name: str) -> bool:
    """Take one dependency out; whether nobody waits for that job any more."""
    dependents = index.get(job)
    names = dependents.get(id) if dependents is not None else None
    if dependents is None or names is None:
        return False
    if name in names:
        names.remove(name)
    if not names:
        del dependents[id]
    if not dependents:
        del index[job]
    return not dependents
