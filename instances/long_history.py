"""What a child that leaves the server has too much of for one file: its oldest history becomes an archive of its own beside that.

Decides where that is cut. What is read of it then, and how, is as for a living instance that was trimmed (`journal/history.py`):
its file has a snapshot and the tail, and opens in a moment however long it ran. Also takes along the archive that a child had in a
folder of its own, which would go with its state directory. Removes nothing anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..journal import snapshot as snapshots
from ..journal.log import Journal
from ..kvs.depot import local_path
from ..kvs.errors import Corrupt
from ..kvs.port import TRIM_STEP

if TYPE_CHECKING:
    from ..kvs.keys import Keys
    from ..kvs.port import Depot, Meta, Store

LONG_BYTES = 4_000_000  # of the server's memory
LONG_COMMITS = 5_000
KEPT_COMMITS = 200  # in the file


class Cut(NamedTuple):
    """meta: which says that what came before is in the archive. snapshot: of the tip: (version, head, chunks)."""

    meta: Meta
    snapshot: tuple[int, bytes, list[bytes]]


def is_long(store: Store, keys: Keys, meta: Meta) -> bool:
    """Whether a journal is too long to be opened as a whole each time."""
    count = meta.version - meta.first + 1
    return count > LONG_COMMITS or (count > 2 * KEPT_COMMITS and (store.weigh([keys.journal]) or 0) > LONG_BYTES)


def cut(store: Store, meta: Meta, depot: Depot) -> Cut:
    """Have all but the latest commits in an archive in this depot, each of them read back and compared. Raises `Corrupt`,
    `Unavailable` (archive; pruned: some of it was deleted)."""
    from .archiving import Archiver

    journal = Journal(store, by="archiver")
    with Archiver(journal, depot.url) as archiver:
        archiver.add(meta.version - KEPT_COMMITS)
        first, last = meta.first, meta.version - KEPT_COMMITS
        while first <= last:
            tail = archiver.compared(first, min(last, first + TRIM_STEP - 1))
            first = tail.version + 1
    state = journal.load()
    if state.version != meta.version:
        raise Corrupt(f"{store.namespace} is at version {state.version}, not {meta.version}", code="version-gap")
    head, chunks = snapshots.dump(state)
    return Cut(meta._replace(trimmed=tail.id, archive=archiver.done.url), (state.version, head, list(chunks)))


def take_along(store: Store, meta: Meta, depot: Depot) -> Meta:
    """Copy what a child has archived in a folder into this depot; its meta then. One elsewhere, or on another host, stays there."""
    if meta.first == 1 or not local_path(meta.archive):
        return meta
    source = store.depot(meta.archive, to_read=True)
    names = source.names(meta.archive_uid) if source.url != depot.url else []
    for name in sorted(names, key=lambda name: ("manifest" in name, name)):
        data = source.get(name)
        if data is None or depot.get(name) == data:
            continue
        depot.put(name, data)
        if depot.get(name) != data:
            raise Corrupt(f"the archive {depot.url} has not kept {name} as it was written", code="bad-archive")
    return meta._replace(archive=depot.url) if names else meta
