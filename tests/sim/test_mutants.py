"""Planted faults are caught by the simulator's invariants, each by a seed that passes without it. See `hunts.py`.

A seed that is known to show a fault is tried first. Where production has changed and it does not any more, the first ones of the
kind of world that the fault names are: some seconds more, until `CAUGHT` is brought up to date with what
`make soak SOAK=sim SOAK_ARGS="-k fault"` prints. A fault that none of these shows fails.
"""

from __future__ import annotations

import pytest
from hunts import caught, seeds_of
from mutants import MUTANTS, Mutant
from simulator.sites import DEEP, LATE, OWN, RESIZED, RESUMED, SCRIPTED, SILENT

HUNT = 160  # further seeds of its kind of world, of which one has to show it
CAUGHT: dict[str, tuple[int, ...]] = {
    "guards-dropped": (5,), "stale-plan-accepted": (5,), "report-guard-dropped": (0,), "submit-guard-dropped": (6,),
    "dedup-dropped": (0,), "epoch-ignored": (4,), "floor-ignored": (165, 98), "full-store-refuses-all": (67,),
    "snapshot-off-by-one": (2,), "digest-stale": (2,), "cursor-moved-first": (85,), "acked-before-appended": (47,),
    "losers-forgotten": (2,), "conflict-loser-applied": (0,), "taker-without-giver": (0,),
    "double-free": (32,), "policy-believed": (26,), "deadline-from-wall-clock": (0,), "released-before-all-ranks": (1,),
    "recall-not-awaited": (151,), "spool-ignored": (4,), "hello-ignored": (0,), "used-before-hello": (3,),
    "child-has-nodes-whole": (10,), "child-keeps-its-namespace": (430,),
    "child-has-pools-whole": (DEEP + 1,), "counted-from-the-other-end": (DEEP,),
    "silence-counts-double": (DEEP + 18,), "cut-off-goes-on": (DEEP + 3, DEEP + 18),
    "goes-on-beside-another": (RESUMED,), "handed-up-unsealed": (OWN + 1,),
    "shrunk-by-a-time-out": (RESIZED + 5, RESIZED + 6), "tasks-beside-their-prolog": (SCRIPTED, SCRIPTED + 4),
    "epoch-changes-nothing": (28,), "witness-ignored": (89,), "cron-fires-twice": (43,),
    "attempt-not-looked-at": (OWN + 2,), "prolog-skipped": (SCRIPTED,), "silence-forgotten": (SILENT + 2, SILENT + 3),
    "no-second-pass": (OWN + 8,), "ended-by-itself-again": (DEEP + 54,),
    "late-report-believed": (LATE + 9, LATE + 13), "redelivery-not-noticed": (LATE,),
}  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", [one for one in MUTANTS if one.name in CAUGHT], ids=lambda one: one.name)
def test_a_planted_fault_is_caught(mutant: Mutant) -> None:
    seeds = dict.fromkeys([*CAUGHT[mutant.name], *seeds_of(mutant, HUNT)])
    found = any(caught(mutant, seed) for seed in seeds)
    assert found, f"{mutant.breaks}: shown by none of {len(seeds)} seeds of its kind ({mutant.kind})"


def test_none_is_left_out() -> None:
    names = {one.name for one in MUTANTS}
    assert names == {*CAUGHT}
    assert len(CAUGHT) >= 16
