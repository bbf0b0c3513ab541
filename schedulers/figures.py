"""What a schedule was worth: makespan, waits, bounded slowdowns, utilisation, throughput. Pure arithmetic.

Waits count from the moment at which nothing but resources was missing. Bounded slowdown is the field's (Feitelson): the time from
then to the end over the time run, which counts as 10 s where it was less; 1 at the least.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import NamedTuple

from .workload import Begun, Work, cores_of

TAU_S = 10.0


class Figures(NamedTuple):
    """Times in seconds. makespan: from the first arrival to the last end. utilisation: share of all cores that was held,
    meanwhile; throughput: jobs an hour. backfilled: how many began before others that had come earlier, -1: not known. never: how
    many did not begin at all."""

    jobs: int
    makespan_s: float
    wait_mean_s: float
    wait_median_s: float
    wait_p95_s: float
    wait_max_s: float
    slowdown_mean: float
    slowdown_max: float
    utilisation: float
    throughput: float
    backfilled: int
    never: int


def figures(begun: Sequence[Begun], works: Mapping[int, Work], cores: int, overtaking: bool = True) -> Figures:
    """Of the jobs that began. cores: of the whole inventory. overtaking: whether it is known who was backfilled."""
    never = len(works) - len(begun)
    if not begun:
        return Figures(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0 if overtaking else -1, never)
    waits = sorted(one.start - one.ready for one in begun)
    slowdowns = [slowdown(one) for one in begun]
    makespan = max(one.end for one in begun) - min(one.ready for one in begun)
    held = sum((one.end - one.start) * cores_held(one, works) for one in begun)
    n = len(begun)
    return Figures(
        n, makespan, sum(waits) / n, _quantile(waits, 0.5), _quantile(waits, 0.95), waits[-1], sum(slowdowns) / n, max(slowdowns),
        held / (makespan * cores) if makespan and cores else 0.0, n * 3600.0 / makespan if makespan else 0.0,
        sum(one.backfilled for one in begun) if overtaking else -1, never,
    )  # fmt: skip


def slowdown(one: Begun) -> float:
    """A job's bounded slowdown."""
    return max(1.0, (one.end - one.ready) / max(one.end - one.start, TAU_S))


def cores_held(one: Begun, works: Mapping[int, Work]) -> int:
    """How many cores a job held; what it asked for, where its claims are not known."""
    if one.claims:
        return sum(claim.cores.bit_count() for claim in one.claims)
    return cores_of(works[one.job].request)


def _quantile(ascending: Sequence[float], share: float) -> float:
    """By nearest rank."""
    return ascending[max(0, ceil(share * len(ascending)) - 1)]


def steps(begun: Iterable[Begun], works: Mapping[int, Work]) -> list[tuple[float, int]]:
    """(time, change of the cores held), ascending."""
    found: dict[float, int] = {}
    for one in begun:
        held = cores_held(one, works)
        found[one.start] = found.get(one.start, 0) + held
        found[one.end] = found.get(one.end, 0) - held
    return sorted(found.items())
