"""Jobs that name what they get: `attributes.system.alloc-bypass.R` (flux-core), a resource set (RFC 20) of this very instance.

Decides what such an R claims, and whether all of that is there and free. Such a job stands in line like any other: unlike in Flux
nothing is ever held twice, so it waits until all that it names is free, and is refused if that is not part of the inventory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..journal.claims import Claim, Draw
from ..journal.idset import MAX_ID, text_of
from ..journal.jobspec_check import BYPASS
from ..journal.rset import NodeRecord, parse_R
from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from .request import Flat, Vertex
    from .resources import Pool
    from .tree.stand import Stand

_NODE_S = ("core", "gpu", "node")  # what R_lite says of them holds


class Held(NamedTuple):
    """A vertex of a graph that R says is held (`exclusive`). paths: where it is, by subsystem; number: its id among singles."""

    paths: tuple[str, ...]
    number: int
    units: int


class Imposed(NamedTuple):
    """claims: without draws. held: what is held beside nodes, cores, GPUs and memory, of R's graph, if it has one."""

    claims: tuple[Claim, ...]
    held: tuple[Held, ...]


class Lack(NamedTuple):
    """Why it cannot be had. kind: what is short; needed, found: of it."""

    text: str
    kind: str
    needed: int
    found: int


def imposed_of(bypass: object, flat: Flat | None, tree: Sequence[Vertex]) -> Imposed:
    """What the attribute names, with the request's slots laid on it. Raises `Rejected` (bad-jobspec) with the path to the fault."""
    if not isinstance(bypass, Mapping) or "R" not in bypass:
        raise _bad("", "must be an object with R")
    try:
        found = parse_R(bypass["R"])
    except Rejected as error:
        raise _bad(".R", str(error)) from None
    slots = _slots(found.nodes, flat, tree)
    claims = [Claim(n.rank, n.cores, n.gpus, n.memory_mb, many) for n, many in zip(found.nodes, slots, strict=True)]
    scheduling = found.scheduling or {}
    graph = scheduling.get("graph")
    return Imposed(tuple(claims), tuple(_held(graph.get("nodes"))) if isinstance(graph, Mapping) else ())


