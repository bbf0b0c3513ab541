"""`fluxkv ops failover` and `ops acl`: the servers behind instances. Rules are in kvs/; this asks and tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..kvs.port import Store

URI = click.option("--uri", metavar="URI", help="The instance (default: FLUXKV_URI, else the one running).")


@click.command()
@URI
@click.option("--dry-run", is_flag=True, help="Check, say what would be done, and do nothing.")
@click.option("--admin-user", default="", metavar="NAME", help="A user who may pause writers and make servers replicas.")
@click.option("--admin-password-file", default="", type=click.Path(), metavar="FILE", help="That user's password.")
@click.option("--timeout", default="30s", show_default=True, metavar="FSD", help="Give up a step after this long.")
def failover(uri: str | None, dry_run: bool, admin_user: str, admin_password_file: str, timeout: str) -> None:
    """Make a replica the primary, in order: what was acknowledged is there afterwards. For instances behind sentinels.

    Running jobs go on; submissions wait a moment.

    \b
    Examples:
      fluxkv ops failover --dry-run
      fluxkv ops failover
    """
    import os

    from ..instances.paths import find_uri
    from ..journal.duration import parse_duration
    from ..kvs.failover import FailOver
    from ..kvs.redis_store import open_store
    from ..kvs.uri import host_port
    from . import render

    address = find_uri(uri)
    work = FailOver(
        address, user=admin_user, password_file=os.path.abspath(admin_password_file) if admin_password_file else "",
        timeout_s=parse_duration(timeout), say=render.out,
    )  # fmt: skip
    found = work.survey()
    for warning in found.warnings:
        click.echo(f"! {warning}", err=True)
    if dry_run:
        render.out(f"primary    {host_port(*found.primary)}")
        render.out(f"replicas   {', '.join(host_port(*one) for one in found.replicas)}")
        for number, step in enumerate(work.steps(found), 1):
            render.out(f"{number}. {step}")
        return
    store = open_store(address)
    try:
        epoch = store.meta().epoch
        new = work.run(found)
        _wait_for_epoch(store, epoch, parse_duration(timeout))
    finally:
        store.close()
    render.out(f"the primary is {host_port(*new)}")


def _wait_for_epoch(store: Store, old: int, timeout_s: float) -> None:
    """The keeper takes up the new primary's history. Raises `Unavailable` when none does."""
    import time

    from ..kvs.errors import Unavailable

    deadline = time.monotonic() + timeout_s
    while store.meta().epoch == old:
        if time.monotonic() > deadline:
            raise Unavailable(
                "the fail-over is done, but no keeper has taken up the new primary's history", code="epoch",
                hint="fluxkv status; fluxkv start --detach --state-dir DIR brings the instance up",
            )  # fmt: skip
        time.sleep(0.02)


@click.command()
@URI
@click.option("--user", default="", metavar="NAME", help="The user's name (default: that of the address).")
@click.option("--password-file", default="", type=click.Path(), metavar="FILE", help="Its password (default: that of the address).")
def acl(uri: str | None, user: str, password_file: str) -> None:
    """Print the line of a server's ACL for a user who may use this instance, the instances inside its jobs, and nothing else.

    It goes into the server's ACL file, or behind ACL SETUSER without its first word. The password is in it as a hash.

    \b
    Examples:
      fluxkv ops acl --user sims --password-file pw
    """
    from ..instances.paths import find_uri
    from ..kvs.acl import rule
    from ..kvs.errors import Rejected
    from ..kvs.uri import parse_server, parse_uri, read_secret, secret_of
    from . import render

    parsed = parse_uri(find_uri(uri))
    address = parse_server(parsed.server)
    name = user or address.user
    if not name or name == "default" or len(name.split()) != 1:
        raise Rejected("an ACL line is for a user with a name", code="no-user", hint="--user NAME")
    password = read_secret(password_file) if password_file else secret_of(address)
    if not password:
        raise Rejected(f"no password for {name}", code="no-password", hint="--password-file FILE")
    render.out(rule(name, parsed.namespace, password, address.db))
