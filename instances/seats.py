"""Who holds which seat of a node, and who takes it over: slot grants as a pure data structure.

A seat (cpus and environment) belongs to at most one started attempt. Attempts that start at once bring
their seat; queued ones wait first in, first out in their group, and the head takes the seat of whichever
member of the group is over, in the same instant. Decides succession and lingering only: never spawns, never
reads a clock. The real launcher and the fake one both use it, so both keep the same rules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from .pace import USUAL

Seat = Any  # opaque here: handed from holder to successor as it is

LINGER_S = USUAL.linger_s


class Seats:
    """Seats and queues, by group. Keys are attempts' names; a key is used once."""

    __slots__ = ("_group_of", "_holders", "_lines", "_seat_of", "_since", "linger_s")

    def __init__(self, linger_s: float = LINGER_S) -> None:
        """linger_s: how long a queued attempt may wait before it is given back."""
        self.linger_s = linger_s
        self._group_of: dict[str, str] = {}  # holders and queued
        self._seat_of: dict[str, Seat] = {}  # holders
        self._holders: dict[str, int] = {}  # group -> holders in it
        self._lines: dict[str, deque[str]] = {}  # group -> queued, oldest first; may hold withdrawn keys
        self._since: dict[str, float] = {}  # queued -> when it came, oldest first

    def hold(self, key: str, group: str, seat: Seat) -> None:
        """`key` starts at once on a seat of its own."""
        self._group_of[key] = group
        self._seat_of[key] = seat
        self._holders[group] = self._holders.get(group, 0) + 1

    def wait(self, key: str, group: str, now: float) -> bool:
        """Put `key` at the end of its group's line;

        False when nobody holds a seat there, so it would never start.
        """
        if group not in self._holders:
            return False
        self._group_of[key] = group
        self._since[key] = now
        line = self._lines.get(group)
        if line is None:
            line = self._lines[group] = deque()
        line.append(key)
        return True

    def over(self, key: str) -> str:
        """The holder `key` is gone for good: the successor that now holds its seat, or ""."""
        seat = self._seat_of.pop(key)
        group = self._group_of.pop(key)
        line = self._lines.get(group)
        while line:
            head = line.popleft()
            if self._since.pop(head, None) is not None:
                self._seat_of[head] = seat
                return head
        left = self._holders[group] - 1
        if left:
            self._holders[group] = left
        else:
            del self._holders[group]
            self._lines.pop(group, None)
        return ""

    def dismiss(self, key: str) -> list[str]:
        """Take out whoever waits in the line of the holder `key`."""
        return self.withdraw(list(self._lines.get(self._group_of[key], ())))

    def seat(self, key: str) -> Seat:
        """The seat a holder holds. Raises KeyError for anybody else."""
        return self._seat_of[key]

    def queued(self, key: str) -> bool:
        return key in self._since

    def withdraw(self, keys: Iterable[str]) -> list[str]:
        """Take queued ones out of their lines; those that were queued, in the order asked."""
        out = []
        for key in keys:
            if self._since.pop(key, None) is None:
                continue
            out.append(key)
            group = self._group_of.pop(key)
            line = self._lines[group]
            if line[0] == key:
                line.popleft()
            elif len(line) > 64 and len(line) > 4 * len(self._since):
                self._lines[group] = deque(k for k in line if k in self._since)
        return out

    def withdraw_all(self) -> list[str]:
        """Empty every line."""
        return self.withdraw(list(self._since))

    def expired(self, now: float) -> list[str]:
        """Take out those that waited `linger_s` or longer, oldest first."""
        limit = now - self.linger_s
        late = []
        for key, since in self._since.items():
            if since > limit:
                break
            late.append(key)
        return self.withdraw(late) if late else late

    def deadline(self) -> float | None:
        """When the oldest queued one will have lingered enough; None when nobody waits."""
        for since in self._since.values():
            return since + self.linger_s
        return None
