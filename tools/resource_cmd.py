"""`fluxkv resource`: what there is, what of it is used, and taking nodes out of use. Drain rules are in
`journal.decide`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..kvs.errors import Rejected
from .reading import at_option, load, ranks_of, uri_option
from .target import open_journal, target_options

if TYPE_CHECKING:
    from ..journal.node import Node
    from ..journal.state import State

LIST = "{state:>10} {nnodes:>6} {ncores:>6} {ngpus:>5} {nodelist}"
STATUS = "{state:>10} {up:>2} {nnodes:>6} {nodelist}"
DRAINED = "{timestamp!d:%FT%T::<20} {state:<8.8} {ranks:<8.8+} {reason:<30.30+} {nodelist}"


class Row(NamedTuple):
    """One line: nodes in one condition. ncores, ngpus: those of them that are in it."""

    state: str
    nodes: list[Node]
    ncores: int = 0
    ngpus: int = 0
    up: str = ""
    timestamp: float = 0.0
    reason: str = ""

    @property
    def ranks(self) -> str:
        from ..journal.idset import format_ids

        return format_ids(node.rank for node in self.nodes)

    @property
    def nodelist(self) -> str:
        from ..journal.hostlist import compress

        return compress([node.host for node in self.nodes])

    @property
    def properties(self) -> str:
        return ",".join(sorted({name for node in self.nodes for name in node.properties}))


FIELDS: dict[str, Any] = {
    "state": ("STATE", lambda row, _: row.state),
    "nnodes": ("NNODES", lambda row, _: len(row.nodes)),
    "ncores": ("NCORES", lambda row, _: row.ncores),
    "ngpus": ("NGPUS", lambda row, _: row.ngpus),
    "ranks": ("RANKS", lambda row, _: row.ranks),
    "nodelist": ("NODELIST", lambda row, _: row.nodelist),
    "properties": ("PROPERTIES", lambda row, _: row.properties),
    "up": ("UP", lambda row, _: row.up),
    "timestamp": ("TIMESTAMP", lambda row, _: row.timestamp),
    "reason": ("REASON", lambda row, _: row.reason),
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def resource() -> None:
    """List, drain and undrain nodes.

    \b
    Examples:
      fluxkv resource list                 cores free, allocated and down
      fluxkv resource list -v              a line for each node
      fluxkv resource drain 3 bad fan      no new jobs on rank 3
      fluxkv resource undrain node[3-4]    back in use
    """


def sets(state: State) -> dict[str, Row]:
    """all, up, down, allocated and free, as rows. Allocated cores count as allocated wherever they are;
    free and
    down share out the rest."""
    nodes = [state.nodes[rank] for rank in sorted(state.nodes)]
    usable = [node for node in nodes if node.usable]
    down = [node for node in nodes if not node.usable]
    busy = [node for node in nodes if node.used_cores or node.used_gpus or node.jobs]

    def unused(some: Iterable[Node]) -> tuple[int, int]:
        cores = gpus = 0
        for node in some:
            cores += (node.cores & ~node.used_cores).bit_count()
            gpus += (node.gpus & ~node.used_gpus).bit_count()
        return cores, gpus

    def whole(some: Iterable[Node]) -> tuple[int, int]:
        some = list(some)
        return sum(node.cores.bit_count() for node in some), sum(node.gpus.bit_count() for node in some)

    free = [node for node in usable if node.cores & ~node.used_cores]
    used = (
        sum(node.used_cores.bit_count() for node in nodes),
        sum(node.used_gpus.bit_count() for node in nodes),
    )
    return {
        "free": Row("free", free, *unused(free)),
        "allocated": Row("allocated", busy, *used),
        "down": Row("down", down, *unused(down)),
        "up": Row("up", usable, *whole(usable)),
        "all": Row("all", nodes, *whole(nodes)),
    }


@resource.command("list")
@click.option("-n", "--no-header", is_flag=True, help="No header line.")
@click.option("-s", "--states", metavar="STATE,...", default="free,allocated,down",
              help="free, allocated, down, up, all (default: free,allocated,down).")  # fmt: skip
@click.option("-o", "--format", "fmt", metavar="FORMAT", default=LIST, help=f"Fields: {', '.join(FIELDS)}.")
@click.option("-v", "--verbose", "--nodes", "by_node", is_flag=True, help="One line a node.")
@click.option("--json", "as_json", is_flag=True, help="JSON, with every node.")
@at_option
@target_options
def list_resources(
    no_header: bool, states: str, fmt: str, by_node: bool, as_json: bool, at: str | None, uri: str | None,
    state_dir: str | None,
) -> None:  # fmt: skip
    """Count nodes, cores and GPUs by state.

    \b
    Examples:
      fluxkv resource list
      fluxkv resource list -n -s free -o '{ncores}'     how many cores are free
      fluxkv resource list -v                           cores, memory and jobs of each node
      fluxkv resource list --at 10:30                   as it was then
    """
    from . import render

    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
    found = sets(state)
    if as_json:
        document: dict[str, Any] = {
            name: {"nnodes": len(row.nodes), "ncores": row.ncores, "ngpus": row.ngpus,
            "nodelist": row.nodelist,
                   "ranks": row.ranks}
            for name, row in found.items()
        }  # fmt: skip
        document["nodes"] = [node_document(state.nodes[rank]) for rank in sorted(state.nodes)]
        render.print_json(document)
        return
    if by_node:
        headers = [] if no_header else ["RANK", "NODE", "STATE", "CORES", "GPUS", "MEMORY", "JOBS", "REASON"]
        render.table(headers, [_node_row(state.nodes[rank]) for rank in sorted(state.nodes)], right=(0,))
        return
    rows = []
    for name in states.lower().split(","):
        if name not in found:
            raise Rejected(
                f"{name!r} is no state of resources", code="bad-state", hint=f"there are {', '.join(found)}"
            )
        rows.append(found[name])
    _print(rows, fmt, no_header)


def _print(rows: list[Row], fmt: str, no_header: bool) -> None:
    from . import render
    from .formats import Format

    lines = Format(fmt, FIELDS).lines(rows, None, header=not no_header)
    if lines:
        render.out("\n".join(lines))


def _node_row(node: Node) -> list[Any]:
    from ..journal.ids import f58

    jobs = sorted(node.jobs)
    shown = ",".join(f58(id) for id in jobs[:4]) + (f",+{len(jobs) - 4}" if len(jobs) > 4 else "")
    gpus = f"{node.used_gpus.bit_count()}/{node.gpus.bit_count()}" if node.gpus else "-"
    memory = f"{node.used_memory_mb}/{node.memory_mb}M" if node.memory_mb else "-"
    cores = f"{node.used_cores.bit_count()}/{node.cores.bit_count()}"
    return [
        node.rank,
        node.host,
        node.state,
        cores,
        gpus,
        memory,
        shown or "-",
        node.drain[1] if node.drain else "",
    ]


def node_document(node: Node) -> dict[str, Any]:
    """A node as a JSON object."""
    from ..journal.ids import f58
    from ..journal.idset import text_of

    return {
        "rank": node.rank, "host": node.host, "state": node.state, "online": node.online,
        "cores": text_of(node.cores), "used_cores": text_of(node.used_cores), "gpus": text_of(node.gpus),
        "used_gpus": text_of(node.used_gpus), "memory_mb": node.memory_mb,
        "used_memory_mb": node.used_memory_mb,
        "properties": list(node.properties), "jobs": [f58(id) for id in sorted(node.jobs)],
        "drain": {"timestamp": node.drain[0], "reason": node.drain[1]} if node.drain else None,
    }  # fmt: skip


@resource.command("status")
@click.option("-n", "--no-header", is_flag=True, help="No header line.")
@click.option("-s", "--states", metavar="STATE,...", help="Only avail, draining, drained, online, offline.")
@click.option(
    "-o",
    "--format",
    "fmt",
    metavar="FORMAT",
    default=STATUS,
    help="As for list, and {up} {timestamp} {reason}.",
)
@at_option
@target_options
def status(
    no_header: bool, states: str | None, fmt: str, at: str | None, uri: str | None, state_dir: str | None
) -> None:
    """Group nodes by whether they may be used and whether they are up.

    \b
    Examples:
      fluxkv resource status
      fluxkv resource status -s offline -o '{nodelist}' -n
    """
    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
    wanted = set(states.lower().split(",")) if states else {"avail", "draining", "drained"}
    known = {"avail", "draining", "drained", "online", "offline", "all"}
    if wanted - known:
        raise Rejected(
            f"{min(wanted - known)!r} is no status",
            code="bad-state",
            hint=f"there are {', '.join(sorted(known))}",
        )
    groups: dict[tuple[str, bool], list[Node]] = {}
    for rank in sorted(state.nodes):
        node = state.nodes[rank]
        kind = "avail" if node.drain is None else node.state
        for name, up in (
            (kind, node.online),
            ("online" if node.online else "offline", node.online),
            ("all", node.online),
        ):
            if name in wanted:
                groups.setdefault((name, up), []).append(node)
    if "avail" in wanted and not any(name == "avail" for name, _ in groups):
        groups["avail", True] = []
    order = ["all", "online", "offline", "avail", "draining", "drained"]
    rows = [
        Row(
            name,
            nodes,
            sum(n.cores.bit_count() for n in nodes),
            sum(n.gpus.bit_count() for n in nodes),
            "✔" if up else "✗",
        )
        for (name, up), nodes in sorted(
            groups.items(), key=lambda item: (order.index(item[0][0]), not item[0][1])
        )
    ]
    _print(rows, fmt, no_header)


@resource.command("drain")
@click.argument("targets", required=False)
@click.argument("reason", nargs=-1)
@click.option(
    "-f", "--force", count=True, help="Also those drained already: a new reason; twice: a new time too."
)
@click.option(
    "-u", "--update", is_flag=True, help="Leave those drained already as they are, and do not fail."
)
@click.option("-n", "--no-header", is_flag=True, help="No header line.")
@click.option(
    "-o", "--format", "fmt", metavar="FORMAT", default=DRAINED, help="For the list: {timestamp} {reason} ..."
)
@at_option
@target_options
def drain(
    targets: str | None, reason: tuple[str, ...], force: int, update: bool, no_header: bool, fmt: str,
    at: str | None,
    uri: str | None, state_dir: str | None,
) -> None:  # fmt: skip
    """Give TARGETS (ranks or hosts) no new jobs, for a REASON. Without arguments: list what is drained.

    \b
    Examples:
      fluxkv resource drain                     what is drained, since when, and why
      fluxkv resource drain 2-3 new firmware
      fluxkv resource drain node[7,9] bad fan
      fluxkv resource drain -f 2 fan replaced   another reason
    """
    if targets is None:
        with open_journal(uri, state_dir) as journal:
            state, _ = load(journal, at)
        _print(drained(state), fmt, no_header)
        return
    if state_dir or at:
        raise Rejected(
            "a node can be drained only now, in a running instance", code="bad-option", hint="leave out --at"
        )
    from ..journal import decide

    with open_journal(uri) as journal:
        now = journal.store.now()

        def decision(state: State) -> decide.Decision:
            ranks = ranks_of(state, targets)
            if update and not force:
                ranks = [rank for rank in ranks if state.nodes[rank].drain is None]
                if not ranks:
                    return decide.Decision([])
            return decide.drain(state, ranks, " ".join(reason), min(force, 2), now)

        journal.settle(decision)


def drained(state: State) -> list[Row]:
    """Rows of nodes drained at one time for one reason, the oldest first."""
    groups: dict[tuple[float, str, str], list[Node]] = {}
    for rank in sorted(state.nodes):
        node = state.nodes[rank]
        if node.drain is not None:
            groups.setdefault((node.drain[0], node.state, node.drain[1]), []).append(node)
    return [
        Row(kind, nodes, timestamp=t, reason=why)
        for (t, kind, why), nodes in sorted(groups.items(), key=lambda g: g[0])
    ]


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
        journal.settle(
            lambda state: decide.undrain(state, ranks_of(state, targets), " ".join(reason), now, force=force)
        )


@resource.command("info")
@at_option
@target_options
def info(at: str | None, uri: str | None, state_dir: str | None) -> None:
    """Say in one line how much there is.

    \b
    Examples:
      fluxkv resource info      3 Nodes, 12 Cores, 1 GPUs
    """
    from . import render

    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
    row = sets(state)["all"]
    render.out(f"{len(row.nodes)} Nodes, {row.ncores} Cores, {row.ngpus} GPUs")


@resource.command("R")
@at_option
@target_options
def show_r(at: str | None, uri: str | None, state_dir: str | None) -> None:
    """Print the inventory as R (RFC 20), in JSON.

    \b
    Examples:
      fluxkv resource R > R.json
    """
    from . import render

    with open_journal(uri, state_dir) as journal:
        state, _ = load(journal, at)
    render.print_json(state.R)
