"""Many inputs for every parser (`make soak SOAK=fuzz`), seed after seed.

FLUXKV_FUZZ_CASES: inputs for each parser and seed (here 2,000); FLUXKV_FUZZ_SEED: the first seed; FLUXKV_SOAK_SEEDS: how many (20).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FIRST = int(os.environ.get("FLUXKV_FUZZ_SEED", "1000"))
SEEDS = int(os.environ.get("FLUXKV_SOAK_SEEDS", "20"))
CASES = os.environ.get("FLUXKV_FUZZ_CASES", "2000")
FOLDER = Path(__file__).resolve().parents[1] / "fuzz"


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_seed(seed: int) -> None:
    """A process each: what one leaves behind in memory is not the next one's."""
    env = {**os.environ, "FLUXKV_FUZZ_SEED": str(seed), "FLUXKV_FUZZ_CASES": CASES}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=0", str(FOLDER), "-k", "any_"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
