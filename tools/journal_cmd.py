"""`fluxkv journal`: the history itself, shown, followed, measured, checked and exported. Reads only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected
from .lazy_group import LazyCommands
from .reading import bound, commits_until, gc_paused
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.log import Journal
    from ..journal.wire import Commit, Event

Pair = tuple["Commit", "Event"]


# Command: (module under tools/, object, one line of help)
_MORE = {
    "archive": ("archive", "archive", "Copy history to the archive; with --trim, free the server of it."),
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
    from ..journal.wire import read_commit
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
                        yield read_commit(entry)
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
    from ..journal.wire import ZLIB, pack, read_commit, unpack, well_formed

    names: dict[str, int] = {}
    commits = events = stored = unpacked = compressed = 0
    first = last = 0.0
    after = 0
    while True:
        entries = source.history.read(after, 500)
        for entry in entries:
            after = entry.version
            commit = read_commit(entry)
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


@journal.command("verify")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@target_options
def verify(as_json: bool, uri: str | None, state_dir: str | None) -> None:
    """Check every entry: checksum, version, contexts, RFC 21's order, the fold, and the digests workers left.

    Exit status 0 only if all is sound; each fault is named with its entry. What was set aside, and a quarantine event has said
    so, is listed too: nothing of it has happened.

    \b
    Examples:
      fluxkv journal verify
      fluxkv journal verify --state-dir ~/old --json
    """
    from . import render
    from .folding import Fault, Fold

    with open_journal(uri, state_dir) as source:
        tip = source.store.meta().version
        fold = Fold(source, strict=True)
        with gc_paused():
            fold.run()
        if fold.folding and fold.state.version < tip:
            fold.faults.append(
                Fault(
                    f"{fold.state.version + 1}-?", "tip", f"meta says version {tip}, the journal ends before"
                )
            )
        snapshot = _check_snapshot(source, fold)
    faults = fold.all_faults
    if as_json:
        render.print_json({
            "sound": not faults, "version": fold.state.version, "events": fold.state.events,
            "bytes": fold.bytes,
            "digests_checked": fold.checked, "digests_unchecked": fold.unchecked,
            "unknown_events": fold.unknown,
            "snapshot": snapshot, "faults": [fault._asdict() for fault in faults],
            "passed": fold.passed, "aside": [fault._asdict() for fault in fold.aside],
        })  # fmt: skip
    else:
        for fault in fold.aside:
            render.out(f"entry {fault.entry}: set aside: {fault.text}")
        for fault in faults:
            render.out(f"entry {fault.entry}: {fault.code}: {fault.text}")
        for first, last in fold.passed:
            render.out(f"versions {first} to {last}: not folded, taken from the snapshot")
        unknown = f", {sum(fold.unknown.values())} events of unknown names" if fold.unknown else ""
        late = f", {fold.unchecked} of versions too far back or of an older schema" if fold.unchecked else ""
        render.out(
            f"{fold.state.version} commits, {fold.state.events} events, "
            f"{fold.checked} digests compared{late}{unknown}, "
            f"snapshot {snapshot}: " + (f"{len(faults)} FAULTS" if faults else "sound")
        )
    if faults:
        raise SystemExit(1)


def _check_snapshot(source: Journal, fold: Any) -> str:
    """Compare the newest snapshot with the history; what to call it. Faults go to the fold's."""
    from ..kvs.errors import FluxkvError
    from .folding import Fault

    try:
        state = source.snapshot()
    except FluxkvError as error:
        fold.faults.append(Fault("snapshot", error.code, str(error)))
        return "bad"
    if state is None:
        return "none"
    if not fold.folding:
        return f"of version {state.version} (not compared)"
    with gc_paused():
        history = source.at(state.version)
    if history.digest() != state.digest():
        fold.faults.append(
            Fault("snapshot", "digest", f"it differs from the history at its version {state.version}")
        )
        return "bad"
    return f"of version {state.version} agrees"


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
@target_options
def export(output: str, after: int, until: str | None, uri: str | None, state_dir: str | None) -> None:
    """Write events as JSON lines (RFC 18, with subject, version, entry, time and by added; bytes are base64).

    \b
    Examples:
      fluxkv journal export --output history.jsonl
      fluxkv journal export --until 'yesterday 18:00' | gzip > day.jsonl.gz
    """
    from .eventview import event_document
    from .render import json_text

    with (
        open_journal(uri, state_dir) as source,
        writing(output) as file,
    ):
        version, moment = bound(source, until)
        for commit, event in _events(commits_until(source, after, version, moment)):
            file.write(json_text(event_document(commit, event)) + "\n")
