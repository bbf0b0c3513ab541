"""A user's own settings of the command line, and where each comes from. Decides which there are; commands honour them.

Read in this order, the later one winning: /etc/fluxkv/config.toml, $XDG_CONFIG_HOME/fluxkv/config.toml (~/.config), variables
FLUXKV_...; an option on the command line wins over all. Costs two looks for a file where nothing is set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..kvs.errors import Rejected

SYSTEM_FILE = "/etc/fluxkv/config.toml"
BUILT_IN = "built-in default"
_SUBMITTING = (("submit",), ("run",), ("bulksubmit",), ("batch",), ("alloc",))
_NOT_ALLOC = frozenset(("output", "error", "retry", "retry_on", "retry_delay"))  # somebody sits before it


class Setting(NamedTuple):
    """default: the built-in value as text, "" for none. choices: what it may be, () for any text. many: a list of texts.

    options: (command, name of its parameter) whose default this is. variable: another than FLUXKV_NAME.
    """

    default: str
    meaning: str
    choices: tuple[str, ...] = ()
    many: bool = False
    options: tuple[tuple[tuple[str, ...], str], ...] = ()
    variable: str = ""


class Value(NamedTuple):
    """A setting's value (a list where it is `many`) and its source: BUILT_IN, "FILE:LINE" or "environment NAME"."""

    value: str | list[str]
    source: str


def _submit(name: str, meaning: str, *, many: bool = False, default: str = "") -> Setting:
    return Setting(default, meaning, many=many, options=tuple(
        (command, name) for command in _SUBMITTING if command != ("alloc",) or name not in _NOT_ALLOC
    ))


SETTINGS: dict[str, Setting] = {
    "uri": Setting("", "the instance to speak to (default: the one running)"),
    "state-home": Setting("", "where state directories are made and looked for (default: $XDG_STATE_HOME/fluxkv)"),
    "color": Setting("auto", "colours on a terminal", ("auto", "always", "never"), options=((("jobs",), "colour"),)),
    "jobs.format": Setting(
        "default", "output format of fluxkv jobs", options=((("jobs",), "fmt"),), variable="FLUXKV_JOBS_FORMAT_DEFAULT"
    ),
    "queue.format": Setting("default", "output format of fluxkv queue list", options=((("queue", "list"), "fmt"),)),
    "submit.time-limit": _submit("time_limit", "time limit of jobs you submit"),
    "submit.queue": _submit("queue", "queue you submit to"),
    "submit.bank": _submit("bank", "bank to charge"),
    "submit.urgency": _submit("urgency", "urgency of jobs you submit", default="16"),
    "submit.requires": _submit("requires", "nodes your jobs may use", many=True),
    "submit.output": _submit("output", "where output goes"),
    "submit.error": _submit("error", "where standard error goes"),
    "submit.env": _submit("env", "rules for the environment", many=True),
    "submit.env-remove": _submit("env_remove", "variables your jobs do not get", many=True),
    "submit.retry": _submit("retry", "how often your jobs are tried again"),
    "submit.retry-on": _submit("retry_on", "after which causes, where they are"),
    "submit.retry-delay": _submit("retry_delay", "and how long they wait before"),
    "submit.setopt": _submit("setopt", "shell options", many=True),
    "submit.setattr": _submit("setattr", "attributes", many=True),
    "start.redis": Setting(
        "", "address of the server on which new instances live: host, ACL user, TLS files", variable="FLUXKV_REDIS_URL"
    ),
    "start.durability": Setting(
        "strict", "when a write counts as kept", ("strict", "local", "replicated"), options=((("start",), "durability"),)
    ),
    "start.policy": Setting("fcfs", "queue policy of a new instance", options=((("start",), "policy"),)),
    "start.workers": Setting("1", "worker processes of a new instance", options=((("start",), "workers"),)),
    "start.keep": Setting("7d", "how long the journal of a new instance is kept after its end", options=((("start",), "keep"),)),
}


