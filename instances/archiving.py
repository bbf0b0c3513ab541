"""Archiving an instance: what of its journal goes to an archive, and what of that may then leave the server.

Decides that nothing leaves before it has been read back from the archive and found equal, below a snapshot that was read and
checked, too. One process at a time does this for an instance (a lease); two would only do the same twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ..journal.archive import Archive
from ..journal.archive_config import ArchiveRules
from ..journal.blob_refs import names_in_entries
from ..journal.log import Journal
from ..journal.restoring import lost_entry
from ..journal.segment import SEGMENT_ENTRIES, Part, check_whole, decode, header_time, runs
from ..kvs.depot import local_path
from ..kvs.errors import Conflict, Corrupt, Unavailable
from ..kvs.port import TRIM_STEP, Entry, Meta
from .paths import StateDir
from .retention import collect, drop_output

LEASE = "archive"
LEASE_MS = 30_000  # renewed before each segment and manifest; after a kill -9 nobody archives for so long
SMALL_BYTES = 1_000_000  # a last segment below it is written anew with what has come since
READ = 1_000
KEPT_SETTINGS = ("durability", "fake", "keep_s", "policy", "replicas", "workers")


@dataclass(slots=True)
class Done:
    """What a run did, or (dry_run) would have done. Ranges of versions are (first, last), None for nothing.

    lost: what of the archive was of a branch the instance did not keep. kept_why: why nothing (more) was trimmed.
    unnamed: contents removed since nothing named them. printed: jobs whose output was removed. unreadable: versions whose entries
    are archived as they are, damaged, since an archive that waited for them would fill the server's memory.
    """

    url: str
    dry_run: bool = False
    archived: tuple[int, int] | None = None
    segments: list[Part] = field(default_factory=list)
    blobs: int = 0
    lost: tuple[int, int] | None = None
    trimmed: tuple[int, int] | None = None
    kept_why: str = ""
    unnamed: int = 0
    printed: int = 0
    unreadable: list[int] = field(default_factory=list)

    @property
    def warning(self) -> str:
        """What somebody should know of these, "" if there are none."""
        if not self.unreadable:
            return ""
        more = f" and {len(self.unreadable) - 1} more" if len(self.unreadable) > 1 else ""
        return f"version {self.unreadable[0]}{more} cannot be read, and is archived as it is: fluxkv journal verify"


class Archiver:
    """Archives one instance's journal at a URL. settings: of its state directory, for whoever brings it up elsewhere."""

    def __init__(self, journal: Journal, url: str, settings: dict[str, Any] | None = None, *, dry_run: bool = False) -> None:
        self.journal = journal
        self.store = journal.store
        self.archive = Archive(self.store.depot(url), journal.meta.archive_uid, self.store.namespace, may_save=self.hold)
        self.settings = kept_settings(settings, journal.meta) if settings else {}
        self.dry_run = dry_run
        self.done = Done(self.archive.depot.url, dry_run)
        self._owner = f"{os.uname().nodename}:{os.getpid()}:{os.urandom(4).hex()}"
        self._until = float("inf")  # nobody else can have had the lease since we began, if it is renewed by then (monotonic)

    def __enter__(self) -> Archiver:
        self.hold()
        try:
            self.archive.load()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.store.lease(self._owner, 0, LEASE)

    def hold(self) -> None:
        """Stay the one that archives. Raises `Unavailable` (busy) where another does, or has while we were not heard of: what we
        know of the archive is old then."""
        if self.dry_run:
            return
        asked, until = time.monotonic(), self._until
        if not self.store.lease(self._owner, LEASE_MS, LEASE) or (asked > until and not self.archive.is_as_known()):
            raise Unavailable(
                "this instance is being archived by another process now", code="busy", hint="wait for it, then try again"
            )
        self._until = asked + LEASE_MS / 1000

    # -- into the archive -----------------------------------------------------------------------------------------

    def add(self, through: int) -> None:
        """Archive what comes after the archive's end, up to this version."""
        self._leave_lost_branch()
        manifest = self.archive.manifest
        if self.settings and manifest.settings != self.settings and not self.dry_run:
            manifest = replace(manifest, settings=self.settings)
            self.archive.manifest = manifest  # written with the next segment
        first = manifest.last + 1
        through = min(through, self.store.meta().version)
        if through < first:
            return
        self.done.archived = (first, through)
        if self.dry_run:
            return
        instead, again = self._small_end()
        for run in runs(self._entries(again, through)):
            self.hold()
            self._add_blobs(run)
            self.done.segments.append(self.archive.add(run, instead))
            instead = 0

    def _small_end(self) -> tuple[int, int]:
        """(segments to write anew, the version after which to begin): the last one, if it is small."""
        manifest = self.archive.manifest
        last = manifest.parts[-1] if manifest.parts else None
        if last is None or last.dropped or last.size >= SMALL_BYTES or last.count >= SEGMENT_ENTRIES:
            return 0, manifest.last
        return 1, last.first - 1

    def _entries(self, after: int, through: int) -> Iterator[Entry]:
        """The entries to archive: of the archive's own end from there, so that its links come out, else of the journal."""
        for part in self.archive.manifest.parts:
            if part.first > after:
                yield from self.archive.segment(part).entries()
                after = part.last
        while after < through:
            some = self.journal.history.read(after, min(READ, through - after))
            for entry in some:
                for version in range(after + 1, entry.version):
                    self.journal.reader.missing(version, entry)  # raises, unless an operator has set it aside
                    yield lost_entry(version, entry.epoch, header_time(entry), "it was missing, and set aside")
                after = entry.version
                try:
                    self.journal.reader.commit(entry)
                except Corrupt:
                    self.done.unreadable.append(after)
                yield entry
            if not some:
                raise Corrupt(f"version {after + 1} is missing", code="version-gap")

    def _add_blobs(self, entries: list[Entry]) -> None:
        """What these entries name goes with them; a name that is none of a blob's has nothing to go."""
        names = sorted(names_in_entries(entries, strict=False))
        for at in range(0, len(names), 100):
            self.hold()
            some = [name for name in names[at : at + 100] if not self.archive.has_blob(name)]
            for name, data in zip(some, self.journal.history.blobs(some), strict=True):
                if data is not None:
                    self.done.blobs += self.archive.put_blob(name, data)

    def _leave_lost_branch(self) -> None:
        """Set aside what the archive has of a history that the server took another way from. Raises `Corrupt` where the
        server has merely less: nobody has decided yet that this is lost."""
        manifest, meta = self.archive.manifest, self.store.meta()
        last = manifest.last
        if not last:
            return
        shared = self._shared(meta, min(last, meta.version))
        if shared == last:
            return
        if shared == meta.version:
            raise Corrupt(
                f"the journal ends at version {meta.version}, the archive {self.archive.where} at {last}: the server has lost "
                f"versions {meta.version + 1} to {last}", code="history-lost",
                hint="fluxkv journal salvage makes a state directory of both",
            )  # fmt: skip
        self.done.lost = (shared + 1, last)
        if not self.dry_run:
            self.archive.cut(shared)

    def _shared(self, meta: Meta, last: int) -> int:
        """The last version up to which archive and server have the same history."""
        trimmed = meta.first - 1
        if last < trimmed:
            return last  # the archive is behind one that is in use: it will be brought on from there
        if self._same(meta, last):
            return last
        low, high = trimmed, last  # the same at low (what was trimmed was compared then), another at high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._same(meta, middle) else (low, middle)
        return low

    def _same(self, meta: Meta, version: int) -> bool:
        if version == meta.first - 1:
            part = next((one for one in self.archive.manifest.parts if one.last >= version), None)
            return version == 0 or (part is not None and f"{version}-{part.epoch_of(version)}" == meta.trimmed)
        return list(self.archive.entries([version])) == self.store.entries([version])

    # -- out of the server ----------------------------------------------------------------------------------------

    def trim(self, through: int) -> None:
        """Take what is archived out of the server, up to this version at most, after it was read back and compared."""
        meta = self.store.meta()
        archived = self.done.archived[1] if self.dry_run and self.done.archived else self.archive.manifest.last
        last = min(through, archived, meta.version - 1)
        if last < meta.first:
            self.done.kept_why = "all that is left is too recent"
            return
        self.done.trimmed = (meta.first, last)
        if self.dry_run:
            return
        self.done.trimmed = None
        last = min(last, self._snapshot(last))
        first = meta.first
        if last < first:
            self.done.kept_why = "there is no snapshot as new as that"
        while first <= last:
            step = min(last, first + TRIM_STEP - 1)
            tail = self.compared(first, step)
            self.hold()
            meta = self.store.trim_journal(self.journal.meta.uid, self.journal.meta.epoch, tail.id, self.done.url)
            self.done.trimmed = (self.done.trimmed[0] if self.done.trimmed else first, step)
            first = step + 1

    def _snapshot(self, wanted: int) -> int:
        """The version of a snapshot that was read, digest and all: the newest, or, where that is too old, one made now."""
        state = self.journal.snapshot()
        if state is None or state.version < wanted:
            state = self.journal.load()
            self.journal.meta = self.store.meta()
            if not self.journal.save_snapshot(state):
                raise Conflict("the epoch has changed while a snapshot was taken", code="epoch", hint="try again")
            state = self.journal.snapshot()
        return state.version if state is not None else 0

    def compared(self, first: int, last: int) -> Entry:
        """The last of these entries, once the archive was read anew and has all of them as the server has them."""
        found = self.store.read(first - 1, last - first + 1)
        here = {entry.version: entry for entry in found if entry.version <= last}
        tail = max(here.values(), key=lambda entry: entry.version)  # what is missing, and set aside, is in the archive only
        for part in self.archive.manifest.parts:
            if part.last < first or part.first > last:
                continue
            data = self.archive.depot.get(f"{self.archive.uid}/{part.name}")
            segment = decode(part.name, data or b"")
            check_whole(segment)
            for entry in segment.entries(first - 1):
                if entry.version > last:
                    break
                if here.pop(entry.version, entry) != entry:
                    raise Corrupt(
                        f"the archive {self.archive.where} has another entry {entry.id} than the server: nothing was trimmed",
                        code="bad-segment", hint="fluxkv journal verify",
                    )  # fmt: skip
        if here:
            raise Corrupt(f"the archive {self.archive.where} lacks version {min(here)}: nothing was trimmed", code="bad-segment")
        return tail


