"""The fields of a job that formats, sorting and JSON know: Flux's names and headers where Flux has the field.

`annotations.KEY...` (with `sched.` and `user.` for `annotations.sched.` and `annotations.user.`) is any key of the job's
annotations; its memo is `annotations.user`, as in Flux.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..journal.ids import encode, f58
from ..journal.idset import format_ids
from ..journal.job import INACTIVE, PENDING, RESULT_ABBREV, STATE_ABBREV, STATE_NAMES, Job
from ..journal.summary import tasks_of
from . import foresight, jobview
from .jobview import View
from .reading import user_name

Getter = Callable[[Job, View], Any]
_STATE_EMOJI = {1: "🆕", 2: "🔗", 4: "⏳", 8: "📅", 16: "🏃", 32: "🧹", 64: "🏁"}
_RESULT_EMOJI = {1: "😀", 2: "😭", 4: "🚫", 8: "⌛"}
_DOTTED = {"annotations": (), "sched": ("sched",), "user": ("user",)}


class FieldTable(dict[str, tuple[str, Getter]]):
    """name -> (header, getter). Knows every key of annotations beside what it holds."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and bool(_keys(name)))

    def __missing__(self, name: str) -> tuple[str, Getter]:
        keys = _keys(name)
        if not keys:
            raise KeyError(name)


        def get(job: Job, view: View) -> Any:
            return _text(_inside(notes_on(job, view), keys))

        return name.upper(), get


def _keys(name: str) -> tuple[str, ...]:
    """The path into a job's annotations that a field's name stands for, () if it stands for none."""
    head, *rest = name.split(".")
    if head not in _DOTTED or not all(rest):
        return ()
    return (*_DOTTED[head], *rest)


