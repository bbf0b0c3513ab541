"""A run of journal entries as a file, and back. Pure; decides the layout, and what makes a file one of this history.

    line      "fluxkv-segment-1\\n"
    4 bytes   length of the head, big-endian
    head      msgpack map: uid, first, last (versions), count, before, after (links), epochs [[first version, epoch], ...],
              t_first, t_last (server time), blocks [[first, last, bytes, checksum], ...], dropped
    16 bytes  checksum of the head
    blocks    zlib of msgpack [[version, epoch, header, payload], ...], entries as the server had them, byte for byte

A *link* stands for all of a history up to a version: the hash of the link before it and of the entry. So runs can be joined and
cut without new links, and one from a branch that was lost fits nowhere (HAZARD 19). A *thinned* segment (dropped > 0)
has lost most of its entries for good; its links are those of the whole run.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..kvs.blobs import blob_name, payload_hash
from ..kvs.errors import Corrupt
from ..kvs.hashes import blake2b
from ..kvs.port import Entry
from .wire import pack, read_header, unpack

MAGIC = b"fluxkv-segment-1\n"
NO_LINK = bytes(16)  # before the first entry of all
BLOCK_BYTES = 256 * 1024
SEGMENT_BYTES = 8 * 1024 * 1024  # before compression; a single entry may be larger
SEGMENT_ENTRIES = 10_000


def link_of(link: bytes, entry: Entry) -> bytes:
    """The link after an entry."""
    found = blake2b(link, digest_size=16)
    found.update(f"{entry.id} {len(entry.header)} ".encode())
    found.update(entry.header)
    found.update(entry.payload)
    return found.digest()


@dataclass(frozen=True, slots=True)
class Part:
    """What a manifest says of a segment. name: the file's. size: its bytes. The rest is as in its head."""

    name: str
    first: int
    last: int
    count: int
    size: int
    before: bytes
    after: bytes
    epochs: tuple[tuple[int, int], ...]
    t_first: float
    t_last: float
    dropped: int = 0

    def epoch_of(self, version: int) -> int:
        """The epoch of a version in it."""
        return [epoch for first, epoch in self.epochs if first <= version][-1]


def encode(uid: str, entries: Sequence[Entry], before: bytes, *, thinned: Part | None = None) -> tuple[Part, bytes]:
    """A segment of these entries (dense versions, at least one) and what a manifest says of it.

    before: the link before the first. thinned: the segment of which these few are what is kept.
    """
    link, blocks, body, some, size = before, [], [], list[list[Any]](), 0
    epochs: list[tuple[int, int]] = []
    for at, entry in enumerate(entries):
        link = link_of(link, entry)
        if not epochs or epochs[-1][1] != entry.epoch:
            epochs.append((entry.version, entry.epoch))
        some.append([entry.version, entry.epoch, entry.header, entry.payload])
        size += len(entry.header) + len(entry.payload)
        if size >= BLOCK_BYTES or at + 1 == len(entries):
            data = zlib.compress(pack(some), 6)
            blocks.append([some[0][0], some[-1][0], len(data), payload_hash(data)])
            body.append(data)
            some, size = [], 0
    times = [header_time(entry) for entry in (entries[0], entries[-1])] if entries else [0.0, 0.0]
    head: dict[str, Any] = {
        "uid": uid, "first": entries[0].version if entries else 0, "last": entries[-1].version if entries else 0,
        "count": len(entries), "before": before, "after": link, "epochs": epochs, "t_first": times[0], "t_last": times[1],
        "blocks": blocks, "dropped": 0,
    }  # fmt: skip
    if thinned is not None:
        head |= {
            "first": thinned.first, "last": thinned.last, "before": thinned.before, "after": thinned.after,
            "epochs": thinned.epochs, "t_first": thinned.t_first, "t_last": thinned.t_last,
            "dropped": thinned.dropped + thinned.count - len(entries),
        }  # fmt: skip
    packed = pack(head)
    data = b"".join((MAGIC, len(packed).to_bytes(4, "big"), packed, payload_hash(packed), *body))
    return _part(f"segments/{head['first']}-{head['last']}.{blob_name(data)}", head, len(data)), data


def header_time(entry: Entry) -> float:
    """Server time of an entry, 0.0 if its header cannot be read."""
    try:
        return read_header(entry).time
    except Corrupt:
        return 0.0


