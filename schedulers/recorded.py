"""A journal as a workload: what came when, what it asked for, how long it held what it got. Pure; reads commits.

Each attempt of a job is a job of the workload; the next one comes when the one before is over, as long after it as it did. What a
job waits for (dependencies, begin-time, its release by a person) stays what it was; what an operator did to nodes and queues is
counted and left out: in the simulation all nodes are up, and all queues started, all the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from statistics import median
from typing import Any

from ..journal import dependency
from ..journal.claims import Claim, from_wire
from ..journal.config import Rules
from ..journal.derive import priority_of
from ..journal.ids import f58
from ..journal.job import ACTIVE, NEW, Job
from ..journal.state import State
from ..journal.summary import summarize
from ..journal.updates import update_paths
from ..journal.wire import Commit
from ..kvs.errors import Rejected
from .request import compile_request
from .workload import After, Begun, Held, Label, Work, Workload, several

ATTEMPT = 1 << 64  # attempts after the first are jobs of numbers above all ids
MOST_GROUPS = 1000
IGNORED = {
    "drain": "drain", "offline": "node that went offline", "queue-stop": "queue stop",
    "resource-define": "inventory change", "config": "config change",
}  # fmt: skip


class _Attempt:
    """One attempt of a job. claims: None before alloc. end: when all was given back, 0.0 before."""

    __slots__ = ("claims", "end", "expiration", "job", "number", "ready", "since", "start")

    def __init__(self, job: _Job, number: int, since: float) -> None:
        self.job, self.number, self.since = job, number, since
        self.ready = self.start = self.end = self.expiration = 0.0
        self.claims: tuple[Claim, ...] | None = None


class _Job:
    """What the journal says of a job. spec: its jobspec, as it was last asked for before it first began."""

    __slots__ = ("attempts", "id", "order", "over", "priority", "released", "spec", "submit", "urgency", "user")

    def __init__(self, id: int, order: int, submit: float, context: Mapping[str, Any]) -> None:
        self.id, self.order, self.submit = id, order, submit
        self.spec: dict[str, Any] = context.get("jobspec") or {}
        self.user = context.get("userid", 0)
        self.urgency = context.get("urgency", 16)
        self.priority, self.released, self.over = priority_of(self.urgency), 0.0, False
        self.attempts = [_Attempt(self, 1, submit)]


class Recorder:
    """Takes the commits of a journal, in order; then `workload` tells.

    state: what the first of them follows on: empty, but where history was pruned. Who had ended by then is not in the workload.
    """

    def __init__(self, state: State | None = None) -> None:
        self.jobs: dict[int, _Job] = {}
        self.last = 0.0
        self.counts: dict[str, int] = {}
        self.changes = 0
        self.resized: set[int] = set()  # jobs that got more nodes, or gave some back, while they ran
        self.starts = 0
        self.pruned = state.version if state is not None else 0
        for job in sorted(state.jobs.values(), key=lambda one: one.order) if state is not None else ():
            if job.state & (ACTIVE | NEW):
                self._known(job)

    def _known(self, job: Job) -> None:
        """A job that was there when the history that is left begins."""
        context = {"jobspec": job.jobspec, "userid": job.userid, "urgency": job.urgency}
        found = self.jobs[job.id] = _Job(job.id, job.order, job.t_submit, context)
        now = found.attempts[0]
        now.ready = job.t_depend
        if job.holds:
            now.claims, now.start, now.expiration = job.claims, job.t_alloc, job.expiration

    def take(self, commit: Commit) -> None:
        """Note what a commit says. Events that make no sense are passed over."""
        self.last = max(self.last, commit.time)
        for index, event in enumerate(commit.events):
            try:
                name, subject, ts, context = event
                if isinstance(subject, int):
                    self._job(name, subject, float(ts), context or {}, commit.version << 24 | index)
                else:
                    self._other(name, str(subject), float(ts), context or {})
            except (LookupError, TypeError, ValueError, AttributeError, Rejected):
                continue

    def _other(self, name: str, subject: str, ts: float, context: Mapping[str, Any]) -> None:
        if name in IGNORED:
            self.counts[name] = self.counts.get(name, 0) + 1
        elif name == "instance-start":
            self.starts += 1
        elif name == "housekeeping-finish" and context.get("final"):
            job = self.jobs.get(int(subject.partition("/")[2]))
            if job is not None:
                done = [one for one in job.attempts if one.end]
                done[-1].end = max(done[-1].end, ts)

    def _job(self, name: str, id: int, ts: float, context: Mapping[str, Any], order: int) -> None:
        if name == "submit":
            self.jobs.setdefault(id, _Job(id, order, ts, context))
            return
        job = self.jobs.get(id)
        if job is None:
            return
        now = job.attempts[-1]
        if name == "alloc" and now.claims is None:
            now.claims, now.start = from_wire(context["claims"]), ts
            now.expiration = float(context.get("expiration", 0.0))
        elif name == "free" and now.claims is not None and not context.get("ranks"):
            now.end = ts
        elif name == "grow" or name == "free":
            self.resized.add(id)
        elif name == "requeue":
            job.attempts.append(_Attempt(job, now.number + 1, ts))
        elif name in ("clean", "invalidate"):
            job.over = True
        elif name == "priority":
            self._priority(job, now, int(context["priority"]), ts)
        elif name == "jobspec-update" and now.claims is None:
            job.spec = update_paths(job.spec, context)

    def _priority(self, job: _Job, now: _Attempt, priority: int, ts: float) -> None:
        if now.claims is not None:
            return
        if not now.ready or not job.priority:
            now.ready = ts
        if priority and not job.priority:
            job.released = ts
        if priority != job.priority and job.priority and priority:
            self.changes += 1
        job.priority = priority

    # -- what comes out of it -------------------------------------------------------------------------------------

    def workload(self, rules: Rules, since: float = -inf, own: bool = True) -> Workload:
        """The jobs that were there at `since`, or came later.

        own: it is simulated on the instance's own inventory: who runs at `since` holds what he did; elsewhere he starts anew.
        """
        found = Workload(begin=since, epoch=True)
        told = _Told()
        ends = [one.end - one.start for job in self.jobs.values() for one in job.attempts if one.end]
        typical = median(ends) if ends else 0.0
        singles: dict[tuple[Any, str], tuple[int, list[int]]] = {}
        for job in sorted(self.jobs.values(), key=lambda one: one.order):
            for attempt in job.attempts:
                if attempt.end and attempt.end <= since:
                    continue
                if attempt.claims is None and (job.over or attempt is not job.attempts[-1]):
                    told.never += 1
                    continue
                if not job.priority and attempt.claims is None:
                    told.held += 1
                    continue
                self._add(found, told, attempt, rules, since, own, typical, singles)
        found.recorded.sort(key=lambda one: (one.start, one.job))
        found.notes = [*told.notes(), *self._ignored(rules)]
        if self.pruned:
            found.notes.insert(0, f"history was pruned up to version {self.pruned}: jobs that had ended by then are not in it")
        if told.guessed:  # it is not over yet: no figures of how it was
            found.recorded = []
        return found

    def _add(
        self, found: Workload, told: _Told, attempt: _Attempt, rules: Rules, since: float, own: bool, typical: float,
        singles: dict[tuple[Any, str], tuple[int, list[int]]],
    ) -> None:  # fmt: skip
        job = attempt.job
        try:
            name, queue, limit, _ = summarize(job.spec)
            request = compile_request(rules.constrained(job.spec, queue) if own and rules.queues else job.spec)
        except (Rejected, LookupError, TypeError, ValueError, AttributeError) as error:
            told.refused[str(error)] = told.refused.get(str(error), 0) + 1
            return
        run = self._length(attempt, limit, typical, told)
        number = job.id if attempt.number == 1 else job.id + (attempt.number - 1) * ATTEMPT
        known = rules.of(queue)
        queue = known.line if known is not None else queue
        priority = job.priority or 16
        label = f58(job.id) + (f" ({attempt.number})" if attempt.number > 1 else "")
        found.labels[number] = Label(label, name, str(job.user))
        if attempt.claims is not None and attempt.start < since:
            told.running += 1
            if own:
                found.held.append(Held(number, attempt.start + run, attempt.expiration, attempt.claims))
                return
            found.works.append(Work(number, attempt.start, attempt.start + run - since, request, limit, 1 << 33, job.order))
            return
        if attempt.number == 1:
            submit, after = self._waits(job, name, singles)
        else:
            before = job.attempts[attempt.number - 2]
            waited = max(0.0, (attempt.ready or attempt.since) - before.end)
            first = job.id if attempt.number == 2 else job.id + (attempt.number - 2) * ATTEMPT
            submit, after = before.end if first not in found.labels else job.submit, ((After(first, delay_s=waited),),)
        submit = max(submit, job.released)
        found.works.append(Work(number, submit, run, request, limit, priority, job.order, queue, after))
        if attempt.end and attempt.claims is not None:
            ready = min(max(submit, attempt.ready), attempt.start)
            found.recorded.append(Begun(number, ready, attempt.start, attempt.end, attempt.claims, False))

    def _waits(
        self, job: _Job, name: str, singles: dict[tuple[Any, str], tuple[int, list[int]]]
    ) -> tuple[float, tuple[tuple[After, ...], ...]]:
        """(when it comes at the earliest, what it waits for)."""
        system = (job.spec.get("attributes") or {}).get("system") or {}
        submit, groups, single = job.submit, list[tuple[After, ...]](), False
        for one in _read(system.get("dependencies")):
            if one.scheme == "begin-time":
                submit = max(submit, one.at)
            elif one.scheme == "singleton":
                single = True
            else:
                groups += _groups(one)
        key = (job.user, name)
        last, others = singles.get(key, (0, []))
        if single:  # the one before it, which itself waits for all before that, and those since then
            groups += [(After(id),) for id in ([last] if last else []) + others]
            singles[key] = (job.id, [])
        else:
            singles[key] = (last, [*others[-MOST_GROUPS:], job.id])
        return submit, tuple(tuple(map(self._last_attempt, group)) for group in groups)

    def _last_attempt(self, after: After) -> After:
        """It is the end of a job's last attempt that others wait for."""
        job = self.jobs.get(after.job)
        more = len(job.attempts) - 1 if job is not None and not after.start else 0
        return after._replace(job=after.job + more * ATTEMPT) if more else after

    def _length(self, attempt: _Attempt, limit: float, typical: float, told: _Told) -> float:
        """How long it holds what it gets; supposed, where it has not happened yet."""
        if attempt.end:
            return attempt.end - attempt.start
        told.guessed += 1
        elapsed = self.last - attempt.start if attempt.claims is not None else 0.0
        if limit:
            told.by_limit += 1
        return max(elapsed, limit or typical)

    def _ignored(self, rules: Rules) -> list[str]:
        """What the simulation does not know of."""
        some = []
        for name, noun in IGNORED.items():
            number = self.counts.get(name, 0) - (name == "resource-define")
            if name == "config":
                number -= 1
            if number > 0:
                some.append(_nodes(number) if name == "offline" else several(number, noun))
        found = []
        if self.starts > 1:
            some.append(several(self.starts - 1, "restart"))
        if self.changes:
            found.append(f"{several(self.changes, 'change')} of urgency: the last one counts from the beginning")
        if self.resized:
            found.append(f"{several(len(self.resized), 'job')} that grew or shrank: taken to hold all the time what it began with")
        if some:
            found.append(f"not simulated: {', '.join(some)}; all nodes are up and all queues started all the time")
        limits = any(rules.running_limits(name) for name in rules.names)
        return [*found, "not simulated: limits on running jobs per user"] if limits else found


