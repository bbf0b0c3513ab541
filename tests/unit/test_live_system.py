"""An instance's graph as `resource query` has it: what is found in it, and that it has room for what the instance has."""

from __future__ import annotations

import random
from typing import Any

import pytest
from trees import racks, vertex
from worker_rig import Rig, jobspec

from fluxkv.instances.live_system import numbered, system_of
from fluxkv.instances.plan_inputs import pool_of
from fluxkv.journal import decide
from fluxkv.journal.ids import f58
from fluxkv.kvs.errors import Rejected
from fluxkv.schedulers.request import compile_request
from fluxkv.schedulers.resources import Unmatched
from fluxkv.schedulers.tree import finding, needs
from fluxkv.schedulers.tree.system import System


def inside(*parts: dict[str, Any], nodes: int = 1, power: int = 0) -> dict[str, Any]:
    spec = jobspec()
    beside = [vertex("power", power)] if power else []
    node = vertex("node", nodes, vertex("slot", 1, *(parts or (vertex("core"),)), label="t"))
    spec["resources"] = [vertex("rack", 1, *beside, node)] if power else [node]
    spec["attributes"]["system"]["duration"] = 50.5
    return spec


def found(system: System, text: str) -> list[str]:
    test = finding.parse(system, numbered(text))
    return [one.path() for one in system.tree.vertices if test(one)]


def test_what_jobs_hold_and_will_hold_is_found() -> None:
    rig = Rig(4, tree=racks(), config={"queue": {"policy": "easy"}})
    one = rig.submit(inside(vertex("core"), vertex("nvme"), power=8))
    waits = rig.submit(inside(vertex("core", 2), nodes=4))
    rig.do(decide.drain(rig.state, [3], "fan", 0, rig.now))
    rig.turn()
    system = system_of(rig.state, rig.now)
    held = [f"/cluster0/rack0/{name}" for name in ("n0/core0", "n0/nvme0", "power0")]
    assert sorted(found(system, "sched-now=allocated")) == held
    assert sorted(found(system, f"jobid-alloc={f58(one)}")) == held
    assert found(system, f"jobid-alloc={waits}") == []
    assert found(system, "status=down") == ["/cluster0/rack1/n3"]
    assert found(system, "names=n[2-3] and status=up") == ["/cluster0/rack1/n2"]
    rig.do(decide.undrain(rig.state, [3], "", rig.now))
    rig.turn()
    system = system_of(rig.state, rig.now)
    assert system.job(waits).start == 51
    assert len(found(system, f"jobid-reserved={f58(waits)}")) == 8
    assert len(found(system, "sched-future=reserved")) == 8
    with pytest.raises(Rejected, match="bad job id"):
        numbered("jobid-tag=zz!")


@pytest.mark.parametrize("seed", range(6))
def test_there_is_room_for_what_the_instance_has_room_for(seed: int) -> None:
    """Of quantities a job of the instance leaves the rest to others; `resource query` takes them whole: there it may find less."""
    draw, rig = random.Random(seed), Rig(4, tree=racks() if seed % 2 else None)
    for _ in range(draw.randint(1, 5)):
        rig.submit(inside(vertex("core", draw.randint(1, 2)), nodes=draw.randint(1, 2)))
    system, pool = system_of(rig.state, rig.now), pool_of(rig.state)
    for nodes in range(1, 5):
        for cores in (1, 2):
            spec = inside(vertex("core", cores), nodes=nodes)
            ours = pool.match(compile_request(spec))
            theirs = system.preview(needs.compile_request(spec)).selection
            assert isinstance(ours, Unmatched) == (theirs is None), (nodes, cores)
