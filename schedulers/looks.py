"""Moment after moment, how many units of a request there are beside what is reserved: the inside of `Profile.earliest`. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .profile import Growth, Need, Profile


class Look:
    """How many units of a request there are in the window that begins at a moment; moments only grow.

    What is kept between looks is, for each node on which something is reserved in the window, how far it has fewer units than it
    would have without: only nodes on which something has changed since are looked at again.
    """

    def __init__(self, profile: Profile, need: Need, growth: Growth, among: int, length: float) -> None:
        self.profile, self.need, self.growth, self.among, self.length = profile, need, growth, among, length
        self.start = profile.now
        self.begun = self.over = 0  # how many reservations begin before the end of the window, and end before it
        self.within: set[int] = set()  # jobs whose reservations are in it
        self.nodes = self.cores = 0  # what these have together
        self.changed: set[int] = set()  # nodes that are to be looked at again
        self.fewer: dict[int, int] = {}
        self.next: dict[int, tuple[float, int, int]] = {}  # where there are fewer: when somebody ends there, how many, the node
        self.order: list[tuple[float, int, int]] = []  # the same, sorted
        self.total = 0

    def room(self, start: float) -> int:
        """In all of [start, start + length): exact where that decides whether it is enough."""
        need, growth, profile = self.need, self.growth, self.profile
        end, at = start + self.length, bisect_right(growth.times, start)
        units = growth.units[at - 1] if at else 0
        if units < need.total:
            return units
        self._move(start, end)
        most = self.nodes if need.by_node else self.nodes + self.cores // need.cores
        if not need.gpus and not need.memory_mb and units - most >= need.total:
            return units  # whatever it is exactly
        self.changed |= profile.ending(self.start, start) & self.fewer.keys()
        for i in self.changed:
            if self.among >> i & 1:
                few = profile.fewer(need, i, start, end)
                self.total += few - self.fewer.get(i, 0)
                self.fewer[i] = few
                self._note(i, (profile.next_end(i, start, end), few, i) if few > 0 else None)
        self.start, self.changed = start, set()
        return units - self.total

    def _move(self, start: float, end: float) -> None:
        """The window moves on: who comes into it, and who is over."""
        profile = self.profile
        by_start, by_end = profile.by_start, profile.by_end
        while self.begun < len(by_start) and by_start[self.begun].start < end:
            kept = by_start[self.begun]
            self.begun += 1
            if kept.end > start:
                self.within.add(kept.job)
                self.changed.update(kept.held)
                self.nodes, self.cores = self.nodes + len(kept.held), self.cores + kept.cores
        while self.over < len(by_end) and by_end[self.over].end <= start:
            kept = by_end[self.over]
            self.over += 1
            if kept.job in self.within:
                self.within.remove(kept.job)
                self.changed.update(kept.held)
                self.nodes, self.cores = self.nodes - len(kept.held), self.cores - kept.cores

    def _note(self, i: int, entry: tuple[float, int, int] | None) -> None:
        """When somebody ends on a node next, None where that is of no use."""
        was = self.next.get(i)
        if was == entry:
            return
        if was is not None:
            del self.order[bisect_left(self.order, was)]
        if entry is None:
            del self.next[i]
        else:
            self.next[i] = entry
            insort(self.order, entry)

    def when_more(self, short: int) -> float:
        """The first moment after the last look at which there may be so many units more.

        Where something is reserved on a node, nothing changes before somebody ends there; elsewhere units grow as they would.
        """
        growth, moment = self.growth, self.start
        at = bisect_right(growth.times, moment)
        have, back, reached = growth.units[at - 1] if at else 0, 0, moment
        for time, few, _ in self.order:
            by_itself = growth.reached(have + short - back)
            if by_itself <= time:
                return max(by_itself, reached)
            back, reached = back + few, time
            if back >= short:
                return time
        return max(growth.reached(have + short - back), reached)
