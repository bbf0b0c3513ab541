"""When a job whose attempt did not end well is begun again: its retry policy, and what ended the attempt. Pure.

A job asks by `attributes.system.retry`, {"limit": N, "on": [cause, ...], "delay": seconds}. Causes are `node-failure` (the
node, its agent or launcher was lost, or a prolog failed there), `launcher-lost` (only that), `oom`, `exit` or `exit=75` or
`exit=64-78`, `signal` or `signal=KILL`, `timeout`, `shutdown` (the instance was stopped) and `any`: all of these. A cancelled
job is never begun again. A person may ask for it whatever the policy, by an exception of type `requeue`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from ..kvs.errors import Rejected
from .duration import parse_duration
from .shown import shown

if TYPE_CHECKING:  # a submit pays for no record
    from .job import Job

KEY = "retry"  # in attributes.system
SHUTDOWN = "shutdown"  # the exception that an instance's end raises on what runs
REQUEUE = "requeue"  # the event, and the type of the exception by which a person asks for it
WITH_INSTANCE = frozenset(("lost", SHUTDOWN))  # types of exceptions by which an instance's end ends its jobs, whatever they did
MOST = 1000  # a job's record names each commit about it
NOTE = 200  # characters of why
PLAIN = ("node-failure", "launcher-lost", "oom", "exit", "signal", "timeout", "shutdown", "any")
DEFAULT_ON = ("node-failure", "oom", "exit", "signal", "shutdown")  # all but the time limit, which would be met again
LAUNCHER_LOST = "lost"  # of a rank: its launcher died with the task; "lost: ..." is a node's
OOM = "oom"


class Retry(NamedTuple):
    """limit: how often at most. on: causes. delay_s: how long a job waits before it is in line again."""

    limit: int
    on: tuple[str, ...]
    delay_s: float = 0.0


class End(NamedTuple):
    """How an attempt ended. words: the causes it comes under. text: in words."""

    words: tuple[str, ...]
    text: str


def parse_retry(value: Any) -> Retry:
    """Of a jobspec's attribute. Raises `Rejected` (code bad-retry)."""
    if isinstance(value, bool) or not isinstance(value, int | Mapping):
        raise _bad(f"retry is {shown(value)}", "a number, or {limit, on, delay}")
    table = value if isinstance(value, Mapping) else {"limit": value}
    for key in table:
        if key not in ("limit", "on", "delay"):
            raise _bad(f"retry.{shown(key)} is not known", "there are limit, on and delay")
    limit = table.get("limit", 1)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= MOST:
        raise _bad(f"retry.limit is {shown(limit)}", f"a number from 0 to {MOST}")
    return Retry(limit, causes_of(table.get("on", DEFAULT_ON)), _delay(table.get("delay", 0.0)))


def attribute(retry: Retry) -> dict[str, Any]:
    """A policy as a jobspec holds it; what is left to the default is written out, since that may change."""
    return {"limit": retry.limit, "on": list(retry.on), **({"delay": retry.delay_s} if retry.delay_s else {})}


def _delay(value: Any) -> float:
    try:
        seconds = parse_duration(value)
    except Rejected as error:
        raise _bad(f"retry.delay: {error}", "30s, 5m") from None
    if not isfinite(seconds):
        raise _bad("retry.delay is infinite", "30s, 5m; hold the job to keep it from running")
    return float(seconds)


def causes_of(value: Any) -> tuple[str, ...]:
    """A list of causes, or a text with commas, each in its one form (`signal=KILL`), none twice. Raises `Rejected`."""
    words: Iterable[Any] = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not words:
        raise _bad(f"retry.on is {shown(value)}", "name a cause")
    return tuple(dict.fromkeys(_cause(word) for word in words))


def _cause(word: Any) -> str:
    if not isinstance(word, str):
        raise _bad(f"{shown(word)} is no cause")
    name, given, value = word.strip().lower().partition("=")
    if not given and name in PLAIN:
        return name
    if given and name == "exit":
        low, _, high = value.partition("-")
        numbers = [int(one) if one.isdecimal() and len(one) < 4 else -1 for one in (low, high or low)]
        if 0 < numbers[0] <= numbers[1] <= 255:
            return f"exit={low}" if numbers[0] == numbers[1] else f"exit={numbers[0]}-{numbers[1]}"
        raise _bad(f"{shown(word)}: exit codes are 1 to 255", "exit=75, exit=64-78")
    if given and name == "signal":
        return f"signal={signal_word(value, word)}"
    raise _bad(f"{shown(word)} is no cause")


def signal_word(text: str, whole: str = "") -> str:
    """A signal's short name (KILL) from a name or a number. Raises `Rejected`."""
    try:
        found = signal.Signals(int(text)) if text.isdecimal() else signal.Signals["SIG" + text.upper().removeprefix("SIG")]
    except (KeyError, ValueError):
        raise _bad(f"{shown(whole or text)}: no such signal", "signal=KILL, signal=11") from None
    return found.name.removeprefix("SIG")


