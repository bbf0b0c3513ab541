"""Prolog, epilog and housekeeping: what a config says of the site's own scripts around each job. Pure.

`[job-manager.prolog]` runs before a job's tasks, `[job-manager.epilog]` after them and before its resources are free,
`[job-manager.housekeeping]` when the job is over, on nodes that are not given to others until it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from .duration import parse_duration
from .shown import shown

PROLOG, EPILOG, HOUSEKEEPING = "prolog", "epilog", "housekeeping"
LETTERS = {PROLOG: "p", EPILOG: "e", HOUSEKEEPING: "h"}  # what a script's attempt has behind its job's
KINDS = {letter: kind for kind, letter in LETTERS.items()}
PROLOG_TIMEOUT_S = 1800.0
KILL_TIMEOUT_S = 5.0


def entry_of(name: str) -> str:
    """The id of the entry that began an attempt, of its name `<job>.<entry>`, a script's letter and a rank behind or not."""
    return name.split(".")[1].rstrip("abcdefghijklmnopqrstuvwxyz")


class Script(NamedTuple):
    """command: its words. per_rank: on each of the job's nodes, else on its first. timeout_s: 0.0 for none; from TERM to
    KILL it has kill_timeout_s. cancel_on_exception: a fatal exception on the job ends it."""

    command: tuple[str, ...]
    per_rank: bool
    timeout_s: float
    kill_timeout_s: float
    cancel_on_exception: bool


class Scripts(NamedTuple):
    """None: there is none. release_after_s: seconds of housekeeping after which nodes that are done go back one by one;
    None: all together."""

    prolog: Script | None = None
    epilog: Script | None = None
    housekeeping: Script | None = None
    release_after_s: float | None = None

    @property
    def after_on_each(self) -> str:
        """What is to run on each node of a job that is over, "" if nothing is (an epilog may run on its first node alone)."""
        per_rank = self.epilog is not None and self.epilog.per_rank
        return "an epilog" if per_rank else "housekeeping" if self.housekeeping is not None else ""

    def of(self, kind: str) -> Script | None:
        """The script of this kind."""
        return self.prolog if kind == PROLOG else self.epilog if kind == EPILOG else self.housekeeping


NO_SCRIPTS = Scripts()
_KEYS = {
    PROLOG: ("command", "per-rank", "timeout", "kill-timeout", "cancel-on-exception"),
    EPILOG: ("command", "per-rank", "timeout", "kill-timeout", "cancel-on-exception"),
    HOUSEKEEPING: ("command", "timeout", "kill-timeout", "release-after"),
}  # fmt: skip


def parse_scripts(table: Mapping[str, Any]) -> Scripts:
    """The scripts of a config's table `job-manager`. Raises `Rejected` (code bad-config) that names the key at fault."""
    prolog, epilog, housekeeping = (_script(table, kind) for kind in _KEYS)
    after = table.get(HOUSEKEEPING, {}).get("release-after")
    seconds = float("inf") if after is None else _duration(after, f"job-manager.{HOUSEKEEPING}.release-after")
    if prolog is epilog is housekeeping is None:
        return NO_SCRIPTS
    return Scripts(prolog, epilog, housekeeping, None if seconds == float("inf") else seconds)


def _fault(path: str, why: str, hint: str = "") -> Rejected:
    return Rejected(f"config: {path} {why}", code="bad-config", hint=hint)


def _script(table: Mapping[str, Any], kind: str) -> Script | None:
    path = f"job-manager.{kind}"
    if kind not in table:
        return None
    found = table[kind]
    if not isinstance(found, Mapping):
        raise _fault(path, "must be a table")
    for key in found:
        if key not in _KEYS[kind]:
            raise _fault(f"{path}.{key}", "is no key that is known here", f"[{path}] has {', '.join(_KEYS[kind])}")
    command = found.get("command")
    if not isinstance(command, list | tuple) or not command or not all(isinstance(one, str) and one for one in command):
        raise _fault(f"{path}.command", "must be a list of words", 'as ["/etc/fluxkv/prolog.sh"]')
    timeout_s = _seconds(found.get("timeout"), f"{path}.timeout", PROLOG_TIMEOUT_S if kind == PROLOG else 0.0)
    kill_timeout_s = _seconds(found.get("kill-timeout"), f"{path}.kill-timeout", KILL_TIMEOUT_S)
    return Script(
        tuple(command), kind == HOUSEKEEPING or _flag(found, "per-rank", path, False), timeout_s, kill_timeout_s,
        _flag(found, "cancel-on-exception", path, kind == PROLOG),
    )  # fmt: skip


def _duration(value: Any, path: str) -> float:
    try:
        return parse_duration(value)
    except Rejected as error:
        raise _fault(path, f"is not valid: {error}", error.hint) from None


def _seconds(value: Any, path: str, without: float) -> float:
    """A duration; infinity is 0.0: none."""
    if value is None:
        return without
    found = _duration(value, path)
    return 0.0 if found == float("inf") else found


def _flag(table: Mapping[str, Any], key: str, path: str, without: bool) -> bool:
    value = table.get(key, without)
    if not isinstance(value, bool):
        raise _fault(f"{path}.{key}", f"is {shown(value)}: true or false is wanted")
    return value


def why_failed(result: list[Any]) -> str:
    """What a script's result [wait status, time, cause] says in words; "" if it went well."""
    status, _, cause = result
    what, _, text = str(cause).partition(":")
    if what == "spawn":
        return f"did not start: {text.strip().removeprefix('task 0: ')}"
    if what == "lost":
        return "was lost"
    if what == "timeout":
        return "timed out"
    if status & 0x7F:
        return f"was killed by signal {status & 0x7F}"
    return f"exit code {status >> 8}" if status else ""
