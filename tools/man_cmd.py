"""`fluxkv help` and `fluxkv man`: the help of a command as a man page, shown or written. Decides where it goes."""

from __future__ import annotations

import os
import sys
import time

import click

from .render import out


def _find(words: tuple[str, ...]) -> tuple[str, click.Command]:
    """The command these words name. Raises click.UsageError as the command line would."""
    from .main import cli

    context, command, path = click.Context(cli, info_name="fluxkv"), cli, ""
    for word in words:
        if not isinstance(command, click.Group):
            raise click.UsageError(f"fluxkv {path} has no commands of its own")
        name, found, _ = command.resolve_command(context, [word])
        assert found is not None
        path, command = f"{path} {name}".strip(), found  # type: ignore[assignment]
        context = click.Context(command, info_name=name, parent=context)
    return path, command


def _page(path: str, command: click.Command) -> str:
    from .main import cli
    from .manpage import page

    changed = int(os.environ.get("SOURCE_DATE_EPOCH") or os.path.getmtime(os.path.dirname(os.path.dirname(__file__))))
    return page(cli, path, command, time.strftime("%Y-%m-%d", time.gmtime(changed)))


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
def help_(words: tuple[str, ...]) -> int:
    """Show the manual of a command; off a terminal its help as text.

    \b
    Examples:
      fluxkv help
      fluxkv help submit
      fluxkv help job attach | less
    """
    path, command = _find(words)
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and _shown_by_man(_page(path, command)):
        return 0
    from .main import cli
    from .manpage import context_of

    out(command.get_help(context_of(cli, path, command)))
    return 0


def _shown_by_man(text: str) -> bool:
    """Whether man is here and could show it."""
    import shutil
    import subprocess

    program = shutil.which("man")
    if program is None:
        return False
    return subprocess.run([program, "-l", "-"], input=text.encode(), stderr=subprocess.DEVNULL).returncode == 0


@click.command()
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.option("-o", "--output", metavar="DIR", type=click.Path(file_okay=False), help="Write the pages of all commands to DIR.")
def man(words: tuple[str, ...], output: str | None) -> None:
    """Print a command's man page, or write those of all commands.

    To have man(1) find them, write them where it looks: ~/.local/share/man/man1 for yourself.

    \b
    Examples:
      fluxkv man submit > fluxkv-submit.1
      fluxkv man --output ~/.local/share/man/man1
    """
    if not output:
        out(_page(*_find(words)), end="")
        return
    if words:
        raise click.UsageError("--output writes the pages of all commands: name none")
    from .main import cli
    from .manpage import commands, page_name
    from .render import say

    os.makedirs(output, exist_ok=True)
    count = 0
    for path, command in commands(cli):
        with open(os.path.join(output, f"{page_name(path)}.1"), "w", encoding="utf-8") as file:
            file.write(_page(path, command))
        count += 1
    say(f"fluxkv: {count} pages written to {output}")
