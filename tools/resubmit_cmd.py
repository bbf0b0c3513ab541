"""`fluxkv resubmit`: jobs that were there once more, as new jobs. Decides what may be changed on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from ..journal.ids import f58
from ..kvs.errors import Rejected
from .ensemble import Ensemble, Piece, ensemble_options
from .options import bad, time_limit, timeout_of, urgency_of
from .render import out, print_json, say
from .retryopts import retry_of
from .submit_cmd import connected

if TYPE_CHECKING:
    from ..instances.client import Instance
    from ..journal.job import Job

_SIZES = ("nodes", "ntasks", "cores_per_task", "gpus_per_task")
_CHANGES: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("-t", "--time-limit"), {"metavar": "FSD", "help": "Another time limit; a bare number is minutes, 0 is none."}),
    (("-N", "--nodes"), {"metavar": "N", "help": "Another number of nodes."}),
    (("-n", "--ntasks"), {"metavar": "N", "help": "Another number of tasks."}),
    (("-c", "--cores-per-task"), {"metavar": "N", "help": "Another number of cores for each task."}),
    (("-g", "--gpus-per-task"), {"metavar": "N", "help": "Another number of GPUs for each task."}),
    (("-q", "--queue"), {"metavar": "QUEUE", "help": "To another queue."}),
    (("--job-name",), {"metavar": "NAME", "help": "Under another name."}),
    (("--urgency",), {"metavar": "URGENCY", "help": "With another urgency (default: the one it had)."}),
    (("--env",), {"multiple": True, "metavar": "RULE", "help": "Change its environment, as in submit."}),
    (("--retry",), {"metavar": "N", "help": "Try them again when they fail, N times at most; 0: not at all."}),
    (("--retry-on",), {"metavar": "CAUSE,...", "help": "After which causes, as in submit; with --retry."}),
    (("--retry-delay",), {"metavar": "FSD", "help": "How long they wait before they are in line again; with --retry."}),
    (("-S", "--setattr"), {"multiple": True, "metavar": "KEY=VAL", "help": "Set an attribute."}),
    (("-o", "--setopt"), {"multiple": True, "metavar": "KEY=VAL", "help": "Set a shell option."}),
    (("--dry-run",), {"is_flag": True, "help": "Print the jobspecs and submit nothing."}),
    (("--uri",), {"metavar": "URI", "help": "The instance (default: FLUXKV_URI, else the one running)."}),
)


def _changes(command: Any) -> Any:
    for names, settings in reversed(_CHANGES):
        command = click.option(*names, **settings)(command)
    return command


@click.command()
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--failed", is_flag=True, help="All that failed or timed out.")
@click.option("--since", metavar="WHEN", help="With --failed: only those that ended after WHEN.")
@_changes
@ensemble_options
def resubmit(ids: tuple[str, ...], failed: bool, since: str | None, uri: str | None, dry_run: bool, **values: Any) -> int:
    """Submit jobs once more, with the jobspec and the environment they had, and print "old -> new".

    They may be of any age and in any state. Who waited for another of them waits for the new one. With --failed, all of
    your jobs that failed or timed out; running it twice submits them twice, so name the ids, or use --since.

    \b
    Examples:
      fluxkv resubmit ƒ3kQ
      fluxkv resubmit -t 2h --urgency=20 ƒ3kQ ƒ3kR
      fluxkv resubmit --failed --since -1h --dry-run
    """
    if bool(ids) == failed:
        raise click.UsageError("name jobs, or --failed" if not ids else "name jobs or --failed, not both")
    if since and not failed:
        raise click.UsageError("--since goes with --failed")
    timeout = timeout_of(values["timeout"])
    with connected(uri) as instance:
        old = _failed(instance, since) if failed else _named(instance, ids)
        if not old:
            say("fluxkv: no such job has failed")
            return 0
        pieces = _pieces(instance, old, values)
        if dry_run:
            from ..instances.submission import complete

            for piece in pieces:
                print_json(complete(piece.jobspec, piece.env))
            return 0
        jobs = Ensemble(instance, {**values, "quiet": True})
        try:
            jobs.submit(pieces, 0)
        finally:
            if not values["quiet"] and jobs.ids:
                out("\n".join([f"{f58(job.id)} -> {f58(new)}" for job, new in zip(old, jobs.ids, strict=False)]))
        return jobs.finish(timeout)


def _named(instance: Instance, ids: tuple[str, ...]) -> list[Job]:
    from .named_jobs import parse_ids

    found = instance.journal.known_jobs(instance.state(), list(dict.fromkeys(parse_ids(list(ids)))))
    return sorted(found, key=lambda job: job.order)  # who waits for another of them comes after it


def _failed(instance: Instance, since: str | None) -> list[Job]:
    """This user's jobs that failed or timed out, in the order they were submitted."""
    import time

    from .job_filter import JobFilter
    from .jobview import View

    state = instance.state()
    wanted = JobFilter(View(state, time.time(), instance.journal)).states("failed,timeout").users(None)
    found = wanted.active_since(since).find(instance.journal, 0)
    return sorted(found, key=lambda job: job.order)


