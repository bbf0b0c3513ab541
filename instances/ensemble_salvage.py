"""What children that are gone had come to and had not told their ensemble: their journals say it.

Decides which of their jobs count as ended: those that ended by themselves. What was ended with its child (its instance was
stopped, or its processes were) is run again. Only reads.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..journal.ensemble import Ended, Indices, Part
from ..journal.job import INACTIVE, Job
from ..journal.log import Journal
from ..journal.retry import WITH_INSTANCE
from ..kvs.errors import Rejected, Unavailable
from .child import child_namespace
from .ensemble_feed import row_of
from .ensemble_job import VARIABLE
from .follow import result_of
from .whereabouts import store_of

if TYPE_CHECKING:
    from ..kvs.port import Store

BY_SIGNAL = (9, 15)
PART = 2000
AWAY_S, LOOK_S = 60.0, 0.5


def salvage(
    ensemble: Store, child: int, attempts: Iterable[int], indices: Indices, done: bytearray, outer: int
) -> Iterator[Part]:
    """Results of a child's attempts that are not in `done` (a byte a position). ensemble: the store of the ensemble's instance, in
    its attempt `outer`."""
    for attempt in attempts:
        other = _opened(ensemble, child_namespace(ensemble.namespace, child, attempt))
        if other is None:
            continue
        try:
            rows = [row for row in _ended(Journal(other, "ensemble"), indices) if not done[row.position]]
        except (Rejected, Unavailable) as error:
            if error.code not in ("no-instance", "gone"):
                raise
            continue  # it died before it was an instance
        finally:
            other.close()
        for at in range(0, len(rows), PART):
            yield Part((outer, child, attempt), rows[at : at + PART])


def _opened(ensemble: Store, namespace: str) -> Store | None:
    """A child's journal. One that was on a server of its own, on another host, is handed up within a moment."""
    deadline = time.monotonic() + AWAY_S
    while True:
        try:
            return store_of(ensemble, namespace, over=True)
        except Unavailable as error:
            if error.code != "server-away" or time.monotonic() > deadline:
                raise
        time.sleep(LOOK_S)


def _ended(journal: Journal, indices: Indices) -> Iterator[Ended]:
    """The members that ended there, as far as its live state goes back: more than that are never untold."""
    ended = [job for job in journal.look().jobs.values() if job.state == INACTIVE and job.commits and not interrupted(job)]
    ended.sort(key=lambda job: job.commits[0])
    version, index = 0, dict[int, int]()
    for job in ended:
        if job.commits[0] != version:
            version = job.commits[0]
            index = _indices_in(journal, version)
        position = indices.position_of(index.get(job.id, -1))
        if position >= 0:
            yield row_of(result_of(job), position)


def interrupted(job: Job) -> bool:
    """Whether a job ended because its instance did."""
    if job.exception:
        return job.exception[0] in WITH_INSTANCE
    return job.status is not None and job.status & 0x7F in BY_SIGNAL


def _indices_in(journal: Journal, version: int) -> dict[int, int]:
    """The indices of the jobs that one commit submitted."""
    found = {}
    for _, event in journal.story([version]):
        if event.name != "submit" or not isinstance(event.subject, int):
            continue
        try:
            environment = (event.context or {})["jobspec"]["attributes"]["system"]["environment"]
            found[event.subject] = int(environment[VARIABLE])
        except (KeyError, TypeError, ValueError):
            continue  # somebody else's job
    return found
