"""What kinds of site the simulator plays: plain, with queues and limits, with scripts around jobs, always changing, with a graph of
resources, with instances in jobs, and with four levels of these; and plain ones in which
nodes say nothing for long, or what is old comes once more."""

from __future__ import annotations

import random
from typing import Any

from fluxkv.schedulers.tree.vertices import Tree, Vertex

CORES = 4
SILENT = 800_000  # seeds from here on have nodes that say nothing for long, for which there are orders meanwhile
LATE = 900_000  # and from here on old orders and old reports that come once more
GRAPHS = 1_000_000  # seeds from here on have a graph of resources
DEEP = 2_000_000  # and from here on instances to the deepest level
RESIZED = 3_000_000  # and from here on these get more nodes and give some back while they run
SCRIPTED = 3_500_000  # and from here on a site's scripts run around these, and on each node that comes or leaves
RESUMED = 4_000_000  # and from here on jobs that go on with instances which others were
OWN = 5_000_000  # and from here on instances with servers of their own
PASSED = 6_000_000  # and from here on such ones with which other jobs go on
POWER, LICENCES, NVME = 10, 3, 2  # of each rack; of all; of each node
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
SHARED: dict[str, Any] = {  # queues whose nodes are in the same racks
    "queues": {"all": {"hosts": "n[0-3]"}, "even": {"hosts": "n[0,2]"}, "odd": {"hosts": "n[1,3]"}},
    "policy": {"jobspec": {"defaults": {"system": {"queue": "all"}}}},
}
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


SHORT = ("3s", "5s", "30s", "4s", "10s")  # where instances, whose jobs live long, are to be on silent nodes
SILENCE = ("30s", "4s", "30s", "5s", "10s", "0", "3s")  # how long a node may say nothing before it is offline


