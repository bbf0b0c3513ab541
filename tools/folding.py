"""The whole journal folded and checked: digests, order of events, required contexts. Decides what is a fault;
mends nothing.

A worker's commit carries the digest of the state it was decided on, which may lie some versions back. Batches
are read one ahead, so that the fold computes exactly the digests that somebody names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from msgpack.exceptions import UnpackException

from ..journal.catalogue import CATALOGUE, check_context
from ..journal.ids import f58
from ..journal.job import INACTIVE
from ..journal.quarantine import PLACE
from ..journal.schema import SCHEMA
from ..journal.state import State
from ..journal.unreadable import Hole
from ..journal.wire import Commit, unpack, well_formed
from ..kvs.errors import Corrupt, Rejected

if TYPE_CHECKING:
    from ..journal.log import Journal
    from ..kvs.port import Entry

BATCH = 500
AHEAD_BYTES = 600_000  # of entries that are decoded together (quicker than one by one); of a flood they are fifty times that then
Numbered = tuple[int, str, int, Callable[[], "Commit"]]  # version, id of the entry, bytes, what reads it (raises `Corrupt`)


class Fault(NamedTuple):
    """Something wrong. entry: id of the journal entry."""

    entry: str
    code: str
    text: str


class Fold:
    """A fold from version 1 without snapshots. checked/unchecked: commits whose digest was (not) compared.

    strict: also check contexts and order, and go on after a fault (without folding) to find further ones. aside: impossible
    events, and unreadable entries, that have been set aside, and a `quarantine` event has said so. passed: first and last of
    versions that were not folded, since one of them cannot be read and a newer snapshot has them. unreadable: versions that
    cannot be read and are not set aside.
    """

    def __init__(self, journal: Journal, *, strict: bool = False, begin: State | None = None) -> None:
        self.journal = journal
        self.strict = strict
        self.state = begin if begin is not None else journal.history.begin()
        self.faults: list[Fault] = []
        self.checked = self.unchecked = 0
        self.unknown: dict[str, int] = {}
        self.bytes = 0
        self.folding = True
        self.aside: list[Fault] = []
        self.unreadable: list[int] = []
        self.passed: list[tuple[int, int]] = [(1, self.state.version)] if self.state.version else []
        self._unreadable = Corrupt("")
        self._unsure_until = 0
        self._unanswered: dict[int | str, list[Fault]] = {}
        if strict:
            self.state.quarantine.heard = []
        self._digests: dict[int, bytes] = {self.state.version: self.state.digest()}

    def run(
        self,
        version: int | None = None,
        moment: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Fold up to a version or a server time, or to the end."""
        if self.passed and (version is not None or moment is not None):
            self.journal.history.begin(version, moment)  # raises for what was pruned
        for batch, wanted in self._batches(version):
            for number, id, commit in self._decoded(batch):
                if number <= self.state.version:
                    continue  # the snapshot that was gone on from has it
                if commit is None:
                    self.folding = self._go_on_after(number)
                    continue
                if moment is not None and commit.time > moment:
                    return
                self._one(id, commit, wanted)
            if progress is not None:
                progress(self.state.version)

    def _go_on_after(self, number: int) -> bool:
        """Past an entry that cannot be read: from the newest snapshot, if it is newer. False if that cannot be."""
        newer = self.journal.base.whole() if self.folding else None
        if newer is None or newer.version < number:
            if not self.strict:
                raise self._unreadable
            return False
        self.passed.append((self.state.version + 1, newer.version))
        self.state = newer
        if self.strict:
            newer.quarantine.heard = []
        self._digests = {newer.version: newer.digest()}
        return True

    def _batches(self, version: int | None) -> Iterator[tuple[list[Numbered], set[int]]]:
        """Batches of entries, each with the versions whose digest is named in it or in the next. Only their headers are read."""
        after = self.state.version
        ahead: deque[tuple[list[Numbered], set[int]]] = deque()
        while True:
            entries = self.journal.history.read(after, BATCH)
            full = len(entries) == BATCH
            if version is not None:
                entries = [entry for entry in entries if entry.version <= version]
            batch: list[Numbered] = []
            named: set[int] = set()
            for entry in entries:
                for missing in range(after + 1, entry.version):
                    batch.append((missing, f"{missing}-?", 0, partial(self.journal.reader.missing, missing, entry)))
                after = entry.version
                self.bytes += len(entry.header) + len(entry.payload)
                batch.append((entry.version, entry.id, len(entry.payload), partial(self.journal.reader.commit, entry)))
                named.update(_named(entry))
            if batch:
                ahead.append((batch, named))
            if len(ahead) == 2 or (ahead and not full):
                first, wanted = ahead.popleft()
                yield first, wanted | (ahead[0][1] if ahead else set())
            if not full or not batch:
                while ahead:
                    yield ahead.popleft()
                return

    def _decoded(self, batch: list[Numbered]) -> Iterator[tuple[int, str, Commit | None]]:
        """(version, id of the entry, what it says, None if it cannot be read)."""
        some: list[tuple[int, str, Commit | None]] = []
        size = 0
        for number, id, length, read in batch:
            some.append((number, id, self._read(number, id, read)))
            size += length
            if size > AHEAD_BYTES:
                yield from some
                some, size = [], 0
        yield from some

    def _read(self, number: int, id: str, read: Callable[[], Commit]) -> Commit | None:
        """What an entry says; None if it cannot be read."""
        try:
            commit = read()
        except Corrupt as error:
            self._unreadable = error
            self.unreadable.append(number)
            self._fault(id, error.code, str(error).removeprefix(f"entry {id}: "))
            return None
        if isinstance(commit, Hole):
            said = self.journal.reader.aside[number]
            self.aside.append(Fault(id, "unreadable", f"it cannot be read, and version {said} has set it aside"))
            self._unsure_until = max(self._unsure_until, said)
        return commit

    def _one(self, id: str, commit: Commit, wanted: set[int]) -> None:
        state, digests = self.state, self._digests
        said = commit.extra.get("digest")
        if said is not None and commit.extra.get("schema", 1) != SCHEMA:
            said = None  # the digest of a state that had other fields
            self.unchecked += 1
        elif said is not None and commit.decided_at < self._unsure_until:
            said = None  # of one who had read what cannot be read any more
            self.unchecked += 1
        if self.strict:
            self._check_contexts(commit)
        if not self.folding:
            return
        if said is not None:
            found = digests.get(commit.decided_at)
            if found is None and commit.decided_at == state.version:
                found = state.digest()
            if found is None:
                self.unchecked += 1
            else:
                self.checked += 1
                if found != said:
                    text = f"its digest of version {commit.decided_at} is {said.hex()}"
                    self._fault(id, "digest", f"{text}, the fold's is {found.hex()}")
        if self.strict:
            self._check_order(commit)
        try:
            state.apply(commit)
        except (Corrupt, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            if not self.strict:
                raise
            self._fault(id, getattr(error, "code", "fold"), f"the fold cannot go on: {error}")
            self.folding = False
            return
        if self.strict:
            self._check_aside(commit)
        if commit.version in wanted:
            digests[commit.version] = state.digest()
            if len(digests) > 4 * BATCH:
                for old in sorted(digests)[: 2 * BATCH]:
                    del digests[old]

    def _check_contexts(self, commit: Commit) -> None:
        if not commit.events and not isinstance(commit, Hole):
            self._fault(commit.id, "empty", "a commit without events")
        for event in commit.events:
            if not isinstance(event, list) or len(event) != 4 or not isinstance(event[0], str):
                self._fault(
                    commit.id, "bad-event", "an event that is not [name, subject, timestamp, context]"
                )
                self.folding = False
                continue
            name, subject, _, context = event
            if not (context is None or isinstance(context, dict)):
                self._fault(commit.id, "bad-event", f"the context of {name} is no object")
                continue
            kind = "job" if isinstance(subject, int) else str(subject).partition("/")[0]
            if (kind, name) not in CATALOGUE:
                self.unknown[name] = self.unknown.get(name, 0) + 1
                continue
            try:
                check_context(kind, name, context)
            except Rejected as error:
                self._fault(commit.id, error.code, str(error))

    def _check_order(self, commit: Commit) -> None:
        """Events about jobs that are not there yet, or over: the fold passes them over, or takes them in as notes."""
        new: set[int] = set()
        for name, subject, _, _ in well_formed(commit.events):
            if not isinstance(subject, int) or subject in new:
                continue
            job = self.state.jobs.get(subject)
            if name == "submit":
                new.add(subject)
            elif job is None:
                self._fault(commit.id, "order", f"job {f58(subject)}: {name} before submit")
            elif job.state == INACTIVE and name not in PLACE and name != "quarantine":
                self._fault(commit.id, "order", f"job {f58(subject)}: {name} after clean")

    def _check_aside(self, commit: Commit) -> None:
        """What this commit has set aside, and what it says of what was: that is no fault any more."""
        heard = self.state.quarantine.heard or []
        for aside in heard:
            fault = Fault(commit.id, "impossible", f"{aside.what}: {aside.why}")
            self._unanswered.setdefault(aside.subject, []).append(fault)
        heard.clear()
        for name, subject, _, _ in well_formed(commit.events):
            if name == "quarantine":
                self.aside += self._unanswered.pop(subject, [])

    @property
    def all_faults(self) -> list[Fault]:
        """Those, and impossible events of which no `quarantine` event has spoken."""
        return self.faults + [fault for some in self._unanswered.values() for fault in some]

    def _fault(self, entry: str, code: str, text: str) -> None:
        self.faults.append(Fault(entry, code, text))


def _named(entry: Entry) -> list[int]:
    """The versions whose digest an entry names."""
    try:
        _, _, decided_at, _, _, _, _, extra, _ = unpack(entry.header)
    except (ValueError, TypeError, UnpackException):
        return []  # whoever reads all of it says so
    return [decided_at] if type(decided_at) is int and isinstance(extra, dict) and "digest" in extra else []


def first_difference(one: State, other: State) -> tuple[str, object, object] | None:
    """(subject, its value in `one`, in `other`) of the first subject that differs, in the order instance,
    nodes, queues,
    jobs, kvs; None if none does."""
    left, right = one.subjects(), other.subjects()
    order = {"instance": 0, "retired": 0, "results": 0, "node": 1, "queue": 2, "job": 3, "kvs": 4}

    def key(name: str) -> tuple[int, int, str]:
        head, _, rest = name.partition("/")
        return order.get(head, 5), int(rest) if rest.isdecimal() else 0, rest

    for name in sorted(left.keys() | right.keys(), key=key):
        if left.get(name) != right.get(name):
            return name, left.get(name), right.get(name)
    return None
