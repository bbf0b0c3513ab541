"""What a lost entry must have said, as what can be read of the history is impossible without it. Pure; for `salvage`.

Who is allocated cores that another still holds could be so only after that one had given them back: such events are written
into the lost entry itself, each flagged `inferred`, at the last hole before the event that implies them, and only if nothing
readable touches their subject in between, or says later that it still held what it would give back. The fold judges them as
all others; one that it refuses is taken out again. What is not implied stays unsaid.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from ..kvs.port import Entry
from .claims import Claim, from_wire
from .derive import Group, finish, priority_of
from .idset import format_ids, mask_of
from .job import CLEANUP, DEPEND, NEW, PRIORITY, RUN, SCHED, Job
from .quarantine import Aside, Impossible, Quarantine, listed
from .resizing import looked_after
from .state import MALFORMED, State
from .wire import Commit, read_commit, well_formed

ROUNDS = 20  # each a pass or two over the history; what one infers may show what else was lost
TRIES = 4  # how often something is inferred about one subject
NOTE = "its end stood in a lost entry"
END = {"type": "lost", "severity": 0, "note": NOTE}
WAITING = NEW | DEPEND | PRIORITY
BEGINS = frozenset(("alloc", "grant"))
OVER = frozenset(("clean", "requeue"))
AFTER_RUN = frozenset(("release", "free", "epilog-start", "epilog-finish"))
ON_A_SEAT = frozenset(("start", "finish", "release", "free"))
# An attempt of which one of these can be read holds its resources until then.
NEEDS = AFTER_RUN | {"start", "finish", "prolog-start", "prolog-finish", "end", "kill", "lost"}
ALIVE = BEGINS | {"priority", "urgency", "exception"}  # after its attempt: another follows, or should have

Subject = int | str
Said = dict[int, list[list[Any]]]  # version of a lost entry -> the events that it must have had; without a time: None


class Guess:
    """What is implied about one subject: [name, context], and a time where one is known. after, before: it was said between these.

    ends: whether these end an attempt; what comes after that depends on what can be read of the job later. number: of the
    attempt that would follow. priority: what the job would wait with.
    then: what a worker would have said after that end, if that is known."""

    __slots__ = ("after", "before", "ends", "events", "number", "priority", "subject", "then")

    def __init__(self, subject: Subject, after: int, before: int, events: list[list[Any]], ends: Job | None = None) -> None:
        self.subject = subject
        self.after = after
        self.before = before
        self.events = events
        self.ends = ends is not None
        self.number = ends.number + 1 if ends is not None else 0
        self.priority = _priority(ends) if ends is not None else None
        self.then: list[Any] = ["clean", None]


class _Listening(Quarantine):
    """Hears of each impossible event while the state is still the one that it contradicts.

    guesses: what would have to be said before, by subject. wrong: those of whom something inferred is impossible itself.
    allotted: the version of each job's last alloc."""

    __slots__ = ("allotted", "commit", "guesses", "said", "seen", "state", "wrong")

    def __init__(self, state: State, said: Said) -> None:
        super().__init__()
        self.state = state
        self.said = said
        self.commit: Commit | None = None
        self.allotted: dict[Subject, int] = {}
        self.guesses: dict[Subject, Guess] = {}
        self.seen: set[Subject] = set()
        self.wrong: set[Subject] = set()

    def put(self, subject: int | str, version: int, index: int, name: str, why: Impossible) -> None:
        super().put(subject, version, index, name, why)
        if version in self.said:
            self.wrong.add(subject)
        if self.commit is None or subject in self.seen:
            return  # what comes after its first impossible event may be so because of that
        self.seen.add(subject)
        context = self.commit.events[index - 1][3] or {}
        try:
            for guess in _implied(self.state, subject, version, name, context, why):
                if why.code == "not-over":  # that its tasks were over contradicts nothing that was said meanwhile
                    guess.after = self.allotted.get(subject, guess.after)
                self.guesses.setdefault(guess.subject, guess)
        except MALFORMED:
            return


