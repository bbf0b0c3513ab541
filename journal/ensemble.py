"""An ensemble: one request for very many small jobs, its members, and what became of them. Pure.

Decides how members are numbered, how large a share of them a child takes next, and how a request and results are kept as bytes.
Never how they are run: `instances.ensemble_feed` does that.

A member has an *index*, which its user knows (the number of --cc, or the number of its input from 0 on), and a *position*: the
indices in their order, counted from 0.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from ..kvs.errors import Corrupt, Rejected
from .idset import mask_of, text_of
from .job import RESULT_ABBREV, Result
from .wire import pack, unpack

FORM = 1
FILE = "ensemble"  # of the job: holds the request
MOST = 5000  # members in a share
BLOCK = 1000  # inputs that are unpacked together
RESERVE_S = 1.0  # of work that a child has before it asks for more
TELLINGS = 32  # a second, of all children together
WHY = 200  # characters of a reason
_COLUMNS = "IQBiHdf"  # position, job id, result, status (-1: none), attempt, when it began, how long it ran
_OK = int(Result.COMPLETED)
_FRAME = struct.Struct(">BI")  # of a part: a mark, and how many bytes of it follow
_MARK, _ALONE = 2, b"\x78"  # what begins with the other mark is a part without a frame, and nothing follows it


# -- members --------------------------------------------------------------------------------------------------------


class Indices:
    """Numbers that ascend, kept as ranges [first, last]. len, [position], position_of."""

    def __init__(self, ranges: Iterable[Sequence[int]]) -> None:
        self.ranges = tuple((int(first), int(last)) for first, last in ranges)
        if any(first > last for first, last in self.ranges) or any(
            one[1] >= other[0] for one, other in zip(self.ranges, self.ranges[1:], strict=False)
        ):
            raise Rejected("indices are not in ascending ranges", code="bad-ensemble")
        self._ends = list(accumulate(last - first + 1 for first, last in self.ranges))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, position: int) -> int:
        at = bisect_right(self._ends, position)
        return self.ranges[at][1] - (self._ends[at] - 1 - position)

    def position_of(self, index: int) -> int:
        """Where an index stands, -1 if it is none of them."""
        at = bisect_right(self.ranges, (index, 1 << 62)) - 1
        if at < 0 or index > self.ranges[at][1]:
            return -1
        return self._ends[at] - 1 - (self.ranges[at][1] - index)

    def part(self, start: int, count: int) -> Iterator[int]:
        """Those at `count` positions from `start` on."""
        end = min(start + count, len(self))
        at = bisect_right(self._ends, start)
        while start < end:
            first, last = self.ranges[at]
            before = self._ends[at] - (last - first + 1)
            stop = min(end, self._ends[at])
            yield from range(first + start - before, first + stop - before)
            start, at = stop, at + 1

    def __iter__(self) -> Iterator[int]:
        return self.part(0, len(self))


def indices_of(text: str) -> Indices:
    """Those of an idset (RFC 22). Raises `Rejected`."""
    return runs_of(text_of(mask_of(text)))


def runs_of(text: str) -> Indices:
    """Of a canonical idset."""
    pairs = [item.partition("-") for item in text.split(",") if item]
    return Indices((int(low), int(high or low)) for low, _, high in pairs)


def gaps(done: bytes | bytearray) -> list[tuple[int, int]]:
    """The ranges of positions at which there is a 0."""
    found = []
    at = done.find(0)
    while at >= 0:
        end = done.find(1, at)
        end = len(done) if end < 0 else end
        found.append((at, end - 1))
        at = done.find(0, end)
    return found


def share_size(left: int, children: int, slots: int, rate: float) -> int:
    """How many of the members that are left a child takes next (guided self-scheduling): its part of half of them, so that shares
    become smaller to the end and a slow child holds up nobody; but what it can run at once, or in half a second, at least.

    slots: members that it can run at once. rate: those that ended there per second.
    """
    least = max(1, slots, int(rate * 0.5))
    return min(left, MOST, max(least, left // (2 * max(1, children))))


def enough(slots: int, rate: float) -> int:
    """With how many members that have not ended a child asks for no more."""
    return max(2 * slots, min(MOST, int(rate * RESERVE_S)))


def telling_gap(children: int, age_s: float) -> float:
    """Seconds between two tellings of a child: a 64th of the ensemble's age, and at first half a second, or, of more than two
    children, longer, up to two, and of more than 64 still longer: what one tells all others read, so together they speak 32 times
    a second at most, however many they are."""
    return min(30.0, max(0.5, min(2.0, children / 4), children / TELLINGS, age_s / 64))


# -- the request ----------------------------------------------------------------------------------------------------


class Request(NamedTuple):
    """jobspec: of each member, texts not filled in. texts: those of its texts that are to be. ranges: of indices. env: what the
    environment of all is. cores, gpus: what one member needs. rows: the inputs of all, from 0 on, in blocks (see
    `packed_rows`); () where there are only numbers. define: as bulksubmit's. conf: the children's config. blobs: contents that the
    jobspec names. per_node: children on each node. kvs: "own" if each has a server of
    its own."""

    jobspec: dict[str, Any]
    texts: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...]
    env: dict[str, str]
    cores: int = 1
    gpus: int = 0
    rows: tuple[bytes, ...] = ()
    define: tuple[str, ...] = ()
    conf: Mapping[str, Any] = {}
    blobs: Mapping[str, bytes] = {}
    per_node: int = 1
    kvs: str = ""

    def encode(self) -> bytes:
        """As bytes; equal requests are equal bytes."""
        return zlib.compress(pack([FORM, *self]), 6)


def decode(data: bytes) -> Request:
    """The request that bytes hold. Raises `Corrupt`."""
    try:
        form, *rest = unpack(zlib.decompress(data))
        if form != FORM:
            raise Corrupt(f"ensemble: a request of form {form}", code="bad-ensemble", hint="a newer fluxkv made it")
        jobspec, texts, ranges, env, cores, gpus, rows, define, conf, blobs, per_node, kvs = rest
        pairs = tuple((int(first), int(last)) for first, last in ranges)
        return Request(jobspec, tuple(texts), pairs, env, cores, gpus, tuple(rows), tuple(define), conf, blobs, per_node, kvs)
    except (ValueError, TypeError, zlib.error) as error:
        raise Corrupt(f"ensemble: its request cannot be read: {error}", code="bad-ensemble") from None


def packed_rows(rows: Iterable[Sequence[str]]) -> tuple[tuple[bytes, ...], int]:
    """(inputs in compressed blocks, their number). At no time more than a block of them is there as texts."""
    blocks: list[bytes] = []
    block: list[list[str]] = []
    count = 0
    for row in rows:
        block.append(list(row))
        count += 1
        if len(block) == BLOCK:
            blocks.append(zlib.compress(pack(block), 6))
            block = []
    if block:
        blocks.append(zlib.compress(pack(block), 6))
    return tuple(blocks), count


class Rows:
    """The inputs of a request by index; a few blocks are kept unpacked."""

    def __init__(self, blocks: Sequence[bytes]) -> None:
        self._blocks = blocks
        self._open: dict[int, list[list[str]]] = {}

    def __getitem__(self, index: int) -> tuple[str, ...]:
        number, at = divmod(index, BLOCK)
        block = self._open.get(number)
        if block is None:
            if len(self._open) >= 8:
                del self._open[next(iter(self._open))]
            block = self._open[number] = unpack(zlib.decompress(self._blocks[number]))
        return tuple(block[at])


# -- what became of members -----------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """A member that has ended. id: of its job. result: of `Result`. status: wait word, -1 if it never ran. attempt: of its job,
    which one that was. t_run: Unix seconds, 0.0 if it never ran. runtime: seconds. why: its first fatal exception, "type: note"."""

    position: int
    id: int
    result: int
    status: int
    attempt: int
    t_run: float
    runtime: float
    why: str = ""

    @property
    def ok(self) -> bool:
        return self.result == _OK

    @property
    def returncode(self) -> int:
        """As a shell gives it; not 0 where it did not succeed."""
        signal = self.status & 0x7F if self.status >= 0 else 0
        code = 128 + signal if signal else self.status >> 8 if self.status >= 0 else 1
        return code or (0 if self.ok else 1)

    @property
    def letters(self) -> str:
        """CD, F, CA or TO."""
        return RESULT_ABBREV.get(self.result, "F")


class Part:
    """Results that were reported together, as columns. path: where their jobs are, below the ensemble: (its attempt, the child's
    job, the child's attempt)."""

    def __init__(self, path: tuple[int, int, int], rows: Iterable[Ended] = ()) -> None:
        self.path = path
        self.columns: list[array[Any]] = [array(kind) for kind in _COLUMNS]
        self.why: dict[int, str] = {}
        for number, row in enumerate(rows):
            values: tuple[Any, ...] = row
            for column, value in zip(self.columns, values, strict=False):
                column.append(value)
            if row.why:
                self.why[number] = row.why[:WHY]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, number: int) -> Ended:
        return Ended._make((*(column[number] for column in self.columns), self.why.get(number, "")))

    def __iter__(self) -> Iterator[Ended]:
        return (self[number] for number in range(len(self)))

    @property
    def positions(self) -> array[int]:
        return self.columns[0]

    @property
    def failed(self) -> int:
        """How many of them did not succeed."""
        results = self.columns[2]
        return len(results) - results.count(_OK)

    def encode(self) -> bytes:
        """As bytes. What others of this path are, appended, is a part, too: of all of them."""
        data = zlib.compress(pack([FORM, list(self.path), [column.tobytes() for column in self.columns], self.why]), 1)
        return _FRAME.pack(_MARK, len(data)) + data

    def _add(self, columns: Sequence[bytes], why: Mapping[int, str]) -> None:
        before = len(self)
        for column, content in zip(self.columns, columns, strict=True):
            column.frombytes(content)
        if len({len(column) for column in self.columns}) != 1:
            raise ValueError("columns of unequal lengths")
        self.why.update((before + int(number), text) for number, text in why.items())


