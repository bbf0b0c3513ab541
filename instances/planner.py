"""The worker's choices: pool, line of pending jobs, allocation, slot grants ahead. Pure; proposes groups of events.

The pool is a function of the state: nodes touched by the fold are copied into it before each plan. What a plan takes and
gives is provisional until its commit is in; ranks of groups that did not make it are copied again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..journal.claims import Claim, to_wire
from ..journal.derive import Group
from ..journal.job import Job
from ..journal.jobspec_check import check, check_plain
from ..journal.state import State
from ..kvs.errors import Rejected
from ..schedulers.explain import explain
from ..schedulers.policy import Pending, Place, Policy
from ..schedulers.request import Request, compile_request
from ..schedulers.resources import Pool
from .line import Line
from .orders import launch_orders, shape_of
from .shell_options import check_system

# A grant ahead hides the round trip from a report to the next launch; it should cover about this many seconds of work.
AHEAD_S = 0.12
AHEAD_MAX = 256
START_S = 0.0008  # what a start and an end cost a seat beside the task's own time
ROUND_TRIP_S = 0.05
LINGERED_S, STUCK_S = 0.3, 5.0
SHAPES = 10_000  # distinct requests remembered
TASKS_MAX = 100_000  # of one job: each costs its node memory before it starts
REASON_AFTER_S = 0.25


class Planner:
    """Keeps pool and line in step with a state, and plans."""

    def __init__(self, state: State, policy: Policy) -> None:
        self.state = state
        self.policy = policy
        self.pool = Pool([])
        self.line = Line()
        self.resync: set[int] = set()
        self.runtime: dict[str, float] = {}  # shape -> typical run time of its jobs, seconds
        self.seats: dict[tuple[int, str], int] = {}  # (rank, shape) -> jobs holding claims there
        self.shapes: dict[bytes, str] = {}
        self.checked: set[bytes] = set()  # hashes of jobspecs found good
        self.seat_by_job: dict[int, tuple[str, list[int]]] = {}  # job -> (shape, ranks where its seat counts)
        self.first_waits: dict[int, float] = {}  # job -> when a plan first had to leave it
        self.said: dict[int, tuple[str, str]] = {}  # job -> (code, blocking) last journalled
        self.fresh: set[tuple[int, str]] = set()  # (rank, shape) of allocations made by this plan
        self.say_at = 0.0  # when somebody's reason is due, 0.0 if nobody's is
        self.ahead: dict[int, tuple[int, str, float]] = {}  # job placed ahead -> (rank, shape, since when)
        self.last_end: dict[tuple[int, str], float] = {}  # (rank, shape) -> when a job there was last heard to be over
        self.stuck: dict[tuple[int, str], float] = {}  # where a job placed ahead waited in vain -> no more of it until then
        self.ahead_count: dict[tuple[int, str], int] = {}
        self._defined: Any = None

    # -- in step with the state -----------------------------------------------------------------------------------

    def sync(self, ranks: Iterable[int]) -> None:
        """Copy nodes into the pool; all of them when the inventory has changed."""
        state = self.state
        if self._defined is not state.R:
            self._defined = state.R
            self.pool = Pool(state.nodes.values())
            ranks = list(state.nodes)
        for rank in self.resync.union(ranks):
            node = state.nodes.get(rank)
            if node is None:
                continue
            why = "" if node.usable else ("drained" if node.drain is not None else "offline")
            self.pool.set_node(
                rank,
                node.cores & ~node.used_cores,
                node.gpus & ~node.used_gpus,
                node.memory_mb - node.used_memory_mb,
                node.usable,
                not node.jobs,
                why,
            )
        self.resync.clear()

    def request_of(self, job: Job) -> Request:
        """The job's compiled request. Raises `Rejected` for what cannot be matched here."""
        self._check(job)
        system = (job.jobspec or {}).get("attributes", {}).get("system", {})
        if system.get("dependencies"):  # to run it at once would be worse than to refuse it
            raise Rejected("dependencies are not supported yet", code="unsupported")
        if job.queue not in self.state.queues:
            raise Rejected(f"queue {job.queue} is not defined", code="no-such-queue")
        request = compile_request(job.jobspec or {})
        if self.pool.satisfiable(request) is not None:
            raise Rejected(explain(request, self.pool).text, code="unsatisfiable")
        return request

    def _check(self, job: Job) -> None:
        """Refuse what no submit command would have let through: anybody may append to the journal."""
        if job.spec_hash in self.checked:
            return
        jobspec = job.jobspec or {}
        try:
            check_plain(jobspec)
            check(jobspec, general=True)
            check_system(jobspec["attributes"].get("system") or {})
        except RecursionError:
            raise Rejected("bad jobspec: nested too deep", code="bad-jobspec") from None
        ((how, amount),) = jobspec["tasks"][0]["count"].items()
        ntasks = job.ncores * amount["count"] if how == "per_resource" else job.ntasks
        if ntasks > TASKS_MAX:
            raise Rejected(f"{ntasks} tasks are more than {TASKS_MAX}", code="unsupported")
        if len(self.checked) >= SHAPES:
            self.checked.clear()
        self.checked.add(job.spec_hash)

    def shape(self, request: Request) -> str:
        """The request's short name."""
        found = self.shapes.get(request.key)
        if found is None:
            if len(self.shapes) >= SHAPES:
                self.shapes.clear()
                self.runtime.clear()
            found = self.shapes[request.key] = shape_of(request)
        return found

    def enqueue(self, job: Job, priority: int) -> None:
        """Put a job into the line. Raises `Rejected` if it can never run here."""
        request = self.request_of(job)
        self.line.add(Pending(job.id, priority, job.order, request, job.duration, held=priority == 0))

    def dequeue(self, id: int) -> None:
        """Take a job out of the line."""
        self.line.remove(id)
        self.said.pop(id, None)
        self.first_waits.pop(id, None)

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
        where = list(ranks)
        if len(where) > 1:
            where = []
        self.seat_by_job[job.id] = (shape, where)
        for rank in where:
            self.seats[rank, shape] = self.seats.get((rank, shape), 0) + 1

    # -- planning -------------------------------------------------------------------------------------------------

    def plan(self, now: float, limit: int) -> Iterator[Group]:
        """Groups for the next commit: allocations, then grants ahead, and the reason of whoever must wait."""
        self.say_at = 0.0
        self.fresh.clear()
        if len(self.last_end) > SHAPES:
            self.last_end.clear()
            self.stuck.clear()
        if not len(self.line) or not self.state.may_start("default"):
            return
        placed: list[int] = []
        unseen = self.state.attention  # touched since the line was made, and not looked at yet
        head: Pending | None = None
        for decision in self.policy.plan(self.line, self.pool, now):
            if isinstance(decision, Place):
                placed.append(decision.job)
                if decision.job in unseen:
                    self.pool.give(decision.claims)
                    continue
                yield self._alloc(decision.job, decision.claims, now)
                if len(placed) >= limit:
                    break
            elif decision.job not in unseen:
                job = self.state.jobs[decision.job]
                if self.said.get(job.id) != (decision.code, decision.blocking):
                    say_at = self.first_waits.setdefault(job.id, now) + REASON_AFTER_S
                    if now < say_at:  # it may well run before anybody asks
                        self.say_at = min(self.say_at or say_at, say_at)
                        continue
                    self.said[job.id] = (decision.code, decision.blocking)
                    yield self._reason(job, decision.code, decision.text, now)
        for id in placed:
            self.dequeue(id)
        if len(placed) < limit and len(self.line):
            head = next(iter(self.line))
            if head is not None and not head.held:
                yield from self._grants(now, limit - len(placed))

    def _alloc(self, id: int, claims: tuple[Claim, ...], now: float) -> Group:
        job = self.state.jobs[id]
        request = compile_request(job.jobspec or {})
        shape = self.shape(request)
        expiration = now + job.duration if job.duration else 0.0
        if self.state.expiration and (not expiration or expiration > self.state.expiration):
            expiration = self.state.expiration
        group = Group()
        group.events.append(["alloc", id, now, {"claims": to_wire(claims), "expiration": expiration}])
        ranks = [claim.rank for claim in claims]
        thing, plan = f"job/{id}", f"plan/{job.queue}"
        nodes = [f"node/{rank}" for rank in ranks]
        group.things = [thing, plan, *nodes]
        group.bumps = [thing, plan, f"attempt/{id}", *nodes]
        group.takes = ranks
        group.to_nodes = launch_orders(job, request, claims, shape, queued=False)
        self.seated(job, shape, ranks)
        self.fresh.update((rank, shape) for rank in ranks)
        return group

    def _reason(self, job: Job, code: str, text: str, now: float) -> Group:
        thing = f"job/{job.id}"
        return Group([["reason", job.id, now, {"code": str(code), "text": text}]], [thing], [thing])

    def _grants(self, now: float, limit: int) -> Iterator[Group]:
        """Strictly in the line's order: each next job may queue behind running jobs of its own shape."""
        granted: list[int] = []
        room: dict[str, list[list[int]]] = {}  # shape -> [[load, rank, room left], ...]
        for entry in self.line:
            if len(granted) >= limit or entry.held or entry.job in self.state.attention:
                break
            shape = self.shape(entry.request)
            if shape not in room:
                room[shape] = self._room(shape, now)
            open_seats = room[shape]
            if not open_seats:
                break
            best = min(open_seats)
            best[0] += 1
            best[2] -= 1
            if best[2] <= 0:
                open_seats.remove(best)
            granted.append(entry.job)
            yield self._grant(entry, best[1], shape, now)
        for id in granted:
            self.dequeue(id)

    def _room(self, shape: str, now: float) -> list[list[int]]:
        typical = self.runtime.get(shape)
        if typical is None:
            return []
        found = []
        for (rank, one), seats in self.seats.items():
            node = self.state.nodes.get(rank)
            if one != shape or node is None or not node.usable:
                continue
            depth = min(AHEAD_MAX, int(seats * AHEAD_S / (typical + START_S)))
            if self.stuck and self.stuck.get((rank, shape), 0.0) > now:
                continue
            waiting = self.ahead_count.get((rank, shape), 0)
            if not waiting and (rank, shape) not in self.fresh and typical < ROUND_TRIP_S:
                continue  # jobs this short are over by now, though we have not heard: a grant would come too late
            if depth > waiting:
                found.append([waiting, rank, depth - waiting])
        return found

    def _grant(self, entry: Pending, rank: int, shape: str, now: float) -> Group:
        job = self.state.jobs[entry.job]
        flat = entry.request.flat
        slots = flat.nslots if flat is not None and flat.nslots else 1
        claim = Claim(rank, 0, 0, 0, slots)  # its real claim is its seat's
        thing, plan = f"job/{job.id}", f"plan/{job.queue}"
        self.ahead_of(job.id, rank, shape, now)
        return Group(
            events=[["grant", job.id, now, {"rank": rank, "shape": shape}]],
            things=[thing, plan],
            bumps=[thing, plan, f"attempt/{job.id}"],
            to_nodes=launch_orders(job, entry.request, (claim,), shape, queued=True),
        )
