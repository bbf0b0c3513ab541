"""What a job holds on each of its nodes: the unit of allocation, and its form in events.

Decides the shape of a claim only; whether claims may be granted is decided elsewhere. RFC 20 calls the same
thing R, whose text is made from claims in `rset`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from .idset import MAX_ID, mask_of, text_of
from .shown import shown

MAX_PATH = 4096
#: Megabytes per unit of a `memory` vertex. As with other schedulers, 1 GB is 1024 MB and MiB is another name
#: for MB.
MEMORY_UNITS = {"MB": 1, "MiB": 1, "GB": 1024, "GiB": 1024, "TB": 1024 * 1024, "TiB": 1024 * 1024}


class Draw(NamedTuple):
    """What is held of a vertex of the resource graph that is no core, GPU or memory of a node.

    vertex: its path ("/cluster0/rack1/power0"). units: of its size, in its own unit; all of it for a vertex that is held as a
    whole. ids: which, where the vertex stands for single resources with ids; 0 where it does not.
    """

    vertex: str
    units: int
    ids: int = 0


class Claim(NamedTuple):
    """A share of one node, and what is drawn on its behalf from pools in, above and beside it.

    rank: the node. cores, gpus: bit masks of logical ids. memory_mb: mebibytes (0 when none was asked for).
    slots: how many task slots of the job are on this node. draws: by ascending vertex, each once among all claims of a job;
    what several nodes share hangs on one of them and is given back with it.
    """

    rank: int
    cores: int
    gpus: int
    memory_mb: int
    slots: int
    draws: tuple[Draw, ...] = ()


def to_wire(claims: Iterable[Claim]) -> list[list[Any]]:
    """Plain lists `[rank, cores idset, gpus idset, memory_mb, slots]`, as events hold them; with draws also
    `[[vertex, units, ids idset], ...]`.
    """
    return [
        [c[0], text_of(c[1]), text_of(c[2]), c[3], c[4], *([[[d[0], d[1], text_of(d[2])] for d in c[5]]] if c[5] else ())]
        for c in claims
    ]


def from_wire(wire: Sequence[Sequence[Any]]) -> tuple[Claim, ...]:
    """The inverse of `to_wire`. Raises `Rejected` (code bad-claim) for anything of another shape."""
    claims = []
    try:
        for rank, cores, gpus, memory_mb, slots, *drawn in wire:
            if not (type(rank) is type(memory_mb) is type(slots) is int):
                raise TypeError("rank, memory_mb and slots are integers")
            if not 0 <= rank < MAX_ID or memory_mb < 0 or slots < 0:
                raise ValueError("rank, memory_mb and slots must not be negative, nor rank too large")
            draws = _draws(*drawn) if drawn else ()
            claims.append(Claim(rank, mask_of(cores), mask_of(gpus), memory_mb, slots, draws))
    except (TypeError, ValueError) as error:
        raise Rejected(
            f"bad claims {shown(wire)}: {error}",
            code="bad-claim",
            hint="each is [rank, cores idset, gpus idset, memory_mb, slots], and draws [[vertex, units, ids idset], ...]",
        ) from None
    return tuple(claims)


def _draws(wire: Sequence[Sequence[Any]]) -> tuple[Draw, ...]:
    draws = []
    for vertex, units, ids in wire:
        if type(vertex) is not str or not vertex.startswith("/") or len(vertex) > MAX_PATH:
            raise ValueError("a draw names its vertex by a path")
        if type(units) is not int or units < 1:
            raise ValueError("a draw takes one unit or more")
        draws.append(Draw(vertex, units, mask_of(ids)))
    if any(one.vertex >= other.vertex for one, other in pairwise(draws)):
        raise ValueError("draws are not in the order of their vertices")
    return tuple(draws)
