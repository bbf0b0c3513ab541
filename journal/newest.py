"""The newest snapshot of a store, to begin a fold with. Impure by its store alone; decides when it is of no use.

One that is damaged is as none, with a warning: the journal has everything. One that is ahead of the journal, or of a newer
program, stops whoever reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..kvs.epochs import belongs, given_up
from ..kvs.errors import Corrupt
from ..kvs.port import Store
from . import snapshot as snapshots
from .cron import CronTable
from .state import State

_T = TypeVar("_T")


class NewestSnapshot:
    """damaged: why it is of no use, once somebody has read it; whoever takes snapshots should replace it."""

    def __init__(self, store: Store, warn: Callable[[str], object]) -> None:
        self.store = store
        self.damaged: Corrupt | None = None
        self._warn = warn

    def read(self, *, lazy: bool = False) -> State | None:
        """As a state, or None if there is none of this program's schema. Raises `Corrupt`."""
        found = self._parts()
        return snapshots.load(*found, lazy=lazy) if found else None

    def whole(self) -> State | None:
        """To go on from: its digest is checked. None if there is none that can be used."""
        return self._tolerant(self.read)

    def lazy(self) -> State | None:
        """To look at: inactive jobs are unpacked when asked for, and checksums suffice."""
        return self._tolerant(lambda: self.read(lazy=True))

    def cron(self) -> CronTable | None:
        """Its cron table alone."""

        def read() -> CronTable | None:
            found = self._parts()
            return snapshots.load_cron(*found) if found else None

        return self._tolerant(read)

    def _tolerant(self, read: Callable[[], _T | None]) -> _T | None:
        try:
            return read()
        except Corrupt as error:
            if error.code != "bad-snapshot":
                raise
            if self.damaged is None:
                self._warn(f"{error}: the journal is folded from its beginning")
            self.damaged = error
            return None

    def _parts(self) -> tuple[dict[str, Any], list[bytes]] | None:
        """Head and chunks, None if there is none of this program's schema."""
        found = self.store.load_snapshot()
        if found is None:
            return None
        head = snapshots.read_head(found[0])
        meta = self.store.meta()
        if not belongs(meta.epochs, meta.version, head["version"], head["epoch"]):
            if given_up(meta.epochs, head["version"], head["epoch"]):
                return None  # taken on a branch that was lost, and adopted: the journal itself is right
            raise Corrupt(
                f"the snapshot is ahead of the journal: it knows version {head['version']}-{head['epoch']}, the journal ends at "
                f"{meta.version}: history was lost", code="snapshot-ahead", hint="fluxkv ops adopt says what is lost",
            )  # fmt: skip
        return (head, found[1]) if snapshots.usable(head) else None
