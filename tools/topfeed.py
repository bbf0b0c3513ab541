"""What `fluxkv top` sees of one instance: its journal followed by a thread of its own, and pictures made from it.

Decides when a picture is made, and what is read again after a loss. Asks no daemon. The terminal is never kept waiting: a server
that is away, a long history, or an estimate takes this thread's time, not that of whoever presses keys.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from ..instances.child import child_namespace, space_told
from ..instances.child_store import ChildStore
from ..instances.follow import Tail
from ..instances.outlook import Outlook
from ..instances.whereabouts import PATIENCE_S, uri_of
from ..journal.log import Journal, no_collection
from ..kvs.errors import Corrupt, FluxkvError, Unavailable
from ..kvs.redis_store import open_store
from ..kvs.uri import parse_uri, with_namespace
from .foresight import BUDGET_S, Budget
from .reading import gc_paused
from .topmodel import Model
from .toprows import LONG_S, Picture, Wishes

if TYPE_CHECKING:
    from ..kvs.port import Store

AGAIN_S = 0.3  # between two tries of a server that is away
SHARE = 20  # an estimate is made anew when so many times its own time has passed
ESTIMATE_S = 2.0  # and not earlier than this
SEEDS = 20_000  # jobs that ended lately which are looked at for the first rates


class Sight(NamedTuple):
    """What there is to see. picture: None before the first. lost_s: how long the server has been away. fault: why nothing more
    will come, "" as long as something may."""

    picture: Picture | None
    lost_s: float = 0.0
    fault: str = ""


def opener(uri: str) -> Callable[[], Journal]:
    """What opens the journal of an instance, called in the thread that reads it."""
    return lambda: Journal(open_store(uri, kind=ChildStore, patience_s=2.0), "top")


def way_in(uri: str, job: int, attempt: int, told: str = "") -> str:
    """The URI of the instance that a job of this one is; where none is found, the one that it would have. told: its memo, which may
    name the instance that it went on with. Raises `Unavailable`."""
    parent = parse_uri(uri).namespace
    namespace, said = child_namespace(parent, job, attempt), space_told(told, parent)
    if said.partition(".")[0] != child_namespace(parent, job) and said:
        namespace = said
    store = open_store(uri, patience_s=PATIENCE_S)
    try:
        found = uri_of(store, uri, namespace, over=True)
        if found is None and said:  # an attempt that goes on with an earlier one's has none of its own
            found = uri_of(store, uri, said, over=True)
        return found or with_namespace(uri, namespace)
    finally:
        store.close()


def begin(journal: Journal) -> tuple[Model, float]:
    """(an instance as it is now, how far its server's clock is ahead of ours in seconds)."""
    with gc_paused():
        model = Model(journal.look(), over=bool(journal.meta.sealed))
    now = journal.store.now()
    model.seed(journal.newest(model.state, SEEDS, lambda job: True, now - LONG_S - 1))
    return model, now - time.time()


def estimate(model: Model, picture: Picture) -> bool:
    """Have the model know when those that wait in this picture are expected to begin; False if nobody there waits."""
    waiting = model.waiting(picture)
    if waiting:
        budget = Budget(BUDGET_S)
        model.outlook = Outlook(model.state, picture.now, waiting, budget.spent, budget.half_spent)
    return bool(waiting)


def one_picture(journal: Journal, wishes: Wishes) -> Picture:
    """What there is to see at this moment."""
    model, ahead = begin(journal)
    picture = model.picture(wishes, time.time() + ahead)
    return model.picture(wishes, picture.now) if estimate(model, picture) else picture


class Feed:
    """Follows an instance until it is closed, and shows what it sees: at most once in `interval_s`, at once after a wish.

    open: makes the journal. show: gets each `Sight`, in the feed's thread.
    """

    def __init__(self, open: Callable[[], Journal], show: Callable[[Sight], None], interval_s: float, wishes: Wishes) -> None:
        self._open, self._show, self._interval_s = open, show, interval_s
        self._wishes = wishes
        self._closing = False
        self._lost_at = 0.0
        self._picture: Picture | None = None
        self._estimated: tuple[int, frozenset[int]] = (-1, frozenset())  # version, and whose start was asked for
        self._estimate_at = 0.0
        self._asleep, self._alarm = os.pipe()
        os.set_blocking(self._alarm, False)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="top", daemon=True)
        self._thread.start()

    def wish(self, wishes: Wishes) -> None:
        """Have this shown from now on."""
        self._wishes = wishes
        self._wake()

    def close(self) -> None:
        """Show nothing more. Does not wait for a server that hangs; the thread lets go of what it has when it is through."""
        self._closing = True
        self._wake()
        self._thread.join(0.5)

    def _wake(self) -> None:
        with self._lock:
            if self._alarm >= 0:
                try:
                    os.write(self._alarm, b"x")
                except BlockingIOError:  # it has been woken often enough
                    pass

    # -- in the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        store: Store | None = None
        try:
            while not self._closing:
                try:
                    if store is None:
                        journal = self._open()
                        store = journal.store
                    else:
                        journal = Journal(store, "top")
                    self._lost_at = 0.0
                    self._follow(journal)
                except Unavailable as error:
                    if store is None or error.code == "no-instance":
                        raise
                    self._lost_at = self._lost_at or time.monotonic()
                    self._tell()
                    self._wait(-1, AGAIN_S)
                except Corrupt as error:  # history was lost, or taken up anew: what is there now is read
                    if error.code not in ("forked", "tail-behind"):
                        raise
                    self._wait(-1, AGAIN_S)
        except FluxkvError as error:
            self._say(Sight(self._picture, 0.0, f"{error}"))
        except Exception as error:
            self._say(Sight(self._picture, 0.0, f"this is a fault in fluxkv: {type(error).__name__}: {error}"))
        finally:
            if store is not None:
                store.close()
            with self._lock:
                os.close(self._asleep)
                os.close(self._alarm)
                self._alarm = -1

    def _follow(self, journal: Journal) -> None:
        model, ahead = begin(journal)
        state = model.state
        position = f"{state.version}-{state.epoch}" if state.version else ""
        self._estimated = (-1, frozenset())
        shown: Wishes | None = None
        next_at = 0.0
        with closing(Tail(journal.store, state.version, position, patience_s=float("inf"))) as tail:
            while not self._closing:
                for commit in tail.each(0.0):
                    model.apply(commit)
                self._lost_at = time.monotonic() - tail.lost_s if tail.lost_s else 0.0
                began = time.monotonic()
                if self._wishes is not shown or began >= next_at:
                    shown = self._wishes
                    with no_collection():
                        self._picture = model.picture(shown, time.time() + ahead)
                    self._tell()
                    if self._estimates(model):
                        self._picture = model.picture(shown, time.time() + ahead)
                        self._tell()
                    next_at = began + self._interval_s
                self._wait(tail.fileno(), max(0.0, next_at - time.monotonic()) if not self._lost_at else AGAIN_S)

    def _estimates(self, model: Model) -> bool:
        """Whether starts have been estimated anew: what is shown is not what they were asked for, and it is time."""
        assert self._picture is not None
        asked = model.state.version, frozenset(model.waiting(self._picture))
        began = time.monotonic()
        if not asked[1] or asked == self._estimated or began < self._estimate_at:
            return False
        estimate(model, self._picture)
        self._estimated = asked
        self._estimate_at = time.monotonic() + max(ESTIMATE_S, SHARE * (time.monotonic() - began))
        return True

    def _wait(self, descriptor: int, timeout_s: float) -> None:
        """For something to come, a wish, or the time to pass."""
        ready = select.select([self._asleep] + ([descriptor] if descriptor >= 0 else []), [], [], timeout_s)[0]
        if self._asleep in ready:
            os.read(self._asleep, 4096)

    def _tell(self) -> None:
        self._say(Sight(self._picture, time.monotonic() - self._lost_at if self._lost_at else 0.0))

    def _say(self, sight: Sight) -> None:
        if not self._closing:
            self._show(sight)
