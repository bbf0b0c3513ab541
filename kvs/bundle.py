"""Instances that have ended, as one file: a namespace and all inside it, as the server had them. Format, and reading as a store.

    FLUXKV-ENDED 1\\n   <length, 4 bytes>   head (msgpack)   body (msgpack, compressed)

The head says what is in it, and has the body's checksum; it ends with its own. One with parts beside it (`bundle_parts`) begins
with 2, or with 3 where entries or snapshots are in them, so that no older program takes it for whole. A file is read into a
`MemoryServer`, so whoever has a store of an instance that ended need not know where it lies. Decides no place
(`instances/away.py`) and never writes.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import msgpack

from .bundle_parts import (
    Far,
    FarBlobs,
    FarChunks,
    FarEntry,
    FarJournal,
    FarStream,
    Kept,
    KeptEntry,
    PartReader,
    kept_entry_of,
    kept_of,
    same_entry,
)
from .depot import to_be_read
from .epochs import belongs
from .errors import Corrupt, Unavailable
from .hashes import blake2b
from .memory_server import MemoryServer
from .memory_store import MemoryStore
from .port import Depot, Entry, Meta, id_pair
from .uri import quote

MAGIC, MAGIC_PARTS, MAGIC_ENTRIES = b"FLUXKV-ENDED 1\n", b"FLUXKV-ENDED 2\n", b"FLUXKV-ENDED 3\n"
DEPTH = 4  # words of a file's name below its place
KEPT, KEPT_BYTES = 16, 64_000_000  # files held by a process, and what is in them; the longest unused go first
FRESH_S = 2.0  # as long as a file that was read is not looked at again
_LENGTH = struct.Struct(">I")


class Space(NamedTuple):
    """One namespace. blobs: by name; streams: by key, rows of (id, data). snapshot: (version, head, chunks). Of entries, blobs,
    rows and chunks some may be in parts."""

    namespace: str
    meta: Meta
    entries: Sequence[KeptEntry]
    blobs: dict[str, Kept]
    streams: dict[str, Sequence[tuple[str, Kept]]]
    guards: dict[str, str]
    snapshot: tuple[int, bytes, Sequence[Kept]] | None

    @property
    def tip(self) -> str:
        """The id of its last entry."""
        return self.entries[-1].id if self.entries else self.meta.trimmed


class Head(NamedTuple):
    """What is in a file. around: address of the instance around it, as it was; spaces: namespace -> (uid, id of the last entry),
    the outermost first; parts: their hashes."""

    around: str
    spaces: dict[str, tuple[str, str]]
    check: bytes
    parts: tuple[str, ...] = ()

    @property
    def namespace(self) -> str:
        return next(iter(self.spaces))


def to_bytes(around: str, spaces: Sequence[Space], parts: Sequence[str] = ()) -> bytes:
    """The file of these, the outermost first. parts: the hashes of those that are beside it."""
    body = msgpack.packb([
        [one.namespace, one.meta._asdict(), [list(entry) for entry in one.entries], one.blobs,
         {key: [list(row) for row in rows] for key, rows in one.streams.items()}, one.guards, one.snapshot]
        for one in spaces
    ])  # fmt: skip
    named = [[one.namespace, one.meta.uid, one.tip] for one in spaces]
    head = msgpack.packb({"around": around, "spaces": named, "check": _check(body), **({"parts": list(parts)} if parts else {})})
    magic = MAGIC_ENTRIES if any(map(_has_far, spaces)) else MAGIC_PARTS if parts else MAGIC
    return b"".join([magic, _LENGTH.pack(len(head)), head, _check(head), zlib.compress(body, 6)])


def _has_far(space: Space) -> bool:
    """Whether some of its entries, or of its snapshot, are in parts."""
    chunks = space.snapshot[2] if space.snapshot else ()
    return any(isinstance(one, FarEntry) for one in space.entries) or any(isinstance(one, Far) for one in chunks)


def _check(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def read_head(data: bytes, where: str) -> Head:
    """Raises `Corrupt` (code bad-archive) for what is none."""
    return _split(data, where)[0]


def _split(data: bytes, where: str) -> tuple[Head, bytes]:
    try:
        if not data.startswith((MAGIC, MAGIC_PARTS, MAGIC_ENTRIES)):
            newer = data.startswith(MAGIC[:-2])
            raise ValueError("a newer fluxkv has written it" if newer else "it does not begin as one does")
        begin = len(MAGIC) + _LENGTH.size
        end = begin + _LENGTH.unpack_from(data, len(MAGIC))[0]
        head = data[begin:end]
        if data[end : end + 16] != _check(head):
            raise ValueError("its head does not match its checksum")
        known = msgpack.unpackb(head)
        spaces = {str(name): (str(uid), str(tip)) for name, uid, tip in known["spaces"]}
        parts = tuple(map(str, known.get("parts", ())))
        return Head(str(known["around"]), spaces, bytes(known["check"]), parts), data[end + 16 :]
    except (ValueError, KeyError, TypeError, struct.error, msgpack.UnpackException) as error:
        raise _bad(where, error) from None


def from_bytes(data: bytes, where: str) -> tuple[Head, list[Space]]:
    """Inverse of `to_bytes`. Raises `Corrupt` (code bad-archive) for what is damaged."""
    head, packed = _split(data, where)
    try:
        body = zlib.decompress(packed)
        if _check(body) != head.check:
            raise ValueError("it does not match its checksum")
        return head, [_space(row) for row in msgpack.unpackb(body, strict_map_key=False)]
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, zlib.error, msgpack.UnpackException) as error:
        raise _bad(where, error) from None


def _space(row: Any) -> Space:
    namespace, meta, entries, blobs, streams, guards, snapshot = row
    known = Meta(**{name: value for name, value in meta.items() if name in Meta._fields})
    rows: dict[str, Sequence[tuple[str, Kept]]] = {
        key: [(str(id), kept_of(data)) for id, data in some] for key, some in streams.items()
    }
    return Space(
        namespace, known, list(map(kept_entry_of, entries)), {name: kept_of(data) for name, data in blobs.items()}, rows, guards,
        (int(snapshot[0]), snapshot[1], list(map(kept_of, snapshot[2]))) if snapshot else None,
    )  # fmt: skip


def _bad(where: str, why: object) -> Corrupt:
    return Corrupt(f"the file {where} of an instance that ended can not be read: {why}", code="bad-archive",
                   hint="restore it from a copy of the archive")  # fmt: skip


def moved(
    space: Space, get: Callable[[Kept], bytes], keep: Callable[[bytes], Kept], keep_entry: Callable[[Entry], KeptEntry]
) -> Space:
    """The same in another file. get: reads what is in parts of the old one; keep, keep_entry: give what stands for it now."""
    streams: dict[str, Sequence[tuple[str, Kept]]] = {
        key: [(id, keep(get(kept))) for id, kept in rows] for key, rows in space.streams.items()
    }
    blobs = {name: keep(get(kept)) for name, kept in space.blobs.items()}
    snapshot = (*space.snapshot[:2], [keep(get(one)) for one in space.snapshot[2]]) if space.snapshot else None
    whole = FarJournal(get, space.entries)
    return space._replace(blobs=blobs, streams=streams, snapshot=snapshot, entries=list(map(keep_entry, whole)))


def continues(now: Space, before: Space) -> bool:
    """Whether a history has all of another."""
    if not before.entries:
        return now.meta.archive_uid == before.meta.archive_uid
    last = before.entries[-1]
    if last.version < now.meta.first:  # its beginning is in an archive, which would have set a lost branch aside
        return belongs(now.meta.epochs, now.meta.version, last.version, last.epoch)
    at = last.version - now.meta.first
    return at < len(now.entries) and same_entry(now.entries[at], last)


def weight(space: Space) -> int:
    """How many bytes it holds, not compressed, without those in parts."""
    rows = [len(one.header) + len(one.payload) for one in space.entries if isinstance(one, Entry)]
    rows += [len(data) for some in space.streams.values() for _, data in some]
    rows += [*map(len, space.blobs.values()), *(map(len, space.snapshot[2]) if space.snapshot else ())]
    return sum(rows)


def name_of(data: bytes) -> str:
    """A word for a file's very bytes."""
    return _check(data).hex()


