"""Nodes as `fluxkv resource` shows them: which are in which condition, joined into as few lines as a format allows.

Two views, as in Flux: the scheduler's (free, allocated, down, up, all) with cores and GPUs, and the system's (avail, drained,
...), by online and offline.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..kvs.errors import Rejected
from .named_formats import Book, Named, config_of, find_format

if TYPE_CHECKING:
    from ..journal.node import Node
    from ..journal.state import State

LIST_STATES = ("free", "allocated", "down", "up", "all")
STATUS_STATES = (
    "avail", "exclude", "draining", "drained", "torpid", "down", "housekeeping", "allocated", "online", "offline", "all",
)  # fmt: skip
STATUS_DEFAULT = ("avail", "exclude", "draining", "drained", "torpid", "down", "housekeeping")
_ORDER = ("all", "online", "offline", "avail", "allocated", "housekeeping", "exclude", "torpid", "down", "draining", "drained")

BOOKS = {
    "list": Book("resource.toml", "list", {
        "default": Named("{state:>10} ?:{queue:<10.10+} {nnodes:>6} {ncores:>6} {ngpus:>5} {nodelist}", "counts and hosts"),
        "properties": Named("{state:>10} {properties:<20.20+} {nnodes:>6} {ncores:>6} {ngpus:>5} {nodelist}",
                            "by what nodes have"),
        "rlist": Named("{state:>10} {nnodes:>6} {ncores:>6} {ngpus:>5} {rlist}", "ranks and ids instead of hosts"),
    }),
    "status": Book("resource.toml", "status", {
        "default": Named("{state:>10} {up:>2} {nnodes:>6} {nodelist}", "what may be used, and whether it is up"),
        "long": Named("{state:>10} {up:>2} {nnodes:>6} {reason:<25.25+} {nodelist}", "with reasons of drains"),
    }),
    "drain": Book("resource.toml", "drain", {
        "default": Named("{timestamp!d:%FT%T::<20} {state:<8.8} {ranks:<8.8+} {reason:<30.30+} {nodelist}", "since when, and why"),
        "long": Named("{timestamp!d:%FT%T::<20} {state:<9.9} {ranks:<8} {nodelist:<16} {reason}", "reasons in full"),
    }),
}  # fmt: skip


class Part(NamedTuple):
    """A share of a node."""

    node: Node
    cores: int
    gpus: int


class Row(NamedTuple):
    """One line. state: without the mark of offline nodes. queues: what the nodes belong to."""

    state: str
    parts: list[Part]
    online: bool = True
    timestamp: float = 0.0
    reason: str = ""
    queues: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()

    @property
    def nodes(self) -> list[Node]:
        return [part.node for part in self.parts]

    @property
    def ncores(self) -> int:
        return sum(part.cores.bit_count() for part in self.parts)

    @property
    def ngpus(self) -> int:
        return sum(part.gpus.bit_count() for part in self.parts)

    @property
    def ranks(self) -> str:
        from ..journal.idset import format_ids

        return format_ids(node.rank for node in self.nodes)

    @property
    def nodelist(self) -> str:
        from ..journal.hostlist import compress

        return compress([node.host for node in self.nodes])

    @property
    def rlist(self) -> str:
        """Short form of all of it: rank[0-1]/core[0-3],gpu0 rank2/core[0-1]."""
        from ..journal.idset import format_ids, text_of

        groups: dict[tuple[str, str], list[int]] = {}
        for part in self.parts:
            groups.setdefault((text_of(part.cores), text_of(part.gpus)), []).append(part.node.rank)
        found = []
        for (cores, gpus), ranks in groups.items():
            inside = ",".join(f"{name}{_listed(ids)}" for name, ids in (("core", cores), ("gpu", gpus)) if ids)
            found.append(f"rank{_listed(format_ids(ranks))}" + (f"/{inside}" if inside else ""))
        return " ".join(found)

    def marked(self) -> str:
        """The state, with an asterisk for nodes that are offline."""
        plain = self.online or self.state in ("online", "offline") or self.state in LIST_STATES
        return self.state if plain or not self.parts else self.state + "*"


def _listed(ids: str) -> str:
    return ids if ids.isdecimal() else f"[{ids}]"


FIELDS: dict[str, Any] = {
    "state": ("STATE", lambda row, _: row.marked()),
    "statex": ("STATE", lambda row, _: row.state),
    "status": ("STATUS", lambda row, _: "online" if row.online else "offline"),
    "up": ("UP", lambda row, _: "✔" if row.online else "✗"),
    "up.ascii": ("UP", lambda row, _: "y" if row.online else "n"),
    "queue": ("QUEUE", lambda row, _: ",".join(row.queues)),
    "properties": ("PROPERTIES", lambda row, _: ",".join(row.properties)),
    "propertiesx": ("PROPERTIES", lambda row, _: ",".join(one for one in row.properties if one not in row.queues)),
    "nnodes": ("NNODES", lambda row, _: len(row.parts)),
    "ncores": ("NCORES", lambda row, _: row.ncores),
    "ngpus": ("NGPUS", lambda row, _: row.ngpus),
    "ranks": ("RANKS", lambda row, _: row.ranks),
    "nodelist": ("NODELIST", lambda row, _: row.nodelist),
    "rlist": ("LIST", lambda row, _: row.rlist),
    "timestamp": ("TIMESTAMP", lambda row, _: row.timestamp),
    "reason": ("REASON", lambda row, _: row.reason),
}


def show(command: str, rows: Callable[[set[str]], list[Row]], fmt: str, no_header: bool) -> None:
    """Print what a command's format (of its `BOOKS`) makes of the rows; rows(fields) gives them for the fields it has."""
    from . import render
    from .formats import Format

    book = BOOKS[command]
    if fmt == "help":
        for name, one in {**book.built_in, **book.configured()}.items():
            render.out(f"{name:<12} {one.description}")
        return
    if fmt.startswith("get-config="):
        render.out(config_of(fmt.partition("=")[2], book))
        return
    _, text = find_format(fmt, f"FLUXKV_RESOURCE_{command.upper()}_FORMAT_DEFAULT", book)
    compiled = Format(text, FIELDS)
    lines = compiled.lines(rows({column.name for column in compiled.columns}), None, header=not no_header)
    if lines:
        render.out("\n".join(lines))


