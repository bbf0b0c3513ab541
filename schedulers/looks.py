"""Moment after moment, how many units of a request there are beside what is reserved: the inside of `Profile.earliest`. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .profile import Growth, Kept, Need, Profile

FOR_EVER = float("inf")


class Look:
    """How many units of a kind of request there are in the window that begins at a moment; moments only grow. need: `total` is
    that of whoever is looking for a window now; who asks for more of the same goes on from there.

    What is kept between looks is, for each node on which something is reserved in the window, how far it has fewer units than it
    would have without, and when somebody ends there next: only nodes on which something has changed since are looked at again.
    """

    def __init__(self, profile: Profile, need: Need, growth: Growth, among: int, length: float) -> None:
        self.profile, self.need, self.growth, self.length = profile, need, growth, length
        self.among = among if among != profile.pool.all_bits else 0  # 0: all of them
        self.begun = self.over = 0  # how many reservations begin before the end of the window, and end before it
        self.within: set[int] = set()  # jobs whose reservations are in it
        self.nodes = self.cores = 0  # what these have together
        self.changed: set[int] = set()  # nodes that are to be looked at again
        self.fewer: dict[int, int] = {}
        self.next: dict[int, tuple[float, int, int]] = {}  # when somebody ends there, how many fewer there are, the node
        self.order: list[tuple[float, int, int]] = []  # the same, sorted
        self.total = 0
        self.start = profile.now
        self.window = profile.now, -FOR_EVER  # the last one whose reservations are in `within`
        self.exact = False  # whether the last look has counted all, which is not needed where there is enough anyway
        self.simple = not (need.gpus or need.memory_mb or need.exclusive)

    def room(self, start: float) -> int:
        """In all of [start, start + length): exact where that decides whether it is enough."""
        need, growth = self.need, self.growth
        at = bisect_right(growth.times, start)
        units = growth.units[at - 1] if at else 0
        self.start, self.exact = start, False
        if units < need.total:
            return units
        end = start + self.length
        self._move(start, end)
        most = self.nodes if need.by_node else self.nodes + self.cores // need.cores
        if self.simple and units - most >= need.total:
            return units  # whatever it is exactly
        self._ended(start)
        if self.changed:
            (self._count if self.simple else self._count_all)(start, end)
            self.changed.clear()
        self.exact = True
        return units - self.total

    def _move(self, start: float, end: float) -> None:
        """The window moves on: who comes into it, and who is over."""
        by_start, by_end, self.window = self.profile.by_start, self.profile.by_end, (start, end)
        while self.begun < len(by_start) and by_start[self.begun].start < end:
            kept = by_start[self.begun]
            self.begun += 1
            if kept.end > start:
                self._enters(kept)
        while self.over < len(by_end) and by_end[self.over].end <= start:
            kept = by_end[self.over]
            self.over += 1
            if kept.job in self.within:
                self.within.remove(kept.job)
                self.changed.update(kept.held)
                self.nodes, self.cores = self.nodes - len(kept.held), self.cores - kept.cores

    def _enters(self, kept: Kept) -> None:
        self.within.add(kept.job)
        self.changed.update(kept.held)
        self.nodes, self.cores = self.nodes + len(kept.held), self.cores + kept.cores

    def joined(self, kept: Kept) -> None:
        """Another reservation."""
        start, end = self.window
        if kept.start < end:
            self.begun += 1
            if kept.end > start:
                self._enters(kept)
        if kept.end <= start:
            self.over += 1

    def _ended(self, start: float) -> None:
        """Somebody has ended on these since."""
        order, known = self.order, self.next
        ended = 0
        for time, _, i in order:
            if time > start:
                break
            ended += 1
            del known[i]
            self.changed.add(i)
        del order[:ended]

    def _count(self, start: float, end: float) -> None:
        """Look again at the nodes that have changed: of cores alone, which is what nearly all ask for. (Much of a plan's time goes
        here: all of it is one loop.)"""
        profile, need, order = self.profile, self.need, self.order
        times, counts, free, on = profile.times, profile.counts, profile.free, profile.on
        cores, by_node, among, known, following = need.cores, need.by_node, self.among, self.fewer, self.next
        total, anew = self.total, len(self.changed) > len(order)
        for i in self.changed:
            if among and not among >> i & 1:
                continue
            steps = times[i]
            at = bisect_right(steps, start)
            had, left, soon = counts[i][at - 1], free[i][at - 1][0], 0.0
            for begins, ends, held, _, _, _ in on[i]:
                if begins < end and ends > start:
                    left &= ~held
                    if not soon or ends < soon:
                        soon = ends
            if had < cores:
                few = 0
            elif by_node:
                few = int(left.bit_count() < cores)
            else:
                few = had // cores - left.bit_count() // cores
            total += few - known.get(i, 0)
            known[i] = few
            if not anew and (was := following.get(i)) is not None:
                del order[bisect_left(order, was)]
            if soon:
                if at < len(steps) and steps[at] < soon:
                    soon = steps[at]
                following[i] = entry = (soon, few, i)
                if not anew:
                    insort(order, entry)
            else:  # nothing is reserved there any more
                following.pop(i, None)
                del known[i]
        if anew:
            order[:] = sorted(following.values())
        self.total = total

    def _count_all(self, start: float, end: float) -> None:
        """The same for any kind of request."""
        profile, order, known, following = self.profile, self.order, self.fewer, self.next
        for i in self.changed:
            if self.among and not self.among >> i & 1:
                continue
            if (was := following.pop(i, None)) is not None:
                del order[bisect_left(order, was)]
            steps = profile.times[i]
            at = bisect_right(steps, start)
            ends = [one[1] for one in profile.on[i] if one[0] < end and one[1] > start]
            few = profile.fewer(self.need, i, start, end) if ends else 0
            self.total += few - known.pop(i, 0)
            if ends:
                known[i] = few
                following[i] = entry = (min(*ends, steps[at] if at < len(steps) else FOR_EVER), few, i)
                insort(order, entry)

    def when_more(self, short: int) -> float:
        """The first moment after the last look at which there may be so many units more.

        Where something is reserved on a node, nothing changes before somebody ends there; elsewhere units grow as they would.
        """
        growth, moment = self.growth, self.start
        at = bisect_right(growth.times, moment)
        have, back, reached = growth.units[at - 1] if at else 0, 0, moment
        by_itself = growth.reached(have + short)
        for time, few, _ in self.order:
            if by_itself <= time:
                return max(by_itself, reached)
            if not few:
                continue
            back, reached = back + few, time
            if back >= short:
                return time
            by_itself = growth.reached(have + short - back)
        return max(by_itself, reached)
