"""Whether a seed shows a planted fault, and by which invariant: what the cheap test and the hunts of `make soak` share.

Only a promise that does not hold counts: `Broken`, raised by the audit, the diary, the calm. A role that falls over counts when
it stops by an error of its own house (its history is not what it was), never when the planted code trips over itself.
"""

from __future__ import annotations

from functools import cache

from mutants import Mutant, planted
from simulator.play import Failed, play
from simulator.sites import DEEP, GRAPHS, LATE, OWN, RESIZED, RESUMED, SCRIPTED, SILENT
from simulator.truth import Broken

from fluxkv.kvs.errors import FluxkvError

# The function that raised -> what it holds to.
INVARIANTS = {
    "judge": "rules of journals", "folds": "all folds equal", "same": "all folds equal", "acknowledged": "acknowledged once",
    "fenced": "fences, losses", "physical": "diaries", "_start": "diaries", "_scripts": "diaries", "no_leak": "no leak",
    "settle": "each job ends or can say why", "surely": "each job ends or can say why", "noticed": "history is whole",
    "nested": "children", "weigh": "hand-over", "inside": "hand-over: I3", "apart": "hand-over: I4", "begins": "hand-over: tasks",
    "given_back": "diaries", "strayed": "handed up is what may be",
}  # fmt: skip

# Kinds of worlds -> (their first seed, how far they are apart): where a planted fault is looked for.
KINDS = {
    "first": (0, 1), "silent": (SILENT, 1), "late": (LATE, 1), "nested": (10, 12), "graph": (GRAPHS, 1), "deep": (DEEP, 1),
    "resized": (RESIZED, 1), "scripted": (SCRIPTED, 1), "resumed": (RESUMED, 1), "own": (OWN + 1, 1),
}  # fmt: skip


def seeds_of(mutant: Mutant, count: int) -> range:
    """The first seeds of worlds of the kind in which a planted fault shows."""
    begin, step = KINDS[mutant.kind]
    return range(begin, begin + count * step, step)


def wrong(seed: int, mutant: Mutant | None = None) -> BaseException | None:
    """What is wrong with a seed, None if nothing is."""
    try:
        if mutant is None:
            play(seed)
        else:
            with planted(mutant):
                play(seed)
    except Failed as failure:
        return failure.__cause__ or failure
    return None


@cache
def holds(seed: int) -> bool:
    """Whether a seed passes as things are."""
    return wrong(seed) is None


def caught(mutant: Mutant, seed: int) -> str:
    """"invariant: what does not hold" if the seed shows the fault (and passes without it), else ""."""
    problem = wrong(seed, mutant)
    if not isinstance(problem, Broken) or not holds(seed):
        return ""
    if problem.__cause__ is not None and not isinstance(problem.__cause__, FluxkvError):
        return ""
    place = problem.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    name = place.tb_frame.f_code.co_name if place is not None else ""
    return f"{INVARIANTS.get(name, 'a role stops')}: {problem}"
