"""`fluxkv job kill|raise|urgency|memo|purge ...`: jobs changed by a person. The rules are `journal.decide`'s."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..journal.ids import f58, parse_id
from ..kvs.errors import FluxkvError, Rejected
from .named_jobs import counted, parse_ids, tell_refused, userid_of
from .options import urgency_of
from .render import say
from .target import open_journal

if TYPE_CHECKING:
    from ..instances.client import Instance
    from ..journal.decide import Decision
    from ..journal.job import Job
    from ..journal.state import State

F = TypeVar("F", bound=Callable[..., Any])

_uri = click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")
_signal = click.option("-s", "--signal", "name", default="TERM", metavar="SIG", help="Name or number (default TERM).")
_user = click.option("-u", "--user", metavar="USER", help="Whose jobs (default: yours; all: everybody's).")
_force = click.option("-f", "--force", is_flag=True, help="Do it; without this only say what would be done.")


def _type(default: str) -> Callable[[F], F]:
    return click.option("-t", "--type", "kind", default=default, metavar="TYPE", help="Type of the exception.")


def _severity(default: int) -> Callable[[F], F]:
    return click.option("-s", "--severity", default=default, type=click.IntRange(0, 7), metavar="N",
                        help=f"0 ends the job, 1 to 7 do not (default {default}).")  # fmt: skip


@contextmanager
def _instance(uri: str | None) -> Iterator[Instance]:
    from ..instances.client import Instance

    with open_journal(uri) as journal:
        yield Instance(journal.store, by="cli")


def _each(ids: list[int], uri: str | None, decide: Callable[[State, int], Decision]) -> int:
    """Decide about each job, on one state; say what went wrong with which; 1 if anything did."""
    refused: dict[int, FluxkvError] = {}
    with _instance(uri) as instance:
        journal = instance.journal
        state = journal.look()
        for id in ids:
            try:
                if id not in state.jobs and journal.find_jobs(state, [id]):
                    raise Rejected(f"job {f58(id)}: is inactive", code="inactive")
                journal.settle(partial(_about, decide, id), state)
            except Rejected as error:
                refused[id] = error
    tell_refused(refused)
    return int(bool(refused))


def _about(decide: Callable[[State, int], Decision], id: int, state: State) -> Decision:
    return decide(state, id)


def _number_of(name: str) -> int:
    import signal

    text = name.upper().removeprefix("SIG")
    try:
        return int(text) if text.isdecimal() else int(signal.Signals[f"SIG{text}"])
    except KeyError:
        raise click.BadParameter(f"no such signal: {name}", param_hint="'--signal'") from None


def _all_of(
    uri: str | None, user: str | None, wanted: Callable[[Job], bool], decide: Callable[[State, int], Decision], verb: str,
    force: bool,
) -> int:  # fmt: skip
    """One decision about each of the wanted active jobs."""
    owner = userid_of(user) if user else os.getuid()

    def decisions(state: State) -> list[Decision]:
        found = (job.id for job in state.active() if wanted(job) and (owner is None or job.userid == owner))
        return [decide(state, id) for id in found]

    with _instance(uri) as instance:
        if force:
            done = len(instance.journal.settle_each(decisions))
            say(f"fluxkv: {verb} {counted(done)}")
        else:
            say(f"fluxkv: would have {verb} {counted(len(decisions(instance.journal.look())))}; --force does it")
    return 0


# -- signals and exceptions ------------------------------------------------------------------------------------


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@_signal
@_uri
def kill(ids: tuple[str, ...], name: str, uri: str | None) -> int:
    """Send a signal to the tasks of running jobs.

    \b
    Examples:
      fluxkv job kill -s USR1 ƒ3kQ
    """
    from ..journal import decide

    signum = _number_of(name)
    return _each(parse_ids(list(ids)), uri, lambda state, id: decide.kill(state, id, signum, os.getuid(), time.time()))


@click.command()
@_user
@_signal
@_force
@_uri
def killall(user: str | None, name: str, force: bool, uri: str | None) -> int:
    """Send a signal to the tasks of all running jobs.

    \b
    Examples:
      fluxkv job killall --force -s USR1
    """
    from ..journal import decide
    from ..journal.job import RUN

    signum = _number_of(name)
    return _all_of(
        uri, user, lambda job: job.state == RUN and job.holds,
        lambda state, id: decide.kill(state, id, signum, os.getuid(), time.time()), "signalled", force,
    )  # fmt: skip


@click.command("raise", context_settings={"ignore_unknown_options": False})
@click.argument("ids", nargs=-1, required=True, metavar="ID... [NOTE...]")
@_type("cancel")
@_severity(0)
@click.option("-m", "--message", default="", metavar="NOTE", help="Why.")
@_uri
def raise_(ids: tuple[str, ...], kind: str, severity: int, message: str, uri: str | None) -> int:
    """Raise an exception on jobs (RFC 21). What follows the ids is the note, as is --message.

    \b
    Examples:
      fluxkv job raise -t test -s 7 -m "just a note" ƒ3kQ
      fluxkv job raise -s 7 ƒ3kQ looks slow
    """
    from ..journal import decide

    named: list[int] = []
    words = list(ids)
    while words:
        try:
            named += parse_ids(words[:1])
        except Rejected:
            if not named:
                raise
            break
        del words[0]
    if words and message:
        raise click.UsageError("give the note after the ids, or with --message, not both")
    note = message or " ".join(words)
    return _each(
        named, uri, lambda state, id: decide.raise_exception(state, id, kind, severity, note, os.getuid(), time.time())
    )


@click.command()
@click.argument("kind", metavar="TYPE")
@click.argument("words", nargs=-1, metavar="[NOTE...]")
@_severity(7)
@_user
@click.option("-S", "--states", metavar="STATE,...", default="active", help="Jobs in these states (default: active).")
@_force
@_uri
def raiseall(
    kind: str, words: tuple[str, ...], severity: int, user: str | None, states: str, force: bool, uri: str | None
) -> int:
    """Raise an exception on all your active jobs.

    \b
    Examples:
      fluxkv job raiseall --force test the fan is loud
      fluxkv job raiseall --force --severity=0 --states=pending cancel
    """
    from ..journal import decide
    from .job_filter import parse_states

    mask, results = parse_states(states)
    if results:
        raise click.BadParameter("only active jobs can have an exception raised on them", param_hint="'--states'")
    note = " ".join(words)
    return _all_of(
        uri, user, lambda job: bool(job.state & mask),
        lambda state, id: decide.raise_exception(state, id, kind, severity, note, os.getuid(), time.time()),
        "raised it on", force,
    )  # fmt: skip


@click.command()
@click.argument("id")
@click.argument("urgency")
@click.option("-v", "--verbose", is_flag=True, help="Say what it was before.")
@_uri
def urgency(id: str, urgency: str, verbose: bool, uri: str | None) -> int:
    """Change a pending job's urgency (RFC 30): 0 to 31, hold, default or expedite.

    \b
    Examples:
      fluxkv job urgency ƒ3kQ hold
      fluxkv job urgency ƒ3kQ 20
    """
    with _instance(uri) as instance:
        from ..journal import decide

        number, asked = parse_id(id), urgency_of(urgency)
        state = instance.state()
        before = state.jobs[number].urgency if number in state.jobs else 0
        instance.journal.settle(lambda state: decide.change_urgency(state, number, asked, os.getuid(), time.time()), state)
        if verbose:
            say(f"fluxkv: {f58(number)}: old urgency: {before}")
    return 0


# -- records ---------------------------------------------------------------------------------------------------


@click.command()
@click.argument("id")
@click.argument("notes", nargs=-1, required=True, metavar="KEY=VALUE...")
@_uri
def memo(id: str, notes: tuple[str, ...], uri: str | None) -> int:
    """Note something on an active job (RFC 21): VALUE is JSON or text; KEY alone forgets.

    Shown as user.KEY by jobs; it stays in the job's record and in the journal.

    \b
    Examples:
      fluxkv job memo ƒ3kQ step=3 phase=warmup
      fluxkv job memo ƒ3kQ step
      fluxkv jobs -o '{id} {user.step}'
    """
    from ..journal.decide_records import memo as decide_memo

    number = parse_id(id)
    found = dict(map(_note, notes))
    with _instance(uri) as instance:
        instance.journal.settle(lambda state: decide_memo(state, number, found, time.time()))
    return 0


def _note(text: str) -> tuple[str, Any]:
    import json

    key, given, value = text.partition("=")
    if not given:
        return key, None
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--age-limit", metavar="FSD", help="Jobs that ended longer ago than that: 30s, 1.5h, 7d.")
@click.option("--num-limit", metavar="N", type=click.IntRange(0), help="The oldest, until N inactive jobs are left.")
@_force
@_uri
def purge(ids: tuple[str, ...], age_limit: str | None, num_limit: int | None, force: bool, uri: str | None) -> int:
    """Move inactive jobs out of the live state, which then is smaller and faster to read.

    Nothing is lost: the journal keeps them, and jobs, inspect, job info and the rest go on finding them. Beyond
    20,000 inactive jobs this happens by itself.

    \b
    Examples:
      fluxkv job purge --force --age-limit=7d
      fluxkv job purge --num-limit=1000             how many there would be
      fluxkv job purge --force ƒ3kQ
    """
    from ..journal.decide_records import oldest
    from ..journal.decide_records import purge as decide_purge
    from ..journal.duration import parse_duration
    from ..journal.job import INACTIVE

    if bool(ids) == bool(age_limit or num_limit is not None):
        raise click.UsageError("name jobs, or give --age-limit or --num-limit" + (", not both" if ids else ""))
    age_s = parse_duration(age_limit) if age_limit else None
    with _instance(uri) as instance:
        journal = instance.journal
        state, now = journal.look(), journal.store.now()
        if ids:
            wanted = [job.id for job in journal.known_jobs(state, parse_ids(list(ids)))]
        else:
            wanted = oldest(state, now, age_s, num_limit)
        total = state.count(INACTIVE)
        if not force:
            say(f"fluxkv: would purge {counted(len(wanted))} of {total} inactive; --force does it")
            return 0
        left = total
        while (decision := decide_purge(state, wanted, time.time())).events:
            journal.settle(lambda state, events=decision: events, state)  # type: ignore[misc]
            journal.catch_up(state)
            left = state.count(INACTIVE)
        say(f"fluxkv: purged {total - left} of {total} inactive jobs; the journal keeps them")
    return 0