def _pieces(instance: Instance, jobs: list[Job], values: Mapping[str, Any]) -> Iterator[Piece]:
    """The jobs as they were, changed as asked. Jobs with the same environment share it."""
    from ..instances.kept import kept_environment, kept_jobspec
    from .environment import changed

    urgency = urgency_of(values["urgency"]) if values["urgency"] else None
    environments: dict[str, dict[str, str]] = {}
    numbers = {job.id: number for number, job in enumerate(jobs)}
    for job in jobs:
        env = environments.get(job.env)
        if env is None:
            if len(environments) >= 256:
                environments.clear()
            env = environments[job.env] = changed(kept_environment(instance, job), values["env"])
        try:
            jobspec = _changed(kept_jobspec(instance, job), values, numbers)
        except Rejected as error:
            raise Rejected(f"{f58(job.id)}: {error}", code=error.code, hint=error.hint) from None
        yield Piece(jobspec, env, job.urgency if urgency is None else urgency)


def _changed(jobspec: dict[str, Any], values: Mapping[str, Any], numbers: Mapping[int, int]) -> dict[str, Any]:
    """A copy of a jobspec with the changes, checked again. numbers: of the jobs that are submitted anew, by their old id."""
    import copy

    from ..instances.shell_options import check_system
    from ..journal.jobspec import parse_jobspec, set_attribute, set_shell_option
    from .jobspecs import settings

    made = copy.deepcopy(jobspec)
    system = made["attributes"].setdefault("system", {})
    if any(values[name] is not None for name in _SIZES):
        _resize(made, values)
    if values["time_limit"] is not None:
        system["duration"] = time_limit(values["time_limit"])
    if values["queue"]:
        system["queue"] = values["queue"]
    if values["job_name"]:
        system["job"] = {**(system.get("job") or {}), "name": values["job_name"]}
    if (policy := retry_of(values)) is not None:
        system["retry"] = policy
    for name, value in settings("--setattr", values["setattr"]).items():
        set_attribute(made, name, value)
    for name, value in settings("--setopt", values["setopt"]).items():
        set_shell_option(made, name, value)
    parse_jobspec(made, general=True)
    check_system(system)
    if "dependencies" in system:
        from ..journal.dependency import renumbered

        system["dependencies"] = renumbered(system["dependencies"], numbers)
    return made


def _resize(jobspec: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Other resources, per task; what is not named stays as it was."""
    from ..journal.jobspec import resource_counts
    from ..journal.jobspec_sizes import per_task
    from .jobspecs import count

    options = (jobspec["attributes"]["system"].get("shell") or {}).get("options") or {}
    had = resource_counts(jobspec)
    if "per-resource" in options or not had.exact:
        raise bad("--ntasks", "this job's size is by node or core, or a range: submit it anew")
    named = {name: count(values, name, least=0 if name.startswith("gpus") else 1) for name in _SIZES}
    nodes = named["nodes"] if named["nodes"] is not None else had.nodes or None
    ntasks = named["ntasks"] if named["ntasks"] is not None else max(had.tasks, nodes or 1)
    cores = named["cores_per_task"] or had.cores // had.slots
    gpus = named["gpus_per_task"] if named["gpus_per_task"] is not None else had.gpus // had.slots
    exclusive = bool(jobspec["resources"][0].get("exclusive"))
    resource, number, _ = per_task(nodes, ntasks, cores, gpus, had.memory_mb // had.slots, exclusive)
    jobspec["resources"] = [resource]
    jobspec["tasks"][0].update(slot="task", count=number)
