"""Whether a state is the one that others decided on. Pure. Decides when that can be told, and that whoever differs stops.

A worker's commit carries the digest of the state it was decided on. Workers compare where they fold it on that very version: over
the tail behind the snapshot they begin with, and when they follow another. `tools.folding` compares all of a history.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..kvs.errors import Corrupt
from ..kvs.port import Entry
from .schema import SCHEMA, newer_schema
from .state import State
from .unreadable import Hole
from .wire import Commit, read_commit

if TYPE_CHECKING:
    from .log import Journal


def agreed(state: State, commit: Commit) -> Commit:
    """The next commit, not folded yet. Raises `Corrupt` (code digest) if it was decided on another state than this one."""
    said = commit.extra.get("digest")
    if said is None or commit.decided_at != state.version or commit.extra.get("schema", 1) != SCHEMA:
        return commit  # others wrote in between, or it is of a state that had other fields
    found = state.digest()
    if said != found:
        raise Corrupt(
            f"version {commit.id} was decided on another state than its history folds to: the digest of version {state.version} is "
            f"{_hex(said)} there, {found.hex()} here", code="digest",
            hint="fluxkv replay --diff live names what differs, fluxkv journal verify the first fault",
        )  # fmt: skip
    return commit


def read_agreed(state: State, entry: Entry) -> Commit:
    """The next entry as a commit, for whoever decides. Raises `Corrupt` as `agreed`, and (code newer-schema) for what a newer
    program has decided: it may rest on what this one does not see."""
    commit = read_commit(entry)
    schema = commit.extra.get("schema", 0)
    if type(schema) is int and schema > SCHEMA:
        raise newer_schema(f"entry {entry.id}", schema)
    return agreed(state, commit)


class Agreement:
    """The same over history with holes: who had read an entry before it went bad had another state, until it was set aside.

    aside: version of an entry -> version of the event that set it aside.
    """

    def __init__(self, aside: Mapping[int, int]) -> None:
        self.aside = aside
        self.unsure_until = 0

    def judge(self, state: State, commit: Commit) -> None:
        if isinstance(commit, Hole):
            self.unsure_until = max(self.unsure_until, self.aside[commit.version])
        elif commit.decided_at >= self.unsure_until:
            agreed(state, commit)


def load_agreed(journal: Journal) -> State:
    """The live state, to decide by. Raises `Corrupt` also where it is not what the tail was decided on."""
    return journal.load(Agreement(journal.reader.aside).judge)


def _hex(said: object) -> str:
    return said.hex() if isinstance(said, bytes) else repr(said)[:40]
