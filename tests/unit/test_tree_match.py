"""The matcher of trees: what a request gets, when, and what never changes an answer."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import overbooked, recipe, request, taken, tree, vertex

from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.tree.grug import from_grug
from fluxkv.schedulers.tree.mixing import mixture
from fluxkv.schedulers.tree.needs import compile_request
from fluxkv.schedulers.tree.policies import POLICIES
from fluxkv.schedulers.tree.spans import Spans
from fluxkv.schedulers.tree.system import System
from fluxkv.schedulers.tree.writers import write

CORES_IN_A_SOCKET = vertex("node", 1, vertex("slot", 1, vertex("socket", 1, vertex("core", 2))))


def lines(system: System, outcome: Any, form: str = "simple") -> list[str]:
    return write(form, outcome.selection, system.subsystems).splitlines()


def test_a_slot_is_exclusive_and_what_it_is_in_is_shared() -> None:
    system = System(tree(), "low")
    assert lines(system, system.allocate(request(CORES_IN_A_SOCKET))) == [
        "      ---------------core0[1:x]",
        "      ---------------core1[1:x]",
        "      ------------socket0[1:x]",
        "      ---------node0[1:s]",
        "      ------rack0[1:s]",
        "      ---cluster0[1:s]",
    ]
    assert taken(system, system.allocate(request(CORES_IN_A_SOCKET)).job)[-1] == "/cluster0/rack0/node0/socket1/core5"


@pytest.mark.parametrize(
    ("policy", "first", "second"),
    [
        ("low", "node0/socket0/core0", "node1/socket0/core0"),
        ("high", "node0/socket1/core7", "node1/socket1/core7"),
        ("lonode", "node0/socket0/core0", "node0/socket0/core1"),
        ("hinode", "node1/socket1/core7", "node1/socket1/core6"),
        ("locality", "node0/socket0/core0", "node1/socket0/core0"),
        ("first", "node1/socket1/core7", "node0/socket1/core7"),
    ],
)
def test_what_is_taken_first_from_a_pool(policy: str, first: str, second: str) -> None:
    """Cores of several nodes are one pool here: equal ids stay in the order of the graph."""
    system = System(tree(), policy)
    one = request(vertex("slot", 1, vertex("core")))
    for where in (first, second):
        assert taken(system, system.allocate(one).job) == [f"/cluster0/rack0/{where}"]


@pytest.mark.parametrize("policy", ["lonodex", "hinodex", "firstnodex"])
def test_whole_nodes(policy: str) -> None:
    system = System(tree(), policy)
    one = request(vertex("slot", 1, vertex("core")))
    assert len(taken(system, system.allocate(one).job)) == 1 + 2 * (1 + 4 + 2)
    assert system.allocate(one).state == "ALLOCATED"
    assert system.allocate(one).state == ""


def test_levels_may_be_left_out_at_the_top_only() -> None:
    assert System(tree(), "low").allocate(request(vertex("socket", 3, vertex("slot", 1, vertex("core"))))).selection
    assert System(tree(), "low").allocate(request(vertex("slot", 5, vertex("core", 3)))).selection is None  # one a socket
    assert System(tree(), "low").allocate(request(vertex("slot", 4, vertex("core", 3)))).selection
    assert System(tree(), "low").allocate(request(vertex("node", 1, vertex("slot", 1, vertex("core"))))).selection is None


def test_a_pool_is_taken_whole_and_by_as_many_vertices_as_it_takes() -> None:
    system = System(tree(memory_size=4), "low")
    outcome = system.allocate(request(vertex("slot", 1, vertex("core"), vertex("memory", 5))))
    assert lines(system, outcome)[:3] == [f"      ---------------{v}:x]" for v in ("core0[1", "memory0[4", "memory1[4")]
    assert system.allocate(request(vertex("slot", 1, vertex("memory", 9)))).selection is None


@pytest.mark.parametrize(
    ("count", "got"),
    [
        ({"min": 1, "max": 3}, 3),
        ({"min": 1, "max": 9}, 4),
        ({"min": 2, "max": 9, "operator": "+", "operand": 3}, 2),
        ({"min": 1, "max": 9, "operator": "*", "operand": 2}, 4),
        ({"min": 2, "max": 9, "operator": "^", "operand": 2}, 4),
        ({"min": 3, "max": 9, "operator": "*", "operand": 2}, 3),
        ({"min": 1}, 4),
        ({"min": 5}, 0),
        ("1-9:2", 3),
        ("1,2,3,7", 3),
    ],
)
def test_counts_that_may_be_larger(count: dict[str, Any], got: int) -> None:
    system = System(tree(), "low")
    outcome = system.allocate(request(vertex("socket", 1, vertex("slot", 1, vertex("core", count)))))
    assert (len(taken(system, outcome.job)) if outcome.selection else 0) == got


def test_an_exclusive_container_is_taken_with_all_it_holds_and_needs_to_be_idle() -> None:
    system = System(tree(), "low")
    whole = request(vertex("node", 1, vertex("slot", 1, vertex("socket")), exclusive=True))
    system.allocate(request(vertex("slot", 1, vertex("core"))))
    outcome = system.allocate(whole)
    assert taken(system, outcome.job)[0] == "/cluster0/rack0/node1"
    assert len(taken(system, outcome.job)) == 15
    assert system.allocate(whole).selection is None
    assert system.allocate(request(vertex("socket", 4, vertex("slot", 1, vertex("core"))))).selection is None


def test_reservations_are_as_early_as_can_be_and_stay_where_they_are() -> None:
    system = System(tree(nodes=1), "low")
    big = request(vertex("slot", 1, vertex("node", 1)), duration=100)
    assert [system.reserve(big).start for _ in range(3)] == [0, 100, 200]
    before = {job.id: (job.start, job.end) for job in system.ledger.jobs.values()}
    assert system.reserve(request(vertex("slot", 1, vertex("core")), duration=10)).start == 300
    assert {j: (r.start, r.end) for j, r in system.ledger.jobs.items() if j in before} == before
    system.cancel(2)
    assert system.reserve(request(vertex("slot", 1, vertex("core")), duration=100)).start == 100
    assert not overbooked(system)


def test_a_gap_is_used_only_by_what_fits_into_it() -> None:
    system = System(tree(nodes=1), "low")
    whole = vertex("slot", 1, vertex("node", 1))
    system.reserve(request(vertex("slot", 1, vertex("socket")), duration=50))
    assert system.reserve(request(whole, duration=100)).start == 50
    half = vertex("slot", 1, vertex("socket"))
    assert system.reserve(request(half, duration=51)).start == 150
    assert system.reserve(request(half, duration=50)).state == "ALLOCATED"


def test_down_busy_and_impossible() -> None:
    system = System(tree(), "low")
    both = request(vertex("node", 2, vertex("slot", 1, vertex("socket"))))
    system.set_up("/cluster0/rack0/node1", False)
    assert system.allocate(both).selection is None
    assert system.allocate(both, satisfiability=True).impossible
    assert system.satisfiable(both)
    assert not system.reserve(both).impossible
    system.set_up("/cluster0/rack0/node1", True)
    assert system.allocate(both).selection is not None
    never = request(vertex("node", 1, vertex("slot", 3, vertex("socket"))))
    assert system.reserve(never).impossible
    assert not system.satisfiable(never)
    outcome = system.allocate(request(vertex("slot", 4, vertex("socket"))), satisfiability=True)
    assert outcome.selection is None
    assert not outcome.impossible


def test_looking_without_taking() -> None:
    system = System(tree(nodes=1), "low")
    whole = request(vertex("slot", 1, vertex("node")))
    assert (system.preview(whole).state, system.preview(whole).job) == ("MATCHED", -1)
    system.allocate(whole)
    assert system.preview(whole).state == ""
    assert (system.preview(whole, future=True).state, system.preview(whole, future=True).start) == ("MATCHED", 100)
    assert list(system.ledger.jobs) == [1]


def test_constraints_are_on_nodes() -> None:
    system = System(tree(), "low")
    system.set_property("/cluster0/rack0/node1", "ssd", "")
    for constraint, node in (
        ({"properties": ["ssd"]}, "node1"), ({"properties": ["^ssd"]}, "node0"), ({"hostlist": ["node1"]}, "node1"),
        ({"not": [{"ranks": ["1"]}]}, "node0"), ({"or": [{"ranks": ["1"]}, {"properties": ["none"]}]}, "node1"),
    ):  # fmt: skip
        outcome = system.allocate(request(vertex("slot", 1, vertex("core")), constraints=constraint))
        assert f"/{node}/" in taken(system, outcome.job)[0]


def test_slots_side_by_side() -> None:
    two = [vertex("slot", 1, vertex("core", 3)), vertex("slot", 1, vertex("core", 1), vertex("memory", 4))]
    one_socket = request(vertex("socket", 1, *two))
    both = System(tree(), "low")
    names = [path.rpartition("/")[2] for path in taken(both, both.allocate(one_socket).job)]
    assert names == ["core0", "core1", "core2", "core3", "memory0"]
    either = System(tree(), "low", flexible=True)
    low = either.allocate(one_socket).job  # of two that make up the most the one with the lower numbers
    assert [path.rpartition("/")[2] for path in taken(either, low)] == ["core3", "memory0"]
    pooled = System(tree(), "low", flexible=True)  # three of the last kind are wanted; either of them fills a socket
    job = pooled.allocate(request(vertex("slot", 9, vertex("core", 4)), vertex("slot", 3, vertex("core", 3)))).job
    assert len(taken(pooled, job)) == 12
    mixed = [vertex("or_slot", 2, vertex("core", 3)), vertex("or_slot", 2, vertex("core", 1), vertex("memory", 4))]
    either = System(tree(), "low")
    names = [path.rpartition("/")[2] for path in taken(either, either.allocate(request(vertex("socket", 1, *mixed))).job)]
    assert names == ["core0", "core1", "core2", "core3", "memory0"]
    xor = request(vertex("socket", 1, vertex("xor_slot", 9, vertex("core")), vertex("xor_slot", 2, vertex("core"))))
    assert len(taken(both, both.allocate(xor).job)) == 2


def test_a_mix_is_the_one_with_most_slots_and_of_equal_ones_the_first() -> None:
    assert mixture({"core": 18, "gpu": 1}, [{"core": 8, "gpu": 1}, {"core": 10}], 99) == [1, 1]
    assert mixture({"core": 18, "gpu": 1}, [{"core": 10}, {"core": 8, "gpu": 1}], 99) == [1, 1]
    assert mixture({"core": 18}, [{"core": 10}, {"core": 1}], 99) == [0, 18]
    assert mixture({"core": 4}, [{"core": 4}, {"core": 3}], 99) == [1, 0]
    assert mixture({"core": 7}, [{"core": 3}, {"core": 2}, {}], 99) == [1, 2, 0]
    assert mixture({"core": 7}, [{"core": 1}, {"core": 1}], 5) == [5, 0]
    assert mixture({"core": 3}, [{"core": 4}, {}], 9) == [0, 0]
    many = {f"type{n}": 200 + n for n in range(6)}
    start = time.process_time()
    got = mixture(many, [{kind: 2 + (n * i) % 5 for n, kind in enumerate(many)} for i in range(6)], 1 << 12)
    assert sum(got) >= 60
    assert time.process_time() - start < 1


def test_two_ways_to_the_same() -> None:
    """Disks belong to a rack, and to a unit that serves all racks."""
    edges = (("cluster", "rack", 2), ("rack", "box", 1), ("box", "ssd", 2), ("rack", "node", 1), ("cluster", "unit", 1))
    text = recipe(*edges).replace(
        "</graph>",
        '<node id="link"><data key="type">box</data></node><edge source="unit" target="link">'
        '<data key="gen_method">ASSOCIATE_IN</data></edge></graph>',
    )
    system = System(from_grug(text), "low")
    by_unit = vertex("unit", 1, vertex("box", 1, vertex("slot", 1, vertex("ssd"))))
    outcome = system.allocate(request(by_unit))
    assert [line.strip(" -") for line in lines(system, outcome)] == ["ssd0[1:x]", "box0[1:s]", "unit0[1:s]", "cluster0[1:s]"]
    whole_rack = request(vertex("rack", 1, vertex("slot", 1, vertex("node")), exclusive=True))
    second = system.allocate(whole_rack)
    assert "/cluster0/rack1" in taken(system, second.job)  # the other one has a disk in use
    assert system.allocate(whole_rack).selection is None
    system.cancel(second.job)
    both = system.allocate(request(by_unit, vertex("rack", 1, vertex("slot", 1, vertex("node"))))).job
    assert not system.cancel_on(both, [system.at("/cluster0/rack0/node0")])
    assert {v.name for v, _, _ in system.job(both).uses.values()} == {"cluster0", "unit0", "box0", "ssd1"}
    assert not overbooked(system)


def test_several_subsystems() -> None:
    text = recipe(("cluster", "node", 2), ("node", "core", 2)).replace(
        "</graph>",
        '<node id="panel"><data key="root">1</data><data key="type">panel</data><data key="subsystem">power</data></node>'
        '<node id="fed"><data key="type">node</data></node>'
        '<node id="watt"><data key="type">watt</data><data key="size">500</data></node>'
        '<edge id="p2n" source="panel" target="fed"><data key="e_subsystem">power</data>'
        '<data key="gen_method">ASSOCIATE_IN</data></edge>'
        '<edge id="n2w" source="fed" target="watt"><data key="e_subsystem">power</data></edge></graph>',
    )
    wanted = request(vertex("node", 1, vertex("slot", 1, vertex("core", 2), vertex("watt", 400))))
    both = System(from_grug(text), "low", "C+PA")
    assert [both.allocate(wanted).state for _ in range(3)] == ["ALLOCATED", "ALLOCATED", ""]
    assert System(from_grug(text), "low", "CA").allocate(wanted).state == ""
    power = System(from_grug(text), "high", "PA")
    outcome = power.allocate(request(vertex("panel", 1, vertex("slot", 1, vertex("node", 1, vertex("watt", 1))))))
    assert [line.strip() for line in lines(power, outcome)] == ["---------watt0[500:x]", "------node1[1:x]", "---panel0[1:s]"]


def test_variation_keeps_classes_together() -> None:
    system = System(tree(nodes=6), "variation")
    for node, perf in enumerate((3, 1, 2, 2, 9, "odd")):
        system.set_property(f"/cluster0/rack0/node{node}", "perf_class", str(perf))
    two = request(vertex("node", 2, vertex("slot", 2, vertex("socket"))))
    got = [{path.split("/")[3] for path in taken(system, system.allocate(two).job)} for _ in range(3)]
    assert got == [{"node2", "node3"}, {"node1", "node0"}, {"node4", "node5"}]


def test_locality_prefers_a_row() -> None:
    system = System(tree(nodes=6), "locality")
    one = vertex("node", 1, vertex("slot", 2, vertex("socket")))
    for _ in range(4):
        system.allocate(request(one))
    system.cancel(1), system.cancel(3)  # free: 0, 2, 4, 5
    outcome = system.allocate(request({**one, "count": 2}))
    assert {path.split("/")[3] for path in taken(system, outcome.job)} == {"node4", "node5"}


MOLDABLE = {"min": 1, "max": 4, "operator": "*", "operand": 2}
SHAPES = st.sampled_from(
    [
        vertex("slot", 1, vertex("core")),
        vertex("slot", 3, vertex("core", 2)),
        vertex("slot", 1, vertex("core", 1), vertex("memory", 5)),
        vertex("node", 1, vertex("slot", 1, vertex("socket", 1, vertex("core", 2)))),
        vertex("node", 2, vertex("slot", 1, vertex("socket"))),
        vertex("slot", 1, vertex("node", 1, vertex("socket", 2, vertex("core", 4)))),
        vertex("rack", 1, vertex("slot", 2, vertex("node"))),
        vertex("node", 1, vertex("slot", 1, vertex("socket")), exclusive=True),
        vertex("socket", {"min": 1, "max": 3}, vertex("slot", 1, vertex("core", MOLDABLE))),
        vertex("node", 3, vertex("slot", 3, vertex("socket"))),
    ]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), SHAPES, st.integers(1, 300)),
        st.tuples(st.just("allocate"), SHAPES, st.integers(1, 300)),
        st.tuples(st.just("cancel"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("down"), st.integers(0, 3), st.booleans()),
    ),
    max_size=12,
)
FILTERS: list[dict[str, list[str]] | None] = [
    {}, {"ALL": ["core", "memory", "node", "socket"]}, {"rack": ["node"], "node": ["core"]}, {"ALL": ["memory"]},
]  # fmt: skip


def played(system: System, steps: list[tuple[str, Any, Any]]) -> list[Any]:
    """What became of each step."""
    told: list[Any] = []
    for name, what, value in steps:
        if name == "cancel":
            jobs = sorted(system.ledger.jobs)
            if jobs:
                told.append(system.cancel(jobs[what % len(jobs)]))
        elif name == "down":
            system.set_up(f"/cluster0/rack{what // 2}/node{what}", value)
        else:
            outcome = getattr(system, name)(request(what, duration=value))
            text = write("simple", outcome.selection, system.subsystems) if outcome.selection else ""
            told.append((outcome.state, outcome.start, outcome.impossible, text))
        assert not overbooked(system)
    return told


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.sampled_from(sorted(POLICIES)), st.sampled_from(FILTERS))
def test_filters_change_no_answer_and_nothing_is_sold_twice(
    steps: list[tuple[str, Any, Any]], policy: str, filters: dict[str, list[str]] | None
) -> None:  # fmt: skip
    """`first` looks where the sums say that most is left: there the choice of vertices may differ, and so what comes after."""
    answers = [played(System(tree(racks=2), policy, filters=kept), steps) for kept in (None, filters)]
    if not policy.startswith("first"):
        assert answers[0] == answers[1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9), st.integers(1, 5)), max_size=12), st.data())
def test_spans_are_exact(held: list[tuple[int, int, int]], data: st.DataObject) -> None:
    spans = Spans()
    for start, length, units in held:
        spans.add(start, start + length, units)
    gone = data.draw(st.integers(0, len(held)))
    for start, length, units in held[:gone]:
        spans.remove(start, start + length, units)
    each = [sum(u for s, n, u in held[gone:] if s <= t < s + n) for t in range(40)]
    start, end = sorted(data.draw(st.tuples(st.integers(0, 35), st.integers(1, 39))))
    assert spans.peak(start, end) == max(each[start:end], default=0)
    assert [spans.at(t) for t in range(40)] == each
    assert bool(spans) == any(each)


@pytest.mark.parametrize(
    ("resources", "path"),
    [
        ([], "resources"),
        ([vertex("core", -1)], "resources[0].count"),
        ([vertex("core", True)], "resources[0].count"),
        ([vertex("node", 1, vertex("core", 0))], "resources[0].with[0].count"),
        ([vertex("core", {"min": 2, "max": 1})], "resources[0].count"),
        ([vertex("core", {"min": 1, "max": 4, "operator": "*", "operand": 1})], "resources[0].count"),
        ([vertex("core", {"min": 1, "operator": "/"})], "resources[0].count"),
        ([vertex("slot", 1)], "resources[0].with"),
        ([vertex("slot", 1, vertex("slot", 1, vertex("core")))], "resources[0].with[0].type"),
        ([vertex("slot", 1, vertex("core", 1, exclusive=False))], "resources[0].with[0].exclusive"),
        ([vertex("core", 1, exclusive="yes")], "resources[0].exclusive"),
        ([vertex("core", 1, surprise=1)], "resources[0] has"),
        ([{"count": 1}], "resources[0].type"),
        ([vertex("warp")], "resources[0].type"),
        (["core"], "resources[0]"),
    ],
)
def test_requests_that_are_refused(resources: list[Any], path: str) -> None:
    with pytest.raises(Rejected, match="bad jobspec") as caught:
        compile_request({"resources": resources}, ("core", "node", "slot"))
    assert path in str(caught.value)
    assert caught.value.code == "bad-jobspec"


def test_a_request_nested_a_hundred_deep_is_refused() -> None:
    deep = vertex("core")
    for _ in range(100):
        deep = vertex("node", 1, deep)
    with pytest.raises(Rejected, match="more than 64 deep"):
        compile_request({"resources": [deep]})


@pytest.mark.parametrize(
    ("count", "unit", "vertices"),
    [(4, "GB", 1), (4096, "MB", 1), (4097, "MB", 2), (5, "", 2), (1, "MB", 1), (9, "GB", 0), (1, "W", 0)],
)
def test_units_are_converted(count: int, unit: str, vertices: int) -> None:
    """Memory is in pools of 4 GB here."""
    text = recipe(("node", "memory", 2), sizes={"memory": 4}).replace(
        '<data key="type">memory</data>', '<data key="type">memory</data><data key="unit">GB</data>'
    )
    system = System(from_grug(text), "low")
    outcome = system.allocate(request(vertex("slot", 1, vertex("memory", count, unit=unit))))
    assert (len(taken(system, outcome.job)) if outcome.selection else 0) == vertices
    shared = system.preview(request(vertex("memory", 1024, unit="MB")))
    assert vertices == 2 or lines(system, shared)[0] == f"      ------memory{vertices}[1:s]"
