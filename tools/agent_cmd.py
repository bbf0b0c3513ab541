"""`agent`: this host joins an instance that runs elsewhere, and leaves it."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import click

from ..kvs.errors import FluxkvError, Rejected, Unavailable
from ..kvs.uri import PASSWORD_VARIABLE
from .reviving import revive

UP_S = 15.0
LOOK_S = 0.5
ENDED, DEAD = 3, 40  # looks at which no daemon was there: one has ended them in order; they do not come up again
TOLD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@click.command()
@click.option("--join", "address", metavar="URI|FILE|-", help="The instance, by what fluxkv uri --remote prints there.")
@click.option("--name", metavar="HOST", help="What this host is called in the instance (default: its host name).")
@click.option("--cores", type=click.IntRange(1), metavar="N", help="Cores it brings along (default: all it has).")
@click.option("--gpus", type=click.IntRange(0), metavar="N", help="GPUs (default: those found).")
@click.option("--memory", type=click.IntRange(0), metavar="MB", help="Memory in MiB.")
@click.option("--property", "properties", multiple=True, metavar="NAME", help="A property of it; may be repeated.")
@click.option("--state-dir", type=click.Path(), metavar="DIR", help="Where this host's part lives.")
@click.option("--detach", is_flag=True, help="Leave it running (fluxkv stop --state-dir DIR ends it).")
@click.option("--leave", is_flag=True, help="Wait until its jobs are over, then stop, and take it out of the inventory.")
@click.option("--timeout", metavar="FSD", help="With --leave: give up waiting after this long.")
def agent(
    address: str | None, name: str | None, cores: int | None, gpus: int | None, memory: int | None,
    properties: tuple[str, ...], state_dir: str | None, detach: bool, leave: bool, timeout: str | None,
) -> None:  # fmt: skip
    """Make this host a node of an instance that runs on another (fluxkv start --listen).

    It gets a rank of its own, and the same one when it comes back, after a reboot too. It serves the instance until the
    command is ended: then its tasks are ended and its node is offline. When the network is cut, or the instance's host is
    away, the tasks go on and report later.

    \b
    Examples:
      fluxkv agent --join join.uri                the address in a file: kept out of ps and of the shell's history
      fluxkv agent --join - --detach < join.uri
      fluxkv agent --state-dir ~/node             once more, as it was (in a service's unit, say)
      fluxkv agent --leave                        go, when what runs here is over
    """
    from ..instances import joining
    from ..instances import start as starting
    from ..instances.discover import host_name

    if leave:
        if address:
            raise click.UsageError("--leave does not go with --join")
        _leave(joined_directory(state_dir), timeout)
        return
    uri = joining.read_address(address) if address else ""
    directory = place_of(uri, name or host_name(), state_dir)
    options = {"name": name, "cores": cores, "gpus": gpus, "memory": memory, "properties": properties}
    settings = joining.prepare(directory, uri, options)
    hide_password(address, directory, detach)
    os.environ.pop(PASSWORD_VARIABLE, None)  # it stands in a file now: daemons and tasks need not know it
    try:
        rank = joining.announce(directory, settings)
    except Unavailable as error:
        if "ranks" not in settings or address:
            joining.undo(directory, settings)
            raise
        click.echo(f"fluxkv: {error}; this host goes on waiting for it", err=True)  # as after a power cut that hit both
        rank = settings["ranks"][0]
    except FluxkvError:
        joining.undo(directory, settings)
        raise
    if not detach:
        signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)  # `stay` takes them, so that what was started is ended in order
    starting.start_keeper(directory, 0 if detach else os.getpid())
    _say_up(settings, rank, to_stderr=detach)
    if detach:
        click.echo(directory.path)
        return
    sys.exit(stay(directory))


def place_of(uri: str, name: str, state_dir: str | None, part: str = "ranks") -> Any:
    """The directory from which this host joins, or joins again. part: as for `joined_directory`. Raises `Rejected` if it runs."""
    from ..instances import joining
    from ..instances.paths import StateDir, lock_held

    if state_dir:
        directory = StateDir(os.path.abspath(state_dir))
    elif uri:
        directory = joining.default_directory(uri, name)
    else:
        directory = joined_directory(None, part)
    if lock_held(directory.lock_file("keeper")) and directory.read().get("join"):
        raise Rejected(f"{directory.path}: this host has joined already, and runs", code="running",
                       hint=f"fluxkv status --state-dir {directory.path}")  # fmt: skip
    return directory


def hide_password(address: str | None, directory: Any, detach: bool, command: str = "agent") -> None:
    """A password on the command line would be in `ps` as long as this runs: go on as a command without it."""
    if address and "@" in address and not detach:
        from ..kvs.uri import parse_server, parse_uri

        if parse_server(parse_uri(address).server).password:
            again = "from fluxkv.tools.main import main; main()"  # and whatever lies in this directory (-P)
            sys.stdout.flush()
            os.execv(sys.executable, [sys.executable, "-P", "-c", again, command, "--state-dir", directory.path])


def _say_up(settings: dict[str, Any], rank: int, to_stderr: bool) -> None:
    from ..journal.log import Journal
    from ..kvs.redis_store import open_store
    from ..kvs.uri import public
    from .reading import follow

    where = public(settings["uri"]).partition("?")[0]
    store = open_store(settings["uri"], patience_s=0.5)
    try:
        journal = Journal(store)
        for state in follow(journal, journal.look(), UP_S):
            node = state.nodes.get(rank)
            if not signal.sigpending().isdisjoint(TOLD):
                return
            if node is not None and node.online:
                click.echo(f"fluxkv: this host is {node.host}, rank {rank} of {where}", err=to_stderr)
                return
        click.echo("fluxkv: the node is not up yet: fluxkv resource status; fluxkv status shows its agent", err=True)
    except Unavailable as error:
        click.echo(f"fluxkv: {error}", err=True)
    finally:
        store.close()


def stay(directory: Any) -> int:
    """As long as the daemons live, or until told to end, which ends them in order. Those that were all killed at once are started
    again."""
    from ..instances import start as starting
    from ..instances.paths import lock_held

    missing = 0
    while (word := signal.sigtimedwait(TOLD, LOOK_S)) is None:
        alive = any(lock_held(directory.lock_file(role)) for role in ("keeper", "agent", "launcher"))
        missing = 0 if alive else missing + 1
        if missing > (ENDED if os.path.exists(directory.join("run", "stopping")) else DEAD):
            raise Unavailable(f"{directory.path}: its daemons have ended", code="gone", hint="see its log/keeper.log")
        if missing % (ENDED + 1) == 1:
            revive(directory)
    try:
        starting.stop(directory)
    except Rejected:
        pass  # it has been stopped from elsewhere
    return 128 + signal.SIGINT if word.si_signo == signal.SIGINT else 0


def joined_directory(state_dir: str | None, part: str = "ranks") -> Any:
    """The directory named, or the only one of this user from which this host has joined something and has a part in it still:
    nodes ("ranks") or "workers"."""
    from ..instances.paths import StateDir, known

    found = [StateDir(os.path.abspath(state_dir))] if state_dir else [one for one in known() if _takes_part(one, part)]
    if len(found) == 1 and found[0].read().get("join"):
        return found[0]
    if state_dir:
        raise Rejected(f"{state_dir}: no host has joined from here", code="no-state-dir", hint="fluxkv list")
    if not found:
        command = "agent" if part == "ranks" else "worker"
        again = f"fluxkv {command} --join URI; fluxkv uri --remote, on the instance's host, prints it"
        raise Rejected("this host has not joined anything", code="no-instance", hint=again)
    raise Rejected(
        f"this host has joined {len(found)} instances", code="which-instance",
        hint=f"name one with --state-dir: {', '.join(one.path for one in found)}",
    )  # fmt: skip


def _takes_part(directory: Any, part: str) -> bool:
    settings = directory.read()
    return bool(settings.get("join") and settings.get(part))


def _leave(directory: Any, timeout: str | None) -> None:
    from ..instances import joining
    from ..instances import start as starting
    from ..journal import decide
    from ..journal.log import Journal
    from ..kvs.redis_store import open_store
    from .options import timeout_of
    from .reading import follow

    settings = directory.read()
    ranks = list(settings.get("ranks", ()))
    limit = timeout_of(timeout)
    store = open_store(settings["uri"])
    try:
        journal = Journal(store, by="join")
        state = journal.look()
        here = [rank for rank in ranks if rank in state.nodes]
        if here:
            now = time.time()
            journal.settle(lambda state: decide.drain(state, here, "leaves the instance", 1, now), state)
            for seen in follow(journal, state, limit):
                if not any(seen.nodes[rank].busy or seen.nodes[rank].grants for rank in here if rank in seen.nodes):
                    break
            else:
                raise Unavailable(
                    "jobs still run here", code="timeout", hint="it stays drained; try again, or cancel them: fluxkv jobs"
                )
    finally:
        store.close()
    if starting.keeper_pid(directory):
        starting.stop(directory)
    joining.forget(directory, settings)
    click.echo(f"fluxkv: {settings['host']['name']} has left", err=True)
