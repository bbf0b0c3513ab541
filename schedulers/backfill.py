"""Queue policies that look ahead: EASY, hybrid and conservative backfill. They differ in how many jobs get a reservation.

A job that does not fit now gets the earliest window in which it will (at most `reservation_depth` of them, in the order of
the queue); any other may go before it if it leaves all of these alone. So nobody is delayed by who comes after him: what is
planned for the first k depends on those before them
only. EASY reserves for one, conservative for all that are looked at, hybrid for some.

Plans are made anew from facts each time; a reservation is what this plan promises, not something that is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .explain import explain
from .policy import Code, Decision, Pending, Place, Reserve, Wait, held, reserved_for
from .resources import Pool, Unmatched
from .timeline import timeline_of

QUEUE_DEPTH = 100_000  # jobs looked at in one plan
EASY_RESERVATIONS = 1
HYBRID_RESERVATIONS = 64
CONSERVATIVE_DEPTH = 256


class Backfill:
    """reservation_depth: how many of the jobs that must wait get one. queue_depth: how many jobs a plan looks at."""

    __slots__ = ("queue_depth", "reservation_depth")

    def __init__(self, reservation_depth: int = EASY_RESERVATIONS, queue_depth: int = QUEUE_DEPTH) -> None:
        self.reservation_depth = reservation_depth
        self.queue_depth = queue_depth

    def plan(self, pending: Iterable[Pending], pool: Pool, now: float) -> Iterator[Decision]:
        """Yield a Place for each job that fits now beside what is reserved, a Reserve for the first that wait for their window."""
        timeline = timeline_of(pool, now)
        left = self.reservation_depth
        for seen, entry in enumerate(pending):
            if entry.priority <= 0 or seen >= self.queue_depth:  # held, as are all that follow; there may be very many
                return
            if entry.held:
                yield held(entry.job)
                continue
            got = timeline.match_now(entry.request, entry.duration_s)
            if not isinstance(got, Unmatched):
                timeline.placed(entry.job, got, entry.duration_s)
                yield Place(entry.job, got)
                continue
            if not left:
                continue
            reason = explain(entry.request, pool)
            code, text, blocking = reason.code, reason.text, reason.blocking
            if code == Code.READY:
                code, text, blocking = reserved_for(timeline.keeper(entry.request, entry.duration_s))
            span = None
            if code in (Code.RESOURCES, Code.AHEAD):
                span = timeline.reserve(entry.job, entry.request, entry.duration_s)
            if span is None:  # it waits for nodes that are down or drained, or for ever, not for time: nobody waits for it
                yield Wait(entry.job, code, text, blocking)
                continue
            left -= 1
            yield Reserve(entry.job, span.claims, span.start, code, text, blocking)


class Easy(Backfill):
    """One reservation: for the first job that does not fit."""

    __slots__ = ()

    def __init__(self, queue_depth: int = QUEUE_DEPTH) -> None:
        super().__init__(EASY_RESERVATIONS, queue_depth)


class Hybrid(Backfill):
    """A reservation for each of the first `reservation_depth` jobs that do not fit."""

    __slots__ = ()

    def __init__(self, reservation_depth: int = HYBRID_RESERVATIONS, queue_depth: int = QUEUE_DEPTH) -> None:
        super().__init__(reservation_depth, queue_depth)


class Conservative(Backfill):
    """A reservation for every job looked at: nobody is delayed by anybody after him."""

    __slots__ = ()

    def __init__(self, queue_depth: int = CONSERVATIVE_DEPTH) -> None:
        super().__init__(queue_depth, queue_depth)
