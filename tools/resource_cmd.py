"""`fluxkv resource`: what there is, what of it is used, and taking nodes out of use or adding some. Rules are in `journal.decide`
and `journal.decide_inventory`; rows and fields in `resourceview`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..kvs.errors import Rejected
from .fence_cmd import fence
from .lazy_group import SuggestingGroup
from .reading import at_option, load, ranks_of, uri_option
from .resource_find_cmd import find
from .resource_graph_cmd import attach, property_group, reload, remove, set_status
from .resource_match_cmd import match
from .resource_query_cmd import query
from .resource_show_cmd import show
from .resourceview import FIELDS, LIST_STATES, STATUS_DEFAULT, STATUS_STATES
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.node import Node
    from ..journal.state import State

F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=SuggestingGroup, context_settings={"help_option_names": ["-h", "--help"]})
def resource() -> None:
    """List, drain and undrain nodes; change the inventory.

    \b
    Examples:
      fluxkv resource list                 cores free, allocated and down
      fluxkv resource list -v              a line for each node
      fluxkv resource drain 3 bad fan      no new jobs on rank 3
      fluxkv resource undrain node[3-4]    back in use
    """


def _filters(command: F) -> F:
    command = click.option("-q", "--queue", metavar="QUEUE,...", help="Only nodes of these queues.")(command)
    return click.option("-i", "--include", metavar="TARGETS", help="Only these ranks or hosts.")(command)


def _output(command: F) -> F:
    command = click.option(
        "-o", "--format", "fmt", metavar="FORMAT", default="",
        help=f"A format's name (-o help lists them), or fields: {', '.join(FIELDS)}.",
    )(command)  # fmt: skip
    return click.option("-n", "--no-header", is_flag=True, help="No header line.")(command)


_listed_states = click.option(
    "-s", "--states", metavar="STATE,...", help=f"{', '.join(LIST_STATES)} (list: free,allocated,down; else all)."
)


def _seen(
    uri: str | None, state_dir: str | None, at: str | None, include: str | None, queue: str | None
) -> tuple[State, list[Node]]:
    from .resourceview import chosen

    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
    return state, chosen(state, include, queue)


@resource.command("list")
@_output
@_listed_states
@_filters
@click.option("-v", "--verbose", "--nodes", "by_node", is_flag=True, help="One line a node.")
@click.option("--json", "as_json", is_flag=True, help="JSON, with every node.")
@at_option
@target_options
def list_resources(
    no_header: bool, fmt: str, states: str | None, include: str | None, queue: str | None, by_node: bool, as_json: bool,
    at: str | None, uri: str | None, state_dir: str | None,
) -> None:  # fmt: skip
    """Count nodes, cores and GPUs by state, as the scheduler sees them; below, what the plan of this moment reserves for jobs that
    wait. Formats of your own: [list.formats.NAME] in ~/.config/fluxkv/resource.toml.

    \b
    Examples:
      fluxkv resource list
      fluxkv resource list -n -s free -o '{ncores}'     how many cores are free
      fluxkv resource list -o rlist -i 0-3              with the ids of cores
      fluxkv resource list -v                           cores, memory and jobs of each node
      fluxkv resource list --at 10:30                   as it was then
    """
    from . import render, reserved, resourceview

    names = resourceview.pick(states or "free,allocated,down", LIST_STATES, "state of resources")
    with open_journal(uri, state_dir) as journal:
        state, now = load(journal, at)
    nodes = resourceview.chosen(state, include, queue)
    plain = not (fmt or states or no_header)
    kept = reserved.reservations(state, now, {node.rank for node in nodes}) if as_json or by_node or plain else []
    if as_json:
        rows = resourceview.list_rows(state, nodes, list(LIST_STATES), set())
        document: dict[str, Any] = {
            row.state: {"nnodes": len(row.parts), "ncores": row.ncores, "ngpus": row.ngpus, "nodelist": row.nodelist,
                        "ranks": row.ranks}
            for row in rows
        }  # fmt: skip
        document["nodes"] = [resourceview.node_document(node) for node in nodes]
        document["reservations"] = [reserved.document(one, state) for one in kept]
        render.print_json(document)
    elif by_node:
        headers = [] if no_header else ["RANK", "NODE", "STATE", "CORES", "GPUS", "MEMORY", "JOBS", "REASON"]
        promised = reserved.first_on(kept, now)
        cells = [resourceview.node_row(node) for node in nodes]
        render.table(headers, [[*row[:-1], row[-1] or promised.get(row[0], "")] for row in cells], right=(0,))
    else:
        resourceview.show("list", lambda fields: resourceview.list_rows(state, nodes, names, fields), fmt, no_header)
        for line in reserved.lines(kept, state, now):
            render.out(line)


@resource.command("status")
@_output
@click.option("-s", "--states", metavar="STATE,...", help=f"Only {', '.join(STATUS_STATES)}, or drain for both of its kinds.")
@_filters
@click.option("--skip-empty", is_flag=True, help="With -s too: no line for a state that no node is in.")
@at_option
@target_options
def status(
    no_header: bool, fmt: str, states: str | None, include: str | None, queue: str | None, skip_empty: bool,
    at: str | None, uri: str | None, state_dir: str | None,
) -> None:  # fmt: skip
    """Group nodes by whether they may be used and whether they are up. An asterisk marks a state's nodes that are offline.

    \b
    Examples:
      fluxkv resource status
      fluxkv resource status -s offline -o '{nodelist}' -n
      fluxkv resource status -s drain,housekeeping -o long
    """
    from . import resourceview

    names = list(STATUS_DEFAULT)
    if states:
        names = resourceview.pick(states.lower().replace("drain,", "draining,drained,"), (*STATUS_STATES, "drain"), "status")
        names = list(dict.fromkeys(one for name in names for one in (("draining", "drained") if name == "drain" else (name,))))
    _, nodes = _seen(uri, state_dir, at, include, queue)
    keep_empty = bool(states) and not skip_empty
    resourceview.show("status", lambda fields: resourceview.status_rows(nodes, names, keep_empty, fields), fmt, no_header)


@resource.command("drain")
@click.argument("targets", required=False)
@click.argument("reason", nargs=-1)
@click.option("-f", "--force", count=True, help="Also those drained already: a new reason; twice: a new time too.")
@click.option("-u", "--update", is_flag=True, help="Leave those drained already as they are, and do not fail.")
@_output
@_filters
@at_option
@target_options
def drain(
    targets: str | None, reason: tuple[str, ...], force: int, update: bool, no_header: bool, fmt: str, include: str | None,
    queue: str | None, at: str | None, uri: str | None, state_dir: str | None,
) -> None:  # fmt: skip
    """Give TARGETS (ranks or hosts) no new jobs, for a REASON. Without arguments: list what is drained.

    \b
    Examples:
      fluxkv resource drain                     what is drained, since when, and why
      fluxkv resource drain 2-3 new firmware
      fluxkv resource drain node[7,9] bad fan
      fluxkv resource drain -f 2 fan replaced   another reason
    """
    from . import resourceview

    if force and update:
        raise click.UsageError("-f overwrites what -u leaves as it is: one of them")
    if targets is None:
        _, nodes = _seen(uri, state_dir, at, include, queue)
        resourceview.show("drain", lambda fields: resourceview.drain_rows(nodes, fields), fmt, no_header)
        return
    if state_dir or at:
        raise Rejected("a node can be drained only now, in a running instance", code="bad-option", hint="leave out --at")
    from ..journal import decide

    with open_journal(uri) as journal:
        now = journal.store.now()

        def decision(state: State) -> decide.Decision:
            ranks = ranks_of(state, targets)
            if update:
                ranks = [rank for rank in ranks if state.nodes[rank].drain is None]
                if not ranks:
                    return decide.Decision([])
            return decide.drain(state, ranks, " ".join(reason), min(force, 2), now)

        journal.settle(decision)


@resource.command("undrain")
@click.argument("targets")
@click.argument("reason", nargs=-1)
@click.option("-f", "--force", is_flag=True, help="Do not fail for those that are not drained.")
@uri_option
def undrain(targets: str, reason: tuple[str, ...], force: bool, uri: str | None) -> None:
    """Take drained TARGETS (ranks or hosts) back into use.

    \b
    Examples:
      fluxkv resource undrain 2-3
      fluxkv resource undrain node7 fan replaced
    """
    from ..journal import decide

    with open_journal(uri) as journal:
        now = journal.store.now()
        journal.settle(lambda state: decide.undrain(state, ranks_of(state, targets), " ".join(reason), now, force=force))


@resource.command("info")
@_listed_states
@_filters
@at_option
@target_options
def info(
    states: str | None, include: str | None, queue: str | None, at: str | None, uri: str | None, state_dir: str | None
) -> None:
    """Say in one line how much there is.

    \b
    Examples:
      fluxkv resource info            3 Nodes, 12 Cores, 1 GPUs
      fluxkv resource info -s free    of that, what is free
    """
    from . import render, resourceview

    names = resourceview.pick(states or "all", LIST_STATES, "state of resources")
    _, nodes = _seen(uri, state_dir, at, include, queue)
    parts = _united(nodes, names)
    cores, gpus = (sum(part[1].bit_count() for part in parts), sum(part[2].bit_count() for part in parts))
    render.out(f"{len(parts)} Nodes, {cores} Cores, {gpus} GPUs")


def _united(nodes: list[Node], names: list[str]) -> list[tuple[Node, int, int]]:
    """What is in any of these states, node by node."""
    from .resourceview import sets

    found: dict[int, tuple[Node, int, int]] = {}
    by_state = sets(nodes)
    for name in names:
        for node, cores, gpus in by_state[name]:
            _, before, gpus_before = found.get(node.rank, (node, 0, 0))
            found[node.rank] = (node, before | cores, gpus_before | gpus)
    return [found[rank] for rank in sorted(found)]


@resource.command("R")
@_listed_states
@_filters
@at_option
@target_options
def show_r(
    states: str | None, include: str | None, queue: str | None, at: str | None, uri: str | None, state_dir: str | None
) -> None:
    """Print the inventory, or what of it is in some state, as R (RFC 20), in JSON.

    \b
    Examples:
      fluxkv resource R > R.json
      fluxkv resource R -s free
    """
    from ..instances.views import inventory_R
    from ..journal.rset import NodeRecord, ResourceSet, render_set
    from . import render, resourceview

    names = resourceview.pick(states or "all", LIST_STATES, "state of resources")
    state, nodes = _seen(uri, state_dir, at, include, queue)
    if not states and include is None and queue is None:
        render.print_json(inventory_R(state))
        return
    records = tuple(
        NodeRecord(node.rank, node.host, cores, gpus, node.memory_mb, node.properties)
        for node, cores, gpus in _united(nodes, names) if cores
    )  # fmt: skip
    if not records:
        raise Rejected("there are no such resources: R names at least one", code="no-such-node", hint="fluxkv resource list")
    render.print_json(render_set(ResourceSet(records, expiration=state.expiration)))


@resource.command("eventlog")
@click.option("-f", "--format", "form", type=click.Choice(["text", "json"]), default="text", help="text or JSON lines (RFC 18).")
@click.option("-T", "--time-format", type=click.Choice(["raw", "offset", "human"]), default="raw", help="How times are shown.")
@click.option("-H", "--human", is_flag=True, help="As --time-format=human.")
@click.option("-F", "--follow", "following", is_flag=True, help="Go on as events come, until interrupted.")
@click.option("-w", "--wait", "wanted", metavar="EVENT", help="Stop behind the first event of this name, or wait for it.")
@click.option("--timeout", metavar="FSD", help="Give up waiting after this long.")
@target_options
def eventlog(
    form: str, time_format: str, human: bool, following: bool, wanted: str | None, timeout: str | None, uri: str | None,
    state_dir: str | None,
) -> None:  # fmt: skip
    """Show the events of the inventory (RFC 44): resource-define, drain, undrain, online, offline, ...

    \b
    Examples:
      fluxkv resource eventlog
      fluxkv resource eventlog -f json | jq -r .name
      fluxkv resource eventlog -w drain --timeout 1m
    """
    from ..instances.follow import Tail, timed_out
    from ..journal.catalogue import CATALOGUE
    from ..journal.wire import well_formed
    from .eventlines import EventLines
    from .options import timeout_of
    from .render import out

    if wanted is not None and ("resource", wanted) not in CATALOGUE:
        known = ", ".join(name for kind, name in CATALOGUE if kind == "resource")
        raise Rejected(f"{wanted!r} is no event of resources", code="no-such-event", hint=f"there are {known}")
    lines = EventLines(form, "human" if human else time_format)
    limit = timeout_of(timeout)
    deadline = None if limit is None else time.monotonic() + limit
    with open_journal(uri, state_dir) as journal:
        version = 0
        for commit in journal.commits():
            version = commit.version
            if any(_tell(event, lines, out) and event[0] == wanted for event in well_formed(commit.events)):
                return
        if not following and wanted is None:
            return
        sys.stdout.flush()
        tail = Tail(journal.store, version)
        try:
            while True:
                left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
                if left <= 0:
                    error = timed_out(f"no {wanted or 'more'} event came")
                    error.hint = ""
                    raise error
                for commit in tail.poll(left)[0]:
                    if any(_tell(event, lines, out) and event[0] == wanted for event in well_formed(commit.events)):
                        return
                sys.stdout.flush()
        finally:
            tail.close()


def _tell(event: Any, lines: Any, out: Callable[[str], None]) -> bool:
    from ..journal.wire import Event

    name, subject, timestamp, context = event
    if subject != "resource":
        return False
    shown = {key: value for key, value in (context or {}).items() if key != "R"}
    edit = shown.get("edit")
    attached = edit.get("attach") if isinstance(edit, dict) else None
    if isinstance(attached, dict):  # of a whole graph it is enough to say where it was put
        shown["edit"] = {"attach": {key: value for key, value in attached.items() if key != "tree"}}
    out(lines.of(Event(name, subject, timestamp, shown or None)))
    return True


resource.add_command(fence)
for command in (attach, find, match, property_group, reload, remove, set_status):
    resource.add_command(command)
resource.add_command(query)
resource.add_command(show)
