"""An archive looked through: every file it names, each checksum, the chain, and that it is the history the server has.

Mends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..journal.archive import Archive
from ..journal.log import Journal
from ..journal.segment import Part, check_whole, decode
from ..kvs.blobs import blob_name, is_blob_name
from ..kvs.errors import Corrupt, FluxkvError
from ..kvs.port import Entry

READ = 500


class Wrong(NamedTuple):
    """What is wrong, and where: an entry's id, or a file."""

    where: str
    code: str
    text: str


@dataclass(slots=True)
class Checked:
    """last: the last version it has. unnamed: files that no manifest speaks of (a death in the middle of a write leaves such)."""

    place: str
    last: int = 0
    segments: int = 0
    blobs: int = 0
    lost: int = 0
    pruned: int = 0
    unnamed: list[str] = field(default_factory=list)
    wrong: list[Wrong] = field(default_factory=list)


def check_archive(archive: Archive, journal: Journal) -> Checked:
    """Look through an archive whose instance is here."""
    found = Checked(archive.where)
    try:
        manifest = archive.load()
        names = archive.depot.names(archive.uid)
    except FluxkvError as error:
        found.wrong.append(Wrong("manifest", error.code, str(error)))
        return found
    found.last, found.segments, found.pruned = manifest.last, len(manifest.parts), manifest.pruned
    found.lost = sum(part.count for part in manifest.lost)
    meta = journal.store.meta()
    if manifest.last < meta.first - 1:
        text = f"it ends at version {manifest.last}, but versions up to {meta.first - 1} were trimmed from the server"
        found.wrong.append(Wrong("manifest", "short", text))
    for part in manifest.parts:
        try:
            for entry in _entries(archive, part):
                if entry.version == meta.first - 1 and entry.id != meta.trimmed:
                    raise Corrupt(f"it has {entry.id} where {meta.trimmed} was trimmed", code="bad-chain")
            _compare(archive, journal, part, meta.first, found)
        except FluxkvError as error:
            found.wrong.append(Wrong(part.name, error.code, str(error)))
    named = {f"{archive.uid}/{name}" for name in manifest.files}
    for name in names:
        if "/blobs/" in name:
            _blob(archive, name, found)
        elif ("/segments/" in name or "/bases/" in name) and name not in named:
            found.unnamed.append(name)
    return found


def _entries(archive: Archive, part: Part) -> Iterator[Entry]:
    data = archive.depot.get(f"{archive.uid}/{part.name}")
    if data is None:
        raise Corrupt(f"{archive.where} lacks it: versions {part.first} to {part.last}", code="missing")
    segment = decode(part.name, data)
    if segment.part != part or segment.uid != archive.uid:
        raise Corrupt("it is not the segment that the manifest names", code="bad-segment")
    check_whole(segment)
    yield from segment.entries()


def _compare(archive: Archive, journal: Journal, part: Part, first: int, found: Checked) -> None:
    """What both have must be the same."""
    after = max(part.first, first) - 1
    while after < part.last:
        here = journal.store.read(after, min(READ, part.last - after))
        there = {entry.version: entry for entry in archive.entries([entry.version for entry in here])}
        for entry in here:
            if entry.version in there and there[entry.version] != entry:
                text = f"the archive has {there[entry.version].id} there: another branch, or a damaged entry"
                found.wrong.append(Wrong(entry.id, "archive-differs", text))
                return
        if not here:
            return
        after = here[-1].version


def _blob(archive: Archive, name: str, found: Checked) -> None:
    found.blobs += 1
    last = name.rpartition("/")[2]
    data = archive.depot.get(name)
    if not is_blob_name(last) or data is None or blob_name(data) != last:
        found.wrong.append(Wrong(name, "bad-blob", "it does not hold what its name promises"))
