"""A census of an instance and of those inside it: which jobs there are, and totals that are summed up over the levels. Reads only.

Bounded: so many jobs of each instance, so many instances in all. Totals do not depend on which jobs are shown: of an instance
that is not among them its job says what it had come to (`final_totals`); where it does not, it is opened for what is in it, the
latest first, as long as there is room; else it counts as one job.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from ..journal.blocks import LazyJobs
from ..journal.columns import Sieve
from ..journal.job import INACTIVE, NEW, PENDING, Job, Result
from ..kvs.errors import Corrupt, Unavailable
from .child import child_space
from .final_totals import told_of
from .nested import Totals, gone, is_instance, is_owner, journal_inside, look_ahead, totals_of

if TYPE_CHECKING:
    from ..journal.log import Journal
    from ..journal.state import State

MOST_PACKED = 50_000  # of packed jobs, a tenth of a second
_SAID = Sieve(("memo",), bool)


class Branch(NamedTuple):
    """One instance. job: of the one above, that it is; None where the census began. jobs: those shown; inside: those of them that
    are instances, by id; more: whether there are more jobs than shown. over: it has ended. uncounted: how many instances in it
    that are not shown count as one job each, in its totals and in those of all above it.

    own: its own totals. totals: jobs of it and of all below it, instances among them not counted as jobs of their own; cores and
    GPUs are busy where a job that is no instance has them.
    """

    job: Job | None
    namespace: str
    now: float
    depth: int
    own: Totals
    totals: Totals
    jobs: list[Job]
    inside: dict[int, Branch]
    more: bool
    over: bool
    uncounted: int = 0

    @property
    def utilization(self) -> float:
        """The share of its cores that is busy on any level below."""
        return self.totals.busy_cores / self.own.cores if self.own.cores else 0.0


class Census:
    """wanted: masks of states and of results of the jobs to show. most_jobs: of each instance, most_instances: in all,
    most_unseen: of those that are not shown. levels: how far down, None for all. left_out: how many shown instances were not
    looked into; uncounted: how many that are not shown."""

    def __init__(
        self, wanted: tuple[int, int], most_jobs: int, levels: int | None, most_instances: int, most_unseen: int = 0
    ) -> None:
        self.mask, self.results = wanted
        self.most_jobs = most_jobs
        self.levels = levels
        self.room, self.room_unseen = most_instances, most_unseen
        self.room_packed = MOST_PACKED
        self.left_out = self.uncounted = 0

    def of(
        self, journal: Journal, state: State, now: float, job: Job | None = None, depth: int = 0, over: bool = False,
        seen: bool = True,
    ) -> Branch:  # fmt: skip
        """The instance with this journal, and what is inside. over: one around it has ended, and it with that. seen: it is
        shown."""
        over = over or (job is not None and job.state == INACTIVE)
        found = self._jobs(journal, state) if seen else []
        jobs = found[: self.most_jobs]
        own = totals_of(state, over=over)
        namespace = journal.store.namespace
        deeper = self.levels is None or depth < self.levels
        shown = [one for one in jobs if deeper and is_instance(one, namespace)]
        said, unseen = self._unseen(state, namespace, {one.id for one in jobs}) if deeper else ([], [])
        first, room = shown[: max(0, self.room)], max(0, self.room_unseen)
        self.left_out += len(shown) - len(first)
        self.uncounted += len(unseen) - len(unseen[:room])
        self.room -= len(first)
        self.room_unseen -= len(unseen[:room])
        look_ahead(journal.store, [*first, *unseen[:room]])
        inside = {one.id: branch for one in first if (branch := self._branch(journal, one, now, depth, over, seen=True))}
        others = [branch for one in unseen[:room] if (branch := self._branch(journal, one, now, depth, over, seen=False))]
        totals = summed(own, [*inside.values(), *others, *said], over=over)
        left = len(unseen) - len(unseen[:room])
        return Branch(job, namespace, now, depth, own, totals, jobs, inside, len(found) > len(jobs), over, left)

    def _branch(self, journal: Journal, one: Job, now: float, depth: int, over: bool, *, seen: bool) -> Branch | None:
        """The instance that a job is; None where there is none, or it is another job's by now."""
        try:
            with journal_inside(journal.store, one) as below:
                if below is None:
                    journal.warn(str(gone(journal.store, one)))
                    return None
                below.warn = journal.warn
                state = below.look()
                if is_owner(state, one):  # else it is shown, and counted, below the job that went on with it
                    return self.of(below, state, now, one, depth + 1, over, seen)
        except (Corrupt, Unavailable) as error:  # the others are still shown
            journal.warn(f"{child_space(one, journal.store.namespace)}: {error}")
        return None

    def _unseen(self, state: State, namespace: str, shown: set[int]) -> tuple[list[Branch], list[Job]]:
        """Instances among the live state's jobs that are not shown: what is known of them, and those of which it is not: active
        ones, then those that ended last. Jobs that a snapshot has packed are looked through up to a number, in all: there may be
        millions in an ensemble."""
        found, self.room_packed = _instances_in(state, namespace, self.room_packed)
        known = _told(found, namespace)
        said = [branch for branch in known if branch.job is not None and branch.job.id not in shown]
        passed = shown.union(branch.job.id for branch in known if branch.job is not None)
        unseen = [one for one in found if one.id not in passed]
        return said, sorted(unseen, key=lambda one: -(one.t_inactive or inf))

    def _jobs(self, journal: Journal, state: State) -> list[Job]:
        """Those to show, one more than may be: running ones as they came, then pending ones in line, then those that ended."""

        def keep(job: Job) -> bool:
            return bool(job.state & self.mask or (self.results and (job.result or 0) & self.results))

        active = [job for job in state.active() if keep(job)]
        active.sort(key=lambda job: (-job.priority, job.order) if job.state & (PENDING | NEW) else (-1 << 40, job.order))
        found = active[: self.most_jobs + 1]
        left = self.most_jobs + 1 - len(found)
        if left > 0 and (self.mask & INACTIVE or self.results):
            found += journal.newest(state, left, keep)
        return found


