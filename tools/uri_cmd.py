"""`uri`: the address of an instance, for this host and for others. The only command that prints a password, when asked to.
`proxy`: a shell or a command whose `fluxkv` acts on that instance.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from ..instances.job_path import JobPath


@click.command("uri")
@click.argument("target", required=False, metavar="[JOB|PATH]")
@click.option("--wait", is_flag=True, help="Wait until the job is an instance.")
@click.option("--local", is_flag=True, help="For this host (the default).")
@click.option("--remote", is_flag=True, help="For other hosts: fluxkv agent --join URI. It contains a password.")
@click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")
@click.option("--state-dir", type=click.Path(), metavar="DIR", help="The instance's state directory.")
def uri_(target: str | None, wait: bool, local: bool, remote: bool, uri: str | None, state_dir: str | None) -> None:
    """Print the instance's URI, or that of the one that a job is: for FLUXKV_URI here, or (--remote) for another host.

    \b
    Examples:
      export FLUXKV_URI=$(fluxkv uri)
      fluxkv batch sims.sh | xargs fluxkv uri --wait   of the instance that a job is, once it is there
      fluxkv uri --remote > join.uri              of an instance started with --listen; whoever reads it can join
    """
    from ..instances.paths import find_uri

    if local and remote:
        raise click.UsageError("--local and --remote do not go together")
    if wait and target is None:
        raise click.UsageError("--wait is for a JOB or PATH")
    found = str(_directory(state_dir).read()["uri"]) if state_dir else find_uri(uri)
    if target is not None:
        found = _resolved(found, target, wait=wait)
    click.echo(_remote(found, state_dir) if remote else found)


def _directory(state_dir: str) -> Any:
    from .start_cmd import find_directory

    return find_directory(state_dir, None)


def _remote(uri: str, state_dir: str | None) -> str:
    """The address by which other hosts reach an instance. Raises `Rejected` where none does."""
    from ..kvs.listening import Listen, join_url
    from ..kvs.uri import parse_server, parse_uri, with_namespace
    from .start_cmd import find_directory

    parsed = parse_uri(uri)
    if parse_server(parsed.server).kind not in ("unix", "memory"):
        return uri  # a server that other hosts reach as this one does
    from ..instances.paths import StateDir
    from ..kvs.server import state_dir_behind

    address = parse_server(parsed.server)
    behind = StateDir(state_dir_behind(address.path)) if address.kind == "unix" and not state_dir else None
    directory = find_directory(behind.path if behind is not None and os.path.exists(behind.instance_file) else state_dir,
                               with_namespace(uri, "/"))  # whose server it is  # fmt: skip
    settings = directory.read()
    if not settings.get("listen"):
        raise Rejected(
            f"{uri}: other hosts can not reach this instance", code="not-listening",
            hint=f"fluxkv stop, then fluxkv start --detach --listen --state-dir {directory.path}",
        )  # fmt: skip
    return with_namespace(join_url(directory.path, Listen(*settings["listen"])), parsed.namespace)


def _resolved(uri: str, target: str, *, wait: bool = False, remark: bool = False) -> str:
    """The URI of the instance that a job is, or one given as it is (schemes as Flux's: `jobid:` is a job).

    remark: say if it can only be read.
    """
    from ..instances.job_path import instance_at, parse_path, wait_for_instance
    from ..kvs.uri import parse_uri

    text = target.removeprefix("jobid:")
    if text == target and ":" in target.partition("/")[0]:
        return str(parse_uri(target))
    path: JobPath = parse_path(text)
    if remark and not wait:
        try:
            return instance_at(uri, path, alive=True)
        except Rejected as error:
            if error.code != "ended":
                raise
            click.echo(f"fluxkv: {error}", err=True)
    if not wait:
        return instance_at(uri, path)
    from .reading import follow

    return wait_for_instance(uri, path, follow)


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("target", metavar="JOB|PATH|URI")
@click.argument("words", nargs=-1, metavar="[COMMAND [ARGS]...]", type=click.UNPROCESSED)
@click.option("--wait", is_flag=True, help="Wait until the job is an instance.")
@click.option("--uri", metavar="URI", help="The instance that has the job (default: FLUXKV_URI, else the one running).")
def proxy(target: str, words: tuple[str, ...], wait: bool, uri: str | None) -> int:
    """Run a shell, or a command, in which every fluxkv command acts on the instance that a job is.

    It runs here, not on what the job was given, and does not end the job when it ends. An instance whose job is over can be
    looked into in the same way.

    \b
    Examples:
      fluxkv proxy ƒ3kQ                           a shell, beside fluxkv alloc --bg or fluxkv batch
      fluxkv proxy ƒ3kQ fluxkv submit ./simulate  one command
      fluxkv proxy --wait ƒ3kQ fluxkv jobs -a
    """
    from ..instances.paths import find_uri, state_dir_of
    from ..instances.whereabouts import copies_open
    from ..kvs.redis_store import open_store
    from .inside import IGNORED, OUTER

    is_uri = ":" in target.partition("/")[0] and not target.startswith("jobid:")
    found = _resolved("" if is_uri else find_uri(uri), target, wait=wait, remark=True)
    store = open_store(found)
    try:
        store.meta()  # says that there is none
    finally:
        store.close()
    environment = {name: text for name, text in os.environ.items() if name not in (*OUTER, "FLUXKV_STATE_DIR")}
    environment |= {"FLUXKV_URI": found, "FLUX_URI": found}
    directory = state_dir_of(found)
    if directory is not None:
        environment["FLUXKV_STATE_DIR"] = directory.path
    job = found.partition("#")[2].rpartition("/")[2].partition(".")[0]
    environment["FLUX_ENCLOSING_ID"] = job
    if not job:
        del environment["FLUX_ENCLOSING_ID"]
    command = list(words) or [os.environ.get("SHELL") or "/bin/sh"]
    try:
        if copies_open():  # they end with this process
            _, status = os.waitpid(os.posix_spawnp(command[0], command, environment, setsigdef=IGNORED), 0)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        for signum in IGNORED:
            signal.signal(signum, signal.SIG_DFL)
        os.execvpe(command[0], command, environment)
    except OSError as error:
        from .exec_errors import tell_not_begun

        return tell_not_begun(command[0], error)
