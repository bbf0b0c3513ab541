"""Several queues planned at once: each by itself, in one order over all. Pure.

A queue whose first job cannot run holds up no other queue. But the queues take turns: the next to go is the one whose next job
comes first, by priority and then submission: where two queues share nodes, the older job has the first choice of what is free.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from heapq import heapify, heappop, heappush

from ..schedulers.policy import Decision, Pending
from .line import ANY

Key = tuple[float, int, int]
LAST: Key = (float("inf"), 0, 0)


class Feed:
    """The jobs of one queue (and of the virtual queues in its line) that may be placed now, in order, each once.

    blocked: why a (queue, user) may have no more running, or ""; asked again before each job, for jobs are placed meanwhile.
    The rest of such a line is left out; its first job and why are in `limited`. queue: whose line it is. out: jobs that are
    passed over. read: (job, queue) that was given last, of all feeds that share it. late: why none may be placed, or "".
    """

    def __init__(
        self, lines: Iterable[tuple[str, int, Iterable[Pending]]], blocked: Callable[[str, int], str], queue: str = "",
        late: str = "",
    ) -> None:  # fmt: skip
        self.queue = queue
        self.limited: list[tuple[Pending, str]] = []
        self.out: Container[int] = ()
        self.read: list[object] = [0, ""]
        self._blocked = blocked
        self._heads: list[tuple[Key, int, Pending, Iterator[Pending], str, int]] = []
        for number, (queue, user, line) in enumerate(lines):
            entries = iter(line)
            first = next(entries, None)
            if first is not None and late:
                self.limited.append((first, late))
            elif first is not None:
                self._heads.append((_key(first), number, first, entries, queue, user))
        heapify(self._heads)

    @property
    def key(self) -> Key:
        """Where the next job stands in the order over all queues; `LAST` if there is none."""
        return self._heads[0][0] if self._heads else LAST

    def __iter__(self) -> Iterator[Pending]:
        return self

    def __next__(self) -> Pending:
        heads = self._heads
        while heads:
            _, number, entry, entries, queue, user = heappop(heads)
            why = self._blocked(queue, user) if user != ANY else ""
            if why:
                self.limited.append((entry, why))
                continue
            following = next(entries, None)
            if following is not None:
                heappush(heads, (_key(following), number, following, entries, queue, user))
            if entry.job in self.out:
                continue
            self.read[:] = entry.job, self.queue
            return entry
        raise StopIteration


def _key(entry: Pending) -> Key:
    return (-entry.priority, entry.order, entry.job)


def in_turns(
    feeds: Iterable[Feed], plan: Callable[[Feed], Iterator[Decision | None]]
) -> Iterator[Decision | None]:
    """The decisions of a plan of each feed, the feed whose next job comes first going first; None as a policy says it."""
    turns = [(feed.key, number, feed, plan(feed)) for number, feed in enumerate(feeds)]
    if len(turns) == 1:
        yield from turns[0][3]
        return
    heapify(turns)
    while turns:
        _, number, feed, decisions = heappop(turns)
        if feed.read[1] != feed.queue:
            feed.read[:] = 0, feed.queue
        for decision in decisions:
            yield decision
            heappush(turns, (feed.key, number, feed, decisions))
            break
