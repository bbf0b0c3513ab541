"""A child instance's end: its job's expiration in the parent's journal, said in the child's own when it moves.

The leading keeper of a child asks about once a second when its job was last bumped: two small questions, whatever else goes
on at the parent. Only when it was, the commits since then are read. Writes only the child's journal; saying the same twice
does no harm, so nothing is kept on disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ..journal import history
from ..journal.ids import parse_id
from ..journal.log import Journal
from ..journal.values import end_time
from ..journal.wire import well_formed
from ..kvs.epochs import settle
from ..kvs.errors import FluxkvError
from ..kvs.port import Meta, Store, id_pair
from ..kvs.redis_store import open_store
from .paths import StateDir

FAR = 2_000  # commits; above that a fold is cheaper than reading them
UNSURE_S = 60.0  # guards are pruned: where one may be gone that was not seen, it is looked behind this often
PLAIN = frozenset(  # no word of its nodes
    ("alloc", "start", "memo", "annotations", "urgency", "priority", "resource-update", "jobspec-update")
)


def duty(store: Store, settings: Mapping[str, Any], state_dir: StateDir | None = None) -> Callable[[], None]:
    """What a child's keeper does every second. store: of the child."""
    from .access import to_read_parent
    from .boot import say
    from .parent_claims import ParentClaims
    from .parent_row import ParentRow

    parent = open_store(to_read_parent(settings), patience_s=0.0)
    limit = ParentLimit(parent, settings, lambda events: say(store, events))
    claims = ParentClaims(parent, store, settings)
    row = ParentRow(settings, state_dir)

    def look() -> None:
        news = limit.look()
        claims.look(news, plain=limit.is_plain)
        row.look(limit.meta)

    return look


class ParentLimit:
    """say: puts events into the child's journal. settings: the child's, as `child.make_settings` made them."""

    def __init__(self, parent: Store, settings: Mapping[str, Any], say: Callable[[list[list[Any]]], None]) -> None:
        self._parent, self._say = parent, say
        self._job = parse_id(settings["job"])
        began = id_pair(str(settings.get("entry") or 0))[1] or int(settings.get("parent_epoch") or 0)
        self._seen = int(settings.get("since") or 0), began  # version and epoch; what follows has not been read
        self._asked = self._seen  # the tip when the guard was not there: so far nothing came, unless it was pruned meanwhile
        self._lost = False  # the parent lost some of what was read, and what it has instead was not looked at yet
        self._end = float(settings["R"]["execution"].get("expiration") or 0.0)
        self._sure = time.monotonic()
        self._touched = 0  # the last version that says something of the job, where that was looked for
        self.meta: Meta | None = None  # the parent's, when it was last looked at
        # Whether all that was said of the job since its attempt began is read, and none of it may have to do with its nodes.
        self.is_plain = not settings.get("resume")
        self._epoch = int(settings.get("parent_epoch") or 0)  # in which the attempt began

    def look(self) -> bool:
        """Say the new end if it has moved; whether anything was said of the job since the last look (or may have been). A parent
        that does not answer is asked again the next time."""
        try:
            self.meta = meta = self._parent.meta()  # before the bumps, so that none before its tip is missed
            self.is_plain = self.is_plain and meta.epoch == self._epoch
            if not self._goes_on(meta):
                return False
            seen = self._seen[0]
            (bumped,) = self._parent.bumps([f"job/{self._job}"])
            found: float | None = None
            if self._lost or bumped - seen > FAR:
                found = self._fold()
            elif bumped > seen:
                found = self._read(bumped)
            elif not bumped and meta.floor > seen:
                self.is_plain = False
                if time.monotonic() - self._sure <= UNSURE_S:
                    return False  # what has been passed over so far stays to be looked behind
                found = self._fold()
            elif not bumped:
                self._asked = meta.version, meta.epoch
                return False
            if found is not None and found != self._end:
                self._say([["resource-update", "resource", time.time(), {"expiration": found}]])
                self._end = found
            news, self._lost = self._lost or max(bumped, self._touched) > seen, False
            self._seen = self._asked = max(meta.version, bumped), meta.epoch
            return news
        except FluxkvError:
            self.is_plain = False
            return False

    def _goes_on(self, meta: Meta) -> bool:
        """Settle where to read on: where the parent's journal lost what was read, at the last that is left of it. False while it
        is not said yet what becomes of it."""
        if meta.floor <= self._seen[0] and meta.epoch == self._asked[1]:  # nor was it pruned before it was asked for
            self._seen = self._asked
        version, epoch = self._seen
        if meta.fork or (meta.version < version and meta.epoch == epoch):
            return False
        self._seen = self._asked = id_pair(settle(meta.epochs, meta.version, f"{version}-{epoch}"))
        self._lost = self._lost or self._seen[0] < version
        return True

    def _read(self, until: int) -> float | None:
        """The last end that the commits up to a version name, or None."""
        found, version = None, self._seen[0]
        for commit in history.reader(self._parent).commits(version, until):
            for name, subject, _, context in well_formed(commit.events):
                if subject != self._job:
                    continue
                if name == "resource-update":
                    with suppress(KeyError, TypeError, ValueError):  # written badly by hand: passed over, as the fold does
                        found = end_time(context["expiration"])
                self.is_plain = self.is_plain and name in PLAIN and "adopted" not in (context or ())
        return found

    def _fold(self) -> float | None:
        self._sure, self.is_plain = time.monotonic(), False
        job = Journal(self._parent).look().jobs.get(self._job)
        self._touched = job.commits[-1] if job is not None and job.commits else 0
        return job.expiration if job is not None and job.holds else None
