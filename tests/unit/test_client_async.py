"""The client in an event loop: results and events as they come, over few connections; and what it hands out is frozen."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import subprocess
import sys
import time
from typing import Any

import pytest
from client_rig import again, life, play

import fluxkv
from fluxkv.instances import aio
from fluxkv.instances.client import Instance
from fluxkv.journal import decide
from fluxkv.journal.log import Journal
from fluxkv.journal.rset import parse_R, render_set
from fluxkv.kvs.errors import Rejected, Unavailable

PATIENCE_S = 20.0


def connections(instance: Instance) -> int:
    """How many the server has."""
    store: Any = instance.store
    return len(store._ask("CLIENT", "LIST").splitlines())


async def connected(instance: Instance) -> None:
    """Until whoever awaits something has its subscription, which comes with a later turn of the loop."""
    while not any(hub._hub.connected for hub in aio._hubs.values()):
        await asyncio.sleep(0)


def test_many_jobs_are_awaited_over_one_subscription(instance: Instance) -> None:
    async def main() -> None:
        jobs = [instance.submit(["true"]) for _ in range(40)]
        before = connections(instance)
        tasks = [asyncio.create_task(job.wait_async(PATIENCE_S)) for job in jobs]
        await connected(instance)
        assert connections(instance) == before + 1
        play(instance, [event for job in jobs[:20] for event in life(job.id, 256)])
        results = await asyncio.gather(*tasks[:20])
        assert [(result.id, result.returncode) for result in results] == [(job.id, 1) for job in jobs[:20]]
        late = asyncio.create_task(jobs[0].wait_async())  # it has ended: what the subscription has passed is read again
        assert (await late).returncode == 1
        play(instance, [event for job in jobs[20:] for event in life(job.id)])
        assert {result.ok for result in await asyncio.gather(*tasks[20:])} == {True}
        await asyncio.sleep(0)
        assert not aio._hubs
        deadline = time.monotonic() + PATIENCE_S
        while connections(instance) != before:  # the server sees the end of one a moment later
            assert time.monotonic() < deadline
        with again(instance) as other:  # from a fold
            assert (await fluxkv.JobHandle(other, jobs[3].id).wait_async()).returncode == 1
            with pytest.raises(Rejected, match="no such job"):
                await fluxkv.JobHandle(other, 77).wait_async()

    asyncio.run(main())


def test_results_come_as_jobs_end(instance: Instance) -> None:
    async def main() -> list[int]:
        ids = instance.submit_many([["true"]] * 3)
        play(instance, life(ids[2]))
        found = []
        async for result in instance.as_ended_async([*ids, ids[0]], PATIENCE_S):
            found.append(ids.index(result.id))
            if len(found) == 1:
                play(instance, [*life(ids[1]), *life(ids[0])])
        return found

    assert asyncio.run(main()) == [2, 1, 0]


def test_waiting_ends_in_time_or_when_it_is_cancelled(instance: Instance) -> None:
    async def main() -> None:
        job = instance.submit(["true"])
        with pytest.raises(Unavailable, match="timed out"):
            await job.wait_async(0.02)
        with pytest.raises(Unavailable, match="timed out: 1 job still active"):
            async for _ in instance.as_ended_async(job, 0.02):
                pass
        with pytest.raises(Unavailable, match="no more events"):
            async for _ in instance.events_async(job, timeout=0.02):
                pass
        task = asyncio.create_task(job.wait_async())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert not aio._hubs

    asyncio.run(main())


def test_events_for_async_for(instance: Instance) -> None:
    job = instance.submit(["true"])

    async def watch(names: list[str]) -> None:
        async for event in instance.events_async(job, timeout=PATIENCE_S):
            names.append(event.name)

    async def main() -> None:
        names: list[str] = []
        task = asyncio.create_task(watch(names))
        play(instance, life(job.id)[:4])
        while "alloc" not in names:
            await asyncio.sleep(0)
        play(instance, life(job.id)[4:])
        await task
        assert names == [event.name for event in job.events()]
        assert names[-1] == "clean"
        every = [event.name async for event in instance.events_async(follow=False)]
        assert every[:2] == ["instance-create", "resource-define"]

    asyncio.run(main())


def test_a_history_that_is_gone_is_told_to_all_who_wait(instance: Instance) -> None:
    async def main() -> None:
        job = instance.submit(["true"])
        tasks = [asyncio.create_task(job.wait_async()) for _ in range(2)]
        await connected(instance)
        store: Any = instance.store
        store._ask("HSET", store.keys.meta, "uid", "another")
        for task in tasks:
            with pytest.raises(Rejected, match="not the one it was"):
                await task

    asyncio.run(main())


def test_resources_by_condition_are_sets(instance: Instance) -> None:
    ids = instance.submit_many([["true"]] * 2)
    claims = [[0, "1-2", "", 0, 1]]
    t = time.time()
    play(instance, [["resource-define", "resource", t, {"method": "x", "R": {"version": 1, "execution": {
        "R_lite": [{"rank": "0-3", "children": {"core": "0-3"}}], "nodelist": ["n[0-3]"], "starttime": 0, "expiration": 0,
    }}}], ["online", "resource", t, {"idset": "0-2"}]])  # fmt: skip
    hello = {"host": "n", "boot": "b", "spool": "s", "epoch": instance.store.meta().epoch, "cursor": "0-0", "held": []}
    play(instance, [["hello", f"node/{rank}", t, {"rank": rank, **hello}] for rank in range(3)])
    play(instance, [["online", "resource", t, {"idset": "0-2"}], *life(ids[0])[:3]])
    play(instance, [["alloc", ids[0], t, {"claims": claims, "expiration": 0.0}]])
    Journal(instance.store).settle(lambda state: decide.drain(state, [2], "bad fan", 0, t))
    found = instance.resources()
    assert (found.all.nnodes, found.all.ncores, found.all.ranks, found.all.nodelist) == (4, 16, "0-3", "n[0-3]")
    assert (found.up.ranks, found.down.ranks, found.drained.ranks) == ("0-1", "2-3", "2")
    assert (found.free.ncores, found.free.ranks) == (6, "0-1")
    assert (found.allocated.ncores, found.allocated.nodelist) == (2, "n0")
    assert parse_R(render_set(found.free)).ncores == 6
    views = found.nodes
    assert [view.state for view in views] == ["allocated", "free", "drained", "offline"]
    assert (views[0].free_cores, views[0].jobs, views[0].up) == (2, (ids[0],), True)
    assert (views[2].drain_reason, views[2].t_drain, views[2].up) == ("bad fan", pytest.approx(t), False)
    held = instance.job_R(ids[0])
    assert held is not None
    assert (held.ranks, held.ncores, held.nslots) == ("0", 2, 1)
    assert instance.job_R(ids[1]) is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.nodes[0].rank = 3  # type: ignore[misc]


def test_queues_are_values(instance: Instance) -> None:
    Journal(instance.store).settle(lambda _: decide.change_queue("default", "stop", "lunch", time.time()))
    (queue,) = instance.queues()
    assert (queue.name, queue.enabled, queue.started, queue.stop_reason) == ("default", True, False, "lunch")


def test_handles_travel_and_tell_their_output(instance: Instance) -> None:
    job = instance.submit(["true"])
    there = pickle.loads(pickle.dumps(job))
    play(instance, life(job.id))
    assert there.wait(PATIENCE_S).ok
    assert there.output() == (b"", b"")
    there.instance.close()
    with pytest.raises(TypeError, match="without a URI"):
        pickle.dumps(Instance(instance.store))


def test_importing_is_light() -> None:
    """`import fluxkv` gives names and loads nothing; the synchronous client and the executor need no asyncio."""
    code = (
        "import sys, fluxkv; few = len([m for m in sys.modules if m.startswith('fluxkv')]); fluxkv.connect; fluxkv.Executor;"
        "print(few, 'asyncio' in sys.modules, 'redis' in sys.modules, 'networkx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["1", "False", "False", "False"]
