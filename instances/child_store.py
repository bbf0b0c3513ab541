"""The store of a child that is read: where it leaves the server meanwhile, the rest is read in the archive. Writes do not follow.

A child that ended stays for half a minute after it was marked, for whoever looked before; who takes longer than that finds it gone
in the middle, and would take what he is not given for history that was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import TypeVar

from ..kvs.errors import Rejected, Unavailable
from ..kvs.port import Entry, Message, Meta, Store
from ..kvs.redis_store import RedisStore, open_store
from ..kvs.uri import StoreUri

T = TypeVar("T")


class ChildStore(RedisStore):
    """A namespace on a server as long as it is there, then the file that has it. What is nowhere costs one question more."""

    _there: Store | None = None

    def meta(self) -> Meta:
        return self._either(super().meta, lambda there: there.meta(), lambda found: True)

    def read(self, after: int, limit: int = 1000) -> list[Entry]:
        return self._either(lambda: super(ChildStore, self).read(after, limit), lambda there: there.read(after, limit), bool)

    def entries(self, versions: Sequence[int]) -> list[Entry]:
        def is_all(found: list[Entry]) -> bool:
            return len(found) == len(versions)

        return self._either(lambda: super(ChildStore, self).entries(versions), lambda there: there.entries(versions), is_all)

    def messages(self, key: str, after: str = "0", limit: int = 1000) -> list[Message]:
        return self._either(
            lambda: super(ChildStore, self).messages(key, after, limit), lambda there: there.messages(key, after, limit), bool
        )

    def load_snapshot(self) -> tuple[bytes, list[bytes]] | None:
        return self._either(super().load_snapshot, lambda there: there.load_snapshot(), bool)

    def get_blobs(self, names: Sequence[str]) -> list[bytes | None]:
        def is_all(found: list[bytes | None]) -> bool:
            return None not in found

        return self._either(lambda: super(ChildStore, self).get_blobs(names), lambda there: there.get_blobs(names), is_all)

    def close(self) -> None:
        super().close()
        if self._there is not None:
            self._there.close()

    def _either(self, here: Callable[[], T], there: Callable[[Store], T], is_all: Callable[[T], bool]) -> T:
        if self._there is not None:
            return there(self._there)
        try:
            found = here()
            if is_all(found) or not self._has_left():
                return found
        except (Rejected, Unavailable) as error:
            if error.code not in ("no-instance", "gone") or not self._has_left():
                raise
        assert self._there is not None
        return there(self._there)

    def _has_left(self) -> bool:
        """Whether it was here, and is in the archive only by now."""
        from . import away, whereabouts

        if not self._uid:
            return False
        try:
            super().meta()
            return False
        except (Rejected, Unavailable) as error:
            if error.code not in ("no-instance", "gone"):
                raise
        with closing(whereabouts.beside(self, self.namespace.rpartition("/")[0] or "/")) as around:
            url = away.find(around, self.namespace)
        if url is None:
            return False
        with ExitStack() as kept:
            there = kept.enter_context(closing(open_store(str(StoreUri(url, self.namespace)))))
            if there.meta().uid != self._uid:
                return False
            kept.pop_all()
            self._there = there
            return True
