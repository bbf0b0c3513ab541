"""Facts about attempts that are not in the journal yet, one node's. Pure."""

from __future__ import annotations

from typing import Any

BURST = 5.0
FEW, MANY = 4, 100  # attempts held: no flood can come of so few; facts: so many wait for no company
KINDS = ("start", "over", "unstarted", "timeout", "script", "exit")


class Rows:
    """Facts of one rank not yet in the journal, in the catalogue's row forms."""

    __slots__ = KINDS

    def __init__(self) -> None:
        self.start: list[list[Any]] = []
        self.over: list[list[Any]] = []
        self.unstarted: list[list[Any]] = []
        self.timeout: list[list[Any]] = []
        self.script: list[list[Any]] = []
        self.exit: list[list[Any]] = []

    def __bool__(self) -> bool:
        return bool(self.over or self.start or self.unstarted or self.timeout or self.script or self.exit)

    def __len__(self) -> int:
        return sum(len(getattr(self, name)) for name in KINDS)

    def context(self, rank: int) -> dict[str, Any]:
        """The report event's context."""
        found: dict[str, Any] = {"rank": rank}
        for name in KINDS:
            rows = getattr(self, name)
            if rows:
                found[name] = rows
        return found

    def ended(self) -> list[tuple[int, int, str]]:
        """What is over: (job, version, letter of a script or "")."""
        return [(row[0], row[1], "") for row in self.over] + [(row[0], row[1], row[2]) for row in self.script]

    def drop(self, attempts: set[tuple[int, int]]) -> None:
        """Forget all facts about these attempts, (job, version)."""
        for name in KINDS:
            setattr(self, name, [row for row in getattr(self, name) if (row[0], row[1]) not in attempts])

    def put_before(self, later: Rows) -> None:
        """Facts that come after these."""
        for name in KINDS:
            getattr(self, name).extend(getattr(later, name))


def cut(rows: Rows, limit: int) -> Rows:
    """The first facts, in the order a fold needs them: a start never after its end, nor before the end that gave the seat.

    (Were the rest lost with the node, a job that started on a seat would have no one to have taken it from.)
    """
    first = Rows()
    for name in KINDS:
        setattr(first, name, getattr(rows, name)[:limit])
    later = {row[6] for row in rows.over[limit:]}
    first.start = [row for row in rows.start if row[0] not in later][:limit]
    return first


def rest(rows: Rows, first: Rows) -> Rows:
    """What `cut` left."""
    rest = Rows()
    for name in KINDS:
        setattr(rest, name, getattr(rows, name)[len(getattr(first, name)) :])
    told = {(row[0], row[1]) for row in first.start}
    rest.start = [row for row in rows.start if (row[0], row[1]) not in told]
    return rest


class Bucket:
    """When facts go out: after a quiet time at once; in a flood they wait a few milliseconds for company.

    A bucket of `BURST` reports refills by one every `report_s` (`pace`): a few jobs never wait, a flood is paced.
    """

    __slots__ = ("_bucket", "_last")

    def __init__(self) -> None:
        self._last = self._bucket = 0.0

    def wait_s(self, now: float, facts: int, held: int, report_s: float) -> float:
        """How long so many facts are to wait; 0.0: they go now. held: attempts on the host."""
        if not 0.0 <= now - self._last < 60.0:
            self._last = now - 1.0  # first report, or the clock was set
        self._bucket = min(BURST, self._bucket + (now - self._last) / report_s)
        self._last = now
        if self._bucket < 1.0 and held > FEW and facts < MANY:
            return (1.0 - self._bucket) * report_s
        self._bucket = max(0.0, self._bucket - 1.0)
        return 0.0
