"""Why a request of any shape does not fit a pool: the first of its needs of which there is too little, and how many are short.

Each need is tried with one of those below it at a time, level by level, so what is named is the need that is to blame and not
the ones that fail because of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, pairwise
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from ...journal.jobspec_check import ONE_OF
from ...journal.shown import counted
from ...kvs.errors import Rejected
from ..imposed import Lack, impose
from .live import LiveSearch
from .needs import Need, of_request
from .stand import Stand, stand_of

if TYPE_CHECKING:
    from ..request import Request
    from ..resources import Pool
    from .vertices import Vertex

MAX_TRIES = 64
MAX_POOLS = 4096  # looked at for the one that has most


class Shortage(NamedTuple):
    """text: "needs 4 nodes with 3 sockets; 2 fit". kind: the type that is short. needed, found: of `unit`, the outermost need, or,
    where no single pool has enough, of `of` in that pool that has most, in the graph's unit."""

    text: str
    kind: str
    needed: int
    found: int
    unit: str
    of: str = ""


def shortage(pool: Pool, request: Request, *, empty: bool = False, all_up: bool = False, now: str = "") -> Shortage:
    """What is short. Precondition: the request does not fit. now: what is said after the number that fits (" now").

    empty, all_up: as in `stand.search`.
    """
    if request.imposed is not None:
        lack = impose(pool, stand_of(pool, request, empty=empty, all_up=all_up), request.imposed)
        return Shortage(*lack, lack.kind) if isinstance(lack, Lack) else Shortage("it fits", "node", 1, 0, "node")
    wanted = of_request(request, pool.traverser)
    layout = pool.layout
    for need in wanted.needs:
        for one in _all(need):
            if not one.is_slot and one.type not in layout.homes:
                there = ", ".join(sorted(layout.homes))
                return Shortage(f"there is no {one.type} in the resource graph, which has {there}", one.type, one.low, 0, one.type)
    stand = stand_of(pool, request, empty=empty, all_up=all_up)
    tries = [MAX_TRIES]
    found = _blame_any(stand, pool, request, [], wanted.needs, tries)
    if found is not None:
        chain, count = found
        return (None if count else _of_a_pool(stand, pool, request, chain)) or _said(chain, count, now)
    for need in wanted.needs:  # each part of it is there, but not all of one together
        count = _count(stand, pool, request, need)
        if count < need.low:
            return _said([need], count, now, " with all that is asked for of it")
    top = wanted.needs[0]
    return Shortage("each part of it fits, but not all together, or a slot has no core", top.type, 1, 0, "request")


def _all(need: Need) -> Iterator[Need]:
    yield need
    for child in need.children:
        yield from _all(child)


def _blame(stand: Stand, pool: Pool, request: Request, chain: list[Need], tries: list[int]) -> tuple[list[Need], int] | None:
    """The shortest way down to a need of which there is too little, and how many of the first there are; None if there is none."""
    last = chain[-1]
    if not last.is_slot or last.alternatives:
        tries[0] -= 1
        if tries[0] < 0:
            return None
        count = _count(stand, pool, request, _only(chain))
        if count < chain[0].low:
            return chain, count
    return None if last.alternatives else _blame_any(stand, pool, request, chain, last.children, tries)


def _blame_any(
    stand: Stand, pool: Pool, request: Request, chain: list[Need], needs: Sequence[Need], tries: list[int]
) -> tuple[list[Need], int] | None:  # fmt: skip
    """The first of some needs side by side, or of what is below them, that is short; an alternative only if all others are, too:
    then the one of which there is most, or that asks for least."""
    either: list[tuple[list[Need], int] | None] = []
    for need in needs:
        found = _blame(stand, pool, request, [*chain, need], tries)
        if need.type == ONE_OF:
            either.append(found)
        elif found is not None:
            return found
    short = [found for found in either if found is not None]
    if not short or len(short) < len(either):
        return None
    return max(short, key=lambda found: (found[1], -prod(need.low for need in found[0])))


