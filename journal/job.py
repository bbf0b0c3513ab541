"""A job as the fold knows it: states of RFC 21 and the record. Decides the transition table and results; no I/O.

Records are slotted and mutable, changed only by `State.apply`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from operator import attrgetter
from typing import Any

from .claims import Claim, from_wire
from .retry import SHUTDOWN
from .wire import pack, unpack


class JobState(IntEnum):
    """RFC 21 states with flux-core's bit values, so that sets of states are masks."""

    NEW = 1
    DEPEND = 2
    PRIORITY = 4
    SCHED = 8
    RUN = 16
    CLEANUP = 32
    INACTIVE = 64


NEW, DEPEND, PRIORITY, SCHED, RUN, CLEANUP, INACTIVE = (int(state) for state in JobState)
PENDING = DEPEND | PRIORITY | SCHED
RUNNING = RUN | CLEANUP
ACTIVE = PENDING | RUNNING
SINGLETON = "singleton"  # how events describe that dependency
NAMES = "names"  # the thing that another name of a job bumps

STATE_NAMES = {int(state): state.name for state in JobState}
STATE_ABBREV = {NEW: "N", DEPEND: "D", PRIORITY: "P", SCHED: "S", RUN: "R", CLEANUP: "C", INACTIVE: "I"}

# RFC 21's table: (state, event) -> state; whatever is not here leaves the state alone.
TRANSITIONS: dict[tuple[int, str], int] = {
    (NEW, "validate"): DEPEND,
    (DEPEND, "depend"): PRIORITY,
    (PRIORITY, "priority"): SCHED,
    (SCHED, "alloc"): RUN,
    (SCHED, "urgency"): PRIORITY,
    (SCHED, "jobspec-update"): PRIORITY,
    (SCHED, "flux-restart"): PRIORITY,
    (RUN, "finish"): CLEANUP,
    (CLEANUP, "clean"): INACTIVE,
    (CLEANUP, "requeue"): PRIORITY,  # ours: a reader that does not know it sees a long CLEANUP
}
FATAL_FROM = DEPEND | PRIORITY | SCHED | RUN


class Result(IntEnum):
    """How an inactive job ended (flux-core's values)."""

    COMPLETED = 1
    FAILED = 2
    CANCELED = 4
    TIMEOUT = 8


RESULT_ORDER = tuple(Result)
RESULT_ABBREV = {1: "CD", 2: "F", 4: "CA", 8: "TO"}


def result_of(status: int | None, started: bool, exception: Sequence[Any] | None) -> Result:
    """How a job ended, by its wait word, whether it started, and its first fatal exception (type, note).

    A wait word of 0 behind the exception that an instance's end raises says that this came too late (`derive.finish`).
    """
    if exception and not (status == 0 and exception[0] == SHUTDOWN):
        return {"cancel": Result.CANCELED, "timeout": Result.TIMEOUT}.get(exception[0], Result.FAILED)
    return Result.COMPLETED if status == 0 and started else Result.FAILED


