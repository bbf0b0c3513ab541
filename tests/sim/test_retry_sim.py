"""Attempts under seeded faults: never two of a job at once, each begun when the one before is over, numbered 1, 2, 3."""

from __future__ import annotations

import os

import mini_sim
import pytest
from journal_rules import Rules, story

from fluxkv.journal.state import State

SCRIPTS = {"prolog": {"command": ["p"]}, "epilog": {"command": ["e"], "per-rank": True}, "housekeeping": {"command": ["h"]}}
SEEDS = int(os.environ.get("FLUXKV_RETRY_SEEDS", "16"))


@pytest.mark.parametrize("scripts", [None, SCRIPTS], ids=["plain", "scripts"])
def test_attempts_under_faults(scripts: dict[str, object] | None) -> None:
    """The diaries raise when two attempts of a job run at once, or on the same cores; the rules judge the journal."""
    requeues: list[str] = []
    for seed in range(SEEDS if scripts is None else SEEDS // 2):
        sim = mini_sim.Sim(seed, 300, scripts=scripts, retries=True)
        try:
            sim.run()
        except Exception as problem:
            pytest.fail(f"seed {seed}: {problem!r}\n{story(sim.cli.commits(), getattr(problem, 'job', 0))}")
        commits = list(sim.cli.commits())
        judge = Rules({rank: set(range(mini_sim.CORES)) for rank in range(4)})
        judge.commits(commits)
        assert not judge.wrong, f"seed {seed}: {judge.wrong[0]}\n{story(commits, judge.wrong[0][1])}"
        assert set(judge.state.values()) <= {"INACTIVE"}, seed
        state = State()
        digests = {}
        for commit in commits:
            if "digest" in commit.extra:
                assert digests[commit.decided_at] == commit.extra["digest"], f"seed {seed}: digest in {commit.id}"
            state.apply(commit)
            digests[state.version] = state.digest()
        requeues += [event[3]["cause"] for commit in commits for event in commit.events if event[0] == "requeue"]
    causes = {"requeue", "any", *(() if scripts else ("node-failure", "exit=75", "signal=KILL"))}
    assert causes <= set(requeues), set(requeues)  # the faults reach each of them
    assert len(requeues) > SEEDS
