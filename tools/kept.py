"""What the journal keeps of a job's submission: its jobspec, with later updates in it, and its environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from ..instances.client import Instance


def kept_jobspec(instance: Instance, id: int, *, original: bool = False) -> tuple[dict[str, Any], dict[str, str], int]:
    """(jobspec without environment, environment, urgency) of a job of any age. original: without updates.

    Raises `Rejected` for an unknown job.
    """
    from ..instances.wire import unpack
    from ..journal import fold_jobs
    from ..journal.job import Job
    from ..journal.state import State

    record = instance.job(id)
    scratch = Job(id)
    state = State()
    env, urgency = "", 16
    for commit, event in instance.journal.story(record.commits, id):
        if event.name == "submit" and event.context is not None:
            scratch.jobspec, env = event.context.get("jobspec") or {}, event.context.get("env") or ""
            urgency = int(event.context.get("urgency", 16))
        elif event.name == "jobspec-update" and not original:
            fold_jobs.jobspec_update(state, scratch, event.timestamp, event.context or {}, commit.version)
    if scratch.jobspec is None:
        raise Rejected("its jobspec is no more in the journal", code="archived", hint="look into the archive")
    (data,) = instance.store.get_blobs([env]) if env else [None]
    return scratch.jobspec, unpack(data) if data is not None else {}, urgency
