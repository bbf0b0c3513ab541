"""A journal's entries wherever they are: in the server, or in the archive that its meta names. Pure but for store and depot.

The server is asked first: only versions that were trimmed from it are looked for in the archive, and the entry at the seam
must be the one that was trimmed. So a command about what is recent works with the archive away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..kvs.blobs import checked_blob
from ..kvs.errors import Corrupt, FluxkvError, Unavailable
from ..kvs.port import Entry, Meta, Store
from .unreadable import Reader

if TYPE_CHECKING:
    from .archive import Archive
    from .state import State


class History:
    """The archive is where meta says, or where the store says that this has moved to."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._archive: Archive | None = None
        self._of = ""

    def read(self, after: int, limit: int) -> list[Entry]:
        """Entries with version > after, in order, `limit` at most; fewer only where the journal ends (or has a gap)."""
        found = self.store.read(after, limit)
        if found and found[0].version == after + 1:
            return found
        meta = self.store.meta()
        if after + 1 >= meta.first:
            return found
        last = min(meta.first - 1, after + limit)
        archived = self._from(meta, after + 1, last).read(after, limit, meta.first - 1)
        if len(archived) < last - after:  # what was put back in its place is older: that is no end of history
            raise self._lacking(meta, archived[-1].version + 1 if archived else after + 1, last)
        if archived and archived[-1].version == meta.first - 1:
            self._check_seam(archived[-1], meta)
            if len(archived) < limit:
                archived += self.store.read(meta.first - 1, limit - len(archived))
        return archived

    def entries(self, versions: Sequence[int]) -> list[Entry]:
        """The entries of these versions that exist, in the order asked."""
        found = {entry.version: entry for entry in self.store.entries(versions)}
        missing = [version for version in versions if version not in found]
        if missing:
            meta = self.store.meta()
            missing = [version for version in missing if 0 < version < meta.first]
        if missing:
            archive = self._from(meta, min(missing), max(missing))
            found.update((entry.version, entry) for entry in archive.entries(sorted(missing)))
        return [found[version] for version in versions if version in found]

    def blobs(self, names: Sequence[str]) -> list[bytes | None]:
        """Blobs by name, those no longer in the server from the archive; None for one that is nowhere (or out of reach)."""
        found = self.store.get_blobs(names)
        if None in found:
            meta = self.store.meta()
            if meta.archive:
                try:
                    archive = self._from(meta, 1, meta.first - 1)
                    found = [archive.blob(name) if data is None else data for name, data in zip(names, found, strict=True)]
                except FluxkvError:
                    pass
        return [data if data is None else checked_blob(name, data) for name, data in zip(names, found, strict=True)]

    def begin(self, version: int | None = None, moment: float | None = None) -> State:
        """What a fold up to a version, or a server time, begins with: nothing, or the state up to which history was pruned.

        Raises `Unavailable` (code pruned) for a version, or a time, before that.
        """
        from .state import State

        meta = self.store.meta()
        if meta.first == 1:
            return State()
        from .archive import pruned_error

        archive = self._from(meta, 1, meta.first - 1)
        pruned = archive.manifest.pruned
        if not pruned:
            return State()
        if version is not None and version < pruned:
            raise pruned_error(version, pruned, archive.where)
        try:
            state = archive.base(pruned)
        except Unavailable:
            before = archive.manifest
            if archive.load() == before:
                raise
            return self.begin(version, moment)  # more was pruned since the manifest was read
        if moment is not None and state.time > moment:
            raise pruned_error(pruned - 1, pruned, archive.where)
        return state

    def archive(self) -> Archive | None:
        """The archive that holds what was trimmed, None if nothing was. Raises `Unavailable` if it cannot be read."""
        meta = self.store.meta()
        return self._from(meta, 1, meta.first - 1) if meta.first > 1 else None

    def _from(self, meta: Meta, first: int, last: int) -> Archive:
        """The archive, opened; who needs it for these versions is told when it is not there."""
        if self._archive is not None and self._of == meta.archive:
            return self._archive
        from .archive import Archive

        missing: FluxkvError | None = None
        archive = Archive(self.store.depot(meta.archive, to_read=True), meta.archive_uid, self.store.namespace)
        try:
            archive.load()
            if archive.manifest.last >= meta.first - 1:
                self._archive, self._of = archive, meta.archive
                return archive
        except FluxkvError as error:
            missing = error
        raise self._lacking(meta, first, last, missing) from None

    @staticmethod
    def _lacking(meta: Meta, first: int, last: int, missing: FluxkvError | None = None) -> FluxkvError:
        """The error for versions that are neither in the server nor in the archive."""
        why = str(missing) if missing is not None else f"the archive {meta.archive} has no history of this instance"
        kind = Corrupt if isinstance(missing, Corrupt) else Unavailable
        return kind(
            f"{_versions(first, last)} no longer in the server, and {why}", code=missing.code if missing is not None else "archive",
            hint=getattr(missing, "hint", "") or f"versions up to {meta.first - 1} belong below {meta.archive}/{meta.archive_uid}; "
            "restore them, or name another place with FLUXKV_ARCHIVE",
        )  # fmt: skip

    @staticmethod
    def _check_seam(entry: Entry, meta: Meta) -> None:
        if entry.id != meta.trimmed:
            raise Corrupt(
                f"the archive {meta.archive} has the entry {entry.id} where {meta.trimmed} was trimmed: it is of another history",
                code="bad-chain", hint="fluxkv journal verify",
            )  # fmt: skip


def reader(store: Store) -> Reader:
    """What makes commits of a journal's entries, wherever they are: those that were set aside are holes."""
    return Reader(History(store).read)


def _versions(first: int, last: int) -> str:
    return f"version {first} is" if first == last else f"versions {first} to {last} are"
