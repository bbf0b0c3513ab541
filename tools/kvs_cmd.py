"""`fluxkv kvs`: the instance's key-value store, for users. One command is one commit; reading needs no
daemon.

Values are bytes. Those above 1 KiB are stored apart, as blobs, and the journal holds their names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Corrupt, Rejected
from .reading import append_now, at_option, load, uri_option
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.log import Journal


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def kvs() -> None:
    """Read and write the instance's key-value store.

    \b
    Examples:
      fluxkv kvs put run.name=test run.tasks=4     both in one step
      fluxkv kvs get run.name
      fluxkv kvs put -r run.input=- < input.dat    any bytes
      fluxkv kvs dir -R
    """


def _no_such(key: str) -> Rejected:
    return Rejected(
        f"kvs: {key}: No such file or directory",
        code="no-such-key",
        hint="fluxkv kvs dir -R lists what there is",
    )


def _key(key: str) -> str:
    """A key without a dot at its end, checked."""
    from ..kvs.tree import check_key

    return check_key(key[:-1] if key.endswith(".") and len(key) > 1 else key)


def fetch(journal: Journal, values: list[Any]) -> list[bytes]:
    """The bytes of values; blobs are read in one go. Raises `Corrupt` when one is missing."""
    names: list[str] = [value[0] for value in values if not isinstance(value, bytes)]
    found: dict[str, bytes | None] = {}
    if names:
        found.update(zip(names, journal.store.get_blobs(names), strict=True))
    datas: list[bytes] = []
    for value in values:
        data = value if isinstance(value, bytes) else found[value[0]]
        if data is None:
            raise Corrupt(f"kvs: the blob {value[0]} of {value[1]} bytes is missing", code="no-blob")
        datas.append(data)
    return datas


@kvs.command("get")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("-r", "--raw", is_flag=True, help="The exact bytes, no newline added.")
@click.option("-l", "--label", is_flag=True, help="Print KEY=VALUE.")
@at_option
@target_options
def get(keys: tuple[str, ...], raw: bool, label: bool, at: str | None, uri: str | None, state_dir: str | None) -> None:
    """Print the values of keys.

    \b
    Examples:
      fluxkv kvs get run.name
      fluxkv kvs get --raw run.input > input.dat
      fluxkv kvs get run.name --at 120         as it was in version 120
    """
    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
        values = []
        for key in keys:
            value = state.tree.get(_key(key))
            if value is None:
                raise _no_such(key)
            if isinstance(value, dict):
                raise Rejected(f"kvs: {key}: Is a directory", code="is-directory", hint=f"fluxkv kvs dir {key}")
            values.append(value)
        datas = fetch(journal, values)
    stream = sys.stdout.buffer
    for key, data in zip(keys, datas, strict=True):
        stream.write((f"{key}=".encode() if label else b"") + data + (b"" if raw else b"\n"))
    stream.flush()


@kvs.command("put")
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.option("-r", "--raw", is_flag=True, help="A VALUE of - stands for the bytes of standard input.")
@click.option("-n", "--no-clobber", is_flag=True, help="Refuse if a key is there already.")
@uri_option
def put(pairs: tuple[str, ...], raw: bool, no_clobber: bool, uri: str | None) -> None:
    """Store values, all of them in one commit.

    \b
    Examples:
      fluxkv kvs put run.name=test run.tasks=4
      tar c data | fluxkv kvs put --raw run.data=-
    """
    from ..journal.decide import KVS_INLINE, Decision, kvs_commit
    from ..journal.state import State
    from ..kvs.blobs import blob_name

    ops: list[list[Any]] = []
    blobs: dict[str, bytes] = {}
    for pair in pairs:
        key, mark, text = pair.partition("=")
        if not mark:
            raise Rejected(
                f"kvs: {pair}: no value",
                code="bad-pair",
                hint="write KEY=VALUE; fluxkv kvs unlink removes a key",
            )
        if _key(key) == ".":
            raise Rejected("kvs: the root cannot be a value", code="bad-key")
        data = sys.stdin.buffer.read() if raw and text == "-" else text.encode("utf-8", "surrogateescape")
        if len(data) > KVS_INLINE:
            blobs[blob_name(data)] = data
            ops.append(["put", _key(key), [blob_name(data), len(data)]])
        else:
            ops.append(["put", _key(key), data])
    with open_journal(uri) as journal:
        if blobs:
            journal.store.put_blobs(blobs)
        now = journal.store.now()
        if not no_clobber:
            append_now(journal, kvs_commit(ops, now))
            return

        def decision(state: State) -> Decision:
            for op in ops:
                if state.tree.get(op[1]) is not None:
                    raise Rejected(f"kvs: {op[1]}: File exists", code="exists")
            decided = kvs_commit(ops, now)
            decided.since = ["kvs"]
            return decided

        journal.settle(decision)


@kvs.command("mkdir")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@uri_option
def mkdir(keys: tuple[str, ...], uri: str | None) -> None:
    """Make empty directories.

    \b
    Examples:
      fluxkv kvs mkdir run.results
    """
    from ..journal.decide import kvs_commit

    ops: list[list[Any]] = [["mkdir", _key(key)] for key in keys]
    with open_journal(uri) as journal:
        append_now(journal, kvs_commit(ops, journal.store.now()))


@kvs.command("unlink")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("-R", "--recursive", is_flag=True, help="Directories that are not empty, too.")
@click.option("-f", "--force", is_flag=True, help="Say nothing of keys that are not there.")
@uri_option
def unlink(keys: tuple[str, ...], recursive: bool, force: bool, uri: str | None) -> None:
    """Remove keys, all of them in one commit.

    \b
    Examples:
      fluxkv kvs unlink run.name
      fluxkv kvs unlink -R run
    """
    from ..journal.decide import Decision, kvs_commit
    from ..journal.state import State

    with open_journal(uri) as journal:
        now = journal.store.now()

        def decision(state: State) -> Decision:
            ops: list[list[Any]] = []
            for key in keys:
                found = state.tree.get(_key(key))
                if found is None and not force:
                    raise _no_such(key)
                if isinstance(found, dict) and found and not recursive:
                    raise Rejected(
                        f"kvs: {key}: Directory not empty", code="not-empty", hint="-R removes what is below"
                    )
                if found is not None:
                    ops.append(["unlink", _key(key)])
            decided = kvs_commit(ops, now) if ops else Decision([])
            decided.since = ["kvs"] if ops else []
            return decided

        journal.settle(decision)


@kvs.command("dir")
@click.argument("key", default=".")
@click.option("-R", "--recursive", is_flag=True, help="All that is below.")
@click.option("-d", "--no-values", is_flag=True, help="Keys only.")
@click.option("-w", "--width", metavar="COLUMNS", type=int, default=0, help="Cut lines at this width.")
@at_option
@target_options
def directory(
    key: str,
    recursive: bool,
    no_values: bool,
    width: int,
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

    key = _key(key)
    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
    found = state.tree.get(key)
    if found is None:
        raise _no_such(key)
    if not isinstance(found, dict):
        raise Rejected(f"kvs: {key}: Not a directory", code="not-directory", hint=f"fluxkv kvs get {key}")
    prefix = "" if key == "." else key + "."
    for name, value in _walk(prefix, found) if recursive else _here(prefix, found):
        line = name
        if isinstance(value, dict):
            line += "."
        elif not no_values:
            line += f" = {_shown(value)}"
        render.out(line[:width] if width else line)


def _here(prefix: str, found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, value) of what a directory holds."""
    for name in sorted(found):
        yield prefix + name, found[name]


