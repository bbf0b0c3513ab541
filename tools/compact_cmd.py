"""`fluxkv journal compact|prune`: an archive made smaller. Decides what is printed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from .archive_cmd import place_of_journal
from .portable_cmd import version_of
from .reading import uri_option
from .target import open_journal

if TYPE_CHECKING:
    from ..instances.archiving import Archiver


@contextmanager
def _archiver(uri: str | None, dry_run: bool) -> Iterator[Archiver]:
    """Of the instance and the archive it has."""
    from ..instances.archiving import Archiver

    with open_journal(uri) as journal:
        _, settings, place = place_of_journal(journal, uri, None)
        yield Archiver(journal, place, settings, dry_run=dry_run)


@click.command()
@click.option("--drop-lost", is_flag=True, help="Also remove branches of history that were lost in a fail-over and set aside.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@uri_option
def compact(drop_lost: bool, dry_run: bool, uri: str | None) -> None:
    """Join neighbouring small segments of the instance's archive, and remove files that its manifest does not name.

    \b
    Examples:
      fluxkv journal compact --dry-run
      fluxkv journal compact
    """
    from ..instances.pruning import compact as make_smaller

    with _archiver(uri, dry_run) as archiver:
        archiver.journal.history.archive()  # one that is named and not there is no empty one
        done = make_smaller(archiver, drop_lost=drop_lost)
    would = "would be " if dry_run else ""
    before, after = done.segments
    click.echo(f"{done.place}: {before} segments, {after} {would}left; {done.files} unnamed files {would}removed")


@click.command()
@click.option("--before", "moment", metavar="VERSION|TIME", required=True, help="History up to there goes.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@uri_option
def prune(moment: str, dry_run: bool, uri: str | None) -> None:
    """Delete archived history up to a moment, for good.

    The records of jobs that have left the live state stay, so their ids are known for ever, with how they ended; their events and
    jobspecs are gone. What follows is folded from a snapshot that is made, and read back, first. Without the deleted
    entries the archive alone cannot be imported any more: keep a copy, or an exported file, if you may want that.

    \b
    Examples:
      fluxkv journal archive --now --trim --keep 1s --keep-commits 1 && fluxkv journal prune --before 3 --dry-run
    """
    from ..instances.pruning import prune as delete

    with _archiver(uri, dry_run) as archiver:
        done = delete(archiver, version_of(archiver.journal, moment))
    would = "would be " if dry_run else ""
    if not done.pruned:
        click.echo(f"{done.place}: nothing to prune up to there")
        return
    click.echo(f"{done.place}: {done.entries} commits up to version {done.pruned} {would}deleted, {done.blobs} blobs with them")