def _nodes(number: int) -> str:
    return f"{number:,} node{'' if number == 1 else 's'} that went offline"


class _Told:
    """What was left out or supposed."""

    def __init__(self) -> None:
        self.never = self.held = self.running = self.guessed = self.by_limit = 0
        self.refused: dict[str, int] = {}

    def notes(self) -> list[str]:
        found = []
        if self.never:
            found.append(f"{several(self.never, 'job')} that ended without having begun left out")
        if self.held:
            found.append(f"{several(self.held, 'held job')} left out")
        for why, number in self.refused.items():
            found.append(f"{several(number, 'job')} left out: {why}")
        if self.by_limit:
            found.append(f"{several(self.by_limit, 'job')} not over yet: taken to run for their limit")
        if self.guessed > self.by_limit:
            some = several(self.guessed - self.by_limit, "job")
            found.append(f"{some} not over yet and without a limit: taken to run for the median of the others")
        if self.running:
            found.append(f"{several(self.running, 'job')} running at the beginning")
        return found


def _read(dependencies: Any) -> list[dependency.Dependency]:
    """What nobody understands is no dependency: the worker has refused it."""
    try:
        return dependency.read(dependencies) if dependencies else []
    except Rejected:
        return []


def _groups(one: dependency.Dependency) -> list[tuple[After, ...]]:
    """A dependency as groups, of each of which one must be met. How a job ended is not asked: this one could begin, after all."""
    if one.scheme == "all":
        return [group for part in one.parts for group in _groups(part)]
    if one.scheme == "any":
        found: list[tuple[After, ...]] = [()]
        for part in one.parts:
            if part.scheme == "begin-time":
                return []
            found = [(*group, *other) for group in found for other in _groups(part)][:MOST_GROUPS]
        return found
    if one.scheme == "begin-time":
        return []
    return [(After(one.job, one.scheme in ("after", "afterstart")),)]

