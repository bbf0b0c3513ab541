"""A plan that may be interrupted: it looks at jobs for a while, and goes on in a later pass. Pure; the clock is whoever makes it's.

What a worker has to do besides (take in jobs, ends, cancels) never waits for the end of a long plan. Between two slices the world
goes on, and a plan must not be made half on one and half on another: what comes free is kept from it until it is over (else it
might go to somebody behind one who would fit now), and whatever falsifies what it was made on ends it, to begin anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ..schedulers.policy import Decision, Pending, Place
from ..schedulers.resources import Pool
from .placement import sound
from .turns import LAST, Feed, in_turns

if TYPE_CHECKING:
    from .planner import Planner

SLICE_S = 0.025
EACH = 8  # jobs that are passed over between two looks at the clock


class Slice:
    """How long this one may take. clock: seconds of any origin; without one there is no end."""

    def __init__(self, clock: Callable[[], float] | None) -> None:
        self._clock = clock
        self._until = clock() + SLICE_S if clock is not None else 0.0
        self._passed = 0

    def over(self, decision: Decision | None) -> bool:
        """Asked after each decision."""
        if self._clock is None:
            return False
        self._passed += 1
        if decision is None and self._passed % EACH:
            return False
        return self._clock() >= self._until


class Underway:
    """One plan of all queues, from its beginning to its end. later: ranks of nodes that have changed since it was begun."""

    def __init__(self, planner: Planner, now: float) -> None:
        self.feeds = planner.feeds()
        self.later: set[int | str] = set()
        self._gone: set[int] = set()  # jobs that have left the line, or changed, since they may have been read
        self._open = _open_queues(planner)
        policies, pool = planner.policies, planner.pool
        promised = pool.promised or {}
        if len(promised) > len(planner.lines):  # some have left while a plan was under way
            pool.promised = {id: span for id, span in promised.items() if id in planner.lines}

        def plan(feed: Feed) -> Iterator[Decision | None]:
            return policies.of(feed.queue).plan(feed, pool, now)

        self.decisions = sound(self._still(in_turns(self.feeds, plan), pool), planner, now)

    def _still(self, decisions: Iterable[Decision | None], pool: Pool) -> Iterator[Decision | None]:
        """Without what is decided about jobs that are gone."""
        for decision in decisions:
            if self._gone and decision is not None and decision.job in self._gone:
                if isinstance(decision, Place):
                    pool.give(decision.claims)
                decision = None
            yield decision

    def left(self, job: int) -> None:
        """A job is out of the line, or stands in it as another."""
        self._gone.add(job)

    def before(self, entry: Pending) -> bool:
        """Whether a job that has just come should have been looked at before some that were."""
        key = (-entry.priority, entry.order, entry.job)
        return any(feed.key != LAST and key < feed.key for feed in self.feeds)

    def falsified(self, planner: Planner, words: Iterable[int | str]) -> bool:
        """Whether what has changed ends the plan: what it may give away is gone. words: ranks, and vertices of the graph."""
        if self._open != _open_queues(planner):
            return True
        pool, nodes = planner.pool, planner.state.nodes
        for rank in words:
            node, i = (nodes.get(rank), pool.index.get(rank)) if isinstance(rank, int) else (None, None)
            if node is None or i is None:
                return True
            usable, memory_mb = bool(pool.usable >> i & 1), node.memory_mb - node.used_memory_mb
            known = (pool.core_free[i], pool.gpu_free[i], pool.free.memory.counts[i], usable)
            if known == (node.cores & ~node.used_cores, node.gpus & ~node.used_gpus, max(0, memory_mb), node.usable):
                continue
            lost = known[0] & node.used_cores or known[1] & node.used_gpus or known[2] > memory_mb or usable > node.usable
            if lost or type(pool) is not Pool:
                return True
            self.later.add(rank)
        return False


def _open_queues(planner: Planner) -> list[tuple[str, bool]]:
    state = planner.state
    return [(name, state.may_start(name)) for name in state.queues]
