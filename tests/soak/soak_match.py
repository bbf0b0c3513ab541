"""Random graphs, requests and histories on the matcher of trees and on the reference (`make soak SOAK=match`).

FLUXKV_SOAK_MATCH: how many seeds; FLUXKV_SOAK_SEED: the first one.
"""

from __future__ import annotations

import os

from tree_worlds import Game

SEEDS = int(os.environ.get("FLUXKV_SOAK_MATCH", "20000"))
FIRST = int(os.environ.get("FLUXKV_SOAK_SEED", "1000"))


def test_both_agree() -> None:
    for seed in range(FIRST, FIRST + SEEDS):
        try:
            Game(seed).play(20)
        except Exception as error:
            raise AssertionError(f"seed {seed}: Game({seed}).play(20)") from error
