"""Flat requests under the match policies other than `first`, in mask arithmetic: what the search of `tree.live` gives, sooner.

The best-id policies rank nodes by their number, and slots that may be anywhere by the sum of their ids (`lonode` and `hinode`: by
the number of the node first). Nodes with the same free ids are looked at once. What is not worth a way of its own, and every
plug-in, goes to the search.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from ..journal.claims import Claim
from .flat import Unmatched, serving_nodes, serving_slots
from .request import Flat
from .stock import first, highest, lowest, positions, set_of

if TYPE_CHECKING:
    from .resources import Pool
    from .tree.layout import Layout

_new = tuple.__new__
_ASCENDING = frozenset({"first", "firstnodex", "low", "lonode", "lonodex"})
_DESCENDING = frozenset({"high", "hinode", "hinodex"})
_BY_NODE = frozenset({"lonode", "lonodex", "hinode", "hinodex"})
_WHOLE = frozenset({"firstnodex", "lonodex", "hinodex"})
_PACKED_SIZE = 1 << 16


class Ranking(NamedTuple):
    """The nodes of a graph by their numbers. ascending, descending: positions; equal numbers are in the order of the graph.
    plain: ascending is the order of positions and of the graph, and no number is there twice. unique: the latter. memory: all
    vertices of memory have one number."""

    ascending: Sequence[int]
    descending: Sequence[int]
    graph: Sequence[int]
    plain: bool
    unique: bool
    memory: bool


def ranking_of(layout: Layout) -> Ranking:
    """The ranking of a layout's nodes."""
    from .tree.vertices import preorder

    seen: dict[int, int] = {}
    for subsystem in layout.subsystems:
        for vertex in preorder(layout.tree.roots[subsystem], subsystem):
            at = layout.position[vertex.ordinal]
            if at >= 0 and layout.node_at[at] is vertex:
                seen.setdefault(at, vertex.id)
    ascending = sorted(seen, key=lambda at: seen[at])
    descending = sorted(seen, key=lambda at: -seen[at])
    plain = ascending == list(range(len(layout.nodes))) and list(seen) == ascending and descending == ascending[::-1]
    memory = {v.id for v in layout.tree.vertices if v.type == "memory"}
    return Ranking(ascending, descending, list(seen), plain, len(set(seen.values())) == len(seen), len(memory) < 2)


def match_ordered(pool: Pool, flat: Flat, among: int) -> tuple[Claim, ...] | Unmatched | None:
    """What a flat request gets under the pool's match policy, on these positions; None where the search has to say."""
    name, ranking = pool.match_policy, pool.ranking
    if (flat.memory_mb or flat.node_memory_mb) and ranking is not None and (pool.layout.memories or not ranking.memory):
        return None
    whole = flat.exclusive or name in _WHOLE
    if whole:
        among &= pool.idle
    if flat.nnodes:
        return _nodes(pool, flat, among, whole)
    if name not in _ASCENDING | _DESCENDING and name not in ("variation", "locality"):
        return None
    found = serving_slots(flat, pool.free, among)
    if found < flat.nslots:
        return Unmatched("resources", "slot", flat.nslots, found)
    if name in _BY_NODE or name == "firstnodex":
        if ranking is not None and not ranking.unique:
            return None
        return _slots_by_node(pool, flat, serving_nodes(flat._replace(slots_per_node=1), pool.free, among), whole)
    found = serving_nodes(flat._replace(slots_per_node=1), pool.free, among)
    return _slots_in_rows(pool, flat, found) if name == "locality" else _slots_by_sum(pool, flat, found)


def _nodes(pool: Pool, flat: Flat, among: int, whole: bool) -> tuple[Claim, ...] | Unmatched | None:
    found = serving_nodes(flat, pool.free, among)
    if found.bit_count() < flat.nnodes:
        return Unmatched("resources", "node", flat.nnodes, found.bit_count())
    name, slots = pool.match_policy, flat.slots_per_node
    if name in _ASCENDING:
        chosen = _first_of(pool, found, flat.nnodes, descending=False)
    elif name in _DESCENDING:
        chosen = _first_of(pool, found, flat.nnodes, descending=True)
    else:
        chosen = _by_policy(pool, found, flat.nnodes)
    chosen.sort()
    if whole:
        return tuple([_whole(pool, at, slots) for at in chosen])
    cores, gpus = slots * flat.cores, slots * flat.gpus
    memory_mb = slots * flat.memory_mb + flat.node_memory_mb
    known: dict[tuple[int, int], int] = {}
    claims = []
    for at in chosen:
        wanted = (pool.core_free[at], cores)
        ids = known.get(wanted) or known.setdefault(wanted, _best(pool, *wanted))
        gpu_ids = _best(pool, pool.gpu_free[at], gpus) if gpus else 0
        claims.append(_new(Claim, (pool.ranks[at], ids, gpu_ids, memory_mb, slots, ())))
    return tuple(claims)


