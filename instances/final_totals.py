"""What an instance that was a job had come to, said of that job in the parent's journal: sums over levels need not open it again.

Its keeper says it at the orderly end, all that was inside it included, as a memo beside the one that says where it is. Of one that
was killed nobody does: whoever sums opens its journal, or counts it as the job that it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any, NamedTuple

from ..journal.ids import parse_id
from ..journal.job import ACTIVE, INACTIVE, NEW, Job, Result
from ..journal.state import State
from ..kvs.errors import FluxkvError
from ..kvs.port import Store
from .reactor import Stops

MEMO = "instance-totals"


class Final(NamedTuple):
    """Numbers of jobs, as in `nested.Totals`."""

    successful: int = 0
    failed: int = 0
    canceled: int = 0
    timeout: int = 0
    lost: int = 0


def told_of(job: Job) -> Final | None:
    """What an instance that is over had come to, None where that was not said of the job's last attempt."""
    row = job.memo.get(MEMO) if job.state == INACTIVE else None
    if not isinstance(row, list) or len(row) != 1 + len(Final._fields) or any(type(one) is not int or one < 0 for one in row):
        return None
    return Final(*row[1:]) if row[0] == job.number else None


def own(state: State) -> Final:
    """Of an instance's own jobs, if it ends now."""
    ended = state.ended()
    good = ended[Result.COMPLETED]
    return Final(
        good, sum(ended.values()) - good, ended[Result.CANCELED], ended[Result.TIMEOUT], state.count(ACTIVE | NEW)
    )


def of_word(word: Stops) -> Final | None:
    """As a worker said it; None where it is of a version that says something else."""
    return Final(*word.ended) if len(word.ended) == len(Final._fields) else None


def at_end(state: State, namespace: str, *, alone: bool) -> Final:
    """Of an instance that ends. alone: nothing was ever inside it."""
    found = own(state)
    if alone:
        return found
    from .census import summed, told_inside
    from .nested import Totals

    totals = summed(Totals(**found._asdict()), told_inside(state, namespace), over=True)
    return Final(*(getattr(totals, name) for name in Final._fields))


def say(store: Store, settings: Mapping[str, Any], known: State | Stops) -> None:
    """Have it in the parent's journal. store, settings: the child's. known: its state, or a worker's word, which is enough where
    nothing was ever inside it. Where that cannot be now nobody waits for it."""
    from ..journal.log import Journal
    from ..kvs.redis_store import open_store
    from .child import say_of_attempt
    from .parent_row import as_parent

    try:
        alone = not store.may_have_inside()
        final = of_word(known) if alone and isinstance(known, Stops) else None
        if final is None:
            final = at_end(Journal(store).look() if isinstance(known, Stops) else known, store.namespace, alone=alone)
        with closing(open_store(as_parent(settings), patience_s=0.0)) as parent:
            notes = {MEMO: [int(settings.get("number") or 1), *final]}
            say_of_attempt(parent, parse_id(settings["job"]), str(settings["entry"]), "memo", notes)
    except FluxkvError:
        pass
