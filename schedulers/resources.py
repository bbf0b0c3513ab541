"""The compiled form of an instance's nodes, and the matcher of flat requests (RFC 25 shapes; R's ids are RFC
20's).

Decides which ids a request gets: the lowest ranks that fit, and on each the lowest ids, always the same for
the same pool. It never decides whether a job may have them (that is the policy's, and then `decide`'s), and
it knows no time. A pool is a cache of the journal's state: whoever owns it tells it which nodes changed
(`set_node`) and what it hands out (`take`).

Every question is answered from `Stock` indexes over sets of nodes held as ints, so a node that cannot serve
is never looked at, on an empty pool or a full one, and no cursor has to be kept right while resources come
and go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from ..journal.claims import Claim
from ..journal.sched_config import SIMPLE
from ..kvs.errors import Conflict, Rejected
from .flat import Stocks as Stocks
from .flat import Unmatched as Unmatched
from .flat import match_nodes, match_slots
from .flat import serving_nodes as serving_nodes
from .flat import serving_slots as serving_slots
from .match_policy import BUILT_IN, policy_of
from .ordered import Ranking, match_ordered
from .request import Request
from .stock import Stock, lowest, set_of

if TYPE_CHECKING:
    from .timeline import Span
    from .tree.layout import Layout
    from .tree.limits import Limits
    from .tree.policies import Policy as MatchPolicy

_CACHE_SIZE = 4096
_MANY = 16  # claims from which the indexes are changed in one pass


class Node(Protocol):
    """What the pool reads of a node; `journal.rset.NodeRecord` and the fold's nodes are such.

    cores, gpus: masks of ids. memory_mb: 0 = not tracked, so a request for memory is never served there.
    """

    @property
    def rank(self) -> int: ...
    @property
    def host(self) -> str: ...
    @property
    def cores(self) -> int: ...
    @property
    def gpus(self) -> int: ...
    @property
    def memory_mb(self) -> int: ...
    @property
    def properties(self) -> Iterable[str]: ...


class Pool:
    """The nodes of an instance with what is free on each. One owner; not shared between tasks.

    A new pool has everything free and every node usable.
    """

    __slots__ = (
        "_constraints", "_idle", "_layouts", "_masks", "_satisfiable", "_usable", "all_bits", "core_free", "dark", "down", "drawn",
        "free", "gpu_free", "holders", "index", "inner", "marred", "match_policy", "nodes", "promised", "ranks", "timeline",
        "total", "traverser",
    )  # fmt: skip

    def __init__(self, nodes: Iterable[Node], match_policy: str = "first") -> None:
        self.nodes: tuple[Node, ...] = tuple(sorted(nodes, key=lambda node: node.rank))
        #: rank -> position; positions are what all the sets are made of.
        self.index = {node.rank: i for i, node in enumerate(self.nodes)}
        if len(self.index) != len(self.nodes):
            raise Rejected(
                "inventory: a rank occurs twice", code="bad-inventory", hint="give each node its own rank"
            )
        self.ranks = [node.rank for node in self.nodes]
        #: Free ids by position, as masks.
        self.core_free = [node.cores for node in self.nodes]
        self.gpu_free = [node.gpus for node in self.nodes]
        self.total = self._stocks()
        self.free = self._stocks()
        self.all_bits = (1 << len(self.nodes)) - 1
        #: Why a position is not usable: "drained", "offline" or another word; usable ones are absent.
        self.down: dict[int, str] = {}
        self._usable, self._idle, self.marred = self.all_bits, self.all_bits, 0  # marred: nodes in which something is down
        self._constraints: dict[bytes, int] = {}
        self._satisfiable: dict[bytes, Unmatched | None] = {}
        #: Who holds claims, as (job, when it ends or 0, claims): asked by policies that look ahead.
        self.holders: Callable[[], Iterable[tuple[int, float, tuple[Claim, ...]]]] = tuple
        #: Which of the resources that would do a job gets: a name of `match_policy.policy_of`.
        self.match_policy = match_policy
        if match_policy != "first":
            policy_of(match_policy)
        #: How slots side by side are taken (`tree.needs.flexible`).
        self.traverser = SIMPLE
        #: Ordinals of vertices of the graph that are out of use, and ordinal -> (units, ids) in use of those that are
        #: neither node nor core, GPU or memory of one. Without a graph there are none; `graph_pool` fills them.
        self.dark: set[int] = set()
        self.drawn: dict[int, tuple[int, int]] = {}
        #: Position -> ordinals of what is in use inside the node, none of them empty.
        self.inner: dict[int, frozenset[int]] = {}
        self._layouts: list[Layout] = []
        self._masks: tuple[Stock, Stock] | None = None
        #: What the plans of one pass share (`timeline.timeline_of`); the owner sets it to None before each pass.
        self.timeline: object = None
        #: Job -> what plans have reserved for it, where the owner has that remembered (`backfill`) and drops who leaves the line.
        self.promised: dict[int, Span] | None = None

    def copy(self) -> Pool:
        """One that can be changed by itself. What follows from the inventory alone is shared."""
        new = type(self).__new__(type(self))
        new.nodes, new.index, new.ranks, new.total, new.all_bits = (
            self.nodes, self.index, self.ranks, self.total, self.all_bits,
        )  # fmt: skip
        new._constraints, new._satisfiable, new.holders, new.timeline = self._constraints, self._satisfiable, tuple, None
        new.promised = None
        new.core_free, new.gpu_free, new.down = list(self.core_free), list(self.gpu_free), dict(self.down)
        new._usable, new._idle, new.marred = self._usable, self._idle, self.marred
        new.free = Stocks(*(stock.copy() for stock in self.free))
        new._masks = None if self._masks is None else (self._masks[0].copy(), self._masks[1].copy())
        new.match_policy, new.traverser, new._layouts = self.match_policy, self.traverser, self._layouts
        new.dark, new.drawn = set(self.dark), dict(self.drawn)
        new.inner = dict(self.inner)
        return new

    @property
    def layout(self) -> Layout:
        """Where each vertex of the graph is; of an inventory without one, made when it is first asked for."""
        if not self._layouts:
            from .tree.layout import Layout, tree_of

            self._layouts.append(Layout(tree_of(self.nodes), self.nodes))
        return self._layouts[0]

    @property
    def ranking(self) -> Ranking | None:
        """The nodes by their numbers in the graph; None without one, where these are the ranks."""
        return None

    @property
    def policy(self) -> MatchPolicy:
        """The match policy as an object."""
        return policy_of(self.match_policy)

    def set_vertex(self, path: str, units: int, ids: int = 0, up: bool | None = None) -> None:
        """So many units of a vertex of the graph, and of a pool of singles these ids, are in use; it is up or down, or as it was.
        For a path that is not there, as all are without a graph, nothing is done."""

    def held(self, path: str) -> tuple[int, int] | None:
        """Units and ids in use of such a vertex; None for a path that is not there."""
        return None

    def drawn_paths(self) -> list[str]:
        """Of which vertices something is in use."""
        return []

    def _stocks(self) -> Stocks:
        nodes = self.nodes
        return Stocks(
            Stock(node.cores.bit_count() for node in nodes),
            Stock(node.gpus.bit_count() for node in nodes),
            Stock(node.memory_mb for node in nodes),
        )

    @property
    def usable(self) -> int:
        """The set of positions that may get new work."""
        return self._usable

    @property
    def idle(self) -> int:
        """The set of positions nobody holds anything of (usable or not)."""
        return self._idle

    # -- what the owner tells it

    def set_node(
        self,
        rank: int,
        free_cores: int,
        free_gpus: int,
        free_memory_mb: int,
        usable: bool,
        whole_free: bool,
        why: str = "",
    ) -> None:
        """Bring one node up to date. Free ids are masks and cut to what the node has.

        whole_free: nobody holds anything of it, so it can be taken exclusively. why: for an unusable node,
        "drained" or "offline", used in reasons only. Raises Rejected for an unknown rank.
        """
        i = self._position(rank)
        node = self.nodes[i]
        self.core_free[i] = free_cores & node.cores
        self.gpu_free[i] = free_gpus & node.gpus
        self.free.cores.set(i, self.core_free[i].bit_count())
        self.free.gpus.set(i, self.gpu_free[i].bit_count())
        self.free.memory.set(i, max(0, min(free_memory_mb, node.memory_mb)))
        self._mask(i)
        bit = 1 << i
        self._idle = self._idle | bit if whole_free else self._idle & ~bit
        if usable:
            self._usable |= bit
            self.down.pop(i, None)
        else:
            self._usable &= ~bit
            self.down[i] = why or "offline"

    def _mask(self, i: int) -> None:
        if self._masks is not None:
            self._masks[0].set(i, self.core_free[i])
            self._masks[1].set(i, self.gpu_free[i])

    def take(self, claims: Sequence[Claim]) -> None:
        """Mark a job's claims, one a node, as held.

        All or nothing: raises Conflict, naming the nodes, if anything of them is not free (or a node is named
        twice).
        """
        wrong = []
        if len(claims) > 1 and len({claim.rank for claim in claims}) < len(claims):
            raise Conflict("a node is claimed twice by one job", hint="merge the claims of a node")
        memory = self.free.memory.counts
        for rank, cores, gpus, memory_mb, _, _ in claims:
            i = self._position(rank)
            if cores & ~self.core_free[i] or gpus & ~self.gpu_free[i] or memory_mb > memory[i]:
                wrong.append(f"node/{rank}")
        if wrong:
            raise Conflict(f"not free on {', '.join(wrong[:4])}", things=tuple(wrong), hint="match again")
        self._change(claims, taking=True)

    def give(self, claims: Sequence[Claim]) -> None:
        """Mark claims as free again. A node with everything free counts as idle."""
        self._change(claims, taking=False)

    def _change(self, claims: Sequence[Claim], *, taking: bool) -> None:
        index, core_free, gpu_free, memory = (
            self.index,
            self.core_free,
            self.gpu_free,
            self.free.memory.counts,
        )
        cores_now: dict[int, int] = {}
        gpus_now: dict[int, int] = {}
        memory_now: dict[int, int] = {}
        whole: list[int] = []
        for rank, cores, gpus, memory_mb, _, _ in claims:
            i = index[rank] if taking else self._position(rank)
            node = self.nodes[i]
            core_free[i] = mask = core_free[i] & ~cores if taking else core_free[i] | (cores & node.cores)
            cores_now[i] = mask.bit_count()
            if gpus:
                gpu_free[i] = ids = gpu_free[i] & ~gpus if taking else gpu_free[i] | (gpus & node.gpus)
                gpus_now[i] = ids.bit_count()
            left = memory_now.get(i, memory[i]) if memory_mb else memory[i]
            if memory_mb:
                left = left - memory_mb if taking else min(node.memory_mb, left + memory_mb)
                memory_now[i] = left
            if taking or (mask == node.cores and gpu_free[i] == node.gpus and left == node.memory_mb):
                whole.append(i)
        for stock, now in zip(self.free, (cores_now, gpus_now, memory_now), strict=True):
            if len(now) >= _MANY:
                stock.set_many(now)
            else:
                for i, count in now.items():
                    stock.set(i, count)
        if self._masks is not None:
            for i in cores_now:
                self._mask(i)
        bits = set_of(whole, len(self.nodes)) if len(whole) >= _MANY else 0
        if not bits:
            for i in whole:
                bits |= 1 << i
        self._idle = self._idle & ~bits if taking else self._idle | bits

    def _position(self, rank: int) -> int:
        i = self.index.get(rank)
        if i is None:
            raise Rejected(
                f"no node has rank {rank}", code="no-such-rank", hint="`fluxkv resource list` shows them"
            )
        return i

    # -- what it answers

    def matching(self, request: Request) -> int:
        """The set of positions that meet the request's constraint, usable or not."""
        key = request.constraint_key
        if not key:
            return self.all_bits
        bits = self._constraints.get(key)
        if bits is None:
            from ..journal.constraint import compile as compile_constraint

            holds = compile_constraint(request.constraint)
            met = (i for i, n in enumerate(self.nodes) if holds(n.rank, n.host, frozenset(n.properties)))
            bits = set_of(met, len(self.nodes))
            if len(self._constraints) >= _CACHE_SIZE:
                self._constraints.clear()
            self._constraints[key] = bits
        return bits

    def match(self, request: Request) -> tuple[Claim, ...] | Unmatched:
        """What the request would get now: one claim a node, ranks ascending; nothing is taken.

        Deterministic: the lowest ranks that fit, on each the lowest ids; slots without a node count fill the
        lowest ranks first. An exclusive request gets whole idle nodes.
        """
        flat = request.flat
        if flat is None:
            return self.searched(request)
        among = self.usable
        if request.constraint_key:
            among &= self.matching(request)
        if self.match_policy != "first":
            got = match_ordered(self, flat, among) if self.match_policy in BUILT_IN else None
            return self.searched(request) if got is None else got
        if flat.exclusive:
            among &= self.idle
        if flat.nnodes:
            return match_nodes(self, flat, among)
        cores, gpus, memory_mb = flat.cores, flat.gpus, flat.memory_mb
        found = 0
        for count, members in self.free.cores.levels.items():
            if count >= cores:
                found |= members
        found &= among
        if gpus:
            found &= self.free.gpus.at_least(gpus)
        if memory_mb:
            found &= self.free.memory.at_least(memory_mb)
        if flat.nslots > 1:
            return match_slots(self, flat, found)
        if not found:
            return Unmatched("resources", "slot", 1, 0)
        i = (found & -found).bit_length() - 1
        gpu_ids = lowest(self.gpu_free[i], gpus) if gpus else 0
        return (Claim(self.ranks[i], lowest(self.core_free[i], cores), gpu_ids, memory_mb, 1),)

    def by_counts(self, request: Request) -> bool:
        """Is what it gets, now or later, a matter of counting free cores, GPUs and memory of nodes, the lowest first?"""
        return request.flat is not None and self.match_policy == "first"

    def whole(self, at: int, slots: int) -> Claim:
        """A node with all that is in it."""
        node = self.nodes[at]
        return Claim(node.rank, node.cores, node.gpus, node.memory_mb, slots)

    def limits(self, request: Request) -> Limits | None:
        """What its constraint says of vertices of a graph; None without one."""
        return None

    @property
    def is_dim(self) -> bool:
        """Is something inside a node out of use, so that counts do not tell what can be had?"""
        return False

    def is_special(self, request: Request) -> bool:
        """Is its constraint about what is inside nodes, so that to count what they have is not enough?"""
        return False

    def searched(self, request: Request) -> tuple[Claim, ...] | Unmatched:
        """What the search that serves requests of any shape gives now."""
        from .tree.stand import search

        return search(self, request)

    def left(self, kind: str) -> Stock | None:
        """What is left inside of nodes of another type than cores, GPUs and memory, where that is counted (`Layout.counted`)."""
        return None

    def masks(self) -> tuple[Stock, Stock]:
        """The free cores, and GPUs, of all positions, indexed by mask."""
        if self._masks is None:
            self._masks = Stock(self.core_free), Stock(self.gpu_free)
        return self._masks

    def fits(self, request: Request, stocks: Stocks, among: int, all_up: bool = False) -> Unmatched | None:
        """Would it fit with these counts on these positions (on top of its constraint)? None if so. all_up: were nothing down."""
        flat = request.flat
        if flat is None or self.is_special(request):
            from .tree.stand import search

            got = search(self, request, among, empty=stocks is self.total, all_up=all_up)
            return got if isinstance(got, Unmatched) else None
        among &= self.matching(request)
        if flat.nnodes:
            found = serving_nodes(flat, stocks, among).bit_count()
            return None if found >= flat.nnodes else Unmatched("resources", "node", flat.nnodes, found)
        found = serving_slots(flat, stocks, among)
        return None if found >= flat.nslots else Unmatched("resources", "slot", flat.nslots, found)

    def satisfiable(self, request: Request) -> Unmatched | None:
        """None if the request fits the inventory with everything up and free; else why it never will. Raises `Rejected` for one
        that the matcher, or a match policy, fails on."""
        try:
            return self._satisfiable[request.key]
        except KeyError:
            pass
        try:
            short = self.fits(request, self.total, self.all_bits, all_up=True)
        except Rejected:
            raise
        except Exception as error:  # one request must not end whoever takes in all others
            raise Rejected(
                f"this request cannot be matched here: the matcher failed with {type(error).__name__}: {error}",
                code="matcher-failed", hint="ask for it in another way, or under the match policy first",
            ) from error  # fmt: skip
        if short is not None:
            short = Unmatched("unsatisfiable", short.what, short.needed, short.found)
        if len(self._satisfiable) >= _CACHE_SIZE:
            self._satisfiable.clear()
        self._satisfiable[request.key] = short
        return short
