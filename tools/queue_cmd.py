"""`fluxkv queue`: open and close queues, and wait for them. Follows the journal; never asks again on a
timer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected, Unavailable
from .lazy_group import SuggestingGroup
from .reading import at_option, follow, load, uri_option
from .target import open_journal, target_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..journal.log import Journal
    from ..journal.node import Queue
    from ..journal.state import State
    from .queueview import Row


@click.group(cls=SuggestingGroup, context_settings={"help_option_names": ["-h", "--help"]})
def queue() -> None:
    """Start, stop and drain queues.

    \b
    Examples:
      fluxkv queue status
      fluxkv queue stop -a -m maintenance  jobs wait; what runs goes on
      fluxkv queue disable debug           nobody can submit to it
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
            from ..journal.config import no_such_queue

            raise no_such_queue(name, state.queues)
        return [state.queues[name]]
    if every or default_all or len(state.queues) == 1:
        return list(state.queues.values())
    raise Rejected(
        "there are several queues",
        code="which-queue",
        hint=f"-q NAME, or -a: {', '.join(state.queues)}",
    )


def _lines(queues: list[Row]) -> list[str]:
    lines = []
    for one in queues:
        name, why = one.queue.name, one.queue.disable_reason
        submission = "enabled" if one.queue.enabled else "disabled"
        lines.append(f"{name}: Job submission is {submission}" + (f": {why}" if why else ""))
        scheduling, why = "started" if one.started else "stopped", one.stop_reason
        lines.append(f"{name}: Scheduling is {scheduling}" + (f": {why}" if why else ""))
    return lines


@queue.command("status")
@_choice
@click.option("-v", "--verbose", is_flag=True, help="Also limits, how many jobs wait and run, and who is first in line.")
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
    from . import queueview, render

    with open_journal(uri, state_dir) as journal:
        state, now = load(journal, at)
    found = queueview.rows(state, _named(state, name or option, every, default_all=True))
    if as_json:
        render.print_json({"queues": [queueview.document(one) for one in found]})
        return
    for one in found:
        render.out("\n".join(_lines([one])))
        if verbose:
            name = one.queue.name
            for line in queueview.details(one):
                render.out(f"{name}: {line}")
            render.out(f"{name}: {one.pending} pending, {one.running} running")
            first = queueview.first_in_line(one, state, now) if one.pending and one.started else ""
            if first:
                render.out(f"{name}: {first}")


@queue.command("list")
@click.option("-n", "--no-header", is_flag=True, help="No header line.")
@click.option("-o", "--format", "fmt", metavar="FORMAT", default="default",
              help="default, status, policy, users, nodes, or your own, such as '{queue} {limits.timelimit!F}'; "
                   "help lists the fields.")  # fmt: skip
