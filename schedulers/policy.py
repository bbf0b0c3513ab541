"""Queue policies: which pending job gets what, next. The values they see, the decisions they make, how one is
found.

A policy is a plug-in (entry-point group `fluxkv.policies`). It gets values and never a store, so the worst it
can do is to propose what `decide` refuses. This file holds the shapes only; `fcfs` is a policy,
`policy_contract` what each must obey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ..journal.claims import Claim
from ..journal.ids import f58
from ..kvs.errors import Rejected
from .plugins import attempt, installed
from .request import Request
from .resources import Pool

GROUP = "fluxkv.policies"


class Code(StrEnum):
    """Why a job waits: stable words, journalled. READY: it would fit now. FAULTY: a plug-in fails on it."""

    READY = "ready"
    RESOURCES = "resources"
    AHEAD = "ahead"
    HELD = "held"
    NODE_DOWN = "node-down"
    DRAINED = "drained"
    UNSATISFIABLE = "unsatisfiable"
    LIMIT = "limit"
    FAULTY = "faulty"


class Pending:
    """A job that waits for resources. priority: higher goes first; order: submission order breaks ties.

    duration_s: 0 = unset. held: not to be matched (stopped queue, urgency 0). Priority 0 always means held
    (RFC 30).
    """

    __slots__ = ("duration_s", "held", "job", "order", "priority", "request")

    def __init__(
        self,
        job: int,
        priority: int,
        order: int,
        request: Request,
        duration_s: float = 0.0,
        held: bool = False,
    ) -> None:
        self.job = job
        self.priority = priority
        self.order = order
        self.request = request
        self.duration_s = duration_s
        self.held = held

    @property
    def sort_key(self) -> tuple[int, int]:
        """Pending jobs are given to a policy in ascending order of this."""
        return (-self.priority, self.order)


class Place(NamedTuple):
    """Give the job these claims now. They are already taken from the pool the plan was made on."""

    job: int
    claims: tuple[Claim, ...]


class Wait(NamedTuple):
    """The job waits. blocking: what it waits for, a short stable word ("core", "node", "job/123"); text is
    for people.

    A wait is worth journalling again only when its code or `blocking` changes: the counts in `text` always
    do.
    """

    job: int
    code: str
    text: str
    blocking: str


class Reserve(NamedTuple):
    """The job waits, and this plan keeps these claims for it from `start` (Unix seconds) on. code, text, blocking: as in `Wait`."""

    job: int
    claims: tuple[Claim, ...]
    start: float
    code: str
    text: str
    blocking: str

    @property
    def wait(self) -> Wait:
        """Why it waits."""
        return Wait(self.job, self.code, self.text, self.blocking)


Decision = Place | Wait | Reserve


@runtime_checkable
class Policy(Protocol):
    """What a queue policy must do. See `policy_contract` for the properties it must have."""

    def plan(self, pending: Iterable[Pending], pool: Pool, now: float) -> Iterator[Decision | None]:
        """Yield decisions, best first. `pending` comes sorted by (-priority, order) and is read lazily.

        None: nothing is decided about the last one read. Yield one for each such job: other queues get their turn there, and a
        long plan is interrupted there, to go on later or to be closed. What is placed is taken from `pool` before it is yielded. A
        caller that drops a Place gives its claims back; one that stops half way has lost nothing. now: epoch seconds. Jobs no
        decision names wait as they did.
        """
        ...


def held(job: int) -> Wait:
    """The reason of a held job."""
    return Wait(job, Code.HELD, "held: its urgency is 0 or its queue is stopped", "")


def ahead_of(job: int, head: int) -> Wait:
    """The reason of a job that waits only for the one before it: derived when asked, not by each plan."""
    return Wait(job, Code.AHEAD, "waits for the job ahead of it", f"job/{head}")


def reserved_for(job: int) -> tuple[str, str, str]:
    """(code, text, blocking) of a job that would fit now, were nothing reserved for this one (0: for several)."""
    who = f58(job) if job else "jobs ahead of it"
    return Code.AHEAD, f"what is free is reserved for {who}", f"job/{job}" if job else ""


BUILT_IN = {
    "fcfs": ("fcfs", "Fcfs"),
    "easy": ("backfill", "Easy"),
    "hybrid": ("backfill", "Hybrid"),
    "conservative": ("backfill", "Conservative"),
    "throughput": ("fcfs", "Throughput"),
}


def load_policy(name: str, keywords: Mapping[str, Any] | None = None) -> Policy:
    """A policy by its entry-point name, made with these parameters ({"reservation_depth": 8}).

    Raises Rejected: code "no-such-policy" with the names there are, "bad-policy" for one that cannot be loaded or does not take
    the parameters. The built-in ones are found without reading the metadata of every installed package.
    """
    if name in BUILT_IN:
        from importlib import import_module

        module, word = BUILT_IN[name]
        make, where = getattr(import_module(f".{module}", __package__), word), word
    else:
        make, where = installed(GROUP, name, "queue policy", "policy", BUILT_IN)
    _check_keywords(name, make, keywords or {})
    made = attempt(lambda: make(**(keywords or {})), f"queue policy {name!r} ({where})", "policy")
    if not isinstance(made, Policy):
        raise Rejected(f"queue policy {name!r} ({where}) has no method `plan`", code="bad-policy")
    return made


def _check_keywords(name: str, make: Callable[..., Any], keywords: Mapping[str, Any]) -> None:
    """Refuse parameters that the policy does not take, by the names that a config has."""
    if not keywords:
        return
    from inspect import Parameter, signature

    try:
        taken = signature(make).parameters
    except (TypeError, ValueError):
        return
    if any(one.kind == Parameter.VAR_KEYWORD for one in taken.values()):
        return
    for word in keywords:
        if word not in taken:
            known = ", ".join(one.replace("_", "-") for one in taken)
            raise Rejected(
                f"queue policy {name!r} has no parameter {word.replace('_', '-')}", code="bad-policy",
                hint=f"it has {known}" if known else "it has none",
            )  # fmt: skip
