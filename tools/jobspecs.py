"""From the options of a submission, still texts, to a jobspec. Decides how they are read (Flux's rules); what a valid jobspec
is, `journal.jobspec` decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..kvs.errors import Rejected
from .options import bad, time_limit


def jobspec_of(v: Mapping[str, Any], words: Iterable[str]) -> dict[str, Any]:
    """The jobspec (without environment) of these values and words. Raises click.BadParameter, Rejected.

    overlay: variables it has beyond the environment; blobs: takes large files' contents by name.
    """
    from ..instances.submission import build_jobspec

    options: dict[str, Any] = {
        **_sizes(v), "memory_mb_per_task": memory_mb(v.get("memory_per_task")),
        "duration": time_limit(v.get("time_limit")), "name": v.get("job_name"), "queue": v.get("queue"),
        "bank": v.get("bank"), "constraint": " ".join(v.get("requires") or ()) or None, "output": _file(v.get("output")),
        "error": _file(v.get("error")), "input": v.get("input") or "", "label_io": bool(v.get("label_io")),
    }  # fmt: skip
    if v.get("cwd"):
        options["cwd"] = os.path.abspath(v["cwd"])
    if v.get("dependency") or v.get("begin_time"):
        from .depopts import dependencies_of

        options["dependencies"] = dependencies_of(v.get("dependency") or (), v.get("begin_time"))
    shell = _shell_options(v)
    if v.get("setopt"):
        shell.update(settings("--setopt", v["setopt"]))
        _remark(shell)
    if shell:
        options["shell_options"] = shell
    attributes = settings("--setattr", v["setattr"]) if v.get("setattr") else {}
    if v.get("add_file"):
        from .add_file import files_of

        attributes["system.files"] = files_of(v["add_file"], v.get("blobs"))
    if v.get("retry") is not None or v.get("retry_on") is not None or v.get("retry_delay") is not None:
        from .retryopts import retry_of

        if (policy := retry_of(v)) is not None:
            attributes["system.retry"] = policy
    if v.get("overlay"):
        attributes["system.environment"] = dict(v["overlay"])
    if attributes:
        options["attributes"] = attributes
    try:
        return build_jobspec(list(words), **options)
    except Rejected as error:
        if error.code.startswith("bad-constraint") or error.code == "bad-query":
            raise bad("--requires", error) from None
        if error.code == "bad-dependency":
            raise bad("--dependency", error) from None
        if error.code == "bad-shell-option":
            raise bad(_option_of(str(error), v), error) from None
        raise


def _sizes(v: Mapping[str, Any]) -> dict[str, Any]:
    """The counts. -N alone takes whole nodes, one task each, as in Flux."""
    names = ("nodes", "ntasks", "cores", "tasks_per_node", "tasks_per_core")
    found: dict[str, Any] = {name: count(v, name) for name in names}
    found["gpus_per_node"] = count(v, "gpus_per_node", least=0)
    found["cores_per_task"] = count(v, "cores_per_task") or 1
    found["gpus_per_task"] = count(v, "gpus_per_task", least=0) or 0
    alone = all(found[name] is None for name in (*names[1:], "gpus_per_node"))
    found["exclusive"] = bool(v.get("exclusive")) or (found["nodes"] is not None and alone)
    return found


def _file(path: str | None) -> str:
    """Where a stream goes; "none" and "kvs" mean no file, as in Flux."""
    return "" if path is None or path in ("none", "kvs") else path


def _shell_options(v: Mapping[str, Any]) -> dict[str, Any]:
    """The shell options that have an option of their own here."""
    found: dict[str, Any] = {}
    if v.get("signal"):
        found["signal.signum"], found["signal.timeleft"] = warning(v["signal"])
    if v.get("taskmap"):
        from .taskmaps import taskmap_option

        found["taskmap"] = taskmap_option(v["taskmap"])
    if v.get("rlimit"):
        from ..instances.rlimits import apply_rules, soft_limits

        try:
            limits = apply_rules(v["rlimit"], soft_limits())
        except Rejected as error:
            raise bad("--rlimit", error) from None
        if limits:
            found["rlimit"] = limits
    if v.get("unbuffered"):
        found["output.stdout.buffer.type"] = found["output.stderr.buffer.type"] = "none"
    return found


def _option_of(text: str, v: Mapping[str, Any]) -> str:
    """Which option a shell option that is wrong came by."""
    name = text.partition("=")[0]
    if name.startswith("exec."):
        return "--setattr"
    own = {"taskmap": "taskmap", "rlimit": "rlimit", "signal": "signal"}.get(name.partition(".")[0])
    return f"--{own}" if own and v.get(own) else "--setopt"


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


def warning(text: str) -> tuple[int, float]:
    """See `shell_options.parse_warning`. Raises click.BadParameter."""
    from ..instances.shell_options import parse_warning

    try:
        return parse_warning(text)
    except Rejected as error:
        raise bad("--signal", error) from None


def count(values: Mapping[str, Any], name: str, least: int = 1) -> int | None:
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


def settings(option: str, texts: Iterable[str]) -> dict[str, Any]:
    """Names and values of KEY=VAL texts (see `jobspec_build.parse_setting`). Raises click.BadParameter."""
    from ..journal.jobspec_build import parse_setting

    found: dict[str, Any] = {}
    for text in texts:
        try:
            name, value = parse_setting(text)
        except Rejected as error:
            raise bad(option, error) from None
        if option == "--setattr" and name.startswith("^"):
            name, value = name[1:], _json_of(option, text.partition("=")[2])
        found[name] = value
    return found


def _json_of(option: str, path: str) -> Any:
    import json

    try:
        with open(os.path.expanduser(path)) as file:
            return json.load(file)
    except OSError as error:
        raise bad(option, f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise bad(option, f"{path} is not JSON: {error}") from None
