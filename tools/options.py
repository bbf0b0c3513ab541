"""The options that describe a job, shared by submit, run and bulksubmit, and the small values among them. Decides how
texts on the command line are read (Flux's rules); what a valid jobspec is, `journal.jobspec` decides.

Each value is kept as text until its copy is made, since {cc} may stand anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from ..kvs.errors import Rejected

F = TypeVar("F", bound=Callable[..., Any])
FLAGS = {"debug": 2, "waitable": 4, "novalidate": 8}

OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("-N", "--nodes"), {"metavar": "N", "help": "Number of nodes."}),
    (("-n", "--ntasks"), {"metavar": "N", "help": "Number of tasks (default: one; with -N one per whole node)."}),
    (("-c", "--cores-per-task"), {"metavar": "N", "help": "Cores for each task (default 1)."}),
    (("-g", "--gpus-per-task"), {"metavar": "N", "help": "GPUs for each task."}),
    (("--memory-per-task",), {"metavar": "MB", "help": "Memory for each task in MiB, or such as 4G."}),
    (("-x", "--exclusive"), {"is_flag": True, "help": "Take whole nodes (with -N)."}),
    (("--cores",), {"metavar": "N", "help": "Number of cores, one task each; not with -n, -c, -g."}),
    (("--tasks-per-node",), {"metavar": "N", "help": "Tasks on each node (with -N or --cores)."}),
    (("--tasks-per-core",), {"metavar": "N", "help": "Tasks on each core (with -N or --cores)."}),
    (("--gpus-per-node",), {"metavar": "N", "help": "GPUs on each node (with -N)."}),
    (("--taskmap",), {"metavar": "SCHEME[:VALUE]",
                      "help": "Which task on which node: block, cyclic[:N], manual:MAP, hostfile:FILE."}),
    (("-t", "--time-limit"), {"metavar": "FSD", "help": "Time limit: 30s, 2h; a bare number is minutes."}),
    (("--signal",), {"metavar": "[SIG][@TIME]", "help": "Signal TIME before the time limit (USR1@60s)."}),
    (("-q", "--queue"), {"metavar": "NAME", "help": "Queue to submit to."}),
    (("-B", "--bank"), {"metavar": "NAME", "help": "Bank to charge."}),
    (("--job-name",), {"metavar": "NAME", "help": "Name (default: the command's)."}),
    (("--cwd",), {"metavar": "DIR", "help": "Working directory (default: this one)."}),
    (("--env",), {"multiple": True, "metavar": "RULE",
                  "help": "NAME=VALUE sets, PATTERN takes from here, -PATTERN removes, ^FILE reads rules."}),
    (("--env-remove",), {"multiple": True, "metavar": "PATTERN", "help": "As --env=-PATTERN."}),
    (("--env-file",), {"multiple": True, "metavar": "FILE", "help": "As --env=^FILE."}),
    (("--rlimit",), {"multiple": True, "metavar": "RULE",
                     "help": "Limits passed on: NAME=VALUE sets, PATTERN adds, -PATTERN drops (nofile=1024, -*)."}),
    (("--add-file",), {"multiple": True, "metavar": "[NAME[:PERMS]=]PATH|DATA",
                       "help": "Send a file with the job; it is {{tmpdir}}/NAME there."}),
    (("--input",), {"metavar": "FILE", "help": "Standard input from a file."}),
    (("--output",), {"metavar": "FILE", "help": "Output to a file; {{id}}, {{name}}, {{taskid}} work; none: to none."}),
    (("--error",), {"metavar": "FILE", "help": "Standard error to a file (default: where output goes)."}),
    (("-l", "--label-io"), {"is_flag": True, "help": "Put the task's rank before each line of output."}),
    (("-u", "--unbuffered"), {"is_flag": True, "help": "Ask Flux not to hold output back; fluxkv never does."}),
    (("--urgency",), {"metavar": "N", "default": "16", "help": "0 (hold) to 31 (expedite); default 16."}),
    (("--requires",), {"multiple": True, "metavar": "CONSTRAINT",
                       "help": "Nodes it may use: ssd, -slow, host:n[1-4], ..."}),
    (("--dependency",), {"multiple": True, "metavar": "SCHEME:VALUE",
                         "help": "Wait: afterok:ID, afterany:ID, any(after:ID,...), singleton, ...; repeat for more."}),
    (("--begin-time",), {"metavar": "+FSD|DATETIME", "help": 'Not before then: +2h, 18:00, "tomorrow 6:00", ...'}),
    (("--retry",), {"metavar": "N", "help": "Try it again when it fails, N times at most."}),
    (("--retry-on",), {"metavar": "CAUSE,...",
                       "help": "After which: node-failure, oom, exit, exit=75, signal=KILL, timeout, any, ... "
                               "(default: all but timeout)."}),
    (("--retry-delay",), {"metavar": "FSD", "help": "How long it waits before it is in line again."}),
    (("--id", "key"), {"metavar": "KEY",
                       "help": "Submit it once: if there is a job with this key, of any age, its id is printed."}),
    (("-S", "--setattr"), {"multiple": True, "metavar": "KEY=VAL",
                           "help": "Set an attribute; VAL may be JSON, and of ^KEY it is a file of JSON."}),
    (("-o", "--setopt"), {"multiple": True, "metavar": "KEY=VAL", "help": "Set a shell option (VAL: JSON)."}),
    (("--flags",), {"multiple": True, "metavar": "FLAG", "help": f"Job flags: {', '.join(FLAGS)}."}),
    (("--debug",), {"is_flag": True, "help": "As --flags=debug."}),
    (("--dry-run",), {"is_flag": True, "help": "Print the jobspec and submit nothing."}),
    (("--uri",), {"metavar": "URI", "help": "The instance (default: FLUXKV_URI, else the one running)."}),
)  # fmt: skip


class SubmissionCommand(click.Command):
    """A command that submits. Rules about the environment are one list (`env`), in the order they were typed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed = list(args)
        rest = super().parse_args(ctx, args)
        more = [(f"--{name}", mark, list(ctx.params.pop(name.replace("-", "_"), None) or ())) for name, mark in _ENV_MARKS]
        if any(values for _, _, values in more):
            ctx.params["env"] = _as_typed(typed, [("--env", "", list(ctx.params["env"] or ())), *more])
        return rest


