"""The simulator at length: FLUXKV_SIM_SEEDS seeds (20,000 unless set), and each planted fault hunted over FLUXKV_SIM_HUNT (200).

Seeds are played by as many processes as there are processors. Prints what failed, and for each fault how many seeds it took.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

SEEDS = int(os.environ.get("FLUXKV_SIM_SEEDS", "20000"))
HUNT = int(os.environ.get("FLUXKV_SIM_HUNT", "200"))
HERE = Path(__file__).resolve().parents[1]


def prepare() -> None:
    """In each process: where the simulator is."""
    sys.path[:0] = [str(HERE / "sim"), str(HERE / "support")]


def fails(seed: int) -> str:
    """What is wrong with a seed, "" if nothing is."""
    from simulator.play import Failed, play

    try:
        play(seed)
    except Failed as failure:
        return str(failure)
    return ""


def hunt(name: str) -> int | None:
    """The first seed that shows a planted fault."""
    from mutants import MUTANTS, planted

    (mutant,) = [one for one in MUTANTS if one.name == name]
    for seed in range(HUNT):
        with planted(mutant):
            if fails(seed):
                return seed
    return None


def test_many_seeds() -> None:
    with ProcessPoolExecutor(initializer=prepare) as pool:
        failed = [text for text in pool.map(fails, range(SEEDS), chunksize=20) if text]
    for text in failed:
        print(text)
    assert not failed, f"{len(failed)} of {SEEDS} seeds"


def test_every_planted_fault_is_caught() -> None:
    prepare()
    from mutants import MUTANTS

    names = [mutant.name for mutant in MUTANTS]
    with ProcessPoolExecutor(initializer=prepare) as pool:
        found = dict(zip(names, pool.map(hunt, names), strict=True))
    for name, seed in found.items():
        print(f"{name}: {'not caught' if seed is None else f'{seed + 1} seeds'} of {HUNT}")
    assert all(seed is not None for seed in found.values())
