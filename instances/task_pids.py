"""The process ids of a running job's tasks on this host, as its launcher has written them down. Only reads.

The record in the spool is the launcher's own memory (see `spool`): there is no other place that knows, and asking it would
disturb who starts everybody's tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .paths import state_dir_of

if TYPE_CHECKING:
    from ..journal.job import Job


def task_pids(uri: str, job: Job, rank: int) -> list[int]:
    """Process ids of the job's tasks on a rank, in the order of their task ranks; [] if this host has none of them."""
    from .spool import Record

    directory = state_dir_of(uri)
    if directory is None:
        return []
    attempt = Record(directory.spool).lost.get(f"{job.key}.{rank}")
    return attempt.pids if attempt is not None else []
