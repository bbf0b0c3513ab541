"""An instance's history outside its server: segments, manifest and blobs in a folder of a `Depot`. Pure but for that depot.

Decides the order of writes: blobs, segments, then the manifest that names them; what no manifest names does not count. What
is stored is checked when it is read. Who archives what and when is `instances/archiving.py`.

    <uid>/manifest.json   <uid>/segments/<first>-<last>.<hash>   <uid>/blobs/<2 digits>/<hash>   <uid>/bases/<version>.<hash>
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..kvs.blobs import blob_name
from ..kvs.errors import Corrupt, Unavailable
from ..kvs.port import Depot, Entry
from . import manifest as manifests
from .manifest import Base, Manifest
from .segment import NO_LINK, Part, Segment, decode, encode
from .snapshot import dump, load, read_head, usable
from .state import State
from .wire import pack, unpack

KEPT_SEGMENTS = 4  # in memory, the longest unused go first


class Archive:
    """The archive of the instance with this uid. `manifest` is as last read or written. may_save: asked before a manifest is
    written; raises where that is another's to do by now."""

    def __init__(
        self, depot: Depot, uid: str, namespace: str = "/", *, may_save: Callable[[], None] = lambda: None
    ) -> None:
        self.depot = depot
        self._may_save = may_save
        self.uid = uid
        self.manifest = self._written = Manifest(uid, namespace)
        self.found = False  # whether there is a manifest
        self._segments: OrderedDict[str, Segment] = OrderedDict()

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"{self.depot.url}/{self.uid}"

    # -- the manifest ---------------------------------------------------------------------------------------------

    def load(self) -> Manifest:
        """Read the manifest; an empty one if there is none yet. Raises `Corrupt` for one of another instance."""
        data = self.depot.get(self._path(manifests.NAME))
        if data is None:
            data = self.depot.get(self._path(manifests.BEFORE))
        if data is not None:
            try:
                read = manifests.from_bytes(data, self.where)
            except Corrupt:
                before = self.depot.get(self._path(manifests.BEFORE))  # a torn write of a place that has no better
                if before is None or before == data:
                    raise
                read = manifests.from_bytes(before, self.where)
            if read.uid != self.uid:
                raise Corrupt(f"the archive {self.where} is of the instance {read.uid}", code="bad-archive")
            self.manifest = self._written = read
            self.found = True
        return self.manifest

    def is_as_known(self) -> bool:
        """Whether the manifest that is there is the one that was last read or written here."""
        return Archive(self.depot, self.uid, self._written.namespace).load() == self._written

    def save(self, manifest: Manifest) -> None:
        """Put a manifest in place of the present one, which is kept beside it, with its files; those of the one before go.

        Raises `Corrupt` for one that is no single history, and as `may_save`.
        """
        self._may_save()
        wrong = manifests.faults(manifest)
        if wrong:
            raise Corrupt(f"the archive {self.where} would be no single history: {wrong[0]}", code="bad-chain")
        old: set[str] = set()
        if self.found:
            old = self._named_before()
            self.depot.put(self._path(manifests.BEFORE), manifests.to_bytes(self._written))
        self.depot.put(self._path(manifests.NAME), manifests.to_bytes(manifest))
        for name in sorted(old - self._written.files - manifest.files):
            self._segments.pop(name, None)
            self.depot.delete(self._path(name))
        self.manifest = self._written = manifest
        self.found = True

    def _named_before(self) -> set[str]:
        """The files that the manifest before the present one names."""
        data = self.depot.get(self._path(manifests.BEFORE))
        try:
            return set(manifests.from_bytes(data, self.where).files) if data else set()
        except Corrupt:
            return set()

    def _path(self, name: str) -> str:
        return f"{self.uid}/{name}"

    # -- reading --------------------------------------------------------------------------------------------------

    def segment(self, part: Part) -> Segment:
        """A segment that the manifest names. Raises `Unavailable` if its file is gone, `Corrupt` if it is another's."""
        found = self._segments.get(part.name)
        if found is None:
            data = self.depot.get(self._path(part.name))
            if data is None:
                raise Unavailable(
                    f"the archive {self.where} lacks {part.name} (versions {part.first} to {part.last})", code="archive",
                    hint="fluxkv journal verify shows what is missing; restore it from a copy",
                )  # fmt: skip
            found = decode(part.name, data)
            if found.uid != self.uid or found.part != part:
                raise Corrupt(f"{part.name} in {self.where} is not the segment its manifest names", code="bad-segment")
            self._segments[part.name] = found
            while len(self._segments) > KEPT_SEGMENTS:
                self._segments.popitem(last=False)
        self._segments.move_to_end(part.name)
        return found

    def _part(self, version: int) -> Part | None:
        parts = self.manifest.parts
        at = bisect_left(parts, version, key=lambda part: part.last)
        return parts[at] if at < len(parts) else None

    def _at(self, version: int) -> Segment | None:
        """The segment of a version; a manifest that was replaced meanwhile is read again."""
        part = self._part(version)
        if part is None:
            self.load()
            part = self._part(version)
        if part is None:
            return None
        try:
            return self.segment(part)
        except Unavailable:
            if self.load() and self._part(version) in (part, None):
                raise
            return self._at(version)

    def read(self, after: int, limit: int, through: int) -> list[Entry]:
        """Entries with after < version <= through, in order, `limit` at most. A pruned version ends it: see `pruned_error`."""
        found: list[Entry] = []
        while len(found) < limit and after < through:
            segment = self._at(after + 1)
            if segment is None:
                break
            if segment.part.dropped:
                raise pruned_error(after + 1, self.manifest.pruned, self.where)
            some = list(segment.entries(after, min(limit - len(found), through - after)))
            found += some
            after = some[-1].version if some else segment.part.last
        return found

    def entries(self, versions: Sequence[int]) -> Iterator[Entry]:
        """The entries of these versions that are there, in the order asked."""
        for version in versions:
            segment = self._at(version)
            entry = segment.entry(version) if segment is not None else None
            if entry is not None:
                yield entry

    # -- writing --------------------------------------------------------------------------------------------------

    def add(self, entries: Sequence[Entry], instead: int = 0) -> Part:
        """One more segment at the end, in place of the last `instead` ones; in the manifest when this returns."""
        kept = self.manifest.parts[: len(self.manifest.parts) - instead]
        before = kept[-1].after if kept else NO_LINK
        part, data = encode(self.uid, entries, before)
        self.depot.put(self._path(part.name), data)
        self.save(self.manifest.added([part], instead))
        return part

    def cut(self, last: int) -> tuple[Part, ...]:
        """Leave the branch that begins after this version: its segments are set aside. Returns them."""
        kept = [part for part in self.manifest.parts if part.last <= last]
        aside = self.manifest.parts[len(kept) :]
        straddling = aside[0] if aside and aside[0].first <= last else None
        if straddling is not None:
            entries = [entry for entry in self.segment(straddling).entries() if entry.version <= last]
            part, data = encode(self.uid, entries, straddling.before)
            self.depot.put(self._path(part.name), data)
            kept.append(part)
        self.save(replace(self.manifest, parts=tuple(kept), lost=(*self.manifest.lost, *aside)))
        return aside

    def put_segment(self, part: Part, data: bytes) -> None:
        """Write a segment's file, for a manifest that is about to name it."""
        self.depot.put(self._path(part.name), data)

    # -- bases ----------------------------------------------------------------------------------------------------

    def base(self, last: int) -> State:
        """The state that history after what was pruned (up to `last`) is folded from. Raises `Unavailable`, `Corrupt`."""
        for base in self.manifest.bases:
            if base.version == last:
                state = load_base(self._base_file(base), base.name)
                if state.version != last or state.digest() != base.digest:
                    raise Corrupt(f"{base.name} in {self.where} is not the state its manifest names", code="bad-snapshot")
                return state
        raise Unavailable(f"the archive {self.where} has no state of version {last}, where it was pruned", code="archive")

    def base_parts(self, base: Base) -> tuple[dict[str, Any], list[bytes]]:
        """Head and chunks of a base."""
        head, chunks = unpack(self._base_file(base))
        return read_head(head), chunks

    def _base_file(self, base: Base) -> bytes:
        data = self.depot.get(self._path(base.name))
        if data is None or blob_name(data) != base.name.rpartition(".")[2]:
            raise Unavailable(f"the archive {self.where} lacks {base.name}, or it is damaged", code="archive")
        return data

    # -- blobs ----------------------------------------------------------------------------------------------------

    def blob(self, name: str) -> bytes | None:
        """A blob's bytes, None if it is not here or damaged."""
        data = self.depot.get(self._path(blob_path(name)))
        return data if data is not None and blob_name(data) == name else None

    def has_blob(self, name: str) -> bool:
        return self.depot.has(self._path(blob_path(name)))

    def put_blob(self, name: str, data: bytes) -> bool:
        """Keep a blob; False if it is here already."""
        if self.has_blob(name):
            return False
        self.depot.put(self._path(blob_path(name)), data)
        return True


def pack_base(state: State) -> bytes:
    """A state as a file."""
    head, chunks = dump(state)
    return pack([head, chunks])


def load_base(data: bytes, name: str) -> State:
    """Inverse of `pack_base`. Raises `Corrupt` for what is none, or of another schema."""
    head, chunks = unpack(data)
    known = read_head(head)
    if not usable(known):
        raise Corrupt(f"{name} was written by an older program, and what it stands for is pruned", code="older-schema")
    return load(known, chunks)


def blob_path(name: str) -> str:
    """Where a blob lies in an archive."""
    return f"blobs/{name[:2]}/{name}"


def pruned_error(version: int, last: int, where: str) -> Unavailable:
    """The error for history that was deleted on purpose."""
    return Unavailable(
        f"version {version} was pruned from the archive {where}: history up to version {last} is gone, but for its jobs' records",
        code="pruned", hint=f"--after {last} shows what follows; a copy of the archive from before may have it: FLUXKV_ARCHIVE",
    )  # fmt: skip
