"""Replay is the same state at every prefix: live folds, folds through snapshots, and the `replay` command agree."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from fluxkv.journal import fold_jobs
from fluxkv.journal.fold_jobs import Impossible
from fluxkv.journal.job import INACTIVE
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit, pack, unpack
from fluxkv.kvs.errors import Corrupt

SUPPORT = Path(__file__).resolve().parents[1] / "support"


def load(name: str) -> ModuleType:
    full = f"fluxkv_tests_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, SUPPORT / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[full]


mini_sim = load("mini_sim")


@pytest.fixture(scope="module")
def sims() -> list[Any]:
    """A few histories with every kind of event."""
    played = []
    for seed in (3, 7, 20):
        sim = mini_sim.Sim(seed)
        sim.run()
        played.append(sim)
    return played


def through_snapshot(state: State) -> State:
    """As another process gets it: packed, unpacked, loaded."""
    return State.load(unpack(pack(state.dump())))


@pytest.mark.parametrize("every", [1, 7])
def test_every_prefix_folds_to_the_same_digest_through_snapshots(sims: list[Any], every: int) -> None:
    for sim in sims:
        live, other = State(), State()
        for commit in sim.cli.commits():
            live.apply(commit)
            other.apply(commit)
            if commit.version % every == 0:
                other = through_snapshot(other)
            assert live.digest() == other.digest(), f"seed {sim.seed}, version {commit.version}"
        assert live.subjects() == other.subjects()


def test_incremental_digest_is_the_digest_made_afresh(sims: list[Any]) -> None:
    for sim in sims:
        state = State()
        for commit in sim.cli.commits():
            state.apply(commit)
            before = state.digest()
            state.dirty_jobs.update(state.jobs)
            state.dirty_words.update(["instance", *state.nodes, *(f"queue/{name}" for name in state.queues)])
            assert state.digest() == before, f"seed {sim.seed}: version {commit.version} missed a subject"


def test_a_loaded_state_equals_the_dumped_one(sims: list[Any]) -> None:
    for sim in sims:
        state = sim.cli.at()
        again = through_snapshot(state)
        assert again.subjects() == state.subjects()
        assert {k: v for k, v in again.counts.items() if v} == {k: v for k, v in state.counts.items() if v}
        for name in ("version", "epoch", "time", "instance", "R", "expiration", "retired", "events", "skipped"):
            assert getattr(again, name) == getattr(state, name), name
        assert set(again.attention) == {job.id for job in state.jobs.values() if job.state != INACTIVE}


def test_a_changed_snapshot_is_refused(sims: list[Any]) -> None:
    records = sims[0].cli.at().dump()
    kind, value = unpack(records[-1])
    value[1] = ["changed"] if kind == "j" else "changed"
    with pytest.raises(Corrupt, match="digest"):
        State.load([*records[:-1], pack([kind, value])])


def test_a_snapshot_of_a_newer_schema_is_refused() -> None:
    records = State().dump()
    head = unpack(records[0])
    head["schema"] += 1
    with pytest.raises(Corrupt, match="schema"):
        State.load([pack(head)])


def apply(state: State, *events: list[Any]) -> None:
    state.apply(Commit(state.version + 1, 5, "", 0, 0, 1.0, list(events), {}))


def submitted(*ids: int) -> State:
    state = State()
    for id in ids:
        context = {"urgency": 16, "userid": 1, "flags": 0, "version": 1, "jobspec": mini_sim.jobspec()}
        apply(state, ["submit", id, 1.0, context])
    return state


def test_unknown_events_and_subjects_are_skipped() -> None:
    state = submitted(1)
    before = [list(value) if isinstance(value, list) else value for value in state.subjects().values()]
    apply(state, ["later-invention", "resource", 2.0, {"x": 1}], ["another", "thing/9", 2.0, None])
    assert state.skipped == 2
    assert list(state.subjects().values()) == before
    apply(state, ["later-invention", 1, 2.0, {"x": 1}])
    assert state.jobs[1].state == 1
    assert state.jobs[1].commits == [1, 3]
    apply(state, ["start", 99, 2.0, None])  # a job nobody knows: retired, or another's
    assert 99 not in state.jobs


@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("submit", {"urgency": 16, "userid": 1, "flags": 0, "version": 1}),
        ("free", None),
        ("alloc", {"claims": [[0, "0", "", 0, 1]]}),
        ("grant", {"rank": 0, "shape": "s"}),
    ],
)
def test_impossible_events_are_refused(name: str, context: dict[str, Any] | None) -> None:
    with pytest.raises(Impossible, match="job 1"):
        apply(submitted(1), [name, 1, 2.0, context])


def test_two_allocs_of_one_core_are_refused_and_nothing_is_taken(sims: list[Any]) -> None:
    inventory = next(e for c in sims[0].cli.commits() for e in c.events if e[0] == "resource-define")
    state = submitted(1, 2)
    apply(state, inventory)
    for id in (1, 2):
        apply(state, ["validate", id, 2.0, None], ["depend", id, 2.0, None], ["priority", id, 2.0, {"priority": 1}])
    apply(state, ["alloc", 1, 2.0, {"claims": [[0, "0-1", "", 0, 1]]}])
    with pytest.raises(Impossible, match=r"job 2.*rank 0"):
        apply(state, ["alloc", 2, 2.0, {"claims": [[1, "0", "", 0, 1], [0, "1", "", 0, 1]]}])
    assert state.nodes[1].used_cores == 0
    assert state.nodes[1].jobs == set()
    with pytest.raises(Impossible, match="clean"):
        apply(state, ["clean", 1, 2.0, None])


def test_a_gap_is_refused() -> None:
    with pytest.raises(Corrupt, match="gap"):
        State().apply(Commit(2, 5, "", 0, 0, 1.0, [["queue-stop", "queue/default", 1.0, None]], {}))


def wrong_priority(state: State, job: Any, ts: float, context: dict[str, Any], version: int) -> None:
    """A fold with a planted mistake."""
    fold_jobs.priority(state, job, ts, context, version)
    job.memo = {**job.memo, "wrong": 1}


def test_a_wrong_fold_is_noticed_by_the_next_worker_commit_and_named(
    sims: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with a wrong fold writes a wrong digest; a right fold, started from version 1, sees it."""
    sim = sims[0]
    right, wrong = State(), State()
    commits = list(sim.cli.commits())
    for commit in commits:
        right.apply(commit)
        with monkeypatch.context() as patch:
            patch.setitem(fold_jobs.HANDLERS, "priority", wrong_priority)
            wrong.apply(commit)
        if right.digest() != wrong.digest():
            break
    ours, theirs = right.subjects(), wrong.subjects()
    different = [name for name in ours if ours[name] != theirs[name]]
    assert different
    assert all(name.startswith("job/") for name in different)
    named = {event[1] for event in commit.events if event[0] == "priority"}
    assert {int(name[4:]) for name in different} == named


def test_replay_diff_live_names_the_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshot was made by a process with a wrong fold: `replay --diff live` says which job."""
    command = pytest.importorskip("fluxkv.tools.replay_cmd").replay
    sample = load("sample_journal").sample("replay-diff")
    fine = CliRunner().invoke(command, ["--diff", "live", "--uri", sample.uri])
    assert fine.exit_code == 0, fine.output
    with monkeypatch.context() as patch:
        patch.setitem(fold_jobs.HANDLERS, "priority", wrong_priority)
        state = sample.journal.at()
    assert sample.journal.save_snapshot(state)
    done = CliRunner().invoke(command, ["--diff", "live", "--json", "--uri", sample.uri])
    assert done.exit_code != 0
    document = json.loads(done.stdout)
    assert document["diff"]["equal"] is False
    assert document["diff"]["subject"].startswith("job/")


def test_at_a_version_is_the_state_that_was(sims: list[Any]) -> None:
    sim = sims[1]
    tip = sim.store.meta().version
    for version in (1, tip // 3, tip // 2, tip):
        state = State()
        for commit in sim.cli.commits(0, version):
            state.apply(commit)
        assert sim.cli.at(version).digest() == state.digest()
        assert sim.cli.at(version).version == version
