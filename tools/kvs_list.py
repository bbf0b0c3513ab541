"""`fluxkv kvs ls` and `dir`: what there is, as lists. Decides their look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .kvs_shared import key_of, namespace_option, open_kvs, shown_bytes, view_at
from .reading import at_option
from .target import target_options

if TYPE_CHECKING:
    from ..instances.kvs_view import Entry, View


@click.command("dir")
@click.argument("key", default=".")
@click.option("-R", "--recursive", is_flag=True, help="All that is below.")
@click.option("-d", "--no-values", is_flag=True, help="Keys only.")
@click.option("-w", "--width", metavar="COLUMNS", type=click.IntRange(0), default=0, help="Cut lines at this width.")
@namespace_option
@at_option
@target_options
def directory(
    key: str,
    recursive: bool,
    no_values: bool,
    width: int,
    namespace: str,
    at: str | None,
    uri: str | None,
    state_dir: str | None,
) -> None:
    """List a directory with its values. A name that ends in a dot is a directory.

    \b
    Examples:
      fluxkv kvs dir
      fluxkv kvs dir -R run --at 10:30
    """
    from . import render

    key = key_of(key)
    with open_kvs(uri, state_dir, namespace) as store:
        view = view_at(store, at)
        for entry in view.walk(key) if recursive else view.ls(key):
            line = entry.key
            if entry.kind == "dir":
                line += "."
            elif entry.kind == "link":
                line += f" -> {entry.target}"
            elif not no_values:
                payload = view.payload(entry.key)
                line += f" = {shown_bytes(payload)}" if isinstance(payload, bytes) else f" = ({entry.size} bytes)"
            render.out(line[:width] if width else line)


@click.command("ls")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("-R", "--recursive", is_flag=True, help="Directories below, too.")
@click.option("-d", "--directory", "itself", is_flag=True, help="The directory itself, not what is in it.")
@click.option("-1", "one", is_flag=True, help="One name a line (as it is off a terminal).")
@click.option("-F", "--classify", is_flag=True, help="A dot after directories, @ after links.")
@click.option("-w", "--width", metavar="COLUMNS", type=click.IntRange(0), default=0, help="Columns to fill (1: a name a line).")
@namespace_option
@at_option
@target_options
def ls(
    keys: tuple[str, ...], recursive: bool, itself: bool, one: bool, classify: bool, width: int, namespace: str,
    at: str | None, uri: str | None, state_dir: str | None,
) -> None:  # fmt: skip
    """List names.

    \b
    Examples:
      fluxkv kvs ls
      fluxkv kvs ls -1F run
      fluxkv kvs ls -R
    """
    from ..journal.decide_kvs import no_such_key
    from . import render

    wanted = [key_of(key) for key in keys] or ["."]
    with open_kvs(uri, state_dir, namespace) as store:
        view = view_at(store, at)
    plain, folders = [], []
    for key in wanted:
        entry = view.stat(key, follow=not itself)
        if entry is None:
            raise no_such_key(key)
        if entry.kind == "dir" and not itself:
            folders.append(key)
        else:
            plain.append(key + _mark(entry, classify))
    columns = 0 if one else width or (_terminal() if render.is_terminal() else 0)
    _names(plain, columns)
    titles = recursive or len(wanted) > 1
    first = not plain
    while folders:
        key = folders.pop(0)
        if titles:
            render.out(("" if first else "\n") + f"{key}:")
        first = False
        below = _listed(view, key, classify, columns)
        if recursive:
            folders[:0] = below


def _listed(view: View, key: str, classify: bool, columns: int) -> list[str]:
    """Print the names in a directory; the keys of the directories among them."""
    entries = view.ls(key)
    cut = 0 if key == "." else len(key) + 1
    _names([entry.key[cut:] + _mark(entry, classify) for entry in entries], columns)
    return [entry.key for entry in entries if entry.kind == "dir"]


def _mark(entry: Entry, classify: bool) -> str:
    return {"dir": ".", "link": "@"}.get(entry.kind, "") if classify and entry.key != "." else ""


def _terminal() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def _names(names: list[str], columns: int) -> None:
    from . import render

    if not columns:
        for name in names:
            render.out(name)
        return
    width = max((len(name) for name in names), default=0) + 2
    a_line = max(1, columns // width)
    for begin in range(0, len(names), a_line):
        render.out("".join(name.ljust(width) for name in names[begin : begin + a_line]).rstrip())
