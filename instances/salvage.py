"""What can be had of a damaged journal: from a state directory, copies of its files, an archive, or several of these.

Decides what counts as an entry (its checksum holds), which of two is taken (of the place named first), and what stands where
none is left: an entry that says so, so that versions stay what they were. Mends nothing where it reads.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ..journal.archive import Archive
from ..journal.inferring import Said, infer
from ..journal.manifest import NAME
from ..journal.quarantine import Aside
from ..journal.restoring import folds, lost_entry, without_digest
from ..journal.segment import Segment, decode, header_time
from ..journal.state import State
from ..journal.wire import read_commit, read_header, unpack, well_formed
from ..kvs import aof
from ..kvs.blobs import blob_name
from ..kvs.depot import open_depot
from ..kvs.errors import Corrupt, FluxkvError, Rejected
from ..kvs.port import Depot, Entry
from ..kvs.redis_store import open_store
from ..kvs.server_copy import open_readonly
from ..kvs.uri import parse_uri, with_namespace
from .paths import StateDir
from .rebuild import Source

READ = 500
REFOLDS = 1_000
_BLOCK = re.compile(rb"\x78[\x01\x5e\x9c\xda]")


@dataclass(slots=True)
class Finds:
    """What was found. entries: by version. damaged: version -> (why, the jobs its header names). notes: what could not be read."""

    namespace: str
    entries: dict[int, Entry] = field(default_factory=dict)
    damaged: dict[int, tuple[str, set[int]]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    archives: list[Archive] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    origin_ms: int = 0
    uid: str = ""
    archive_url: str = ""
    notes: list[str] = field(default_factory=list)

    def take(self, entry: Entry, *, newer: bool = False) -> None:
        """An entry of the place being read; newer: it replaces one that was found there before."""
        try:
            read_commit(entry)
        except (Corrupt, ValueError, TypeError) as error:
            self.damaged.setdefault(entry.version, (str(error), _jobs_of(entry)))
            return
        if newer or entry.version not in self.entries:
            self.entries[entry.version] = entry

    def blob(self, name: str) -> bytes | None:
        """A blob from wherever one was found."""
        if name in self.blobs:
            return self.blobs[name]
        for archive in self.archives:
            try:
                found = archive.blob(name)
            except FluxkvError:
                continue
            if found is not None:
                return found
        return None


def _jobs_of(entry: Entry) -> set[int]:
    """The jobs that a damaged entry's header still names."""
    try:
        names = [thing.partition("=")[0] for thing in read_header(entry).bumps]
    except Corrupt:
        return set()
    return {int(name[4:]) for name in names if name.startswith("job/") and name[4:].isdecimal()}


# -- places -----------------------------------------------------------------------------------------------------------


def gather(places: Sequence[str], namespace: str = "") -> Finds:
    """Read all places, the one named first first. Raises `Rejected` if there is nothing in any of them."""
    finds = Finds(namespace)
    for place in places:
        before, found = finds.entries, dict[int, Entry]()
        finds.entries = found
        _read_place(place, finds)
        other = min((version for version in found.keys() & before.keys() if found[version].id != before[version].id), default=0)
        if other:
            finds.notes.append(f"{place} has another history from version {other} on: nothing is taken of that")
            found = {version: entry for version, entry in found.items() if version < other}
        finds.entries = found | before  # what was found earlier wins
    if not finds.entries:
        raise Rejected(
            f"{', '.join(places)}: no entry of a journal can be read there", code="nothing-found",
            hint="; ".join(finds.notes) or "name a state directory, a folder of append-only files, or an archive",
        )  # fmt: skip
    for version in finds.entries:
        finds.damaged.pop(version, None)
    return finds


def _read_place(place: str, finds: Finds) -> None:
    path = os.path.abspath(os.path.expanduser(place)) if "://" not in place else place
    if os.path.exists(os.path.join(path, "instance.json")):
        _settings(path, finds)
    finds.namespace = finds.namespace or "/"
    files = aof.files_of(path) if os.path.isdir(path) or path.endswith((".aof", ".rdb")) else []
    if files:
        _server_files(path, files, finds)
        beside = os.path.join(path, "archive")
        if os.path.isdir(beside):
            _archive(open_depot(beside), finds)
        return
    _archive(open_depot(place), finds, named=True)


