"""The server's file cut short while it is dead: whatever is missing is said, with its range, and the rest goes on once adopted."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from cuts import cut, go_on, most_bytes
from live import site

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]  # others may use the machine

SEED = int(os.environ.get("FLUXKV_SOAK_SEED", "4"))


def test_a_file_cut_by_any_number_of_bytes(tmp_path: Path) -> None:
    draw = random.Random(SEED)
    lost = 0
    with site(tmp_path, "--cores", "4") as one:
        for count in (1, most_bytes(draw), 10_000):
            one.results(one.submit_many([["sh", "-c", f"exit {n}"] for n in range(4)]))
            tip, left = cut(one, count)
            if left < tip:
                lost += 1
                go_on(one)
            one.client.journal.meta = one.client.store.meta()
            assert one.results([one.submit("exit 3")]) == [3], f"seed {SEED}, {count} bytes"
        assert lost, "10,000 bytes hold a commit"
        one.sound()
