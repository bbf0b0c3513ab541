"""`fluxkv job ...`: one job looked at, waited for or changed. Decides what is printed and exit statuses.

Waiting commands end with 1 and "timed out" when --timeout is over, as Flux's do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..journal.ids import FORMS, encode, f58, parse_id
from .lazy_group import LazyCommands
from .named_jobs import parse_ids
from .options import timeout_of
from .render import out, say
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..instances.client import Instance
    from ..instances.follow import JobResult

F = TypeVar("F", bound=Callable[..., Any])
_timeout = click.option("-t", "--timeout", metavar="FSD", help="How long to wait at most: 30s, 5m.")
_time_format = click.option(
    "-T",
    "--time-format",
    type=click.Choice(["raw", "offset", "human"]),
    default="raw",
    help="How times are shown.",
)
_format = click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How events are shown.",
)


# Command: (module under tools/, object, one line of help)
_MORE = {
    "submit": ("job_submit", "submit", "Submit a jobspec from a file or standard input."),
    "timeleft": ("job_look", "timeleft", "Print the seconds a job has left."),
    "taskmap": ("job_look", "taskmap", "Print which tasks run on which node, or convert a task map."),
    "hostpids": ("job_look", "hostpids", "Print HOST:PID of each task of a running job."),
    "last": ("job_look", "last", "Print the ids of your jobs submitted last."),
    "stats": ("job_look", "stats", "Print how many jobs there are, by state and result."),
    "kill": ("job_change", "kill", "Send a signal to the tasks of running jobs."),
    "killall": ("job_change", "killall", "Send a signal to the tasks of all running jobs."),
    "raise": ("job_change", "raise_", "Raise an exception on jobs."),
    "raiseall": ("job_change", "raiseall", "Raise an exception on all active jobs."),
    "urgency": ("job_change", "urgency", "Change a pending job's urgency."),
    "memo": ("job_change", "memo", "Note something on an active job."),
    "purge": ("job_change", "purge", "Move inactive jobs out of the live state."),
}


@click.group(cls=LazyCommands, more=_MORE)
def job() -> None:
    """Look at one job, wait for it, or change it.

    \b
    Examples:
      fluxkv job attach ƒ3kQ              its output, as it comes
      fluxkv job status -v ƒ3kQ           how it ended, in one line
      fluxkv job eventlog ƒ3kQ            its story
    """


@contextmanager
def _instance(
    uri: str | None, state_dir: str | None, timeout: float | None = None
) -> Iterator[tuple[Instance, float | None]]:
    """An instance to read, and how long to wait there: nothing changes any more in one that is down."""
    from ..instances.client import Instance

    with open_journal(uri, state_dir) as journal:
        instance = Instance(journal.store, by="cli")
        if state_dir and not uri:
            from ..instances.paths import StateDir

            timeout = timeout if StateDir(state_dir).running() else 0.001
        yield instance, timeout


@job.command()
@click.argument("id")
@click.option("-E", "--show-events", is_flag=True, help="Show the job's events on stderr.")
@click.option("-X", "--no-exceptions", is_flag=True, help="Do not show exceptions.")
@click.option("-l", "--label-io", is_flag=True, help="Put the task's rank before each line.")
@click.option("--stdin", is_flag=True, help="Forward standard input to all tasks.")
@click.option("-i", "--stdin-ranks", metavar="RANKS", help="Forward standard input to these tasks (0, 1-3, all).")
@click.option("-q", "--quiet", is_flag=True, help="As --no-exceptions.")
@_timeout
@target_options
def attach(
    id: str, show_events: bool, no_exceptions: bool, label_io: bool, stdin: bool, stdin_ranks: str | None, quiet: bool,
    timeout: str | None, uri: str | None, state_dir: str | None,
) -> int:  # fmt: skip
    """Show a job's output as it comes; exit with its code.

    A job with a terminal (fluxkv alloc, fluxkv run --interactive) gets this one to be seen and typed on; if this one is closed,
    the job goes on.

    \b
    Examples:
      fluxkv job attach ƒ3kQ
      fluxkv job attach -l $(fluxkv job last)
    """
    from .attaching import attach_job, ranks_of_input, terminal_for

    ranks = ranks_of_input("--stdin-ranks", stdin_ranks)
    with _instance(uri, state_dir, timeout_of(timeout)) as (instance, limit):
        number = parse_id(id)
        shows = not (no_exceptions or quiet)
        jobs = instance.state().jobs if sys.stdin.isatty() else {}
        terminal = terminal_for(jobs[number].jobspec, "shared") if number in jobs else ""
        return attach_job(
            instance, number, 0 if stdin or stdin_ranks or terminal else None, ranks=ranks, label=label_io, verbose=show_events,
            show_exceptions=shows, timeout=limit, terminal=terminal, looks_in=shows,
        )  # fmt: skip


@job.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("-v", "--verbose", is_flag=True, help="Say how each ended.")
@click.option("-e", "--exception-exit-code", metavar="N", type=click.IntRange(0, 255),
              help="Exit code of jobs that ended by an exception before they ran.")  # fmt: skip
@_timeout
@target_options
def status(
    ids: tuple[str, ...], verbose: bool, exception_exit_code: int | None, timeout: str | None,
    uri: str | None, state_dir: str | None,
) -> int:  # fmt: skip
    """Wait for jobs to end, and exit with the worst of their codes.

    \b
    Examples:
      fluxkv job status ƒ3kQ
      fluxkv job status -v --timeout=1h ƒ3kQ ƒ3kR
    """
    with _instance(uri, state_dir, timeout_of(timeout)) as (instance, limit):
        worst = 0
        for result in instance.wait(parse_ids(list(ids)), limit):
            code = result.returncode
            if result.status is None and exception_exit_code is not None:
                code = exception_exit_code
            worst = max(worst, code)
            if verbose:
                say(f"fluxkv: {f58(result.id)}: {_how_ended(result)}")
        return worst


def _how_ended(result: JobResult) -> str:
    from ..journal.waitstatus import describe

    text = describe(result.status).lower() if result.status is not None else "never ran"
    return text + (
        f", exception type={result.exception[0]} note={result.exception[1]}" if result.exception else ""
    )


@job.command()
@click.argument("id", required=False)
@click.option("-a", "--all", "everyone", is_flag=True, help="Wait for all active jobs.")
@click.option("-v", "--verbose", is_flag=True, help="Say how each ended.")
@_timeout
@click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")
def wait(id: str | None, everyone: bool, verbose: bool, timeout: str | None, uri: str | None) -> int:
    """Wait for a job, for the next to end, or for all; 0 if they succeeded, 1 if not, 2 if there is none.

    \b
    Examples:
      fluxkv job wait ƒ3kQ
      fluxkv job wait            the next that ends; prints its id
      fluxkv job wait --all -v
    """
    if id and everyone:
        raise click.UsageError("name a job, or --all, not both")
    with _instance(uri, None) as (instance, _):
        if id:
            wanted = [parse_id(id)]
        else:
            from ..journal.decide import active_ids

            wanted = active_ids(instance.state())
            if not wanted:
                say("fluxkv: there are no active jobs to wait for")
                return 0 if everyone else 2
        failed = 0
        for result in instance.as_ended(wanted, timeout_of(timeout)):
            failed += not result.ok
            if verbose or not result.ok:
                say(f"fluxkv: {f58(result.id)}: {_how_ended(result)}")
            if not id and not everyone:
                out(f58(result.id))
                break
        return int(failed > 0)


@job.command("wait-event")
@click.argument("id")
@click.argument("event")
@_timeout
@_format
@_time_format
@click.option("-v", "--verbose", is_flag=True, help="Show the events before it, too.")
@click.option("-q", "--quiet", is_flag=True, help="Show nothing.")
@click.option("-c", "--count", default=1, type=click.IntRange(1), metavar="N", help="Wait for the Nth.")
@click.option("-m", "--match-context", metavar="KEY=VAL", help="Only one whose context has this.")
@click.option("-p", "--path", hidden=True, help="Accepted for Flux's sake; there is one log.")
@click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")
def wait_event(
    id: str, event: str, timeout: str | None, form: str, time_format: str, verbose: bool, quiet: bool,
    count: int, match_context: str | None, path: str | None, uri: str | None,
) -> int:  # fmt: skip
    """Wait until a job's log holds an event, and print it.

    \b
    Examples:
      fluxkv job wait-event ƒ3kQ start
      fluxkv job wait-event -t 30s -f json ƒ3kQ exception
    """
    from .eventlines import EventLines, matches

    number = parse_id(id)
    lines = EventLines(form, time_format)
    with _instance(uri, None) as (instance, _):
        for found in instance.events(number, follow=True, timeout=timeout_of(timeout)):
            hit = found.name == event and matches(found.context, match_context)
            count -= hit
            line = lines.of(found)
            if not quiet and (verbose or (hit and not count)):
                out(line)
                sys.stdout.flush()
            if hit and not count:
                return 0
    say(f"fluxkv: job {f58(number)}: event {event} never came")
    return 1


@job.command()
@click.argument("id")
@_format
@_time_format
@click.option("-H", "--human", is_flag=True, help="As --time-format=human.")
@click.option("--follow", "-F", is_flag=True, help="Go on until the job has ended.")
@click.option("-p", "--path", hidden=True, help="Accepted for Flux's sake; there is one log.")
@_timeout
@target_options
def eventlog(
    id: str, form: str, time_format: str, human: bool, follow: bool, path: str | None, timeout: str | None,
    uri: str | None, state_dir: str | None,
) -> int:  # fmt: skip
    """Show a job's events (RFC 18, RFC 21), one line each.

    \b
    Examples:
      fluxkv job eventlog ƒ3kQ
      fluxkv job eventlog --format=json ƒ3kQ | jq .name
      fluxkv job eventlog --time-format=offset ƒ3kQ
    """
    from .eventlines import EventLines

    lines = EventLines(form, "human" if human else time_format)
    with _instance(uri, state_dir, timeout_of(timeout)) as (instance, limit):
        for event in instance.events(parse_id(id), follow=follow, timeout=limit):
            out(lines.of(event))
            if follow:
                sys.stdout.flush()
    return 0


@job.command()
@click.argument("id")
@click.argument("key", type=click.Choice(["jobspec", "R", "reservation", "eventlog", "guest.output", "guest.exec.eventlog"]))
@click.option(
    "-o", "--original", is_flag=True, help="The jobspec as it was submitted, without its environment."
)
@click.option("-b", "--base", is_flag=True, help="The jobspec or R before any update.")
@target_options
def info(id: str, key: str, original: bool, base: bool, uri: str | None, state_dir: str | None) -> int:
    """Show what is kept of a job: its jobspec (RFC 25), R (RFC 20), events (RFC 18) or output (RFC 24).

    reservation: the R that the plan of this moment keeps for a job that waits, from its starttime on.

    \b
    Examples:
      fluxkv job info ƒ3kQ jobspec | jq .tasks
      fluxkv job info ƒ3kQ R
    """
    from . import eventlines

    with _instance(uri, state_dir) as (instance, _):
        number = parse_id(id)
        if key == "jobspec":
            eventlines.show_jobspec(instance, number, original or base)
        elif key == "R":
            eventlines.show_R(instance, number, base)
        elif key == "reservation":
            eventlines.show_reservation(instance, number)
        elif key == "guest.output":
            eventlines.show_output(instance, number)
        else:
            lines = eventlines.EventLines("json", "raw")
            for event in instance.events(number):
                out(lines.of(event))
    return 0


@job.command("id")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--to", "form", type=click.Choice(FORMS), default="dec", help="Form to write (default dec).")
def id_(ids: tuple[str, ...], form: str) -> int:
    """Write job ids in another form (RFC 19), also those in a path; without arguments those on standard input.

    \b
    Examples:
      fluxkv job id --to=dec ƒ3kQ
      fluxkv job id --to=f58plain ƒ3kQ/ƒ2oS1Ab
      fluxkv submit true | fluxkv job id --to=hex
    """
    for text in ids or (line.strip() for line in sys.stdin):
        if text:
            out("/".join(_in_form(word, form) for word in text.split("/")))
    return 0


def _in_form(word: str, form: str) -> str:
    """A step of a path; nothing stands in front of a slash at its beginning, and behind one at its end."""
    from ..instances.job_path import parse_step

    if not word:
        return ""
    step = parse_step(word)
    return encode(step.job, form) + (f".{step.number}" if step.number else "")
