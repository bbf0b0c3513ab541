"""`fluxkv queue`: open and close queues, and wait for them. Follows the journal; never asks again on a
timer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected, Unavailable
from .reading import at_option, follow, load, uri_option
from .target import open_journal, target_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..journal.node import Queue
    from ..journal.state import State


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def queue() -> None:
    """Start, stop and drain queues.

    \b
    Examples:
      fluxkv queue status
      fluxkv queue stop -m maintenance     jobs wait; what runs goes on
      fluxkv queue disable -m closing      nobody can submit
      fluxkv queue drain                   wait until no job is left
    """


def _choice(command: Any) -> Any:
    command = click.option("-a", "--all", "every", is_flag=True, help="All queues.")(command)
    command = click.option("-q", "--queue", "option", metavar="NAME", help="This queue.")(command)
    return click.argument("name", required=False)(command)


def _named(state: State, name: str | None, every: bool, *, default_all: bool = False) -> list[Queue]:
    """The queues meant: the one named, all, or the only one."""
    if name:
        if name not in state.queues:
            raise Rejected(
                f"queue {name!r}: no such queue",
                code="no-such-queue",
                hint=f"there are {', '.join(state.queues)}",
            )
        return [state.queues[name]]
    if every or default_all or len(state.queues) == 1:
        return [state.queues[one] for one in sorted(state.queues)]
    raise Rejected(
        "there are several queues",
        code="which-queue",
        hint=f"-q NAME, or -a: {', '.join(sorted(state.queues))}",
    )


def _lines(queues: list[Queue]) -> list[str]:
    lines = []
    for one in queues:
        submission = "enabled" if one.enabled else "disabled"
        lines.append(
            f"{one.name}: Job submission is {submission}"
            + (f": {one.disable_reason}" if one.disable_reason else "")
        )
        scheduling = "started" if one.started else "stopped"
        lines.append(
            f"{one.name}: Scheduling is {scheduling}" + (f": {one.stop_reason}" if one.stop_reason else "")
        )
    return lines


@queue.command("status")
@_choice
@click.option("-v", "--verbose", is_flag=True, help="Also how many jobs are waiting and running.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@at_option
@target_options
def status(
    name: str | None, option: str | None, every: bool, verbose: bool, as_json: bool, at: str | None,
    uri: str | None,
    state_dir: str | None,
) -> None:  # fmt: skip
    """Say whether queues take jobs and start them.

    \b
    Examples:
      fluxkv queue status
      fluxkv queue status -q debug -v
    """
    from . import render

    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
    queues = _named(state, name or option, every, default_all=True)
    if as_json:
        render.print_json({"queues": [_document(state, one) for one in queues]})
        return
    render.out("\n".join(_lines(queues)))
    if verbose:
        for one in queues:
            pending, running = _numbers(state, one.name)
            render.out(f"{one.name}: {pending} pending, {running} running")


@queue.command("list")
@click.option("-n", "--no-header", is_flag=True, help="No header line.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@at_option
@target_options
def list_queues(
    no_header: bool, as_json: bool, at: str | None, uri: str | None, state_dir: str | None
) -> None:
    """List queues: enabled, started, and how many jobs they have.

    \b
    Examples:
      fluxkv queue list
    """
    from . import render

    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
    queues = _named(state, None, True)
    if as_json:
        render.print_json({"queues": [_document(state, one) for one in queues]})
        return
    rows = []
    for one in queues:
        why = "; ".join(filter(None, (one.disable_reason, one.stop_reason)))
        rows.append(
            [
                one.name,
                "✔" if one.enabled else "✗",
                "✔" if one.started else "✗",
                *_numbers(state, one.name),
                why,
            ]
        )
    render.table(
        [] if no_header else ["QUEUE", "EN", "ST", "PENDING", "RUNNING", "REASON"], rows, right=(3, 4)
    )


def _numbers(state: State, name: str) -> tuple[int, int]:
    from ..journal.job import NEW, PENDING, RUNNING

    pending = running = 0
    for job in state.jobs.values():
        if job.queue == name:
            pending += bool(job.state & (PENDING | NEW))
            running += bool(job.state & RUNNING)
    return pending, running


def _document(state: State, one: Queue) -> dict[str, Any]:
    pending, running = _numbers(state, one.name)
    return {
        "name": one.name, "enabled": one.enabled, "started": one.started,
        "disable_reason": one.disable_reason,
        "stop_reason": one.stop_reason, "pending": pending, "running": running,
    }  # fmt: skip


def _change(
    verb: str, name: str | None, option: str | None, every: bool, reason: str, uri: str | None
) -> None:
    """Change queues in one step, and say how they are now."""
    from ..journal.decide import Decision, change_queue
    from . import render

    with open_journal(uri) as journal:
        now = journal.store.now()
        state = journal.look()

        def decision(state: State) -> Decision:
            whole = Decision([])
            for one in _named(state, name or option, every):
                part = change_queue(one.name, verb, reason, now)
                whole.events += part.events
                whole.bumps += part.bumps
                whole.clears += part.clears
            return whole

        journal.settle(decision, state)
        journal.catch_up(state)
        word = "submission" if verb in ("enable", "disable") else "Scheduling"
        lines = _lines(_named(state, name or option, every))
    render.out("\n".join(line for line in lines if word in line))


@queue.command("start")
@_choice
@uri_option
def start(name: str | None, option: str | None, every: bool, uri: str | None) -> None:
    """Let a queue's jobs be allocated again.

    \b
    Examples:
      fluxkv queue start
      fluxkv queue start -q debug
    """
    _change("start", name, option, every, "", uri)


@queue.command("stop")
@_choice
@click.option("-m", "--message", metavar="REASON", default="", help="Why; waiting jobs show it.")
@uri_option
def stop(name: str | None, option: str | None, every: bool, message: str, uri: str | None) -> None:
    """Allocate no more of a queue's jobs; those that run go on.

    \b
    Examples:
      fluxkv queue stop -m maintenance
      fluxkv queue stop -q debug
    """
    _change("stop", name, option, every, message, uri)


@queue.command("enable")
@_choice
@uri_option
def enable(name: str | None, option: str | None, every: bool, uri: str | None) -> None:
    """Take submissions again.

    \b
    Examples:
      fluxkv queue enable
    """
    _change("enable", name, option, every, "", uri)


@queue.command("disable")
@_choice
@click.option("-m", "--message", metavar="REASON", default="", help="Why; who tries to submit is told.")
@uri_option
def disable(name: str | None, option: str | None, every: bool, message: str, uri: str | None) -> None:
    """Take no more submissions; what is in the queue goes on.

    \b
    Examples:
      fluxkv queue disable -m 'closing down at noon'
    """
    _change("disable", name, option, every, message, uri)


@queue.command("drain")
@click.option("-q", "--queue", "name", metavar="NAME", help="Only this queue's jobs.")
@click.option("-t", "--timeout", metavar="FSD", help="Give up after this long (exit status 1).")
@uri_option
def drain(name: str | None, timeout: str | None, uri: str | None) -> None:
    """Wait until no active job is left.

    \b
    Examples:
      fluxkv queue drain
      fluxkv queue drain --timeout 10m || fluxkv cancel --all
    """
    from ..journal.job import INACTIVE

    _wait(name, timeout, uri, lambda job, state: job.state != INACTIVE, "active")


@queue.command("idle")
@click.option("-q", "--queue", "name", metavar="NAME", help="Only this queue's jobs.")
@click.option("-t", "--timeout", metavar="FSD", help="Give up after this long (exit status 1).")
@uri_option
def idle(name: str | None, timeout: str | None, uri: str | None) -> None:
    """Wait until nothing runs and nothing asks for resources: held jobs, those that wait for something
    else and those of
    a stopped queue do not count.

    \b
    Examples:
      fluxkv queue stop && fluxkv queue idle      until what runs has ended
    """
    _wait(name, timeout, uri, asks, "running or asking for resources")


def asks(job: Any, state: State) -> bool:
    """Whether a job runs, or could be given resources, or will ask for them by itself in a moment."""
    from ..journal.job import DEPEND, INACTIVE, RUNNING

    if job.state == INACTIVE:
        return False
    if job.state & RUNNING:
        return True
    if job.urgency == 0 or (job.state == DEPEND and job.waiting):
        return False
    found = state.queues.get(job.queue)
    return found is None or found.started or job.granted is not None


def _wait(
    name: str | None, timeout: str | None, uri: str | None, counts: Callable[[Any, State], bool], word: str
) -> None:
    from ..journal.duration import parse_duration

    limit = parse_duration(timeout) if timeout else None
    if limit == float("inf"):
        limit = None
    left = 0
    with open_journal(uri) as journal:
        state = journal.look()
        if name:
            _named(state, name, False)
        for now in follow(journal, state, limit):
            left = sum(1 for job in now.jobs.values() if (not name or job.queue == name) and counts(job, now))
            if not left:
                return
    late = Unavailable(f"{left} job{'' if left == 1 else 's'} still {word} after {timeout}", code="timeout")
    late.exit_status = 1  # as Flux has it
    raise late
