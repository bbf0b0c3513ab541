"""Changing jobs from outside, one or many: decides again as long as premises move, asks jobs back that are placed ahead first.

Each job stands for itself: what stands in the way of one is told, and the others are changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..journal import decide_update
from ..journal.ids import f58
from ..kvs.errors import Conflict, FluxkvError, Rejected, Unavailable
from ..kvs.port import Appended, Conflicted

if TYPE_CHECKING:
    from ..journal.decide import Decision
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.state import State

CHUNK = 500  # jobs in one commit
TRIES = 50
NODE_S = 10.0  # how long a node is waited for that has a job ahead


class Outcome(NamedTuple):
    """changed: jobs that an event was written about. refused: what stands in the way of the others; those in neither were
    as asked already."""

    changed: list[int]
    refused: dict[int, FluxkvError]


def change_jobs(
    journal: Journal,
    ids: Iterable[int],
    decide: Callable[[State, Job, float], Decision],
    *,
    from_node: bool = False,
    state: State | None = None,
) -> Outcome:
    """Decide about each job and append. from_node: a job that is placed ahead is asked back, and its node heard, before.

    Raises `Conflict` when others keep changing the same jobs.
    """
    changer = _Changer(journal, decide, from_node, state if state is not None else journal.look())
    wanted = list(dict.fromkeys(ids))
    for at in range(0, len(wanted), CHUNK):
        changer.change(wanted[at : at + CHUNK])
    return Outcome(changer.changed, changer.refused)


class _Changer:
    def __init__(
        self, journal: Journal, decide: Callable[[State, Job, float], Decision], from_node: bool, state: State
    ) -> None:
        self.journal, self.decide, self.from_node, self.state = journal, decide, from_node, state
        self.changed: list[int] = []
        self.refused: dict[int, FluxkvError] = {}

    def change(self, ids: Sequence[int]) -> None:
        left, tries = list(ids), 0
        deadline = time.monotonic() + NODE_S
        while left:
            decisions, settled, ahead = self._decide(left)
            answer = self._append([decision for _, decision in decisions])
            if isinstance(answer, Conflicted):
                tries += 1
                if tries > TRIES:
                    raise Conflict("others keep changing the same jobs", things=answer.things, hint="try again")
                lost = {int(thing[4:]) for thing in answer.things if thing.startswith("job/")}.intersection(left)
                if lost and len(left) > 1:  # those in a moment's motion must not keep the others from being changed
                    self.change([id for id in left if id not in lost])
                    left = [id for id in left if id in lost]
                continue
            self.changed += [id for id, _ in decisions if id in settled]
            left = ahead
            if ahead and not self._hear(ahead, deadline):
                silent = Unavailable("placed ahead on a node that does not answer", code="timeout", hint="fluxkv resource status")
                self.refused.update(dict.fromkeys(ahead, silent))
                return

    def _decide(self, ids: Sequence[int]) -> tuple[list[tuple[int, Decision]], set[int], list[int]]:
        """(decisions with events, the jobs they settle, the jobs whose nodes must be heard first)."""
        now = self.journal.store.now()
        decisions: list[tuple[int, Decision]] = []
        settled: set[int] = set()
        ahead: list[int] = []
        for id in ids:
            try:
                job = self.state.jobs.get(id) or self.journal.find_job(self.state, id)
                if self.from_node and decide_update.wait_for_node(job):
                    ahead.append(id)
                    decision = decide_update.recall(job, now)
                else:
                    decision = self.decide(self.state, job, now)
                    settled.add(id)
            except Rejected as error:
                self.refused[id] = error
                continue
            if decision.events:
                decisions.append((id, decision))
        return decisions, settled, ahead

    def _append(self, decisions: Sequence[Decision]) -> Appended | Conflicted | None:
        """None if there was nothing to append."""
        if not decisions:
            self.journal.catch_up(self.state)
            return None
        answer = self.journal.append(decide_update.merge(decisions), self.state.version)
        if not isinstance(answer, Appended | Conflicted):
            self.journal.cope(answer)
            answer = Conflicted(())
        self.journal.catch_up(self.state)
        return answer

    def _hear(self, ids: Sequence[int], deadline: float) -> bool:
        """Wait until something has come from one of these jobs' nodes; False if nothing has in time."""
        from .follow import Tail

        state = self.state
        tail = Tail(self.journal.store, state.version, f"{state.version}-{state.epoch}")
        try:
            while all(decide_update.wait_for_node(state.jobs[id]) for id in ids if id in state.jobs):
                if time.monotonic() > deadline:
                    return False
                for commit in tail.poll(1.0)[0]:
                    if commit.version == state.version + 1:
                        state.apply(commit)
        finally:
            tail.close()
        return True


class Update:
    """A change of jobs by KEY=VALUE texts, decided job by job. Raises `Rejected` for a text that is no change."""

    def __init__(self, changes: Sequence[str], userid: int) -> None:
        self.changes = [decide_update.parse_change(text) for text in changes]
        self.userid = userid
        self._pool: tuple[object, object] = (None, None)

    def __call__(self, state: State, job: Job, now: float) -> Decision:
        decision = decide_update.update(state, job, self.changes, self.userid, now)
        context, jobspec = decide_update.updated(job, self.changes)
        if set(context) != {decide_update.DURATION}:
            self._check_fit(state, job, jobspec)
        return decision

    def context(self, job: Job) -> dict[str, object]:
        """The paths and values it would get."""
        return decide_update.updated(job, self.changes)[0]

    def _check_fit(self, state: State, job: Job, jobspec: dict[str, object]) -> None:
        """Refuse what the worker would end the job for: nobody would want that of an update."""
        from ..schedulers.explain import explain
        from ..schedulers.request import compile_request
        from ..schedulers.resources import Pool
        from .plan_inputs import usable_pool
        from .shell_options import check_system

        system = jobspec["attributes"]["system"]  # type: ignore[index]
        check_system(system)
        request = compile_request(state.rules.constrained(jobspec, system.get("queue") or job.queue))
        known, pool = self._pool
        if known is not state.config_entry or not isinstance(pool, Pool):
            pool, _ = usable_pool(state)
            self._pool = (state.config_entry, pool)
        if pool.satisfiable(request) is not None:
            raise Rejected(f"job {f58(job.id)}: {explain(request, pool).text}", code="unsatisfiable")
