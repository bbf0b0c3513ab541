"""The half of `MemoryStore` that opens epochs, fences, adopts, seals, as the scripts do; its children; what takes changes back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .appending import MARK, child_of, judged, moved_on, refusal
from .children import Child
from .epochs import is_anchored, lost_word
from .keys import Keys
from .memory_server import Instance, MemoryServer
from .port import Append, Appended, Entry, Meta, id_pair


class MemoryEpochs:
    """Answers as `open_epoch.lua`, `fence.lua`, `unfence.lua`, `adopt.lua`, `rebuild.lua` and `seal.lua` do."""

    server: MemoryServer
    namespace: str
    keys: Keys

    def _instance(self) -> Instance:
        raise NotImplementedError

    def _named(self, uid: str) -> Instance:
        raise NotImplementedError

    def _tip(self) -> str:
        raise NotImplementedError

    def _entry(self, version: int) -> Entry | None:
        raise NotImplementedError

    def _write(self, request: Append) -> Appended:
        raise NotImplementedError

    def _at(self, uid: str, epoch: int, tip: int) -> Instance:
        """The tables, if they are where a new epoch is to begin."""
        found = self._named(uid)
        if (found.epoch, found.version) != (epoch, tip):
            raise moved_on(self.namespace, epoch, tip, found.epoch, found.version)
        if self._tip() != found.tip:
            raise refusal("CORRUPT", f"the journal ends at {self._tip()}, meta says {found.tip}", self.namespace)
        return found

    def open_epoch(self, uid: str, old_epoch: int, tip: int) -> Meta:
        return self._open(uid, old_epoch, tip, another=False)

    def reopen(self, uid: str, old_epoch: int, tip: int) -> Meta:
        return self._open(uid, old_epoch, tip, another=True)

    def _open(self, uid: str, old_epoch: int, tip: int, *, another: bool) -> Meta:
        with self.server.changed:
            self.server.check("open_epoch")
            if self._named(uid).fork:
                raise refusal("LOST", self._named(uid).fork, self.namespace)
            found = self._at(uid, old_epoch, tip)
            self._undoable(found, "epoch", "replid", "epochs", "uid", "origin_uid", "sealed", "leaving", "back")
            found.epoch = self.server.random_epoch()
            found.replid = self.server.replid
            found.epochs = f"{found.epochs} {found.epoch}:{tip + 1}".lstrip()
            if another:
                found.origin_uid, found.sealed, found.leaving, found.back = found.origin_uid or uid, 0, 0, 0
                found.uid = f"{self.server.rng.getrandbits(96):024x}"
            self.server.check("open_epoch", "after")
            return found.meta()

    def set_room(self, uid: str, size: int) -> None:
        with self.server.changed:
            self.server.check("set_room")
            self._named(uid).room = size

    def memory(self) -> tuple[int, int, int]:
        return self.server.used_memory, 0, 0

    def raise_schema(self, uid: str, schema: int) -> None:
        with self.server.changed:
            self.server.check("raise_schema")
            found = self._named(uid)
            found.schema = max(found.schema, schema)

    def fence(self, uid: str, epoch: int, known: str) -> str:
        with self.server.changed:
            self.server.check("fence")
            found = self._named(uid)
            if found.epoch != epoch:
                raise moved_on(self.namespace, epoch, -1, found.epoch, -1)
            id, mark, _ = known.partition(":")
            there = self._entry(id_pair(id)[0])
            if there is not None and (is_anchored(there, known) if mark else there.id == id):
                return found.fork
            highest = id_pair(found.fork.partition(":")[0] or "0")[0]
            if (id_pair(id)[0], len(known)) > (highest, len(found.fork)):
                self._undoable(found, "fork")
                found.fork = known
            self.server.check("fence", "after")
            return found.fork

    def unfence(self, uid: str, epoch: int, tip: int, known: str) -> None:
        with self.server.changed:
            self.server.check("unfence")
            found = self._named(uid)
            if (found.epoch, found.version) != (epoch, tip) or found.fork not in ("", known):
                raise moved_on(self.namespace, epoch, tip, found.epoch, found.version)
            self._undoable(found, "fork")
            found.fork = ""
            self.server.check("unfence", "after")

    def adopt(
        self, uid: str, epoch: int, tip: int, lost: tuple[int, int], payload: bytes, extra: bytes = b"\x80",
        branch: Sequence[int] = (),
    ) -> Appended:  # fmt: skip
        with self.server.changed:
            self.server.check("adopt")
            found = self._at(uid, epoch, tip)
            if found.mark != tip:
                raise refusal("CORRUPT", f"the guard table is of version {found.mark}", self.namespace)
            self._undoable(found, "epoch", "replid", "epochs", "fork")
            found.epoch, found.replid, found.fork = self.server.random_epoch(), self.server.replid, ""
            found.epochs = f"{found.epochs} {found.epoch}:{tip + 1}!{lost_word(lost, branch)}".lstrip()
            answer = self._write(Append(uid, found.epoch, tip, payload, extra=extra))
            self.server.wake()
            self.server.check("adopt", "after")
            return answer

    def rebuild(
        self, uid: str, epoch: int, tip: int, guards: dict[str, str], producers: dict[str, str], inboxes: Sequence[str]
    ) -> bool:
        with self.server.changed:
            self.server.check("rebuild")
            found, tables, keys = self._at(uid, epoch, tip), self.server.tables, self.keys
            bad = {key for key in map(keys.inbox, inboxes)
                   if key in tables.aliens or (key in tables.streams and tables.streams[key].last[0] > tip)}  # fmt: skip
            if not bad and found.mark == tip and not {keys.guards, keys.producers} & tables.aliens:
                return False
            tables.aliens -= bad | {keys.guards, keys.producers}
            for key in bad:
                tables.streams.pop(key, None)
            found.guards, found.mark, found.floor = dict(guards), tip, tip
            rows = {name: row.split() for name, row in producers.items()}
            found.producers = {name: (int(seq), id, bytes.fromhex(digest)) for name, (seq, id, digest) in rows.items()}
            found.epoch, found.replid = self.server.random_epoch(), self.server.replid
            found.epochs = f"{found.epochs} {found.epoch}:{tip + 1}".lstrip()
            return True

    def seal(self, uid: str) -> None:
        with self.server.changed:
            self.server.check("seal")
            found = self._named(uid)
            if not found.sealed:
                self._undoable(found, "sealed")
                found.sealed = int(self.server.clock())
            self.server.check("seal", "after")

    def note_child(self, child: Child) -> None:
        self._set_child(child.field, child.user)

    def forget_child(self, child: Child) -> None:
        self._set_child(child.field, None)

    def _set_child(self, name: str, user: str | None) -> None:
        with self.server.changed:
            self.server.check("children")
            table = self._instance().children
            before = table.get(name)
            self.server.took(False, lambda: put_back(table, [(name, before)]))
            put_back(table, [(name, user)])

    def children(self) -> list[Child]:
        with self.server.changed:
            self.server.check("children")
            found = self._instance()
            rows = [row for row in map(child_of, found.children.keys(), found.children.values()) if row is not None]
            return judged(rows, {**found.guards, **({MARK: str(found.mark)} if found.mark is not None else {})})

    def _undoable(self, found: Instance, *names: str) -> None:
        """These attributes of the tables are about to change."""
        if self.server.remember:
            before = [(name, getattr(found, name)) for name in names]

            def undo() -> None:
                for name, value in before:
                    setattr(found, name, value)

            self.server.took(False, undo)


def put_back(table: dict[str, Any], values: Iterable[tuple[str, Any]]) -> None:
    """Set what a table had before, None for nothing."""
    for name, value in values:
        if value is None:
            table.pop(name, None)
        else:
            table[name] = value
