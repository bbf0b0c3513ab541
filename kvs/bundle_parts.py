"""Contents, output, entries and snapshots of instances that ended, where there is too much of them for one file: in parts beside
it, each read when somebody asks for something in it.

    <file>.part-<hash>      zlib(msgpack([bytes, ...]))

The hash is of the part's own bytes; the file names its parts in their order (`bundle.Head`), and has a `Far` where bytes would
stand. A part is written, and read back, before the file that names it, so whoever finds a file finds its parts.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import msgpack

from .errors import Corrupt, Unavailable
from .hashes import blake2b
from .memory_streams import Id, MemoryStream
from .port import Depot, Entry, Message

NEAR_BYTES = 32_000_000  # of one child are in its file; what comes beyond that is in parts
PART_BYTES = 32_000_000  # not compressed
LEAST = 64  # bytes; what is smaller stays in the file: it takes little more than a `Far`
OPEN = 2  # parts that a reader holds
_MARK = ".part-"


class Far(NamedTuple):
    """Bytes in a part: in which one, and which of its rows. As plain data a list of two."""

    part: int
    row: int


Kept = bytes | Far


class FarEntry(NamedTuple):
    """An entry whose header and payload are in a part, as msgpack([header, payload]). check: a hash of that."""

    version: int
    epoch: int
    far: Far
    check: bytes

    @property
    def id(self) -> str:
        return f"{self.version}-{self.epoch}"


KeptEntry = Entry | FarEntry


def is_part(name: str) -> bool:
    """Whether a file in an archive is a part of another."""
    return _MARK in name


def part_name(file: str, word: str) -> str:
    return f"{file}{_MARK}{word}"


def kept_of(value: Any) -> Kept:
    """As it was before it was plain data. Raises ValueError for what it never was."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, list) or len(value) != 2 or any(type(one) is not int or one < 0 for one in value):
        raise ValueError("contents are neither bytes nor in a part")
    return Far(*value)


def kept_entry_of(value: list[Any]) -> KeptEntry:
    """An entry as it was before it was plain data. Raises as `kept_of`."""
    if isinstance(value[2], bytes):
        return Entry(*value)
    version, epoch, far, check = value
    if type(version) is not int or type(epoch) is not int or not isinstance(check, bytes):
        raise ValueError("an entry is none")
    return FarEntry(version, epoch, cast("Far", kept_of(far)), check)


def same_entry(one: KeptEntry, other: KeptEntry) -> bool:
    """Whether two are the same, wherever they are kept."""
    return (one.version, one.epoch, _check_of(one)) == (other.version, other.epoch, _check_of(other))


def _check_of(entry: KeptEntry) -> bytes:
    return entry.check if isinstance(entry, FarEntry) else _check(_content(entry))


def _content(entry: Entry) -> bytes:
    return cast("bytes", msgpack.packb([entry.header, entry.payload]))


