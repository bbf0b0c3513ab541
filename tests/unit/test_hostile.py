"""What anybody may append to the journal must end as a refused job or a skipped event, never as a dead daemon."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances.attempts import Placed
from fluxkv.instances.deadlines import FEW, Deadlines
from fluxkv.instances.forward import Forwarder, Watched
from fluxkv.instances.job_input import JobInput
from fluxkv.instances.spawning import Attempt
from fluxkv.instances.trees import Trees
from fluxkv.instances.worker import Worker
from fluxkv.journal import decide, decide_kvs, snapshot
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import compose
from fluxkv.journal.job import INACTIVE, RUN, Job
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit, pack
from fluxkv.kvs.errors import Rejected
from fluxkv.kvs.keys import Keys
from fluxkv.kvs.port import Message
from fluxkv.kvs.tree import DEEPEST, check_key

_spec = importlib.util.spec_from_file_location(
    "fluxkv_tests_mini_sim", Path(__file__).resolve().parents[1] / "support" / "mini_sim.py"
)
assert _spec is not None
assert _spec.loader is not None
mini_sim = sys.modules.setdefault(_spec.name, importlib.util.module_from_spec(_spec))
if not hasattr(mini_sim, "Sim"):
    _spec.loader.exec_module(mini_sim)
GOOD = compose(901, 0, 0)
BAD = compose(900, 5, 0)


def changed(**changes: Any) -> dict[str, Any]:
    """A good jobspec with some members replaced, system's by the prefix `system_`."""
    spec = mini_sim.jobspec()
    for key, value in changes.items():
        if key.startswith("system_"):
            spec["attributes"]["system"][key.removeprefix("system_")] = value
        else:
            spec[key] = value
    return dict(spec)


def task(**changes: Any) -> list[dict[str, Any]]:
    return [{"command": ["x"], "slot": "t", "count": {"per_slot": 1}, **changes}]


def nested(depth: int) -> dict[str, Any]:
    vertex: dict[str, Any] = {"type": "core", "count": 1}
    for level in range(depth):
        vertex = {"type": "slot", "count": 1, "label": f"l{level}", "with": [vertex]}
    return vertex


JOBSPECS: dict[str, Any] = {
    "none": None, "list": [1], "text": "x", "empty": {}, "tasks empty": changed(tasks=[]), "tasks int": changed(tasks=[3]),
    "no command": changed(tasks=[{"slot": "t", "count": {"per_slot": 1}}]), "command int": changed(tasks=task(command=[5])),
    "count text": changed(tasks=task(count={"total": "x"})), "count map": changed(tasks=task(count={"per_slot": {}})),
    "tasks 1e9": changed(tasks=task(count={"total": 10**9})), "cores 1e9": mini_sim.jobspec(cores=10**9),
    "product above 64 bits": mini_sim.jobspec(2**31 - 1, 2**31 - 1, 2**31 - 1), "nested": changed(resources=[nested(100)]),
    "resources int": changed(resources=5), "vertex none": changed(resources=[None]), "attributes": changed(attributes=[1]),
    "duration text": changed(system_duration="abc"), "duration nan": changed(system_duration=float("nan")),
    "duration negative": changed(system_duration=-5), "duration inf": changed(system_duration=float("inf")),
    "environment list": changed(system_environment=[1]), "environment int": changed(system_environment={"A": 5}),
    "environment NUL": changed(system_environment={"A\0": "x"}), "cwd": changed(system_cwd=5), "queue": changed(system_queue=["a"]),
    "job list": changed(system_job=[1]), "job name": changed(system_job={"name": 5}), "shell": changed(system_shell=[1]),
    "path": changed(system_shell={"options": {"output": {"stdout": {"path": 5}}}}), "exec": changed(system_exec=[1]),
}  # fmt: skip
EVENTS: dict[str, Any] = {
    "exception": ["exception", GOOD, 1.0, {}], "urgency": ["urgency", GOOD, 1.0, {"urgency": "x"}],
    "memo": ["memo", GOOD, 1.0, [1]],
    "drain": ["drain", "resource", 1.0, {"idset": "x-", "overwrite": 0}], "kvs ops": ["kvs.commit", "kvs", 1.0, {"ops": 5}],
    "kvs key": ["kvs.commit", "kvs", 1.0, {"ops": [["put", 5, b"x"]]}], "kvs short": ["kvs.commit", "kvs", 1.0, {"ops": [["put"]]}],
    "kvs deep": ["kvs.commit", "kvs", 1.0, {"ops": [["put", ".".join("a" * 2000), b"x"]]}],
    "hello": ["hello", "node/0", 1.0, {"rank": 0, "boot": "", "spool": "", "epoch": 1, "cursor": "x", "held": []}],
    "report": ["report", "node/0", 1.0, {"rank": 0, "over": [[1]]}], "retire": ["retire", "instance", 1.0, {"jobs": 5}],
    "epoch": ["epoch", "instance", 1.0, {}], "short": ["memo"], "no event": 5, "R": ["resource-define", "resource", 1.0, {"R": 5}],
    "subject": ["memo", [1], 1.0, {}], "submit": ["submit", BAD, 1.0, [1]], "dependency": ["dependency-add", GOOD, 1.0, {}],
}  # fmt: skip


