"""The live matcher on graphs: equal leaves as one pool, what a request of any shape gets, and what is held then."""

from __future__ import annotations

from typing import Any

import pytest
from trees import racks, recipe, tree, vertex

from fluxkv.journal.claims import Claim, Draw
from fluxkv.kvs.errors import Conflict, Rejected
from fluxkv.schedulers.explain import explain
from fluxkv.schedulers.graph_pool import GraphPool
from fluxkv.schedulers.request import Request, compile_request
from fluxkv.schedulers.resources import Pool, Unmatched
from fluxkv.schedulers.stock import positions
from fluxkv.schedulers.timeline import Timeline, least_cores
from fluxkv.schedulers.tree import live
from fluxkv.schedulers.tree.enough import enough, slots_of
from fluxkv.schedulers.tree.grug import from_grug
from fluxkv.schedulers.tree.pooling import compact, nodes_of, paths_of
from fluxkv.schedulers.tree.vertices import Tree, Vertex


def slot(count: Any, *below: dict[str, Any], label: str = "task") -> dict[str, Any]:
    return vertex("slot", count, *below, label=label)


def ask(*resources: dict[str, Any], task: str = "task", **system: Any) -> Request:
    tasks = [{"command": ["true"], "slot": task, "count": {"per_slot": 1}}]
    return compile_request({"resources": list(resources), "tasks": tasks, "attributes": {"system": system}})


def pool_of(graph: Tree, policy: str = "first") -> GraphPool:
    small = compact(graph)
    return GraphPool(nodes_of(small), small, policy)


def got(pool: Pool, *resources: dict[str, Any], **more: Any) -> tuple[Claim, ...]:
    request = ask(*resources, **more)
    claims = pool.match(request)
    assert not isinstance(claims, Unmatched), claims
    if request.flat is None:
        assert enough(pool, request, claims)
    pool.take(claims)
    return claims


def test_a_placement_with_less_than_was_asked_for_is_not_enough() -> None:
    pool = pool_of(power())
    request = ask(vertex("rack", 1, vertex("power", 4), vertex("node", 2, slot(1, vertex("core", 2)))))
    claims = pool.match(request)
    assert not isinstance(claims, Unmatched)
    first, second = claims
    assert enough(pool, request, claims)
    worse = [
        [first], [first._replace(draws=()), second], [first, second._replace(cores=second.cores & (second.cores - 1))],
        [first._replace(draws=tuple(d._replace(units=d.units - 1) for d in first.draws)), second], [],
    ]  # fmt: skip
    assert not any(enough(pool, request, less) for less in worse)
    whole = ask(vertex("rack", 1, slot(1, vertex("node", 1)), exclusive=True))
    claims = pool.match(whole)
    assert not isinstance(claims, Unmatched)
    assert enough(pool, whole, claims)
    assert not enough(pool, whole, claims[1:])
    assert not enough(pool, whole, [claims[0]._replace(draws=()), *claims[1:]])


@pytest.mark.parametrize("policy", ["first", "low", "high"])
def test_parts_that_come_to_one_vertex_by_two_ways_do_not_share_it(policy: str) -> None:
    """The slot finds a node's power below the node, the rest of the request below the panel: each node has 200 W."""
    text = recipe(("cluster", "node", 2), ("node", "core", 2)).replace(
        "</graph>",
        '<node id="panel"><data key="root">1</data><data key="type">panel</data><data key="subsystem">power</data></node>'
        '<node id="fed"><data key="type">node</data></node>'
        '<node id="watt"><data key="type">watt</data><data key="size">200</data></node>'
        '<edge id="p2n" source="panel" target="fed"><data key="e_subsystem">power</data>'
        '<data key="gen_method">ASSOCIATE_IN</data></edge>'
        '<edge id="n2w" source="fed" target="watt"><data key="e_subsystem">power</data></edge></graph>',
    )
    pool = pool_of(from_grug(text), policy)
    claims = got(pool, slot(1, vertex("core", 1), vertex("watt", 150)), vertex("watt", 100))
    drawn = [draw.units for claim in claims for draw in claim.draws]
    assert (sum(drawn), max(drawn)) == (250, 200)
    assert isinstance(pool.match(ask(slot(1, vertex("core", 1), vertex("watt", 60)), vertex("watt", 100))), Unmatched)
    assert got(pool, slot(1, vertex("core", 1), vertex("watt", 60)), vertex("watt", 90))
    assert sum(units for units, _ in pool.drawn.values()) == 400


