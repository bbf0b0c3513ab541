"""Facts about attempts that are not in the journal yet, one node's. Pure."""

from __future__ import annotations

from typing import Any


class Rows:
    """Facts of one rank not yet in the journal, in the catalogue's row forms."""

    __slots__ = ("over", "start", "timeout", "unstarted")

    def __init__(self) -> None:
        self.start: list[list[Any]] = []
        self.over: list[list[Any]] = []
        self.unstarted: list[list[Any]] = []
        self.timeout: list[list[Any]] = []

    def __bool__(self) -> bool:
        return bool(self.over or self.start or self.unstarted or self.timeout)

    def __len__(self) -> int:
        return len(self.over) + len(self.start) + len(self.unstarted) + len(self.timeout)

    def context(self, rank: int) -> dict[str, Any]:
        """The report event's context."""
        found: dict[str, Any] = {"rank": rank}
        for name in ("start", "over", "unstarted", "timeout"):
            rows = getattr(self, name)
            if rows:
                found[name] = rows
        return found

    def drop(self, attempts: set[tuple[int, int]]) -> None:
        """Forget all facts about these attempts, (job, version)."""
        for name in ("start", "over", "unstarted", "timeout"):
            setattr(self, name, [row for row in getattr(self, name) if (row[0], row[1]) not in attempts])


def cut(rows: Rows, limit: int) -> Rows:
    """The first facts, in the order a fold needs them (a start never after its end)."""
    first = Rows()
    first.start = rows.start[:limit]
    first.over = rows.over[:limit]
    first.unstarted = rows.unstarted[:limit]
    first.timeout = rows.timeout[:limit]
    return first


def rest(rows: Rows, first: Rows) -> Rows:
    """What `cut` left."""
    rest = Rows()
    rest.start = rows.start[len(first.start) :]
    rest.over = rows.over[len(first.over) :]
    rest.unstarted = rows.unstarted[len(first.unstarted) :]
    rest.timeout = rows.timeout[len(first.timeout) :]
    return rest
