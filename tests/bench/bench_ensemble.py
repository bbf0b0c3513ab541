"""Ensembles: real jobs in children that share a node's cores, beside a bare posix_spawn loop and beside the flat instance; what an
ensemble costs the instance whose job it is.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

from rig import PROGRAM, Figure, Meter, Rig, Spent, figure, instance, rss_mib, yardsticks

import fluxkv
from fluxkv.instances.ensemble_view import EnsembleView

SLOTS = 8
BUDGET = 0.45  # of spawn and wait in turn, with all that there is to start and to end
WORK = 1.4  # of what the flat instance takes: what eight children and the levels around them cost to start and to end comes on top
WAIT_S = 600.0
FLAT, FLAT_TYPED, TYPED, SPREAD = "flat", "flat, as a command", "ensemble, as a command", "ensemble"


def figures(members: int, repeats: int, submitted: int) -> list[Figure]:
    """members: `true` jobs, an eighth of them a child's part. submitted: members of an ensemble that is only submitted."""
    shares: dict[str, list[float]] = {}  # of spawn+wait in turn, measured before and behind each
    seconds: dict[str, list[float]] = {}
    work: dict[str, list[float]] = {}  # processor seconds, with clients and tasks
    inside: list[float] = []
    bare: list[tuple[float, float]] = []
    commits: list[float] = []
    busy: list[str] = []
    failed = 0
    with instance("-s", "1", "--cores", str(SLOTS)) as rig, fluxkv.connect(rig.uri) as client:
        client.submit(["true"]).wait(30)
        ways: dict[str, Callable[[], int]] = {
            FLAT: lambda: sum(not one.ok for one in client.wait(client.submit_many([["true"]] * members), WAIT_S)),
            FLAT_TYPED: lambda: _typed(rig, "submit", "--wait", "--quiet", f"--cc=1-{members}", "true"),
            TYPED: lambda: _typed(rig, "ensemble", "run", f"--per-node={SLOTS}", f"--cc=1-{members}", "true"),
            SPREAD: lambda: _ensemble(client, members),
        }
        for _ in range(repeats):
            after, meter = yardsticks(0.7), Meter()
            for way, run in ways.items():
                before, spent, version = after, Spent(), client.store.meta().version
                start = time.perf_counter()
                failed += run()
                took = time.perf_counter() - start
                work.setdefault(way, []).append(spent.seconds())
                after = yardsticks(0.7)
                seconds.setdefault(way, []).append(took)
                shares.setdefault(way, []).append(members / took / ((before[0] + after[0]) / 2))
                if way == TYPED:
                    commits.append(client.store.meta().version - version)
                    inside.append(members / _span(client))
                    bare.append(((before[0] + after[0]) / 2, (before[1] + after[1]) / 2))
            busy.append(meter.note() or "others idle")
        memory = _memory(rig)
    text = f"ensemble, {SLOTS} children × {members // SLOTS:,} true"
    rates = [members / one for one in seconds[TYPED]]
    return [
        figure(f"{text}: rate, from the command's start to its end", rates, "/s", better="higher", note="; ".join(busy)),
        figure(f"{text}: of spawn+wait in turn", shares[TYPED], "x", BUDGET, better="higher",
               note="in turn " + ", ".join(f"{one:,.0f}/s" for one, _ in bare)),
        figure(f"{text}: of two spawned at a time", [one / two for one, (_, two) in zip(rates, bare, strict=True)], "x",
               better="higher", note="two " + ", ".join(f"{two:,.0f}/s" for _, two in bare)),
        figure(f"{text}: in turn, from its first member's start to the last one's end",
               [one / turn for one, (turn, _) in zip(inside, bare, strict=True)], "x", better="higher"),
        _beside(f"{text}: beside the flat instance, both as commands, start to end (equal is 1)", shares, TYPED, FLAT_TYPED, 1.0),
        _beside(f"{text}: beside the flat instance, both by a connected Python client (equal is 1)", shares, SPREAD, FLAT),
        _beside(f"{text}: the command beside that client (equal is 1)", shares, TYPED, FLAT),
        figure(f"{text}: processor time beside the flat instance's (equal is 1)",
               [one / other for one, other in zip(work[TYPED], work[FLAT_TYPED], strict=True)], "x", WORK,
               note="; ".join(f"{one:.1f} s to {other:.1f} s" for one, other in zip(work[TYPED], work[FLAT_TYPED], strict=True))),
        figure(f"{text}: commits of the instance around it", commits, "", 30),
        figure(f"{text}: members that failed", failed, "jobs", 0),
        memory, *_submitted(submitted),
    ]  # fmt: skip


def _beside(text: str, shares: dict[str, list[float]], way: str, flat: str, budget: float | None = None) -> Figure:
    """One way beside another of the same rounds; each by what bare processes did around it."""
    return figure(text, [one / other for one, other in zip(shares[way], shares[flat], strict=True)], "x", budget, better="higher",
                  note="flat " + ", ".join(f"{ratio:.2f} of in turn" for ratio in shares[flat]))  # fmt: skip


def _ensemble(client: fluxkv.Instance, members: int) -> int:
    """Run one from here, and read all its members' results: how many failed."""
    job = client.submit_ensemble(["true"], range(1, members + 1), per_node=SLOTS)
    with client.ensemble(job) as view:
        view.wait(WAIT_S)
        good = sum(row.status == 0 for _, _, row in view.rows())
    return members - good


def _typed(rig: Rig, *words: str) -> int:
    """Run a command, which must succeed."""
    done = subprocess.run([PROGRAM, *words], env=rig.environment(), capture_output=True, text=True, timeout=WAIT_S)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return 0


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
