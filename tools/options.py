"""The options that describe a job, shared by submit and run, and their translation to a jobspec. Decides how
texts on the command line are read (Flux's rules); what a valid jobspec is, `journal.jobspec` decides.

Each value is kept as text until its copy is made, since {cc} may stand anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from ..kvs.errors import Rejected

F = TypeVar("F", bound=Callable[..., Any])
FLAGS = {"debug": 2, "waitable": 4, "novalidate": 8}

_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("-N", "--nodes"), {"metavar": "N", "help": "Number of nodes."}),
    (("-n", "--ntasks"), {"metavar": "N", "help": "Number of tasks (default: one, or one per node)."}),
    (("-c", "--cores-per-task"), {"metavar": "N", "help": "Cores for each task (default 1)."}),
    (("-g", "--gpus-per-task"), {"metavar": "N", "help": "GPUs for each task."}),
    (("--memory-per-task",), {"metavar": "MB", "help": "Memory for each task in MiB, or such as 4G."}),
    (("-x", "--exclusive"), {"is_flag": True, "help": "Take whole nodes (with -N)."}),
    (("-t", "--time-limit"), {"metavar": "FSD", "help": "Time limit: 30s, 2h; a bare number is minutes."}),
    (("--signal",), {"metavar": "[SIG][@TIME]", "help": "Signal TIME before the time limit (USR1@60s)."}),
    (("-q", "--queue"), {"metavar": "NAME", "help": "Queue to submit to."}),
    (("-B", "--bank"), {"metavar": "NAME", "help": "Bank to charge."}),
    (("--job-name",), {"metavar": "NAME", "help": "Name (default: the command's)."}),
    (("--cwd",), {"metavar": "DIR", "help": "Working directory (default: this one)."}),
    (("--env",), {"multiple": True, "metavar": "RULE",
                  "help": "NAME=VALUE sets, PATTERN takes from here, -PATTERN removes, ^FILE reads rules."}),
    (("--env-remove",), {"multiple": True, "metavar": "PATTERN", "help": "As --env=-PATTERN."}),
    (("--input",), {"metavar": "FILE", "help": "Standard input from a file."}),
    (("--output",), {"metavar": "FILE", "help": "Output to a file; {{id}}, {{name}}, {{taskid}} work."}),
    (("--error",), {"metavar": "FILE", "help": "Standard error to a file (default: where output goes)."}),
    (("-l", "--label-io"), {"is_flag": True, "help": "Put the task's rank before each line of output."}),
    (("--urgency",), {"metavar": "N", "default": "16", "help": "0 (hold) to 31 (expedite); default 16."}),
    (("--requires",), {"metavar": "CONSTRAINT", "help": "Nodes it may use: ssd, -slow, host:n[1-4], ..."}),
    (("--dependency",), {"multiple": True, "metavar": "SCHEME:VALUE",
                         "help": "Wait: afterok:ID, afterany:ID, any(after:ID,...), singleton, ...; repeat for more."}),
    (("--begin-time",), {"metavar": "+FSD|DATETIME", "help": 'Not before then: +2h, 18:00, "tomorrow 6:00", ...'}),
    (("--setattr",), {"multiple": True, "metavar": "KEY=VAL", "help": "Set an attribute; VAL may be JSON."}),
    (("-o", "--setopt"), {"multiple": True, "metavar": "KEY=VAL", "help": "Set a shell option (VAL: JSON)."}),
    (("--flags",), {"multiple": True, "metavar": "FLAG", "help": f"Job flags: {', '.join(FLAGS)}."}),
    (("--dry-run",), {"is_flag": True, "help": "Print the jobspec and submit nothing."}),
    (("--uri",), {"metavar": "URI", "help": "The instance (default: FLUXKV_URI, else the one running)."}),
)  # fmt: skip


def submission_options(command: F) -> F:
    """Adds the options that describe a job, and the command with its arguments (`words`)."""
    command = click.argument("words", nargs=-1, metavar="COMMAND [ARGS]...", type=click.UNPROCESSED)(command)
    for names, settings in reversed(_OPTIONS):
        command = click.option(*names, **settings)(command)
    return command


def bad(option: str, why: object) -> click.BadParameter:
    """The one error for a value that can not be used: it names the option."""
    hint = getattr(why, "hint", "")
    return click.BadParameter(f"{why}" + (f" ({hint})" if hint else ""), param_hint=f"'{option}'")


def fill(value: Any, cc: str | None) -> Any:
    """Put a copy's number in the place of {cc} (or {{cc}}), in a text or in each of several."""
    if cc is None:
        return value
    if isinstance(value, str):
        return value.replace("{{cc}}", cc).replace("{cc}", cc) if "{cc}" in value else value
    if isinstance(value, tuple | list):
        return [fill(one, cc) for one in value]
    return value


