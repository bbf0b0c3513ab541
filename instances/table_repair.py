"""An operator's word about what stands beside a journal (guards, producers, inboxes): make it anew from the entries' headers.

Decides what is read for it, and that a new epoch begins: what was decided by the tables as they were is decided again, and no node
is used before its agent has said what it holds, so an order that stood in an inbox is given again. Running tasks go on.
"""

from __future__ import annotations

import time

from ..journal.decide import Decision
from ..journal.log import Journal
from ..journal.tables import Tables
from ..journal.wire import read_header
from ..kvs.errors import Conflict, Corrupt, Unavailable
from ..kvs.port import Entry

TRIES = 20
READ = 1_000
SALVAGE = "fluxkv journal salvage makes an instance of all that can be read"
REASON = "the tables beside the journal were made anew"


def make_tables_anew(journal: Journal) -> int:
    """The version up to which they have been made anew; 0 if nothing was wrong with them.

    Raises `Unavailable` where the journal's first entries are out of reach, `Corrupt` for an entry that cannot be read and is not
    set aside: nothing has been changed then.
    """
    tables, store = Tables(), journal.store
    for _ in range(TRIES):
        before = store.meta()
        while tables.version < before.version:
            entries = journal.history.read(tables.version, READ)
            for entry in entries[: before.version - tables.version]:
                _take(journal, tables, entry)
            if not entries:
                raise _missing(tables.version + 1)
        try:
            done = store.rebuild(
                before.uid, before.epoch, before.version, tables.guards, tables.producers, sorted(tables.inboxes)
            )
        except Conflict:  # something was appended meanwhile: not all of the tables were bad
            continue
        if done:
            _say(journal, before.epoch)
        return tables.version if done else 0
    raise Conflict("the journal goes on being written to while it is read", hint="try again, or fluxkv stop first")


def _take(journal: Journal, tables: Tables, entry: Entry) -> None:
    while entry.version != tables.version + 1:
        if not journal.reader.is_aside(tables.version + 1):
            raise _missing(tables.version + 1)
        tables.version += 1
    try:
        tables.take(entry, read_header(entry))
    except Corrupt as error:
        if not journal.reader.is_aside(entry.version):
            raise Corrupt(str(error), code=error.code, hint=SALVAGE) from None
        tables.version = entry.version


def _missing(version: int) -> Corrupt:
    return Corrupt(f"version {version} is missing", code="version-gap", hint=SALVAGE)


def _say(journal: Journal, old: int) -> None:
    journal.meta = journal.store.meta()
    context = {"old": old, "new": journal.meta.epoch, "reason": REASON}
    try:
        journal.append(Decision([["epoch", "instance", time.time(), context]]), journal.meta.version)
    except Unavailable as error:
        if error.code != "forked":  # a loss that nobody has decided about yet: its adoption opens the next epoch
            raise