def alternative(kind: str, count: int, *below: dict[str, Any], label: str = "task") -> dict[str, Any]:
    return vertex(kind, count, *below, label=label)


@pytest.mark.parametrize("policy", ["first", "high", "lonode", "locality"])
@pytest.mark.parametrize("in_node", [True, False])
@pytest.mark.parametrize(
    ("resources", "cores", "slots"),
    [
        ([alternative("xor_slot", 1, vertex("core", 2)), vertex("core", 1)], 3, [2]),
        ([vertex("core", 1), alternative("xor_slot", 1, vertex("core", 2)), alternative("xor_slot", 1, vertex("core", 1))], 3, [2]),
        # the first alternative fits by itself, and leaves nothing for what is beside it
        ([alternative("xor_slot", 1, vertex("core", 4)), alternative("xor_slot", 1, vertex("core", 3)), vertex("core", 1)], 4, [3]),
        ([alternative("xor_slot", 1, vertex("core", 4)), alternative("xor_slot", 1, vertex("core", 3)), vertex("core", 2)], 0, []),
        ([slot(1, vertex("core", 2), label="x"), alternative("xor_slot", 2, vertex("core", 1)), vertex("gpu", 1)], 4, [1, 1]),
        ([alternative("or_slot", 2, vertex("core", 1)), alternative("or_slot", 2, vertex("core", 1), vertex("gpu", 1)),
          vertex("core", 1)], 3, [1, 1]),
    ],
)  # fmt: skip
def test_alternatives_leave_enough_for_what_is_beside_them(
    policy: str, in_node: bool, resources: list[dict[str, Any]], cores: int, slots: list[int]
) -> None:
    pool = pool_of(from_grug(recipe(("cluster", "node", 1), ("node", "core", 4), ("node", "gpu", 2))), policy)
    request = ask(*([vertex("node", 1, *resources)] if in_node else resources))
    claims = pool.match(request)
    if not cores:
        assert isinstance(claims, Unmatched)
        return
    assert not isinstance(claims, Unmatched), explain(request, pool)
    assert [claim.cores.bit_count() for claim in claims] == [cores]
    assert enough(pool, request, claims)
    assert [held.bit_count() for held, _ in slots_of(pool, request, claims)[0]] == slots


def test_what_is_in_each_slot_that_tasks_run_in() -> None:
    def slots(*resources: dict[str, Any], task: str = "task") -> dict[int, list[list[int]]]:
        pool = pool_of(tree(nodes=2))
        request = ask(*resources, task=task)
        claims = pool.match(request)
        assert not isinstance(claims, Unmatched)
        found = slots_of(pool, request, claims)
        assert {claim.rank: claim.slots for claim in claims if claim.slots} == {rank: len(some) for rank, some in found.items()}
        return {rank: [list(positions(cores)) for cores, _ in some] for rank, some in found.items()}

    kinds = [slot(1, vertex("core", 3), label="big"), slot(2, vertex("core", 1), label="small")]
    assert slots(vertex("node", 1, *kinds), task="small") == {0: [[3], [4]]}
    assert slots(vertex("node", 1, *kinds), task="big") == {0: [[0, 1, 2]]}
    both = {rank: [[0, 1, 2], [4, 5, 6]] for rank in (0, 1)}
    assert slots(vertex("node", 2, vertex("socket", 2, slot(1, vertex("core", 3))))) == both
    assert slots(slot(3, vertex("socket", 1))) == {0: [[0, 1, 2, 3], [4, 5, 6, 7]], 1: [[0, 1, 2, 3]]}
    assert slots(slot(2, vertex("node", 1))) == {rank: [list(range(8))] for rank in (0, 1)}
    assert slots(vertex("rack", 1, slot(1, vertex("node", 2)))) == {0: [list(range(8))]}
    mixed = [vertex("or_slot", 3, vertex("core", 3), label=name) for name in ("a",)]
    mixed.append(vertex("or_slot", 3, vertex("core", 1), vertex("memory", 3), label="task"))
    assert slots(vertex("node", 1, *mixed)) == {0: [[0, 1, 2], [3, 4, 5], [6]]}


