"""Singletons (flux-core's dependency scheme): of a user's jobs of one name, those that wait until no other is active.

Pure; derived from the state when the first such job is met, and kept in step from then on. One is let go when every
other active job of that user and name waits as a singleton too: they go one by one, in the order of their submission.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from ..journal.dependency import of_jobspec
from ..journal.job import DEPEND, INACTIVE, NEW, Job
from ..journal.state import State

Key = tuple[int, str]
DESCRIPTION = "singleton"


def name_of(job: Job) -> str:
    """The name its jobspec gives it, "" if none: a command's own name does not count (flux-core)."""
    attributes = (job.jobspec or {}).get("attributes") or {}
    return str(((attributes.get("system") or {}).get("job") or {}).get("name") or "")


class Singletons:
    """woken: jobs whose turn may have come, until the owner takes them."""

    __slots__ = ("_active", "_keys", "_line", "_state", "woken")

    def __init__(self, state: State) -> None:
        self._state = state
        self._keys: dict[int, Key] = {}
        self._active: dict[Key, dict[int, None]] = {}  # those that do not wait as singletons
        self._line: dict[Key, list[tuple[int, int]]] = {}  # (order, id) of those that do
        self.woken: dict[int, None] = {}
        for job in state.active():
            self.note(job)

    def note(self, job: Job) -> None:
        """A job has been touched."""
        name = name_of(job) if job.state != INACTIVE else ""
        key = (job.userid, name)
        before = self._keys.get(job.id)
        if before is not None and before != key:
            self._drop(job.id, before, job.order)
        if not name:
            return
        self._keys[job.id] = key
        if self._waits(job):
            self._active.get(key, {}).pop(job.id, None)
            line = self._line.setdefault(key, [])
            at = bisect_left(line, (job.order, job.id))
            if at == len(line) or line[at] != (job.order, job.id):
                insort(line, (job.order, job.id))
        else:
            self._unline(job.id, key, job.order)
            self._active.setdefault(key, {})[job.id] = None
        self._wake(key)

    @staticmethod
    def _waits(job: Job) -> bool:
        if job.state == DEPEND:
            return DESCRIPTION in job.waiting
        asked = of_jobspec(job.jobspec) if job.state == NEW else None
        return isinstance(asked, list) and any(isinstance(one, dict) and one.get("scheme") == DESCRIPTION for one in asked)

    def go(self, job: Job) -> bool:
        """Whether its turn has come; if so it is let go, and the next one waits for it."""
        self.note(job)
        key = (job.userid, name_of(job))
        line = self._line.get(key)
        if not line or line[0][1] != job.id or self._busy(key):
            return False
        self._unline(job.id, key, job.order)
        self._active.setdefault(key, {})[job.id] = None
        return True

    def _busy(self, key: Key) -> bool:
        active = self._active.get(key, {})
        while active:
            id = next(iter(active))
            job = self._state.jobs.get(id)
            if job is not None and job.state != INACTIVE:
                return True
            del active[id]  # it left the state before anybody looked
            self._keys.pop(id, None)
        self._active.pop(key, None)
        return False

    def _wake(self, key: Key) -> None:
        line = self._line.get(key)
        if line and not self._busy(key):
            self.woken[line[0][1]] = None

    def _unline(self, id: int, key: Key, order: int) -> None:
        line = self._line.get(key, [])
        at = bisect_left(line, (order, id))
        if at < len(line) and line[at] == (order, id):
            del line[at]
        if not line:
            self._line.pop(key, None)

    def _drop(self, id: int, key: Key, order: int) -> None:
        del self._keys[id]
        self._unline(id, key, order)
        active = self._active.get(key, {})
        active.pop(id, None)
        if not active:
            self._active.pop(key, None)
        self._wake(key)

    def forget_gone(self) -> None:
        """Jobs have left the state, perhaps before anybody looked at their end."""
        jobs = self._state.jobs
        for id, key in [(id, key) for id, key in self._keys.items() if id not in jobs]:
            del self._keys[id]
            line = [one for one in self._line.pop(key, []) if one[1] != id]
            if line:
                self._line[key] = line
            self._wake(key)