def _slots(nodes: Sequence[NodeRecord], flat: Flat | None, tree: Sequence[Vertex]) -> list[int]:
    """How many of the request's slots are on each node."""
    from .request import spread

    if flat is not None:
        fit = [min(n.cores.bit_count() // flat.cores, n.gpus.bit_count() // flat.gpus if flat.gpus else 1 << 30) for n in nodes]
        if flat.nnodes:
            if len(nodes) != flat.nnodes or min(fit) < flat.slots_per_node:
                text = f"has {len(nodes)} nodes, and room for {min(fit)} slots on one of them; {flat.nnodes} nodes with"
                raise _bad(".R", f"{text} {flat.slots_per_node} slots each are asked for")
            return [flat.slots_per_node] * len(nodes)
        wanted = flat.nslots
    else:
        fit, wanted = [n.cores.bit_count() for n in nodes], _number_of_slots(tree)
    if sum(fit) < wanted:
        raise _bad(".R", f"has room for {sum(fit)} slots; {wanted} are asked for")
    shares = iter(spread(wanted, [one for one in fit if one]))
    return [next(shares) if one else 0 for one in fit]


def _number_of_slots(tree: Sequence[Vertex]) -> int:
    """At the least; of slots side by side the first counts."""
    for vertex in tree:
        count = vertex.count if isinstance(vertex.count, int) else vertex.count.min
        if vertex.type.endswith("slot"):
            return count
        if vertex.children and (inside := _number_of_slots(vertex.children)):
            return count * inside
    return 0


def _held(nodes: object) -> Iterable[Held]:
    for node in nodes if isinstance(nodes, list) else ():
        meta = node.get("metadata") if isinstance(node, Mapping) else None
        if not isinstance(meta, Mapping) or not meta.get("exclusive") or meta.get("type") in _NODE_S:
            continue
        paths, number, size = meta.get("paths"), meta.get("id"), meta.get("size", 1)
        if not isinstance(paths, Mapping) or type(size) is not int or size < 1:
            raise _bad(".R", "has a graph with a vertex without paths, or a size")
        yield Held(tuple(map(str, paths.values())), number if type(number) is int and 0 <= number < MAX_ID else -1, size)


def impose(pool: Pool, stand: Stand, imposed: Imposed) -> tuple[Claim, ...] | Lack:
    """The claims, with their draws, or the first thing that cannot be had."""
    for claim in imposed.claims:
        at = pool.index.get(claim.rank, -1)
        if at < 0:
            return Lack(f"rank {claim.rank}, which its R names, is not in the inventory", "node", 1, 0)
        node = pool.nodes[at]
        for kind, mine, there in (("core", claim.cores, node.cores), ("gpu", claim.gpus, node.gpus)):
            if missing := mine & ~there:
                return Lack(f"{node.host} has no {kind} {text_of(missing)}, which its R names", kind, mine.bit_count(), 0)
        if claim.memory_mb > node.memory_mb:
            return Lack(f"{node.host} has {node.memory_mb} MB, not {claim.memory_mb}", "memory", claim.memory_mb, node.memory_mb)
        if not stand.among >> at & 1:
            return Lack(f"{node.host}, which its R names, is not among the nodes that it may have", "node", 1, 0)
        for kind, mine, free in (("core", claim.cores, stand.cores(at)), ("gpu", claim.gpus, stand.gpus(at))):
            if mine & ~free:
                text = f"its R names {kind}s {text_of(mine)} of {node.host}, of which {text_of(mine & ~free)} are not free"
                return Lack(text, kind, mine.bit_count(), (mine & free).bit_count())
        if claim.memory_mb > stand.memory(at):
            text = f"its R names {claim.memory_mb} MB of {node.host}, of which {stand.memory(at)} MB are free"
            return Lack(text, "memory", claim.memory_mb, stand.memory(at))
    return _with_draws(pool, stand, imposed) if imposed.held else imposed.claims


def _with_draws(pool: Pool, stand: Stand, imposed: Imposed) -> tuple[Claim, ...] | Lack:
    layout = pool.layout
    found: dict[int, list[int]] = {}
    for paths, number, units in imposed.held:
        ordinals = [(layout.ordinals[path], False) for path in paths if path in layout.ordinals]
        ordinals += [(layout.ordinals[pool_], True) for path in paths if (pool_ := path.rstrip("0123456789")) in layout.ordinals]
        if not ordinals:
            return Lack(f"{paths[0]}, which its R names, is not in the resource graph", "vertex", 1, 0)
        ordinal, single = ordinals[0]
        vertex = layout.vertices[ordinal]
        if vertex.type == "memory" and layout.position[ordinal] >= 0 and layout.position[ordinal] not in layout.memories:
            continue  # counted by the node
        ids = 1 << number if (single or vertex.ids) and number >= 0 else 0
        drawn = found.setdefault(ordinal, [0, 0])
        drawn[0], drawn[1] = drawn[0] + units, drawn[1] | ids
        used, taken = stand.drawn(ordinal)
        if ids & ~vertex.ids or drawn[0] > vertex.size:
            return Lack(f"{paths[0]} has not as much as its R names", vertex.type, drawn[0], vertex.size)
        if used + drawn[0] > vertex.size or taken & ids:
            return Lack(f"{paths[0]}, which its R names, is not free", vertex.type, units, 0)
    by_rank = {claim.rank: list[Draw]() for claim in imposed.claims}
    first = imposed.claims[0].rank
    for ordinal, (units, ids) in found.items():
        at = layout.position[ordinal]
        rank = pool.nodes[at].rank if at >= 0 else first
        by_rank[rank if rank in by_rank else first].append(Draw(layout.paths[ordinal], units, ids))
    return tuple(claim._replace(draws=tuple(sorted(by_rank[claim.rank]))) for claim in imposed.claims)


def words_of(imposed: Imposed) -> str:
    """What it names, in words: "cores 0-3 of rank 0"."""
    parts = []
    for claim in imposed.claims[:4]:
        gpus = f" and GPUs {text_of(claim.gpus)}" if claim.gpus else ""
        parts.append(f"cores {text_of(claim.cores)}{gpus} of rank {claim.rank}")
    more = [f"{len(imposed.claims) - 4} more"] if len(imposed.claims) > 4 else []
    return ", ".join([*parts, *more])


def _bad(path: str, why: str) -> Rejected:
    where = f"attributes.system.{BYPASS}{path}"
    return Rejected(f"jobspec: {where} {why}", code="bad-jobspec", hint="fluxkv job info ID R shows a resource set")
