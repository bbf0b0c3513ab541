"""More nodes for a job that runs, or fewer: what a person may ask. Pure; refuses with a reason and a hint.

What is asked for is a number of nodes: those the job has and that do not leave, and those that it waits for. Asking for more is
noted (`resize`), and planned like a request by its queue's policy; asking for fewer takes back what it waits for first, and then
nodes, by a `shrink` event. The first node of a job, on which a child's server and worker are, never leaves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from .decide import Decision
from .event_check import WAYS
from .ids import f58
from .idset import format_ids
from .job import INACTIVE, NEW, PENDING, RUN, Job
from .resizing import growth_of, index_of, is_instance, leaving_of, script_on
from .scripts import PROLOG
from .state import State

FORCE_S = 15.0  # what a child has beyond its grace to end jobs, and to say so, before its tree on the node is ended
_ASKED = re.compile(r"([+=-]?)([0-9]{1,7})[Nn]")


class Resize(NamedTuple):
    """sign: "+", "-" or "=". nodes: how many."""

    sign: str
    nodes: int


class Terms(NamedTuple):
    """On what terms nodes leave. jobs: one of `WAYS`. ranks: these, () for whichever. busy: indices of nodes (in the job) that go
    last."""

    grace_s: float = 60.0
    jobs: str = "finish"
    ranks: Sequence[int] = ()
    busy: Collection[int] = ()
    note: str = ""


def parse_resize(text: str) -> Resize:
    """+2N, -1N, =4N (4N is =4N). Raises `Rejected` (code bad-resize)."""
    found = _ASKED.fullmatch(text.strip())
    if found is None:
        hint = "write +2N, -1N or =4N"
        if re.search(r"\dc$", text.strip(), re.IGNORECASE):
            hint = "a job grows by whole nodes of the kind it has; cores are for another beside it: fluxkv alloc -n4"
        raise Rejected(f"{text[:20]!r} is no change of a job's nodes", code="bad-resize", hint=hint)
    sign, nodes = found[1] or "=", int(found[2])
    if not nodes:
        raise Rejected(f"{text!r} changes nothing, or leaves nothing", code="bad-resize", hint="write +2N, -1N or =4N")
    return Resize(sign, nodes)


def staying(job: Job) -> list[int]:
    """The ranks of a running job that do not leave, the first one first."""
    leaving = leaving_of(job)
    return [
        rank for rank in job.ranks
        if rank not in leaving and not (leaving and rank in job.over) and script_on(job, rank) in ("", PROLOG)
    ]  # fmt: skip


def wanted(job: Job, asked: Resize) -> int:
    """How many nodes it is to have."""
    growth = growth_of(job)
    now = len(staying(job)) + (growth.nodes if growth is not None else 0)
    return asked.nodes if asked.sign == "=" else now + asked.nodes if asked.sign == "+" else now - asked.nodes


def resize(state: State, job: Job, asked: Resize, terms: Terms, userid: int, now: float, *, at_once: bool = False) -> Decision:
    """The events; none where it is as asked already. at_once: more nodes now, or not at all. Raises `Rejected`.

    Whether more can be had at all on this inventory, within the queue's limits, whoever asks looks (`instances.growing.check`).
    """
    _must_run(job)
    here, growth = staying(job), growth_of(job)
    target, waits = wanted(job, asked), growth.nodes if growth is not None else 0
    if terms.ranks:
        _must_leave(job, here, asked, terms.ranks)
    if target < 1:
        raise _refuse(job, f"has {several(len(here))}: its first one stays", "lead", "fluxkv cancel ends it with all of them")
    thing, events = f"job/{job.id}", list[list[Any]]()
    if target > len(here) and not terms.ranks:
        if target - len(here) != waits or (growth is not None and growth.at_once != at_once):
            if not is_instance(job):
                hint = "what runs inside an instance (fluxkv batch, fluxkv alloc) uses the nodes that come"
                raise _refuse(job, "is no instance: its tasks would not know of more nodes", "not-instance", hint)
            context: dict[str, Any] = {"nodes": target - len(here), "userid": userid}
            events.append(["resize", job.id, now, {**context, "at_once": True} if at_once else context])
    else:
        if waits:
            events.append(["resize", job.id, now, {"nodes": 0, "userid": userid}])
        leave = list(terms.ranks) or _choose(job, here, len(here) - target, terms.busy)
        if leave:
            events.append(shrink(job, leave, terms, userid, now))
    return Decision(events, since=[thing], bumps=[thing]) if events else Decision([])


def shrink(job: Job, ranks: Iterable[int], terms: Terms, userid: int | None, now: float) -> list[Any]:
    """The event that asks these nodes back. Raises `Rejected`."""
    if terms.jobs not in WAYS:
        raise Rejected(f"jobs={terms.jobs!r}: there are {', '.join(WAYS)}", code="bad-resize")
    asked = is_instance(job)  # nobody else knows what to do about it: its tasks there are ended
    until = now + (terms.grace_s if asked else 0.0)
    context: dict[str, Any] = {
        "ranks": format_ids(ranks), "until": until, "force": until + (FORCE_S if asked else 0.0), "jobs": terms.jobs,
    }  # fmt: skip
    context.update((key, value) for key, value in (("note", terms.note), ("userid", userid)) if value or value == 0)
    return ["shrink", job.id, now, context]


def _choose(job: Job, here: Sequence[int], count: int, busy: Collection[int]) -> list[int]:
    """The last nodes, those in which nothing runs before others; never the first one."""
    last = sorted(here[1:], key=lambda rank: (index_of(job, rank) not in busy, index_of(job, rank)), reverse=True)
    return sorted(last[:count])


def _must_run(job: Job) -> None:
    if job.state & (PENDING | NEW):
        raise _refuse(job, "is pending: it has no nodes yet", "not-running", "cancel it, and submit it with another -N")
    if job.state != RUN or not job.holds or job.timed_out or job.status is not None:
        raise _refuse(job, "is inactive" if job.state == INACTIVE else "is ending", "not-running")


def _must_leave(job: Job, here: Sequence[int], asked: Resize, ranks: Sequence[int]) -> None:
    """Nodes that were named must be what is asked for."""
    if asked.sign == "+":
        raise Rejected("nodes are named that are to leave: which ones come, the queue's policy says", code="bad-resize")
    count = asked.nodes if asked.sign == "-" else len(here) - asked.nodes
    if count != len(set(ranks)):
        why = f"{several(len(set(ranks)))} named, and {count} to leave"
        raise Rejected(why, code="bad-resize", hint="name as many as are to leave")
    others = [rank for rank in ranks if rank not in here]
    if others:
        raise _refuse(job, f"has no rank {others[0]}, or it leaves already", "no-such-node", f"its ranks are {format_ids(here)}")
    if here[0] in ranks:
        raise _refuse(job, f"cannot be without rank {here[0]}: it is its first node, which leads", "lead")


def several(count: int) -> str:
    """So many nodes, in words."""
    return f"{count} node{'' if count == 1 else 's'}"


def _refuse(job: Job, why: str, code: str, hint: str = "") -> Rejected:
    return Rejected(f"job {f58(job.id)}: {why}", code=code, hint=hint)
