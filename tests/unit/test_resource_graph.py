"""The graph of resources in the journal: its record, and what claims draw from it."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from trees import racks

from fluxkv.journal import snapshot
from fluxkv.journal.claims import Claim, Draw, to_wire
from fluxkv.journal.job import INACTIVE, SCHED
from fluxkv.journal.quarantine import WHY
from fluxkv.journal.resource_graph import from_wire
from fluxkv.journal.rset import NodeRecord, ResourceSet, parse_R, render_set
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.tree.jgf import from_jgf
from fluxkv.schedulers.tree.record import jgf_of, jgf_of_claims, to_record, to_tree
from fluxkv.schedulers.tree.vertices import CONTAINMENT, Tree, Vertex

POWER, NVME = "/cluster0/rack0/power0", "/cluster0/rack0/n0/nvme"


def inventory(tree: Tree | None, nodes: int = 4, cores: int = 2) -> dict[str, Any]:
    records = tuple(NodeRecord(rank, f"n{rank}", (1 << cores) - 1, 0, 0, ()) for rank in range(nodes))
    return render_set(ResourceSet(records, tree=to_record(tree).wire if tree is not None else None))


def fold(*events: list[Any], state: State | None = None) -> State:
    state = state or State()
    for event in events:
        state.apply(Commit(state.version + 1, 5, "p", 1, 0, 1.0, [event], {}))
    return state


def pending(*ids: int) -> list[list[Any]]:
    events: list[list[Any]] = []
    for id in ids:
        events += [["submit", id, 1.0, {"urgency": 16, "userid": 1, "flags": 0, "version": 1, "jobspec": {"version": 1}}],
                   ["validate", id, 1.0, None], ["depend", id, 1.0, None], ["priority", id, 1.0, {"priority": 16}]]  # fmt: skip
    return events


def alloc(id: int, *claims: Claim) -> list[Any]:
    return ["alloc", id, 2.0, {"claims": to_wire(claims), "expiration": 0.0}]


def through_snapshot(state: State) -> State:
    head, chunks = snapshot.dump(state)
    return snapshot.load(snapshot.read_head(head), chunks)


DEFINE = ["resource-define", "resource", 1.0, {"method": "x", "R": inventory(racks())}]


# -- the record ----------------------------------------------------------------------------------------------------


def shape(tree: Tree) -> list[Any]:
    at = {vertex.ordinal: n for n, vertex in enumerate(tree.vertices)}
    return [
        [v.type, v.basename, v.id, v.name, v.size, v.unit, v.rank, v.ids, v.properties, v.up, v.totals,
         {s: [at[c.ordinal] for c in below] for s, below in v.children.items() if below},
         {s: [at[p.ordinal] for p in above] for s, above in v.parents.items()}]
        for v in tree.vertices
    ] + [[s, at[root.ordinal]] for s, root in tree.roots.items()]  # fmt: skip


def random_tree(seed: int) -> Tree:
    """Any shape: several subsystems that share vertices, several parents, odd names and ids."""
    draw = random.Random(seed)
    tree = Tree()
    vertices = []
    for n in range(draw.randint(1, 30)):
        ids = draw.choice([0, 0, 0b1011])
        vertices.append(tree.add(Vertex(
            draw.choice(["rack", "node", "nvme"]), draw.choice(["x", "y-"]), n, name=draw.choice([None, f"é {n}"]),
            size=ids.bit_count() or draw.choice([1, 7, 0]), unit=draw.choice(["", "GB"]), rank=draw.choice([-1, n]), ids=ids,
            properties=draw.choice([None, {"a": ""}, {"a": "1", "b": "2"}]),
        )))  # fmt: skip
        vertices[-1].up = draw.random() < 0.9
    tree.root(vertices[0])
    for n in range(1, len(vertices)):
        for parent in draw.sample(range(n), min(n, draw.choice([1, 1, 1, 2]))):
            tree.link(vertices[parent], vertices[n])
    if len(vertices) > 3:
        tree.root(vertices[1], "power")
        for child in draw.sample(vertices[2:], draw.randint(1, len(vertices) - 2)):
            tree.link(vertices[1], child, "power")
    return tree.compile()


@pytest.mark.parametrize("seed", range(40))
def test_a_tree_is_the_same_after_its_record(seed: int) -> None:
    tree = random_tree(seed)
    record = to_record(tree)
    again = from_wire(record.wire)
    assert shape(to_tree(again)) == shape(tree)
    assert (to_record(to_tree(again)).raw, again.hash) == (record.raw, record.hash)
    places = again.places
    for n, vertex in enumerate(tree.vertices):
        subsystem = CONTAINMENT if CONTAINMENT in vertex.parents else next(iter(vertex.parents))
        assert places[vertex.path(subsystem)].at == n


def test_it_is_small_and_nodes_know_their_cores() -> None:
    record = to_record(racks(32, 32, 64))
    assert len(record.compressed) < 20_000
    assert record.nodes()[5] == ("n5", record.places["/cluster0/rack0/n5"].at, (1 << 64) - 1, 0, 0)
    assert (record.places["/cluster0/rack0/n5/nvme"].node, record.places[POWER].node) == (5, -1)


def test_jgf_gives_it_back_and_shows_what_a_job_holds() -> None:
    record = to_record(racks())
    whole = jgf_of(record)
    assert whole["writer"] == "fluxkv:jgf"
    tree = from_jgf(whole)
    assert [v.path() for v in tree.vertices if v.type == "core"][:2] == ["/cluster0/rack0/n0/core0", "/cluster0/rack0/n0/core1"]
    assert tree.roots["network"].unit == "Gb"
    draws = (Draw("/cluster0/rack0/n1/nvme", 1, 1), Draw(POWER, 3), Draw("/switch0", 5))
    held = jgf_of_claims(record, [Claim(1, 2, 0, 0, 1, draws)])
    rows = [(one["metadata"]["name"], one["metadata"]["size"], one["metadata"]["exclusive"]) for one in held["graph"]["nodes"]]
    assert rows == [("cluster0", 1, False), ("switch0", 5, True), ("rack0", 1, False), ("power0", 3, True), ("n1", 1, False),
                    ("core1", 1, True), ("nvme0", 1, True)]  # fmt: skip
    assert len(held["graph"]["edges"]) == 6


def damaged(change: str) -> dict[str, Any]:
    wire: dict[str, Any] = copy.deepcopy(to_record(racks(1, 1)).wire)
    edges = wire["edges"][0]
    match change:
        case "key":
            wire["more"] = 1
        case "short":
            wire["size"].pop()
        case "bool":
            wire["size"][0] = True
        case "negative":
            wire["size"][1] = -1
        case "rank":
            wire["rank"][0] = 1 << 30
        case "kind":
            wire["kind"][0] = 99
        case "slash":
            wire["kinds"][0][1] = "a/b"
        case "circle":
            edges[1].append(-edges[1][0] + 1 - sum(edges[1][1:]))
            edges[2].append(0)
        case "lost":
            edges[1].pop()
            edges[2].pop()
        case "name":
            wire["names"] = [[4], ["n" * 300]]
        case "ids":
            wire["ids"][0][0] = "0-9"
        case "far":
            wire["down"] = "1000"
        case "property":
            wire["properties"] = [[{"a": 5}, "0"]]
        case "list":
            wire["edges"] = 5
    return wire


@pytest.mark.parametrize(
    "change",
    ["key", "short", "bool", "negative", "rank", "kind", "slash", "circle", "lost", "name", "ids", "far", "property", "list"],
)
def test_what_is_no_graph_is_refused_and_skipped(change: str) -> None:
    with pytest.raises(Rejected, match="bad resource graph") as caught:
        from_wire(damaged(change))
    assert caught.value.code == "bad-graph"
    document = inventory(racks(1, 1), 1)
    document["scheduling"]["tree"] = damaged(change)
    state = fold(DEFINE)
    before = state.digest()
    fold(["resource-define", "resource", 2.0, {"method": "x", "R": document}], state=state)
    assert (state.skipped, state.digest(), len(state.nodes)) == (1, before, 4)


def test_two_of_one_path_and_other_nodes_than_in_R_are_refused() -> None:
    tree = racks(1, 2)
    tree.vertices[-3].name = "n0"
    with pytest.raises(Rejected, match="two vertices are at /cluster0/rack0/n0"):
        to_record(tree)
    for document in (inventory(racks(), 3), inventory(racks(), 5), inventory(racks(), 4, cores=1)):
        assert fold(["resource-define", "resource", 1.0, {"method": "x", "R": document}]).skipped == 1


# -- the fold ------------------------------------------------------------------------------------------------------


def test_draws_are_taken_given_and_never_more_than_there_is() -> None:
    state = fold(DEFINE, *pending(1, 2, 3))
    bare = fold(["resource-define", "resource", 1.0, {"method": "x", "R": inventory(None)}], *pending(1, 2, 3))
    assert state.digest() != bare.digest()
    free = state.digest()
    fold(alloc(1, Claim(0, 1, 0, 0, 1, (Draw("/cluster0/rack0/n0/nvme", 1, 1), Draw(POWER, 8), Draw("/switch0", 60)))), state=state)
    assert state.drawn == {"/cluster0/rack0/n0/nvme": [1, 1], POWER: [8, 0], "/switch0": [60, 0]}
    assert through_snapshot(state).subjects() == state.subjects()
    fold(alloc(2, Claim(1, 1, 0, 0, 1), Claim(2, 1, 0, 0, 1, (Draw(POWER, 3),))), state=state)  # through another node of the rack
    aside = state.quarantine.table[2]
    assert (aside.code, aside.number, state.jobs[2].state) == ("not-free", 2, SCHED)
    assert not any(2 in node.jobs for node in state.nodes.values())
    fold(alloc(2, Claim(1, 1, 0, 0, 1, (Draw(POWER, 2),))), state=state)
    for id in (1, 2):
        fold(["exception", id, 3.0, {"type": "cancel", "severity": 0, "note": "", "userid": 1}],
             ["release", id, 3.0, {"ranks": "all", "final": True}], ["free", id, 3.0, None], ["clean", id, 3.0, None],
             state=state)  # fmt: skip
        assert state.jobs[id].state == INACTIVE
    assert state.drawn == {}
    assert not any(name.startswith("pool") for name in state.subjects())
    assert free != state.digest()
    assert through_snapshot(state).digest() == state.digest()


@pytest.mark.parametrize(
    "draw",
    [Draw(POWER, 11), Draw("/cluster0/nowhere", 1), Draw(POWER, 1, 1), Draw(NVME, 1), Draw(NVME, 1, 4), Draw(NVME, 1, 3)],
)
def test_an_impossible_draw_changes_nothing(draw: Draw) -> None:
    state = fold(DEFINE, *pending(1))
    before = {name: value for name, value in state.subjects().items() if name != "job/1"}
    fold(alloc(1, Claim(0, 1, 0, 0, 1, (draw,))), state=state)
    after = {name: value for name, value in state.subjects().items() if name != "job/1"}
    assert {name: value for name, value in after.items() if not name.startswith("quarantine")} == before
    assert state.quarantine.table[1].code == "not-free"


def test_housekeeping_takes_draws_over_and_gives_them_back_node_by_node() -> None:
    claims = [Claim(0, 1, 0, 0, 1, (Draw(POWER, 8),)), Claim(2, 1, 0, 0, 1, (Draw("/cluster0/rack1/power0", 5),))]
    state = fold(DEFINE, *pending(1), alloc(1, *claims))
    attempt = f"{state.version}-5"
    fold(["exception", 1, 3.0, {"type": "cancel", "severity": 0, "note": "", "userid": 1}],
         ["release", 1, 3.0, {"ranks": "all", "final": True}], state=state)  # fmt: skip
    begin = ["housekeeping-start", "housekeeping/1", 3.0, {"claims": to_wire(claims), "attempt": attempt}]
    state.apply(Commit(state.version + 1, 5, "p", 1, 0, 1.0, [["free", 1, 3.0, None], begin], {}))
    assert state.drawn == {POWER: [8, 0], "/cluster0/rack1/power0": [5, 0]}
    fold(["housekeeping-finish", "housekeeping/1", 4.0, {"ranks": "2", "final": False}], state=state)
    assert state.drawn == {POWER: [8, 0]}
    fold(["housekeeping-finish", "housekeeping/1", 4.0, {"ranks": "0", "final": True}], state=state)
    assert (state.drawn, state.skipped, bool(state.quarantine)) == ({}, 0, False)


def test_a_graph_keeps_what_is_drawn_and_goes_when_nothing_is() -> None:
    state = fold(DEFINE, *pending(1), alloc(1, Claim(0, 1, 0, 0, 1, (Draw(POWER, 8),))))
    less = racks()
    next(v for v in less.vertices if v.path() == POWER).size = 7
    for tree in (less, None):
        fold(["resource-define", "resource", 2.0, {"method": "reload", "R": inventory(tree)}], state=state)
        assert state.graph is not None
    assert [one.code for one in state.quarantine.table.values()] == ["drawn"]
    assert "drawn" in WHY
    fold(["exception", 1, 3.0, {"type": "cancel", "severity": 0, "note": "", "userid": 1}],
         ["release", 1, 3.0, {"ranks": "all", "final": True}], ["free", 1, 3.0, None], state=state)  # fmt: skip
    fold(["resource-define", "resource", 2.0, {"method": "reload", "R": inventory(None)}], state=state)
    assert state.graph is None
    assert through_snapshot(state).digest() == state.digest()


def test_R_of_an_inventory_has_the_graph_and_the_state_has_it_once() -> None:
    document = inventory(racks())
    assert parse_R(document).tree == document["scheduling"]["tree"]
    assert render_set(parse_R(document)) == document
    state = fold(DEFINE)
    assert state.R is not None
    assert "tree" not in state.R["scheduling"]
    assert "tree" in DEFINE[3]["R"]["scheduling"]


def test_what_a_search_would_not_end_on_is_no_graph() -> None:
    """A switch that is in a rack, and above it in the network: each subsystem by itself is sound."""
    tree = racks(1, 1)
    rack = next(vertex for vertex in tree.vertices if vertex.type == "rack")
    switch = tree.roots["network"]
    tree.link(rack, switch)
    assert to_record(tree).places["/cluster0/rack0/switch0"]
    tree.link(switch, rack, "network")
    with pytest.raises(Rejected, match="edges of containment and network: lead in a circle"):
        to_record(tree)


def test_no_two_nodes_have_one_rank() -> None:
    tree = racks(1, 2)
    for vertex in tree.vertices:
        vertex.rank = min(vertex.rank, 0)
    with pytest.raises(Rejected, match="n0 and n1 are both the node of rank 0"):
        to_record(tree)