def infer(read: Callable[[Said], Iterable[Entry]], holes: Collection[int]) -> tuple[Said, list[Aside]]:
    """(what the lost entries must have said, who is set aside nevertheless when the history with it is folded).

    read: the whole history, with that in its lost entries. holes: their versions. Linear passes, no more than `ROUNDS`.
    """
    if not holes:
        return {}, []
    said: Said = {}
    tries: dict[Subject, int] = {}
    first: list[Aside] | None = None
    for _ in range(ROUNDS):
        heard = _listen(read(said), said)
        first = listed(heard.owed()) if first is None else first
        for subject in heard.wrong:
            tries[subject] = TRIES
            _take_out(said, subject)
        guesses = [guess for guess in heard.guesses.values() if tries.get(guess.subject, 0) < TRIES]
        added = _place(guesses, read(said), holes) if guesses and not heard.wrong else []
        for hole, guess in added:
            tries[guess.subject] = tries.get(guess.subject, 0) + 1
            said.setdefault(hole, []).extend(
                [name, guess.subject, at[0] if at else None, context] for name, context, *at in guess.events
            )
        if not added and not heard.wrong:
            return said, listed(heard.owed())
    last = listed(_listen(read(said), said).owed())
    return (said, last) if first is None or len(last) < len(first) else ({}, first)


def _listen(entries: Iterable[Entry], said: Said) -> _Listening:
    state = State()
    heard = state.quarantine = _Listening(state, said)
    for entry in entries:
        heard.commit = commit = read_commit(entry)
        state.apply(commit)
        heard.allotted.update((one[1], entry.version) for one in well_formed(commit.events) if one[0] == "alloc")
    return heard


def _take_out(said: Said, subject: Subject) -> None:
    for hole, events in list(said.items()):
        said[hole] = [event for event in events if event[1] != subject]
        if not said[hole]:
            del said[hole]


# -- what an impossible event implies ---------------------------------------------------------------------------------


def _implied(state: State, subject: Subject, version: int, name: str, context: dict[str, Any], why: Impossible) -> Iterator[Guess]:
    if why.code == "not-free":
        yield from _holders_over(state, version, from_wire(context["claims"]))
    job = state.jobs.get(subject) if isinstance(subject, int) else None
    if job is None or why.code == "not-free":
        return
    if name in ON_A_SEAT and not job.holds and job.granted is not None and job.seat_of:
        yield from _seat(state, job, version)
    elif name in BEGINS | OVER and (job.holds or job.state & (RUN | CLEANUP)):
        if job.holds:
            yield _over(job, version)
    elif name in (*BEGINS, "depend", "priority") and job.state & WAITING:
        yield _guess(job, version, _toward(job, name))
    elif name == "grant" and job.granted is not None and not job.seat_of:
        yield _guess(job, version, [["lost", {"rank": job.granted[0], "cause": "its return stood in a lost entry"}]])
    elif name in AFTER_RUN and job.holds and job.state == RUN:
        yield _guess(job, version, [["exception", END]])
    elif why.code == "not-over":
        yield _guess(job, version, _ranks_over(job))
    elif name == "clean" and job.state & (DEPEND | PRIORITY | SCHED):
        yield _guess(job, version, [["exception", END]])


def _guess(job: Job, version: int, events: list[list[Any]], ends: bool = False) -> Guess:
    after = next((one for one in reversed(job.commits) if one < version), 0)
    return Guess(job.id, after, version, events, job if ends else None)


def _priority(job: Job) -> dict[str, int]:
    return {"priority": priority_of(job.urgency)}


def _toward(job: Job, name: str) -> list[list[Any]]:
    """The steps that a waiting job must have made before this event."""
    steps: list[list[Any]] = [["validate", None]] if job.state == NEW else []
    if name != "depend" and job.state & (NEW | DEPEND):
        steps.append(["depend", None])
    if name in BEGINS:
        steps.append(["priority", _priority(job)])
    return steps


def _ranks_over(job: Job) -> list[list[Any]]:
    return [["lost", {"rank": rank, "cause": NOTE}] for rank in sorted(job.started.keys() - job.over.keys())]


