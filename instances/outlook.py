"""What is to come, as far as a folded state tells: who begins when, what is reserved for whom, why the others wait. Pure.

Made when somebody asks, and stored nowhere (`schedulers/forecast.py` says what is assumed). The policy is the instance's own; one
that is not installed here, or fails, gives no estimates, and `Outlook.fault` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import takewhile

from ..journal.ids import f58
from ..journal.job import RUN, Job
from ..journal.sched_config import SchedulerRules
from ..journal.state import State
from ..kvs.errors import Rejected
from ..schedulers.backfill import Backfill
from ..schedulers.fcfs import Fcfs
from ..schedulers.forecast import Forecast, Rough, Start, forecast
from ..schedulers.policy import Code, Decision, Pending, Policy, Wait, load_policy
from ..schedulers.request import Request
from ..schedulers.resources import Pool
from ..schedulers.timeline import Span, length_of, overlap
from .plan_inputs import Kind, feeds_of, holders_of, line_of, lines_of, pool_of
from .queue_policies import QueuePolicies
from .turns import Feed, in_turns

DEPTH = 1_000  # jobs of each queue's line that are looked at
ROUGH = Rough(DEPTH)
NOTHING = Forecast({}, {}, {}, True)
ENDLESS = "no job's end will make it fit"
LASTING = (Code.DRAINED, Code.NODE_DOWN, Code.UNSATISFIABLE)  # what time alone does not mend


def policy_name(state: State, queue: str = "") -> str:
    """The policy by which an instance plans, or one of its queues."""
    rules = state.rules.of(line_of(state, queue)) if queue else None
    return rules.scheduler.named(state.instance) if rules is not None else SchedulerRules().named(state.instance)


class Outlook:
    """Made once for a state. wanted: ids of jobs whose start is asked for; None: all. spent, hurry: as `forecast` asks them.

    fault: why there are no estimates at all, "" if there may be some. limited: job -> the number of running jobs that holds up
    those of its user. looked_at: the jobs that were planned. ended: those that run and ended before they got more.
    """

    def __init__(
        self, state: State, now: float, wanted: Collection[int] | None = None, spent: Callable[[], bool] = lambda: False,
        hurry: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self.state = state
        self.now = now
        self.fault = ""
        self.limited: dict[int, str] = {}
        self.looked_at: Collection[int] = ()
        self.ended: Collection[int] = ()
        self.forecast = NOTHING
        try:
            queues = _Lines(state, load_policy(policy_name(state)), spent, now)
            pool = pool_of(state)
            pool.promised = queues.kept()
            self.forecast = forecast(
                queues, pool, holders_of(state), now, wanted=wanted, spent=spent,
                hurry=lambda: queues.backfilled and hurry(),
            )  # fmt: skip
            self.limited, self.looked_at, self.ended = queues.limited, queues.entries.keys(), queues.ended
        except Rejected as error:
            self.fault = str(error)
        except Exception as error:  # a policy may be a plug-in, and fail in any way
            self.fault = f"no plan can be made by policy {policy_name(state)}: {type(error).__name__}: {error}"

    def start(self, job: Job) -> Start | None:
        """When and where a pending job is expected to begin, or one that runs to get more; None: nobody can say (`why_none`)."""
        found = self.forecast.starts.get(job.id)
        return found if found is not None and not self._too_late(job.id, found) else None

    def _too_late(self, id: int, start: Start) -> bool:
        """Whether the instance has ended by then, or a job that runs and waits for more has."""
        job = self.state.jobs.get(id)
        ends = job.expiration if job is not None and job.state == RUN else 0.0
        return any(end and start.time >= end for end in (self.state.expiration, ends))

    def wait(self, job: Job) -> Wait | None:
        """What a plan of this moment says of it, None if it says nothing."""
        return self.forecast.waits.get(job.id)

    def why_none(self, job: Job) -> str:
        """Why there is no estimate for a job that is in line."""
        if self.fault:
            return self.fault
        wait = self.wait(job)
        if wait is not None and wait.code in LASTING:
            return ENDLESS
        if job.id not in self.looked_at:
            return f"more than {DEPTH:,} jobs are in its line"
        if job.id in self.ended or (job.state == RUN and job.id in self.forecast.starts):
            return "it ends before, at its time limit"
        if job.id in self.forecast.starts:
            return "the instance ends before"
        if job.id in self.forecast.endless or self.forecast.whole:
            endless = self._endless(job)
            if endless:
                more = f" and {len(endless) - 3} more" if len(endless) > 3 else ""
                names = ", ".join(map(f58, endless[:3])) + more
                return f"it waits for {names}, which {'has' if len(endless) == 1 else 'have'} no time limit"
            return "it waits for jobs without a time limit"
        return "too many jobs end and begin before it"

    def _endless(self, job: Job) -> list[int]:
        """Who holds, without a limit, what the job would get; of all that do so if that is not known."""
        claims = self.forecast.endless.get(job.id)
        found = [holder for holder, end, _ in holders_of(self.state) if not end]
        return [id for id in found if overlap(self.state.jobs[id].claims, claims)] if claims is not None else found

    def reservations(self) -> list[tuple[int, Start]]:
        """(job, when and where) of what the plan of this moment keeps for jobs that wait, the earliest first."""
        kept = [(job, start) for job, start in self.forecast.starts.items() if start.reserved and not self._too_late(job, start)]
        return sorted(kept, key=lambda pair: (pair[1].time, pair[0]))


class _Lines:
    """The queues of a state, as the play goes on: see `schedulers.forecast.Queues`. limited: who is held up by a number of jobs."""

    def __init__(self, state: State, policy: Policy, spent: Callable[[], bool], now: float) -> None:
        self.state = state
        self.spent = spent
        self.policies = QueuePolicies(policy)
        self.policies.choose(state)
        self.kinds = lines_of(state, DEPTH, now)
        self.entries = {entry.job: entry for _, _, line in self.kinds for entry in line}
        #: Those that run and wait for more, as long as they do run.
        self.growing = {job for job in self.entries if state.jobs[job].state == RUN}
        self.ended: set[int] = set()
        self.limited: dict[int, str] = {}
        self.never: set[int] = set()  # jobs that are stepped over, since they fit no inventory of ours
        self._gone: set[int] = set()
        self._more: dict[tuple[str, int], int] = {}  # (scope, user) -> running jobs beside those of the state
        self._feeds: list[Feed] = []
        #: Whether a policy here makes reservations, so that a rough plan makes more of them.
        self.backfilled = any(isinstance(self.policies.of(line_of(state, kind[0])), Backfill) for kind in self.kinds)

    def plan(self, pool: Pool, now: float, rough: bool = False) -> Iterator[Decision | None]:
        """As a worker's plan."""
        def planned(feed: Feed) -> Iterator[Decision | None]:
            policy = self.policies.of(feed.queue)
            return (ROUGH if rough and isinstance(policy, Backfill) else policy).plan(self._in_time(feed), pool, now)

        first = not self._feeds
        left: list[Kind] = [(queue, user, [one for one in line if one.job not in self._gone]) for queue, user, line in self.kinds]
        self.kinds = [kind for kind in left if kind[2]]
        self._feeds = feeds_of(self.state, self.kinds, self._full, now)
        for decision in in_turns(self._feeds, planned):
            if isinstance(decision, Wait) and decision.code == Code.UNSATISFIABLE:
                self.never.add(decision.job)
            yield decision
        if first:
            self.limited = {entry.job: why for feed in self._feeds for entry, why in feed.limited}

    def _in_time(self, feed: Feed) -> Iterator[Pending]:
        """As long as there is time: a plan may look at very many jobs before it has anything to say."""
        return takewhile(lambda _: not self.spent(), feed)

    def kept(self) -> dict[int, Span]:
        """What the worker has said of those who would fit now and keep the time that they were told: it alone remembers on what."""
        found = {}
        for job, entry in self.entries.items():
            told = self.state.jobs[job].reason[2:]
            if told:
                found[job] = Span(told[0], told[0] + length_of(entry.duration_s), job, ())
        return found

    def begins(self, job: int, at: float) -> float:
        """It counts as its user's from now on. What runs and gets more ends when it would have without."""
        self._gone.add(job)
        if job in self.growing:
            return self.state.jobs[job].expiration
        self._count(job, 1)
        lasts = self.entries[job].duration_s
        return at + lasts if lasts else 0.0

    def ends(self, job: int) -> bool:
        """It does no more."""
        waited = job in self.growing and job not in self._gone
        if job in self.growing:
            self.growing.remove(job)
        elif job in self.entries and self.state.jobs[job].state == RUN:
            return False  # its other half has said so
        if waited:
            self._gone.add(job)
            self.ended.add(job)
        self._count(job, -1)
        return waited

    def _count(self, id: int, by: int) -> None:
        job = self.state.jobs.get(id)
        if self.state.usage is not None and job is not None and (by > 0 or job.holds or id in self._gone):
            for scope, _ in self.state.rules.running_limits(job.queue):
                self._more[scope, job.userid] = self._more.get((scope, job.userid), 0) + by

    def _full(self, queue: str, user: int) -> str:
        usage = self.state.usage
        return usage.running_full(queue, user, self._more) if usage is not None else ""

    def requests(self) -> Collection[Request]:
        """What those that are left ask for, each once; of each line's first if nobody overtakes."""
        found: dict[bytes, Request] = {}
        for queue, _, line in self.kinds:
            strict = type(self.policies.of(line_of(self.state, queue))).plan is Fcfs.plan
            if self.state.may_start(queue):
                for entry in line:
                    if entry.job in self._gone:
                        continue
                    found.setdefault(entry.request.key, entry.request)
                    if strict and entry.job not in self.never:
                        break
        return list(found.values())
