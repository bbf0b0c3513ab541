"""`fluxkv jobs`: which jobs, in which order, in which form. Reads snapshot and tail; asks no daemon.

What is chosen is `job_filter`'s to say, what a column shows `jobfields`'. The table is plain text; rich is not needed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected
from .job_filter import DEFAULT_COUNT, filter_options
from .reading import at_option, load
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.state import State
    from .jobview import View

_COLOURS = {"F": "\x1b[31m", "CA": "\x1b[33m", "TO": "\x1b[31m", "R": "\x1b[32m"}
_INSTANCE = "\x1b[1;34m"
_FAILED = "failed,canceled,timeout"


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("-a", "all_states", is_flag=True, help="Inactive jobs too.")
@filter_options
@click.option("--failed", is_flag=True, help="Only jobs that ended without success, and why.")
@click.option("--name", metavar="NAME", help="Only jobs of this name.")
@click.option("-i", "--include", metavar="HOSTS|RANKS", help="Only jobs that hold or held something on these nodes.")
@click.option("--since", metavar="WHEN", help="Only jobs that are active or ended after WHEN; implies -a.")
@click.option("--until", metavar="WHEN", help="Only jobs that ended by WHEN; implies -a.")
@click.option("--constraint", metavar="QUERY|JSON", help='RFC 43: "states:run & host:n[0-3]", or such an object.')
@click.option("-c", "--count", metavar="N", type=click.IntRange(0),
              help=f"At most N jobs (default {DEFAULT_COUNT}; 0: all).")  # fmt: skip
@click.option("--sort", metavar="[-]FIELD,...", help="Sort all that match by fields; a minus turns the order round.")
@click.option("-n", "--no-header", "--suppress-header", "no_header", is_flag=True, help="No header line.")
@click.option("-o", "--format", "fmt", metavar="FORMAT", default="",
              help="A named format, or your own; help lists both, and the fields.")  # fmt: skip
@click.option("--color", "colour", metavar="WHEN", is_flag=False, flag_value="always", default="auto",
              type=click.Choice(["auto", "always", "never"]), help="auto (the default), always or never.")  # fmt: skip
@click.option("-R", "--recursive", is_flag=True, help="Then the jobs of each instance among them, and so on.")
@click.option("-L", "--level", metavar="N", type=click.IntRange(0), help="With -R: no more than N levels down.")
@click.option("--json", "as_json", is_flag=True, help='JSON: {"jobs": [...]}, or one object for a single ID.')
@click.option("--stats", is_flag=True, help="First a line of totals.")
@click.option("--stats-only", is_flag=True, help="Only the totals; exit status 1 once no job is active.")
@at_option
@target_options
def jobs(**options: Any) -> None:
    """List jobs: your active ones, or those with the given IDs.

    Pending jobs come first, as they stand in line, then running ones, then inactive ones of any age, the latest
    first. Formats of your own: [formats.NAME] in ~/.config/fluxkv/jobs.toml.

    \b
    Examples:
      fluxkv jobs                                   what waits and runs, and why it waits
      fluxkv jobs --failed --since -1d              what went wrong since yesterday, and its cause
      fluxkv jobs --failed --since -2d --until -1d  what went wrong the day before
      fluxkv jobs --no-header --format '{id} {status_abbrev}'
      fluxkv jobs -a --since -1h --sort -runtime    the last hour's jobs, the longest first
      fluxkv jobs -a -i 0 -c 20                     the last twenty jobs on rank 0
      fluxkv jobs -A --at 'yesterday 17:00'         as it was then
      fluxkv jobs -R                                and the jobs in instances that are jobs
      fluxkv jobs -a ƒ3kQ/                          all jobs of the instance that job ƒ3kQ is
      fluxkv jobs -a --state-dir ~/old              of an instance that is down
    """
    from . import render
    from .named_formats import config_of

    fmt = str(options["fmt"])
    if fmt == "help":
        _help()
        return
    if fmt.startswith("get-config="):
        render.out(config_of(fmt.partition("=")[2]))
        return
    if options["as_json"] and (options["stats"] or options["stats_only"]):
        raise click.UsageError("--json does not go with --stats and --stats-only")
    if options["recursive"] and (options["at"] or options["stats_only"]):
        raise click.UsageError("--recursive does not go with --at and --stats-only")
    if options["level"] is not None and not options["recursive"]:
        raise click.UsageError("--level is for --recursive")
    options["began"] = time.monotonic()
    with open_journal(options["uri"], options["state_dir"]) as journal:
        state, now = load(journal, options["at"])
        if options["stats_only"]:
            _show_stats(state, options["queue"])
            raise SystemExit(0 if not state.idle else 1)
        chosen, view = _choose(journal, state, now, options)
        if options["as_json"]:
            _print_json(journal, chosen, view, options)
            return
        _show(state, chosen, view, options)
        if options["recursive"]:
            from .jobs_inside import show_below

            show_below(journal, chosen, options, _choose, _show)


def _show(state: State, chosen: list[Job], view: View, options: dict[str, Any]) -> None:
    if options["stats"]:
        _show_stats(state, options["queue"])
    _table(chosen, view, options)


def _print_json(journal: Journal, chosen: list[Job], view: View, options: dict[str, Any]) -> None:
    from . import render

    documents = _documents(chosen, view)
    if options["recursive"]:
        from .jobs_inside import documents_below

        documents_below(journal, chosen, options, _choose, _documents, documents)
    if len(options["ids"]) == 1 and documents:
        render.print_json(documents[0])
    else:
        render.print_json({"jobs": documents})


def _documents(chosen: list[Job], view: View) -> list[dict[str, Any]]:
    from .foresight import foresee
    from .jobfields import job_document

    foresee(view, chosen, ["info"])
    return [job_document(job, view) for job in chosen]


def _table(chosen: list[Job], view: View, options: dict[str, Any]) -> None:
    from ..journal.job import INACTIVE
    from . import render
    from .foresight import foresee
    from .formats import Format
    from .jobfields import FIELDS
    from .jobview import status_abbrev
    from .named_formats import find_format

    name, text = find_format(options["fmt"] or ("failed" if options["failed"] else ""), "FLUXKV_JOBS_FORMAT_DEFAULT")
    if name in ("default", "cute") and any(job.queue != "default" for job in chosen):
        text = text.replace("{username", "{queue:<8.8+} {username")
    header = not options["no_header"]
    compiled = Format(text, FIELDS)
    foresee(view, chosen, (column.name for column in compiled.columns))
    lines = compiled.lines(chosen, view, header=header, within=render.columns() if name else 0)
    if name:  # a format of the user's own is printed as it is
        lines = render.fit(lines)
    if name and render.coloured(options["colour"]):
        first = 1 if header else 0
        if header:
            lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
        for index, job in enumerate(chosen, first):
            colour = _COLOURS.get(status_abbrev(job), "")
            if job.memo and view.is_instance(job) and job.state != INACTIVE:
                colour = _INSTANCE
            if colour:
                lines[index] = f"{colour}{lines[index]}\x1b[0m"
    if lines:
        render.out("\n".join(lines))


def _choose(journal: Journal, state: State, now: float, options: dict[str, Any]) -> tuple[list[Job], View]:
    """The jobs asked for, in order. options["where"]: the path of the instance, where that is not the one that was asked."""
    from ..journal.ids import parse_id
    from . import render
    from .job_filter import JobFilter
    from .jobview import View

    view = View(state, now, journal)
    named = bool(options["ids"])
    everything = named or options["all_states"] or bool(options["since"] or options["until"])
    wanted = JobFilter(view)
    wanted.states(options["states"] or (_FAILED if options["failed"] else None), everything=everything)
    if options["user"] or not named:
        wanted.users(options["user"], everyone=options["all_users"])
    wanted.queues(options["queue"]).active_since(options["since"]).ended_by(options["until"])
    wanted.on_nodes(options["include"])
    wanted.constraint({"name": [options["name"]]} if options["name"] else {}).constraint_text(options["constraint"])
    count = DEFAULT_COUNT if options["count"] is None else options["count"]
    if named:
        found = journal.known_jobs(state, [parse_id(text) for text in options["ids"]])
        chosen = [job for job in found if wanted.wants(job)]
    else:  # one more than shown, to know whether there are more
        chosen = wanted.find(journal, 0 if options["sort"] or not count else count + 1)
    if options["sort"]:
        _sort(chosen, view, options["sort"])
    if count and len(chosen) > count:
        del chosen[count:]
        if options["count"] is None:
            where = f"{options['where']}: " if options.get("where") else ""
            render.say(f"fluxkv: {where}the first {count} jobs; -c 0 lists all")
    view.listed = chosen
    return chosen, view


def _sort(chosen: list[Job], view: View, text: str) -> None:
    from .foresight import foresee
    from .jobfields import FIELDS

    foresee(view, chosen, (key.removeprefix("-") for key in text.split(",")))
    for key in reversed(text.split(",")):
        name = key.removeprefix("-")
        if name not in FIELDS:
            raise Rejected(
                f"cannot sort by {name!r}: no such field",
                code="bad-sort",
                hint="fluxkv jobs -o help lists them",
            )
        get = _number if name.startswith("id") else FIELDS[name][1]
        ranks = {job.id: _rank(get(job, view)) for job in chosen}
        chosen.sort(key=lambda job, ranks=ranks: ranks[job.id], reverse=key.startswith("-"))  # type: ignore[misc]


def _number(job: Job, view: View) -> int:
    return job.id


def _rank(value: Any) -> tuple[int, Any]:
    """A sort key for values some of which are empty or of another kind: numbers first, then texts, then nothing."""
    if value == "":
        return 2, ""
    return (0, value) if isinstance(value, int | float) else (1, str(value))


def _show_stats(state: State, queues: str | None) -> None:
    from ..journal.job import NEW, PENDING, RUNNING, Result
    from . import render

    if queues:
        names = set(queues.split(","))
        active = [job.state for job in state.active() if job.queue in names]
        running = sum(1 for one in active if one & RUNNING)
        pending = sum(1 for one in active if one & (PENDING | NEW))
        ended = [state.ended(name) for name in sorted(names)]
    else:
        running, pending, ended = state.count(RUNNING), state.count(PENDING | NEW), [state.ended()]
    good = sum(one[Result.COMPLETED] for one in ended)
    bad = sum(sum(one.values()) for one in ended) - good
    render.out(f"{running} running, {good} completed, {bad} failed, {pending} pending")


def _help() -> None:
    from . import render
    from .jobfields import FIELDS
    from .named_formats import BUILT_IN, configured

    render.out("Formats:")
    for name, one in {**BUILT_IN, **configured()}.items():
        render.out(f"  {name:<10} {one.description}\n  {'':<10} {one.text}")
    render.out("Fields:")
    render.table([], [(f"  {name}", header) for name, (header, _) in FIELDS.items()])
    render.out("  annotations.KEY, sched.KEY, user.KEY: what the scheduler and the user noted on a job")
    render.out(
        "Conversions: !d datetime, !D ISO time, !F duration, !H h:mm:ss, !P percentage; "
        "a spec may end in h (a hyphen for nothing) or in + (marks what was cut)"
    )
