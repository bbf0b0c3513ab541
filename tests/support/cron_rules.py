"""What cron promises, checked on a journal's entries alone: each time an entry is due is answered once, in order.

Nothing here imports the fold of cron, so that a mistake there cannot excuse itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fluxkv.journal.wire import Commit


class Entry:
    """due: when a timed one is due next, 0.0: never. owed: times of the events to be answered. jobs: its active ones."""

    def __init__(self, context: dict[str, Any]) -> None:
        self.kind, self.spec, self.options = context["type"], context["spec"], context["options"]
        self.due = float(context["next"])
        self.active = True
        self.runs = self.seen = 0
        self.owed: list[float] = []
        self.jobs: set[int] = set()


class CronRules:
    """Feed commits in order. wrong: (version, job, what). A rule says nothing of entries that were never created here."""

    def __init__(self) -> None:
        self.wrong: list[tuple[int, int, str]] = []
        self.entries: dict[str, Entry] = {}
        self.jobs: set[int] = set()  # of cron, and of what its jobs have submitted

    def commits(self, commits: Iterable[Commit]) -> None:
        for commit in commits:
            submitted = {event[1] for event in commit.events if event[0] == "submit"}
            for name, subject, _, context in commit.events:
                if name == "cron-create":
                    self.entries[subject] = Entry(context)
                elif name in ("cron-fire", "cron-skip"):
                    self._answer(commit.version, name, subject, context, submitted)
                elif name.startswith("cron-"):
                    self._ruled(name, subject, context or {})
            if "cron" in commit.extra:
                self.jobs |= submitted
            for name, subject, ts, _ in commit.events:
                if name == "clean":
                    for entry in self.entries.values():
                        entry.jobs.discard(subject)
                if "cron" not in commit.extra and subject not in self.jobs:  # nothing that cron starts starts cron
                    self._seen(name, subject, ts)

    def _ruled(self, name: str, subject: str, context: dict[str, Any]) -> None:
        entry = self.entries[subject]
        if name == "cron-start":
            entry.active, entry.due = True, float(context["next"])
        else:
            entry.active, entry.due, entry.owed = False, 0.0, []

    def _seen(self, name: str, subject: int | str, ts: float) -> None:
        kind = subject.partition("/")[0] if isinstance(subject, str) else "job"
        for entry in self.entries.values():
            spec = entry.spec
            if entry.kind != "event" or not entry.active or spec["event"] != name or spec["subject"] not in ("", kind):
                continue
            entry.seen += 1
            counted = entry.seen - spec["after"]
            if counted > 0 and not counted % spec["nth"] and not (entry.owed and spec["min_interval"]):
                entry.owed.append(ts)

    def _answer(self, version: int, name: str, subject: str, context: dict[str, Any], submitted: set[int]) -> None:
        entry, job = self.entries[subject], context.get("job", 0)

        def fault(what: str) -> None:
            self.wrong.append((version, job, f"{name} of {subject}: {what}"))

        if not entry.active:
            fault("it is stopped, or has made all its runs")
        due = entry.owed[:1] if entry.kind == "event" else [entry.due] if entry.due else []
        if due != [context["at"]]:
            fault(f"for {context['at']}, which was answered before or is not due; due is {due or 'nothing'}")
        del entry.owed[:1]
        entry.due = float(context["next"])
        if name == "cron-fire":
            if job not in submitted:
                fault(f"job {job} is not submitted with it")
            if entry.jobs and entry.options["no_overlap"]:
                fault(f"jobs {sorted(entry.jobs)} of earlier runs are active")
            entry.jobs.add(job)
            self.jobs.add(job)
            entry.runs += 1
        if entry.runs == entry.options["count"] or (entry.kind != "event" and not entry.due):
            entry.active, entry.due, entry.owed = False, 0.0, []

    def overdue(self, now: float) -> list[str]:
        """Entries that owe an answer since before this time."""
        late = {subject: [*entry.owed[:1], *([entry.due] if entry.due else [])] for subject, entry in self.entries.items()}
        return [f"{subject} is due since {times[0]}" for subject, times in late.items() if times and times[0] < now]
