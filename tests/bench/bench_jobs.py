"""Jobs end to end: real ones beside a bare posix_spawn loop, and empty ones; and what 10,000 of them leave behind."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from rig import Figure, Meter, Rig, figure, instance, percentile, rss_mib, yardsticks
from store_memory import keys_by_kind, of_server

import fluxkv

EMPTY = {"system.exec.test.run_duration": "0s"}  # the launcher is not asked; all the rest is as ever
WAIT_S = 300.0
FLAT = 0.85  # ten times the jobs may cost this much of the rate


class Run(NamedTuple):
    """One run of `count` jobs. seconds: from before the submit until the client knows that all are inactive."""

    jobs: int
    seconds: float
    submit_s: float
    failed: int
    in_turn: float
    two: float
    cpu: dict[str, float]
    commits: int
    busy: str

    @property
    def rate(self) -> float:
        return self.jobs / self.seconds


def run(rig: Rig, count: int, yard_s: float, attributes: dict[str, Any] | None = None) -> Run:
    """Submit `count` × `true` in one call, wait for all. The yardsticks are the means of before and after."""
    options = {"attributes": attributes} if attributes else {}
    with fluxkv.connect(rig.uri) as client:
        client.submit(["true"], **options).wait(30)
        before = yardsticks(yard_s) if yard_s else (0.0, 0.0)
        version, cpu = client.store.meta().version, rig.cpu()
        meter = Meter()
        start = time.perf_counter()
        ids = client.submit_many([["true"]] * count, **options)
        submitted = time.perf_counter()
        results = client.wait(ids, WAIT_S)
        end = time.perf_counter()
        busy = meter.note()
        spent = {role: seconds - cpu.get(role, 0.0) for role, seconds in rig.cpu().items()}
        commits = client.store.meta().version - version
        after = yardsticks(yard_s) if yard_s else (0.0, 0.0)
    return Run(
        count, end - start, submitted - start, sum(not one.ok for one in results),
        (before[0] + after[0]) / 2, (before[1] + after[1]) / 2, spent, commits, busy,
    )  # fmt: skip


def _costs(what: str, runs: list[Run]) -> list[Figure]:
    """What a thousand jobs cost the daemons."""
    total: Counter[str] = Counter()
    for one in runs:
        total.update(one.cpu)
    jobs = sum(one.jobs for one in runs)
    by_role = ", ".join(f"{role} {seconds / jobs * 1000:.2f}" for role, seconds in sorted(total.items()))
    return [
        figure(f"{what}: daemons' CPU per 1,000 jobs", sum(total.values()) / jobs * 1000, "s", note=by_role),
        figure(f"{what}: commits per job", [one.commits / one.jobs for one in runs], ""),
    ]


def _busy(runs: list[Run]) -> str:
    return "; ".join(one.busy or "others idle" for one in runs) if any(one.busy for one in runs) else ""


def _ratios(what: str, runs: list[Run], budget: float) -> list[Figure]:
    text = f"{what}, {runs[0].jobs:,} jobs"
    return [
        figure(f"{text}: rate", [one.rate for one in runs], "/s", better="higher", note=_busy(runs)),
        figure(f"{text}: of spawn+wait in turn", [one.rate / one.in_turn for one in runs], "x", budget, better="higher",
               note="in turn " + ", ".join(f"{one.in_turn:,.0f}/s" for one in runs)),
        figure(f"{text}: of two spawned at a time", [one.rate / one.two for one in runs], "x", better="higher",
               note="two " + ", ".join(f"{one.two:,.0f}/s" for one in runs)),
    ]  # fmt: skip


def real(cores: int, budget: float, sizes: list[tuple[int, int]], then: bool = False) -> list[Figure]:
    """Real jobs on one node of `cores` one-core slots. sizes: (jobs, repeats). then: look at what the last run left."""
    what = f"{cores} slots"
    found: list[Figure] = []
    left: list[Figure] = []
    medians: list[float] = []
    runs: list[Run] = []
    failed = 0
    for count, repeats in sizes:
        runs = []
        for repeat in range(repeats):
            with instance("-s", "1", "--cores", str(cores)) as rig:
                before = of_server(rig.uri)
                runs.append(run(rig, count, 0.7))
                if then and count == sizes[-1][0] and repeat == repeats - 1:
                    left = left_behind(rig, count, before)
        ratios = _ratios(what, runs, budget)
        medians.append(ratios[1]["value"])
        found += [*ratios, *_costs(f"{what}, {count:,} jobs", runs)]
        failed += sum(one.failed for one in runs)
    if len(sizes) > 1:
        text = f"{what}: {sizes[-1][0]:,} jobs beside {sizes[0][0]:,} (flat is 1)"
        found.append(figure(text, medians[-1] / medians[0], "x", FLAT, better="higher"))
    return [*found, figure(f"{what}: jobs that failed", failed, "jobs", 0), *left]


def empty(count: int, repeats: int) -> list[Figure]:
    """Jobs that last no time, on a real node of two cores and on 16 nodes that only pretend."""
    found: list[Figure] = []
    for what, options in (
        ("empty, 2 slots", ("-s", "1", "--cores", "2")),
        ("empty, 16 fake nodes", ("--fake", "-s", "16", "--cores", "2")),
    ):
        runs = []
        for _ in range(repeats):
            with instance(*options) as rig:
                runs.append(run(rig, count, 0.0, EMPTY))
        text = f"{what}, {count:,} jobs"
        found += [
            figure(f"{text}: rate", [one.rate for one in runs], "/s", 3000, better="higher", note=_busy(runs)),
            figure(f"{text}: submit alone", [one.jobs / one.submit_s for one in runs], "/s", better="higher"),
            figure(f"{text}: jobs that failed", sum(one.failed for one in runs), "jobs", 0),
            *_costs(text, runs),
        ]
    return found


# -- what a run leaves ------------------------------------------------------------------------------------------------


def left_behind(rig: Rig, count: int, empty_bytes: int) -> list[Figure]:
    """Replay and memory of an instance in which `count` jobs have ended."""
    return [*replay(rig, count), *memory(rig, count, empty_bytes, "by one submit", 1536)]


def replay(rig: Rig, count: int) -> list[Figure]:
    """Folding the journal from its first commit, digest included; in this process and by the command."""
    import json
    import subprocess

    rates, seconds = [], []
    meter = Meter()
    with fluxkv.connect(rig.uri) as client:
        for _ in range(3):
            start = time.perf_counter()
            state = client.journal.at()
            state.digest()
            rates.append(state.events / (time.perf_counter() - start))
        busy = "; ".join(filter(None, (f"{state.events:,} events", meter.note())))
        loads = []
        for _ in range(3):
            start = time.perf_counter()
            client.state()
            loads.append((time.perf_counter() - start) * 1000)
    text = f"replay of {count:,} jobs"
    found = [
        figure(f"{text}: fold and digest", rates, "events/s", 150_000, better="higher", note=busy),
        figure(f"{text}: live state from snapshot and tail", loads, "ms"),
    ]
    for _ in range(2):
        start = time.perf_counter()
        words = rig.command("replay", "--diff", "live", "--json")
        done = subprocess.run(words, env=rig.environment(), capture_output=True, text=True, timeout=120)
        seconds.append(time.perf_counter() - start)
        document = json.loads(done.stdout) if done.stdout.startswith("{") else {}
        if done.returncode or not document.get("sound"):
            said = f"{done.stdout[-300:]} {done.stderr.strip()[-300:]}"
            print(f"bench: replay: {done.returncode} {said}", file=sys.stderr)
    found.append(figure(f"{text}: fluxkv replay --diff live, whole command", seconds, "s"))
    if document:
        told = document["events_per_s"]
        note = f"{document['digests_checked']} digests checked, {len(document['faults'])} faults"
        found.append(figure(f"{text}: what it says of itself", told, "events/s", better="higher", note=note))
    return found


def memory(rig: Rig, count: int, empty_bytes: int, how: str, budget: float) -> list[Figure]:
    """Bytes of the server per finished job, and the daemons' own memory."""
    kinds = keys_by_kind(rig.uri)
    largest = sorted(kinds.items(), key=lambda one: -one[1])[:5]
    shares = ", ".join(f"{kind} {size / count:,.0f}" for kind, size in largest)
    text = f"memory, {count:,} finished jobs {how}"
    found = [
        figure(f"{text}: server", (of_server(rig.uri) - empty_bytes) / count, "B/job", budget),
        figure(f"{text}: all keys of the instance", sum(kinds.values()) / count, "B/job", note=shares),
    ]
    for role, pid in rig.pids().items():
        if role.startswith(("worker", "agent", "server")):
            found.append(figure(f"{text}: resident, {role}", rss_mib(pid), "MiB"))
    return found


