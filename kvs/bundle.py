"""Instances that have ended, as one file: a namespace and all inside it, as the server had them. Format, and reading as a store.

    FLUXKV-ENDED 1\\n   <length, 4 bytes>   head (msgpack)   body (msgpack, compressed)

The head says what is in it, and has the body's checksum; it ends with its own. A file is read into a `MemoryServer`, so whoever has
a store of an instance that ended need not know where it lies. Decides no place (`instances/away.py`) and never writes.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

from .depot import to_be_read
from .errors import Corrupt, Unavailable
from .hashes import blake2b
from .memory_server import MemoryServer
from .memory_store import MemoryStore
from .port import Depot, Entry, Message, Meta
from .uri import quote

MAGIC = b"FLUXKV-ENDED 1\n"
DEPTH = 4  # words of a file's name below its place
KEPT, KEPT_BYTES = 16, 64_000_000  # files held by a process, and what is in them; the longest unused go first
FRESH_S = 2.0  # as long as a file that was read is not looked at again
_LENGTH = struct.Struct(">I")


class Space(NamedTuple):
    """One namespace. streams: by key. snapshot: (version, head, chunks)."""

    namespace: str
    meta: Meta
    entries: Sequence[Entry]
    blobs: dict[str, bytes]
    streams: dict[str, Sequence[Message]]
    guards: dict[str, str]
    snapshot: tuple[int, bytes, list[bytes]] | None

    @property
    def tip(self) -> str:
        """The id of its last entry."""
        return self.entries[-1].id if self.entries else self.meta.trimmed


class Head(NamedTuple):
    """What is in a file. around: address of the instance around it, as it was; spaces: namespace -> (uid, id of the last entry),
    the outermost first."""

    around: str
    spaces: dict[str, tuple[str, str]]
    check: bytes

    @property
    def namespace(self) -> str:
        return next(iter(self.spaces))


def to_bytes(around: str, spaces: Sequence[Space]) -> bytes:
    """The file of these, the outermost first."""
    body = msgpack.packb([
        [one.namespace, one.meta._asdict(), [list(entry) for entry in one.entries], one.blobs,
         {key: [list(message) for message in messages] for key, messages in one.streams.items()}, one.guards, one.snapshot]
        for one in spaces
    ])  # fmt: skip
    named = [[one.namespace, one.meta.uid, one.tip] for one in spaces]
    head = msgpack.packb({"around": around, "spaces": named, "check": _check(body)})
    return b"".join([MAGIC, _LENGTH.pack(len(head)), head, _check(head), zlib.compress(body, 6)])


def _check(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def read_head(data: bytes, where: str) -> Head:
    """Raises `Corrupt` (code bad-archive) for what is none."""
    return _split(data, where)[0]


def _split(data: bytes, where: str) -> tuple[Head, bytes]:
    try:
        if not data.startswith(MAGIC):
            newer = data.startswith(MAGIC[:-2])
            raise ValueError("a newer fluxkv has written it" if newer else "it does not begin as one does")
        begin = len(MAGIC) + _LENGTH.size
        end = begin + _LENGTH.unpack_from(data, len(MAGIC))[0]
        head = data[begin:end]
        if data[end : end + 16] != _check(head):
            raise ValueError("its head does not match its checksum")
        known = msgpack.unpackb(head)
        spaces = {str(name): (str(uid), str(tip)) for name, uid, tip in known["spaces"]}
        return Head(str(known["around"]), spaces, bytes(known["check"])), data[end + 16 :]
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
    except (ValueError, KeyError, TypeError, zlib.error, msgpack.UnpackException) as error:
        raise _bad(where, error) from None


def _space(row: Any) -> Space:
    namespace, meta, entries, blobs, streams, guards, snapshot = row
    known = Meta(**{name: value for name, value in meta.items() if name in Meta._fields})
    messages: dict[str, Sequence[Message]] = {key: [Message(*one) for one in some] for key, some in streams.items()}
    return Space(
        namespace, known, [Entry(*one) for one in entries], blobs, messages, guards,
        (int(snapshot[0]), snapshot[1], list(snapshot[2])) if snapshot else None,
    )  # fmt: skip


def _bad(where: str, why: object) -> Corrupt:
    return Corrupt(f"the file {where} of an instance that ended can not be read: {why}", code="bad-archive",
                   hint="restore it from a copy of the archive")  # fmt: skip


def weight(space: Space) -> int:
    """How many bytes it holds, not compressed."""
    rows = [len(entry.header) + len(entry.payload) for entry in space.entries]
    rows += [len(message.data) for messages in space.streams.values() for message in messages]
    rows += [*map(len, space.blobs.values()), *(map(len, space.snapshot[2]) if space.snapshot else ())]
    return sum(rows)


def name_of(data: bytes) -> str:
    """A word for a file's very bytes."""
    return _check(data).hex()


# -- as a store -------------------------------------------------------------------------------------------------------


def serve(spaces: Sequence[Space]) -> MemoryServer:
    """A server in this process that has all of them."""
    server = MemoryServer()
    for one in spaces:
        store, word = MemoryStore(server, one.namespace), one.meta.uid
        store.arriving(word, one.meta.trimmed)
        store.put_blobs(one.blobs)
        store.arrive(word, one.entries)
        for key, messages in one.streams.items():
            store.arrive_messages(word, key, messages)
        store.arrive_tables(word, one.guards, one.snapshot)
        store.arrived(word, one.meta)
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
    data = (depot or to_be_read(place)).get("/".join(words))
    if data is None:
        _opened.pop(path, None)
        return None
    digest = _check(data)
    if known is None or known.digest != digest:
        head, spaces = from_bytes(data, path)
        known = _Opened(head, serve(spaces), max(len(data), sum(map(weight, spaces))), digest, 0.0)
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
