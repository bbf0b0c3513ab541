"""Jobs that have left the state: what a `retire` event keeps of them, and the index that finds the event. Pure.

A job never changes after its `clean`, so the record in the event is its last. The state keeps one line an event; a
retired job of any age is two point reads away (`log.Journal.find_jobs`), and its `commits` tell its story.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from ..kvs.errors import Rejected
from .claims import from_wire
from .job import HASHED, INACTIVE, Job, job_value
from .wire import pack

MAX_JOBS = 2_000  # in one event
MAX_BYTES = 2_000_000  # of records in one event, before compression; one job alone may be larger
MAX_RUNS = 4  # ranges of ids an index line names

# What `clean` empties, and what the event says anyway.
LEFT_OUT = frozenset(("granted", "holds", "id", "over", "reason", "recalled", "started", "state", "waiting"))
KEPT = tuple((at, name) for at, name in enumerate(HASHED) if name not in LEFT_OUT)


def retirement(jobs: Iterable[Job]) -> dict[str, Any]:
    """The context of a `retire` event for the first of these inactive jobs: as many as fit one event, at least one.

    {"jobs": ids, "same": field -> the value all have, "each": field -> values in the order of the ids}: columns, which
    compress to a fraction of rows. A reader skips fields it does not know, and takes those that are missing as unset.
    """
    ids: list[int] = []
    rows: list[tuple[Any, ...]] = []
    size = 0
    for job in jobs:
        row = job_value(job)
        size += len(pack(row))
        if ids and size > MAX_BYTES:
            break
        ids.append(job.id)
        rows.append(row)
        if len(ids) == MAX_JOBS:
            break
    same: dict[str, Any] = {}
    each: dict[str, list[Any]] = {}
    for at, name in KEPT:
        values = [row[at] for row in rows]
        if values.count(values[0]) == len(values):
            same[name] = values[0]
        else:
            each[name] = values
    return {"jobs": ids, "same": same, "each": each}


def records(context: dict[str, Any], wanted: Iterable[int] | None = None) -> dict[int, Job] | None:
    """The jobs (only the wanted ones) of a `retire` event, in its order; None if it has no (readable) records."""
    try:
        known = set(Job.__slots__)
        same = [(name, value) for name, value in context["same"].items() if name in known]
        each = [(name, values) for name, values in context["each"].items() if name in known]
        only = None if wanted is None else set(wanted)
        found: dict[int, Job] = {}
        for at, id in enumerate(context["jobs"]):
            if only is not None and id not in only:
                continue
            job = found[id] = Job(id)
            job.state = INACTIVE
            for name, value in same:
                setattr(job, name, value)
            for name, values in each:
                setattr(job, name, values[at])
            job.claims = from_wire(job.claims_wire)
        return found
    except (AttributeError, IndexError, KeyError, Rejected, TypeError):
        return None


# -- the index -----------------------------------------------------------------------------------------------------


def index_line(version: int, jobs: Sequence[Job]) -> list[Any]:
    """[version, number of jobs, first end, last end (t_inactive), low id, high id, low, high, ...] of one event.

    The ranges leave out the widest gaps, so that an old job that ended late does not make its event look as if it held
    all jobs since.
    """
    ends = [job.t_inactive for job in jobs]
    ids = sorted(job.id for job in jobs)
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
