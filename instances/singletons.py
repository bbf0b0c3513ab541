"""Singletons (flux-core's dependency scheme): of a user's jobs of one name, those that wait until no other is active.

They go one by one, in the order of their submission. Pure; derived from the state when the first such job is met, and
kept in step from then on. Unlike in flux-core a job that was submitted later and still waits for something itself is no
reason to wait: it may well wait for the singleton.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from ..journal.dependency import of_jobspec
from ..journal.job import DEPEND, INACTIVE, NEW, SINGLETON, Job
from ..journal.state import State


def name_of(job: Job) -> str:
    """The name its jobspec gives it, "" if none: a command's own name does not count (flux-core)."""
    attributes = (job.jobspec or {}).get("attributes") or {}
    return str(((attributes.get("system") or {}).get("job") or {}).get("name") or "")


class _Kin:
    """One user's active jobs of one name. line: (order, id) of those that wait as singletons; early: of those that wait
    for something else; busy: all others."""

    __slots__ = ("busy", "early", "line")

    def __init__(self) -> None:
        self.line: list[tuple[int, int]] = []
        self.early: list[tuple[int, int]] = []
        self.busy: dict[int, None] = {}

    def drop(self, job: tuple[int, int]) -> None:
        for some in (self.line, self.early):
            at = bisect_left(some, job)
            if at < len(some) and some[at] == job:
                del some[at]
        self.busy.pop(job[1], None)


class Singletons:
    """woken: jobs whose turn may have come, until the owner takes them."""

    __slots__ = ("_kin", "_places", "_state", "woken")

    def __init__(self, state: State) -> None:
        self._state = state
        self._kin: dict[tuple[int, str], _Kin] = {}
        self._places: dict[int, tuple[tuple[int, str], int]] = {}  # job -> whose kin, its order
        self.woken: dict[int, None] = {}
        for job in state.active():
            self.note(job)

    def note(self, job: Job) -> None:
        """A job has been touched."""
        name = name_of(job) if job.state != INACTIVE else ""
        if job.id in self._places:
            self._drop(job.id)
        if not name:
            if _waits(job):  # it has lost its name since
                self.woken[job.id] = None
            return
        key, place = (job.userid, name), (job.order, job.id)
        self._places[job.id] = (key, job.order)
        kin = self._kin.setdefault(key, _Kin())
        if _waits(job):
            insort(kin.line, place)
        elif job.state & (NEW | DEPEND) and SINGLETON not in job.met:
            insort(kin.early, place)
        else:
            kin.busy[job.id] = None
        self._wake(kin)

    def go(self, job: Job) -> bool:
        """Whether its turn has come; if so it is let go, and the next one waits for it."""
        self.note(job)
        if job.id not in self._places:
            return True
        kin = self._kin[self._places[job.id][0]]
        if self._first(kin) != job.id:
            return False
        kin.drop((job.order, job.id))
        kin.busy[job.id] = None
        return True

    def _first(self, kin: _Kin) -> int:
        """The job whose turn it is, 0 for none."""
        if not kin.line or kin.busy or (kin.early and kin.early[0] < kin.line[0]):
            return 0
        return kin.line[0][1]

    def _wake(self, kin: _Kin) -> None:
        id = self._first(kin)
        if id:
            self.woken[id] = None

    def _drop(self, id: int) -> None:
        key, order = self._places.pop(id)
        kin = self._kin[key]
        kin.drop((order, id))
        if not (kin.line or kin.early or kin.busy):
            del self._kin[key]
        self._wake(kin)

    def forget_gone(self) -> None:
        """Jobs have left the state, perhaps before anybody looked at their end."""
        for id in [id for id in self._places if id not in self._state.jobs]:
            self._drop(id)


def _waits(job: Job) -> bool:
    """Whether it waits as a singleton, or is about to."""
    if job.state == DEPEND:
        return SINGLETON in job.waiting
    asked = of_jobspec(job.jobspec) if job.state == NEW else None
    return isinstance(asked, list) and any(isinstance(one, dict) and one.get("scheme") == SINGLETON for one in asked)
