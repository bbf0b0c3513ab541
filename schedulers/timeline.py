"""The pool over time: who ends when, what is reserved for whom, and when a request fits next. Pure.

Decides how time enters a plan: a job holds its ids from its start until its limit, a reservation is the same in the future, and
a job that begins at `t` for `d` seconds gets only ids that nobody holds or has reserved in all of [t, t+d). A job without a
limit is taken to run for ten years: it blocks what it holds, not the order of the queue. A job past its limit still holds what
it holds (until `free`); it is expected to be over a second from now, and goes on to be.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..journal.claims import Claim
from ..kvs.errors import Conflict
from .profile import Profile
from .request import Request
from .resources import Pool, Unmatched
from .room import first_room
from .withheld import WithheldDraws

MATCH_FIRST = "first"
NO_ROOM = Unmatched("resources", "slot", 1, 0)
FOREVER_S = 10 * 365 * 86400.0
OVERDUE_S = 1.0
LATE_S = 1.0  # who begins less than this after the time he was told moves nobody else's
SOME = 64  # running jobs up to which a search looks at the end of each
PATIENCE = 16  # ends at which it does not fit, after which a search finds out where it may
FEW = 2_000  # running jobs up to which a plan's first reservation is found sooner by a search than by a profile


class Span(NamedTuple):
    """Claims held in [start, end), Unix seconds."""

    start: float
    end: float
    job: int
    claims: tuple[Claim, ...]


def _end_of(span: Span) -> float:
    return span.end


def length_of(duration_s: float) -> float:
    """How long a job of this limit (0: none) is taken to run."""
    return duration_s or FOREVER_S


class Timeline:
    """What is to come, seen from one plan. pool: what is free now, changed by the plan as it goes on.

    holders: (job, when it ends or 0, claims) of those that run. What the plan itself places is told by `placed`.
    """

    def __init__(self, pool: Pool, now: float, holders: Iterable[tuple[int, float, tuple[Claim, ...]]]) -> None:
        self.pool = pool
        self.now = now
        running = (Span(now, max(end, now + OVERDUE_S) if end else now + FOREVER_S, job, claims) for job, end, claims in holders)
        self._spans = sorted(running, key=_end_of)
        self.reserved: list[Span] = []  # by start
        self._views: dict[int, _Window] = {}  # number of reservations it respects -> what is free now besides them
        self._profile: Profile | None = None
        self._begun: list[Span] = []  # what the profile has not been told
        self._placed: set[int] = set()
        self._hidden = False  # does anybody hold something in a node whose cores, GPUs and memory tell nothing of it?
        self._searched: dict[tuple[bytes, float], float] = {}  # request, length -> the start that was found for it last
        self._refused: dict[bytes, float] = {}  # request -> the earliest end with which it did not fit: less is free ever after

    # -- now ------------------------------------------------------------------------------------------------------

    def match_now(self, request: Request, duration_s: float, told: Span | None = None) -> tuple[Claim, ...] | Unmatched:
        """What the request would get now without touching what is reserved before it ends. Nothing is taken.

        told: what was reserved for it. Whoever is a moment late for that, as all who wait for a time are, has until then to end:
        the next on its claims may be told the very moment at which it would be over.
        """
        until = self.now + length_of(duration_s)
        if told is not None and told.start <= self.now < told.start + LATE_S:
            until = told.start + length_of(duration_s)
        if self._refused.get(request.key, until + 1.0) <= until:
            return NO_ROOM
        got = self.pool.match(request)
        count = 0 if isinstance(got, Unmatched) else bisect_left(self.reserved, until, key=lambda span: span.start)
        if count:
            view = self._views.get(count)
            if view is None:
                view = self._views[count] = _Window(self.pool)
                view.withhold(self.reserved[:count], self.reserved[:count])
            got = view.pool.match(request)
        if isinstance(got, Unmatched):
            self._refused[request.key] = until
        return got

    def keeper(self, request: Request, duration_s: float) -> int:
        """The job for which, first of all, what the request would get now is reserved; 0 if there is none."""
        claims = self.pool.match(request)
        if isinstance(claims, Unmatched):
            return 0
        until = self.now + length_of(duration_s)
        return next((span.job for span in self.reserved if span.start < until and overlap(span.claims, claims)), 0)

    def placed(self, job: int, claims: tuple[Claim, ...], duration_s: float) -> None:
        """A job begins now: what it holds is taken from the pool and from every view of it."""
        self.pool.take(claims)
        if self.pool.promised is not None:
            self.pool.promised.pop(job, None)
        for view in self._views.values():
            view.take(claims)
        span = Span(self.now, self.now + length_of(duration_s), job, claims)
        insort(self._spans, span, key=_end_of)
        self._begun.append(span)
        self._placed.add(job)

    # -- later ----------------------------------------------------------------------------------------------------

    def reserve(self, job: int, request: Request, duration_s: float) -> Span | None:
        """Reserve the earliest window in which the request fits beside all that runs and is reserved; None if there is none."""
        span = self.find(job, request, duration_s)
        if span is not None:
            self.keep(span)
        return span

    def find(self, job: int, request: Request, duration_s: float) -> Span | None:
        """That window, not reserved."""
        length = length_of(duration_s)
        few = self._profile is None and not self.reserved and len(self._spans) <= FEW
        profile = self._profile_for(request) if not few else None
        return self._search(job, request, length) if profile is None else self._look_up(profile, job, request, length)

    def told(self, job: int) -> Span | None:
        """What an earlier plan has reserved for a job, None if nothing is known of it."""
        return self.pool.promised.get(job) if self.pool.promised else None

    def keep(self, span: Span) -> None:
        """Reserve this."""
        if self.pool.promised is not None:
            self.pool.promised[span.job] = span
        insort(self.reserved, span, key=lambda one: one.start)
        self._views.clear()
        if self._profile is not None:
            self._hidden = self._hidden or _hides(span)
            self._profile.keep(span.job, span.start, span.end, span.claims)

    def release(self, job: int) -> None:
        """A reservation is not needed any more: there is more room than was thought."""
        self.reserved = [span for span in self.reserved if span.job != job]
        self._views.clear()
        self._refused.clear()
        self._searched.clear()
        if self._profile is not None:
            self._profile.release(job)

    def window(self, request: Request, start: float, length: float) -> tuple[Claim, ...] | None:
        """What a request would get in all of [start, start + length) beside all that runs and is reserved, None for nothing."""
        profile = self._profile_for(request)
        if profile is not None:
            return profile.at(request, start, length)
        got = self._window_at(start, start + length).pool.match(request)
        return None if isinstance(got, Unmatched) else got

    def go_on(self, now: float) -> None:
        """Another plan, later: whoever ends by then has given back to the pool what he held, and nothing is reserved any more."""
        self.now = now
        del self._spans[: bisect_right(self._spans, now, key=_end_of)]
        self.reserved.clear()
        self._views.clear()
        self._refused.clear()
        self._searched.clear()
        if self._profile is not None:
            self._told_profile().go_on(now)

    def knows(self, job: int) -> bool:
        """Whether it was told that a job has begun."""
        return job in self._placed

    def can_keep(self, span: Span) -> bool:
        """Whether exactly this is free in its whole time beside all that runs and is reserved.

        Somebody before it who began a moment later than he was told, as all who run do, ends a moment later: that is no reason
        for another time, of which everybody behind it would have to be told another, too.
        """
        start = min(span.start + LATE_S, span.end)
        if not any(claim.draws for claim in span.claims) or self._whole(span.claims):
            return self._told_profile().holds(span.claims, start, span.end)
        pool = self._window_at(start, span.end).pool
        if any(claim.rank not in pool.index or not pool.usable >> pool.index[claim.rank] & 1 for claim in span.claims):
            return False
        try:
            pool.take(span.claims)
        except Conflict:
            return False
        return True

    def _profile_for(self, request: Request) -> Profile | None:
        """The profile, if it tells all about such a request."""
        if not self.pool.by_counts(request):
            return None
        profile = self._told_profile()
        return None if self._hidden and request.flat is not None and request.flat.exclusive else profile

    def _whole(self, claims: Sequence[Claim]) -> bool:
        """Whether what is drawn is drawn in nodes that are held as wholes, so that whoever has these has it."""
        pool = self.pool
        self._told_profile()
        return not self._hidden and all(
            not claim.draws or (claim.rank in pool.index and claim == pool.whole(pool.index[claim.rank], claim.slots))
            for claim in claims
        )

    def _told_profile(self) -> Profile:
        if self._profile is None:
            self._profile = Profile(self.pool, self.now, ((span.end, span.claims) for span in self._spans))
            self._hidden = any(map(_hides, self._spans)) or any(map(_hides, self.reserved))
            for span in self.reserved:
                self._profile.keep(span.job, span.start, span.end, span.claims)
        else:
            for span in self._begun:
                self._hidden = self._hidden or _hides(span)
                self._profile.begun(span.claims, span.end)
        self._begun.clear()
        return self._profile

    def _look_up(self, profile: Profile, job: int, request: Request, length: float) -> Span | None:
        found = profile.earliest(request, length)
        if found is None:
            return None
        start, claims = found
        if self.pool.match_policy != MATCH_FIRST:  # the same time; which of the nodes, the policy says
            window = self._window_at(start, start + length)
            got = window.pool.match(request)
            claims = claims if isinstance(got, Unmatched) else got
        return Span(start, start + length, job, claims)

    def _window_at(self, start: float, end: float) -> _Window:
        """What is free in all of [start, end)."""
        window = _Window(self.pool)
        for one in self._spans:
            if one.end <= start:
                window.give(one.claims)
        within = [one for one in self.reserved if one.start < end and one.end > start]
        window.withhold(within, within)
        return window

    def _search(self, job: int, request: Request, length: float) -> Span | None:
        """End by end, from the first at which it may fit: for any kind of request and pool."""
        need, least = least_cores(request), self._searched.get((request.key, length), self.now)

        def fits(pool: Pool) -> bool:
            return pool.free.cores.total() >= need and bool(pool.match(request))

        if len(self._spans) > SOME and least == self.now:
            least = first_room(self.pool, self._spans, fits)
        window = _Window(self.pool)
        ends = sorted({span.end for span in self._spans} | {span.end for span in self.reserved})
        done, entered, held, looks, patience = 0, 0, list[Span](), 0, PATIENCE
        for start in ends[bisect_left(ends, least) :]:
            if start < least:
                continue
            while done < len(self._spans) and self._spans[done].end <= start:
                window.give(self._spans[done].claims)
                done += 1
            changed = [span for span in held if span.end <= start]
            held = [span for span in held if span.end > start]
            while entered < len(self.reserved) and self.reserved[entered].start < start + length:
                span = self.reserved[entered]
                entered += 1
                if span.end > start:
                    held.append(span)
                    changed.append(span)
            if changed:
                window.withhold(held, changed)
            if window.pool.free.cores.total() < need:
                continue
            claims = window.pool.match(request)
            if not isinstance(claims, Unmatched):
                self._searched[request.key, length] = start  # nobody who asks for the same begins before
                return Span(start, start + length, job, claims)
            looks += 1
            if looks == patience:  # the first end at which it may fit if nobody else's time comes until then
                least = first_room(window.pool, sorted([*self._spans[done:], *held], key=_end_of), fits)
                looks, patience = 0, 2 * patience
        return None


def _hides(span: Span) -> bool:
    """Whether some of it is drawn where it holds no cores, GPUs or memory."""
    return any(claim.draws and not (claim.cores or claim.gpus or claim.memory_mb) for claim in span.claims)


def overlap(claims: Iterable[Claim], others: Iterable[Claim]) -> list[int]:
    """The ranks of those of a job's claims that have something in common with another's: a core, a GPU, a node's memory, or a
    vertex that both draw from."""
    others = list(others)
    ranks = {claim.rank: claim for claim in others}
    drawn = {draw.vertex: draw.ids for claim in others for draw in claim.draws}
    return [
        one.rank
        for one in claims
        if (
            (other := ranks.get(one.rank)) is not None
            and (one.cores & other.cores or one.gpus & other.gpus or (one.memory_mb and other.memory_mb))
        )
        or any(draw.vertex in drawn and (not draw.ids or draw.ids & drawn[draw.vertex]) for draw in one.draws)
    ]


def least_cores(request: Request) -> int:
    """A number of cores without which the request cannot fit, whatever else there is."""
    flat = request.flat
    if flat is None:
        from .tree.needs import least_of

        return least_of(request, "core")
    return flat.nslots * flat.cores if not flat.exclusive else 0


def timeline_of(pool: Pool, now: float) -> Timeline:
    """The timeline that all plans of one pass on this pool share: queues respect one another's reservations."""
    found = pool.timeline
    if not isinstance(found, Timeline):
        found = pool.timeline = Timeline(pool, now, pool.holders())
    return found


