"""Signals to the scripts that look after nodes when a job is over. Pure; refuses with a reason and a hint."""

from __future__ import annotations

from collections.abc import Iterable

from ..kvs.errors import Rejected
from .decide import Decision, check_signal
from .ids import f58
from .idset import format_ids
from .keeping import Keeping
from .scripts import HOUSEKEEPING, LETTERS
from .state import State
from .wire import pack


def kill(state: State, ids: Iterable[int] | None, ranks: Iterable[int] | None, signum: int, userid: int, now: float) -> Decision:
    """A signal to the housekeeping after these jobs (None: all) on these nodes (None: all), where it goes on.

    Raises `Rejected` for a job that is named and has none; no events if there is nothing to signal.
    """
    check_signal(signum)
    wanted = list(state.keeping if ids is None else dict.fromkeys(ids))
    for id in wanted:
        if id not in state.keeping:
            raise Rejected(
                f"job {f58(id)}: no housekeeping is going on after it", code="no-housekeeping", hint="fluxkv housekeeping list"
            )
    where = None if ranks is None else set(ranks)
    decision = Decision([])
    for id in wanted:
        keeping = state.keeping[id]
        active = [rank for rank in active_ranks(keeping) if where is None or rank in where]
        if not active:
            continue
        context = {"ranks": format_ids(active), "signum": signum, "userid": userid}
        decision.events.append([f"{HOUSEKEEPING}-kill", f"{HOUSEKEEPING}/{id}", now, context])
        decision.since.append(f"job/{id}")
        decision.bumps.append(f"job/{id}")
        message = pack([["signal", id, keeping.attempt_id + LETTERS[HOUSEKEEPING], signum]])
        decision.inbox += [(f"node/{rank}", message) for rank in active]
    return decision


def active_ranks(keeping: Keeping) -> list[int]:
    """The nodes where it goes on."""
    return [rank for rank in keeping.ranks if rank not in keeping.results]
