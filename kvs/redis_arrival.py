"""The part of `RedisStore` by which a journal comes from another server, or leaves, and what is read for that. Scripts decide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .appending import not_restored
from .asking import STEP, Asks, Command, scanned
from .errors import Corrupt, FluxkvError, Rejected
from .keys import Keys, keys_of, patterns
from .port import Entry, Message, Meta
from .port_arrival import Inside
from .replies import META_FIELDS, as_meta
from .uri import parse_server

DROPPED = 500  # streams in one step, some milliseconds: everybody else's requests wait meanwhile
LOOKS = 50  # commands of a look that is to be short

class ArrivalScripts:
    """Calls the script, each step of which may be sent again."""

    namespace: str
    keys: Keys
    fenced: bool
    server: str  # its URL, "" where it is reached in another way
    _under = ""  # the replication id under which the journal began to come

    def _ask(self, *command: Any) -> Any:
        raise NotImplementedError

    def _ask_many(self, commands: Sequence[Command], *, resend: bool = True, each: bool = False) -> list[Any]:
        raise NotImplementedError

    def _script(self, name: str, keys: list[str], values: list[Any], *, resend: bool) -> Any:
        raise NotImplementedError

    def _refused(self, answer: list[Any], epoch: int, tip: int = -1) -> None:
        raise NotImplementedError

    def delete(self, *keys: str) -> None:
        raise NotImplementedError

    def arriving(self, uid: str, behind: str, *, anew: bool = False) -> str:
        return self._arrive(uid, "anew" if anew else "begin", [behind, "1" if self.fenced else "0"])

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
        if meta.back:
            kept["back"] = meta.back
        if meta.origin_uid:
            kept["origin_uid"] = meta.origin_uid
        if meta.trimmed != "0-0":
            kept.update(trimmed=meta.trimmed, archive=meta.archive)
        flat = [part for pair in kept.items() for part in pair]
        self._arrive(uid, "end", ["1" if self.fenced else "0", self._under, meta.version, *flat], self.keys.door)

    def _arrive(self, uid: str, step: str, values: list[Any], about: str = "") -> str:
        keys = self.keys
        named = [keys.journal, keys.meta, keys.guards, keys.arriving, about or keys.door]
        answer = self._script("arrive", named, [uid, step, *values], resend=True)
        if answer[0] == b"EXISTS":
            raise exists(self.namespace)
        if answer[0] == b"AFTER":
            raise not_restored(self.namespace, answer[1].decode())
        if len(answer) > 2:
            self._under = answer[2].decode()
        return answer[1].decode() if answer[0] == b"OK" else ""

    def come(self) -> str:
        found = self._ask("HGET", self.keys.arriving, "tip")
        return found.decode() if found is not None else ""

    def arrive_over(self, uid: str, tip: str) -> None:
        self._arrive(uid, "over", [tip, "1" if self.fenced else "0"])

    def depart(self, uid: str, epoch: int, tip: int, word: str) -> None:
        keys = self.keys
        answer = self._script("depart", [keys.meta, keys.guards, keys.arriving], [uid, epoch, tip, word], resend=True)
        self._refused(answer, epoch, tip)
        self.delete(keys.lease, keys.producers, keys.telemetry)

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
        for ask in self._nodes():
            for pattern in patterns(self.namespace):
                for names in scanned(ask, pattern):
                    found.update(keys.namespace for name in names if (keys := keys_of(name)) is not None)
        return sorted(found)

    def inside(self) -> dict[str, Inside]:
        found, metas, damage = dict[str, set[str]](), dict[str, Meta](), dict[str, str]()
        for ask in self._nodes():
            here = set[str]()
            for names in scanned(ask, patterns(self.namespace)[1]):
                for name in names:
                    keys = keys_of(name)
                    if keys is not None and keys.namespace != self.namespace:  # which the root's pattern has, too
                        here.add(keys.namespace)
                        found.setdefault(keys.namespace, set()).add(name)
            spaces = sorted(here)
            for at in range(0, len(spaces), STEP):
                some = spaces[at : at + STEP]
                replies = ask([("HMGET", Keys(name).meta, *META_FIELDS) for name in some], each=True)
                for name, reply in zip(some, replies, strict=True):
                    try:
                        if isinstance(reply, Corrupt):
                            raise reply
                        if (meta := as_meta(reply, name)) is not None:
                            metas[name] = meta
                    except Corrupt as error:  # of one: all others can be told
                        damage[name] = str(error)
        return {name: Inside(metas.get(name), tuple(sorted(found[name])), damage.get(name, "")) for name in sorted(found)}

    def may_have_inside(self) -> bool:
        own, looks = self.keys.prefix, LOOKS
        for ask in self._nodes():
            for names in scanned(ask, patterns(self.namespace)[1]):
                looks -= 1
                if looks < 0 or any(not name.startswith(own) for name in names):
                    return True
        return False

    def _nodes(self) -> Iterator[Asks]:
        """What asks each server that may have keys of instances inside this one: in a cluster all of its nodes."""
        if self.server and parse_server(self.server).kind == "cluster":
            from .cluster import primaries

            yield from primaries(self.server, self._ask("CLUSTER", "SLOTS"))
        else:
            yield self._ask_many

    def weigh(self, keys: Sequence[str]) -> int | None:
        try:
            found = [
                reply or 0
                for at in range(0, len(keys), STEP)
                for reply in self._ask_many([("MEMORY", "USAGE", key) for key in keys[at : at + STEP]])
            ]
        except FluxkvError:  # a server, or an ACL, that has no such command
            return None
        return sum(found)

    def leave(self, uid: str, tip: str, step: str, keys: Sequence[str] = (), grace_s: float = 0.0) -> bool:
        streams = [key for key in keys if self.keys.job_of_stream(key) >= 0]
        others = [] if step == "rest" else sorted({*keys} - {*streams, self.keys.meta})
        if step != "rest" and self._script("leave", [self.keys.meta, *others], [uid, tip, step, grace_s], resend=True)[0] != b"OK":
            return False
        for at in range(0, len(streams) if step in ("go", "rest") else 0, DROPPED):
            named = [self.keys.meta, self.keys.arriving, *streams[at : at + DROPPED]]
            if self._script("leave", named, ["", "", "rest"], resend=True)[0] != b"OK":
                return step == "go"  # it is here again, and these are what has come of it
        return True


def exists(namespace: str) -> Rejected:
    """The error of a journal that is to come where another instance is."""
    return Rejected(f"there is another instance at {namespace} already", code="exists", hint="fluxkv journal import --to DIR")
