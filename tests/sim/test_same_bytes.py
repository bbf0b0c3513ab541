"""A seed is a life: the same seed gives the same journal, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from simulator.play import journal_hash, play

HERE = Path(__file__).resolve().parent
SEEDS = (1, 3, 5)
CODE = "from simulator.play import journal_hash, play; print(*(journal_hash(play(seed)) for seed in {seeds}))"


def test_a_seed_always_gives_the_same_bytes() -> None:
    here = [journal_hash(play(seed)) for seed in SEEDS]
    paths = os.pathsep.join(str(folder) for folder in (HERE, HERE.parent / "support"))
    running = [
        subprocess.Popen([sys.executable, "-c", CODE.format(seeds=SEEDS)], stdout=subprocess.PIPE, text=True,
                         env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": paths})
        for hash_seed in ("1", "2")
    ]
    for process in running:
        out, _ = process.communicate()
        assert process.returncode == 0
        assert out.split() == here
