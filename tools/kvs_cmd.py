"""`fluxkv kvs`: the instance's key-value store, for users. One command is one commit; no daemon is asked.

Values are bytes. Those above 1 KiB are stored apart, as blobs, and the journal holds their names.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected
from .kvs_list import directory, ls
from .kvs_logs import eventlog
from .kvs_shape import copy, link, mkdir, move, namespaces, readlink, unlink
from .kvs_shared import (
    SETTINGS,
    as_json,
    key_of,
    namespace_option,
    open_kvs,
    seconds,
    shown_bytes,
    timeout_option,
    view_at,
)
from .lazy_group import SuggestingGroup
from .reading import at_option, uri_option
from .target import target_options

if TYPE_CHECKING:
    from ..instances.kvs_client import Kvs
    from ..instances.kvs_watch import Change


@click.group(cls=SuggestingGroup, context_settings=SETTINGS)
def kvs() -> None:
    """Read and write the instance's key-value store.

    \b
    Examples:
      fluxkv kvs put run.name=test run.tasks=4     both in one step
      fluxkv kvs get run.name
      fluxkv kvs put -r run.input=- < input.dat    any bytes, up to 256 MiB
      fluxkv kvs get --watch -c 1 run.name         the value, and each new one
      fluxkv kvs dir -R
    """


for _command in (ls, directory, unlink, mkdir, link, readlink, copy, move, namespaces, eventlog):
    kvs.add_command(_command)


@kvs.command("get")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("-r", "--raw", is_flag=True, help="The exact bytes, no newline added.")
@click.option("-l", "--label", is_flag=True, help="Print KEY=VALUE.")
@click.option("-j", "--json", "as_objects", is_flag=True, help="A JSON object a line: key, version, value.")
@click.option("-w", "--watch", is_flag=True, help="Then print it again each time it is written.")
@click.option("-W", "--waitcreate", is_flag=True, help="Wait until the key is there.")
@click.option("-u", "--uniq", is_flag=True, help="With --watch: only when the value is another.")
@click.option("-A", "--append", "appended", is_flag=True, help="With --watch: only what is added to it.")
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="With --watch: end after N values.")
@click.option("--wait-version", type=click.IntRange(0), metavar="N", help="Wait until the journal has come to version N.")
@timeout_option
@namespace_option
@at_option
@target_options
def get(
    keys: tuple[str, ...], raw: bool, label: bool, as_objects: bool, watch: bool, waitcreate: bool, uniq: bool,
    appended: bool, count: int | None, wait_version: int | None, timeout: str | None, namespace: str, at: str | None,
    uri: str | None, state_dir: str | None,
) -> None:  # fmt: skip
    """Print the values of keys.

    \b
    Examples:
      fluxkv kvs get run.name
      fluxkv kvs get --raw run.input > input.dat
      fluxkv kvs get run.name --at 10:30           as it was then
      fluxkv kvs get --wait-version 120 run.name   not before what another process's put -s has printed
    """
    names = [key_of(key) for key in keys]
    if (watch or waitcreate) and at:
        raise click.UsageError("--watch and --waitcreate look ahead, --at looks back")
    if (watch or waitcreate or wait_version is not None) and state_dir and not uri:
        raise click.UsageError("nothing changes in a --state-dir: wait on the running instance")
    if not watch and (uniq or appended or count):
        raise click.UsageError("--uniq, --append and --count need --watch")
    if watch and len(names) > 1:
        raise click.UsageError("one key can be watched; fluxkv kvs watch follows a directory")
    limit = seconds(timeout)
    printer = _Printer(raw, label, as_objects)
    with open_kvs(uri, state_dir, namespace) as store:
        if wait_version is not None:
            store.wait_version(wait_version, limit)
        if watch:
            _watch(store, names[0], printer, waitcreate, uniq, appended, count, limit)
            return
        if waitcreate:
            for name in names:
                store.wait(name, limit)
        view = view_at(store, at)
        found = [(name, view.payload(name), view.stat(name)) for name in names]  # nothing is printed if one is not there
        for name, _, entry in found:
            printer(name, entry.version if entry else 0, view.pieces(name))


class _Printer:
    """Prints values as get's options say."""

    def __init__(self, raw: bool, label: bool, as_objects: bool) -> None:
        self.raw, self.label, self.as_objects = raw, label, as_objects
        self.stream = sys.stdout.buffer

    def __call__(self, key: str, version: int, pieces: Any) -> None:
        if self.as_objects:
            self.stream.write(as_json(key, version, b"".join(pieces)).encode() + b"\n")
        else:
            if self.label:
                self.stream.write(f"{key}=".encode())
            for piece in pieces:
                self.stream.write(piece)
            if not self.raw:
                self.stream.write(b"\n")
        self.stream.flush()


def _watch(
    store: Kvs, key: str, printer: _Printer, waitcreate: bool, uniq: bool, appended: bool, count: int | None,
    limit: float | None,
) -> None:  # fmt: skip
    from ..instances.kvs_view import read_value
    from ..instances.kvs_watch import values
    from ..kvs.tree import size_of

    last: Any = None
    printed = offset = 0
    for payload, version in values(store.journal, store.name, key, waitcreate, limit):
        size = size_of(payload)
        begin = offset if appended and size >= offset else 0
        offset = size
        now = list(payload) if isinstance(payload, list) else payload
        if uniq and now == last:
            continue
        last = now
        printer(key, version, read_value(store.journal.store, payload, begin))
        printed += 1
        if printed == count:
            return


