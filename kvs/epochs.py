"""Which entries belong to a history: its epochs in order, and the identity of an entry. Pure; no store, no clock.

An entry's id names its version and its epoch; two branches of a history may have the same version, and, where a server's
data was put back under a running server, even the same id. So an entry is known by its *anchor*: its id and the hash of
its payload. The epochs of a history stand in its meta table as one text, oldest first:

    <epoch>:<first version>[!<first>-<last version known of the branch that was given up>[~<epoch of it>]...] ...

The exclamation mark stands where a history that had lost entries was adopted; behind it are those epochs of what was lost that this
history never had, as far as somebody knew of them. An older journal has no such text, or
begins it late: of what lies before its first line nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from .errors import Corrupt
from .port import Entry, id_pair


class Span(NamedTuple):
    """One epoch: of the versions from `first` on. since, lost: where it begins by adoption, the first and the last version
    known of what was given up; else 0. branch: epochs of that which are none of this history."""

    epoch: int
    first: int
    since: int
    lost: int
    branch: tuple[int, ...] = ()


def anchor(version: int, epoch: int, digest: bytes) -> str:
    """An entry's identity as scripts compare it: its id and its payload's hash, which stands in its header. "" where that is
    not known, or there is no entry."""
    return f"{version}-{epoch}:{digest.hex()}" if version and digest else ""


def is_anchored(entry: Entry, anchor: str) -> bool:
    """Whether this is the entry that an anchor names."""
    id, _, digest = anchor.partition(":")
    return entry.id == id and bytes.fromhex(digest) in entry.header


def lost_word(lost: tuple[int, int], branch: Iterable[int] = ()) -> str:
    """What is behind the exclamation mark."""
    return "~".join((f"{lost[0]}-{lost[1]}", *map(str, branch)))


@lru_cache(maxsize=64)
def spans(text: str) -> list[Span]:
    """The epochs of a meta table, oldest first. The list is everybody's: do not change it."""
    found = []
    try:
        for line in text.split():
            epoch, _, rest = line.partition(":")
            first, _, lost = rest.partition("!")
            known, *branch = lost.split("~")
            since, _, last = known.partition("-")
            found.append(Span(int(epoch), int(first), int(since or 0), int(last or since or 0), tuple(map(int, branch))))
    except ValueError:
        raise Corrupt(f"the epochs of a meta table cannot be read: {text[:60]!r}") from None
    return found


def belongs(text: str, tip: int, version: int, epoch: int) -> bool:
    """Whether an entry of this id can be in the history that ends at `tip`.

    The last version before an epoch may also be named with that epoch: so does who begins to read there.
    """
    if not version:
        return True
    if version > tip:
        return False
    lines = spans(text)
    if not lines or version < lines[0].first:
        return True
    last = max((one for one in lines if one.first <= version), key=lambda one: one.first)
    same = [one for one in lines if one.first == last.first]  # an epoch in which nothing was said begins where the next one does
    return not epoch or any(one.epoch == epoch for one in (*same, *(one for one in lines if one.first == version + 1)))


def settle(text: str, tip: int, position: str) -> str:
    """Where whoever has read up to `position` goes on reading this history: there, or at the last entry both have.

    Of a branch whose epoch this history never had, that is where it was last adopted: what came before may have been read
    on that branch too, and an order must not be read twice.
    """
    version, epoch = id_pair(position)
    lines = spans(text)
    if belongs(text, tip, version, epoch):
        return position
    ends = [following.first - 1 for one, following in pairwise(lines) if one.epoch == epoch]
    if all(one.epoch != epoch for one in lines):
        ends = [one.first - 1 for one in lines if one.lost][-1:]
    last = min(version, tip, *ends)
    held = [one.epoch for one in lines if one.first <= last]
    return f"{last}-{held[-1] if held else epoch}"


def lost_beyond(text: str, tip: int, version: int, epoch: int) -> tuple[int, int]:
    """(first, last) version of what the history lost, when it does not have this entry."""
    if all(one.epoch != epoch for one in spans(text)) and not given_up(text, version, epoch):
        return min(tip + 1, version), version  # where the two part, nobody can tell
    last = id_pair(settle(text, tip, f"{version}-{epoch}"))[0]
    return min(last + 1, version), version


def given_up(text: str, version: int, epoch: int) -> bool:
    """Whether an entry that is not in this history is on a branch that somebody has given up, in full knowledge, by adopting."""
    lines = spans(text)
    numbers = [number for number, one in enumerate(lines) if one.epoch == epoch]
    if not numbers:
        return any(epoch in one.branch or one.since <= version <= one.lost for one in lines if one.lost)
    following = lines[numbers[-1] + 1 :]
    if following and following[0].lost:
        return True
    return any(one.since <= version <= one.lost for one in following)  # it was noticed in a later epoch