def chosen(state: State, include: str | None, queue: str | None) -> list[Node]:
    """Nodes by rank: those of TARGETS (ranks or hosts that do not exist are no error), of these queues, or all."""
    nodes = [state.nodes[rank] for rank in sorted(state.nodes)]
    if include is not None:
        wanted = _targets(include)
        nodes = [node for node in nodes if node.rank in wanted or node.host in wanted]
    if queue is not None:
        names = queue.split(",")
        for name in names:
            if name not in state.queues:
                from ..journal.config import no_such_queue

                raise no_such_queue(name, state.queues)
        queues = queues_of(state)
        nodes = [node for node in nodes if set(names).intersection(queues[node.rank] or state.queues)]
    return nodes


def _targets(text: str) -> set[int | str]:
    from ..journal.hostlist import expand
    from ..journal.idset import parse

    try:
        return set(parse(text.strip("[]")))
    except Rejected:
        return set(expand(text))


def queues_of(state: State) -> dict[int, tuple[str, ...]]:
    """rank -> the named queues whose jobs may run there."""
    from ..instances.views import nodes_of_queues

    found: dict[int, list[str]] = {rank: [] for rank in state.nodes}
    for name, ranks in nodes_of_queues(state).items():
        for rank in ranks:
            found[rank].append(name)
    return {rank: tuple(names) for rank, names in found.items()}


def sets(nodes: Iterable[Node]) -> dict[str, list[Part]]:
    """The scheduler's view. Allocated cores count as allocated wherever they are; free and down share out the rest."""
    nodes = list(nodes)

    def unused(node: Node) -> Part:
        return Part(node, node.cores & ~node.used_cores, node.gpus & ~node.used_gpus)

    def whole(node: Node) -> Part:
        return Part(node, node.cores, node.gpus)

    busy = [node for node in nodes if node.used_cores or node.used_gpus or node.busy]
    return {
        "free": [unused(node) for node in nodes if node.usable and node.cores & ~node.used_cores],
        "allocated": [Part(node, node.used_cores, node.used_gpus) for node in busy],
        "down": [unused(node) for node in nodes if not node.usable],
        "up": [whole(node) for node in nodes if node.usable],
        "all": [whole(node) for node in nodes],
    }


def pick(text: str, known: tuple[str, ...], what: str) -> list[str]:
    """States named in a comma list, each once. Raises `Rejected`."""
    names = list(dict.fromkeys(text.lower().split(",")))
    for name in names:
        if name not in known:
            raise Rejected(f"{name!r} is no {what}", code="bad-state", hint=f"there are {', '.join(known)}")
    return names


