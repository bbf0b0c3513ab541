"""Commits as bytes: header and payload of one journal entry. Decides the encoding, nothing about meaning.

Header: msgpack array [producer, seq, decided_at, payload_hash, bumps, clears, inbox names, extra, server_time_us]; the
store's script appends the last element. Payload: a codec byte, then msgpack [[name, subject, timestamp, context], ...].
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgpack

from ..kvs.appending import unpack_things
from ..kvs.blobs import payload_hash
from ..kvs.errors import Corrupt, Rejected
from ..kvs.port import Entry

RAW, ZLIB = b"\x00", b"\x01"
COMPRESS_ABOVE = 300
MAX_PAYLOAD = 16 << 20  # of a commit, unpacked; whoever writes keeps to half of it
MOST_ITEMS = 1 << 20  # of one list or map: what would unpack to gigabytes is none of ours
MOST_NESTED = 1 << 19  # lists and maps, all together
_NESTS = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))  # with which one begins (and what may stand elsewhere, too)

Subject = int | str
LATEST = 253_402_300_799.0  # the last second a calendar knows: no event is later, and whoever says so says nothing


_packer = msgpack.Packer(use_bin_type=True)  # a packer a call costs more than most of what is packed


class Event(NamedTuple):
    """One fact (RFC 18's name, timestamp, context) about a subject: a job's id, or a word such as "node/3"."""

    name: str
    subject: Subject
    timestamp: float
    context: dict[str, Any] | None = None


class Commit(NamedTuple):
    """One journal entry, decoded. `events` are 4-element sequences in the order of `Event`.

    time: server time of the append, Unix seconds. extra: the producer's free header map. digest: the payload's hash, which
    with the id says which entry of which branch it is (b"": not known).
    """

    version: int
    epoch: int
    producer: str
    seq: int
    decided_at: int
    time: float
    events: list[Any]
    extra: dict[str, Any]
    digest: bytes = b""

    @property
    def id(self) -> str:
        return f"{self.version}-{self.epoch}"


def pack(value: object) -> bytes:
    """msgpack with this project's settings (UTF-8 strings, bin type)."""
    return _packer.pack(value)  # type: ignore[no-any-return]


def unpack(data: bytes) -> Any:
    """Inverse of `pack`; any map key type is allowed (job ids are integers)."""
    return msgpack.unpackb(data, raw=False, strict_map_key=False)


def _unpack_stored(data: bytes) -> Any:
    """`unpack` of what somebody else has written. Raises `ValueError` for more lists and maps than are ever written."""
    hooks = {}
    if len(data) > MOST_NESTED and len(data) - len(data.translate(None, _NESTS)) > MOST_NESTED:
        hooks = dict.fromkeys(("list_hook", "object_hook"), _counting())
    return msgpack.unpackb(data, raw=False, strict_map_key=False, max_array_len=MOST_ITEMS, max_map_len=MOST_ITEMS, **hooks)


def _counting() -> Callable[[Any], Any]:
    left = MOST_NESTED

    def count(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {MOST_NESTED} lists and maps in it")
        return value

    return count


def pack_events(events: Sequence[Sequence[Any]]) -> bytes:
    """Encode a commit's events as a payload. Raises `Rejected` (code too-large) for what nobody would read again."""
    body: bytes = _packer.pack(events)
    if len(body) > MAX_PAYLOAD:
        raise Rejected(f"a commit of {len(body)} bytes is larger than {MAX_PAYLOAD}", code="too-large", hint="write it in parts")
    if len(body) > MOST_NESTED:
        try:
            _unpack_stored(body)
        except ValueError as error:
            raise Rejected(f"a commit has {error}", code="too-large", hint="write it in parts") from None
    if len(body) <= COMPRESS_ABOVE:
        return RAW + body
    return ZLIB + zlib.compress(body, 1)


def inflate(body: bytes) -> bytes:
    """What was compressed in a payload. Raises `ValueError` or `zlib.error` for what is no payload's."""
    stream = zlib.decompressobj()
    plain = stream.decompress(body, MAX_PAYLOAD)
    if not stream.eof:
        raise ValueError("truncated or too large")
    return plain


def unpack_events(payload: bytes) -> list[Any]:
    """Decode a payload. Raises `Corrupt` for anything that is not one."""
    codec, body = payload[:1], payload[1:]
    try:
        if codec == ZLIB:
            body = inflate(body)
        elif codec != RAW:
            raise ValueError(f"unknown codec {codec!r}")
        events = _unpack_stored(body)
        if not isinstance(events, list):
            raise ValueError("not a list of events")
        return events
    except (ValueError, TypeError, zlib.error, msgpack.exceptions.UnpackException) as error:  # a list is no key of a map
        raise Corrupt(f"a payload of {len(payload)} bytes cannot be read: {str(error)[:200]}", code="bad-payload") from None


def well_formed(events: Iterable[Any], only: Container[str] | None = None) -> Iterator[Any]:
    """Those that are events; what somebody wrote by hand and is none is passed over, as the fold does. only: with these names."""
    for event in events:
        if not isinstance(event, list) or len(event) != 4:
            continue
        name, subject, timestamp, context = event
        if only is not None and (name.__class__ is not str or name not in only):
            continue
        if (
            name.__class__ is str and (subject.__class__ is int or subject.__class__ is str) and timestamp.__class__ is float
            and 0.0 <= timestamp <= LATEST and (context is None or context.__class__ is dict)
        ) or _is_event(name, subject, timestamp, context):  # fmt: skip
            yield event


def _is_event(name: Any, subject: Any, timestamp: Any, context: Any) -> bool:
    """In general; nearly all have the very types that are asked for first."""
    return (
        isinstance(name, str) and isinstance(subject, int | str) and isinstance(timestamp, int | float)
        and 0.0 <= timestamp <= LATEST and (context is None or isinstance(context, dict))
    )  # fmt: skip


def whole(value: Any) -> int:
    """The integer that an event says, as a number or in digits. Raises `ValueError` for one that could not be packed again."""
    found = int(value)
    if not -(1 << 63) <= found < 1 << 63:
        raise ValueError("an integer of more than 64 bits")
    return found


class Header(NamedTuple):
    """A header, decoded. `time` is Unix seconds."""

    producer: str
    seq: int
    decided_at: int
    payload_hash: bytes
    bumps: list[str]
    clears: list[str]
    inbox: list[str]
    extra: dict[str, Any]
    time: float


def read_header(entry: Entry) -> Header:
    """Decode an entry's header. Raises `Corrupt` naming the entry."""
    try:
        producer, seq, decided_at, digest, bumps, clears, inbox, extra, time_us = unpack(entry.header)
        return Header(producer, seq, decided_at, digest, unpack_things(bumps), unpack_things(clears), inbox,
                      extra, int(time_us) / 1e6)  # fmt: skip
    except (ValueError, TypeError, AttributeError, ArithmeticError, zlib.error, msgpack.exceptions.UnpackException) as error:
        raise Corrupt(f"entry {entry.id}: unreadable header: {str(error)[:200]}", code="bad-header") from None


def read_commit(entry: Entry) -> Commit:
    """Decode and check one entry. Raises `Corrupt` if its checksum does not match (a flipped bit, HAZARD 18)."""
    try:
        producer, seq, decided_at, digest, _, _, _, extra, time_us = unpack(entry.header)
        time = int(time_us) / 1e6
    except (ValueError, TypeError, ArithmeticError, msgpack.exceptions.UnpackException) as error:
        raise Corrupt(f"entry {entry.id}: unreadable header: {str(error)[:200]}", code="bad-header") from None
    if payload_hash(entry.payload) != digest:
        raise Corrupt(
            f"entry {entry.id}: the payload does not match its checksum",
            code="bad-checksum",
            hint="fluxkv journal verify shows every such entry",
        )
    if not isinstance(extra, dict):  # whoever wrote it by hand has said nothing with it
        extra = {}
    try:
        events = unpack_events(entry.payload)
    except Corrupt as error:
        raise Corrupt(f"entry {entry.id}: {error}", code=error.code) from None
    return Commit(entry.version, entry.epoch, producer, seq, decided_at, time, events, extra, digest)
