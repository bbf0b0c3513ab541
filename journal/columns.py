"""Many jobs' records as columns: one list a field, and one value where all have the same. Pure; decides the layout.

Columns compress to a fraction of rows and are read several times faster. A reader skips fields it does not know and
takes those that are missing as unset, so records outlive the program that wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from .job import HASHED, Job, job_value
from .wire import pack

Columns = dict[str, Any]


class Sieve(NamedTuple):
    """A test on a few fields, by which most jobs of many can be passed over without making their records."""

    fields: tuple[str, ...]
    test: Callable[..., bool]


Wanted = Iterable[int] | Sieve | None  # ids, what a sieve lets through, or all

_new: Callable[[type[Job]], Job] = Job.__new__
_DEFAULTS = {name: getattr(Job(0), name) for name in HASHED}
# Set by one statement below, in this order; whatever else a record has is set one by one.
_QUICK = (
    "annotations", "attempt", "claims_wire", "commits", "duration", "ending", "env", "epoch", "exception",
    "exception_status", "exceptions", "exits", "expiration", "flags", "granted", "holds", "id", "memo", "met", "name",
    "ncores", "next", "nnodes", "ntasks", "order", "over", "priority", "queue",
    "reason", "recalled", "requeued", "script", "seat_of", "spec_hash", "started", "state", "status", "t_alloc",
    "t_cleanup", "t_depend", "t_finish", "t_inactive", "t_run", "t_submit", "timed_out", "urgency", "urgency_before", "userid",
    "waiting",
)  # fmt: skip
_REST = tuple(name for name in HASHED if name not in _QUICK)


def to_columns(jobs: Sequence[Job], left_out: frozenset[str] = frozenset(), *, jobspecs: bool = False) -> Columns:
    """{"jobs": ids, "same": field -> the value all have, "each": field -> values in the order of the ids}.

    left_out: fields not stored. jobspecs: store the packed jobspecs too, as field "jobspec".
    """
    same: dict[str, Any] = {}
    each: dict[str, Sequence[Any]] = {}
    for name, values in zip(HASHED, zip(*map(job_value, jobs), strict=True), strict=True):
        if name == "id" or name in left_out:
            continue
        if _all_same(values):
            same[name] = values[0]
        else:
            each[name] = values
    if jobspecs:
        each["jobspec"] = [job.packed_jobspec for job in jobs]
    return {"jobs": [job.id for job in jobs], "same": same, "each": each}


def _all_same(values: Sequence[Any]) -> bool:
    """Whether all pack to the same bytes: 1, 1.0 and True are equal, but not the same."""
    first = values[0]
    if any(value != first for value in (values[-1], values[len(values) // 2])):
        return False
    size = len(values)
    head = 1 if size < 16 else 3 if size < 65536 else 5  # of a msgpack array
    return pack(values)[head:] == pack(first) * size


def from_columns(columns: Columns, wanted: Wanted = None) -> list[Job]:
    """The jobs (only those wanted), in their order. Raises what a dict or list raises for anything of another shape."""
    ids: list[int] = columns["jobs"]
    same, each = columns["same"], columns["each"]
    only: list[int] | None = None

    def column(name: str) -> Iterable[Any]:
        values: list[Any] | None = columns["jobs"] if name == "id" else each.get(name)
        if values is not None:
            return values if only is None else list(map(values.__getitem__, only))
        value = same.get(name, _DEFAULTS.get(name))
        if value.__class__ is list or value.__class__ is dict:  # records change theirs in place
            return _copies(value, len(ids))
        return repeat(value, len(ids))

    if isinstance(wanted, Sieve):
        test = wanted.test
        only = [at for at, row in enumerate(zip(*map(column, wanted.fields), strict=True)) if test(*row)]
    elif wanted is not None:
        chosen = set(wanted)
        only = [at for at, id in enumerate(ids) if id in chosen]
    if only is not None:
        ids = [ids[at] for at in only]
        if not ids:
            return []
    jobs: list[Job] = []
    for job in _quick(zip(*map(column, _QUICK), column("jobspec"), strict=True)):
        jobs.append(job)
    for name in _REST:
        for job, value in zip(jobs, column(name), strict=True):
            setattr(job, name, value)
    return jobs


def _copies(value: Any, count: int) -> list[Any]:
    """So many of a list or dict, none of which shares anything with another. Nearly all of them are empty, or plain inside."""
    if any(one.__class__ is list or one.__class__ is dict for one in (value if value.__class__ is list else value.values())):
        return [_own(value) for _ in range(count)]
    return [value.copy() for _ in range(count)]


def _own(value: Any) -> Any:
    """A copy of plain data that shares no list and no dict with it: the ends of a prolog lie inside another list."""
    if value.__class__ is list:
        return [_own(one) if one.__class__ is list or one.__class__ is dict else one for one in value]
    return {key: _own(one) if one.__class__ is list or one.__class__ is dict else one for key, one in value.items()}


def _quick(rows: Iterable[tuple[Any, ...]]) -> Iterator[Job]:
    for row in rows:
        job = _new(Job)
        (
            job.annotations, job.attempt, job.claims_wire, job.commits, job.duration, job.ending, job.env, job.epoch,
            job.exception, job.exception_status, job.exceptions, job.exits, job.expiration, job.flags, job.granted,
            job.holds, job.id, job.memo, job.met, job.name,
            job.ncores, job.next, job.nnodes, job.ntasks, job.order, job.over, job.priority, job.queue, job.reason,
            job.recalled, job.requeued, job.script,
            job.seat_of, job.spec_hash, job.started, job.state, job.status, job.t_alloc, job.t_cleanup,
            job.t_depend, job.t_finish, job.t_inactive, job.t_run, job.t_submit, job.timed_out, job.urgency,
            job.urgency_before, job.userid, job.waiting, job._spec,
        ) = row  # fmt: skip
        job._claims, job.hash = None, 0
        yield job
