"""What the files of storms share: which seeds are whose, and what has to happen in them now and then."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from simulator.clients import DEEPEST
from simulator.faults import ROLES
from simulator.play import Failed, play
from simulator.sites import DEEP, GRAPHS, LATE, OWN, PASSED, RESIZED, RESUMED, SCRIPTED, SILENT

SEEDS = int(os.environ.get("FLUXKV_SIM_SEEDS", "320"))
SHARES = 2  # files, so that several workers of pytest may have one each
CHUNK = 10

# Not worth much if nothing of the sort happens: (name, how often in 100 seeds at least).
RARE: dict[str, float] = {
    "grant": 50, "handed over": 10, "recall": 1, "lost": 5, "end": 20, "kill": 1, "drain": 20, "urgency": 10, "exception": 50,
    "epoch": 10, "retire": 50, "snapshots": 50, "look-ups": 5, "dependency-remove": 100, "requeue": 50, "prolog-finish": 20,
    "epilog-finish": 20, "housekeeping-finish": 20, "cron-fire": 20, "config": 10, "resource-define": 20, "jobspec-update": 5,
    "dependency exceptions": 10, "timeout exceptions": 5, "full": 1, "conflicts": 10, "crashes": 100, "forks": 20, "adopt": 10,
    "adopted attempts": 0.5, "fence": 20, "offline": 1, "quarantine": 1, "lost exceptions": 5,
    "silent": 10, "children": 15, "children at depth 2": 1, "children over": 15,
    "versions at which a child was held against its job": 40,
}  # fmt: skip
# In sites with instances at all levels, as often in 100 seeds.
RARE_DEEP: dict[str, float] = {
    "children at depth 4": 100, "children at depth 4 in a storm": 50, "tasks at depth 4": 20, "adopt": 50, "conflicts": 100,
    "versions at which a child was held against its job": 2000, "versions at which siblings were held against each other": 500,
    **{f"{role} killed at depth {depth}": 5 for role in ROLES for depth in range(DEEPEST + 1)},
}  # fmt: skip
RARE_RESIZED: dict[str, float] = {
    "resizes asked for": 300, "grow": 50, "shrink": 50, "children at depth 3": 50, "tasks at depth 2": 20, "conflicts": 100,
}  # fmt: skip
RARE_SCRIPTED: dict[str, float] = {"grow": 50, "shrink": 50, "node-script-start": 150, "node-script-finish": 150}
RARE_RESUMED: dict[str, float] = {"children gone on with": 100, "not gone on with: alive": 50}
RARE_OWN: dict[str, float] = {
    "handed up": 500, "finished by a duty": 100, "killed while it handed up": 10, "two hand up at once": 10, "read in files": 300,
    "read above": 10000, "files torn with their job": 5,
}  # fmt: skip
RARE_PASSED: dict[str, float] = {"handed down": 50, "children gone on with": 50}
# Beyond the first ones: what they found has been mended; 525 is one of few that lose a housekeeping script with its host.
FOUND = (
    525, 848, 868, 922, 1011, 1102, 6521, 6759, 30461, 32168, 32772, 33246, DEEP + 1060, RESIZED + 60, RESIZED + 74, RESIZED + 114,
    RESIZED + 122, RESIZED + 183, RESIZED + 214, RESIZED + 1006, RESIZED + 10_198, RESUMED + 55, RESUMED + 77, RESUMED + 230, OWN,
    OWN + 13, SCRIPTED + 10_008, SCRIPTED + 10_071, SCRIPTED + 10_101, DEEP + 10_053, PASSED + 23,
    PASSED + 34,
)  # fmt: skip
# First seeds of chunks whose site has a graph of resources.
GRAPH_SEEDS = tuple(range(GRAPHS, GRAPHS + max(2 * CHUNK, SEEDS // 25), CHUNK))
# Of plain ones whose nodes are silent for long, and of those in which what is old comes once more.
PLAIN_SEEDS = ((SILENT, 4), (LATE, 6))
# And of those whose sites have instances at all levels.
DEEP_SEEDS = tuple(range(DEEP, DEEP + max(16, SEEDS // 30), 4))
# And of those whose instances get more nodes and give some back.
RESIZED_SEEDS = tuple(range(RESIZED, RESIZED + max(4, SEEDS // 125), 4))
# And of those whose site has scripts, which run on each node that comes or leaves.
SCRIPTED_SEEDS = (SCRIPTED, SCRIPTED + 4)
# And of those in which jobs go on with instances that others were.
RESUMED_SEEDS = tuple(range(RESUMED, RESUMED + max(4, SEEDS // 125), 4))
# And of those whose instances have servers of their own.
OWN_SEEDS = tuple(range(OWN + 4, OWN + 4 + max(8, SEEDS // 40), 4))
# And of those whose instances have such servers, and are gone on with.
PASSED_SEEDS = ((PASSED + 5, 3),)
# Seeds that fail by a fault that is not mended, and what it is: they must fail until it is.
KNOWN: dict[int, str] = {}


def firsts(share: int) -> list[int]:
    """The first seeds of this share's chunks."""
    return list(range(share * CHUNK, SEEDS, SHARES * CHUNK))


def play_chunk(first: int, total: Counter[str], count: int = 0) -> None:
    """Some seeds (a chunk of the first ones, unless told how many); a failure names its seed and tells its job's story."""
    for seed in range(first, first + count if count else min(first + CHUNK, SEEDS)):
        try:
            world = play(seed)
        except Failed as failure:
            if seed in KNOWN:
                continue
            pytest.fail(str(failure), pytrace=False)
        assert seed not in KNOWN, f"seed {seed} holds: take it off the list"
        total.update(world.happened)
        total["seeds"] += 1


def check_rare(total: Counter[str], rare: dict[str, float] = RARE, enough: int = 50) -> None:
    """The rare paths were walked."""
    if total["seeds"] < enough:
        pytest.skip("too few seeds were played to tell")
    missed = {name: total[name] for name, least in rare.items() if total[name] < least * total["seeds"] / 100}
    assert not missed, f"in {total['seeds']} seeds too few: {missed}"