def state(pool: Pool) -> Any:
    return (pool.core_free, pool.gpu_free, pool.free.memory.counts, pool.idle, pool.drawn)


def test_equal_leaves_are_one_pool_and_ids_count_over_the_node() -> None:
    paths = paths_of(compact(tree(racks=1, nodes=1, sockets=2, cores=4)))
    below = {path.removeprefix("/cluster0/rack0/node0/"): vertex for path, vertex in paths.items()}
    assert {p: (v.size, v.ids) for p, v in below.items() if v.type in ("core", "memory")} == {
        "socket0/core": (4, 0b1111), "socket1/core": (4, 0b11110000), "socket0/memory": (8, 0), "socket1/memory": (8, 0),
    }  # fmt: skip


def test_ids_that_are_there_twice_in_a_node_are_counted_anew() -> None:
    """Each socket numbers its cores from 0."""
    graph = from_grug(recipe(("cluster", "node", 1), ("node", "socket", 2), ("socket", "core", 2), ("socket", "nvme", 2)))
    paths = paths_of(compact(graph))
    assert [v.ids for v in paths.values() if v.type == "core"] == [0b11, 0b1100]
    assert [(v.size, v.ids) for v in paths.values() if v.type == "nvme"] == [(2, 0b11), (2, 0b11)]


def test_leaves_that_differ_are_pools_apart() -> None:
    graph = from_grug(recipe(("cluster", "node", 1), ("node", "core", 2), ("node", "gpu", 4)))
    for number in (1, 3):
        graph.vertices[-1 - number].table("properties")["a100"] = ""
    names = {path.rpartition("/")[2]: v.ids for path, v in paths_of(compact(graph)).items() if v.type == "gpu"}
    assert sorted(names.values()) == [0b0101, 0b1010]
    assert set(names) == {"gpu[0,2]", "gpu[1,3]"}


def test_hardware_threads_are_left_out() -> None:
    graph = from_grug(recipe(("cluster", "node", 1), ("node", "core", 2), ("core", "pu", 2)))
    assert sorted(paths_of(compact(graph))) == ["/cluster0", "/cluster0/node0", "/cluster0/node0/core"]


def test_a_socket_in_a_slot_is_held_with_all_that_it_has() -> None:
    pool = pool_of(tree(memories=1))
    one = vertex("node", 1, slot(1, vertex("socket", 1, vertex("core", 1))))
    socket = "/cluster0/rack0/node0/socket0"
    assert got(pool, one) == (Claim(0, 0b1111, 0, 4, 1, (Draw(socket, 1), Draw(f"{socket}/memory0", 4))),)
    assert got(pool, slot(1, vertex("core", 4)))[0].cores == 0b11110000
    assert [claim.rank for claim in got(pool, one)] == [1]


def test_moldable_counts_and_several_slots_of_a_node() -> None:
    pool = pool_of(tree(nodes=3, memories=1))
    claims = got(pool, vertex("node", {"min": 1, "max": 2}, slot(2, vertex("socket", 1, vertex("core", 1)))))
    assert [(c.rank, c.slots, c.cores) for c in claims] == [(0, 2, 255), (1, 2, 255)]
    claims = got(pool, vertex("node", 1, slot({"min": 2, "max": 8, "operator": "*", "operand": 2}, vertex("core", 1))), task="")
    assert claims


def power(units: int = 10) -> Tree:
    """Two racks, each with a pool of power beside two nodes."""
    return from_grug(
        recipe(("cluster", "rack", 2), ("rack", "node", 2), ("rack", "power", 1), ("node", "core", 4), sizes={"power": units})
    )  # fmt: skip