class Site:
    """kind: "plain", "silent", "late", "queues", "scripts", "changing", "graph", "nested" or "deep". config: what it
    begins with, and ends with. graph: whether there are power, licences and NVMe in it. resizes: whether its instances get more
    nodes and give some back. resumes: whether jobs go on with instances. owns: whether instances may have servers of their own."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        self.owns = kind == "deep" and number >= OWN - DEEP
        self.resumes = kind == "deep" and (OWN - DEEP > number >= RESUMED - DEEP or number >= PASSED - DEEP)
        self.passes = self.owns and self.resumes
        self.resizes = kind == "deep" and RESUMED - DEEP > number >= RESIZED - DEEP
        self.follows = self.resizes or self.resumes  # whether an instance may have other nodes than it began with
        self.graph = kind == "graph" or (kind == "deep" and number % 2 == 1 and not self.resizes and not self.owns)
        silence = SHORT if kind == "deep" else SHORT[:2] if kind == "silent" else SILENCE
        self.resource = {"resource": {"offline-after": silence[number % len(silence)]}}
        self.config: dict[str, Any] = {}
        self.queues: tuple[str, ...] = ("default",)
        self.power = POWER  # of the rack that has most
        if kind == "queues":
            self.config, self.queues = QUEUES, tuple(QUEUE_HOSTS)
        elif kind == "scripts" or (self.resizes and number >= SCRIPTED - DEEP):
            self.config = {"job-manager": SCRIPTS[number % len(SCRIPTS)]}
        elif kind == "graph":
            self.config, self.queues = dict(SHARED), ("all", "even", "odd")
            if number % 3 == 0:
                self.config["job-manager"] = {"housekeeping": {"command": ["h"], "release-after": "0"}}
        self.config = self.config | self.resource

    def some_queue(self, rng: random.Random) -> str:
        """The queue of a job to be submitted, "" for none in particular; now and then one that is not there."""
        if self.kind == "queues":
            return rng.choice(("a", "b", "v", "c", "c", "", "none"))
        if self.kind == "graph":
            return rng.choice(("", "even", "odd"))
        return "none" if rng.random() < 0.02 else ""

    def some_user(self, rng: random.Random) -> int:
        return rng.choice((1, 2, 0)) if self.kind == "queues" else 1

    def tree(self) -> Tree | None:
        """Two racks with power, nodes with NVMe, licences for all: what the nodes of a site with a graph are in."""
        if not self.graph:
            return None
        tree = Tree()
        top = tree.add(Vertex("cluster", "cluster", 0))
        tree.root(top)
        tree.link(top, tree.add(Vertex("licence", "licence", 0, size=LICENCES)))
        for r in range(2):
            rack = tree.add(Vertex("rack", "rack", r))
            tree.link(top, rack)
            tree.link(rack, tree.add(Vertex("power", "power", r, size=POWER)))
            for n in (2 * r, 2 * r + 1):
                node = tree.add(Vertex("node", "n", n, rank=n))
                tree.link(rack, node)
                tree.link(node, tree.add(Vertex("core", "core", 0, name="core", size=CORES, ids=(1 << CORES) - 1, rank=n)))
                tree.link(node, tree.add(Vertex("nvme", "nvme", 0, name="nvme", size=NVME, ids=(1 << NVME) - 1, rank=n)))
        return tree.compile()

    def some_shape(self, rng: random.Random, spec: dict[str, Any]) -> None:
        """Now and then a job of a site with a graph wants more than cores."""
        how = rng.random()
        if not self.graph or how < 0.3:
            return
        (top,) = spec["resources"]
        node = top if top["type"] == "node" else {"type": "node", "count": 1, "with": [top]}
        if how < 0.7:
            above = [{"type": "power", "count": rng.choice((2, 5, 8, 10)) * self.power // POWER or 1}, node]
            spec["resources"] = [{"type": "rack", "count": 1, "with": above}]
        elif how < 0.8:
            spec["resources"] = [{"type": "rack", "count": 1, "exclusive": True, "with": [node]}]
        elif how < 0.9:
            spec["resources"] = [{"type": "licence", "count": rng.choice((1, 2, 3))}, node]
        else:
            (slot,) = node["with"]
            slot["with"] = [*slot["with"], {"type": "nvme", "count": 1}]
            spec["resources"] = [node]

    def shared_shape(self, rng: random.Random, spec: dict[str, Any], pools: dict[str, tuple[int, int]]) -> None:
        """An instance is to have some of what there is beside cores. pools: path -> (units, ids)."""
        (top,) = spec["resources"]
        node = top if top["type"] == "node" else {"type": "node", "count": 1, "with": [top]}
        path = rng.choice(sorted(pools))
        units = max(1, max(pools[path][0], 1) // rng.choice((1, 2, 2)))
        if "power" in path:
            spec["resources"] = [{"type": "rack", "count": 1, "with": [{"type": "power", "count": units}, node]}]
        elif "licence" in path:
            spec["resources"] = [{"type": "licence", "count": units}, node]
        else:
            (slot,) = node["with"]
            slot["with"] = [*slot["with"], {"type": "nvme", "count": 1}]
            spec["resources"] = [node]

    def another(self, rng: random.Random) -> tuple[dict[str, Any] | None, dict[int, int]]:
        """(another config, or None; another inventory, rank -> cores, or {})."""
        if self.kind == "queues":
            return rng.choice((QUEUES, QUEUES, LESS)) | self.resource, {}
        if self.kind == "changing":
            if rng.random() < 0.5:
                tables = {kind: rng.choice(some) for kind, some in SOME_SCRIPTS.items() if rng.random() < 0.4}
                found = {"resource": {"offline-after": rng.choice(SILENCE)}} if rng.random() < 0.5 else dict(self.resource)
                return found | ({"job-manager": tables} if tables else {}), {}
            ranks = sorted(rng.sample(range(4), rng.choice((2, 3, 4, 4))))
            return None, {rank: rng.choice((2, 3, CORES, CORES)) for rank in ranks}
        return None, {}
