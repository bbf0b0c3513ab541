"""What reading and admin commands share: the state at a moment, following the journal, naming nodes. Decides
no rules.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..kvs.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from ..journal.log import Journal
    from ..journal.state import State
    from ..journal.wire import Commit
    from ..kvs.port import Subscription

F = TypeVar("F", bound=Callable[..., Any])
WAIT_S = 30.0  # how long one wait on the journal lasts before it is asked again
CHILD_WAIT_S = 1.0  # of an instance that may end
PATIENCE_S = 20.0  # how long a lost server is waited for
RECONNECT_S = 0.1


def at_option(command: F) -> F:
    """Adds --at (argument `at`)."""
    return click.option(
        "--at", metavar="VERSION|TIME", help='As it was then: a version, a time ("10:30", -5m), @SECONDS.'
    )(command)


def uri_option(command: F) -> F:
    """Adds --uri alone: a command that writes needs the running instance."""
    return click.option(
        "--uri", metavar="URI", help="The instance to speak to (default: FLUXKV_URI, else the one running)."
    )(command)


@contextmanager
def gc_paused() -> Iterator[None]:
    """No garbage collection while a state is built: that makes many objects and no garbage, and looking
    through them again and again doubles the time. What is there at the end is not looked through any more."""
    import gc

    from ..journal.log import no_collection

    with no_collection():
        try:
            yield
        finally:
            gc.freeze()


def load(journal: Journal, at: str | None = None, *, remarks: bool = True) -> tuple[State, float]:
    """(state, time in Unix seconds): now, or as of the moment `at` names; at the latest when it ended, of an instance that did
    before its jobs. remarks: that is said."""
    if not at:
        with gc_paused():
            state, now = journal.look(), journal.store.now()
        if journal.meta.sealed:
            from ..instances.left_behind import remark

            if text := remark(journal, state):
                if remarks:
                    journal.warn(text)
                now = min(now, float(journal.meta.sealed))  # nothing of it has run since
        return state, now
    from .target import parse_moment

    now = journal.store.now()
    moment = parse_moment(at, now)
    if moment.version is not None:
        tip = journal.store.meta().version
        if moment.version > tip:
            raise Rejected(
                f"version {moment.version} is not there yet: the journal ends at {tip}", code="bad-moment"
            )
        with gc_paused():
            state = journal.at(moment.version)
        return state, state.time or now
    assert moment.time is not None
    if moment.time > now + 1:
        raise Rejected(f"{at!r} is still to come", code="bad-moment", hint="name a moment of the past, such as -5m or 10:30")
    with gc_paused():
        return journal.at(moment=moment.time), moment.time


def bound(journal: Journal, until: str | None) -> tuple[int | None, float | None]:
    """(last version, last server time) of what --until names; None where it sets no bound."""
    if not until:
        return None, None
    from .target import parse_moment

    moment = parse_moment(until, journal.store.now())
    return moment.version, moment.time


def commits_until(
    journal: Journal, after: int, version: int | None, moment: float | None
) -> Iterator[Commit]:
    """Commits after a version up to a bound."""
    for commit in journal.commits(after, version):
        if moment is not None and commit.time > moment:
            return
        yield commit


def follow(journal: Journal, state: State, timeout_s: float | None = None) -> Iterator[State]:
    """The state now, and again after each batch of new commits; ends when `timeout_s` is over.

    Waits on the journal itself. Raises `Unavailable` when the server stays away, or the instance has ended (code ended).
    """
    from ..instances.left_behind import Patience
    from ..kvs.keys import Keys

    key = Keys(journal.store.namespace).journal
    subscription = journal.store.subscribe({key: f"{state.version}-{state.epoch}" if state.version else "0"})
    patience = Patience(journal.store)
    try:
        yield state
        for batch in batches(subscription, timeout_s, WAIT_S if journal.store.namespace == "/" else CHILD_WAIT_S):
            for _, entries in batch:
                for entry in entries:
                    if entry.version > state.version:
                        state.apply(journal.reader.commit(entry))
            yield state
            if batch:
                patience.something()
            else:
                patience.nothing()
    finally:
        subscription.close()


def batches(subscription: Subscription, timeout_s: float | None = None, wait_s: float = WAIT_S) -> Iterator[list[Any]]:
    """What a subscription brings, batch by batch, until `timeout_s` is over; [] after `wait_s` without anything.

    A restarting server is waited for.

    Raises `Unavailable` when it stays away for `PATIENCE_S`.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    lost_at = 0.0
    while True:
        left = wait_s if deadline is None else min(wait_s, deadline - time.monotonic())
        if left <= 0:
            return
        try:
            batch = subscription.poll(left)
        except Unavailable:
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > PATIENCE_S:
                raise
            time.sleep(RECONNECT_S)
            continue
        lost_at = 0.0
        yield batch


def ranks_of(state: State, targets: str) -> list[int]:
    """Ranks that an idset of ranks or a hostlist names, ascending. Raises `Rejected` for an unknown one."""
    from ..journal.node import named

    return named(state.nodes, targets)


def user_name(userid: int) -> str:
    """A user's login name, or the number if nobody has it."""
    name = _names.get(userid)
    if name is None:
        import pwd

        try:
            name = pwd.getpwuid(userid).pw_name
        except (KeyError, OverflowError):
            name = str(userid)
        _names[userid] = name
    return name


_names: dict[int, str] = {}


def user_id(text: str) -> int:
    """The id of a user given by name or number. Raises `Rejected`."""
    if text.isdecimal():
        return int(text)
    import pwd

    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise Rejected(f"user {text!r}: no such user", code="no-such-user") from None
