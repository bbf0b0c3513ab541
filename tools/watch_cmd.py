"""`fluxkv watch`: follow jobs that somebody submitted: their output, or a bar. Decides which jobs, and changes none."""

from __future__ import annotations

import sys
from typing import Any

import click

from .ensemble import Ensemble
from .options import timeout_of
from .render import say
from .submit_cmd import connected


@click.command()
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("-a", "--all", "everyone", is_flag=True, help="All of your jobs that are active now.")
@click.option("-q", "--queue", metavar="QUEUE", help="With --all: only those of this queue.")
@click.option("--progress", "show_progress", is_flag=True, help="A bar with rate, failures and time left instead of output.")
@click.option("-l", "--label-io", is_flag=True, help="Put job and task before each line.")
@click.option("--timeout", metavar="FSD", help="How long to watch at most.")
@click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")
def watch(ids: tuple[str, ...], everyone: bool, queue: str | None, uri: str | None, **values: Any) -> int:
    """Follow jobs until they end: their output as it comes, or with --progress how many are done.

    Jobs that have ended already count too, and their output is shown first. - reads ids from standard input. Ctrl-C leaves
    the jobs alone. The exit status is the worst of the jobs'.

    \b
    Examples:
      fluxkv watch ƒ3kQ ƒ3kR
      fluxkv watch --all --progress
      fluxkv submit --cc=1-100 ./simulate {cc} | fluxkv watch --progress -
    """
    if bool(ids) == everyone:
        raise click.UsageError("name jobs, or --all" if not ids else "name jobs or --all, not both")
    if queue and not everyone:
        raise click.UsageError("--queue goes with --all")
    timeout = timeout_of(values["timeout"])
    with connected(uri) as instance:
        jobs = Ensemble(instance, {**values, "watch": not values["show_progress"], "jps": True, "wait": True})
        if everyone:
            from ..journal.decide import active_ids

            state = instance.state()
            mine = [state.jobs[id] for id in active_ids(state)]
            jobs.ids = [job.id for job in mine if not queue or job.queue == queue]
            if not jobs.ids:
                say("fluxkv: no job is active")
        else:
            from .named_jobs import parse_ids

            words = [*(word for word in ids if word != "-"), *(sys.stdin.read().split() if "-" in ids else ())]
            jobs.ids = list(dict.fromkeys(parse_ids(words)))
        return jobs.finish(timeout)
