"""`fluxkv submit` and `fluxkv run`. Decides which jobs are made; `ensemble` prints, waits and watches.

submit prints ids only, one per line. run shows the job's output and exits with its code as a shell would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from ..instances.template import fill
from ..journal.ids import f58
from .attaching import attach_job, forwarded_input, input_ranks, terminal_for
from .ensemble import Ensemble, Piece, ensemble_options, event_name, log_options, put_blobs
from .environment import overlay_of, shared_environment
from .jobspecs import jobspec_of
from .options import SubmissionCommand, copies, flags_of, key_of, submission_options, timeout_of, urgency_of
from .render import print_json, say

if TYPE_CHECKING:
    from ..instances.client import Instance

SETTINGS = {"ignore_unknown_options": False, "allow_interspersed_args": False}


@click.command(cls=SubmissionCommand, context_settings=SETTINGS)
@submission_options
@click.option(
    "--cc", metavar="IDSET", help="One copy for each id; {cc} becomes the id, and so does $FLUX_JOB_CC."
)
@click.option("--bcc", metavar="IDSET", help="As --cc, without FLUX_JOB_CC.")
@click.option("--spread", is_flag=True, help="All copies of --cc as one ensemble over all nodes; see fluxkv ensemble.")
@ensemble_options
@log_options
def submit(words: tuple[str, ...], uri: str | None, dry_run: bool, spread: bool, **values: Any) -> int:
    """Submit jobs and print their ids.

    With - in place of a command, jobspecs are read from standard input, one JSON object a line.

    \b
    Examples:
      fluxkv submit -n4 -c2 ./simulate input.dat
      fluxkv submit --cc=1-100 --output=out.{cc} ./simulate {cc}
      fluxkv submit -t 10m --urgency=20 ./report
      fluxkv submit --dependency=afterok:ƒ2UzHM --begin-time=+1h ./report
      fluxkv submit --cc=1-10 --dependency=afterok:#-1 ./simulate {cc}    one after another
      fluxkv submit --wait --progress --cc=1-1000 true
      fluxkv submit --spread --begin-time=+1h --cc=1-10000 ./simulate {cc}    one job: an ensemble
      fluxkv submit -N2 --tasks-per-node=2 --taskmap=cyclic hostname
      fluxkv submit --retry=3 --retry-on=node-failure,oom,exit=75 ./simulate
      fluxkv submit --id=nightly-7 ./report         again: the same job, the same id
      fluxkv submit --add-file=input.dat ./simulate {{tmpdir}}/input.dat
      fluxkv submit -S alloc-bypass.R="$(fluxkv job info ƒ3kQ R)" ./simulate    exactly what that job had
      fluxkv submit --dry-run true | fluxkv submit -
    """
    need_command(words)
    if spread:
        from .ensemble_cmd import spread_copies

        return spread_copies(words, uri, dry_run, values)
    values["blobs"] = None if dry_run else {}
    flags, timeout = flags_of(values["flags"], values["debug"]), timeout_of(values["timeout"])
    pieces = primed(_pieces(values, words))
    if dry_run:
        for piece in pieces:
            print_jobspec(piece)
        return 0
    with connected(uri) as instance:
        jobs = Ensemble(instance, values)
        jobs.submit(pieces, flags, values["blobs"])
        return jobs.finish(timeout)


def _pieces(values: dict[str, Any], words: tuple[str, ...]) -> Iterator[Piece]:
    """The jobs of one command: one, or a copy for each number."""
    if words == ("-",):
        from .jobspec_input import jobspec_pieces, only_jobspecs

        only_jobspecs(values)
        return jobspec_pieces("-", values)
    numbers = copies(values["cc"], values["bcc"])
    return _copies(values, words, numbers) if numbers is not None else iter([_single(values, words)])


@click.command(cls=SubmissionCommand, context_settings=SETTINGS)
@submission_options
@click.option("--interactive", is_flag=True, help="If this is a terminal, the first task has one, too (-o pty.interactive).")
@click.option("-v", "--verbose", is_flag=True, help="Say the job's id and its events on stderr.")
@click.option("--wait-event", metavar="NAME", help="Stay until the job has had this event, not until it ends.")
@click.option("--timeout", metavar="FSD", help="How long to stay attached at most; the job goes on.")
def run(words: tuple[str, ...], uri: str | None, dry_run: bool, **values: Any) -> int:
    """Submit a job, show its output, and exit with its code.

    Ctrl-C sends SIGINT to the job; a second one within two seconds cancels it and leaves.

    \b
    Examples:
      fluxkv run hostname
      fluxkv run -N2 -n8 -l ./mpi-program
      fluxkv run -t 1s sleep 60           ended by its time limit
      sort data | fluxkv run uniq -c
      sort data | fluxkv run -n4 --input=0 uniq -c    only task 0 gets our standard input
      fluxkv run --interactive python     on this terminal
    """
    need_command(words)
    ranks = input_ranks(values)
    forwarded = forwarded_input(values)
    if forwarded is not None:
        values["setopt"] = ("input.stdin.type=service", *values["setopt"])
    if values["interactive"] and forwarded is not None:
        from .terminal import on_terminal

        if on_terminal():
            values["setopt"] = ("pty.interactive=1", *values["setopt"])
    values["blobs"] = None if dry_run else {}
    flags, timeout = flags_of(values["flags"], values["debug"]), timeout_of(values["timeout"])
    piece, until = _single(values, words), event_name(values["wait_event"])
    if dry_run:
        print_jobspec(piece)
        return 0
    with connected(uri) as instance:
        if values["blobs"]:
            put_blobs(instance, values["blobs"])
        (id,) = instance.submitter.submit([(piece.jobspec, piece.env)], piece.urgency, flags, [piece.key])
        if id not in instance.submitter.submitted:
            say(f"fluxkv: {f58(id)} has this key" + ("; it gets no input from here" if forwarded is not None else ""))
            forwarded = None
        if values["verbose"]:
            say(f"fluxkv: job {f58(id)}")
        return attach_job(
            instance, id, forwarded, ranks=ranks, label=values["label_io"], verbose=values["verbose"],
            timeout=timeout, until=until, terminal=terminal_for(piece.jobspec, "own") if forwarded is not None else "",
        )  # fmt: skip


def need_command(words: tuple[str, ...]) -> None:
    """Refuse an empty command."""
    if not words:
        raise click.UsageError("no command to run: name one, e.g. hostname, after the options")


def connected(uri: str | None) -> Instance:
    """The instance, as a command's user."""
    from ..instances.client import connect

    instance = connect(uri)
    instance.by = "cli"
    return instance


