"""Heartbeats: what agents, and a planning worker, put into the telemetry stream about themselves; and a worker's word to whoever
stops the instance. Pure; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from zlib import crc32

from msgpack.exceptions import UnpackException

from ..journal.wire import pack, unpack
from .attempts import Placed
from .reactor import Stops

STOPS = "stops"  # what its word begins with
PULSE: tuple[int, ...] = ()  # the ranks of a worker's own beat


class Beat(NamedTuple):
    """One heartbeat. ranks: nodes it speaks for. time: of its host's clock. attempts: how many are held. load: of the host.

    fence_s: how long tasks with a fence live there without the store. held: of each rank, what stands for its attempts.
    """

    ranks: tuple[int, ...]
    time: float = 0.0
    attempts: int = 0
    load: float = 0.0
    fence_s: float = 0.0
    held: tuple[int, ...] = ()


def pack_beat(beat: Beat) -> bytes:
    return pack(list(beat))


def read_beat(data: bytes) -> Beat | None:
    """None for what is no beat."""
    try:
        ranks, *rest = unpack(data)
        beat = Beat(tuple(ranks), *rest[:4], *(tuple(one) for one in rest[4:5]))
        return beat if all(rank.__class__ is int for rank in ranks) and beat.fence_s >= 0 else None
    except (ValueError, TypeError, LookupError, UnpackException):
        return None


def pack_stops(word: Stops) -> bytes:
    return pack([STOPS, *word])


def read_stops(data: bytes) -> Stops | None:
    """None for what is no such word."""
    try:
        name, version, epoch, busy, ended = unpack(data)
        return Stops(int(version), int(epoch), bool(busy), tuple(map(int, ended))) if name == STOPS else None
    except (ValueError, TypeError, UnpackException):
        return None


def held_sum(attempts: list[str]) -> int:
    """What stands for a set of attempts (`<job>.<version>-<epoch>`), in whatever order."""
    return sum(crc32(name.encode()) for name in attempts) & 0xFFFFFFFF


def held_sums(placed: Iterable[Placed], ranks: Sequence[int]) -> tuple[int, ...]:
    """`held_sum` of each rank, of the attempts that an agent has and has not heard the end of; scripts are not among them."""
    names: dict[int, list[str]] = {rank: [] for rank in ranks}
    for one in placed:
        if not (one.over or one.letter):
            names[one.rank].append(one.key.rpartition(".")[0])
    return tuple(held_sum(names[rank]) for rank in ranks)
