"""Random graphs, requests and histories, played on the matcher of trees and on the reference at once."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping
from typing import Any

import networkx as nx
from tree_reference import Reference, RefJob, Uses, World, earliest, oversold

from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.tree.jgf import from_jgf
from fluxkv.schedulers.tree.needs import compile_request
from fluxkv.schedulers.tree.system import Outcome, System
from fluxkv.schedulers.tree.vertices import Vertex

EXACT = ("low", "high", "lonode", "hinode", "lonodex", "hinodex", "locality", "variation")  # what they take is said exactly
LEVELS = ("rack", "node", "socket")
LEAVES = ("core", "gpu", "memory")
FILTERS: tuple[dict[str, list[str]] | None, ...] = (
    None, {}, {"ALL": ["core", "memory", "node"]}, {"rack": ["node"], "node": ["core", "gpu"]}, {"ALL": ["warp"], "x": ["y"]},
)  # fmt: skip
STEPS = {  # how often
    "reserve": 5, "allocate": 5, "preview": 1, "satisfiable": 1, "cancel": 2, "part": 1, "down": 0.7, "prop": 0.5, "remove": 0.4,
    "impose": 0.7,
}  # fmt: skip


class Draw:
    """One seed: a world, and what is asked of it."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.graph = nx.MultiDiGraph()
        self.ids: dict[str, int] = {}
        self.roots: dict[str, str] = {}
        self.scoped = self.draw.random() < 0.5  # ids begin anew below each node
        self.grow()

    def chance(self, p: float) -> bool:
        return self.draw.random() < p

    # --- the graph

    def add(self, kind: str, above: str | None, subsystem: str = "containment", **data: Any) -> str:
        number = self.ids.get(kind, 0)
        self.ids[kind] = number + self.draw.choice((1, 1, 1, 2))
        name = str(len(self.graph))
        rank = number if kind == "node" else -1
        base = {"type": kind, "id": number, "name": f"{kind}{number}", "size": 1, "unit": "", "rank": rank, "properties": {}}
        base["up"] = True
        self.graph.add_node(name, **{**base, **data})
        if above is not None:
            self.graph.add_edge(above, name, key=subsystem)
        else:
            self.roots[subsystem] = name
        return name

    def grow(self) -> None:
        """A cluster of up to three levels that differ from branch to branch; perhaps power, perhaps a shared disk box."""
        levels = [level for level in LEVELS if self.chance(0.75)] or ["node"]
        leaves = [leaf for leaf in LEAVES if self.chance(0.7)] or ["core"]
        sizes = {"memory": self.draw.choice((1, 2, 4)), "gpu": 1, "core": 1}
        units = {"memory": self.draw.choice(("", "GB", "MB"))}
        self.uneven = uneven = self.chance(0.3)
        root = self.add("cluster", None)
        frontier = [root]
        for level in levels:
            width = self.draw.randint(1, 3)
            made = []
            for above in frontier:
                for _ in range(width if not self.chance(0.3) else self.draw.randint(0, 3)):
                    properties = {p: v for p, v in (("ssd", ""), ("perf_class", self.draw.choice("1239x"))) if self.chance(0.4)}
                    if level == "node" and self.scoped:
                        self.ids.update(dict.fromkeys((*LEAVES, "socket"), 0))
                    made.append(self.add(level, above, properties=properties if level == "node" else {}))
            frontier = made or frontier
        for above in frontier:
            if self.scoped and self.chance(0.3):
                self.ids.update(dict.fromkeys(LEAVES, 0))
            for leaf in leaves:
                for _ in range(self.draw.randint(0, 4)):
                    size = self.draw.randint(1, 4) if uneven and leaf == "memory" else sizes[leaf]
                    self.add(leaf, above, size=size, unit=units.get(leaf, ""))
        if not self.graph.out_degree(root):
            self.add("core", root)
        if self.chance(0.3):
            self.power()
        if self.chance(0.2):
            self.shared_box(root)

    def of(self, kind: str) -> list[str]:
        return [name for name, data in self.graph.nodes(data=True) if data["type"] == kind]

    def power(self) -> None:
        """panel > PDUs > watts and the nodes they feed."""
        panel = self.add("panel", None, "power")
        pdus = [self.add("pdu", panel, "power") for _ in range(self.draw.randint(1, 2))]
        for node in self.of("node"):
            self.graph.add_edge(self.draw.choice(pdus), node, key="power")
            self.add("watt", node, "power", size=self.draw.choice((100, 200)))
        if self.graph.in_degree(pdus[0]) and self.chance(0.5):
            self.add("watt", pdus[0], "power", size=500)

    def shared_box(self, root: str) -> None:
        """Disks that are below a unit of their own and below a rack or node, too."""
        homes = self.of("rack") + self.of("node")
        unit = self.add("unit", root)
        box = self.add("box", unit)
        for _ in range(self.draw.randint(1, 3)):
            self.add("disk", box)
        if homes:
            self.graph.add_edge(self.draw.choice(homes), box, key="containment")

    def document(self) -> dict[str, Any]:
        """The graph as JGF."""
        keys = ("type", "id", "name", "size", "unit", "rank", "properties")
        nodes = [{"id": v, "metadata": {key: data[key] for key in keys}} for v, data in self.graph.nodes(data=True)]
        edges = [
            {"source": above, "target": below, "metadata": {"subsystem": key}} for above, below, key in self.graph.edges(keys=True)
        ]
        return {"graph": {"nodes": nodes, "edges": edges}}

    # --- requests

    def count(self, most: int = 2) -> Any:
        """Mostly what is there, in each of the forms that RFC 14 has."""
        low = self.draw.randint(1, max(most, 1)) if not self.chance(0.07) else most + 1
        shape = self.draw.random()
        if shape < 0.75:
            return low
        if shape < 0.8:
            return f"{low}-{low + self.draw.randint(0, 3)}"
        if shape < 0.83:
            return f"{low},{low + 2}"
        if shape < 0.85:
            return f"{low}+"
        operator = self.draw.choice("+*^")
        low = max(low, 2) if operator == "^" else low
        return {
            "min": low, "max": low + self.draw.randint(0, 9), "operator": operator,
            "operand": self.draw.randint(1 if operator == "+" else 2, 3),
        }  # fmt: skip

    def below(self, vertex: str) -> dict[str, list[str]]:
        """What is right below a vertex, in whichever subsystem, by type."""
        found: dict[str, list[str]] = {}
        for _, child in self.graph.out_edges(vertex):
            found.setdefault(self.graph.nodes[child]["type"], []).append(child)
        return found

    def want(self, alike: list[str], depth: int, in_slot: bool, share: int = 1) -> dict[str, Any]:
        """A vertex of a request that looks like one of these; mostly one that the graph could serve. share: among so many slots."""
        one = self.draw.choice(alike)
        kind, size = self.graph.nodes[one]["type"], self.graph.nodes[one]["size"]
        made: dict[str, Any] = {"type": kind, "count": self.count(max(1, min(4, size * len(alike) // share)))}
        if kind == "memory" and self.chance(0.4):
            made["unit"] = self.draw.choice(("MB", "GB", "GB"))
            made["count"] = self.draw.choice((1, 2, 1024, 2048, 5)) if made["unit"] == "MB" else self.draw.randint(1, 4)
        if kind == "watt":
            made["count"] = self.draw.choice((50, 100, 150, 300))
        if self.chance(0.12):
            made["exclusive"] = True
        elif not in_slot and self.chance(0.05):
            made["exclusive"] = False
        below = self.below(one)
        if below and depth < 4 and self.chance(0.8):
            made["with"] = self.siblings(below, depth + 1, in_slot)
        return made

    def siblings(self, kinds: dict[str, list[str]], depth: int, in_slot: bool) -> list[dict[str, Any]]:
        chosen = self.draw.sample(sorted(kinds), min(len(kinds), self.draw.choice((1, 1, 1, 2, 3))))
        if self.chance(0.02):
            chosen.append(chosen[0])  # two of one type
        if in_slot or self.chance(0.45):
            return [self.want(kinds[kind], depth, in_slot) for kind in chosen]
        name = self.draw.choice(("xor_slot", "or_slot")) if self.chance(0.35) else "slot"
        made = []
        several = (1, 1, 1, 1, 2) if name == "slot" else (1, 2, 2) if "memory" in chosen else (1, 2, 2, 3)  # it tries all mixes
        for _ in range(self.draw.choice(several)):
            some = self.draw.sample(chosen, self.draw.randint(1, len(chosen)))
            slots = self.draw.randint(1, 2)
            wants = [self.want(kinds[kind], depth, True, slots) for kind in some]
            made.append({"type": name, "count": self.count(slots), "label": "x", "with": wants})
        if self.chance(0.1):
            made.append(self.want(kinds[self.draw.choice(sorted(kinds))], depth, False))
        return made

    def jobspec(self) -> dict[str, Any]:
        """Mostly in one place: what is beside it is another matter."""
        kinds: dict[str, list[str]] = {}
        somewhere = self.draw.choice(sorted(self.graph.nodes))
        near = self.below(somewhere) if self.chance(0.7) else {}
        for name, data in self.graph.nodes(data=True):
            if data["type"] not in ("panel", "cluster") or self.chance(0.1) or len(self.graph) == 1:
                kinds.setdefault(data["type"], []).append(name)
        system: dict[str, Any] = {"duration": self.draw.choice((0, 10, 10, 50, 100, 7))}
        if self.chance(0.12):
            system["constraints"] = self.constraint(0)
        return {"version": 9999, "resources": self.siblings(near or kinds, 0, False), "attributes": {"system": system}}

    def constraint(self, depth: int) -> dict[str, Any]:
        if depth < 2 and self.chance(0.4):
            operator = self.draw.choice(("and", "or", "not"))
            return {operator: [self.constraint(depth + 1) for _ in range(self.draw.randint(1, 2))]}
        return self.draw.choice(
            [{"properties": ["ssd"]}, {"properties": ["^ssd"]}, {"ranks": [str(self.draw.randint(0, 3))]},
             {"hostlist": [f"node{self.draw.randint(0, 3)}"]}]
        )  # fmt: skip


def crowded(wants: list[dict[str, Any]]) -> bool:
    """Is anything beside a slot?"""
    slots = [want for want in wants if want["type"] in ("slot", "xor_slot", "or_slot")]
    return bool(slots and len(wants) > 1) or any(crowded(want.get("with", [])) for want in wants)


class Game:
    """One seed, played on both sides. Every disagreement is an AssertionError that says the step."""

    def __init__(self, seed: int, policy: str | None = None) -> None:
        self.made = Draw(seed)
        self.draw = self.made.draw
        self.policy = policy or self.draw.choice((*EXACT, "first", "firstnodex"))
        graph = self.made.graph
        view, subsystems = "CA", ("containment",)
        if "power" in self.made.roots and self.made.chance(0.7):
            view, subsystems = self.draw.choice((("C+PA", ("containment", "power")), ("PA", ("power",))))
        self.view, flexible = view, self.made.chance(0.4)
        self.document = self.made.document()
        self.world = World(graph, self.made.roots, subsystems, self.policy, flexible)
        self.said: list[Any] = []
        self.use(self.draw.choice(FILTERS))

    def use(self, filters: dict[str, list[str]] | None) -> None:
        """Begin with other prune filters."""
        self.filters = filters
        self.system = System(from_jgf(self.document), self.policy, self.view, filters, self.world.flexible)

    def play(self, steps: int = 12, without: tuple[str, ...] = ()) -> None:
        """Some steps of a history, but none of these; after each, nothing is sold twice."""
        for _ in range(steps):
            step = self.draw.choices(list(STEPS), [often if step not in without else 0 for step, often in STEPS.items()])[0]
            self.said.append(step)
            getattr(self, step)()
            problems = list(oversold(self.world))
            assert not problems, self.story(problems)

    def story(self, *more: Any) -> str:
        head = f"{self.policy} {self.view} flexible={self.world.flexible} filters={self.filters}"
        return "\n".join([head, *map(str, self.said), *map(str, more)])

    def uses_of(self, outcome: Outcome) -> Uses | None:
        if outcome.selection is None:
            return None
        return {vertex.outer: (units, exclusive) for vertex, units, exclusive in outcome.selection.taken.values()}

    def agree(self, jobspec: Mapping[str, Any], outcome: Outcome, wanted: tuple[int, Uses] | None) -> None:
        """The same time, and the same vertices where the policy says which."""
        uses = self.uses_of(outcome)
        got = None if uses is None else (outcome.start, uses)
        self.said.append(f"got {got}, wanted {wanted}")
        if self.policy in EXACT:
            assert got == wanted, self.story()
        elif not self.vague(jobspec):
            assert (got and got[0]) == (wanted and wanted[0]), self.story()

    def vague(self, jobspec: Mapping[str, Any]) -> bool:
        """Does it depend on what is looked at first whether it fits?"""
        shared = any(degree > 1 for _, degree in self.made.graph.in_degree())
        return self.policy not in EXACT and (self.made.uneven or shared or crowded(jobspec["resources"]))

    def request(self) -> tuple[dict[str, Any], Any]:
        jobspec = self.made.jobspec()
        self.said.append(jobspec)
        return jobspec, compile_request(jobspec)

    def note(self, outcome: Outcome) -> None:
        if outcome.state in ("ALLOCATED", "RESERVED"):
            uses = self.uses_of(outcome)
            assert uses is not None
            self.world.jobs[outcome.job] = RefJob(outcome.start, outcome.end, uses, outcome.state == "RESERVED")

    def at(self, jobspec: Mapping[str, Any], **how: bool) -> tuple[int, Uses] | None:
        uses = Reference(self.world, jobspec, 0, **how).answer()
        return None if uses is None else (0, uses)

    def allocate(self) -> None:
        jobspec, request = self.request()
        wanted = self.at(jobspec)
        outcome = self.system.allocate(request, satisfiability=self.made.chance(0.5))
        self.agree(jobspec, outcome, wanted)
        assert not outcome.impossible or self.vague(jobspec) or self.at(jobspec, idle=True) is None, self.story()
        self.note(outcome)

    def reserve(self) -> None:
        jobspec, request = self.request()
        wanted = earliest(self.world, jobspec)
        outcome = self.system.reserve(request)
        self.agree(jobspec, outcome, wanted)
        assert not outcome.impossible or self.vague(jobspec) or self.at(jobspec, idle=True, all_up=True) is None, self.story()
        self.note(outcome)

    def preview(self) -> None:
        jobspec, request = self.request()
        future = self.made.chance(0.5)
        wanted = earliest(self.world, jobspec) if future else self.at(jobspec)
        self.agree(jobspec, self.system.preview(request, future), wanted)

    def satisfiable(self) -> None:
        jobspec, request = self.request()
        could = self.system.satisfiable(request)
        assert self.vague(jobspec) or could == (self.at(jobspec, idle=True, all_up=True) is not None), self.story()

    def cancel(self) -> None:
        if self.world.jobs:
            job = self.draw.choice(sorted(self.world.jobs))
            self.said.append(job)
            self.system.cancel(job)
            del self.world.jobs[job]

    def part(self) -> None:
        """Give back a sub-tree. What was shared above it may go with it, nothing else."""
        now = [job for job, record in sorted(self.world.jobs.items()) if not record.reserved]
        if not now:
            return
        job = self.draw.choice(now)
        record = self.world.jobs[job]
        top = self.draw.choice(sorted(record.uses))
        self.said.append((job, top))
        below = self.reached(top, self.world.subsystems[0])
        self.system.cancel_on(job, [self.vertex(top)])
        self.keep(job, below)

    def vertex(self, name: str) -> Vertex:
        return next(v for v in self.system.tree.vertices if v.outer == name)

    def reached(self, top: str, subsystem: str) -> set[str]:
        """It and all below it in a subsystem."""
        edges = [edge[:2] for edge in self.made.graph.edges(keys=True) if edge[2] == subsystem]
        return {top} | nx.descendants(nx.DiGraph([(top, top), *edges]), top)

    def keep(self, job: int, gone: set[str]) -> None:
        """A job has lost what is gone. What was shared above it may have gone with it, nothing else."""
        record = self.world.jobs[job]
        left: Uses = {}
        if job in self.system.ledger.jobs:
            left = {v.outer: (units, exclusive) for v, units, exclusive in self.system.job(job).uses.values()}
        kept = {v: use for v, use in record.uses.items() if v not in gone}
        assert {v for v, use in left.items() if use[1]} == {v for v, use in kept.items() if use[1]}, self.story(left, kept)
        assert left.keys() <= kept.keys(), self.story(left, kept)
        if left:
            record.uses = left
        else:
            del self.world.jobs[job]

    def remove(self) -> None:
        """Take a sub-tree out; jobs on it go on with the rest."""
        roots = set(self.made.roots.values())
        subsystem = self.world.subsystems[0]
        name = self.draw.choice(sorted(self.reached(self.made.roots[subsystem], subsystem)))
        gone = self.reached(name, subsystem)
        gone |= {v for one in gone for v in self.reached(one, "containment")}
        if gone & roots or len(self.reached(self.made.roots[subsystem], subsystem)) - len(gone) < 3:
            return
        self.said.append(name)
        jobs = [job for job, record in self.world.jobs.items() if not gone.isdisjoint(record.uses)]
        assert self.system.remove([self.vertex(name)]) == sorted(jobs), self.story()
        for job in jobs:
            self.keep(job, gone)
        self.made.graph.remove_nodes_from(gone)

    def impose(self) -> None:
        """Put a job where it was, under another number; that is refused while it is there and has something alone."""
        if not self.world.jobs:
            return
        job = self.draw.choice(sorted(self.world.jobs))
        record = self.world.jobs[job]
        state = "RESERVED" if record.reserved else "ALLOCATED"
        wanted = {v.ordinal: (v, *record.uses[v.outer]) for v in self.system.tree.vertices if v.outer in record.uses}
        number, length = self.system.next_job, record.end - record.start
        self.said.append((job, number))
        if any(exclusive for _, exclusive in record.uses.values()):
            with contextlib.suppress(Rejected):
                self.system.impose(number, wanted, state, record.start, length)
                raise AssertionError(self.story("sold twice"))
        self.system.cancel(job)
        outcome = self.system.impose(number, wanted, state, record.start, length)
        uses = self.uses_of(outcome)
        assert uses is not None
        assert uses.items() >= record.uses.items(), self.story(uses)
        assert all(not exclusive for v, (_, exclusive) in uses.items() if v not in record.uses), self.story(uses)
        del self.world.jobs[job]
        self.world.jobs[number] = RefJob(record.start, record.end, uses, record.reserved)

    def prop(self) -> None:
        """A node gets a property, or another value of it."""
        if nodes := self.made.of("node"):
            name, key, value = self.draw.choice(nodes), self.draw.choice(("ssd", "perf_class")), self.draw.choice("1239x")
            self.said.append((name, key, value))
            self.made.graph.nodes[name]["properties"][key] = value
            self.vertex(name).table("properties")[key] = value

    def down(self) -> None:
        name = self.draw.choice(sorted(self.made.graph.nodes))
        up = self.made.chance(0.5)
        self.said.append((name, up))
        self.made.graph.nodes[name]["up"] = up
        self.vertex(name).up = up
