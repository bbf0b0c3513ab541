"""`uri`: the address of an instance, for this host and for others. The only command that prints a password, when asked to."""

from __future__ import annotations

import click

from ..kvs.errors import Rejected


@click.command("uri")
@click.option("--remote", is_flag=True, help="For other hosts: fluxkv agent --join URI. It contains a password.")
@click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")
@click.option("--state-dir", type=click.Path(), metavar="DIR", help="The instance's state directory.")
def uri_(remote: bool, uri: str | None, state_dir: str | None) -> None:
    """Print the instance's URI: for FLUXKV_URI here, or (--remote) for a host that is to join.

    \b
    Examples:
      export FLUXKV_URI=$(fluxkv uri)
      fluxkv uri --remote > join.uri              of an instance started with --listen; whoever reads it can join
    """
    from ..instances.paths import find_uri
    from ..kvs.listening import Listen, join_url
    from ..kvs.uri import parse_server, parse_uri, with_namespace
    from .start_cmd import find_directory

    if not remote:
        click.echo(find_directory(state_dir, None).read()["uri"] if state_dir else find_uri(uri))
        return
    found = parse_uri(find_directory(state_dir, None).read()["uri"] if state_dir else find_uri(uri))
    if parse_server(found.server).kind not in ("unix", "memory"):
        click.echo(str(found))  # a server that other hosts reach as this one does
        return
    directory = find_directory(state_dir, uri)
    settings = directory.read()
    if not settings.get("listen"):
        raise Rejected(
            f"{found}: other hosts can not reach this instance", code="not-listening",
            hint=f"fluxkv stop, then fluxkv start --detach --listen --state-dir {directory.path}",
        )  # fmt: skip
    click.echo(with_namespace(join_url(directory.path, Listen(*settings["listen"])), found.namespace))
