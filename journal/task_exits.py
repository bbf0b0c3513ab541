"""What the end of a job's first task means for the others: the shell options exit-on-error and exit-timeout. Pure.

Agents of jobs that ask for one of them report the first exit on their node and the first failure; whichever comes first in
the journal is the job's. An exception that follows from one carries its wait status, which becomes the job's (RFC 21).
Decides what the options may be, when they end a job, and in which words.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from .duration import format_duration, parse_duration
from .job import Job
from .waitstatus import decode

FIRST, FAILED = "first", "failed"  # keys of `Job.exits`


class ExitRules(NamedTuple):
    """on_error: the first task that fails ends the job. timeout_s: so does this long after the first end; None for never."""

    on_error: bool
    timeout_s: float | None

    @property
    def any(self) -> bool:
        return self.on_error or self.timeout_s is not None


def parse_exit_rules(options: Mapping[str, Any]) -> ExitRules:
    """Of a job's shell options. Raises `Rejected(code="bad-shell-option")`."""
    on_error = options.get("exit-on-error", False)
    if on_error not in (True, False, None):  # 0 and 1 too
        raise _bad("exit-on-error", on_error, "it is a switch: give it no value")
    return ExitRules(bool(on_error), _timeout(options.get("exit-timeout")))


def _timeout(value: Any) -> float | None:
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    try:
        seconds = parse_duration(value)
    except Rejected as error:
        raise _bad("exit-timeout", value, f"it is none or a duration ({error})") from None
    return None if seconds == inf else seconds


def _bad(name: str, value: Any, why: str) -> Rejected:
    return Rejected(f"{name}={str(value)[:60]!r}: {why}", code="bad-shell-option")


def _rules(job: Job) -> ExitRules:
    """None of them where they cannot be read: the job's agent refuses to start it, with the reason."""
    try:
        return parse_exit_rules((job.jobspec or {})["attributes"]["system"]["shell"]["options"])
    except (Rejected, LookupError, TypeError, AttributeError):
        return ExitRules(False, None)


def failure(job: Job) -> dict[str, Any] | None:
    """The fatal exception that a failed task brings upon its job by exit-on-error, as an event's context, or None."""
    if not job.exits or FAILED not in job.exits or not _rules(job).on_error:
        return None
    rank, status, _ = job.exits[FAILED]
    return _exception(f"{_ended(rank, status)} and exit-on-error is set", status)


def deadline(job: Job) -> float:
    """When exit-timeout ends the job, in Unix seconds; 0.0: never, as it stands."""
    if not job.exits or FIRST not in job.exits:
        return 0.0
    timeout_s = _rules(job).timeout_s
    return 0.0 if timeout_s is None else float(job.exits[FIRST][2] + timeout_s)


def overdue(job: Job) -> dict[str, Any]:
    """The exception of a job that has come to its `deadline`."""
    rank, status, _ = job.exits[FIRST]
    return _exception(f"{_ended(rank, status)}, and exit-timeout={format_duration(_rules(job).timeout_s or 0.0)} is over", status)


def _exception(note: str, status: int) -> dict[str, Any]:
    context = {"type": "exec", "severity": 0, "note": note}
    return {**context, "wait_status": status} if status else context


def note_exit(job: Job, task: Any, status: Any, time: Any) -> None:
    """The fold's part: a task has ended; the first word of its kind counts. Raises `Rejected` or ValueError for no such thing."""
    decode(status)
    row = [int(task), status, float(time)]
    job.exits.setdefault(FIRST, row)
    if status:
        job.exits.setdefault(FAILED, row)


def wait_word(status: Any) -> int | None:
    """An exception's wait_status if it is one, else None."""
    try:
        decode(status)
    except Rejected:
        return None
    return int(status)


def _ended(rank: int, status: int) -> str:
    parts = decode(status)
    if parts.signal is not None:
        return f"task {rank} was killed by signal {parts.signal}"
    return f"task {rank} exited with exit code {parts.code}"
