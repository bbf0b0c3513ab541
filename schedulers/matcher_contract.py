"""What every match policy must obey, as checks the author of one can run: `check_matcher(MyPolicy, rng)`.

Each call plays random rounds of match, take and give on a random graph and asserts that a policy only says in which order: it
gives back all candidates that it gets and no others, is the same when asked again, never makes a request fit or not that would not
or would without it, and that what is given is free, enough, and whole where the policy says so. Random choices are the caller's:
hand in `random.Random(seed)`. It raises AssertionError, whose message names the rule that was broken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..journal.claims import Claim
from .graph_pool import GraphPool
from .policy_contract import Choice
from .request import Request, compile_request
from .resources import Unmatched
from .tree.match import Candidate
from .tree.policies import Policy
from .tree.pooling import compact, nodes_of
from .tree.vertices import Tree, Vertex


class _Tried(GraphPool):
    """A pool whose policy is this object."""

    __slots__ = ("tried",)
    tried: Policy

    @property
    def policy(self) -> Policy:
        return self.tried

    def copy(self) -> _Tried:
        new = super().copy()
        assert isinstance(new, _Tried)
        new.tried = self.tried
        return new


def random_graph(rng: Choice) -> Tree:
    """One or two racks of one to three nodes with sockets, cores, now and then GPUs, and a quantity of power in each rack."""
    tree = Tree()
    top = tree.add(Vertex("cluster", "cluster", 0))
    tree.root(top)
    rank = 0
    for r in range(rng.randrange(1, 3)):
        rack = tree.add(Vertex("rack", "rack", r))
        tree.link(top, rack)
        tree.link(rack, tree.add(Vertex("power", "power", r, size=10, unit="kW")))
        for _ in range(rng.randrange(1, 4)):
            price = {"price": str(rng.randrange(1, 9)), "perf_class": str(rng.randrange(1, 5))}
            node = tree.add(Vertex("node", "node", rank, rank=rank, properties=price))
            tree.link(rack, node)
            cores, gpus = rng.randrange(1, 5), rng.randrange(0, 3)
            for s in range(2):
                socket = tree.add(Vertex("socket", "socket", s, rank=rank))
                tree.link(node, socket)
                for kind, count in (("core", cores), ("gpu", gpus)):
                    for n in range(count):
                        tree.link(socket, tree.add(Vertex(kind, kind, s * count + n, rank=rank)))
            rank += 1
    return compact(tree.compile())


def random_request(rng: Choice) -> Request:
    """Flat, nested, or with a draw on power."""
    held: list[dict[str, Any]] = [{"type": "core", "count": rng.randrange(1, 4)}]
    if not rng.randrange(0, 4):
        held.append({"type": "gpu", "count": 1})
    if not rng.randrange(0, 3):
        held = [{"type": "socket", "count": 1, "with": held}]
    top: dict[str, Any] = {"type": "slot", "count": rng.randrange(1, 4), "label": "task", "with": held}
    if rng.randrange(0, 2):
        top = {"type": "node", "count": rng.randrange(1, 3), "exclusive": not rng.randrange(0, 3), "with": [top]}
        if not rng.randrange(0, 3):
            drawn = {"type": "power", "count": rng.randrange(1, 8), "unit": "kW"}
            top = {"type": "rack", "count": 1, "with": [drawn, top]}
    return compile_request({"resources": [top]})


def check_matcher(make: Callable[[], Policy], rng: Choice, rounds: int = 20) -> int:
    """Play `rounds` rounds; returns how many requests were served, so a test can see that it tested something."""
    tree, policy = random_graph(rng), make()
    _check_order(policy, tree, rng)
    pool = _pool(tree, policy)
    plain = GraphPool(pool.nodes, tree, "firstnodex" if policy.whole_nodes else "first")
    running: list[tuple[Claim, ...]] = []
    served = 0
    for _ in range(rounds):
        if running and not rng.randrange(0, 3):
            claims = running.pop(rng.randrange(0, len(running)))
            pool.give(claims)
            plain.give(claims)
        request = random_request(rng)
        got = pool.match(request)
        again = _pool(tree, make())
        for claims in running:
            again.take(claims)
        assert again.match(request) == got, "the same request and resources must get the same answer"
        assert bool(got) == bool(plain.match(request)), "whether a request fits is not the policy's to say"
        if isinstance(got, Unmatched):
            continue
        _check_claims(pool, request, got, policy.whole_nodes)
        pool.take(got)  # raises Conflict for what is not free
        plain.take(got)
        running.append(got)
        served += 1
    return served


def _pool(tree: Tree, policy: Policy) -> _Tried:
    pool = _Tried(nodes_of(tree), tree)
    pool.tried, pool.match_policy = policy, "tried"
    return pool


def _check_order(policy: Policy, tree: Tree, rng: Choice) -> None:
    for kind in ("node", "core", "socket"):
        vertices = [vertex for vertex in tree.vertices if vertex.type == kind]
        candidates = [Candidate(vertex, 1, policy.score(vertex), (), False, False) for vertex in vertices]
        slots = [Candidate(None, 1, c.score, [(c, 1)], True, False) for c in candidates]
        for some in (candidates, slots, []):
            for k in (1, rng.randrange(1, 9), 1 << 40):
                ordered = list(policy.order(list(some), k))
                assert sorted(map(some.index, ordered)) == list(range(len(some))), "order must give back what it gets, each once"


def _check_claims(pool: GraphPool, request: Request, claims: tuple[Claim, ...], whole: bool) -> None:
    flat = request.flat
    for claim in claims:
        node = pool.nodes[pool.index[claim.rank]]
        if whole:
            assert (claim.cores, claim.gpus) == (node.cores, node.gpus), "a policy of whole nodes gives whole nodes"
    if flat is not None:
        assert sum(claim.slots for claim in claims) == flat.nslots, "as many slots as were asked for"
        for claim in claims:
            assert claim.cores.bit_count() >= claim.slots * flat.cores, "each slot has its cores"
            assert claim.gpus.bit_count() >= claim.slots * flat.gpus, "each slot has its GPUs"
