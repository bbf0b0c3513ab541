"""The line of pending jobs, by priority and then order of submission. Pure; holds what a policy is given."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from ..schedulers.policy import Pending

Key = tuple[int, int, int]


class Line:
    """Pending jobs of one queue. Adding and removing cost a search and a move of pointers."""

    __slots__ = ("_entries", "_keys")

    def __init__(self) -> None:
        self._keys: list[Key] = []
        self._entries: dict[int, tuple[Key, Pending]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, job: int) -> bool:
        return job in self._entries

    def add(self, entry: Pending) -> None:
        """Add a job, or replace it when its priority or request has changed."""
        self.remove(entry.job)
        key = (-entry.priority, entry.order, entry.job)
        self._entries[entry.job] = (key, entry)
        keys = self._keys
        if not keys or key > keys[-1]:
            keys.append(key)
        else:
            insort(keys, key)

    def remove(self, job: int) -> None:
        """Take a job out, if it is there."""
        found = self._entries.pop(job, None)
        if found is not None:
            at = bisect_left(self._keys, found[0])
            del self._keys[at]

    def get(self, job: int) -> Pending | None:
        """A job's entry."""
        found = self._entries.get(job)
        return found[1] if found is not None else None

    def __iter__(self) -> Iterator[Pending]:
        """In order, lazily. Do not change the line meanwhile."""
        entries = self._entries
        for key in self._keys:
            yield entries[key[2]][1]
