"""Planted faults are caught by the simulator's invariants, each by one of its first seeds (which pass without it: `storms.py`).

`make soak SOAK=sim` hunts for all of them, over 200 seeds each.
"""

from __future__ import annotations

import pytest
from mutants import MUTANTS, planted
from simulator.play import Failed, play

FEW = 16  # seeds
RARE = {"redelivery-not-noticed", "full-store-refuses-all", "acked-before-appended", "witness-ignored", "late-report-believed",
        "cron-fires-twice"}  # fmt: skip
EASY = [mutant for mutant in MUTANTS if mutant.name not in RARE]


def caught(seed: int) -> bool:
    try:
        play(seed)
    except Failed:
        return True
    return False


@pytest.mark.parametrize("mutant", EASY, ids=lambda mutant: mutant.name)
def test_a_planted_fault_is_caught(mutant: object) -> None:
    with planted(mutant):  # type: ignore[arg-type]
        assert any(caught(seed) for seed in range(FEW))


def test_there_are_enough_of_them() -> None:
    assert len(EASY) >= 16