def primed(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same jobs, the first one made already: what is wrong with it is said before anything is asked of an instance."""
    first = next(pieces, None)
    return pieces if first is None else chain([first], pieces)


def _single(values: dict[str, Any], words: tuple[str, ...]) -> Piece:
    """The job of a command without copies."""
    jobspec = jobspec_of(values, words)
    env = shared_environment(values["env"], values["rlimit"])
    log = (values.get("log") or "", values.get("log_stderr") or "")
    return Piece(jobspec, env, urgency_of(values["urgency"]), log, key_of(values["key"]))


def _copies(values: dict[str, Any], words: tuple[str, ...], numbers: list[str]) -> Iterator[Piece]:
    """A copy for each number of --cc or --bcc."""
    from .stencil import Stencil

    def varies(text: str) -> bool:
        return "{cc}" in text

    env = shared_environment(values["env"], values["rlimit"], varies)
    overlay = overlay_of(values["env"], env, varies)
    if values["cc"]:
        overlay["FLUX_JOB_CC"] = "{cc}"
    stencil = Stencil(values, words, overlay, varies)
    beside = Beside(values, varies)
    for number in numbers:

        def put(text: str, number: str = number) -> str:
            return fill(text, number)

        yield Piece(stencil.cut(put), env, *beside(put))


class Beside:
    """What goes with a job beside its jobspec: urgency, the files of --log and --log-stderr, its key."""

    def __init__(self, values: Mapping[str, Any], varies: Callable[[str], bool]) -> None:
        self._texts = values["urgency"], values["log"] or "", values["log_stderr"] or "", values["key"] or ""
        self._keyed = values["key"] is not None
        self._same = None if any(map(varies, self._texts)) else self._read(*self._texts)

    def __call__(self, put: Callable[[str], str]) -> tuple[int, tuple[str, str], str]:
        """Of one job, whose texts `put` fills in."""
        return self._same or self._read(*map(put, self._texts))

    def _read(self, urgency: str, log: str, log_stderr: str, key: str) -> tuple[int, tuple[str, str], str]:
        return urgency_of(urgency), (log, log_stderr), key_of(key if self._keyed else None)


def print_jobspec(piece: Piece) -> None:
    """One job as --dry-run shows it: complete, on one line, for this instance or for Flux."""
    from ..instances.submission import complete

    print_json(complete(piece.jobspec, piece.env))
