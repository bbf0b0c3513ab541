"""How long it takes to look: commands that list and show jobs, beside many active and very many finished ones."""

from __future__ import annotations

import os
import resource
import signal
import time

from bench_jobs import EMPTY, WAIT_S
from bench_latency import whole
from rig import PROGRAM, Figure, figure, instance

import fluxkv


def readers(active: int, finished: int, repeats: int) -> list[Figure]:
    """`finished` jobs that only pretended to run, most of them retired by now, and `active` ones that wait."""
    with instance("--fake", "-s", "4", "--cores", "64") as rig, fluxkv.connect(rig.uri) as client:
        ids = client.submit_many([["true"]] * finished, attributes=EMPTY)
        for _ in client.as_ended(ids[-1:], WAIT_S):
            pass
        client.wait(ids[-2000:], WAIT_S)
        client.submit_many([["sleep", "60"]] * active, urgency=0)
        settled(client, active)
        text = f"{active:,} active, {finished:,} finished"
        env, oldest = rig.environment(), fluxkv_id(ids[0])

        def timed(words: list[str], budget: float | None = None, note: str = "") -> Figure:
            before = children_ms()
            each = whole([PROGRAM, *words], env, repeats)
            spent = (children_ms() - before) / (repeats + 2)
            note = "; ".join(part for part in (note, f"{spent:.0f} ms of processor time") if part)
            return figure(f"{text}: fluxkv {' '.join(words)}", each, "ms", budget, note=note)

        found = [
            timed(["jobs"], 300, "1,000 lines, the default"),
            timed(["jobs", "-c", "0"], note=f"{active:,} lines"),
            timed(["jobs", "-a", "-f", "inactive"], 300, "the latest 1,000"),
            timed(["jobs", "-a", "-f", "failed"], note="reads every finished job"),
            timed(["jobs", "--stats-only"], 300),
            timed(["jobs", oldest], 300, "the oldest, retired"),
            timed(["job", "status", oldest], 300),
            timed(["job", "eventlog", oldest], 300),
            timed(["job", "last"], 300),
        ]
        worker = rig.pids()["worker-0"]
        os.kill(worker, signal.SIGSTOP)  # nobody takes a snapshot
        try:
            client.submit_many([["sleep", "60"]] * active, urgency=0)
            found.append(timed(["jobs", "--name", "sleep"], 300, f"{active:,} submissions after the last snapshot"))
        finally:
            os.kill(worker, signal.SIGCONT)
        return found


def children_ms() -> float:
    """Processor time of the commands run so far, ms: what it is on a busy machine, too."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


def settled(client: fluxkv.Instance, active: int) -> None:
    """Wait until the worker has taken up all jobs, and had the time for a snapshot."""
    deadline = time.monotonic() + WAIT_S
    while client.state().counts.get(8, 0) < active:
        if time.monotonic() > deadline:
            raise RuntimeError("the worker does not take the jobs up")
        time.sleep(0.2)
    time.sleep(1.5)


def fluxkv_id(id: int) -> str:
    """A job's id as it is printed."""
    from fluxkv.journal.ids import f58

    return f58(id)
