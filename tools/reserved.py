"""What the plan of this moment keeps for jobs that wait, as listings show it. Computed when asked, in bounded time."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from .foresight import BUDGET_S, Budget

if TYPE_CHECKING:
    from ..journal.claims import Claim
    from ..journal.state import State

SHOWN = 5


class Reservation(NamedTuple):
    """job: for whom. start: from when on, Unix seconds. claims: what."""

    job: int
    start: float
    claims: tuple[Claim, ...]


def reservations(state: State, now: float, ranks: Collection[int] | None = None) -> list[Reservation]:
    """The earliest first; those that are on any of these nodes."""
    from ..instances.plan_inputs import some_wait

    if not some_wait(state):
        return []
    from ..instances.outlook import Outlook

    kept = Outlook(state, now, (), Budget(BUDGET_S).spent).reservations()
    found = [Reservation(job, start.time, start.claims) for job, start in kept]
    return [one for one in found if ranks is None or any(claim.rank in ranks for claim in one.claims)]


def lines(found: list[Reservation], state: State, now: float) -> list[str]:
    """A line each, of the first few, in 80 columns where their hosts are few."""
    from ..journal.ids import f58
    from .explainpage import count, hosts_of, moment, whose
    from .formats import clean

    told = []
    for one in found[:SHOWN]:
        name = clean(whose(state, one.job)[0])[:16]
        cores = sum(claim.cores.bit_count() for claim in one.claims)
        where = f"{count(cores, 'core')} on {hosts_of(state, (claim.rank for claim in one.claims))}"
        told.append(f"  reserved for {f58(one.job)} {name} from {moment(one.start, now)}: {where}")
    if len(found) > SHOWN:
        told.append(f"  and {len(found) - SHOWN} more; fluxkv resource list --json has all of them")
    return told


def document(one: Reservation, state: State) -> dict[str, Any]:
    """A reservation as a JSON object."""
    from ..journal.ids import f58
    from .explainpage import hosts_of

    ranks = [claim.rank for claim in one.claims]
    return {
        "id": f58(one.job), "start": one.start, "ranks": ranks, "nodelist": hosts_of(state, ranks),
        "ncores": sum(claim.cores.bit_count() for claim in one.claims),
        "ngpus": sum(claim.gpus.bit_count() for claim in one.claims),
    }  # fmt: skip


def first_on(found: list[Reservation], now: float) -> dict[int, str]:
    """rank -> "reserved for ƒ3kQ from 14:05": the first that is on it."""
    from ..journal.ids import f58
    from .explainpage import clock

    texts: dict[int, str] = {}
    for one in found:
        for claim in one.claims:
            texts.setdefault(claim.rank, f"reserved for {f58(one.job)} from {clock(one.start, now)}")
    return texts
