"""The `Store` port: what a journal needs of a server. Decides nothing; all stores obey it.

All calls are synchronous. The one thing that waits, reading streams, is a `Subscription`: it has a file
descriptor, so that a runner can wait on it beside other things.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from .children import ChildTable
from .port_arrival import Arrivals


def id_pair(name: str) -> tuple[int, int]:
    """A stream id as numbers; "17" is (17, 0)."""
    major, _, minor = name.partition("-")
    return int(major), int(minor or 0)


def next_id(name: str) -> str:
    """The smallest stream id above `name`."""
    major, minor = id_pair(name)
    return f"{major}-{minor + 1}"


class Entry(NamedTuple):
    """One journal entry as stored. `id` is "<version>-<epoch>"."""

    version: int
    epoch: int
    header: bytes
    payload: bytes

    @property
    def id(self) -> str:
        return f"{self.version}-{self.epoch}"


class Message(NamedTuple):
    """One entry of a plain stream (inbox, output, telemetry, log): its id and its single field's value."""

    id: str
    data: bytes


class Meta(NamedTuple):
    """An instance's identity and tip, as one read of the meta hash.

    uid: random, names this very namespace for ever. epoch: random 48 bits, compared for equality only.
    version: the tip (0: empty journal). floor: guards at or below it may be pruned.
    schema: the highest of any program that has run this instance (`raise_schema`), of which only `journal/` knows the meaning.
    origin_ms: the FLUID epoch in Unix ms. durability: "strict", "local" or "replicated".
    epochs: the epochs of this history as a text (see `epochs.py`). fork: an entry (id or anchor) that somebody knows and this
    history has not ("" if all is well): nothing is appended until it is adopted.
    room: the soft memory line in bytes, 0 for none: past it refusable commits are refused.
    trimmed: id of the last entry that was moved out of the server, "0-0" if none was; archive: the URL below which it lies.
    replicas: how many are to have each commit before it is acknowledged, and how long they may take (`replicated.wanted`).
    sealed: when it was (server time, Unix seconds), 0 if it can be written to.
    origin_uid: the uid it was made with, where it has another by now.
    leaving: since when it is in an archive, too, and is to be read there (server time, Unix seconds), 0 if it is not. back: when it
    came back from there, 0 if it did not.
    """

    uid: str
    epoch: int
    version: int
    floor: int
    origin_ms: int
    durability: str
    schema: int
    created: float
    epochs: str = ""
    fork: str = ""
    trimmed: str = "0-0"
    archive: str = ""
    room: int = 0
    replicas: str = ""
    sealed: int = 0
    origin_uid: str = ""
    leaving: int = 0
    back: int = 0

    @property
    def archive_uid(self) -> str:
        """What its archive is called by."""
        return self.origin_uid or self.uid

    @property
    def first(self) -> int:
        """The first version that the server itself holds (of a journal that has any)."""
        return int(self.trimmed.partition("-")[0]) + 1


class Append(NamedTuple):
    """One commit, with everything the server checks before it writes anything.

    since:  things that must not have been bumped after `decided_at`.
    exact:  (thing, entry id) pairs: the thing's last bump must be by exactly this entry. A bare version stands for any
            branch's entry of that version.
    absent: things that must have no bump at all (a new job's id; a closed queue's mark).
    bumps:  things whose last bump becomes this commit. clears: things forgotten.
    sets:   (thing, entry id) pairs: things whose last bump becomes that entry, of another branch (an attempt that is adopted).
    anchor: the entry at `decided_at` as the caller knows it (`epochs.anchor`), "" if it does not: if the history has another
            there, the answer is an error.
    inbox:  (name, message) pairs delivered in the same atomic step under the commit's own id.
    producer/seq: exactly-once for pipelines; producer "" means sent once, protected by its guards.
    extra: free msgpack map carried in the header (e.g. the digest of `decided_at`, who caused it).
    refusable: may be refused (`Unavailable(code="full")`) when the server is past its soft memory line.
    """

    uid: str
    epoch: int
    decided_at: int
    payload: bytes
    producer: str = ""
    seq: int = 0
    since: tuple[str, ...] = ()
    exact: tuple[tuple[str, int | str], ...] = ()
    absent: tuple[str, ...] = ()
    bumps: tuple[str, ...] = ()
    clears: tuple[str, ...] = ()
    inbox: tuple[tuple[str, bytes], ...] = ()
    extra: bytes = b"\x80"
    refusable: bool = False
    sets: tuple[tuple[str, str], ...] = ()
    anchor: str = ""


