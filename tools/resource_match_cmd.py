"""`fluxkv resource match`: when and where jobs would run, without submitting them. Reads only; `instances.supposing` answers."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from .reading import at_option, load
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..instances.supposing import Fate
    from ..journal.state import State


@click.command("match")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True)
@click.option("--now", "at_once", is_flag=True, help="Only what nobody holds at this moment counts, whoever waits for it.")
@click.option("--satisfiability", "ever", is_flag=True, help="Only whether they could run here with everything up and free.")
@click.option("-R", "--R", "as_R", is_flag=True, help="Print what they would get, as R (RFC 20), a line each.")
@click.option("--json", "as_json", is_flag=True, help="JSON, an object a line.")
@at_option
@target_options
def match(
    paths: tuple[str, ...], at_once: bool, ever: bool, as_R: bool, as_json: bool, at: str | None, uri: str | None,
    state_dir: str | None,
) -> None:  # fmt: skip
    """Say when and where the jobs in FILE ("-": standard input) would run if they were submitted now; none is.

    FILE holds a jobspec as JSON or YAML, or one a line, as submit --dry-run prints them. Each job comes behind all who wait, and
    behind those before it. A start is an estimate, as that of explain: each job takes all of its time limit, and nobody comes.
    Dependencies count as met. The exit status is 1 if there is a job for which the answer is no, or unknown.

    \b
    Examples:
      fluxkv submit --dry-run -N4 -t 1h ./simulate | fluxkv resource match -
      fluxkv resource match --now job.yaml                is there room for it at this moment?
      fluxkv resource match --satisfiability job.yaml     could it ever run here?
      fluxkv resource match -R job.yaml                   what it would get, as R
    """
    from ..instances import supposing
    from .jobspec_input import jobspecs_of

    if at_once and ever:
        raise click.UsageError("--now asks for more than --satisfiability: one of them")
    jobspecs = [jobspec for path in paths for jobspec in jobspecs_of(path)]
    with open_journal(uri, state_dir) as journal:
        state, now = load(journal, at)
    how = supposing.fits_now if at_once else supposing.could_run if ever else supposing.fates
    found = how(state, jobspecs, os.getuid(), now)
    for number, (jobspec, fate) in enumerate(zip(jobspecs, found, strict=True), 1):
        _tell(state, jobspec, fate, f"{number} " if len(found) > 1 else "", now, as_R, as_json)
    if not all(fate.possible if ever else fate.start is not None for fate in found):
        sys.exit(1)


def _tell(state: State, jobspec: dict[str, Any], fate: Fate, number: str, now: float, as_R: bool, as_json: bool) -> None:
    from ..journal.jobspec import job_name
    from . import render

    name = job_name(jobspec)
    if as_json:
        render.print_json(_document(state, name, fate))
    elif as_R and fate.claims:
        render.print_json(_R(state, fate))
    else:
        text = f"{number}{name}: {_sentence(state, fate, now)}"
        (render.say if as_R else render.out)(text)


def _sentence(state: State, fate: Fate, now: float) -> str:
    from .explainpage import count, hosts_of, moment

    if not fate.possible:
        refused = fate.code == "refused"
        return f"would be refused: {fate.text}" if refused else f"can never run here: {fate.text.removeprefix('unsatisfiable: ')}"
    if not fate.claims:
        return f"does not begin now: {fate.text}" if fate.text else "can run here"
    where = f"on {hosts_of(state, (claim.rank for claim in fate.claims))}"
    what = count(sum(claim.cores.bit_count() for claim in fate.claims), "core")
    assert fate.start is not None
    if fate.start - now < 1 and not fate.text:
        return f"begins now {where} ({what})"
    return f"begins about {moment(fate.start, now)} {where} ({what}); {fate.text}"


def _document(state: State, name: str, fate: Fate) -> dict[str, Any]:
    from .explainpage import hosts_of

    ranks = [claim.rank for claim in fate.claims]
    return {
        "name": name, "possible": fate.possible, "start": fate.start, "code": fate.code, "reason": fate.text, "ranks": ranks,
        "nodelist": hosts_of(state, ranks) if ranks else "", "R": _R(state, fate) if ranks else None,
    }  # fmt: skip


def _R(state: State, fate: Fate) -> dict[str, Any]:
    from ..instances.views import scheduling_of
    from ..journal.rset import allocated_set, render_set

    assert fate.job is not None
    assert fate.start is not None
    nodes = {claim.rank: state.nodes[claim.rank] for claim in fate.claims}
    hosts, names = {rank: node.host for rank, node in nodes.items()}, {rank: node.properties for rank, node in nodes.items()}
    end = fate.start + fate.job.duration if fate.job.duration else 0.0
    slots = sum(claim.slots for claim in fate.claims)
    found = allocated_set(fate.claims, hosts, slots, fate.start, end, names)
    return render_set(found._replace(scheduling=scheduling_of(state, fate.claims)))