def _check(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


class PartWriter:
    """file: whose parts these are. names: the hashes of those that are written, in their order; written: their bytes."""

    def __init__(self, depot: Depot, file: str) -> None:
        self.names: list[str] = []
        self.written = 0
        self._depot, self._file = depot, file
        self._rows: list[bytes] = []
        self._near = self._size = 0

    def keep(self, data: bytes) -> Kept:
        """What stands for these bytes in the file: themselves, as long as there is room. Raises as `flush`."""
        if len(data) < LEAST or self._near + len(data) <= NEAR_BYTES:
            self._near += len(data)
            return data
        if self._rows and self._size + len(data) > PART_BYTES:
            self.flush()
        self._rows.append(data)
        self._size += len(data)
        return Far(len(self.names), len(self._rows) - 1)

    def keep_entry(self, entry: Entry) -> KeptEntry:
        """The same for an entry."""
        data = _content(entry)
        kept = self.keep(data)
        return FarEntry(entry.version, entry.epoch, kept, _check(data)) if isinstance(kept, Far) else entry

    def flush(self) -> None:
        """Have all of them written. Raises `Corrupt` where they are not read back as they were, `Unavailable`."""
        if not self._rows:
            return
        data = zlib.compress(msgpack.packb(self._rows), 6)
        self.names.append(_word(data))
        self.written += len(data)
        name = part_name(self._file, self.names[-1])
        if self._depot.get(name) != data:  # an earlier try may have written it
            self._depot.put(name, data)
            if self._depot.get(name) != data:
                raise Corrupt(f"the archive {self._depot.url} has not kept {name} as it was written: nothing was removed",
                              code="bad-archive")  # fmt: skip
        self._rows, self._size = [], 0

    def forget_others(self) -> None:
        """Once the file is written: remove the parts of an earlier file of this name, and of tries that were broken off. A file
        that was set aside keeps its own."""
        if not self.names:
            return
        beside = self._depot.names(self._file.rpartition("/")[0])  # where files of other attempts may be, fA.2 of fA
        if any(name.startswith(f"{self._file}.aside-") for name in beside):
            return
        own = {name for name in beside if name.startswith(part_name(self._file, ""))}
        for name in own.difference(part_name(self._file, word) for word in self.names):
            self._depot.delete(name)


class PartReader:
    """names: as the file has them. Holds the parts that were read last."""

    def __init__(self, depot: Depot, file: str, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._depot, self._file = depot, file
        self._open: OrderedDict[int, list[bytes]] = OrderedDict()

    def get(self, kept: Kept) -> bytes:
        """The bytes. Raises `Unavailable` where the part is not, `Corrupt` where it is damaged."""
        if not isinstance(kept, Far):
            return kept
        rows = self._open.pop(kept.part, None)
        if rows is None:
            rows = self._read(kept.part)
        self._open[kept.part] = rows
        while len(self._open) > OPEN:
            self._open.popitem(last=False)
        try:
            return rows[kept.row]
        except IndexError:
            raise self._bad(kept.part, f"it has no row {kept.row}") from None

    def check(self) -> None:
        """Read each of them once. Raises as `get`."""
        for part in range(len(self.names)):
            self._read(part)

    def _read(self, part: int) -> list[bytes]:
        if not 0 <= part < len(self.names):
            raise self._bad(part, "the file names no such part")
        name = part_name(self._file, self.names[part])
        data = self._depot.get(name)
        if data is None:
            raise Unavailable(f"the archive has no file {self._depot.url}/{name}", code="archive",
                              hint="restore that file from a copy of the archive")  # fmt: skip
        if _word(data) != self.names[part]:
            raise self._bad(part, "it does not match its checksum")
        try:
            return [bytes(row) for row in msgpack.unpackb(zlib.decompress(data))]
        except (ValueError, TypeError, zlib.error, msgpack.UnpackException) as error:
            raise self._bad(part, error) from None

    def _bad(self, part: int, why: object) -> Corrupt:
        return Corrupt(
            f"part {part + 1} of the file {self._depot.url}/{self._file} of an instance that ended can not be read: {why}",
            code="bad-archive", hint="restore it from a copy of the archive",
        )  # fmt: skip


def _word(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


class FarStream(MemoryStream):
    """A stream some of whose messages are in parts."""

    def __init__(self, get: Callable[[Kept], bytes], rows: Sequence[tuple[Id, Kept]]) -> None:
        super().__init__([(name, cast("bytes", kept)) for name, kept in rows], rows[-1][0] if rows else (0, 0))
        self._get = get

    def after(self, position: Id, limit: int) -> list[Message]:
        return [message._replace(data=self._get(message.data)) for message in super().after(position, limit)]


class FarBlobs(dict[str, bytes]):
    """Contents by name, some of them in parts: those are read by `get`."""

    def __init__(self, get: Callable[[Kept], bytes], blobs: dict[str, Kept]) -> None:
        super().__init__(cast("dict[str, bytes]", blobs))
        self._get = get

    def get(self, name: str, default: Any = None) -> Any:
        return self._get(self[name]) if name in self else default


class FarJournal(list[Entry]):
    """A journal some of whose entries are in parts."""

    def __init__(self, get: Callable[[Kept], bytes], entries: Sequence[KeptEntry]) -> None:
        super().__init__(cast("Sequence[Entry]", entries))
        self._get = get

    def _whole(self, entry: KeptEntry) -> Entry:
        if not isinstance(entry, FarEntry):
            return entry
        data = self._get(entry.far)
        if _check(data) != entry.check:
            raise Corrupt(f"entry {entry.id} of an instance that ended is not what its file names", code="bad-archive",
                          hint="restore the file from a copy of the archive")  # fmt: skip
        return Entry(entry.version, entry.epoch, *msgpack.unpackb(data))

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return [self._whole(one) for one in found] if isinstance(at, slice) else self._whole(found)

    def __iter__(self) -> Iterator[Entry]:
        return map(self._whole, super().__iter__())


class FarChunks(list[bytes]):
    """A snapshot's chunks, some of them in parts."""

    def __init__(self, get: Callable[[Kept], bytes], chunks: Sequence[Kept]) -> None:
        super().__init__(cast("Sequence[bytes]", chunks))
        self._get = get

    def __iter__(self) -> Iterator[bytes]:
        return map(self._get, super().__iter__())