class Appended(NamedTuple):
    """OK: the commit is in the journal under this version and epoch. `duplicate`: it already was (DUP)."""

    version: int
    epoch: int
    duplicate: bool = False

    @property
    def id(self) -> str:
        return f"{self.version}-{self.epoch}"


class Conflicted(NamedTuple):
    """CONFLICT: nothing was written; all guards that had moved are named. Uses up no sequence number."""

    things: tuple[str, ...]


class Gap(NamedTuple):
    """GAP: sequence numbers are missing; `last` is the last one taken. Nothing was written."""

    last: int


class StaleEpoch(NamedTuple):
    """EPOCH: history may have forked since the epoch was issued. Nothing was written. Re-read the tail."""

    epoch: int


Answer = Appended | Conflicted | Gap | StaleEpoch


class Subscription(Protocol):
    """Follows several streams from given positions, over its own connection."""

    def fileno(self) -> int:
        """A descriptor that becomes readable when `poll` may have something."""
        ...

    def poll(self, timeout_s: float = 0.0) -> list[tuple[str, list[Entry] | list[Message]]]:
        """New entries by stream key, oldest first, waiting at most `timeout_s`; [] if none.

        Entries of a journal key come as `Entry`, those of any other stream as `Message`.
        Raises Unavailable when the connection is lost (call again: it reconnects and goes on from its
        position; `fileno` may then differ), Corrupt(code="tail-behind" or "forked") when the server lost
        history this subscription has seen, Rejected(code="gone") when the instance is another one.
        """
        ...

    def follow(self, key: str, position: str) -> None:
        """Follow one more stream (or move the position in one followed already). `fileno` may then differ."""
        ...

    def forget(self, key: str) -> None:
        """Stop following a stream."""
        ...

    def close(self) -> None: ...


TRIM_STEP = 5_000  # entries at most that go in one step: a server does nothing else meanwhile


