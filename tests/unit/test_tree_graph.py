"""Trees of resources: what loaders read, what they refuse and why, growing, shrinking, finding, writing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trees import HEAD, overbooked, recipe, request, taken, tree, vertex

from fluxkv.journal.rset import parse_R
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.tree import rv1, vertices
from fluxkv.schedulers.tree.finding import find
from fluxkv.schedulers.tree.grug import from_grug
from fluxkv.schedulers.tree.hwloc import from_hwloc
from fluxkv.schedulers.tree.jgf import attach, from_jgf, named_in
from fluxkv.schedulers.tree.ledger import RESERVED
from fluxkv.schedulers.tree.system import System
from fluxkv.schedulers.tree.vertices import Tree
from fluxkv.schedulers.tree.writers import write

R = {
    "version": 1,
    "execution": {
        "R_lite": [{"rank": "0-1", "children": {"core": "0-3", "gpu": "0"}}], "nodelist": ["big[7-8]"], "properties": {"ssd": "1"},
        "starttime": 0, "expiration": 0,
    },
}  # fmt: skip
WHOLE_NODE = vertex("slot", 1, vertex("node", 1, vertex("socket", 2, vertex("core", 4))))


def paths(tree: Tree, subsystem: str = "containment") -> list[str]:
    return [vertex.path(subsystem) for vertex in tree.vertices if vertex.path(subsystem)]


def jgf_of(system: System) -> dict[str, Any]:
    selection = find(system, "status=up or status=down")
    assert selection is not None
    return json.loads(write("jgf", selection, system.subsystems))


def found(system: System, text: str) -> list[str]:
    selection = find(system, text)
    text = "" if selection is None else write("simple", selection, ("containment",))
    return [line.split("[")[0].strip(" -") for line in text.splitlines()]


def test_a_recipe_makes_edge_by_edge() -> None:
    made = tree(racks=2, nodes=2, sockets=1, cores=2, memories=1)
    assert paths(made)[:7] == [
        "/cluster0", "/cluster0/rack0", "/cluster0/rack1", "/cluster0/rack0/node0", "/cluster0/rack0/node1",
        "/cluster0/rack1/node2", "/cluster0/rack1/node3",
    ]  # fmt: skip
    assert [v.rank for v in made.vertices if v.type == "node"] == [0, 1, 2, 3]
    assert made.roots["containment"].totals == {"cluster": 1, "rack": 2, "node": 4, "socket": 4, "core": 8, "memory": 16}
    assert made.at("/cluster0/rack1/node2/socket0/core1") is not None
    assert made.at("/cluster0/rack1/node1") is None


def test_ids_begin_and_step_as_the_recipe_says() -> None:
    numbered = '<data key="id_start">5</data><data key="id_stride">10</data>'
    text = recipe(("cluster", "node", 3)).replace('<data key="id_scope">0</data>', numbered)
    assert paths(from_grug(text))[1:] == ["/cluster0/node5", "/cluster0/node15", "/cluster0/node25"]


def test_by_path_only_what_is_below_the_same() -> None:
    text = recipe(("cluster", "rack", 2), ("rack", "pdu", 1), ("rack", "node", 2), scopes={"node": 1, "pdu": 1}).replace(
        "</graph>",
        '<node id="panel"><data key="root">1</data><data key="type">panel</data><data key="subsystem">power</data></node>'
        '<node id="p"><data key="type">pdu</data></node><node id="n"><data key="type">node</data></node>'
        '<edge source="panel" target="p"><data key="e_subsystem">power</data><data key="gen_method">ASSOCIATE_IN</data></edge>'
        '<edge source="p" target="n"><data key="e_subsystem">power</data>'
        '<data key="gen_method">ASSOCIATE_BY_PATH_IN</data></edge></graph>',
    )
    assert sorted(paths(from_grug(text), "power")) == [
        "/panel0", "/panel0/pdu0", "/panel0/pdu0/node0", "/panel0/pdu0/node1", "/panel0/pdu1", "/panel0/pdu1/node2",
        "/panel0/pdu1/node3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<graphml", "GraphML: not XML"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><graphml/>", "entities"),
        (f"{HEAD}</graphml>", "no graph"),
        (f"{HEAD}<graph/></graphml>", "root"),
        (recipe(("a", "b", -1)), "edge 'a2b'.multi_scale: must not be negative"),
        (recipe(("a", "b", 2), sizes={"b": -3}), "node 'b'.size: must not be negative"),
        (recipe(("a", "b", 1)).replace('target="b"', 'target="c"'), "edge 'a2b': names no node: 'c'"),
        (recipe(("a", "b", 1), ("b", "a", 1)), "edge 'b2a': leads back"),
        (recipe(("a", "b", 1)).replace("<data key=\"type\">b</data>", ""), "node 'b': has no type"),
        (recipe(("a", "b", 10**7)), "edge 'a2b': makes more than"),
        (recipe(("a", "b", 1)).replace('<data key="multi_scale">1', '<data key="gen_method">CLONE'), "unknown gen_method 'CLONE'"),
        (recipe(*[(f"t{n}", f"t{n + 1}", 1) for n in range(100)]), "more than 64 deep"),
    ],
)  # fmt: skip
def test_recipes_that_are_refused(text: str, why: str) -> None:
    with pytest.raises(Rejected) as caught:
        from_grug(text)
    assert why in str(caught.value)
    assert caught.value.code == "bad-graph"


def graph_of(kinds: list[str], edges: list[tuple[int, ...]], subsystems: tuple[str, ...] = ("containment", "power")) -> Tree:
    """edges: (above, below, number of the subsystem)."""
    nodes = [{"id": str(n), "metadata": {"type": kind, "id": n}} for n, kind in enumerate(kinds)]
    links = [
        {"source": str(above), "target": str(below), "metadata": {"subsystem": subsystems[rest[0] if rest else 0]}}
        for above, below, *rest in edges
    ]
    return from_jgf({"graph": {"nodes": nodes, "edges": links}})


def test_graphs_that_a_search_would_never_end_on_are_refused_at_once() -> None:
    """Each stage has two ways to the next one: a million ways lead to the last."""
    edges = [edge for n in range(0, 60, 3) for edge in ((n, n + 1), (n, n + 2), (n + 1, n + 3), (n + 2, n + 3))]
    with pytest.raises(Rejected, match="more than 100976 ways lead down to"):
        graph_of(["cluster", *["box", "box", "hub"] * 20], edges)
    few = [edge for edge in edges if edge[0] < 15]
    system = System(graph_of(["cluster", *["box", "box", "hub"] * 5], few), "low")
    assert system.allocate(request(vertex("slot", 5, vertex("hub")))).state == ""
    assert system.allocate(request(vertex("slot", 1, vertex("hub")))).state == "ALLOCATED"
    deep = [(n, n + 1) for n in range(63)] + [(0, 64), (64, 1)]  # the short way to it is not too long, the other is
    with pytest.raises(Rejected, match=r"/node0/.*\.\.\./.*: node63 is more than 64 deep"):
        graph_of(["node"] * 65, [deep[-2], deep[-1], *deep[:-2]])


def test_subsystems_that_lead_back_together_are_refused_where_both_are_looked_at() -> None:
    graph = graph_of(["cluster", "rack", "pdu", "panel"], [(0, 1), (1, 2), (3, 2, 1), (2, 1, 1)])
    assert System(graph, view="CA").satisfiable(request(vertex("rack", 1)))
    with pytest.raises(Rejected, match=r"/cluster0/rack1/pdu2/rack1: rack1 is below itself \(containment\+power\)"):
        System(graph, view="C+PA")


def test_graphs_have_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vertices, "MAX_VERTICES", 50)
    with pytest.raises(Rejected, match="more than 50 vertices"):
        graph_of(["cluster", *["node"] * 50], [(0, n) for n in range(1, 51)])
    wide = {"version": 1, "execution": {"R_lite": [{"rank": "0-100", "children": {"core": "0-99999"}}], "nodelist": ["n[0-100]"],
         "starttime": 0, "expiration": 0}}  # fmt: skip
    with pytest.raises(Rejected, match="R_lite: more than 2000000 vertices"):
        rv1.from_rv1(wide)


def test_what_is_written_as_jgf_is_read_again() -> None:
    first = System(tree(racks=2), "low")
    document = jgf_of(first)
    again = System(from_jgf(document), "low")
    assert sorted(paths(again.tree)) == sorted(paths(first.tree))
    assert again.root.totals == first.root.totals
    assert jgf_of(again) == document


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda g: g["edges"].append({"source": "2", "target": "0"}), "must have one root"),
        (lambda g: g["edges"].append({"source": "3", "target": "2"}), "/n0/n1/n2/n3/n2: n2 is below itself (containment)"),
        (lambda g: g["edges"].append({"source": "9", "target": "8"}), "must have one root"),
        (lambda g: g["edges"].append({"source": "0", "target": "nothing"}), "graph.edges[3].target names no vertex"),
        (lambda g: g["edges"].append({"source": ["0"], "target": "1"}), "graph.edges[3].source names no vertex"),
        (lambda g: g["nodes"].append({"id": "0", "metadata": {"type": "x"}}), "graph.nodes[6].id '0' is there twice"),
        (lambda g: g["nodes"][1]["metadata"].update(size=-1), "graph.nodes[1].metadata.size must not be negative"),
        (lambda g: g["nodes"][1]["metadata"].update(size=None, rank="0"), "graph.nodes[1].metadata.rank must not be '0'"),
        (lambda g: g["nodes"][1]["metadata"].pop("type"), "graph.nodes[1].metadata.type"),
    ],
)
def test_jgf_that_is_refused(change: Any, why: str) -> None:
    nodes = [{"id": str(n), "metadata": {"type": "node", "name": f"n{n}"}} for n in (0, 1, 2, 3, 8, 9)]
    edges = [{"source": "0", "target": "1"}, {"source": "1", "target": "2"}, {"source": "2", "target": "3"}]
    graph = {"nodes": nodes, "edges": edges}
    change(graph)
    with pytest.raises(Rejected) as caught:
        from_jgf({"graph": graph})
    assert why in str(caught.value)


def test_R_as_a_tree_and_what_is_taken_as_R() -> None:
    system = System(rv1.from_rv1(R), "low")
    assert found(system, "property=ssd") == ["big8", "cluster0"]
    outcome = system.allocate(request(vertex("slot", 1, vertex("core", 2), vertex("gpu"))))
    assert outcome.selection is not None
    written = json.loads(write("rv1_nosched", outcome.selection, system.subsystems, 5, 105))
    allocated = parse_R(written)
    assert (allocated.starttime, allocated.expiration, allocated.nodelist) == (5, 105, "big7")
    lite = json.loads(write("rlite", outcome.selection, system.subsystems))
    assert lite == [{"rank": "0", "children": {"core": "0-1", "gpu": "0"}}]
    node = system.allocate(request(vertex("slot", 1, vertex("node")))).selection
    assert node is not None
    assert json.loads(write("rlite", node, system.subsystems)) == [{"rank": "1", "children": {"core": "0-3", "gpu": "0"}}]
    whole = json.loads(write("rv1", outcome.selection, system.subsystems, 5, 105))
    assert sorted(paths(rv1.from_rv1(whole))) == sorted(v.path() for v, _, _ in outcome.selection.taken.values())


def test_hwloc_keeps_what_is_allowed() -> None:
    core = '<object type="Core" os_index="{0}"><object type="PU" os_index="{0}"/></object>'
    text = (
        '<topology><object type="Machine"><info name="HostName" value="n12"/><object type="Package"><object type="L3Cache">'
        + core.format(0) + core.format(1)
        + '</object><object type="Bridge"><object type="PCIDev"><object type="OSDev" name="sda" osdev_type="0">'
        '<info name="Size" value="200000000"/></object><object type="OSDev" name="cuda3" osdev_type="5"/></object></object>'
        "</object></object></topology>"
    )  # fmt: skip
    made = from_hwloc(text, ("socket", "core", "storage", "gpu"))
    assert [p.removeprefix("/cluster0/n12") for p in paths(made)[2:]] == [
        "/socket0", "/socket0/core0", "/socket0/core1", "/socket0/storage0", "/socket0/gpu3",
    ]  # fmt: skip
    assert made.roots["containment"].totals["storage"] == 200
    assert any(v.type == "pu" for v in from_hwloc(text).vertices)
    hostile = "<!DOCTYPE t [<!ENTITY a 'b'>]><topology/>"
    for bad in ("<topology/>", "<x>", '<topology><object type="Core"/></topology>', hostile):
        with pytest.raises(Rejected, match="hwloc XML"):
            from_hwloc(bad)


def test_growing_by_a_graph_that_repeats_the_way_down() -> None:
    system = System(tree(nodes=1), "low")
    one = request(WHOLE_NODE)
    assert [system.allocate(one).state for _ in range(2)] == ["ALLOCATED", ""]
    more = jgf_of(System(tree(nodes=2)))
    for node in more["graph"]["nodes"]:
        node["metadata"]["rank"] = -1 if node["metadata"]["type"] == "node" else node["metadata"]["rank"]
    assert {v.path() for v in attach(system.tree, more)} >= {"/cluster0/rack0/node1", "/cluster0/rack0/node1/socket1/core7"}
    system.graph_changed()
    assert attach(system.tree, more) == []
    outcome = system.allocate(one)
    assert taken(system, outcome.job)[0] == "/cluster0/rack0/node1"
    assert not overbooked(system)
    with pytest.raises(Rejected, match="the root is other0"):
        attach(system.tree, {"graph": {"nodes": [{"id": "0", "metadata": {"type": "cluster", "name": "other0"}}], "edges": []}})


def test_removing_takes_jobs_off_what_is_gone() -> None:
    system = System(tree(nodes=3), "low")
    both = system.allocate(request({**WHOLE_NODE, "count": 2})).job
    alone = system.allocate(request(WHOLE_NODE)).job
    assert system.remove([system.at("/cluster0/rack0/node1")]) == [both]
    assert {path.split("/")[3] for path in taken(system, both)} == {"node0"}
    assert system.remove([system.at("/cluster0/rack0/node2")]) == [alone]
    assert list(system.ledger.jobs) == [both]
    assert system.root.totals["core"] == 8
    system.cancel(both)
    assert system.root.below == {}
    assert system.allocate(request({**WHOLE_NODE, "count": 2})).selection is None
    with pytest.raises(Rejected, match="root"):
        system.remove([system.root])


def test_removing_from_one_subsystem_leaves_no_trace_in_another() -> None:
    text = recipe(("cluster", "rack", 1), ("rack", "pdu", 2), ("rack", "node", 2), ("node", "core", 1), scopes={"core": 2}).replace(
        "</graph>",
        '<node id="panel"><data key="root">1</data><data key="type">panel</data><data key="subsystem">power</data></node>'
        '<node id="p"><data key="type">pdu</data></node><node id="n"><data key="type">node</data></node>'
        '<edge source="panel" target="p"><data key="e_subsystem">power</data><data key="gen_method">ASSOCIATE_IN</data></edge>'
        '<edge source="p" target="n"><data key="e_subsystem">power</data><data key="gen_method">ASSOCIATE_IN</data></edge></graph>',
    )
    contained, powered = System(from_grug(text), "low"), System(from_grug(text), "low", "PA")
    for pdu in (0, 1):
        contained.remove([contained.at(f"/cluster0/rack0/pdu{pdu}")])
        both = [path for path in paths(contained.tree, "power") if "node" in path]
        assert both == ([] if pdu else ["/panel0/pdu1/node0", "/panel0/pdu1/node1"])
    assert contained.allocate(request(vertex("slot", 2, vertex("node")))).selection is not None
    powered.remove([powered.at("/panel0/pdu0/node1")])
    assert paths(powered.tree)[-1] == "/cluster0/rack0/node0/core0"
    assert len(powered.tree.vertices) == 7


def test_giving_a_part_back() -> None:
    system = System(rv1.from_rv1(R), "low")
    job = system.allocate(request(vertex("slot", 2, vertex("node", 1, vertex("core", 4))))).job
    lite = [{"rank": "1", "children": {"core": "0"}}]
    part = {"version": 1, "execution": {"R_lite": lite, "nodelist": ["big8"], "starttime": 0, "expiration": 0}}
    assert not system.cancel_on(job, rv1.nodes_in(system.tree, part))
    assert found(system, "sched-now=allocated") == ["core0", "core1", "core2", "core3", "gpu0", "big7", "cluster0"]
    assert system.cancel_on(job, [system.at("/cluster0/big7")])
    assert not system.ledger.jobs
    assert all(not v.users and not v.below and v.exclusive is None for v in system.tree.vertices)
    system.allocate(request(vertex("slot", 2, vertex("node"))))
    reserved = system.reserve(request(vertex("slot", 1, vertex("node"))))
    with pytest.raises(Rejected, match="only reserved"):
        system.cancel_on(reserved.job, [system.root])
    with pytest.raises(Rejected, match="nonexistent job 77"):
        system.cancel_on(77, [system.root])


def test_imposing_what_was_allocated_before() -> None:
    first = System(tree(), "high")
    outcome = first.allocate(request(vertex("node", 1, vertex("slot", 1, vertex("socket", 1, vertex("core", 2))))))
    assert outcome.selection is not None
    document = json.loads(write("jgf", outcome.selection, first.subsystems))
    again = System(tree(), "high")
    for path in (True, {}, {"containment": 3}, {"containment": "/cluster0/nowhere"}):
        bad = json.loads(json.dumps(document))
        bad["graph"]["nodes"][2]["metadata"]["paths"] = path
        with pytest.raises(Rejected, match=r"graph.nodes\[2\]"):
            named_in(again.tree, bad)
    wanted = {v.ordinal: (v, units, x) for v, units, x in named_in(again.tree, document)}
    imposed = again.impose(7, wanted, RESERVED, 50, 100)
    assert write("simple", imposed.selection, again.subsystems) == write("simple", outcome.selection, first.subsystems)
    assert again.next_job == 8
    with pytest.raises(Rejected, match="job 7 is there"):
        again.impose(7, wanted, RESERVED, 500, 100)
    with pytest.raises(Rejected, match="in use"):
        again.impose(9, wanted, RESERVED, 149, 1)
    assert again.impose(9, wanted, RESERVED, 150, 1).state == RESERVED
    named = rv1.named_in(rv1.from_rv1(R), R)
    assert [(v.name, x) for v, _, x in named][:3] == [("big7", False), ("core0", True), ("core1", True)]


def test_find() -> None:
    system = System(tree(nodes=2, cores=1, memories=0), "low")
    held = system.allocate(request(vertex("node", 1, vertex("slot", 1, vertex("socket"))))).job
    assert found(system, "sched-now=allocated") == ["core0", "socket0", "node0", "rack0", "cluster0"]
    assert found(system, f"jobid-alloc={held} names=core[0-9]") == ["core0", "socket0", "node0", "rack0", "cluster0"]
    assert found(system, f"jobid-tag={held} and not names=socket0") == ["node0", "rack0", "cluster0"]
    assert found(system, "(names=node0 or names=node1) and sched-now=free") == ["node0", "node1", "rack0", "cluster0"]
    assert found(system, "sched-future=reserved") == []
    system.set_up("/cluster0/rack0/node1", False)
    assert found(system, "status=down") == ["node1", "rack0", "cluster0"]
    assert found(system, "jobid-reserved=1") == found(system, "jobid-span=99") == []
    deep = "not " * 99 + "status=up"
    for bad in ("", "status", "status=", "status=odd", "(status=up", "status=up)", "x=1", "jobid-tag=one", deep):
        with pytest.raises(Rejected, match="bad expression"):
            find(system, bad)


def test_short_jgf_says_less() -> None:
    system = System(tree(), "low")
    outcome = system.allocate(request(vertex("slot", 1, vertex("socket", 1, vertex("core", 2)))))
    assert outcome.selection is not None
    texts = [write(form, outcome.selection, system.subsystems) for form in ("jgf", "jgf_shorthand")]
    assert [len(json.loads(text)["graph"]["nodes"]) for text in texts] == [6, 4]
