"""A journal as a workload: what real workers, agents and launchers recorded in virtual time is simulated to the same starts."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import pytest
from jobspecs import jobspec
from mini_sim import T0, Sim

from fluxkv.journal import decide
from fluxkv.journal.config import Rules
from fluxkv.journal.ids import compose
from fluxkv.journal.state import State
from fluxkv.schedulers.backfill import Conservative, Easy, Hybrid
from fluxkv.schedulers.fcfs import Fcfs
from fluxkv.schedulers.policy import Policy
from fluxkv.schedulers.recorded import ATTEMPT, Recorder
from fluxkv.schedulers.resources import Pool
from fluxkv.schedulers.whatif import simulate
from fluxkv.schedulers.workload import After, Workload

SHAPES = ((1, 0, 1), (2, 0, 1), (1, 0, 3), (2, 2, 1), (4, 1, 1), (4, 3, 1), (1, 0, 9), (4, 4, 1))


class Recording(Sim):
    """Without faults, and everybody steps until nothing more comes of it before the clock moves."""

    def __init__(self, seed: int, policy: Policy) -> None:
        super().__init__(seed, actions=0)
        self.calm = self.eager = True
        self.workers[0].reactor.planner.policies.own = policy  # type: ignore[union-attr]
        self.orders = random.Random(seed)
        self._settle_down()

    def _settle_down(self) -> None:
        quiet, version = 0, self.store.meta().version
        while quiet < 3:
            for actor in [*self.workers, *self.agents]:
                self._step(actor)
            now = self.store.meta().version
            quiet, version = (quiet + 1 if now == version else 0), now

    def play(self, jobs: list[tuple[float, float, float, int, tuple[int, int, int], list[dict[str, Any]]]]) -> None:
        """jobs: (when, run, limit, urgency, shape, dependencies), by when."""
        left = list(jobs)
        while left or self.view.count(127 - 64):
            while left and T0 + left[0][0] <= self.now:
                self._order(*left.pop(0)[1:])
            self._settle_down()
            self.cli.catch_up(self.view)
            before = self.now
            self._tick()
            if left and before < T0 + left[0][0] < self.now:
                self.now = T0 + left[0][0]

    def _order(self, run: float, limit: float, urgency: int, shape: tuple[int, int, int], waits: list[dict[str, Any]]) -> None:
        id = compose(1 + len(self.ids), 0, 0)
        self.ids.append(id)
        self.runs[id] = (run, 0)
        cores, nodes, slots = shape
        spec = jobspec(cores, nodes, slots, limit, dependencies=waits)
        self._say(lambda state: decide.submit([(id, spec)], "", urgency, 1, 0, self.now))


def recorded(sim: Recording, since: float = -1.0) -> Workload:
    recorder = Recorder()
    for commit in sim.cli.commits():
        recorder.take(commit)
    return recorder.workload(Rules(), since)


def orders(rng: random.Random) -> list[Any]:
    now, jobs = 0.0, []
    for number in range(40):
        now += rng.choice((0.0, 0.0, 0.5, 3.0, 9.0)) * (1 + rng.random())  # what happens at once may come in either order
        limit = rng.choice((5.0, 10.0, 20.0, 40.0))
        run = limit * rng.uniform(0.2, 0.9)
        waits = []
        if number > 3 and rng.random() < 0.2:
            waits = [{"scheme": rng.choice(("afterany", "after")), "value": str(compose(rng.randrange(1, number), 0, 0))}]
        jobs.append((now, run, limit, rng.choice((16, 16, 16, 20)), rng.choice(SHAPES), waits))
    return jobs


@pytest.mark.parametrize(
    ("policy", "seed"),
    [*product((Fcfs(), Easy(), Hybrid(2), Conservative()), (1, 2)), (Conservative(), 18), (Conservative(), 27)],
    ids=lambda one: type(one).__name__ if not isinstance(one, int) else str(one),
)
def test_what_was_recorded_is_simulated_to_the_same_starts(policy: Policy, seed: int) -> None:
    sim = Recording(seed, policy)
    sim.play(orders(random.Random(seed)))
    found = recorded(sim)
    assert len(found.works) == len(found.recorded) == 40
    assert found.notes == []
    assert len({one.start for one in found.recorded}) > 15
    begun = list(simulate(found.works, Pool(sim.view.nodes.values()), policy))
    assert {one.job: pytest.approx(one.start, abs=1e-3) for one in begun} == {one.job: one.start for one in found.recorded}
    assert {one.job: one.claims for one in begun} == {one.job: one.claims for one in found.recorded}
    others = list(simulate(found.works, Pool(sim.view.nodes.values()), Fcfs() if not isinstance(policy, Fcfs) else Easy()))
    assert [one.job for one in others] != [one.job for one in begun]  # the order is the policy's


def test_from_the_middle_of_it() -> None:
    """Who runs at that moment keeps what he holds, who waits has waited since he came."""
    sim = Recording(3, Easy())
    sim.play(orders(random.Random(3)))
    whole = recorded(sim)
    since = whole.recorded[20].start + 0.25
    found = recorded(sim, since)
    running = {one.job for one in whole.recorded if one.start < since < one.end}
    assert running
    assert {one.job for one in found.held} == running
    assert f"{len(running)} jobs running at the beginning" in found.notes
    begun = list(simulate(found.works, Pool(sim.view.nodes.values()), Easy(), held=found.held, now=since))
    later = {one.job: one.start for one in whole.recorded if one.start >= since}
    assert {one.job: pytest.approx(one.start, abs=1e-3) for one in begun} == later


def test_where_history_was_pruned() -> None:
    """What is left begins with a state: who was active then is in the workload."""
    sim = Recording(3, Easy())
    sim.play(orders(random.Random(3)))
    commits, whole = list(sim.cli.commits()), recorded(sim)
    state = State()
    for commit in commits[: len(commits) // 3]:
        state.apply(commit)
    active = [job for job in state.jobs.values() if job.state != 64]
    recorder = Recorder(state)
    for commit in commits[len(commits) // 3 :]:
        recorder.take(commit)
    found = recorder.workload(Rules())
    assert len(active) > 1
    assert {work.job for work in found.works} > {job.id for job in active}
    assert found.notes == [f"history was pruned up to version {state.version}: jobs that had ended by then are not in it"]
    known = {work.job: work for work in whole.works}
    assert all(work.run_s == pytest.approx(known[work.job].run_s) for work in found.works)


def events(*some: tuple[str, int | str, float, Any]) -> Workload:
    """A workload of events written by hand, each a commit."""
    from fluxkv.journal.wire import Commit

    recorder, state = Recorder(), State()
    for version, (name, subject, ts, context) in enumerate(some, 1):
        recorder.take(Commit(version, 5, "", 0, 0, ts, [[name, subject, ts, context]], {}))
    return recorder.workload(state.rules)


def submit(job: int, ts: float, limit: float = 0.0, urgency: int = 16, name: str = "", waits: Any = None) -> Any:
    spec = jobspec(2, duration=limit, name=name, dependencies=waits)
    return ("submit", job, ts, {"urgency": urgency, "userid": 7, "flags": 0, "version": 1, "jobspec": spec})


CLAIM = {"claims": [[0, "0-1", "", 0, 1]], "expiration": 0.0}


def test_what_is_not_over_is_supposed_and_said() -> None:
    found = events(
        submit(1, 0.0), ("alloc", 1, 1.0, CLAIM), ("free", 1, 31.0, None), ("clean", 1, 31.0, None),
        submit(2, 2.0, 100.0), ("alloc", 2, 3.0, CLAIM), submit(3, 4.0), submit(4, 5.0, urgency=0),
        submit(5, 6.0), ("clean", 5, 7.0, None), ("drain", "resource", 8.0, {}), ("nonsense", 9, 8.0, 7), ("alloc", 3, 50.0, {}),
    )  # fmt: skip
    assert {work.job: (work.submit, work.run_s, work.limit_s) for work in found.works} == {
        1: (0.0, 30.0, 0.0), 2: (2.0, 100.0, 100.0), 3: (4.0, 30.0, 0.0),
    }  # fmt: skip
    assert found.recorded == []
    assert found.notes == [
        "1 job that ended without having begun left out", "1 held job left out",
        "1 job not over yet: taken to run for their limit",
        "1 job not over yet and without a limit: taken to run for the median of the others",
        "not simulated: 1 drain; all nodes are up and all queues started all the time",
    ]  # fmt: skip


def test_attempts_dependencies_singletons_and_holds() -> None:
    single = [{"scheme": "singleton", "value": ""}]
    both = [{"scheme": "any", "value": "afterok:1,after:2"}, {"scheme": "begin-time", "value": "90"}]
    found = events(
        submit(1, 0.0, name="a"), ("alloc", 1, 1.0, CLAIM), ("free", 1, 11.0, None),
        ("requeue", 1, 11.0, {"attempt": 2, "cause": "exit", "note": ""}), ("priority", 1, 16.0, {"priority": 16}),
        ("alloc", 1, 20.0, CLAIM), ("free", 1, 24.0, None), ("clean", 1, 24.0, None),
        submit(2, 3.0, name="a", waits=single), submit(3, 4.0, name="a", waits=single), submit(4, 5.0, waits=both),
        submit(5, 6.0, urgency=0), ("priority", 5, 6.0, {"priority": 0}), ("urgency", 5, 40.0, {"urgency": 20}),
        ("priority", 5, 40.0, {"priority": 20}),
    )  # fmt: skip
    by_job = {work.job: work for work in found.works}
    assert [(by_job[job].run_s, by_job[job].after) for job in (1, 1 + ATTEMPT)] == [
        (10.0, ()), (4.0, ((After(1, delay_s=5.0),),)),
    ]  # fmt: skip
    assert found.labels[1 + ATTEMPT].id.endswith(" (2)")
    assert by_job[2].after == ((After(1 + ATTEMPT),),)
    assert by_job[3].after == ((After(2),),)
    assert by_job[4].after == ((After(1 + ATTEMPT), After(2, start=True)),)
    assert by_job[4].submit == 90.0
    assert (by_job[5].submit, by_job[5].priority) == (40.0, 20)
