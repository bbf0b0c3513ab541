"""Why a request of any shape does not fit a pool: the first of its needs of which there is too little, and how many are short.

Each need is tried with one of those below it at a time, level by level, so what is named is the need that is to blame and not
the ones that fail because of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from ...kvs.errors import Rejected
from .live import LiveSearch
from .needs import Need, of_request
from .stand import Stand, stand_of

if TYPE_CHECKING:
    from ..request import Request
    from ..resources import Pool

MAX_TRIES = 64


class Shortage(NamedTuple):
    """text: "needs 4 nodes with 3 sockets; 2 fit". kind: the type that is short. needed, found: of `unit`, the outermost need."""

    text: str
    kind: str
    needed: int
    found: int
    unit: str


def shortage(pool: Pool, request: Request, *, empty: bool = False, all_up: bool = False, now: str = "") -> Shortage:
    """What is short. Precondition: the request does not fit. now: what is said after the number that fits (" now").

    empty, all_up: as in `stand.search`.
    """
    wanted = of_request(request)
    layout = pool.layout
    for need in wanted.needs:
        for one in _all(need):
            if not one.is_slot and one.type not in layout.homes:
                there = ", ".join(sorted(layout.homes))
                return Shortage(f"there is no {one.type} in the resource graph, which has {there}", one.type, one.low, 0, one.type)
    stand = stand_of(pool, request, empty=empty, all_up=all_up)
    tries = [MAX_TRIES]
    for need in wanted.needs:
        found = _blame(stand, pool, request, [need], tries)
        if found is not None:
            chain, count = found
            return _said(chain, count, now)
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
    if not last.is_slot:
        tries[0] -= 1
        if tries[0] < 0:
            return None
        count = _count(stand, pool, request, _only(chain))
        if count < chain[0].low:
            return chain, count
    for child in last.children:
        found = _blame(stand, pool, request, [*chain, child], tries)
        if found is not None:
            return found
    return None


def _only(chain: list[Need]) -> Need:
    """The first need with nothing below it but the others, one in the other."""
    need = replace(chain[-1], children=(), slots=(), others=(), least={})
    for above in reversed(chain[:-1]):
        slots, others = ((need,), ()) if need.is_slot else ((), (need,))
        need = replace(above, children=(need,), slots=slots, others=others, least={})
    return need


def _count(stand: Stand, pool: Pool, request: Request, need: Need) -> int:
    """How many of a need there are."""
    try:
        wanted = replace(of_request(request), needs=(need,))
    except Rejected:  # it was compiled before
        return 0
    return LiveSearch(stand, pool.policy, wanted).count(need)


def _said(chain: list[Need], count: int, now: str, rest: str = "") -> Shortage:
    words = _n(chain[0])
    for above, need in pairwise(chain):
        words += f" {'of' if above.is_slot else 'with'} {_n(need)}"
    fit = f"{count or 'none'} fit{'s' if count < 2 else ''}{now}"
    return Shortage(f"needs {words}{rest}; {fit}", chain[-1].type, chain[0].low, min(count, chain[0].low - 1), chain[0].type)


def _n(need: Need) -> str:
    kind = "slot" if need.is_slot else need.type
    if need.unit:
        return f"{need.low} {need.unit} of {kind}"
    more = need.low != 1 and kind not in ("memory", "power", "bandwidth", "storage")
    return f"{need.low} {kind}{'s' if more else ''}"
