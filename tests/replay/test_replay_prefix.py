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

from fluxkv.journal import fold_jobs, snapshot
from fluxkv.journal.job import ACTIVE, INACTIVE, job_value
from fluxkv.journal.schema import SCHEMA
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
    head, chunks = snapshot.dump(state)
    return snapshot.load(snapshot.read_head(head), chunks)


def looked_at(state: State) -> State:
    """As a reader gets it: inactive jobs unpacked when asked for."""
    head, chunks = snapshot.dump(state)
    return snapshot.load(snapshot.read_head(head), chunks, lazy=True)


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
    """By its checksums, and by its digest where they were made to fit."""
    state = sims[0].cli.at()
    head, (body,) = snapshot.dump(state)
    table = snapshot.read_head(head)
    at = len(body) // 2
    changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    for lazy in (False, True):
        for bad in (changed, body[:-1], b""):
            with pytest.raises(Corrupt, match="digest"):
                snapshot.load(table, [bad], lazy=lazy)
    state.jobs[min(state.jobs)].name = "another"
    head, chunks = snapshot.dump(state)  # says the digest of what it was
    with pytest.raises(Corrupt, match="digest"):
        snapshot.load(snapshot.read_head(head), chunks)


def test_a_snapshot_of_another_schema() -> None:
    head, _ = snapshot.dump(State())
    plain = {key: value for key, value in unpack(head).items() if key != "check"}
    with pytest.raises(Corrupt, match="schema"):
        snapshot.read_head(pack({**plain, "schema": SCHEMA + 1}))
    with pytest.raises(Corrupt, match="schema"):
        snapshot.read_head(pack({**plain, "body": snapshot.BODY + 1}))
    assert snapshot.usable(snapshot.read_head(head))
    assert not snapshot.usable(snapshot.read_head(pack({"version": 1, "epoch": 2, "digest": b""})))


@pytest.mark.parametrize("every", [1, 5])
def test_a_reader_s_state_is_the_fold_s(sims: list[Any], every: int) -> None:
    """At every point, with tails of any length behind the snapshot; asked in any way."""
    for sim in sims:
        live = State()
        readers: list[State] = []
        for commit in sim.cli.commits():
            live.apply(commit)
            for reader in readers:
                reader.apply(commit)
            if commit.version % every == 0:
                readers = [*readers[-3:], looked_at(live)]
        for reader in readers:
            assert len(reader.jobs) == len(live.jobs)
            assert {k: v for k, v in reader.counts.items() if v} == {k: v for k, v in live.counts.items() if v}
            assert [job.id for job in reader.active()] == [job.id for job in live.active()]
            assert (reader.retired, reader.retirements) == (live.retired, live.retirements)
            for id in live.jobs:
                assert id in reader.jobs
                assert job_value(reader.jobs[id]) == job_value(live.jobs[id])
                assert reader.jobs[id].jobspec == live.jobs[id].jobspec
                assert reader.jobs[id].claims == live.jobs[id].claims
            assert reader.jobs.get(77) is None
            assert 77 not in reader.jobs
            assert reader.digest() == live.digest()
            assert through_snapshot(reader).subjects() == live.subjects()


def test_a_reader_unpacks_what_is_asked_for(sims: list[Any]) -> None:
    state = sims[0].cli.at()
    inactive = [job.id for job in state.jobs.values() if job.state == INACTIVE]
    assert len(inactive) > 5
    for ask in (list, dict.fromkeys, dict, lambda jobs: list(jobs.values()), lambda jobs: jobs.items(), lambda jobs: jobs.keys()):
        reader = looked_at(state)
        assert len(ask(reader.jobs)) == len(state.jobs)
        assert {id: job_value(job) for id, job in reader.jobs.items()} == {id: job_value(job) for id, job in state.jobs.items()}
    reader = looked_at(state)
    assert bool(reader.jobs)
    assert reader.jobs[inactive[2]].id == inactive[2]
    assert reader.jobs[inactive[2]] is reader.jobs[inactive[2]]
    assert len(reader.jobs.unpacked()) == state.count(ACTIVE) + 1  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        reader.jobs[77]
    assert reader.leave([inactive[1], inactive[2], inactive[1], 77]) == state.leave([inactive[1], inactive[2]])
    assert reader.digest() == state.digest()


def test_inactive_jobs_are_packed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "SECTION_JOBS", 4)
    state = submitted(*range(1, 11))
    for id in range(1, 11):
        ended = ["exception", id, 2.0, {"type": "cancel", "severity": 0, "note": ""}]
        apply(state, ["validate", id, 2.0, None], ended, ["clean", id, 2.0 + id, None])
    through_snapshot(state)
    first = list(state.packed)
    assert [len(block.ended) for block in first] == [4, 4, 2]
    assert through_snapshot(state).digest() == state.digest()
    assert state.packed[:2] == first[:2]
    apply(state, ["memo", 6, 20.0, {"late": 1}], ["retire", "instance", 20.0, {"jobs": [1, 2, 3]}])
    again = through_snapshot(state)
    assert again.subjects() == state.subjects()
    assert sorted(len(block.ended) for block in state.packed) == [3, 4]
    assert sorted(len(block.ended) for block in again.packed) == [3, 4]
    apply(again, ["retire", "instance", 21.0, {"jobs": list(range(4, 11))}])
    assert through_snapshot(again).jobs == {}


def test_a_number_keeps_its_kind() -> None:
    """1, 1.0 and True are equal, and hash to the same digest only as what they are."""
    state = submitted(1, 2, 3)
    apply(state, ["memo", 1, 2.0, {"a": 1}], ["memo", 2, 2.0, {"a": True}], ["memo", 3, 2.0, {"a": 1.0}])
    assert through_snapshot(state).digest() == state.digest()
    state = submitted(1, 2, 3, 4)
    apply(state, ["priority", 2, 2.0, {"priority": 0x13000000}])  # its bytes end like three small ones
    assert through_snapshot(state).digest() == state.digest()
    state = submitted(1, 2, 3)
    apply(state, ["memo", 1, 2.0, {"a": 1}], ["memo", 2, 2.0, {"a": True}], ["memo", 3, 2.0, {"a": 1.0}])
    assert [job.memo["a"].__class__ for job in looked_at(state).jobs.values()] == [int, bool, float]


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
