"""The part of `MemoryStore` about what may leave the server: a journal's oldest entries, and blobs. As the scripts do it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from .appending import not_restored, refusal, tip_moved, trim_refusal
from .keys import Keys
from .memory_server import Instance, MemoryServer
from .port import Depot, Entry, Meta, id_pair


class MemoryKeeping:
    """Answers as `trim_journal.lua`, `put_blobs.lua` and `collect_blobs.lua` do."""

    server: MemoryServer
    namespace: str
    keys: Keys

    def _named(self, uid: str) -> Instance:
        raise NotImplementedError

    def _undoable(self, found: Instance, *names: str) -> None:
        raise NotImplementedError

    def trim_journal(self, uid: str, epoch: int, through: str, archive: str) -> Meta:
        with self.server.changed:
            self.server.check("trim_journal")
            found, (last, _) = self._named(uid), id_pair(through)
            journal = self.server.tables.journals[self.namespace]
            at = bisect_right(journal, last - 1, key=lambda entry: entry.version)
            here = journal[at].id if at < len(journal) and journal[at].version == last else "none"
            word, why = "", ""
            if found.fork or (found.epoch, found.replid) != (epoch, self.server.replid):
                word, why = "EPOCH", str(found.epoch)
            elif last >= found.version:
                word = "TIP"
            elif last > found.snapshot_version:
                word, why = "SNAPSHOT", str(found.snapshot_version)
            elif last > id_pair(found.trimmed)[0]:
                if here == through:
                    self._undoable(found, "trimmed", "archive")
                    gone = journal[: at + 1]
                    self.server.took(False, lambda: journal.__setitem__(slice(0, 0), gone))
                    found.trimmed, found.archive = through, archive
                    del journal[: at + 1]
                else:
                    word, why = "OTHER", here
            if word:
                raise trim_refusal(word, why, self.namespace, through)
            self.server.check("trim_journal", "after")
            return found.meta()

    def restore(self, uid: str, entries: Sequence[Entry]) -> None:
        self.server.check("restore")
        with self.server.changed:
            found, journal = self._restorable(uid), self.server.tables.journals[self.namespace]
            for entry in entries:
                if entry.version > found.version + 1:
                    raise not_restored(self.namespace, str(found.version))
                if entry.version == found.version + 1:
                    journal.append(entry)
                    found.version = found.mark = entry.version
                    found.tip = entry.id

    def restored(self, uid: str, guards: dict[str, str], epochs: str) -> Meta:
        self.server.check("restored")
        with self.server.changed:
            found = self._restorable(uid)
            found.guards.update(guards)
            found.epochs, found.floor = epochs, found.version
            return found.meta()

    def _restorable(self, uid: str) -> Instance:
        found = self._named(uid)
        if id_pair(found.tip)[1] == found.epoch:
            raise not_restored(self.namespace, found.tip)
        return found

    def depot(self, url: str, *, to_read: bool = False) -> Depot:
        from .depot import open_depot

        return open_depot(url, to_read=to_read)

    def outputs(self) -> dict[int, float]:
        self.server.check("outputs")
        found: dict[int, float] = {}
        for key, stream in self.server.tables.streams.items():
            job = self.keys.job_of_stream(key)
            if job >= 0 and key not in self.server.tables.aliens:
                last = stream.items[-1][0][0] / 1000 if stream.items else 0.0
                found[job] = max(last, found.get(job, 0.0))
        return found

    def shrink(self, uid: str, packed: Sequence[str], dropped: Sequence[str]) -> bool:
        with self.server.changed:
            self.server.check("shrink")
            found = self.server.tables.instances.get(self.namespace)
            if found is None or found.uid != uid or not found.sealed:
                return False
            for key in dropped:
                self.server.drop_stream(key)
            return True

    def put_blobs(self, blobs: dict[str, bytes]) -> None:
        self.server.check("put_blobs")
        with self.server.changed:
            found = self.server.tables.instances.get(self.namespace)
            if found is not None and found.sealed:
                raise refusal("ENDED", "", self.namespace)
            if found is not None and 0 < found.room < self.server.used_memory and not blobs.keys() <= self._held.keys():
                raise refusal("FULL", str(self.server.used_memory), self.namespace)
            self._held.update(blobs)
            self._touched.update(dict.fromkeys(blobs, self.server.clock()))

    @property
    def _held(self) -> dict[str, bytes]:
        return self.server.tables.blobs.setdefault(self.namespace, {})

    @property
    def _touched(self) -> dict[str, float]:
        return self.server.tables.touched.setdefault(self.namespace, {})

    def get_blobs(self, names: Sequence[str]) -> list[bytes | None]:
        self.server.check("get_blobs")
        return [self._held.get(name) for name in names]

    def touch_blobs(self, names: Sequence[str]) -> list[str]:
        self.server.check("touch_blobs")
        with self.server.changed:
            now = self.server.clock()
            self._touched.update({name: now for name in names if name in self._held})
            return [name for name in names if name not in self._held]

    def idle_blobs(self, before: float) -> list[str]:
        self.server.check("idle_blobs")
        return [name for name in self._held if self._touched[name] < before]

    def collect_blobs(self, uid: str, tip: str, before: float, names: Sequence[str]) -> int:
        self.server.check("collect_blobs")
        with self.server.changed:
            found, held, touched = self._named(uid), self._held, self._touched
            if names and found.tip != tip:
                raise tip_moved(self.namespace, tip, found.tip)
            old = [name for name in names if name in held and touched[name] < before]
            for name in old:
                del held[name], touched[name]
            return len(old)
