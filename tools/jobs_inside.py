"""`fluxkv jobs -R`: the jobs of instances that are jobs, under a heading each, as `flux jobs -R` has them; nested in JSON.

An instance is opened when it is its turn, and only if its job is among those listed: whoever is filtered out costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..kvs.errors import Corrupt, Unavailable

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.state import State
    from .jobview import View

BUDGET_S = 1.0  # for estimates of starts
Chooser = Callable[["Journal", "State", float, dict[str, Any]], tuple[list["Job"], "View"]]


def show_below(
    journal: Journal, chosen: list[Job], options: dict[str, Any], choose: Chooser,
    show: Callable[[State, list[Job], View, dict[str, Any]], None], path: str = "", level: int = 1,
) -> None:  # fmt: skip
    """Print what is inside the instances among `chosen`, each under its path, down to options["level"].

    choose: which jobs of an instance are listed; show: prints them.
    """
    from . import render

    for job, here, inside, state, found, view in _inside(journal, chosen, options, choose, path, level):
        render.out(f"\n{here}:{_left(job, state, journal, inside)}")
        show(state, found, view, options)
        show_below(inside, found, options, choose, show, f"{here}/", level + 1)


def documents_below(
    journal: Journal, chosen: list[Job], options: dict[str, Any], choose: Chooser,
    document: Callable[[list[Job], View], list[dict[str, Any]]], into: list[dict[str, Any]], path: str = "", level: int = 1,
) -> None:  # fmt: skip
    """Give the documents of those among `chosen` that are instances (`into`, in the same order) their jobs, as `jobs`."""

    places = {job.id: one for job, one in zip(chosen, into, strict=True)}
    for job, here, inside, _, found, view in _inside(journal, chosen, options, choose, path, level):
        places[job.id]["jobs"] = below = document(found, view)
        documents_below(inside, found, options, choose, document, below, f"{here}/", level + 1)


def _inside(
    journal: Journal, chosen: list[Job], options: dict[str, Any], choose: Chooser, path: str, level: int
) -> Iterator[tuple[Job, str, Journal, State, list[Job], View]]:
    """The instances among `chosen` that can be read, down to options["level"]: job, path, journal (open until the next one), and
    what of it is listed."""
    from ..instances.nested import is_instance, look_ahead
    from ..journal.ids import f58

    most = options["level"]
    if most is not None and level > most:
        return
    instances = [job for job in chosen if is_instance(job, journal.store.namespace)]
    look_ahead(journal.store, instances)
    for job in instances:
        here = f"{path}{f58(job.id)}"
        with _opened(journal, job, here) as inside:
            listed = None if inside is None else _listed(inside, options, choose, here, job)
            if inside is not None and listed is not None:
                yield job, here, inside, *listed


@contextmanager
def _opened(journal: Journal, job: Job, path: str) -> Iterator[Journal | None]:
    from ..instances.nested import gone, journal_inside
    from . import render

    inside: Journal | None = None
    with ExitStack() as stack:
        try:
            inside = stack.enter_context(journal_inside(journal.store, job))
            if inside is None:
                render.say(f"fluxkv: {path}: {gone(journal.store, job)}")
            else:
                inside.warn = journal.warn
        except (Corrupt, Unavailable) as error:  # it may have a server of its own: the others are still listed
            render.say(f"fluxkv: {path}: {error}")
        yield inside


def _listed(
    inside: Journal, options: dict[str, Any], choose: Chooser, path: str, job: Job
) -> tuple[State, list[Job], View] | None:
    """What of an instance is listed; None, and a word about it, where its journal can not be read, or another job goes on with it:
    the others still are."""
    from ..instances.nested import is_owner, owner_of
    from ..journal.ids import f58
    from . import render
    from .reading import load

    try:
        state, now = load(inside, remarks=False)
    except (Corrupt, Unavailable) as error:
        render.say(f"fluxkv: {path}: {error}")
        return None
    owner = owner_of(state)
    if owner is not None and not is_owner(state, job):
        render.say(f"fluxkv: {path}: job {f58(owner.job)} has gone on with it, below which it is listed")
        return None
    found, view = choose(inside, state, now, {**options, "ids": (), "where": path})
    view.budget_s = max(0.0, BUDGET_S - (time.monotonic() - options["began"])) / 2  # of all instances together
    return state, found, view


def _left(job: Job, state: State, journal: Journal, inside: Journal) -> str:
    """What a heading says of an instance that was ended before its jobs were: what they show is the last that was known; and what
    to do about those of one that can be gone on with. journal: that has the job; inside: its own."""
    from ..instances.left_behind import way_on_with
    from ..journal.job import ACTIVE, INACTIVE, NEW

    left = state.count(ACTIVE | NEW) if job.state == INACTIVE or inside.meta.sealed else 0
    hint = f"; {way_on_with(job, journal)}" if left and not journal.meta.sealed else ""
    return f" (it ended before {left} of its jobs{hint})" if left else ""
