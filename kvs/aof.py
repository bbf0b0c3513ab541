"""An append-only file read without a server, as far as it can be: for what no server loads any more. Changes nothing.

A server refuses a file with one bad byte in its middle. Here every command that is whole is found, before the damage and
behind it; whether it says the truth is for the reader to check (entries carry checksums, blobs are named by their content).
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Unavailable
from .keys import keys_of
from .port import Entry, id_pair
from .server import start_server
from .server_copy import ReadOnlyServer, make_folder

_ARRAY = re.compile(rb"\*(\d{1,7})\r\n")
_BULK = re.compile(rb"\$(\d{1,10})\r\n")
_AGAIN = re.compile(rb"\*\d{1,7}\r\n\$\d")
FOLDER = "appendonlydir"


def files_of(place: str) -> list[str]:
    """The append-only files of a state directory (or of its folder of them, or one file), the oldest first."""
    if os.path.isfile(place):
        return [place]
    folder = os.path.join(place, FOLDER) if os.path.isdir(os.path.join(place, FOLDER)) else place
    found = [name for name in os.listdir(folder) if re.fullmatch(r".*\.\d+\.(incr|base)\.(aof|rdb)", name)]
    return [os.path.join(folder, name) for name in sorted(found, key=lambda name: (_number(name), ".incr." in name))]


def _number(name: str) -> int:
    return int(name.split(".")[-3])


def commands(path: str) -> Iterator[list[bytes]]:
    """Every whole command in a file, in order; what is damaged between them is passed over."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = 0
            while at < len(data):
                found = _command(data, at)
                if found is not None:
                    words, at = found
                    yield words
                    continue
                again = _AGAIN.search(data, at + 1)
                if again is None:
                    return
                at = again.start()


def _command(data: mmap.mmap, at: int) -> tuple[list[bytes], int] | None:
    """The command that begins here, and where the next one does; None if none does."""
    head = _ARRAY.match(data, at)
    if head is None:
        return None
    at, words = head.end(), []
    for _ in range(int(head[1])):
        bulk = _BULK.match(data, at)
        if bulk is None:
            return None
        at = bulk.end() + int(bulk[1])
        if data[at : at + 2] != b"\r\n":
            return None
        words.append(data[bulk.end() : at])
        at += 2
    return words, at


def entry_of(words: list[bytes]) -> tuple[str, Entry] | None:
    """(namespace, entry) that a command adds to a journal; None for any other."""
    if len(words) < 7 or words[0].upper() != b"XADD" or words[-4] != b"h" or words[-2] != b"p":
        return None
    try:
        keys = keys_of(words[1].decode())
        if keys is None or words[1].decode() != keys.journal:
            return None
        return keys.namespace, Entry(*id_pair(words[-5].decode()), words[-3], words[-1])
    except (ValueError, UnicodeDecodeError):
        return None


def fields_of(words: list[bytes]) -> tuple[str, str, dict[bytes, bytes]] | None:
    """(namespace, "meta" or "blobs", fields) that a command sets there; None for any other."""
    if len(words) < 4 or words[0].upper() not in (b"HSET", b"HMSET"):
        return None
    try:
        name = words[1].decode()
    except UnicodeDecodeError:
        return None
    keys = keys_of(name)
    kind = {} if keys is None else {keys.meta: "meta", keys.blobs: "blobs"}
    if keys is None or name not in kind:
        return None
    return keys.namespace, kind[name], dict(zip(words[2::2], words[3::2], strict=False))


@contextmanager
def base_alone(path: str) -> Iterator[ReadOnlyServer]:
    """A throw-away server on one base file, without what was appended after it. Raises `Unavailable` if it cannot be loaded."""
    folder = make_folder()
    try:
        os.mkdir(os.path.join(folder, FOLDER))
        name = os.path.basename(path)
        shutil.copyfile(path, os.path.join(folder, FOLDER, name))
        with open(os.path.join(folder, FOLDER, "appendonly.aof.manifest"), "w") as file:
            file.write(f"file {name} seq {_number(name)} type b\n")
        handle = start_server(folder, "none")
    except (Unavailable, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise Unavailable(f"{path} can not be loaded: {error}", code="server-died") from None
    with ReadOnlyServer(handle, folder) as server:
        yield server
