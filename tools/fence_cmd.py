"""`resource fence`: a person's word that nothing runs on nodes that are out of reach."""

from __future__ import annotations

import os

import click

from .reading import ranks_of, uri_option
from .target import open_journal


@click.command("fence")
@click.argument("targets")
@click.argument("reason", nargs=-1)
@uri_option
def fence(targets: str, reason: tuple[str, ...], uri: str | None) -> None:
    """Say that nothing runs on TARGETS (ranks or hosts) any more: they are switched off, or were reset.

    A node that is silent is offline, and what ran there is waited for, since its tasks go on while it is cut off. After this
    word they are lost: their jobs end, or begin again elsewhere if they asked for that (--retry). What comes back all the same is
    ended when its node is heard again.

    \b
    Examples:
      fluxkv resource fence 3 power supply
    """
    from ..journal import decide_hosts

    with open_journal(uri) as journal:
        now = journal.store.now()
        journal.settle(lambda state: decide_hosts.fence(state, ranks_of(state, targets), " ".join(reason), os.getuid(), now))
