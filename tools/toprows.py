"""The values that pictures of `fluxkv top` are made of: what was wished for, one line of each list, the whole. Pure.

Decides what one line says of a job or a node.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..journal.job import RUN, RUNNING, Job
from ..journal.node import Node
from ..journal.summary import tasks_of
from . import jobview
from .jobview import View
from .reading import user_name

SHORT_S, LONG_S = 5, 60  # windows of the throughput, in seconds
BAD = ("drained", "draining", "offline", "down")
PAGES = ("jobs", "nodes", "queues")


class Wishes(NamedTuple):
    """What whoever looks has chosen. queue, match: "" for all. cursor: the line that is marked; marked: what stands there, which
    the cursor follows (0: whatever is there). offset, limit: the first line shown, and how many. serial: tells one wish from the
    next."""

    page: str = "jobs"
    sort: str = "default"
    reverse: bool = False
    queue: str = ""
    match: str = ""
    cursor: int = 0
    marked: int = 0
    offset: int = 0
    limit: int = 20
    serial: int = 0

    def same_list(self, other: Wishes) -> bool:
        """Both choose the same lines in the same order."""
        return self[:5] == other[:5]


class JobRow(NamedTuple):
    """One job. time: seconds it has run, or 0.0. left: seconds until its limit, None without one (of a pending one: its limit).
    inside: the URI by which it says it is an instance that can be entered, "" if it is none; attempt: which one it is in."""

    id: int
    queue: str
    user: str
    state: str
    nnodes: int
    ntasks: int
    ncores: int
    time: float
    left: float | None
    name: str
    info: str
    pending: bool
    inside: str
    attempt: int


class NodeRow(NamedTuple):
    """One node; reason: why it is drained or offline."""

    rank: int
    host: str
    state: str
    cores: tuple[int, int]
    gpus: tuple[int, int]
    jobs: int
    reason: str


class QueueRow(NamedTuple):
    """One queue. state: "started", or what else it is, with the reason."""

    name: str
    state: str
    pending: int
    running: int
    done: int
    failed: int


class Picture(NamedTuple):
    """All that one refresh shows. cores, gpus, memory_mb: (used, there); nodes: state -> number. lost: idle cores of nodes that may
    not be used. rates: jobs that ended a second, in the last `SHORT_S` and `LONG_S`. bad: the first few nodes that may not be
    used. rows: what the page lists from line `offset` on, of `total`."""

    version: int
    now: float
    started: float
    stopped: bool
    nodes: dict[str, int]
    cores: tuple[int, int]
    gpus: tuple[int, int]
    memory_mb: tuple[int, int]
    lost: int
    pending: int
    running: int
    ended: dict[str, int]
    rates: tuple[float, float]
    bad: list[NodeRow]
    queues: list[QueueRow]
    rows: list[Any]
    total: int
    wishes: Wishes


def tally_of(node: Node) -> tuple[Any, ...]:
    """(state, cores, used, gpus, used, memory, used, idle cores that may not be used)."""
    cores, used = node.cores.bit_count(), node.used_cores.bit_count()
    return (state_of(node), cores, used, node.gpus.bit_count(), node.used_gpus.bit_count(), node.memory_mb, node.used_memory_mb,
            0 if node.usable else cores - used)  # fmt: skip


def state_of(node: Node) -> str:
    """One word, see `Node.state`; "down" for one that the graph says is."""
    return "down" if node.shut and node.online and node.drain is None else node.state


def node_row(node: Node) -> NodeRow:
    """A node's line."""
    why = [str(node.drain[1] or "")] if node.drain is not None else []
    if not node.online:
        why.append(("offline: " if why else "") + (str(node.down[1]) if node.down is not None else "its agent has not spoken"))
    if node.shut:
        why.append("set down in the graph")
    return NodeRow(
        node.rank, node.host, state_of(node), (node.used_cores.bit_count(), node.cores.bit_count()),
        (node.used_gpus.bit_count(), node.gpus.bit_count()), len(node.jobs), jobview.one_line("; ".join(filter(None, why))),
    )  # fmt: skip


def job_row(job: Job, view: View) -> JobRow:
    """An active job's line."""
    pending = not job.state & RUNNING
    left = (job.duration or None) if pending else None
    if job.state == RUN and job.expiration:
        left = jobview.remaining(job, view)
    uri = job.memo.get("uri") if job.state == RUN else None
    return JobRow(
        job.id, job.queue, user_name(job.userid), jobview.status_abbrev(job), job.nnodes or len(job.claims), tasks_of(job),
        job.ncores, job.runtime(view.now), left, job.name, jobview.info(job, view), pending,
        uri if isinstance(uri, str) else "", job.number,
    )  # fmt: skip


def mark_of(row: Any) -> int:
    """By what the cursor follows a line; a rank is one more, so that none is 0."""
    return row.id if isinstance(row, JobRow) else row.rank + 1 if isinstance(row, NodeRow) else 0


def reasoned(word: str, reason: str) -> str:
    """"stopped: maintenance"."""
    return f"{word}: {jobview.one_line(reason)}" if reason else word
