"""`fluxkv journal salvage`: a new instance of what can be had of a damaged one. Decides what is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import render
from .portable_cmd import place_for, show_made

if TYPE_CHECKING:
    from ..instances.salvage import Salvaged


@click.command()
@click.argument("places", nargs=-1, required=True, metavar="DIR|FILE|URL...")
@click.option("--to", metavar="DIR", help="The state directory to make (default: a new one among yours).")
@click.option("-o", "--output", metavar="FILE", help="Make a file for journal import instead.")
@click.option("--namespace", metavar="NAME", default="", help="Of a child instance whose parent's files are read: /ƒ3kQ.")
@click.option("--dry-run", is_flag=True, help="Say what is lost, and make nothing.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
def salvage(places: tuple[str, ...], to: str | None, output: str | None, namespace: str, dry_run: bool, as_json: bool) -> int:
    """Read everything that can still be read of a journal, and make a new instance of it.

    PLACES are state directories, folders of append-only files, single such files, and archives, the most trusted first; what
    one lacks another may have. Nothing is changed there. In place of each entry that is nowhere, or whose checksum does not
    hold, the new history has one that says so: versions, ids and everything else stay what they were. What it must have said,
    since what follows is impossible otherwise, is put there, flagged as inferred. What was lost is listed, with the jobs it
    touches as far as can be known, and whatever will be set aside; exit status 0 if nothing was lost, else 1.

    \b
    Examples:
      fluxkv journal salvage ~/old --dry-run
      fluxkv journal salvage ~/old --to ~/rescued
      fluxkv journal salvage ~/old ~/history --output rescued.zip
    """
    from ..instances.portable import write_file
    from ..instances.rebuild import rebuild
    from ..instances.salvage import gather, history

    if output and to:
        raise click.UsageError("--to makes a state directory, --output a file: name one")
    path = "" if output or dry_run else place_for(to)
    found = history(gather(places, namespace), ", ".join(places))
    _show(found, as_json)
    if not dry_run:
        if output:
            version, digest = write_file(output, found.source)
            render.say(f"{output}: versions 1 to {version}, digest {digest}")
        else:
            made = rebuild(path, found.source, f"salvaged from {found.source.where}")
            if not as_json:
                show_made(made)
    return 1 if found.lost else 0


def _show(found: Salvaged, as_json: bool) -> None:
    from ..journal.ids import f58

    jobs = [f58(job) for job in found.jobs]
    lost = sum(last - first + 1 for first, last, _ in found.lost)
    if as_json:
        rows = [{"first": first, "last": last, "why": why} for first, last, why in found.lost]
        inferred = [
            {"version": version, "event": name, "subject": f58(subject) if isinstance(subject, int) else subject}
            for version, events in sorted(found.inferred.items()) for name, subject, *_ in events
        ]  # fmt: skip
        aside = [one.document() for one in found.aside]
        render.print_json(
            {"version": found.versions, "lost": rows, "jobs": jobs, "notes": found.notes, "inferred": inferred, "aside": aside}
        )
        return
    for note in found.notes:
        render.say(f"fluxkv: {note}")
    for first, last, why in found.lost:
        render.out(f"version {first}: {why}" if first == last else f"versions {first} to {last}: {why}")
    for version, events in sorted(found.inferred.items()):
        told: dict[int | str, list[str]] = {}
        for name, subject, *_ in events:
            told.setdefault(subject, []).append(name)
        for subject, names in told.items():
            what = f"job {f58(subject)}" if isinstance(subject, int) else subject
            render.out(f"inferred, version {version}: {what}: {', '.join(names)}")
    for one in found.aside:
        render.out(f"set aside: {one.what}: {one.why}")
    if jobs:
        render.out(f"jobs affected: {', '.join(jobs)}")
    render.out(f"{found.versions - lost} of {found.versions} commits read" + (f", {lost} LOST" if lost else ", all of them"))