def jobspec_of(values: Mapping[str, Any], words: Iterable[str], cc: str | None = None) -> dict[str, Any]:
    """The jobspec (without environment) of these values and words. Raises click.BadParameter, Rejected."""
    from ..instances.submission import build_jobspec

    v = {key: fill(value, cc) for key, value in values.items()} if cc is not None else dict(values)
    options: dict[str, Any] = {
        "nodes": _count(v, "nodes"), "ntasks": _count(v, "ntasks"),
        "cores_per_task": _count(v, "cores_per_task") or 1,
        "gpus_per_task": _count(v, "gpus_per_task", least=0) or 0,
        "memory_mb_per_task": memory_mb(v.get("memory_per_task")), "exclusive": bool(v.get("exclusive")),
        "duration": time_limit(v.get("time_limit")), "name": v.get("job_name"), "queue": v.get("queue"),
        "bank": v.get("bank"), "constraint": v.get("requires"), "output": v.get("output") or "",
        "error": v.get("error") or "", "input": v.get("input") or "", "label_io": bool(v.get("label_io")),
    }  # fmt: skip
    if v.get("cwd"):
        options["cwd"] = os.path.abspath(v["cwd"])
    for option, key in (("--setattr", "attributes"), ("--setopt", "shell_options")):
        if v.get(option[2:]):
            options[key] = _settings(option, v[option[2:]])
    if v.get("signal"):
        found = options.setdefault("shell_options", {})
        found["signal.signum"], found["signal.timeleft"] = warning(v["signal"], options["duration"])
    if v.get("dependency") or v.get("begin_time"):
        from .depopts import dependencies_of

        options["dependencies"] = dependencies_of(v.get("dependency") or (), v.get("begin_time"))
    if "shell_options" in options:
        _remark(options["shell_options"])
    if v.get("overlay"):
        options["attributes"] = {**options.get("attributes", {}), "system.environment": dict(v["overlay"])}
    try:
        return build_jobspec([fill(word, cc) for word in words], **options)
    except Rejected as error:
        if error.code.startswith("bad-constraint") or error.code == "bad-query":
            raise bad("--requires", error) from None
        if error.code == "bad-dependency":
            raise bad("--dependency", error) from None
        if error.code == "bad-shell-option":
            raise bad("--setattr" if str(error).startswith("exec.") else "--setopt", error) from None
        raise


_remarked: set[str] = set()


def _remark(options: Mapping[str, Any]) -> None:
    """Say once that an option means nothing here: it may be a plug-in's of Flux, or misspelt."""
    from ..instances.shell_options import KNOWN, PASSED_OVER

    for name in options:
        word = name.partition(".")[0]
        if word not in KNOWN and word not in PASSED_OVER and word not in _remarked:
            from .render import say

            _remarked.add(word)
            say(f"fluxkv: -o {word} means nothing here and is passed over; known are {', '.join(KNOWN)}")


def memory_mb(text: str | None) -> int:
    """MiB of "512", "512M", "4G" or "1T" ("MB", "MiB" and so on too); 0 for none."""
    if not text:
        return 0
    word = text.upper().removesuffix("B").removesuffix("I")
    units = {"M": 1, "G": 1024, "T": 1024 * 1024}
    number, unit = (word[:-1], units[word[-1]]) if word and word[-1] in units else (word, 1)
    if not number.isdecimal() or not int(number):
        raise bad("--memory-per-task", f"{text!r} is not a number of MiB, or such as 512M or 4G")
    return int(number) * unit


def warning(text: str, limit_s: float) -> tuple[int, float]:
    """(signal number, seconds before the limit) of --signal's "[SIG][@TIME]"; Flux's defaults are USR1 and 60 s."""
    from ..instances.shell_options import WARN_LEFT_S, WARN_SIGNAL, parse_signal
    from ..journal.duration import parse_duration

    name, mark, left = text.partition("@")
    try:
        found = (
            parse_signal("signal", name) if name else WARN_SIGNAL,
            parse_duration(left) if mark else WARN_LEFT_S,
        )
    except Rejected as error:
        raise bad("--signal", error) from None
    if not limit_s:
        raise bad("--signal", "there is no time limit to signal before: add -t")
    return found


def _count(values: Mapping[str, Any], name: str, least: int = 1) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    option = "--" + name.replace("_", "-")
    try:
        number = int(text)
    except ValueError:
        raise bad(option, f"{text!r} is not a number") from None
    if number < least:
        raise bad(option, f"{number} is less than {least}")
    return number


def time_limit(text: str | None) -> float:
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
        raise bad("--time-limit", error) from None
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


def _settings(option: str, texts: Iterable[str]) -> dict[str, Any]:
    from ..journal.jobspec_build import parse_setting

    found: dict[str, Any] = {}
    for text in texts:
        try:
            name, value = parse_setting(text)
        except Rejected as error:
            raise bad(option, error) from None
        found[name] = value
    return found


def flags_of(texts: Iterable[str]) -> int:
    """The flag mask of --flags, whose values may be joined by commas."""
    mask = 0
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
