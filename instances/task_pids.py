"""The process ids of a running job's tasks on this host, as its launcher has written them down. Only reads.

The record in the spool is the launcher's own memory (see `spool`): there is no other place that knows, and asking it would
disturb who starts everybody's tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .paths import state_dirs_of

if TYPE_CHECKING:
    from ..journal.job import Job


def task_pids(uri: str, job: Job) -> dict[int, list[int]]:
    """Rank of a node -> process ids of the job's tasks there, in the order of their task ranks; only ranks of this host."""
    from .attempts import split_key
    from .spool import Record

    found: dict[int, list[int]] = {}
    for directory, _ in state_dirs_of(uri):
        begun = Record(directory.spool).lost
        found.update((split_key(key)[2], one.pids) for key, one in begun.items() if key.startswith(f"{job.key}."))
    return {rank: found[rank] for rank in sorted(found.keys() & set(job.ranks))}
