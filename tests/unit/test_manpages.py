"""Man pages: all of a command's help is in its page, and the pages are sound roff."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fluxkv.tools.main import cli
from fluxkv.tools.manpage import commands, escape, page, page_name

ALL = dict(commands(cli))
PAGES = {path: page(cli, path, command, "2026-01-01") for path, command in ALL.items()}


def plain(text: str) -> str:
    """Roff without fonts and escapes."""
    text = re.sub(r"\\f[BIR]", "", text).replace("\\-", "-").replace("\\(aq", "'").replace("\\(ti", "~")
    return text.replace("\\(ha", "^").replace("\\(ga", "`").replace("\\[u0192]", "ƒ").replace("\\&", "")


@pytest.mark.parametrize("path", ALL, ids=[path or "fluxkv" for path in ALL])
def test_a_page_holds_all_that_help_says(path: str) -> None:
    command, text = ALL[path], plain(PAGES[path])
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS", "ENVIRONMENT", "FILES"):
        assert f"\n.SH {section}\n" in text
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert all(re.search(rf"(?m)^(?=-).*{re.escape(name)}(?![\w-])", text) for name in option.opts), option.name
    for line in (command.help or "").partition("Examples:")[2].splitlines():
        assert re.split("  +", line.strip())[0] in text
    for name in re.findall(r"^(fluxkv[\w-]*)\(1\)", text, re.MULTILINE):
        assert name in {page_name(other) for other in ALL}, "a reference to a page that is not there"


def test_escapes() -> None:
    assert escape("--a 'x' \\n") == "\\-\\-a \\(aqx\\(aq \\en"
    assert escape(".so x\n'y") == "\\&.so x\n\\(aqy"
    assert escape("ƒ3 ~/x ^F") == "\\[u0192]3 \\(ti/x \\(haF"


@pytest.mark.parametrize("words", [["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-man", "-ww", "-Tutf8", "-z"]])
def test_pages_are_sound(words: list[str], tmp_path: Path) -> None:
    if not shutil.which(words[0]):
        pytest.skip(f"{words[0]} is not installed here")
    done = CliRunner().invoke(cli, ["man", "--output", str(tmp_path)])
    assert done.exit_code == 0
    files = sorted(map(str, tmp_path.glob("*.1")))
    assert len(files) == len(ALL)
    found = subprocess.run([*words, *files], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


@pytest.mark.parametrize("path", ["", "job", "job attach", "queue stop"])
def test_help_is_the_text_of_help(path: str) -> None:
    """Off a terminal."""
    runner = CliRunner()
    shown = runner.invoke(cli, ["help", *path.split()]).stdout
    assert shown == runner.invoke(cli, [*path.split(), "--help"], prog_name="fluxkv").stdout


def test_what_is_not_there_has_no_page() -> None:
    done = CliRunner().invoke(cli, ["help", "jbos"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Did you mean 'jobs'?" in done.stderr
    assert CliRunner().invoke(cli, ["man", "jobs", "attach"]).exit_code == 2
    assert CliRunner().invoke(cli, ["man", "jobs", "--output", "x"]).exit_code == 2
