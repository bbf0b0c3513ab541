"""Cron's hand: fires what is due. Decides nothing (`journal.decide_cron` does); called by the keeper's own thread.

The journal is the truth: the schedule is rebuilt from it, follows it, and each firing is guarded by it, so a second driver,
or one that begins again in the middle, fires nothing twice. The timers only say when to look.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

from ..journal import decide_cron
from ..journal.cron import CronEntry, CronTable
from ..journal.log import Journal, make_append
from ..kvs.errors import FluxkvError, Rejected, Unavailable
from ..kvs.port import Appended, Conflicted, Store
from .cron_time import moment, next_time, trigger_of
from .submit_rules import MARK, SubmitRules

if TYPE_CHECKING:
    from ..journal.ids import IdSource

CRON = "cron"  # what events about entries bump
LOOK_S = 1.0  # how often the journal is looked at: for new entries, and for what others do to them
EVENT_LOOK_S = 0.25  # the same while an entry waits for events
TRIES = 20
BATCH = 200  # runs of one entry in one look


class Timers(Protocol):
    """What tells the driver that a time has come (`duties.Duties`)."""

    def add(self, name: str, period_s: float, function: Callable[[], None]) -> None: ...

    def at(self, name: str, trigger: Any, when: datetime, function: Callable[[], None]) -> None: ...

    def cancel(self, name: str) -> None: ...


class Cron:
    """table: None until the journal has had a cron entry: an instance without any pays one question a look."""

    def __init__(self, store: Store, timers: Timers, say: Callable[[str, str], None]) -> None:
        self.store = store
        self.rules = SubmitRules(store)
        self.timers = timers
        self.say = say
        self.table: CronTable | None = None
        self.armed: dict[int, float] = {}
        self.complaints: dict[int, str] = {}
        self.often = False
        self.failed = ""
        self._ids: IdSource | None = None

    @cached_property
    def journal(self) -> Journal:
        """Made at the first look: the server may be away when the keeper begins its duties."""
        journal = Journal(self.store, by="cron")
        journal.patience_s = 0.0  # the keeper is the one who takes a restarted server up
        return journal

    def look(self, mark: int | None = None) -> None:
        """Follow the journal, fire what is due, set the timers. A server that is away is asked again at the next look. mark: the
        version of the last word about entries, where it has just been read."""
        if mark == 0 and self.table is None:
            return  # there has never been an entry
        try:
            self.step(time.time())
            self.failed = ""
        except Unavailable:
            return  # the keeper says so, and brings it back
        except FluxkvError as error:
            self.table = None
            if error.code == "gone":  # the instance was made anew
                self.__dict__.pop("journal", None)
                self._ids = None
            if self.failed != str(error):
                self.failed = str(error)
                self.say("error", f"cron: {error}")

    def step(self, now: float) -> None:
        """One look at this time. Raises what the store and the journal meet."""
        if self.table is None:
            if not self.store.bumps([CRON])[0]:
                return  # there has never been an entry
            self.table = self.journal.load_cron()
        else:
            self.journal.catch_up(self.table)
        for id in list(self.table.entries):
            self._fire(self.table, id, now)
        self._arm(self.table)

    # -- firing ---------------------------------------------------------------------------------------------------

    def _fire(self, table: CronTable, id: int, now: float) -> None:
        """All that an entry owes now, a commit each."""
        refused = ""
        for _ in range(BATCH):
            entry = table.entries.get(id)
            if entry is None or not (0.0 < decide_cron.due_at(entry) <= now + decide_cron.EARLY_S or self._failing(entry)):
                return
            try:
                following = next_time(entry.type, entry.spec, max(now, entry.next))
                decision = decide_cron.act(
                    table, entry, self._new_id(), following, now, refused=refused,
                    honour=partial(self._honour, entry), config=self.rules.version,
                )  # fmt: skip
                if decision is None:
                    return
                request = make_append(self.journal.meta, decision, table.version, extra=self.journal.extra())
                answer = self.journal.store.append(request._replace(refusable=True))
            except Unavailable as error:
                if error.code == "full":
                    self._complain(entry, str(error))
                    return
                raise
            except FluxkvError as error:
                self._complain(entry, str(error))
                return
            except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
                self._complain(entry, f"it makes no sense: {error!r}")  # written by hand: it must not stop the others
                return
            refused = ""
            if isinstance(answer, Conflicted):
                if MARK in answer.things:
                    self.rules.learn()
                closed = [thing for thing in answer.things if thing.startswith("closed/")]
                refused = f"queue {closed[0].partition('/')[2]} does not accept jobs" if closed else ""
                self._ids = None
            elif not isinstance(answer, Appended):
                self.journal.cope(answer)
            self.journal.catch_up(table)
            self.complaints.pop(id, None)

    def _honour(self, entry: CronEntry, jobspec: dict[str, Any]) -> dict[str, Any]:
        return self.rules.honour([jobspec], [entry.job["urgency"]], entry.job["flags"])[0]

    @staticmethod
    def _failing(entry: CronEntry) -> bool:
        limit = entry.options["stop_on_failure"]
        return bool(limit) and entry.state == "active" and entry.failed_in_row >= limit

    def _new_id(self) -> int:
        if self._ids is None:
            from .submission import new_source

            self._ids = new_source(self.journal.meta.origin_ms)
        return self._ids.take(1)[0]

    def _complain(self, entry: CronEntry, text: str) -> None:
        if self.complaints.get(entry.id) != text:
            self.complaints[entry.id] = text
            self.say("error", f"cron entry {entry.id} ({entry.name}): {text}")

    # -- timers ---------------------------------------------------------------------------------------------------

    def _arm(self, table: CronTable) -> None:
        """A timer for each time that is known; those of entries that are gone, stopped or moved go."""
        known = ((id, decide_cron.due_at(entry)) for id, entry in table.entries.items())
        wanted = {id: due for id, due in known if due and id not in self.complaints}
        for id in [id for id in self.armed if id not in wanted]:
            self.timers.cancel(f"cron-{id}")
            del self.armed[id]
        waits = any(entry.type == "event" and entry.state == "active" for entry in table.entries.values())
        if waits and not self.often:
            self.timers.add("cron-events", EVENT_LOOK_S, self.look)
        elif self.often and not waits:
            self.timers.cancel("cron-events")
        self.often = waits
        for id, due in wanted.items():
            if self.armed.get(id) == due:
                continue
            entry = table.entries[id]
            kind, spec = ("at", {"at": due}) if entry.type == "event" else (entry.type, entry.spec)
            try:
                self.timers.at(f"cron-{id}", trigger_of(kind, spec), moment(due), self.look)
                self.armed[id] = due
            except (Rejected, LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
                self._complain(entry, str(error))
