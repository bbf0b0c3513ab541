"""What a simulation is made of and what comes out of it: jobs that come, what is held at first, jobs as they begin. Values only."""

from __future__ import annotations

from typing import NamedTuple

from ..journal.claims import Claim
from .request import Request


class After(NamedTuple):
    """A job that another waits for: its end, or with `start` its start, and `delay_s` more."""

    job: int
    start: bool = False
    delay_s: float = 0.0


class Work(NamedTuple):
    """One job of a workload. Times are seconds, of any epoch.

    run_s: how long it holds what it is given. limit_s: how long it might, as far as a policy knows; 0: unlimited.
    priority: above 0, higher first; order: breaks ties. queue: each is a line of its own.
    after: it waits for one `After` of each of these groups; jobs that are not in the workload are not waited for.
    """

    job: int
    submit: float
    run_s: float
    request: Request
    limit_s: float = 0.0
    priority: int = 16
    order: int = 0
    queue: str = ""
    after: tuple[tuple[After, ...], ...] = ()


class Held(NamedTuple):
    """What somebody holds from the beginning: until `end`, as far as a policy knows until `expiration` (0: for ever)."""

    job: int
    end: float
    expiration: float
    claims: tuple[Claim, ...]


class Begun(NamedTuple):
    """A job has begun. ready: when nothing but resources was missing. backfilled: somebody before it in its queue still waits."""

    job: int
    ready: float
    start: float
    end: float
    claims: tuple[Claim, ...]
    backfilled: bool
