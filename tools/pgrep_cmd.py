"""`fluxkv pgrep` and `pkill`: jobs found by a pattern for their name, or a range of ids; listed, or cancelled.

Exit status as Flux's: 0 if a job matched (and was cancelled), 1 if none did, 2 for a command line that makes no sense.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..kvs.errors import Rejected
from .job_filter import DEFAULT_COUNT, filter_options
from .reading import load
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.job import Job
    from ..journal.log import Journal
    from .jobview import View

F = TypeVar("F", bound=Callable[..., Any])


def _common(command: F) -> F:
    command = click.option("--max-entries", metavar="N", type=click.IntRange(0), default=0,
                           help="Look at no more than N jobs (default: all).")(command)  # fmt: skip
    command = click.option("-c", "--count", metavar="N", type=click.IntRange(0), default=DEFAULT_COUNT,
                           help=f"At most N matches (default {DEFAULT_COUNT}; 0: all).")(command)  # fmt: skip
    command = filter_options(command)
    return click.argument("expression", nargs=-1, required=True, metavar="PATTERN|ID..ID")(command)


@click.command()
@_common
@click.option("-a", "all_states", is_flag=True, help="Inactive jobs too.")
@click.option("-n", "--no-header", is_flag=True, help="No header line (with a format).")
@click.option("-o", "--format", "fmt", metavar="FORMAT", default="",
              help="A named format of jobs, or your own (default: ids alone).")  # fmt: skip
@target_options
def pgrep(**options: Any) -> int:
    """List the ids of jobs whose name matches a pattern (a regular expression), or that lie in a range ID..ID.

    With a pattern and a range (such as ƒ3kQ..ƒ3kZ) both must match. Write name:a..b for a pattern that looks like one.

    \b
    Examples:
      fluxkv pgrep sleep
      fluxkv pgrep -a -o endreason '^sl(ee|oo)p$'
      fluxkv jobs $(fluxkv pgrep sleep)
    """
    from . import render
    from .foresight import foresee
    from .formats import Format
    from .jobfields import FIELDS
    from .named_formats import find_format

    matches = parse_expression(options["expression"])
    name, text = find_format(options["fmt"] or "", "FLUXKV_PGREP_FORMAT_DEFAULT")
    plain = name == "default" and not options["fmt"]
    with open_journal(options["uri"], options["state_dir"]) as journal:
        found, view = _find(journal, matches, options, options["all_states"])
        if not found:
            return 1
        text = "{id.f58}" if plain else text
        compiled = Format(text, FIELDS)
        foresee(view, found, (column.name for column in compiled.columns))
        lines = compiled.lines(found, view, header=not (plain or options["no_header"]))
    render.out("\n".join(lines))
    return 0


@click.command()
@_common
@click.option("-w", "--wait", is_flag=True, help="Wait until the cancelled jobs have ended.")
@click.option("-m", "--message", metavar="NOTE", default="", help="Why; it stays in the jobs' records.")
@click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")
def pkill(**options: Any) -> int:
    """Cancel the active jobs whose name matches a pattern (a regular expression), or that lie in a range ID..ID.

    \b
    Examples:
      fluxkv pkill sleep
      fluxkv pkill --wait -m "wrong input" '^sl'
    """
    from ..instances.client import Instance
    from . import render

    matches = parse_expression(options["expression"])
    with open_journal(options["uri"]) as journal:
        found, view = _find(journal, matches, options, False)
        ids = [job.id for job in found if job.t_inactive == 0]
        if not ids:
            return 1
        instance = Instance(journal.store, by="cli")
        done = instance.cancel(ids, options["message"], state=view.state)
        render.say(f"fluxkv: cancelled {len(done)} job{'' if len(done) == 1 else 's'}")
        if options["wait"]:
            instance.wait(ids)
    return 0


def _find(
    journal: Journal, matches: Callable[[Job], bool], options: dict[str, Any], everything: bool
) -> tuple[list[Job], View]:
    from .job_filter import JobFilter
    from .jobview import View

    state, now = load(journal)
    view = View(state, now, journal)
    wanted = JobFilter(view).states(options["states"], everything=everything)
    wanted.users(options["user"], everyone=options["all_users"]).queues(options["queue"])
    if options["max_entries"]:
        found = list(filter(matches, wanted.find(journal, options["max_entries"])))
    else:
        wanted.tests.append(matches)
        found = wanted.find(journal, options["count"])
    return (found[: options["count"]] if options["count"] else found), view


def parse_expression(words: tuple[str, ...]) -> Callable[[Job], bool]:
    """What a job must be like: at most one range of ids, and the rest a pattern for its name. Raises `click.UsageError`."""
    from ..journal.ids import parse_id

    span: tuple[int, int] | None = None
    patterns: list[str] = []
    for word in words:
        first, dots, last = word.partition("..")
        if dots and span is None:
            try:
                span = parse_id(first), parse_id(last)
                continue
            except Rejected:
                pass
        patterns.append(word.removeprefix("name:"))
    if len(patterns) > 1:
        raise click.UsageError(f"only one pattern can be given, not {', '.join(patterns)}")
    try:
        pattern = re.compile(patterns[0]) if patterns else None
    except (re.error, RecursionError, OverflowError) as error:
        raise click.UsageError(f"bad pattern {patterns[0]!r}: {error}") from None

    def matches(job: Job) -> bool:
        return (span is None or span[0] <= job.id <= span[1]) and (pattern is None or bool(pattern.search(job.name)))

    return matches