class Depot(Protocol):
    """A place for files outside the server: a directory, or what fsspec knows. Names are relative, with `/` between folders.

    Raises `Unavailable(code="archive")`, which names the place, for whatever the place says but that a file is not there.
    """

    url: str

    def put(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all, and durably: it is there under its name only when all of it is on disk."""
        ...

    def get(self, name: str) -> bytes | None:
        """A file's bytes, None if there is no such file."""
        ...

    def names(self, folder: str = "") -> list[str]:
        """The names of all files below a folder, sorted; [] if it is not there."""
        ...

    def has(self, name: str) -> bool: ...

    def delete(self, name: str) -> None:
        """Remove a file that may be gone."""
        ...


class Store(Arrivals, ChildTable, Protocol):
    """One instance's namespace on a server. Raises `Unavailable` when the server cannot be reached,
    `Corrupt` when the server finds its own tables at odds, `Rejected(code="gone")` when the namespace is not
    (any more) the one named by its uid."""

    namespace: str

    def create(self, *, durability: str, origin_ms: int, created: float, replicas: str = "") -> Meta:
        """Create the namespace (compare-and-set: `Rejected(code="exists")` if there is one).

        replicas: how many are to have each commit, and how long to wait for them (`replicated.wanted`), "" for none.
        """
        ...

    def set_room(self, uid: str, size: int) -> None:
        """Draw the soft memory line, in bytes; 0: there is none."""
        ...

    def memory(self) -> tuple[int, int, int]:
        """Bytes: what the server uses, its own hard limit (0: none), what its machine has (0: it does not say)."""
        ...

    def raise_schema(self, uid: str, schema: int) -> None:
        """Note in the meta that a program of this schema runs the instance, unless it says a higher one already."""
        ...

    def meta(self) -> Meta:
        """Read the identity and tip. `Unavailable(code="no-instance")` if there is no such namespace."""
        ...

    def append(self, request: Append) -> Answer:
        """Append one commit. Sends again after a lost connection only where that is safe; else, or after its
        patience, raises Unavailable (code "outcome-unknown" if the commit may be in the journal; "forked" while a history
        that lost entries is not adopted; "not-replicated" when too few
        replicas have it, so that it is not acknowledged). Raises Corrupt(code="forked") when it was decided on another history."""
        ...

    def append_many(self, requests: Sequence[Append]) -> list[Answer]:
        """Append several in one round trip, in order, each all or nothing on its own."""
        ...

    def open_epoch(self, uid: str, old_epoch: int, tip: int) -> Meta:
        """Draw a new epoch, if epoch and tip are as named; else `Conflict`. For a server that restarted.

        Raises Unavailable(code="forked") when somebody knows more than this history has.
        """
        ...

    def reopen(self, uid: str, old_epoch: int, tip: int) -> Meta:
        """As `open_epoch`, and in the same step another uid: whoever has written to this instance so far is refused from now on
        (`Rejected(code="gone")`). For an instance that somebody else goes on with, sealed or not."""
        ...

    def fence(self, uid: str, epoch: int, known: str) -> str:
        """Say that an entry (its id, or its anchor) was in the journal and is not any more: nothing is appended until `adopt`. Not
        said of one that is there. The highest so said, "" for none. Raises `Conflict` if the epoch is another by now."""
        ...

    def unfence(self, uid: str, epoch: int, tip: int, known: str) -> None:
        """Take a fence (`Meta.fork`) back: the history has that entry. `Conflict` unless all is as named. Twice is once."""
        ...

    def adopt(
        self, uid: str, epoch: int, tip: int, lost: tuple[int, int], payload: bytes, extra: bytes = b"\x80",
        branch: Sequence[int] = (),
    ) -> Appended:  # fmt: skip
        """Go on from what is left: a new epoch that begins with this commit, in one step, if epoch and tip are as named.

        lost: the first and the last version known of what is given up; branch: epochs of it that this history never had. Raises
        `Conflict` if somebody was quicker.
        """
        ...

    def read(self, after: int, limit: int = 1000) -> list[Entry]:
        """Journal entries with version > after, in order."""
        ...

    def bumps(self, things: Sequence[str]) -> list[int]:
        """The version of each thing's last bump, 0 for none (or a pruned guard). "!": the table's own, 0 while it is not whole."""
        ...

    def entries(self, versions: Sequence[int]) -> list[Entry]:
        """The journal entries of these versions that exist, in the order asked."""
        ...

    def subscribe(self, positions: dict[str, str]) -> Subscription:
        """Follow streams: key -> last id seen ("0" from the start, "$" only new)."""
        ...

    def install_snapshot(
        self, uid: str, epoch: int, head: bytes, chunks: Sequence[bytes], anchor: str = "", version: int = 0
    ) -> bool:
        """Replace the newest snapshot, if uid and epoch still hold. head is opaque; chunks ≤ 64 kB each.

        anchor: the entry it ends with (`epochs.anchor`): False as well if the history has another there. version: of the state
        in it. One from before the first entry that is left is refused (False): nobody could go on from it.
        """
        ...

    def trim_journal(self, uid: str, epoch: int, through: str, archive: str) -> Meta:
        """Drop the journal's entries up to and including this id, noting where they are now. One step at a time: see `TRIM_STEP`.

        Refused as `Conflict`: uid, epoch or the entry are not as named, or no snapshot is as new (code "no-snapshot"). As
        `Rejected(code="bad-trim")`: the tip.
        """
        ...

    def restore(self, uid: str, entries: Sequence[Entry]) -> None:
        """Put the next entries of another journal into a namespace in which nothing has been appended yet, as they were.

        Entries that are there already are passed over. Raises `Conflict(code="live")` once something has been appended, or
        for entries that are not the next ones.
        """
        ...

    def restored(self, uid: str, guards: dict[str, str], epochs: str) -> Meta:
        """The end of it. guards: what last bumped which thing, a version or an entry's id (see `appending.by_id`). epochs: the
        text of a meta table (see `epochs.py`)."""
        ...

    def rebuild(
        self, uid: str, epoch: int, tip: int, guards: dict[str, str], producers: dict[str, str], inboxes: Sequence[str]
    ) -> bool:
        """Make the tables beside the journal anew under a new epoch, if one of them is not what it should be; False if all are.

        guards, producers: as the entries up to `tip` have them, but for guards of jobs, which lie below the floor then. inboxes:
        all there are; one that can take no message is emptied. Raises `Conflict(code="epoch")` if epoch or tip are others.
        """
        ...

    def depot(self, url: str, *, to_read: bool = False) -> Depot:
        """The place a URL names, for what is moved out of the server. Raises `Rejected(code="bad-archive")`.

        to_read: or the place that FLUXKV_ARCHIVE names instead, for one that has moved.
        """
        ...

    def load_snapshot(self) -> tuple[bytes, list[bytes]] | None: ...

    def shrink(self, uid: str, packed: Sequence[str], dropped: Sequence[str]) -> bool:
        """Of a sealed instance: drop these keys, and have these streams and hashes (if short) take no more room than they need.
        False if it is another instance by now, or goes on: then nothing more is done."""
        ...

    def prune_guards(self, uid: str, epoch: int, floor: int) -> int:
        """Set the floor; forget `job/` guards and producers last active at or below it.

        Returns how many guards went. A forgotten producer is answered `Gap(0)`: it goes on from sequence 1.
        """
        ...

    def put_blobs(self, blobs: dict[str, bytes]) -> None:
        """Store content-addressed bytes (name: `blob_name(data)`). Idempotent. They are kept for a while from now on, then as
        long as something retained names them: see `collect_blobs`. Raises `Unavailable` (code full) past the soft memory line,
        but for those that are there."""
        ...

    def touch_blobs(self, names: Sequence[str]) -> list[str]:
        """Say that these are about to be named by a commit, as `put_blobs` would. Returns those that are not there."""
        ...

    def idle_blobs(self, before: float) -> list[str]:
        """The names of blobs that were last put or touched before a server time (Unix seconds)."""
        ...

    def collect_blobs(self, uid: str, tip: str, before: float, names: Sequence[str]) -> int:
        """Remove those of these blobs that were last touched before a time; how many went.

        tip: id of the journal's last entry that the caller has looked through for names. Raises `Conflict` if it has moved on.
        """
        ...

    def get_blobs(self, names: Sequence[str]) -> list[bytes | None]: ...

    def push(self, key: str, data: Sequence[bytes], *, limit: int = 0) -> None:
        """Append messages to a plain stream, capped at about `limit` entries (0: not capped)."""
        ...

    def messages(self, key: str, after: str = "0", limit: int = 1000) -> list[Message]: ...

    def trim(self, key: str, through: str) -> None:
        """Drop a plain stream's entries up to and including this id. A journal is trimmed by `trim_journal` alone."""
        ...

    def delete(self, *keys: str) -> None: ...

    def outputs(self) -> dict[int, float]:
        """The jobs whose output (or input) the server holds: id -> when something was added last (Unix seconds)."""
        ...

    def lease(self, owner: str, ttl_ms: int, name: str = "") -> bool:
        """Take or renew a lease (compare-and-expire): the planner's, or the one of this name. Never what keeps us safe."""
        ...

    def now(self) -> float:
        """Server time, Unix seconds."""
        ...

    def close(self) -> None: ...
