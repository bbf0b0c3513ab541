"""When there is first room for a request of any shape beside what runs, were nothing reserved. Pure.

What runs only ends, so room only grows: the first end at which a request fits is found by steps that double and are halved again,
in a few looks instead of one at each of thousands of ends. A look of the search that takes what comes first may fail though more is
free than where it succeeded: then the time that is found is a later one, at which it fits all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .resources import Pool

if TYPE_CHECKING:
    from .timeline import Span

NEVER = float("inf")


def first_room(pool: Pool, spans: Sequence[Span], fits: Callable[[Pool], bool]) -> float:
    """The first end of one of these at which what is free then does; `NEVER` if none. pool: what is free now, which is left as it
    is. spans: who runs, by their ends."""
    ends = [span.end for span in spans]
    last = [at for at, end in enumerate(ends) if at + 1 == len(ends) or ends[at + 1] > end]  # who ends last of each moment
    before, given = pool, 0  # what is free at the latest moment at which it does not fit, and how many have ended by then
    low, high, step = -1, len(last), 1
    while high - low > 1:
        at = min(low + step, len(last) - 1) if high == len(last) else (low + high) // 2
        step *= 2
        then = before.copy()
        for span in spans[given : last[at] + 1]:
            then.give([claim for claim in span.claims if claim.rank in then.index])
        if fits(then):
            high = at
        else:
            low, before, given = at, then, last[at] + 1
    return ends[last[high]] if high < len(last) else NEVER
