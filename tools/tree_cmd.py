"""`fluxkv tree`: instances and what is in them, as a tree, after `flux pstree`. Decides how it is drawn; `instances.census` reads.

Equal leaves of an instance are drawn once, with their number. Each instance shows its totals with those of all instances below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .reading import load
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..instances.census import Branch
    from ..journal.job import Job

MOST_INSTANCES = 1_000
MOST_UNSEEN = 100  # instances that are not shown, but counted
_HEADERS = ("JOBID", "USER", "ST", "NTASKS", "NNODES", "RUNTIME")
_LONG = ("JOBS", "DONE", "FAILED", "CORES", "PROGRESS")


class Line(NamedTuple):
    """One line: columns in front of the tree, and the tree's part."""

    cells: tuple[str, ...]
    text: str


@click.command()
@click.argument("path", required=False, metavar="[JOB|PATH]")
@click.option("-a", "--all", "everything", is_flag=True, help="Jobs that ended, too.")
@click.option("-c", "--count", metavar="N", type=click.IntRange(1), default=1000, help="At most N jobs of each instance (1000).")
@click.option("-f", "--filter", "states", metavar="STATE,...", help="Only jobs in these states or with these results.")
@click.option("-L", "--level", metavar="N", type=click.IntRange(0), help="No more than N levels down.")
@click.option("-p", "--parent-ids", is_flag=True, help="Job ids in front of names, of instances and their jobs.")
@click.option("-x", "--extended", is_flag=True, help="Columns of each job: id, user, state, tasks, nodes, run time.")
@click.option("-l", "--long", "totals", is_flag=True, help="Totals of each instance, with those below it, in columns.")
@click.option("-n", "--no-header", is_flag=True, help="No header line (of -x and -l).")
@click.option("-X", "--skip-root", is_flag=True, help="Leave out the instance that it begins with.")
@click.option("-C", "--no-combine", is_flag=True, help="A line for each job, also for equal ones.")
@click.option("--json", "as_json", is_flag=True, help="JSON: each instance with its totals, its jobs and those in them.")
@target_options
def tree(path: str | None, **options: Any) -> None:
    """Show instances, their jobs, and those in them, as a tree, with states, progress and resources.

    An instance says how many of its jobs have ended of how many, how many of those failed, and how many of its cores are busy;
    all with what is in the instances below it, down to -L, also those that are not shown as they have ended. Equal jobs are one
    line with their number. An instance begins with the job that it is: ƒ3kQ or ƒ3kQ/ƒ2 shows that one alone.

    \b
    Examples:
      fluxkv tree                    what runs and waits
      fluxkv tree -a -L 1            what ended, too; no deeper than the instances in this one
      fluxkv tree -x                 with ids, states and times
      fluxkv tree -l -n              totals of each instance
      fluxkv tree ƒ3kQ               of the instance that job ƒ3kQ is
    """
    from ..instances.census import Census
    from . import render

    with open_journal(options["uri"], options["state_dir"], path=path) as journal:
        state, now = load(journal)
        over = journal.store.namespace != "/" and bool(state.instance.get("stopped") or journal.meta.sealed)
        wanted = _wanted({**options, "everything": options["everything"] or over})
        census = Census(wanted, options["count"], options["level"], MOST_INSTANCES, MOST_UNSEEN)
        root = census.of(journal, state, now, over=over)
    if options["as_json"]:
        render.print_json(document(root))
    else:
        draw(root, options)
    if census.left_out:
        render.say(f"fluxkv: {census.left_out} more instances were not looked into; fluxkv tree PATH shows one of them")
    if census.uncounted and options["totals"]:  # a label says it itself
        text = "more instances that ended count as one job each; fluxkv tree PATH counts what is in one"
        render.say(f"fluxkv: {census.uncounted:,} {text}")


def _wanted(options: dict[str, Any]) -> tuple[int, int]:
    """(mask of states, mask of results) to show."""
    from ..journal.job import ACTIVE, INACTIVE, NEW
    from .job_filter import parse_states

    if options["states"]:
        return parse_states(options["states"])
    return ACTIVE | NEW | (INACTIVE if options["everything"] else 0), 0


# -- drawing -------------------------------------------------------------------------------------------------------


def draw(root: Branch, options: dict[str, Any]) -> None:
    """Print it."""
    from . import render
    from .formats import width_of

    lines = list(_instance(root, options, "", ""))
    headers = (_HEADERS if options["extended"] else ()) + (_LONG if options["totals"] else ())
    if not headers:
        lines_out = [line.text for line in lines]
    else:
        rows = [Line(headers, "NAME"), *lines] if not options["no_header"] else lines
        widths = [max((width_of(row.cells[at]) for row in rows), default=0) for at in range(len(headers))]
        lines_out = []
        for row in rows:
            cells = [" " * (wide - width_of(cell)) + cell for cell, wide in zip(row.cells, widths, strict=True)]
            lines_out.append(" ".join([*cells, row.text]).rstrip())
    if lines_out:
        render.out("\n".join(render.fit(lines_out)))


