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
from ..journal.state import State
from ..kvs.errors import Rejected
from ..schedulers.policy import Pending, Place, Policy
from ..schedulers.request import Request, compile_request
from ..schedulers.resources import Pool
from .line import Line
from .orders import launch_orders, shape_of

# A grant ahead hides the round trip from a report to the next launch; it should cover about this many seconds of work.
AHEAD_S = 0.12
AHEAD_MAX = 256


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
        self.shape_by_job: dict[int, str] = {}
        self.said: dict[int, tuple[str, str]] = {}  # job -> (code, blocking) last journalled
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
        if job.queue not in self.state.queues:
            raise Rejected(f"queue {job.queue} is not defined", code="no-such-queue")
        request = compile_request(job.jobspec or {})
        never = self.pool.satisfiable(request)
        if never is not None:
            raise Rejected(f"unsatisfiable: {never.text}", code="unsatisfiable")
        return request

    def shape(self, request: Request) -> str:
        """The request's short name."""
        found = self.shapes.get(request.key)
        if found is None:
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

    def ended(self, job: Job) -> None:
        """Learn from a job that is over, so that grants ahead can be measured out."""
        shape = self.shape_by_job.pop(job.id, None)
        if shape is None:
            return
        for rank in job.ranks:
            left = self.seats.get((rank, shape), 0) - 1
            if left > 0:
                self.seats[rank, shape] = left
            else:
                self.seats.pop((rank, shape), None)

    def learn(self, shape: str, seconds: float) -> None:
        """Fold one run time into the running average of a shape."""
        old = self.runtime.get(shape)
        self.runtime[shape] = seconds if old is None else old + 0.2 * (seconds - old)

    def seated(self, job: Job, shape: str, ranks: Iterable[int]) -> None:
        """A job now holds claims: count its seats."""
        if job.id in self.shape_by_job:
            return
        self.shape_by_job[job.id] = shape
        for rank in ranks:
            self.seats[rank, shape] = self.seats.get((rank, shape), 0) + 1

    # -- planning -------------------------------------------------------------------------------------------------

    def plan(self, now: float, limit: int) -> Iterator[Group]:
        """Groups for the next commit: allocations, then grants ahead, and the reason of whoever must wait."""
        if not len(self.line) or not self.state.may_start("default"):
            return
        placed: list[int] = []
        head: Pending | None = None
        for decision in self.policy.plan(self.line, self.pool, now):
            if isinstance(decision, Place):
                placed.append(decision.job)
                yield self._alloc(decision.job, decision.claims, now)
                if len(placed) >= limit:
                    break
            else:
                job = self.state.jobs[decision.job]
                if self.said.get(job.id) != (decision.code, decision.blocking):
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
        return group

    def _reason(self, job: Job, code: str, text: str, now: float) -> Group:
        thing = f"job/{job.id}"
        return Group([["reason", job.id, now, {"code": str(code), "text": text}]], [thing], [thing])

    def _grants(self, now: float, limit: int) -> Iterator[Group]:
        """Strictly in the line's order: each next job may queue behind running jobs of its own shape."""
        granted: list[int] = []
        room: dict[str, list[list[int]]] = {}  # shape -> [[load, rank, room left], ...]
        for entry in self.line:
            if len(granted) >= limit or entry.held:
                break
            shape = self.shape(entry.request)
            if shape not in room:
                room[shape] = self._room(shape)
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

    def _room(self, shape: str) -> list[list[int]]:
        typical = self.runtime.get(shape)
        if typical is None:
            return []
        found = []
        for (rank, one), seats in self.seats.items():
            node = self.state.nodes.get(rank)
            if one != shape or node is None or not node.usable:
                continue
            depth = min(AHEAD_MAX, int(seats * AHEAD_S / max(typical, 1e-4)))
            waiting = sum(1 for id in node.grants if self._granted_shape(id) == shape)
            if depth > waiting:
                found.append([waiting, rank, depth - waiting])
        return found

    def _granted_shape(self, id: int) -> str:
        job = self.state.jobs.get(id)
        return job.granted[1] if job is not None and job.granted else ""

    def _grant(self, entry: Pending, rank: int, shape: str, now: float) -> Group:
        job = self.state.jobs[entry.job]
        flat = entry.request.flat
        slots = flat.nslots if flat is not None and flat.nslots else 1
        claim = Claim(rank, 0, 0, 0, slots)  # its real claim is its seat's
        thing, plan = f"job/{job.id}", f"plan/{job.queue}"
        return Group(
            events=[["grant", job.id, now, {"rank": rank, "shape": shape}]],
            things=[thing, plan],
            bumps=[thing, plan, f"attempt/{job.id}"],
            to_nodes=launch_orders(job, entry.request, (claim,), shape, queued=True),
        )
