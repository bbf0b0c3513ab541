"""What tables say about a job: Flux's field names, status words, causes and reasons in one line. Decides
wording only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..journal.duration import format_duration
from ..journal.hostlist import compress
from ..journal.ids import f58
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
    Result,
)
from ..journal.node import Queue
from ..journal.retry import REQUEUE
from ..journal.state import State
from .reading import user_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..instances.nested import Totals
    from ..instances.outlook import Outlook
    from ..journal.log import Journal


class View:
    """A state as tables look at it. now: Unix seconds, the end of what still runs. journal: where the jobspecs of
    jobs that ended are read, if a table wants them."""

    def __init__(self, state: State, now: float, journal: Journal | None = None) -> None:
        self.state = state
        self.now = now
        self._journal = journal
        self._jobspecs: dict[int, dict[str, Any]] = {}
        self.hosts = {rank: node.host for rank, node in state.nodes.items()}
        self._nodelists: dict[tuple[int, ...], str] = {}
        self._heads: dict[str, int] | None = None
        self._totals: dict[int, Totals | None] = {}
        self.listed: Sequence[Job] = ()  # those in a table, of which some may be instances
        self.budget_s: float | None = None  # for estimates; None: what `foresee` takes for a listing
        self.outlook: Outlook | None = None  # what is to come, where a table shows it (`foresight.foresee`)

    def is_instance(self, job: Job) -> bool:
        """Whether a job is an instance, or was; nobody knows where there is no journal."""
        if not job.memo or self._journal is None:
            return False
        from ..instances.nested import is_instance

        return is_instance(job, self._journal.store.namespace)

    def totals(self, job: Job) -> Totals | None:
        """Of the instance that a job is; None if it is none."""
        if job.id not in self._totals:
            from ..instances.nested import look_ahead, totals_inside

            if self._journal is not None and not self._totals:
                look_ahead(self._journal.store, self.listed)
            self._totals[job.id] = totals_inside(self._journal.store, job) if self._journal is not None else None
        return self._totals[job.id]

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

    def away(self, job: Job) -> str:
        """Which of the nodes of a job that has not ended are out of reach, and why; "" if none is."""
        if not job.holds:
            return ""
        nodes = [self.state.nodes[rank] for rank in job.ranks if rank in self.state.nodes and rank not in job.over]
        found = [f"{node.host} is offline: {node.down[1]}" for node in nodes if node.down is not None]
        return f" ({'; '.join(found[:2])}{'; ...' if len(found) > 2 else ''})" if found else ""

    def queues(self, name: str) -> list[Queue]:
        """The queue of that name and its parent, as far as they are there."""
        rules = self.state.rules.of(name)
        names = [name] if rules is None or not rules.parent else [name, rules.parent]
        return [self.state.queues[one] for one in names if one in self.state.queues]

    def jobspec(self, job: Job) -> dict[str, Any]:
        """A job's jobspec, of one that ended as it was submitted; {} if it is not to be had."""
        found = job.jobspec or self._jobspecs.get(job.id)
        if found is None and self._journal is not None and job.commits:
            for _, event in self._journal.story(job.commits[:1]):
                if event.name == "submit" and isinstance(event.subject, int):
                    self._jobspecs[event.subject] = (event.context or {}).get("jobspec") or {}
            found = self._jobspecs.get(job.id)
        return found or {}

    def line(self, queue: str) -> str:
        """The queue in whose line the jobs of a queue stand: its own, or its parent's."""
        rules = self.state.rules.of(queue)
        return rules.line if rules is not None else queue

    def head(self, queue: str) -> int:
        """The job first in a queue's line (one that runs may be, and wait for more), 0 if none is."""
        from ..journal.resizing import place_in_line, stands_in_line

        if self._heads is None:
            heads: dict[str, Job] = {}
            for job in self.state.active():
                if not stands_in_line(job):
                    continue
                line = self.line(job.queue)
                first = heads.get(line)
                if first is None or place_in_line(job) < place_in_line(first):
                    heads[line] = job
            self._heads = {name: job.id for name, job in heads.items()}
        return self._heads.get(self.line(queue), 0)


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
    again = f" ({one_line(job.requeued[3])})" if job.requeued is not None else ""
    if job.reason[0] == REQUEUE and job.requeued is not None:
        return _rests(job, view)
    told = one_line(job.reason[1]) if job.reason[0] != "limit" else ""  # what it says of a limit was true then
    if view.outlook is not None and not view.outlook.fault and job.state == SCHED:
        wait = view.outlook.wait(job)  # what was journalled was true then: meanwhile others may have come before it
        told = one_line(wait.text) if wait is not None else ""
    if told:
        return told + again
    if job.state != SCHED:
        return "no worker has taken it up yet"
    head = view.head(job.queue)
    if head == job.id:
        return "first in line"
    return f"behind {f58(head)}" if head else ""


def _rests(job: Job, view: View) -> str:
    """Why a job is tried again, and when it will be in line if it is not yet."""
    assert job.requeued is not None
    text, left = one_line(job.requeued[3]), job.requeued[2] - view.now
    if job.id in view.state.keeping:
        return f"{text}; its housekeeping goes on"
    return f"{text}; rests for {format_duration(round(left))}" if left >= 1 else text


def signal_name(number: int) -> str:
    """ "SIGTERM" for 15."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def cause(job: Job) -> str:
    """How a job that did not succeed came to its end, in one line; "" for any other."""
    if job.result == Result.COMPLETED:
        return ""
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
        if view.outlook is None:
            return reason(job, view)
        from .foresight import eta

        begins = eta(job, view)
        return "; ".join(filter(None, (f"eta:{begins}" if begins else "", reason(job, view))))
    inside = " (instance)" if view.is_instance(job) else ""
    if job.state & RUNNING or job.result == 1:
        where = view.nodelist(job) if job.exception is None or job.result == Result.COMPLETED else cause(job)
        return where + inside + (changes(job, view) if job.resized is not None else "") + view.away(job)
    return cause(job) + inside


def changes(job: Job, view: View) -> str:
    """How many nodes a job that runs waits for, and when they are expected, and how many it is to give back: " +2N eta:5m -1N"."""
    from ..journal.resizing import growth_of, leaving_of
    from .foresight import eta

    growth, leaving = growth_of(job), leaving_of(job) if job.holds else {}
    more = [f"+{growth.nodes}N"] if growth is not None else []
    more += [f"eta:{when}"] if growth is not None and (when := eta(job, view)) else []
    return "".join(f" {one}" for one in (*more, *([f"-{len(leaving)}N"] if leaving else [])))


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
