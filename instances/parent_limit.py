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
from ..kvs.errors import FluxkvError
from ..kvs.port import Meta, Store
from ..kvs.redis_store import open_store
from .paths import StateDir

FAR = 2_000  # commits; above that a fold is cheaper than reading them
UNSURE_S = 60.0  # guards are pruned: one that is gone is looked behind this often
PRUNED = 200  # commits behind the tip at which a guard may be pruned
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
        self._seen = int(settings.get("since") or 0)  # what follows has not been read
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
            self.meta = self._parent.meta()
            tip = self.meta.version  # before the bumps, so that none before it is missed
            self.is_plain = self.is_plain and self.meta.epoch == self._epoch
            (bumped,) = self._parent.bumps([f"job/{self._job}"])
            found: float | None = None
            if bumped > self._seen:
                found = self._fold() if bumped - self._seen > FAR else self._read(bumped)
            elif not bumped and tip - self._seen > PRUNED and time.monotonic() - self._sure > UNSURE_S:
                found = self._fold()
            elif not bumped and tip - self._seen > PRUNED:
                self.is_plain = False
                return False  # what has been passed over so far stays to be looked behind
            if found is not None and found != self._end:
                self._say([["resource-update", "resource", time.time(), {"expiration": found}]])
                self._end = found
            news, self._seen = max(bumped, self._touched) > self._seen, max(tip, bumped)
            return news
        except FluxkvError:
            self.is_plain = False
            return False

    def _read(self, until: int) -> float | None:
        """The last end that the commits up to a version name, or None."""
        found, version = None, self._seen
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
