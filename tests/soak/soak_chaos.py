"""A thousand rounds of kill -9 (`make soak SOAK=chaos`), 50 to an instance: the launcher spared or among the
victims, everything, and daemons stopped for twice a lease.

FLUXKV_SOAK_ROUNDS: how many; FLUXKV_SOAK_SEED: the first instance's seed, each next one's is one more.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chaos import SPARED, Chaos, p99
from live import site

ROUNDS = int(os.environ.get("FLUXKV_SOAK_ROUNDS", "1000"))
SEED = int(os.environ.get("FLUXKV_SOAK_SEED", "1"))
EACH = 50  # rounds of one instance, whose journal is folded anew at its end
TAKE_OVER_S = 5.0
LEASE_S = 3.0
WHOLE = ("spared", "frozen")  # no launcher died
TAKEN: dict[str, list[float]] = {}


@pytest.mark.parametrize("number", range(-(-ROUNDS // EACH)))
def test_rounds(number: int, tmp_path: Path) -> None:
    kind = ("spared", "spared", "frozen", "launcher", "everything")[number % 5]
    workers, retry = ("2" if kind == "frozen" else "1"), (EACH if number % 2 else 0)
    with site(tmp_path, "--cores", "8", "--workers", workers) as one, Chaos(one, SEED + number, retry=retry) as chaos:
        for count in range(1, min(EACH, ROUNDS - number * EACH) + 1):
            roles = chaos.draw()
            if kind == "frozen":
                chaos.freeze(chaos.draw((*SPARED, "worker-1")), 2 * LEASE_S)
            elif kind == "launcher":
                roles = [*roles[: chaos.random.randrange(3)], "launcher"]
            elif kind == "everything":
                roles = [*SPARED, "launcher"]
            if kind != "frozen":
                chaos.one_round(roles, wait=chaos.random.random() < 0.7)
            if count % 10 == 0:
                chaos.audit(whole=kind in WHOLE)
        chaos.audit(whole=kind in WHOLE)
        one.sound(timeout=900.0)
        print(f"\n{kind}: {chaos.report()}", flush=True)
        for role, taken in chaos.taken_s.items():
            TAKEN.setdefault(role, []).extend(taken)


def test_take_over() -> None:
    """After all rounds: what p99 was, role by role."""
    for role, taken in sorted(TAKEN.items()):
        print(f"\n{role}: {len(taken)} take-overs, median {sorted(taken)[len(taken) // 2]:.2f} s, p99 {p99(taken):.2f} s, "
              f"slowest {max(taken):.2f} s", flush=True)  # fmt: skip
    slow = {role: p99(taken) for role, taken in TAKEN.items() if p99(taken) > TAKE_OVER_S}
    assert not slow, slow
