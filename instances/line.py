"""The lines of pending jobs, by priority and then order of submission. Pure; hold what a policy is given."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

from ..schedulers.policy import Pending

Key = tuple[int, int, int]
ANY = -1  # jobs of all users
SOME = 128


class Line:
    """Pending jobs of one kind. Adding and removing cost a search and a move of pointers."""

    __slots__ = ("_entries", "_keys")

    def __init__(self) -> None:
        self._keys: list[Key] = []
        self._entries: dict[int, tuple[Key, Pending]] = {}

    def __len__(self) -> int:
        return len(self._keys)

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
        """In order, lazily. The line may change meanwhile: who comes behind is met, who has left is not."""
        entries, keys = self._entries, self._keys
        some = keys[:SOME]
        while some:
            for key in some:
                found = entries.get(key[2])
                if found is not None and found[0] == key:
                    yield found[1]
            at = bisect_right(keys, some[-1])
            some = keys[at : at + SOME]


class Lines:
    """All pending jobs: a line for each queue, and in it for each user whose running jobs are counted (else user `ANY`)."""

    __slots__ = ("_lines", "_where")

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int], Line] = {}
        self._where: dict[int, tuple[Line, bytes]] = {}

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, job: int) -> bool:
        return job in self._where

    def __iter__(self) -> Iterator[Pending]:
        """All of them, line by line."""
        for line in self._lines.values():
            yield from line

    def add(self, entry: Pending, queue: str, user: int, made_of: bytes) -> None:
        """Put a job into its line, and out of any other. made_of: names what its request was compiled from."""
        self.remove(entry.job)
        line = self._lines.get((queue, user))
        if line is None:
            line = self._lines[queue, user] = Line()
        line.add(entry)
        self._where[entry.job] = (line, made_of)

    def remove(self, job: int) -> None:
        """Take a job out, if it is there."""
        found = self._where.pop(job, None)
        if found is not None:
            found[0].remove(job)

    def get(self, job: int) -> tuple[Pending, bytes] | None:
        """A job's entry, and what it was made of."""
        found = self._where.get(job)
        if found is None:
            return None
        entry = found[0].get(job)
        return None if entry is None else (entry, found[1])

    def kinds(self) -> list[tuple[str, int, Line]]:
        """(queue, user, line) of each line that holds a job. Empty ones are let go."""
        for key in [key for key, line in self._lines.items() if not line]:
            del self._lines[key]
        return [(queue, user, line) for (queue, user), line in self._lines.items()]
