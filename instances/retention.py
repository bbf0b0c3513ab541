"""What leaves the server beside history: contents that nothing names any more, and what jobs printed long ago (HAZARD 22).

A blob (an environment, a file of a job, a value of the KVS) goes only if the live snapshot and every entry left in the server
are without its name, up to the very tip at which it goes, and if nobody has put or wanted it for a while: that is how long a
submitter may take from "it is there" to its append.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..journal import snapshot as snapshots
from ..journal.blob_refs import names_in, names_in_entries
from ..journal.job import INACTIVE
from ..journal.log import Journal
from ..kvs.errors import Conflict, Corrupt
from ..kvs.keys import Keys
from ..kvs.port import Entry

READ = 500
TRIES = 50


def drop_output(journal: Journal, keep_s: float, *, dry_run: bool = False) -> int:
    """Remove what the server has of the output of jobs that ended this long ago; of how many."""
    store = journal.store
    before = store.now() - keep_s
    old = [job for job, last in store.outputs().items() if last < before]
    if not old:
        return 0
    jobs = journal.look().jobs
    ended = [id for id in old if (job := jobs.get(id)) is None or (job.state == INACTIVE and job.t_inactive < before)]
    if not dry_run:
        keys = Keys(store.namespace)
        for id in ended:
            store.delete(*keys.streams_of_job(id))
    return len(ended)


def collect(journal: Journal, unused_s: float, *, dry_run: bool = False) -> int:
    """Remove what nobody has touched for this long and nothing names; how many went (or would)."""
    store = journal.store
    before = store.now() - unused_s
    idle = set(store.idle_blobs(before))
    if not idle:
        return 0
    meta = store.meta()
    for data in snapshot_parts(journal):
        idle -= names_in(data)
    after, tip = meta.first - 1, meta.trimmed
    for _ in range(TRIES):
        while idle and (entries := store.read(after, READ)):
            if entries[0].version != after + 1:
                return 0  # somebody trims: next time
            idle -= _names(journal, entries)
            after, tip = entries[-1].version, entries[-1].id
        if dry_run or not idle:
            return len(idle)
        try:
            return store.collect_blobs(meta.uid, tip, before, sorted(idle))
        except Conflict:
            continue  # somebody has appended meanwhile, perhaps the name of one of these
    return 0


def _names(journal: Journal, entries: list[Entry]) -> set[str]:
    """What these entries may name. One that cannot be read may name anything, unless it was set aside: then nothing is removed."""
    try:
        return names_in_entries(entries)
    except Corrupt:
        for entry in entries:
            journal.reader.commit(entry)  # raises for the one that nobody has set aside
        return names_in_entries(entries, strict=False)


def snapshot_parts(journal: Journal) -> Iterator[bytes]:
    """The newest snapshot's contents, unpacked as far as names show."""
    found = journal.store.load_snapshot()
    if found is None:
        return
    yield from snapshots.unpacked(snapshots.read_head(found[0]), found[1])