def test_a_quantity_above_the_node_is_drawn_on_by_units() -> None:
    pool = pool_of(power())
    eight = vertex("rack", 1, vertex("power", 8), vertex("node", 1, slot(1, vertex("core", 1))))
    assert got(pool, eight) == (Claim(0, 1, 0, 0, 1, (Draw("/cluster0/rack0/power0", 8),)),)
    (second,) = got(pool, eight)
    assert second.draws == (Draw("/cluster0/rack1/power0", 8),)
    assert isinstance(pool.match(ask(eight)), Unmatched)
    assert pool.satisfiable(ask(eight)) is None
    pool.give((second,))
    assert got(pool, eight) == (second,)
    with pytest.raises(Conflict):
        pool.take((second._replace(cores=2),))
    never = pool.satisfiable(ask(vertex("rack", 1, vertex("power", 11), vertex("node", 1, slot(1, vertex("core", 1))))))
    assert never is not None
    assert never.code == "unsatisfiable"


def test_a_rack_that_is_held_is_held_with_all_its_nodes() -> None:
    pool = pool_of(power())
    before = state(pool.copy())
    core = got(pool, slot(1, vertex("core", 1)))
    rack = vertex("rack", 1, slot(1, vertex("node", 1)), exclusive=True)
    claims = got(pool, rack)
    assert [(c.rank, c.cores, c.slots) for c in claims] == [(2, 15, 1), (3, 15, 0)]
    assert claims[0].draws == (Draw("/cluster0/rack1", 1), Draw("/cluster0/rack1/power0", 10))
    assert isinstance(pool.match(ask(rack)), Unmatched)
    pool.give(core)
    pool.give(claims)
    assert state(pool) == before


def test_a_plain_inventory_serves_what_nodes_cores_and_memory_can() -> None:
    from fluxkv.journal.rset import NodeRecord

    pool = Pool([NodeRecord(i, f"n{i}", 0b1111, 0b1, 1024, ()) for i in range(4)])
    claims = got(pool, vertex("node", "2-3", slot(1, vertex("core", 2), vertex("gpu", 1))))
    assert [(c.rank, c.cores, c.gpus, c.slots) for c in claims] == [(0, 3, 1, 1), (1, 3, 1, 1), (2, 3, 1, 1)]
    rack = pool.satisfiable(ask(vertex("rack", 1, slot(1, vertex("node", 1)))))
    assert rack is not None
    assert rack.code == "unsatisfiable"
    with pytest.raises(Rejected, match="no match policy"):
        Pool([], "best")


def test_two_vertices_of_one_path_are_refused() -> None:
    graph = Tree()
    graph.root(graph.add(Vertex("cluster", "cluster", 0)))
    for _ in range(2):
        graph.link(graph.vertices[0], graph.add(Vertex("rack", "rack", 0, size=2)))
    with pytest.raises(Rejected, match="give one of them another name"):
        pool_of(graph.compile())


def test_a_reservation_withholds_what_is_drawn_above_the_node() -> None:
    """8 of 10 units of power are in use until 100; who wants 5 waits for them, and who wants 2 for long may not be in the way."""
    pool = pool_of(from_grug(recipe(("cluster", "power", 1), ("cluster", "node", 4), ("node", "core", 4), sizes={"power": 10})))

    def wants(units: int) -> Request:
        return ask(vertex("power", units), slot(1, vertex("core", 1)))

    first = pool.match(wants(8))
    assert not isinstance(first, Unmatched)
    pool.take(first)
    timeline = Timeline(pool, 0.0, [(1, 100.0, first)])
    assert isinstance(timeline.match_now(wants(5), 10.0), Unmatched)
    span = timeline.reserve(2, wants(5), 50.0)
    assert span is not None
    assert (span.start, span.claims[0].draws) == (100.0, (Draw("/cluster0/power0", 5),))
    assert timeline.match_now(wants(2), 100.0)
    second = timeline.match_now(wants(2), 100.0)
    assert second
    timeline.placed(3, second, 500.0)
    later = timeline.reserve(4, wants(4), 50.0)
    assert later is not None
    assert later.start == 150.0
    assert not timeline.match_now(wants(1), 10.0)