def survive(events: list[Any]) -> Any:
    """A life instance takes the events, then a good job; live, snapshot and replay agree. The simulator at its end."""
    sim = mini_sim.Sim(1, 0)
    sim.calm = True
    turn(sim, 8)
    sim.ids.append(GOOD)
    sim.runs.update({GOOD: (0.01, 0), BAD: (0.01, 0)})
    sim.cli.append(Decision(events), sim.store.meta().version)
    turn(sim, 20)
    sim.cli.append(decide.submit([(GOOD, mini_sim.jobspec())], "", 16, 1, 0, sim.now), sim.store.meta().version)
    turn(sim, 40)
    assert sim.view.jobs[GOOD].state == INACTIVE
    sim.cli.save_snapshot(sim.view)
    assert sim.cli.load().digest() == sim.cli.at().digest() == sim.workers[0].reactor.state.digest()
    return sim


def turn(sim: Any, times: int) -> None:
    for _ in range(times):
        for actor in [*sim.workers, *sim.agents]:
            sim._step(actor)
        sim._tick()
        sim.cli.catch_up(sim.view)


@pytest.mark.parametrize("name", JOBSPECS)
def test_bad_jobspec_ends_its_job_only(name: str) -> None:
    context = {"urgency": 16, "userid": 1, "flags": 0, "jobspec": JOBSPECS[name], "env": "", "version": 1}
    job = survive([["submit", BAD, 1.0, context]]).view.jobs[BAD]
    assert job.state == INACTIVE
    assert job.exception is not None


@pytest.mark.parametrize("urgency", [99, -5, "x", None, [1], float("nan")])
def test_bad_urgency_is_the_default(urgency: Any) -> None:
    context = {"urgency": urgency, "userid": 1, "flags": 0, "jobspec": mini_sim.jobspec(), "env": "", "version": 1}
    assert survive([["submit", BAD, 1.0, context]]).view.jobs[BAD].urgency == 16


@pytest.mark.parametrize("name", EVENTS)
def test_malformed_event_is_skipped(name: str) -> None:
    survive([EVENTS[name]])


def test_deep_kvs_key_is_refused_and_the_deepest_survives_a_snapshot() -> None:
    with pytest.raises(Rejected):
        check_key(".".join("a" * (DEEPEST + 1)))
    key = check_key(".".join("a" * DEEPEST))
    state = State()
    state.apply(Commit(1, 5, "", 0, 0, 0.0, [["kvs.commit", "kvs", 1.0, {"ops": [["put", key, b"x"]]}]], {}))
    head, chunks = snapshot.dump(state)
    assert snapshot.load(snapshot.read_head(head), chunks).tree.get(key) == b"x"


def test_deadlines_of_jobs_long_over_are_forgotten() -> None:
    """HAZARD 28: a flood of short jobs with long limits."""
    state, deadlines = State(), Deadlines()
    for id in range(FEW + 2):
        job = state.jobs[id] = Job(id)
        job.expiration, job.state = 1e9 + id, INACTIVE
        deadlines.note(job)
    state.jobs[7].state = RUN
    state.counts[RUN] = 1
    assert deadlines.due(state, 1.0) == []
    assert len(deadlines._heap) == 1
    assert deadlines.next() == 1e9 + 7 + 30


