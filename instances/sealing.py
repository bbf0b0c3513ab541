"""Children whose jobs are over are sealed, with all that is inside them: whoever of them comes back decides and starts nothing.

Decides when: once the attempt that a child is has ended by the parent's journal, whatever became of the child's own processes. A
keeper looks every second at a table that has a row for each living child, so an instance without any pays one question. All of it
may be done twice, by several keepers, and after a crash between any two steps: the row goes last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from ..kvs.children import Child
from ..kvs.errors import FluxkvError, Unavailable
from ..kvs.port import Store
from . import at_rest

LEFT_S = 1.0  # how long one that sealed itself is left as it is
# It was never made; somebody goes on with it under another identity; its own server is out of reach, so it has nothing of ours.
NOT_THERE = ("no-instance", "gone", "server-away")


class Left:
    """Children that ended in order, and so have sealed themselves: nothing is urgent about them, and whatever else runs here, or
    ends with them, wants the processor now. They are left as they are for a moment."""

    def __init__(self) -> None:
        self._until: dict[Child, float] = {}

    def look(self, rows: Sequence[Child]) -> set[Child]:
        """Those of a table that are left as they are now."""
        for row in self._until.keys() - set(rows):
            del self._until[row]
        now = time.monotonic()
        return {row for row, until in self._until.items() if until > now}

    def leave(self, child: Child) -> bool:
        """Whether one that has sealed itself is left: once."""
        if child in self._until:
            return False
        self._until[child] = time.monotonic() + LEFT_S
        return True


def duty(
    store: Store, settings: Mapping[str, Any], is_stopping: Callable[[], bool] = lambda: False,
    say: Callable[[str, str], None] = lambda level, text: None, left: Left | None = None,
) -> Callable[[], None]:  # fmt: skip
    """A keeper's look: a server that is away is asked again the next time. is_stopping: somebody waits for the keeper's end, and
    what is left is sealed there, or by who seals this instance. say: its log, which hears of what else stands in the way, once.
    left: what it remembers of those that have sealed themselves; None: none is left as it is."""
    from .sealing_led import Led

    led, told = Led(), set[str]()

    @contextmanager
    def saying() -> Iterator[None]:
        try:
            yield
        except FluxkvError as error:
            if isinstance(error, Unavailable) or error.code in NOT_THERE:  # this instance is away, or no more: others say that
                return
            if (text := str(error)) not in told:
                told.add(text)
                say("warning", f"a child that is over can not be sealed: {text}")

    def look() -> None:
        rows = list[Child]()
        with saying():
            rows = store.children()
        if not rows:
            told.clear()
            return
        with saying():
            seal_over(store, settings, is_stopping, left)
        if not is_stopping():
            with saying():
                led.look(store, settings, rows)

    return look


def namespace_of(parent: str, child: Child) -> str:
    return f"{parent.rstrip('/')}/{child.name}"


def seal_over(
    store: Store, settings: Mapping[str, Any], is_enough: Callable[[], bool] = lambda: False, left: Left | None = None
) -> list[str]:
    """Seal each child of this instance whose job is over, take its user away, and strike it out. Their namespaces. Raises what the
    store does; what is wrong with one child keeps nobody from the others, and is raised after them.

    settings: of a keeper of this instance. is_enough: asked before each; the others are left as they are. left: knows which of them
    may be for a moment.
    """
    failed: list[FluxkvError] = []
    over, table = dict[Child, str](), store.children()
    resting = left.look(table) if left is not None else set[Child]()
    rows = [child for child in table if child.over and child not in resting]
    ask_at_once(store, rows)
    for child in rows:
        with _noting(failed):
            uid, is_sealed = _identity(store, child)
            if left is None or not is_sealed or not left.leave(child):
                over[child] = uid
    if not over:
        _raise(failed)
        return []
    # Another job that goes on with a child is in the table before it gives it another uid: what has no such row has the uid read.
    alive = {child.name for child in store.children() if not child.over}
    sealed = []
    for child, uid in over.items():
        if is_enough():
            break
        with _noting(failed):
            if child.name not in alive:
                _seal(store, child, uid, settings)
                sealed.append(namespace_of(store.namespace, child))
            _forget(store, child, settings)
    _raise(failed)
    return sealed


def seal_below(store: Store, settings: Mapping[str, Any]) -> None:
    """Seal all children of an instance that is sealed itself, and theirs: none of its jobs goes on."""
    failed: list[FluxkvError] = []
    rows = store.children()
    ask_at_once(store, rows)
    for child in rows:
        with _noting(failed):
            _seal(store, child, _identity(store, child)[0], settings)
            _forget(store, child, settings)
    _raise(failed)


def seal_child(store: Store, child: Child, settings: Mapping[str, Any]) -> None:
    """Seal one child, and what is inside it, whatever its job is about."""
    _seal(store, child, _identity(store, child)[0], settings)


def ask_at_once(store: Store, children: Iterable[Child]) -> None:
    """Before these are looked at one after the other: a keeper waits once for all whose own servers say nothing."""
    from .whereabouts import ask_at_once as ask

    ask(store, [namespace_of(store.namespace, child) for child in children])


@contextmanager
def _noting(failed: list[FluxkvError]) -> Iterator[None]:
    try:
        yield
    except FluxkvError as error:
        failed.append(error)


def _raise(failed: list[FluxkvError]) -> None:
    if failed:
        raise failed[0]


def _forget(store: Store, child: Child, settings: Mapping[str, Any]) -> None:
    if child.user:
        from .access import take_away

        take_away(child.user, settings)
    store.forget_child(child)


def _identity(store: Store, child: Child) -> tuple[str, bool]:
    """(Which instance a child is now, "" if there is none; whether it is sealed)."""
    found = "", False

    def look(other: Store) -> None:
        nonlocal found
        meta = other.meta()
        found = meta.uid, bool(meta.sealed)

    _with(store, child, look)
    return found


def _seal(store: Store, child: Child, uid: str, settings: Mapping[str, Any]) -> None:
    def seal(other: Store) -> None:
        other.seal(uid)
        seal_below(other, settings)
        at_rest.shrink(other, uid)

    if uid:
        _with(store, child, seal)


def _with(store: Store, child: Child, work: Callable[[Store], None]) -> None:
    """Do something about a child's journal, wherever it is. What is not there need not be told."""
    from .whereabouts import store_of  # a keeper has children only later, if any

    try:
        other = store_of(store, namespace_of(store.namespace, child), archived=False)  # whose place may hang
        if other is not None:
            with closing(other):
                work(other)
    except FluxkvError as error:
        if error.code not in NOT_THERE:
            raise
