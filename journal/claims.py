"""What a job holds on each of its nodes: the unit of allocation, and its form in events.

Decides the shape of a claim only; whether claims may be granted is decided elsewhere. RFC 20 calls the same
thing R, whose text is made from claims in `rset`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from .idset import MAX_ID, mask_of, text_of
from .shown import shown


class Claim(NamedTuple):
    """A share of one node.

    rank: the node. cores, gpus: bit masks of logical ids. memory_mb: mebibytes (0 when none was asked for).
    slots: how many task slots of the job are on this node.
    """

    rank: int
    cores: int
    gpus: int
    memory_mb: int
    slots: int


def to_wire(claims: Iterable[Claim]) -> list[list[Any]]:
    """Plain lists `[rank, cores idset, gpus idset, memory_mb, slots]`, as events hold them."""
    return [[c[0], text_of(c[1]), text_of(c[2]), c[3], c[4]] for c in claims]


def from_wire(wire: Sequence[Sequence[Any]]) -> tuple[Claim, ...]:
    """The inverse of `to_wire`. Raises `Rejected` (code bad-claim) for anything of another shape."""
    claims = []
    try:
        for rank, cores, gpus, memory_mb, slots in wire:
            if not (type(rank) is type(memory_mb) is type(slots) is int):
                raise TypeError("rank, memory_mb and slots are integers")
            if not 0 <= rank < MAX_ID or memory_mb < 0 or slots < 0:
                raise ValueError("rank, memory_mb and slots must not be negative, nor rank too large")
            claims.append(Claim(rank, mask_of(cores), mask_of(gpus), memory_mb, slots))
    except (TypeError, ValueError) as error:
        raise Rejected(
            f"bad claims {shown(wire)}: {error}",
            code="bad-claim",
            hint="each is [rank, cores idset, gpus idset, memory_mb, slots]",
        ) from None
    return tuple(claims)
