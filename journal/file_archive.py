"""Files that travel in a jobspec (`attributes.system.files`, RFC 37): checked, made, and their contents. Pure.

Decides the forms of a file object. Contents above `INLINE` bytes are blobs named by reference, as many as `PART` makes of
them, so that jobs share them and none makes the journal large.
"""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..kvs.blobs import blob_name, is_blob_name
from ..kvs.errors import Rejected
from .shown import shown

INLINE = 1024
PART = 1 << 20
MAX_SIZE = 1 << 26  # bytes of one file: more belongs on a file system that the nodes share
MAX_FILES = 10_000
BLOB = "blake2b-"
RESERVED = ("script", "conf.json")  # RFC 14

_KEYS = frozenset(("path", "mode", "mtime", "ctime", "size", "encoding", "data"))


class File(NamedTuple):
    """kind: "file", "directory" or "symlink". mode: permission bits. data: contents, or a link's target; parts: blobs
    [offset, size, name] in its place. size: bytes, so that holes at the end are kept."""

    path: str
    kind: str
    mode: int
    mtime: float
    data: bytes
    parts: tuple[tuple[int, int, str], ...]
    size: int


def fault(path: object, why: str) -> Rejected:
    """The error of a file that cannot be one."""
    return Rejected(f"file {shown(path)}: {why}", code="bad-file", hint="see RFC 37")


def read_archive(files: Any) -> Iterator[File]:
    """The files of an archive: a list of objects, or objects by path. Raises `Rejected(code="bad-file")`."""
    if isinstance(files, Mapping):
        pairs = [(path, one) for path, one in files.items()]
        if any(isinstance(one, Mapping) and "path" in one for _, one in pairs):
            raise fault("path", "stands as a key already")
    elif isinstance(files, list | tuple):
        pairs = [(one.get("path") if isinstance(one, Mapping) else None, one) for one in files]
    else:
        raise fault("archive", "must be an object or a list")
    if len(pairs) > MAX_FILES:
        raise fault("archive", f"more than {MAX_FILES} files")
    found = [read_file(path, one) for path, one in pairs]
    above = ""  # a link or file: whoever laid a file below one would leave the job's directory
    for file in sorted(found, key=lambda file: file.path.replace("/", "\0")):
        if above and file.path.startswith(above):
            raise fault(file.path, f"{shown(above[:-1])} is no directory")
        if file.kind != "directory":
            above = f"{file.path}/"
    yield from found


def read_file(path: Any, value: Any) -> File:
    """One file object. Raises `Rejected(code="bad-file")`."""
    check_path(path)
    if not isinstance(value, Mapping):
        raise fault(path, "must be an object")
    for key in value:
        if key not in _KEYS:
            raise fault(path, f"unknown key {shown(key)}")
    mode, size, encoding, data = value.get("mode"), value.get("size"), value.get("encoding"), value.get("data")
    if type(mode) is not int or not 0 <= mode < 1 << 18:
        raise fault(path, "mode, a number, is required")
    mtime = value.get("mtime", 0)
    for name in ("mtime", "ctime"):
        if not isinstance(value.get(name, 0), int | float) or isinstance(value.get(name), bool):
            raise fault(path, f"{name} must be a number")
    if "size" in value and (type(size) is not int or not 0 <= size <= MAX_SIZE):
        raise fault(path, f"size must be 0 to {MAX_SIZE} bytes")
    permissions = stat.S_IMODE(mode)
    if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
        if not {"size", "encoding"}.isdisjoint(value) or (stat.S_ISDIR(mode) and "data" in value):
            raise fault(path, "a directory or link has no such content")
        if stat.S_ISDIR(mode):
            return File(path, "directory", permissions, mtime, b"", (), 0)
        if not isinstance(data, str) or not data or "\0" in data:
            raise fault(path, "a link needs its target as data")
        try:
            return File(path, "symlink", permissions, mtime, data.encode(), (), 0)
        except UnicodeEncodeError:
            raise fault(path, "a link's target is no text") from None
    if not stat.S_ISREG(mode) and stat.S_IFMT(mode):
        raise fault(path, "only files, directories and links travel")
    if encoding == "blobvec":
        parts = _parts(path, data, size)
        return File(path, "file", permissions, mtime, b"", parts, size or max((o + n for o, n, _ in parts), default=0))
    content = _content(path, encoding, data, "data" in value)
    return File(path, "file", permissions, mtime, content, (), len(content))


def _content(path: Any, encoding: Any, data: Any, given: bool) -> bytes:
    if encoding is None:
        if not given:
            return b""
        import json

        return json.dumps(data, ensure_ascii=False).encode()
    if encoding not in ("utf-8", "base64") or not isinstance(data, str):
        raise fault(path, "encoding is utf-8, base64 or blobvec, with data of its kind")
    if encoding == "utf-8":
        return data.encode()
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise fault(path, "data is not base64") from None


def _parts(path: Any, data: Any, size: Any) -> tuple[tuple[int, int, str], ...]:
    found = []
    end = size if type(size) is int else MAX_SIZE
    for part in data if isinstance(data, list | tuple) else [None]:
        if not isinstance(part, list | tuple) or len(part) != 3 or type(part[0]) is not int or type(part[1]) is not int:
            raise fault(path, "blobvec data are [offset, size, reference]")
        offset, length, reference = part
        if offset < 0 or length < 0 or offset + length > end:
            raise fault(path, "a blob reaches beyond the file's size")
        if not isinstance(reference, str) or not reference.startswith(BLOB) or not is_blob_name(reference[len(BLOB) :]):
            raise fault(path, f"{shown(reference)} is no blob of this store")
        found.append((offset, length, reference[len(BLOB) :]))
    if sum(length for _, length, _ in found) > end:
        raise fault(path, "its blobs lie over one another")
    return tuple(found)


def check_path(path: Any) -> None:
    """A path below the job's directory: relative, with no way out of it."""
    if not isinstance(path, str) or not path:
        raise fault(path, "a path is required")
    words = path.split("/")
    if path.startswith("/") or "." in words or ".." in words or "" in words or "\0" in path:
        raise fault(path, "the path must be relative, without . or .. or empty parts")


def make_file(content: bytes, mode: int, mtime: int, blobs: dict[str, bytes] | None) -> dict[str, Any]:
    """The object (without path) of a regular file. blobs: takes large contents by name; None keeps all inline."""
    made: dict[str, Any] = {"mode": stat.S_IFREG | stat.S_IMODE(mode), "mtime": mtime, "ctime": mtime, "size": len(content)}
    if not content:
        return made
    if blobs is not None and len(content) > INLINE:
        parts = []
        for offset in range(0, len(content), PART):
            part = content[offset : offset + PART]
            name = blob_name(part)
            blobs[name] = part
            parts.append([offset, len(part), BLOB + name])
        return {**made, "encoding": "blobvec", "data": parts}
    try:
        return {**made, "encoding": "utf-8", "data": content.decode()}
    except UnicodeDecodeError:
        return {**made, "encoding": "base64", "data": base64.b64encode(content).decode()}
