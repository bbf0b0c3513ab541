"""A journal made again from its entries: into a namespace that is new, folded along. Pure but for the store.

Decides what of the caches beside the stream is made anew from the entries' headers (guards but those of jobs, which lie below
the floor then; the epochs), and how a history is marked where entries of it are lost for good: by an entry that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..kvs.appending import header_prefix
from ..kvs.errors import Corrupt, FluxkvError
from ..kvs.port import Append, Entry, Meta, Store
from .blob_refs import names_in_entries
from .state import MALFORMED, State
from .tables import Tables
from .wire import Commit, Header, pack, pack_events, read_commit, read_header, unpack

BATCH = 500
BATCH_BYTES = 4 * 1024 * 1024
Blobs = Callable[[Sequence[str]], Sequence[bytes | None]]


class Restoring:
    """Takes entries in order and puts them into a store. state: what they fold to. missing: blobs that nobody has."""

    def __init__(self, store: Store, meta: Meta, blobs: Blobs) -> None:
        self.store = store
        self.meta = meta
        self.state = State()
        self.missing: set[str] = set()
        self._blobs = blobs
        self._put: set[str] = set()
        self._tables = Tables()
        self._epochs: list[tuple[int, int]] = []
        self._batch: list[Entry] = []
        self._size = 0

    def take(self, entry: Entry, commit: Commit) -> None:
        """The next entry, and what it says (nothing, for one that was set aside). Raises `Corrupt` if the fold cannot follow."""
        self.state.apply(commit)
        try:
            self._bump(entry, read_header(entry))
        except Corrupt:
            if commit.events:
                raise
        self._batch.append(entry)
        self._size += len(entry.header) + len(entry.payload)
        if len(self._batch) >= BATCH or self._size >= BATCH_BYTES:
            self._flush()

    def _bump(self, entry: Entry, header: Header) -> None:
        self._tables.take(entry, header)
        if not self._epochs or self._epochs[-1][0] != entry.epoch:
            self._epochs.append((entry.epoch, entry.version))

    def _flush(self) -> None:
        if not self._batch:
            return
        names = sorted(names_in_entries(self._batch, strict=False) - self._put)
        self._put.update(names)
        for at in range(0, len(names), 100):
            some = names[at : at + 100]
            for name, data in zip(some, self._blobs(some), strict=True):
                if data is not None:
                    self.store.put_blobs({name: data})
        self.store.restore(self.meta.uid, self._batch)
        self._batch, self._size = [], 0

    def finish(self) -> Meta:
        """All entries are there: the journal may be appended to."""
        self._flush()
        text = " ".join(f"{epoch}:{first}" for epoch, first in [*self._epochs, (self.meta.epoch, self.state.version + 1)])
        return self.store.restored(self.meta.uid, self._tables.guards, text)


# -- histories with holes ---------------------------------------------------------------------------------------------


def lost_entry(version: int, epoch: int, moment: float, why: str, said: Iterable[Sequence[Any]] = ()) -> Entry:
    """What stands in the place of an entry that cannot be read: versions stay dense, and the history says what it lacks.

    said: the events that it must have had (`inferring`), with None for a time that is not known; they are flagged as inferred."""
    events: list[list[Any]] = [["lost", "instance", moment, {"version": version, "reason": why}]]
    for name, subject, at, context in said:
        events.append([name, subject, moment if at is None else at, {**(context or {}), "inferred": True}])
    request = Append(uid="", epoch=epoch, decided_at=version - 1, payload=pack_events(events), extra=pack({"by": "salvage"}))
    return Entry(version, epoch, header_prefix(request) + b"\xb0%016d" % round(moment * 1_000_000), request.payload)


def without_digest(entry: Entry) -> Entry:
    """An entry behind one that is lost: the digest it carries is of a state that cannot be had any more."""
    parts = unpack(entry.header)
    extra: Any = parts[7]
    if not isinstance(extra, dict) or "digest" not in extra:
        return entry
    parts[7] = {key: value for key, value in extra.items() if key != "digest"}
    head, time = pack(parts[:8])[1:], b"\xb0" + entry.header[-16:]
    return entry._replace(header=b"\x99" + head + time)


def folds(state: State, entry: Entry) -> str:
    """Apply an entry; why it cannot be, "" if it has been. A state that refused one may be torn: take another."""
    try:
        state.apply(read_commit(entry))
    except (FluxkvError, *MALFORMED) as error:
        return str(error)
    return ""
