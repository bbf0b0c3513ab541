"""A job's environment on the command line: the rules of --env, --env-remove and --env-file. Decides how they are
read (Flux's rules); where an environment is kept, the submitter decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..instances.rlimits import VARIABLE, passed_on, soft_limits, to_text
from .options import bad

_FILE = "--env-file, --env=^FILE"  # one rule, however it was typed


def overlay_of(rules: Iterable[str], env: Mapping[str, str], varies: Callable[[str], bool]) -> dict[str, str]:
    """What each job's environment has of its own: the rules NAME=VALUE whose value varies from job to job, not filled yet."""
    pairs = [rule.partition("=") for rule in rules if _is_own(rule, varies)]
    return {name: _expand(value, env) if "$" in value else value for name, _, value in pairs}


def environment(
    rules: Iterable[str],
    varies: Callable[[str], bool] = lambda text: False,
    source: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment that all jobs share: all of ours, changed by the rules (see --env) in their order."""
    ours = dict(os.environ if source is None else source)
    env = dict(ours)
    for rule in rules:
        if not _is_own(rule, varies):
            _apply_rule(env, ours, rule, depth=0)
    return env


def changed(env: Mapping[str, str], rules: Iterable[str]) -> dict[str, str]:
    """An environment changed by rules, whose patterns take from ours."""
    made = dict(env)
    for rule in rules:
        _apply_rule(made, os.environ, rule, depth=0)
    return made


def shared_environment(
    rules: Iterable[str], rlimit: Sequence[str], varies: Callable[[str], bool] = lambda text: False
) -> dict[str, str]:
    """What all jobs of a command have in common, with the limits that go with them unless --rlimit has its say."""
    env = environment(rules, varies)
    return env if rlimit else with_limits(env)


def with_limits(env: dict[str, str]) -> dict[str, str]:
    """An environment and, in it, the resource limits that go with a job unasked."""
    return {**env, VARIABLE: to_text(passed_on(soft_limits()))}


def _is_own(rule: str, varies: Callable[[str], bool]) -> bool:
    return "=" in rule and rule[:1] not in "-^" and varies(rule)


def _apply_rule(env: dict[str, str], ours: Mapping[str, str], rule: str, depth: int) -> None:
    if rule.startswith("-"):
        for name in _matching(env, rule[1:]):
            del env[name]
    elif rule.startswith("^"):
        if depth > 8:
            raise bad(_FILE, f"{rule!r}: files name one another")
        try:
            with open(os.path.expanduser(rule[1:])) as file:
                lines = [line.strip() for line in file]
        except OSError as error:
            raise bad(_FILE, f"{rule[1:]}: {error.strerror}") from None
        for line in lines:
            if line and not line.startswith("#"):
                _apply_rule(env, ours, line, depth + 1)
    elif "=" in rule:
        name, _, value = rule.partition("=")
        if not name:
            raise bad("--env", f"{rule!r} names no variable")
        env[name] = _expand(value, {**ours, **env}) if "$" in value else value
    else:
        for name in _matching(ours, rule):
            env.setdefault(name, ours[name])


def _matching(env: Mapping[str, str], pattern: str) -> list[str]:
    if not pattern:
        raise bad("--env", "an empty pattern")
    if pattern.isidentifier():
        return [pattern] if pattern in env else []
    if pattern[0] == "/":
        import re

        try:
            expression = re.compile(pattern[1:].removesuffix("/"))
        except re.error as error:
            raise bad("--env", f"{pattern}: {error}") from None
        return [name for name in env if expression.match(name)]
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
