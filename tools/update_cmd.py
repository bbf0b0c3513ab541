"""`fluxkv update`, `hold`, `release` and `requeue`: change jobs. Decides what is said; rules are `journal.decide_update`'s."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..journal.ids import f58
from ..kvs.errors import FluxkvError, Rejected
from .named_jobs import choose, counted, job_options, names_jobs, parse_ids, tell_refused
from .reading import uri_option
from .render import print_json, say
from .target import open_journal

if TYPE_CHECKING:
    from ..journal.decide import Decision
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.state import State


@click.command()
@click.argument("words", nargs=-1, metavar="[ID]... KEY=VALUE...")
@job_options("Update")
@click.option("-n", "--dry-run", is_flag=True, help="Only print, as JSON, what would be set.")
@click.option("-v", "--verbose", is_flag=True, help="Say what was changed.")
@uri_option
def update(words: tuple[str, ...], chosen: dict[str, Any], dry_run: bool, verbose: bool, uri: str | None) -> int:
    """Change jobs that wait; of those that run, the duration.

    KEY is duration (a time, or +TIME, -TIME), queue, name, bank, project, constraints, or the path of an attribute, such as
    attributes.user.note. VALUE is JSON if it reads as such. A job that waits is checked and lined up anew.

    \b
    Examples:
      fluxkv update ƒ3kQ duration=+10m
      fluxkv update ƒ3kQ ƒ3kR queue=debug name=retry
      fluxkv update --all --name=simulate queue=batch
      fluxkv update -n ƒ3kQ duration=1h
    """
    from ..instances.changing import Update
    from ..journal.job import NEW, PENDING

    ids = [word for word in words if "=" not in word]
    changes = [word for word in words if "=" in word]
    if not changes:
        raise click.UsageError("nothing to change: give KEY=VALUE, such as duration=+10m")
    change = Update(changes, os.getuid())

    contexts: dict[int, dict[str, object]] = {}

    def decide(state: State, job: Job, now: float) -> Decision:
        made = change(state, job, now)
        contexts[job.id] = change.context(job)
        return made

    def tell(id: int) -> None:
        if dry_run:
            print_json({"id": f58(id), "update": contexts[id]})
        elif verbose:
            say(f"fluxkv: job {f58(id)}: {', '.join(f'{key}={value}' for key, value in contexts[id].items())}")

    return _change(ids, chosen, PENDING | NEW, decide, uri, "changed", from_node=True, tell=tell, dry_run=dry_run)


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@job_options("Hold")
@uri_option
def hold(ids: tuple[str, ...], chosen: dict[str, Any], uri: str | None) -> int:
    """Hold jobs that wait: they do not run until they are released.

    \b
    Examples:
      fluxkv hold ƒ3kQ ƒ3kR
      fluxkv hold --all --queue=debug
    """
    from ..journal import decide_update
    from ..journal.job import NEW, PENDING

    def decide(state: State, job: Job, now: float) -> Decision:
        return decide_update.hold(job, os.getuid(), now)

    return _change(list(ids), chosen, PENDING | NEW, decide, uri, "held")


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@job_options("Release")
@uri_option
def release(ids: tuple[str, ...], chosen: dict[str, Any], uri: str | None) -> int:
    """Release held jobs: back to the urgency they had before, or the default one.

    \b
    Examples:
      fluxkv release ƒ3kQ
      fluxkv release --all
    """
    from ..journal import decide_update
    from ..journal.job import NEW, PENDING

    def decide(state: State, job: Job, now: float) -> Decision:
        return decide_update.release(job, os.getuid(), now)

    return _change(list(ids), chosen, PENDING | NEW, decide, uri, "released")


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@job_options("Requeue")
@click.option("-m", "--message", metavar="NOTE", default="", help="Why; it stays in the job's story.")
@click.option("--hold", "held", is_flag=True, help="Hold it then: it does not run until it is released.")
@uri_option
def requeue(ids: tuple[str, ...], chosen: dict[str, Any], message: str, held: bool, uri: str | None) -> int:
    """End running jobs and put them back in line: each runs once more, as the same job.

    Its tasks get TERM, then KILL; when all is over the next attempt is pending. It counts for no --retry. A job that has
    ended is submitted once more with resubmit.

    \b
    Examples:
      fluxkv requeue ƒ3kQ
      fluxkv requeue --hold -m "wrong node" ƒ3kQ
      fluxkv requeue --all --queue=debug
    """
    from ..journal import decide_update
    from ..journal.job import RUN

    def decide(state: State, job: Job, now: float) -> Decision:
        return decide_update.requeue(job, message, held, os.getuid(), now)

    return _change(list(ids), chosen, RUN, decide, uri, "requeued")


def _change(
    ids: list[str], chosen: dict[str, Any], among: int, decide: Callable[[State, Job, float], Decision], uri: str | None,
    word: str, *, from_node: bool = False, tell: Callable[[int], None] | None = None, dry_run: bool = False,
) -> int:  # fmt: skip
    """Change the jobs meant and say what stood in the way of the others; 1 if anything did."""
    from ..instances.changing import change_jobs

    named = names_jobs(ids, chosen)
    with open_journal(uri) as journal:
        state = journal.look()
        wanted = parse_ids(ids) if named else choose(state, chosen, among)
        if dry_run:
            changed, refused = _try(journal, state, wanted, decide)
        else:
            changed, refused = change_jobs(journal, wanted, decide, from_node=from_node, state=state)
    if tell is not None:
        for id in changed:
            tell(id)
    if not named and not dry_run:
        say(f"fluxkv: {word} {counted(len(changed))}")
    tell_refused(refused)
    return int(bool(refused))


def _try(
    journal: Journal, state: State, ids: list[int], decide: Callable[[State, Job, float], Decision]
) -> tuple[list[int], dict[int, FluxkvError]]:
    """(jobs that would be changed, what stands in the way of the others)."""
    now = journal.store.now()
    changed: list[int] = []
    refused: dict[int, FluxkvError] = {}
    for id in ids:
        try:
            if decide(state, journal.find_job(state, id), now).events:
                changed.append(id)
        except Rejected as error:
            refused[id] = error
    return changed, refused
