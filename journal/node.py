"""A node as the fold knows it: inventory, status and use. Changed only by `State.apply`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..kvs.errors import Rejected
from .claims import Claim
from .idset import format_ids, mask_of, parse, text_of

STORY = 100
REBOOTED = "node rebooted"  # why what its agent had is lost
STOPPED = "its agent was stopped"  # why a node is offline that is not asked to come back


class Node:
    """One execution target. cores/gpus are bitmasks of ids; used_* what claims hold now.

    hello: [boot id, spool id, epoch, cursor, attempts held] of its agent's last word, None before any.
    drain: [time, reason] or None. jobs: ids that hold claims here; grants: ids placed ahead here;
    keeping: ids of jobs whose housekeeping is going on here.
    joined: the spool id of the agent on another host that has brought this node along, "" for a node of the instance's own agent.
    down: [when it was last heard, why, how long its fenced tasks live without the store (0: for ever)] of a node that is offline
    by its agent's silence or leave, else None.
    shut: it is set down in the graph, or something above it is; that follows from the graph, and is no part of its value.
    commits: the versions of the last commits (at most `STORY`) with an event about the node itself.
    """

    __slots__ = (
        "commits", "cores", "down", "drain", "gpus", "grants", "hash", "hello", "host", "jobs", "joined", "keeping", "memory_mb",
        "online",
        "properties", "rank", "shut",
        "t_status", "used_cores", "used_gpus", "used_memory_mb",
    )  # fmt: skip

    def __init__(self, rank: int, host: str, cores: int, gpus: int, memory_mb: int, properties: tuple[str, ...]) -> None:
        self.rank = rank
        self.host = host
        self.cores = cores
        self.gpus = gpus
        self.memory_mb = memory_mb
        self.properties = properties
        self.online = False
        self.t_status = 0.0
        self.drain: list[Any] | None = None
        self.hello: list[Any] | None = None
        self.used_cores = self.used_gpus = self.used_memory_mb = 0
        self.jobs: set[int] = set()
        self.grants: set[int] = set()
        self.keeping: set[int] = set()
        self.commits: list[int] = []
        self.joined = ""
        self.down: list[Any] | None = None
        self.shut = False
        self.hash = 0

    @property
    def usable(self) -> bool:
        """May get new work: up, heard from in this epoch, not drained, nothing above it set down."""
        return self.online and self.drain is None and not self.shut

    @property
    def state(self) -> str:
        """One word for tables: "drained"/"draining" (jobs left), "offline", "down" (set so), "allocated", "free"."""
        if self.drain is not None:
            return "draining" if self.busy else "drained"
        if not self.online:
            return "offline"
        if self.shut:
            return "down"
        return "allocated" if self.busy else "free"

    @property
    def busy(self) -> bool:
        """Some of it is held, by a job or by housekeeping after one."""
        return bool(self.jobs or self.keeping)

    def value(self) -> list[Any]:
        """Plain values, for snapshots and the digest."""
        return [
            self.rank, self.host, text_of(self.cores), text_of(self.gpus), self.memory_mb, list(self.properties),
            self.online, self.t_status, self.drain, self.hello, text_of(self.used_cores), text_of(self.used_gpus),
            self.used_memory_mb, sorted(self.jobs), sorted(self.grants), self.commits, sorted(self.keeping),
            *([self.joined, self.down] if self.joined or self.down else ()),  # as it was where there is no such thing
        ]  # fmt: skip

    @classmethod
    def from_value(cls, value: list[Any]) -> Node:
        """Inverse of `value`."""
        node = cls(value[0], value[1], mask_of(value[2]), mask_of(value[3]), value[4], tuple(value[5]))
        node.online, node.t_status, node.drain, node.hello = value[6:10]
        node.used_cores, node.used_gpus, node.used_memory_mb = mask_of(value[10]), mask_of(value[11]), value[12]
        node.jobs, node.grants, node.commits, node.keeping = set(value[13]), set(value[14]), value[15], set(value[16])
        node.joined, node.down = value[17:19] if len(value) > 17 else ("", None)
        return node

    def note(self, version: int) -> None:
        """A commit has an event about this node."""
        if not self.commits or self.commits[-1] != version:
            self.commits = [*self.commits[1 - STORY :], version]

    def take(self, claim: Claim, job: int) -> bool:
        """Add a claim; False (and nothing changed) if any of it is in use or not there."""
        if (
            claim.cores & (self.used_cores | ~self.cores)
            or claim.gpus & (self.used_gpus | ~self.gpus)
            or (claim.memory_mb and self.used_memory_mb + claim.memory_mb > self.memory_mb)
        ):
            return False
        self.used_cores |= claim.cores
        self.used_gpus |= claim.gpus
        self.used_memory_mb += claim.memory_mb
        self.jobs.add(job)
        return True

    def keep(self, claim: Claim, job: int) -> bool:
        """Add a claim for housekeeping after a job; False as with `take`."""
        if not self.take(claim, job):
            return False
        self.jobs.discard(job)
        self.keeping.add(job)
        return True

    def unkeep(self, claim: Claim, job: int) -> None:
        """Take such a claim back."""
        self.give(claim, job)
        self.keeping.discard(job)

    def give(self, claim: Claim, job: int) -> None:
        """Take a claim back."""
        self.used_cores &= ~claim.cores
        self.used_gpus &= ~claim.gpus
        self.used_memory_mb -= claim.memory_mb
        self.jobs.discard(job)


class Queue:
    """A named queue. enabled: accepts submissions. started: its jobs may be allocated."""

    __slots__ = ("disable_reason", "enabled", "hash", "name", "started", "stop_reason")

    def __init__(self, name: str) -> None:
        self.name = name
        self.enabled = True
        self.started = True
        self.disable_reason = ""
        self.stop_reason = ""
        self.hash = 0

    def value(self) -> list[Any]:
        """Plain values, for snapshots and the digest."""
        return [self.name, self.enabled, self.started, self.disable_reason, self.stop_reason]

    @classmethod
    def from_value(cls, value: list[Any]) -> Queue:
        """Inverse of `value`."""
        queue = cls(value[0])
        queue.enabled, queue.started, queue.disable_reason, queue.stop_reason = value[1:5]
        return queue


def named(nodes: Mapping[int, Node], targets: str) -> list[int]:
    """Ranks that an idset of ranks or a hostlist names, ascending. Raises `Rejected` for an unknown one."""
    if targets == "all":
        return sorted(nodes)
    try:
        ranks = list(parse(targets.strip("[]")))
    except Rejected:
        from .hostlist import compress, expand

        by_host: dict[str, list[int]] = {}
        for node in nodes.values():
            by_host.setdefault(node.host, []).append(node.rank)
        ranks = []
        for host in expand(targets):
            if host not in by_host:
                raise Rejected(f"{host}: no such node", code="no-such-node", hint=f"there are {compress(by_host)}") from None
            ranks += by_host[host]
    for rank in ranks:
        if rank not in nodes:
            raise Rejected(f"rank {rank}: no such node", code="no-such-node", hint=f"ranks are {format_ids(nodes)}")
    return sorted(set(ranks))
