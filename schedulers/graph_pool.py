"""The pool of an instance that has a graph of resources: what `resources.Pool` is, and what is drawn of all other vertices.

Decides what requests of any shape (RFC 14) get, by the search that `resource query` uses, on compact trees (`tree.pooling`). Flat
requests ask for cores, GPUs and memory of nodes, wherever in a node they are, and take the way of `Pool`. Its state is the masks
of the nodes, and units and ids by vertex; the tree is only read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..journal.claims import Claim, Draw
from ..kvs.errors import Conflict
from .ordered import Ranking, ranking_of
from .request import Request
from .resources import Node, Pool, Unmatched
from .stock import Stock
from .tree.layout import Layout
from .tree.limits import Limits
from .tree.vertices import Tree

LIMITS_SIZE = 256  # constraints that are remembered


class GraphPool(Pool):
    """nodes: as for Pool, of which the tree has the same ranks. tree: a compact one; it is shared and never changed."""

    __slots__ = ("_dim", "_left", "_limits", "_occupied", "_ranking", "_shaded")

    def __init__(self, nodes: Iterable[Node], tree: Tree, match_policy: str = "first") -> None:
        super().__init__(nodes, match_policy)
        self._layouts.append(Layout(tree, self.nodes))
        self._ranking = ranking_of(self.layout)
        self._limits: dict[bytes, Limits] = {}
        self._occupied = 0  # positions of nodes in which something other than cores, GPUs and memory is in use
        self._shaded = 0  # positions of nodes below something that is down
        self._left: dict[str, Stock] = {}  # by type; those that were asked for
        self._dim = False  # is something down in which a node has cores, GPUs or memory?
        for vertex in tree.vertices:
            if not vertex.up:
                self.dark.add(vertex.ordinal)
        self._shade()

    @property
    def ranking(self) -> Ranking:
        return self._ranking

    def copy(self) -> GraphPool:
        new = super().copy()
        assert isinstance(new, GraphPool)
        new._dim, new._limits = self._dim, self._limits
        new._left = {kind: stock.copy() for kind, stock in self._left.items()}
        new._occupied, new._shaded, new._ranking = self._occupied, self._shaded, self._ranking
        return new

    @property
    def usable(self) -> int:
        return self._usable & ~self._shaded

    @property
    def idle(self) -> int:
        return self._idle & ~self._occupied & ~self.marred

    # -- what the owner tells it

    def set_vertex(self, path: str, units: int, ids: int = 0, up: bool | None = None) -> None:
        ordinal = self.layout.ordinals.get(path)
        if ordinal is None:
            return
        self._draw(ordinal, units, ids)
        if up is not None and up != (ordinal not in self.dark):
            (self.dark.discard if up else self.dark.add)(ordinal)
            self._shade()

    def held(self, path: str) -> tuple[int, int] | None:
        ordinal = self.layout.ordinals.get(path)
        return None if ordinal is None else self.drawn.get(ordinal, (0, 0))

    def drawn_paths(self) -> list[str]:
        return [self.layout.paths[ordinal] for ordinal in self.drawn]

    def take(self, claims: Sequence[Claim]) -> None:
        wrong = []
        for claim in claims:
            for path, units, ids in claim.draws:
                ordinal = self.layout.ordinals.get(path)
                if ordinal is None:
                    wrong.append(path)
                    continue
                used, taken = self.drawn.get(ordinal, (0, 0))
                if used + units > self.layout.vertices[ordinal].size or taken & ids:
                    wrong.append(path)
        if wrong:
            raise Conflict(f"not free: {', '.join(wrong[:4])}", things=tuple(wrong), hint="match again")
        super().take(claims)
        self._change_draws(claims, 1)

    def give(self, claims: Sequence[Claim]) -> None:
        super().give(claims)
        self._change_draws(claims, -1)

    def _change_draws(self, claims: Sequence[Claim], sign: int) -> None:
        for claim in claims:
            for path, units, ids in claim.draws:
                ordinal = self.layout.ordinals.get(path)
                if ordinal is not None:
                    used, taken = self.drawn.get(ordinal, (0, 0))
                    self._draw(ordinal, max(0, used + sign * units), taken | ids if sign > 0 else taken & ~ids)

    def _draw(self, ordinal: int, units: int, ids: int) -> None:
        """So much of a vertex is in use."""
        was, at = ordinal in self.drawn, self.layout.position[ordinal]
        if at >= 0 and (left := self._left.get(self.layout.vertices[ordinal].type)) is not None:
            given_back = self._in_use(ordinal, *self.drawn.get(ordinal, (0, 0)))
            left.set(at, left.counts[at] + given_back - self._in_use(ordinal, units, ids))
        if units > 0:
            self.drawn[ordinal] = (min(units, self.layout.vertices[ordinal].size), ids)
        elif was:
            del self.drawn[ordinal]
        if at >= 0 and was != (units > 0):
            inner = self.inner.get(at, frozenset()) ^ {ordinal}
            if inner:
                self.inner[at] = inner
                self._occupied |= 1 << at
            else:
                del self.inner[at]
                self._occupied &= ~(1 << at)

    def _shade(self) -> None:
        self._shaded, self._dim, self.marred = 0, False, 0
        for ordinal in self.dark:
            if (at := self.layout.position[ordinal]) >= 0:
                self.marred |= 1 << at
            self._shaded |= self.layout.spans[ordinal]
            if not self.layout.spans[ordinal] and self.layout.extent(self.layout.vertices[ordinal]).parts:
                self._dim = True

    # -- what it answers

    def left(self, kind: str) -> Stock | None:
        found = self._left.get(kind)
        if found is None and (counted := self.layout.counted(kind)) is not None:
            found = self._left[kind] = counted.copy()
            for at, ordinals in self.inner.items():
                those = [ordinal for ordinal in ordinals if self.layout.vertices[ordinal].type == kind]
                found.set(at, found.counts[at] - sum(self._in_use(ordinal, *self.drawn[ordinal]) for ordinal in those))
        return found

    def _in_use(self, ordinal: int, units: int, ids: int) -> int:
        """How many units of a vertex cannot be had."""
        vertex = self.layout.vertices[ordinal]
        if units <= 0:
            return 0
        return (ids & vertex.ids).bit_count() if vertex.ids else min(units, vertex.size)

    def limits(self, request: Request) -> Limits:
        found = self._limits.get(request.constraint_key)
        if found is None:
            if len(self._limits) >= LIMITS_SIZE:
                self._limits.clear()
            found = self._limits[request.constraint_key] = Limits(self.layout, request.constraint)
        return found

    @property
    def is_dim(self) -> bool:
        return self._dim

    def is_special(self, request: Request) -> bool:
        return bool(request.constraint_key) and self.limits(request).inner

    def matching(self, request: Request) -> int:
        return self.limits(request).nodes if request.constraint_key else self.all_bits

    def by_counts(self, request: Request) -> bool:
        return super().by_counts(request) and not self._to_search(request)

    def whole(self, at: int, slots: int) -> Claim:
        return super().whole(at, slots)._replace(draws=self._whole(at))

    def _to_search(self, request: Request) -> bool:
        """Has the search to say what it gets, flat as it may be?"""
        if self.is_special(request) or self._dim:
            return True
        flat = request.flat
        asks_memory = flat is not None and (flat.memory_mb or flat.node_memory_mb)
        return bool(asks_memory and self.match_policy == "first" and self.layout.memories)  # which of a node's it is has to be said

    def match(self, request: Request) -> tuple[Claim, ...] | Unmatched:
        flat = request.flat
        if self._to_search(request):
            return self.searched(request)
        got = super().match(request)
        if flat is None or isinstance(got, Unmatched) or not (flat.exclusive or self.policy.whole_nodes):
            return got
        return tuple(claim._replace(draws=self._whole(self.index[claim.rank])) for claim in got)

    def _whole(self, at: int) -> tuple[Draw, ...]:
        """The draws of a node that is held as a whole."""
        layout = self.layout
        node = layout.node_at.get(at)
        if node is None:
            return ()
        extent = layout.extent(node)
        vertices = [layout.vertices[ordinal] for ordinal in extent.others]
        return tuple(sorted(Draw(layout.paths[v.ordinal], v.size, v.ids) for v in vertices))