def test_neighbours_in_a_request_do_not_get_the_same() -> None:
    pool = pool_of(tree(racks=1, nodes=1, sockets=2, cores=4, memories=1))
    both = vertex("node", 1, slot(1, vertex("core", 3), label="a"), slot(2, vertex("core", 2), label="b"))
    (claim,) = got(pool, both, task="b")
    assert (claim.cores, claim.slots) == (0b1111111, 2)
    assert isinstance(pool.match(ask(both, task="b")), Unmatched)
    pool.give((claim,))
    for first, second, cores in (
        (vertex("core", 5), vertex("core", 3), 255),
        (vertex("socket", 1), vertex("core", 4), 255),
        (vertex("core", 1), vertex("socket", 1), 0b11110001),
    ):
        claims = got(pool, vertex("node", 1, slot(1, first, label="a"), slot(1, second, label="b")), task="a")
        assert [(c.cores, c.slots) for c in claims] == [(cores, 1)]
        pool.give(claims)
    five, three = vertex("memory", 5, unit="MB"), vertex("memory", 3, unit="MB")
    much = vertex("node", 1, slot(1, vertex("core", 1), five), vertex("memory", 4, unit="MB"))
    assert isinstance(pool.match(ask(much)), Unmatched)
    assert got(pool, vertex("node", 1, slot(1, vertex("core", 1), five), three))[0].memory_mb == 8


def wired() -> Tree:
    """Four nodes in a cluster; two power units of 10 kW feed two each; switches with bandwidth, and one file system for all."""
    graph = Tree()
    top = graph.add(Vertex("cluster", "cluster", 0))
    graph.root(top)
    nodes = [graph.add(Vertex("node", "node", n, rank=n)) for n in range(4)]
    for node in nodes:
        graph.link(top, node)
        for n in range(4):
            graph.link(node, graph.add(Vertex("core", "core", n, rank=node.rank)))
    grid = graph.add(Vertex("grid", "grid", 0))
    graph.root(grid, "power")
    fabric = graph.add(Vertex("fabric", "fabric", 0))
    graph.root(fabric, "network")
    for half in range(2):
        unit = graph.add(Vertex("pdu", "pdu", half))
        graph.link(grid, unit, "power")
        graph.link(unit, graph.add(Vertex("power", "power", half, size=10, unit="kW")), "power")
        switch = graph.add(Vertex("switch", "switch", half, size=100, unit="Gb"))
        graph.link(fabric, switch, "network")
        for node in nodes[2 * half : 2 * half + 2]:
            graph.link(unit, node, "power")
            graph.link(switch, node, "network")
    store = graph.add(Vertex("filesystem", "scratch", 0, name="scratch", size=500, unit="GB"))
    graph.link(top, store)
    return graph.compile()


def test_several_subsystems_at_once() -> None:
    pool = pool_of(wired())
    one = slot(1, vertex("core", 2))
    fed = vertex("pdu", 1, vertex("power", 6, unit="kW"), vertex("node", 2, one))
    store = vertex("filesystem", 200, unit="GB")
    claims = got(pool, fed, store)
    assert [(c.rank, c.cores, c.slots) for c in claims] == [(0, 3, 1), (1, 3, 1)]
    assert claims[0].draws == (Draw("/cluster0/scratch", 200), Draw("/grid0/pdu0/power0", 6))
    wide = got(pool, vertex("switch", 60, vertex("node", 2, one)))
    assert ([c.rank for c in wide], wide[0].draws) == ([0, 1], (Draw("/fabric0/switch0", 60),))
    wide = got(pool, vertex("switch", 60, vertex("node", 2, one)))
    assert ([c.rank for c in wide], wide[0].draws) == ([2, 3], (Draw("/fabric0/switch1", 60),))
    more = got(pool, vertex("pdu", 1, vertex("power", 6000, unit="W"), vertex("node", 2, one)), store)
    assert [d.vertex for d in more[0].draws] == ["/cluster0/scratch", "/grid0/pdu1/power1"]
    pool.give(wide)
    assert isinstance(pool.match(ask(vertex("node", 1, one), store)), Unmatched)
    assert isinstance(pool.match(ask(vertex("pdu", 1, vertex("power", 5, unit="kW"), vertex("node", 1, one)))), Unmatched)
    assert got(pool, vertex("pdu", 1, vertex("power", 4, unit="kW"), vertex("node", 1, one)))