def _instance(branch: Branch, options: dict[str, Any], first: str, rest: str, number: int = 1) -> list[Line]:
    """Lines of an instance. first: what stands in front of its own, rest: in front of what is in it. number: of equal ones."""
    found: list[Line] = []
    root = branch.job is None
    if not (options["skip_root"] and branch.depth == 0):
        found.append(Line(_cells(branch.job, branch, branch.now, options, 1), first + _times(number, label(branch, options))))
    else:
        rest = ""
    below = _below(branch, options)
    top = root and options["skip_root"]
    for at, (number, job, inside) in enumerate(below):
        last = at == len(below) - 1
        front, under = (rest, rest) if top else (rest + ("└── " if last else "├── "), rest + ("    " if last else "│   "))
        if inside is not None:
            found += _instance(inside, options, front, under, number)
        else:
            found.append(Line(_cells(job, None, branch.now, options, number), front + leaf(job, number, options)))
    if branch.more:
        found.append(Line(_blank(options), f"{rest}{'' if top else '    '}... and more (-c shows them)"))
    return found


def _below(branch: Branch, options: dict[str, Any]) -> list[tuple[int, Job, Branch | None]]:
    """(how many, one of them, the instance it is) of what is in an instance; equal leaves are one, and so are equal instances of
    which no more is shown."""
    from .jobview import status_abbrev

    found: list[tuple[int, Job, Branch | None]] = []
    places: dict[tuple[Any, ...], int] = {}
    for job in branch.jobs:
        inside = branch.inside.get(job.id)
        alone = _single(options) or (inside is not None and bool(inside.jobs or inside.more or options["totals"]))
        key = (job.name, status_abbrev(job), job.id if alone else 0, label(inside, options) if inside is not None else "")
        if key in places:
            number, one, same = found[places[key]]
            found[places[key]] = number + 1, one, same
        else:
            places[key] = len(found)
            found.append((1, job, inside))
    return found


def _single(options: dict[str, Any]) -> bool:
    return bool(options["no_combine"] or options["extended"] or options["parent_ids"])


def leaf(job: Job, number: int, options: dict[str, Any]) -> str:
    """ "5*[sleep:R]", "sleep:R" """
    from ..journal.ids import f58
    from .formats import clean
    from .jobview import status_abbrev

    text = f"{clean(job.name)}:{status_abbrev(job)}"
    if options["parent_ids"]:
        text = f"{f58(job.id)}:{text}"
    return _times(number, text)


def _times(number: int, text: str) -> str:
    return f"{number}*[{text}]" if number > 1 else text


def label(branch: Branch, options: dict[str, Any]) -> str:
    """An instance: its job's name, or where it is if the tree begins with it, and its totals unless they stand in columns."""
    from ..journal.ids import f58
    from .formats import clean
    from .jobview import status_abbrev

    job = branch.job
    here = "." if branch.namespace == "/" else branch.namespace
    name = here if job is None else f"{clean(job.name)}:{status_abbrev(job)}"
    if job is not None and options["parent_ids"]:
        name = f"{f58(job.id)}:{name}"
    if options["totals"]:
        return name
    totals = branch.totals
    told = [f"{totals.inactive}/{totals.total} done" if totals.total else "no jobs"]
    told += [f"{totals.failed} failed"] if totals.failed else []
    told += [f"{totals.lost} lost"] if totals.lost else []
    told += [f"{totals.busy_cores}/{branch.own.cores} cores"] if not branch.over else []
    told += [f"{branch.uncounted:,} ended instance{'s' * (branch.uncounted > 1)} as one job each"] if branch.uncounted else []
    return f"{name} ({', '.join(told)})"


def _cells(job: Job | None, branch: Branch | None, now: float, options: dict[str, Any], number: int) -> tuple[str, ...]:
    from ..journal.ids import f58
    from ..journal.summary import tasks_of
    from .formats import fsd
    from .jobview import status_abbrev
    from .reading import user_name

    cells: list[str] = []
    if options["extended"]:
        cells += ["."] + [""] * 5 if job is None else [
            f58(job.id), user_name(job.userid), status_abbrev(job), str(tasks_of(job)), str(job.nnodes or "-"),
            fsd(job.runtime(now)) or "-",
        ]  # fmt: skip
    if options["totals"]:
        totals = branch.totals if branch is not None else None
        cells += [str(number), "", "", "", ""] if totals is None or branch is None else [
            str(totals.total), str(totals.inactive), str(totals.failed + totals.lost),
            f"{totals.busy_cores}/{branch.own.cores}", f"{totals.progress:.0%}",
        ]  # fmt: skip
    return tuple(cells)


def _blank(options: dict[str, Any]) -> tuple[str, ...]:
    return ("",) * ((len(_HEADERS) if options["extended"] else 0) + (len(_LONG) if options["totals"] else 0))


def document(branch: Branch) -> dict[str, Any]:
    """An instance as JSON: its own totals, those with all below it, its jobs."""
    from ..journal.ids import f58
    from ..journal.summary import tasks_of
    from .jobview import status

    found: dict[str, Any] = {}
    if branch.job is not None:
        found = {"id": f58(branch.job.id), "name": branch.job.name, "status": status(branch.job)}
    found |= {"namespace": branch.namespace, "own": branch.own._asdict(), "totals": branch.totals._asdict()}
    found["progress"], found["utilization"] = round(branch.totals.progress, 4), round(branch.utilization, 4)
    found["jobs"] = [
        document(branch.inside[job.id]) if job.id in branch.inside
        else {"id": f58(job.id), "name": job.name, "status": status(job), "ntasks": tasks_of(job), "nnodes": job.nnodes,
              "ncores": job.ncores, "runtime": round(job.runtime(branch.now), 3)}
        for job in branch.jobs
    ]  # fmt: skip
    if branch.more:
        found["more"] = True
    if branch.uncounted:
        found["uncounted"] = branch.uncounted
    return found