def _inside(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> Any:
    if value is None or value == {}:
        return ""
    if isinstance(value, dict | list | bool):
        from .render import json_text

        return json_text(value)
    return value


def notes_on(job: Job, view: View) -> dict[str, Any]:
    """What the scheduler and the user noted on a job."""
    found = dict(job.annotations)
    if job.memo:
        found["user"] = {**(found.get("user") or {}), **job.memo}
    why = jobview.reason(job, view)
    begins = foresight.t_estimate(job, view)
    if why or begins:
        told = {"reason_pending": why} if why else {}
        found["sched"] = {**told, **({"t_estimate": begins} if begins else {}), **(found.get("sched") or {})}
    return found


def returncode(job: Job) -> int | str:
    """Flux's: the exit code, a negative signal number, or -128 for a job that ended before it ran; "" while active."""
    if job.state != INACTIVE:
        return ""
    if job.status is None:
        return -128
    signum = job.status & 0x7F
    return -signum if signum else job.status >> 8


def _attribute(*path: str) -> Getter:
    def get(job: Job, view: View) -> Any:
        value = _inside(view.jobspec(job), ("attributes", "system", *path))
        return value if isinstance(value, str) else ""

    return get


FIELDS: FieldTable = FieldTable({
    "id": ("JOBID", lambda job, view: f58(job.id)),
    "id.f58": ("JOBID", lambda job, view: f58(job.id)),
    "id.dec": ("JOBID", lambda job, view: job.id),
    "id.f58plain": ("JOBID", lambda job, view: encode(job.id, "f58plain")),
    "id.hex": ("JOBID", lambda job, view: encode(job.id, "hex")),
    "id.dothex": ("JOBID", lambda job, view: encode(job.id, "dothex")),
    "id.kvs": ("JOBID", lambda job, view: encode(job.id, "kvs")),
    "id.words": ("JOBID", lambda job, view: encode(job.id, "words")),
    "id.emoji": ("JOBID", lambda job, view: encode(job.id, "emoji")),
    "userid": ("UID", lambda job, view: job.userid),
    "username": ("USER", lambda job, view: user_name(job.userid)),
    "urgency": ("URG", lambda job, view: job.urgency),
    "priority": ("PRI", lambda job, view: job.priority),
    "state": ("STATE", lambda job, view: STATE_NAMES[job.state]),
    "state_emoji": ("STATE", lambda job, view: _STATE_EMOJI[job.state]),
    "state_single": ("S", lambda job, view: STATE_ABBREV[job.state]),
    "name": ("NAME", lambda job, view: job.name),
    "cwd": ("CWD", _attribute("cwd")),
    "project": ("PROJECT", _attribute("project")),
    "bank": ("BANK", _attribute("bank")),
    "queue": ("QUEUE", lambda job, view: job.queue),
    "ntasks": ("NTASKS", lambda job, view: tasks_of(job)),
    "ncores": ("NCORES", lambda job, view: job.ncores),
    "nnodes": ("NNODES", lambda job, view: job.nnodes),
    "ranks": ("RANKS", lambda job, view: format_ids(job.ranks)),
    "nodelist": ("NODELIST", lambda job, view: view.nodelist(job)),
    "status": ("STATUS", lambda job, view: jobview.status(job)),
    "status_abbrev": ("ST", lambda job, view: jobview.status_abbrev(job)),
    "status_emoji": ("ST", lambda job, view: _STATE_EMOJI[job.state] if job.result is None else _RESULT_EMOJI[job.result]),
    "returncode": ("RC", lambda job, view: returncode(job)),
    "result": ("RESULT", lambda job, view: job.result.name if job.result is not None else ""),
    "result_emoji": ("RESULT", lambda job, view: _RESULT_EMOJI.get(job.result or 0, "")),
    "result_abbrev": ("RS", lambda job, view: RESULT_ABBREV[job.result] if job.result is not None else ""),
    "attempt": ("ATTEMPT", lambda job, view: job.number),
    "success": ("SUCCESS", lambda job, view: job.result == 1 if job.state == INACTIVE else ""),
    "waitstatus": ("WSTATUS", lambda job, view: "" if job.status is None else job.status),
    "exception.occurred": ("EXCEPTION-OCCURRED", lambda job, view: bool(job.exceptions)),
    "exception.severity": ("EXCEPTION-SEVERITY", lambda job, view: jobview.exception_severity(job)),
    "exception.type": ("EXCEPTION-TYPE", lambda job, view: jobview.exception_part(job, 0)),
    "exception.note": ("EXCEPTION-NOTE", lambda job, view: jobview.one_line(jobview.exception_part(job, 2))),
    "t_submit": ("T_SUBMIT", lambda job, view: job.t_submit),
    "t_depend": ("T_DEPEND", lambda job, view: job.t_depend),
    "t_run": ("T_RUN", lambda job, view: job.t_run),
    "t_cleanup": ("T_CLEANUP", lambda job, view: job.t_cleanup),
    "t_inactive": ("T_INACTIVE", lambda job, view: job.t_inactive),
    "runtime": ("RUNTIME", lambda job, view: job.runtime(view.now)),
    "expiration": ("EXPIRATION", lambda job, view: job.expiration),
    "t_remaining": ("T_REMAINING", jobview.remaining),
    "duration": ("DURATION", lambda job, view: job.duration),
    "t_estimate": ("T_ESTIMATE", foresight.t_estimate),
    "eta": ("ETA", foresight.eta),
    "contextual_time": ("TIME", jobview.shown_time),
    "contextual_info": ("INFO", jobview.info),
    "info": ("INFO", jobview.info),
    "dependencies": ("DEPENDENCIES", lambda job, view: ",".join(job.waiting)),
    "annotations": ("ANNOTATIONS", lambda job, view: _text(notes_on(job, view))),
    "inactive_reason": ("INACTIVE-REASON", lambda job, view: jobview.inactive_reason(job)),
    "reason": ("REASON", jobview.reason),
    "cause": ("CAUSE", lambda job, view: jobview.cause(job)),
})  # fmt: skip


def _inside_field(path: str) -> Getter:
    def get(job: Job, view: View) -> Any:
        if not view.is_instance(job):
            return ""
        from ..instances.nested import part

        totals = view.totals(job)
        return "" if totals is None else part(totals, path.split("."))

    return get


FIELDS["uri"] = ("URI", lambda job, view: job.memo["uri"] if view.is_instance(job) else "")
FIELDS["uri.local"] = FIELDS["uri"]  # Flux's, by which another host's is told from this one's; here one address is for all
for _path in (
    *(f"stats.{name}" for name in ("total", "active", "pending", "running", "inactive", "successful", "failed", "canceled",
                                   "timeout")),
    "progress", "utilization", "gpu_utilization",
    *(f"resources.{which}.n{kind}" for which in ("all", "allocated", "free") for kind in ("nodes", "cores", "gpus")),
):  # fmt: skip
    _header = {"progress": "PROG", "utilization": "CPU%", "gpu_utilization": "GPU%"}.get(_path, _path.partition(".")[2].upper())
    FIELDS[f"instance.{_path}"] = (_header, _inside_field(_path))


def job_document(job: Job, view: View) -> dict[str, Any]:
    """A job as a JSON object under Flux's names. The id is F58 text (RFC 19); times are Unix seconds,
    absent if unset."""
    document: dict[str, Any] = {"id": f58(job.id)}
    for name in (
        "userid", "username", "urgency", "priority", "state", "name", "queue", "ntasks", "ncores", "nnodes",
        "ranks",
        "nodelist", "status", "t_submit", "t_depend", "t_run", "t_cleanup", "t_inactive", "runtime",
        "duration",
        "expiration", "t_remaining", "returncode", "result", "success", "waitstatus", "inactive_reason",
        "reason", "t_estimate",
    ):  # fmt: skip
        value = FIELDS[name][1](job, view)
        if (
            value != ""
            and not (name.startswith("t_") and not value)
            and not (name == "expiration" and not value)
        ):
            document[name] = value
    if job.requeued is not None:
        document["attempt"] = job.number
    if job.state & PENDING:
        document["dependencies"] = list(job.waiting)
    document["exception"] = {"occurred": bool(job.exceptions)}
    if job.exceptions:
        kind, severity, note = min(job.exceptions, key=lambda one: one[1])
        if job.exception is not None:
            kind, severity, note = job.exception[0], 0, job.exception[1]
        document["exception"].update(severity=severity, type=kind, note=note)
    document["annotations"] = notes_on(job, view)
    if view.is_instance(job):
        document["uri"] = job.memo["uri"]
    document["info"] = jobview.info(job, view)
    return document
