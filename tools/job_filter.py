"""Which jobs a listing command shows, in which order: the filter options of `jobs` and `pgrep`, and the search they ask for.

Order as in Flux: pending jobs as they stand in line, then running ones, the latest first, then inactive ones of any age,
the latest first. Decides what is read: nothing of the past that the limit does not ask for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..kvs.errors import Rejected
from .reading import user_id

if TYPE_CHECKING:
    from ..journal.columns import Sieve
    from ..journal.job import Job
    from ..journal.log import Journal
    from .jobview import View

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_COUNT = 1000  # Flux's

_FILTERS = (
    (("-A", "all_users"), {"is_flag": True, "help": "Jobs of all users."}),
    (("-u", "--user"), {"metavar": "USER", "help": "Jobs of this user, by name or number; or all."}),
    (("-f", "--filter", "states"), {"metavar": "STATE,...", "help": "Only jobs in these states or with these results."}),
    (("-q", "--queue"), {"metavar": "QUEUE,...", "help": "Only jobs of these queues."}),
)  # fmt: skip


def filter_options(command: F) -> F:
    """Adds the filters that all listing commands have."""
    for names, settings in reversed(_FILTERS):
        command = click.option(*names, **settings)(command)
    return command


class JobFilter:
    """What was asked for. Build it, narrow it down, then `find`."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.mask = 0  # of states
        self.results = 0  # inactive jobs with these results, whatever the mask says
        self.since = 0.0
        self.tests: list[Callable[[Job], bool]] = []
        self.userid: int | None = None

    # -- narrowing down

    def states(self, text: str | None, *, everything: bool = False) -> JobFilter:
        """States and results by their names; by default the active ones, or all."""
        from ..journal.job import ACTIVE, INACTIVE, NEW

        if text:
            self.mask, self.results = parse_states(text)
        else:
            self.mask = ACTIVE | NEW | (INACTIVE if everything else 0)
        return self

    def users(self, user: str | None, *, everyone: bool = False) -> JobFilter:
        """One user's jobs ("all": everyone's), by default one's own."""
        if not everyone and user != "all":
            wanted = self.userid = user_id(user) if user else os.getuid()
            self.tests.append(lambda job: job.userid == wanted)
        return self

    def queues(self, text: str | None) -> JobFilter:
        if text:
            names = set(text.split(","))
            self.tests.append(lambda job: job.queue in names)
        return self

    def active_since(self, when: str | None) -> JobFilter:
        """Only jobs that are active, or ended after a moment."""
        if when:
            from ..journal.job import INACTIVE

            self.since = since = self._moment("--since", when)
            self.tests.append(lambda job: job.state != INACTIVE or job.t_inactive > since)
        return self

    def ended_by(self, when: str | None) -> JobFilter:
        """Only jobs that had ended at a moment."""
        if when:
            from ..journal.job import INACTIVE

            until = self._moment("--until", when)
            if until < self.since:
                raise Rejected(f"--until {when} is before --since", code="bad-moment", hint="such as --since -2d --until -1d")
            self.tests.append(lambda job: job.state == INACTIVE and job.t_inactive <= until)
        return self

    def _moment(self, option: str, when: str) -> float:
        from .target import parse_moment

        moment = parse_moment(when, self.view.now)
        if moment.time is None:
            raise Rejected(f"{option} takes a time, not a version", code="bad-moment", hint="such as -1h or 10:30")
        if moment.time > self.view.now:
            raise Rejected(f"{option} {when} is in the future", code="bad-moment", hint="such as -1h or 10:30")
        return moment.time

    def on_nodes(self, targets: str | None) -> JobFilter:
        """Only jobs that hold or held something on these hosts or ranks."""
        if targets:
            self.constraint({"ranks" if set(targets) <= set("0123456789,-[]") else "hostlist": [targets]})
        return self

    def constraint(self, constraint: Any) -> JobFilter:
        """Only jobs that match (RFC 43)."""
        from ..journal.job_constraint import compile

        self.tests.append(compile(constraint, self.view.hosts, user_id))
        return self

    def constraint_text(self, text: str | None) -> JobFilter:
        """A constraint as JSON, or as a query (RFC 35)."""
        if not text:
            return self
        from ..journal.job_constraint import parse_job_query

        if not text.lstrip().startswith("{"):
            return self.constraint(parse_job_query(text))
        import json

        try:
            return self.constraint(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise Rejected(
                f"bad job constraint: not JSON: {error}", code="bad-constraint", hint='such as {"name": ["sim"]}'
            ) from None

    # -- finding

    def keep(self, job: Job) -> bool:
        """Whether a job passes all tests but that of its state."""
        return all(test(job) for test in self.tests)

    def wants(self, job: Job) -> bool:
        """Whether a job is among those asked for."""
        return bool(job.state & self.mask or (self.results and (job.result or 0) & self.results)) and self.keep(job)

    def find(self, journal: Journal, count: int) -> list[Job]:
        """The first `count` (0: all) of the jobs asked for."""
        from ..journal.job import INACTIVE

        state = self.view.state
        found = [job for job in in_order(state.active()) if self.wants(job)]
        if count and len(found) >= count:
            return found[:count]
        if self.mask & INACTIVE or self.results:
            left = count and count - len(found)
            found += journal.newest(state, left, self.wants, self.since, self._sieve())
        return found

    def _sieve(self) -> Sieve | None:
        """What lets all inactive jobs that are asked for through, and few others."""
        from ..journal.columns import Sieve
        from ..journal.job import INACTIVE, result_of

        user = self.userid
        results = 0 if self.mask & INACTIVE else self.results  # 0: any
        if not results and user is None:
            return None

        def test(userid: int, status: int | None, started: float, exception: list[Any] | None) -> bool:
            return (user is None or userid == user) and (
                not results or bool(result_of(status, bool(started), exception) & results)
            )

        return Sieve(("userid", "status", "t_run", "exception"), test)


def in_order(active: Iterable[Job]) -> list[Job]:
    """Active jobs: pending as they stand in line, then running, the latest first."""
    from ..journal.job import NEW, PENDING
    from ..journal.resizing import place_in_line

    pending: list[Job] = []
    running: list[Job] = []
    for job in active:
        (pending if job.state & (PENDING | NEW) else running).append(job)
    pending.sort(key=place_in_line)
    running.sort(key=lambda job: (-(job.t_run or job.t_alloc), -job.order))
    return pending + running


def parse_states(text: str) -> tuple[int, int]:
    """(mask of states, mask of results) that a list such as "pending,failed" names. Raises `Rejected`."""
    from ..journal.job_constraint import RESULTS, STATES, result_mask, state_mask

    mask = results = 0
    for word in text.split(","):
        name = word.strip().lower()
        state, result = state_mask(name), result_mask(name)
        if state is None and result is None:
            raise Rejected(
                f"{word!r} is no state and no result", code="bad-state", hint=f"there are {', '.join([*STATES, *RESULTS])}",
            )
        mask |= state or 0
        results |= result or 0
    return mask, results
