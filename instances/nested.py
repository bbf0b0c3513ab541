"""Looking from an instance into those that its jobs are, and into theirs: their journals, their totals. Reads only.

A child's namespace follows from its parent's, and `whereabouts` knows its server; so nothing is asked of any daemon, and a child
that ended answers as one that runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ..journal.ids import parse_id
from ..journal.job import ACTIVE, INACTIVE, NEW, PENDING, RUNNING, Job, Result
from ..journal.log import Journal
from ..kvs.errors import Rejected, Unavailable
from .child import child_number, child_space
from .whereabouts import ask_ahead, store_of

if TYPE_CHECKING:
    from ..journal.state import State
    from ..kvs.port import Store



def is_instance(job: Job, namespace: str) -> bool:
    """Whether a job of the instance in this namespace is, or was, an instance itself: it has said so."""
    return bool(job.memo) and bool(child_space(job, namespace))


def look_ahead(store: Store, jobs: Iterable[Job]) -> None:
    """Before the instances that these jobs are are looked into, one after the other: see `whereabouts.ask_ahead`."""
    ask_ahead(store, [namespace for job in jobs if (namespace := child_space(job, store.namespace))])


def gone(store: Store, job: Job) -> Unavailable:
    """What is said of one whose journal is gone. store: of the instance around it."""
    from .away import lost

    return lost(store, child_space(job, store.namespace))


@contextmanager
def journal_inside(store: Store, job: Job) -> Iterator[Journal | None]:
    """The journal of the instance that a job of the one at `store` is; None if it is none, or its journal is gone. Raises
    `Unavailable` where that is on a server that does not answer: one's own may."""
    namespace = child_space(job, store.namespace)
    if not namespace:
        yield None
        return
    over = job.state == INACTIVE or child_number(job, store.namespace) < job.number
    other = store_of(store, namespace, over=over)
    if other is None:
        yield None
        return
    try:
        try:
            journal = Journal(other, "cli")
        except (Rejected, Unavailable) as error:
            if error.code not in ("no-instance", "gone"):
                raise
            yield None
            return
        yield journal
    finally:
        other.close()


class Owner(NamedTuple):
    """The job that has a journal, or had it last: which attempt of it, and the entry that began that ("" for the one it was made
    for)."""

    job: int
    number: int
    entry: str = ""


def owner_of(state: State) -> Owner | None:
    """Whose the journal of a child instance is by now; None for one that is no job's."""
    found = state.instance.get("resumed")
    if found is not None:
        return Owner(int(found[1]), int(found[2]), str(found[3]))
    id, _, number = str(state.instance.get("namespace", "")).rpartition("/")[2].partition(".")
    if not id.startswith("ƒ"):
        return None
    return Owner(parse_id(id), int(number or 1))


class Totals(NamedTuple):
    """What an instance has, and what became of its jobs. failed: all that did not succeed; canceled and timeout are among them.
    busy_*: held by jobs now. lost: jobs that had not ended when the instance did."""

    pending: int = 0
    running: int = 0
    successful: int = 0
    failed: int = 0
    canceled: int = 0
    timeout: int = 0
    lost: int = 0
    nodes: int = 0
    busy_nodes: int = 0
    cores: int = 0
    busy_cores: int = 0
    gpus: int = 0
    busy_gpus: int = 0

    @property
    def inactive(self) -> int:
        return self.successful + self.failed

    @property
    def total(self) -> int:
        return self.pending + self.running + self.inactive + self.lost

    @property
    def active(self) -> int:
        return self.pending + self.running

    @property
    def progress(self) -> float:
        """The share of the jobs submitted so far that have ended, from 0 to 1; 0 without any."""
        return self.inactive / self.total if self.total else 0.0

    @property
    def utilization(self) -> float:
        """The share of the cores that is held, from 0 to 1."""
        return self.busy_cores / self.cores if self.cores else 0.0

    @property
    def gpu_utilization(self) -> float:
        return self.busy_gpus / self.gpus if self.gpus else 0.0


def totals_of(state: State, *, over: bool = False) -> Totals:
    """Of one instance alone. over: its job has ended, so what its journal calls active has been lost with it."""
    ended: Mapping[Result, int] = state.ended()
    nodes = state.nodes.values()
    active = state.count(ACTIVE | NEW)
    good = ended[Result.COMPLETED]
    return Totals(
        0 if over else state.count(PENDING | NEW), 0 if over else state.count(RUNNING), good, sum(ended.values()) - good,
        ended[Result.CANCELED], ended[Result.TIMEOUT], active if over else 0,
        len(state.nodes), 0 if over else sum(1 for node in nodes if node.busy),
        sum(node.cores.bit_count() for node in nodes), 0 if over else sum(node.used_cores.bit_count() for node in nodes),
        sum(node.gpus.bit_count() for node in nodes), 0 if over else sum(node.used_gpus.bit_count() for node in nodes),
    )  # fmt: skip


def is_owner(state: State, job: Job) -> bool:
    """Whether a job that is the instance of this state has it still, or had it last: no other has gone on with it."""
    owner = owner_of(state)
    return owner is None or owner.job == job.id


def totals_inside(store: Store, job: Job) -> Totals | None:
    """Those of the instance that a job is, None if it is none, or has a server that does not answer."""
    try:
        with journal_inside(store, job) as journal:
            if journal is None:
                return None
            state = journal.look()
            over = job.state == INACTIVE if is_owner(state, job) else bool(state.instance.get("stopped"))
            return totals_of(state, over=over)
    except Unavailable as error:
        if error.code != "server-away":
            raise
        return None


def part(totals: Totals, path: list[str]) -> Any:
    """What a field `instance.<path>` shows: stats.NAME, progress, utilization, gpu_utilization, resources.WHICH.nNODES|..."""
    if path[0] == "stats":
        return getattr(totals, path[1])
    if path[0] == "resources":
        kind = path[2].removeprefix("n")
        whole, busy = getattr(totals, kind), getattr(totals, f"busy_{kind}")
        return {"all": whole, "allocated": busy, "free": whole - busy}[path[1]]
    return getattr(totals, path[0])
