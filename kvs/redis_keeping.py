"""The part of `RedisStore` about what may leave the server: a journal's oldest entries, and blobs. The scripts decide."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .appending import not_restored, refusal, tip_moved, trim_refusal
from .asking import Command, scanned
from .errors import Corrupt
from .keys import Keys
from .port import Depot, Entry, Meta, id_pair, next_id
from .uri import parse_server

BLOB_STEP = 1_000  # names in one command
PACK_STEP = 100  # streams in one step of the server's, some milliseconds: everybody else's requests wait meanwhile
PACKED_ENTRIES = 1_000  # a longer stream has its room taken up by what is in it


class KeepingScripts:
    """Calls the scripts, each of which may be sent again."""

    namespace: str
    keys: Keys
    fenced: bool
    server: str  # its URL, "" where it is reached in another way
    state_dir: str  # of the instance, where that is known and not the server's

    def meta(self) -> Meta:
        raise NotImplementedError

    def _ask(self, *command: Any) -> Any:
        raise NotImplementedError

    def _ask_many(self, commands: Sequence[Command], *, resend: bool = True, each: bool = False) -> list[Any]:
        raise NotImplementedError

    def _script(self, name: str, keys: list[str], values: list[Any], *, resend: bool) -> Any:
        raise NotImplementedError

    def trim_journal(self, uid: str, epoch: int, through: str, archive: str) -> Meta:
        version = id_pair(through)[0]
        answer = self._script(
            "trim_journal", [self.keys.meta, self.keys.journal, self.keys.snapshot],
            [uid, epoch, "1" if self.fenced else "0", through, version, next_id(through), archive], resend=True,
        )  # fmt: skip
        if answer[0] != b"OK":
            raise trim_refusal(answer[0].decode(), answer[1].decode() if len(answer) > 1 else "", self.namespace, through)
        return self.meta()

    def restore(self, uid: str, entries: Sequence[Entry]) -> None:
        flat = [part for entry in entries for part in (entry.id, entry.header, entry.payload)]
        self._restore(uid, ["entries", *flat])

    def restored(self, uid: str, guards: dict[str, str], epochs: str) -> Meta:
        meta = self.meta()
        things = list(guards.items())
        for at in range(0, max(1, len(things)), BLOB_STEP):
            some = [part for pair in things[at : at + BLOB_STEP] for part in pair]
            self._restore(uid, ["end", epochs, meta.version, *some])
        return self.meta()

    def _restore(self, uid: str, values: list[Any]) -> None:
        keys = self.keys
        answer = self._script("restore", [keys.journal, keys.meta, keys.guards], [uid, *values], resend=True)
        if answer[0] == b"GONE":
            raise refusal("GONE", "", self.namespace)
        if answer[0] != b"OK":
            raise not_restored(self.namespace, answer[1].decode())

    def depot(self, url: str, *, to_read: bool = False) -> Depot:
        from .depot import open_depot

        return open_depot(url, to_read=to_read, beside=self._beside() if to_read else "")

    def _beside(self) -> str:
        """The archive in the state directory of the server, which may have been moved as a whole."""
        from .server import state_dir_behind

        address = parse_server(self.server) if self.server else None
        folder = self.state_dir or (state_dir_behind(address.path) if address is not None and address.kind == "unix" else "")
        return os.path.join(folder, "archive") if folder else ""

    def outputs(self) -> dict[int, float]:
        pattern = "".join(f"\\{one}" if one in "*?[]\\^" else one for one in self.keys.prefix) + "*put:*"
        keys = sorted({key for some in scanned(self._ask_many, pattern) for key in some if self.keys.job_of_stream(key) >= 0})
        found: dict[int, float] = {}
        replies = self._ask_many([("XREVRANGE", key, "+", "-", "COUNT", 1) for key in keys], each=True)
        for key, reply in zip(keys, replies, strict=True):
            if isinstance(reply, Corrupt):
                continue  # what is there was not printed by a job
            last = id_pair(reply[0][0].decode())[0] / 1000 if reply else 0.0
            job = self.keys.job_of_stream(key)
            found[job] = max(last, found.get(job, 0.0))
        return found

    def shrink(self, uid: str, packed: Sequence[str], dropped: Sequence[str]) -> bool:
        for at in range(0, max(1, len(packed)), PACK_STEP):
            some = packed[at : at + PACK_STEP]
            keys = [self.keys.meta, *some, *([] if at else dropped)]
            if self._script("shrink", keys, [uid, len(some), PACKED_ENTRIES], resend=True)[0] != b"OK":
                return False
        return True

    def put_blobs(self, blobs: dict[str, bytes]) -> None:
        if blobs:
            flat = [part for pair in blobs.items() for part in pair]
            answer = self._script("put_blobs", [self.keys.blobs, self.keys.touched, self.keys.meta], ["put", *flat], resend=True)
            if answer:
                raise refusal(answer[0].decode(), answer[-1].decode(), self.namespace)

    def touch_blobs(self, names: Sequence[str]) -> list[str]:
        missing: list[bytes] = []
        keys = [self.keys.blobs, self.keys.touched, self.keys.meta]
        for at in range(0, len(names), BLOB_STEP):
            some = names[at : at + BLOB_STEP]
            missing += self._script("put_blobs", keys, ["touch", *some], resend=True)
        return [name.decode() for name in missing]

    def idle_blobs(self, before: float) -> list[str]:
        names = [name.decode() for name in self._ask("HKEYS", self.keys.blobs)]
        flat = self._ask("HGETALL", self.keys.touched)
        touched = dict(zip((name.decode() for name in flat[::2]), map(float, flat[1::2]), strict=True))
        self.touch_blobs([name for name in names if name not in touched])  # of a program that did not note it
        return [name for name in names if touched.get(name, before) < before]

    def collect_blobs(self, uid: str, tip: str, before: float, names: Sequence[str]) -> int:
        gone = 0
        for at in range(0, len(names), BLOB_STEP):
            answer = self._script(
                "collect_blobs", [self.keys.meta, self.keys.blobs, self.keys.touched],
                [uid, tip, repr(before), *names[at : at + BLOB_STEP]], resend=True,
            )  # fmt: skip
            if answer[0] == b"GONE":
                raise refusal("GONE", "", self.namespace)
            if answer[0] != b"OK":
                raise tip_moved(self.namespace, tip, answer[1].decode())
            gone += answer[1]
        return gone

    def get_blobs(self, names: Sequence[str]) -> list[bytes | None]:
        return list(self._ask("HMGET", self.keys.blobs, *names)) if names else []