def _first_of(pool: Pool, found: int, n: int, *, descending: bool) -> list[int]:
    """The first `n` of these positions by the number of the node."""
    ranking = pool.ranking
    if ranking is not None and not (ranking.plain or pool.match_policy.startswith("first")):
        order = ranking.descending if descending else ranking.ascending
        return _scan(order, found, n)
    return _last(found, n) if descending else first(found, n)


def _scan(order: Iterable[int], found: int, n: int) -> list[int]:
    spelled = found.to_bytes((found.bit_length() + 7) // 8 + 1, "little")
    chosen = []
    for at in order:
        if at >> 3 < len(spelled) and spelled[at >> 3] >> (at & 7) & 1:
            chosen.append(at)
            if len(chosen) == n:
                break
    return chosen


def _last(found: int, n: int) -> list[int]:
    """The highest `n` members, descending."""
    if n > 24:
        return list(positions(found))[-1 : -n - 1 : -1]
    chosen = []
    while n and found:
        at = found.bit_length() - 1
        chosen.append(at)
        found ^= 1 << at
        n -= 1
    return chosen


def _by_policy(pool: Pool, found: int, n: int) -> list[int]:
    """In the order in which the policy's object puts the nodes."""
    from .tree.match import Candidate

    if pool.match_policy == "locality" and (pool.ranking is None or pool.ranking.plain):
        return _nodes_in_rows(pool, found, n)
    layout, policy = pool.layout, pool.policy
    at_graph = pool.ranking.graph if pool.ranking is not None else range(len(pool.nodes))
    nodes = [layout.node_at[at] for at in _scan(at_graph, found, len(pool.nodes))]
    ordered = policy.order([Candidate(node, 1, policy.score(node), (), False, False) for node in nodes], n)
    return [layout.position[c.vertex.ordinal] for c in ordered[:n] if c.vertex is not None]


def _nodes_in_rows(pool: Pool, found: int, n: int) -> list[int]:
    """As `locality` takes them: nodes whose numbers follow one another. Their numbers ascend with their positions."""
    gaps = pool.layout.gaps()
    starts = list(positions(found & (~(found << 1) | gaps)))
    ends = list(positions(found & (~(found >> 1) | gaps >> 1)))
    chosen: list[int] = []
    for i in _order_of_rows([end - start + 1 for start, end in zip(starts, ends, strict=True)], n):
        chosen += range(starts[i], ends[i] + 1)
        if len(chosen) >= n:
            break
    return chosen[:n]


def _whole(pool: Pool, at: int, slots: int) -> Claim:
    node = pool.nodes[at]
    return Claim(node.rank, node.cores, node.gpus, node.memory_mb, slots)


def _best(pool: Pool, mask: int, n: int) -> int:
    """The `n` ids of a mask that the policy takes."""
    name = pool.match_policy
    if name in _DESCENDING:
        return highest(mask, n)
    return _in_rows(mask, n, n, 1)[0] if name == "locality" else lowest(mask, n)


def _order_of_rows(units: Sequence[int], k: int) -> list[int]:
    """In which order `locality` takes rows of so many units for a choice of `k`: as `policies.Locality` has it."""
    enough = [i for i, have in enumerate(units) if have >= k]
    if enough:  # the others are not needed
        return [min(enough, key=units.__getitem__)]
    return sorted(range(len(units)), key=lambda i: -units[i])


def _in_rows(mask: int, k: int, each: int, n: int) -> list[int]:
    """`n` times `each` ids, as `locality` takes them one after the other for a choice of `k` in all."""
    rows = list[int]()
    while mask:
        low = mask & -mask
        row = mask & ~(mask + low)
        rows.append(row)
        mask ^= row
    order = map(rows.__getitem__, _order_of_rows([row.bit_count() for row in rows], k))
    row, found = 0, list[int]()
    for _ in range(n):
        ids, left = 0, each
        while left:
            row = row or next(order)
            some = lowest(row, min(left, row.bit_count()))
            ids, row, left = ids | some, row ^ some, left - some.bit_count()
        found.append(ids)
    return found


def _slots_by_node(pool: Pool, flat: Flat, found: int, whole: bool) -> tuple[Claim, ...]:
    """Node by node, as many slots as fit."""
    left, claims = flat.nslots, []
    cores, gpus, memory_mb = flat.cores, flat.gpus, flat.memory_mb
    core_free, gpu_free, ranks, known = pool.core_free, pool.gpu_free, pool.ranks, dict[tuple[int, int], int]()
    plain, counts = not gpus and not memory_mb, pool.free.cores.counts
    for at in _first_of(pool, found, min(found.bit_count(), left), descending=pool.match_policy in _DESCENDING):
        slots = min(left, counts[at] // cores if plain else _fit(pool, flat, at))
        if whole:
            claims.append(_whole(pool, at, slots))
        else:
            wanted = (core_free[at], slots * cores)  # nodes have few different free masks
            ids = known.get(wanted) or known.setdefault(wanted, _best(pool, *wanted))
            wanted = (gpu_free[at], slots * gpus)
            gpu_ids = known.get(wanted) or known.setdefault(wanted, _best(pool, *wanted)) if gpus else 0
            claims.append(_new(Claim, (ranks[at], ids, gpu_ids, slots * memory_mb, slots, ())))
        left -= slots
        if not left:
            break
    return tuple(sorted(claims, key=itemgetter(0)))


def _fit(pool: Pool, flat: Flat, at: int) -> int:
    n = pool.free.cores.counts[at] // flat.cores
    if flat.gpus:
        n = min(n, pool.free.gpus.counts[at] // flat.gpus)
    if flat.memory_mb:
        n = min(n, pool.free.memory.counts[at] // flat.memory_mb)
    return n


class _Group:
    """Nodes with the same free ids, and the slots that fit on each of them, best first. taken: how many of these, on all."""

    __slots__ = ("members", "slots", "taken")

    def __init__(self, members: int, slots: Sequence[tuple[int, int, int]]) -> None:
        self.members = members
        self.slots = slots
        self.taken = 0


def _slots_by_sum(pool: Pool, flat: Flat, found: int) -> tuple[Claim, ...]:
    """Slots with the least (`high`: the greatest) sum of ids first; equal ones in the order of the graph."""
    sign = -1 if pool.match_policy in _DESCENDING else 1
    alike = _alike(pool, flat, found)
    groups = [_Group(members, _packed(mask, gpu_mask, flat, n, sign < 0)) for mask, gpu_mask, members, n in alike]
    heap = [(sign * group.slots[0][0], number) for number, group in enumerate(groups)]
    heapify(heap)
    left, more = flat.nslots, list[int]()
    while left:
        score = heap[0][0]
        equal: list[int] = []
        while heap and heap[0][0] == score:
            equal.append(heappop(heap)[1])
        total = sum(groups[number].members.bit_count() for number in equal)
        if total > left:
            union = 0
            for number in equal:
                union |= groups[number].members
            ranking = pool.ranking
            more = _scan(ranking.graph, union, left) if ranking is not None and not ranking.plain else first(union, left)
            break
        left -= total
        for number in equal:
            group = groups[number]
            group.taken += 1
            if group.taken < len(group.slots):
                heappush(heap, (sign * group.slots[group.taken][0], number))
    return _of_groups(pool, flat, groups, frozenset(more))


def _of_groups(pool: Pool, flat: Flat, groups: Iterable[_Group], more: frozenset[int]) -> tuple[Claim, ...]:
    """One slot more on these positions."""
    claims = []
    extra = 0
    for at in more:
        extra |= 1 << at
    for group in groups:
        for members, slots in ((group.members & ~extra, group.taken), (group.members & extra, group.taken + 1)):
            if members and slots:
                cores = gpus = 0
                for _, ids, gpu_ids in group.slots[:slots]:
                    cores, gpus = cores | ids, gpus | gpu_ids
                rest = (cores, gpus, slots * flat.memory_mb, slots, ())
                claims += [_new(Claim, (pool.ranks[at], *rest)) for at in positions(members)]
    claims.sort()
    return tuple(claims)


class _Alike(NamedTuple):
    """As `_Group`, with slots in the order in which they are made. size: how many members there are."""

    members: int
    size: int
    slots: Sequence[tuple[int, int, int]]


def _slots_in_rows(pool: Pool, flat: Flat, found: int) -> tuple[Claim, ...]:
    """Slots whose sums of ids follow one another, as `locality` has it; equal ones in the order of the graph."""
    groups, scored = list[_Alike](), dict[int, list[tuple[int, int]]]()
    for mask, gpu_mask, members, n in _alike(pool, flat, found):
        packed = _packed_in_rows(mask, gpu_mask, flat, n)
        for i, slot in enumerate(packed):
            scored.setdefault(slot[0], []).append((len(groups), i))
        groups.append(_Alike(members, members.bit_count(), packed))
    counts = {score: sum(groups[group].size for group, _ in there) for score, there in scored.items()}
    rows = list[list[int]]()
    for score in sorted(scored):
        if rows and score - rows[-1][-1] <= 1:
            rows[-1].append(score)
        else:
            rows.append([score])
    left, taken = flat.nslots, [list[int]() for _ in groups]  # which slots, on all nodes of a group
    more: dict[int, tuple[int, list[int]]] = {}
    order = _order_of_rows([sum(map(counts.__getitem__, row)) for row in rows], left)
    for score in (score for i in order for score in rows[i]):
        if counts[score] > left:
            more = _first_of_equal(pool, groups, scored[score], left)
            break
        left -= counts[score]
        for group, i in scored[score]:
            taken[group].append(i)
    claims, apart = [], set_of(more, len(pool.nodes))
    for at, (group, those) in more.items():
        claims.append(_new(Claim, (pool.ranks[at], *_held(flat, groups[group].slots, taken[group] + those))))
    for (members, _, slots), those in zip(groups, taken, strict=True):
        if those:
            rest = _held(flat, slots, those)
            claims += [_new(Claim, (pool.ranks[at], *rest)) for at in positions(members & ~apart)]
    claims.sort()
    return tuple(claims)


def _first_of_equal(
    pool: Pool, groups: Sequence[_Alike], equal: Iterable[tuple[int, int]], left: int
) -> dict[int, tuple[int, list[int]]]:
    """The first so many of equal slots (group, which) in the order of the graph: position -> its group, and which of them."""
    by_group: dict[int, list[int]] = {}
    union = 0
    for group, i in equal:
        by_group.setdefault(group, []).append(i)
        union |= groups[group].members
    ranking = pool.ranking
    found: dict[int, tuple[int, list[int]]] = {}
    for at in _scan(ranking.graph, union, left) if ranking is not None and not ranking.plain else first(union, left):
        group = next(group for group in by_group if groups[group].members >> at & 1)
        found[at] = (group, by_group[group][:left])
        left -= len(found[at][1])
        if not left:
            break
    return found


def _held(flat: Flat, slots: Sequence[tuple[int, int, int]], those: Sequence[int]) -> tuple[int, int, int, int, tuple[()]]:
    """A claim on a node on which these slots are taken, without its rank."""
    cores = gpus = 0
    for i in those:
        cores, gpus = cores | slots[i][1], gpus | slots[i][2]
    return cores, gpus, len(those) * flat.memory_mb, len(those), ()


def _packed_in_rows(mask: int, gpu_mask: int, flat: Flat, n: int) -> tuple[tuple[int, int, int], ...]:
    """(sum of ids, cores, GPUs) of `n` slots, in the order in which `locality` makes them."""
    cores = _in_rows(mask, flat.nslots * flat.cores, flat.cores, n)
    gpus = _in_rows(gpu_mask, flat.nslots * flat.gpus, flat.gpus, n) if flat.gpus else [0] * n
    return tuple((sum(positions(ids)) + sum(positions(gpu_ids)), ids, gpu_ids) for ids, gpu_ids in zip(cores, gpus, strict=True))


def _alike(pool: Pool, flat: Flat, found: int) -> Iterable[tuple[int, int, int, int]]:
    """(free cores, free GPUs, positions, slots that fit on each) of nodes that are alike."""
    cores, gpus = pool.masks()
    memory = pool.free.memory.levels
    for mask, members in cores.levels.items():
        members &= found
        if not members:
            continue
        most = min(flat.nslots, mask.bit_count() // flat.cores)
        if not flat.gpus and not flat.memory_mb:
            yield mask, 0, members, most
            continue
        for gpu_mask, same in gpus.levels.items() if flat.gpus else ((0, members),):
            both = members & same
            n = min(most, gpu_mask.bit_count() // flat.gpus) if flat.gpus else most
            if both and not flat.memory_mb:
                yield mask, gpu_mask, both, n
            elif both:
                for megabytes, there in memory.items():
                    if all_three := both & there:
                        yield mask, gpu_mask, all_three, min(n, megabytes // flat.memory_mb)


_known: dict[tuple[int, int, int, int, int, bool], tuple[tuple[int, int, int], ...]] = {}


def _packed(mask: int, gpu_mask: int, flat: Flat, n: int, high: bool) -> tuple[tuple[int, int, int], ...]:
    """(sum of ids, cores, GPUs) of `n` slots, made of the best ids one after the other."""
    key = (mask, gpu_mask, flat.cores, flat.gpus, n, high)
    found = _known.get(key)
    if found is None:
        best, slots = (highest if high else lowest), []
        for _ in range(n):
            ids = best(mask, flat.cores)
            gpu_ids = best(gpu_mask, flat.gpus) if flat.gpus else 0
            mask, gpu_mask = mask & ~ids, gpu_mask & ~gpu_ids
            slots.append((sum(positions(ids)) + sum(positions(gpu_ids)), ids, gpu_ids))
        if len(_known) >= _PACKED_SIZE:
            _known.clear()
        found = _known[key] = tuple(slots)
    return found