class Job:
    """One job. Times are Unix seconds, 0.0 when not reached.

    order: position of its submit in the journal (version << 24 | index): the tie-break of equal priorities.
    attempt: version of the commit (alloc or grant) that began the current attempt, 0 if none.
    granted: [rank, shape] while placed ahead, else None. recalled: it was asked back.
    seat_of: the job whose seat it took over (0: none); next: the job that took over its seat.
    started: rank -> time; over: rank -> [wait status, time, cause]. status: wait word, None before finish.
    exception: first fatal one as [type, note]; exceptions: every one as [type, severity, note].
    exception_status: wait word that the first fatal one names, None if none; it becomes the job's.
    exits: "first" and "failed" -> [task rank, wait status, time], where its shell options ask (`task_exits`), while it is active.
    urgency_before: what a held job's urgency was before it was held.
    waiting: descriptions of dependencies not met yet, met: of those that are (RFC 26), while it is active.
    ending: cause under which its nodes were told to end it. commits: versions holding an event about it.
    requeued: [how often, how often by its retry policy, not before (Unix seconds), why the last time, whether an attempt
    before this one started, on which ranks those were (an idset)], None if it never was;
    what else is said of an attempt (started, status, exceptions, ...) is the current one's.
    resized: what there is to say of a job whose nodes change while it runs (`resizing`), None of all others.
    script: [kind, version, ranks, rank -> [wait status, time, cause]] of the prolog or epilog that is going on, with the commit
    that ordered it; kind "" after a prolog, with the commit that ordered the tasks; None for a job without.
    claims_wire: the resources it holds or held, as journalled; claims: the same as values.
    jobspec: None once it is inactive. A record read from a snapshot unpacks jobspec and claims when they are asked for.
    """

    __slots__ = (
        "_claims", "_spec", "annotations", "attempt", "claims_wire", "commits", "duration", "ending", "env", "epoch", "exception",
        "exception_status", "exceptions", "exits", "expiration",
        "flags", "granted", "hash", "holds", "id", "memo", "met", "name", "ncores", "next",
        "nnodes", "ntasks", "order", "over", "priority", "queue", "reason", "recalled", "requeued",
        "resized", "script", "seat_of", "spec_hash", "started",
        "state", "status", "t_alloc", "t_cleanup", "t_depend", "t_finish", "t_inactive", "t_run", "t_submit", "timed_out",
        "urgency", "urgency_before", "userid", "waiting",
    )  # fmt: skip

    def __init__(self, id: int) -> None:
        self.id = id
        self.state = NEW
        self.order = self.userid = self.flags = self.priority = 0
        self.urgency = self.urgency_before = 16
        self.queue = "default"
        self.name = self.env = self.ending = ""
        self._spec: dict[str, Any] | bytes | None = None
        self.spec_hash = b""
        self.ntasks = self.nnodes = self.ncores = 0
        self.duration = self.expiration = 0.0
        self.t_submit = self.t_depend = self.t_alloc = self.t_run = 0.0
        self.t_finish = self.t_cleanup = self.t_inactive = 0.0
        self.attempt = self.epoch = self.seat_of = self.next = 0
        self._claims: tuple[Claim, ...] | None = ()
        self.claims_wire: list[Any] = []
        self.holds = self.recalled = self.timed_out = False
        self.granted: list[Any] | None = None
        self.script: list[Any] | None = None
        self.started: dict[int, float] = {}
        self.over: dict[int, list[Any]] = {}
        self.status: int | None = None
        self.exception: list[Any] | None = None
        self.exception_status: int | None = None
        self.exceptions: list[list[Any]] = []
        self.exits: dict[str, list[Any]] = {}
        self.requeued: list[Any] | None = None
        self.resized: list[Any] | None = None
        self.reason: list[Any] = ["", ""]
        self.waiting: dict[str, None] = {}
        self.met: dict[str, None] = {}
        self.annotations: dict[str, Any] = {}
        self.memo: dict[str, Any] = {}
        self.commits: list[int] = []
        self.hash = 0

    @property
    def jobspec(self) -> dict[str, Any] | None:
        """As submitted and updated, without its environment (RFC 25)."""
        spec = self._spec
        if isinstance(spec, bytes):
            spec = self._spec = unpack(spec)
        return spec

    @jobspec.setter
    def jobspec(self, spec: dict[str, Any] | None) -> None:
        self._spec = spec

    @property
    def packed_jobspec(self) -> bytes | None:
        """The jobspec as a snapshot stores it."""
        spec = self._spec
        return spec if spec is None or isinstance(spec, bytes) else pack(spec)

    @property
    def claims(self) -> tuple[Claim, ...]:
        found = self._claims
        if found is None:
            found = self._claims = from_wire(self.claims_wire)
        return found

    @claims.setter
    def claims(self, claims: tuple[Claim, ...]) -> None:
        self._claims = claims

    @property
    def key(self) -> str:
        """The current attempt's name, unique over forks: <job>.<version>-<epoch>."""
        return f"{self.id}.{self.attempt}-{self.epoch}"

    @property
    def attempt_id(self) -> str:
        """Id of the entry that began the current attempt, <version>-<epoch>: how orders name it (an epoch may end
        while it runs)."""
        return f"{self.attempt}-{self.epoch}"

    @property
    def number(self) -> int:
        """Which attempt it is in, or waits for: 1, 2, 3, ..."""
        return 1 if self.requeued is None else 1 + int(self.requeued[0])

    @property
    def ever_started(self) -> bool:
        """Whether this attempt has started, or one before it."""
        return bool(self.t_run) or (self.requeued is not None and bool(self.requeued[4]))

    @property
    def ranks(self) -> list[int]:
        """The node ranks it holds or held."""
        return [claim.rank for claim in self.claims]

    @property
    def result(self) -> Result | None:
        """How it ended; None while active (flux-core's rule: status 0 and ran, else the first fatal exception)."""
        return result_of(self.status, bool(self.t_run), self.exception) if self.state == INACTIVE else None

    @property
    def returncode(self) -> int:
        """Exit code as a shell would give it: 128+signal if killed; 1 if it ended by an exception before running."""
        if self.status is None:
            return 1 if self.exception else 0
        signum = self.status & 0x7F
        return 128 + signum if signum else self.status >> 8

    def runtime(self, now: float) -> float:
        """Seconds between start and finish (or now), 0.0 if it never started."""
        return max(0.0, (self.t_finish or now) - self.t_run) if self.t_run else 0.0


# What the digest hashes, and with the packed jobspec (whose hash stands for it) what a snapshot stores.
HASHED = tuple(name for name in Job.__slots__ if name not in ("_claims", "_spec", "hash"))
job_value = attrgetter(*HASHED)
