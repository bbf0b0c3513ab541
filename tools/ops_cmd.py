"""`fluxkv ops`: what an operator decides that no daemon may. Renders; rules live in `instances`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ..kvs.errors import Corrupt
from .lazy_group import SuggestingGroup
from .ops_servers import acl, failover

if TYPE_CHECKING:
    from ..instances.adopting import Report
    from ..instances.paths import StateDir
    from ..kvs.port import Store


@click.group(cls=SuggestingGroup, context_settings={"help_option_names": ["-h", "--help"]})
def ops() -> None:
    """What only an operator decides: to go on after a loss of history, to hand over to another server, who may use it.

    \b
    Examples:
      fluxkv ops adopt              what is lost, if anything, and who knows of it
      fluxkv ops adopt --force      go on without it
      fluxkv ops rebuild            a lost guard table, made again of the journal
      fluxkv ops failover --dry-run    how a replica would become the primary
    """


ops.add_command(failover)
ops.add_command(acl)


@ops.command("adopt")
@click.option("--force", is_flag=True, help="Do it. Without this the report is all.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@click.option("--uri", metavar="URI", help="The instance to speak to (default: FLUXKV_URI, else the one running).")
@click.option("--state-dir", metavar="DIR", help="The instance whose state is in DIR; it need not be running.")
def adopt(force: bool, as_json: bool, uri: str | None, state_dir: str | None) -> None:
    """Say what the journal has lost, and go on from what is left.

    A server that comes back with less than was acknowledged (its files were cut or restored, a replica that lagged was
    promoted, the database was flushed) is written to by nobody: restore its files if you can. If not, --force opens a new
    epoch on what is left. Then each node says what it runs: attempts of jobs that the journal knows are adopted, if what they
    run on is still free; all others are ended, each with an event. Ends that were lost are reported again.

    Exit status 0 if nothing is lost, or it has been adopted; 4 if something is lost.

    \b
    Examples:
      fluxkv ops adopt
      fluxkv ops adopt --json --state-dir ~/old
      fluxkv ops adopt --force
    """
    from ..instances import adopting
    from . import render
    from .daemons import given_up

    directory, address = _place(uri, state_dir)
    with adopting.opened(address, directory) as store:
        report = adopting.examine(store, directory)
        if as_json:
            render.print_json(report.document())
        elif report.loss is None or not force:
            _show(report)
        if report.loss is None:
            if force and report.fenced:
                adopting.adopt(store, directory, report, "cli")
                render.say("it may be written to again")
            return
        if force:
            version = adopting.adopt(store, directory, report, "cli")
            lost = f"versions {report.loss.first} to {report.loss.last}"
            render.say(f"adopted in version {version}: {lost} are given up")
            _note_in_log(store, version, lost)
            if directory is not None and not directory.running():
                for name in given_up(directory):  # for want of this; `status` has no more to say of it
                    os.unlink(directory.join("run", f"{name}.failed"))
                if directory.read().get("parent"):
                    render.say(f"fluxkv batch --resume {store.namespace.rpartition('/')[2]} goes on with it, once its job is over")
                else:
                    render.say(f"fluxkv start --detach --state-dir {directory.path} brings the instance up")
            return
    raise Corrupt(
        f"versions {report.loss.first} to {report.loss.last} are lost", code="history-lost",
        hint="nothing has been changed. Restore the server's files, or go on without: fluxkv ops adopt --force",
    )  # fmt: skip


@ops.command("rebuild")
@click.option("--uri", metavar="URI", help="The instance to speak to (default: FLUXKV_URI, else the one running).")
@click.option("--state-dir", metavar="DIR", help="The instance whose state is in DIR; it need not be running.")
def rebuild(uri: str | None, state_dir: str | None) -> None:
    """Make the tables beside the journal anew where the server has lost or mixed up one: guards, producers, inboxes.

    All they hold follows from the journal's entries, which are read for it from the first one on and not changed. Nothing can be
    written meanwhile. A new epoch begins: each node says what it runs, tasks go on. Where nothing is wrong nothing is done.

    \b
    Examples:
      fluxkv ops rebuild
      fluxkv ops rebuild --state-dir ~/old
    """
    from ..instances import adopting, table_repair
    from ..journal.log import Journal
    from . import render
    from .daemons import given_up

    directory, address = _place(uri, state_dir)
    with adopting.opened(address, directory) as store:
        journal = Journal(store, by="cli")
        version = table_repair.make_tables_anew(journal)
        if not version:
            render.say("nothing is wrong with the tables beside the journal: nothing was done")
            return
        render.say(f"guards, producers and inboxes are made anew of versions 1 to {version}")
        report = adopting.examine(store, directory)
        if report.loss is not None:
            render.say(f"versions {report.loss.first} to {report.loss.last} are lost: fluxkv ops adopt")
        elif directory is not None and (given_up(directory) or not directory.running()):
            render.say(f"fluxkv start --detach --state-dir {directory.path} brings the instance up")


def _place(uri: str | None, state_dir: str | None) -> tuple[StateDir | None, str]:
    """The instance's state directory, if it is on this host, and its address."""
    from ..instances.paths import StateDir, find_uri, state_dir_of

    if state_dir and not uri:
        directory = StateDir(os.path.abspath(os.path.expanduser(state_dir)))
        return directory, str(directory.read()["uri"])
    address = find_uri(uri)
    return state_dir_of(address), address
def _note_in_log(store: Store, version: int, lost: str) -> None:
    """Whoever wonders later why a job is not known finds it in `dmesg`."""
    import time

    from ..journal.wire import pack
    from ..kvs.keys import Keys

    text = f"an operator went on without {lost}, which were lost: adopted in version {version}"
    store.push(Keys(store.namespace).log, [pack([time.time(), "ops", "warning", text])])


def _show(report: Report) -> None:
    """The report as lines."""
    from . import render

    at = f" ({render.human_time(report.time)})" if report.time else ""
    if report.loss is None:
        render.out(f"nothing is lost: the journal of {report.namespace} ends at version {report.version}{at},")
        render.out("and nobody here knows of more")
        if report.fenced:
            render.out(f"somebody missed entry {report.fenced}, which is there: nothing is written until its keeper has seen")
            render.out("that (fluxkv start, if it is down), or by --force")
        return
    if report.fresh:
        render.out(f"the server has no journal of {report.namespace} any more; adopting begins a new one")
    else:
        render.out(f"the journal of {report.namespace} ends at version {report.version}{at}")
    render.out(f"lost: versions {report.loss.first} to {report.loss.last}, known by")
    for line in report.loss.known:
        render.out(f"  {line}")
    render.out(f"jobs that run by the journal: {report.running}")
    render.out("tasks on this host that the journal does not know:" + ("" if report.tasks else " none"))
    for task in report.tasks:
        render.out(f"  {task.job} (attempt {task.attempt}, since {render.human_time(task.since)}) {task.what}")
