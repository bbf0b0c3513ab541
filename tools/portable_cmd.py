"""`fluxkv journal import|fork`: a new instance from a history. Decides what is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..journal.shown import counted
from ..kvs.errors import Rejected
from .reading import bound
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..instances.rebuild import Made
    from ..journal.log import Journal

_to = click.option("--to", metavar="DIR", help="The state directory to make (default: a new one among yours).")


def place_for(to: str | None) -> str:
    """Where the new state directory is to be. Raises `Rejected` if there is something."""
    from ..instances.rebuild import check_free
    from ..instances.start import new_state_dir

    return check_free(to or new_state_dir().path)


@click.command("import")
@click.argument("place", metavar="FILE|DIR|URL")
@_to
@click.option("--uid", metavar="UID", help="Which instance's history, where an archive has several.")
@click.option("--dry-run", is_flag=True, help="Read and fold all of it, and make nothing.")
def import_(place: str, to: str | None, uid: str | None, dry_run: bool) -> None:
    """Make a state directory from an exported file or an archive: the same jobs, ids and queues, as a new instance.

    Everything is checked on the way: checksums, the chain of segments, and that it folds to the state it was exported from.
    What ran is lost; pending jobs run once the new instance is started. Output of jobs that named no file is not part of it.

    \b
    Examples:
      fluxkv journal export -f zip -o all.zip && fluxkv journal import all.zip --to ~/again
      fluxkv journal archive --now --url ~/history && fluxkv journal import ~/history --dry-run
    """
    from ..instances.portable import archived
    from ..instances.rebuild import fold, rebuild

    source = archived(place, uid or "")
    path = place_for(to)
    if dry_run:
        state = fold(source)
        jobs = state.retired + len(state.jobs)
        click.echo(f"{source.where}: {state.version} commits, {counted(jobs, 'job')}, digest {state.digest().hex()}: sound")
        return
    show_made(rebuild(path, source, f"imported from {source.where}"))


@click.command()
@click.option("--at", "moment", metavar="VERSION|TIME", help="Up to there (default: all of it).")
@_to
@target_options
def fork(moment: str | None, to: str | None, uri: str | None, state_dir: str | None) -> None:
    """Make a state directory whose history is this instance's up to a moment: to try what would have come of another way.

    It is an instance of its own. What ran at that moment is marked as lost there, and touches nothing that runs here; its
    queues and cron entries are stopped: fluxkv queue start --all in it lets pending jobs run.

    \b
    Examples:
      fluxkv journal fork --at 'yesterday 17:00' --to ~/try
      fluxkv journal fork --at 120 --to ~/what-if
    """
    from ..instances.paths import StateDir, find_uri, state_dir_of
    from ..instances.portable import history_of
    from ..instances.rebuild import rebuild

    path = place_for(to)
    with open_journal(uri, state_dir) as journal:
        directory = StateDir(state_dir) if state_dir else state_dir_of(find_uri(uri))
        version = version_of(journal, moment)
        source = history_of(journal, version, directory.read() if directory is not None else {})
        show_made(rebuild(path, source, f"fork of instance {source.uid} at version {version}", forked=True))


def version_of(journal: Journal, moment: str | None) -> int:
    """The last version up to a moment, the tip without one. Raises `Rejected` (code bad-moment) if there is none."""
    from ..instances.portable import version_at

    tip = journal.store.meta().version
    version, time = bound(journal, moment)
    if version is None:
        version = tip if time is None else version_at(journal, time)
    if not 0 < version <= tip:
        raise Rejected(f"version {version}: the journal has versions 1 to {tip}", code="bad-moment")
    return version


def show_made(made: Made) -> None:
    """Say what was made, and what to do with it."""
    click.echo(f"{made.path}: instance {made.uid}, version {made.version}, {counted(made.jobs, 'job')}, digest {made.digest}")
    if made.lost_jobs:
        from ..journal.ids import f58

        click.echo(f"lost, they ran: {', '.join(map(f58, made.lost_jobs))}")
    click.echo(f"fluxkv start --detach --state-dir {made.path} brings it up", err=True)
