"""Durability `replicated`: a commit counts as taken when enough replicas have it. Decides when a WAIT says so.

An instance's meta table names how many and how long to wait for them: "<replicas>:<milliseconds>".
"""

from __future__ import annotations

from collections.abc import Sequence

from .errors import Unavailable
from .keys import Keys
from .port import Answer, Appended
from .resp import Connection

MOST_WAIT_MS = 8000  # a connection waits ten seconds for a reply


def wanted(replicas: int, wait_ms: int) -> str:
    """As the meta table has it."""
    return f"{replicas}:{min(MOST_WAIT_MS, max(1, wait_ms))}"


def confirm(connection: Connection, keys: Keys, wanted: str, answers: Sequence[Answer]) -> None:
    """Wait until the replicas have these commits, whose script ran on this very connection.

    Raises `Unavailable(code="not-replicated")` if too few have them in time. They are in the journal then, but may be lost with
    the primary: they are not acknowledged.
    """
    taken = [answer for answer in answers if isinstance(answer, Appended)]
    if not taken:
        return
    count, wait_ms = map(int, wanted.split(":"))
    if any(answer.duplicate for answer in taken):
        # WAIT is about what this connection has written, and of a commit that another one wrote it would say at once that all
        # is well (HAZARD 13). What is written now is behind it on every replica.
        connection.call("SET", keys.waited, taken[-1].id)
    check(connection.call("WAIT", count, wait_ms), wanted, taken)


def check(have: int, wanted: str, taken: Sequence[Appended]) -> None:
    """Raise `Unavailable(code="not-replicated")` if fewer replicas than are wanted have these commits."""
    count, wait_ms = map(int, wanted.split(":"))
    if have < count:
        ids = taken[0].id if len(taken) == 1 else f"{taken[0].id} to {taken[-1].id}"
        raise Unavailable(
            f"the commit is in the journal ({ids}), but {have} of {count} replica{'s' if count > 1 else ''} had it after "
            f"{wait_ms / 1000:g} s: it is not acknowledged, and may be lost with the primary", code="not-replicated",
            hint="bring the replicas back; fluxkv jobs says whether it is there, so do not submit it twice",
        )  # fmt: skip
