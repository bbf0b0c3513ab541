"""Very many jobs that wait, and very many who wait for them: what that costs, measured on a real instance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from chaos import Follower
from live import PATIENCE_S, Site, rss_kib

from fluxkv.instances.client import connect
from fluxkv.instances.handle import JobHandle
from fluxkv.journal.job import INACTIVE, SCHED


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.monotonic()
    found = call()
    return time.monotonic() - began, found


def waiting_jobs(site: Site, count: int, patience_s: float = PATIENCE_S) -> dict[str, float]:
    """Submit, list, take over, cancel: seconds each, and the worker's memory in MiB, with so many active jobs."""
    figures: dict[str, float] = {}
    holder = site.submit("exec sleep 100000", cores_per_task=2)
    site.running(holder)
    figures["submit, all acknowledged"], ids = timed(lambda: site.submit_many([["true"]] * count))
    assert len(ids) == count
    figures["all lined up"], _ = timed(lambda: site.until(lambda s: s.count(SCHED) >= count, "all lined up", patience_s))
    figures["worker, MiB"] = rss_kib(site.pid("worker-0")) / 1024
    figures["fluxkv submit"], done = timed(lambda: site.run("submit", "true", timeout=patience_s))
    assert done.returncode == 0, done.stderr
    figures["fluxkv jobs -c 20"], done = timed(lambda: site.run("jobs", "-c", "20", timeout=patience_s))
    assert len(done.stdout.splitlines()) == 21, done
    figures["take-over of the worker"] = take_over(site, patience_s)
    figures["new worker, MiB"] = rss_kib(site.pid("worker-0")) / 1024
    figures["cancel of all"], done = timed(lambda: site.run("cancel", "--all", "--states=pending", timeout=patience_s))
    assert done.returncode == 0, done.stderr
    figures["all ended"], _ = timed(lambda: site.until(lambda s: s.count(SCHED) == 0, "all ended", patience_s))
    site.client.cancel([holder])
    site.until(lambda s: s.jobs[holder].state == INACTIVE, "the last one ended", patience_s)
    return figures


def take_over(site: Site, patience_s: float = PATIENCE_S) -> float:
    """kill -9 of the worker; seconds until the next one has decided something."""
    follower = Follower(site.uri)
    try:
        follower.look()
        site.kill("worker-0")
        began, tip = time.time(), follower.state.version
        site.submit("true")  # it has something to say about this one
        follower.until(lambda: by_worker(follower, tip), "a commit of the new worker", _fail, patience_s)
        return by_worker(follower, tip) - began
    finally:
        follower.store.close()


def by_worker(follower: Follower, after: int) -> float:
    return next((at for version, whose, at, _ in follower.commits if version > after and whose == "worker-0"), 0.0)


def _fail(what: str) -> None:
    raise AssertionError(what)


def waiters(site: Site, count: int, patience_s: float = PATIENCE_S) -> dict[str, float]:
    """So many tasks of one event loop, each of which waits for a job that another process submitted; all see its end.

    Clients connected before and while they wait; how long until all knew, and what the waiting process paid for each.
    """
    figures: dict[str, float] = {}
    holder = site.submit("exec sleep 100000", cores_per_task=2)
    site.running(holder)
    jobs = site.submit_many([["true"]] * count)
    figures["clients before"] = connected(site)

    async def all_of_them() -> None:
        with connect(site.uri) as instance:
            began, paid = time.monotonic(), time.process_time()
            waits = [asyncio.ensure_future(JobHandle(instance, id).wait_async(patience_s)) for id in jobs]
            await asyncio.sleep(0.0)
            await asyncio.sleep(0.0)
            figures["seconds until all waited"] = time.monotonic() - began
            figures["clients while they wait"] = connected(site)
            site.client.cancel([holder])
            results = await asyncio.gather(*waits)
            figures["seconds until all knew"] = time.monotonic() - began
            figures["ms of processor for each"] = 1000 * (time.process_time() - paid) / count
            assert all(result.ok for result in results)

    asyncio.run(all_of_them())
    return figures


def connected(site: Site) -> int:
    info = site.ask("INFO", "clients").decode()
    return int(info.partition("connected_clients:")[2].split()[0])
