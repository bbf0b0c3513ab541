"""What a pool of a live instance has free, as the search reads it, and the search itself: the way from a pool to its answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ...journal.claims import Claim
from ...kvs.errors import Rejected
from ..imposed import Lack, impose
from ..match_policy import BUILT_IN
from ..resources import Pool, Unmatched
from .claiming import Claiming
from .layout import CONTAINER, NODE, Layout
from .live import LiveSearch
from .match import Candidate
from .needs import Need, of_request, ways
from .policies import Policy
from .spent import Spent
from .vertices import Vertex, all_below

if TYPE_CHECKING:
    from ..request import Request
    from .limits import Limits

NOTHING = (0, 0)


class Stand:
    """among: positions of nodes that may be used. idle: those that nobody holds anything of. all_up: nothing counts as down.
    empty: as if there were no jobs. limits: what the constraint says, if there is one."""

    def __init__(
        self, pool: Pool, policy: Policy, among: int, *, empty: bool, all_up: bool, limits: Limits | None = None
    ) -> None:  # fmt: skip
        self.pool = pool
        self.layout = pool.layout
        self.policy = policy
        self.among = among
        self.empty = empty
        self.limits = limits
        self.all_up = all_up
        self.idle = (pool.all_bits if empty else pool.idle) & (-1 if all_up else ~pool.marred)
        self.stocks = pool.total if empty else pool.free

    def cores(self, at: int) -> int:
        """Free ids."""
        return self.pool.nodes[at].cores if self.empty else self.pool.core_free[at]

    def gpus(self, at: int) -> int:
        """Free ids."""
        return self.pool.nodes[at].gpus if self.empty else self.pool.gpu_free[at]

    def memory(self, at: int) -> int:
        """Free megabytes."""
        return self.stocks.memory.counts[at]

    def drawn(self, ordinal: int) -> tuple[int, int]:
        """Units and ids that are in use."""
        return NOTHING if self.empty else self.pool.drawn.get(ordinal, NOTHING)

    def drawn_in(self, at: int) -> object:
        """What is drawn of vertices inside a node, as one value."""
        inner = None if self.empty else self.pool.inner.get(at)
        if not inner:
            return None
        places = self.layout.places
        return frozenset((places[ordinal], *self.pool.drawn[ordinal]) for ordinal in inner)

    def is_plain(self, at: int) -> bool:
        """Is nothing inside a node out of use, and the constraint about nodes only?"""
        if self.limits is not None and self.limits.inner:
            return False
        dark = self.pool.dark
        return not dark or self.all_up or not any(self.layout.position[ordinal] == at for ordinal in dark)

    def down(self, ordinal: int) -> bool:
        """Is it out of use?"""
        return ordinal in self.pool.dark

    def in_use(self, vertex: Vertex) -> bool:
        """Does anybody hold something of it, or below it, or is a node below out of use, so that nobody has all of it?"""
        pool, extent = self.pool, self.layout.extent(vertex)
        if extent.nodes & ~(self.among & self.idle):
            return True
        inside = pool.dark and not self.all_up and not extent.nodes  # of a node
        if inside and any(one.ordinal in pool.dark for one in all_below(vertex, self.layout.subsystems)):
            return True
        if self.empty:
            return False
        if pool.drawn and not extent.others.isdisjoint(pool.drawn):
            return True
        for at, cores, gpus, megabytes in extent.parts:
            if cores & ~pool.core_free[at] or gpus & ~pool.gpu_free[at]:
                return True
            if megabytes and at not in self.layout.memories and pool.free.memory.counts[at] < pool.nodes[at].memory_mb:
                return True
        return False

    def has(self, claim: Claim) -> bool:
        """Is all of a claim free? Vertices that several ways lead to may have been found more than once."""
        at = self.pool.index[claim.rank]
        if claim.cores & ~self.cores(at) or claim.gpus & ~self.gpus(at) or claim.memory_mb > self.memory(at):
            return False
        for path, units, ids in claim.draws:
            ordinal = self.layout.ordinals[path]
            used, taken = self.drawn(ordinal)
            if used + units > self.layout.vertices[ordinal].size or taken & ids:
                return False
        return True

    def serving(self, need: Need) -> int:
        """Positions of nodes in which one of a need can be, as far as counts tell."""
        found = self.among
        if self.policy.whole_nodes or (need.type == "node" and need.exclusive):
            found &= self.idle
        for kind, stock in (("core", self.stocks.cores), ("gpu", self.stocks.gpus)):
            units = need.least.get(kind, 0)
            if units and found:
                found &= stock.at_least(units)
        for kind, units in need.least.items():
            counted = self.layout.counted(kind) if self.empty else self.pool.left(kind)
            if counted is not None and found:
                found &= counted.at_least(units)
        return found

    def allows(self, vertex: Vertex) -> bool:
        """Does the constraint allow it? Nodes are among those that it allows."""
        return self.limits is None or self.limits.allows(vertex)


def stand_of(pool: Pool, request: Request, among: int | None = None, *, empty: bool = False, all_up: bool = False) -> Stand:
    """What is free of a pool for a request, on these positions (those that are usable, or with `all_up` all)."""
    if among is None:
        among = pool.all_bits if all_up else pool.usable
    limits = pool.limits(request) if request.constraint_key else None
    return Stand(pool, pool.policy, pool.matching(request) & among, empty=empty, all_up=all_up, limits=limits)


def search(
    pool: Pool, request: Request, among: int | None = None, *, empty: bool = False, all_up: bool = False
) -> tuple[Claim, ...] | Unmatched:  # fmt: skip
    """What a request gets of a pool, on these positions; nothing is taken."""
    stand = stand_of(pool, request, among, empty=empty, all_up=all_up)
    if request.imposed is not None:
        got = impose(pool, stand, request.imposed)
        return Unmatched("resources", got.kind, got.needed, got.found) if isinstance(got, Lack) else got
    wanted = of_request(request, pool.traverser)
    for needs in ways(wanted.needs):
        for way in (LiveSearch.answer, _one_by_one):
            try:
                parts = way(LiveSearch(stand, pool.policy, wanted), needs)
            except Exception as error:
                if pool.match_policy in BUILT_IN:
                    raise
                why = f"{type(error).__name__}: {error}"  # a plug-in may fail in any way; whose fault it is must be in the message
                raise Rejected(f"match policy {pool.match_policy!r} failed: {why}", code="bad-matcher") from error
            claims = Claiming(pool.layout, pool.policy, request.label).claims(parts) if parts is not None else None
            if claims and all(stand.has(claim) for claim in claims):
                return claims
            if parts is None or len(needs) < 2:
                break
    return Unmatched("resources", "slot", 1, 0)


def _one_by_one(search: LiveSearch, needs: Sequence[Need]) -> list[tuple[Candidate, int]] | None:
    """What the needs get, each after those before it have theirs: where several came to one vertex by different ways, together they
    took more than there is."""
    search.spent = Spent()
    parts: list[tuple[Candidate, int]] = []
    for need in needs:
        got = search.answer([need])
        if got is None:
            return None
        search.spent.spend(search.layout, _held(search.layout, got), set())
        parts += got
    return parts


def _held(layout: Layout, parts: Iterable[tuple[Candidate, int]]) -> Iterator[tuple[Candidate, int]]:
    """Without containers that are shared, but with what is in them."""
    for candidate, units in parts:
        vertex = candidate.vertex
        if vertex is None or (layout.kinds[vertex.ordinal] in (CONTAINER, NODE) and not (candidate.whole or candidate.exclusive)):
            yield from _held(layout, candidate.parts)
        else:
            yield candidate, units
