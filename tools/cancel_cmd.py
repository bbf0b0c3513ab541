"""`fluxkv cancel`: ends active jobs. Decides what is said; which jobs are meant `selection`, the rest `journal.decide`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..journal.ids import f58
from ..kvs.errors import FluxkvError, Rejected
from .named_jobs import choose, counted, job_options, names_jobs, parse_ids, tell_refused
from .render import out, say

if TYPE_CHECKING:
    from ..journal.state import State


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@job_options("Cancel")
@click.option("-m", "--message", metavar="NOTE", default="", help="Why; it stays in the job's record.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say which jobs would be cancelled.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")
def cancel(
    ids: tuple[str, ...], chosen: dict[str, Any], message: str, dry_run: bool, quiet: bool, uri: str | None
) -> int:
    """Cancel jobs.

    \b
    Examples:
      fluxkv cancel ƒ3kQ ƒ3kR
      fluxkv cancel -m "wrong input" f3kQ,f3kR
      fluxkv cancel --all
      fluxkv cancel --all --states=pending
      fluxkv cancel --queue=debug --name=simulate
      fluxkv cancel --all --user=all --dry-run
    """
    from ..instances.client import connect
    from ..journal.job import ACTIVE, NEW

    named = names_jobs(ids, chosen)
    with connect(uri) as instance:
        instance.by = "cli"
        state = instance.state()
        refused: dict[int, FluxkvError] = {}
        if not named:
            wanted = choose(state, chosen, ACTIVE | NEW)
        else:
            wanted = []
            for id in parse_ids(ids):
                why = _why_not(instance, state, id)
                if why is not None:
                    refused[id] = why
                else:
                    wanted.append(id)
            tell_refused(refused)
        if dry_run:
            for id in wanted:
                out(f58(id))
            if not quiet:
                say(f"fluxkv: would cancel {counted(len(wanted))}")
            return int(bool(refused))
        done = instance.cancel(wanted, message, state=state)
        if not quiet and not named:
            say(f"fluxkv: cancelled {counted(len(done))}")
        return int(bool(refused))


def _why_not(instance: Any, state: State, id: int) -> FluxkvError | None:
    from ..journal.job import INACTIVE

    try:
        job = instance.journal.find_job(state, id)
    except Rejected as error:
        return error
    return Rejected("is inactive and can not be cancelled", code="inactive") if job.state == INACTIVE else None
