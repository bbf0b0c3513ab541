"""What would become of jobs that nobody submits: what then becomes of the same jobs when they are."""

from __future__ import annotations

import random
from typing import Any

import pytest
from trees import racks, vertex
from worker_rig import Rig, jobspec

from fluxkv.instances.supposing import could_run, fates, fits_now
from fluxkv.journal import decide
from fluxkv.journal.job import RUN, SCHED


def slots(n: int, cores: int = 1, duration: float = 60.0, queue: str = "") -> dict[str, Any]:
    spec = jobspec(queue=queue)
    spec["resources"] = [vertex("slot", n, vertex("core", cores), label="t")]
    spec["attributes"]["system"]["duration"] = duration
    return spec


@pytest.mark.parametrize("seed", range(10))
def test_what_is_foretold_is_what_happens(seed: int) -> None:
    draw, rig = random.Random(seed), Rig(4)
    for _ in range(draw.randint(0, 4)):
        rig.submit(slots(draw.randint(1, 3), draw.randint(1, 2)))
    asked = [slots(draw.randint(1, 5), draw.randint(1, 2), draw.choice((30.0, 90.0))) for _ in range(3)]
    waiting = rig.state.count(SCHED)
    told = fates(rig.journal.load(), asked, 1, rig.now)
    jobs = [rig.job(rig.submit(spec)) for spec in asked]
    for fate, job in zip(told, jobs, strict=True):
        assert (fate.start == rig.now and fate.claims == job.claims) == (job.state == RUN), (fate, job.claims)
        if job.state == SCHED:
            assert fate.start is not None
            assert fate.start > rig.now
            assert fate.text
    later = [job for job in jobs if job.state == SCHED]
    if later and not waiting:  # and then its turn comes, as the jobs before it are over
        rig.now = told[jobs.index(later[0])].start or rig.now
        for id in [job.id for job in rig.state.active() if job.claims]:
            if rig.job(id).expiration <= rig.now:
                rig.started(id)
                rig.over(id)
        rig.turn()
        assert later[0].state == RUN


def test_what_can_never_run_or_is_refused_says_so() -> None:
    rig = Rig(2, config={"queues": {"a": {"hosts": "n0"}, "b": {}}, "policy": {
        "jobspec": {"defaults": {"system": {"queue": "a"}}}, "limits": {"duration": "1h"}}})  # fmt: skip
    rig.do(decide.change_queue("b", "disable", "closed for now", rig.now))
    rig.turn()
    asked = [slots(3), slots(1, duration=4000.0), slots(1, queue="c"), slots(1, queue="b"), slots(2)]
    told = [(fate.possible, fate.code) for fate in fates(rig.journal.load(), asked, 1, rig.now)]
    refused = (False, "refused")
    assert told == [(False, "unsatisfiable"), refused, refused, refused, (True, "ready")]
    assert [fate.possible for fate in could_run(rig.journal.load(), asked, 1, rig.now)] == [False] * 4 + [True]


def test_now_is_what_nobody_holds_whoever_waits() -> None:
    rig = Rig(2)
    rig.submit(slots(3))
    waits = rig.submit(slots(2, 2))
    assert rig.job(waits).state == SCHED
    one, two, three = fits_now(rig.journal.load(), [slots(1), slots(1), slots(2, 2)], 1, rig.now)
    assert [(claim.rank, claim.cores) for claim in one.claims] == [(1, 2)]
    assert (two.claims, two.text) == ((), "needs 1 core on one node; none is free")
    assert (three.claims, three.possible) == ((), True)
    assert fates(rig.journal.load(), [slots(1)], 1, rig.now)[0].start == rig.now + 120  # behind who waits


def test_nested_requests_on_a_graph() -> None:
    rig = Rig(4, tree=racks())
    spec = jobspec()
    inside = vertex("node", 1, vertex("slot", 1, vertex("core"), label="t"))
    spec["resources"] = [vertex("rack", 1, vertex("power", 6), inside)]
    spec["attributes"]["system"]["duration"] = 60.0
    told = fates(rig.journal.load(), [spec] * 3, 1, rig.now)
    assert [fate.start - rig.now if fate.start else None for fate in told] == [0, 0, 60]
    assert [draw.vertex for fate in told for claim in fate.claims for draw in claim.draws] == [
        "/cluster0/rack0/power0", "/cluster0/rack1/power0", "/cluster0/rack0/power0",
    ]  # fmt: skip
