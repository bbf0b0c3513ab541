"""Random daemons killed, again and again, under fifty real jobs: see `support/chaos.py`. `make soak` plays a thousand rounds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chaos import SPARED, Chaos
from live import site

pytestmark = pytest.mark.live

SEED = int(os.environ.get("FLUXKV_SOAK_SEED", "4"))
GAP_S = (0.02, 0.3)


def test_twenty_rounds_with_the_launcher_spared(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "8") as one, Chaos(one, SEED, gap_s=GAP_S) as chaos:
        for number in range(1, 21):
            chaos.one_round(chaos.draw(), wait=chaos.random.random() < 0.5)
            if number % 10 == 0:
                chaos.audit()
        one.sound()
        print(chaos.report())


def test_the_launcher_killed_among_others_and_jobs_that_try_again(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "8") as one, Chaos(one, SEED, gap_s=GAP_S, retry=10) as chaos:
        for _ in range(5):
            others = chaos.draw()[: chaos.random.randrange(3)]
            chaos.one_round([*others, "launcher"])
        chaos.audit(whole=False)
        one.sound()
        print(chaos.report())


def test_everything_killed_at_once_and_started_again(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "8") as one, Chaos(one, SEED, gap_s=GAP_S) as chaos:
        for _ in range(3):
            chaos.one_round([*SPARED, "launcher"])
        chaos.audit(whole=False)
        one.sound()
        print(chaos.report())