def _over(job: Job, version: int) -> Guess:
    """The attempt that holds resources was over. How, its readable reports say, as they did to the worker, or nobody knows."""
    if job.status is None and job.ranks and all(rank in job.over for rank in job.ranks) and not (
        (job.script and job.script[0]) or looked_after(job)
    ):
        group = Group()
        finish(job, job.ranks, max((one[1] for one in job.over.values()), default=job.t_alloc), group)
        *derived, then = [[name, context, at] for name, _, at, context in group.events]
        guess = _guess(job, version, derived, ends=True)
        guess.then = then
        return guess
    events: list[list[Any]] = [["exception", END]] if job.state == RUN else []
    events += [*_ranks_over(job), ["release", {"ranks": "all", "final": True}], ["free", None]]
    return _guess(job, version, events, ends=True)


def _holders_over(state: State, version: int, wanted: Iterable[Claim]) -> Iterator[Guess]:
    """Whoever holds cores or GPUs of these. What is short of memory alone does not say who gave it back."""
    for claim in wanted:
        node = state.nodes.get(claim.rank)
        if node is None:
            continue
        for id in sorted(node.jobs):
            if _share(claim, state.jobs[id].claims):
                yield _over(state.jobs[id], version)
        for id in sorted(node.keeping):
            kept = state.keeping[id]
            if claim.rank not in kept.back and _share(claim, from_wire(kept.claims)):
                over = ["housekeeping-finish", {"ranks": format_ids([claim.rank])}]
                yield Guess(f"housekeeping/{id}", kept.order, version, [over])


def _share(claim: Claim, others: Iterable[Claim]) -> bool:
    return any(one.rank == claim.rank and (one.cores & claim.cores or one.gpus & claim.gpus) for one in others)


def _seat(state: State, job: Job, version: int) -> Iterator[Guess]:
    """A job that is known to have taken over a seat was allocated what its predecessor freed."""
    before = state.jobs.get(job.seat_of)
    if before is None or not before.claims_wire:
        return
    if before.holds:
        yield _over(before, version)
    context = {"claims": before.claims_wire, "expiration": 0.0, "attempt": job.attempt, "via": before.id}
    steps = _toward(job, "alloc") if job.state & WAITING else []
    yield _guess(job, version, [*steps, ["alloc", context]])


# -- where it stood ---------------------------------------------------------------------------------------------------


def _place(guesses: list[Guess], entries: Iterable[Entry], holes: Collection[int]) -> list[tuple[int, Guess]]:
    """Those that a hole may have held, with its version, and with what must come after the end of an attempt."""
    placed = {}
    for guess in guesses:
        hole = max((one for one in holes if guess.after < one < guess.before), default=0)
        if hole and guess.events:
            placed[guess.subject] = (hole, guess)
    stories: dict[Subject, list[tuple[str, Any]]] = {subject: [] for subject, (_, guess) in placed.items() if _asks_on(guess)}
    for entry in entries if stories else ():
        for name, subject, _, context in well_formed(read_commit(entry).events):
            if subject in stories and entry.version > placed[subject][0]:
                stories[subject].append((name, context))
    return [(hole, guess) for hole, guess in placed.values() if not _asks_on(guess) or _goes_on(guess, stories[guess.subject])]


def _asks_on(guess: Guess) -> bool:
    return guess.ends or isinstance(guess.subject, str)


def _goes_on(guess: Guess, story: list[tuple[str, Any]]) -> bool:
    """Whether what can be read of it later lets it have ended; if so, whatever must have followed its end is added."""
    if not guess.ends:  # housekeeping: a node of which no later event says the same
        ranks = guess.events[0][1]["ranks"]
        return not any(mask_of((context or {}).get("ranks", "")) & mask_of(ranks) for _, context in story)
    told = next((name for name, _ in story if name in NEEDS | OVER | ALIVE), "")
    if told in NEEDS:
        return False
    if told in ALIVE:
        unknown = ["requeue", {"attempt": guess.number, "cause": "lost", "note": NOTE}]
        guess.events.append(guess.then if guess.then[0] == "requeue" else unknown)
        if told in BEGINS:
            guess.events.append(["priority", guess.priority])
    elif not told:
        guess.events.append(guess.then)
    return True
