"""`fluxkv journal children`: journals of children that ended, in the server and in the archive. Decides what is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import FluxkvError, Rejected
from .reading import uri_option
from .target import open_journal

if TYPE_CHECKING:
    from ..instances.departing import Done
    from ..journal.log import Journal


@click.command()
@click.option("--archive", is_flag=True, help="Move those that ended long enough ago out of the server, as its keeper does.")
@click.option("--now", "all_of_them", is_flag=True, help="With --archive: however recently they ended.")
@click.option("--restore", metavar="JOB", help="Bring the instance that this job was back to the server.")
@click.option("--url", metavar="DIR|URL", help="With --archive: where to (default: the instance's archive).")
@click.option("--dry-run", is_flag=True, help="With --archive: say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@uri_option
def children(
    archive: bool, all_of_them: bool, restore: str | None, url: str | None, dry_run: bool, as_json: bool, uri: str | None
) -> None:
    """Say where the journals of ended children are, and how much room they take.

    A child (a job that is an instance) leaves its parent's server for the archive some time after its end ([retention]
    keep-children, 1h), with all that was inside it. It is read there by all commands as before, and comes back by itself for
    fluxkv batch --resume. What is moved by hand leaves the server half a minute after it has been read back from the archive:
    whoever reads it meanwhile is not disturbed.

    \b
    Examples:
      fluxkv journal children
      fluxkv journal children --archive --dry-run
      fluxkv journal children --archive --now
      fluxkv journal children --restore ƒ2UzHM
    """
    if archive and restore is not None:
        raise click.UsageError("--archive and --restore are two things")
    if (all_of_them or url or dry_run) and not archive:
        raise click.UsageError("--now, --url and --dry-run go with --archive")
    with open_journal(uri) as journal:
        if restore is not None:
            _restore(journal, restore)
        elif archive:
            _archive(journal, uri, url, all_of_them, dry_run, as_json)
        else:
            _show(overview(journal, uri), as_json)


def overview(journal: Journal, uri: str | None) -> dict[str, Any]:
    """alive, ended: children in the server; bytes: what the ended ones take there (None: it does not say); keep_s: how long they
    stay; places: [{url, files, bytes (None: elsewhere), error}]; damaged: {namespace: what is wrong}, not among the others."""
    from ..instances import away
    from ..kvs.bundle_parts import is_part
    from ..kvs.depot import local_path

    rules, place = _rules(journal, uri)
    inside = journal.store.inside()
    ended = [one for one in inside.values() if one.meta is not None and one.meta.sealed]
    places = []
    for url in dict.fromkeys([*away.places(journal.store), *([place] if place else [])]):
        found: dict[str, Any] = {"url": url, "files": 0, "bytes": None, "error": ""}
        try:
            depot = journal.store.depot(url, to_read=True)
            names = depot.names(f"{away.FOLDER}/{journal.meta.archive_uid}")
            found["files"] = sum(not is_part(name) for name in names)
            if local_path(depot.url):
                found["bytes"] = _sizes(depot.url, names)
        except FluxkvError as error:
            found["error"] = str(error)
        places.append(found)
    return {
        "alive": sum(1 for one in inside.values() if one.meta is not None and not one.meta.sealed), "ended": len(ended),
        "leaving": sum(1 for one in ended if one.meta is not None and one.meta.leaving),
        "bytes": journal.store.weigh([key for one in ended for key in one.keys]), "keep_s": rules.keep_children_s, "places": places,
        "damaged": {name: one.damage for name, one in inside.items() if one.damage},
    }  # fmt: skip


def _rules(journal: Journal, uri: str | None) -> tuple[Any, str]:
    from .archive_cmd import place_of_journal

    try:
        rules, _, place = place_of_journal(journal, uri, None)
    except Rejected as error:
        if error.code != "no-archive":
            raise
        from ..journal.archive_config import archive_rules

        return archive_rules(journal.look().config), ""
    return rules, place


def _sizes(folder: str, names: list[str]) -> int:
    import os

    total = 0
    for name in names:
        try:
            total += os.stat(os.path.join(folder, name)).st_size
        except OSError:
            continue
    return total


def _archive(journal: Journal, uri: str | None, url: str | None, all_of_them: bool, dry_run: bool, as_json: bool) -> None:
    from ..instances.archive_note import write_children_note
    from ..instances.departing import Departing
    from ..instances.paths import find_uri, state_dir_of
    from ..instances.whereabouts import is_child
    from .archive_cmd import place_of_journal

    _on_a_server(journal)
    rules, _, place = place_of_journal(journal, uri, url)
    if is_child(journal.store.namespace) and not url and not rules.url:
        raise Rejected(
            f"{journal.store.namespace} is a job itself: what is in its own directory goes some time after it", code="no-archive",
            hint="name a place that stays: --url, or [archive] url in its config; the root's keeper moves what ended here",
        )  # fmt: skip
    keep_s = 0.0 if all_of_them else rules.keep_children_s
    done = Departing(journal.store, place, find_uri(uri), keep_s, dry_run=dry_run).finish(_pausing)
    if not dry_run and (directory := state_dir_of(find_uri(uri))) is not None:
        error = next(iter(done.failed.values()), "")
        write_children_note(directory, journal.store.now(), done.url, error, len(done.written), done.size)
    _told(done, as_json)
    if done.failed:
        raise SystemExit(1)


def _pausing(done: Done, pause_s: float) -> None:
    """Whoever sits there hears what is waited for; what is broken off now, the next run goes on with."""
    click.echo(f"fluxkv: {len(done.waiting)} ended children are in the archive, and leave the server in {pause_s:.0f} s, since "
               "somebody may be reading them", err=True)  # fmt: skip


def _told(done: Done, as_json: bool) -> None:
    from . import render
    from .daemons import megabytes

    if as_json:
        render.print_json({
            "url": done.url, "dry_run": done.dry_run, "written": done.written, "gone": done.gone, "waiting": done.waiting,
            "bytes": done.size, "young": done.young, "held": done.held, "failed": done.failed,
        })  # fmt: skip
        return
    would = "would be " if done.dry_run else ""
    size = "" if done.dry_run else f" ({megabytes(done.size)})"
    render.out(f"{len(done.written)} ended children {would}put into {done.url}{size if done.written else ''}")
    if done.gone or not done.dry_run:
        render.out(f"{len(done.gone)} {would}taken out of the server")
    if done.young:
        render.out(f"{done.young} ended too recently (--now takes them, too)")
    if done.waiting:
        render.out(f"{len(done.waiting)} leave the server with the next run")
    for name, why in done.held.items():
        render.out(f"{name} stays for now: {why}")
    for name, why in done.failed.items():
        click.echo(f"fluxkv: warning: {name} stays in the server: {why}", err=True)


def _on_a_server(journal: Journal) -> None:
    if not isinstance(getattr(journal.store, "server", None), str):
        space = journal.store.namespace
        raise Rejected(
            f"{space} is read from the archive itself: nothing is moved there", code="ended",
            hint=f"fluxkv journal children --restore {space.split('/')[1]} brings it back, with all inside it",
        )  # fmt: skip


def _restore(journal: Journal, word: str) -> None:
    from ..instances import away
    from ..instances.child import child_namespace, child_space
    from ..journal.ids import f58, parse_id
    from . import render

    _on_a_server(journal)
    job = journal.find_job(journal.look(), parse_id(word))
    space = journal.store.namespace
    names = [child_namespace(space, job.id, number) for number in range(1, max(1, job.number) + 1)]
    names += [told] if (told := child_space(job, space)) and told not in names else []
    back = [name for name in names if away.bring_back(journal.store, name)]
    if not back:
        render.out(f"nothing of job {f58(job.id)} is in the archive only")
    for name in back:
        render.out(f"{name} is in the server again")


def _show(found: dict[str, Any], as_json: bool) -> None:
    from . import render
    from .daemons import megabytes

    if as_json:
        render.print_json(found)
        return
    size = f" ({megabytes(found['bytes'])})" if found["bytes"] is not None and found["ended"] else ""
    keep = "for ever" if found["keep_s"] == float("inf") else f"{render.duration_text(found['keep_s'])} after their end"
    render.out(f"in the server   {found['alive']} that run, {found['ended']} that ended{size}; these stay {keep}")
    for name, why in found["damaged"].items():
        click.echo(f"fluxkv: warning: {name} is damaged: {why}", err=True)
    for one in found["places"]:
        size = f" ({megabytes(one['bytes'])})" if one["bytes"] is not None else ""
        what = one["error"] or f"{one['files']} that ended{size}"
        render.out(f"in the archive  {what}: {one['url']}")
