"""A node of a child instance that does not lead it: waits until the instance is there, has the node, and has stopped.

Reads only, and decides nothing: its agent acts, and the leading node's keeper says what becomes of the instance.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from ..journal.log import Journal
from ..journal.wire import well_formed
from ..kvs.errors import Corrupt, FluxkvError, Rejected, Unavailable
from ..kvs.redis_store import open_store
from ..kvs.uri import public
from .child import Place
from .follow import Tail

if TYPE_CHECKING:
    from ..journal.state import State

MEMBER_LOOK_S = 2.0
AWAY_S = 3.0
LOOK_AGAIN_S = 0.2
GONE, ANEW, OTHER = "gone", "made-anew", "another"  # codes: while it was read; what is there is ours, or somebody else's


def wait_until_started(uri: str, timeout_s: float = 60.0, resumed: str = "") -> None:
    """Followers wait for the leading node to have made the namespace. resumed: or to have taken it up, for this attempt's entry."""
    if resumed:
        from .resume import wait_until_taken

        wait_until_taken(uri, resumed, timeout_s)
        return
    deadline = time.monotonic() + timeout_s
    store = open_store(uri, patience_s=1.0)
    try:
        while time.monotonic() < deadline:
            try:
                if store.meta().version:
                    return
            except Unavailable as error:
                if error.code not in ("no-instance", "refused"):  # its user may be about to be made again
                    raise
            time.sleep(0.02)
    finally:
        store.close()
    raise Unavailable(f"{public(uri)}: its leading node has not started it", code="no-instance")


def wait_until_member(uri: str, here: Place) -> bool:
    """Block until a follower's node is in the instance's inventory; False if it is not to be: the instance has stopped, or the
    node is asked back before it was used. Of the nodes that its job began with that is so from the first event on; of one that
    came later its leading keeper says so."""
    while True:
        try:
            return _wait(uri, lambda state: here.node in state.nodes, lambda: is_asked_back(here), entry=here.entry)
        except Rejected as error:  # nothing of ours has begun in what it was
            if error.code != ANEW:
                raise


def is_asked_back(here: Place) -> bool:
    """Whether this node of its job is to leave it, or all of them, or nobody leads the instance any more."""
    from ..journal.resizing import index_of, lead_of, leaving_of

    with closing(open_store(here.parent)) as store:
        job = Journal(store).look().jobs.get(here.job)
    if job is None or not job.holds or lead_of(job) in job.over:
        return True
    return here.node in {index_of(job, rank) for rank in leaving_of(job)}


def wait_until_stopped(
    uri: str, rank: int = -1, is_over: Callable[[], bool] = lambda: False, never: Callable[[], bool] = lambda: False,
    entry: str = "",
) -> bool:  # fmt: skip
    """Block until the instance says it has stopped (followers live as long as it does, and a server that is away ends nobody), or
    the node `rank` is in its inventory no more. True: it was made anew instead, by the keeper of this very attempt, since its
    server had lost all of it; what is here is of the one that is no more.

    is_over: asked while the server is away, which may be the instance's own, and gone with it. never: whether it is not worth
    waiting for, asked when nothing has come for a while. entry: what began the attempt. Raises `Rejected` (code another) where
    another instance is there, which is none of ours.
    """
    try:
        _wait(uri, lambda state: rank >= 0 and rank not in state.nodes, never, is_over, entry)
    except Rejected as error:
        if error.code != ANEW:
            raise
        return True
    return False


def _wait(
    uri: str, done: Callable[[State], bool], never: Callable[[], bool] = lambda: False,
    is_over: Callable[[], bool] = lambda: False, entry: str = "",
) -> bool:  # fmt: skip
    """Until it is so (True), or the instance has stopped, or it will never be so (asked when nothing has come for a while)."""
    known = ""
    while True:
        try:
            with closing(open_store(uri)) as store:  # another each time: one that knew an instance speaks to no other
                journal = Journal(store)
                state = journal.look()
                if not state.version:
                    raise Unavailable(f"{store.namespace}: it is being made", code="no-instance")
                if known and journal.meta.uid != known:
                    raise _another(store.namespace, entry, state)
                known = journal.meta.uid
                if state.instance.get("stopped"):
                    return False
                if done(state):
                    return True
                with closing(Tail(store, state.version, f"{state.version}-{state.epoch}", patience_s=AWAY_S)) as tail:
                    if _quiet(tail, never):
                        return False
        except Corrupt:  # history was lost, and adopted without: what is there now decides
            time.sleep(1.0)
        except Unavailable:
            if is_over() or _will_never(never):
                return False
            time.sleep(1.0)
        except Rejected as error:
            if error.code != GONE or not entry:
                raise
            time.sleep(LOOK_AGAIN_S)  # at what is there now


def _another(namespace: str, entry: str, state: State) -> Rejected:
    """entry: what began our attempt: whether its keeper made what is there now."""
    ours = entry and state.instance.get("attempt") == entry
    return Rejected(f"the instance at {namespace} is not the one it was", code=ANEW if ours else OTHER)


def _will_never(never: Callable[[], bool]) -> bool:
    """Where the server is away, so may be the one that is asked."""
    try:
        return never()
    except FluxkvError:
        return False


def _quiet(tail: Tail, never: Callable[[], bool]) -> bool:
    """Read on until something has changed that is waited for (False), or never will (True)."""
    asked = time.monotonic()
    while True:
        for commit in tail.poll(MEMBER_LOOK_S)[0]:
            if any(name in ("instance-stop", "resource-define") for name, *_ in well_formed(commit.events)):
                return False
        if time.monotonic() - asked >= MEMBER_LOOK_S:
            asked = time.monotonic()
            if never():
                return True
