"""The search of `match` on a pool of a live instance: compact vertices, what is free now, and what becomes of the answer.

What differs from a search on a tree in time: leaves can be divided, singles by id and quantities by unit; what is named and is a
leaf or a quantity is held, in a slot or not, unless `exclusive: false` is said; a container that is held is held with all below
it; inside a node levels may be left out, as flat requests do; and a request may begin at the root of any sub-system. The order of
looking is that of the graph.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol

from ..stock import lowest, positions
from .layout import CONTAINER, CORE, GPU, LEAF, MEMORY, NODE, Layout, in_units, roots_for
from .match import Candidate, Pool, Search, Supply, Window
from .moving import Moved, moved
from .needs import Need, TreeRequest, ratio, ways_below
from .once import Progress
from .policies import First, HiNode, LoNode, Policy
from .spent import Spent
from .vertices import Vertex, below

NOW = Window(0, 1)
MAX_STEPS = 200_000  # vertices looked at and slots made by one search; what is not found by then is not found
MAX_SLOTS = 1 << 12  # made in one node
KNOWN_SIZE = 8192  # answers for nodes that are remembered


class Stand(Protocol):
    """What is free, as the search reads it: of a pool, or of one that nobody uses."""

    layout: Layout
    among: int
    idle: int
    all_up: bool

    def cores(self, at: int) -> int: ...
    def gpus(self, at: int) -> int: ...
    def memory(self, at: int) -> int: ...
    def drawn(self, ordinal: int) -> tuple[int, int]: ...
    def drawn_in(self, at: int) -> object: ...
    def is_plain(self, at: int) -> bool: ...
    def down(self, ordinal: int) -> bool: ...
    def in_use(self, vertex: Vertex) -> bool: ...
    def serving(self, need: Need) -> int: ...
    def allows(self, vertex: Vertex) -> bool: ...


class LiveSearch(Search):
    """policy, subsystems, ...: as `match.Search` has them. steps: how far it may still go."""

    def __init__(self, stand: Stand, policy: Policy, request: TreeRequest) -> None:
        self.policy = policy
        self.stand = stand
        self.layout = stand.layout
        self.subsystems = stand.layout.subsystems
        self.simple = False
        self.apart = stand.layout.apart
        self.prune_by = ()
        self.request = request
        self.window = NOW
        self.steps = MAX_STEPS
        self.spent: Spent | None = None
        self.outer: Spent | None = None  # what was spent before the vertex that is looked at
        self._sets: dict[tuple[Need, ...], int] = {}

    def answer(self, needs: Sequence[Need] = ()) -> list[tuple[Candidate, int]] | None:
        """What the needs of the request get, or only these; None for nothing."""
        pool: Pool = {}
        needs = needs or self.request.needs
        types = [need.children[0].type if need.is_slot else need.type for need in needs]
        for subsystem in roots_for(self.layout, types):
            here = [n for n, kind in zip(needs, types, strict=True) if self.layout.homes.get(kind) == subsystem]
            self.visit(self.layout.tree.roots[subsystem], here, True, False, pool)
        return self.resolve(pool, needs)

    def count(self, need: Need) -> int:
        """How many of one need there are, slots for a slot."""
        pool: Pool = {}
        kind = need.children[0].type if need.is_slot else need.type
        for subsystem in roots_for(self.layout, [kind]):
            self.visit(self.layout.tree.roots[subsystem], (need,), True, False, pool)
        return sum(candidate.count for candidate in pool.get(need if need.is_slot else need.type, ()))

    # -- what there is

    def visit(self, u: Vertex, needs: Sequence[Need], pristine: bool, exclusive: bool, pool: Pool) -> None:
        kind = u.type
        need = next((n for n in needs if n.type == kind), None)
        if need is None and not pristine:
            return
        whole_node = self.policy.whole_nodes and kind == "node"
        exclusive = exclusive or (need is not None and (bool(need.exclusive) or whole_node))
        if not self.admits(u):
            return
        self.steps -= 1
        available = self.available(u, need, exclusive, whole_node)
        if available <= 0 or self.steps < 0:
            return
        outer, further = self.spent, self.outer
        self.outer = outer
        if len(needs if need is None else need.children) > 1:  # they may want the same: each gets what the one before it left
            self.spent = outer.copy() if outer is not None else Spent()
        if need is None:
            self._skip(u, needs, exclusive, pool)
        else:
            before = len(pool.get(kind, ()))
            self._serve(u, need, available, exclusive, pool)
            if u.ids and len(pool.get(kind, ())) > before:
                pool[kind][-1].ids = self._free_ids(u)
        self.spent, self.outer = outer, further

    def parts(self, u: Vertex, need: Need, exclusive: bool) -> Sequence[tuple[Candidate, int]] | None:
        key = self._alike(u, (need, exclusive))
        if key is None:
            return self._parts(u, need, exclusive)
        there, parts = self.layout.known.get(key) or self._remember(key, u, self._parts(u, need, exclusive))
        return parts if there is u or not parts else Moved(parts, self.layout, there, u)

    def _parts(self, u: Vertex, need: Need, exclusive: bool) -> Sequence[tuple[Candidate, int]] | None:
        """With the first alternative that leaves enough for what is beside it."""
        before = self.spent
        parts = None
        for way in ways_below(need):
            self.spent = before.copy() if before is not None else None
            parts = super().parts(u, way, exclusive)
            if parts is not None:
                break
        self.spent = before
        return parts

    def inside(self, u: Vertex, needs: Sequence[Need], exclusive: bool) -> Pool:
        key = self._alike(u, (exclusive, *needs))
        if key is None:
            return super().inside(u, needs, exclusive)
        there, found = self.layout.known.get(key) or self._remember(key, u, super().inside(u, needs, exclusive))
        return {kind: [moved(one, self.layout, there, u) for one in candidates] for kind, candidates in found.items()}

    def _remember(self, key: object, u: Vertex, found: Any) -> tuple[Vertex, Any]:
        """What was found in `u` holds for nodes that are like it; not where the search had to give up."""
        if self.steps >= 0:
            if len(self.layout.known) >= KNOWN_SIZE:
                self.layout.known.clear()
            self.layout.known[key] = (u, found)
        return u, found

    def _alike(self, u: Vertex, asked: tuple[object, ...]) -> tuple[object, ...] | None:
        """What tells the answers for nodes apart; None where more would."""
        layout = self.layout
        if layout.kinds[u.ordinal] != NODE or not (self.outer is None or not self.outer.units):
            return None
        at = layout.position[u.ordinal]
        here = layout.likeness(at)
        if here < 0 or not self.stand.is_plain(at):
            return None
        stand = self.stand
        return (here, stand.cores(at), stand.gpus(at), stand.memory(at), stand.drawn_in(at), self.policy, asked)

    def _bundle(self, u: Vertex, slots: Sequence[Need], beside: Sequence[Need], pristine: bool, pool: Pool) -> set[int]:
        used: set[int] = set()
        types = {need.type for need in beside}
        several = sum(map(self._is_alternative, slots)) > 1
        for slot in slots:
            found = self._pack(u, slot, pristine, used)
            if self.spent is not None and not (several and self._is_alternative(slot)):
                if slot.alternatives and (len(slots) > 1 or any(part.type in types for part in slot.children)):
                    del found[slot.high :]  # more than are wanted are offered, for the policy to choose: others want some of it
                for one in found:
                    self.spent.spend(self.layout, one.parts, used)
            pool.setdefault(slot, []).extend(found)
        return set()  # what is spent is known already

    def _pack(self, u: Vertex, slot: Need, pristine: bool, used: set[int]) -> list[Candidate]:
        self.most = MAX_SLOTS if self.layout.position[u.ordinal] >= 0 else Search.most
        found = super()._pack(u, slot, pristine, used)
        self.steps -= len(found)
        return found

    def _mix(self, u: Vertex, group: Need, pristine: bool, used: set[int]) -> list[Candidate]:
        before = self.spent
        self.spent = before.copy() if before is not None else Spent()
        found = super()._mix(u, group, pristine, used)
        self.spent = before
        return found

    def _packed(self, u: Vertex, slot: Need, pristine: bool, used: set[int]) -> list[Candidate]:
        found = self._pack(u, slot, pristine, used)
        assert self.spent is not None
        for one in found:
            self.spent.spend(self.layout, one.parts, used)
        return found

    def admits(self, u: Vertex) -> bool:
        """Is it in use at all, and what the constraint allows?"""
        stand = self.stand
        if not stand.all_up and stand.down(u.ordinal):
            return False
        if self.layout.kinds[u.ordinal] == NODE and not stand.among >> self.layout.position[u.ordinal] & 1:
            return False
        return not self.request.constrained or stand.allows(u)

    def available(self, u: Vertex, need: Need | None, exclusive: bool, whole_node: bool) -> int:
        """Units of `u` that can be had, 0 where others are in the way."""
        stand, kind = self.stand, self.layout.kinds[u.ordinal]
        at = self.layout.position[u.ordinal]
        if need is None:
            return 0 if whole_node and kind in (CONTAINER, NODE) and stand.in_use(u) else max(u.size, 1)
        if need.exclusive and not u.ids and (stand.in_use(u) or (self.spent is not None and u.ordinal in self.spent.units)):
            return 0
        if kind in (CORE, GPU):
            return self._free_ids(u).bit_count()
        if kind == MEMORY:
            return self._megabytes(u, at)
        if kind != LEAF and exclusive:
            return 0 if stand.in_use(u) or (self.spent is not None and self.spent.touches(self.layout, u)) else u.size
        if u.ids:
            return self._free_ids(u).bit_count()
        spent = self.spent.units.get(u.ordinal, 0) if self.spent is not None else 0
        return u.size - stand.drawn(u.ordinal)[0] - spent

    def _megabytes(self, u: Vertex, at: int) -> int:
        free = self.stand.memory(at)
        if at in self.layout.memories:
            factor = in_units(u, 1, "")
            assert factor is not None
            spent = self.spent.units.get(u.ordinal, 0) if self.spent is not None else 0
            return min(free, (u.size - self.stand.drawn(u.ordinal)[0]) * factor[1] - spent)
        return free - self.spent.megabytes.get(at, 0) if self.spent is not None else free

    def ratio(self, u: Vertex, need: Need) -> tuple[int, int] | None:
        if self.layout.kinds[u.ordinal] == MEMORY:
            return in_units(u, 1, need.unit)
        return ratio(need.unit, u.unit)

    def _free_ids(self, u: Vertex) -> int:
        """The singles that can be had."""
        kind, at = self.layout.kinds[u.ordinal], self.layout.position[u.ordinal]
        if kind == CORE:
            ids = self.stand.cores(at) & u.ids
        elif kind == GPU:
            ids = self.stand.gpus(at) & u.ids
        else:
            ids = u.ids & ~self.stand.drawn(u.ordinal)[1]
        return ids if self.spent is None else ids & ~self.spent.ids.get(u.ordinal, 0)

    def children(self, u: Vertex, needs: Sequence[Need], pristine: bool) -> Iterable[Vertex]:
        """Those that have nodes that can serve, or none at all."""
        layout = self.layout
        if layout.position[u.ordinal] >= 0:
            return self._inside(u, {need.type for need in needs})
        if not all(self._is_inner(need) for need in needs):
            return below(u, self.subsystems)
        serving = self._serving(needs)
        row = layout.row(u)
        if row is not None:
            return map(row[1].__getitem__, positions(row[0] & serving))
        return self._leading(u, serving)

    def _inside(self, u: Vertex, types: set[str]) -> Iterator[Vertex]:
        """What is below something in a node; containers that are not named are passed through."""
        for child in below(u, self.subsystems):
            if child.type in types or self.layout.kinds[child.ordinal] != CONTAINER:
                yield child
            elif self.stand.all_up or not self.stand.down(child.ordinal):
                yield from self._inside(child, types)

    def _parts_are_at(self, u: Vertex, slot: Need) -> bool:
        if self.layout.kinds[u.ordinal] == NODE:
            return self.has_parts(self.layout.types_in(u), slot)
        return super()._parts_are_at(u, slot)

    def _explore(
        self, u: Vertex, needs: Sequence[Need], pristine: bool, exclusive: bool, pool: Pool, bundles: int = 1,
        used: Collection[int] = (),
    ) -> None:  # fmt: skip
        ranked = self._ranked(u, needs) if len(needs) == 1 and self.apart and not used else None
        if ranked is None:
            super()._explore(u, needs, pristine, exclusive, pool, bundles, used)
            return
        need = needs[0]
        progress = Progress(need if need.is_slot else need.type, need.high, bundles)
        for child in ranked:
            if not progress.short(pool):
                return
            self.visit(child, needs, pristine, exclusive, pool)

    def _ranked(self, u: Vertex, needs: Sequence[Need]) -> Iterable[Vertex] | None:
        """The nodes below `u` in the order in which the policy takes them, where that is known beforehand: then the first that will
        do are the ones that it takes, and the others need not be looked at."""
        policy, need, row = type(self.policy), needs[0], self.layout.row(u)
        if row is None or policy.order is not Policy.order or policy.score is not Policy.score or not self._is_inner(need):
            return None
        if need.type != "node" and policy.lifted not in (LoNode.lifted, HiNode.lifted):
            return None
        return self.layout.by_number(u, row, row[0] & self._serving(needs), self.policy.descending)

    def _serving(self, needs: Sequence[Need]) -> int:
        """Nodes in which one of these can be, as far as counts tell."""
        key = tuple(needs)
        serving = self._sets.get(key)
        if serving is None:
            serving = 0
            for need in needs:
                serving |= self.stand.serving(need)
            self._sets[key] = serving
        return serving

    def _leading(self, u: Vertex, serving: int) -> Iterator[Vertex]:
        spans = self.layout.spans
        for child in below(u, self.subsystems):
            span = spans[child.ordinal]
            if span & serving:
                yield child

    def _is_inner(self, need: Need) -> bool:
        """Can it be served inside of nodes, or by nodes, only?"""
        inner = self.layout.inner
        return all(part.type in inner for part in need.children) if need.is_slot else need.type in inner

    # -- what is taken

    def supply(self, candidates: Sequence[Candidate], k: int) -> Supply:
        policy = self.policy
        if len(candidates) > 1 and not policy.stops_early and any(c.ids for c in candidates):
            candidates = [single for c in candidates for single in (_singles(c) if c.ids else (c,))]
        ordered = policy.order(candidates, k) if len(candidates) > 1 else candidates
        entries = (_Entry(c, policy, k) for c in ordered)
        entry = next(entries, None)

        def take(count: int) -> list[tuple[Candidate, int]] | None:
            nonlocal entry
            parts: list[tuple[Candidate, int]] = []
            while count and entry is not None:
                units = min(count, entry.left)
                parts.append((entry.take(units, self._divides(entry.candidate)), units))
                count -= units
                if not entry.left:
                    entry = next(entries, None)
            return None if count else _joined(parts)

        return take

    def _divides(self, candidate: Candidate) -> bool:
        """Is what is left of it there for others?"""
        vertex, need = candidate.vertex, candidate.need
        if vertex is None or candidate.whole or (need is not None and need.children):
            return False
        return self.layout.kinds[vertex.ordinal] not in (CONTAINER, NODE)


def _singles(candidate: Candidate) -> Iterator[Candidate]:
    for number in positions(candidate.ids):
        yield _portion(candidate, 1, 1 << number)


def _portion(candidate: Candidate, units: int, ids: int) -> Candidate:
    """So much of a candidate."""
    score = sum(positions(ids)) + ids.bit_count() if ids else candidate.score
    part = Candidate(candidate.vertex, units, score, candidate.parts, candidate.exclusive, candidate.whole)
    part.via, part.ratio, part.need, part.ids = candidate.via, candidate.ratio, candidate.need, ids
    return part


def _joined(parts: list[tuple[Candidate, int]]) -> list[tuple[Candidate, int]]:
    """Singles of one pool are one part again."""
    if len(parts) < 2 or not any(c.ids for c, _ in parts):
        return parts
    found: dict[int, tuple[Candidate, int]] = {}
    for n, (candidate, units) in enumerate(parts):
        key = candidate.vertex.ordinal if candidate.vertex is not None and candidate.ids else -1 - n
        if key in found:
            before, had = found[key]
            joined = _portion(before, had + units, before.ids | candidate.ids)
            joined.score = before.score + candidate.score
            found[key] = (joined, had + units)
        else:
            found[key] = (candidate, units)
    return list(found.values())


class _Entry:
    """A candidate that is used up bit by bit."""

    __slots__ = ("_ids", "_order", "candidate", "left")

    def __init__(self, candidate: Candidate, policy: Policy, k: int) -> None:
        self.candidate = candidate
        self.left = candidate.count
        self._ids = candidate.ids
        self._order = policy_ids(policy, candidate, k) if candidate.ids else None

    def take(self, units: int, divides: bool) -> Candidate:
        candidate = self.candidate
        if not candidate.ids:
            if not divides:
                self.left = 0
                return candidate
            self.left -= units
            return candidate if units == candidate.count else _portion(candidate, units, 0)
        self.left -= units
        order = self._order
        if order is None:
            ids = lowest(self._ids, units)
        else:
            ids = 0
            for _ in range(units):
                ids |= next(order)
        self._ids &= ~ids
        return _portion(candidate, units, ids)


def policy_ids(policy: Policy, candidate: Candidate, k: int) -> Iterator[int] | None:
    """The singles of a pool in a policy's order for a choice of `k`, as bits; None for the lowest first."""
    how = type(policy).order
    if how is First.order or (how is Policy.order and not policy.descending):
        return None
    if how is Policy.order:
        return (1 << number for number in reversed(list(positions(candidate.ids))))
    return (single.ids for single in policy.order(list(_singles(candidate)), min(k, candidate.count)))
