"""What kinds of site the simulator plays: plain, with queues and limits, with scripts around jobs, always changing."""

from __future__ import annotations

import random
from typing import Any

CORES = 4
MACHINES = ((0, 1), (2,), (3,))
QUEUE_HOSTS = {"a": {0, 1}, "b": {1, 2, 3}, "v": {1, 2, 3}, "c": {0, 1, 2, 3}}
RUNNING, ACTIVE, ALL = 2, 7, 5  # of a user: running in queue c; active in queue a; running anywhere
QUEUES: dict[str, Any] = {
    "queues": {
        "a": {"hosts": "n[0-1]", "policy": {"limits": {"max-active-jobs-per-user": ACTIVE}}},
        "b": {"hosts": "n[1-3]"},
        "v": {"parent": "b"},
        "c": {"policy": {"limits": {"max-running-jobs-per-user": RUNNING}}},
    },
    "policy": {"jobspec": {"defaults": {"system": {"queue": "b", "duration": "1h"}}}, "limits": {"max-running-jobs-per-user": ALL}},
}
LESS = {**QUEUES, "queues": {name: table for name, table in QUEUES["queues"].items() if name != "a"}}
SCRIPTS: list[dict[str, Any]] = [
    {"prolog": {"command": ["p"], "per-rank": True}, "epilog": {"command": ["e"], "per-rank": True},
     "housekeeping": {"command": ["h"], "release-after": "0"}},
    {"prolog": {"command": ["p"], "timeout": "0.1s"}, "housekeeping": {"command": ["h"], "release-after": "0.05s"}},
    {"prolog": {"command": ["p"], "per-rank": True, "cancel-on-exception": False}, "epilog": {"command": ["e"], "timeout": "0.1s"}},
    {"epilog": {"command": ["e"], "per-rank": True}, "housekeeping": {"command": ["h"]}},
]  # fmt: skip
SOME_SCRIPTS: dict[str, tuple[dict[str, Any], ...]] = {
    "prolog": ({"command": ["p"], "per-rank": True}, {"command": ["p"]}),
    "epilog": ({"command": ["e"], "per-rank": True}, {"command": ["e"]}),
    "housekeeping": ({"command": ["h"], "release-after": "0"}, {"command": ["h"]}),
}


class Site:
    """kind: "plain", "queues", "scripts" or "changing". config: what it begins with, and ends with."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        self.config: dict[str, Any] = {}
        self.queues: tuple[str, ...] = ("default",)
        if kind == "queues":
            self.config, self.queues = QUEUES, tuple(QUEUE_HOSTS)
        elif kind == "scripts":
            self.config = {"job-manager": SCRIPTS[number % len(SCRIPTS)]}

    def some_queue(self, rng: random.Random) -> str:
        """The queue of a job to be submitted, "" for none in particular; now and then one that is not there."""
        if self.kind == "queues":
            return rng.choice(("a", "b", "v", "c", "c", "", "none"))
        return "none" if rng.random() < 0.02 else ""

    def some_user(self, rng: random.Random) -> int:
        return rng.choice((1, 2, 0)) if self.kind == "queues" else 1

    def another(self, rng: random.Random) -> tuple[dict[str, Any] | None, dict[int, int]]:
        """(another config, or None; another inventory, rank -> cores, or {})."""
        if self.kind == "queues":
            return rng.choice((QUEUES, QUEUES, LESS)), {}
        if self.kind == "changing":
            if rng.random() < 0.5:
                tables = {kind: rng.choice(some) for kind, some in SOME_SCRIPTS.items() if rng.random() < 0.4}
                return ({"job-manager": tables} if tables else {}), {}
            ranks = sorted(rng.sample(range(4), rng.choice((2, 3, 4, 4))))
            return None, {rank: rng.choice((2, 3, CORES, CORES)) for rank in ranks}
        return None, {}
