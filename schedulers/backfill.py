"""Queue policies that look ahead: EASY, hybrid and conservative backfill. They differ in how many jobs get a reservation.

A job that does not fit now gets the earliest window in which it will (at most `reservation_depth` of them, in the order of the
queue); any other may go before it if it leaves all of these alone. So nobody is delayed by who comes after him: what is planned
for the first k depends on those before them only. EASY reserves for one, conservative for all that are looked at, hybrid for some.

Plans are made anew from facts, but where the pool remembers what was reserved (`Pool.promised`) a reservation is kept: what comes
free early moves the line up from its head, as far as one after the other gets an earlier time; who comes behind the first that does
not keeps the time he was told. Nobody gets anything at his cost: before a job without a reservation may begin, those ahead of it
that would fit now do. A time that can not be kept (a node drained, somebody past his limit, a job of higher priority) is made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .explain import explain
from .policy import Code, Decision, Pending, Place, Reserve, Wait, held, reserved_for
from .resources import Pool, Unmatched
from .timeline import Span, Timeline, length_of, timeline_of

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

    def plan(self, pending: Iterable[Pending], pool: Pool, now: float) -> Iterator[Decision | None]:
        """Yield a Place for each job that fits now beside what is reserved, a Reserve for the first that wait for their window."""
        timeline = timeline_of(pool, now)
        left, moves_up = self.reservation_depth, True
        patient: list[tuple[Pending, Reserve]] = []  # who keep the time they were told, in order
        for seen, entry in enumerate(pending):
            if entry.priority <= 0 or seen >= self.queue_depth:  # held, as are all that follow; there may be very many
                break
            if entry.held:
                yield held(entry.job)
                continue
            told = timeline.told(entry.job) if left else None
            kept = _kept(timeline, told, entry) if told is not None and not (moves_up and told.claims) else None
            if kept is not None:
                timeline.keep(kept)
                left -= 1
                patient.append((entry, Reserve(entry.job, kept.claims, kept.start, *_why(timeline, entry))))
                yield None
                continue
            got = timeline.match_now(entry.request, entry.duration_s, told)
            if got and told is None and patient:
                for place in _first_of_all(timeline, patient):
                    left += 1
                    yield place
                    got = timeline.match_now(entry.request, entry.duration_s)
            if not isinstance(got, Unmatched):
                timeline.placed(entry.job, got, entry.duration_s)
                yield Place(entry.job, got)
                continue
            if not left:
                yield None
                continue
            code, text, blocking = _why(timeline, entry)
            span = None
            if code in (Code.RESOURCES, Code.AHEAD):
                span = timeline.reserve(entry.job, entry.request, entry.duration_s)
            if span is None:  # it waits for nodes that are down or drained, or for ever, not for time: nobody waits for it
                yield Wait(entry.job, code, text, blocking)
                continue
            left -= 1
            moves_up = moves_up and (told is None or span.start < told.start)
            yield Reserve(entry.job, span.claims, span.start, code, text, blocking)
        for _, reserve in patient:
            yield reserve


def _kept(timeline: Timeline, told: Span, entry: Pending) -> Span | None:
    """What a job was told, if it still holds: its time is to come, it asks for as long, and all of it is free then.

    Of one that is known only by what its worker has journalled the claims are not known, and whether the line has moved up its
    worker has found out: what it gets then is what is left, or it waits for the next window.
    """
    length = length_of(entry.duration_s)
    if abs(told.end - told.start - length) >= 1e-3 or told.start <= timeline.now:
        return None
    if told.claims:
        return told if timeline.can_keep(told) else None
    claims = timeline.window(entry.request, told.start, length)
    return told._replace(claims=claims) if claims else timeline.find(entry.job, entry.request, entry.duration_s)


def _why(timeline: Timeline, entry: Pending) -> tuple[str, str, str]:
    """code, text and blocking of a job that waits."""
    reason = explain(entry.request, timeline.pool)
    if reason.code != Code.READY:
        return reason.code, reason.text, reason.blocking
    keeper = timeline.keeper(entry.request, entry.duration_s)
    if keeper or timeline.told(entry.job) is None:
        return reserved_for(keeper)
    return Code.AHEAD, "fits now, and keeps the time it was told: those ahead of it have not moved up", ""


def _first_of_all(timeline: Timeline, patient: list[tuple[Pending, Reserve]]) -> Iterator[Place]:
    """Those who fit now, and have kept the time they were told until somebody behind them would begin."""
    for waiting in list(patient):
        entry, _ = waiting
        got = timeline.match_now(entry.request, entry.duration_s)
        if not isinstance(got, Unmatched):
            patient.remove(waiting)
            timeline.release(entry.job)
            timeline.placed(entry.job, got, entry.duration_s)
            yield Place(entry.job, got)


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