def _settings(path: str, finds: Finds) -> None:
    try:
        found = StateDir(path).read()
        finds.settings = finds.settings or found
        finds.namespace = finds.namespace or parse_uri(found["uri"]).namespace
    except (FluxkvError, KeyError) as error:
        finds.notes.append(str(error))


def _server_files(path: str, files: list[str], finds: Finds) -> None:
    """Of a whole directory a server may make sense; else each file by itself, command by command."""
    with ExitStack() as stack:
        try:
            if not os.path.isdir(os.path.join(path, aof.FOLDER)):
                raise Rejected("not a state directory")
            with open_readonly(path) as server:
                _store(server.url, finds)
            return
        except FluxkvError as error:
            finds.notes.append(f"{path}: {error}")
        for file in files:
            if file.endswith(".rdb"):
                try:
                    server = stack.enter_context(aof.base_alone(file))
                    _store(server.url, finds)
                except FluxkvError as error:
                    finds.notes.append(str(error))
                continue
            for words in aof.commands(file):
                _command(words, finds)
    if finds.archive_url:
        _archive(open_depot(finds.archive_url, to_read=True), finds)


def _command(words: list[bytes], finds: Finds) -> None:
    added = aof.entry_of(words)
    if added is not None:
        if added[0] == finds.namespace:
            finds.take(added[1], newer=True)
        return
    fields = aof.fields_of(words)
    if fields is None or fields[0] != finds.namespace:
        return
    if fields[1] == "blobs":
        finds.blobs.update({blob_name(data): data for data in fields[2].values()})
        return
    uid = fields[2].get(b"origin_uid") or fields[2].get(b"uid", finds.uid.encode())
    finds.uid = uid.decode(errors="replace")
    origin = fields[2].get(b"origin_ms", b"")
    finds.origin_ms = int(origin) if origin.isdigit() else finds.origin_ms
    finds.archive_url = fields[2].get(b"archive", finds.archive_url.encode()).decode(errors="replace")


def _store(url: str, finds: Finds) -> None:
    """All that a server has of the namespace."""
    store = open_store(with_namespace(url, finds.namespace))
    try:
        meta = store.meta()
        finds.origin_ms, finds.uid = meta.origin_ms, meta.archive_uid
        after = 0
        while entries := store.read(after, READ):
            for entry in entries:
                finds.take(entry, newer=True)
            after = entries[-1].version
        names = store.idle_blobs(float("inf"))
        for at in range(0, len(names), 100):
            for data in store.get_blobs(names[at : at + 100]):
                if data is not None:
                    finds.blobs[blob_name(data)] = data
        if meta.archive and meta.first > 1:
            _archive(store.depot(meta.archive, to_read=True), finds, meta.archive_uid)
    finally:
        store.close()


# -- archives ---------------------------------------------------------------------------------------------------------


def _archive(depot: Depot, finds: Finds, uid: str = "", *, named: bool = False) -> None:
    """Every segment that is there, whether a manifest names it or not; those that it names first.

    named: whoever asks has named this place: then it may be of the instance that ours was made from.
    """
    try:
        names = depot.names()
    except FluxkvError as error:
        finds.notes.append(str(error))
        return
    uids = sorted({name.partition("/")[0] for name in names if "/segments/" in name or name.endswith(f"/{NAME}")})
    wanted = uid or finds.uid or (uids[0] if len(uids) == 1 else "")
    if wanted not in uids and named and len(uids) == 1:
        wanted = uids[0]
    if wanted not in uids:
        if uids:
            finds.notes.append(f"{depot.url} has the histories of {', '.join(uids)}: name the place of one")
        return
    archive = Archive(depot, wanted)
    finds.archives.append(archive)
    finds.uid = finds.uid or wanted
    first: list[str] = []
    try:
        manifest = archive.load()
        first = [part.name for part in manifest.parts]
        finds.settings = finds.settings or manifest.settings
        finds.origin_ms = finds.origin_ms or int(manifest.settings.get("origin_ms", 0))
    except FluxkvError as error:
        finds.notes.append(str(error))
    aside = {part.name for part in archive.manifest.lost}
    rest = [name.partition("/")[2] for name in names if name.startswith(f"{wanted}/segments/")]
    for name in [*first, *sorted(set(rest) - set(first) - aside)]:
        _segment(depot, wanted, name, finds)


