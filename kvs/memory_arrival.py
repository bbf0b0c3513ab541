"""The part of `MemoryStore` by which a journal comes from another server, or leaves. As the scripts do it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from .appending import moved_on, not_restored, refusal
from .keys import Keys, keys_of
from .memory_epochs import put_back
from .memory_server import Arriving, Instance, MemoryServer
from .memory_streams import MemoryStream
from .port import Entry, Message, Meta, id_pair
from .port_arrival import Inside
from .redis_arrival import exists
from .replies import wrong_type


def _take_back(coming: Arriving, tip: str, journal: list[Entry]) -> None:
    """The last entry has not come."""
    coming.tip = tip
    journal.pop()


class MemoryArrival:
    """Answers as `arrive.lua` does."""

    server: MemoryServer
    namespace: str
    keys: Keys
    _under = ""  # the replication id under which the journal began to come

    def _coming(self, uid: str, step: str) -> Arriving | None:
        """What has come of it; None once it is here."""
        self.server.check(f"arrive.{step}")
        tables = self.server.tables
        there, coming = tables.instances.get(self.namespace), tables.arriving.get(self.namespace)
        if there is not None and there.came == uid:
            return None
        if there is not None or (coming is not None and coming.uid != uid):
            raise exists(self.namespace)
        if coming is None and step != "begin":
            raise not_restored(self.namespace, "0-0")
        return coming or Arriving(uid, "")

    def arriving(self, uid: str, behind: str, *, anew: bool = False) -> str:
        with self.server.changed:
            tables, coming = self.server.tables, self._coming(uid, "begin")
            if coming is None:
                return ""
            self._under = self.server.replid
            if anew or not coming.tip:
                before = [(self.namespace, tables.arriving.get(self.namespace))]
                journal = [(self.namespace, tables.journals.get(self.namespace))]
                self.server.took(False, lambda: put_back(tables.arriving, before))
                self.server.took(False, lambda: put_back(tables.journals, journal))
                coming = tables.arriving[self.namespace] = Arriving(uid, behind)
                tables.journals[self.namespace] = []
            return coming.tip

    def arrive(self, uid: str, entries: Sequence[Entry]) -> None:
        with self.server.changed:
            coming = self._coming(uid, "entries")
            for entry in entries if coming is not None else ():
                assert coming is not None
                version = id_pair(coming.tip)[0]
                if entry.version > version + 1:
                    raise not_restored(self.namespace, coming.tip)
                if entry.version == version + 1:
                    journal = self.server.tables.journals[self.namespace]
                    self.server.took(False, partial(_take_back, coming, coming.tip, journal))
                    journal.append(entry)
                    coming.tip = entry.id

    def arrive_messages(self, uid: str, key: str, messages: Sequence[Message]) -> None:
        with self.server.changed:
            if self._coming(uid, "messages") is not None:
                stream = self.server.tables.streams.setdefault(key, MemoryStream())
                self.server.took(False, partial(setattr, stream, "items", [*stream.items]))
                self.server.took(False, partial(setattr, stream, "last", stream.last))
                for message in messages:
                    if id_pair(message.id) > stream.last:
                        stream.add(id_pair(message.id), message.data)

    def arrive_tables(self, uid: str, guards: dict[str, str], snapshot: tuple[int, bytes, list[bytes]] | None = None) -> None:
        with self.server.changed:
            coming = self._coming(uid, "tables")
            if coming is not None:
                self.server.took(False, partial(setattr, coming, "guards", {**coming.guards}))
                self.server.took(False, partial(setattr, coming, "snapshot", coming.snapshot))
                coming.guards.update(guards)
                coming.snapshot = snapshot or coming.snapshot

    def arrived(self, uid: str, meta: Meta) -> None:
        with self.server.changed:
            coming, tables = self._coming(uid, "end"), self.server.tables
            if coming is None:
                return
            version = id_pair(coming.tip)[0]
            if self._under != self.server.replid or version != meta.version:
                raise not_restored(self.namespace, coming.tip)
            made = Instance(
                meta.uid, meta.epoch, self.server.replid, meta.origin_ms, meta.durability, meta.created, version, coming.tip,
                meta.floor, meta.schema, 0, version, meta.epochs, meta.fork, "", coming.guards, trimmed=meta.trimmed,
                archive=meta.archive, came=uid, sealed=meta.sealed or int(self.server.clock()), origin_uid=meta.origin_uid,
                back=meta.back,
            )  # fmt: skip
            if coming.snapshot is not None:
                made.snapshot_version, head, chunks = coming.snapshot
                made.snapshot = head, list(chunks)
            here = self.namespace
            self.server.took(False, lambda: put_back(tables.instances, [(here, None)]))
            self.server.took(False, lambda: put_back(tables.arriving, [(here, coming)]))
            tables.instances[here] = made
            self.server.drop_stream(self.keys.door)
            del tables.arriving[here]
            self.server.check("arrive.end", "after")

    def come(self) -> str:
        coming = self.server.tables.arriving.get(self.namespace)
        return coming.tip if coming is not None else ""

    def arrive_over(self, uid: str, tip: str) -> None:
        with self.server.changed:
            coming = self.server.tables.arriving.get(self.namespace)
            if coming is not None and coming.tip == tip and self.namespace not in self.server.tables.instances:
                self.server.took(False, partial(setattr, coming, "uid", coming.uid))
                coming.uid = uid
            self._coming(uid, "over")
            self._under = self.server.replid

    def depart(self, uid: str, epoch: int, tip: int, word: str) -> None:
        with self.server.changed:
            self.server.check("depart")
            tables = self.server.tables
            found, coming = tables.instances.get(self.namespace), tables.arriving.get(self.namespace)
            if found is None and coming is not None and coming.uid == word:
                return
            if found is None or found.uid != uid:
                raise refusal("GONE", "", self.namespace)
            if found.fork:
                raise refusal("LOST", found.fork, self.namespace)
            if (found.epoch, found.version) != (epoch, tip):
                raise moved_on(self.namespace, epoch, tip, found.epoch, found.version)
            here = self.namespace
            self.server.took(False, lambda: put_back(tables.arriving, [(here, coming)]))
            self.server.took(False, lambda: put_back(tables.instances, [(here, found)]))
            tables.arriving[here] = Arriving(word, found.tip)
            del tables.instances[here]
            tables.streams.pop(self.keys.telemetry, None)
            self.server.check("depart", "after")

    def guards(self) -> Iterator[dict[str, str]]:
        found = self.server.tables.instances.get(self.namespace)
        yield dict(found.guards) if found is not None else {}

    def spaces(self) -> list[str]:
        tables, inside = self.server.tables, self.namespace.rstrip("/") + "/"
        named = {keys.namespace for key in (*tables.streams, *tables.aliens) if (keys := keys_of(key)) is not None}
        named |= {*tables.instances, *tables.arriving}
        return sorted(name for name in named if name == self.namespace or name.startswith(inside))

    def inside(self) -> dict[str, Inside]:
        tables, found = self.server.tables, dict[str, Inside]()
        for name in self.spaces():
            if name != self.namespace:
                there, keys = tables.instances.get(name), Keys(name)
                more = [keys.meta] if there is not None else [keys.arriving] if name in tables.arriving else []
                more += [key for key in (*tables.streams, *tables.aliens) if key.startswith(keys.prefix)]
                damage = str(wrong_type(keys.meta)) if keys.meta in tables.aliens else ""
                meta = there.meta() if there is not None and not damage else None
                found[name] = Inside(meta, tuple(sorted({*more})), damage)
        return found

    def may_have_inside(self) -> bool:
        return any(name != self.namespace for name in self.spaces())

    def weigh(self, keys: Sequence[str]) -> int | None:
        return None

    def leave(self, uid: str, tip: str, step: str, keys: Sequence[str] = (), grace_s: float = 0.0) -> bool:
        with self.server.changed:
            self.server.check(f"leave.{step}")
            tables = self.server.tables
            found = tables.instances.get(self.namespace)
            if self.keys.meta in tables.aliens:
                raise wrong_type(self.keys.meta)
            if step == "rest":
                if found is not None or self.namespace in tables.arriving:
                    return False
                for key in keys:
                    if self.keys.job_of_stream(key) >= 0:
                        tables.streams.pop(key, None)
                return True
            if found is None and step == "go":
                return True
            if found is None or (found.uid, found.tip) != (uid, tip) or not found.sealed:
                return False
            now = int(self.server.clock())
            if step == "mark":
                found.leaving = found.leaving or now
            elif step in ("stay", "back"):
                found.leaving, found.back = 0, now if step == "back" else found.back
            elif not found.leaving or now < found.leaving + grace_s:
                return False
            else:
                for table in (tables.instances, tables.journals, tables.blobs, tables.touched):
                    table.pop(self.namespace, None)
                for key in [*tables.streams, *tables.leases]:
                    if key.startswith(self.keys.prefix):
                        tables.streams.pop(key, None)
                        tables.leases.pop(key, None)
            self.server.check(f"leave.{step}", "after")
            return True
