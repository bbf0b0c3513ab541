"""Another inventory for an instance that is there: what may change, and what is in use and must stay. Pure."""

from __future__ import annotations

from typing import Any

from ..kvs.errors import Rejected
from .config import parse_rules
from .decide import Decision
from .holding import missing
from .hostlist import compress, expand
from .idset import format_ids, text_of
from .node import Node
from .rset import NodeRecord, ResourceSet, render_set
from .state import State

GRAPH_OF = "graph of"  # begins what is said of another graph


def reload(
    state: State, inventory: ResourceSet, now: float, method: str = "reload", edit: dict[str, Any] | None = None
) -> tuple[Decision, list[str]]:
    """A `resource-define` (RFC 44), and what it changes in words; no events if it changes nothing.

    edit: how the inventory's graph is made of that which is there (`graph_events.edited`): the event has this in place of it.
    Raises `Rejected` naming the node and why: in use and to be removed, shrunk below what is in use, or of another host; a host
    that a queue names and that would be gone; a graph without what jobs draw; an inventory that is a job's.
    """
    if state.instance.get("parent"):
        hint = "reload the instance around it, or fluxkv resize this one"
        raise Rejected("this instance has the resources of its job", code="child", hint=hint)
    _queues_keep_hosts(state, {record.host for record in inventory.nodes})
    return redefine(state, inventory, now, method, edit)


def redefine(
    state: State, inventory: ResourceSet, now: float, method: str, edit: dict[str, Any] | None = None
) -> tuple[Decision, list[str]]:
    """As `reload`, of whichever instance: its keeper may ask, who knows what its job has."""
    wanted = {record.rank: record for record in inventory.nodes}
    gone = [rank for rank, node in state.nodes.items() if rank not in wanted or wanted[rank].host != node.host]
    for rank in sorted(gone):
        _must_be_idle(state.nodes[rank], wanted.get(rank))
    changed = []
    for rank in sorted(wanted.keys() & state.nodes.keys() - set(gone)):
        node, record = state.nodes[rank], wanted[rank]
        _must_hold(node, record)
        own = tuple(name for name in node.properties if not name.startswith("+"))
        now_has = (record.cores, record.gpus, record.memory_mb, tuple(n for n in record.properties if not n.startswith("+")))
        if now_has != (node.cores, node.gpus, node.memory_mb, own):
            changed.append(rank)
    graph = None
    if inventory.tree is not None:
        from .resource_graph import graph_of

        graph = graph_of(inventory)
    if path := missing(state.drawn, graph):
        has = "less" if graph is not None and path in graph.places else "none"
        raise Rejected(
            f"the inventory is refused: jobs draw on {path}, and it has {has} of that", code="in-use",
            hint="try again when these jobs are over: fluxkv jobs --filter=running",
        )  # fmt: skip
    regraphed = (graph.hash if graph is not None else b"") != (state.graph.hash if state.graph is not None else b"")
    added = sorted(rank for rank in wanted if rank not in state.nodes or rank in gone)
    removed = sorted(rank for rank in gone if rank not in wanted)
    if not (added or removed or changed or regraphed or inventory.expiration != state.expiration):
        return Decision([]), []
    touched = [f"node/{rank}" for rank in sorted({*gone, *changed, *added})]
    plans = [f"plan/{name}" for name in state.queues]  # whoever places jobs must have seen this inventory
    plain = inventory._replace(nodes=tuple(
        record._replace(properties=tuple(n for n in record.properties if not n.startswith("+"))) for record in inventory.nodes
    ))  # fmt: skip
    context: dict[str, Any] = {"method": method, "R": render_set(plain)}
    if edit is not None:
        from .resource_graph import without_tree

        context = {"method": method, "R": without_tree(context["R"]), "edit": edit}
    things = ["resource", *plans, *touched]
    words = [
        f"{what} {compress([hosts[rank] for rank in ranks])} (rank{'s' if len(ranks) > 1 else ''} {format_ids(ranks)})"
        for what, ranks, hosts in (
            ("added", added, {rank: record.host for rank, record in wanted.items()}),
            ("removed", removed, {rank: node.host for rank, node in state.nodes.items()}),
            ("changed", changed, {rank: node.host for rank, node in state.nodes.items()}),
        )
        if ranks
    ]
    if regraphed:
        from .graph_edit import total

        words.append(f"{GRAPH_OF} {total(graph):,} vertices" if graph is not None else "no graph any more")
    if inventory.expiration != state.expiration:
        words.append(f"expiration {inventory.expiration:.0f}" if inventory.expiration else "no expiration")
    return Decision([["resource-define", "resource", now, context]], since=things, bumps=things), words


def _must_be_idle(node: Node, record: NodeRecord | None) -> None:
    if node.busy or node.grants:
        what = f"becomes {record.host}" if record is not None else "is not in it"
        why = "jobs hold some of it" if node.jobs or node.grants else "housekeeping is going on there"
        raise Rejected(
            f"the inventory is refused: rank {node.rank} ({node.host}) {what}, and {why}", code="in-use",
            hint=f"fluxkv resource drain {node.rank}, and try again when its jobs are over",
        )  # fmt: skip


def _must_hold(node: Node, record: NodeRecord) -> None:
    """A node that stays must have what of it is in use."""
    lost = [
        f"{name} {text_of(used & ~there)}"
        for name, used, there in (("cores", node.used_cores, record.cores), ("gpus", node.used_gpus, record.gpus))
        if used & ~there
    ]
    if node.used_memory_mb > record.memory_mb:
        lost.append(f"{node.used_memory_mb} MiB of memory")
    if lost:
        raise Rejected(
            f"the inventory is refused: rank {node.rank} ({node.host}) is to be without {' and '.join(lost)}, in use now",
            code="in-use", hint=f"fluxkv resource drain {node.rank}, and try again when its jobs are over",
        )  # fmt: skip


def _queues_keep_hosts(state: State, hosts: set[str]) -> None:
    for queue in parse_rules(state.config).queues.values():
        missing = [] if queue.hosts == "all" else [host for host in expand(queue.hosts or "") if host not in hosts]
        if missing:
            raise Rejected(
                f"the inventory is refused: queue {queue.name} has the host {missing[0]}, which is not in it", code="in-use",
                hint=f"take it out of queues.{queue.name}.hosts first: fluxkv config load",
            )  # fmt: skip
