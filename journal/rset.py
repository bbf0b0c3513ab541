"""Resource sets, R version 1 (RFC 20): inventories, allocations, and what a child instance inherits.

Decides what a valid R is and how it is written. Never decides who gets what. Memory is an addition of ours
under `scheduling`: `{"writer": "fluxkv", "memory_mb": {idset: mebibytes per node}}`; `execution` stays
complete without it. So is the graph of an instance that has one: `tree`, as columns, in its inventory, and `graph`, as JGF (RFC 40,
writer "fluxkv:jgf"), for whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..kvs.errors import Rejected
from . import hostlist, idset
from .claims import Claim
from .shown import shown

MAX_NODES = 1 << 17
_MAX_TEXT = 1 << 25
_FORBIDDEN = frozenset("!&'\"^`|()")


class NodeRecord(NamedTuple):
    """One node of a resource set. cores, gpus: bit masks. memory_mb: 0 if unknown. properties: sorted."""

    rank: int
    host: str
    cores: int
    gpus: int
    memory_mb: int
    properties: tuple[str, ...]


class ResourceSet(NamedTuple):
    """A parsed R. nodes: by ascending rank. nslots: 0 when absent. starttime, expiration: epoch seconds,
    0.0 unset.

    scheduling: the opaque object of a foreign writer as it came, or None; ours is folded into `nodes`.
    tree: the graph of ours as it came (`resource_graph.from_wire` reads it), or None.
    """

    nodes: tuple[NodeRecord, ...]
    nslots: int = 0
    starttime: float = 0.0
    expiration: float = 0.0
    scheduling: dict[str, Any] | None = None
    tree: Mapping[str, Any] | None = None

    @property
    def nnodes(self) -> int:
        """How many nodes."""
        return len(self.nodes)

    @property
    def ranks(self) -> str:
        """Their ranks, as an idset (RFC 22)."""
        return idset.format_ids(node.rank for node in self.nodes)

    @property
    def nodelist(self) -> str:
        """Their hosts in the order of ranks, as a hostlist (RFC 29)."""
        return hostlist.compress([node.host for node in self.nodes])

    @property
    def ncores(self) -> int:
        """Cores of all nodes."""
        return sum(node.cores.bit_count() for node in self.nodes)

    @property
    def ngpus(self) -> int:
        """GPUs of all nodes."""
        return sum(node.gpus.bit_count() for node in self.nodes)

    @property
    def scheduling_writer(self) -> str | None:
        """Who wrote `scheduling`, None when there is none."""
        return None if self.scheduling is None else str(self.scheduling.get("writer", "fluxion"))


def _fault(where: str, why: str) -> Rejected:
    return Rejected(f"bad R: {where}: {why}", code="bad-R", hint="see RFC 20")


def _at(where: str, text: Any) -> int:
    try:
        return idset.mask_of(text)
    except Rejected as error:
        raise _fault(where, str(error)) from None


def _number(execution: Mapping[str, Any], key: str) -> float:
    value = execution.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e300:
        raise _fault(f"execution.{key}", "must be a number of seconds since the epoch")
    return float(value)


def check_property(name: Any) -> str:
    """Return `name` if it may name a property, else raise `Rejected` (code bad-property)."""
    if not isinstance(name, str) or not 0 < len(name) <= 256 or not _FORBIDDEN.isdisjoint(name):
        raise Rejected(
            f"bad property name {shown(name)}", code="bad-property", hint="leave out ! & ' \" ^ ` | ( )"
        )
    return name


def parse_R(value: str | bytes | Mapping[str, Any]) -> ResourceSet:
    """The resource set of a JSON text or of a decoded object. Raises `Rejected` (code bad-R)."""
    if isinstance(value, (str, bytes)):
        if len(value) > _MAX_TEXT:
            raise _fault("text", "it is too long")
        import json

        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _fault("text", f"not JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise _fault("top level", "must be an object")
    version = value.get("version")
    if isinstance(version, bool) or version != 1:
        raise _fault("version", "must be 1")
    execution = value.get("execution")
    if not isinstance(execution, Mapping):
        raise _fault("execution", "must be an object")
    held = _children(execution.get("R_lite"))
    hosts = _hosts(execution.get("nodelist"), len(held))
    names = _properties(execution.get("properties", {}), held)
    scheduling = value.get("scheduling")
    if scheduling is not None and not isinstance(scheduling, Mapping):
        raise _fault("scheduling", "must be an object")
    memory: dict[int, int] = {}
    tree = None
    if scheduling is not None and _is_ours(scheduling):
        memory, tree = _memory(scheduling.get("memory_mb", {})), scheduling.get("tree")
        if tree is not None and not isinstance(tree, Mapping):
            raise _fault("scheduling.tree", "must be an object")
        if "graph" not in scheduling:
            scheduling = None
    nslots = execution.get("nslots")
    if nslots is not None and (type(nslots) is not int or nslots < 1):
        raise _fault("execution.nslots", "must be an integer greater than 0")
    starttime, expiration = _number(execution, "starttime"), _number(execution, "expiration")
    if starttime and expiration and expiration <= starttime:
        raise _fault("execution.expiration", "must be after starttime")
    nodes = tuple(
        [
            NodeRecord(rank, host, *held[rank], memory.get(rank, 0), tuple(names.get(rank, ())))
            for rank, host in zip(sorted(held), hosts, strict=True)
        ]
    )
    return ResourceSet(
        nodes, nslots or 0, starttime, expiration, None if scheduling is None else dict(scheduling), tree
    )


def _is_ours(scheduling: Mapping[str, Any]) -> bool:
    return str(scheduling.get("writer", "fluxion")).partition(":")[0] == "fluxkv"


def _children(lite: Any) -> dict[int, tuple[int, int]]:
    """rank -> (cores, gpus) of R_lite; entries naming a rank twice are joined."""
    if not isinstance(lite, list) or not lite:
        raise _fault("execution.R_lite", "must be a list with at least one entry")
    held: dict[int, tuple[int, int]] = {}
    for at, entry in enumerate(lite):
        where = f"execution.R_lite[{at}]"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("children"), Mapping):
            raise _fault(where, "must be an object with rank and children")
        ranks = _at(f"{where}.rank", entry.get("rank"))
        cores = _at(f"{where}.children.core", entry["children"].get("core"))
        gpus = _at(f"{where}.children.gpu", entry["children"].get("gpu", ""))
        if not ranks:
            raise _fault(f"{where}.rank", "is empty")
        if len(held) + ranks.bit_count() > MAX_NODES:
            raise _fault("execution.R_lite", f"more than {MAX_NODES} ranks")
        for rank in idset.ids_of_mask(ranks):
            before = held.get(rank)
            held[rank] = (cores, gpus) if before is None else (before[0] | cores, before[1] | gpus)
    return held


def _hosts(nodelist: Any, count: int) -> list[str]:
    if not isinstance(nodelist, list):
        raise _fault("execution.nodelist", "must be a list of hostlists")
    hosts: list[str] = []
    for text in nodelist:
        try:
            hosts += hostlist.expand(text)
        except Rejected as error:
            raise _fault("execution.nodelist", str(error)) from None
        if len(hosts) > count:
            break
    if len(hosts) != count:
        raise _fault("execution.nodelist", f"does not name one host for each of {count} ranks")
    return hosts


def _properties(properties: Any, held: Mapping[int, Any]) -> dict[int, list[str]]:
    if not isinstance(properties, Mapping) or len(properties) > 4096:
        raise _fault("execution.properties", "must be an object of idsets")
    names: dict[int, list[str]] = {}
    room = 64 * MAX_NODES
    for name in sorted(properties, key=str):
        where = f"execution.properties[{shown(name)}]"
        try:
            check_property(name)
        except Rejected as error:
            raise _fault(where, str(error)) from None
        ranks = _at(where, properties[name])
        room -= ranks.bit_count()
        if room < 0:
            raise _fault("execution.properties", "too many")
        for rank in idset.ids_of_mask(ranks):
            if rank not in held:
                raise _fault(where, f"rank {rank} is not in R_lite")
            names.setdefault(rank, []).append(name)
    return names


def _memory(by_ranks: Any) -> dict[int, int]:
    if not isinstance(by_ranks, Mapping) or len(by_ranks) > MAX_NODES:
        raise _fault("scheduling.memory_mb", "must be an object of idset to mebibytes")
    memory: dict[int, int] = {}
    for text, size in by_ranks.items():
        if type(size) is not int or not 0 <= size < 1 << 53:
            raise _fault("scheduling.memory_mb", f"bad size for {shown(text)}")
        for rank in idset.ids_of_mask(_at("scheduling.memory_mb", text)):
            if rank in memory:
                raise _fault("scheduling.memory_mb", f"rank {rank} is given twice")
            memory[rank] = size
    return memory


def _group(pairs: Iterable[tuple[int, Any]]) -> list[tuple[str, Any]]:
    """(idset text, value) per distinct value, in the order of lowest rank; pairs come by ascending rank."""
    groups: dict[Any, list[int]] = {}
    for rank, value in pairs:
        groups.setdefault(value, []).append(rank)
    return [(idset.format_ids(ranks), value) for value, ranks in groups.items()]


def render_set(resources: ResourceSet) -> dict[str, Any]:
    """R as a plain object, the inverse of `parse_R`; nodes with equal children share an R_lite entry."""
    nodes = sorted(resources.nodes)
    lite = []
    for ranks, (cores, gpus) in _group((n.rank, (n.cores, n.gpus)) for n in nodes):
        children = {"core": idset.text_of(cores)}
        if gpus:
            children["gpu"] = idset.text_of(gpus)
        lite.append({"rank": ranks, "children": children})
    execution: dict[str, Any] = {"R_lite": lite, "nodelist": [hostlist.compress(n.host for n in nodes)]}
    if resources.nslots:
        execution["nslots"] = resources.nslots
    names: dict[str, list[int]] = {}
    for node in nodes:
        for name in node.properties:
            names.setdefault(name, []).append(node.rank)
    if names:
        execution["properties"] = {name: idset.format_ids(names[name]) for name in sorted(names)}
    execution["starttime"] = resources.starttime
    execution["expiration"] = resources.expiration
    R: dict[str, Any] = {"version": 1, "execution": execution}
    memory = _group((n.rank, n.memory_mb) for n in nodes if n.memory_mb)
    if resources.scheduling is not None:
        ours = memory and _is_ours(resources.scheduling)
        R["scheduling"] = {**resources.scheduling, "memory_mb": dict(memory)} if ours else resources.scheduling
        return R
    if memory or resources.tree is not None:
        R["scheduling"] = {"writer": "fluxkv", "memory_mb": dict(memory)}
    if resources.tree is not None:
        R["scheduling"]["tree"] = resources.tree
    return R


def allocated_set(
    claims: Iterable[Claim],
    hosts: Mapping[int, str],
    nslots: int,
    starttime: float,
    expiration: float,
    properties: Mapping[int, Iterable[str]] | None = None,
) -> ResourceSet:
    """The resource set of an allocation.

    claims: one per rank. hosts: rank -> host name. starttime, expiration: epoch seconds, 0 for unset.
    properties: rank -> names; those that begin with "+" belong to this instance only and are left out.
    """
    nodes = []
    for claim in claims:
        names = () if properties is None else properties.get(claim.rank, ())
        kept = tuple(sorted(n for n in names if not n.startswith("+")))
        nodes.append(
            NodeRecord(claim.rank, hosts[claim.rank], claim.cores, claim.gpus, claim.memory_mb, kept)
        )
    return ResourceSet(tuple(sorted(nodes)), nslots, float(starttime), float(expiration))


def render_R(
    claims: Iterable[Claim],
    hosts: Mapping[int, str],
    nslots: int,
    starttime: float,
    expiration: float,
    properties: Mapping[int, Iterable[str]] | None = None,
) -> dict[str, Any]:
    """R of an allocation as a plain object: `allocated_set`, rendered."""
    return render_set(allocated_set(claims, hosts, nslots, starttime, expiration, properties))


def rerank(resources: ResourceSet | str | bytes | Mapping[str, Any]) -> ResourceSet:
    """What a child instance starts from: ranks 0..N-1 in the order of the old ones, no "+" properties, no
    nslots.

    A foreign `scheduling` object is carried as it is: by RFC 20 it speaks of hosts, not ranks.
    """
    if not isinstance(resources, ResourceSet):
        resources = parse_R(resources)
    nodes = tuple(
        node._replace(rank=new, properties=tuple(n for n in node.properties if not n.startswith("+")))
        for new, node in enumerate(sorted(resources.nodes))
    )
    return resources._replace(nodes=nodes, nslots=0)
