"""What children that are gone had come to and had not told their ensemble: their journals say it, and what their launchers wrote
down on this host that came into no journal any more (`left_spool`).

Decides which of their jobs count as ended: those that ended by themselves. What was ended with its child (its instance was
stopped, or its processes were) is run again, and so is what ended in a journal that nobody reaches: that is said. Only reads.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from ..journal.ensemble import Ended, Indices, Part
from ..journal.ids import f58
from ..journal.job import INACTIVE
from ..journal.log import Journal
from ..journal.resuming import come_to
from ..kvs.errors import Corrupt, FluxkvError, Rejected, Unavailable
from . import left_spool
from .child import child_namespace
from .ensemble_feed import interrupted, row_of
from .ensemble_job import VARIABLE
from .ensemble_record import Record
from .follow import result_of
from .job_path import parse_step
from .whereabouts import store_of

if TYPE_CHECKING:
    from ..kvs.port import Store

PART = 2000
NEVER = ("no-instance", "gone")  # it died before it was an instance
AWAY = ("server-away", "archive")
AWAY_S, LOOK_S = 60.0, 0.5


class Salvage:
    """indices: of the ensemble. done: a byte a position, 1 where a result is known; whoever takes what we find marks it. away_s:
    how long journals on servers of their own are waited for, all together. given_up: is told of each that did not come. waits:
    called while one is waited for. roots: state directories of instances that the ensembles may be jobs of (`left_spool.roots`)."""

    def __init__(
        self, indices: Indices, done: bytearray, given_up: Callable[[str], None], away_s: float = AWAY_S,
        waits: Callable[[], None] = lambda: None, roots: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._indices, self._done, self._given_up, self._waits = indices, done, given_up, waits
        self._until = time.monotonic() + away_s
        self._roots = roots

    def of_ensemble(self, above: Store, id: int, attempts: Iterable[int]) -> Iterator[Part]:
        """What attempts of an ensemble have come to: what was told there, and what was not. above: the store of the instance whose
        job `id` it is."""
        from .client import Instance

        for outer in attempts:
            store = store_of(above, child_namespace(above.namespace, id, outer), over=True)
            if store is None:
                continue
            try:
                there = Instance(store)
                for _, part in Record(there.kvs).parts():
                    yield part
                for job in there.state().jobs.values():
                    yield from self.of_child(store, job.id, range(1, job.number + 1), outer)
            except (Rejected, Unavailable) as error:
                if error.code not in NEVER:
                    raise
            finally:
                store.close()

    def of_child(self, ensemble: Store, child: int, attempts: Iterable[int], outer: int) -> Iterator[Part]:
        """Results of a child's attempts that are not done. ensemble: the store of the ensemble's instance, its attempt `outer`."""
        for attempt in attempts:
            try:
                rows = self._untold(ensemble, child, attempt)
            except FluxkvError as error:
                if error.code in NEVER:
                    continue
                if error.code not in AWAY and not isinstance(error, Corrupt):
                    raise
                self._given_up(f"what ended in child {f58(child)}.{attempt} and was not told runs again, being unknown: {error}")
                continue
            for at in range(0, len(rows), PART):
                yield Part((outer, child, attempt), rows[at : at + PART])

    def _untold(self, ensemble: Store, child: int, attempt: int) -> list[Ended]:
        other = self._opened(ensemble, child_namespace(ensemble.namespace, child, attempt))
        if other is None:
            return []
        outer = parse_step(ensemble.namespace.rpartition("/")[2]).job if self._roots else 0
        folders = left_spool.folders_of(self._roots, outer, child)
        with closing(other):
            return [row for row in _ended(Journal(other, "ensemble"), self._indices, folders) if not self._done[row.position]]

    def _opened(self, ensemble: Store, namespace: str) -> Store | None:
        """A child's journal. One that was on a server of its own, on another host, is handed up within a moment."""
        while True:
            try:
                return store_of(ensemble, namespace, over=True)
            except Unavailable as error:
                if error.code != "server-away" or time.monotonic() > self._until:
                    raise
            self._waits()
            time.sleep(LOOK_S)


def say_given_up(text: str) -> None:
    """Into the output of the job that we are: a journal that could not be read."""
    sys.stderr.write(f"fluxkv: {text}\n")


def _ended(journal: Journal, indices: Indices, folders: Iterable[str]) -> Iterator[Ended]:
    """The members that ended there, as far as its live state goes back: more than that are never untold. folders: state directories
    of who had the journal, whatever wrote there is gone: what is said of an attempt and nobody has answered is answered here."""
    state = journal.look()
    come_to(state, state.time, left_spool.reports(state, folders))
    ended = [job for job in state.jobs.values() if job.state == INACTIVE and job.commits and not interrupted(job)]
    ended.sort(key=lambda job: job.commits[0])
    version, index = 0, dict[int, int]()
    for job in ended:
        if job.commits[0] != version:
            version = job.commits[0]
            index = _indices_in(journal, version)
        position = indices.position_of(index.get(job.id, -1))
        if position >= 0:
            yield row_of(result_of(job), position)


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
