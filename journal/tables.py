"""What stands beside a journal, as the headers of its entries have it: guards, producers, inboxes. Pure.

Decides what of it is made anew where a journal is put somewhere else, or a table was lost. Guards of jobs are not: whoever makes
the tables sets the floor to the journal's end, below which they count for nothing.
"""

from __future__ import annotations

from ..kvs.appending import by_id
from ..kvs.port import Entry
from .wire import Header


class Tables:
    """Takes headers in order. guards: thing -> what last bumped it. producers: name -> "<seq> <entry id> <payload hash>".

    inboxes: the names of all that were ever written to. version: of the last entry taken.
    """

    def __init__(self) -> None:
        self.version = 0
        self.guards: dict[str, str] = {}
        self.producers: dict[str, str] = {}
        self.inboxes: set[str] = set()

    def take(self, entry: Entry, header: Header) -> None:
        """The next entry."""
        self.version = entry.version
        for thing in header.bumps:
            name, is_set, id = thing.partition("=")
            if not name.startswith("job/"):
                self.guards[name] = id if is_set else entry.id if by_id(thing) else str(entry.version)
        for thing in header.clears:
            self.guards.pop(thing, None)
        if header.producer:
            self.producers[header.producer] = f"{header.seq} {entry.id} {header.payload_hash.hex()}"
        self.inboxes.update(header.inbox)
