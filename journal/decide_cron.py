"""Cron: from what people ask and what is due to events. Pure; refuses with a reason and a hint.

A run is one commit: `cron-fire` and the `submit` of its job, guarded on the entry, so that it is submitted once for each
time it is due, whoever else fires it, however often the answer is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..kvs.errors import Rejected
from .catalogue import CATALOGUE
from .cron import CronEntry, CronTable
from .decide import Decision, submit
from .ids import f58
from .wire import LATEST

Jobspec = dict[str, Any]
INTERVAL_MIN_S = 0.1
LATE_S = 30.0  # later than this is not late but missed
EARLY_S = 0.002  # a timer's resolution
NAME_MAX = 200


def find_event(text: str) -> tuple[str, str]:
    """(event name, subject kind or "") of "job.finish", "drain" or "resource.drain". Raises `Rejected`."""
    head, dot, rest = text.partition(".")
    found = (rest, head) if dot and (head, rest) in CATALOGUE else (text, "")
    kinds = {subject for subject, name in CATALOGUE if name == found[0]}
    if not kinds:
        near = sorted(f"{kind}.{name}" for kind, name in CATALOGUE if (dot and head == kind) or name == rest or text in name)
        raise Rejected(
            f"event {text[:60]!r}: no such event",
            code="no-such-event",
            hint=f"there are {', '.join(near)}" if near else "as job.finish, job.exception, resource.drain, queue.queue-stop",
        )
    if kinds == {"cron"} or found[1] == "cron":
        raise Rejected(f"event {text}: what cron does starts no cron entry", code="bad-event")
    return found


def create(
    table: CronTable, name: str, kind: str, spec: dict[str, Any], job: dict[str, Any], options: dict[str, Any], next: float,
    now: float,
) -> Decision:  # fmt: skip
    """A new entry of `table.last` + 1. spec, job, options: as in `CronEntry`; next: when it is first due (0.0: an event's)."""
    return create_all(table, [(name, kind, spec, job, options, next)], now)


def create_all(table: CronTable, entries: list[tuple[Any, ...]], now: float) -> Decision:
    """Several new entries (arguments as in `create`), all or none."""
    decision = Decision([], since=["cron"], bumps=["cron"])
    for number, (name, kind, spec, job, options, next) in enumerate(entries, table.last + 1):
        if not name or len(name) > NAME_MAX or not name.isprintable() or name.isdecimal():
            raise Rejected(
                f"bad name {name[:40]!r}", code="bad-name", hint=f"1 to {NAME_MAX} printable characters, not a number"
            )
        if kind == "interval" and spec["interval"] < INTERVAL_MIN_S:
            raise Rejected(
                f"an interval of {spec['interval']:g}s is too short", code="bad-interval",
                hint=f"{INTERVAL_MIN_S:g}s is the shortest",
            )  # fmt: skip
        if not all(0.0 <= seconds <= LATEST for seconds in (next, spec.get("interval", 0.0), spec.get("min_interval", 0.0))):
            raise Rejected("this is further off than a calendar goes", code="bad-interval", hint="as 10s, 5m or 1d")
        context = {"name": name, "type": kind, "spec": spec, "job": job, "options": options, "next": next}
        decision.events.append(["cron-create", f"cron/{number}", now, context])
        decision.bumps.append(guard_of(number))
    return decision


def guard_of(id: int) -> str:
    """The thing that stands for an entry among the guards: named like a job's, for only those are forgotten in time."""
    return f"job/cron-{id}"


def find(table: CronTable, text: str) -> CronEntry:
    """The entry of this id, or this name. Raises `Rejected` if there is none, or several have the name."""
    if text.isdecimal():
        found = [entry for entry in table.entries.values() if entry.id == int(text)]
    else:
        found = [entry for entry in table.entries.values() if entry.name == text]
    if not found:
        raise Rejected(f"cron entry {text[:60]}: no such entry", code="no-such-entry", hint="fluxkv cron list names them")
    if len(found) > 1:
        ids = ", ".join(str(entry.id) for entry in found)
        raise Rejected(
            f"cron entry {text[:60]}: {len(found)} have this name", code="which-entry", hint=f"say which: {ids}"
        )
    return found[0]


def _about(name: str, entry: CronEntry, now: float, context: dict[str, Any] | None) -> Decision:
    thing = guard_of(entry.id)
    return Decision([[name, f"cron/{entry.id}", now, context]], since=[thing], bumps=["cron", thing])


def stop(entry: CronEntry, reason: str, now: float) -> Decision:
    """No further runs until it is started again."""
    if entry.state != "active":
        raise Rejected(f"cron entry {entry.id}: is {entry.state}", code="not-active", hint="only an active one is stopped")
    return _about("cron-stop", entry, now, {"reason": reason})


def start(entry: CronEntry, next: float, now: float) -> Decision:
    """Active again; next: when it is due next, 0.0 if it never is."""
    if entry.state == "active":
        raise Rejected(f"cron entry {entry.id}: is active", code="active", hint="only a stopped one is started")
    count = entry.options["count"]
    if count and entry.runs >= count:
        raise Rejected(f"cron entry {entry.id}: {entry.note}", code="done", hint="define another, with another --count")
    if entry.type != "event" and not next:
        raise Rejected(f"cron entry {entry.id}: its time has passed", code="done", hint="define another")
    return _about("cron-start", entry, now, {"next": next})


def delete(entry: CronEntry, now: float) -> Decision:
    """Gone; its jobs go on."""
    return _about("cron-delete", entry, now, None)


def due_at(entry: CronEntry) -> float:
    """When an entry has something to do, as far as is known now; 0.0 for never."""
    if entry.state != "active":
        return 0.0
    if entry.type != "event":
        return entry.next
    if not entry.owed:
        return 0.0
    since, wait = float(entry.owed[0][0]), float(entry.spec["min_interval"])
    return max(since, entry.fired + wait) if wait and entry.fired else since


def act(
    table: CronTable, entry: CronEntry, job: int, next: float, now: float, *, refused: str = "",
    honour: Callable[[Jobspec], Jobspec] = lambda jobspec: jobspec, config: int = 0,
) -> Decision | None:  # fmt: skip
    """What an entry owes now: a run, a skip or a stop; None if nothing.

    job: the id its job would get. next: when a timed entry is due after `now` (0.0: never). refused: why no job can be
    submitted, "" if one can. honour: brings the jobspec in line with the config of this version (0: there is none), or
    raises `Rejected`, which makes it a skip.
    """
    if entry.state != "active":
        return None
    limit = entry.options["stop_on_failure"]
    if limit and entry.failed_in_row >= limit:
        return stop(entry, f"{limit} failures in a row" if limit > 1 else "a failure", now)
    due = due_at(entry)
    if not due or due > now + EARLY_S:
        return None
    at, subject = (entry.owed[0][0], entry.owed[0][1]) if entry.type == "event" else (due, "")
    reason = refused
    if entry.options["missed"] == "skip" and now - due > LATE_S:
        reason = "missed: the instance was down or busy"
    elif entry.options["no_overlap"] and table.running(entry.id):
        reason = f"job {f58(table.running(entry.id)[0])} of the run before is active"
    if not reason:
        try:
            jobspec = honour(with_variables(entry, at, subject))
        except Rejected as error:
            reason = str(error)
    if reason:
        return _about("cron-skip", entry, now, {"at": at, "next": next, "reason": reason})
    kept = entry.job
    run = submit([(job, jobspec)], kept["env"], kept["urgency"], kept["userid"], kept["flags"], now, config)
    fire = _about("cron-fire", entry, now, {"at": at, "next": next, "job": job})
    run.events = fire.events + run.events
    run.since += fire.since
    run.bumps = [guard_of(entry.id), *run.bumps]
    return run


def with_variables(entry: CronEntry, at: float, subject: int | str) -> dict[str, Any]:
    """The entry's jobspec for one run: what a job can know of why it runs is in its environment."""
    jobspec = entry.job["jobspec"]
    attributes = jobspec["attributes"]
    system = attributes["system"]
    variables = {
        "FLUX_CRON_ID": str(entry.id), "FLUX_CRON_NAME": entry.name, "FLUX_CRON_TYPE": entry.type,
        "FLUX_CRON_RUN": str(entry.runs + 1), "FLUX_CRON_TIME": f"{at:.6f}",
    }  # fmt: skip
    if entry.type == "event":
        variables["FLUX_CRON_EVENT"] = entry.spec["event"]
        variables["FLUX_CRON_SUBJECT"] = f58(subject) if isinstance(subject, int) else subject
    environment = {**(system.get("environment") or {}), **variables}
    return {**jobspec, "attributes": {**attributes, "system": {**system, "environment": environment}}}
