"""`fluxkv jobs`: which jobs, in which order, in which form. Reads snapshot and tail; asks no daemon.

Order as in Flux: pending jobs as they stand in line, then running ones, the latest first, then inactive ones,
the latest first. Off a terminal and on it the table is plain text; rich is not needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected
from .reading import at_option, load, user_id
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.log import Journal
    from ..journal.state import State
    from .jobview import View

DEFAULT = (
    "{id.f58:>12} {username:<8.8+} {name:<10.10+} {status_abbrev:>2} {ntasks:>6} {nnodes:>6h} "
    "{contextual_time!F:>8h} {info}"
)
WITH_QUEUE = DEFAULT.replace("{username", "{queue:<8.8+} {username")
FORMATS = {
    "default": DEFAULT,
    "long": "{id.f58:>12} {queue:<8.8+} {username:<8.8+} {name:<10.10+} {status:>9} {urgency:>3} "
            "{ntasks:>6} {nnodes:>6h} {t_submit!d:%b%d %R::>12} {runtime!F:>8h} {duration!F:>8h} {info}",
    "deps": "{id.f58:>12} {username:<8.8+} {name:<10.10+} {status_abbrev:>2} {dependencies}",
    "endreason": "{id.f58:>12} {username:<8.8+} {name:<10.10+} {status_abbrev:>2} "
                 "{t_inactive!d:%b%d %R::>12} {runtime!F:>8h} {inactive_reason}",
    "id": "{id.f58}",
}  # fmt: skip
_COLOURS = {"F": "\x1b[31m", "CA": "\x1b[33m", "TO": "\x1b[31m", "R": "\x1b[32m"}


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("-a", "all_states", is_flag=True, help="Inactive jobs too.")
@click.option("-A", "all_users", is_flag=True, help="Jobs of all users.")
@click.option("-u", "--user", metavar="USER", help="Jobs of this user, by name or number; or all.")
@click.option("-n", "--no-header", "--suppress-header", "no_header", is_flag=True, help="No header line.")
@click.option("-o", "--format", "fmt", metavar="FORMAT", default="default",
              help="default, long, deps, endreason, id, or your own; help lists the fields.")  # fmt: skip
@click.option(
    "-c", "--count", metavar="N", type=click.IntRange(0), default=0, help="At most N jobs (default: all)."
)
@click.option(
    "-f", "--filter", "states", metavar="STATE,...", help="Only jobs in these states or with these results."
)
@click.option("--name", metavar="NAME", help="Only jobs of this name.")
@click.option("-q", "--queue", metavar="QUEUE,...", help="Only jobs of these queues.")
@click.option(
    "--since", metavar="WHEN", help="Of the inactive jobs only those that ended after WHEN; implies -a."
)
@click.option("--sort", metavar="[-]FIELD,...", help="Sort by fields; a minus turns the order round.")
@click.option("--json", "as_json", is_flag=True, help='JSON: {"jobs": [...]}, or one object for a single ID.')
@click.option("--stats", is_flag=True, help="First a line of totals.")
@click.option("--stats-only", is_flag=True, help="Only the totals; exit status 1 once no job is active.")
@at_option
@target_options
def jobs(**options: Any) -> None:
    """List jobs: your active ones, or those with the given IDs.

    \b
    Examples:
      fluxkv jobs                                   what waits and runs, and why it waits
      fluxkv jobs -a -f failed,timeout              what went wrong, and its cause
      fluxkv jobs --no-header --format '{id} {status_abbrev}'
      fluxkv jobs -a --since -1h --sort -runtime    the last hour's jobs, the longest first
      fluxkv jobs -A --at 'yesterday 17:00'         as it was then
      fluxkv jobs -a --state-dir ~/old              of an instance that is down
    """
    from . import render

    if options["fmt"] == "help":
        _help()
        return
    with open_journal(options["uri"], options["state_dir"]) as journal:
        state, now = load(journal, options["at"])
        if options["stats"] or options["stats_only"]:
            render.out(_stats(state))
            if options["stats_only"]:
                raise SystemExit(0 if not state.idle else 1)
        chosen, view = _choose(journal, state, now, options)
    if options["count"]:
        chosen = chosen[: options["count"]]
    if options["as_json"]:
        from .jobview import job_document

        documents = [job_document(job, view) for job in chosen]
        if len(options["ids"]) == 1:
            render.print_json(documents[0])
        else:
            render.print_json({"jobs": documents})
        return
    _table(chosen, view, options["fmt"], header=not options["no_header"])


def _table(chosen: list[Job], view: View, fmt: str, *, header: bool) -> None:
    from . import render
    from .formats import Format
    from .jobview import FIELDS, status_abbrev

    text = FORMATS.get(fmt, fmt)
    if fmt == "default" and any(job.queue != "default" for job in chosen):
        text = WITH_QUEUE
    lines = Format(text, FIELDS).lines(chosen, view, header=header)
    if fmt in FORMATS and not os.environ.get("NO_COLOR") and render.is_terminal():
        first = 1 if header else 0
        if header:
            lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
        for index, job in enumerate(chosen, first):
            colour = _COLOURS.get(status_abbrev(job), "")
            if colour:
                lines[index] = f"{colour}{lines[index]}\x1b[0m"
    if lines:
        render.out("\n".join(lines))


def _choose(journal: Journal, state: State, now: float, options: dict[str, Any]) -> tuple[list[Job], View]:
    """The jobs asked for, in order."""
    from .jobview import View

    view = View(state, now)
    if options["ids"]:
        from ..journal.ids import parse_id

        chosen = journal.known_jobs(state, [parse_id(text) for text in options["ids"]])
        keep = _keep(options, every=True, now=now)
    else:
        keep = _keep(options, every=False, now=now)
        chosen = _in_order(state.jobs.values())
    chosen = [job for job in chosen if all(test(job) for test in keep)]
    if options["sort"]:
        _sort(chosen, view, options["sort"])
    return chosen, view


def _in_order(jobs: Iterable[Job]) -> list[Job]:
    from ..journal.job import INACTIVE, NEW, PENDING
    from .jobview import in_line

    pending: list[Job] = []
    running: list[Job] = []
    inactive: list[Job] = []
    for job in jobs:
        if job.state == INACTIVE:
            inactive.append(job)
        elif job.state & (PENDING | NEW):
            pending.append(job)
        else:
            running.append(job)
    pending.sort(key=in_line)
    running.sort(key=lambda job: (-(job.t_run or job.t_alloc), -job.order))
    inactive.sort(key=lambda job: (-job.t_inactive, -job.order))
    return [*pending, *running, *inactive]


def _keep(options: dict[str, Any], *, every: bool, now: float) -> list[Callable[[Job], bool]]:
    """The tests a job must pass. every: jobs are named, so state and user do not matter unless asked for."""
    from ..journal.job import ACTIVE, INACTIVE, NEW

    tests: list[Callable[[Job], bool]] = []
    if options["states"]:
        mask, results = parse_states(options["states"])
        tests.append(lambda job: bool(job.state & mask) or (job.state == INACTIVE and job.result in results))
    elif not (every or options["all_states"] or options["since"]):
        tests.append(lambda job: bool(job.state & (ACTIVE | NEW)))
    user = options["user"]
    if user and user != "all":
        wanted = user_id(user)
        tests.append(lambda job: job.userid == wanted)
    elif not (every or options["all_users"] or user):
        me = os.getuid()
        tests.append(lambda job: job.userid == me)
    if options["name"]:
        tests.append(lambda job: job.name == options["name"])
    if options["queue"]:
        queues = set(options["queue"].split(","))
        tests.append(lambda job: job.queue in queues)
    if options["since"]:
        from .target import parse_moment

        since = parse_moment(options["since"], now)
        if since.time is None:  # a version: its commit stands for a time
            raise Rejected(
                "--since takes a time, not a version", code="bad-moment", hint="such as -1h or 10:30"
            )
        after = since.time
        tests.append(lambda job: job.state != INACTIVE or job.t_inactive > after)
    return tests


def parse_states(text: str) -> tuple[int, frozenset[int]]:
    """(mask of states, results) that a list such as "pending,failed" names. Raises `Rejected`."""
    from ..journal.job import ACTIVE, NEW, PENDING, RUNNING, JobState, Result

    masks = {state.name.lower(): int(state) for state in JobState}
    masks |= {"pending": PENDING | NEW, "running": RUNNING, "active": ACTIVE | NEW}
    names = {result.name.lower(): int(result) for result in Result} | {"cancelled": int(Result.CANCELED)}
    mask, results = 0, set()
    for word in text.lower().split(","):
        if word in masks:
            mask |= masks[word]
        elif word in names:
            results.add(names[word])
        else:
            raise Rejected(
                f"{word!r} is no state and no result",
                code="bad-state",
                hint=f"there are {', '.join([*masks, *names])}",
            )
    return mask, frozenset(results)


def _sort(chosen: list[Job], view: View, text: str) -> None:
    from .jobview import FIELDS

    for key in reversed(text.split(",")):
        name = key.removeprefix("-")
        if name not in FIELDS:
            raise Rejected(
                f"cannot sort by {name!r}: no such field",
                code="bad-sort",
                hint="fluxkv jobs -o help lists them",
            )
        get: Callable[[Job, View], Any] = FIELDS[name][1]
        if name.startswith("id"):
            get = _number
        values = [get(job, view) for job in chosen]
        mixed = len({isinstance(value, str) for value in values}) > 1  # some empty, some numbers
        order = sorted(
            range(len(chosen)),
            key=lambda at: (
                (values[at] != "", str(values[at]) if mixed and values[at] == "" else values[at])
                if mixed
                else values[at]
            ),
            reverse=key.startswith("-"),
        )
        chosen[:] = [chosen[at] for at in order]


def _number(job: Job, view: View) -> int:
    return job.id


def _stats(state: State) -> str:
    from ..journal.job import INACTIVE, NEW, PENDING, RUNNING

    ended = [job.result for job in state.jobs.values() if job.state == INACTIVE]
    good = sum(1 for result in ended if result == 1)
    return (
        f"{state.count(RUNNING)} running, {good} completed, {len(ended) - good} failed, "
        f"{state.count(PENDING | NEW)} pending" + (f", {state.retired} retired" if state.retired else "")
    )


def _help() -> None:
    from . import render
    from .jobview import FIELDS

    render.out("Formats:")
    for name, text in FORMATS.items():
        render.out(f"  {name:<10} {text}")
    render.out("Fields:")
    render.table([], [(f"  {name}", header) for name, (header, _) in FIELDS.items()], plain=True)
    render.out(
        "Conversions: !d datetime, !D ISO time, !F duration, !H h:mm:ss; "
        "a spec may end in h (a hyphen for nothing) or in + (marks what was cut)"
    )
