"""`fluxkv bulksubmit`: one job for each combination of inputs, as GNU parallel and xargs do. `inputs` fills them in."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from ..instances.template import SPLIT, fill
from .ensemble import Ensemble, Piece, ensemble_options, log_options
from .environment import overlay_of, shared_environment
from .inputs import Filler, combined, separator, split_lists
from .options import SubmissionCommand, copies, flags_of, submission_options, timeout_of
from .render import out
from .stencil import Stencil
from .submit_cmd import SETTINGS, Beside, connected, primed

_SHORT = {"nodes": "-N", "ntasks": "-n", "cores_per_task": "-c", "gpus_per_task": "-g", "time_limit": "-t", "queue": "-q",
          "bank": "-B", "setopt": "-o ", "key": "--id="}  # fmt: skip


@click.command(cls=SubmissionCommand, context_settings=SETTINGS)
@submission_options
@click.option("--cc", metavar="IDSET", help="As many copies of each job; {cc} becomes the id, and so does $FLUX_JOB_CC.")
@click.option("--bcc", metavar="IDSET", help="As --cc, without FLUX_JOB_CC.")
@click.option("--define", multiple=True, metavar="NAME=CODE", help="{.NAME} is this Python expression of the input x.")
@click.option("--shuffle", is_flag=True, help="Submit in random order.")
@click.option("--sep", default="\\n", metavar="STRING", help="Between inputs in files: a line break; none: white space.")
@click.option("-v", "--verbose", is_flag=True, help="Print each job's options and command as it is submitted.")
@ensemble_options
@log_options
def bulksubmit(words: tuple[str, ...], uri: str | None, dry_run: bool, **values: Any) -> int:
    """Submit a job for each input, or for each combination of several lists of inputs.

    Inputs follow the command after ::: (more of them are combined), or :::: FILE; behind :::+ and ::::+ they are
    linked to the others, one each. Without any they are the lines of standard input. {} is the input, {0} {1} those of
    several lists, {.%} without extension, {./} without directory, {.//} the directory, {./%} both removed; {seq} and
    {seq1} count jobs. They work in the command and in options.

    \b
    Examples:
      fluxkv bulksubmit ./simulate {} ::: a.in b.in c.in
      fluxkv bulksubmit --output={./%}.out ./simulate {} ::: data/a.in data/b.in
      fluxkv bulksubmit ./simulate --mass={0} --speed={1} ::: 1 2 3 ::: slow fast
      seq 1 100 | fluxkv bulksubmit --wait --progress ./simulate {}
      fluxkv bulksubmit --dry-run --define=p2='2**int(x)' -n {.p2} hostname ::: 0 1 2 3
    """
    flags, timeout = flags_of(values["flags"], values["debug"]), timeout_of(values["timeout"])
    values["blobs"] = None if dry_run else {}
    filler = Filler(values.pop("define"))
    lists = split_lists(words, separator(values.pop("sep")))
    rows = combined(lists)
    if values.pop("shuffle"):
        import random

        mixed = list(rows)
        random.shuffle(mixed)
        rows = iter(mixed)
    pieces = primed(_jobs(values, lists.command, filler, rows, show=values.pop("verbose") or dry_run))
    if dry_run:
        if not sum(1 for _ in pieces):
            raise click.UsageError("there are no inputs")
        return 0
    with connected(uri) as instance:
        jobs = Ensemble(instance, values)
        jobs.submit(pieces, flags, values["blobs"])
        if not jobs.ids:
            raise click.UsageError("there are no inputs")
        return jobs.finish(timeout)


def _jobs(
    values: dict[str, Any], command: list[str], filler: Filler, rows: Iterable[tuple[str, ...]], *, show: bool
) -> Iterator[Piece]:
    """The jobs of all inputs, in their order. show: print each."""
    env = shared_environment(values["env"], values["rlimit"], filler.varies)
    overlay = overlay_of(values["env"], env, filler.varies)
    if values["cc"]:
        overlay["FLUX_JOB_CC"] = "{cc}"
    stencil = Stencil(values, command, overlay, filler.varies)
    beside = Beside(values, filler.varies)
    shown = [*stencil.varying, *(name for name in ("env", "urgency", "cc", "bcc", "log", "log_stderr", "key") if values[name])]
    for seq, row in enumerate(rows):
        filler.set(row, seq)
        cc, bcc = (filler(values[name]) if values[name] else None for name in ("cc", "bcc"))
        for number in copies(cc, bcc) or [""]:

            def put(text: str, number: str = number) -> str:
                return fill(filler(text), number)

            piece = Piece(stencil.cut(put), env, *beside(put))
            if show:
                _show(values, shown, put, piece)
            yield piece


def _show(values: dict[str, Any], names: list[str], put: Callable[[str], str], piece: Piece) -> None:
    """One line as Flux prints it: the options that were filled in, and the command."""
    parts = []
    for name in names:
        texts = [values[name]] if isinstance(values[name], str) else list(values[name])
        for text in texts:
            if put(text) != text or name in ("cc", "bcc"):
                parts.append((_SHORT.get(name) or f"--{name.replace('_', '-')}=") + shlex.quote(put(text)))
    command = piece.jobspec["tasks"][0]["command"]
    out(" ".join(["bulksubmit: submit", *parts, shlex.join(command)]).replace(SPLIT, " "))
