"""Children whose jobs are over are sealed, with all that is inside them: whoever of them comes back decides and starts nothing.

Decides when: once the attempt that a child is has ended by the parent's journal, whatever became of the child's own processes. A
keeper looks every second at a table that has a row for each living child, so an instance without any pays one question. All of it
may be done twice, by several keepers, and after a crash between any two steps: the row goes last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from ..kvs.children import Child
from ..kvs.errors import FluxkvError, Unavailable
from ..kvs.port import Store
from . import at_rest

# It was never made; somebody goes on with it under another identity; its own server is out of reach, so it has nothing of ours.
NOT_THERE = ("no-instance", "gone", "server-away")


def duty(
    store: Store, settings: Mapping[str, Any], is_stopping: Callable[[], bool] = lambda: False,
    say: Callable[[str, str], None] = lambda level, text: None,
) -> Callable[[], None]:  # fmt: skip
    """A keeper's look: a server that is away is asked again the next time. is_stopping: somebody waits for the keeper's end, and
    what is left is sealed there, or by who seals this instance. say: its log, which hears of what else stands in the way, once."""
    from .sealing_led import Led

    led, told = Led(), set[str]()

    @contextmanager
    def saying() -> Iterator[None]:
        try:
            yield
        except Unavailable:
            pass
        except FluxkvError as error:
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
            seal_over(store, settings, is_stopping)
        if not is_stopping():
            with saying():
                led.look(store, settings, rows)

    return look


def namespace_of(parent: str, child: Child) -> str:
    return f"{parent.rstrip('/')}/{child.name}"


def seal_over(store: Store, settings: Mapping[str, Any], is_enough: Callable[[], bool] = lambda: False) -> list[str]:
    """Seal each child of this instance whose job is over, take its user away, and strike it out. Their namespaces. Raises what the
    store does; what is wrong with one child keeps nobody from the others, and is raised after them.

    settings: of a keeper of this instance. is_enough: asked before each; the others are left as they are.
    """
    failed: list[FluxkvError] = []
    over = dict[Child, str]()
    rows = [child for child in store.children() if child.over]
    ask_at_once(store, rows)
    for child in rows:
        with _noting(failed):
            over[child] = _uid(store, child)
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
            _seal(store, child, _uid(store, child), settings)
            _forget(store, child, settings)
    _raise(failed)


def seal_child(store: Store, child: Child, settings: Mapping[str, Any]) -> None:
    """Seal one child, and what is inside it, whatever its job is about."""
    _seal(store, child, _uid(store, child), settings)


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


def _uid(store: Store, child: Child) -> str:
    """Which instance a child is now, "" if there is none."""
    found = ""

    def look(other: Store) -> None:
        nonlocal found
        found = other.meta().uid

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
