"""Seeded interleavings of production reactors; every invariant is read off the journal and the launchers' diaries."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit

SUPPORT = Path(__file__).resolve().parents[1] / "support"
SEEDS = int(os.environ.get("FLUXKV_SIM_SEEDS", "150"))
CHUNK = 10


def load(name: str) -> ModuleType:
    """A module of tests/support."""
    full = f"fluxkv_tests_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, SUPPORT / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[full]


mini_sim = load("mini_sim")
rules = load("journal_rules")


def play(seed: int, scripts: dict[str, object] | None = None) -> mini_sim.Sim:
    """A whole seed; what goes wrong names the seed and tells the guilty job's story."""
    sim = mini_sim.Sim(seed, scripts=scripts)
    job = 0
    try:
        sim.run()
        return sim
    except Exception as problem:
        job = getattr(problem, "job", 0) or next((id for id in sim.ids if str(id) in str(problem)), 0)
        what = f"seed {seed}: {type(problem).__name__}: {problem}"
        cause = problem
    pytest.fail(f"{what}\n{rules.story(sim.cli.commits(), job)}\n{cause.__traceback__ and ''}", pytrace=False)


def check_journal(seed: int, commits: list[Commit]) -> None:
    judge = rules.Rules({rank: set(range(mini_sim.CORES)) for rank in range(4)})
    judge.commits(commits)
    if judge.wrong:
        version, job, what = judge.wrong[0]
        pytest.fail(f"seed {seed}, version {version}, job {job}: {what}\n{rules.story(commits, job)}", pytrace=False)
    left = {job: state for job, state in judge.state.items() if state != "INACTIVE"}
    assert not left, f"seed {seed}: jobs that never ended: {left}"
    assert not any(judge.used.values()), f"seed {seed}: cores still in use"


def check_digests(seed: int, commits: list[Commit]) -> int:
    """Each worker commit names the digest of the state it was decided on: a fold from version 1 agrees."""
    state, digests, checked = State(), {}, 0
    for commit in commits:
        if "digest" in commit.extra:
            checked += 1
            assert digests[commit.decided_at] == commit.extra["digest"], f"seed {seed}: digest in {commit.id}"
        state.apply(commit)
        digests[state.version] = state.digest()
    return checked


def check_no_leak(seed: int, sim: mini_sim.Sim) -> None:
    worker = sim.workers[0].reactor
    state, planner = worker.state, worker.planner
    for node in state.nodes.values():
        held = node.jobs | node.grants | node.keeping
        assert not held, f"seed {seed}: rank {node.rank} holds {held}"
        assert not node.used_cores
    for actor in sim.agents:
        agent, launcher = actor.reactor, actor.launcher
        assert not agent.placed, f"seed {seed}: agent keeps {list(agent.placed)}"
        assert not agent.names
        assert not any(agent.rows.values())
        assert not launcher._runs
        assert not launcher._waiting
        assert not launcher._over, f"seed {seed}: launcher keeps {list(launcher._over)}"
    for _ in range(20):  # what is left to look at
        sim._step(sim.workers[0])
    assert not len(planner.lines), f"seed {seed}: the line keeps jobs"
    assert not planner.said
    assert not planner.seats, f"seed {seed}: {planner.seats}"
    assert not planner.seat_by_job
    assert not getattr(planner, "ahead", None), f"seed {seed}: {planner.ahead}"
    waiting = worker.waiting
    for left in (waiting.waiters, waiting.on_start, waiting.on_end, waiting.known, waiting.ask, waiting.asking):
        assert not left, f"seed {seed}: {left}"
    guards = sim.server.tables.instances["/"].guards
    assert not [thing for thing in guards if thing.startswith("attempt/")], f"seed {seed}: attempts stay guarded"


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_invariants_hold_under_any_interleaving(first: int) -> None:
    digests = 0
    for seed in range(first, min(first + CHUNK, SEEDS)):
        sim = play(seed)
        commits = list(sim.cli.commits())
        check_journal(seed, commits)
        digests += check_digests(seed, commits)
        check_no_leak(seed, sim)
    assert digests > 100


SITE = [
    {"prolog": {"command": ["p"], "per-rank": True}, "epilog": {"command": ["e"], "per-rank": True},
     "housekeeping": {"command": ["h"], "release-after": "0"}},
    {"prolog": {"command": ["p"], "timeout": "0.1s"}, "housekeeping": {"command": ["h"], "release-after": "0.05s"}},
    {"prolog": {"command": ["p"], "per-rank": True, "cancel-on-exception": False}, "epilog": {"command": ["e"], "timeout": "0.1s"}},
    {"epilog": {"command": ["e"], "per-rank": True}, "housekeeping": {"command": ["h"]}},
]  # fmt: skip


@pytest.mark.parametrize("first", range(0, SEEDS // 5, CHUNK))
def test_scripts_of_the_site_stand_alone_under_any_interleaving(first: int) -> None:
    """Prolog, epilog and housekeeping beside deaths, cancels, drains and epochs: order, claims and ends are right."""
    names: dict[str, int] = {}
    for seed in range(first, min(first + CHUNK, SEEDS // 5)):
        sim = play(seed + 1000, SITE[seed % len(SITE)])
        commits = list(sim.cli.commits())
        check_journal(seed + 1000, commits)
        check_digests(seed + 1000, commits)
        check_no_leak(seed + 1000, sim)
        for commit in commits:
            for event in commit.events:
                names[event[0]] = names.get(event[0], 0) + 1
    assert not names.get("grant")
    for name in ("prolog-finish", "epilog-finish", "housekeeping-finish", "drain", "end"):
        assert names.get(name), f"{name} never happens"


def journal_hash(seed: int) -> str:
    """A hash of all bytes of a seed's journal."""
    sim = mini_sim.Sim(seed)
    sim.run()
    total = hashlib.sha256()
    for entry in sim.store.read(0, 100_000):
        total.update(entry.id.encode() + entry.header + entry.payload)
    return total.hexdigest()


def test_a_seed_always_gives_the_same_bytes() -> None:
    assert journal_hash(7) == journal_hash(7)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_mini_sim as t; print(t.journal_hash(7))"
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == journal_hash(7)


def test_the_sim_reaches_the_rare_paths() -> None:
    """Grants handed over, attempts lost, recalls, epochs, snapshots, retirement, look-ups and every verdict on a
    dependency happen in these seeds."""
    names: dict[str, int] = {}
    handed = lookups = impossible = 0
    wanted = ("grant", "recall", "lost", "end", "epoch", "retire", "kill", "drain", "urgency", "exception")
    for seed in range(60):
        if seed >= 12 and all(map(names.get, wanted)):
            break
        sim = play(seed)
        handed += sim.diary.handed
        lookups += sim.lookups
        for commit in sim.cli.commits():
            for event in commit.events:
                names[event[0]] = names.get(event[0], 0) + 1
                impossible += event[0] == "exception" and event[3]["type"] == "dependency"
    assert handed > 5
    assert lookups > 5
    assert impossible > 5
    assert names["dependency-add"] > names["dependency-remove"] > 20
    for name in wanted:
        assert names.get(name), f"{name} never happens"
