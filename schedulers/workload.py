"""What a simulation is made of and what comes out of it: jobs that come, what is held at first, jobs as they begin. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from ..journal.claims import Claim
from .request import Request
from .resources import Node


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


class Label(NamedTuple):
    """How people know a job."""

    id: str
    name: str = ""
    user: str = ""


@dataclass(slots=True)
class Workload:
    """Jobs and where they come from. labels: by job. recorded: as they really began, where that is known, by start.

    held: what was held when it all begins; begin: when that is. nodes: the inventory that belongs to it, () if none does.
    epoch: whether times are Unix seconds. notes: what was left out or supposed, a line each.
    """

    works: list[Work] = field(default_factory=list)
    labels: dict[int, Label] = field(default_factory=dict)
    recorded: list[Begun] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    begin: float = -inf
    nodes: tuple[Node, ...] = ()
    epoch: bool = False
    notes: list[str] = field(default_factory=list)


def cores_of(request: Request) -> int:
    """Cores that a request gets at the least."""
    flat = request.flat
    return flat.nslots * flat.cores if flat is not None else 0


def several(number: int, noun: str) -> str:
    """ "1 job", "2,000 jobs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