def _segment(depot: Depot, uid: str, name: str, finds: Finds) -> None:
    try:
        data = depot.get(f"{uid}/{name}")
        if data is None:
            finds.notes.append(f"{depot.url}/{uid} lacks {name}")
            return
        segment = decode(name, data, strict=False)
        for at in range(segment.blocks):
            _block(segment, at, finds)
    except FluxkvError as error:
        finds.notes.append(str(error))
        if data is not None:
            for entry in _loose(data):
                finds.take(entry)


def _block(segment: Segment, at: int, finds: Finds) -> None:
    try:
        for entry in segment.block(at):
            finds.take(entry)
    except (Corrupt, zlib.error, ValueError) as error:
        first, last = segment.block_range(at)
        finds.notes.append(f"{error} (versions {first} to {last})")


def _loose(data: bytes) -> Iterator[Entry]:
    """Entries of a segment whose head is lost: wherever a block can be unpacked."""
    for begin in _BLOCK.finditer(data):
        try:
            for row in unpack(zlib.decompressobj().decompress(data[begin.start() :])):
                yield Entry(*row)
        except (zlib.error, ValueError, TypeError):
            continue


# -- a history of it --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Salvaged:
    """A history with its holes marked. lost: (first, last, why) of each. jobs: those they touch, as far as can be known.

    inferred: what lost entries must have said, by version. aside: who contradicts what is left, and will be set aside.
    """

    source: Source
    versions: int
    lost: list[tuple[int, int, str]]
    jobs: list[int]
    notes: list[str]
    inferred: Said
    aside: list[Aside]


def history(finds: Finds, where: str) -> Salvaged:
    """One history of what was found: dense, foldable, with an entry that says so wherever one is lost."""
    last = max(finds.entries)
    missing = (version for version in range(1, last + 1) if version not in finds.entries)
    why = {version: finds.damaged.get(version, ("nowhere", set()))[0] for version in missing}
    jobs = {job for version in why for job in finds.damaged.get(version, ("", set()))[1]}
    for _ in range(REFOLDS):
        touched, bad = _fold(_dense(finds, why))
        if not bad:
            break
        why.update(bad)
    inferred, aside = infer(lambda said: _dense(finds, why, said), sorted(why))
    jobs.update(subject for events in inferred.values() for _, subject, *_ in events if isinstance(subject, int))
    origin = finds.origin_ms or int((header_time(finds.entries[min(finds.entries)]) - 60.0) * 1000)
    source = Source(
        where, finds.uid or "0" * 24, _dense(finds, why, inferred), lambda names: [finds.blob(name) for name in names],
        finds.settings, origin,
    )  # fmt: skip
    ranges: list[tuple[int, int, str]] = []
    for version, reason in sorted(why.items()):
        if ranges and ranges[-1][1] == version - 1 and ranges[-1][2] == reason:
            ranges[-1] = (ranges[-1][0], version, reason)
        else:
            ranges.append((version, version, reason))
    return Salvaged(source, last, ranges, sorted(jobs | (touched if why else set())), finds.notes, inferred, aside)


def _dense(finds: Finds, why: dict[int, str], said: Said | None = None) -> Iterator[Entry]:
    epoch, moment, holes = finds.entries[min(finds.entries)].epoch, 0.0, False
    for version in range(1, max(finds.entries) + 1):
        if version in why:
            holes = True
            yield lost_entry(version, epoch, moment, why[version], said.get(version, ()) if said else ())
            continue
        entry = finds.entries[version]
        epoch, moment = entry.epoch, header_time(entry)
        yield without_digest(entry) if holes else entry


def _fold(entries: Iterator[Entry]) -> tuple[set[int], dict[int, str]]:
    """(jobs that something is said of though they never came, the first entry that cannot be folded and why)."""
    state, orphans = State(), set[int]()
    for entry in entries:
        for name, subject, _, _ in well_formed(read_commit(entry).events):
            if isinstance(subject, int) and name != "submit" and subject not in state.jobs:
                orphans.add(subject)
        why = folds(state, entry)
        if why:
            return orphans, {entry.version: why}
    return orphans, {}