def summed(own: Totals, inside: Iterable[Branch], *, over: bool = False) -> Totals:
    """An instance's totals with those of the instances in it, which count by what is in them instead of as a job.

    over: it has ended, and what its journal calls active is counted as lost.
    """
    totals = own
    for branch in inside:
        job, below = branch.job, branch.totals
        assert job is not None
        ended, good, holds = job.state == INACTIVE, job.result == Result.COMPLETED, job.holds and not over
        totals = totals._replace(
            pending=totals.pending + below.pending,
            running=totals.running + below.running - (not ended and not over),
            successful=totals.successful + below.successful - (ended and good),
            failed=totals.failed + below.failed - (ended and not good),
            canceled=totals.canceled + below.canceled - (job.result == Result.CANCELED),
            timeout=totals.timeout + below.timeout - (job.result == Result.TIMEOUT),
            lost=totals.lost + below.lost - (not ended and over),
            busy_cores=totals.busy_cores + below.busy_cores - (branch.own.cores if holds else 0),
            busy_gpus=totals.busy_gpus + below.busy_gpus - (branch.own.gpus if holds else 0),
        )  # fmt: skip
    return totals


def told_inside(state: State, namespace: str) -> list[Branch]:
    """What is known of the instances that ended inside one without opening them."""
    return _told(_instances_in(state, namespace, MOST_PACKED)[0], namespace)


def _told(jobs: Sequence[Job], namespace: str) -> list[Branch]:
    """Of those of these instances whose jobs say it. Where several jobs had one after the other, it is the last one's."""
    last: dict[str, Job] = {}
    for job in sorted(jobs, key=lambda one: one.t_run):
        last[child_space(job, namespace)] = job
    found = []
    for space, job in last.items():
        if (final := told_of(job)) is not None:
            found.append(Branch(job, space, 0.0, 0, Totals(), Totals(**final._asdict()), [], {}, False, True))
    return found


def _instances_in(state: State, namespace: str, room: int) -> tuple[list[Job], int]:
    """The jobs of the live state that are instances. room: how many packed ones are looked through, and what is left of it."""
    jobs = state.jobs
    found = list(jobs.unpacked() if isinstance(jobs, LazyJobs) else jobs.values())
    for block in sorted(jobs.blocks, key=lambda one: -one.t_last) if isinstance(jobs, LazyJobs) else ():
        room -= len(block.ended)
        if room < 0:
            break
        found += block.jobs(_SAID)
    return [one for one in found if one.memo and is_instance(one, namespace)], room
