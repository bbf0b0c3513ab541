"""The shell options of a job (`attributes.system.shell.options`, as Flux names them) as values. Pure.

Decides which of them mean something here and what they may be; others are Flux plug-ins' and are passed over. Read when
a job is submitted, so that a wrong one is refused there, and again by the agent, which trusts nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ..journal.duration import parse_duration
from ..journal.resizing import is_start
from ..journal.task_exits import parse_exit_rules
from ..journal.wire import pack, unpack
from ..kvs.errors import Rejected
from .layout import check_layout
from .rlimits import parse_rlimits
from .terminals import Pty, parse_pty

WARN_SIGNAL = 10  # SIGUSR1
WARN_LEFT_S = 60.0
KILL_GRACE_S = 5.0
INSTANCE_GRACE_S = 15.0  # of an instance: its own jobs have their five seconds first, and their ends are to be in its journal
KNOWN = ("cpu-affinity", "gpu-affinity", "kill-timeout", "signal", "output", "input", "rlimit", "taskmap", "per-resource",
         "exit-timeout", "exit-on-error", "pty", "critical-ranks")  # fmt: skip
PASSED_OVER = ("mpi", "pmi", "pmi-simple", "verbose", "hwloc", "userrc", "initrc",
               "nosetpgrp", "stage-in", "stop-tasks-in-exec", "sysmon")  # fmt: skip


class Stream(NamedTuple):
    """Where one stream goes or comes from. kind: "file", "kvs", "service" or ""; path: of a file, with templates."""

    kind: str
    path: str
    label: bool


class ShellOptions(NamedTuple):
    """cpus, gpus: "on", "off" or "per-task". kill_grace_s: from TERM to KILL, None: as ever. warn: (seconds left, signal) or None.

    rlimits: soft limits by name, -1 for none. exits: whether it is to be said when its first tasks end.
    """

    cpus: str
    gpus: str
    kill_grace_s: float | None
    warn: tuple[float, int] | None
    stdin: Stream
    stdout: Stream
    stderr: Stream
    append: bool
    rlimits: dict[str, int]
    exits: bool
    pty: Pty | None = None


class Pretended(NamedTuple):
    """A job that only pretends to run (`attributes.system.exec.test`). status: a wait status."""

    duration_s: float
    status: int


def parse_shell_options(options: Any) -> ShellOptions:
    """Raises `Rejected(code="bad-shell-option")` that names the option."""
    options = _object("options", options)
    output = _object("output", options.get("output"))
    if output.get("mode", "truncate") not in ("truncate", "append"):
        raise _bad("output.mode", output["mode"], "it is truncate or append")
    out, err = (_stream(f"output.{name}", output.get(name), ("file", "kvs")) for name in ("stdout", "stderr"))
    _check_critical(options.get("critical-ranks"))
    given = _object("input", options.get("input"))
    stdin = _stream("input.stdin", given.get("stdin"), ("file", "service"))
    return ShellOptions(
        _affinity(options, "cpu-affinity"), _affinity(options, "gpu-affinity"),
        _seconds("kill-timeout", options["kill-timeout"]) if "kill-timeout" in options else None, _warning(options.get("signal")),
        stdin, out, err, output.get("mode") == "append", parse_rlimits(options), parse_exit_rules(options).any,
        parse_pty(options.get("pty")),
    )  # fmt: skip


def grace_of(options: ShellOptions, command: Sequence[str]) -> float:
    """Seconds from TERM to KILL."""
    if options.kill_grace_s is not None:
        return options.kill_grace_s
    return INSTANCE_GRACE_S if is_start(command) else KILL_GRACE_S


def shell_options_of(options: Any) -> ShellOptions:
    """The same, remembered: jobs of a flood have equal ones, and reading them is half of what building an attempt costs. What it
    gives is nobody's to change."""
    return _remembered(pack(options))


@lru_cache(maxsize=64)
def _remembered(packed: bytes) -> ShellOptions:
    return parse_shell_options(unpack(packed))


