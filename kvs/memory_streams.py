"""Streams of the memory store and how they are followed.

Same meaning as XADD, XRANGE and XREAD have; does no I/O but on an eventfd.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .blobs import payload_hash
from .epochs import anchor, is_anchored
from .errors import Rejected
from .keys import keys_of
from .port import Entry, Message, id_pair
from .subscription import check_position, other_entry

if TYPE_CHECKING:
    from .memory_server import MemoryServer

COUNT = 512
Id = tuple[int, int]


@dataclass(slots=True)
class MemoryStream:
    """(id, data) pairs in order, and the highest id ever given."""

    items: list[tuple[Id, bytes]] = field(default_factory=list)
    last: Id = (0, 0)

    def add(self, name: Id, data: bytes) -> None:
        assert name > self.last, f"{name} is not past {self.last}"
        self.items.append((name, data))
        self.last = name

    def next_after(self, now_ms: int) -> Id:
        return (now_ms, 0) if now_ms > self.last[0] else (self.last[0], self.last[1] + 1)

    def after(self, position: Id, limit: int) -> list[Message]:
        first = bisect_right(self.items, position, key=lambda item: item[0])
        return [Message(f"{name[0]}-{name[1]}", data) for name, data in self.items[first : first + limit]]


class MemorySubscription:
    """See `port.Subscription`. `fileno` is an eventfd, made when first asked for."""

    def __init__(self, server: MemoryServer, positions: dict[str, str]) -> None:
        self._server = server
        self._descriptor = -1
        self._uids: dict[str, str] = {}
        self._anchors: dict[str, str] = {}
        self._closed = False
        self.positions: dict[str, str] = {}
        for key, position in positions.items():
            self.follow(key, position)
        self._check()
        server.watchers.add(self)

    def fileno(self) -> int:
        if self._descriptor < 0:
            self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.wake()
        return self._descriptor

    def wake(self) -> None:
        if self._descriptor >= 0:
            os.eventfd_write(self._descriptor, 1)

    def follow(self, key: str, position: str) -> None:
        self.positions[key] = self._newest(key) if position == "$" else position
        self.wake()

    def forget(self, key: str) -> None:
        self.positions.pop(key, None)

    def poll(self, timeout_s: float = 0.0) -> list[tuple[str, list[Entry] | list[Message]]]:
        deadline = time.monotonic() + timeout_s
        with self._server.changed:
            while True:
                self._server.check("poll")
                self._check()
                batch = self._take()
                left = deadline - time.monotonic()
                if batch or left <= 0 or timeout_s <= 0:
                    break
                self._server.changed.wait(left)
        if self._descriptor >= 0:
            try:
                os.eventfd_read(self._descriptor)
            except BlockingIOError:
                pass
            if batch:
                self.wake()  # there may be more than one batch
        return batch

    def close(self) -> None:
        self._server.watchers.discard(self)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _newest(self, key: str) -> str:
        owner = keys_of(key)
        if owner is not None and key == owner.journal:
            journal = self._server.tables.journals.get(owner.namespace)
            return journal[-1].id if journal else "0-0"
        stream = self._server.tables.streams.get(key)
        if stream is None or not stream.items:
            return "0-0"
        name = stream.items[-1][0]
        return f"{name[0]}-{name[1]}"

    def _take(self) -> list[tuple[str, list[Entry] | list[Message]]]:
        batch: list[tuple[str, list[Entry] | list[Message]]] = []
        for key, position in self.positions.items():
            owner, after = keys_of(key), id_pair(position)
            if owner is not None and key == owner.journal:
                journal = self._server.tables.journals.get(owner.namespace, [])
                first = bisect_right(journal, after, key=lambda entry: (entry.version, entry.epoch))
                entries = journal[first : first + COUNT]
                if entries:
                    batch.append((key, entries))
                    last = entries[-1]
                    self.positions[key] = last.id
                    self._anchors[key] = anchor(last.version, last.epoch, payload_hash(last.payload))
                continue
            stream = self._server.tables.streams.get(key)
            messages = stream.after(after, COUNT) if stream is not None else []
            if messages:
                batch.append((key, messages))
                self.positions[key] = messages[-1].id
        return batch

    def _check(self) -> None:
        """A position that can no longer be true is an error, never a silent wait."""
        for key, position in self.positions.items():
            owner = keys_of(key)
            if owner is None or not (key == owner.journal or owner.is_inbox(key)):
                continue
            found = self._server.tables.instances.get(owner.namespace)
            uid, tip = (found.uid, found.version) if found is not None else ("", 0)
            if self._uids.setdefault(owner.namespace, uid) != uid:
                if self._uids[owner.namespace]:
                    raise Rejected(f"the instance at {owner.namespace} is not the one it was", code="gone")
                self._uids[owner.namespace] = uid
            check_position(key, position, tip, found.epochs if found is not None else "")
            version, epoch = id_pair(position)
            if key == owner.journal and version and epoch:
                journal = self._server.tables.journals.get(owner.namespace, [])
                first = bisect_right(journal, version - 1, key=lambda entry: entry.version)
                at = journal[first] if first < len(journal) and journal[first].version == version else None
                known = self._anchors.get(key, "")
                if at and (at.id != position or (known.startswith(position + ":") and not is_anchored(at, known))):
                    raise other_entry(key, position, at.id)
