"""A slow, obvious matcher on a networkx graph, to hold the matcher of trees against.

It shares no code with it: no compiled requests, no spans, sums, pruning, stopping early, or tables of users. What is held and
who is where is counted on the jobs, second by second where anything changes. Requests are the jobspec's plain values. It is
written from the semantics of Fluxion (RFC 14, and the peer's README): the rules stand in the functions' docstrings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import networkx as nx

Want = Mapping[str, Any]
Uses = dict[str, tuple[int, bool]]  # vertex -> (units, exclusive)
BYTES = {"MB": 1, "GB": 1024, "TB": 1024 * 1024}
FOREVER = 1 << 40


@dataclass
class RefJob:
    """What a job uses, and when: [start, end)."""

    start: int
    end: int
    uses: Uses
    reserved: bool = False


@dataclass
class World:
    """graph: a MultiDiGraph, edges keyed by subsystem and in order; vertices have type, id, name, size, unit, rank, properties, up.

    subsystems: those that are looked at, with their roots; the first dominates.
    """

    graph: nx.MultiDiGraph
    roots: dict[str, str]
    subsystems: tuple[str, ...] = ("containment",)
    policy: str = "low"
    flexible: bool = False
    jobs: dict[int, RefJob] = field(default_factory=dict)

    def children(self, vertex: str) -> list[str]:
        """Right below it, subsystem by subsystem, in the order of edges, each once."""
        found = [
            below for subsystem in self.subsystems for _, below, key in self.graph.out_edges(vertex, keys=True) if key == subsystem
        ]
        return list(dict.fromkeys(found))

    def below(self, vertex: str) -> set[str]:
        """It and all below it."""
        seen = {vertex}
        while more := {child for one in seen for child in self.children(one)} - seen:
            seen |= more
        return seen

    def moments(self, start: int, end: int) -> list[int]:
        """Where anything may change in a window."""
        return sorted({start, *(job.start for job in self.jobs.values() if start < job.start < end)})

    def held(self, vertex: str, start: int, end: int) -> int:
        """The most units that are held at one time of a window."""
        return max(
            sum(
                job.uses[vertex][0]
                for job in self.jobs.values()
                if job.start <= moment < job.end and job.uses.get(vertex, (0, False))[1]
            )
            for moment in self.moments(start, end)
        )

    def in_use(self, vertices: set[str], start: int, end: int) -> bool:
        """Is any job on any of them in the window?"""
        return any(job.start < end and start < job.end and not vertices.isdisjoint(job.uses) for job in self.jobs.values())


@dataclass(eq=False)
class Offer:
    """A vertex, or (None) a bundle, that could serve; above: the containers that were skipped, the outermost first."""

    vertex: str | None
    count: int
    score: tuple[int, int]
    parts: list[tuple[Offer, int]]
    exclusive: bool
    whole: bool
    factor: tuple[int, int] = (1, 1)
    above: list[str] = field(default_factory=list)

    def made_of(self) -> set[str | None]:
        """Its vertex, or those of the parts of a bundle."""
        return {self.vertex} if self.vertex is not None else {part.vertex for part, _ in self.parts}


def is_slot(want: Want) -> bool:
    return want["type"] in ("slot", "xor_slot", "or_slot")


def mixes(wants: Sequence[Want], kind: str) -> list[Want]:
    """Siblings that may be mixed, slots of this kind, as one want, which counts as the last of them says."""
    inner = [{**want, "with": mixes(want["with"], kind)} if "with" in want else want for want in wants]
    some = [want for want in inner if want["type"] == kind]
    if len(some) < 2:
        return inner
    union = {part["type"]: part for slot in some for part in slot["with"]}
    one = {"type": "or_slot", "count": some[-1]["count"], "with": list(union.values()), "of": some}
    at = next(i for i, want in enumerate(inner) if want in some)
    return [one if i == at else want for i, want in enumerate(inner) if i == at or want["type"] != kind]


def allowed(count: Any, available: int) -> int:
    """RFC 14: the largest acceptable amount that is there; 0 if there is none."""
    if isinstance(count, int):
        return count if count <= available else 0
    if isinstance(count, str) and count.endswith("+"):
        return available if available >= int(count[:-1]) else 0
    if isinstance(count, str):
        amounts = [n for part in count.split(",") for n in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)]
        return max([n for n in amounts if n <= available], default=0)
    low, high = count["min"], min(count.get("max", available), available)
    operator, operand = count.get("operator", "+"), count.get("operand", 1)
    best, n = 0, low
    while n <= high:
        best = n
        n = n + operand if operator == "+" else n * operand if operator == "*" else n**operand
    return best


def fit(there: Mapping[str, int], need: Mapping[str, int]) -> int:
    """How often one is there."""
    return min((there[kind] // n for kind, n in need.items()), default=0)


def most(count: Any) -> int:
    """The largest acceptable amount there is."""
    return allowed(count, 1 << 31)


class Reference:
    """One question: what does a jobspec get in [start, start + its duration)? idle: without jobs; all_up: with all that is down."""

    def __init__(self, world: World, jobspec: Mapping[str, Any], start: int, *, idle: bool = False, all_up: bool = False) -> None:
        self.world = world
        self.graph = world.graph
        system = jobspec["attributes"]["system"]
        self.start, self.end = start, start + (system.get("duration") or FOREVER)
        self.constraint = system.get("constraints")
        self.idle, self.all_up = idle, all_up
        self.wants: Sequence[Want] = mixes(jobspec["resources"], "or_slot")
        if world.flexible:
            self.wants = mixes(self.wants, "slot")
        self.root = world.roots[world.subsystems[0]]

    def answer(self) -> Uses | None:
        """What is used, or None. The root is shared unless it is part of the answer."""
        pool = self.visit(self.root, self.wants, named=False, exclusive=False)
        chosen = self.choose(pool, self.wants)
        if chosen is None:
            return None
        if self.collide(chosen):
            return None
        uses: Uses = {self.root: (self.graph.nodes[self.root]["size"], False)}
        for offer, units in chosen:
            self.place(offer, units, uses)
        return uses

    # --- what could serve

    def visit(self, vertex: str, wants: Sequence[Want], *, named: bool, exclusive: bool) -> dict[Any, list[Offer]]:
        """A vertex of a wanted type serves; any other is passed through while no type was named above it, and only then."""
        data = self.graph.nodes[vertex]
        want = next((w for w in wants if w["type"] == data["type"]), None)
        if want is None and named:
            return {}
        whole_node = self.world.policy.endswith("nodex") and data["type"] == "node"
        exclusive = exclusive if want is None else exclusive or bool(want.get("exclusive")) or whole_node
        if not self.may_use(vertex):
            return {}
        free = self.free(vertex, exclusive or whole_node)
        if free <= 0:
            return {}
        if want is None:
            return self.passed_through(vertex, wants, exclusive)
        parts = self.parts(vertex, want.get("with", []), exclusive)
        factor = self.factor(want, vertex)
        if parts is None or factor is None or free * factor[0] // factor[1] == 0:
            return {}
        whole = bool(want.get("exclusive")) or whole_node
        offer = Offer(vertex, free * factor[0] // factor[1], self.score(vertex), parts, exclusive, whole, factor)
        return {want["type"]: [offer]}

    def may_use(self, vertex: str) -> bool:
        """Up, and allowed by the constraint, which is about nodes and storage nodes."""
        data = self.graph.nodes[vertex]
        if not data["up"] and not self.all_up:
            return False
        return data["type"] not in ("node", "storage_node") or self.constraint is None or self.obeys(self.constraint, data)

    def obeys(self, constraint: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
        """RFC 31, as far as it is drawn here."""
        [(operator, values)] = constraint.items()
        if operator == "properties":
            return all((v[1:] not in data["properties"]) if v[0] == "^" else (v in data["properties"]) for v in values)
        if operator == "hostlist":
            return data["name"] in values
        if operator == "ranks":
            return str(data["rank"]) in values
        inner = [self.obeys(one, data) for one in values]
        return not all(inner) if operator == "not" else all(inner) if operator == "and" else any(inner)

    def free(self, vertex: str, alone: bool) -> int:
        """Units that nobody holds; 0 where an exclusive use would not be alone with it and all below it."""
        if self.idle:
            return int(self.graph.nodes[vertex]["size"])
        if alone and self.world.in_use(self.world.below(vertex), self.start, self.end):
            return 0
        return int(self.graph.nodes[vertex]["size"]) - self.world.held(vertex, self.start, self.end)

    def factor(self, want: Want, vertex: str) -> tuple[int, int] | None:
        """How many of the wanted unit one of the vertex' units is."""
        asked, there = want.get("unit", ""), self.graph.nodes[vertex]["unit"]
        if not asked or not there or asked == there:
            return 1, 1
        if asked not in BYTES or there not in BYTES:
            return None
        return BYTES[there], BYTES[asked]

    def score(self, vertex: str) -> tuple[int, int]:
        """(of the node that was passed through, of the vertex itself)."""
        return 0, self.graph.nodes[vertex]["id"] + 1

    def passed_through(self, vertex: str, wants: Sequence[Want], exclusive: bool) -> dict[Any, list[Offer]]:
        """A slot is packed where all types that are in it are right below; everything else is looked for further down."""
        types = {self.graph.nodes[child]["type"] for child in self.world.children(vertex)}
        here = [w for w in wants if is_slot(w) and any({part["type"] for part in one["with"]} <= types for one in w.get("of", [w]))]
        further = [w for w in wants if w not in here]
        pool, used = self.bundles(vertex, here, further, named=False)
        for key, offers in self.look_below(vertex, further, named=False, exclusive=exclusive, used=used).items():
            pool.setdefault(key, []).extend(offers)
        for offer in [offer for offers in pool.values() for offer in offers]:
            offer.above.insert(0, vertex)
            data = self.graph.nodes[vertex]
            if data["type"] == "node" and "node" in self.world.policy:
                offer.score = (offer.score[0] + data["id"] + 1, offer.score[1])
        return pool

    def look_below(
        self, vertex: str, wants: Sequence[Want], *, named: bool, exclusive: bool, used: frozenset[str | None] = frozenset()
    ) -> dict[Any, list[Offer]]:  # fmt: skip
        """What those right below can serve, together, but for what is used in slots beside it. What two ways lead to is there
        once."""
        pool: dict[Any, list[Offer]] = {}
        for child in self.world.children(vertex) if wants else ():
            for key, offers in self.visit(child, wants, named=named, exclusive=exclusive).items():
                there = {vertex for offer in pool.get(key, []) for vertex in offer.made_of()}
                there |= used if isinstance(key, str) else set()
                pool.setdefault(key, []).extend(offer for offer in offers if there.isdisjoint(offer.made_of()))
        return pool

    def parts(self, vertex: str, wants: Sequence[Want], exclusive: bool) -> list[tuple[Offer, int]] | None:
        """What a vertex needs below it, or None."""
        others = [w for w in wants if not is_slot(w)]
        pool, used = self.bundles(vertex, [w for w in wants if is_slot(w)], others, named=True)
        pool |= self.look_below(vertex, others, named=True, exclusive=exclusive, used=used)
        return self.choose(pool, wants)

    def bundles(
        self, vertex: str, slots: Sequence[Want], beside: Sequence[Want], *, named: bool
    ) -> tuple[dict[Any, list[Offer]], frozenset[str | None]]:  # fmt: skip
        """As many of each slot as fit, from whole vertices, and what those that are no alternatives use up: slots and types beside
        them have others."""
        pool: dict[Any, list[Offer]] = {}
        used: set[str | None] = set()
        for slot in slots:
            found = self.mixed(vertex, slot, used, named) if "of" in slot else self.packed(vertex, slot, used, named)
            crowded = len(slots) > 1 or {part["type"] for part in slot["with"]} & {want["type"] for want in beside}
            if crowded and not self.is_alternative(slot):
                found = found[: most(slot["count"])]
                used |= {part.vertex for bundle in found for part, _ in bundle.parts}
            pool[id(slot)] = found
        return pool, frozenset(used)

    def packed(self, vertex: str, slot: Want, used: set[str | None], named: bool) -> list[Offer]:
        """Greedily, in the policy's order. How much of a part is in each bundle is the most that is there in all."""
        below = self.look_below(vertex, slot["with"], named=named, exclusive=True)
        queues: dict[str, list[Offer]] = {}
        each: list[tuple[str, int]] = []
        for part in slot["with"]:
            kind = part["type"]
            if kind not in queues:
                free = [offer for offer in below.get(kind, []) if offer.vertex not in used]
                queues[kind] = self.ordered(free, most(part["count"]) * most(slot["count"]))
            each.append((kind, allowed(part["count"], sum(offer.count for offer in queues[kind]))))
        if not all(count for _, count in each):
            return []
        limit = min(sum(offer.count for offer in queues[kind]) // count for kind, count in each)
        made: list[Offer] = []
        while len(made) < min(limit, most(slot["count"])):
            parts: list[tuple[Offer, int]] = []
            for kind, count in each:
                got = 0
                while got < count:
                    if not queues[kind]:
                        return made
                    offer = queues[kind].pop(0)
                    parts.append((offer, offer.count))
                    got += offer.count
            score = (sum(offer.score[0] for offer, _ in parts), sum(offer.score[1] for offer, _ in parts))
            made.append(Offer(None, 1, score, parts, exclusive=True, whole=False))
        return made

    def mixed(self, vertex: str, group: Want, used: set[str | None], named: bool) -> list[Offer]:
        """The mix of which there is most; where there is a choice, the first alternative. It is found by trying all of them."""
        there: dict[str, int] = {}
        needs: list[dict[str, int]] = []
        for slot in group["of"]:
            below = self.look_below(vertex, slot["with"], named=named, exclusive=True)
            stock = {kind: sum(o.count for o in offers if o.vertex not in used) for kind, offers in below.items()}
            each = [(part["type"], allowed(part["count"], stock.get(part["type"], 0))) for part in slot["with"]]
            needs.append({} if not all(n for _, n in each) else {k: sum(n for kind, n in each if kind == k) for k, _ in each})
            there = {kind: max(there.get(kind, 0), stock.get(kind, 0)) for kind in {*there, *stock}}

        chosen: tuple[int, ...] = ()
        for some in product(*(range(fit(there, need) + 1) for need in needs[:-1])):
            left = {kind: n - sum(k * need.get(kind, 0) for k, need in zip(some, needs, strict=False)) for kind, n in there.items()}
            if min(left.values(), default=0) >= 0:
                mix = (*some, fit(left, needs[-1]))
                chosen = max(chosen, mix, key=lambda mix: (sum(mix), mix))
        taken, made = set(used), list[Offer]()
        for i, slot in enumerate(group["of"]):
            some = self.packed(vertex, {**slot, "count": chosen[i]}, taken, named) if chosen[i] else []
            taken |= {part.vertex for bundle in some for part, _ in bundle.parts}
            made += some
        return made

    # --- which of it is taken

    def is_alternative(self, want: Want) -> bool:
        return bool(want["type"] == "xor_slot")

    def choose(self, pool: dict[Any, list[Offer]], wants: Sequence[Want]) -> list[tuple[Offer, int]] | None:
        """Everything that is wanted, or None; of alternatives the first of which there is enough. A type is asked for once."""
        alternatives = [w for w in wants if self.is_alternative(w)]
        enough = [w for w in alternatives if allowed(w["count"], len(pool.get(id(w), [])))]
        if alternatives and not enough:
            return None
        kinds = [w["type"] for w in wants if not is_slot(w)]
        if len(set(kinds)) < len(kinds):
            return None
        chosen: list[tuple[Offer, int]] = []
        for want in wants:
            if self.is_alternative(want) and want is not enough[0]:
                continue
            offers = pool.get(id(want) if is_slot(want) else want["type"], [])
            left = allowed(want["count"], sum(offer.count for offer in offers))
            if not left:
                return None
            for offer in self.ordered(offers, left):
                units = min(left, offer.count)
                if units:
                    chosen.append((offer, units))
                left -= units
        return chosen

    def ordered(self, offers: Sequence[Offer], k: int) -> list[Offer]:
        """The policy: by id; nodes before ids; runs of ids; classes that are alike. Equal ones as they are in the graph."""
        policy = self.world.policy
        if policy in ("high", "hinode", "hinodex"):
            return sorted(offers, key=lambda o: (-o.score[0], -o.score[1]))
        by_id = sorted(offers, key=lambda o: o.score)
        if policy == "locality":
            rows: list[list[Offer]] = []
            for offer in by_id:
                if rows and offer.score[1] - rows[-1][-1].score[1] <= 1:
                    rows[-1].append(offer)
                else:
                    rows.append([offer])
            sizes = [sum(offer.count for offer in row) for row in rows]
            enough = [row for row, size in zip(rows, sizes, strict=True) if size >= k]
            best = min(enough, key=lambda row: sum(offer.count for offer in row)) if enough else None
            if best is not None:
                rows = [best, *[row for row in rows if row is not best]]
            else:
                rows.sort(key=lambda row: -sum(offer.count for offer in row))
            return [offer for row in rows for offer in row]
        if policy == "variation":
            return self.alike(by_id, k)
        return by_id if policy in ("low", "lonode", "lonodex") else list(offers)

    def alike(self, by_id: list[Offer], k: int) -> list[Offer]:
        """The k neighbours in class whose classes differ least come first."""

        def level(offer: Offer) -> int:
            value = self.graph.nodes[offer.vertex]["properties"].get("perf_class", "") if offer.vertex is not None else ""
            return int(value) if value.isdigit() else 9999

        ranked = sorted(by_id, key=level)
        if len(ranked) <= k or any(o.vertex is None or self.graph.nodes[o.vertex]["type"] != "node" for o in ranked):
            return ranked
        windows = range(len(ranked) - k + 1)
        spread = {i: 9999 if level(ranked[i + k - 1]) == 9999 else level(ranked[i + k - 1]) - level(ranked[i]) for i in windows}
        first = min(windows, key=lambda i: spread[i])
        return ranked[first:] + ranked[:first]

    def collide(self, parts: Sequence[tuple[Offer, int]]) -> bool:
        """Did two parts of the request come to the same vertex, which one is to have alone?"""
        alone = [vertex for offer, _ in parts for vertex in self.all_of(offer, True)]
        shared = [vertex for offer, _ in parts for vertex in self.all_of(offer, False)]
        if len(set(alone)) < len(alone) or set(alone) & set(shared):
            return True
        return any(self.collide(offer.parts) for offer, _ in parts)

    def all_of(self, offer: Offer, exclusive: bool) -> list[str]:
        """What an offer has to itself, or what of it is shared."""
        if offer.vertex is not None and offer.whole:
            return list(self.world.below(offer.vertex)) if exclusive else []
        own = [offer.vertex] if offer.vertex is not None and offer.exclusive is exclusive else []
        return own + [vertex for part, _ in offer.parts for vertex in self.all_of(part, exclusive)]

    def place(self, offer: Offer, units: int, uses: Uses) -> None:
        """What an offer uses: containers on the way are shared, what was asked for as a whole is taken with all below it."""
        for above in offer.above:
            if self.world.policy.endswith("nodex") and self.graph.nodes[above]["type"] == "node":
                self.take_all(above, uses)
            else:
                self.take(above, self.graph.nodes[above]["size"], False, uses)
        if offer.vertex is not None:
            if offer.whole:
                self.take_all(offer.vertex, uses)
            more, less = offer.factor
            mine = self.graph.nodes[offer.vertex]["size"] if offer.exclusive else -(-units * less // more)
            self.take(offer.vertex, mine, offer.exclusive, uses)
        for part, part_units in offer.parts:
            self.place(part, part_units, uses)

    def take(self, vertex: str, units: int, exclusive: bool, uses: Uses) -> None:
        """Exclusive use wins."""
        if vertex not in uses or (exclusive and not uses[vertex][1]):
            uses[vertex] = (units, exclusive)

    def take_all(self, vertex: str, uses: Uses) -> None:
        for one in self.world.below(vertex):
            self.take(one, self.graph.nodes[one]["size"], True, uses)


def earliest(world: World, jobspec: Mapping[str, Any]) -> tuple[int, Uses] | None:
    """Now, else at the first end of a job at which it fits; None where it fits at none, or could not even on an idle system."""
    if Reference(world, jobspec, 0, idle=True).answer() is None:
        return None
    for start in (0, *sorted({job.end for job in world.jobs.values()})):
        uses = Reference(world, jobspec, start).answer()
        if uses is not None:
            return start, uses
    return None


def oversold(world: World) -> Iterator[str]:
    """Who holds more than there is, or has company on what was to be theirs alone."""
    for vertex, data in world.graph.nodes(data=True):
        for moment in {job.start for job in world.jobs.values()}:
            on = [j.uses[vertex] for j in world.jobs.values() if j.start <= moment < j.end and vertex in j.uses]
            units = sum(units for units, exclusive in on if exclusive)
            if units > data["size"] or (units and len(on) > 1):
                yield f"{data['name']} at {moment}: {on}"