def _walk(prefix: str, found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, value) of all leaves below, and of empty directories."""
    for name in sorted(found):
        value = found[name]
        if isinstance(value, dict) and value:
            yield from _walk(f"{prefix}{name}.", value)
        else:
            yield prefix + name, value


def _shown(value: Any) -> str:
    """A value on one line; of a large one only its size."""
    if not isinstance(value, bytes):
        return f"({value[1]} bytes)"
    text = value.decode(errors="backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]


@kvs.command("ls")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("-R", "--recursive", is_flag=True, help="Directories below, too.")
@click.option("-d", "--directory", "itself", is_flag=True, help="The directory itself, not what is in it.")
@click.option("-1", "one", is_flag=True, help="One name a line (as it is off a terminal).")
@click.option("-F", "--classify", is_flag=True, help="A dot after directories.")
@at_option
@target_options
def ls(
    keys: tuple[str, ...], recursive: bool, itself: bool, one: bool, classify: bool, at: str | None,
    uri: str | None,
    state_dir: str | None,
) -> None:  # fmt: skip
    """List names.

    \b
    Examples:
      fluxkv kvs ls
      fluxkv kvs ls -1F run
      fluxkv kvs ls -R
    """
    from . import render

    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
    wanted = [_key(key) for key in keys] or ["."]
    plain, folders = [], []
    for key in wanted:
        found = state.tree.get(key)
        if found is None:
            raise _no_such(key)
        if isinstance(found, dict) and not itself:
            folders.append((key, found))
        else:
            plain.append(key + ("." if classify and isinstance(found, dict) and key != "." else ""))
    columns = not one and render.is_terminal()
    _names(plain, columns)
    titles = recursive or len(wanted) > 1
    first = not plain
    while folders:
        key, found = folders.pop(0)
        if titles:
            render.out(("" if first else "\n") + f"{key}:")
        first = False
        _names(
            [name + ("." if classify and isinstance(found[name], dict) else "") for name in sorted(found)],
            columns,
        )
        if recursive:
            base = "" if key == "." else key + "."
            folders[:0] = [(base + name, found[name]) for name in sorted(found) if isinstance(found[name], dict)]


def _names(names: list[str], columns: bool) -> None:
    from . import render

    if not columns:
        for name in names:
            render.out(name)
        return
    import shutil

    width = max((len(name) for name in names), default=0) + 2
    a_line = max(1, shutil.get_terminal_size().columns // width)
    for begin in range(0, len(names), a_line):
        render.out("".join(name.ljust(width) for name in names[begin : begin + a_line]).rstrip())
