"""A host joins an instance, or leaves it: a node more or less in the inventory, and nobody else's rank changes. Pure.

The inventory changes as by `resource reload` (a `resource-define`, RFC 44), with method join or leave; an event `join` says in the
same commit which agent serves the node, so the instance's own agent never takes it for one of its own.
"""

from __future__ import annotations

from typing import NamedTuple

from ..kvs.errors import Rejected
from .decide import Decision
from .decide_inventory import reload
from .node import Node
from .rset import NodeRecord, ResourceSet
from .state import State


class Newcomer(NamedTuple):
    """A host that joins. cores, gpus: bit masks. spool: what its agent's state directory is known by. boot: of the host."""

    host: str
    cores: int
    gpus: int
    memory_mb: int
    properties: tuple[str, ...]
    spool: str
    boot: str


def rank_of(state: State, host: str, spool: str) -> int | None:
    """The rank of a host that was here before: by its state directory, or (that one lost) by its name; None for a new one.

    Raises `Rejected` (code host-exists) for the name of a node that the instance's own agent serves.
    """
    for node in state.nodes.values():
        if node.joined == spool:
            return node.rank
    for node in state.nodes.values():
        if node.host == host:
            if node.joined:
                return node.rank
            raise Rejected(
                f"the instance has a node {host} (rank {node.rank}), and it is not one that joined", code="host-exists",
                hint="give this host another name with --name",
            )  # fmt: skip
    return None


def join(state: State, new: Newcomer, now: float) -> tuple[Decision, int]:
    """The decision (nothing if all is as it was), and the rank: that of old, or one that nobody has.

    Raises `Rejected` as `rank_of` and `reload` do.
    """
    known = rank_of(state, new.host, new.spool)
    rank = known if known is not None else 1 + max(state.nodes, default=-1)
    record = NodeRecord(rank, new.host, new.cores, new.gpus, new.memory_mb, new.properties)
    decision, _ = reload(state, _inventory(state, rank, record), now, method="join")
    node = state.nodes.get(rank)
    if node is None or node.joined != new.spool or node.host != new.host:
        thing = f"node/{rank}"
        decision.events.append(["join", thing, now, {"host": new.host, "spool": new.spool, "boot": new.boot}])
        for things in (decision.since, decision.bumps):
            things.extend(word for word in ("resource", thing) if word not in things)
    return decision, rank


def leave(state: State, rank: int, now: float) -> Decision:
    """The inventory without this node. Raises `Rejected` while jobs hold some of it, or where it is the last one."""
    if rank not in state.nodes:
        return Decision([])
    if len(state.nodes) == 1:
        raise Rejected("the last node of an instance stays", code="in-use", hint="fluxkv stop ends the instance")
    return reload(state, _inventory(state, rank, None), now, method="leave")[0]


def _inventory(state: State, rank: int, record: NodeRecord | None) -> ResourceSet:
    """What there is, with this record for the rank."""
    others = [_record(node) for node in state.nodes.values() if node.rank != rank]
    nodes = [*others, record] if record is not None else others
    return ResourceSet(tuple(sorted(nodes)), expiration=state.expiration)


def _record(node: Node) -> NodeRecord:
    return NodeRecord(node.rank, node.host, node.cores, node.gpus, node.memory_mb, node.properties)
