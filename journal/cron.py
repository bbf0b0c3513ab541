"""Cron as the fold knows it: entries, what they owe, the jobs they started. Pure; a small fold of its own.

Decides nothing: when an entry is due, `decide_cron` says. The keeper folds this table alone (it needs no jobs and nodes),
every `State` holds one, and both are made by the same lines. What a job of cron does, or has done by a command it
calls, is counted by no entry: nothing that cron starts can start cron.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .wire import LATEST, Commit, whole

TYPES = ("interval", "event", "at", "tab")
OWED_LIMIT = 1000  # events that an entry remembers one by one; further ones only in number
DONE_KEPT = 100  # finished entries that stay for `cron list`

Context = dict[str, Any]
Track = list[Any]


def on_behalf_of(environ: Mapping[str, str]) -> int:
    """The entry whose job a process with this environment is part of, 0 for none: what it commits starts no entry."""
    text = environ.get("FLUX_CRON_ID", "")
    return int(text) if text.isdecimal() and len(text) < 19 else 0


class CronEntry:
    """One entry.

    type: of `TYPES`. spec: what starts it: interval {interval, first}, event {event, subject, nth, after, min_interval}
    (a name of the catalogue, and its kind or ""), at {at}, tab {line, tz}; times in Unix seconds, durations in seconds.
    job: {jobspec, env, urgency, flags, userid} of what it submits.
    options: count (runs at most, 0: no limit), no_overlap, missed ("run" or "skip"), stop_on_failure (failures in a row,
    0: never). state: "active", "stopped" or "done"; note says why. next: when it is due (Unix seconds), 0.0 for not
    known or an event's. owed: [time, subject] of events to be answered; merged: events answered together with others.
    last_at: the time, or the event's, that the last run was for; fired: when that run was submitted.
    """

    __slots__ = (
        "created", "failed_in_row", "failures", "fired", "id", "job", "last_at", "last_job", "last_result", "merged", "name",
        "next", "note", "options", "owed", "runs", "seen", "skips", "spec", "state", "type",
    )  # fmt: skip

    def __init__(self, id: int) -> None:
        self.id = id
        self.name = self.type = self.note = self.last_result = ""
        self.state = "active"
        self.spec: Context = {}
        self.job: Context = {}
        self.options: Context = {}
        self.created = self.next = self.last_at = self.fired = 0.0
        self.runs = self.skips = self.failures = self.failed_in_row = self.seen = self.merged = self.last_job = 0
        self.owed: list[list[Any]] = []

    def value(self) -> list[Any]:
        """Plain values, for snapshots and the digest."""
        return [getattr(self, name) for name in self.__slots__]

    @classmethod
    def from_value(cls, value: list[Any]) -> CronEntry:
        """Inverse of `value`."""
        entry = cls(0)
        for name, one in zip(cls.__slots__, value, strict=True):
            setattr(entry, name, one)
        return entry


def _spec(kind: str, found: Context) -> Context:
    """What starts an entry, of the right kinds from here on: it is reckoned with at every event, and at every look."""
    if kind == "event":
        return {
            "event": str(found["event"]), "subject": str(found["subject"]), "nth": max(1, whole(found["nth"])),
            "after": whole(found["after"]), "min_interval": _moment(found["min_interval"]),
        }  # fmt: skip
    if kind == "tab":
        return {"line": str(found["line"]), "tz": str(found["tz"])}
    if kind == "at":
        return {"at": _moment(found["at"])}
    interval = _moment(found["interval"])
    if not interval:
        raise ValueError("an interval of no time")
    return {"interval": interval, "first": _moment(found["first"])}


def _moment(value: Any) -> float:
    """Seconds that a calendar can hold."""
    seconds = float(value)
    if not 0.0 <= seconds <= LATEST:
        raise ValueError(f"{value} is no time")
    return seconds


class CronTable:
    """entries: by id. jobs: active jobs of cron: id -> [entry, wait status, first fatal exception's type], or None for one
    that a process of such a job submitted. version, epoch: of the last commit applied, where the table is folded alone.
    dirty: entries changed since the digest was last computed; changed: anything else.
    """

    def __init__(self) -> None:
        self.version = 0
        self.epoch = 0
        self.tail = b""
        self.last = 0
        self.entries: dict[int, CronEntry] = {}
        self.jobs: dict[int, Track | None] = {}
        self.dirty: set[int] = set()
        self.changed = False
        self._watched: dict[str, list[tuple[str, CronEntry]]] | None = None

    def __bool__(self) -> bool:
        return bool(self.entries or self.jobs)

    # -- folding --------------------------------------------------------------------------------------------------

    def apply(self, commit: Commit) -> None:
        """Fold one commit of the journal, of which only what concerns cron is looked at."""
        from .state import MALFORMED

        for event in commit.events:
            try:
                name, subject, ts, context = event
                if 0.0 <= ts <= LATEST and name.__class__ is str and name.startswith("cron-") and name in HANDLERS:
                    self.handle(name, subject, ts, context or {})
            except MALFORMED:
                continue  # a full fold counts it
        if self:
            self.observe(commit)
        self.version, self.epoch, self.tail = commit.version, commit.epoch, commit.digest

    def handle(self, name: str, subject: str, ts: float, context: Context) -> None:
        """Fold an event about an entry. Raises what `State.apply` takes for malformed."""
        id = whole(subject.partition("/")[2])
        self.dirty.add(id)  # first: an event that breaks off half-way may have changed something
        self._watched = None
        if name == "cron-create":
            if id in self.entries or id <= 0:
                raise ValueError(f"entry {id} is there")
            self._create(CronEntry(id), ts, context)
        else:
            HANDLERS[name](self, self.entries[id], ts, context)

    def _create(self, entry: CronEntry, ts: float, context: Context) -> None:
        if context["type"] not in TYPES:
            raise ValueError(context["type"])
        spec, options = _spec(context["type"], context["spec"]), context["options"]
        entry.name, entry.type, entry.spec, entry.job = str(context["name"]), context["type"], spec, dict(context["job"])
        entry.options = {
            "count": whole(options["count"]), "no_overlap": bool(options["no_overlap"]), "missed": str(options["missed"]),
            "stop_on_failure": whole(options["stop_on_failure"]),
        }  # fmt: skip
        entry.next, entry.created = _moment(context["next"]), float(ts)
        self.entries[entry.id] = entry
        self.last = max(self.last, entry.id)
        self.changed = True

    def fire(self, entry: CronEntry, ts: float, context: Context) -> None:
        job, at, following = context["job"], _moment(context["at"]), _moment(context["next"])
        if type(job) is not int:
            raise TypeError("job is an id")
        entry.next, entry.last_at, entry.fired, entry.last_job, entry.last_result = following, at, float(ts), job, ""
        entry.runs += 1
        del entry.owed[:1]
        self.jobs[job] = [entry.id, None, ""]
        self.changed = True
        self._ended(entry)

    def skip(self, entry: CronEntry, ts: float, context: Context) -> None:
        at, following, reason = _moment(context["at"]), _moment(context["next"]), str(context["reason"])
        entry.next, entry.last_at, entry.note = following, at, reason
        entry.skips += 1
        del entry.owed[:1]
        self._ended(entry)

    def _ended(self, entry: CronEntry) -> None:
        count = entry.options["count"]
        if count and entry.runs >= count:
            entry.note = f"made {'its run' if count == 1 else f'its {count} runs'}"
        elif entry.type == "event" or entry.next:
            return
        entry.state, entry.next, entry.owed = "done", 0.0, []
        done = [one.id for one in self.entries.values() if one.state == "done"]
        for id in done[: max(0, len(done) - DONE_KEPT)]:
            self.delete(self.entries[id], 0.0, {})

    def stop(self, entry: CronEntry, ts: float, context: Context) -> None:
        entry.state, entry.note, entry.next, entry.owed = "stopped", str(context.get("reason", "")), 0.0, []

    def start(self, entry: CronEntry, ts: float, context: Context) -> None:
        entry.next = _moment(context["next"])
        entry.state, entry.note, entry.failed_in_row = "active", "", 0

    def delete(self, entry: CronEntry, ts: float, context: Context) -> None:
        del self.entries[entry.id]
        self.dirty.add(entry.id)

    # -- watching the journal -------------------------------------------------------------------------------------

    def observe(self, commit: Commit) -> None:
        """After a commit's own events are folded: what it means to the entries. Never raises."""
        jobs, watched = self.jobs, self._watching()
        ours = "cron" in commit.extra
        for event in commit.events:
            try:
                name, subject, ts, context = event
                if not 0.0 <= ts <= LATEST:
                    continue
                if subject.__class__ is int:
                    if ours and name == "submit":
                        jobs.setdefault(subject, None)
                        self.changed = True
                    if subject in jobs:
                        self._follow(subject, name, context or {})
                        continue
                if not ours and name in watched:
                    kind = "job" if subject.__class__ is int else subject.partition("/")[0]
                    for wanted, entry in watched[name]:
                        if wanted in ("", kind):
                            self._seen(entry, float(ts), subject)
            except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError):
                continue

    def _watching(self) -> dict[str, list[tuple[str, CronEntry]]]:
        if self._watched is None:
            self._watched = {}
            for entry in self.entries.values():
                if entry.type == "event" and entry.state == "active":
                    watchers = self._watched.setdefault(entry.spec["event"], [])
                    watchers.append((entry.spec["subject"], entry))
        return self._watched

    def _seen(self, entry: CronEntry, ts: float, subject: int | str) -> None:
        entry.seen += 1
        self.dirty.add(entry.id)
        counted = entry.seen - entry.spec["after"]
        if counted <= 0 or counted % entry.spec["nth"]:
            return
        if len(entry.owed) >= (1 if entry.spec["min_interval"] else OWED_LIMIT):
            entry.merged += 1
        else:
            entry.owed.append([ts, subject])

    def _follow(self, id: int, name: str, context: Context) -> None:
        """A job of cron goes on: remember how it ended for its entry."""
        if name not in ("finish", "exception", "clean", "invalidate", "requeue"):
            return
        self.changed = True  # first: an event that breaks off half-way may have changed something
        track = self.jobs[id]
        if track is not None and name == "finish":
            track[1] = context["status"]
        elif track is not None and name == "exception" and context["severity"] == 0 and track[1] is None:
            track[2] = track[2] or context["type"]
        elif track is not None and name == "requeue":
            track[1], track[2] = None, ""  # its last attempt will tell
        elif name in ("clean", "invalidate"):
            del self.jobs[id]
            if track is not None and track[0] in self.entries:
                self._result(self.entries[track[0]], id, track)

    def _result(self, entry: CronEntry, id: int, track: Track) -> None:
        self.dirty.add(entry.id)
        ok = track[1] == 0 and not track[2]
        if ok:
            entry.failed_in_row = 0
        else:
            entry.failures += 1
            entry.failed_in_row += 1
        if id == entry.last_job:
            ended = {"cancel": "canceled", "timeout": "timeout"}.get(track[2], "failed")
            entry.last_result = "completed" if ok else ended

    # -- values ---------------------------------------------------------------------------------------------------

    def running(self, id: int) -> list[int]:
        """Active jobs that an entry started, oldest first."""
        return [job for job, track in self.jobs.items() if track is not None and track[0] == id]

    def value(self) -> list[Any]:
        """Plain values of all but the entries."""
        return [self.last, sorted(self.jobs.items())]

    def dump(self) -> dict[str, Any]:
        """For a snapshot."""
        return {"last": self.last, "jobs": list(self.jobs.items()),
                "entries": [entry.value() for entry in self.entries.values()]}  # fmt: skip

    @classmethod
    def load(cls, dumped: dict[str, Any] | None) -> CronTable:
        """Inverse of `dump`; None is an empty table."""
        table = cls()
        if dumped:
            table.last = dumped["last"]
            table.jobs = dict(dumped["jobs"])
            for value in dumped["entries"]:
                entry = CronEntry.from_value(value)
                table.entries[entry.id] = entry
            table.dirty.update(table.entries)
            table.changed = table.last > 0
        return table


HANDLERS: dict[str, Any] = {
    "cron-create": CronTable._create,
    "cron-fire": CronTable.fire,
    "cron-skip": CronTable.skip,
    "cron-stop": CronTable.stop,
    "cron-start": CronTable.start,
    "cron-delete": CronTable.delete,
}
