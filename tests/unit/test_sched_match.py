"""The matcher against a slow, obvious one: what it gives is valid, lowest, and there if there is a way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxkv.journal.claims import Claim
from fluxkv.journal.rset import NodeRecord
from fluxkv.kvs.errors import Conflict, Rejected
from fluxkv.schedulers.request import Request, compile_request
from fluxkv.schedulers.resources import Pool, Unmatched
from fluxkv.schedulers.stock import Stock, first, lowest, positions, set_of


def ask(
    nnodes: int = 0,
    nslots: int = 1,
    cores: int = 1,
    gpus: int = 0,
    memory: int = 0,
    exclusive: bool = False,
    **system: Any,
) -> Request:
    held: list[dict[str, Any]] = [{"type": "core", "count": cores}]
    if gpus:
        held.append({"type": "gpu", "count": gpus})
    if memory:
        held.append({"type": "memory", "count": memory, "unit": "MB"})
    top: dict[str, Any] = {"type": "slot", "count": nslots, "label": "task", "with": held}
    if nnodes:
        top = {"type": "node", "count": nnodes, "exclusive": exclusive, "with": [top]}
    return compile_request({"resources": [top], "attributes": {"system": system}})


def ids(mask: int) -> list[int]:
    return [i for i in range(mask.bit_length()) if mask >> i & 1]


def mask(some: list[int]) -> int:
    return sum(1 << i for i in some)


class State:
    """What the reference reads: per node what there is, what is free, whether it may be used."""

    def __init__(self, nodes: list[tuple[NodeRecord, int, int, int, bool]]) -> None:
        self.nodes = nodes

    def pool(self) -> Pool:
        pool = Pool([node for node, *_ in self.nodes])
        for node, cores, gpus, memory, usable in self.nodes:
            pool.set_node(node.rank, cores, gpus, memory, usable, self.idle(node, cores, gpus, memory))
        return pool

    @staticmethod
    def idle(node: NodeRecord, cores: int, gpus: int, memory: int) -> bool:
        return (cores, gpus, memory) == (node.cores, node.gpus, node.memory_mb)


def reference(state: State, request: Request) -> tuple[Claim, ...] | None:
    """Slot by slot and node by node, in words as near to the rule as can be."""
    flat = request.flat
    assert flat is not None
    claims: list[Claim] = []
    wanted = flat.nslots
    for node, cores, gpus, memory, usable in sorted(state.nodes, key=lambda entry: entry[0].rank):
        if not usable or (flat.nnodes and len(claims) == flat.nnodes) or not wanted:
            continue
        if flat.exclusive and not state.idle(node, cores, gpus, memory):
            continue
        free_cores, free_gpus, free_memory, slots = ids(cores), ids(gpus), memory - flat.node_memory_mb, 0
        got_cores: list[int] = []
        got_gpus: list[int] = []
        limit = flat.slots_per_node if flat.nnodes else wanted
        while (
            slots < limit
            and len(free_cores) >= flat.cores
            and len(free_gpus) >= flat.gpus
            and (free_memory >= flat.memory_mb or not flat.memory_mb)
        ):
            got_cores += [free_cores.pop(0) for _ in range(flat.cores)]
            got_gpus += [free_gpus.pop(0) for _ in range(flat.gpus)]
            free_memory -= flat.memory_mb
            slots += 1
        if (
            not slots
            or (flat.nnodes and slots < limit)
            or (flat.node_memory_mb and memory < flat.node_memory_mb)
        ):
            continue
        wanted -= slots
        if flat.exclusive:
            claims.append(Claim(node.rank, node.cores, node.gpus, node.memory_mb, slots))
        else:
            held = slots * flat.memory_mb + flat.node_memory_mb
            claims.append(Claim(node.rank, mask(got_cores), mask(got_gpus), held, slots))
    return tuple(claims) if not wanted else None


@st.composite
def states(draw: st.DrawFn) -> State:
    count = draw(st.integers(1, 7))
    ranks = sorted(draw(st.sets(st.integers(0, 40), min_size=count, max_size=count)))
    nodes = []
    for rank in ranks:
        cores, gpus = draw(st.integers(1, 255)), draw(st.integers(0, 7))
        memory = draw(st.sampled_from([0, 0, 100, 400]))
        node = NodeRecord(rank, f"n{rank}", cores, gpus, memory, ())
        if draw(st.booleans()):
            nodes.append((node, cores, gpus, memory, draw(st.integers(0, 9)) > 0))
        else:
            free = draw(st.integers(0, memory)) if memory else 0
            nodes.append(
                (node, cores & draw(st.integers(0, 255)), gpus & draw(st.integers(0, 7)), free, True)
            )
    return State(nodes)


REQUESTS = st.builds(
    ask,
    nnodes=st.sampled_from([0, 0, 1, 2, 3, 5]),
    nslots=st.integers(1, 6),
    cores=st.integers(1, 5),
    gpus=st.sampled_from([0, 0, 0, 1, 2]),
    memory=st.sampled_from([0, 0, 0, 60, 150]),
    exclusive=st.booleans(),
)


@settings(max_examples=400, deadline=None)
@given(states(), REQUESTS)
def test_same_answer_as_the_obvious_matcher(state: State, request_: Request) -> None:
    pool = state.pool()
    got, expected = pool.match(request_), reference(state, request_)
    if expected is None:
        assert isinstance(got, Unmatched)
        assert not got
        assert got.code == "resources"
        assert 0 <= got.found < got.needed
        assert got.short_by == got.needed - got.found
        assert str(got.needed) in got.text
    else:
        assert got == expected
        assert pool.satisfiable(request_) is None


@settings(max_examples=200, deadline=None)
@given(states(), st.lists(REQUESTS, max_size=8), st.randoms(use_true_random=False))
def test_take_then_give_restores_everything(state: State, requests: list[Request], order: Any) -> None:
    pool = state.pool()
    before = snapshot(pool)
    taken = []
    for request in requests:
        got = pool.match(request)
        if not isinstance(got, Unmatched):
            pool.take(got)
            taken.append(got)
            check_indexes(pool)
            with pytest.raises(Conflict):
                pool.take(got)
    order.shuffle(taken)
    for claims in taken:
        pool.give(claims)
        check_indexes(pool)
    assert snapshot(pool) == before


@settings(max_examples=100, deadline=None)
@given(states(), REQUESTS)
def test_satisfiable_is_a_match_on_an_empty_pool(state: State, request_: Request) -> None:
    everything = State([(n, n.cores, n.gpus, n.memory_mb, True) for n, *_ in state.nodes])
    short = state.pool().satisfiable(request_)
    assert (short is None) == (reference(everything, request_) is not None)
    if short is not None:
        assert short.code == "unsatisfiable"
        assert short.text.startswith("needs ")


def snapshot(pool: Pool) -> tuple[Any, ...]:
    stocks = tuple((list(s.counts), dict(s.levels)) for s in pool.free)
    return (list(pool.core_free), list(pool.gpu_free), stocks, pool.idle, pool.usable)


def check_indexes(pool: Pool) -> None:
    for stock in pool.free:
        rebuilt = Stock(stock.counts)
        assert rebuilt.levels == stock.levels
    assert [m.bit_count() for m in pool.core_free] == pool.free.cores.counts
    assert [m.bit_count() for m in pool.gpu_free] == pool.free.gpus.counts


def nodes_of(count: int, cores: int = 32, memory_mb: int = 0) -> list[NodeRecord]:
    return [NodeRecord(i, f"n{i}", (1 << cores) - 1, 0, memory_mb, ()) for i in range(count)]


def test_many_nodes_take_the_bulk_path_with_the_same_result() -> None:
    pool = Pool(nodes_of(300, memory_mb=64))
    before = snapshot(pool)
    got = pool.match(ask(nnodes=200, nslots=2, cores=3, memory=5))
    assert not isinstance(got, Unmatched)
    assert got == tuple(Claim(i, 0b111111, 0, 10, 2) for i in range(200))
    pool.take(got)
    check_indexes(pool)
    assert pool.idle == ((1 << 100) - 1) << 200
    whole = pool.match(ask(nnodes=100, nslots=1, exclusive=True))
    assert whole == tuple(Claim(i, (1 << 32) - 1, 0, 64, 1) for i in range(200, 300))
    slots = pool.match(ask(nslots=250, cores=26))
    assert isinstance(slots, tuple)
    assert [claim.rank for claim in slots] == list(range(250))
    pool.give(got)
    check_indexes(pool)
    assert snapshot(pool) == before


def test_slots_fill_the_lowest_ranks_first() -> None:
    pool = Pool(nodes_of(4, cores=4))
    pool.take((Claim(0, 0b0101, 0, 0, 2),))
    assert pool.match(ask(nslots=3, cores=2)) == (Claim(0, 0b1010, 0, 0, 1), Claim(1, 0b1111, 0, 0, 2))


def test_take_is_all_or_nothing() -> None:
    pool = Pool(nodes_of(2, cores=2))
    pool.take((Claim(1, 1, 0, 0, 1),))
    before = snapshot(pool)
    with pytest.raises(Conflict) as caught:
        pool.take((Claim(0, 1, 0, 0, 1), Claim(1, 1, 0, 0, 1)))
    assert caught.value.things == ("node/1",)
    with pytest.raises(Conflict, match="twice"):
        pool.take((Claim(0, 1, 0, 0, 1), Claim(0, 1, 0, 0, 1)))
    with pytest.raises(Rejected, match="no node has rank 9"):
        pool.take((Claim(9, 1, 0, 0, 1),))
    assert snapshot(pool) == before


def test_untracked_memory_never_serves_a_request_for_memory() -> None:
    pool = Pool(nodes_of(3))
    short = pool.satisfiable(ask(memory=1))
    assert short is not None
    assert short.code == "unsatisfiable"


def test_unusable_nodes_get_nothing_and_keep_what_they_hold() -> None:
    pool = Pool(nodes_of(2, cores=4))
    pool.set_node(0, 0b1100, 0, 0, False, False, "drained")
    assert pool.match(ask()) == (Claim(1, 1, 0, 0, 1),)
    pool.set_node(0, 0b1100, 0, 0, True, False)
    assert pool.match(ask()) == (Claim(0, 0b0100, 0, 0, 1),)
    assert pool.match(ask(nnodes=1, exclusive=True)) == (Claim(1, 0b1111, 0, 0, 1),)


def test_two_nodes_of_one_rank_are_refused() -> None:
    node = NodeRecord(0, "a", 1, 0, 0, ())
    with pytest.raises(Rejected, match="twice"):
        Pool([node, node])


@given(st.sets(st.integers(0, 500)), st.integers(0, 600))
def test_sets_as_masks(members: set[int], n: int) -> None:
    bits = set_of(members, 501)
    assert bits == mask(sorted(members))
    assert list(positions(bits)) == sorted(members)
    assert first(bits, n) == sorted(members)[:n]
    few = min(n, len(members))
    assert ids(lowest(bits, few)) == sorted(members)[:few]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.data())
def test_stock_index(counts: list[int], data: st.DataObject) -> None:
    stock, bulk = Stock(counts), Stock(counts)
    where = st.integers(0, len(counts) - 1)
    changes = data.draw(st.dictionaries(where, st.integers(0, 5)))
    for i, count in changes.items():
        stock.set(i, count)
        counts[i] = count
    bulk.set_many(changes)
    assert stock.levels == bulk.levels == Stock(counts).levels
    among = mask(sorted(data.draw(st.sets(where))))
    assert ids(stock.at_least(3)) == [i for i, c in enumerate(counts) if c >= 3]
    assert stock.units(2, among) == sum(counts[i] // 2 for i in ids(among))
    best = max((counts[i] for i in ids(among)), default=0)
    expected = next(((best, i) for i in ids(among) if counts[i] == best), (0, -1))
    assert stock.largest(among) == expected
