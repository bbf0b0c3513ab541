"""`fluxkv journal`: the history itself, shown, followed, measured, checked and exported. Reads only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected
from .lazy_group import LazyCommands
from .reading import bound, commits_until
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.log import Journal
    from ..journal.wire import Commit, Event

Pair = tuple["Commit", "Event"]


# Command: (module under tools/, object, one line of help)
_MORE = {
    "verify": ("verify", "verify", "Check every entry, wherever it is."),
    "import": ("portable", "import_", "Make an instance from an exported file or an archive."),
    "fork": ("portable", "fork", "Make an instance whose history is this one up to a moment."),
    "salvage": ("salvage", "salvage", "Make an instance of what can be had of a damaged one."),
    "archive": ("archive", "archive", "Copy history to the archive; with --trim, free the server of it."),
    "children": ("children", "children", "Say where journals of ended children are; move them, bring one back."),
    "compact": ("compact", "compact", "Join small segments of the archive; remove what nothing names."),
    "prune": ("compact", "prune", "Delete archived history for good, but for what each job is known by."),
    "quarantine": ("quarantine", "quarantine", "List what is set aside; set an entry aside that cannot be read."),
}


@click.group(cls=LazyCommands, more=_MORE, context_settings={"help_option_names": ["-h", "--help"]})
def journal() -> None:
    """Show, follow, check and export the journal.

    \b
    Examples:
      fluxkv journal show --limit 20               the latest events
      fluxkv journal show --job ƒ2UzHM             one job's
      fluxkv journal follow                        as they come
      fluxkv journal verify                        exit status 0 only if all is sound
      fluxkv journal export --output history.jsonl
    """


def _events(commits: Iterable[Commit], job: int | None = None) -> Iterator[Pair]:
    from ..journal.wire import Event, well_formed

    for commit in commits:
        for event in well_formed(commit.events):
            if job is None or event[1] == job:
                yield commit, Event(*event)


def _job_events(
    source: Journal, text: str, after: int, version: int | None, moment: float | None
) -> Iterator[Pair]:
    """One job's events, through its record's list of commits."""
    from ..journal.ids import parse_id

    id = parse_id(text)
    job = source.find_job(source.look(), id)
    for commit, event in source.story(job.commits, id):
        if commit.version > after and (version is None or commit.version <= version):
            if moment is not None and commit.time > moment:
                return
            yield commit, event


def _print(pairs: Iterable[Pair], as_json: bool, hosts: dict[int, str]) -> None:
    from . import render
    from .eventview import event_document, event_line
    from .render import json_text

    for commit, event in pairs:
        render.out(json_text(event_document(commit, event)) if as_json else event_line(commit, event, hosts))


def _hosts(source: Journal) -> dict[int, str]:
    from .eventview import hosts_of

    return hosts_of(source.look())


@journal.command("show")
@click.option("--after", metavar="VERSION", type=click.IntRange(0), help="Only what came after this version.")
@click.option("--until", metavar="VERSION|TIME", help="Only up to there.")
@click.option("--job", metavar="ID", help="Only this job's events.")
@click.option(
    "-n",
    "--limit",
    metavar="N",
    type=click.IntRange(1),
    help="At most N events: with --after the first, else the last.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines, as export writes them.")
@target_options
def show(
    after: int | None, until: str | None, job: str | None, limit: int | None, as_json: bool, uri: str | None,
    state_dir: str | None,
) -> None:  # fmt: skip
    """Print events, one a line: time, version, subject, name, what it says.

    \b
    Examples:
      fluxkv journal show --limit 20
      fluxkv journal show --after 100 --until 120
      fluxkv journal show --job ƒ2UzHM --json
    """
    from collections import deque
    from itertools import islice

    with open_journal(uri, state_dir) as source:
        version, moment = bound(source, until)
        pairs: Iterable[Pair]
        if job:
            pairs = _job_events(source, job, after or 0, version, moment)
        else:
            begin = after or 0
            if limit and after is None and moment is None:  # every commit has an event at least
                begin = max(0, min(version or source.meta.version, source.meta.version) - limit)
            pairs = _events(commits_until(source, begin, version, moment))
        if limit:
            pairs = islice(pairs, limit) if after is not None else deque(pairs, limit)
        _print(pairs, as_json, {} if as_json else _hosts(source))


@journal.command("follow")
@click.option(
    "--after", metavar="VERSION", type=click.IntRange(0), help="Begin after this version (default: now)."
)
@click.option("--job", metavar="ID", help="Only this job's events.")
@click.option("-n", "--limit", metavar="N", type=click.IntRange(1), help="End after N events.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines, as export writes them.")
@target_options
def follow(
    after: int | None,
    job: str | None,
    limit: int | None,
    as_json: bool,
    uri: str | None,
    state_dir: str | None,
) -> None:
    """Print events as they come, until interrupted.

    \b
    Examples:
      fluxkv journal follow
      fluxkv journal follow --after 0 --json | jq .name
    """
    from itertools import islice

    from ..journal.ids import parse_id

    with open_journal(uri, state_dir) as source:
        id = parse_id(job) if job else None
        hosts = {} if as_json else _hosts(source)
        pairs = _events(_new_commits(source, after), id)
        for pair in islice(pairs, limit) if limit else pairs:
            _print([pair], as_json, hosts)
            sys.stdout.flush()


def _new_commits(source: Journal, after: int | None) -> Iterator[Commit]:
    """Commits after a version (None: from now), for ever."""
    from ..kvs.keys import Keys
    from ..kvs.port import Entry
    from .reading import batches

    meta = source.store.meta()
    version = meta.version if after is None else after
    for commit in source.commits(version):
        version = commit.version
        yield commit
    known = source.history.entries([version])
    position = known[0].id if known else "0"
    subscription = source.store.subscribe({Keys(source.store.namespace).journal: position})
    try:
        for batch in batches(subscription):
            for _, entries in batch:
                for entry in entries:
                    if isinstance(entry, Entry) and entry.version > version:
                        version = entry.version
                        yield source.reader.commit(entry)
    finally:
        subscription.close()


@journal.command("stats")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@target_options
def stats(as_json: bool, uri: str | None, state_dir: str | None) -> None:
    """Count commits, events and bytes.

    \b
    Examples:
      fluxkv journal stats
      fluxkv journal stats --json
    """
    from . import render

    with open_journal(uri, state_dir) as source:
        document = _measure(source)
        guards = _guards(source, uri) if not state_dir else None
        if guards is not None:
            document["guards"] = guards
    if as_json:
        render.print_json(document)
        return
    names = document.pop("names")
    snapshot = document.pop("snapshot")
    rows: list[tuple[str, Any]] = [(key.replace("_", " "), value) for key, value in document.items()]
    rows.append(
        ("snapshot", f"version {snapshot['version']}, {snapshot['bytes']} bytes" if snapshot else "none")
    )
    render.table([], rows)
    render.out("")
    render.table(["EVENT", "COUNT"], sorted(names.items(), key=lambda item: (-item[1], item[0])), right=(1,))


def _measure(source: Journal) -> dict[str, Any]:
    from ..journal.wire import ZLIB, pack, unpack, well_formed

    names: dict[str, int] = {}
    commits = events = stored = unpacked = compressed = 0
    first = last = 0.0
    after = 0
    while True:
        entries = source.history.read(after, 500)
        for entry in entries:
            after = entry.version
            commit = source.reader.commit(entry)
            commits += 1
            events += len(commit.events)
            for event in well_formed(commit.events):
                names[event[0]] = names.get(event[0], 0) + 1
            stored += len(entry.header) + len(entry.payload)
            compressed += entry.payload[:1] == ZLIB
            body = len(entry.payload) if entry.payload[:1] != ZLIB else len(pack(commit.events)) + 1
            unpacked += len(entry.header) + body
            first, last = first or commit.time, commit.time
        if len(entries) < 500:
            break
    seconds = max(0.0, last - first)
    found = source.store.load_snapshot()
    snapshot = None
    if found is not None:
        snapshot = {
            "version": unpack(found[0])["version"],
            "bytes": sum(map(len, found[1])),
            "chunks": len(found[1]),
        }
    return {
        "commits": commits, "events": events, "events_per_commit": round(events / commits,
        2) if commits else 0.0,
        "bytes": stored, "bytes_unpacked": unpacked, "compression": round(unpacked / stored,
        2) if stored else 1.0,
        "compressed_commits": compressed, "seconds": round(seconds, 3),
        "events_per_s": round(events / seconds, 1) if seconds else 0.0, "snapshot": snapshot, "names": names,
    }  # fmt: skip


def _guards(source: Journal, uri: str | None) -> int | None:
    """How many guards the server holds; None if it cannot be asked."""
    from ..instances.paths import find_uri
    from ..kvs.keys import Keys
    from .servers import connect

    connection = connect(find_uri(uri))
    if connection is None:
        return None
    try:
        return int(connection.call("HLEN", Keys(source.store.namespace).guards))
    finally:
        connection.close()


@contextmanager
def writing(output: str) -> Iterator[IO[str]]:
    """The file to write, or stdout for "-". A regular file is whole or not touched: it is written beside and renamed.

    What is no regular file is written to, never replaced: else root's `--output /dev/null` would end that device.
    """
    import os

    beside = output != "-" and (os.path.isfile(output) or not os.path.lexists(output))
    try:
        with click.open_file(output, "w", encoding="utf-8", atomic=beside) as file:
            yield file
    except OSError as error:
        if output == "-":
            raise
        raise Rejected(
            f"{output}: {error.strerror or error}", code="output", hint="choose another with --output FILE"
        ) from None


@journal.command("export")
@click.option("-o", "--output", metavar="FILE", default="-", help="Where to (default: standard output).")
@click.option(
    "--after", metavar="VERSION", type=click.IntRange(0), default=0, help="Only what came after this version."
)
@click.option("--until", metavar="VERSION|TIME", help="Only up to there.")
@click.option(
    "-f", "--format", "form", type=click.Choice(["jsonl", "zip"]), default="jsonl",
    help="Events to read, or all of the history in a file that journal import takes.",
)  # fmt: skip
@target_options
def export(output: str, after: int, until: str | None, form: str, uri: str | None, state_dir: str | None) -> None:
    """Write events as JSON lines (RFC 18, with subject, version, entry, time and by added; bytes are base64).

    With --format zip, write the whole history with all that it names, checked by folding it: an archive in one file.

    \b
    Examples:
      fluxkv journal export --output history.jsonl
      fluxkv journal export --format zip --output history.zip
      fluxkv journal export --until 'yesterday 18:00' | gzip > day.jsonl.gz
    """
    from .eventview import event_document
    from .render import json_text

    if form == "zip":
        export_whole(output, after, until, uri, state_dir)
        return
    with (
        open_journal(uri, state_dir) as source,
        writing(output) as file,
    ):
        version, moment = bound(source, until)
        for commit, event in _events(commits_until(source, after, version, moment)):
            file.write(json_text(event_document(commit, event)) + "\n")


def export_whole(output: str, after: int, until: str | None, uri: str | None, state_dir: str | None) -> None:
    """The whole history as a zip file."""
    from ..instances.paths import StateDir, find_uri, state_dir_of
    from ..instances.portable import history_of, write_file
    from . import render
    from .portable_cmd import version_of

    if output == "-" or after:
        raise click.UsageError("--format zip needs --output FILE, and begins with the first commit")
    with open_journal(uri, state_dir) as journal:
        directory = StateDir(state_dir) if state_dir else state_dir_of(find_uri(uri))
        settings = directory.read() if directory is not None else {}
        try:
            version, digest = write_file(output, history_of(journal, version_of(journal, until), settings))
        except OSError as error:
            raise Rejected(f"{output}: {error.strerror}", code="output", hint="choose another with --output FILE") from None
    render.say(f"{output}: versions 1 to {version}, digest {digest}")