@click.option("-q", "--queue", "names", metavar="NAME,...", help="Only these queues.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@at_option
@target_options
def list_queues(
    no_header: bool, fmt: str, names: str | None, as_json: bool, at: str | None, uri: str | None, state_dir: str | None
) -> None:
    """List queues: enabled, started, default time limit, limits, and how many jobs they have. A * marks the default queue.

    \b
    Examples:
      fluxkv queue list
      fluxkv queue list -o '{queue} {started.ascii} {limits.max.nnodes}'
    """
    from . import queueview, render
    from .formats import Format

    if fmt == "help":
        render.table(["FIELD", "HEADER"], [[name, header] for name, (header, _) in sorted(queueview.FIELDS.items())])
        return
    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
    queues = [_named(state, name, False)[0] for name in names.split(",")] if names else list(state.queues.values())
    found = queueview.rows(state, queues)
    if as_json:
        render.print_json({"queues": [queueview.document(one) for one in found]})
        return
    if fmt == "default" and not state.config.get("queues") and not state.config.get("policy"):
        fmt = "status"
    text = queueview.FORMATS.get(fmt, fmt)
    if "{" not in text:
        raise Rejected(
            f"no output format is called {fmt!r}", code="bad-format",
            hint=f"there are {', '.join(queueview.FORMATS)}; or write {{queue}} {{limits.timelimit}}",
        )  # fmt: skip
    for line in Format(text, queueview.FIELDS).lines(found, None, header=not no_header):
        render.out(line)


def _change(
    verb: str, name: str | None, option: str | None, every: bool, reason: str, uri: str | None
) -> None:
    """Change queues in one step, and say how they are now."""
    from ..journal.decide import Decision, change_queue
    from . import queueview, render

    with open_journal(uri) as journal:
        now = journal.store.now()
        state = journal.look()

        def decision(state: State) -> Decision:
            whole = Decision([])
            for one in _named(state, name or option, every):
                part = change_queue(one.name, verb, reason, now)
                whole.events += part.events
                whole.since = part.since
                whole.bumps += part.bumps
                whole.clears += part.clears
            return whole

        journal.settle(decision, state)
        journal.catch_up(state)
        word = "submission" if verb in ("enable", "disable") else "Scheduling"
        lines = _lines(queueview.rows(state, _named(state, name or option, every)))
    render.out("\n".join(line for line in lines if word in line))


@queue.command("start")
@_choice
@uri_option
def start(name: str | None, option: str | None, every: bool, uri: str | None) -> None:
    """Let a queue's jobs be allocated again.

    \b
    Examples:
      fluxkv queue start --all
      fluxkv queue start debug
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
      fluxkv queue stop --all -m maintenance
      fluxkv queue stop debug
    """
    _change("stop", name, option, every, message, uri)


@queue.command("enable")
@_choice
@uri_option
def enable(name: str | None, option: str | None, every: bool, uri: str | None) -> None:
    """Take submissions again.

    \b
    Examples:
      fluxkv queue enable --all
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
      fluxkv queue disable debug -m 'closing down at noon'
    """
    _change("disable", name, option, every, message, uri)


@queue.command("drain")
@click.option("-q", "--queue", "name", metavar="NAME", help="Only this queue's jobs.")
@click.option("-t", "--timeout", metavar="FSD", help="Give up after this long (exit status 1).")
@click.option("--status", is_flag=True, help="Exit with the worst code of those that end, or 1 once those left cannot run.")
@click.option("--since", metavar="WHEN", help="With --status: those that ended since then count, too (-1h, 10:30, @UNIX).")
@uri_option
def drain(name: str | None, timeout: str | None, status: bool, since: str | None, uri: str | None) -> int:
    """Wait until no active job is left.

    \b
    Examples:
      fluxkv queue drain
      fluxkv queue drain --status
      fluxkv queue drain --timeout 10m || fluxkv cancel --all
    """
    from ..journal.job import INACTIVE

    _wait(name, timeout, uri, lambda job, state: job.state != INACTIVE, "active", ended := _Ended(since) if status else None)
    return ended.worst if ended is not None else 0


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
      fluxkv queue stop -a && fluxkv queue idle     until what runs has ended
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
    return state.may_start(job.queue) or job.granted is not None


def _line(state: State, queue: str) -> str:
    """The queue whose jobs these are when they are waited for: a virtual one's are its parent's."""
    rules = state.rules.of(queue)
    return rules.line if rules is not None else queue


def _time_of(when: str, now: float) -> float:
    """Of --since. Raises `Rejected` for a version."""
    from .target import parse_moment

    found = parse_moment(when, now).time
    if found is None:
        raise Rejected("--since takes a time, not a version", code="bad-moment", hint="such as -1h or 10:30")
    return found


class _Ended:
    """How the jobs that were waited for have ended. worst: of their codes, 1 at least where some could not run."""

    def __init__(self, since: str | None) -> None:
        self.worst = 0
        self._since = since
        self._seen: set[int] = set()

    def look(self, journal: Journal, state: State, there: list[Any]) -> None:
        """Take in those that are active no more."""
        left = {job.id for job in there}
        if self._since:
            since, self._since = _time_of(self._since, journal.store.now()), None
            self._seen.update(job.id for job in journal.newest(state, 0, lambda job: job.t_inactive >= since, since))
        for job in journal.find_jobs(state, sorted(self._seen - left)).values():
            self.worst = max(self.worst, job.returncode)
        self._seen = left

    def all_stuck(self, there: list[Any], state: State) -> bool:
        """Whether none of these runs or ever will as things are: held, of a stopped queue, larger than what there is, or waiting
        for such a job."""
        from ..journal.ids import f58
        from ..journal.job import DEPEND
        from . import render

        if any(job.state == DEPEND and any("begin-time=" in one for one in job.waiting) for job in there):
            return False
        if any(asks(job, state) and job.reason[0] != "unsatisfiable" for job in there):
            return False
        held = f"{there[0].reason[1] or 'held'}" if len(there) == 1 else f"fluxkv explain {f58(there[0].id)} says why"
        render.say(f"fluxkv: {len(there)} job{'' if len(there) == 1 else 's'} cannot run here: {held}")
        self.worst = max(self.worst, 1)
        return True


def _wait(
    name: str | None, timeout: str | None, uri: str | None, counts: Callable[[Any, State], bool], word: str,
    ended: _Ended | None = None,
) -> None:
    """Until no job counts. ended: is shown them meanwhile. Raises `Unavailable` (timeout)."""
    from ..journal.duration import parse_duration

    limit = parse_duration(timeout) if timeout else None
    if limit == float("inf"):
        limit = None
    left = 0
    with open_journal(uri) as journal:
        state = journal.look()
        if name:
            _named(state, name, False)
            parent = getattr(state.rules.of(name), "parent", "")
            if parent:
                raise Rejected(
                    f"queue {name} is a virtual queue: its jobs count for its parent", code="virtual-queue",
                    hint=f"wait for queue {parent}",
                )  # fmt: skip
        for now in follow(journal, state, limit):
            there = [job for job in now.active() if (not name or _line(now, job.queue) == name) and counts(job, now)]
            left = len(there)
            if not left or (ended is not None and ended.all_stuck(there, now)):
                if ended is not None:
                    ended.look(journal, now, there)
                return
            if ended is not None:
                ended.look(journal, now, there)
    late = Unavailable(f"{left} job{'' if left == 1 else 's'} still {word} after {timeout}", code="timeout")
    late.exit_status = 1  # as Flux has it
    raise late
