"""What every journal must obey, checked on its entries alone: written from the RFCs, not from the fold.

Nothing here imports the fold, so that a mistake there cannot excuse itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fluxkv.journal.wire import Commit

# RFC 21's diagram: (state, event) -> state.
DIAGRAM = {
    ("NEW", "validate"): "DEPEND",
    ("DEPEND", "depend"): "PRIORITY",
    ("PRIORITY", "priority"): "SCHED",
    ("SCHED", "alloc"): "RUN",
    ("SCHED", "urgency"): "PRIORITY",
    ("SCHED", "jobspec-update"): "PRIORITY",
    ("SCHED", "flux-restart"): "PRIORITY",
    ("RUN", "finish"): "CLEANUP",
    ("CLEANUP", "clean"): "INACTIVE",
}
FATAL = ("DEPEND", "PRIORITY", "SCHED", "RUN")
# Where an event has its place at all; other events may come in any state but INACTIVE.
PLACE = {
    "validate": ("NEW",),
    "depend": ("DEPEND",),
    "priority": ("PRIORITY", "SCHED"),
    "grant": ("SCHED",),
    "alloc": ("SCHED", "CLEANUP"),  # CLEANUP: a job that was cancelled while it took over a seat
    "start": ("RUN", "CLEANUP"),
    "finish": ("RUN", "CLEANUP"),
    "release": ("CLEANUP",),
    "free": ("CLEANUP",),
    "clean": ("CLEANUP",),
}


def ids(text: str) -> set[int]:
    """A plain idset."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found


class Rules:
    """Feed commits in order. `wrong`: (version, job or 0, what) of every fault."""

    def __init__(self, cores: dict[int, set[int]]) -> None:
        self.cores = cores
        self.wrong: list[tuple[int, int, str]] = []
        self.version = 0
        self.state: dict[int, str] = {}
        self.seen: dict[int, dict[str, int]] = {}
        self.attempt: dict[int, int] = {}
        self.claims: dict[int, list[list[Any]]] = {}
        self.used: dict[int, dict[int, int]] = {rank: {} for rank in cores}  # rank -> core -> job
        self.over: set[tuple[int, int, int]] = set()  # (job, attempt, rank)

    def commits(self, commits: Iterable[Commit]) -> None:
        for commit in commits:
            if commit.version != self.version + 1:
                self._fault(0, f"version {commit.version} follows {self.version}")
            self.version = commit.version
            if not commit.events:
                self._fault(0, "no event")
            for name, subject, _, context in commit.events:
                if isinstance(subject, int):
                    self._job(name, subject, context or {})
                elif name == "report":
                    for job, attempt, *_ in context.get("over", ()):
                        self.over.add((job, attempt, context["rank"]))

    def _fault(self, job: int, what: str) -> None:
        self.wrong.append((self.version, job, what))

    def _job(self, name: str, job: int, context: dict[str, Any]) -> None:
        state = self.state.get(job)
        if name == "submit":
            if state is not None:
                self._fault(job, "submitted twice")
            self.state[job], self.seen[job] = "NEW", {}
            return
        if state is None:
            self._fault(job, f"{name} before submit")
            return
        if state == "INACTIVE":
            self._fault(job, f"{name} after clean")
        if state not in PLACE.get(name, (state,)):
            self._fault(job, f"{name} in {state}")
        if name == "alloc" and state == "CLEANUP" and not context.get("via"):
            self._fault(job, "alloc in CLEANUP")
        seen = self.seen[job]
        seen[name] = seen.get(name, 0) + 1
        for once in ("validate", "depend", "alloc", "start", "finish", "free", "clean"):
            if name == once and seen[name] > 1:
                self._fault(job, f"{name} twice")
        for event, needs in (("start", "alloc"), ("finish", "alloc"), ("release", "finish"), ("free", "release")):
            if name == event and needs not in seen:
                self._fault(job, f"{name} without {needs}")
        if name == "start" and "finish" in seen:
            self._fault(job, "start after finish")
        if name == "clean" and "alloc" in seen and "free" not in seen:
            self._fault(job, "clean before free")
        if name in ("grant", "alloc") and "attempt" not in context:
            self.attempt[job] = self.version
        if name == "lost":
            self.over.add((job, self.attempt[job], context["rank"]))
        if name == "alloc":
            self._take(job, context["claims"])
        if name == "free":
            self._give(job)
        if name == "exception" and context["severity"] == 0 and state in FATAL:
            self.state[job] = "CLEANUP"
        else:
            self.state[job] = DIAGRAM.get((state, name), state)

    def _take(self, job: int, claims: list[list[Any]]) -> None:
        self.claims[job] = claims
        for rank, cores, *_ in claims:
            wanted = ids(cores)
            if not wanted <= self.cores.get(rank, set()):
                self._fault(job, f"claims cores {cores} of rank {rank}, which has them not")
            for core in sorted(wanted):
                if core in self.used[rank]:
                    self._fault(job, f"claims core {core} of rank {rank} while job {self.used[rank][core]} has it")
                self.used[rank][core] = job

    def _give(self, job: int) -> None:
        for rank, cores, *_ in self.claims.pop(job, []):
            if (job, self.attempt.get(job, 0), rank) not in self.over:
                self._fault(job, f"free though its attempt is not known to be over on rank {rank}")
            for core in ids(cores):
                self.used[rank].pop(core, None)


def story(commits: Iterable[Commit], job: int) -> str:
    """A job's events and the reports about it, one a line."""
    lines = []
    for commit in commits:
        for name, subject, _, context in commit.events:
            if subject == job or (name in ("report", "hello", "alloc") and str(job) in str(context)):
                lines.append(f"{commit.version:5} {commit.producer or 'cli':9} {name} {subject} {str(context)[:200]}")
    return "\n".join(lines)
