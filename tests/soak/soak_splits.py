"""Random cuts between the hosts of servers, sentinels, instance and agents, of random length, under a stream of submissions
(`make soak SOAK=splits`). FLUXKV_SOAK_SPLITS: how many."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import netns
import pytest
from splits import Split, split

from fluxkv.kvs.errors import FluxkvError

ROUNDS = int(os.environ.get("FLUXKV_SOAK_SPLITS", "100"))
SEED = int(os.environ.get("FLUXKV_SOAK_SEED", "1"))
EACH = 10
CALM_S = 90.0
why = netns.missing()
pytestmark = pytest.mark.skipif(bool(why), reason=why)


def one_round(made: Split, draw: random.Random) -> str:
    """A cut, submissions while it lasts, and the calm; what was done, in words."""
    some = draw.sample(made.hosts, draw.randrange(1, len(made.hosts)))
    others = [host for host in made.hosts if host not in some and draw.random() < 0.8]
    seconds = draw.uniform(0.3, 8.0)
    before, refused = len(made.acknowledged), made.refused
    made.cut(some, others)
    client = made.fresh()
    client.store.patience_s = 1.0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            made.submit(client, f"sleep {draw.uniform(0.0, 0.3):.2f}", draw.randrange(4))
        except FluxkvError:  # it has read what is lost now
            client = made.fresh()
            client.store.patience_s = 1.0
        time.sleep(0.05)
    made.heal()
    began = time.monotonic()
    made.fresh()
    made.home.until(lambda s: all(node.online for node in s.nodes.values()), "all nodes are online", CALM_S)
    while not (id := made.submit(made.home.client)):
        assert time.monotonic() - began < CALM_S, made.home.logs()
    made.home.results([id])
    took = time.monotonic() - began
    made.settled()
    again = made.judge(patience_s=CALM_S)
    return (
        f"{','.join(h.name for h in some)} | {','.join(h.name for h in others)} for {seconds:.1f} s: "
        f"{len(made.acknowledged) - before} acknowledged, {made.refused - refused} not, "
        f"calm after {took:.1f} s, {again} ran again so far"
    )


@pytest.mark.parametrize("number", range(-(-ROUNDS // EACH)))
def test_splits(number: int, tmp_path: Path) -> None:
    draw = random.Random(SEED + number)
    with split(tmp_path, "--durability", "replicated", "--on-fork", "adopt") as made:
        for count in range(min(EACH, ROUNDS - number * EACH)):
            print(f"\nseed {SEED + number}, round {count}: {one_round(made, draw)}", end="", flush=True)