def parse_pretended(system: Mapping[str, Any]) -> Pretended | None:
    """What `exec.test` of a jobspec asks for. Raises `Rejected(code="bad-shell-option")`."""
    test = _object("exec.test", _object("exec", system.get("exec")).get("test"))
    if "run_duration" not in test:
        return None
    status = test.get("wait_status", 0)
    if isinstance(status, bool) or not isinstance(status, int) or not 0 <= status < 65536:
        raise _bad("exec.test.wait_status", status, "it is a wait status, e.g. 256 for exit code 1")
    return Pretended(_seconds("exec.test.run_duration", test["run_duration"]), status)


def check_system(system: Mapping[str, Any]) -> None:
    """Refuse what `attributes.system` says wrongly about how tasks start."""
    options = _object("options", _object("shell", system.get("shell")).get("options"))
    parse_shell_options(options)
    check_layout(options)
    parse_pretended(system)


def parse_signal(name: str, value: Any) -> int:
    """A signal's number, from a number or a name with or without SIG."""
    import signal

    try:
        if isinstance(value, str) and not value.isdecimal():
            return int(signal.Signals["SIG" + value.upper().removeprefix("SIG")])
        return int(signal.Signals(int(value)))
    except (KeyError, ValueError, TypeError):
        raise _bad(name, value, "there is no such signal") from None


def parse_warning(text: str) -> tuple[int, float]:
    """(signal number, seconds before the time limit) of "[SIG][@TIME]"; Flux's defaults are USR1 and 60 s. Raises `Rejected`.

    Whether there is a time limit is known only when the config has added what it adds: see `submit_rules`.
    """
    name, mark, left = text.partition("@")
    return parse_signal("signal", name) if name else WARN_SIGNAL, parse_duration(left) if mark else WARN_LEFT_S


def _bad(name: str, value: Any, why: str) -> Rejected:
    return Rejected(f"{name}={str(value)[:60]!r}: {why}", code="bad-shell-option")


def _object(name: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _bad(name, value, "it is a group of settings, not one value")
    return value


def _stream(name: str, value: Any, kinds: tuple[str, ...]) -> Stream:
    if isinstance(value, str):
        return Stream("file", value, False)
    values = _object(name, value)
    path = values.get("path", "")
    kind = values.get("type", "file" if path else "")
    if kind and kind not in kinds:
        raise _bad(f"{name}.type", kind, f"it is {' or '.join(kinds)}")
    if not isinstance(path, str) or "\0" in path:
        raise _bad(f"{name}.path", path, "it is no path")
    return Stream(kind, path if kind == "file" else "", bool(values.get("label")))


def _check_critical(value: Any) -> None:
    """Nodes of the job, counted from 0, whose loss ends it (`journal.resizing`)."""
    from ..journal.idset import mask_of

    if value is None or value == "all":
        return
    try:
        mask_of(str(value) if type(value) is int else value)
    except (Rejected, TypeError):
        raise _bad("critical-ranks", value, "it is all, or an idset of nodes of the job such as 0-1") from None


def _affinity(options: Mapping[str, Any], name: str) -> str:
    value = options.get(name, "on")
    text = value
    if isinstance(value, int) and value in (0, 1):
        text = "on" if value else "off"
    if text not in ("on", "off", "per-task"):
        raise _bad(name, value, "it is on, off or per-task")
    return str(text)


def _seconds(name: str, value: Any) -> float:
    try:
        seconds = parse_duration(value)
    except Rejected as error:
        raise _bad(name, value, str(error)) from None
    if seconds == float("inf"):
        raise _bad(name, value, "it must end some day")
    return seconds


def _warning(value: Any) -> tuple[float, int] | None:
    if value is None or value is False or value == 0:
        return None
    if value is True or value == 1:
        return WARN_LEFT_S, WARN_SIGNAL
    values = _object("signal", value)
    left = _seconds("signal.timeleft", values.get("timeleft", WARN_LEFT_S))
    return left, parse_signal("signal.signum", values.get("signum", WARN_SIGNAL))
