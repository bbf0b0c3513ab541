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
                batch.append((key, [as_entry(item) for item in items]))
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
        replies = connection.pipeline([("HMGET", keys.meta, "uid", "version") for keys, _ in owners.values()])
        for (keys, followed), reply in zip(owners.values(), replies, strict=True):
            if isinstance(reply, ReplyError):
                raise reply
            uid, tip = reply
            known = self._uids.get(keys.namespace)
            if known is not None and uid != known:
                raise Rejected(f"the instance at {keys.namespace} is not the one it was", code="gone")
            if uid is not None:
                self._uids[keys.namespace] = uid
            for key, position in followed:
                self._check_position(connection, key, position, int(tip or 0), journal=key == keys.journal)

    @staticmethod
    def _check_position(connection: Connection, key: str, position: str, tip: int, *, journal: bool) -> None:
        version, epoch = id_pair(position)
        if version > tip:
            raise Corrupt(
                f"{key} was read up to {position}, but the journal ends at version {tip}", code="tail-behind",
                hint="the server lost history: re-read from the newest snapshot",
            )  # fmt: skip
        if not journal or not epoch or not version:
            return
        found = connection.call("XRANGE", key, version, version, "COUNT", 1)
        if found and found[0][0].decode() != position:
            raise Corrupt(
                f"{key} was read up to {position}, but its entry is {found[0][0].decode()} now",
                code="forked",
                hint="the server's history is another one: re-read from the newest snapshot",
            )  # fmt: skip
