"""The live matcher against the one of `resource query`: same requests, same history, same answers, where both say what is held."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import recipe, vertex

from fluxkv.journal.claims import Claim
from fluxkv.journal.idset import ids_of_mask
from fluxkv.journal.rset import NodeRecord
from fluxkv.schedulers.graph_pool import GraphPool
from fluxkv.schedulers.request import Request, compile_request
from fluxkv.schedulers.resources import Pool, Unmatched
from fluxkv.schedulers.tree import needs
from fluxkv.schedulers.tree.enough import enough
from fluxkv.schedulers.tree.grug import from_grug
from fluxkv.schedulers.tree.policies import POLICIES
from fluxkv.schedulers.tree.pooling import compact, inside, nodes_of
from fluxkv.schedulers.tree.stand import search
from fluxkv.schedulers.tree.system import System
from fluxkv.schedulers.tree.vertices import UNTOUCHED, Tree


def slot(count: Any, *below: dict[str, Any], **more: Any) -> dict[str, Any]:
    return vertex("slot", count, *below, label="task", **more)


def mixed(count: Any, *below: dict[str, Any]) -> dict[str, Any]:
    return vertex("or_slot", count, *below, label="task")


MOLDABLE = {"min": 1, "max": 4, "operator": "*", "operand": 2}
#: What is held is the same by both: everything named is in a slot or exclusive, and sockets are named where there are some.
SOCKETS = [
    vertex("node", 1, slot(1, vertex("socket", 1, vertex("core", 4)))),
    vertex("node", 2, slot(1, vertex("socket", 1, vertex("core", 4), vertex("gpu", 2)))),
    vertex("node", {"min": 1, "max": 3}, vertex("socket", 1, slot(1, vertex("core", 2)))),
    vertex("rack", 1, slot(2, vertex("node", 1))),
    vertex("rack", 1, slot(1, vertex("node", 1)), exclusive=True),
    vertex("node", 1, slot(1, vertex("socket", 2)), exclusive=True),
    vertex("socket", {"min": 1, "max": 3}, slot(1, vertex("core", MOLDABLE))),
    vertex("socket", 1, slot(1, vertex("core", 1), vertex("gpu", 1))),
    vertex("socket", 2, slot({"min": 1, "max": 2}, vertex("core", 2))),
    vertex("node", 1, vertex("socket", 2, slot(1, vertex("core", 1)))),
    vertex("socket", 1, vertex("xor_slot", 1, vertex("core", 2), label="a"), vertex("xor_slot", 1, vertex("core", 1), label="b")),
    vertex("socket", 1, mixed(2, vertex("core", 2)), mixed(2, vertex("core", 1), vertex("gpu", 1))),
    vertex("node", 1, mixed(1, vertex("socket", 1)), mixed(1, vertex("socket", 1, vertex("core", 3)))),
    vertex(
        "socket", {"min": 1, "max": 3},
        mixed(1, vertex("core", 3)), mixed(1, vertex("core", 2)), mixed(1, vertex("core", 1), vertex("gpu", 2)),
    ),
]
#: Mixed by the flexible traverser.
FLEXIBLE = vertex("socket", 2, slot(1, vertex("core", 4), vertex("gpu", 1)), vertex("slot", 1, vertex("core", 1), label="b"))
FLAT = [
    slot(1, vertex("core", 1)),
    slot(3, vertex("core", 2)),
    slot(2, vertex("core", 1), vertex("gpu", 1)),
    slot(5, vertex("core", 3)),
    vertex("node", 1, slot(2, vertex("core", 2))),
    vertex("node", 2, slot(1, vertex("core", 3), vertex("gpu", 1))),
    vertex("node", 3, slot(1, vertex("core", 1))),
    vertex("node", 2, slot(1, vertex("core", 1)), exclusive=True),
]


class Both:
    """A system and a pool of the same tree. jobs: what is held in both."""

    def __init__(self, graph: Tree, policy: str, traverser: str = "simple") -> None:
        small = compact(graph)
        self.pool = GraphPool(nodes_of(small), small, policy)
        self.pool.traverser = traverser
        self.system = System(graph, policy, flexible=traverser == "flexible")
        self.jobs: dict[int, tuple[Claim, ...]] = {}
        if policy.startswith("first"):
            for one in graph.vertices:  # it looks at the last first
                one.ordinal = -one.ordinal - 1
            graph.count("containment")
        self.single = {(node.rank, one.type, one.id): one for node in graph.vertices if node.type == "node" for one in inside(node)}

    def allocate(self, resource: dict[str, Any]) -> None:
        asked = {"resources": [resource], "attributes": {"system": {"duration": 0}}}
        for one in self.system.tree.vertices:  # `first` looks where most is left; a live instance looks in the order of the graph
            one.left = UNTOUCHED
        outcome = self.system.allocate(needs.compile_request(asked))
        request = compile_request({**asked, "tasks": [{"slot": "task"}]})
        claims = self.pool.match(request)
        assert bool(claims) == (outcome.selection is not None), (claims, outcome)
        assert (self.pool.satisfiable(request) is None) == self.system.satisfiable(needs.compile_request(asked))
        if isinstance(claims, Unmatched):
            return
        assert enough(self.pool, request, claims)
        self.pool.take(claims)
        self.jobs[outcome.job] = claims
        theirs = {v.path() for v, _, exclusive in self.system.ledger.jobs[outcome.job].uses.values() if exclusive}
        ours = self.held(claims)
        assert theirs <= ours
        unnamed = {path for path in ours - theirs if not any(path.startswith(f"{above}/") for above in theirs)}
        assert not unnamed

    def held(self, claims: tuple[Claim, ...]) -> set[str]:
        """The paths of what is held, single by single. A node that is held as a whole is said by all it has."""
        found = set()
        for claim in claims:
            node = next(n for n in self.pool.nodes if n.rank == claim.rank)
            here = self.pool.layout.node_at[self.pool.index[claim.rank]]
            for kind, mask in (("core", claim.cores), ("gpu", claim.gpus)):
                found |= {self.single[claim.rank, kind, number].path() for number in ids_of_mask(mask)}
            if (claim.cores, claim.gpus) == (node.cores, node.gpus):
                found.add(self.pool.layout.paths[here.ordinal])
            if claim.memory_mb:
                found |= {one.path() for (rank, kind, _), one in self.single.items() if (rank, kind) == (claim.rank, "memory")}
            found |= {draw.vertex for draw in claim.draws}
        return found

    def cancel(self, at: int) -> None:
        if self.jobs:
            job = sorted(self.jobs)[at % len(self.jobs)]
            self.system.cancel(job)
            self.pool.give(self.jobs.pop(job))

    def check(self) -> None:
        """No more is held than there is, and the pool is what its claims make it."""
        fresh = GraphPool(self.pool.nodes, self.pool.layout.tree, self.pool.match_policy)
        for claims in self.jobs.values():
            fresh.take(claims)  # raises Conflict for what is held twice
        assert state(fresh) == state(self.pool)


def state(pool: GraphPool) -> Any:
    return (pool.core_free, pool.gpu_free, pool.free.memory.counts, pool.drawn, pool.idle, pool.free.cores.levels)


def sockets(racks: int, nodes: int) -> Tree:
    return from_grug(
        recipe(
            ("cluster", "rack", racks), ("rack", "node", nodes), ("node", "socket", 2), ("socket", "core", 4), ("socket", "gpu", 2),
            scopes={"node": 1, "core": 1, "gpu": 1},
        )
    )  # fmt: skip


def plain(racks: int, nodes: int, scope: int = 1) -> Tree:
    """scope: 0 numbers the nodes of each rack by themselves."""
    edges = (("cluster", "rack", racks), ("rack", "node", nodes), ("node", "core", 6), ("node", "gpu", 2), ("node", "memory", 1))
    text = recipe(*edges, sizes={"memory": 8}, scopes={"node": scope})
    unit = '<data key="type">memory</data><data key="unit">MB</data>'
    return from_grug(text.replace('<data key="type">memory</data>', unit))


def steps(shapes: list[dict[str, Any]]) -> Any:
    one = st.one_of(st.sampled_from(shapes), st.sampled_from(shapes), st.integers(0, 7))
    return st.lists(one, max_size=12)


def play(both: Both, history: list[Any]) -> None:
    for step in history:
        if isinstance(step, int):
            both.cancel(step)
        else:
            both.allocate(step)
    both.check()


RANDOM = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


@RANDOM
@given(st.integers(1, 2), st.integers(1, 3), st.sampled_from(sorted(POLICIES)), steps(SOCKETS))
def test_nested_requests_get_what_resource_query_gives(racks: int, nodes: int, policy: str, history: list[Any]) -> None:
    play(Both(sockets(racks, nodes), policy), history)


@RANDOM
@given(st.sampled_from(sorted(POLICIES)), steps([*SOCKETS, FLEXIBLE, FLEXIBLE]))
def test_flexible_slots_get_what_resource_query_gives(policy: str, history: list[Any]) -> None:
    play(Both(sockets(2, 2), policy, "flexible"), history)


@RANDOM
@given(st.integers(1, 2), st.integers(1, 3), st.sampled_from(sorted(POLICIES)), steps(FLAT))
def test_flat_requests_get_what_resource_query_gives(racks: int, nodes: int, policy: str, history: list[Any]) -> None:
    play(Both(plain(racks, nodes), policy), history)


MEMORY = [
    slot(2, vertex("core", 1), vertex("memory", 3, unit="MB")),
    vertex("node", 2, vertex("memory", 2, unit="MB"), slot(1, vertex("core", 1), vertex("memory", 1, unit="MB"))),
]


@RANDOM
@given(
    st.integers(1, 2), st.integers(1, 4), st.sampled_from(sorted(POLICIES)), steps([*FLAT, *MEMORY]), st.sampled_from((0, 1, 2)),
)  # fmt: skip
def test_flat_requests_get_what_the_search_gives(racks: int, nodes: int, policy: str, history: list[Any], kind: int) -> None:
    """Also where cores are in sockets, which flat requests pass over, and where numbers of nodes are there twice."""
    if kind == 0 and policy.startswith("first"):
        kind = 1  # it goes by rank, the search by the graph: which is one order but for the numbers
    small = compact(sockets(racks, nodes) if kind == 2 else plain(racks, nodes, kind))
    pool = GraphPool(nodes_of(small), small, policy)
    jobs = []
    for step in history:
        if isinstance(step, int):
            if jobs:
                pool.give(jobs.pop(step % len(jobs)))
            continue
        request: Request = compile_request({"resources": [step]})
        claims = pool.match(request)
        searched = search(pool, request)
        assert bool(claims) == bool(searched)
        if not isinstance(claims, Unmatched):
            assert claims == searched
            jobs.append(claims)
            pool.take(claims)


@RANDOM
@given(st.sampled_from(sorted(POLICIES)), steps(SOCKETS))
def test_counts_of_what_is_inside_nodes_change_no_answer(policy: str, history: list[Any]) -> None:
    """They only say sooner which nodes need not be looked into; and they are kept as things come and go."""
    small = compact(sockets(2, 2))
    pool, jobs = GraphPool(nodes_of(small), small, policy), list[tuple[Claim, ...]]()
    assert [pool.left(kind) is None for kind in ("socket", "rack", "core")] == [False, True, True]
    for step in history:
        if isinstance(step, int):
            if jobs:
                pool.give(jobs.pop(step % len(jobs)))
            continue
        request = compile_request({"resources": [step]})
        claims = pool.match(request)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(GraphPool, "left", lambda self, kind: None)
            assert claims == pool.match(request)
        if not isinstance(claims, Unmatched):
            jobs.append(claims)
            pool.take(claims)
        kept, fresh = pool.left("socket"), pool.copy()
        fresh._left.clear()
        counted = fresh.left("socket")
        assert kept is not None
        assert counted is not None
        assert (kept.counts, kept.levels) == (counted.counts, counted.levels)


HOLES = st.sampled_from((0xFF, 0b110111011101, 0b101101, 0b1111))
ASKED = st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2))


@RANDOM
@given(st.dictionaries(st.integers(0, 9), st.tuples(HOLES, HOLES), min_size=1, max_size=8), st.lists(ASKED, max_size=12))
def test_rows_with_gaps_are_what_the_search_gives(
    nodes: dict[int, tuple[int, int]], shapes: list[tuple[int, int, int, int]]
) -> None:
    records = [NodeRecord(rank, f"n{rank}", cores, gpus, 0, ()) for rank, (cores, gpus) in sorted(nodes.items())]
    pool, held = Pool(records, "locality"), list[tuple[Claim, ...]]()
    for number, slots, cores, gpus in shapes:
        shape = slot(slots, vertex("core", cores), *([vertex("gpu", gpus)] if gpus else ()))
        request = compile_request({"resources": [vertex("node", number, shape) if number else shape]})
        claims, searched = pool.match(request), search(pool, request)
        assert bool(claims) == bool(searched)
        if isinstance(claims, Unmatched):
            pool.give(held.pop(0) if held else ())
            continue
        assert claims == searched
        pool.take(claims)
        held.append(claims)


def test_copies_are_independent_and_give_undoes_take() -> None:
    small = compact(sockets(2, 2))
    pool = GraphPool(nodes_of(small), small)
    before = state(pool.copy())
    for shape in SOCKETS:
        claims = pool.match(compile_request({"resources": [shape]}))
        assert not isinstance(claims, Unmatched)
        other = pool.copy()
        other.take(claims)
        assert state(pool) == before
        other.give(claims)
        assert state(other) == before


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_plain_inventory_is_matched_as_its_graph(policy: str) -> None:
    small = compact(plain(1, 3))
    graph, pool = GraphPool(nodes_of(small), small, policy), Pool(nodes_of(small), policy)
    for shape in [*FLAT, *FLAT[::-1]]:
        request = compile_request({"resources": [shape]})
        claims, other = graph.match(request), pool.match(request)
        assert claims == other
        if not isinstance(other, Unmatched):
            pool.take(other)
            graph.take(other)