def _bad(why: str, hint: str = "") -> Rejected:
    return Rejected(why, code="bad-retry", hint=hint or f"causes are {', '.join(PLAIN)}, exit=CODE, signal=NAME")


def retry_of(job: Job) -> Retry | None:
    """A job's policy; None if it has none, or none that can be read (the worker has refused it then)."""
    try:
        found = (job.jobspec or {})["attributes"]["system"][KEY]
        return parse_retry(found)
    except (Rejected, LookupError, TypeError, AttributeError):
        return None


def end_of(exception: Sequence[Any] | None, status: int, causes: Iterable[str]) -> End:
    """How an attempt ended, by its first fatal exception, its wait status and what its ranks said (`Job.over`)."""
    kind, note = (exception[0], exception[1]) if exception else ("", "")
    if kind == "lost":
        said = list(causes)
        ours = LAUNCHER_LOST in said and not any(one.startswith("lost:") for one in said)
        return End(("node-failure", "launcher-lost") if ours else ("node-failure",), note or "lost")
    if kind in ("node-failure", "prolog"):
        return End(("node-failure",), note or kind)
    if kind in ("timeout", "shutdown"):
        return End((kind,), note or kind)
    if kind not in ("", "exec"):
        return End((), note or kind)
    words: list[str] = [OOM] if OOM in causes else []
    signum = status & 0x7F
    if signum:
        name = _name(signum)
        words += ["signal", f"signal={name}"]
        text = f"killed by SIG{name}" if not name.isdecimal() else f"killed by signal {name}"
    elif status:
        words += ["exit", f"exit={status >> 8}"]
        text = f"exit code {status >> 8}"
    else:
        return End((), "")
    if OOM in words:
        text = f"out of memory ({text})"
    return End(tuple(words), note if kind else text)


def _name(signum: int) -> str:
    try:
        return signal.Signals(signum).name.removeprefix("SIG")
    except ValueError:
        return str(signum)


def covers(on: Iterable[str], words: Iterable[str]) -> str:
    """The first of these causes that an end comes under, "" if it comes under none."""
    found = tuple(words)
    for cause in on:
        if cause in found or (cause == "any" and found):
            return cause
        low, ranged, high = cause.removeprefix("exit=").partition("-")
        if ranged and cause.startswith("exit="):
            codes = [int(one[5:]) for one in found if one.startswith("exit=")]
            if any(int(low) <= code <= int(high) for code in codes):
                return cause
    return ""


def again(job: Job, status: int | None, exception: Sequence[Any] | None, now: float) -> dict[str, Any] | None:
    """The context of the `requeue` that is owed to a job whose attempt is over, None if it is over for good.

    status, exception: how the attempt ended, with what is said in the same commit; no status: no task of it ran.
    """
    if status == 0 or (exception is None and not status):
        return None  # also behind an exception that came too late
    if not AGAIN.issuperset(one[0] for one in job.exceptions if one[1] == 0):
        return None  # it was cancelled, if only after it had failed
    times, retries, *_ = job.requeued or NEVER
    if exception is not None and exception[0] == REQUEUE:
        return {"attempt": times + 2, "cause": REQUEUE, "note": exception[1][:NOTE]}
    retry = retry_of(job)
    if retry is None or retries >= retry.limit:
        return None
    end = end_of(exception, status or 0, [one[2] for one in job.over.values()])
    cause = covers(retry.on, end.words)
    if not cause:
        return None
    context = {"attempt": times + 2, "cause": cause, "note": end.text[:NOTE], "retry": retries + 1, "limit": retry.limit}
    if retry.delay_s:
        context["after"] = now + retry.delay_s
    return context


NEVER = (0, 0, 0.0, "", False, "")  # of a job that was never requeued
# Exceptions after which an attempt may be followed by another; any other one is a person's or the scheduler's last word.
AGAIN = frozenset(("lost", "node-failure", "prolog", "timeout", "shutdown", "exec", REQUEUE))


def may_return(job: Job) -> bool:
    """Whether a job that is ending may be begun again: whoever wants it gone must say so."""
    fatal = [kind for kind, severity, _ in job.exceptions if severity == 0]
    if not AGAIN.issuperset([*fatal, *([job.exception[0]] if job.exception is not None else [])]):
        return False
    if job.exception is not None and job.exception[0] == REQUEUE:
        return True
    retry = retry_of(job)
    return retry is not None and (job.requeued or NEVER)[1] < retry.limit


def fenced(job: Job) -> bool:
    """Whether an attempt that is cut off from the instance is ended by its own launcher, so that the next one may begin elsewhere:
    the job asks for another one after a node failure. It holds for the whole attempt: no policy changes while a job runs."""
    retry = retry_of(job)
    return retry is not None and (job.requeued or NEVER)[1] < retry.limit and bool(covers(retry.on, ("node-failure",)))


def describe(context: Mapping[str, Any]) -> str:
    """A `requeue` in words: "retry 2 of 3: exit code 75"."""
    note = str(context.get("note") or context.get("cause") or "")
    head = f"retry {context['retry']} of {context.get('limit', '?')}" if "retry" in context else "requeued"
    return f"{head}: {note}" if note else head
