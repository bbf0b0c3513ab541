"""Histories to take away and to go on from: an archive's, a live instance's up to some version, a file of all of it.

The file is an archive in a zip: whatever reads an archive reads it, and `unzip -l` shows what is in it.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

from ..journal.archive import Archive, blob_path, pruned_error
from ..journal.blob_refs import names_in_entries
from ..journal.log import Journal
from ..journal.manifest import NAME, Manifest, to_bytes
from ..journal.restoring import lost_entry
from ..journal.schema import SCHEMA
from ..journal.segment import NO_LINK, Part, check_whole, encode, header_time, runs
from ..journal.state import State
from ..journal.unreadable import Reader
from ..kvs.depot import open_depot
from ..kvs.errors import Corrupt, Rejected
from ..kvs.port import Entry
from .archiving import kept_settings
from .rebuild import Source

READ = 500


def history_of(journal: Journal, version: int, settings: dict[str, Any]) -> Source:
    """An instance's history up to a version."""
    meta = journal.store.meta()
    return Source(
        f"{journal.store.namespace} (instance {meta.uid})", meta.uid, entries_until(journal, version), journal.history.blobs,
        kept_settings(settings, meta), meta.origin_ms, commit=journal.reader.commit,
    )  # fmt: skip


def entries_until(journal: Journal, version: int) -> Iterator[Entry]:
    """Entries from the first on. Raises `Corrupt` where one is missing."""
    after = 0
    while after < version:
        some = journal.history.read(after, min(READ, version - after))
        for entry in some:
            for missing in range(after + 1, entry.version):
                journal.reader.missing(missing, entry)  # raises, unless an operator has set it aside
                yield lost_entry(missing, entry.epoch, header_time(entry), "it was missing, and set aside")
            after = entry.version
            yield entry
        if not some:
            raise Corrupt(f"version {after + 1} is missing", code="version-gap", hint="fluxkv journal salvage")


def version_at(journal: Journal, moment: float) -> int:
    """The last version whose server time is not after a moment, archived or not; 0 if there is none."""
    low, high = 0, journal.store.meta().version + 1
    while high - low > 1:
        middle = (low + high) // 2
        found = journal.history.read(middle - 1, 1)
        low, high = (middle, high) if found and header_time(found[0]) <= moment else (low, middle)
    return low


def archived(place: str, uid: str = "") -> Source:
    """The history in an archive: a directory, a file or a URL. uid: which instance's, where there are several."""
    archive = find_archive(place, uid)
    manifest = archive.manifest
    if manifest.pruned:
        raise pruned_error(1, manifest.pruned, archive.where)

    def blobs(names: Any) -> list[bytes | None]:
        return [archive.blob(name) for name in names]

    reader = Reader(lambda after, limit: archive.read(after, limit, manifest.last))
    digest = manifest.settings.get("digest", "") if manifest.settings.get("schema") == SCHEMA else ""
    return Source(
        archive.where, archive.uid, _segments(archive), blobs, manifest.settings,
        int(manifest.settings.get("origin_ms", 0)), bytes.fromhex(digest), reader.commit,
    )  # fmt: skip


def _segments(archive: Archive) -> Iterator[Entry]:
    for part in archive.manifest.parts:
        segment = archive.segment(part)
        check_whole(segment)
        yield from segment.entries()


def find_archive(place: str, uid: str = "") -> Archive:
    """The archive of an instance at a place, its manifest read. Raises `Rejected` if there is none, or more than one."""
    depot = open_depot(place)
    found = sorted({name.split("/")[-2] for name in depot.names() if name.endswith(f"/{NAME}") and name.count("/") == 1})
    if uid and uid not in found:
        raise Rejected(f"{place} has none of instance {uid}", code="no-archive", hint=f"it has {', '.join(found) or 'none'}")
    if not found:
        raise Rejected(
            f"{place} is no archive: there is no <instance>/{NAME} in it", code="no-archive",
            hint="fluxkv journal salvage reads what has no manifest",
        )  # fmt: skip
    if len(found) > 1 and not uid:
        raise Rejected(f"{place} has the histories of {len(found)} instances", code="which-instance",
                       hint=f"name one with --uid: {', '.join(found)}")  # fmt: skip
    archive = Archive(depot, uid or found[0])
    archive.load()
    return archive


def write_file(path: str, source: Source) -> tuple[int, str]:
    """An exported file of a history, whole or not there: (its last version, the digest of its state, in hex).

    The history is folded while it is written, so what cannot be read again is not written. What is there and no regular file (a
    pipe, a device) is written to, never replaced.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as there:
            return _write(there, source)
    target = os.path.realpath(path)  # behind a link, not in its place
    scratch = f"{target}.{os.getpid()}"
    try:
        with open(scratch, "wb") as beside:
            found = _write(beside, source)
            beside.flush()
            os.fsync(beside.fileno())
        os.replace(scratch, target)
        return found
    finally:
        if os.path.exists(scratch):
            os.unlink(scratch)


def _write(to: IO[bytes], source: Source) -> tuple[int, str]:
    state, parts, blobs = State(), list[Part](), set[str]()
    with zipfile.ZipFile(to, "w") as file:
        for run in runs(source.entries):
            for entry in run:
                state.apply(source.commit(entry))
            part, data = encode(source.uid, run, parts[-1].after if parts else NO_LINK)
            parts.append(part)
            file.writestr(f"{source.uid}/{part.name}", data)
            names = sorted(names_in_entries(run, strict=False) - blobs)
            blobs.update(names)
            for at in range(0, len(names), 100):
                some = names[at : at + 100]
                for name, found in zip(some, source.blobs(some), strict=True):
                    if found is not None:
                        file.writestr(f"{source.uid}/{blob_path(name)}", found)
        digest = state.digest().hex()
        settings = {**source.settings, "digest": digest, "schema": SCHEMA, "origin_ms": source.origin_ms}
        manifest = replace(Manifest(source.uid, "/"), parts=tuple(parts), settings=settings)
        file.writestr(f"{source.uid}/{NAME}", to_bytes(manifest))
    return state.version, digest
