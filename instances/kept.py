"""What the journal keeps of a job's submission: its jobspec, with later updates in it, and its environment."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from ..journal.job import Job
    from .client import Instance


def kept_jobspec(instance: Instance, record: Job, *, original: bool = False) -> dict[str, Any]:
    """The jobspec (without environment) of a job of any age, with its updates, or as it was submitted. Raises `Rejected`."""
    from ..journal import fold_jobs
    from ..journal.job import Job
    from ..journal.state import MALFORMED, State

    if record.jobspec and not original:
        return record.jobspec
    scratch = Job(record.id)
    state = State()
    for commit, event in instance.journal.story(record.commits, record.id):
        if event.name == "submit" and event.context is not None:
            found = event.context.get("jobspec")
            scratch.jobspec = found if isinstance(found, dict) else {}
        elif event.name == "jobspec-update" and not original:
            with suppress(*MALFORMED):  # the fold has passed over it, too
                fold_jobs.jobspec_update(state, scratch, event.timestamp, event.context or {}, commit.version)
    if scratch.jobspec is None:
        raise Rejected("its jobspec is no more in the journal", code="archived", hint="look into the archive")
    return scratch.jobspec


def kept_environment(instance: Instance, record: Job) -> dict[str, str]:
    """The environment a job was submitted with; {} if it is lost."""
    from ..instances.wire import unpack

    (data,) = instance.journal.history.blobs([record.env]) if record.env else [None]
    return unpack(data) if data is not None else {}