def run(
    archiver: Archiver, rules: ArchiveRules, now: float, *, all_of_it: bool = False, trim: bool = False, sweep: bool = False
) -> Done:
    """Archive what is old enough (or all), then, if asked, trim what the rules let go, and what else may go (`retention`)."""
    with archiver:
        meta = archiver.store.meta()
        archiver.add(meta.version if all_of_it else version_at(archiver.journal, now - rules.after_s))
        if trim:
            tip = archiver.store.meta().version
            archiver.trim(min(tip - rules.keep_commits, version_at(archiver.journal, now - rules.keep_s)))
        if sweep:
            archiver.done.printed = drop_output(archiver.journal, rules.keep_output_s, dry_run=archiver.dry_run)
            archiver.done.unnamed = collect(archiver.journal, rules.unused_blobs_s, dry_run=archiver.dry_run)
    return archiver.done


def version_at(journal: Journal, moment: float) -> int:
    """The last version in the server whose server time is not after a moment; what was trimmed is before it."""
    meta = journal.store.meta()
    low, high = meta.first - 1, meta.version + 1
    while high - low > 1:
        middle = (low + high) // 2
        found = journal.store.read(middle - 1, 1)  # it, or the next one that is there
        low, high = (middle, high) if found and header_time(found[0]) <= moment else (low, middle)
    return low


def kept_settings(settings: dict[str, Any], meta: Meta) -> dict[str, Any]:
    """What a manifest says of how an instance was started, and what its job ids count from."""
    return {**{key: settings[key] for key in KEPT_SETTINGS if key in settings}, "origin_ms": meta.origin_ms}


def place_of(rules: ArchiveRules, meta: Meta, directory: StateDir | None) -> str:
    """An instance's archive: as its config says, or where trimmed history went, or in its state directory; "" if nowhere.

    A state directory that was moved has taken its archive along.
    """
    inside = directory.join("archive") if directory is not None else ""
    if rules.url or not inside or not meta.archive:
        return rules.url or meta.archive or inside
    gone = local_path(meta.archive) and not os.path.exists(os.path.join(local_path(meta.archive), meta.archive_uid))
    return inside if gone and os.path.exists(os.path.join(inside, meta.archive_uid)) else meta.archive