@kvs.command("put")
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.option("-r", "--raw", is_flag=True, help="A VALUE of - stands for the bytes of standard input.")
@click.option("-A", "--append", is_flag=True, help="Add to what is there; of two at once both survive.")
@click.option("-n", "--no-clobber", "--absent", "absent", is_flag=True, help="Refuse if a key is there already.")
@click.option(
    "--if-version", type=click.IntRange(0), metavar="N", help="Refuse if a key has changed after version N, or is gone."
)
@click.option("-s", "--sequence", is_flag=True, help="Print the version of the commit.")
@click.option("--no-merge", is_flag=True, hidden=True, help="Accepted for Flux's sake: commits are never merged.")
@namespace_option
@uri_option
def put(
    pairs: tuple[str, ...], raw: bool, append: bool, absent: bool, if_version: int | None, sequence: bool, no_merge: bool,
    namespace: str, uri: str | None,
) -> None:  # fmt: skip
    """Store values, all of them in one commit. Of two writers the last one wins, key by key, unless an option says else.

    \b
    Examples:
      fluxkv kvs put run.name=test run.tasks=4
      tar c data | fluxkv kvs put --raw run.data=-
      fluxkv kvs put --append run.notes="one more line"
      fluxkv kvs put --no-clobber run.lock=$$      only one of many gets it
      fluxkv kvs put -s run.tasks=5                prints the version it made
    """
    ops: list[list[Any]] = []
    with open_kvs(uri, None, namespace) as store:
        from_stdin = [pair for pair in pairs if raw and pair.partition("=")[2] == "-"]
        if len(from_stdin) > 1:
            raise Rejected("kvs: standard input can be one value only", code="bad-pair")
        split = [_pair(pair) for pair in pairs]  # all are looked at before anything is stored
        for key, text in split:
            source: Any = text.encode("utf-8", "surrogateescape")
            if raw and text == "-":
                source = sys.stdin.buffer
            ops.append(["append" if append else "put", key, store.payload(source)])
        version = store.commit(ops, absent=absent, if_version=if_version)
    if sequence:
        click.echo(version)


def _pair(pair: str) -> tuple[str, str]:
    key, mark, text = pair.partition("=")
    if not mark:
        raise Rejected(
            f"kvs: {pair}: no value", code="bad-pair", hint="write KEY=VALUE; fluxkv kvs unlink removes a key"
        )
    name = key_of(key)
    if name == ".":
        raise Rejected("kvs: the root cannot be a value", code="bad-key")
    return name, text


@kvs.command("version")
@namespace_option
@at_option
@target_options
def version(namespace: str, at: str | None, uri: str | None, state_dir: str | None) -> None:
    """Print the version of the last commit in a namespace.

    \b
    Examples:
      fluxkv kvs version
      fluxkv kvs version --at -1m
    """
    with open_kvs(uri, state_dir, namespace) as store:
        click.echo(view_at(store, at).tree.version)


@kvs.command("wait")
@click.argument("keys", nargs=-1, metavar="[KEY|VERSION]...")
@click.option("--version", "number", type=click.IntRange(0), metavar="N", help="Until the journal has come to version N.")
@timeout_option
@namespace_option
@uri_option
def wait(keys: tuple[str, ...], number: int | None, timeout: str | None, namespace: str, uri: str | None) -> None:
    """Wait until keys are there, or until a version is. A number is a version; a key of digits is written with a dot: 17.

    \b
    Examples:
      fluxkv kvs wait -t 30s run.name
      fluxkv kvs wait --version 120
    """
    if not keys and number is None:
        raise click.UsageError("name a key, or --version N")
    import time

    limit = seconds(timeout)
    deadline = None if limit is None else time.monotonic() + limit

    def left() -> float | None:
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    with open_kvs(uri, None, namespace) as store:
        if number is not None:
            store.wait_version(number, left())
        for key in keys:
            if key.isdecimal() and key.isascii() and len(key) < 19:
                store.wait_version(int(key), left())
            else:
                store.wait(key_of(key), left())


@kvs.command("watch")
@click.argument("key", default=".")
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="End after N changes.")
@click.option("-n", "--no-initial", is_flag=True, help="Only what changes from now on.")
@click.option("-j", "--json", "as_objects", is_flag=True, help="A JSON object a line.")
@timeout_option
@namespace_option
@uri_option
def watch(
    key: str, count: int | None, no_initial: bool, as_objects: bool, timeout: str | None, namespace: str, uri: str | None
) -> None:
    """Print what is there at and below a key, then each change.

    Each line begins with the version of its commit.

    \b
    Examples:
      fluxkv kvs watch -c 1
      fluxkv kvs watch -c 1 --json run
    """
    from . import render

    seen = 0
    with open_kvs(uri, None, namespace) as store:
        for change in store.watch(key_of(key), initial=not no_initial, timeout=seconds(timeout)):
            render.out(_change_json(store, change) if as_objects else _change_text(change))
            sys.stdout.flush()
            seen += 1
            if seen == count:
                return


def _change_text(change: Change) -> str:
    entry = change.entry
    if entry is None:
        return f"{change.version} {change.key} is gone"
    if entry.kind == "link":
        return f"{change.version} {change.key} -> {entry.target}"
    if entry.kind == "dir":
        return f"{change.version} {change.key.rstrip('.')}."
    shown = shown_bytes(change.payload) if isinstance(change.payload, bytes) else f"({entry.size} bytes)"
    return f"{change.version} {change.key} = {shown}"


def _change_json(store: Kvs, change: Change) -> str:
    from ..instances.kvs_view import read_value
    from .render import json_text

    if change.payload is not None:
        return as_json(change.key, change.version, b"".join(read_value(store.journal.store, change.payload)))
    kind = change.entry.kind if change.entry is not None else "gone"
    target = {"target": change.entry.target} if change.entry is not None and kind == "link" else {}
    return json_text({"key": change.key, "version": change.version, "kind": kind, **target})