def _part(name: str, head: dict[str, Any], size: int) -> Part:
    epochs = tuple((int(first), int(epoch)) for first, epoch in head["epochs"])
    return Part(
        name, head["first"], head["last"], head["count"], size, head["before"], head["after"], epochs,
        head["t_first"], head["t_last"], head["dropped"],
    )  # fmt: skip


class Segment:
    """A segment's file, read: entries by version, a block unpacked when it is asked for."""

    __slots__ = ("_blocks", "_data", "_entries", "_starts", "part", "uid")

    def __init__(self, part: Part, uid: str, blocks: list[list[Any]], data: bytes, start: int) -> None:
        self.part = part
        self.uid = uid
        self._blocks = blocks
        self._data = data
        self._entries: dict[int, list[Entry]] = {}
        self._starts = []
        for block in blocks:
            self._starts.append(start)
            start += block[2]

    def block(self, at: int) -> list[Entry]:
        """One block's entries. Raises `Corrupt` when its checksum does not hold."""
        found = self._entries.get(at)
        if found is None:
            first, last, size, checksum = self._blocks[at]
            data = self._data[self._starts[at] : self._starts[at] + size]
            if payload_hash(data) != checksum:
                raise Corrupt(
                    f"segment {self.part.name}: the block of versions {first} to {last} does not match its checksum",
                    code="bad-segment",
                )  # fmt: skip
            found = self._entries[at] = [Entry(*row) for row in unpack(zlib.decompress(data))]
        return found

    @property
    def blocks(self) -> int:
        return len(self._blocks)

    def block_range(self, at: int) -> tuple[int, int]:
        """First and last version that a block has an entry of."""
        return self._blocks[at][0], self._blocks[at][1]

    def entries(self, after: int = 0, limit: int = 1 << 60) -> Iterator[Entry]:
        """Its entries with version > after, in order."""
        for at in range(bisect_left(self._blocks, after + 1, key=lambda block: block[1]), len(self._blocks)):
            for entry in self.block(at):
                if entry.version > after:
                    if limit <= 0:
                        return
                    limit -= 1
                    yield entry

    def entry(self, version: int) -> Entry | None:
        """One entry; None if it was dropped, or is none of this run's."""
        at = bisect_left(self._blocks, version, key=lambda block: block[1])
        if at == len(self._blocks):
            return None
        return next((entry for entry in self.block(at) if entry.version == version), None)


def decode(name: str, data: bytes, *, strict: bool = True) -> Segment:
    """A file as a segment. Raises `Corrupt` unless its head is whole and (if strict) its content is what its name says."""
    if strict and blob_name(data) != name.rpartition(".")[2]:
        raise Corrupt(f"segment {name} does not hold what its name promises", code="bad-segment")
    start = len(MAGIC) + 4
    size = int.from_bytes(data[len(MAGIC) : start], "big")
    packed, checksum = data[start : start + size], data[start + size : start + size + 16]
    if not data.startswith(MAGIC) or payload_hash(packed) != checksum:
        raise Corrupt(f"segment {name} can not be read: its head is damaged", code="bad-segment")
    head = unpack(packed)
    return Segment(_part(name, head, len(data)), head["uid"], head["blocks"], data, start + size + 16)


def check_whole(segment: Segment) -> None:
    """Read all of it: every checksum, dense versions, and links that come out. Raises `Corrupt` naming the first fault."""
    part = segment.part
    link, version = part.before, part.first - 1
    for entry in segment.entries():
        if not part.dropped:
            if entry.version != version + 1:
                raise Corrupt(f"segment {part.name}: version {version + 1} is missing", code="bad-segment")
            link = link_of(link, entry)
        version = entry.version
    if not part.dropped and (version != part.last or link != part.after):
        raise Corrupt(f"segment {part.name}: its entries are not those its links stand for", code="bad-segment")


def runs(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries in runs of a segment's size each, the last one as long as it happens to be."""
    some: list[Entry] = []
    size = 0
    for entry in entries:
        some.append(entry)
        size += len(entry.header) + len(entry.payload)
        if size >= SEGMENT_BYTES or len(some) >= SEGMENT_ENTRIES:
            yield some
            some, size = [], 0
    if some:
        yield some
