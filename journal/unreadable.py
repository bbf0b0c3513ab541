"""Entries that cannot be read (a flipped bit, half a payload, one that is missing), and those that an operator has set aside.

Nobody folds past an unreadable entry by himself: what it said is not known, and it may have been anything. An operator's word
is an event of the journal, `quarantine` of the subject `entry/<version>`: whoever meets the entry looks for it in what follows.
From then on the entry is a hole: a commit without events. One that can be read is never passed over, whoever says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..kvs.errors import Corrupt
from ..kvs.port import Entry
from .wire import Commit, read_commit, well_formed

KIND = "entry"  # of the subject
READ = 500


class Hole(Commit):
    """What stands for an entry that was set aside."""


def subject(version: int) -> str:
    """Of an event about an entry."""
    return f"{KIND}/{version}"


def version_of(subject: object) -> int:
    """Inverse of `subject`; 0 for any other."""
    kind, _, number = str(subject).partition("/")
    return int(number) if kind == KIND and number.isdecimal() and len(number) < 19 else 0


class Reader:
    """Makes commits of a journal's entries. read: entries after a version, at most so many, as a store has it.

    aside: version of an entry -> version of the event that sets it aside, as far as somebody had to know.
    """

    def __init__(self, read: Callable[[int, int], list[Entry]]) -> None:
        self._read = read
        self.aside: dict[int, int] = {}
        self._first = self._looked = 0  # what has been looked through: after the one, up to the other

    def commits(
        self, after: int = 0, until: int | None = None, first: list[Entry] | None = None, full: int = READ
    ) -> Iterator[Commit]:
        """Commits with after < version <= until, in order, checked one by one. first: what comes next, if somebody has read it
        already; there are more only if it is `full`."""
        entries = self._read(after, full) if first is None else first
        while True:
            for entry in entries:
                for version in range(after + 1, entry.version if until is None else min(entry.version, until + 1)):
                    yield self.missing(version, entry)
                if until is not None and entry.version > until:
                    return
                after = entry.version
                yield self.commit(entry)
            if len(entries) < full:
                return
            entries, full = self._read(after, READ), READ

    def commit(self, entry: Entry) -> Commit:
        """Raises `Corrupt`, which names the entry, if it cannot be read and is not set aside."""
        try:
            return read_commit(entry)
        except Corrupt as error:
            if self.is_aside(entry.version):
                return _hole(entry.version, entry.epoch)
            raise Corrupt(str(error), code=error.code, hint=_hint(entry.version)) from None

    def missing(self, version: int, following: Entry) -> Commit:
        """What stands for a version that is not there. Raises `Corrupt` if it is not set aside."""
        if self.is_aside(version):
            return _hole(version, following.epoch)
        text = f"version {version} is missing; the next is {following.version}"
        raise Corrupt(text, code="version-gap", hint=_hint(version))

    def is_aside(self, version: int) -> bool:
        """Whether an event after this version sets it aside."""
        if version in self.aside:
            return True
        if not self._looked or version < self._first:
            self._first = self._looked = version
        after = self._looked
        while entries := self._read(after, READ):
            for entry in entries:
                self._note(entry)
            after = self._looked = entries[-1].version
            if len(entries) < READ:
                break
        return version in self.aside

    def _note(self, entry: Entry) -> None:
        try:
            events: Sequence[object] = read_commit(entry).events
        except Corrupt:
            return
        for name, what, _, _ in well_formed(events):
            if name == "quarantine" and 0 < version_of(what) < entry.version:
                self.aside.setdefault(version_of(what), entry.version)


def _hole(version: int, epoch: int) -> Hole:
    return Hole(version, epoch, "", 0, version - 1, 0.0, [], {})


def _hint(version: int) -> str:
    return f"fluxkv journal verify names every fault; fluxkv journal quarantine {version} goes on without this one"