# -- as a store -------------------------------------------------------------------------------------------------------


def serve(spaces: Sequence[Space], get: Callable[[Kept], bytes]) -> MemoryServer:
    """A server in this process that has all of them. get: reads what is in parts, as `PartReader`."""
    server = MemoryServer()
    for one in spaces:
        store, word = MemoryStore(server, one.namespace), one.meta.uid
        store.arriving(word, one.meta.trimmed)
        server.tables.blobs[one.namespace] = FarBlobs(get, one.blobs)
        store.touch_blobs([*one.blobs])
        store.arrive(word, cast("Sequence[Entry]", one.entries))
        for key, rows in one.streams.items():
            server.tables.streams[key] = FarStream(get, [(id_pair(id), data) for id, data in rows])
        store.arrive_tables(word, one.guards)
        store.arrived(word, one.meta)
        server.tables.journals[one.namespace] = FarJournal(get, server.tables.journals[one.namespace])
        if one.snapshot is not None:
            made = server.tables.instances[one.namespace]
            made.snapshot_version, made.snapshot = one.snapshot[0], (one.snapshot[1], FarChunks(get, one.snapshot[2]))
    return server


class _Opened(NamedTuple):
    head: Head
    server: MemoryServer
    size: int
    digest: bytes
    looked: float


_opened: OrderedDict[str, _Opened] = OrderedDict()


def address_of(depot: Depot, name: str) -> str:
    """The server URL of a file (`DEPTH` words) in a depot."""
    return f"ended:{quote(f'{depot.url}/{name}')}"


def opened(path: str, depot: Depot | None = None) -> tuple[Head, MemoryServer] | None:
    """What is in a file, None if there is none. path: of a server address. Raises `Unavailable`, `Corrupt`."""
    known = _opened.get(path)
    if known is not None and time.monotonic() - known.looked < FRESH_S:
        _opened.move_to_end(path)
        return known.head, known.server
    place, *words = path.rsplit("/", DEPTH)
    there = depot or to_be_read(place)
    data = there.get("/".join(words))
    if data is None:
        _opened.pop(path, None)
        return None
    digest = _check(data)
    if known is None or known.digest != digest:
        head, spaces = from_bytes(data, path)
        parts = PartReader(there, "/".join(words), head.parts)
        known = _Opened(head, serve(spaces, parts.get), max(len(data), sum(map(weight, spaces))), digest, 0.0)
    _opened[path] = known._replace(looked=time.monotonic())
    _opened.move_to_end(path)
    while len(_opened) > 1 and (len(_opened) > KEPT or sum(one.size for one in _opened.values()) > KEPT_BYTES):
        _opened.popitem(last=False)
    return known.head, known.server


def open_ended(path: str, namespace: str) -> MemoryStore:
    """The store of an `ended:` address. Raises `Unavailable` (archive) where the file is not, `Corrupt`."""
    found = opened(path)
    if found is None:
        raise Unavailable(
            f"there is no file {path} of an instance that ended", code="archive",
            hint="if the archive has moved, name the place it is at now with FLUXKV_ARCHIVE",
        )  # fmt: skip
    return MemoryStore(found[1], namespace)
