"""A job's environment on the command line: the rules of --env, --env-remove and --env-file. Decides how they are
read (Flux's rules); where an environment is kept, the submitter decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from .options import bad, fill


def overlay_of(rules: Iterable[str], cc: str) -> dict[str, str]:
    """What one copy's environment has beyond that of all copies: its number, and the rules that name {cc}."""
    pairs = [fill(rule, cc).partition("=") for rule in rules if "{cc}" in rule]
    return {"FLUX_JOB_CC": cc, **{name: value for name, _, value in pairs}}


def environment(
    rules: Iterable[str], removes: Iterable[str] = (), source: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The job's environment: all of ours, changed by the rules (see --env) in their order."""
    ours = dict(os.environ if source is None else source)
    env = dict(ours)
    for rule in [*rules, *(f"-{pattern}" for pattern in removes)]:
        if "{cc}" in rule and "=" in rule:
            continue
        _apply_rule(env, ours, rule, depth=0)
    return env


def _apply_rule(env: dict[str, str], ours: Mapping[str, str], rule: str, depth: int) -> None:
    if rule.startswith("-"):
        for name in _matching(env, rule[1:]):
            del env[name]
    elif rule.startswith("^"):
        if depth > 8:
            raise bad("--env", f"{rule!r}: files name one another")
        try:
            with open(os.path.expanduser(rule[1:])) as file:
                lines = [line.strip() for line in file]
        except OSError as error:
            raise bad("--env", f"{rule[1:]}: {error.strerror}") from None
        for line in lines:
            if line and not line.startswith("#"):
                _apply_rule(env, ours, line, depth + 1)
    elif "=" in rule:
        name, _, value = rule.partition("=")
        if not name:
            raise bad("--env", f"{rule!r} names no variable")
        env[name] = _expand(value, env) if "$" in value else value
    else:
        for name in _matching(ours, rule):
            env[name] = ours[name]


def _matching(env: Mapping[str, str], pattern: str) -> list[str]:
    if not pattern:
        raise bad("--env", "an empty pattern")
    if pattern.isidentifier():
        return [pattern] if pattern in env else []
    if len(pattern) > 1 and pattern[0] == pattern[-1] == "/":
        import re

        try:
            expression = re.compile(pattern[1:-1])
        except re.error as error:
            raise bad("--env", f"{pattern}: {error}") from None
        return [name for name in env if expression.search(name)]
    import fnmatch

    return [name for name in env if fnmatch.fnmatchcase(name, pattern)]


def _expand(value: str, env: Mapping[str, str]) -> str:
    import string

    try:
        return string.Template(value).substitute(env)
    except KeyError as error:
        raise bad("--env", f"{value!r}: {error.args[0]} is not set") from None
    except ValueError as error:
        raise bad("--env", f"{value!r}: {error}") from None
