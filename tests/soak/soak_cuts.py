"""The file of a dead server cut by 1 to 10,000 bytes while a task runs (`make soak SOAK=cuts`). FLUXKV_SOAK_CUTS: how often."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from cuts import cut, go_on, most_bytes
from live import inside, site

CUTS = int(os.environ.get("FLUXKV_SOAK_CUTS", "100"))
SEED = int(os.environ.get("FLUXKV_SOAK_SEED", "1"))
EACH = 10


@pytest.mark.parametrize("number", range(-(-CUTS // EACH)))
def test_cuts(number: int, tmp_path: Path) -> None:
    draw = random.Random(SEED + number)
    lost = 0
    with site(tmp_path, "--cores", "4") as one:
        for _ in range(EACH):
            one.running(one.submit("exec sleep 1000"))
            one.results(one.submit_many([["sh", "-c", f"exit {n}"] for n in range(draw.randrange(1, 12))]))
            count = most_bytes(draw)
            tip, left = cut(one, count)
            if left < tip:
                lost += 1
                go_on(one)
            assert one.results([one.submit("exit 3")]) == [3], f"seed {SEED + number}, {count} bytes"
            done = one.run("cancel", "--all")
            assert done.returncode == 0, done
            one.until(lambda s: not any(s.active()), "all have ended")
            left_over = {pid: line for pid, line in one.processes().items() if inside(pid)}
            assert not left_over, (f"seed {SEED + number}, {count} bytes", left_over)
        one.sound(timeout=900.0)
        print(f"\nseed {SEED + number}: {EACH} cuts, {lost} of them took commits away", flush=True)
