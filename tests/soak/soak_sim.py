"""The simulator at length: FLUXKV_SIM_SEEDS seeds (20,000 unless set) from FLUXKV_SIM_FIRST (0) on, and each planted fault hunted
over the first FLUXKV_SIM_HUNT (200) of its kind of world, until FLUXKV_SIM_ENOUGH (1) seeds have shown it.

Seeds are played by as many processes as there are processors. What fails is printed when it does, with the command that plays
it again. `SOAK_ARGS="-k seeds"` or `"-k fault"` for one of the two.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

SEEDS = int(os.environ.get("FLUXKV_SIM_SEEDS", "20000"))
FIRST = int(os.environ.get("FLUXKV_SIM_FIRST", "0"))
HUNT = int(os.environ.get("FLUXKV_SIM_HUNT", "200"))
ENOUGH = int(os.environ.get("FLUXKV_SIM_ENOUGH", "1"))
HERE = Path(__file__).resolve().parents[1]
CHUNK = 20
SAY_EVERY = 1000  # seeds


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


def hunt(name: str) -> list[tuple[int, str, float]]:
    """(seed, what caught it, processor seconds) of the first seeds that show a planted fault."""
    from hunts import caught, holds, seeds_of
    from mutants import MUTANTS

    (mutant,) = [one for one in MUTANTS if one.name == name]
    found: list[tuple[int, str, float]] = []
    for seed in seeds_of(mutant, HUNT):
        holds(seed)
        begun = time.process_time()
        what = caught(mutant, seed)
        if what:
            found.append((seed, what, time.process_time() - begun))
            if len(found) >= ENOUGH:
                break
    return found


def test_many_seeds() -> None:
    failed = []
    with ProcessPoolExecutor(initializer=prepare) as pool:
        for seed, text in enumerate(pool.map(fails, range(FIRST, FIRST + SEEDS), chunksize=CHUNK), FIRST):
            if text:
                failed.append(seed)
                print(f"\n{text}\nplay it again: {sys.executable} tests/sim/replay.py {seed}", flush=True)
            if (seed - FIRST + 1) % SAY_EVERY == 0:
                print(f"\n{seed - FIRST + 1} of {SEEDS} seeds, {len(failed)} failed", flush=True)
    assert not failed, f"{len(failed)} of the {SEEDS} seeds from {FIRST} on: {failed}"


def test_every_planted_fault_is_caught() -> None:
    prepare()
    from mutants import MUTANTS

    names = [one.name for one in MUTANTS]
    missed = []
    with ProcessPoolExecutor(initializer=prepare) as pool:
        for name, found in zip(names, pool.map(hunt, names), strict=True):
            for seed, what, seconds in found:
                print(f"\n{name}: seed {seed}, {seconds:.2f} s: {what[:160]}", flush=True)
            if not found:
                missed.append(name)
                print(f"\n{name}: not caught by {HUNT} seeds", flush=True)
    assert not missed, f"{missed} are caught by none of {HUNT} seeds"
