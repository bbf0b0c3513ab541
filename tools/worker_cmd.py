"""`worker`: this host plans for an instance that was started on another."""

from __future__ import annotations

import os
import signal
import sys

import click

from ..kvs.uri import PASSWORD_VARIABLE, public
from .agent_cmd import TOLD, hide_password, place_of, stay


@click.command()
@click.option("--join", "address", metavar="URI|FILE|-", help="The instance, by what fluxkv uri --remote prints there.")
@click.option("--name", metavar="HOST", help="What this host is called (default: its host name).")
@click.option("--workers", type=click.IntRange(1, 16), default=1, show_default=True, metavar="N", help="Worker processes.")
@click.option("--state-dir", type=click.Path(), metavar="DIR", help="Where this host's part lives.")
@click.option("--detach", is_flag=True, help="Leave it running (fluxkv stop --state-dir DIR ends it).")
def worker(address: str | None, name: str | None, workers: int, state_dir: str | None, detach: bool) -> None:
    """Plan for an instance that was started on another host: when that host dies, jobs go on being placed.

    Of all workers one plans at a time. The others follow the journal, and one of them goes on within seconds when it
    is gone; so do cron, and the look at whether anything was lost. Nothing runs here: that is what agents are for.

    \b
    Examples:
      fluxkv worker --join join.uri               the address in a file: kept out of ps and of the shell's history
      fluxkv worker --join - --detach < join.uri
    """
    from ..instances import joining
    from ..instances import start as starting
    from ..instances.discover import host_name

    name = name or host_name()
    uri = joining.read_address(address) if address else ""
    directory = place_of(uri, f"{name} worker", state_dir, "workers")
    settings = joining.prepare_worker(directory, uri, name, workers)
    hide_password(address, directory, detach, "worker")
    os.environ.pop(PASSWORD_VARIABLE, None)
    if not detach:
        signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
    starting.start_keeper(directory, 0 if detach else os.getpid())
    where = public(settings["uri"]).partition("?")[0]
    click.echo(f"fluxkv: {name} plans for {where} (policy {settings['policy']})", err=detach)
    if detach:
        click.echo(directory.path)
        return
    sys.exit(stay(directory))
