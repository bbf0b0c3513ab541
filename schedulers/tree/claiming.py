"""From the answer of a search on a live pool to what a job holds: claims on nodes, and draws on all other vertices.

A draw inside of a node hangs on the claim of the node; one above or beside nodes on the first claim below its vertex, else on the
first of its branch of the request, else on the job's first.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...journal.claims import Claim, Draw
from .layout import CONTAINER, CORE, GPU, LEAF, MEMORY, NODE, Layout, in_units
from .match import Candidate
from .policies import Policy
from .vertices import Vertex


class Claiming:
    """label: of the slots that the job's tasks run in, "" for all. wrong: something was taken twice."""

    def __init__(self, layout: Layout, policy: Policy, label: str = "") -> None:
        self.layout = layout
        self.policy = policy
        self.label = label
        self.wrong = False
        self.whole = 0  # positions of nodes that are held as such
        self.slots: dict[int, int] = {}
        self._held: dict[int, list[int]] = {}  # position -> [cores, GPUs, MB]
        self._draws: dict[int, list[int]] = {}  # ordinal -> [units, ids]
        self._hangs: dict[int, int] = {}  # ordinal -> position
        self._loose: list[int] = []  # ordinals that no claim is known for yet

    def claims(self, parts: Iterable[tuple[Candidate, int]]) -> tuple[Claim, ...] | None:
        """The claims by rank; None where nothing runs anywhere, or something would be there twice."""
        touched = self._branch(parts, -1, False)
        if self.wrong or not touched:
            return None
        self._hang(touched)
        layout, draws = self.layout, dict[int, list[Draw]]()
        for ordinal, (units, ids) in self._draws.items():
            draws.setdefault(self._hangs[ordinal], []).append(Draw(layout.paths[ordinal], units, ids))
        claims = []
        for at in sorted(self._held.keys() | draws.keys() | self.slots.keys()):
            cores, gpus, megabytes = self._held.get(at, (0, 0, 0))
            slots = self.slots.get(at, 0)
            if slots and not cores:
                return None
            own = tuple(sorted(draws.get(at, ())))
            claims.append(Claim(layout.node_at[at].rank, cores, gpus, megabytes, slots, own))
        return tuple(sorted(claims, key=lambda claim: claim.rank))

    def _branch(self, parts: Iterable[tuple[Candidate, int]], node: int, within: bool) -> set[int]:
        """Take all parts. node: the position of the node they are in, -1 for none. within: something above them is held with all
        below it. The positions they touch."""
        touched: set[int] = set()
        before = len(self._loose)
        for candidate, units in parts:
            touched |= self._part(candidate, units, node, within)
        self._hang(touched, before)
        return touched

    def _hang(self, touched: set[int], before: int = 0) -> None:
        if touched and len(self._loose) > before:
            first = min(touched)
            for ordinal in self._loose[before:]:
                self._hangs[ordinal] = first
            del self._loose[before:]

    def _part(self, candidate: Candidate, units: int, node: int, within: bool) -> set[int]:
        layout, vertex = self.layout, candidate.vertex
        touched: set[int] = set()
        via = candidate.via
        while via is not None:
            if layout.kinds[via.vertex.ordinal] == NODE:
                node = layout.position[via.vertex.ordinal]
                if self.policy.whole_nodes:
                    touched |= self._hold_all(via.vertex)
                    within = True
            via = via.rest
        if vertex is None:
            inside = self._branch(candidate.parts, node, within)
            if counts(candidate, self.label):
                where = node if node >= 0 else min(inside, default=-1)
                if where < 0:
                    self.wrong = True
                self.slots[where] = self.slots.get(where, 0) + units
            return touched | inside
        kind, at = layout.kinds[vertex.ordinal], layout.position[vertex.ordinal]
        before = len(self._loose)
        if kind == NODE:
            node = at
        if not within:
            touched |= self._hold(candidate, vertex, units)
            within = self._is_whole(candidate, vertex)
        elif at >= 0:
            touched.add(at)
        touched |= self._branch(candidate.parts, node, within)
        self._hang(touched, before)
        return touched

    def _is_whole(self, candidate: Candidate, vertex: Vertex) -> bool:
        kind = self.layout.kinds[vertex.ordinal]
        return (candidate.whole and not vertex.ids) or (candidate.exclusive and kind in (CONTAINER, NODE))

    def _hold(self, candidate: Candidate, vertex: Vertex, units: int) -> set[int]:
        kind, need = self.layout.kinds[vertex.ordinal], candidate.need
        if self._is_whole(candidate, vertex):
            return self._hold_all(vertex)
        if need is not None and need.exclusive is False:
            return set()
        if kind in (CONTAINER, NODE) and vertex.size < 2:
            return set()
        more, less = candidate.ratio
        amount = -(-units * less // more)
        if kind == CORE:
            return self._add(self.layout.position[vertex.ordinal], candidate.ids, 0, 0)
        if kind == GPU:
            return self._add(self.layout.position[vertex.ordinal], 0, candidate.ids, 0)
        if kind == MEMORY:
            return self._memory(vertex, amount)
        return self._draw(vertex, amount, candidate.ids)

    def _memory(self, vertex: Vertex, megabytes: int) -> set[int]:
        at = self.layout.position[vertex.ordinal]
        if at in self.layout.memories:
            factor = in_units(vertex, 1, "")
            assert factor is not None
            units = -(-megabytes // factor[1])
            self._draw(vertex, units, 0)
            megabytes = units * factor[1]
        return self._add(at, 0, 0, megabytes)

    def _add(self, at: int, cores: int, gpus: int, megabytes: int) -> set[int]:
        if self.whole >> at & 1:
            return {at}
        held = self._held.setdefault(at, [0, 0, 0])
        if held[0] & cores or held[1] & gpus:
            self.wrong = True
        held[0] |= cores
        held[1] |= gpus
        held[2] += megabytes
        return {at}

    def _draw(self, vertex: Vertex, units: int, ids: int) -> set[int]:
        ordinal, at = vertex.ordinal, self.layout.position[vertex.ordinal]
        drawn = self._draws.get(ordinal)
        if drawn is None:
            self._draws[ordinal] = [units, ids]
            if at >= 0:
                self._hangs[ordinal] = at
            else:
                self._loose.append(ordinal)
        else:
            if drawn[1] & ids or drawn[0] + units > vertex.size:
                self.wrong = True
            drawn[0] += units
            drawn[1] |= ids
        return {at} if at >= 0 else set()

    def _hold_all(self, vertex: Vertex) -> set[int]:
        """A vertex and all below it; what the same job has of it by another part of the request is within."""
        layout, extent = self.layout, self.layout.extent(vertex)
        touched: set[int] = set()
        nodes = extent.nodes & ~self.whole
        self.whole |= nodes
        while nodes:
            low = nodes & -nodes
            nodes ^= low
            at = low.bit_length() - 1
            self._held[at] = self.whole_node(at)
            touched.add(at)
        for at, cores, gpus, megabytes in extent.parts:
            if not self.whole >> at & 1:
                held = self._held.setdefault(at, [0, 0, 0])
                if held[0] & cores or held[1] & gpus:
                    self.wrong = True
                held[0], held[1], held[2] = held[0] | cores, held[1] | gpus, held[2] + megabytes
            touched.add(at)
        for ordinal in extent.others:
            one, at = layout.vertices[ordinal], layout.position[ordinal]
            if ordinal not in self._draws:
                if at < 0:
                    self._loose.append(ordinal)
                else:
                    self._hangs[ordinal] = at
            self._draws[ordinal] = [one.size, one.ids]
        kind = layout.kinds[vertex.ordinal]
        return touched if kind != LEAF else touched | ({layout.position[vertex.ordinal]} - {-1})

    def whole_node(self, at: int) -> list[int]:
        """[cores, GPUs, MB] of a node."""
        node = self.layout.nodes[at]
        return [node.cores, node.gpus, node.memory_mb]


def counts(slot: Candidate, label: str) -> bool:
    """Do tasks run in a slot? label: of those that they run in, "" for all."""
    need = slot.need
    return not label or need is None or any(one.label == label for one in need.alternatives or (need,))
