"""`fluxkv cron`: jobs submitted again and again, by the clock or by events. Rules: `journal.decide_cron`; the keeper submits."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..kvs.errors import Rejected
from .cronview import FIELDS, LIST, document
from .environment import shared_environment
from .jobspecs import jobspec_of
from .lazy_group import SuggestingGroup
from .options import SubmissionCommand, bad, flags_of, no_key, submission_options, timeout_of, urgency_of
from .reading import at_option, load, uri_option
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.cron import CronEntry
    from ..journal.decide import Decision
    from ..journal.log import Journal
    from ..journal.state import State

F = TypeVar("F", bound=Callable[..., Any])
_SETTINGS = {"ignore_unknown_options": False, "allow_interspersed_args": False}


@click.group(cls=SuggestingGroup, context_settings={"help_option_names": ["-h", "--help"]})
def cron() -> None:
    """Submit jobs again and again: at times, at intervals, or when something happens.

    Each run is a normal job, with the environment and directory that the entry was defined in. It finds out about itself in
    FLUX_CRON_ID, _NAME, _TYPE, _RUN (1, 2, ...), _TIME (Unix seconds it was due), and for an event _EVENT and _SUBJECT (a
    job's id, or such as resource). What a job of cron does starts no other run.

    \b
    Examples:
      fluxkv cron interval 10m ./tidy
      fluxkv cron event job.exception ./tell-me
      fluxkv cron list
    """


def _entry_options(command: F) -> F:
    for option in reversed((
        click.option("--name", metavar="NAME", help="Its name (default: the command's)."),
        click.option("--count", metavar="N", type=click.IntRange(1), help="Runs at most N times."),
        click.option("--no-overlap", is_flag=True, help="Skip a run while the one before is active."),
        click.option("--missed", type=click.Choice(["run", "skip"]), default="run", show_default=True,
                     help="What fell due while the instance was down: run it once, or skip it."),
        click.option("--stop-on-failure", metavar="N", type=click.IntRange(1), help="Stop after N failures in a row."),
    )):  # fmt: skip
        command = option(command)
    return command


def _define(
    values: dict[str, Any], words: tuple[str, ...], kind: str, make: Callable[[float], tuple[dict[str, Any], float]]
) -> None:
    """One new entry; make(now) gives its spec and when it is first due."""
    if words and words[0].startswith("-"):
        raise click.UsageError(f"{words[0]}: options go before the first argument of cron {kind}")
    if not words:
        raise click.UsageError("no command to run: name one, e.g. ./tidy, at the end")
    _create(values, [(words, values["env"], make)], kind)


def _create(values: dict[str, Any], wanted: list[tuple[Any, ...]], kind: str) -> None:
    """New entries of (words, environment rules, make), all or none; prints their ids."""
    from ..instances.submit_rules import SubmitRules
    from ..journal import decide_cron
    from ..journal.cron import CronTable
    from . import render
    from .depopts import check_alone

    no_key(values)
    values["blobs"] = None if values["dry_run"] else {}
    jobspecs = [jobspec_of(values, words) for words, _, _ in wanted]
    if values["dry_run"]:
        for jobspec in jobspecs:
            render.print_json(jobspec)
        return
    made: list[int] = []
    with open_journal(values["uri"]) as journal:
        rules = SubmitRules(journal.store)
        rules.learn()
        journal.store.put_blobs(values["blobs"])
        check_alone(jobspecs)
        urgency, flags = urgency_of(values["urgency"]), flags_of(values["flags"], values["debug"])
        rules.honour(jobspecs, [urgency] * len(jobspecs), flags)  # it is asked again at each run: a config may change
        now = journal.store.now()
        rows = []
        for (words, env, make), jobspec in zip(wanted, jobspecs, strict=True):
            spec, first = make(now)
            job = {
                "jobspec": jobspec, "env": _put(journal, shared_environment(env, values["rlimit"])),
                "urgency": urgency, "flags": flags, "userid": os.getuid(),
            }  # fmt: skip
            options = {
                "count": values["count"] or (1 if kind == "at" else 0), "no_overlap": values["no_overlap"],
                "missed": values["missed"], "stop_on_failure": values["stop_on_failure"] or 0,
            }  # fmt: skip
            rows.append((_name(values["name"], words), kind, spec, job, options, first))

        def decision(table: CronTable) -> Decision:
            decided = decide_cron.create_all(table, rows, now)
            made[:] = [int(event[1].partition("/")[2]) for event in decided.events]
            return decided

        journal.settle_in(journal.load_cron(), decision)
    for id in made:
        render.out(str(id))


def _name(given: str | None, words: Iterable[str]) -> str:
    if given is not None:
        return given
    *_, last = words
    first = next(iter(words))
    word = last.split()[0] if first == "/bin/sh" else first  # a crontab's line goes to the shell
    found = "".join(c for c in os.path.basename(word) if c.isprintable())[:60] or "cron"
    return f"job-{found}" if found.isdecimal() else found


def _put(journal: Journal, env: dict[str, str]) -> str:
    from ..instances.submission import pack_environment
    from ..kvs.blobs import blob_name

    data = pack_environment({name: value for name, value in env.items() if not name.startswith("FLUX_CRON_")})
    journal.store.put_blobs({blob_name(data): data})
    return blob_name(data)


@cron.command("interval", cls=SubmissionCommand, context_settings=_SETTINGS)
@click.argument("interval", metavar="FSD")
@_entry_options
@click.option("--after", metavar="FSD", help="First run after this long (default: after one interval).")
@submission_options
def interval(interval: str, after: str | None, words: tuple[str, ...], **values: Any) -> None:
    """Run COMMAND every FSD (30s, 5m, 1h).

    \b
    Examples:
      fluxkv cron interval 10m ./tidy
      fluxkv cron interval --after 1s --count 3 30s ./probe
      fluxkv cron interval --no-overlap -n 4 -t 20m 1h ./nightly
    """
    every = _seconds("FSD", interval)
    wait = _seconds("--after", after, least=0.0) if after is not None else every

    def make(now: float) -> tuple[dict[str, Any], float]:
        return {"interval": every, "first": now + wait}, now + wait

    _define(values, words, "interval", make)


def _seconds(option: str, text: str, least: float = 1e-9) -> float:
    try:
        found = timeout_of(text)
    except click.BadParameter as error:
        raise click.BadParameter(error.message, param_hint=f"'{option}'") from None
    if found is None or found < least:
        raise bad(option, f"{text!r} is no length of time that passes")
    return found


@cron.command("event", cls=SubmissionCommand, context_settings=_SETTINGS)
@click.argument("event", metavar="EVENT")
@_entry_options
@click.option("--nth", metavar="N", type=click.IntRange(1), default=1, help="Run at every Nth such event.")
@click.option("--after", metavar="N", type=click.IntRange(0), default=0, help="Let the first N such events pass.")
@click.option("--min-interval", metavar="FSD", help="Not more often than this; events in between are answered by one run.")
@submission_options
def event(event: str, nth: int, after: int, min_interval: str | None, words: tuple[str, ...], **values: Any) -> None:
    """Run COMMAND when an EVENT is in this instance's journal.

    EVENT is an event's name, alone (drain) or after what it is about: job, resource, node, queue, kvs, instance (job.finish).
    Each event is one run. Events of jobs that cron started, and of jobs that those submitted, do not count.

    \b
    Examples:
      fluxkv cron event resource.drain ./tell-admin
      fluxkv cron event --nth 100 job.clean ./report
      fluxkv cron event --min-interval 1m job.exception sh -c 'echo $FLUX_CRON_SUBJECT'
    """
    from ..journal.decide_cron import find_event

    name, subject = find_event(event)
    least = _seconds("--min-interval", min_interval) if min_interval else 0.0
    spec = {"event": name, "subject": subject, "nth": nth, "after": after, "min_interval": least}
    _define(values, words, "event", lambda now: (spec, 0.0))


@cron.command("at", cls=SubmissionCommand, context_settings=_SETTINGS)
@click.argument("when", metavar="DATETIME")
@_entry_options
@submission_options
def at(when: str, words: tuple[str, ...], **values: Any) -> None:
    """Run COMMAND once, at DATETIME: 17:30, "tomorrow 6:00", "2030-01-31 12:00", +90m, @UNIX.

    \b
    Examples:
      fluxkv cron at +2h ./check
      fluxkv cron at "tomorrow 6:00" ./backup
    """
    from .when import parse_when

    def make(now: float) -> tuple[dict[str, Any], float]:
        at = parse_when(when, now)
        return {"at": at}, at

    _define(values, words, "at", make)


@cron.command("tab", cls=SubmissionCommand, context_settings=_SETTINGS)
@_entry_options
@submission_options
def tab(words: tuple[str, ...], **values: Any) -> None:
    """Define an entry for each line of a crontab: FILE, or standard input (-). All are defined, or none.

    A line is five fields (minute hour day month weekday) or @hourly, @daily, @weekly, @monthly, @yearly, then a command for
    the shell. NAME=VALUE sets a variable for the lines that follow, CRON_TZ=ZONE their time zone.

    \b
    Examples:
      fluxkv cron tab crontab
      echo '*/10 8-18 * * mon-fri ./probe' | fluxkv cron tab
    """
    from ..instances.cron_time import check_timezone, local_timezone, next_time, split_line

    if len(words) > 1:
        raise click.UsageError(f"one FILE at most, not {len(words)}: options go before it")
    wanted: list[tuple[Any, ...]] = []
    rules = tuple(values["env"])
    zone = ""
    for number, line in enumerate(_lines(words[0] if words else "-"), 1):
        line = line.strip()
        name, assigned, text = line.partition("=")
        if not line or line.startswith("#"):
            continue
        if assigned and name.strip().isidentifier():
            if name.strip() == "CRON_TZ":
                zone = check_timezone(text.strip().strip("'\""))
            else:
                text = text.strip().strip("'\"").replace("$", "$$")
                rules = (*rules, f"{name.strip()}={text}")
            continue
        try:
            schedule, command = split_line(line)
            spec = {"line": schedule, "tz": zone or local_timezone()}
            if not next_time("tab", spec, 0.0):
                raise Rejected("it names a day that no month has", code="bad-crontab")
        except Rejected as error:
            raise Rejected(f"line {number}: {error}", code=error.code, hint=error.hint) from None

        def make(now: float, spec: dict[str, Any] = spec) -> tuple[dict[str, Any], float]:
            return spec, next_time("tab", spec, now)

        wanted.append((("/bin/sh", "-c", command), rules, make))
    if not wanted:
        raise Rejected("there is no line to define", code="bad-crontab", hint="as */10 8-18 * * mon-fri COMMAND")
    _create(values, wanted, "tab")


def _lines(path: str) -> list[str]:
    if path == "-":
        return sys.stdin.read().splitlines()
    with open(path) as file:
        return file.read().splitlines()


# -- looking --------------------------------------------------------------------------------------------------


@cron.command("list")
@click.option("-n", "--no-header", is_flag=True, help="No header line.")
@click.option("-o", "--format", "fmt", metavar="FORMAT", default=LIST, help=f"Fields: {', '.join(FIELDS)}.")
@click.option("--json", "as_json", is_flag=True, help="JSON, one object an entry.")
@at_option
@target_options
def list_entries(
    no_header: bool, fmt: str, as_json: bool, at: str | None, uri: str | None, state_dir: str | None
) -> None:
    """List the entries: what starts them, when next, how often they ran, how the last run ended.

    \b
    Examples:
      fluxkv cron list
      fluxkv cron list -n -o '{id} {name} {next}'
      fluxkv cron list --at yesterday
    """
    from . import render
    from .formats import Format

    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
    entries = [state.cron.entries[id] for id in sorted(state.cron.entries)]
    if as_json:
        render.print_json([document(entry, state) for entry in entries])
        return
    lines = Format(fmt, FIELDS).lines(entries, state, header=not no_header)
    if lines:
        render.out("\n".join(lines))


@cron.command("dump")
@click.argument("entries", nargs=-1, required=True, metavar="ID|NAME...")
@click.option("-k", "--key", metavar="KEY", help="Only this value, such as options.count.")
@at_option
@target_options
def dump(entries: tuple[str, ...], key: str | None, at: str | None, uri: str | None, state_dir: str | None) -> None:
    """Print all there is to know of entries, the job they submit included, as JSON.

    \b
    Examples:
      fluxkv cron dump tidy
      fluxkv cron dump -k job.jobspec.tasks tidy
    """
    from ..journal.decide_cron import find
    from . import render

    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
    for text in entries:
        entry = find(state.cron, text)
        value: Any = {**document(entry, state), "job": entry.job}
        for part in key.split(".") if key else ():
            if not isinstance(value, dict) or part not in value:
                raise Rejected(f"{key}: there is no {part}", code="no-such-key", hint="without -k all is shown")
            value = value[part]
        render.print_json(value, indent=None if key else 2)


# -- changing -------------------------------------------------------------------------------------------------


def _each(entries: tuple[str, ...], uri: str | None, change: Callable[[State, CronEntry, float], list[Decision]]) -> None:
    """Change entries in one commit, all or none."""
    from ..journal.decide import Decision
    from ..journal.decide_cron import find

    with open_journal(uri) as journal:
        now = journal.store.now()

        def decision(state: State) -> Decision:
            found = {entry.id: entry for entry in (find(state.cron, text) for text in entries)}
            made = Decision([])
            for entry in found.values():
                for one in change(state, entry, now):
                    made.events += one.events
                    made.since += one.since
                    made.bumps += one.bumps
            made.bumps = list(dict.fromkeys(made.bumps))
            return made

        journal.settle(decision)


_ids = click.argument("entries", nargs=-1, required=True, metavar="ID|NAME...")


@cron.command("stop")
@_ids
@uri_option
def stop(entries: tuple[str, ...], uri: str | None) -> None:
    """Let entries run no more until they are started again; what runs goes on.

    \b
    Examples:
      fluxkv cron stop tidy backup
    """
    from ..journal import decide_cron

    _each(entries, uri, lambda state, entry, now: [decide_cron.stop(entry, "stopped by hand", now)])


@cron.command("start")
@_ids
@uri_option
def start(entries: tuple[str, ...], uri: str | None) -> None:
    """Let stopped entries run again, from now on.

    \b
    Examples:
      fluxkv cron start tidy
    """
    from ..instances.cron_time import next_time
    from ..journal import decide_cron

    _each(entries, uri, lambda state, entry, now: [decide_cron.start(entry, next_time(entry.type, entry.spec, now), now)])


@cron.command("delete")
@_ids
@click.option("--kill", is_flag=True, help="Cancel the jobs they started, too.")
@uri_option
def delete(entries: tuple[str, ...], kill: bool, uri: str | None) -> None:
    """Remove entries.

    \b
    Examples:
      fluxkv cron delete --kill tidy
    """
    from ..journal import decide, decide_cron

    def change(state: State, entry: CronEntry, now: float) -> list[Decision]:
        made = [decide_cron.delete(entry, now)]
        if kill:
            running = [state.jobs[id] for id in state.cron.running(entry.id) if id in state.jobs]
            made += decide.cancel_each(running, f"cron entry {entry.id} was deleted", os.getuid(), now)
        return made

    _each(entries, uri, change)
