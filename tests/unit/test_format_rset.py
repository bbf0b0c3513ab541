"""Claims and R (RFC 20) against the published vectors."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxkv.journal import rset
from fluxkv.journal.claims import Claim, Draw, from_wire, to_wire
from fluxkv.kvs.errors import Rejected

DRAWS = st.lists(
    st.builds(Draw, st.from_regex("/c[0-9](/[a-z]{1,4}[0-9]{1,3}){0,3}", fullmatch=True), st.integers(1, 99), st.integers(0, 255)),
    max_size=3,
    unique_by=lambda d: d.vertex,
).map(lambda draws: tuple(sorted(draws)))
CLAIMS = st.lists(
    st.builds(
        Claim,
        st.integers(0, 500),
        st.integers(1, 1 << 40),
        st.integers(0, 15),
        st.integers(0, 9999),
        st.integers(0, 9),
        st.just(()) | DRAWS,
    ),
    unique_by=lambda c: c.rank,
    min_size=1,
    max_size=20,
)


def test_R_vectors(vectors):
    for case in vectors("R"):
        given_R = case["input"]
        if "error" in case:
            with pytest.raises(Rejected):
                rset.parse_R(given_R)
            continue
        expected = case["expected"]
        for R in (rset.parse_R(given_R), rset.parse_R(json.dumps(given_R))):
            assert {str(n.rank): n.host for n in R.nodes} == expected["nodes"]
            assert (R.ncores, R.ngpus) == (expected["ncores"], expected["ngpus"])
            assert R.nslots == expected.get("nslots", 0)
            if "properties" in expected:
                for name, ranks in expected["properties"].items():
                    assert [n.rank for n in R.nodes if name in n.properties] == ranks
            if "expiration" in expected:
                assert (R.starttime, R.expiration) == (0, 0)
            if "scheduling_writer" in expected:
                assert R.scheduling_writer == expected["scheduling_writer"]
            assert rset.parse_R(rset.render_set(R)) == R


@given(CLAIMS)
def test_claims_round_trip(claims):
    wire = json.loads(json.dumps(to_wire(claims)))
    assert from_wire(wire) == tuple(claims)


@pytest.mark.parametrize(
    "wire",
    [
        None,
        3,
        [[0]],
        [[0, "0", "", 0, "1"]],
        [[0, "x", "", 0, 1]],
        [[-1, "0", "", 0, 1]],
        [[0, 1, "", 0, 1]],
        ["abcde"],
        [[True, "0", "", 0, 1]],
        {"a": 1},
        [[0, "0", "", 0, 1, [], []]],
        [[0, "0", "", 0, 1, [["c0", 1, ""]]]],
        [[0, "0", "", 0, 1, [["/c0", 0, ""]]]],
        [[0, "0", "", 0, 1, [["/c0", True, ""]]]],
        [[0, "0", "", 0, 1, [["/c0", 1, "x"]]]],
        [[0, "0", "", 0, 1, [["/c0", 1]]]],
        [[0, "0", "", 0, 1, [["/c1", 1, ""], ["/c0", 1, ""]]]],
        [[0, "0", "", 0, 1, [["/c0", 1, ""], ["/c0", 1, ""]]]],
        [[0, "0", "", 0, 1, "/c0"]],
    ],
)
def test_bad_claims(wire):
    with pytest.raises(Rejected):
        from_wire(wire)


@given(CLAIMS)
def test_allocation_round_trip(claims):
    hosts = {c.rank: f"n{c.rank}" for c in claims}
    R = rset.render_R(claims, hosts, 3, 10.0, 20.0, {c.rank: ("ssd", "+batch") for c in claims})
    back = rset.parse_R(json.dumps(R))
    held = {n.rank: (n.host, n.cores, n.gpus, n.memory_mb, n.properties) for n in back.nodes}
    assert held == {c.rank: (hosts[c.rank], c.cores, c.gpus, c.memory_mb, ("ssd",)) for c in claims}
    assert (back.nslots, back.starttime, back.expiration) == (3, 10.0, 20.0)
    child = rset.rerank(R)
    assert [n.rank for n in child.nodes] == list(range(len(claims)))
    assert [n[1:] for n in child.nodes] == [n[1:] for n in back.nodes]
    assert child.nslots == 0


def test_rerank_drops_local_properties_and_keeps_foreign_scheduling():
    R = {
        "version": 1,
        "execution": {
            "R_lite": [{"rank": "7,9", "children": {"core": "0-1"}}],
            "nodelist": ["a,b"],
            "properties": {"+batch": "7", "ssd": "9"},
        },
        "scheduling": {"writer": "fluxion:jgf", "graph": {}},
    }
    child = rset.rerank(R)
    assert [(n.rank, n.host, n.properties) for n in child.nodes] == [(0, "a", ()), (1, "b", ("ssd",))]
    assert rset.render_set(child)["scheduling"] == {"writer": "fluxion:jgf", "graph": {}}


BAD = [
    None,
    3,
    "",
    "{",
    "[" * 100_000,
    "NaN",
    b"\xff",
    [],
    {"version": True},
    {"version": 1, "execution": []},
]


@pytest.mark.parametrize("value", BAD, ids=range(len(BAD)))
def test_bad_R(value):
    with pytest.raises(Rejected):
        rset.parse_R(value)


@pytest.mark.parametrize(
    "change",
    [
        {"R_lite": [{"rank": "0-1048575", "children": {"core": "0"}}]},
        {"R_lite": [{"rank": "", "children": {"core": "0"}}]},
        {"R_lite": ["x"]},
        {"nodelist": [3]},
        {"nodelist": ["a[0-1048575]"]},
        {"nslots": True},
        {"expiration": "1"},
        {"properties": []},
        {"properties": {"p": "5"}},
        {"properties": {"p": 5}},
        {"starttime": float("nan")},
    ],
    ids=str,
)
def test_faulty_members(change):
    execution = {"R_lite": [{"rank": "0", "children": {"core": "0"}}], "nodelist": ["a"]}
    assert rset.parse_R({"version": 1, "execution": execution}).ncores == 1
    with pytest.raises(Rejected) as caught:
        rset.parse_R({"version": 1, "execution": execution | change})
    assert next(iter(change)) in str(caught.value)


def test_memory_faults():
    execution = {"R_lite": [{"rank": "0-1", "children": {"core": "0"}}], "nodelist": ["a,b"]}
    for memory in ([], {"0": -1}, {"0": 1, "0-1": 2}, {"x": 1}, {"0": "1"}):
        with pytest.raises(Rejected):
            rset.parse_R(
                {
                    "version": 1,
                    "execution": execution,
                    "scheduling": {"writer": "fluxkv", "memory_mb": memory},
                }
            )