def test_a_unit_of_power_that_is_held_is_held_with_its_nodes() -> None:
    pool = pool_of(wired())
    whole = vertex("pdu", 1, slot(1, vertex("node", 1)), exclusive=True)
    claims = got(pool, whole)
    assert [(c.rank, c.cores) for c in claims] == [(0, 15), (1, 15)]
    assert [d.vertex for d in claims[0].draws] == ["/grid0/pdu0", "/grid0/pdu0/power0"]
    got(pool, slot(1, vertex("core", 1)))
    assert isinstance(pool.match(ask(whole)), Unmatched)
    everything = vertex("cluster", 1, vertex("node", 4, slot(1, vertex("core", 1))))
    assert isinstance(pool.match(ask(everything)), Unmatched)
    pool.give(claims)
    assert [c.rank for c in got(pool, everything)] == [0, 1, 2, 3]


NEVER = "unsatisfiable: needs "


@pytest.mark.parametrize(
    ("resource", "text", "kind", "numbers"),
    [
        (vertex("node", 2, slot(1, vertex("socket", 3))), f"{NEVER}2 nodes with 1 slot of 3 sockets; none fits", "socket", (2, 0)),
        (vertex("rack", 4, slot(1, vertex("node", 1))), f"{NEVER}4 racks; 2 fit", "rack", (4, 2)),
        (vertex("row", 1, slot(1, vertex("node", 1))), "unsatisfiable: there is no row in the resource graph", "row", (1, 0)),
        (vertex("rack", 2, vertex("node", 3, slot(1, vertex("core")))), f"{NEVER}2 racks with 3 nodes; none fits", "node", (2, 0)),
        (vertex("node", 4, slot(1, vertex("socket", 2))), "needs 4 nodes with 1 slot of 2 sockets; 3 fit now", "socket", (4, 3)),
        (vertex("node", 1, slot({"min": 1, "max": 2}, vertex("core", 1))), "fits now", "", (0, 0)),
    ],
)  # fmt: skip
def test_what_is_short_is_said(resource: dict[str, Any], text: str, kind: str, numbers: tuple[int, int]) -> None:
    pool = pool_of(tree(racks=2, nodes=2))
    got(pool, slot(1, vertex("core", 1)))
    reason = explain(ask(resource), pool)
    assert reason.text.startswith(text)
    assert (reason.blocking, (reason.needed, reason.found)) == (kind, numbers)


def test_of_a_quantity_the_pool_that_has_most_is_named() -> None:
    pool = pool_of(power())
    wanted = vertex("rack", 1, vertex("power", 7), vertex("node", 1, slot(1, vertex("core", 1))))
    for _ in range(2):
        got(pool, wanted)
    reason = explain(ask(wanted), pool)
    assert reason.text == "needs 1 rack with 7 power; rack0 has the most free, 3 of 10"
    assert (reason.blocking, reason.needed, reason.found, reason.unit, reason.of) == ("power", 7, 3, "power", "")
    never = explain(ask(vertex("rack", 1, vertex("power", 70), vertex("node", 1, slot(1, vertex("core", 1))))), pool)
    assert never.text == "unsatisfiable: needs 1 rack with 70 power; rack0 has the most, 10"
    pool = pool_of(racks(1))
    for count, unit, text in (
        (9, "kW", "needs 1 rack with 9 kW of power; rack0 has the most free, 2 of 10 kW"),
        (2001, "W", "needs 1 rack with 2,001 W of power; rack0 has the most free, 2 of 10 kW"),
    ):
        if count == 9:
            got(pool, vertex("rack", 1, vertex("power", 8, unit="kW"), vertex("node", 1, slot(1, vertex("core", 1)))))
        node = vertex("node", 1, slot(1, vertex("core")))
        reason = explain(ask(vertex("rack", 1, vertex("power", count, unit=unit), node)), pool)
        assert (reason.text, reason.unit, reason.of) == (text, "kW", "power")


def test_what_is_down_inside_a_node_is_named_to_flat_requests_too() -> None:
    pool = pool_of(tree(racks=1, nodes=2, memories=1))
    for number in (0, 1):
        pool.set_vertex(f"/cluster0/rack0/node{number}/socket0", 0, 0, up=False)
    reason = explain(ask(vertex("node", 2, slot(1, vertex("core", 8)))), pool)
    assert (reason.code, reason.text) == (
        "node-down", "needs 2 nodes with 1 slot of 8 cores; none fits (socket0 of node0, socket0 of node1 down)"
    )  # fmt: skip
    assert explain(ask(slot(1, vertex("core", 4))), pool).code == "ready"


