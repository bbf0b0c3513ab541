"""Seeded interleavings with named queues, limits per user, and jobs that are changed while they wait."""

from __future__ import annotations

import os

import pytest
from journal_rules import Rules, story
from mini_sim import CORES
from queue_sim import QueueRules, QueueSim

from fluxkv.journal.state import State
from fluxkv.journal.usage import Usage

SEEDS = int(os.environ.get("FLUXKV_SIM_SEEDS", "150")) // 5
CHUNK = 10
TOTAL: dict[str, int] = {}


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_queues_keep_their_rules_under_any_interleaving(first: int) -> None:
    for seed in range(2000 + first, 2000 + min(first + CHUNK, SEEDS)):
        sim = QueueSim(seed)
        try:
            sim.run()
        except Exception as problem:
            pytest.fail(f"seed {seed}: {problem!r}\n{story(list(sim.cli.commits()), getattr(problem, 'job', 0))}", pytrace=False)
        commits = list(sim.cli.commits())
        judges = Rules({rank: set(range(CORES)) for rank in range(4)}), QueueRules()
        judges[0].commits(commits)
        judges[1].check_active(commits)
        for judge in judges:
            if judge.wrong:
                version, job, what = judge.wrong[0]
                pytest.fail(f"seed {seed}, version {version}, job {job}: {what}\n{story(commits, job)}", pytrace=False)
        whole, loaded = sim.cli.at(), sim.cli.load()
        assert whole.subjects() == loaded.subjects(), f"seed {seed}"
        for state in (whole, loaded):
            check_usage(seed, state)
        check_usage_on_the_way(seed, sim)
        for name, count in judges[1].counts.items():
            TOTAL[name] = TOTAL.get(name, 0) + count
    assert all(TOTAL.values()), f"rules that nothing was about: {TOTAL}"


def check_usage(seed: int, state: State) -> None:
    """What is counted along the way is what a count from scratch gives."""
    again = Usage(state.rules, state.active())
    assert state.usage is not None
    assert (state.usage.active, state.usage.running) == (again.active, again.running), f"seed {seed}"


def check_usage_on_the_way(seed: int, sim: QueueSim) -> None:
    state = State()
    for commit in sim.cli.commits():
        state.apply(commit)
        if commit.version % 7 == 0 and state.usage is not None:
            check_usage(seed, state)
