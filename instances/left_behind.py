"""Instances that ended before their jobs had: what is said of them, and to whoever waits there for what does not come. Only reads.

The journal of a child whose job is over is sealed, and what it calls active then is the last that was known. So a listing says that
it shows the past, and a wait ends with an error that names the way on, within seconds of either.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from ..journal.job import ACTIVE, NEW
from ..kvs.errors import FluxkvError, Unavailable
from .whereabouts import beside

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.state import State
    from ..kvs.port import Store

ASK_S = 1.0


def way_on(store: Store) -> str:
    """What goes on with a sealed instance: a command that names the outermost job around it that is over."""
    steps = store.namespace.strip("/").split("/")
    what = "it"
    for depth in range(1, len(steps)):
        try:
            with closing(beside(store, "/" + "/".join(steps[:depth]))) as around:
                if around.meta().sealed:
                    steps, what = steps[:depth], "the instance around it, in which it begins anew"
                    break
        except FluxkvError:  # it has another server, or is none of ours to look at
            continue
    *outer, job = steps
    try:
        from ..journal.log import Journal
        from .job_path import parse_step

        with closing(beside(store, "/" + "/".join(outer))) as around:
            journal = Journal(around)
            return way_on_with(journal.find_job(journal.look(), parse_step(job).job), journal, what)
    except FluxkvError:
        where = f"--instance /{'/'.join(outer)} " if outer else ""
        return f"fluxkv {where}batch --resume {job.partition('.')[0]} goes on with {what}"


def way_on_with(job: Job, journal: Journal, what: str = "it") -> str:
    """The same of a job that was an instance, and is over: an ensemble's members are submitted again. journal: that has the job."""
    from ..journal.ids import f58
    from .job_path import command_of, typed_at

    where = typed_at(journal.store.namespace)
    if command_of(job, journal)[2:4] == ["fluxkv", "ensemble"]:
        return f"fluxkv {where}ensemble rerun {f58(job.id)} submits again what did not run to an end"
    return f"fluxkv {where}batch --resume {f58(job.id)} goes on with {what}"


def remark(journal: Journal, state: State) -> str:
    """What is to be said before an instance's jobs are shown: "" unless it has ended, and jobs in it had not."""
    left = state.count(ACTIVE | NEW) if journal.meta.sealed else 0
    if not left:
        return ""
    jobs, these = ("one of its jobs", "that one is") if left == 1 else (f"{left:,} of its jobs", "these are")
    return f"the instance {journal.store.namespace} ended before {jobs} did: {these} shown as last known; {way_on(journal.store)}"


class Patience:
    """For whoever waits on an instance's journal: tells a silence from the end.

    `nothing` is called while nothing comes, as often as one likes; `something` when something did.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sealed = False
        self._asked = time.monotonic()

    def something(self) -> None:
        """What was written before it was sealed may still be coming."""
        self._sealed = False

    def nothing(self) -> None:
        """Raises `Unavailable(code="ended")` once it was sealed and silent twice: nothing more comes."""
        if self._store.namespace == "/" or time.monotonic() - self._asked < ASK_S:
            return
        self._asked = time.monotonic()
        sealed = self._is_sealed()
        if sealed and self._sealed:
            raise self._ended()
        self._sealed = sealed

    def late(self, what: str) -> Unavailable:
        """The error of a wait whose time is up, while `what` is so: that it is for nothing, where it is."""
        from .follow import timed_out

        return self._ended() if self._store.namespace != "/" and self._is_sealed() else timed_out(what)

    def _is_sealed(self) -> bool:
        try:
            return bool(self._store.meta().sealed)
        except Unavailable:  # whose patience with the server is another's
            return False

    def _ended(self) -> Unavailable:
        return Unavailable(
            f"the instance {self._store.namespace} has ended before what is waited for", code="ended", hint=way_on(self._store)
        )
