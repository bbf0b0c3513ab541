"""`fluxkv resource reload|attach|remove|property|set-status`: another inventory, or graph, for a running instance.

Rules are in `journal.decide_inventory` and `journal.decide_graph`; what files say in `instances.resource_files`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..kvs.errors import Unavailable
from .lazy_group import SuggestingGroup
from .reading import follow, ranks_of, uri_option
from .target import open_journal

if TYPE_CHECKING:
    from ..journal.decide_graph import Answer
    from ..journal.state import State

ONLINE_S = 10.0  # how long added nodes are waited for
FORMS = ("auto", "rv1", "jgf", "grug", "hwloc")

form_option = click.option(
    "--format", "form", type=click.Choice(FORMS), default="auto", help="What FILE is (else it is looked at)."
)


@click.command("reload")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True)
@form_option
@uri_option
def reload(paths: tuple[str, ...], form: str, uri: str | None) -> None:
    """Replace the inventory by what is in FILE ("-": standard input): R (RFC 20), or a graph of resources as JGF, GraphML (GRUG)
    or hwloc's XML, one FILE a node. Nodes are added, changed, and removed.

    What jobs hold stays: it is refused to remove a node that is in use, to take from one what is in use, to give the rank
    of such a node to another host, or to leave out what jobs draw on. Drain it first, and wait until its jobs are over.

    \b
    Examples:
      fluxkv resource R | fluxkv resource reload -     the same again changes nothing
      fluxkv resource reload cluster.graphml
    """
    from ..instances.resource_files import load
    from ..journal import decide_inventory

    inventory = load(paths, form)
    _change(uri, lambda state, now: decide_inventory.reload(state, inventory, now))


@click.command("attach")
@click.argument("path", metavar="FILE")
@click.option("--under", metavar="PATH", default="", help="Below this vertex instead of the root: /cluster0/rack1.")
@form_option
@uri_option
def attach(path: str, under: str, form: str, uri: str | None) -> None:
    """Add what a graph in FILE ("-": standard input) has below its root. A vertex whose path is there already is that one; new
    nodes get the next ranks.

    \b
    Examples:
      fluxkv resource attach rack7.json
      fluxkv resource attach node9.xml --under /cluster0/rack7
    """
    from ..instances.resource_files import load
    from ..journal import decide_graph

    more = load([path], form)
    _change(uri, lambda state, now: decide_graph.attach(state, more, under.rstrip("/"), now))


@click.command("remove")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@uri_option
def remove(paths: tuple[str, ...], uri: str | None) -> None:
    """Take vertices of the graph, and all below them, out of the instance. What is in use stays: drain it, and wait.

    \b
    Examples:
      fluxkv resource remove /cluster0/rack7
    """
    from ..journal import decide_graph

    _change(uri, lambda state, now: decide_graph.remove(state, [path.rstrip("/") for path in paths], now))


@click.command("set-status")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.argument("status", type=click.Choice(["up", "down"]))
@uri_option
def set_status(paths: tuple[str, ...], status: str, uri: str | None) -> None:
    """Take vertices of the graph, and all below them, out of use for new jobs, or back. To drain nodes says why, too.

    \b
    Examples:
      fluxkv resource set-status /cluster0/rack7/pdu0 down
    """
    from ..journal import decide_graph

    _change(uri, lambda state, now: decide_graph.status(state, [path.rstrip("/") for path in paths], up=status == "up", now=now))


@click.group("property", cls=SuggestingGroup)
def property_group() -> None:
    """Properties of nodes, and of other vertices of the graph: what constraints ask for.

    \b
    Examples:
      fluxkv resource property set 3-5 ssd
      fluxkv resource property unset node7 ssd
    """


@property_group.command("set")
@click.argument("target", metavar="TARGET")
@click.argument("properties", metavar="KEY[=VALUE]...", nargs=-1, required=True)
@uri_option
def set_property(target: str, properties: tuple[str, ...], uri: str | None) -> None:
    """Give TARGET (ranks, hosts, or the PATH of a vertex) properties, or other values of those it has.

    \b
    Examples:
      fluxkv resource property set 3-5 ssd
      fluxkv resource property set /cluster0/rack1 row=b
    """
    names = {}
    for text in properties:
        key, _, value = text.partition("=")
        names[key] = value
    _properties(uri, target, names, ())


@property_group.command("unset")
@click.argument("target", metavar="TARGET")
@click.argument("properties", metavar="KEY...", nargs=-1, required=True)
@uri_option
def unset_property(target: str, properties: tuple[str, ...], uri: str | None) -> None:
    """Take properties from TARGET (ranks, hosts, or the PATH of a vertex).

    \b
    Examples:
      fluxkv resource property unset 3-5 ssd
    """
    _properties(uri, target, {}, properties)


def _properties(uri: str | None, target: str, names: dict[str, str], gone: tuple[str, ...]) -> None:
    from ..journal import decide_graph

    def decision(state: State, now: float) -> Answer:
        paths, ranks = ([target.rstrip("/")], []) if target.startswith("/") else ([], ranks_of(state, target))
        return decide_graph.properties(state, paths, ranks, names, gone, now)

    _change(uri, decision)


def _change(uri: str | None, decide: Callable[[State, float], Answer]) -> None:
    """Decide, say what has changed, and wait for nodes that are new."""
    from .render import say

    told: list[str] = []
    with open_journal(uri) as journal:
        now = journal.store.now()

        def decision(state: State) -> Any:
            made, told[:] = decide(state, now)
            return made

        state = journal.look()
        before = dict(state.nodes)
        journal.settle(decision, state)
        journal.catch_up(state)
        for line in told or ["nothing has changed"]:
            say(f"fluxkv: {line}")
        fresh = [rank for rank, node in state.nodes.items() if before.get(rank) is not node]
        for seen in follow(journal, state, ONLINE_S) if fresh else ():
            if all(seen.nodes[rank].online for rank in fresh if rank in seen.nodes):
                return
        if fresh:
            raise Unavailable(
                "the new nodes are not up yet", code="timeout", hint="fluxkv resource status; fluxkv status shows their agent"
            )
