"""A plan that may be interrupted: it looks at jobs for a while, and goes on in a later pass. Pure; the clock is whoever makes it's.

What a worker has to do besides (take in jobs, ends, cancels) never waits for the end of a long plan. Between two slices the world
goes on, and a plan must not be made half on one and half on another: what comes free is kept from it until it is over (else it
might go to somebody behind one who would fit now), and whatever falsifies what it was made on ends it, to begin anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ..journal.holding import path_of
from ..schedulers.policy import Decision, Pending, Place
from ..schedulers.resources import Pool
from .placement import sound
from .turns import LAST, Feed, in_turns

if TYPE_CHECKING:
    from .planner import Planner

SLICE_S = 0.025
DOUBLED = 12  # times at most
EACH = 8  # jobs that are passed over between two looks at the clock


class Slice:
    """How long this one may take. clock: seconds of any origin; without one there is no end. begun: how many plans before it came
    to nothing; each doubles the time, so that however often something moves those far back in a line are looked at."""

    def __init__(self, clock: Callable[[], float] | None, begun: int = 0) -> None:
        self._clock = clock
        self._until = clock() + SLICE_S * 2 ** min(begun, DOUBLED) if clock is not None else 0.0
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
        self._moved = False  # whether somebody has come, or left, since
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

    def placed(self, jobs: Iterable[int]) -> None:
        """These have been placed: whoever of them is back in the line before the plan is over waits for the next one."""
        self._gone.update(jobs)

    def left(self, job: int) -> None:
        """A job is out of the line: what was reserved for it is somebody else's."""
        self._gone.add(job)
        self._moved = True

    def came(self, entry: Pending, again: bool) -> bool:
        """A job stands in the line. again: as another than before. False if it should have been looked at before some that were."""
        key = (-entry.priority, entry.order, entry.job)
        if any(feed.key != LAST and key < feed.key for feed in self.feeds):
            return False
        self._moved = True
        if again:
            self._gone.add(entry.job)
        return True

    @property
    def outdated(self) -> bool:
        """Whether, now that it is over, another plan may find what this one could not."""
        return self._moved or bool(self.later)

    def falsified(self, planner: Planner, words: Iterable[int | str]) -> bool:
        """Whether what has changed ends the plan: what it may give away is gone. words: ranks, and vertices of the graph."""
        if self._open != _open_queues(planner):
            return True
        for word in words:
            less, more = _vertex(planner, word) if isinstance(word, str) else _node(planner, word)
            if less:
                return True
            if more:
                self.later.add(word)
        return False


def _node(planner: Planner, rank: int) -> tuple[bool, bool]:
    """Whether less, and whether more, of a node is free than a plan takes to be free."""
    pool, node = planner.pool, planner.state.nodes.get(rank)
    i = pool.index.get(rank)
    if node is None or i is None:
        return True, False
    usable, memory_mb = bool(pool.usable >> i & 1), node.memory_mb - node.used_memory_mb
    known = (pool.core_free[i], pool.gpu_free[i], pool.free.memory.counts[i], usable)
    if known == (node.cores & ~node.used_cores, node.gpus & ~node.used_gpus, max(0, memory_mb), node.usable):
        return False, False
    return bool(known[0] & node.used_cores or known[1] & node.used_gpus or known[2] > memory_mb or usable > node.usable), True


def _vertex(planner: Planner, word: str) -> tuple[bool, bool]:
    """As `_node`, of a vertex of the graph."""
    known, held = planner.pool.held(path_of(word)), planner.state.drawn.get(path_of(word), (0, 0))
    if known is None or known == tuple(held):
        return False, False
    return held[0] > known[0] or bool(held[1] & ~known[1]), True


def _open_queues(planner: Planner) -> list[tuple[str, bool]]:
    state = planner.state
    return [(name, state.may_start(name)) for name in state.queues]