def list_rows(state: State, nodes: list[Node], names: list[str], fields: set[str]) -> list[Row]:
    """Rows of the scheduler's view, one a state, or more where a format tells nodes apart."""
    found = sets(nodes)
    by_queue, by_property = "queue" in fields, fields.intersection({"properties", "propertiesx"})
    by_rank = queues_of(state) if by_queue or by_property else {}
    rows: list[Row] = []
    for name in names:
        groups: dict[Hashable, Row] = {}
        for part in found[name]:
            queues = by_rank.get(part.node.rank, ())
            own = tuple(one for one in part.node.properties if not one.startswith("+")) if by_property else ()
            key = (queues if by_queue else (), own)
            groups.setdefault(key, Row(name, [], queues=queues, properties=own)).parts.append(part)
        rows += groups.values() or [Row(name, [])]
    return rows


def status_rows(nodes: list[Node], names: list[str], keep_empty: bool, fields: set[str]) -> list[Row]:
    """Rows of the system's view, one for each state and online or offline; keep_empty: also for states nobody is in."""
    apart = fields.intersection({"reason", "timestamp"})
    groups: dict[tuple[Any, ...], Row] = {}
    for node in nodes:
        states = ["all", "online" if node.online else "offline"]
        usual = "down" if node.shut else "avail"
        states.append(usual if node.drain is None else "draining" if node.busy else "drained")
        states += ["housekeeping"] if node.keeping else []
        states += ["allocated"] if node.busy else []
        since, why = node.drain or (0.0, "")
        for name in states:
            if name in names:
                told = (since, why) if apart and name in ("draining", "drained") else (0.0, "")
                if apart and name == "offline" and node.down is not None:
                    told = (node.down[0], node.down[1])
                groups.setdefault((name, node.online, *told), Row(name, [], node.online, *told)).parts.append(
                    Part(node, node.cores, node.gpus)
                )
    rows = list(groups.values())
    if keep_empty:
        rows += [Row(name, [], name != "offline") for name in names if not any(row.state == name for row in rows)]
    return sorted(rows, key=lambda row: (_ORDER.index(row.state), not row.online, row.timestamp, row.reason))


def drain_rows(nodes: list[Node], fields: set[str]) -> list[Row]:
    """Rows of nodes drained at one time for one reason, the oldest first."""
    groups: dict[tuple[Any, ...], Row] = {}
    for node in nodes:
        if node.drain is not None:
            kind = "draining" if node.busy else "drained"
            row = Row(kind, [], node.online, node.drain[0], node.drain[1])
            groups.setdefault((row.timestamp, kind, row.reason, node.online), row).parts.append(Part(node, node.cores, node.gpus))
    return [groups[key] for key in sorted(groups)]


def node_row(node: Node) -> list[Any]:
    """A node by itself, as cells."""
    from ..journal.ids import f58

    jobs = sorted(node.jobs)
    listed = ",".join(f58(id) for id in jobs[:4]) + (f",+{len(jobs) - 4}" if len(jobs) > 4 else "")
    gpus = f"{node.used_gpus.bit_count()}/{node.gpus.bit_count()}" if node.gpus else "-"
    memory = f"{node.used_memory_mb}/{node.memory_mb}M" if node.memory_mb else "-"
    cores = f"{node.used_cores.bit_count()}/{node.cores.bit_count()}"
    return [node.rank, node.host, node.state, cores, gpus, memory, listed or "-", node.drain[1] if node.drain else ""]


def node_document(node: Node) -> dict[str, Any]:
    """A node as a JSON object."""
    from ..journal.ids import f58
    from ..journal.idset import text_of

    return {
        "rank": node.rank, "host": node.host, "state": node.state, "online": node.online,
        "cores": text_of(node.cores), "used_cores": text_of(node.used_cores), "gpus": text_of(node.gpus),
        "used_gpus": text_of(node.used_gpus), "memory_mb": node.memory_mb, "used_memory_mb": node.used_memory_mb,
        "properties": list(node.properties), "jobs": [f58(id) for id in sorted(node.jobs)],
        "housekeeping": [f58(id) for id in sorted(node.keeping)],
        "drain": {"timestamp": node.drain[0], "reason": node.drain[1]} if node.drain else None,
        "down": {"heard": node.down[0], "reason": node.down[1]} if node.down else None,
    }  # fmt: skip

