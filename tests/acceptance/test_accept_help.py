"""Every command explains itself: what it does, its options, and examples that name real commands and options."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest

from fluxkv.tools.main import COMMANDS, GROUPS, cli

pytestmark = pytest.mark.live


def leaves(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from leaves((*path, name), found)
    else:
        yield path, command


COMMAND_LINES = dict(leaves((), cli))


def test_the_command_itself(site: Any) -> None:
    text = site.ok("--help")
    for name in COMMANDS:
        assert f"  {name} " in text
    assert site("--version").out.startswith("fluxkv, version ")
    for name in COMMANDS:
        if name in ("submit", "start", "queue"):
            assert site.ok(name, "--help").startswith(f"Usage: fluxkv {name}")


def test_each_command_has_its_place_in_the_help() -> None:
    placed = [name for names in GROUPS.values() for name in names]
    assert sorted(placed) == sorted(COMMANDS), "name each command once in GROUPS of tools/main.py"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("jbos", "'jobs'"), ("attach", "'job attach'"), ("drain", "'resource drain' or 'queue drain'"), ("xyzzy", "")],
)
def test_a_misspelt_command_is_answered_with_the_right_one(site: Any, typed: str, meant: str) -> None:
    done = site(typed)
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith(f"No such command '{typed}'." + (f" Did you mean {meant}?\n" if meant else "\n"))


@pytest.mark.parametrize("path", COMMAND_LINES, ids=" ".join)
def test_help_has_examples_that_can_be_typed(path: tuple[str, ...]) -> None:
    command = COMMAND_LINES[path]
    text = command.help or ""
    assert "Examples:" in text
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help or option.hidden, option.name
    examples = [line.strip() for line in text.split("Examples:")[1].splitlines() if "fluxkv " in line]
    assert examples
    for line in examples:
        typed = line[line.index("fluxkv ") :].partition("  ")[0]
        typed = typed.replace("$(", "").replace(")", "")
        try:
            words = shlex.split(typed)
        except ValueError:
            words = shlex.split(typed.partition("'")[0])
        ends = [at for at, word in enumerate(words) if word in ("|", "||", "&&", ">") or word.endswith(";")]
        _resolve(words[1 : ends[0] if ends else None])


def _resolve(words: list[str]) -> None:
    """The words name a command, and each option before its arguments is one of its options."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, words
        command, words = found, words[1:]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    flags = {
        name for option in command.params if isinstance(option, click.Option) and option.is_flag for name in option.opts
    }
    mixed = command.allow_interspersed_args
    skip = False
    for word in words:
        if skip:
            skip = False
            continue
        if not word.startswith("-") or word == "-":
            if not mixed:
                break
            continue
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if name == "--":
            break
        if name[1:].isdigit():
            continue
        assert name in known, (words, name)
        skip = name not in flags and "=" not in word and (word.startswith("--") or len(word) == 2)
