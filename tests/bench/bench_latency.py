"""How long one thing takes on an idle instance: a job, a command, a start."""

from __future__ import annotations

import subprocess
import sys
import time

from rig import PROGRAM, Figure, environment, figure, instance, percentile

import fluxkv

REST_S = 0.02  # lets every daemon fall asleep before the next try


def one_job(repeats: int) -> list[Figure]:
    """One job at a time through the Python client."""
    known, clean = [], []
    with instance("-s", "1", "--cores", "2") as rig, fluxkv.connect(rig.uri) as client:
        for number in range(repeats + 5):
            time.sleep(REST_S)
            start = time.perf_counter()
            job = client.submit(["true"])
            middle = time.perf_counter()
            job.wait(30)
            end = time.perf_counter()
            if number >= 5:  # the first ones import and connect
                known.append((middle - start) * 1000)
                clean.append((end - start) * 1000)
    return [
        figure("one job: submit → id", known, "ms", 5, note=f"p95 {percentile(known, 0.95):.2f}"),
        figure("one job: submit → clean", clean, "ms", 15, note=f"p95 {percentile(clean, 0.95):.2f}"),
    ]


def whole(words: list[str], env: dict[str, str], repeats: int) -> list[float]:
    """Milliseconds of a whole command, once warmed up. Raises when it fails."""
    each = []
    for number in range(repeats + 2):
        time.sleep(REST_S)
        start = time.perf_counter()
        done = subprocess.run(words, env=env, capture_output=True, timeout=60)
        end = time.perf_counter()
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.decode(errors='replace').strip()}")
        if number >= 2:
            each.append((end - start) * 1000)
    return each


def commands(repeats: int) -> list[Figure]:
    """Whole commands, as installed, beside a Python that does nothing."""
    python = [sys.executable, "-c", "pass"]
    with instance("-s", "1", "--cores", "2") as rig:
        env = rig.environment()
        nothing = whole(python, env, repeats)
        done = subprocess.run([PROGRAM, "submit", "true"], env=env, capture_output=True, text=True, check=True)
        id = done.stdout.strip()
        subprocess.run([PROGRAM, "job", "wait", id], env=env, check=True)
        tab = {**env, "_FLUXKV_COMPLETE": "bash", "COMP_LINE": "fluxkv job eventlog ", "COMP_CUR": ""}
        asked: list[tuple[str, list[str], dict[str, str], float | None]] = [
            ("fluxkv submit true", ["submit", "true"], env, 100), ("fluxkv --help", ["--help"], env, 100),
            ("fluxkv jobs", ["jobs"], env, 100), ("fluxkv job status ID", ["job", "status", id], env, 100),
            ("a TAB that asks for job ids", [], tab, 200), ("fluxkv run true", ["run", "true"], env, None),
            ("fluxkv --version", ["--version"], env, None),
        ]  # fmt: skip
        measured = [(name, whole([PROGRAM, *words], given, repeats), budget) for name, words, given, budget in asked]
        nothing += whole(python, env, repeats)
    base = percentile(nothing, 0.5)
    found = [
        figure(
            f"{name}, whole command", each, "ms", budget,
            note=f"{percentile(each, 0.5) / base:.1f} x python -c pass",
        )
        for name, each, budget in measured
    ]  # fmt: skip
    return [*found, figure("python -c pass, for comparison", nothing, "ms")]


def starts(repeats: int) -> list[Figure]:
    """A whole instance, and a child inside a job."""
    env = environment()
    started = [value / 1000 for value in whole([PROGRAM, "start", "true"], env, repeats)]
    found = [figure("fluxkv start true, whole command, server included", started, "s", 0.6)]
    with instance("-s", "1", "--cores", "2") as rig:
        inside = f"date +%s.%N; {PROGRAM} start date +%s.%N"
        ready, child, own = [], [], []
        for _ in range(repeats):
            start = time.perf_counter()
            done = subprocess.run(
                [PROGRAM, "run", "sh", "-c", inside], env=rig.environment(), capture_output=True, text=True, timeout=60
            )
            child.append(time.perf_counter() - start)
            times = done.stdout.split()
            if done.returncode or len(times) != 2:
                raise RuntimeError(f"fluxkv run fluxkv start: {done.stderr.strip() or done.stdout}")
            ready.append(float(times[1]) - float(times[0]))
            words = [PROGRAM, "run", "sh", "-c", inside.replace(" start ", " start --kvs=own ")]
            begun, there = subprocess.check_output(words, env=rig.environment(), text=True, timeout=60).split()
            own.append(float(there) - float(begun))
        run = [value / 1000 for value in whole([PROGRAM, "run", "true"], rig.environment(), repeats)]
        alloc = [value / 1000 for value in whole([PROGRAM, "alloc", "-n1", "true"], rig.environment(), repeats)]
    found.append(figure("child instance in a one-core job: start → its command runs", ready, "s", 0.4))
    found.append(figure("the same with a server of its own", own, "s", 0.4))
    note = f"fluxkv run true alone: {percentile(run, 0.5):.2f} s"
    found.append(figure("fluxkv run fluxkv start true, whole command", child, "s", note=note))
    found.append(figure("fluxkv alloc -n1 true, whole command", alloc, "s", 0.6))
    return found
