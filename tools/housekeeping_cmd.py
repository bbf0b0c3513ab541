"""`fluxkv housekeeping`: the site's scripts that look after nodes when a job is over, as they go on. Rules are in
`journal.decide_housekeeping`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Rejected
from .lazy_group import SuggestingGroup
from .reading import at_option, load, ranks_of, uri_option
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.decide import Decision
    from ..journal.keeping import Keeping
    from ..journal.state import State

LIST = "{id:>12} {nnodes:>6} {active:>6} {runtime!F:>8} {nodelist}"


@click.group(cls=SuggestingGroup, context_settings={"help_option_names": ["-h", "--help"]})
def housekeeping() -> None:
    """List and end housekeeping: scripts that look after a node when a job is over, before others have it.

    \b
    Examples:
      fluxkv housekeeping list
      fluxkv housekeeping kill --all
    """


class _View:
    def __init__(self, state: State, now: float) -> None:
        self.state = state
        self.now = now

    def active(self, keeping: Keeping) -> list[int]:
        from ..journal.decide_housekeeping import active_ranks

        return active_ranks(keeping)


def _hosts(view: _View, ranks: list[int]) -> str:
    from ..journal.hostlist import compress

    return compress([view.state.nodes[rank].host for rank in ranks if rank in view.state.nodes])


def _idset(ranks: list[int]) -> str:
    from ..journal.idset import format_ids

    return format_ids(ranks)


def _f58(id: int) -> str:
    from ..journal.ids import f58

    return f58(id)


FIELDS: dict[str, Any] = {
    "id": ("JOBID", lambda keeping, _: _f58(keeping.job)),
    "t_start": ("T_START", lambda keeping, _: keeping.started),
    "runtime": ("RUNTIME", lambda keeping, view: max(0.0, view.now - keeping.started)),
    "nnodes": ("NNODES", lambda keeping, _: len(keeping.claims)),
    "active": ("ACTIVE", lambda keeping, view: len(view.active(keeping))),
    "allocated": ("ALLOCATED", lambda keeping, _: _idset([rank for rank in keeping.ranks if rank not in keeping.back])),
    "ranks": ("RANKS", lambda keeping, view: _idset(view.active(keeping))),
    "nodelist": ("NODELIST", lambda keeping, view: _hosts(view, view.active(keeping))),
}


@housekeeping.command("list")
@click.option("-n", "--no-header", is_flag=True, help="No header line.")
@click.option("-o", "--format", "fmt", metavar="FORMAT", default=LIST, help=f"Fields: {', '.join(FIELDS)}.")
@click.option("-i", "--include", metavar="TARGETS", help="Only what goes on on these ranks or hosts.")
@at_option
@target_options
def list_(no_header: bool, fmt: str, include: str | None, at: str | None, uri: str | None, state_dir: str | None) -> None:
    """List jobs whose housekeeping goes on: nodes it began on, those where it is active, for how long. Of a job that runs these
    are nodes that it gives back.

    \b
    Examples:
      fluxkv housekeeping list
      fluxkv housekeeping list -n -o '{id} {ranks}'
    """
    from ..journal.decide_housekeeping import going_on
    from . import render
    from .formats import Format
    from .resourceview import chosen

    with open_journal(uri, state_dir) as journal:
        state, now = load(journal, at)
        partly = going_on(state)
        for id, keeping in partly.items():
            keeping.started = next((event.timestamp for _, event in journal.story([keeping.order], id)), now)
    view, found = _View(state, now), [*state.keeping.values(), *partly.values()]
    if include is not None:
        wanted = {node.rank for node in chosen(state, include, None)}
        found = [keeping for keeping in found if wanted.intersection(view.active(keeping))]
    lines = Format(fmt, FIELDS).lines(found, view, header=not no_header)
    if lines:
        render.out("\n".join(lines))


@housekeeping.command("kill")
@click.option("-j", "--jobid", metavar="ID", multiple=True, help="After this job (more than once: these jobs).")
@click.option("-t", "--targets", metavar="TARGETS", help="On these ranks or hosts.")
@click.option("--all", "every", is_flag=True, help="After all jobs, on all nodes.")
@click.option("-s", "--signal", "signal_name", metavar="SIG", default="SIGTERM", show_default=True, help="Name or number.")
@uri_option
def kill(jobid: tuple[str, ...], targets: str | None, every: bool, signal_name: str, uri: str | None) -> None:
    """Send a signal to housekeeping that goes on, after a job or on nodes that a running one gives back. A node where it ends by a
    signal is drained, as where it fails.

    \b
    Examples:
      fluxkv housekeeping kill --all
      fluxkv housekeeping kill -t 0-1 -s KILL
    """
    from ..instances.shell_options import parse_signal
    from ..journal.decide_housekeeping import kill as decide_kill
    from ..journal.ids import parse_id

    if every == bool(jobid or targets):
        raise click.UsageError("say which: -j ID, -t TARGETS, or --all")
    try:
        signum = parse_signal("signal", int(signal_name) if signal_name.isdecimal() else signal_name)
    except Rejected as error:
        raise click.BadParameter(str(error), param_hint="'--signal'") from None
    ids = [parse_id(text) for text in jobid] or None
    with open_journal(uri) as journal:
        now = journal.store.now()

        def decision(state: State) -> Decision:
            ranks = ranks_of(state, targets) if targets else None
            return decide_kill(state, ids, ranks, signum, os.getuid(), now)

        journal.settle(decision)