def test_nodes_that_are_away_are_said_to_be() -> None:
    pool = pool_of(tree(racks=2, nodes=2))
    pool.set_node(3, 255, 0, 16, False, True, "drained")
    reason = explain(ask(vertex("rack", 2, slot(2, vertex("node", 1)))), pool)
    assert (reason.code, reason.text) == ("drained", "needs 2 racks with 2 slots of 1 node; 1 fits (1 drained)")


def test_a_policy_of_whole_nodes_says_so() -> None:
    pool = pool_of(tree(racks=1, nodes=1), "lonodex")
    one = got(pool, slot(1, vertex("core", 1)))
    assert (one[0].cores, one[0].slots) == (255, 1)
    assert explain(ask(slot(1, vertex("core", 1))), pool).code == "resources"
    pool = pool_of(tree(racks=1, nodes=2), "lonodex")
    pool.set_node(0, 1, 0, 16, True, False)
    pool.set_node(1, 1, 0, 16, True, False)
    assert explain(ask(slot(1, vertex("core", 1))), pool).text == "the match policy lonodex gives whole nodes, and too few are idle"
    assert explain(ask(vertex("node", 1, slot(1, vertex("core", 1)))), pool).text == "needs 1 idle node; none is idle"


def labelled() -> Tree:
    """Two racks of two nodes with four GPUs; the first two GPUs of node0 and node2 are a100; rack1 is row1, node3 is big."""
    graph = from_grug(
        recipe(("cluster", "rack", 2), ("rack", "node", 2), ("node", "core", 4), ("node", "gpu", 4), scopes={"node": 1})
    )  # fmt: skip
    names = paths_of(graph)
    for path, name in (
        ("rack0/node0/gpu0", "a100"), ("rack0/node0/gpu1", "a100"), ("rack1/node2/gpu2", "a100"), ("rack1", "row1"),
        ("rack1/node3", "big"),
    ):  # fmt: skip
        names[f"/cluster0/{path}"].table("properties")[name] = ""
    return graph


@pytest.mark.parametrize(
    ("constraint", "gpus", "ranks"),
    [
        ({"properties": ["a100"]}, 1, {0: 0b1, 2: 0b100}),
        ({"properties": ["a100"]}, 2, {0: 0b11}),
        ({"properties": ["^a100"]}, 3, {1: 0b111, 2: 0b1011, 3: 0b111}),
        ({"properties": ["row1"]}, 1, {2: 1, 3: 1}),
        ({"properties": ["row1", "a100"]}, 1, {2: 0b100}),
        ({"not": [{"properties": ["row1"]}]}, 1, {0: 1, 1: 1}),
        ({"or": [{"properties": ["big"]}, {"hostlist": ["node0"]}]}, 1, {0: 1, 3: 1}),
        ({"and": [{"ranks": ["0-1"]}, {"properties": ["^big"]}]}, 1, {0: 1, 1: 1}),
        ({"properties": ["none"]}, 1, {}),
        ({"properties": ["^none"]}, 1, {0: 1, 1: 1, 2: 1, 3: 1}),
    ],
)
def test_constraints_are_about_what_has_the_properties(constraint: Any, gpus: int, ranks: dict[int, int]) -> None:
    for policy in ("first", "low"):
        for resource in (
            vertex("node", {"min": 1}, slot(1, vertex("core", 1), vertex("gpu", gpus))),
            vertex("node", max(len(ranks), 1), slot(1, vertex("core", 1), vertex("gpu", gpus))),
        ):
            pool = pool_of(labelled(), policy)
            request = ask(resource, constraints=constraint)
            claims = pool.match(request)
            assert ({c.rank: c.gpus for c in claims} if claims else {}) == ranks
            assert (pool.satisfiable(request) is None) == bool(ranks)
            for claim in claims if not isinstance(claims, Unmatched) else ():
                assert pool.matching(request) >> pool.index[claim.rank] & 1


