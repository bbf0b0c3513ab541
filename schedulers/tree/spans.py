"""How much of a pool is held when: a step function of time, exact for any window.

Times are whole seconds. A span holds its units in [start, end).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Spans:
    """The sum of all spans. It says how much is held, never how much there is."""

    __slots__ = ("held", "times")

    def __init__(self) -> None:
        self.times: list[int] = []  # where the sum changes
        self.held: list[int] = []  # the sum from times[i] on

    def __bool__(self) -> bool:
        return bool(self.times)

    def add(self, start: int, end: int, units: int) -> None:
        """Hold `units` more in [start, end)."""
        first, last = self._cut(start), self._cut(end)
        held = self.held
        for i in range(first, last):
            held[i] += units
        self._join(last)
        self._join(first)

    def remove(self, start: int, end: int, units: int) -> None:
        """Give back what `add` took with the same numbers."""
        self.add(start, end, -units)

    def peak(self, start: int, end: int) -> int:
        """The most that is held at once in [start, end)."""
        times = self.times
        if not times or end <= start:
            return 0
        first = bisect_right(times, start) - 1
        last = bisect_left(times, end)
        return max(self.held[max(first, 0) : last], default=0) if first >= 0 else max([0, *self.held[0:last]])

    def at(self, time: int) -> int:
        """What is held at a moment."""
        i = bisect_right(self.times, time) - 1
        return self.held[i] if i >= 0 else 0

    def _cut(self, time: int) -> int:
        """The index of `time` in `times`, where it is put if it is not there."""
        i = bisect_left(self.times, time)
        if i == len(self.times) or self.times[i] != time:
            self.times.insert(i, time)
            self.held.insert(i, self.held[i - 1] if i else 0)
        return i

    def _join(self, i: int) -> None:
        """Drop a time at which nothing changes."""
        if self.held[i] == (self.held[i - 1] if i else 0):
            del self.times[i], self.held[i]
