"""`fluxkv submit` and `fluxkv run`. Decides what is printed and the exit status; jobs are made in `options`.

submit prints ids only, one per line. run shows the job's output and exits with its code as a shell would.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from ..journal.ids import f58
from .attaching import attach_job, exception_line, forwarded_input, writers
from .environment import environment, overlay_of
from .options import (
    copies,
    fill,
    flags_of,
    jobspec_of,
    submission_options,
    timeout_of,
    urgency_of,
)  # fmt: skip
from .render import out, print_json, progress, say

if TYPE_CHECKING:
    from ..instances.client import Instance
    from ..instances.follow import JobResult

TOLD = 10  # exceptions that are told one by one
_SETTINGS = {"ignore_unknown_options": False, "allow_interspersed_args": False}


@click.command(context_settings=_SETTINGS)
@submission_options
@click.option(
    "--cc", metavar="IDSET", help="One copy for each id; {cc} becomes the id, and so does $FLUX_JOB_CC."
)
@click.option("--bcc", metavar="IDSET", help="As --cc, without FLUX_JOB_CC.")
@click.option("--quiet", is_flag=True, help="Print no ids.")
@click.option("--wait", is_flag=True, help="Wait until all have ended; exit with the worst code.")
@click.option("--watch", is_flag=True, help="Show their output, and wait.")
@click.option("--progress", "show_progress", is_flag=True, help="Show how many are done, and wait.")
@click.option("--jps", is_flag=True, help="Show jobs per second with --progress.")
@click.option("--timeout", metavar="FSD", help="How long to wait at most.")
def submit(words: tuple[str, ...], uri: str | None, dry_run: bool, **values: Any) -> int:
    """Submit jobs and print their ids.

    \b
    Examples:
      fluxkv submit -n4 -c2 ./simulate input.dat
      fluxkv submit --cc=1-100 --output=out.{cc} ./simulate {cc}
      fluxkv submit -t 10m --urgency=20 ./report
      fluxkv submit --dependency=afterok:ƒ2UzHM --begin-time=+1h ./report
      fluxkv submit --wait --progress --cc=1-1000 true
    """
    _need_command(words)
    numbers = copies(values["cc"], values["bcc"])
    jobspecs = _jobspecs(values, words, numbers)
    if dry_run:
        _print_jobspecs(jobspecs, environment(values["env"], values["env_remove"]))
        return 0
    waits = values["wait"] or values["watch"] or values["show_progress"]
    timeout = timeout_of(values["timeout"])
    with _connect(uri) as instance:
        ids = _submit(instance, jobspecs, values)
        if not values["quiet"]:
            out("\n".join([f58(id) for id in ids]))
        if not waits:
            return 0
        sys.stdout.flush()
        try:
            return _wait(instance, ids, values, timeout)
        except KeyboardInterrupt:
            say("fluxkv: the jobs go on; fluxkv cancel ends them")
            return 130


def _wait(instance: Instance, ids: list[int], values: dict[str, Any], timeout: float | None) -> int:
    batches: Iterable[list[JobResult]]
    if values["watch"]:
        batches = instance.watch(ids, writers(values["label_io"], len(ids) > 1), timeout)
    else:
        batches = instance.batches(ids, timeout)
    worst = done = failed = told = 0

    def take(batch: list[JobResult]) -> None:
        nonlocal worst, done, failed, told
        for result in batch:
            done += 1
            failed += not result.ok
            worst = max(worst, result.returncode)
            if result.exception is not None:
                told += 1
                if told <= TOLD:
                    say(exception_line(result.id, *result.exception))

    if values["show_progress"]:
        with progress(len(ids)) as bar:
            for batch in batches:
                take(batch)
                bar.update(done, failed)
    else:
        for batch in batches:
            take(batch)
    if told > TOLD:
        say(f"fluxkv: {told - TOLD} more jobs had exceptions; fluxkv jobs -a -f failed,canceled,timeout lists them")
    return worst


@click.command(context_settings=_SETTINGS)
@submission_options
@click.option("-v", "--verbose", is_flag=True, help="Say the job's id and its events on stderr.")
@click.option("--timeout", metavar="FSD", help="How long to stay attached at most; the job goes on.")
def run(words: tuple[str, ...], uri: str | None, dry_run: bool, **values: Any) -> int:
    """Submit a job, show its output, and exit with its code.

    Ctrl-C sends SIGINT to the job; a second one within two seconds cancels it and leaves.

    \b
    Examples:
      fluxkv run hostname
      fluxkv run -N2 -n8 -l ./mpi-program
      fluxkv run -t 1s sleep 60           ended by its time limit
      sort data | fluxkv run uniq -c
    """
    _need_command(words)
    forwarded = forwarded_input(values)
    if forwarded is not None:
        values["setopt"] = ("input.stdin.type=service", *values["setopt"])
    (jobspec,) = _jobspecs(values, words, None)
    if dry_run:
        _print_jobspecs([jobspec], environment(values["env"], values["env_remove"]))
        return 0
    with _connect(uri) as instance:
        (id,) = _submit(instance, [jobspec], values)
        if values["verbose"]:
            say(f"fluxkv: job {f58(id)}")
        return attach_job(
            instance, id, forwarded, label=values["label_io"], verbose=values["verbose"],
            timeout=timeout_of(values["timeout"]),
        )  # fmt: skip


def _need_command(words: tuple[str, ...]) -> None:
    if not words:
        raise click.UsageError("no command to run: name one, e.g. hostname, after the options")


def _connect(uri: str | None) -> Instance:
    from ..instances.client import connect

    instance = connect(uri)
    instance.by = "cli"
    return instance


def _jobspecs(
    values: dict[str, Any], words: tuple[str, ...], numbers: list[str] | None
) -> list[dict[str, Any]]:
    if numbers is None:
        return [jobspec_of(values, words)]
    rules = values["env"]
    names_cc = any("{cc}" in str(text) for key, text in values.items() if key not in ("cc", "bcc"))
    if names_cc or values["cc"]:
        found = []
        for number in numbers:
            overlay = overlay_of(rules, number)
            if values["bcc"]:
                del overlay["FLUX_JOB_CC"]
            found.append(jobspec_of({**values, "overlay": overlay}, words, number))
        return found
    # Only the command differs: one jobspec, checked once.
    model = jobspec_of(values, words, numbers[0])
    task = model["tasks"][0]
    return [
        {**model, "tasks": [{**task, "command": [fill(word, number) for word in words]}]}
        for number in numbers
    ]


def _submit(instance: Instance, jobspecs: list[dict[str, Any]], values: dict[str, Any]) -> list[int]:
    env = environment(values["env"], values["env_remove"])
    return instance.submitter.submit(
        ((jobspec, env) for jobspec in jobspecs), urgency_of(values["urgency"]), flags_of(values["flags"])
    )


def _print_jobspecs(jobspecs: list[dict[str, Any]], env: dict[str, str]) -> None:
    for jobspec in jobspecs:
        attributes = jobspec["attributes"]
        system = {
            **attributes["system"],
            "environment": {**env, **attributes["system"].get("environment", {})},
        }
        print_json({**jobspec, "attributes": {**attributes, "system": system}})
