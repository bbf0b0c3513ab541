"""The process ids of a running job's tasks on this host, as its launcher has written them down. Only reads.

The record in the spool is the launcher's own memory (see `spool`): there is no other place that knows, and asking it would
disturb who starts everybody's tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .paths import state_dir_of

if TYPE_CHECKING:
    from ..journal.job import Job


def task_pids(uri: str, job: Job) -> dict[int, list[int]]:
    """Rank of a node -> process ids of the job's tasks there, in the order of their task ranks; only ranks of this host."""
    from .attempts import split_key
    from .spool import Record

    directory = state_dir_of(uri)
    if directory is None:
        return {}
    begun = Record(directory.spool).lost
    ranks = set(job.ranks)
    found = {split_key(key)[2]: one.pids for key, one in begun.items() if key.startswith(f"{job.key}.")}
    return {rank: found[rank] for rank in sorted(ranks.intersection(found))}
