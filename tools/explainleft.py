"""`fluxkv explain` where an instance ended before its jobs had: what of them is known, and what goes on with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..journal.ids import f58
from ..journal.job import ACTIVE, NEW, PENDING, Job, Result
from .explainpage import Page, clock, count, hosts_of

if TYPE_CHECKING:
    from ..instances.nested import Totals
    from ..journal.log import Journal
    from .jobview import View


def explain_left(job: Job, view: View, journal: Journal) -> tuple[dict[str, Any], Page]:
    """(document, page) of a job that was active when its instance ended."""
    from ..instances.left_behind import way_on

    name, ended = f58(job.id), float(journal.meta.sealed)
    waited = bool(job.state & (PENDING | NEW))
    was = "was waiting" if waited else f"was running on {hosts_of(view.state, job.ranks)}"
    page = Page(f"{name} {was} when its instance ended at {clock(ended, view.now)}; nothing of it runs.")
    hint = way_on(journal.store)
    page.add("what now", hint)
    document = {"state": "left", "answer": page.answer, "instance_ended": ended, "hint": hint}
    return document, page


def inside(job: Job, journal: Journal) -> str:
    """What is to be said of the jobs of an instance that is over: "" if all of them have succeeded, or nobody can tell."""
    from ..instances.nested import is_owner, journal_inside, owner_of, totals_of
    from ..kvs.errors import FluxkvError

    try:
        with journal_inside(journal.store, job) as below:
            if below is None:
                return ""
            state = below.look()
            owner = owner_of(state)
            if owner is not None and not is_owner(state, job):
                return f"job {f58(owner.job)} has gone on with it"
            left, had = state.count(ACTIVE | NEW), totals_of(state)
    except FluxkvError:  # its server is away
        return ""
    if not left:
        return _failed(job, journal, had)
    from ..instances.left_behind import way_on_with

    return f"{count(left, 'job')} in it had not ended; {way_on_with(job, journal)}"


def _failed(job: Job, journal: Journal, had: Totals) -> str:
    """How many of an instance's jobs failed, and what lists them."""
    from ..instances.job_path import command_of, typed_at

    at, name = typed_at(journal.store.namespace), f58(job.id)
    if command_of(job, journal)[2:4] == ["fluxkv", "ensemble"]:
        return f"fluxkv {at}ensemble results --failed {name} lists members that failed" if job.result != Result.COMPLETED else ""
    if not had.failed:
        return ""
    return f"{had.failed:,} of {count(had.total, 'job')} in it failed; fluxkv {at}jobs --failed {name}/ lists them"
