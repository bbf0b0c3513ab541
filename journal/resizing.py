"""A job whose nodes change while it runs: what is asked for, which nodes leave, which part of it each node is. Pure.

`Job.resized` is a list of plain values: [growth, leaving, parts, next, left]. growth: [nodes wanted more, version of the request,
whether at once or not at all], None if nothing is. leaving: rank -> [until, force, jobs, forced] of nodes that are asked back: a
child ends what runs there at `until` at the latest, in the way of `jobs`; at `force` its parent has the tree ended there. parts:
rank -> [index of the node in the job, version that ordered its tasks]; no index is given twice in an attempt: it is the node's
rank in a child, and stays it; behind these, where a script ran on the node alone, what `fold_node_scripts` says. next: the index
to come. left: rank -> when the tasks began there (0.0: never) of nodes that have left this attempt; a list with the times of such
scripts behind it, where there were any. One may come again, under the same name: a late word about the first time is told by that.

A job may outlive its nodes but for those that are critical (`critical-ranks`, Flux's word, counts nodes of the job from 0): of an
instance only its first one, which leads, of any other job all of them, unless its shell option says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from .ids import f58
from .idset import mask_of
from .job import RUN, SCHED, Job
from .node import Node
from .scripts import LETTERS, PROLOG

CRITICAL = "critical-ranks"  # the shell option
SHRINK = "shrink"  # why tasks on a leaving node are ended; begins the cause that its launcher gives
_GROWTH, _LEAVING, _PARTS, _NEXT, _LEFT = range(5)


class Growth(NamedTuple):
    """nodes: wanted more. version: of the request, its place in line. at_once: it is refused if it has to wait."""

    nodes: int
    version: int
    at_once: bool


class Leaving(NamedTuple):
    """Of a node that is asked back. until, force: Unix seconds. jobs: one of `WAYS`. forced: its tree is being ended."""

    until: float
    force: float
    jobs: str
    forced: bool


def first_parts(job: Job) -> list[Any]:
    """The record of a job that has not been resized before."""
    claims = job.claims
    return [None, {}, {claim.rank: [index, job.attempt] for index, claim in enumerate(claims)}, len(claims), {}]


def growth_of(job: Job) -> Growth | None:
    """What it asks for beside what it has; None if nothing, or it is ending."""
    if job.resized is None or job.resized[_GROWTH] is None or job.state != RUN:
        return None
    return Growth(*job.resized[_GROWTH])


def stands_in_line(job: Job) -> bool:
    """Whether a plan looks at it: it is pending and nothing holds it back, or it runs and waits for more nodes."""
    return (job.state == SCHED and job.priority > 0 and job.granted is None) or growth_of(job) is not None


def place_in_line(job: Job) -> tuple[int, int]:
    """Sort key: the order in which a queue's jobs are planned. What a running job asks for stands there like a job that was
    submitted when it asked."""
    growth = growth_of(job)
    return (-job.priority, job.order) if growth is None else (-max(1, job.priority), growth.version << 24)


def leaving_of(job: Job) -> dict[int, Leaving]:
    """The nodes that are asked back."""
    return {} if job.resized is None else {rank: Leaving(*row) for rank, row in job.resized[_LEAVING].items()}


def index_of(job: Job, rank: int) -> int:
    """Which node of the job it is: in a child its rank."""
    return int(job.resized[_PARTS][rank][0]) if job.resized is not None else job.ranks.index(rank)


def indices_of(job: Job) -> dict[int, int]:
    """The same of all nodes that it has, by rank."""
    if job.resized is None:
        return {claim.rank: index for index, claim in enumerate(job.claims)}
    return {claim.rank: int(job.resized[_PARTS][claim.rank][0]) for claim in job.claims}


def next_index(job: Job) -> int:
    """What the next node that it gets will be."""
    return int(job.resized[_NEXT]) if job.resized is not None else len(job.claims)


def ordered_at(job: Job, rank: int, tasks: int) -> int:
    """The version that ordered its tasks on a node. tasks: the one that ordered the job's (`derive_scripts.tasks_ordered`)."""
    if not tasks or job.resized is None or rank not in job.resized[_PARTS]:
        return tasks
    if script_on(job, rank) == PROLOG:
        return 0
    return max(tasks, int(job.resized[_PARTS][rank][1]))


def ranks_left(job: Job) -> list[int]:
    """The ranks that have left this attempt."""
    return list(job.resized[_LEFT]) if job.resized is not None else []


def is_stale(job: Job, rank: int, t_start: float, node: Node | None) -> bool:
    """Whether a word about tasks on a node is about ones that it has given back, or has had on a branch alone that is lost."""
    if not job.holds:
        return False
    if job.resized is None:
        return node is not None and job.id not in node.jobs
    return rank not in job.resized[_PARTS] or (bool(t_start) and t_start in times_left(job, rank))


def times_left(job: Job, rank: int) -> list[float]:
    """When what a node ran began that has left this attempt, and may have come again."""
    left = job.resized[_LEFT].get(rank) if job.resized is not None else None
    return left if isinstance(left, list) else [] if left is None else [left]


