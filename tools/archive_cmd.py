"""`fluxkv journal archive`: history copied to the archive and, once it is safe there, taken out of the server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected
from .reading import uri_option
from .target import open_journal

if TYPE_CHECKING:
    from ..instances.archiving import Done
    from ..journal.archive_config import ArchiveRules
    from ..journal.log import Journal


@click.command()
@click.option("--now", "all_of_it", is_flag=True, help="All history, however recent (default: what [archive] after says).")
@click.option("--trim", is_flag=True, help="Then take out of the server what [retention] lets go.")
@click.option("--keep", metavar="FSD", help="With --trim: keep history up to this age, in place of what [retention] says.")
@click.option("--keep-commits", metavar="N", type=click.IntRange(1), help="With --trim: keep at least the N latest commits.")
@click.option("--url", metavar="DIR|URL", help="Where to (default: [archive] url, or where it went before).")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@uri_option
def archive(
    all_of_it: bool, trim: bool, keep: str | None, keep_commits: int | None, url: str | None, dry_run: bool, as_json: bool,
    uri: str | None,
) -> None:  # fmt: skip
    """Copy history to the archive, as the instance does by itself where its config has a table [archive].

    Nothing leaves the server before it has been read back from the archive and is below a snapshot. What is archived is
    answered by every command as before.

    \b
    Examples:
      fluxkv journal archive                         what is old enough
      fluxkv journal archive --now --url ~/history   everything, to this directory
      fluxkv journal archive --trim --dry-run        what would go
      fluxkv journal archive --now --trim --keep 1h
    """
    from ..instances.archiving import Archiver, run
    from ..journal.duration import parse_duration

    if (keep or keep_commits) and not trim:
        raise click.UsageError("--keep and --keep-commits go with --trim")
    with open_journal(uri) as journal:
        rules, settings, place = place_of_journal(journal, uri, url)
        rules = rules._replace(
            keep_s=parse_duration(keep) if keep else rules.keep_s, keep_commits=keep_commits or rules.keep_commits
        )
        done = run(
            Archiver(journal, place, settings, dry_run=dry_run), rules, journal.store.now(), all_of_it=all_of_it, trim=trim,
            sweep=trim,
        )  # fmt: skip
    _show(done, as_json, trim, 0.0 if all_of_it else rules.after_s)


def place_of_journal(journal: Journal, uri: str | None, url: str | None) -> tuple[ArchiveRules, dict[str, Any], str]:
    """(what the config says, the instance's settings, where its archive is)."""
    from ..instances.archiving import place_of
    from ..instances.paths import find_uri, state_dir_of
    from ..journal.archive_config import archive_rules

    rules = archive_rules(journal.look().config)
    directory = state_dir_of(find_uri(uri))
    place = (os.path.expanduser(url) if url else "") or place_of(rules, journal.meta, directory)
    if not place:
        raise Rejected(
            "this instance has no archive yet, and its state directory is not on this host", code="no-archive",
            hint="name a place with --url, or in its config as [archive] url",
        )  # fmt: skip
    if place.startswith("memory:") and not find_uri(uri).startswith("memory:"):
        raise Rejected(f"{place} is gone with this command: nothing would be left of the history", code="bad-archive")
    return rules, directory.read() if directory is not None else {}, place


def _show(done: Done, as_json: bool, trim: bool, after_s: float) -> None:
    """after_s: what is younger was left alone."""
    from . import render

    if as_json:
        render.print_json({
            "url": done.url, "dry_run": done.dry_run, "archived": done.archived, "trimmed": done.trimmed, "lost": done.lost,
            "segments": [part.name for part in done.segments], "bytes": sum(part.size for part in done.segments),
            "blobs": done.blobs, "kept_why": done.kept_why, "unnamed": done.unnamed, "printed": done.printed,
            "unreadable": done.unreadable,
        })  # fmt: skip
        return
    would = "would be " if done.dry_run else ""
    if done.lost:
        render.out(f"versions {done.lost[0]} to {done.lost[1]} are of a branch that was lost: {would}set aside in {done.url}")
    if done.archived is None:
        young = f" that is older than {render.duration_text(after_s)} (--now takes all)" if after_s else ""
        render.out(f"nothing new for {done.url}{young}")
    else:
        size = sum(part.size for part in done.segments)
        what = "" if done.dry_run else f" ({len(done.segments)} segments, {size} bytes, {done.blobs} blobs)"
        render.out(f"versions {done.archived[0]} to {done.archived[1]} {would}archived in {done.url}{what}")
    if done.warning:
        click.echo(f"fluxkv: warning: {done.warning}", err=True)
    if done.trimmed:
        render.out(f"versions {done.trimmed[0]} to {done.trimmed[1]} {would}taken out of the server")
    if done.unnamed or done.printed:
        render.out(f"{done.unnamed} contents that nothing names, and the output of {done.printed} jobs, {would}removed")
    if trim and not done.trimmed:
        render.out(f"nothing taken out of the server: {done.kept_why}")
