"""The resource graph and its text form (RFC 4, RFC 40)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxkv.journal.rset import NodeRecord
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers import graph as model

NODES = (
    NodeRecord(0, "n0", 0b1011, 0b1, 2048, ("ssd",)),
    NodeRecord(3, "login", 0b1, 0, 0, ()),
    NodeRecord(4, "n007", 0b110, 0, 10, ("huge", "ssd")),
)


def test_vectors(vectors: Callable[[str], list[dict[str, Any]]]) -> None:
    for case in vectors("jgf"):
        if "error" in case:
            with pytest.raises(Rejected):
                model.from_jgf(case["input"])
            continue
        graph, expected = model.from_jgf(case["input"]), case["expected"]
        assert [data["type"] for _, data in graph.nodes(data=True)] == expected["types"]
        edges = [[a, b] for a, b, key in graph.edges(keys=True) if key == "containment"]
        assert edges == expected["containment"]
        for vertex, rank in expected.get("ranks", {}).items():
            assert graph.nodes[vertex]["rank"] == rank
        for vertex, defaults in expected.get("defaults", {}).items():
            assert {key: graph.nodes[vertex][key] for key in defaults} == defaults
        again = model.from_jgf(json.loads(json.dumps(model.to_jgf(graph))))
        assert dict(again.nodes(data=True)) == dict(graph.nodes(data=True))
        assert list(again.edges(keys=True, data=True)) == list(graph.edges(keys=True, data=True))


@pytest.mark.parametrize("expand", [True, False])
def test_inventory_survives_the_round_trip(expand: bool) -> None:
    graph = model.from_inventory(NODES, "c1")
    assert model.inventory_of(graph) == NODES
    doc = json.loads(json.dumps(model.to_jgf(graph, expand=expand)))
    assert doc["writer"] == "fluxkv:jgf"
    assert model.inventory_of(model.from_jgf(doc)) == NODES


RECORDS = st.lists(
    st.builds(
        NodeRecord,
        st.integers(0, 30),
        st.from_regex(r"[a-z]{1,4}[0-9]{0,3}", fullmatch=True),
        st.integers(0, 300),
        st.integers(0, 7),
        st.integers(0, 5000),
        st.sets(st.sampled_from(["a", "b"])).map(lambda s: tuple(sorted(s))),
    ),
    unique_by=lambda node: node.rank,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(RECORDS, st.booleans())
def test_any_inventory_survives(nodes: list[NodeRecord], expand: bool) -> None:
    doc = model.to_jgf(model.from_inventory(nodes), expand=expand)
    assert model.inventory_of(model.from_jgf(doc)) == tuple(sorted(nodes))
    ids = [vertex["id"] for vertex in doc["graph"]["nodes"]]
    assert len(set(ids)) == len(ids)


def test_written_form_has_the_keys_of_both_readers() -> None:
    doc = model.to_jgf(model.from_inventory(NODES[:1], "c1"))
    by_type = {v["metadata"]["type"]: v for v in doc["graph"]["nodes"]}
    core = by_type["core"]["metadata"]
    keys = {
        "type",
        "uuid",
        "basename",
        "name",
        "id",
        "properties",
        "size",
        "unit",
        "uniq_id",
        "rank",
        "exclusive",
    }
    assert keys <= set(core)
    assert core["paths"] == {"containment": "/c1/n0/core3"}
    assert (core["id"], core["size"], core["rank"]) == (3, 1, 0)
    assert by_type["node"]["metadata"]["properties"] == {"ssd": ""}
    assert doc["graph"]["edges"][0]["metadata"] == {"subsystem": "containment", "relationship": "contains"}


def test_other_subsystems_ways_back_and_unknown_keys_are_kept() -> None:
    doc = {
        "graph": {
            "nodes": [
                {"id": "c", "metadata": {"type": "cluster", "name": "c0"}},
                {"id": "n", "metadata": {"type": "node", "name": "n1", "rank": 0, "status": 1}},
                {"id": "s", "metadata": {"type": "socket", "id": 0}},
                {"id": "k", "metadata": {"type": "core", "id": 5}},
                {"id": "m", "metadata": {"type": "memory", "size": 2, "unit": "GB"}},
                {"id": "p", "metadata": {"type": "pdu", "id": 0, "size": 900, "unit": "W"}},
            ],
            "edges": [
                {"source": "c", "target": "n"},
                {
                    "source": "n",
                    "target": "c",
                    "metadata": {"subsystem": "containment", "relationship": "in"},
                },
                {"source": "n", "target": "s"},
                {"source": "s", "target": "k"},
                {"source": "s", "target": "m"},
                {
                    "source": "p",
                    "target": "n",
                    "metadata": {"subsystem": "power", "relationship": "supplies_to"},
                },
            ],
        }
    }
    graph = model.from_jgf(doc)
    assert model.inventory_of(graph) == (NodeRecord(0, "n1", 1 << 5, 0, 2048, ()),)
    assert list(model.below(graph, "c")) == ["n", "s", "k", "m"]
    assert list(model.children(graph, "p", "power")) == ["n"]
    written = {v["id"]: v["metadata"] for v in model.to_jgf(graph)["graph"]["nodes"]}
    assert written["n"]["status"] == 1
    assert written["n"]["paths"] == {"containment": "/c0/n1", "power": "/pdu0/n1"}
    assert written["k"]["paths"] == {"containment": "/c0/n1/socket0/core5"}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([{"type": "node", "rank": 1}, {"type": "node", "rank": 1}], "same rank"),
        ([{"type": "node", "rank": 1}, {"type": "node"}], "some have none"),
        ([{"type": "node"}, {"type": "core", "id": 1}, {"type": "core", "id": 1}], "there twice"),
        ([{"type": "node"}, {"type": "core", "id": 1, "size": 4}], "ids are missing"),
        ([{"type": "node"}, {"type": "memory", "size": 4}], "has memory in ''"),
    ],
)
def test_graphs_without_a_clear_inventory(nodes: list[dict[str, Any]], message: str) -> None:
    vertices = [{"id": str(i), "metadata": data} for i, data in enumerate(nodes)]
    edges = [{"source": "0", "target": str(i)} for i in range(1, len(nodes)) if nodes[i]["type"] != "node"]
    with pytest.raises(Rejected, match=message):
        model.inventory_of(model.from_jgf({"graph": {"nodes": vertices, "edges": edges}}))


@pytest.mark.parametrize(
    "doc",
    [
        [],
        {"graph": 1},
        {"graph": {"nodes": [1], "edges": []}},
        {"graph": {"nodes": [{"id": 0, "metadata": {"type": "core"}}], "edges": []}},
        {"graph": {"nodes": [{"id": "0", "metadata": {}}], "edges": []}},
        {"graph": {"nodes": [{"id": "0", "metadata": {"type": "core", "size": -1}}], "edges": []}},
        {"graph": {"nodes": [{"id": "0", "metadata": {"type": "core", "rank": True}}], "edges": []}},
        {"graph": {"nodes": [], "edges": [1]}},
        {"graph": {"nodes": [], "edges": [{"source": [], "target": "0"}]}},
    ],
)
def test_malformed_documents(doc: Any) -> None:
    with pytest.raises(Rejected, match="JGF: "):
        model.from_jgf(doc)