_ENV_MARKS = (("env-remove", "-"), ("env-file", "^"))


def _as_typed(typed: list[str], options: list[tuple[str, str, list[str]]]) -> tuple[str, ...]:
    """Values of several options, each behind its option's mark, in the order in which they were typed."""
    found = []
    for at, word in enumerate(typed):
        for option, mark, values in options:
            if not values:
                continue
            following = typed[at + 1] if at + 1 < len(typed) else None
            if word == f"{option}={values[0]}" or (word == option and following == values[0]):
                found.append(mark + values.pop(0))
                break
    return tuple(found)


def submission_options(command: F) -> F:
    """Adds the options that describe a job, and the command with its arguments (`words`)."""
    command = click.argument("words", nargs=-1, metavar="COMMAND [ARGS]...", type=click.UNPROCESSED)(command)
    for names, settings in reversed(OPTIONS):
        command = click.option(*names, **settings)(command)
    return command


def bad(option: str, why: object) -> click.BadParameter:
    """The one error for a value that can not be used: it names the option."""
    hint = getattr(why, "hint", "")
    return click.BadParameter(f"{why}" + (f" ({hint})" if hint else ""), param_hint=f"'{option}'")


def time_limit(text: str | None, option: str = "--time-limit") -> float:
    """Seconds of a time limit as Flux reads it: a bare number is minutes; 0.0 for none."""
    if not text:
        return 0.0
    from ..journal.duration import parse_duration

    try:
        try:
            minutes = float(text)
        except ValueError:
            seconds = parse_duration(text)
        else:
            seconds = parse_duration(minutes) * 60.0
    except Rejected as error:
        raise bad(option, error) from None
    return 0.0 if seconds == float("inf") else seconds


def timeout_of(text: str | None) -> float | None:
    """Seconds of a --timeout (RFC 23: a bare number is seconds), None for none or infinity."""
    if text is None:
        return None
    from ..journal.duration import parse_duration

    try:
        seconds = parse_duration(text)
    except Rejected as error:
        raise bad("--timeout", error) from None
    return None if seconds == float("inf") else seconds


def flags_of(texts: Iterable[str], debug: bool = False) -> int:
    """The flag mask of --flags, whose values may be joined by commas, and of --debug."""
    mask = FLAGS["debug"] if debug else 0
    for text in texts:
        for word in text.split(","):
            if word not in FLAGS:
                raise bad("--flags", f"{word!r} is not one of {', '.join(FLAGS)}")
            mask |= FLAGS[word]
    return mask


def urgency_of(text: str) -> int:
    """Urgency 0..31 of a number or of "hold", "default", "expedite"."""
    if text.isdecimal() and int(text) <= 31:
        return int(text)
    from ..journal.urgency import parse_urgency

    try:
        return parse_urgency(text)
    except Rejected as error:
        raise bad("--urgency", error) from None


def key_of(text: str | None) -> str:
    """The key of --id, "" where that is not given; an empty one is a variable that was not set."""
    if text is None:
        return ""
    from ..instances.submit_keys import check_key

    try:
        return check_key(text)
    except Rejected as error:
        raise bad("--id", error) from None


def no_key(values: Mapping[str, Any]) -> None:
    """Refuse --id where one command stands for jobs to come."""
    if values["key"]:
        raise bad("--id", "each run is a job of its own, and no key can be all of theirs")


def copies(cc: str | None, bcc: str | None) -> list[str] | None:
    """The numbers of the copies asked for by --cc or --bcc, None for just one job."""
    if cc and bcc:
        raise bad("--bcc", "not together with --cc")
    text = cc or bcc
    if not text:
        return None
    from ..journal.idset import ids_of_mask, mask_of

    try:
        return [str(id) for id in ids_of_mask(mask_of(text))]
    except Rejected as error:
        raise bad("--cc" if cc else "--bcc", error) from None
