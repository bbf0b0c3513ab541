"""Which blobs stored bytes may name: whatever looks like a blob's name in them. Pure; errs on the side of keeping.

A name is 40 hexadecimal digits wherever it stands (an environment, a file of a jobspec, a value of the KVS), so an event
that somebody adds later keeps its blobs, too.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from ..kvs.blobs import NAME_LENGTH
from ..kvs.errors import Corrupt
from ..kvs.port import Entry
from .wire import ZLIB, inflate

_RUN = re.compile(rb"[0-9a-f]{%d,}" % NAME_LENGTH)


def names_in(data: bytes) -> set[str]:
    """Every blob name that these bytes may hold; of a longer run of digits each part of that length."""
    found: set[str] = set()
    for run in set(_RUN.findall(data)):
        text = run.decode()
        found.update(text[at : at + NAME_LENGTH] for at in range(len(text) - NAME_LENGTH + 1))
    return found


def names_in_entries(entries: Iterable[Entry], *, strict: bool = True) -> set[str]:
    """Every blob name that the events of these entries may hold. Raises `Corrupt` for a payload that cannot be unpacked, or
    (not strict: one that was set aside has said nothing) passes it over."""
    found: set[str] = set()
    for entry in entries:
        body = entry.payload[1:]
        if entry.payload[:1] == ZLIB:
            try:
                body = inflate(body)
            except (ValueError, zlib.error) as error:
                if not strict:
                    continue
                raise Corrupt(f"entry {entry.id}: {error}", code="bad-payload") from None
        found |= names_in(body)
    return found
