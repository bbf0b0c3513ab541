"""Children that nobody leads any more, though their jobs are not over: they are sealed, too.

A job that is cancelled, or fails, is over when each of its nodes has said so. One that is cut off, or down, says nothing for as
long as it likes. Where the first node's part, which leads, has ended, nobody would run what is submitted there meanwhile, and what
the other node says when it is back is not to be believed. A keeper of the parent folds its journal for that only after something
has ended such a job, and ever more rarely.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..journal import history
from ..journal.job import Job
from ..journal.log import Journal
from ..journal.wire import well_formed
from ..kvs.children import Child
from ..kvs.errors import Corrupt
from ..kvs.port import Store, id_pair
from . import sealing

LED_S = 5.0  # after the end of the leading part: as long as others may take to say how theirs ended
PAUSE_S, LONGEST_S = 1.0, 30.0
FAR = 500  # commits; above that a fold is cheaper than reading them
# What is said of the job of a child that goes on, and may be said of one that ends, too: an end that is followed by it counts.
HARMLESS = frozenset(
    ("submit", "validate", "depend", "priority", "alloc", "start", "memo", "annotations", "resource-update", "jobspec-update",
     "urgency", "resize", "grow", "shrink", "release", "free")
)  # fmt: skip


class Led:
    """What a keeper knows of the children in its instance's table."""

    def __init__(self) -> None:
        self._seen: dict[Child, int] = {}  # the last version that says something of its job
        self._tip = 0  # up to which all that is said of those is known
        self._ending: dict[Child, tuple[float, float]] = {}  # when it is looked at again (monotonic), and how long after that
        self._sealed: set[Child] = set()

    def look(self, store: Store, settings: Mapping[str, Any], rows: Sequence[Child]) -> list[str]:
        """Seal those that nobody leads; their namespaces. rows: the table. Raises what the store does."""
        alive = [row for row in rows if not row.over and row not in self._sealed]
        for table in (self._seen, self._ending):
            for row in table.keys() - alive:
                del table[row]
        self._sealed &= set(rows)
        if alive:
            self._learn(store, alive)
        due = [row for row, (at, _) in self._ending.items() if at <= time.monotonic()]
        return self._seal(store, settings, rows, due) if due else []

    def _learn(self, store: Store, alive: Sequence[Child]) -> None:
        """Whose jobs may be ending, by what was said since the last look; of one that is new in the table, since it began."""
        tip = store.meta().version  # before the bumps: what is said later is another bump
        bumps = zip(alive, store.bumps([f"job/{row.job}" for row in alive]), strict=True)
        fresh = {row: bump for row, bump in bumps if bump != self._seen.get(row)}
        after = min((self._tip if row in self._seen else id_pair(row.entry)[0] for row in fresh), default=tip)
        ending = _ending(store, {row.job: bump for row, bump in fresh.items()}, after)
        for row in fresh:
            if row.job in ending:
                self._ending.setdefault(row, (0.0, PAUSE_S))
        self._seen.update(fresh)
        self._tip = tip

    def _seal(self, store: Store, settings: Mapping[str, Any], rows: Sequence[Child], due: Sequence[Child]) -> list[str]:
        found = []
        sealing.ask_at_once(store, due)
        state = Journal(store).look()
        for row in due:
            job = state.jobs.get(row.job)
            if job is None or job.attempt_id != row.entry or job.exception is None:
                del self._ending[row]
                continue
            _, pause = self._ending[row]
            self._ending[row] = time.monotonic() + pause, min(LONGEST_S, 2 * pause)  # also if it cannot be sealed now
            alone = all(row.name != other.name or row == other or other.over for other in rows)  # else another goes on with it
            if alone and 0.0 < _led_until(job) <= store.now() - LED_S:
                sealing.seal_child(store, row, settings)
                found.append(sealing.namespace_of(store.namespace, row))
                self._sealed.add(row)
        return found


def _led_until(job: Job) -> float:
    """When the first of its nodes, which leads, ended its part (Unix seconds), 0.0 if it has not."""
    leading = job.claims[0].rank if job.claims else -1  # whatever nodes came and went: the first one stays
    return float(job.over[leading][1]) if leading in job.over else 0.0


def _ending(store: Store, bumps: Mapping[int, int], after: int) -> set[int]:
    """Those jobs of which something is said, behind a version, that may be their end; where it cannot be read, it may. bumps: by
    job, the last version that says something."""
    until = max(bumps.values(), default=0)
    found = {job for job, bump in bumps.items() if bump < after or until > after + FAR}  # its guard is gone; too much to read
    if found.issuperset(bumps):
        return found
    try:
        for commit in history.reader(store).commits(after, until):
            found.update(
                subject for name, subject, *_ in well_formed(commit.events)
                if isinstance(subject, int) and subject in bumps and name not in HARMLESS
            )  # fmt: skip
    except Corrupt:
        return set(bumps)
    return found