def test_others_commits_alone_lead_to_a_snapshot() -> None:
    sim = mini_sim.Sim(1, 0)
    sim.calm = True
    turn(sim, 8)
    worker = sim.workers[0].reactor
    before = worker.snapshot_events
    for _ in range(11):
        sim.cli.append(decide_kvs.commit([["put", "a", b"x"]], 1.0), 0)
    ops = [["kvs.commit", "kvs", 1.0, {"ops": []}]] * 1000
    for _ in range(11):
        sim.cli.append(Decision(ops), 0)
    turn(sim, 4)
    assert worker.snapshot_events > before + 10_000
    before = worker.snapshot_events
    for _ in range(3):  # few events, much to fold
        sim.cli.append(decide_kvs.commit([["put", "a", b"x"]] * 4000, 1.0), 0)
    turn(sim, 4)
    assert worker.snapshot_events > before + 10_000


def test_a_tail_that_dead_workers_left_is_counted_by_the_next() -> None:
    """Found by fail points: workers that died every few thousand events took no snapshot, and each had more to fold."""
    sim = mini_sim.Sim(1, 0)
    sim.calm = True
    turn(sim, 8)
    first = sim.workers[0].reactor
    sim.cli.append(Decision([["lively", "resource", 0.0, {"idset": "0"}]] * 11_000), 0)
    second = Worker(sim.cli.meta, sim.cli.load(), first.planner.policies.own, "worker-1")
    assert second._tail > 10_000
    sim.cli.meta = sim.cli.store.meta()
    assert sim.cli.save_snapshot(second.state)
    assert Worker(sim.cli.meta, sim.cli.load(), first.planner.policies.own, "worker-2")._tail < 100


def test_signal_that_is_none_does_not_end_the_launcher() -> None:
    attempt = Attempt({"key": "1.2-3.0", "job": 1, "tasks": [[0, ["x"], None, {}]]})
    attempt.alive[1 << 21] = 0
    for signum in (0, 999, -1, 1 << 40):
        Trees.signal_groups(attempt, signum)


def test_standard_input_ends_behind_its_last_byte(tmp_path: Path) -> None:
    """A task that reads slowly, or has not started yet, gets all of it before the end of file."""
    forwarder = Forwarder(None, Keys("/"), str(tmp_path), "h")  # type: ignore[arg-type]
    fifo = str(tmp_path / "in")
    watched = forwarder.watched["1.2-3.0"] = Watched(1, "1.2-3.0", [], {fifo: 0}, 0, 1)
    placed = Placed("1.2-3.0", 1, 2, 0)
    said: list[Any] = []
    reader = JobInput(Keys("/"), forwarder, lambda: {"1.2-3.0": placed}, said.append)
    reader.streams["s"] = {"1.2-3.0": None}
    text = b"x" * 300_000
    reader.take("s", [Message("1-1", pack(["data", text])), Message("2-1", pack(["eof"]))])
    assert not said  # it has no pipe yet
    os.mkfifo(fifo)
    placed.t_start = 1.0
    read = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    hold = os.open(fifo, os.O_WRONLY)
    got = b""
    while not said:
        reader.go_on()
        got += os.read(read, 65536) if watched.pending or len(got) < len(text) else b""
    while len(got) < len(text):
        got += os.read(read, 65536)
    os.close(read)
    os.close(hold)
    assert got == text
    assert said == [["eof", "1.2-3.0"]]


def test_attempt_that_came_back_leaves_nothing_with_the_forwarder(tmp_path: Path) -> None:
    """HAZARD 28: each order recalled or unstarted left its attempt behind."""
    forwarder = Forwarder(None, Keys("/"), str(tmp_path), "h")  # type: ignore[arg-type]
    forwarder.add({"key": "1.2-3.0", "job": 1, "stdin": "", "tasks": [[0]]})
    forwarder.unstarted("1.2-3.0")
    assert not forwarder.fresh
    assert not forwarder.watched