def _only(chain: list[Need]) -> Need:
    """The first need with nothing below it but the others, one in the other."""
    need = chain[-1] if chain[-1].alternatives else replace(chain[-1], children=(), slots=(), others=(), least={})
    for above in reversed(chain[:-1]):
        slots, others = ((need,), ()) if need.is_slot else ((), (need,))
        need = replace(above, children=(need,), slots=slots, others=others, least={})
    return need


def _count(stand: Stand, pool: Pool, request: Request, need: Need) -> int:
    """How many of a need there are."""
    try:
        wanted = replace(of_request(request, pool.traverser), needs=(need,))
    except Rejected:  # it was compiled before
        return 0
    return LiveSearch(stand, pool.policy, wanted).count(need)


def _of_a_pool(stand: Stand, pool: Pool, request: Request, chain: list[Need]) -> Shortage | None:
    """Of a quantity of which no single pool has enough: which has most. None where that is not what is short."""
    need, layout = chain[-1], pool.layout
    above = next((one.type for one in reversed(chain[:-1]) if not one.is_slot), "")
    pools = list(islice((v for v in layout.vertices if v.type == need.type and v.size > 1 and not v.ids), MAX_POOLS + 1))
    search = LiveSearch(stand, pool.policy, of_request(request, pool.traverser))
    best: tuple[int, int, Vertex, Vertex] | None = None
    for vertex in pools if len(pools) <= MAX_POOLS else ():
        home = _above(vertex, above) if above else vertex
        if home is None or not search.admits(vertex) or (factor := search.ratio(vertex, need)) is None:
            continue
        there = max(0, search.available(vertex, need, False, False))
        needed = -(-need.low * factor[1] // factor[0])
        if there < needed and (best is None or there > best[0]):
            best = there, needed, vertex, home
    if best is None:
        return None
    there, needed, vertex, home = best
    unit, most = vertex.unit or need.type, f"{there:,}" if there == vertex.size else f"{there:,} of {vertex.size:,}"
    where = f"{home.name} has the most{'' if stand.empty else ' free'}, {most} {vertex.unit}".rstrip()
    if not there:
        where = "none of it is free"
    return Shortage(f"needs {_words(chain)}; {where}", need.type, needed, there, unit, need.type if vertex.unit else "")


def _above(vertex: Vertex, kind: str) -> Vertex | None:
    """The nearest vertex of a type that it is below of."""
    for parents in vertex.parents.values():
        for parent in parents:
            found = parent if parent.type == kind else _above(parent, kind)
            if found is not None:
                return found
    return None


def words_of(needs: Sequence[Need], room: int = 20) -> str:
    """Needs with all below them: "1 rack (8 kW of power, 2+ nodes with 1 slot of 4 cores)". room: so many of them side by side."""
    parts = []
    for need in needs[:room]:
        below = "" if need.alternatives else words_of(need.children, room // 2)
        if len(need.children) > 1 and below:
            below = f" ({below})"
        elif below:
            below = f" {'of' if need.is_slot else 'with'} {below}"
        parts.append(f"{_n(need, more='+' if need.high > need.low else '')}{below}")
    return ", ".join([*parts, *(["..."] if len(needs) > room else [])])


def _words(chain: list[Need]) -> str:
    words = _n(chain[0])
    for above, need in pairwise(chain):
        words += f" {'of' if above.is_slot else 'with'} {_n(need)}"
    return words


def _said(chain: list[Need], count: int, now: str, rest: str = "") -> Shortage:
    fit = f"{count or 'none'} fit{'s' if count < 2 else ''}{now}"
    first = chain[0]
    return Shortage(f"needs {_words(chain)}{rest}; {fit}", chain[-1].type, first.low, min(count, first.low - 1), first.type)


def _n(need: Need, more: str = "") -> str:
    """So many of it; more: stands behind the number."""
    kind = "slot" if need.is_slot else need.type
    if need.unit:
        return f"{need.low:,}{more} {need.unit} of {kind}"
    number, _, noun = counted(need.low, kind).partition(" ")
    mixed = " or of ".join(words_of(one.children) for one in need.alternatives)
    return f"{number}{more} {noun}{f' of {mixed}' if mixed else ''}"
