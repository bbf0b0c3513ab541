"""The part of `RedisStore` by which a journal comes from another server, and what of one is read for that. The script decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .appending import not_restored
from .errors import Rejected
from .keys import Keys, keys_of, patterns
from .port import Entry, Message, Meta

STEP = 1_000  # rows in one command


class ArrivalScripts:
    """Calls the script, each step of which may be sent again."""

    namespace: str
    keys: Keys
    fenced: bool

    def _ask(self, *command: Any) -> Any:
        raise NotImplementedError

    def _script(self, name: str, keys: list[str], values: list[Any], *, resend: bool) -> Any:
        raise NotImplementedError

    def arriving(self, uid: str, behind: str, *, anew: bool = False) -> str:
        return self._arrive(uid, "anew" if anew else "begin", [behind])

    def arrive(self, uid: str, entries: Sequence[Entry]) -> None:
        self._arrive(uid, "entries", [part for entry in entries for part in (entry.id, entry.header, entry.payload)])

    def arrive_messages(self, uid: str, key: str, messages: Sequence[Message]) -> None:
        self._arrive(uid, "messages", [part for message in messages for part in message], key)

    def arrive_tables(self, uid: str, guards: dict[str, str], snapshot: tuple[int, bytes, list[bytes]] | None = None) -> None:
        rows = list(guards.items())
        for at in range(0, len(rows), STEP):
            self._arrive(uid, "guards", [part for row in rows[at : at + STEP] for part in row])
        if snapshot is not None:
            version, head, chunks = snapshot
            self._arrive(uid, "snapshot", [version, head, *chunks], self.keys.snapshot)

    def arrived(self, uid: str, meta: Meta) -> None:
        kept = {
            "uid": meta.uid, "epoch": meta.epoch, "floor": meta.floor, "origin_ms": meta.origin_ms, "durability": meta.durability,
            "schema": meta.schema, "created": repr(meta.created), "epochs": meta.epochs,
        }  # fmt: skip
        if meta.fork:
            kept["fork"] = meta.fork
        kept["sealed"] = meta.sealed or int(self._ask("TIME")[0])  # whose journal has come is over
        if meta.origin_uid:
            kept["origin_uid"] = meta.origin_uid
        if meta.trimmed != "0-0":
            kept.update(trimmed=meta.trimmed, archive=meta.archive)
        flat = [part for pair in kept.items() for part in pair]
        self._arrive(uid, "end", ["1" if self.fenced else "0", *flat], self.keys.door)

    def _arrive(self, uid: str, step: str, values: list[Any], about: str = "") -> str:
        keys = self.keys
        named = [keys.journal, keys.meta, keys.guards, keys.arriving, about or keys.door]
        answer = self._script("arrive", named, [uid, step, *values], resend=True)
        if answer[0] == b"EXISTS":
            raise exists(self.namespace)
        if answer[0] == b"AFTER":
            raise not_restored(self.namespace, answer[1].decode())
        return answer[1].decode() if answer[0] == b"OK" else ""

    def guards(self) -> Iterator[dict[str, str]]:
        cursor = b"0"
        while True:
            cursor, flat = self._ask("HSCAN", self.keys.guards, cursor, "COUNT", STEP)
            rows = {thing.decode(): bump.decode() for thing, bump in zip(flat[::2], flat[1::2], strict=True)}
            rows.pop("!", None)  # the table's own version
            yield rows
            if cursor == b"0":
                return

    def spaces(self) -> list[str]:
        found = set[str]()
        for pattern in patterns(self.namespace):
            cursor = b"0"
            while True:
                cursor, names = self._ask("SCAN", cursor, "MATCH", pattern, "COUNT", STEP)
                found.update(keys.namespace for name in names if (keys := keys_of(name.decode())) is not None)
                if cursor == b"0":
                    break
        return sorted(found)


def exists(namespace: str) -> Rejected:
    """The error of a journal that is to come where another instance is."""
    return Rejected(f"there is another instance at {namespace} already", code="exists", hint="fluxkv journal import --to DIR")