def variable_of(name: str) -> str:
    """The variable that sets it: FLUXKV_SUBMIT_TIME_LIMIT for submit.time-limit."""
    return SETTINGS[name].variable or "FLUXKV_" + re.sub(r"[.-]", "_", name).upper()


def files() -> list[str]:
    """Where settings may be written, the weakest first."""
    own = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return [SYSTEM_FILE, os.path.join(own, "fluxkv", "config.toml")]


def given() -> dict[str, Value]:
    """Every setting that somebody has set. Raises `Rejected` (code bad-config) naming file and key, or the variable."""
    found: dict[str, Value] = {}
    for path in files():
        if os.path.exists(path):
            found.update(_read(path))
    for name in SETTINGS:
        text = os.environ.get(variable_of(name))
        if text:
            source = f"environment {variable_of(name)}"
            found[name] = Value(_checked(name, _words(text) if SETTINGS[name].many else text, source), source)
    return found


def value_of(name: str) -> str:
    """One setting of a single text, "" where it is neither set nor has a default."""
    found = given().get(name)
    return SETTINGS[name].default if found is None else str(found.value)


def everything() -> dict[str, Value]:
    """Every setting there is, with its value and source."""
    found = given()
    for name, setting in SETTINGS.items():
        found.setdefault(name, Value([] if setting.many else setting.default, BUILT_IN))
    return {name: found[name] for name in SETTINGS}


def option_defaults() -> dict[str, Any] | None:
    """Defaults of commands' options: {"submit": {"time_limit": "10m"}, "queue": {"list": {...}}}; None if nothing is set."""
    defaults: dict[str, Any] = {}
    for name, found in given().items():
        for command, parameter in SETTINGS[name].options:
            table = defaults
            for word in command:
                table = table.setdefault(word, {})
            table[parameter] = found.value
    return defaults or None


def _words(text: str) -> list[str]:
    import shlex

    return shlex.split(text)


def _checked(name: str, value: Any, source: str) -> str | list[str]:
    setting = SETTINGS[name]
    if setting.many:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise Rejected(f"{source}: {name} must be a text or a list of texts", code="bad-config")
        return list(values)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Rejected(f"{source}: {name} must be a text", code="bad-config")
    text = str(value)
    if setting.choices and text not in setting.choices:
        raise Rejected(f"{source}: {name} is {text!r}: it is one of {', '.join(setting.choices)}", code="bad-config")
    return text


def _read(path: str) -> dict[str, Value]:
    import tomllib

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        document = tomllib.loads(text)
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}", code="bad-config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"{path}: {error}", code="bad-config", hint="it must be TOML") from None
    found: dict[str, Value] = {}
    for words, value in _leaves(document, ()):
        name = ".".join(words)
        line = _line_of(text, words)
        source = f"{path}:{line}" if line else path
        if name not in SETTINGS:
            from difflib import get_close_matches

            near = get_close_matches(name, SETTINGS, 3) or list(SETTINGS)
            raise Rejected(f"{source}: no setting is called {name}", code="bad-config", hint=f"there are {', '.join(near)}")
        found[name] = Value(_checked(name, value, source), source)
    return found


def _leaves(table: Mapping[str, Any], above: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, value in table.items():
        if isinstance(value, dict) and len(above) < 8:
            found += _leaves(value, (*above, key))
        else:
            found.append(((*above, key), value))
    return found


_HEADER = re.compile(r"\s*\[([^\[\]]+)\]")
_KEY = re.compile(r"\s*([\w.\"' -]+?)\s*=")


def _line_of(text: str, words: tuple[str, ...]) -> int:
    """The line that sets a key, 0 if it is not plain to see (the reader of TOML does not tell)."""
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            table = _split(header[1])
        elif key and (*table, *_split(key[1])) == words:
            return number
    return 0


def _split(text: str) -> tuple[str, ...]:
    return tuple(word.strip().strip("\"'") for word in text.split("."))
