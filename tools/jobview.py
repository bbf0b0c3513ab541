"""What tables say about a job: Flux's field names, status words, causes and reasons in one line. Decides
wording only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..journal.hostlist import compress
from ..journal.ids import encode, f58
from ..journal.idset import format_ids
from ..journal.job import (
    INACTIVE,
    NEW,
    PENDING,
    RESULT_ABBREV,
    RUN,
    RUNNING,
    SCHED,
    STATE_ABBREV,
    STATE_NAMES,
    Job,
)
from ..journal.node import Queue
from ..journal.state import State
from .reading import user_name


class View:
    """A state as tables look at it. now: Unix seconds, the end of what still runs."""

    def __init__(self, state: State, now: float) -> None:
        self.state = state
        self.now = now
        self.hosts = {rank: node.host for rank, node in state.nodes.items()}
        self._nodelists: dict[tuple[int, ...], str] = {}
        self._heads: dict[str, int] | None = None

    def nodelist(self, job: Job) -> str:
        """The hosts a job holds or held, as a hostlist."""
        if not job.claims:
            return ""
        ranks = tuple(claim.rank for claim in job.claims)
        found = self._nodelists.get(ranks)
        if found is None:
            found = compress([self.hosts.get(rank, f"rank{rank}") for rank in sorted(ranks)])
            self._nodelists[ranks] = found
        return found

    def queues(self, name: str) -> list[Queue]:
        """The queue of that name and its parent, as far as they are there."""
        rules = self.state.rules.of(name)
        names = [name] if rules is None or not rules.parent else [name, rules.parent]
        return [self.state.queues[one] for one in names if one in self.state.queues]

    def head(self, queue: str) -> int:
        """The job first in line in a queue, 0 if none is."""
        if self._heads is None:
            heads: dict[str, Job] = {}
            for job in self.state.jobs.values():
                if job.state != SCHED or not job.priority or job.granted is not None:
                    continue
                first = heads.get(job.queue)
                if first is None or (-job.priority, job.order) < (-first.priority, first.order):
                    heads[job.queue] = job
            self._heads = {name: job.id for name, job in heads.items()}
        return self._heads.get(queue, 0)


def in_line(job: Job) -> tuple[int, int]:
    """Sort key: the order in which a queue's jobs are looked at."""
    return -job.priority, job.order


def one_line(text: str) -> str:
    """Text with its line breaks and runs of blanks closed up."""
    return " ".join(text.split())


def reason(job: Job, view: View) -> str:
    """Why a pending job is pending, in one line; "" for any other."""
    if not job.state & (PENDING | NEW):
        return ""
    if job.waiting:
        from .depview import waits_for

        return ("held; " if job.urgency == 0 else "") + waits_for(job, view)
    if job.urgency == 0:
        return "held"
    if job.granted is not None:
        return f"next on {view.hosts.get(job.granted[0], job.granted[0])}"
    for queue in view.queues(job.queue):
        if not queue.started:
            why = f": {queue.stop_reason}" if queue.stop_reason else ""
            return one_line(f"queue {queue.name} is stopped{why}")
    full = view.state.usage.running_full(job.queue, job.userid, {}) if view.state.usage is not None else ""
    if full:
        return full.replace(f"user {job.userid} ", f"{user_name(job.userid)} ")
    if job.reason[1] and job.reason[0] != "limit":  # what it says of a limit was true then
        return one_line(job.reason[1])
    if job.state != SCHED:
        return "no worker has taken it up yet"
    head = view.head(job.queue)
    if head == job.id:
        return "first in line"
    return f"behind {f58(head)}" if head else ""


def signal_name(number: int) -> str:
    """ "SIGTERM" for 15."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def cause(job: Job) -> str:
    """How a job that did not succeed came to its end, in one line; "" for any other."""
    if job.exception is not None:
        kind, note = job.exception
        return one_line(f"{kind}: {note}" if note else kind)
    if job.state != INACTIVE or job.status == 0:
        return ""
    if job.status is None:
        return "never ran"
    signum = job.status & 0x7F
    return f"killed by {signal_name(signum)}" if signum else f"exit code {job.status >> 8}"


def inactive_reason(job: Job) -> str:
    """Flux's short word for the end: "Exit 3", "Canceled: note", "Timeout", "Terminated"; "" while active."""
    result = job.result
    if result is None:
        return ""
    if result == 4:
        note = job.exception[1] if job.exception else ""
        return f"Canceled: {one_line(note)}" if note else "Canceled"
    if result == 8:
        return "Timeout"
    if job.exception is not None and job.exception[0] != "exec":
        return one_line(f"Exception: type={job.exception[0]} note={job.exception[1]}".removesuffix(" note="))
    code = job.returncode
    if code > 128:
        import signal

        return signal.strsignal(code - 128) or f"Signal {code - 128}"
    return "command not found" if code == 127 else f"Exit {code}"


def status(job: Job) -> str:
    """State, or result once inactive: "SCHED", "RUN", "COMPLETED", ..."""
    result = job.result
    return STATE_NAMES[job.state] if result is None else result.name


def status_abbrev(job: Job) -> str:
    """The same in one or two letters: D P S R C, CD F CA TO."""
    result = job.result
    return STATE_ABBREV[job.state] if result is None else RESULT_ABBREV[result]


def info(job: Job, view: View) -> str:
    """One line of what matters now: reason, hosts, or cause."""
    if job.state & (PENDING | NEW):
        return reason(job, view)
    if job.state & RUNNING or job.result == 1:
        return view.nodelist(job) if job.exception is None else cause(job)
    return cause(job)


