"""An archive made smaller: small segments joined (compact), old history deleted for good (prune).

Pruning keeps what answers for each job that ever was: the entries that retired jobs (their records, one line each) and those that
gave a job its key; and a snapshot of the state up to there, from which all that follows is folded. It was read back before
anything goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..journal import snapshot as snapshots
from ..journal.archive import Archive, blob_path, load_base, pack_base
from ..journal.blob_refs import names_in, names_in_entries
from ..journal.log import Journal
from ..journal.manifest import Base
from ..journal.segment import SEGMENT_BYTES, SEGMENT_ENTRIES, Part, encode
from ..journal.wire import Commit, well_formed
from ..kvs.blobs import blob_name
from ..kvs.errors import Corrupt, Rejected
from .archiving import Archiver
from .retention import snapshot_parts

READ = 500


@dataclass(slots=True)
class Smaller:
    """segments: before, after. files: unnamed ones removed. blobs: removed. pruned: last version pruned (0: none), entries gone."""

    place: str
    segments: tuple[int, int] = (0, 0)
    files: int = 0
    blobs: int = 0
    pruned: int = 0
    entries: int = 0


def compact(archiver: Archiver, *, drop_lost: bool = False) -> Smaller:
    """Join small neighbours; remove files that no manifest names and, if asked, branches that were set aside."""
    archive = archiver.archive
    with archiver:
        manifest = archive.manifest
        parts: list[Part] = []
        for group in _groups(manifest.parts):
            archiver.hold()
            parts.append(group[0] if len(group) == 1 else _joined(archive, group, archiver.dry_run))
        done = Smaller(archive.where, (len(manifest.parts), len(parts)))
        lost = () if drop_lost else manifest.lost
        files = [*(part.name for part in (*parts, *lost)), *(base.name for base in manifest.bases)]
        named = {f"{archive.uid}/{name}" for name in files}
        folders = [f"{archive.uid}/{folder}" for folder in ("segments", "bases")]
        unnamed = [name for folder in folders for name in archive.depot.names(folder) if name not in named]
        done.files = len(unnamed)
        if not archiver.dry_run and (unnamed or len(parts) < len(manifest.parts) or lost != manifest.lost):
            for _ in range(2):  # the manifest before must not name what goes now
                archive.save(replace(archive.manifest, parts=tuple(parts), lost=lost))
            for name in unnamed:
                archive.depot.delete(name)
    return done


def _groups(parts: Iterable[Part]) -> list[list[Part]]:
    """Neighbours that fit one segment, in order."""
    groups: list[list[Part]] = []
    for part in parts:
        group = groups[-1] if groups else []
        alike = bool(group) and bool(group[0].dropped) == bool(part.dropped)
        size, count = sum(one.size for one in group) + part.size, sum(one.count for one in group) + part.count
        if alike and size <= SEGMENT_BYTES // 2 and count <= SEGMENT_ENTRIES:
            group.append(part)
        else:
            groups.append([part])
    return groups


def _joined(archive: Archive, group: list[Part], dry_run: bool) -> Part:
    entries = [entry for part in group for entry in archive.segment(part).entries()]
    whole = replace(
        group[0], last=group[-1].last, after=group[-1].after, t_last=group[-1].t_last, count=sum(part.count for part in group),
        epochs=_epochs(group), dropped=sum(part.dropped for part in group),
    )  # fmt: skip
    part, data = encode(archive.uid, entries, group[0].before, thinned=whole if whole.dropped else None)
    if (part.first, part.last, part.after) != (whole.first, whole.last, whole.after):
        raise Corrupt(f"{archive.where}: versions {whole.first} to {whole.last} do not come out as they were", code="bad-segment")
    if not dry_run:
        archive.put_segment(part, data)
    return part


def _epochs(group: list[Part]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for first, epoch in (line for part in group for line in part.epochs):
        if not found or found[-1][1] != epoch:
            found.append((first, epoch))
    return tuple(found)


# -- deleting history -------------------------------------------------------------------------------------------------


def prune(archiver: Archiver, last: int) -> Smaller:
    """Delete archived history up to a version, but for what every job is known by. Raises `Rejected` for what is not
    trimmed from the server yet."""
    archive, journal = archiver.archive, archiver.journal
    with archiver:
        manifest, trimmed = archive.manifest, archiver.store.meta().first - 1
        done = Smaller(archive.where, (len(manifest.parts), len(manifest.parts)))
        if last > trimmed:
            raise Rejected(
                f"version {last} is still in the server, which is trimmed up to {trimmed}: only what is archived is pruned",
                code="bad-moment", hint="fluxkv journal archive --trim comes first",
            )  # fmt: skip
        if last <= manifest.pruned:
            return done
        done.pruned = last
        new, gone = [], 0
        for part in manifest.parts:
            if part.dropped or part.first > last:
                new.append(part)
                continue
            archiver.hold()
            entries = list(archive.segment(part).entries())
            rest = [entry for entry in entries if entry.version > last]
            old = entries[: len(entries) - len(rest)]
            whole, _ = encode(archive.uid, old, part.before)
            kept = [entry for entry in old if keeps(journal.reader.commit(entry))]
            gone += len(old) - len(kept)
            for some, before, thinned in ((kept, part.before, whole), (rest, whole.after, None)):
                if some or thinned is not None:
                    made, data = encode(archive.uid, some, before, thinned=thinned)
                    new.append(made)
                    if not archiver.dry_run:
                        archive.put_segment(made, data)
        done.entries = gone
        if archiver.dry_run:
            return done
        base = _base(archive, journal, last)
        for _ in range(2):  # the manifest before must not name what goes now
            archive.save(replace(archive.manifest, parts=tuple(new), bases=(base,)))
        done.blobs = _drop_blobs(archiver)
    return done


def keeps(commit: Commit) -> bool:
    """Whether an entry outlives pruning: it has records of retired jobs, or names the job of a key."""
    return any(
        name == "retire" or (name == "submit" and isinstance(context, dict) and "key" in context)
        for name, _, _, context in well_formed(commit.events)
    )


def _base(archive: Archive, journal: Journal, version: int) -> Base:
    """The state as of a version, in the archive, once it has been read back."""
    state = journal.at(version)
    data = pack_base(state)
    link = next(part for part in archive.manifest.parts if part.last >= version).after
    base = Base(f"bases/{version}.{blob_name(data)}", version, state.digest(), link)
    archive.depot.put(f"{archive.uid}/{base.name}", data)
    if load_base(archive.depot.get(f"{archive.uid}/{base.name}") or b"", base.name).digest() != base.digest:
        raise Corrupt(f"{archive.where}/{base.name} is not the state it was made of: nothing was pruned", code="bad-snapshot")
    return base


def _drop_blobs(archiver: Archiver) -> int:
    """Remove blobs that neither history that is left, nor its base, nor the live instance names."""
    archive, journal = archiver.archive, archiver.journal
    wanted: set[str] = set()
    for part in archive.manifest.parts:
        archiver.hold()
        if not part.dropped:
            wanted |= names_in_entries(archive.segment(part).entries(), strict=False)
    for base in archive.manifest.bases:
        head, chunks = archive.base_parts(base)
        for data in snapshots.unpacked(head, chunks):
            wanted |= names_in(data)
    for data in snapshot_parts(journal):
        wanted |= names_in(data)
    after = journal.store.meta().first - 1
    while entries := journal.store.read(after, READ):
        wanted |= names_in_entries(entries, strict=False)
        after = entries[-1].version
    gone = 0
    for path in archive.depot.names(f"{archive.uid}/blobs"):
        name = path.rpartition("/")[2]
        if name not in wanted:
            archiver.hold()
            archive.depot.delete(f"{archive.uid}/{blob_path(name)}")
            gone += 1
    return gone
