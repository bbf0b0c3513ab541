"""The README's commands exist: each `fluxkv` line in it is read as the command line would read it, and not run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fluxkv.tools.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text("utf-8")


def command_lines() -> Iterator[str]:
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL):
        for line in block.splitlines():
            inner = re.search(r"\$\((fluxkv [^)]*)\)", line)
            if inner:
                yield inner[1]
            if line.startswith("fluxkv "):
                yield re.sub(r"\$\([^)]*\)", "f1", line)
    yield from (one for one in re.findall(r"`(fluxkv [a-z][^`]*)`", TEXT) if "COMMAND" not in one)


def documented() -> list[str]:
    return sorted(set(command_lines()))


@pytest.mark.parametrize("line", documented())
def test_command_line_is_understood(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    while words[0] in ("--parent", "--instance"):
        del words[: 1 + (words[0] == "--instance")]
    command: click.Command = cli
    names = ["fluxkv"]
    context = click.Context(cli, info_name="fluxkv")
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"README: there is no {' '.join([*names, words[0]])}"
        names.append(words.pop(0))
        command = found
        if not words and isinstance(command, click.Group):
            return  # a group, named as such
    try:
        command.make_context(" ".join(names), words)
    except click.UsageError as error:
        pytest.fail(f"README: {line}: {error.format_message()}")


def test_requests_are_jobspecs() -> None:
    from fluxkv.journal.jobspec import parse_jobspec

    found = [block for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "tasks:" in block]
    assert found
    for block in found:
        parse_jobspec(block)


def test_every_command_is_in_the_table() -> None:
    table = TEXT.partition("## Commands")[2]
    missing = [name for name in COMMANDS if not re.search(rf"`{name}[ `]", table)]
    assert not missing, "add them to the table of commands in README.md"


def test_every_subcommand_is_in_the_table() -> None:
    table = TEXT.partition("## Commands")[2]
    context = click.Context(cli)
    missing = []
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            rows = [row for row in table.splitlines() if re.search(rf"`{name} ", row)]
            missing += [
                f"{name} {sub}"
                for sub in command.list_commands(context)
                if not any(f"{sub}`" in row for row in rows)
            ]
    assert not missing, "add them to the table of commands in README.md"


def test_links_lead_somewhere() -> None:
    missing = [path for path in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT) if not (ROOT / path).exists()]
    assert not missing