def remaining(job: Job, view: View) -> float:
    """Seconds a running job has left, 0.0 when it has no limit or does not run."""
    return max(0.0, job.expiration - view.now) if job.expiration and job.state == RUN else 0.0


def shown_time(job: Job, view: View) -> float:
    """Run time, or the limit asked for while it has not run."""
    return job.runtime(view.now) if job.t_run else (job.duration if job.state & (PENDING | NEW) else 0.0)


def exception_severity(job: Job) -> int | str:
    """Severity of what `exception.type` shows: 0 for the fatal one, else the gravest there was."""
    if job.exception is not None:
        return 0
    return min((one[1] for one in job.exceptions), default="")


def exception_part(job: Job, index: int) -> str:
    """type (0) or note (2) of the fatal exception, else of the gravest; "" without any."""
    if job.exception is not None:
        return str(job.exception[0 if index == 0 else 1])
    if not job.exceptions:
        return ""
    return str(min(job.exceptions, key=lambda one: one[1])[index])


Getter = Callable[[Job, View], Any]

# name: (header, getter). Names and headers are Flux's where Flux has the field.
FIELDS: dict[str, tuple[str, Getter]] = {
    "id": ("JOBID", lambda job, view: f58(job.id)),
    "id.f58": ("JOBID", lambda job, view: f58(job.id)),
    "id.dec": ("JOBID", lambda job, view: job.id),
    "id.f58plain": ("JOBID", lambda job, view: encode(job.id, "f58plain")),
    "id.hex": ("JOBID", lambda job, view: encode(job.id, "hex")),
    "id.dothex": ("JOBID", lambda job, view: encode(job.id, "dothex")),
    "id.kvs": ("JOBID", lambda job, view: encode(job.id, "kvs")),
    "userid": ("UID", lambda job, view: job.userid),
    "username": ("USER", lambda job, view: user_name(job.userid)),
    "urgency": ("URG", lambda job, view: job.urgency),
    "priority": ("PRI", lambda job, view: job.priority),
    "state": ("STATE", lambda job, view: STATE_NAMES[job.state]),
    "state_single": ("S", lambda job, view: STATE_ABBREV[job.state]),
    "name": ("NAME", lambda job, view: job.name),
    "queue": ("QUEUE", lambda job, view: job.queue),
    "ntasks": ("NTASKS", lambda job, view: job.ntasks),
    "ncores": ("NCORES", lambda job, view: job.ncores),
    "nnodes": ("NNODES", lambda job, view: job.nnodes),
    "ranks": ("RANKS", lambda job, view: format_ids(job.ranks)),
    "nodelist": ("NODELIST", lambda job, view: view.nodelist(job)),
    "status": ("STATUS", lambda job, view: status(job)),
    "status_abbrev": ("ST", lambda job, view: status_abbrev(job)),
    "returncode": ("RC", lambda job, view: job.returncode if job.state == INACTIVE else ""),
    "result": ("RESULT", lambda job, view: job.result.name if job.result is not None else ""),
    "result_abbrev": ("RS", lambda job, view: RESULT_ABBREV[job.result] if job.result is not None else ""),
    "success": ("SUCCESS", lambda job, view: job.result == 1 if job.state == INACTIVE else ""),
    "waitstatus": ("WSTATUS", lambda job, view: "" if job.status is None else job.status),
    "exception.occurred": ("EXCEPTION-OCCURRED", lambda job, view: bool(job.exceptions)),
    "exception.severity": ("EXCEPTION-SEVERITY", lambda job, view: exception_severity(job)),
    "exception.type": ("EXCEPTION-TYPE", lambda job, view: exception_part(job, 0)),
    "exception.note": ("EXCEPTION-NOTE", lambda job, view: one_line(exception_part(job, 2))),
    "t_submit": ("T_SUBMIT", lambda job, view: job.t_submit),
    "t_depend": ("T_DEPEND", lambda job, view: job.t_depend),
    "t_run": ("T_RUN", lambda job, view: job.t_run),
    "t_cleanup": ("T_CLEANUP", lambda job, view: job.t_cleanup),
    "t_inactive": ("T_INACTIVE", lambda job, view: job.t_inactive),
    "runtime": ("RUNTIME", lambda job, view: job.runtime(view.now)),
    "expiration": ("EXPIRATION", lambda job, view: job.expiration),
    "t_remaining": ("T_REMAINING", remaining),
    "duration": ("DURATION", lambda job, view: job.duration),
    "contextual_time": ("TIME", shown_time),
    "contextual_info": ("INFO", info),
    "info": ("INFO", info),
    "dependencies": ("DEPENDENCIES", lambda job, view: ",".join(job.waiting)),
    "annotations": ("ANNOTATIONS", lambda job, view: job.annotations or ""),
    "inactive_reason": ("INACTIVE-REASON", lambda job, view: inactive_reason(job)),
    "reason": ("REASON", reason),
    "cause": ("CAUSE", lambda job, view: cause(job)),
}


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
        "reason",
    ):  # fmt: skip
        value = FIELDS[name][1](job, view)
        if (
            value != ""
            and not (name.startswith("t_") and not value)
            and not (name == "expiration" and not value)
        ):
            document[name] = value
    if job.state & PENDING:
        document["dependencies"] = list(job.waiting)
    document["exception"] = {"occurred": bool(job.exceptions)}
    if job.exceptions:
        kind, severity, note = min(job.exceptions, key=lambda one: one[1])
        if job.exception is not None:
            kind, severity, note = job.exception[0], 0, job.exception[1]
        document["exception"].update(severity=severity, type=kind, note=note)
    document["annotations"] = job.annotations
    document["info"] = info(job, view)
    return document