def test_a_search_is_bounded() -> None:
    """A request for as many slots of a unit of storage as there are is refused, and soon: a slot needs a core."""
    text = recipe(("cluster", "node", 8), ("node", "core", 4), ("node", "store", 1), sizes={"store": 1 << 20})
    pool = pool_of(from_grug(text), "low")
    assert isinstance(pool.match(ask(slot({"min": 1}, vertex("store", 1)))), Unmatched)


@pytest.mark.parametrize("policy", ["first", "low", "high", "lonodex", "locality"])
@pytest.mark.parametrize("down", ["/cluster0/node0/socket1", "/cluster0/node0/nvme0"])
def test_nobody_has_all_of_a_node_in_which_something_is_down(policy: str, down: str) -> None:
    graph = recipe(("cluster", "node", 2), ("node", "socket", 2), ("socket", "core", 2), ("node", "nvme", 1))
    whole = [vertex("node", 1, slot(1, vertex("core", 1)), exclusive=True), slot(1, vertex("node", 1))]
    for resource in whole:
        pool = pool_of(from_grug(graph), policy)
        pool.set_vertex(down, 0, up=False)
        assert [claim.rank for claim in got(pool, resource)] == [1]
        assert isinstance(pool.match(ask(resource)), Unmatched)
        assert pool.satisfiable(ask(resource)) is None
        pool.set_vertex(down, 0, up=True)
        assert [claim.rank for claim in got(pool, resource)] == [0]


def test_what_is_down_inside_a_node_is_not_given() -> None:
    pool = pool_of(tree(racks=1, nodes=2, memories=1))
    socket = "/cluster0/rack0/node0/socket0"
    pool.set_vertex(socket, 0, 0, up=False)
    assert got(pool, slot(1, vertex("core", 4)))[0].cores == 0b11110000
    assert [c.rank for c in got(pool.copy(), vertex("node", 1, slot(1, vertex("core", 1))))] == [1]
    assert pool.satisfiable(ask(vertex("node", 2, slot(1, vertex("core", 8))))) is None
    pool.set_vertex(socket, 0, 0, up=True)
    assert got(pool, slot(1, vertex("core", 4)))[0].cores == 0b1111
    pool.set_vertex("/cluster0/rack0", 0, 0, up=False)
    assert isinstance(pool.match(ask(slot(1, vertex("core", 1)))), Unmatched)
    assert pool.usable == 0


def test_a_request_without_a_core_for_its_tasks_is_not_served() -> None:
    pool = pool_of(power())
    one = vertex("rack", 1, slot(1, vertex("power", 1)), vertex("node", 1, slot(1, vertex("core", 1), label="b")))
    assert isinstance(pool.match(ask(one)), Unmatched)
    assert explain(ask(one), pool).text.endswith("or a slot has no core")
    assert got(pool, one, task="b")[0].slots == 1


@pytest.mark.parametrize(
    ("resources", "cores"),
    [
        ([vertex("node", 2, slot(3, vertex("core", 2)))], 12),
        ([vertex("node", {"min": 2, "max": 5}, slot(1, vertex("socket", 2, vertex("core", 3))))], 12),
        ([slot(1, vertex("core", 4), label="a"), slot(1, vertex("core", 1), label="b")], 1),
        ([vertex("xor_slot", 1, vertex("core", n), label="task") for n in (4, 2)], 2),
        ([vertex("rack", 1, slot(1, vertex("node", 1)))], 0),
    ],
)
def test_the_least_that_a_request_needs_is_no_more_than_it_gets(resources: list[dict[str, Any]], cores: int) -> None:
    assert least_cores(ask(*resources)) == cores
    claims = pool_of(tree(racks=2, nodes=3, cores=6)).match(ask(*resources))
    assert claims
    assert sum(claim.cores.bit_count() for claim in claims) >= cores


def test_what_a_search_had_no_time_for_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, request = pool_of(tree(racks=2, nodes=2)), ask(vertex("node", 4, slot(1, vertex("socket", 1, vertex("core", 2)))))
    monkeypatch.setattr(live, "MAX_STEPS", 5)
    assert isinstance(pool.match(request), Unmatched)
    monkeypatch.undo()
    assert pool.match(request)
