"""The worker's choices: pool, line of pending jobs, allocation, slot grants ahead. Pure; proposes groups of events.

The pool is a function of the state: nodes touched by the fold are copied into it before each plan. What a plan takes and
gives is provisional until its commit is in; ranks of groups that did not make it are copied again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from operator import is_not
from typing import Any

from ..journal.claims import Claim, to_wire
from ..journal.config import no_such_queue
from ..journal.derive import Group
from ..journal.derive_scripts import start_event
from ..journal.holding import pools_of, word_of, words_of
from ..journal.job import RUN, Job
from ..journal.resizing import growth_of
from ..journal.retry import fenced
from ..journal.scripts import NO_SCRIPTS, PROLOG
from ..journal.state import State
from ..kvs.errors import Rejected
from ..schedulers.explain import explain
from ..schedulers.policy import Code, Pending, Place, Policy, Reserve, Wait
from ..schedulers.request import Request
from ..schedulers.resources import Pool
from .ahead import granted_on, room_ahead
from .bench import Bench
from .checked import Checked
from .commits import premises
from .growing import grown, withdrawn
from .layout import needs_claims
from .line import ANY, Lines
from .orders import launch_orders, shape_of
from .placement import copy_held, copy_node
from .plan_inputs import compiled, entry_of, feeds_of, holders_of, usable_pool, user_of_line
from .queue_policies import QueuePolicies
from .script_orders import script_orders
from .turns import Feed
from .underway import Slice, Underway

LINGERED_S, STUCK_S, REASON_AFTER_S, TIME_AGAIN_S = 0.3, 5.0, 0.25, 10.0
SHAPES = 10_000  # distinct requests remembered


class Planner:
    """Keeps pool and line in step with a state, and plans."""

    def __init__(self, state: State, policy: Policy) -> None:
        self.state = state
        self.policies = QueuePolicies(policy)
        self.pool = Pool([])
        self.lines = Lines()
        self.parked: set[int] = set()  # pending jobs that could not run on this inventory under this config
        self.more: dict[tuple[str, int], int] = {}  # (scope, user) -> running jobs this plan has added
        self.resync: set[int | str] = set()
        self.spoiled = False  # the pool is to be made anew
        self.leaving: set[int] = set()  # nodes that this pass takes offline
        self.given: dict[int, Sequence[Claim]] = {}  # job -> what this pass gives back of it
        self.nonsense = ""  # why the last plan was broken off
        self.bench = Bench()
        self.runtime: dict[str, float] = {}  # shape -> typical run time of its jobs, seconds
        self.seats: dict[tuple[int, str], int] = {}  # (rank, shape) -> jobs holding claims there
        self.shapes: dict[bytes, str] = {}
        self.checked = Checked()
        self.seat_by_job: dict[int, tuple[str, list[int]]] = {}  # job -> (shape, ranks where its seat counts)
        self.first_waits: dict[int, float] = {}  # job -> when a plan first had to leave it
        self.said: dict[int, tuple[str, str, float, float]] = {}  # job -> (code, blocking, its time or 0) last journalled, when
        self.fresh: set[tuple[int, str]] = set()  # (rank, shape) of allocations made by this plan
        self.say_at = 0.0  # when somebody's reason is due, or a time that was kept, 0.0 if nobody's is
        self.ahead: dict[int, tuple[int, str, float]] = {}  # job placed ahead -> (rank, shape, since when)
        self.last_end: dict[tuple[int, str], float] = {}  # (rank, shape) -> when a job there was last heard to be over
        self.stuck: dict[tuple[int, str], float] = {}  # where a job placed ahead waited in vain -> no more of it until then
        self.ahead_count: dict[tuple[int, str], int] = {}
        self.underway: Underway | None = None  # a plan that was interrupted
        self.begun = 0  # how many plans in a row were begun and not gone on with
        self.unfinished = False  # it was interrupted, or something that it did not see came free, or somebody came, meanwhile
        self.clock: Callable[[], float] | None = None  # without one plans are not interrupted
        self._made_of: tuple[Any, Any, Any] = (None, None, None)  # inventory, config and graph of the pool

    # -- in step with the state -----------------------------------------------------------------------------------

    def sync(self, ranks: Iterable[int]) -> bool:
        """Copy nodes into the pool; all of them when the inventory or the config has changed, and then True: look at all
        pending jobs anew."""
        state = self.state
        self.given.clear()
        self.unfinished = False
        self.leaving.clear()
        now = state.R, state.config_entry, state.graph
        changed = any(map(is_not, now, self._made_of))
        news: set[int | str] = {*self.resync, *ranks, *map(word_of, state.drawn_news)}
        if self.underway is not None:
            if not (changed or self.spoiled or self.resync or self.underway.falsified(self, news)):
                return False
            self.start_over()
        words: Iterable[int | str] = {*self.resync, *news}
        if changed or self.spoiled:
            promised = {} if changed else self.pool.promised
            self._made_of = now
            self.nonsense = self.policies.choose(state) if changed else self.nonsense
            self.pool, why = usable_pool(state)
            self.pool.promised = promised
            self.nonsense = self.nonsense or why
            words = [*state.nodes, *map(word_of, state.drawn)]
        self.say_at = 0.0  # a pass that does not plan has nothing to say: it would be due again at once, and again
        for word in words:
            copy_held(self, word)
        self.resync.clear()
        state.drawn_news.clear()
        self.spoiled = False
        return changed

    def leave(self, groups: list[Group]) -> list[Group]:
        """Nodes that these groups take offline get nothing in this very pass."""
        ranks = {int(event[3]["idset"]) for group in groups for event in group.events if event[0] == "offline"}
        if ranks:
            self.start_over()
        self.leaving |= ranks
        self.resync |= ranks
        for rank in ranks:
            copy_node(self, rank)
        return groups

    def compiled(self, job: Job) -> Request:
        """The job's request, with the constraint of its queue. Raises `Rejected` for what no matcher can do."""
        return compiled(self.state, job)

    def request_of(self, job: Job) -> Request:
        """The job's compiled request. Raises `Rejected` for what cannot be matched here."""
        self.check(job)
        if job.queue not in self.state.queues:
            raise no_such_queue(job.queue, self.state.queues)
        request = self.compiled(job)
        if self.pool.satisfiable(request) is not None:
            raise Rejected(explain(request, self.pool).text, code="unsatisfiable")
        return request

    def infeasible(self, job: Job) -> str:
        """Why it can never run here, "" if it can."""
        try:
            self.request_of(job)
        except Rejected as error:
            return str(error)
        return ""

    def check(self, job: Job) -> None:
        """Refuse what no submit command would have let through: anybody may append to the journal."""
        self.checked.check(job)

    def shape(self, request: Request, job: Job) -> str:
        """The short name of a job's request. Who begins anew elsewhere when its node is cut off has another: on one seat with
        others, who wait for the node, nobody would know by whom it was left to them."""
        found = self.shapes.get(request.key)
        if found is None:
            if len(self.shapes) >= SHAPES:
                self.shapes, self.runtime = {}, {}
            found = self.shapes[request.key] = shape_of(request)
        return f"{found}f" if fenced(job) else found

    def enqueue(self, job: Job, priority: int) -> None:
        """Put a job into the line. Raises `Rejected` if it can never run here."""
        request = self.request_of(job)
        self.line_up(entry_of(job, request, priority), job.queue, job.spec_hash, user_of_line(self.state, job))
        self.parked.discard(job.id)

    def line_up(self, entry: Pending, queue: str, made_of: bytes, user: int = ANY) -> None:
        """Put an entry into its queue's line, that of all users if none is named."""
        if self.underway is not None and not self.underway.came(entry, entry.job in self.lines):
            self.start_over()
        self.lines.add(entry, queue, user, made_of)

    def in_line(self, job: Job) -> bool:
        """Whether a pending job stands where it belongs, as far as a plan needs it (another worker may have changed it)."""
        found = self.lines.get(job.id)
        if found is None:
            return job.id in self.parked
        entry, made_of = found
        return entry.priority == job.priority and made_of == job.spec_hash

    def dequeue(self, id: int) -> None:
        """Take a job out of the line."""
        if self.underway is not None and id in self.lines:
            self.underway.left(id)
        self.lines.remove(id)
        self.parked.discard(id)
        self.said.pop(id, None)
        self.bench.forget(id)
        self.first_waits.pop(id, None)
        if self.pool.promised:
            self.pool.promised.pop(id, None)

    def shape_of(self, id: int) -> str:
        """The shape of a job that holds claims, "" if nobody has counted it."""
        return self.seat_by_job.get(id, ("", ()))[0]

    def unseated(self, id: int) -> None:
        """A job is over, or did not get its claims after all: its seats do not count any more."""
        shape, ranks = self.seat_by_job.pop(id, ("", []))
        for rank in ranks:
            left = self.seats.get((rank, shape), 0) - 1
            if left > 0:
                self.seats[rank, shape] = left
            else:
                self.seats.pop((rank, shape), None)

    def learn(self, shape: str, seconds: float, ranks: Iterable[int], now: float) -> None:
        """Fold one run time into the running average of a shape; its seats there move."""
        for rank in ranks:
            self.last_end[rank, shape] = now
            self.stuck.pop((rank, shape), None)
        old = self.runtime.get(shape)
        self.runtime[shape] = seconds if old is None else old + 0.2 * (seconds - old)

    def ahead_of(self, id: int, rank: int, shape: str, now: float) -> None:
        """A job is placed ahead on a node (and has not taken a seat in this very pass)."""
        if id not in self.ahead and id not in self.seat_by_job:
            self.ahead[id] = (rank, shape, now)
            self.ahead_count[rank, shape] = self.ahead_count.get((rank, shape), 0) + 1

    def forget_ahead(self, id: int) -> str:
        """It is not any more: it took a seat, came back, or is over. Its shape, "" if it was not."""
        rank, shape, _ = self.ahead.pop(id, (0, "", 0.0))
        if shape:
            left = self.ahead_count[rank, shape] - 1
            if left:
                self.ahead_count[rank, shape] = left
            else:
                del self.ahead_count[rank, shape]
        return shape

    def came_back(self, id: int, now: float) -> None:
        """A job is plainly pending again. If it waited in vain for a seat, whoever holds that is not as short as its kind."""
        rank, shape, since = self.ahead.get(id, (0, "", now))
        if now - since > LINGERED_S and self.last_end.get((rank, shape), 0.0) < since:
            self.stuck[rank, shape] = now + STUCK_S
        self.forget_ahead(id)

    def seated(self, job: Job, shape: str, ranks: Iterable[int]) -> None:
        """A job now holds claims: count its seat. A job on several nodes has none that could be taken over whole."""
        if job.id in self.seat_by_job:
            return
        self.forget_ahead(job.id)
        where = found if len(found := list(ranks)) == 1 else []
        self.seat_by_job[job.id] = (shape, where)
        for rank in where:
            self.seats[rank, shape] = self.seats.get((rank, shape), 0) + 1

    # -- planning -------------------------------------------------------------------------------------------------

    def plan(self, now: float, limit: int) -> Iterator[Group]:
        """Groups for the next commit: allocations, then grants ahead, and the reason of whoever must wait."""
        this, cut, self.bench.now = Slice(self.clock, self.begun), False, now
        going, self.underway = self.underway or self._begin(now), None
        self.more.clear()  # what earlier slices have placed runs by now
        placed: list[int] = []
        for decision in going.decisions:
            if isinstance(decision, Place):
                placed.append(decision.job)
                if decision.job in self.state.attention:  # touched since the line was made, and not looked at yet
                    self.pool.give(decision.claims)
                    continue
                yield self._placed(decision.job, decision.claims, now)
                if len(placed) >= limit:
                    break
            elif decision is not None:
                yield from self._wait(decision, now)
            if cut := this.over(decision):
                break
        for id in placed:
            self.dequeue(id)
        self.unfinished = cut or going.outdated
        if cut:
            going.placed(placed)
            self.underway = going
            return
        self.begun = 0
        self.resync |= going.later
        limited = (Wait(entry.job, Code.LIMIT, why, "") for feed in going.feeds for entry, why in feed.limited)
        for wait in (*self.bench.waits(), *limited):
            yield from self._wait(wait, now)
        if len(placed) < limit and len(self.lines):
            yield from self._grants(now, limit - len(placed))

    def _begin(self, now: float) -> Underway:
        self.fresh.clear()
        if len(self.last_end) > SHAPES:
            self.last_end.clear()
            self.stuck.clear()
        self.pool.timeline, self.pool.holders = None, self._holders
        return Underway(self, now)

    def start_over(self) -> None:
        """A plan that is under way, if there is one, is not gone on with."""
        if self.underway is not None:
            self.underway = None
            self.begun += 1
            self.resync.update(self.state.nodes, map(word_of, {*self.state.drawn, *self.pool.drawn_paths()}))

    def _holders(self) -> Iterator[tuple[int, float, tuple[Claim, ...]]]:
        return (holder for holder in holders_of(self.state) if holder[0] not in self.given)

    def feeds(self) -> list[Feed]:
        """One for each queue that has jobs to place."""
        return self.bench.over(feeds_of(self.state, self.lines.kinds(), self._full, self.bench.now))

    def _full(self, queue: str, user: int) -> str:
        usage = self.state.usage
        return usage.running_full(queue, user, self.more) if usage is not None else ""

    def _wait(self, wait: Wait | Reserve, now: float) -> Iterator[Group]:
        """The reason of a job that waits, if it is another than was said; another time alone is said now and then."""
        start = 0.0
        if isinstance(wait, Reserve) and wait.code == Code.AHEAD and wait.start > now:
            self._say_at(start := wait.start)  # no end will wake us then: it keeps its time though it might begin now
        if wait.job in self.state.attention:
            return
        job, was = self.state.jobs[wait.job], self.said.get(wait.job, ("", "", 0.0, 0.0))
        if was[:2] != (wait.code, wait.blocking) or (start != was[2] and now >= was[3] + TIME_AGAIN_S):
            say_at = self.first_waits.setdefault(job.id, now) + max(REASON_AFTER_S, 2 * self.policies.ahead_s(job.queue))
            if now < say_at:  # it may well run, or be placed ahead, before anybody asks
                self._say_at(say_at)
                return
            self.said[job.id] = (wait.code, wait.blocking, start, now)
            if (growth := growth_of(job)) is not None and growth.at_once:
                yield withdrawn(job, wait.text, now)
                return
            yield self.reason(job, wait.code, wait.text, now, start)

    def _say_at(self, time: float) -> None:
        self.say_at = min(self.say_at or time, time)

    def premises_of(self, job: Job) -> list[str]:
        """As `premises`; counted among what this pass places."""
        if self.state.usage is not None:
            for scope, _ in self.state.rules.running_limits(job.queue):
                self.more[scope, job.userid] = self.more.get((scope, job.userid), 0) + 1
        return premises(self.state, job)

    def _placed(self, id: int, claims: tuple[Claim, ...], now: float) -> Group:
        job = self.state.jobs[id]
        if job.state == RUN:
            return grown(self.state, job, claims, now)
        found = self.lines.get(id)
        request = found[0].request if found is not None else self.compiled(job)
        shape, group = self.shape(request, job), Group()
        group.events.append(["alloc", id, now, {"claims": to_wire(claims), "expiration": self.expiration(job, now)}])
        ranks = [claim.rank for claim in claims]
        thing, rests = f"job/{id}", self.premises_of(job)
        nodes = [*(f"node/{rank}" for rank in ranks), *pools_of(self.state.graph, claims)]
        group.things = [thing, *rests, *nodes]
        group.bumps = [thing, *rests, f"attempt/{id}", *nodes]
        group.takes = words_of(claims)
        prolog = self.state.rules.scripts.prolog
        if prolog is None:
            group.to_nodes = launch_orders(job, request, claims, shape, False, self.state.nodes, self.pool)
        else:
            where = ranks if prolog.per_rank else ranks[:1]
            group.events.append(start_event(id, PROLOG, where, now))
            group.to_nodes = script_orders(job, PROLOG, prolog, ranks, where, "")
        self.seated(job, shape, ranks)
        self.fresh.update((rank, shape) for rank in ranks)
        return group

    def expiration(self, job: Job, now: float) -> float:
        """When a job that begins now has to be over, Unix seconds; 0.0: never."""
        found = now + job.duration if job.duration else 0.0
        return min(found, self.state.expiration) if found and self.state.expiration else found or self.state.expiration

    def reason(self, job: Job, code: str, text: str, now: float, start: float = 0.0) -> Group:
        """Why a job is pending. start: when it is to begin, of one that keeps a time."""
        thing, kept = f"job/{job.id}", {"start": start} if start else {}
        return Group([["reason", job.id, now, {"code": str(code), "text": text, **kept}]], [thing], [thing])

    def _grants(self, now: float, limit: int) -> Iterator[Group]:
        """Strictly in each queue's order: each next job may queue behind running jobs of its own shape.

        Where the first of a queue cannot, nobody who comes after it, in another queue, is placed ahead on nodes it may be
        waiting for: what becomes free there is its to have.
        """
        if self.state.rules.scripts is not NO_SCRIPTS:
            return  # a seat goes from one job to the next without asking: no script could stand between them
        granted: list[int] = []
        room: dict[str, list[list[int]]] = {}  # shape -> [[load, rank, room left], ...]
        kept = 0  # positions of nodes somebody waits for
        turns = [(feed.key, number, feed) for number, feed in enumerate(self.feeds())]
        heapify(turns)
        while turns and len(granted) < limit:
            _, number, feed = heappop(turns)
            entry = next(feed, None)
            if entry is None or entry.held or entry.job in self.state.attention:
                continue
            job = self.state.jobs[entry.job]
            shape = self.shape(entry.request, job)
            if shape not in room:
                room[shape] = room_ahead(self, shape, now, self.policies.ahead_s(feed.queue))
            open_seats = room[shape]
            if entry.request.flat is None or needs_claims(job.jobspec or {}) or job.state == RUN:
                open_seats = []  # what it starts is not known before it has its cores; who runs and wants more needs nodes
            if kept:
                open_seats = [seat for seat in open_seats if not kept >> self.pool.index[seat[1]] & 1]
            if not open_seats:
                kept |= self.pool.matching(entry.request)
                continue
            best = min(open_seats)
            best[0] += 1
            best[2] -= 1
            if best[2] <= 0:
                room[shape].remove(best)
            granted.append(entry.job)
            yield granted_on(self, entry, best[1], shape, now)
            heappush(turns, (feed.key, number, feed))
        for id in granted:
            self.dequeue(id)
