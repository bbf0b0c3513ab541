"""Following streams over a connection of its own. Decides when a position can not be true any more.

A blocking XREAD is always under way, so the descriptor becomes readable when something comes. At each
(re)connect, and whenever a second passed in silence, positions are compared with the instance's tip: a
watcher ahead of a tail that went back (a fail-over, FLUSHDB) would otherwise wait in silence for ever.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from .blobs import payload_hash
from .epochs import anchor, belongs, is_anchored
from .errors import Corrupt, Rejected, Unavailable
from .keys import Keys, keys_of
from .port import Entry, Message, id_pair
from .replies import as_entry, as_message, reply_failure
from .resp import NOT_YET, Connection, ReplyError

BLOCK_MS = 1000
COUNT = 512
_SILENCE_S = BLOCK_MS / 1000 + 10.0  # a living server has answered by then

Batch = list[tuple[str, list[Entry] | list[Message]]]


class RedisSubscription:
    """See `port.Subscription`. After a reconnect `fileno()` may differ. Raises Unavailable on connecting."""

    def __init__(self, connect: Callable[[], Connection], positions: dict[str, str]) -> None:
        self._connect = connect
        self.positions = dict(positions)
        self._anchors: dict[str, str] = {}  # journal key -> the entry at its position, where we have read it
        self._uids: dict[str, bytes] = {}
        self._waiting = False
        self._asked_at = 0.0
        self._connection: Connection | None = None
        self._pid = 0
        self._open()

    def fileno(self) -> int:
        if self._connection is None:
            raise Unavailable("the subscription is not connected", code="disconnected", hint="poll it again")
        return self._connection.fileno()

    def follow(self, key: str, position: str) -> None:
        if self.positions.get(key) == position:
            return
        self.positions[key] = position
        # A read under way knows nothing of the new key: begin again on a fresh connection.
        if self._connection is not None and self._waiting:
            self._drop()
            self._open()

    def forget(self, key: str) -> None:
        self.positions.pop(key, None)  # a read under way may still bring something of it: `_take` drops that

    def poll(self, timeout_s: float = 0.0) -> Batch:
        deadline = time.monotonic() + timeout_s
        try:
            if self._pid != os.getpid():
                self._drop()  # a forked child leaves the parent's alone
            if self._connection is None:
                self._open()
            while True:
                connection = self._ask()
                reply = connection.try_read(max(0.0, deadline - time.monotonic()))
                if reply is NOT_YET:
                    if time.monotonic() - self._asked_at > _SILENCE_S:
                        raise Unavailable(f"{connection.address} is silent", code="timeout")
                    return []
                self._waiting = False
                if reply:
                    if self._other_epoch(reply):
                        self._check(connection)  # what comes may stand behind another past than ours
                    return self._handed_on(self._take(reply))
                self._check(connection)
                self._ask()
                if time.monotonic() >= deadline:
                    return []
        except ReplyError as error:
            self._drop()
            raise reply_failure(error, "following a stream") from None
        except (Unavailable, Corrupt, Rejected):
            self._drop()
            raise

    def close(self) -> None:
        self._drop()

    def _open(self) -> None:
        self._connection, self._pid = self._connect(), os.getpid()
        try:
            for key, position in self.positions.items():
                if position == "$":
                    self.positions[key] = self._newest(self._connection, key)
            self._check(self._connection)
            self._ask()
        except ReplyError as error:
            self._drop()
            raise reply_failure(error, "following a stream") from None
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        self._waiting = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self) -> Connection:
        if self._connection is None:
            raise Unavailable("the subscription is not connected", code="disconnected")
        if not self._waiting:
            for key, position in self.positions.items():
                if position == "$":
                    self.positions[key] = self._newest(self._connection, key)
            keys = list(self.positions)
            self._connection.send(
                "XREAD",
                "COUNT",
                COUNT,
                "BLOCK",
                BLOCK_MS,
                "STREAMS",
                *keys,
                *[self.positions[key] for key in keys],
            )
            self._waiting = True
            self._asked_at = time.monotonic()
        return self._connection

    def _handed_on(self, batch: Batch) -> Batch:
        """Ask for more, and hand on what has come whatever becomes of that: its positions are behind us already."""
        try:
            self._ask()
        except (Unavailable, Corrupt, Rejected, ReplyError):
            self._drop()  # the next poll connects again, and says what is wrong
        return batch

    def _other_epoch(self, reply: Any) -> bool:
        """Whether what has come is of another epoch than what we have read last: history was taken up anew in between."""
        for name, items in reply:
            key = name.decode()
            version, epoch = id_pair(self.positions.get(key, "0"))
            owner = keys_of(key)
            if not (version and epoch and items) or owner is None or not (key == owner.journal or owner.is_inbox(key)):
                continue
            if int(items[0][0].partition(b"-")[2]) != epoch:
                return True
        return False

    def _take(self, reply: Any) -> Batch:
        batch: Batch = []
        for name, items in reply:
            key = name.decode()
            if key not in self.positions:
                continue
            owner = keys_of(key)
            if items:
                self.positions[key] = items[-1][0].decode()
            if owner is not None and key == owner.journal:
                entries = [as_entry(item) for item in items]
                if entries:
                    last = entries[-1]
                    known = anchor(last.version, last.epoch, payload_hash(last.payload))
                    self._anchors[key] = known if is_anchored(last, known) else ""  # a damaged one is no other history
                batch.append((key, entries))
            else:
                batch.append((key, [as_message(item) for item in items]))
        return batch

    @staticmethod
    def _newest(connection: Connection, key: str) -> str:
        newest = connection.call("XREVRANGE", key, "+", "-", "COUNT", 1)
        return newest[0][0].decode() if newest else "0-0"

    def _check(self, connection: Connection) -> None:
        """Compare positions that are commit ids (journals, inboxes) with their instance's tip."""
        owners: dict[str, tuple[Keys, list[tuple[str, str]]]] = {}
        for key, position in self.positions.items():
            owner = keys_of(key)
            if owner is not None and (key == owner.journal or owner.is_inbox(key)):
                owners.setdefault(owner.namespace, (owner, []))[1].append((key, position))
        if not owners:
            return
        asked = [("HMGET", keys.meta, "uid", "version", "epochs") for keys, _ in owners.values()]
        replies = connection.pipeline(asked)
        for (keys, followed), reply in zip(owners.values(), replies, strict=True):
            if isinstance(reply, ReplyError):
                raise reply
            uid, tip, epochs = reply
            known = self._uids.get(keys.namespace)
            if known is not None and uid != known:
                raise Rejected(f"the instance at {keys.namespace} is not the one it was", code="gone")
            if uid is not None:
                self._uids[keys.namespace] = uid
            for key, position in followed:
                check_position(key, position, int(tip or 0), (epochs or b"").decode())
                if key == keys.journal:
                    self._check_entry(connection, key, position)

    def _check_entry(self, connection: Connection, key: str, position: str) -> None:
        """Compare the entry at our position with the one we have read."""
        version, epoch = id_pair(position)
        if not version or not epoch:
            return
        found = connection.call("XRANGE", key, version, version, "COUNT", 1)
        if not found:
            return  # archived and trimmed
        known = self._anchors.get(key, "")
        if found[0][0].decode() != position or (known.startswith(position + ":") and not is_anchored(as_entry(found[0]), known)):
            raise other_entry(key, position, found[0][0].decode())


def check_position(key: str, position: str, tip: int, epochs: str) -> None:
    """Raise `Corrupt` if a history with this tip and these epochs has never had an entry of that id."""
    version, epoch = id_pair(position)
    if version > tip:
        raise Corrupt(
            f"{key} was read up to {position}, but the journal ends at version {tip}", code="tail-behind",
            hint="the server lost history: fluxkv ops adopt says what",
        )  # fmt: skip
    if not belongs(epochs, tip, version, epoch):
        raise Corrupt(
            f"{key} was read up to {position}, but the journal has no such entry in that epoch any more", code="forked",
            hint="the server lost history, and has grown again: fluxkv ops adopt says what is lost",
        )  # fmt: skip


def other_entry(key: str, position: str, there: str) -> Corrupt:
    """The error of who has read another entry than the one that stands there now."""
    what = f"its entry is {there} now" if there != position else "an entry with other events stands there now"
    return Corrupt(
        f"{key} was read up to {position}, but {what}", code="forked",
        hint="the server's history is another one: fluxkv ops adopt says what is lost",
    )  # fmt: skip
