"""`fluxkv journal verify`: every entry checked, in the server and in the archive. Mends nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import FluxkvError
from .reading import gc_paused
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..instances.archive_check import Checked
    from ..journal.log import Journal
    from .folding import Fold

SHOWN = 50  # faults; the first are those that others follow from
ADVISED = 3


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@target_options
def verify(as_json: bool, uri: str | None, state_dir: str | None) -> None:
    """Check every entry: checksum, version, contexts, RFC 21's order, the fold, and the digests workers left.

    The instance's archive is looked through, too: its segments and their chain, its blobs, and that server and archive have
    the same history.

    Exit status 0 only if all is sound; each fault is named with its entry. What was set aside, and a quarantine event has said
    so, is listed too: nothing of it has happened.

    \b
    Examples:
      fluxkv journal verify
      fluxkv journal verify --state-dir ~/old --json
    """
    from ..journal.state import State
    from . import render
    from .folding import Fault, Fold

    with open_journal(uri, state_dir) as source:
        tip = source.store.meta().version
        archive = _check_archive(source, uri, state_dir)
        try:
            fold = Fold(source, strict=True)
        except FluxkvError:
            if archive is None or not archive.wrong:
                raise
            fold = Fold(source, strict=True, begin=State())
        if archive is not None:
            fold.faults += [Fault(*wrong) for wrong in archive.wrong]
        try:
            with gc_paused():
                fold.run()
        except FluxkvError as error:
            if archive is None or not archive.wrong:
                raise
            fold.faults.append(Fault(f"{fold.state.version + 1}-?", error.code, f"not folded from here on: {error}"))
            fold.folding = False
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
            "archive": archive and {"place": archive.place, "last": archive.last, "segments": archive.segments,
                                    "blobs": archive.blobs, "lost": archive.lost, "pruned": archive.pruned,
                                    "unnamed": archive.unnamed},
        })  # fmt: skip
    else:
        _show(fold, snapshot, archive)
    if faults:
        raise SystemExit(1)


def _show(fold: Fold, snapshot: str, archive: Checked | None) -> None:
    """The faults, what to do about them, and the verdict."""
    from . import render

    faults = fold.all_faults
    for fault in fold.aside:
        render.out(f"entry {fault.entry}: set aside: {fault.text}")
    for fault in faults[:SHOWN]:
        render.out(f"entry {fault.entry}: {fault.code}: {fault.text}")
    if len(faults) > SHOWN:
        render.out(f"... and {len(faults) - SHOWN} more (--json has all)")
    for first, last in fold.passed:
        render.out(f"versions {first} to {last}: not folded, taken from the snapshot")
    for line in _advice(fold):
        render.out(line)
    unknown = f", {sum(fold.unknown.values())} events of unknown names" if fold.unknown else ""
    late = f", {fold.unchecked} of versions too far back or of an older schema" if fold.unchecked else ""
    verdict = f"{len(faults)} FAULT{'S' * (len(faults) > 1)}" if faults else "sound"
    render.out(
        f"{fold.state.version} commits, {fold.state.events} events, "
        f"{fold.checked} digests compared{late}{unknown}, "
        f"snapshot {snapshot}{_of_archive(archive)}: {verdict}"
    )


def _advice(fold: Fold) -> Iterator[str]:
    """What to do about entries that cannot be read: they stop everybody, or nobody."""
    copies = "a copy, a replica or an archive may still have it: fluxkv journal salvage --dry-run DIR COPY"
    for version in fold.unreadable[:ADVISED]:
        behind = [last for first, last in fold.passed if first <= version <= last]
        if behind:
            yield f"  nobody is stopped by version {version}: the snapshot has what it said; only the past is gone"
        else:
            yield f"  nobody reads past version {version}; fluxkv journal quarantine {version} goes on without it"
        yield f"  {copies}"


def _check_archive(source: Journal, uri: str | None, state_dir: str | None) -> Checked | None:
    """The instance's archive, looked through; None if it has none (that is known)."""
    from ..instances.archive_check import Checked, Wrong, check_archive
    from ..instances.archiving import place_of
    from ..instances.paths import StateDir, find_uri, state_dir_of
    from ..journal.archive import Archive
    from ..journal.archive_config import archive_rules

    try:
        directory = StateDir(state_dir) if state_dir else state_dir_of(find_uri(uri))
        place = place_of(archive_rules(source.look().config), source.meta, directory)
        archive = source.history.archive() or Archive(source.store.depot(place, to_read=True), source.meta.archive_uid)
        if source.meta.first == 1:
            archive.load()
            if not archive.found:
                return None
    except FluxkvError as error:
        if source.meta.first == 1:
            return None
        return Checked(source.meta.archive, wrong=[Wrong("archive", error.code, str(error))])
    return check_archive(archive, source)


def _of_archive(archive: Checked | None) -> str:
    if archive is None:
        return ""
    aside = f", {len(archive.unnamed)} files that no manifest names" if archive.unnamed else ""
    return f", archive of versions 1 to {archive.last} in {archive.segments} segments, {archive.blobs} blobs{aside}"


def _check_snapshot(source: Journal, fold: Any) -> str:
    """Compare the newest snapshot with the history; what to call it. Faults go to the fold's."""
    from .folding import Fault

    try:
        state = source.snapshot()
    except FluxkvError as error:
        fold.faults.append(Fault("snapshot", error.code, str(error)))
        return "bad"
    if state is None:
        return "none"
    if not fold.folding or any(first <= state.version <= last for first, last in fold.passed):
        return f"of version {state.version} (not compared)"
    with gc_paused():
        history = source.at(state.version)
    if history.digest() != state.digest():
        fold.faults.append(
            Fault("snapshot", "digest", f"it differs from the history at its version {state.version}")
        )
        return "bad"
    return f"of version {state.version} agrees"
