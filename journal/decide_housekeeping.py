"""Signals to the scripts that look after nodes when a job is over. Pure; refuses with a reason and a hint."""

from __future__ import annotations

from collections.abc import Iterable

from ..kvs.errors import Rejected
from .claims import to_wire
from .decide import Decision, check_signal
from .ids import f58
from .idset import format_ids
from .keeping import Keeping
from .resizing import runs_on, script_ordered_at
from .scripts import HOUSEKEEPING, LETTERS
from .state import State
from .wire import pack


def kill(state: State, ids: Iterable[int] | None, ranks: Iterable[int] | None, signum: int, userid: int, now: float) -> Decision:
    """A signal to the housekeeping after these jobs (None: all) on these nodes (None: all), where it goes on. A job that
    runs has some on nodes that it gives back.

    Raises `Rejected` for a job that is named and has none; no events if there is nothing to signal.
    """
    check_signal(signum)
    partly = going_on(state)
    known = {**state.keeping, **partly}
    wanted = list(known if ids is None else dict.fromkeys(ids))
    for id in wanted:
        if id not in known:
            raise Rejected(
                f"job {f58(id)}: no housekeeping is going on after it", code="no-housekeeping", hint="fluxkv housekeeping list"
            )
    where = None if ranks is None else set(ranks)
    decision = Decision([])
    for id in wanted:
        keeping = known[id]
        active = [rank for rank in active_ranks(keeping) if where is None or rank in where]
        if not active:
            continue
        context = {"ranks": format_ids(active), "signum": signum, "userid": userid}
        if id in partly:
            decision.events.append(["kill", id, now, {**context, "script": HOUSEKEEPING}])
        else:
            decision.events.append([f"{HOUSEKEEPING}-kill", f"{HOUSEKEEPING}/{id}", now, context])
        decision.since.append(f"job/{id}")
        decision.bumps.append(f"job/{id}")
        message = pack([["signal", id, keeping.attempt_id + LETTERS[HOUSEKEEPING], signum]])
        decision.inbox += [(f"node/{rank}", message) for rank in active]
    return decision


def going_on(state: State) -> dict[int, Keeping]:
    """Of each job that is not over, housekeeping on nodes that it gives back, as if it were that after a job. order: the version
    that ordered the first; started: 0.0, the record has none."""
    found: dict[int, Keeping] = {}
    for id in dict.fromkeys(id for node in state.nodes.values() for id in node.jobs):
        job = state.jobs.get(id)
        claims = [claim for claim in job.claims if runs_on(job, claim.rank) == HOUSEKEEPING] if job is not None else []
        if job is None or not claims:
            continue
        keeping = found[id] = Keeping(id)
        keeping.attempt, keeping.epoch = map(int, job.attempt_id.split("-"))
        keeping.order, keeping.claims = min(script_ordered_at(job, claim.rank) for claim in claims), to_wire(claims)
    return found


def active_ranks(keeping: Keeping) -> list[int]:
    """The nodes where it goes on."""
    return [rank for rank in keeping.ranks if rank not in keeping.results]
