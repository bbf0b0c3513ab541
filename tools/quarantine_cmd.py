"""`fluxkv journal quarantine`: what is set aside, listed; and an entry that cannot be read, set aside by an operator's word."""

from __future__ import annotations

import os
from typing import Any

import click

from .target import open_journal, target_options


@click.command()
@click.argument("version", metavar="[VERSION]", type=click.IntRange(1), required=False)
@click.option("-m", "--message", metavar="TEXT", default="", help="Why (default: what is wrong with it).")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@target_options
def quarantine(version: int | None, message: str, as_json: bool, uri: str | None, state_dir: str | None) -> None:
    """List what is set aside; with VERSION, set that entry aside, which cannot be read.

    Events that contradict the state are set aside by themselves, with their job. An entry that cannot be read stops whoever
    folds the journal, until you set it aside here: what it said is lost then, jobs of which later entries make no sense
    without it end, and no node gets new work before its agent has said what it runs. Look at what journal verify says first,
    and at a copy, an archive or a replica that may still have the entry.

    \b
    Examples:
      fluxkv journal quarantine
      fluxkv journal quarantine 1234 -m "bad disk"
    """
    if version is not None and state_dir and not uri:
        raise click.UsageError("an entry is set aside in an instance that runs: start it, or name it with --uri")
    with open_journal(uri, state_dir) as journal:
        if version is None:
            _list(journal.look().quarantine, as_json)
            return
        from ..instances.entry_aside import set_entry_aside

        why = set_entry_aside(journal, version, message, os.getuid())
    from . import render

    if as_json:
        render.print_json({"version": version, "why": why})
    else:
        render.out(f"version {version} is set aside ({why}); fluxkv restart brings back daemons that were given up")


def _list(found: Any, as_json: bool) -> None:
    from ..journal.quarantine import listed
    from . import render

    asides = listed(found.table)
    if as_json:
        render.print_json({"impossible": found.total, "aside": [aside.document() for aside in asides]})
        return
    rows = [[aside.version, aside.what, aside.count, aside.said or "-", aside.why] for aside in asides]
    render.table(["VERSION", "WHAT", "EVENTS", "SAID", "WHY"], rows, right=(0, 2, 3))