def single_submits(count: int) -> list[Figure]:
    """Jobs submitted one by one: what each costs when it shares no commit."""
    with _kept("-s", "1", "--cores", "2") as (rig, client):
        client.submit(["true"]).wait(30)
        before = of_server(rig.uri)
        start = time.perf_counter()
        each, handles = [], []
        for _ in range(count):
            one = time.perf_counter()
            handles.append(client.submit(["true"]))
            each.append((time.perf_counter() - one) * 1000)
        submitted = time.perf_counter() - start
        client.wait(handles, WAIT_S)
        took = time.perf_counter() - start
        text = f"{count:,} single submits"
        return [
            figure(f"{text}: submit → id", percentile(each, 0.5), "ms", note=f"p95 {percentile(each, 0.95):.2f}"),
            figure(f"{text}: submits", count / submitted, "/s", better="higher"),
            figure(f"{text}: until all have ended", count / took, "/s", better="higher"),
            *memory(rig, count, before, "by single submits", 3072)[:2],
        ]


def many_active(count: int) -> list[Figure]:
    """Held jobs: what the worker needs for so many active ones."""
    with _kept("--fake", "-s", "16", "--cores", "2") as (rig, client):
        before = of_server(rig.uri)
        start = time.perf_counter()
        ids = client.submit_many([["true"]] * count, urgency=0)
        submitted = time.perf_counter() - start
        probe = client.submit(["true"], attributes=EMPTY)
        probe.wait(WAIT_S)
        settled = time.perf_counter() - start
        start = time.perf_counter()
        each = []
        for _ in range(10):
            one = time.perf_counter()
            client.submit(["true"], attributes=EMPTY).wait(30)
            each.append((time.perf_counter() - one) * 1000)
        text = f"{len(ids):,} held jobs"
        return [
            figure(f"{text}: worker, resident", rss_mib(rig.pids()["worker-0"]), "MiB", 1024),
            figure(f"{text}: server", (of_server(rig.uri) - before) / count, "B/job"),
            figure(f"{text}: submit", count / submitted, "/s", better="higher"),
            figure(f"{text}: until the next job has run", settled, "s"),
            figure(f"{text}: submit → clean of one more", each, "ms"),
        ]


@contextmanager
def _kept(*options: str) -> Iterator[tuple[Rig, fluxkv.Instance]]:
    with instance(*options) as rig, fluxkv.connect(rig.uri) as client:
        yield rig, client