def script_on(job: Job, rank: int) -> str:
    """The kind of the script of a node alone whose end is not answered yet, "" if there is none."""
    part: list[Any] = job.resized[_PARTS].get(rank, []) if job.resized is not None else []
    return str(part[2]) if len(part) > 2 else ""


def runs_on(job: Job, rank: int) -> str:
    """The same, "" if it is known to be over."""
    kind = script_on(job, rank)
    return kind if kind and not job.resized[_PARTS][rank][3] else ""  # type: ignore[index]


def script_ordered_at(job: Job, rank: int) -> int:
    """The version that ordered it."""
    return int(job.resized[_PARTS][rank][5]) if job.resized is not None else 0


def scripted(job: Job) -> list[int]:
    """The nodes that have one."""
    return [rank for rank in job.resized[_PARTS] if script_on(job, rank)] if job.resized is not None else []


def looked_after(job: Job) -> bool:
    """Whether an epilog or housekeeping goes on on nodes that it is to give back: it is not over before these are."""
    return any(script_on(job, rank) != PROLOG for rank in scripted(job))


def name_on(job: Job, rank: int) -> str:
    """The name of what runs on a node before it is over there: the attempt's id, or that of the prolog there."""
    return job.attempt_id + (LETTERS[PROLOG] if script_on(job, rank) == PROLOG else "")


def part_of(job: Job, rank: int) -> int | None:
    """What tells the scripts on a node that came while the job ran from those of a time before; None of one that it began with."""
    part = job.resized[_PARTS].get(rank) if job.resized is not None else None
    return int(part[0]) if part is not None and part[1] != job.attempt else None


def lead_of(job: Job) -> int:
    """The rank of its first node."""
    return job.claims[0].rank


def is_instance(job: Job) -> bool:
    """Whether the job is an instance: its command says so, or it has said so itself (the memo `uri`, of this attempt)."""
    told = job.memo.get("uri")
    name = f58(job.id) + (f".{job.number}" if job.number > 1 else "")
    if isinstance(told, str) and told.rpartition("/")[2] == name:
        return True
    try:
        return is_start((job.jobspec or {})["tasks"][0]["command"])
    except (LookupError, TypeError, AttributeError):
        return False


def is_start(command: Sequence[str]) -> bool:
    """Whether a command is `fluxkv start`, by whatever path."""
    return len(command) > 1 and command[0].rpartition("/")[2] == "fluxkv" and command[1] == "start"


START_FLAGS = frozenset(("--fake", "--detach", "--unsafe-server", "--stay", "--drain"))  # options that need no value


def start_option(command: Sequence[str], name: str) -> str:
    """The value that an option of `fluxkv start` has in a command, "" if it is not there, or the command is another. What stands
    behind the program is the program's."""
    found, words = "", iter(command[2:] if is_start(command) else ())
    for word in words:
        if not word.startswith("-") or word == "--":
            break
        option, joined, value = word.partition("=")
        short = not word.startswith("--")
        if option not in START_FLAGS and not joined and not (short and len(word) > 2):
            value = next(words, "")
        if option == name:
            found = value
    return found


def critical(job: Job) -> int:
    """A mask of the nodes of the job (by index) whose loss ends it, -1 for all. The first one always does."""
    system = ((job.jobspec or {}).get("attributes") or {}).get("system") or {}
    try:
        value = ((system.get("shell") or {}).get("options") or {}).get(CRITICAL)
        if value is None:
            return 1 if is_instance(job) else -1
        return -1 if value == "all" else mask_of(str(value)) | 1
    except (Rejected, AttributeError):  # its agents have refused to start it
        return -1


def spared(job: Job) -> set[int]:
    """The ranks of those of its nodes, however whose tasks end, the job goes on, or has ended well."""
    found = set(job.resized[_LEAVING]) if job.resized is not None else set[int]()
    if (mask := critical(job)) >= 0:
        found.update(rank for rank, index in indices_of(job).items() if not mask >> index & 1)
    if job.claims:
        found.discard(lead_of(job))
    return found


def gone(job: Job) -> list[int]:
    """Ranks of a running job that it gives back now: its tree is over there, and the job goes on without them."""
    ranks = job.ranks
    if len(ranks) < 2 or ranks[0] in job.over or job.timed_out:
        return []
    over = [rank for rank in ranks[1:] if rank in job.over]
    if not over:
        return []
    leaving = leaving_of(job)
    lost = spared(job) if any(job.over[rank][0] for rank in over) else set[int]()
    return [rank for rank in over if rank in leaving or (job.over[rank][0] and rank in lost)]


def to_force(job: Job, now: float) -> list[int]:
    """Ranks whose time is up, and whose tree is not being ended yet."""
    return [
        rank for rank, one in leaving_of(job).items() if not one.forced and one.force <= now and rank not in job.over
    ]  # fmt: skip


def being_ended(job: Job, rank: int) -> str:
    """Why its tasks on a node are being ended, "" if they are not, or have been."""
    if not job.holds or rank in job.over:
        return ""
    leaving = leaving_of(job).get(rank)
    return job.ending or (SHRINK if leaving is not None and leaving.forced else "")


def force_at(job: Job) -> Iterable[float]:
    """When nodes of it are to be taken, Unix seconds."""
    return [one.force for rank, one in leaving_of(job).items() if not one.forced and rank not in job.over]
