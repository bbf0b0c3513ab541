"""`fluxkv.Executor`: how fast it submits, how long one call takes, what a function costs as a job of its own and by chunks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import wait
from typing import Any

from rig import Figure, environment, figure, instance, percentile, timed

import fluxkv

REST_S = 0.02  # lets every daemon fall asleep before the next try


def _rate(count: int, repeats: int, submit: Any) -> list[float]:
    """Jobs per second from the first `submit` to the last id."""
    each = []
    for _ in range(repeats):
        start = time.perf_counter()
        futures = [submit() for _ in range(count)]
        for future in futures:
            future.jobid()
        each.append(count / (time.perf_counter() - start))
        for future in futures:
            future.cancel()
        wait(futures)
    return each


def submissions(count: int, repeats: int) -> list[Figure]:
    """Held jobs, so that nothing else has work: by an executor, beside one call of `submit_many`."""
    with instance("-s", "1", "--cores", "2") as rig, fluxkv.connect(rig.uri) as client:
        with fluxkv.Executor(rig.uri, urgency=0) as executor:
            commands = _rate(count, repeats, lambda: executor.submit_command(["true"]))
            functions = _rate(count, repeats, lambda: executor.submit(pow, 2, 10))
        many = []
        for _ in range(repeats):
            seconds = timed(lambda: client.cancel(client.submit_many([["true"]] * count, urgency=0)))
            many.append(count / seconds)
    note = f"submit_many and cancel, for comparison: {percentile(many, 0.5):,.0f} /s"
    return [
        figure(f"executor: {count:,} submit_command → ids", commands, "/s", 10_000, better="higher", note=note),
        figure(f"executor: {count:,} submit(function) → ids", functions, "/s", 5_000, better="higher"),
    ]


def calls(count: int, repeats: int) -> list[Figure]:
    """One at a time on an idle instance; then many, each a job of its own, and by chunks."""
    command, function, python = [], [], []
    with instance("-s", "1", "--cores", "2") as rig, fluxkv.Executor(rig.uri, env=environment()) as executor:
        for number in range(repeats + 3):
            time.sleep(REST_S)
            one = timed(lambda: executor.submit_command(["true"]).result(30))
            two = timed(lambda: executor.submit(pow, 2, 10).result(30))
            bare = timed(lambda: subprocess.run([sys.executable, "-P", "-c", "import pickle"], env=environment(), check=True))
            if number >= 3:
                command.append(one * 1000)
                function.append(two * 1000)
                python.append(bare * 1000)
        own = timed(lambda: wait([executor.submit(pow, 2, n) for n in range(count)]))
        chunks = timed(lambda: list(executor.map(pow, [2] * count, range(count), chunksize=max(1, count // 8))))
    over = percentile(function, 0.5) - percentile(python, 0.5)
    return [
        figure("executor: submit_command → result", command, "ms", 15, note=f"p95 {percentile(command, 0.95):.2f}"),
        figure("executor: submit(function) → result", function, "ms", note=f"{over:.1f} ms beyond a bare Python"),
        figure("a bare Python that imports pickle", python, "ms"),
        figure(f"executor: {count} functions, a job each", count / own, "/s", note=f"{os.cpu_count()} CPUs"),
        figure(f"executor: {count} functions, map in 8 chunks", count / chunks, "/s"),
    ]


def figures(quick: bool) -> list[Figure]:
    """All of it."""
    return [*submissions(*((5_000, 3) if quick else (10_000, 5))), *calls(*((100, 10) if quick else (400, 30)))]
