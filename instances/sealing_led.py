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
from ..kvs.port import Store
from . import sealing

LED_S = 5.0  # after the end of the leading part: as long as others may take to say how theirs ended
PAUSE_S, LONGEST_S = 1.0, 30.0
# What is said of the job of a child that goes on. (An exception may be followed by something else within a second.)
HARMLESS = frozenset(
    ("submit", "validate", "depend", "priority", "alloc", "start", "memo", "annotations", "resource-update", "jobspec-update",
     "urgency", "resize", "grow", "shrink", "release", "free")
)  # fmt: skip


class Led:
    """What a keeper knows of the children in its instance's table."""

    def __init__(self) -> None:
        self._seen: dict[Child, int] = {}  # the last version that says something of its job
        self._ending: dict[Child, tuple[float, float]] = {}  # when it is looked at again (monotonic), and how long after that
        self._sealed: set[Child] = set()

    def look(self, store: Store, settings: Mapping[str, Any], rows: Sequence[Child]) -> list[str]:
        """Seal those that nobody leads; their namespaces. rows: the table. Raises what the store does."""
        alive = [row for row in rows if not row.over and row not in self._sealed]
        for table in (self._seen, self._ending):
            for row in table.keys() - alive:
                del table[row]
        self._sealed &= set(rows)
        bumps = store.bumps([f"job/{row.job}" for row in alive]) if alive else []
        for row, bump in zip(alive, bumps, strict=True):
            if bump != self._seen.get(row):
                if _is_ending(store, row.job, bump):
                    self._ending.setdefault(row, (0.0, PAUSE_S))
                self._seen[row] = bump
        due = [row for row, (at, _) in self._ending.items() if at <= time.monotonic()]
        return self._seal(store, settings, rows, due) if due else []

    def _seal(self, store: Store, settings: Mapping[str, Any], rows: Sequence[Child], due: Sequence[Child]) -> list[str]:
        found = []
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


def _is_ending(store: Store, job: int, version: int) -> bool:
    """Whether a commit says something of a job that may be its end; where it cannot be read, it may."""
    entries = store.entries([version]) if version else []
    if not entries:
        return True
    commit = history.reader(store).commit(entries[0])
    return any(subject == job and name not in HARMLESS for name, subject, *_ in well_formed(commit.events))
