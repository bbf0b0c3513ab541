"""Every command explains itself: what it does, its options, and examples that name real commands and options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click
import pytest

from fluxkv.tools.main import COMMANDS, GROUPS, cli
from fluxkv.tools.meant import ELSEWHERE, SCONTROL

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
GROUPS_OF_COMMANDS = {path[0] for path in COMMAND_LINES if len(path) > 1}


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
    [("jbos", "'jobs'"), ("attach", "'job attach' or 'resource attach'"), ("drain", "'resource drain' or 'queue drain'"),
     ("xyzzy", ""), ("verify", "'journal verify'"), ("sacct", "'jobs -a' or 'inspect job'"), ("scontrol requeue 3", "'requeue'"),
     ("scontrol show node n1", "'inspect node'"), ("retry", "'requeue' or 'resubmit'"), ("sqeue", "'queue' or 'requeue'"),
     ("job requeue", "'fluxkv requeue'"), ("resource lst", "'fluxkv resource list'"), ("journal adopt", "'fluxkv ops adopt'"),
     ("kvs namespace creat", "'fluxkv kvs namespace create'"), ("queue xyzzy", "")],
)  # fmt: skip
def test_a_misspelt_command_is_answered_with_the_right_one(site: Any, typed: str, meant: str) -> None:
    done = site(*typed.split())
    assert (done.code, done.out) == (2, "")
    wrong, said = re.search(r"No such command '(.*)'\.(.*)\n$", done.err).groups()  # type: ignore[union-attr]
    assert wrong in typed.split()
    assert said == (f" Did you mean {meant}?" if meant else "")


def test_what_stands_for_words_of_other_managers_is_there() -> None:
    for line in [*",".join(ELSEWHERE.values()).split(","), *SCONTROL.values()]:
        words = [word for word in line.split() if not word.startswith("-")]
        assert tuple(words[:1]) in COMMAND_LINES or tuple(words[:2]) in COMMAND_LINES or words[0] in GROUPS_OF_COMMANDS, line
    assert not ELSEWHERE.keys() & COMMANDS.keys()


@pytest.mark.parametrize("path", COMMAND_LINES, ids=" ".join)
def test_help_explains_each_option_and_has_examples(path: tuple[str, ...]) -> None:
    """That the examples work is `test_accept_examples.py`'s."""
    command = COMMAND_LINES[path]
    assert "fluxkv " in (command.help or "").partition("Examples:")[2]
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help or option.hidden, option.name
