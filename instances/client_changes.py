"""What a client changes of jobs: the half of `Instance` that folds the state, decides and appends. Sends nothing to a daemon."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from .handle import JobHandle, JobIds, id_of, ids_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..journal.decide import Decision
    from ..journal.log import Journal
    from ..journal.state import State
    from .changing import Outcome
    from .resize_client import Resizing


class Changes:
    """Of an instance. uri: its address; journal: its."""

    uri: str
    by: str

    @property
    def journal(self) -> Journal:
        """See `Instance.journal`."""
        raise NotImplementedError

    def cancel(self, ids: JobIds, note: str = "", *, state: State | None = None) -> list[int]:
        """Cancel jobs, in a few commits however many they are; the ids of those that were active and not ending already.

        state: one read just now, if there is one: it need not be read again. Raises `Rejected(code="no-such-job")`
        if one is unknown, and then cancels none.
        """
        from ..journal import decide

        wanted = ids_of(ids)
        if not wanted:
            return []
        state = state if state is not None else self.journal.look()
        self.journal.known_jobs(state, wanted)

        def decisions(state: State) -> list[Decision]:
            found = (state.jobs[id] for id in wanted if id in state.jobs)
            return decide.cancel_each(found, note, os.getuid(), time.time())

        return [int(event[1]) for event in self.journal.settle_each(decisions, state)]

    def raise_exception(self, id: int | str | JobHandle, kind: str = "cancel", severity: int = 0, note: str = "") -> None:
        """Raise an exception on a job (RFC 21); severity 0 ends it."""
        from ..journal import decide

        job = id_of(id)
        self.journal.settle(
            lambda state: decide.raise_exception(state, job, kind, severity, note, os.getuid(), time.time())
        )

    def set_urgency(self, id: int | str | JobHandle, urgency: int) -> None:
        """Change a pending job's urgency (RFC 30)."""
        from ..journal import decide

        job = id_of(id)
        self.journal.settle(lambda state: decide.change_urgency(state, job, urgency, os.getuid(), time.time()))

    def update(self, ids: JobIds, **changes: Any) -> Outcome:
        """As `fluxkv update`: duration="+10m", queue="debug", name=... What was changed, what stood in others' way."""
        from .changing import Update, change_jobs

        made = Update([f"{key}={value}" for key, value in changes.items()], os.getuid())
        return change_jobs(self.journal, ids_of(ids), made, from_node=True)

    def requeue(self, ids: JobIds, note: str = "", *, hold: bool = False) -> Outcome:
        """As `fluxkv requeue`: running jobs end and go back in line. Which do, and what stood in the others' way."""
        from ..journal.decide_update import requeue
        from .changing import change_jobs

        return change_jobs(self.journal, ids_of(ids), lambda state, job, now: requeue(job, note, hold, os.getuid(), now))

    def kill(self, id: int | str | JobHandle, signum: int = 15) -> None:
        """Send a signal to a running job's tasks."""
        from ..journal import decide

        job = id_of(id)
        self.journal.settle(lambda state: decide.kill(state, job, signum, os.getuid(), time.time()))

    def resize(
        self, change: str, job: int | str | JobHandle | None = None, *, grace: float | str = 60.0, jobs: str = "finish",
        nodes: str | Iterable[int] = "", at_once: bool = False, note: str = "",
    ) -> Resizing:  # fmt: skip
        """As `fluxkv resize`: give a job that runs more nodes, or take some back: "+2N", "-1N", or "=4N" in all.

        job: None is the instance itself, which asks the one around it. What is asked for stands in the journal when this returns;
        `Resizing` tells how far it is, and waits. Of nodes that leave: grace is how long an instance has to give them back
        (seconds, or "5m"), jobs what becomes of jobs there ("finish" within the grace, "requeue" or "fail" at once), nodes which
        ones leave (ranks, or an idset or hostlist; of the instance itself its own ranks; default: idle ones, then the last).
        at_once: more nodes now, or not at all. Raises `Rejected`, e.g. code "lead", "not-instance", "unsatisfiable", "no-parent".
        """
        from .resize_client import resize

        return resize(self, change, job, grace=grace, jobs=jobs, nodes=nodes, at_once=at_once, note=note)
