"""An operator's word about an entry that cannot be read: set it aside, so that whoever reads the journal goes on without it.

What it said is not known: resources may be held that nobody knows of. So a new epoch begins, and no node is used before its
agent has said what it holds.
"""

from __future__ import annotations

import time

from ..journal.decide import Decision
from ..journal.log import Journal
from ..journal.unreadable import subject
from ..kvs.errors import Conflict, Corrupt, Rejected
from ..kvs.port import Appended

TRIES = 20


def set_entry_aside(journal: Journal, version: int, reason: str, userid: int) -> str:
    """Journal it, and open a new epoch. What is wrong with the entry, in words.

    Raises `Rejected` for an entry that is not there yet, can be read, is set aside already, or lies behind a sound snapshot: the
    live state has what it said, and a fold without it would not be that state any more.
    """
    why = _fault(journal, version)
    _refuse_behind_snapshot(journal, version)
    context = {"version": version, "event": "entry", "reason": reason or why, "userid": userid}
    thing = subject(version)
    decision = Decision([["quarantine", thing, time.time(), context]], absent=[thing], bumps=[thing])
    for _ in range(TRIES):
        answer = journal.append(decision, journal.meta.version)
        if isinstance(answer, Appended):
            break
        if journal.reader.is_aside(version):
            raise _already(version)
        journal.cope(answer)
    else:
        raise Conflict(f"version {version} could not be set aside", hint="try again")
    _new_epoch(journal, f"version {version} was set aside")
    return why


def _fault(journal: Journal, version: int) -> str:
    tip = journal.meta.version
    if not 0 < version <= tip:
        raise Rejected(f"there is no version {version}: the journal ends at {tip}", code="no-such-version")
    entries = journal.history.entries([version])
    try:
        if entries:
            journal.reader.commit(entries[0])
        elif not journal.reader.is_aside(version):
            return f"version {version} is missing"
    except Corrupt as error:
        return str(error)
    if journal.reader.is_aside(version):
        raise _already(version)
    raise Rejected(
        f"version {version} can be read: only what cannot is set aside", code="readable",
        hint="events that contradict the state are set aside without a word; fluxkv journal verify lists them",
    )  # fmt: skip


def _refuse_behind_snapshot(journal: Journal, version: int) -> None:
    try:
        newest = journal.snapshot()
    except Corrupt:
        return
    if newest is not None and newest.version >= version:
        raise Rejected(
            f"nobody is stopped by version {version}: the snapshot of version {newest.version} has what it said",
            code="behind-snapshot",
            hint=f"only the past from there to {newest.version} cannot be told (jobs --at, fork, export), unless a copy, a replica "
            "or an archive still has the entry: fluxkv journal salvage --dry-run DIR COPY",
        )  # fmt: skip


def _already(version: int) -> Rejected:
    return Rejected(f"version {version} is set aside already", code="aside", hint="fluxkv journal quarantine lists what is")


def _new_epoch(journal: Journal, reason: str) -> None:
    for _ in range(TRIES):
        before = journal.store.meta()
        try:
            after = journal.store.open_epoch(before.uid, before.epoch, before.version)
        except Conflict:  # something was appended in between
            continue
        journal.meta = after
        journal.append(Decision([["epoch", "instance", time.time(), {
            "old": before.epoch, "new": after.epoch, "reason": reason}]]), after.version)  # fmt: skip
        return
    raise Conflict("no new epoch could be opened: others keep writing", hint="fluxkv restart has every node speak again")
