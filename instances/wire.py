"""Framing between agent and launcher: `>I` length + one msgpack array, any number of frames per write.

Decides the byte format and nothing else; never touches a socket. Strings that are not UTF-8 (paths,
environment values) pass through unharmed by surrogate escapes.
"""

from __future__ import annotations

import struct
from typing import Any

import msgpack

from ..kvs.errors import Corrupt

Message = list[Any]

LIKE = "like"  # in an attempt: what it has in common with others (see `alike`); in one that is sent: that it is to have that

MAX_FRAME = 64 * 1024 * 1024  # bytes; a longer frame is a torn or foreign stream

_ABSENT = object()
_pack_length = struct.Struct(">I").pack
_unpack_length = struct.Struct(">I").unpack_from
_packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape")
_strict = msgpack.Packer(use_bin_type=True)  # one that looks for no escapes is half as quick again


def pack(value: object) -> bytes:
    """One msgpack value, without a frame."""
    packed: bytes
    try:
        packed = _strict.pack(value)
    except UnicodeEncodeError:
        packed = _packer.pack(value)
    return packed


def differs(attempt: dict[str, Any]) -> dict[str, Any]:
    """What there is to send of an attempt that has `LIKE`, behind what it has in common."""
    common = attempt[LIKE]
    found = {name: value for name, value in attempt.items() if common.get(name, _ABSENT) is not value}
    found[LIKE] = True
    return found


def whole(attempt: dict[str, Any]) -> dict[str, Any]:
    """An attempt that has `LIKE`, for a launcher that knows nothing of that."""
    found = {name: value for name, value in attempt.items() if name not in (LIKE, "env_own")}
    found["env_set"] = {**attempt["env_set"], **attempt["env_own"]}
    return found


def unpack(data: bytes | memoryview) -> Any:
    """The value `pack` was given (tuples come back as lists)."""
    return msgpack.unpackb(data, raw=False, strict_map_key=False, unicode_errors="surrogateescape")


def encode(message: object) -> bytes:
    """One frame. Raises `Corrupt` when the message is longer than `MAX_FRAME`."""
    body = pack(message)
    if len(body) > MAX_FRAME:
        raise Corrupt(
            f"launcher message of {len(body)} bytes, at most {MAX_FRAME} fit", code="frame-too-long"
        )
    return _pack_length(len(body)) + body


class Decoder:
    """Takes bytes as they come, gives back whole messages."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Messages completed by `data`.

        Raises `Corrupt` on a frame that cannot be one: drop the connection.
        """
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        at, have = 0, len(buffer)
        while have - at >= 4:
            length = _unpack_length(buffer, at)[0]
            if length > MAX_FRAME:
                raise Corrupt(f"launcher frame of {length} bytes, at most {MAX_FRAME}", code="bad-frame")
            if have - at - 4 < length:
                break
            try:
                message = unpack(bytes(buffer[at + 4 : at + 4 + length]))
            except (ValueError, msgpack.UnpackException) as error:
                raise Corrupt(f"launcher frame is not msgpack: {error}", code="bad-frame") from error
            if not isinstance(message, list) or not message:
                raise Corrupt("launcher frame is not a non-empty array", code="bad-frame")
            messages.append(message)
            at += 4 + length
        if at:
            del buffer[:at]
        return messages
