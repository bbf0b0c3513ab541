"""Workloads written by hand: a JSON object a line, one for each job. Pure.

Keys: `run` (how long it runs; the only one that must be there), `submit` (when it comes, 0), `limit` (none), `id` (the number of
its line), `name`, `user`, `queue`, `urgency` (16), `after` and `after-start` (ids of jobs whose end or start it waits for),
and what it asks for: `nodes`, `tasks`, `cores` and `gpus` and `memory_mb` for each task, `exclusive`, `requires`, in the sense of
`fluxkv submit` (-N -n -c -g -x --requires), or a `jobspec`. Times are seconds, or texts such as "1.5h".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from ..journal.derive import priority_of
from ..journal.duration import parse_duration
from ..journal.jobspec import parse_jobspec
from ..journal.jobspec_build import from_options
from ..journal.shown import shown
from ..journal.urgency import parse_urgency
from ..kvs.errors import Rejected
from .request import Request, compile_request
from .workload import After, Label, Work, Workload, several

KEYS = ("id", "submit", "run", "limit", "nodes", "tasks", "cores", "gpus", "memory_mb", "exclusive", "requires", "jobspec", "name",
        "user", "queue", "urgency", "after", "after-start")  # fmt: skip
_SIZES = ("nodes", "tasks", "cores", "gpus", "memory_mb", "exclusive", "requires")
_MOST = 1e15
_MAX_AFTER = 10_000


def parse_job_lines(lines: Iterable[str]) -> Workload:
    """The workload of these lines; empty ones, and those that begin with "#", are passed over.

    Raises `Rejected` (code bad-workload) that names the line. Jobs with urgency 0 are left out.
    """
    found = Workload()
    ids: dict[str, int] = {}
    rows: list[tuple[int, dict[str, Any]]] = []
    for at, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip()[0] == "#":
            continue
        row = _object(line, at)
        id = row.get("id", at)
        if isinstance(id, bool) or not isinstance(id, (str, int)) or (id != 0 and not id) or len(str(id)) > 200:
            raise _bad(at, f"id: {shown(id)} is neither a number nor a word")
        if str(id) in ids:
            raise _bad(at, f"id: {shown(id)} is that of an earlier job")
        ids[str(id)] = at
        rows.append((at, row))
    sizes: dict[str, tuple[Request, float, str]] = {}
    held = 0
    for order, (at, row) in enumerate(rows):
        try:
            work, label = _work(at, row, order, ids, sizes)
        except Rejected as error:
            raise error if error.code == "bad-workload" else _bad(at, str(error), error.hint) from None
        if not work.priority:
            held += 1
            continue
        found.works.append(work)
        found.labels[work.job] = label
    if held:
        found.notes.append(f"{several(held, 'job')} of urgency 0 left out")
    return found


def _bad(at: int, why: str, hint: str = "") -> Rejected:
    example = 'a job is a line such as {"submit": 0, "run": 60, "limit": "5m", "nodes": 2}'
    return Rejected(f"line {at}: {why}", code="bad-workload", hint=hint or example)


def _object(line: str, at: int) -> dict[str, Any]:
    if len(line) > 1 << 20:
        raise _bad(at, "it is longer than a mebibyte")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _bad(at, f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise _bad(at, "it is no object")
    for key in row:
        if key not in KEYS:
            raise _bad(at, f"{shown(key)} is no key of a job", f"there are {', '.join(KEYS)}")
    return row


def _work(
    at: int, row: Mapping[str, Any], order: int, ids: Mapping[str, int], sizes: dict[str, tuple[Request, float, str]]
) -> tuple[Work, Label]:
    if "run" not in row:
        raise _bad(at, "run is missing: how long it runs")
    asked = [row.get(key) for key in (*_SIZES, "jobspec")]
    packed = json.dumps(asked, sort_keys=True)
    if packed not in sizes:
        sizes[packed] = _size(at, row)
    request, duration, queue = sizes[packed]
    limit = _time(at, row, "limit") if "limit" in row else duration
    urgency = parse_urgency(row.get("urgency"))
    after = [*_after(at, row, "after", ids), *_after(at, row, "after-start", ids)]
    work = Work(
        at, _time(at, row, "submit"), _time(at, row, "run"), request, limit, priority_of(urgency), order,
        _word(at, row, "queue") or queue, tuple((one,) for one in after),
    )  # fmt: skip
    return work, Label(str(row.get("id", at)), _word(at, row, "name"), _word(at, row, "user"))


def _time(at: int, row: Mapping[str, Any], key: str) -> float:
    value = row.get(key, 0)
    if key == "submit" and isinstance(value, (int, float)) and not isinstance(value, bool) and -_MOST < value < _MOST:
        return float(value)
    try:
        seconds = parse_duration(value)
    except Rejected as error:
        raise _bad(at, f"{key}: {error}") from None
    if not isfinite(seconds) or seconds > _MOST:
        raise _bad(at, f"{key}: {shown(value)} is too long", "leave limit out where there is none")
    return seconds


def _word(at: int, row: Mapping[str, Any], key: str) -> str:
    value = row.get(key, "")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _bad(at, f"{key}: {shown(value)} is no word")
    return str(value)[:200]


def _after(at: int, row: Mapping[str, Any], key: str, ids: Mapping[str, int]) -> list[After]:
    value = row.get(key, [])
    named = value if isinstance(value, list) else [value]
    if len(named) > _MAX_AFTER:
        raise _bad(at, f"{key}: more than {_MAX_AFTER} jobs")
    found = []
    for id in named:
        if isinstance(id, bool) or not isinstance(id, (str, int)) or str(id) not in ids:
            raise _bad(at, f"{key}: no job here has the id {shown(id)}")
        if ids[str(id)] == at:
            raise _bad(at, f"{key}: it waits for itself")
        found.append(After(ids[str(id)], key == "after-start"))
    return found


def _size(at: int, row: Mapping[str, Any]) -> tuple[Request, float, str]:
    """(request, limit, queue) of what it asks for."""
    if row.get("jobspec") is not None:
        both = [key for key in _SIZES if key in row]
        if both:
            raise _bad(at, f"jobspec and {both[0]} exclude each other")
        jobspec = parse_jobspec(row["jobspec"])
        system = jobspec["attributes"].get("system", {})
        return compile_request(jobspec), float(system.get("duration", 0.0)), str(system.get("queue", ""))
    numbers: dict[str, int | None] = {"nodes": None, "tasks": None, "cores": 1, "gpus": 0, "memory_mb": 0}
    for key, least in (("nodes", 1), ("tasks", 1), ("cores", 1), ("gpus", 0), ("memory_mb", 0)):
        if key in row:
            value = row[key]
            if type(value) is not int or not least <= value < 1 << 32:
                raise _bad(at, f"{key}: {shown(value)} is no number from {least} up")
            numbers[key] = value
    exclusive, requires = row.get("exclusive", False), row.get("requires")
    if not isinstance(exclusive, bool):
        raise _bad(at, f"exclusive: {shown(exclusive)} is neither true nor false")
    if requires is not None and not isinstance(requires, (str, dict)):
        raise _bad(at, f"requires: {shown(requires)} is no constraint")
    jobspec = from_options(
        ["job"], nodes=numbers["nodes"], ntasks=numbers["tasks"], cores_per_task=numbers["cores"] or 1,
        gpus_per_task=numbers["gpus"] or 0, memory_mb_per_task=numbers["memory_mb"] or 0, exclusive=exclusive, constraint=requires,
    )  # fmt: skip
    return compile_request(jobspec), 0.0, ""
