"""Whether a dependency holds: what is known of the job it names, judged as flux-core judges it. Pure.

A job that never got resources satisfies `afterany` only (flux-core; RFC 26's text would let it satisfy `afternotok`).
What ended stays as it ended, so a verdict but "not yet" is final.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .dependency import Dependency
from .ids import f58
from .job import INACTIVE, Job, Result, result_of
from .waitstatus import decode

REASONS = 3  # of an any() are told
NOTE = 80  # characters of another job's exception


class Antecedent(NamedTuple):
    """order: position of its submit. ended: INACTIVE. ran: it got resources. exception: first fatal one, or None.
    status: wait word, None if it has none."""

    userid: int
    order: int
    ended: bool
    ran: bool
    started: bool
    status: int | None
    exception: tuple[str, str] | None
    begun: bool = False  # it has started, in its last attempt or one before

    @property
    def result(self) -> Result:
        """How it ended, if it has."""
        return result_of(self.status, self.started, self.exception)

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if not self.ended:
            return "is active"
        kind, note = self.exception or ("", "")
        if self.result == Result.COMPLETED:
            return "completed"
        never = "" if self.ran else "never started: "
        if self.result == Result.CANCELED:
            return f"{never}canceled" if never else "was canceled"
        if self.result == Result.TIMEOUT:
            return "ran into its time limit"
        if kind:
            why = "" if kind == "dependency" else " ".join(note.split())  # else each link of a chain quotes all before it
            why = f"{kind}: {why[:NOTE]}" if why else kind
            return f"{never}{why}" if never else f"failed ({why})"
        signum = decode(self.status or 0).signal
        if signum is None:
            return f"failed (exit code {(self.status or 0) >> 8})"
        return f"failed (killed by signal {signum})"


def antecedent_of(job: Job) -> Antecedent:
    """What a job's record says."""
    found = job.exception
    return Antecedent(
        job.userid, job.order, job.state == INACTIVE, bool(job.t_alloc) or job.requeued is not None, bool(job.t_run), job.status,
        (found[0], found[1]) if found is not None else None, job.ever_started,
    )  # fmt: skip


class Verdict(NamedTuple):
    """met: True, False (it never will be; `why` says it), or None: not yet."""

    met: bool | None
    why: str = ""


NOT_YET, MET = Verdict(None), Verdict(True)


class Unknown(NamedTuple):
    """The answer to `find` while the journal is being asked about a job that has left the state."""


UNKNOWN = Unknown()
Find = Callable[[int], "Antecedent | Unknown | None"]


def judge(one: Dependency, job: Job, find: Find, now: float) -> Verdict:
    """One dependency of `job`, singleton excepted. find: what is known of a job, None if there never was one."""
    if one.scheme == "begin-time":
        return MET if now >= one.at else NOT_YET
    if one.scheme == "any":
        return _any(one, job, find, now)
    if one.scheme == "all":
        return _all(one, job, find, now)
    return _after(one, job, find(one.job))


def _any(one: Dependency, job: Job, find: Find, now: float) -> Verdict:
    verdicts = [judge(part, job, find, now) for part in one.parts]
    if any(verdict.met for verdict in verdicts):
        return MET
    if any(verdict.met is None for verdict in verdicts):
        return NOT_YET
    whys = [verdict.why for verdict in verdicts]
    more = f"; and {len(whys) - REASONS} more" if len(whys) > REASONS else ""
    return Verdict(False, "; ".join(whys[:REASONS]) + more)


def _all(one: Dependency, job: Job, find: Find, now: float) -> Verdict:
    verdicts = [judge(part, job, find, now) for part in one.parts]
    for verdict in verdicts:
        if verdict.met is False:
            return verdict
    return MET if all(verdict.met for verdict in verdicts) else NOT_YET


def _after(one: Dependency, job: Job, other: Antecedent | Unknown | None) -> Verdict:
    scheme, name = one.scheme, f58(one.job)
    if other is None:
        return Verdict(False, f"{one.uri} cannot be met: there is no job {name}")
    if isinstance(other, Unknown):
        return NOT_YET
    if other.userid != job.userid:
        return Verdict(False, f"{one.uri} cannot be met: job {name} is another user's")
    if other.order >= job.order:
        whose = "this job itself" if one.job == job.id else f"job {name} was submitted later"
        return Verdict(False, f"{one.uri} cannot be met: {whose}")
    if scheme in ("after", "afterstart") and (other.started or other.begun):
        return MET
    if not other.ended:
        return NOT_YET
    completed = other.result == Result.COMPLETED
    holds = {
        "afterany": True,
        "afterok": completed,
        "afternotok": other.ran and not completed,
        "afterexcept": other.ran and not completed and other.exception is not None,
    }
    if holds.get(scheme):
        return MET
    how = f"{other.how} without an exception" if scheme == "afterexcept" and other.ran else other.how
    return Verdict(False, f"{one.uri} cannot be met: job {name} {how}")
