"""Housekeeping: what a job that is over still keeps from others while the site's script looks after its nodes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .claims import from_wire
from .holding import give, take
from .idset import ids_of_mask, mask_of
from .quarantine import Impossible
from .scripts import HOUSEKEEPING, LETTERS
from .wire import whole

if TYPE_CHECKING:
    from .state import State

Context = dict[str, Any]


class Keeping:
    """Of one job. attempt: version of the job's last attempt, which reports name; order: version of the commit that ordered
    the scripts. claims: as journalled. started: Unix seconds. results: rank -> [wait status, time, cause]; back: ranks
    given back."""

    __slots__ = ("attempt", "back", "claims", "epoch", "job", "order", "results", "started")

    def __init__(self, job: int) -> None:
        self.job = job
        self.attempt = self.epoch = self.order = 0
        self.claims: list[Any] = []
        self.started = 0.0
        self.results: dict[int, list[Any]] = {}
        self.back: list[int] = []

    @property
    def attempt_id(self) -> str:
        """Id of the entry that began the attempt, <version>-<epoch>."""
        return f"{self.attempt}-{self.epoch}"

    @property
    def ranks(self) -> list[int]:
        """The nodes it was begun on."""
        return [claim[0] for claim in self.claims]

    def value(self) -> list[Any]:
        """Plain values, for snapshots and the digest."""
        return [getattr(self, name) for name in self.__slots__]

    @classmethod
    def from_value(cls, value: list[Any]) -> Keeping:
        """Inverse of `value`."""
        keeping = cls(0)
        for name, one in zip(cls.__slots__, value, strict=True):
            setattr(keeping, name, one)
        return keeping


def start(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    """In the commit that frees the job: its claims go from it to its housekeeping, and nobody comes between."""
    id = whole(subject.partition("/")[2])
    claims, (attempt, epoch) = from_wire(context["claims"]), map(int, str(context["attempt"]).split("-"))
    if id in state.keeping or not claims:
        raise ValueError("it is going on, or nothing is kept")
    held = take(state, claims, id, keep=True)
    if held is not None:
        begun = f"{context['attempt']}{LETTERS[HOUSEKEEPING]}"
        raise Impossible("not-free", held.rank, [one.rank for one in claims], begun)
    job = state.jobs.get(id)
    if job is None or job.commits[-1] != version:
        for claim in claims:
            give(state, claim, id, keep=True)
        raise ValueError("its job has not just been freed")  # nobody was told to begin it
    keeping = state.keeping[id] = Keeping(id)
    keeping.attempt, keeping.epoch, keeping.order = attempt, epoch, version
    keeping.claims, keeping.started = context["claims"], float(ts)
    _touch(state, id)


def finish(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    """These nodes go back."""
    id = whole(subject.partition("/")[2])
    keeping, wanted = state.keeping[id], set(ids_of_mask(mask_of(context["ranks"])))
    for claim in from_wire(keeping.claims):
        if claim.rank not in wanted or claim.rank in keeping.back:
            continue
        keeping.back = [*keeping.back, claim.rank]
        give(state, claim, id, keep=True)
    if len(keeping.back) == len(keeping.claims):
        del state.keeping[id]
        state.keeping_news.pop(id, None)
        if id in state.jobs:
            state.attention[id] = None  # it may have been requeued, and waits for this
        state.drop_word(f"housekeeping/{id}")
    else:
        _touch(state, id)


def lost(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    """Its script on a node is known to be over, and not how."""
    id, rank = whole(subject.partition("/")[2]), context["rank"]
    result(state, id, state.keeping[id].attempt, rank, [9, ts, f"lost: {context['cause']}"])


def signalled(state: State, subject: str, ts: float, context: Context, version: int) -> None:
    """Says that somebody did; how the script ends, its node reports."""


def result(state: State, id: int, attempt: int, rank: int, found: list[Any]) -> None:
    """How the script ended on a node; late and repeated words change nothing."""
    keeping = state.keeping.get(id)
    if keeping is not None and keeping.attempt == attempt and rank in keeping.ranks and rank not in keeping.results:
        keeping.results[rank] = found
        _touch(state, id)


def _touch(state: State, id: int) -> None:
    state.dirty_words.add(f"housekeeping/{id}")
    state.keeping_news[id] = None


HANDLERS = {"housekeeping-start": start, "housekeeping-finish": finish, "housekeeping-lost": lost,
            "housekeeping-kill": signalled}  # fmt: skip
