"""Jobs on an instance with a graph of resources: what they draw, who meets whom at what is above nodes, what changes the graph."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from trees import racks, tree, vertex
from worker_rig import Rig, jobspec

from fluxkv.instances import child, forks, resource_files, views
from fluxkv.instances.graph_use import use_of
from fluxkv.instances.reactor import Answered, Entries, Lead, Write
from fluxkv.instances.views import nodes_of_queues
from fluxkv.instances.worker import Worker
from fluxkv.journal import decide, decide_graph, decide_hosts, snapshot
from fluxkv.journal.claims import Claim, Draw
from fluxkv.journal.decide_inventory import reload
from fluxkv.journal.graph_edit import with_record
from fluxkv.journal.job import INACTIVE, RUN, SCHED, Result
from fluxkv.journal.jobspec_check import check
from fluxkv.journal.quarantine import passed_over
from fluxkv.journal.resource_graph import fitting, from_wire
from fluxkv.journal.rset import NodeRecord, ResourceSet, parse_R, render_set
from fluxkv.journal.state import State
from fluxkv.journal.wire import Commit, Event, pack, unpack
from fluxkv.kvs.errors import Rejected
from fluxkv.kvs.memory_server import share
from fluxkv.kvs.port import Appended, Conflicted
from fluxkv.schedulers.explain import explain
from fluxkv.schedulers.fcfs import Fcfs
from fluxkv.schedulers.graph_pool import GraphPool
from fluxkv.schedulers.policy import Decision, Pending
from fluxkv.schedulers.request import Request
from fluxkv.schedulers.resources import Pool, Stocks, Unmatched
from fluxkv.schedulers.tree.pooling import compact
from fluxkv.schedulers.tree.record import to_record
from fluxkv.tools.eventview import describe
from fluxkv.tools.explainpending import out_of_use
from fluxkv.tools.resourceview import STATUS_DEFAULT, chosen, list_rows, status_rows

POWER = "/cluster0/rack0/power0"
QUEUES = {
    "queues": {"all": {"hosts": "n[0-3]"}, "a": {"hosts": "n0"}, "b": {"hosts": "n1"}},
    "policy": {"jobspec": {"defaults": {"system": {"queue": "all"}}}},
}


@pytest.fixture
def rig() -> Rig:
    return Rig(4, tree=racks())


def wanting(*resources: dict[str, Any], queue: str = "") -> dict[str, Any]:
    spec = jobspec(queue=queue)
    spec["resources"] = list(resources)
    return spec


def slot(*inside: dict[str, Any], count: int = 1) -> dict[str, Any]:
    return vertex("slot", count, *(inside or (vertex("core"),)), label="t")


def powered(kilowatts: int, queue: str = "") -> dict[str, Any]:
    return wanting(vertex("rack", 1, vertex("power", kilowatts), vertex("node", 1, slot())), queue=queue)


def whole_rack(queue: str = "") -> dict[str, Any]:
    return wanting(vertex("rack", 1, vertex("node", 1, slot()), exclusive=True), queue=queue)


def same_everywhere(rig: Rig) -> None:
    state = rig.state
    head, chunks = snapshot.dump(rig.journal.at())
    assert rig.journal.at().subjects() == state.subjects()
    assert snapshot.load(snapshot.read_head(head), chunks).subjects() == state.subjects()
    assert not state.quarantine


def end(rig: Rig, *ids: int) -> None:
    rig.started(*ids)
    for id in ids:
        rig.over(id)
    rig.turn()


def test_a_job_draws_holds_and_gives_back(rig: Rig) -> None:
    first, second, third = (rig.submit(powered(8)) for _ in range(3))
    assert [rig.job(id).state for id in (first, second, third)] == [RUN, RUN, SCHED]
    assert rig.state.drawn == {POWER: [8, 0], "/cluster0/rack1/power0": [8, 0]}
    assert rig.job(first).claims == (Claim(0, 1, 0, 0, 1, (Draw(POWER, 8),)),)
    same_everywhere(rig)
    end(rig, first)
    assert (rig.job(third).state, rig.job(third).ranks) == (RUN, [0])
    end(rig, second, third)
    assert rig.state.drawn == {}
    same_everywhere(rig)


def test_what_is_freed_in_a_pass_is_taken_in_it_and_not_if_that_fails(rig: Rig) -> None:
    """Through another node: ranks alone do not say that one group rests on the other."""
    first, _, third = rig.submit(powered(8)), rig.submit(powered(8)), powered(8)
    third["attributes"]["system"]["constraints"] = {"hostlist": ["n1"]}
    waits = rig.submit(third)
    rig.started(first)
    rig.over(first)
    found = rig.worker.step(rig.now, [Entries(rig.store.read(rig.state.version))])
    write = next(one.request for one in found if isinstance(one, Write))
    assert {f"job/{first}", f"job/{waits}", f"pool{POWER}"} <= set(write.since)
    rig.do(decide.raise_exception(rig.state, first, "note", 1, "", 1, rig.now))  # somebody is quicker
    answer = rig.store.append(write)
    assert answer == Conflicted((f"job/{first}",))
    found = rig.worker.step(rig.now, [Answered(write, answer)])
    assert not any(f"job/{waits}" in one.request.since for one in found if isinstance(one, Write))
    rig.turn()
    assert rig.job(waits).ranks == [1]
    same_everywhere(rig)


class Only(Fcfs):
    """Places these jobs, whoever else is first."""

    __slots__ = ("jobs",)

    def plan(self, pending: Iterable[Pending], pool: Pool, now: float) -> Iterator[Decision]:
        return super().plan((entry for entry in pending if entry.job in self.jobs), pool, now)


def two_at_once(first: dict[str, Any], second: dict[str, Any]) -> tuple[Rig, Conflicted]:
    """Two workers decide, each about one job, before either has written: what the slower one is told."""
    rig = Rig(4, tree=racks(), config=QUEUES)
    writes = []
    for n, spec in enumerate((first, second)):
        id = rig.submit(spec, turn=False)
        policy = Only()
        policy.jobs = {id}
        worker = Worker(rig.store.meta(), rig.journal.load(), policy, f"other-{n}")
        found = worker.step(rig.now, [Lead(True), Entries([])])
        writes.append(next(one.request for one in found if isinstance(one, Write)))
    for n, write in enumerate(writes):
        writes[n] = write._replace(producer="", seq=0)
    assert isinstance(rig.store.append(writes[0]), Appended)
    answer = rig.store.append(writes[1])
    assert isinstance(answer, Conflicted)
    return rig, answer


def test_two_workers_meet_at_a_rack_s_power_whatever_nodes_they_place_through() -> None:
    rig, answer = two_at_once(powered(8, queue="a"), powered(8, queue="b"))
    assert f"pool{POWER}" in answer.things
    assert not any(thing.startswith("node/") for thing in answer.things)
    rig.turn()
    assert [rig.job(id).state for id in (1, 2)] == [RUN, SCHED]
    assert rig.state.drawn == {POWER: [8, 0]}
    end(rig, 1)
    assert rig.job(2).ranks == [1]
    same_everywhere(rig)


def test_a_rack_for_oneself_and_a_core_in_it_meet() -> None:
    rig, answer = two_at_once(whole_rack("all"), wanting(vertex("node", 1, slot()), queue="b"))
    assert "node/1" in answer.things
    rig.turn()
    assert rig.job(1).claims[0].draws[-1].vertex.startswith("/cluster0/rack0")
    same_everywhere(rig)


def test_a_rack_held_as_a_whole_is_nobody_else_s(rig: Rig) -> None:
    whole = rig.submit(whole_rack())
    assert rig.job(whole).ranks == [0, 1]
    assert rig.state.drawn[POWER] == [10, 0]
    assert "/cluster0/rack0" in rig.state.drawn
    other = rig.submit(powered(1))
    assert rig.job(other).ranks == [2]
    waits = rig.submit(whole_rack())
    assert rig.job(waits).state == SCHED
    end(rig, other)
    assert rig.job(waits).ranks == [2, 3]
    same_everywhere(rig)


def test_tasks_are_counted_on_what_a_job_got(rig: Rig) -> None:
    id = rig.submit(wanting(vertex("node", {"min": 1, "max": 3}, slot(count=2))))
    assert (rig.job(id).ranks, rig.job(id).nnodes, rig.job(id).ntasks) == ([0, 1, 2], 3, 6)
    assert [order[1:] for rank in range(4) for order in rig.orders(rank) if order[0] == "launch"] == [[id, False]] * 3


def test_of_alternatives_a_job_gets_one_and_its_tasks_run_in_that(rig: Rig) -> None:
    def asked(slots: list[dict[str, Any]], task: str) -> dict[str, Any]:
        spec = wanting(vertex("node", 1, *slots))
        spec["version"], spec["tasks"][0]["slot"] = 999, task
        check(spec)
        return spec

    big = vertex("xor_slot", 1, vertex("core", 9), label="big")
    small = vertex("xor_slot", 2, vertex("core", 1), label="small")
    for task in ("big", "small"):
        id = rig.submit(asked([big, small], task))
        assert (rig.job(id).ntasks, rig.job(id).claims[0].slots, rig.job(id).claims[0].cores.bit_count()) == (2, 2, 2)
        end(rig, id)
    held = [rig.submit(wanting(vertex("node", 4, slot())))]
    waits = rig.submit(asked([big, small], "small"))
    said = explain(rig.worker.planner.request_of(rig.job(waits)), rig.worker.planner.pool).text
    assert said == "needs 1 node with 2 slots of 1 core; none fits now"
    end(rig, *held)
    end(rig, waits)
    same = [{**big, "label": "t"}, {**small, "label": "t"}]
    assert rig.job(rig.submit(asked(same, "t"))).ntasks == 2
    beside = [vertex("slot", 1, vertex("core"), label="one"), vertex("slot", 1, vertex("core"), label="two")]
    id = rig.submit(asked(beside, "one"))
    assert (rig.job(id).state, rig.job(id).ntasks) == (RUN, 1)
    for wrong, path in (
        ([small, {**slot(), "label": "small"}], r"with\[1\].label"), ([{**slot(), "label": "small"}, small], r"with\[1\].label"),
        ([vertex("node", 1, small), vertex("node", 1, small)], r"with\[1\].with\[0\].label"),
        ([vertex("xor_slot", 1, vertex("core"))], r"with\[0\].label"), ([vertex("xor_slot", 1, label="t")], r"with\[0\].with"),
    ):  # fmt: skip
        with pytest.raises(Rejected, match=path):
            asked(wrong, "small")
    same_everywhere(rig)


def test_of_or_slots_a_job_gets_any_mix(rig: Rig) -> None:
    """Nodes have two cores and two NVMe each: the mix with most slots is one of either kind. Tasks run in both."""

    def asked(count: int, kind: str = "or_slot", within: int = 0) -> dict[str, Any]:
        big = vertex(kind, count, vertex("core"), vertex("nvme", 2), label="big")
        small = vertex(kind, count, vertex("core"), label="small")
        spec = wanting(*([vertex("node", within, big, small)] if within else [big, small]))
        spec["version"], spec["tasks"][0]["slot"] = 999, "small"
        check(spec)
        return spec

    mixed = rig.submit(asked(2, within=1))
    assert rig.job(mixed).claims == (Claim(0, 3, 0, 0, 2, (Draw("/cluster0/rack0/n0/nvme", 2, 3),)),)
    assert rig.job(mixed).ntasks == 2
    everywhere = rig.submit(asked(8))
    assert rig.job(everywhere).state == SCHED
    request = rig.worker.planner.request_of(rig.job(everywhere))
    words = "needs 8 slots of 1 core, 2 nvmes or of 1 core; 6 fit now"
    assert explain(request, rig.worker.planner.pool).text == words
    end(rig, mixed)
    assert [claim.slots for claim in rig.job(everywhere).claims] == [2, 2, 2, 2]
    assert rig.job(everywhere).ntasks == 8
    same_everywhere(rig)
    end(rig, everywhere)
    beside = rig.submit(asked(1, "slot", 1))
    assert (rig.job(beside).claims[0].slots, rig.job(beside).ntasks) == (1, 1)  # the other one is wanted, but runs no tasks
    end(rig, beside)
    rig.configure({"policy": {"scheduler": {"traverser": "flexible"}}})
    rig.turn()
    flexible = rig.submit(asked(2, "slot", 1))
    assert (rig.job(flexible).claims[0].slots, rig.job(flexible).ntasks) == (2, 2)
    same_everywhere(rig)
    for wrong, why in (
        (asked(9), "needs 9 slots of"),
        ({**asked(1), "resources": [asked(1)["resources"][0], asked(2)["resources"][1]]}, r"resources\[1\].count differs"),
    ):
        ended = rig.job(rig.submit(wrong))
        assert ended.state == INACTIVE
        assert re.search(why, ended.exceptions[0][2]), ended.exceptions


def test_who_binds_tasks_is_told_what_is_in_their_slots(rig: Rig) -> None:
    spec = wanting(vertex("node", 1, vertex("or_slot", 2, vertex("core"), vertex("nvme"), label="t")))
    spec["attributes"]["system"]["shell"] = {"options": {"cpu-affinity": "per-task"}}
    rig.submit(spec)
    plain = rig.submit(wanting(vertex("node", 1, vertex("slot", 2, vertex("core"), vertex("nvme"), label="t"))))
    inboxes = [rig.store.messages(rig.store.keys.inbox(f"node/{rank}")) for rank in range(4)]
    orders = [order for inbox in inboxes for message in inbox for order in unpack(message.data)]
    found = {order[1]["job"]: order[1] for order in orders if order[0] == "launch"}
    assert [order.get("slots") for order in found.values()] == [[["0", ""], ["1", ""]], None]
    assert plain in found


def test_hosts_join_and_leave_a_graph(rig: Rig) -> None:
    new = decide_hosts.Newcomer("late", 7, 1, 512, ("fast",), "spool", "b")
    decision, rank = decide_hosts.join(rig.journal.load(), new, rig.now)
    rig.do(decision)
    rig.turn()
    place = rig.state.graph.places
    assert (rank, place["/cluster0/late/core"].ids, place["/cluster0/late/memory"].size) == (4, 7, 512)
    assert rig.state.graph.nodes()[4] == ("late", place["/cluster0/late"].at, 7, 1, 512)
    assert decide_hosts.join(rig.state, new, rig.now)[0].events == []
    less = new._replace(cores=3)
    rig.do(decide_hosts.join(rig.journal.load(), less, rig.now)[0])
    rig.turn()
    assert rig.state.graph.places["/cluster0/late/core"].ids == 3
    rig.do(decide_hosts.leave(rig.journal.load(), 4, rig.now))
    rig.turn()
    assert (sorted(rig.state.nodes), "/cluster0/late" in rig.state.graph.places) == ([0, 1, 2, 3], False)
    same_everywhere(rig)


def test_a_host_with_other_cores_keeps_its_place_and_what_else_it_has() -> None:
    """Sockets of two cores each; one core is gone, two are new; then it has another name, and a GPU."""
    small = compact(tree(racks=2, nodes=1, sockets=2, cores=2))
    graph = to_record(small)
    before = graph.places
    inside = "/cluster0/rack0/node0"
    changed = with_record(graph, 0, NodeRecord(0, "node0", 0b110111 & ~0b10, 0, 0, ()))
    after = changed.places
    assert {path: (place.size, place.ids) for path, place in after.items() if "core" in path and path.startswith(inside)} == {
        f"{inside}/socket0/core": (1, 1), f"{inside}/socket1/core": (1, 4), f"{inside}/core": (2, 0b110000),
    }  # fmt: skip
    assert {path for path in before if "core" not in path} == {path for path in after if "core" not in path}
    assert after["/cluster0/rack1/node1/socket0/core"].ids == before["/cluster0/rack1/node1/socket0/core"].ids
    again = with_record(changed, 0, NodeRecord(0, "other", 0b110101 | 1 << 7, 1, 0, ()))
    assert again.places["/cluster0/rack0/other/core"].ids == 0b10110000
    assert again.places["/cluster0/rack0/other/gpu"].ids == 1
    assert "/cluster0/rack0/other/socket1/memory" in again.places
    assert again.nodes()[0][2:4] == (0b10110101, 1)
    less = with_record(again, 0, NodeRecord(0, "other", 1, 0, 0, ()))
    assert less.nodes()[0][2:4] == (1, 0)
    assert "/cluster0/rack0/other/socket1" in less.places


def test_requests_that_no_graph_can_meet_end_with_a_reason(rig: Rig) -> None:
    for spec in (powered(11), wanting(vertex("chassis", 1, slot()))):
        id = rig.submit(spec)
        assert (rig.job(id).state, rig.job(id).result) == (INACTIVE, Result.FAILED)
        assert rig.job(id).exception[1]


def test_housekeeping_keeps_what_was_drawn() -> None:
    rig = Rig(4, tree=racks(), config={"job-manager": {"housekeeping": {"command": ["h"]}}})
    first = rig.submit(powered(8))
    end(rig, first)
    assert rig.state.drawn == {POWER: [8, 0]}
    second = rig.submit(powered(8))
    assert rig.job(second).ranks == [2]
    rig.report(0, script=[[first, rig.job(first).attempt, "h", rig.now, rig.now, 0, ""]])
    rig.turn()
    assert POWER not in rig.state.drawn
    same_everywhere(rig)


# -- changes of the graph ------------------------------------------------------------------------------------------


def change(rig: Rig, decide: Any) -> list[str]:
    decision, words = decide(rig.journal.load())
    if decision.events:
        rig.do(decision)
    rig.turn()
    return list(words)


def test_properties_set_at_run_time_are_seen_at_once(rig: Rig) -> None:
    spec = jobspec()
    spec["attributes"]["system"]["constraints"] = {"properties": ["ssd"]}
    assert rig.job(rig.submit(spec)).state == INACTIVE
    words = change(rig, lambda s: decide_graph.properties(s, [], [3], {"ssd": ""}, (), rig.now))
    assert words == ["changed n3 (rank 3)"]
    id = rig.submit(spec)
    assert rig.job(id).ranks == [3]
    assert rig.state.graph.columns.properties[rig.state.graph.nodes()[3].at] == {"ssd": ""}
    change(rig, lambda s: decide_graph.properties(s, ["/cluster0/rack1/n3"], [], {}, ("ssd",), rig.now))
    assert rig.state.nodes[3].properties == ()
    same_everywhere(rig)
    for name, target in (("a|b", [3]), ("+a", [3])):
        with pytest.raises(Rejected, match=r"property|queue"):
            decide_graph.properties(rig.state, [], target, {name: ""}, (), rig.now)


def test_a_queue_may_ask_for_what_racks_have() -> None:
    config = {"queues": {"even": {"requires": ["even"]}, "one": {"requires": ["one"]}, "below": {"parent": "even"}, "all": {}},
              "policy": {"jobspec": {"defaults": {"system": {"queue": "all"}}}}}  # fmt: skip
    rig = Rig(4, config=config, tree=racks())
    change(rig, lambda s: decide_graph.properties(s, [], [1], {"one": ""}, (), rig.now))
    change(rig, lambda s: decide_graph.properties(s, ["/cluster0/rack1"], [], {"even": ""}, (), rig.now))
    state = rig.journal.at()
    assert nodes_of_queues(rig.state) == nodes_of_queues(state)
    assert nodes_of_queues(state) == {"even": {2, 3}, "one": {1}, "below": {2, 3}, "all": {0, 1, 2, 3}}
    assert [node.rank for node in chosen(state, None, "even")] == [2, 3]
    rows = list_rows(state, chosen(state, None, None), ["all"], {"queue"})
    assert {row.queues: [part.node.rank for part in row.parts] for row in rows} == {
        ("all",): [0], ("one", "all"): [1], ("even", "below", "all"): [2, 3]
    }  # fmt: skip


def test_sub_graphs_come_and_go_and_what_is_in_use_stays(rig: Rig) -> None:
    more = racks(3)
    records = tuple(NodeRecord(rank, f"n{rank}", 3, 0, 0, ()) for rank in range(6))
    inventory = ResourceSet(records, tree=to_record(more).wire)
    words = change(rig, lambda s: decide_graph.attach(s, inventory, "", rig.now))
    assert words == ["added n[4-5] (ranks 4-5)", "12 vertices more"]
    assert rig.state.graph.places["/cluster0/rack2/n5/core"].node == 5
    assert change(rig, lambda s: decide_graph.attach(s, inventory, "", rig.now)) == []
    rig.hello(4)
    rig.hello(5)
    rig.turn()
    busy = rig.submit(wanting(vertex("rack", 1, vertex("power", 1), vertex("node", 1, slot(vertex("core", 2))))))
    assert rig.job(busy).ranks == [0]
    for path in ("/cluster0/rack0", "/cluster0/rack0/n0", POWER):
        with pytest.raises(Rejected, match="refused") as caught:
            decide_graph.remove(rig.state, [path], rig.now)
        assert caught.value.code == "in-use"
    with pytest.raises(Rejected, match="root"):
        decide_graph.remove(rig.state, ["/cluster0"], rig.now)
    assert change(rig, lambda s: decide_graph.remove(s, ["/cluster0/rack2", "/cluster0/rack1/n3"], rig.now))[0] == (
        "removed n[3-5] (ranks 3-5)"
    )
    assert sorted(rig.state.nodes) == [0, 1, 2]
    same_everywhere(rig)
    old = rig.journal.at(rig.job(busy).commits[0])
    assert len(old.graph.nodes()) == 6


def test_graph_and_inventory_agree_whichever_edit_is_lost(rig: Rig) -> None:
    """With the branch it was on, or since nobody can read it: an edit that has no ground is passed over with its R, and a reload
    mends what is missing."""
    rig.server.remember = 1000
    records = tuple(NodeRecord(rank, f"n{rank}", 3, 0, 0, ()) for rank in range(6))
    whole = ResourceSet(records, tree=to_record(racks(3)).wire)
    before = rig.store.meta().version
    change(rig, lambda s: decide_graph.attach(s, whole, "", rig.now))
    edits = rig.store.meta().version
    change(rig, lambda s: decide_graph.properties(s, [], [5], {"ssd": ""}, (), rig.now))
    change(rig, lambda s: decide_graph.properties(s, [], [0], {"old": ""}, (), rig.now))
    for lost in range(before + 1, edits + 1):  # its entry is set aside
        state = State()
        for commit in rig.commits():
            state.apply(commit._replace(events=[]) if commit.version == lost else commit)
        assert fitting(state.graph, parse_R(state.R)).places.keys() == racks_of(2)
        assert sorted(state.nodes) == [0, 1, 2, 3]
        assert "resource reload" in passed_over(state)[1], "which status and doctor say"
        mended, _ = reload(state, whole, rig.now)
        last = rig.commits()[-1]
        state.apply(last._replace(version=last.version + 1, events=mended.events))
        assert sorted(fitting(state.graph, parse_R(state.R)).nodes()) == sorted(state.nodes) == [0, 1, 2, 3, 4, 5]
    tip = rig.store.meta().version
    rig.server.fail_over(tip - before)
    forks.adopt(rig.store, (before + 1, tip), rig.now, "test")
    rig.worker = rig.new_worker()
    rig.lead()
    assert fitting(rig.state.graph, parse_R(rig.state.R)).places.keys() == racks_of(2)
    change(rig, lambda s: decide_graph.attach(s, whole, "", rig.now))
    assert sorted(rig.state.nodes) == [0, 1, 2, 3, 4, 5]
    same_everywhere(rig)


def racks_of(count: int) -> Any:
    """Paths of a graph of so many racks."""
    return from_wire(to_record(racks(count)).wire).places.keys()


def test_a_part_of_a_node_goes_and_comes(rig: Rig) -> None:
    inventory = ResourceSet((NodeRecord(0, "n0", 3, 0, 0, ()),), tree=to_record(racks(1, 1)).wire)
    assert change(rig, lambda s: decide_graph.remove(s, ["/cluster0/rack0/n0/nvme"], rig.now)) == ["2 vertices fewer"]
    assert change(rig, lambda s: decide_graph.remove(s, ["/cluster0/rack0/n0/core"], rig.now))[0] == "changed n0 (rank 0)"
    assert rig.state.nodes[0].cores == 0
    assert rig.job(rig.submit(jobspec(cores=2))).ranks == [1]
    assert change(rig, lambda s: decide_graph.attach(s, inventory, "", rig.now))[0] == "changed n0 (rank 0)"
    assert rig.state.nodes[0].cores == 3
    assert rig.job(rig.submit(jobspec(cores=2))).ranks == [0]
    with pytest.raises(Rejected, match="without cores 0-1, in use now"):
        decide_graph.remove(rig.state, ["/cluster0/rack0/n0/core"], rig.now)
    same_everywhere(rig)


def test_an_event_has_what_changes_and_folds_to_what_the_whole_would(rig: Rig) -> None:
    """Of each kind of change: no graph in the event, and at each version the state is that of events with whole graphs."""
    more = to_record(racks(3)).wire
    new = ResourceSet(tuple(NodeRecord(rank, f"n{rank}", 3, 0, 0, ()) for rank in range(6)), tree=more)
    changes = [
        lambda s: decide_graph.attach(s, new, "", rig.now),
        lambda s: decide_graph.status(s, ["/cluster0/rack1", "/switch0"], up=False, now=rig.now),
        lambda s: decide_graph.properties(s, [POWER], [2, 5], {"ssd": "", "row": "7"}, (), rig.now),
        lambda s: decide_graph.remove(s, ["/cluster0/rack2/n4/nvme", "/cluster0/rack1/n3"], rig.now),
        lambda s: decide_graph.status(s, ["/switch0"], up=True, now=rig.now),
        lambda s: decide_graph.properties(s, ["/cluster0/rack0/n1"], [], {}, ("ssd",), rig.now),
        lambda s: decide_graph.properties(s, [], [2], {}, ("ssd",), rig.now),
    ]
    for number, one in enumerate(changes):
        words = change(rig, one)
        assert bool(words) != (number == 5), "nobody had that"
    state, old, edits = State(), State(), 0
    for commit in rig.commits():
        state.apply(commit)
        events = []
        for name, subject, time, context in commit.events:
            if name == "resource-define" and "edit" in context:
                edits += 1
                assert "tree" not in context["R"]["scheduling"]
                assert describe(Event(name, subject, time, context), {}).startswith(f"{context['method']} ")
                scheduling = {**context["R"]["scheduling"], "tree": state.graph.wire}
                context = {"method": context["method"], "R": {**context["R"], "scheduling": scheduling}}
            events.append([name, subject, time, context])
        old.apply(commit._replace(events=events))
        assert old.subjects() == state.subjects()
        assert old.graph is None or old.graph.raw == state.graph.raw
    assert (edits, state.skipped, old.skipped) == (6, 0, 0)
    same_everywhere(rig)


def test_a_change_of_a_large_graph_is_a_small_event() -> None:
    tree = to_record(racks(racks=16, nodes=16)).wire
    inventory = ResourceSet(tuple(NodeRecord(rank, f"n{rank}", 3, 0, 0, ()) for rank in range(256)), tree=tree)
    define = {"method": "configuration", "R": render_set(inventory)}
    state = State()
    state.apply(Commit(1, 5, "p", 1, 0, 1.0, [["resource-define", "resource", 1.0, define]], {}))
    decision, _ = decide_graph.status(state, ["/cluster0/rack7"], up=False, now=2.0)
    assert len(pack(decision.events)) < 500 < len(pack(define)) / 10


@pytest.mark.parametrize(
    "edit",
    [
        None, 5, {}, {"status": {}}, {"paint": {}}, {"status": {"paths": ["/cluster0"], "up": 1}},
        {"status": {"paths": ["/nowhere"], "up": True}}, {"status": {"paths": "/cluster0", "up": True}},
        {"status": {"paths": [5], "up": True}}, {"remove": {"paths": ["/cluster0"]}}, {"remove": {"paths": ["/cluster0/rack0"]}},
        {"attach": {"tree": {}, "under": "/cluster0", "ranks": []}}, {"attach": {"tree": 5, "under": "/cluster0", "ranks": []}},
        {"property": {"paths": [], "ranks": "9", "set": {}, "unset": []}},
        {"property": {"paths": [], "ranks": "0", "set": {"a": 5}, "unset": []}},
        {"status": {"paths": [], "up": True}, "remove": {"paths": []}},
    ],
)  # fmt: skip
def test_an_edit_that_makes_no_sense_is_skipped(rig: Rig, edit: Any) -> None:
    before, R = rig.state.digest(), {**rig.state.R}
    event = ["resource-define", "resource", rig.now, {"method": "x", "R": R, "edit": edit}]
    for changed in (event, [*event[:3], {**event[3], "R": {**R, "scheduling": {"tree": to_record(racks()).wire}}}]):
        rig.say(changed)
    rig.turn()
    assert rig.state.skipped == 2
    assert rig.state.digest() == before
    assert len(rig.state.nodes) == 4


def test_views_show_what_is_drawn(rig: Rig) -> None:
    first = rig.submit(powered(8))
    held, marks = use_of(rig.state, rig.state.graph)
    place = rig.state.graph.places
    assert held[place[POWER].at] == (8, {first}, 0)
    assert held[place["/cluster0/rack0/n0/core"].at] == (1, {first}, 1)
    assert place["/cluster0/rack0/n0/nvme"].at not in held
    assert marks == {}
    R = views.job_R(rig.state, rig.job(first))
    assert [one["metadata"]["name"] for one in R.scheduling["graph"]["nodes"]] == [
        "cluster0", "switch0", "rack0", "power0", "n0", "core0",
    ]  # fmt: skip
    again = resource_files.from_R(views.inventory_R(rig.state))
    assert from_wire(again.tree).raw == rig.state.graph.raw


def test_what_is_down_is_not_used(rig: Rig) -> None:
    words = change(rig, lambda s: decide_graph.status(s, ["/cluster0/rack0"], up=False, now=rig.now))
    assert words == ["/cluster0/rack0 is set down"]
    head, chunks = snapshot.dump(rig.journal.at())
    for state in (rig.state, rig.journal.look(), snapshot.load(snapshot.read_head(head), chunks)):
        assert [node.usable for node in state.nodes.values()] == [False, False, True, True]
    assert [node.state for node in rig.state.nodes.values()] == ["down", "down", "free", "free"]
    assert out_of_use(rig.state.nodes[0], rig.now).startswith("down: it was set so in the graph")
    rows = status_rows(list(rig.state.nodes.values()), list(STATUS_DEFAULT), False, set())
    assert [(row.state, row.online, row.ranks) for row in rows] == [("avail", True, "2-3"), ("down", True, "0-1")]
    assert rig.job(rig.submit(powered(1))).ranks == [2]
    change(rig, lambda s: decide_graph.status(s, ["/cluster0/rack0"], up=True, now=rig.now))
    assert rig.job(rig.submit(powered(1))).ranks == [0]
    same_everywhere(rig)


def test_without_a_graph_nothing_of_it_can_be_asked() -> None:
    rig = Rig(2)
    for ask in (
        lambda s: decide_graph.remove(s, ["/cluster0/n0"], rig.now),
        lambda s: decide_graph.status(s, ["/cluster0/n0"], up=False, now=rig.now),
        lambda s: decide_graph.attach(s, ResourceSet(()), "", rig.now),
        lambda s: decide_graph.properties(s, ["/cluster0/n0"], [], {"a": ""}, (), rig.now),
    ):
        with pytest.raises(Rejected, match="no graph of resources"):
            ask(rig.state)
    change(rig, lambda s: decide_graph.properties(s, [], [1], {"big": "yes"}, (), rig.now))
    assert rig.state.nodes[1].properties == ("big",)


def test_a_child_has_what_its_job_was_given() -> None:
    rig = Rig(4, tree=racks())
    share("parent-with-a-graph", rig.server)
    end(rig, rig.submit(wanting(vertex("node", 1, slot()))))
    other = rig.submit(wanting(vertex("node", 1, slot(vertex("core", 2)))))
    id = rig.submit(wanting(vertex("rack", 1, vertex("power", 3), vertex("node", 1, slot(vertex("core", 1), vertex("nvme", 1))))))
    assert (rig.job(other).ranks, rig.job(id).ranks) == ([0], [1])
    here = child.Place("memory:parent-with-a-graph", id, rig.job(id).attempt, 0, 1, 0, "", 1, rig.job(id).attempt_id)
    document = child.make_settings(here, {})["R"]
    state = State()
    state.apply(Commit(1, 5, "p", 1, 0, 1.0, [["resource-define", "resource", 1.0, {"method": "job-info", "R": document}]], {}))
    assert state.graph is not None
    found = {path: (place.size, place.ids, place.node) for path, place in state.graph.places.items()}
    assert found == {
        "/cluster0": (1, 0, -1), "/cluster0/rack0": (1, 0, -1), POWER: (3, 0, -1), "/cluster0/rack0/n1": (1, 0, 0),
        "/cluster0/rack0/n1/core": (1, 1, 0), "/cluster0/rack0/n1/nvme": (1, 1, 0), "/switch0": (0, 0, -1),
    }  # fmt: skip


def test_a_matcher_that_fails_on_a_request_ends_that_job_and_no_worker(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(pool: GraphPool, request: Request, stocks: Stocks, among: int, all_up: bool = False) -> Unmatched | None:
        if request.flat is None:
            raise RecursionError("too deep")
        return Pool.fits(pool, request, stocks, among, all_up)

    monkeypatch.setattr(GraphPool, "fits", fails, raising=False)
    odd, plain = rig.submit(whole_rack()), rig.submit(jobspec())
    assert (rig.job(odd).state, rig.job(plain).state) == (INACTIVE, RUN)
    assert "the matcher failed with RecursionError: too deep" in str(rig.job(odd).exception)
