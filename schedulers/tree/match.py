"""The depth-first matcher: from a request to the vertices that serve it in a window of time.

The request need not begin at the root: containers are skipped until the first type that it names, and what is
found below skipped ones is pooled. After that no level may be skipped. A slot is a bundle: as many as fit are
packed where its parts are, greedily, in the policy's order, and everything in it is exclusive.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ...journal.jobspec_check import ONE_OF
from ...journal.ranges import MAX_COUNT, Range
from .mixing import mixture
from .needs import SAME, Need, TreeRequest, ratio
from .once import Once, Progress
from .vertices import Vertex, all_below, below

if TYPE_CHECKING:
    from .matcher import Matcher

CONSTRAINED = ("node", "storage_node")


class Via(NamedTuple):
    """Containers that were skipped on the way to a candidate, the outermost first."""

    vertex: Vertex
    rest: Via | None


class Candidate:
    """A vertex that can serve a need, or a slot made of such (vertex None). parts: what it needs below, with units.

    count: what it has to give, in the unit of the request; ratio: see `needs.ratio`. ids: which, of a pooled vertex.
    """

    __slots__ = ("count", "exclusive", "ids", "need", "open", "parts", "ratio", "score", "vertex", "via", "whole")

    def __init__(
        self, vertex: Vertex | None, count: int, score: int, parts: Sequence[tuple[Candidate, int]], exclusive: bool, whole: bool
    ) -> None:  # fmt: skip
        self.vertex = vertex
        self.count = count
        self.score = score
        self.parts = parts
        self.exclusive = exclusive
        self.whole = whole
        self.via: Via | None = None
        self.ratio = SAME
        self.ids = 0
        self.open = False
        self.need: Need | None = None

    def units(self, asked: int) -> int:
        """What to take of the vertex, in its own unit, when so much is asked for."""
        assert self.vertex is not None
        more, less = self.ratio
        return self.vertex.size if self.exclusive else -(-asked * less // more)


#: By type; each slot by itself.
Pool = dict[str | Need, list[Candidate]]
#: See `Search.supply`.
Supply = Callable[[int], list[tuple[Candidate, int]] | None]


class Window(NamedTuple):
    """When, and what is looked at. idle: as if there were no jobs. all_up: as if nothing were down."""

    start: int
    end: int
    idle: bool = False
    all_up: bool = False


class Search:
    """One attempt. `live` overrides what there is, what is taken and in which order it is looked at. apart: is there one way only
    to each vertex? most: slots in one place."""

    apart = True
    most = 1 << 31
    puts_off = False  # are candidates looked into only when they are about to be chosen?

    def __init__(self, matcher: Matcher, request: TreeRequest, window: Window) -> None:
        self.policy = matcher.policy
        self.subsystems = matcher.subsystems
        self.simple = matcher.simple
        self.apart = matcher.apart
        self.prune_by = matcher.prune_by
        self.puts_off = matcher.policy.by_score
        self.request = request
        self.window = window

    def visit(self, u: Vertex, needs: Sequence[Need], pristine: bool, exclusive: bool, pool: Pool) -> None:
        """Add to the pool what `u` can serve, or, while nothing has been named yet, what is below it."""
        kind = u.type
        for need in needs:
            if need.type == kind:
                break
        else:
            if not pristine:
                return
            need = None
        window = self.window
        whole_node = self.policy.whole_nodes and kind == "node"
        if need is not None and (need.exclusive or whole_node):
            exclusive = True
        if not window.all_up and not u.up:
            return
        if kind in CONSTRAINED and self.request.constrained and not self.request.matches(u.rank, u.name, u.properties):
            return
        available = u.size
        if not window.idle and (u.users or not self.simple):
            if (exclusive or whole_node) and u.in_use(window.start, window.end):
                return
            available = u.free(window.start, window.end)
            if available <= 0:
                return
            if (exclusive or whole_node) and not self.simple and self._is_in_use_below(u):
                return
        if need is None:
            self._skip(u, needs, exclusive, pool)
        elif not need.children or not self._sums_fall_short(u, need):
            self._serve(u, need, available, exclusive, pool)

    def _is_in_use_below(self, u: Vertex) -> bool:
        """Others may have come to what is below `u` by another way."""
        window = self.window
        return any(v.in_use(window.start, window.end) for v in all_below(u, self.subsystems))

    def inside(self, u: Vertex, needs: Sequence[Need], exclusive: bool) -> Pool:
        """What is found below `u`, which nobody asked for by name."""
        inside: Pool = {}
        slots = [n for n in needs if n.is_slot and self._parts_are_at(u, n)]
        others = [n for n in needs if not any(n is s for s in slots)]
        used = self._bundle(u, slots, others, True, inside) if slots else ()
        if others:
            self._explore(u, others, True, exclusive, inside, used=used)
        return inside

    def _skip(self, u: Vertex, needs: Sequence[Need], exclusive: bool, pool: Pool) -> None:
        inside = self.inside(u, needs, exclusive)
        for kind, candidates in inside.items():
            into = pool.setdefault(kind, [])
            for candidate in candidates:
                candidate.via = Via(u, candidate.via)
                candidate.score = self.policy.lifted(candidate.score, u)
                into.append(candidate)

    def _parts_are_at(self, u: Vertex, slot: Need) -> bool:
        """Is a slot to be packed here: are all types that are in it right below?"""
        return self.has_parts({child.type for child in below(u, self.subsystems)}, slot)

    def has_parts(self, types: Collection[str], slot: Need) -> bool:
        """Are all types that are in a slot, or in one of those that may be mixed, among these?"""
        if slot.alternatives:
            return any(self.has_parts(types, one) for one in slot.alternatives)
        return all(part.type in types for part in slot.children)

    def _serve(self, u: Vertex, need: Need, available: int, exclusive: bool, pool: Pool) -> None:
        if (units := self.ratio(u, need)) is None:
            return
        later = self.puts_off and bool(need.children)
        parts = self.parts(u, need, exclusive) if need.children and not later else ()
        if parts is not None:
            whole = bool(need.exclusive) or (self.policy.whole_nodes and u.type == "node")
            score = self.policy.score(u)
            count = available if units is SAME else available * units[0] // units[1]
            candidate = Candidate(u, count, score, parts, exclusive, whole)
            candidate.ratio, candidate.need, candidate.open = units, need, later
            if count:
                pool.setdefault(need.type, []).append(candidate)

    def ready(self, candidates: list[Candidate], each: int, bundles: int = 1) -> list[Candidate]:
        """Those that have what is to be below them: all, or, best first, as many as bundles of so many units need. Whose order is
        known before is looked into only then."""
        if not self.puts_off or not any(candidate.open for candidate in candidates):
            return candidates
        found: list[Candidate] = []
        got = 0
        for candidate in self.policy.order(candidates, each * bundles):
            if candidate.open and candidate.vertex is not None and candidate.need is not None:
                parts = self.parts(candidate.vertex, candidate.need, candidate.exclusive)
                if parts is None:
                    continue
                candidate.parts, candidate.open = parts, False
            found.append(candidate)
            got += candidate.count
            if got >= each:
                got, bundles = 0, bundles - 1
                if not bundles:
                    break
        return found

    def parts(self, u: Vertex, need: Need, exclusive: bool) -> Sequence[tuple[Candidate, int]] | None:
        """What one `u` has for what is below a need; None where that is not enough."""
        inside: Pool = {}
        used = self._bundle(u, need.slots, need.others, False, inside) if need.slots else ()
        if need.others:
            self._explore(u, need.others, False, exclusive, inside, used=used)
        return self.resolve(inside, need.children)

    def ratio(self, u: Vertex, need: Need) -> tuple[int, int] | None:
        """See `needs.ratio`."""
        return ratio(need.unit, u.unit)

    def _explore(
        self, u: Vertex, needs: Sequence[Need], pristine: bool, exclusive: bool, pool: Pool, bundles: int = 1,
        used: Collection[int] = (),
    ) -> None:  # fmt: skip
        """Visit what is below `u`. bundles: how many times the needs are wanted, each time from whole vertices. used: what is in
        slots beside them."""
        children = self.children(u, needs, pristine)
        once = None if self.apart and not used else Once(used)
        if not self.policy.stops_early:
            for child in children:
                self.visit(child, needs, pristine, exclusive, pool)
                if once is not None:
                    once.keep(pool)
            return
        alternatives = [Progress(n, n.high, bundles) for n in needs if self._is_alternative(n)]
        highs: dict[str | Need, int] = {}
        for need in needs:
            if not self._is_alternative(need):
                highs[_key(need)] = highs.get(_key(need), 0) + need.high
        others = [Progress(key, high, bundles) for key, high in highs.items()]
        for child in children:
            # Is all there that is wanted, and of alternatives one?
            if not any(one.short(pool) for one in others) and not (alternatives and all(one.short(pool) for one in alternatives)):
                return
            self.visit(child, needs, pristine, exclusive, pool)
            if once is not None:
                once.keep(pool)

    def children(self, u: Vertex, needs: Sequence[Need], pristine: bool) -> Iterable[Vertex]:
        """Those below `u`, in the order in which they are looked at."""
        children = below(u, self.subsystems)
        if not pristine:  # no level may be skipped: the rest need not be looked at
            types = {need.type for need in needs}
            children = [child for child in children if child.type in types]
        return sorted(children, key=_most_left, reverse=True) if self.policy.stops_early else children

    def _is_alternative(self, need: Need) -> bool:
        return need.type == ONE_OF

    def _bundle(self, u: Vertex, slots: Sequence[Need], beside: Sequence[Need], pristine: bool, pool: Pool) -> set[int]:
        """Pack slots at `u`. Alternatives may be made of the same vertices; others are not, nor are these for what is beside them.
        Returns what is used up."""
        used: set[int] = set()
        types = {need.type for need in beside}
        for slot in slots:
            found = self._pack(u, slot, pristine, used)
            crowded = len(slots) > 1 or any(part.type in types for part in slot.children)
            if crowded and not self._is_alternative(slot):
                del found[slot.high :]
                used.update(c.vertex.ordinal for one in found for c, _ in one.parts if c.vertex is not None)
            pool.setdefault(slot, []).extend(found)
        return used

    def _pack(self, u: Vertex, slot: Need, pristine: bool, used: set[int]) -> list[Candidate]:
        """As many of a slot as fit at `u`, from whole vertices that are not used."""
        if slot.alternatives:
            return self._mix(u, slot, pristine, used)
        there, wanted = self._parts_for(u, slot, pristine, used)
        fit = min(slot.high, self.most)
        for kind, count in wanted:
            fit = min(fit, sum(c.count for c in there[kind]) // count) if count else 0
        supplies: dict[str, Supply] = {}
        for part in slot.children if fit else ():
            if part.type not in supplies:
                supplies[part.type] = self.supply(there[part.type], part.high * slot.high)
        found: list[Candidate] = []
        while len(found) < fit:
            parts: list[tuple[Candidate, int]] = []
            for kind, count in wanted:
                if (got := supplies[kind](count)) is None:
                    return found
                parts.extend(got)
            bundle = Candidate(None, 1, sum(c.score for c, _ in parts), parts, True, False)
            bundle.need = slot
            found.append(bundle)
        return found

    def _parts_for(
        self, u: Vertex, slot: Need, pristine: bool, used: set[int]
    ) -> tuple[dict[str, list[Candidate]], list[tuple[str, int]]]:
        """What of each type in a slot is at `u` and not used, and how much of it goes into one, 0 where there is too little."""
        inside: Pool = {}
        self._explore(u, slot.children, pristine, True, inside, slot.high)
        there: dict[str, list[Candidate]] = {}
        wanted: list[tuple[str, int]] = []
        for part in slot.children:
            if part.type not in there:
                free = [c for c in inside.get(part.type, ()) if c.vertex is None or c.vertex.ordinal not in used]
                once = sum(other.type == part.type for other in slot.children) == 1
                there[part.type] = self.ready(free, part.high, min(slot.high, self.most) if once else 1 << 62)
            wanted.append((part.type, part.count(sum(c.count for c in there[part.type]))))
            if not wanted[-1][1]:
                break
        return there, wanted

    def _mix(self, u: Vertex, group: Need, pristine: bool, used: set[int]) -> list[Candidate]:
        """The mix of alternatives of which there can be most at `u`."""
        there: dict[str, int] = {}
        each: list[dict[str, int]] = []
        most = group.high if self.policy.stops_early else self.most
        for slot in group.alternatives:
            all_of_it = replace(slot, high=min(most, MAX_COUNT))
            stock, wanted = self._parts_for(u, all_of_it, pristine, used)
            one: dict[str, int] = {}
            for kind, count in wanted:
                one[kind] = one.get(kind, 0) + count
            each.append(one if all(count for _, count in wanted) else {})
            for kind, candidates in stock.items():
                there[kind] = max(there.get(kind, 0), sum(c.count for c in candidates))
        found: list[Candidate] = []
        taken = set(used)
        for slot, many in zip(group.alternatives, mixture(there, each, most), strict=True):
            if many:
                some = self._packed(u, replace(slot, amount=Range(many, many), high=many), pristine, taken)
                for bundle in some:
                    bundle.need = group
                found.extend(some)
        return found

    def _packed(self, u: Vertex, slot: Need, pristine: bool, used: set[int]) -> list[Candidate]:
        """Slots that others at `u` leave something of; what they use is added to `used`."""
        found = self._pack(u, slot, pristine, used)
        used.update(c.vertex.ordinal for one in found for c, _ in one.parts if c.vertex is not None)
        return found

    def supply(self, candidates: Sequence[Candidate], k: int) -> Supply:
        """What gives so many units at each call, in the policy's order for a choice of `k` in all; None when too few are left."""
        order = iter(self.policy.order(candidates, k))

        def take(count: int) -> list[tuple[Candidate, int]] | None:
            parts = []
            for candidate in order if count else ():
                units = min(count, candidate.count)
                parts.append((candidate, units))
                count -= units
                if not count:
                    break
            return None if count else parts

        return take

    def resolve(self, pool: Pool, needs: Sequence[Need]) -> list[tuple[Candidate, int]] | None:
        """Choose from the pool what the needs ask for, or None. Each type can be asked for once; of alternatives the first
        of which there is enough is taken.
        """
        parts: list[tuple[Candidate, int]] = []
        asked: set[str | Need] = set()
        alternatives = [need for need in needs if self._is_alternative(need)]
        chosen = next((n for n in alternatives if n.count(len(pool.get(n, ())))), None)
        for need in needs:
            key = _key(need)
            if need in alternatives and chosen is not None and need is not chosen:
                continue
            if key in asked:
                return None
            asked.add(key)
            candidates = self.ready(pool.get(key, []), need.high)
            wanted = need.count(sum(c.count for c in candidates))
            if not wanted or (got := self.supply(candidates, wanted)(wanted)) is None:
                return None
            parts.extend(got)
        return parts

    def _sums_fall_short(self, u: Vertex, need: Need) -> bool:
        if not self.simple or self.request.constrained:
            return False
        window = self.window
        for kind, units in need.least.items():
            if window.idle or kind not in self.prune_by or not u.below:
                left = u.totals.get(kind, 0)
            else:
                left = u.left_below(kind, window.start, window.end)
            if left < units:
                return True
        return False


def _key(need: Need) -> str | Need:
    """Where candidates for a need are in a pool."""
    return need if need.is_slot else need.type


def _most_left(vertex: Vertex) -> tuple[int, int]:
    return (vertex.left, vertex.ordinal)
