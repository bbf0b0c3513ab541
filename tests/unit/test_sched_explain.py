"""Reasons in plain words, and constraints (RFC 31) as the pool sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxkv.journal import hostlist, idset
from fluxkv.journal.rset import NodeRecord
from fluxkv.schedulers.explain import explain
from fluxkv.schedulers.request import Request, compile_request
from fluxkv.schedulers.resources import Pool, Unmatched


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
        held.append({"type": "memory", "count": memory, "unit": "GB"})
    top: dict[str, Any] = {"type": "slot", "count": nslots, "label": "t", "with": held}
    if nnodes:
        top = {"type": "node", "count": nnodes, "exclusive": exclusive, "with": [top]}
    return compile_request({"resources": [top], "attributes": {"system": system}})


def four_nodes() -> Pool:
    """Four nodes of four cores and 4 GB; node 0 has a gpu, nodes 0 and 1 are called ssd."""
    return Pool(
        [NodeRecord(i, f"n{i}", 0b1111, int(i == 0), 4096, ("ssd",) if i < 2 else ()) for i in range(4)]
    )


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (ask(cores=64), "needs 64 cores on one node; the largest has 4"),
        (ask(nnodes=5), "needs 5 nodes; the inventory has 4"),
        (ask(nslots=30), "needs 30 slots of 1 core; 16 fit"),
        (ask(nslots=3, gpus=1), "needs 3 slots of 1 core and 1 gpu; 1 fits"),
        (ask(gpus=2), "needs 2 gpus on one node; the largest has 1"),
        (ask(nnodes=2, gpus=1), "needs 2 nodes with 1 gpu; 1 has"),
        (ask(memory=8), "needs 8192 MB of memory on one node; the largest has 4096 MB"),
        (ask(nnodes=2, memory=8), "needs 2 nodes with 8192 MB of memory; none has"),
        (ask(nnodes=3, constraints={"properties": ["ssd"]}), "needs 3 nodes; 2 match the constraint"),
        (ask(constraints={"properties": ["ssd", "fast"]}), "no node has the property 'fast'"),
        (ask(constraints={"and": [{"properties": ["x"]}]}), "no node has the property 'x'"),
        (ask(constraints={"ranks": ["9"]}), "no node meets its constraint"),
        (ask(nnodes=4, constraints={"not": [{"ranks": ["0"]}]}), "needs 4 nodes; 3 are there beside rank 0"),
        (ask(nnodes=2, constraints={"not": [{"ranks": ["0-2"]}]}), "needs 2 nodes; 1 is there beside ranks 0-2"),
        (ask(nnodes=2, constraints={"not": [{"ranks": ["0-3"]}]}), "there is no node beside ranks 0-3"),
        (ask(nnodes=4, constraints={"and": [{"not": [{"ranks": ["0"]}]}]}), "needs 4 nodes; 3 match the constraint"),
        (ask(gpus=1, constraints={"ranks": ["1-2"]}), "needs 1 gpu on one node; no node has a gpu"),
    ],
)
def test_never(request_: Request, text: str) -> None:
    reason = explain(request_, four_nodes())
    assert reason.code == "unsatisfiable"
    assert reason.text == f"unsatisfiable: {text}"
    assert reason.blocking


def test_untracked_memory() -> None:
    reason = explain(ask(memory=1), Pool([NodeRecord(0, "a", 1, 0, 0, ())]))
    assert (
        reason.text
        == "unsatisfiable: needs 1024 MB of memory on one node; no node has its memory in the inventory"
    )


def busy() -> Pool:
    """Node 0 and 1 have one core free, node 2 is offline, node 3 drained; both were idle."""
    pool = four_nodes()
    got = pool.match(ask(nnodes=4, cores=3))
    assert isinstance(got, tuple)
    pool.take(got)
    pool.set_node(2, 0b1111, 0, 4096, False, True, "offline")
    pool.set_node(3, 0b1111, 0, 4096, False, True, "drained")
    return pool


@pytest.mark.parametrize(
    ("request_", "code", "text", "blocking"),
    [
        (ask(), "ready", "fits now", ""),
        (ask(cores=4), "resources", "needs 4 cores on one node; at most 1 is free (node 0)", "core"),
        (ask(nnodes=2, cores=2), "resources", "needs 2 nodes with 2 cores free; none has", "core"),
        (ask(nslots=5), "resources", "needs 5 slots of 1 core; 2 fit now", "core"),
        (ask(nnodes=1, exclusive=True), "resources", "needs 1 idle node; none is idle", "node"),
        (ask(nnodes=3), "drained", "needs 3 nodes; 2 are up (1 drained, 1 offline)", "node"),
        (ask(nnodes=4), "node-down", "needs 4 nodes; 2 are up (1 drained, 1 offline)", "node"),
        (ask(nslots=9), "drained", "needs 9 slots of 1 core; 8 fit (1 drained, 1 offline)", "node"),
        (ask(nslots=13), "node-down", "needs 13 slots of 1 core; 8 fit (1 drained, 1 offline)", "node"),
        (
            ask(constraints={"hostlist": ["n2"]}),
            "node-down",
            "needs 1 core on one node; no node is up and matches (1 offline)",
            "node",
        ),
        (
            ask(nnodes=1, constraints={"ranks": ["3"]}),
            "drained",
            "needs 1 node; none is up and matches (1 drained)",
            "node",
        ),
        (
            ask(nnodes=2, constraints={"not": [{"ranks": ["0"]}]}),
            "drained",
            "needs 2 nodes; 1 is up beside rank 0 (1 drained, 1 offline)",
            "node",
        ),
    ],
)
def test_not_now(request_: Request, code: str, text: str, blocking: str) -> None:
    assert explain(request_, busy())[:3] == (code, text, blocking)


def test_together() -> None:
    pool = Pool([NodeRecord(0, "a", 0b1111, 0, 0, ()), NodeRecord(1, "b", 0b1, 0b1, 0, ())])
    reason = explain(ask(cores=2, gpus=1), pool)
    assert reason.code == "unsatisfiable"
    assert "2 cores and 1 gpu" in reason.text


@settings(max_examples=150, deadline=None)
@given(
    st.builds(
        ask,
        nnodes=st.integers(0, 5),
        nslots=st.integers(1, 9),
        cores=st.integers(1, 5),
        gpus=st.integers(0, 2),
        memory=st.integers(0, 5),
        exclusive=st.booleans(),
    ),
    st.lists(
        st.tuples(st.integers(0, 15), st.integers(0, 1), st.integers(0, 4096), st.booleans()),
        min_size=4,
        max_size=4,
    ),
)
def test_explain_agrees_with_match(request_: Request, state: list[tuple[int, int, int, bool]]) -> None:
    pool = four_nodes()
    for rank, (cores, gpus, memory, usable) in enumerate(state):
        pool.set_node(rank, cores, gpus, memory, usable, (cores, memory) == (15, 4096) and bool(gpus or rank))
    reason, got = explain(request_, pool), pool.match(request_)
    assert reason.needed > reason.found or reason.code == "ready" or not reason.needed
    assert (reason.code == "ready") == (not isinstance(got, Unmatched))
    assert (reason.code == "unsatisfiable") == (pool.satisfiable(request_) is not None)
    assert "\n" not in reason.text
    assert reason.text.isascii()


def test_constraint_vectors(vectors: Callable[[str], list[dict[str, Any]]]) -> None:
    for case in vectors("constraint_match"):
        if "expected" not in case:
            continue
        there = case["inventory"]
        named = {name: idset.mask_of(ranks) for name, ranks in there["properties"].items()}
        ranks = idset.parse(there["ranks"])
        hosts = hostlist.expand(there["hosts"])
        pool = Pool(
            NodeRecord(rank, host, 1, 0, 0, tuple(sorted(p for p, bits in named.items() if bits >> rank & 1)))
            for rank, host in zip(ranks, hosts, strict=True)
        )
        bits = pool.matching(ask(constraints=case["input"]))
        assert idset.format_ids(pool.nodes[i].rank for i in idset.ids_of_mask(bits)) == case["expected"], (
            case["input"]
        )
