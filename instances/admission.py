"""Taking a new job in under the instance's config: its defaults, its limits, its validators. Pure, but for what plug-ins do.

`fluxkv submit` has seen to both before it appended. But anybody may append, and numbers of jobs per user only a fold can know:
so the worker looks at each new job once, before it validates it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..journal.derive import Group
from ..journal.job import Job
from ..journal.state import State
from ..journal.updates import update_paths
from ..kvs.errors import Rejected
from .ingest import NOVALIDATE, Ingest, Submission
from .planner import Planner

SYSTEM = "attributes.system."
Validate = Callable[[Job], None]


class Admission(NamedTuple):
    """group: what is said of the job instead of taking it in (defaults, or a refusal), None if it is taken in.

    things: the numbers of jobs that were looked at, to be guarded and bumped with its validation.
    """

    group: Group | None
    things: list[str]


class Validators:
    """The validators of the config that the state holds, loaded when a job first needs them, once for each config."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._of: Any = None
        self._ingest: Ingest | Rejected | None = None

    def __call__(self, job: Job) -> None:
        """Raise `Rejected` that names the plug-in which refuses the job. Only the owner's jobs may ask for no validation."""
        state, planner = self._planner.state, self._planner
        document = state.config
        if not document.get("ingest"):
            return
        if self._of is not state.config_entry:
            self._of = state.config_entry
            try:
                self._ingest = Ingest(document)
            except Rejected as error:
                self._ingest = error
        if not isinstance(self._ingest, Ingest):
            raise Rejected(str(self._ingest), code="no-such-plugin")
        planner.check(job)
        flags = job.flags if job.userid == state.instance.get("owner") else job.flags & ~NOVALIDATE
        self._ingest.validate(
            Submission(job.jobspec or {}, job.userid, job.urgency, flags, infeasible=lambda jobspec: planner.infeasible(job))
        )


def admit(state: State, job: Job, now: float, more: dict[tuple[str, int], int], validate: Validate) -> Admission:
    """Look at a job in NEW. more: (scope, user) -> jobs taken in since the state was folded; a job taken in is added."""
    thing = f"job/{job.id}"
    jobspec = job.jobspec or {}
    try:
        if job.exception is not None:
            return Admission(None, [])  # it is over as it is
        added = state.rules.defaults(jobspec)
        if added:
            context = {SYSTEM + key: value for key, value in added.items()}
            if state.rules.defaults(update_paths(jobspec, context)):  # it would be said again and again
                raise Rejected("bad jobspec: it cannot be given the defaults of the config", code="bad-jobspec")
            return Admission(Group([["jobspec-update", job.id, now, context]], [thing], [thing]), [])
        state.rules.check_limits(jobspec)
        validate(job)
        scopes = [scope for scope, _ in state.rules.active_limits(job.queue)] if state.usage is not None else []
        full = state.usage.active_full(job.queue, job.userid, more) if state.usage is not None else ""
        if full:
            raise Rejected(full, code="limit")
    except Rejected as error:
        events = [
            ["validate", job.id, now, None],
            ["exception", job.id, now, {"type": "validate", "severity": 0, "note": str(error)}],
            ["clean", job.id, now, None],
        ]
        return Admission(Group(events, [thing], [thing]), [])
    for scope in scopes:
        more[scope, job.userid] = more.get((scope, job.userid), 0) + 1
    return Admission(None, [f"active/{scope}/{job.userid}" for scope in scopes])


def refusal(job: Job, error: Rejected, now: float) -> list[Any]:
    """The exception of a job that can not run here."""
    return ["exception", job.id, now, {"type": "alloc", "severity": 0, "note": str(error)}]
