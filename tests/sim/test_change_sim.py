"""Seeded interleavings while config, inventory, time limits and clocks change; every snapshot on the way is the state it is of."""

from __future__ import annotations

import os

import pytest
from change_sim import ChangeSim
from journal_rules import Rules, story
from mini_sim import CORES

from fluxkv.journal import snapshot
from fluxkv.journal.state import State

SEEDS = int(os.environ.get("FLUXKV_SIM_SEEDS", "150")) // 5
CHUNK = 10
TOTAL: dict[str, int] = {}


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_a_site_that_changes_keeps_all_rules(first: int) -> None:
    for seed in range(4000 + first, 4000 + min(first + CHUNK, SEEDS)):
        sim = ChangeSim(seed)
        try:
            sim.run()
        except Exception as problem:
            pytest.fail(f"seed {seed}: {problem!r}\n{story(list(sim.cli.commits()), getattr(problem, 'job', 0))}", pytrace=False)
        judge = Rules({rank: set(range(CORES)) for rank in range(4)})
        judge.commits(sim.cli.commits())
        if judge.wrong:
            version, job, what = judge.wrong[0]
            pytest.fail(f"seed {seed}, version {version}, job {job}: {what}\n{story(sim.cli.commits(), job)}", pytrace=False)
        assert not any(judge.used.values()), f"seed {seed}: cores still in use"
        whole = check_on_the_way(seed, sim)
        worker = sim.workers[0].reactor.state
        assert worker.subjects() == whole.subjects(), f"seed {seed}"
        assert not any(node.busy or node.grants or node.used_cores for node in whole.nodes.values()), f"seed {seed}"
        for name, count in sim.changes.items():
            TOTAL[name] = TOTAL.get(name, 0) + count
    assert all(TOTAL.values()), f"nothing was changed: {TOTAL}"


def check_on_the_way(seed: int, sim: ChangeSim) -> State:
    """Digests in commits are those of a fold from version 1; snapshots give the same, read whole or lazily."""
    state, digests = State(), {}
    for commit in sim.cli.commits():
        if "digest" in commit.extra:
            assert digests[commit.decided_at] == commit.extra["digest"], f"seed {seed}: digest in {commit.id}"
        state.apply(commit)
        digests[state.version] = state.digest()
        if commit.version % 40 == 0:
            head, chunks = snapshot.dump(state)
            found = snapshot.read_head(head)
            assert snapshot.load(found, chunks).subjects() == state.subjects(), f"seed {seed}: snapshot of {commit.id}"
            assert snapshot.load(found, chunks, lazy=True).digest() == state.digest(), f"seed {seed}: snapshot of {commit.id}"
    return state
