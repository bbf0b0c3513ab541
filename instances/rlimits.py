"""Process resource limits of tasks (getrlimit(2)): which a submitter passes on, how they travel, how a launcher sets them.

Only soft limits travel, by lower-case name without RLIMIT_, -1 for none. Those a submission passes on without being asked
go with its environment, in `VARIABLE`, since jobs share it; those that --rlimit names are the shell option `rlimit`, as in
Flux. No limit is raised above what the launcher may give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..kvs.errors import Rejected

VARIABLE = "FLUXKV_RLIMIT"
NAMES = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "ofile", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
NOT_PASSED_ON = frozenset(("memlock", "ofile", "msgqueue", "nice", "rtprio", "rttime", "sigpending"))  # Flux's default
UNLIMITED = ("unlimited", "infinity", "inf")
# The launcher itself needs memory to start a task, so these are set by a shell in between.
_BY_SHELL = {"as": "-v", "data": "-d"}
_ALL_ONES = (1 << 64) - 1  # how C writes "unlimited"


def soft_limits() -> dict[str, int]:
    """This process's soft limits, all of them."""
    import resource

    found = {}
    for name in NAMES:
        which = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if which is not None:
            found[name] = resource.getrlimit(which)[0]
    return found


def passed_on(limits: Mapping[str, int]) -> dict[str, int]:
    """Of some limits those that go with a job without being asked for."""
    return {name: limit for name, limit in limits.items() if name not in NOT_PASSED_ON}


def apply_rules(rules: Iterable[str], limits: Mapping[str, int]) -> dict[str, int]:
    """What --rlimit rules leave of the limits passed on: "-PATTERN" drops, "NAME=VALUE" sets, "PATTERN" adds from `limits`.

    Several may stand in one text, joined by commas. Raises `Rejected(code="bad-rlimit")`.
    """
    from fnmatch import fnmatchcase

    found = passed_on(limits)
    for rule in (one.strip() for text in rules for one in text.split(",")):
        name, given, value = rule.lower().partition("=")
        if given:
            if name not in limits:
                raise _bad(rule, f"there is no limit {name!r}; there are {', '.join(limits)}")
            found[name] = _value(rule, value)
            continue
        pattern = name.removeprefix("-")
        matching = [one for one in limits if fnmatchcase(one, pattern)]
        if not matching:
            raise _bad(rule, f"no limit matches; there are {', '.join(limits)}")
        for one in matching:
            if name.startswith("-"):
                found.pop(one, None)
            else:
                found[one] = limits[one]
    return found


def to_text(limits: Mapping[str, int]) -> str:
    """Limits as the variable has them."""
    return ",".join([f"{name}={limit}" for name, limit in limits.items()])


def from_text(text: str) -> dict[str, int]:
    """Inverse of `to_text`; what makes no sense is left out."""
    pairs = (one.partition("=") for one in text.split(","))
    return {name: int(value) for name, _, value in pairs if name in NAMES and (value == "-1" or _is_limit(value))}


def parse_rlimits(options: Mapping[str, Any]) -> dict[str, int]:
    """The shell option `rlimit`. Raises `Rejected(code="bad-shell-option")`."""
    given = options.get("rlimit")
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise Rejected(f"rlimit={given!r}: it is a group of settings", code="bad-shell-option")
    found = {}
    for name, value in given.items():
        if str(name).lower() not in NAMES:
            raise Rejected(f"rlimit.{name}: there is no such limit", code="bad-shell-option")
        try:
            found[str(name).lower()] = _value(f"rlimit.{name}", str(value))
        except Rejected as error:
            raise Rejected(str(error), code="bad-shell-option") from None
    return found


def _value(where: str, text: str) -> int:
    if text in UNLIMITED or text in ("-1", str(_ALL_ONES)):
        return -1
    if not _is_limit(text):
        raise _bad(where, f"{text!r} is neither a number from 0 on nor {', '.join(UNLIMITED)}")
    return int(text)


def _is_limit(text: str) -> bool:
    return text.isdecimal() and len(text) < 20 and int(text) < 1 << 63


def _bad(where: str, why: str) -> Rejected:
    return Rejected(f"{where[:200]}: {why[:400]}", code="bad-rlimit")


class Limits:
    """The limits of a launcher, which its tasks inherit unless told otherwise. `plan` once, `around` for each spawn."""

    __slots__ = ("_own", "_resource")

    def __init__(self) -> None:
        import resource

        self._resource = resource
        self._own: dict[str, tuple[int, int]] = {}
        for name in NAMES:
            which = getattr(resource, f"RLIMIT_{name.upper()}", None)
            if which is not None:
                self._own[name] = resource.getrlimit(which)

    def plan(self, limits: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
        """(those that differ from ours, within what is allowed; those asked for that are above it)."""
        changes, above = {}, []
        for name, wanted in limits.items():
            soft, hard = self._own.get(name, (wanted, wanted))
            if hard != -1 and (wanted == -1 or wanted > hard):
                if wanted != -1:
                    above.append(f"limit {name}={wanted} is above {hard}, which is the most here: it is {hard}")
                wanted = hard
            if wanted != soft:
                changes[name] = wanted
        return changes, above

    def around(self, changes: Mapping[str, int], call: Callable[..., int], *args: Any, **more: Any) -> int:
        """Call with our own soft limits changed, and put them back."""
        setrlimit, own, done = self._resource.setrlimit, self._own, []
        try:
            for name, soft in changes.items():
                if name not in _BY_SHELL:
                    which = getattr(self._resource, f"RLIMIT_{name.upper()}")
                    setrlimit(which, (soft, own[name][1]))
                    done.append((which, own[name]))
            return call(*args, **more)
        finally:
            for which, both in done:
                setrlimit(which, both)


def by_shell(changes: Mapping[str, int], argv: list[str]) -> list[str]:
    """The command that sets those limits that a launcher must not set on itself; `argv` if there are none."""
    words = [
        f"ulimit -S {flag} {'unlimited' if changes[name] == -1 else -(-changes[name] // 1024)}"
        for name, flag in _BY_SHELL.items()
        if name in changes
    ]
    return ["/bin/sh", "-c", " && ".join([*words, 'exec "$@"']), "sh", *argv] if words else argv
