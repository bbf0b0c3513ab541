"""Ensembles: real jobs in children that share a node's cores, beside a bare posix_spawn loop and beside the flat instance; what an
ensemble costs the instance whose job it is.
"""

from __future__ import annotations

import subprocess
import time
from typing import Any

from rig import PROGRAM, Figure, Meter, Rig, Spent, figure, instance, rss_mib, yardsticks

import fluxkv
from fluxkv.instances.ensemble_view import EnsembleView

SLOTS = 8
BUDGET = 0.45  # of spawn and wait in turn, with all that there is to start and to end
WORK = 1.4  # of what the flat instance takes: what eight children and the levels around them cost to start and to end comes on top
WAIT_S = 600.0


def figures(members: int, repeats: int, submitted: int) -> list[Figure]:
    """members: `true` jobs, an eighth of them a child's part. submitted: members of an ensemble that is only submitted."""
    flat: list[float] = []  # by a client that is there already
    typed: list[float] = []  # by a command, as the ensemble is
    work: list[tuple[float, float]] = []  # processor seconds: the flat instance's, the ensemble's; with clients and tasks
    whole: list[float] = []
    inside: list[float] = []
    bare: list[float] = []
    two: list[float] = []
    commits: list[float] = []
    busy: list[str] = []
    failed = 0
    with instance("-s", "1", "--cores", str(SLOTS)) as rig, fluxkv.connect(rig.uri) as client:
        client.submit(["true"]).wait(30)
        for _ in range(repeats):
            before, meter = yardsticks(0.7), Meter()
            spent = Spent()
            start = time.perf_counter()
            failed += sum(not one.ok for one in client.wait(client.submit_many([["true"]] * members), WAIT_S))
            flat.append(members / (time.perf_counter() - start))
            of_flat = spent.seconds()
            between = yardsticks(0.7)
            flat[-1] /= (before[0] + between[0]) / 2
            typed.append(members / _timed(rig, "submit", "--wait", "--quiet", f"--cc=1-{members}", "true"))
            before, between = between, yardsticks(0.7)
            typed[-1] /= (before[0] + between[0]) / 2
            spent = Spent()
            version = client.store.meta().version
            seconds = _timed(rig, "ensemble", "run", f"--per-node={SLOTS}", f"--cc=1-{members}", "true")
            work.append((of_flat, spent.seconds()))
            after = yardsticks(0.7)
            busy.append(meter.note() or "others idle")
            bare.append((between[0] + after[0]) / 2)
            two.append((between[1] + after[1]) / 2)
            whole.append(members / seconds)
            commits.append(client.store.meta().version - version)
            inside.append(members / _span(client))
        memory = _memory(rig)
    text = f"ensemble, {SLOTS} children × {members // SLOTS:,} true"
    return [
        figure(f"{text}: rate, from the command's start to its end", whole, "/s", better="higher", note="; ".join(busy)),
        figure(f"{text}: of spawn+wait in turn", [one / other for one, other in zip(whole, bare, strict=True)], "x", BUDGET,
               better="higher", note="in turn " + ", ".join(f"{one:,.0f}/s" for one in bare)),
        figure(f"{text}: of two spawned at a time", [one / other for one, other in zip(whole, two, strict=True)], "x",
               better="higher", note="two " + ", ".join(f"{one:,.0f}/s" for one in two)),
        figure(f"{text}: in turn, from its first member's start to the last one's end",
               [one / other for one, other in zip(inside, bare, strict=True)], "x", better="higher"),
        figure(f"{text}: beside the flat instance, both as commands from start to end (equal is 1)",
               [one / other / ratio for one, other, ratio in zip(whole, bare, typed, strict=True)], "x", better="higher",
               note="flat " + ", ".join(f"{ratio:.2f} of in turn" for ratio in typed)),
        figure(f"{text}: the command beside a Python client that is connected to the flat instance (equal is 1)",
               [one / other / ratio for one, other, ratio in zip(whole, bare, flat, strict=True)], "x", 1.0, better="higher",
               note="flat " + ", ".join(f"{ratio:.2f} of in turn" for ratio in flat)),
        figure(f"{text}: processor time beside the flat instance's (equal is 1)", [one / other for other, one in work], "x", WORK,
               note="; ".join(f"{one:.1f} s to {other:.1f} s" for other, one in work)),
        figure(f"{text}: commits of the instance around it", commits, "", 30),
        figure(f"{text}: members that failed", failed, "jobs", 0),
        memory, *_submitted(submitted),
    ]  # fmt: skip


def _timed(rig: Rig, *words: str) -> float:
    """Seconds that a command takes."""
    start = time.perf_counter()
    done = subprocess.run([PROGRAM, *words], env=rig.environment(), capture_output=True, text=True, timeout=WAIT_S)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return seconds


def _span(client: fluxkv.Instance) -> float:
    """Seconds from the first member's start to the last one's end, of the last ensemble."""
    state = client.state()
    view = EnsembleView(client, max(job.id for job in state.jobs.values()))
    try:
        rows = [row for _, _, row in view.rows()]
    finally:
        view.close()
    return max(row.t_run + row.runtime for row in rows) - min(row.t_run for row in rows)


def _memory(rig: Rig) -> Figure:
    found = {role: rss_mib(pid) for role, pid in rig.pids().items() if role.startswith(("server", "worker"))}
    return figure("ensemble: server, resident, when all is over", found.get("server", 0.0), "MiB")


def _submitted(count: int) -> list[Figure]:
    """An ensemble of very many members into a queue that is stopped."""
    with instance("-s", "1", "--cores", "2") as rig, fluxkv.connect(rig.uri) as client:
        subprocess.run([PROGRAM, "queue", "stop"], env=rig.environment(), check=True, capture_output=True)
        version, start = client.store.meta().version, time.perf_counter()
        words: list[Any] = [PROGRAM, "ensemble", "submit", f"--cc=1-{count}", "true", "{cc}"]
        subprocess.run(words, env=rig.environment(), check=True, capture_output=True, timeout=60)
        seconds = time.perf_counter() - start
        return [
            figure(f"ensemble, {count:,} members submitted: whole command", seconds, "s", 1.0),
            figure(f"ensemble, {count:,} members submitted: commits", client.store.meta().version - version, "", 5),
        ]