class _Window:
    """A copy of a pool in which some ids are withheld, whether they are free or not."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool.copy()
        self._cores = list(pool.core_free)
        self._gpus = list(pool.gpu_free)
        self._memory = list(pool.free.memory.counts)
        self._held: dict[int, tuple[int, int, int]] = {}
        self._draws = WithheldDraws(self.pool)

    def withhold(self, spans: Sequence[Span], changed: Sequence[Span]) -> None:
        """These are withheld now, and no others. changed: those that came or went."""
        self._draws.withhold(spans, changed)
        touched = {claim.rank for span in changed for claim in span.claims}
        for rank in touched:
            self._held.pop(rank, None)
        by_rank: dict[int, list[tuple[Span, Claim]]] = {}
        for span in spans:
            for claim in span.claims:
                if claim.rank in touched:
                    by_rank.setdefault(claim.rank, []).append((span, claim))
        for rank, pairs in by_rank.items():
            cores = gpus = 0
            for _, claim in pairs:
                cores |= claim.cores
                gpus |= claim.gpus
            self._held[rank] = (cores, gpus, _most_memory(pairs))
        for rank in touched:
            self._refresh(rank)

    def give(self, claims: Sequence[Claim]) -> None:
        """Somebody ends."""
        self._draws.give(claims)
        pool = self.pool
        if not self._held and not any(claim.draws for claim in claims):  # what is free here is what is free in the pool
            known = [claim for claim in claims if claim.rank in pool.index]
            pool.give(known)
            for claim in known:
                at = pool.index[claim.rank]
                self._cores[at], self._gpus[at] = pool.core_free[at], pool.gpu_free[at]
                self._memory[at] = pool.free.memory.counts[at]
            return
        for rank, cores, gpus, memory_mb, _, _ in claims:
            i = pool.index.get(rank)
            if i is None:
                continue
            node = pool.nodes[i]
            self._cores[i] |= cores & node.cores
            self._gpus[i] |= gpus & node.gpus
            self._memory[i] = min(node.memory_mb, self._memory[i] + memory_mb)
            self._refresh(rank)

    def take(self, claims: Sequence[Claim]) -> None:
        """Somebody begins, perhaps on what is withheld here."""
        self._draws.take(claims)
        for rank, cores, gpus, memory_mb, _, _ in claims:
            i = self.pool.index[rank]
            self._cores[i] &= ~cores
            self._gpus[i] &= ~gpus
            self._memory[i] -= memory_mb
            self._refresh(rank)

    def _refresh(self, rank: int) -> None:
        pool = self.pool
        i = pool.index.get(rank)
        if i is None:  # reserved on a node that has left the inventory
            return
        node = pool.nodes[i]
        cores, gpus, memory_mb = self._held.get(rank, (0, 0, 0))
        whole = (
            rank not in self._held
            and self._cores[i] == node.cores
            and self._gpus[i] == node.gpus
            and self._memory[i] == node.memory_mb
        )
        pool.set_node(
            rank, self._cores[i] & ~cores, self._gpus[i] & ~gpus, self._memory[i] - memory_mb,
            bool(pool.usable >> i & 1), whole, pool.down.get(i, ""),
        )  # fmt: skip


def _most_memory(pairs: Sequence[tuple[Span, Claim]]) -> int:
    """The most memory of one node that is withheld at any one time."""
    if len(pairs) == 1:
        return pairs[0][1].memory_mb
    return max(
        sum(claim.memory_mb for span, claim in pairs if span.start <= moment.start < span.end) for moment, _ in pairs
    )
