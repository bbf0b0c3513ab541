"""A site's scripts on single nodes of a job that runs: a prolog where one comes, epilog and housekeeping where one leaves. Pure.

They are those that run `per-rank` around each job. A node that comes is the job's from `grow` on, and its tasks are ordered
there when its prolog has gone well. One that leaves is looked after as the job's, and free when that is done. What runs on a
node stands in the record of its part (`resizing`): [index, version, kind, result, begun, ordered]. kind: of the script that was
ordered last, "" if its end has been answered. result: [wait status, time, cause, when it began], [] while it goes on. begun:
when earlier ones began, by which a late word is told. ordered: the version that ordered it. A part whose prolog is over counts
as over until its tasks are ordered: nothing of the job is there.

Part of the fold; handlers as in `fold_jobs`. What a worker owes: `derive_node_scripts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .fold_resize import later_nodes
from .idset import ids_of_mask, mask_of
from .job import RUN, Job
from .quarantine import Impossible
from .resizing import first_parts, script_on, times_left
from .scripts import LETTERS, PROLOG
from .values import integer

if TYPE_CHECKING:
    from .state import State

Context = dict[str, Any]
START, FINISH = "node-script-start", "node-script-finish"


def start(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    """A script is ordered on these nodes."""
    kind = context["kind"]
    if kind not in LETTERS:
        raise ValueError("no script")
    ranks = later_nodes(job, context["ranks"])
    growth, leaving, parts, *rest = job.resized or first_parts(job)
    made = dict(parts)
    for rank in ranks:
        index, ordered, *more = parts[rank]
        if script_on(job, rank):
            raise Impossible("again")
        if kind == PROLOG and (ordered != version or rank in job.over):
            raise Impossible("state", job.state)
        if kind != PROLOG and rank not in job.over:
            raise Impossible("not-over", rank)
        made[rank] = [index, ordered, kind, [], more[2] if more else [], version]
    job.resized = [growth, leaving, made, *rest]


def finish(state: State, job: Job, ts: float, context: Context, version: int) -> None:
    """Their ends are answered. launch: the job's tasks are ordered there."""
    kind, ranks, launch = context["kind"], ids_of_mask(mask_of(context["ranks"])), context.get("launch", False)
    integer(context["status"])
    if launch.__class__ is not bool or not ranks:
        raise ValueError("no nodes")
    if job.resized is None or not job.holds or any(script_on(job, rank) != kind for rank in ranks):
        raise Impossible("holds-nothing")
    growth, leaving, parts, *rest = job.resized
    running = [rank for rank in ranks if not parts[rank][3]]
    if running:
        raise Impossible("not-over", min(running))
    if launch and (kind != PROLOG or job.state != RUN):
        raise Impossible("state", job.state)
    made = dict(parts)
    for rank in ranks:
        index, ordered, _, result, begun, _ = parts[rank]
        made[rank] = [index, version if launch else ordered, "", [], [*begun, result[3]], 0]
        if launch:
            job.over = {other: row for other, row in job.over.items() if other != rank}
    job.resized = [growth, leaving, made, *rest]


def result(job: Job, attempt: int, kind: str, rank: int, row: list[Any]) -> bool:
    """How a script ended on a node, [wait status, time, cause, when it began]; False for late words and other scripts."""
    if job.resized is None or job.attempt != attempt or script_on(job, rank) != kind:
        return False
    growth, leaving, parts, *rest = job.resized
    index, ordered, _, known, begun, version = parts[rank]
    if known or (row[3] and (row[3] in begun or row[3] in times_left(job, rank))):
        return False
    job.resized = [growth, leaving, {**parts, rank: [index, ordered, kind, row, begun, version]}, *rest]
    if kind == PROLOG:
        job.over = {**job.over, rank: [0, row[1], ""]}
    return True