def part_of(data: bytes) -> Part:
    """The part that bytes hold, or that several hold which were appended to one another. Raises `Corrupt`."""
    made: Part | None = None
    try:
        for packed in _frames(data):
            form, path, columns, why = unpack(zlib.decompress(packed))
            whose = (path[0], path[1], path[2])
            made = Part(whose) if made is None else made  # an empty one is false
            if form != FORM or whose != made.path:
                raise ValueError(f"form {form} of {whose}")
            made._add(columns, why)
        if made is None:
            raise ValueError("nothing is there")
        return made
    except (ValueError, TypeError, IndexError, AttributeError, struct.error, zlib.error) as error:
        raise Corrupt(f"ensemble: results that cannot be read: {error}", code="bad-ensemble") from None


def _frames(data: bytes) -> Iterator[bytes | memoryview]:
    if data.startswith(_ALONE):
        yield data
        return
    at, view = 0, memoryview(data)
    while at < len(data):
        mark, length = _FRAME.unpack_from(data, at)
        end = at + _FRAME.size + length
        if mark != _MARK or end > len(data):
            raise ValueError("a newer fluxkv wrote them, or they are damaged")
        yield view[at + _FRAME.size : end]
        at = end


class Count(NamedTuple):
    """Members that have ended under one child. worst: the largest of their exit codes. running: those that had not, then."""

    done: int = 0
    failed: int = 0
    worst: int = 0
    running: int = 0

    def plus(self, rows: Iterable[Ended]) -> Count:
        """With these."""
        done, failed, worst, running = self
        for row in rows:
            done += 1
            if not row.ok:
                failed += 1
                worst = max(worst, row.returncode)
        return Count(done, failed, worst, running)


def total_of(counts: Iterable[Count]) -> Count:
    """Of all children."""
    done = failed = worst = running = 0
    for count in counts:
        done, failed, worst, running = done + count.done, failed + count.failed, max(worst, count.worst), running + count.running
    return Count(done, failed, worst, running)
