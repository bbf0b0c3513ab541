"""Jobs that have left the state: what a `retire` event keeps of them, and the index that finds the event. Pure.

A job never changes after its `clean`, so the record in the event is its last. The state keeps one line an event; a
retired job of any age is two point reads away (`log.Journal.find_jobs`), and its `commits` tell its story.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .columns import Wanted, from_columns, to_columns
from .job import INACTIVE, Job, job_value
from .wire import pack

MAX_JOBS = 2_000  # in one event
MAX_BYTES = 2_000_000  # of records in one event, before compression; one job alone may be larger
MAX_RUNS = 4  # ranges of ids an index line names

# What `clean` empties, and what the event says anyway.
LEFT_OUT = frozenset(("granted", "holds", "id", "met", "over", "reason", "recalled", "started", "state", "waiting"))


def retirement(jobs: Iterable[Job]) -> dict[str, Any]:
    """The context of a `retire` event (`columns.to_columns`) for the first of these inactive jobs: as many as fit one
    event, at least one."""
    chosen: list[Job] = []
    size = 0
    for job in jobs:
        size += len(pack(job_value(job)))
        if chosen and size > MAX_BYTES:
            break
        chosen.append(job)
        if len(chosen) == MAX_JOBS:
            break
    return to_columns(chosen, LEFT_OUT)


def records(context: dict[str, Any], wanted: Wanted = None) -> dict[int, Job] | None:
    """The jobs (only the wanted ones) of a `retire` event, in its order; None if it has no (readable) records."""
    try:
        jobs = from_columns(context, wanted)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    for job in jobs:
        job.state = INACTIVE
        if not isinstance(job.commits, list) or not isinstance(job.claims_wire, list):
            return None
    return {job.id: job for job in jobs}


# -- the index -----------------------------------------------------------------------------------------------------


def index_line(version: int, ended: Mapping[int, float]) -> list[Any]:
    """[version, number of jobs, first end, last end, low id, high id, low, high, ...] of one event. ended: id -> t_inactive.

    The ranges leave out the widest gaps, so that an old job that ended late does not make its event look as if it held
    all jobs since.
    """
    ends = ended.values()
    ids = sorted(ended)
    gaps = sorted(range(1, len(ids)), key=lambda at: ids[at] - ids[at - 1], reverse=True)[: MAX_RUNS - 1]
    line: list[Any] = [version, len(ids), min(ends), max(ends)]
    begin = 0
    for at in [*sorted(gaps), len(ids)]:
        line += [ids[begin], ids[at - 1]]
        begin = at
    return line


def versions_of(index: Iterable[Sequence[Any]], ids: Iterable[int]) -> dict[int, list[int]]:
    """Version -> the ids that the event in it may hold."""
    wanted = sorted(ids)
    found: dict[int, list[int]] = {}
    for line in index:
        for at in range(4, len(line), 2):
            begin, end = bisect_left(wanted, line[at]), bisect_right(wanted, line[at + 1])
            if begin < end:
                found.setdefault(line[0], []).extend(wanted[begin:end])
    return found
