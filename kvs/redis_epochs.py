"""The half of `RedisStore` that opens epochs, fences, adopts and seals, and about children. Decides nothing: the scripts do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .appending import MARK, child_of, header_prefix, judged, moved_on, refusal
from .children import Child
from .epochs import lost_word
from .keys import Keys
from .port import Append, Appended, Meta

TABLE_STEP = 1_000  # rows in one command


class EpochScripts:
    """Calls the scripts about epochs, each a compare-and-set that may be sent again."""

    namespace: str
    keys: Keys
    fenced: bool

    def meta(self) -> Meta:
        raise NotImplementedError

    def _ask(self, *command: Any) -> Any:
        raise NotImplementedError

    def _script(self, name: str, keys: list[str], values: list[Any], *, resend: bool) -> Any:
        raise NotImplementedError

    def set_room(self, uid: str, size: int) -> None:
        self._refused(self._script("set_room", [self.keys.meta], [uid, size], resend=True), 0)

    def raise_schema(self, uid: str, schema: int) -> None:
        self._refused(self._script("raise_schema", [self.keys.meta], [uid, schema], resend=True), 0)

    def open_epoch(self, uid: str, old_epoch: int, tip: int) -> Meta:
        self._open(uid, old_epoch, tip, "")
        return self.meta()

    def reopen(self, uid: str, old_epoch: int, tip: int) -> Meta:
        new = os.urandom(12).hex()
        self._open(uid, old_epoch, tip, new)
        meta = self.meta()
        if meta.uid != new:
            raise refusal("GONE", "", self.namespace)  # somebody was quicker still
        return meta

    def _open(self, uid: str, old_epoch: int, tip: int, new_uid: str) -> None:
        answer = self._script(
            "open_epoch", [self.keys.meta, self.keys.journal],
            [uid, old_epoch, tip, new_epoch(), "1" if self.fenced else "0", new_uid], resend=True,
        )  # fmt: skip
        self._refused(answer, old_epoch, tip)

    def fence(self, uid: str, epoch: int, known: str) -> str:
        answer = self._script("fence", [self.keys.meta, self.keys.journal], [uid, epoch, known], resend=True)
        self._refused(answer, epoch)
        found: str = answer[1].decode()
        return found

    def unfence(self, uid: str, epoch: int, tip: int, known: str) -> None:
        self._refused(self._script("unfence", [self.keys.meta], [uid, epoch, tip, known], resend=True), epoch, tip)

    def adopt(
        self, uid: str, epoch: int, tip: int, lost: tuple[int, int], payload: bytes, extra: bytes = b"\x80",
        branch: Sequence[int] = (),
    ) -> Appended:  # fmt: skip
        new = new_epoch()
        prefix = header_prefix(Append(uid, new, tip, payload, extra=extra))
        answer = self._script(
            "adopt", [self.keys.meta, self.keys.journal, self.keys.guards],
            [uid, epoch, tip, new, "1" if self.fenced else "0", lost_word(lost, branch), prefix, payload], resend=True,
        )  # fmt: skip
        self._refused(answer, epoch, tip)
        return Appended(tip + 1, new)

    def rebuild(
        self, uid: str, epoch: int, tip: int, guards: dict[str, str], producers: dict[str, str], inboxes: Sequence[str]
    ) -> bool:
        new, keys = new_epoch(), self.keys
        tables = [keys.journal, keys.meta, keys.guards, keys.producers]

        def step(name: str, *values: Any, more: Sequence[str] = ()) -> bool:
            answer = self._script("rebuild", [*tables, *more], [uid, new, name, *values], resend=True)
            whole: bool = answer[0] == b"WHOLE"
            if not whole:
                self._refused(answer, new if name != "begin" else epoch, tip)
            return not whole

        if not step("begin", epoch, tip, "1" if self.fenced else "0", more=[keys.inbox(name) for name in inboxes]):
            return False
        for name, table in (("guards", guards), ("producers", producers)):
            rows = list(table.items())
            for at in range(0, len(rows), TABLE_STEP):
                step(name, *[part for row in rows[at : at + TABLE_STEP] for part in row])
        return step("end")

    def seal(self, uid: str) -> None:
        self._refused(self._script("seal", [self.keys.meta], [uid], resend=True), 0)

    def note_child(self, child: Child) -> None:
        self._ask("HSET", self.keys.children, child.field, child.user)

    def children(self) -> list[Child]:
        flat = [part.decode() for part in self._ask("HGETALL", self.keys.children)]
        rows = [row for row in map(child_of, flat[::2], flat[1::2]) if row is not None]
        if not rows:
            return []
        things = [MARK, *dict.fromkeys(row.thing for row in rows)]
        found = self._ask("HMGET", self.keys.guards, *things)
        return judged(rows, {thing: id.decode() for thing, id in zip(things, found, strict=True) if id is not None})

    def forget_child(self, child: Child) -> None:
        self._ask("HDEL", self.keys.children, child.field)

    def _refused(self, answer: list[Any], epoch: int, tip: int = -1) -> None:
        """Raise what an answer of a script about epochs means that is not OK."""
        word = answer[0].decode()
        if word == "MOVED":
            raise moved_on(self.namespace, epoch, tip, int(answer[1]), int(answer[2]) if len(answer) > 2 else -1)
        if word != "OK":
            raise refusal(word, answer[1].decode() if len(answer) > 1 else "", self.namespace)


def new_epoch() -> int:
    """A random epoch: 48 bits, never 0."""
    return int.from_bytes(os.urandom(6), "big") or 1
