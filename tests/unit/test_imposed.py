"""Jobs that name the resources they get (`alloc-bypass`): they wait for exactly these, or are refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest
from trees import racks, vertex
from worker_rig import Rig, jobspec

from fluxkv.instances.explaining import why
from fluxkv.instances.views import job_R
from fluxkv.journal import decide
from fluxkv.journal.claims import Claim, Draw
from fluxkv.journal.job import INACTIVE, RUN, SCHED
from fluxkv.journal.jobspec_check import check
from fluxkv.journal.rset import NodeRecord, ResourceSet, render_set
from fluxkv.kvs.errors import Rejected


def R_of(*nodes: tuple[int, int]) -> dict[str, Any]:
    """R of (rank, mask of cores)."""
    return render_set(ResourceSet(tuple(NodeRecord(rank, f"n{rank}", cores, 0, 0, ()) for rank, cores in nodes)))


def named(R: Any, slots: int = 1, **more: Any) -> dict[str, Any]:
    spec = jobspec(**more)
    spec["resources"] = [vertex("slot", slots, vertex("core"), label="t")]
    spec["attributes"]["system"]["alloc-bypass"] = {"R": R}
    check(spec)
    return spec


def test_it_gets_what_it_names_and_waits_until_that_is_free() -> None:
    rig = Rig(2)
    first = rig.submit(jobspec())
    assert rig.job(first).claims == (Claim(0, 1, 0, 0, 1),)
    waits = rig.submit(named(R_of((0, 3), (1, 2)), 3))
    behind = rig.submit(jobspec())
    assert (rig.job(waits).state, rig.job(behind).state) == (SCHED, SCHED)  # it stands in line like any other
    told = why(rig.state, rig.job(waits), rig.now)
    assert told.reason.text == "its R names cores 0-1 of n0, of which 0 are not free"
    assert [holder.job for holder in told.holders] == [first]
    rig.started(first)
    rig.over(first)
    rig.turn()
    assert rig.job(waits).claims == (Claim(0, 3, 0, 0, 2), Claim(1, 2, 0, 0, 1))
    assert (rig.job(waits).state, rig.job(waits).ntasks) == (RUN, 3)
    assert rig.job(behind).claims == (Claim(1, 1, 0, 0, 1),)


@pytest.mark.parametrize(
    ("R", "slots", "why"),
    [
        (R_of((0, 8)), 1, "n0 has no core 3, which its R names"),
        (R_of((0, 1), (7, 1)), 1, "rank 7, which its R names, is not in the inventory"),
        (R_of((0, 3)), 3, "has room for 2 slots; 3 are asked for"),
    ],
)
def test_what_is_not_there_ends_it_with_the_reason(R: dict[str, Any], slots: int, why: str) -> None:
    rig = Rig(2)
    job = rig.job(rig.submit(named(R, slots)))
    assert job.state == INACTIVE
    assert why in job.exceptions[0][2]


def test_a_queue_s_nodes_are_its_limit() -> None:
    rig = Rig(2, config={"queues": {"a": {"hosts": "n0"}}})
    inside, outside = rig.submit(named(R_of((0, 1)), queue="a")), rig.submit(named(R_of((1, 1)), queue="a"))
    assert (rig.job(inside).ranks, rig.job(outside).state) == ([0], INACTIVE)
    assert "not among the nodes" in rig.job(outside).exceptions[0][2]


def test_what_is_no_R_is_refused_at_once() -> None:
    for wrong in ({}, {"version": 2}, "R", 7, None):
        with pytest.raises(Rejected, match=r"attributes.system.alloc-bypass"):
            named(wrong)
    with pytest.raises(Rejected, match="alloc-bypass"):
        check({**jobspec(), "attributes": {"system": {"duration": 0, "alloc-bypass": []}}})


def test_the_R_of_a_job_with_power_and_nvme_is_what_another_gets() -> None:
    rig = Rig(4, tree=racks())
    spec = jobspec()
    inside = vertex("slot", 1, vertex("core"), vertex("nvme"), label="t")
    spec["resources"] = [vertex("rack", 1, vertex("power", 8), vertex("node", 2, inside))]
    model = rig.submit(spec)
    found = job_R(rig.state, rig.job(model))
    assert found is not None
    R = render_set(found)
    again = rig.submit(named(R, 2))
    assert rig.job(again).state == SCHED
    claims = rig.job(model).claims
    assert Draw("/cluster0/rack0/power0", 8) in claims[0].draws
    for id in (model, again):
        rig.started(id)
        rig.over(id)
        rig.turn()
        if id == model:
            assert rig.job(again).claims == claims
    assert rig.state.drawn == {}
    elsewhere = [_elsewhere(node) for node in R["scheduling"]["graph"]["nodes"]]
    nowhere = {**R, "scheduling": {**R["scheduling"], "graph": {"nodes": elsewhere}}}
    ended = rig.job(rig.submit(named(nowhere, 2)))
    assert "is not in the resource graph" in ended.exceptions[0][2]
    assert not rig.state.quarantine


def test_a_graph_in_R_that_makes_no_sense_harms_nobody() -> None:
    def held(**meta: Any) -> dict[str, Any]:
        return {"metadata": {"type": "nvme", "exclusive": True, "id": 0, "size": 1, "paths": {"containment": "/c/n"}, **meta}}

    rig, R = Rig(4, tree=racks()), R_of((0, 1))
    for nodes in (
        7, [7], [{}], [{"metadata": 7}], [held(id=10**15)], [held(id="x")], [held(size=10**18)], [held(paths={"containment": 7})],
        [held(paths=7)], [held(size=0)], [held(paths={"containment": "/cluster0/rack0/n0/nvme"}, id=10**15, size=3)],
    ):  # fmt: skip
        R["scheduling"] = {"writer": "fluxkv:jgf", "graph": {"nodes": nodes}}
        job = rig.job(rig.submit(named(R)))
        assert job.state in (RUN, INACTIVE, SCHED)
    assert not rig.state.quarantine


def _elsewhere(node: dict[str, Any]) -> dict[str, Any]:
    meta = node["metadata"]
    return {**node, "metadata": {**meta, "paths": {name: f"/else{path}" for name, path in meta["paths"].items()}}}


def test_a_whole_rack_is_named_as_well() -> None:
    rig = Rig(4, tree=racks())
    spec = jobspec()
    spec["resources"] = [vertex("rack", 1, vertex("node", 1, vertex("slot", 1, vertex("core"), label="t")), exclusive=True)]
    model = rig.submit(spec)
    found = job_R(rig.state, rig.job(model))
    assert found is not None
    rig.do(decide.raise_exception(rig.state, model, "cancel", 0, "", 1, rig.now))
    claims = rig.job(model).claims
    rig.turn()
    rig.started(model)
    rig.over(model)
    rig.turn()
    again = rig.job(rig.submit(named(render_set(found), 1)))
    assert [claim._replace(slots=0) for claim in again.claims] == [claim._replace(slots=0) for claim in claims]
