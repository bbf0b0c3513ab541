"""The benchmark: each figure beside its budget. `run.py [--quick] [--only NAME...] [--json FILE]`.

Rates of real jobs are ratios to a bare posix_spawn loop measured just before and just after, in the same process: the
machine's mood cancels out. Everything runs in a temporary folder and nothing is left running. Exit status 0 even when
budgets are missed (the table says so), 1 when a part could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_beside
import bench_children
import bench_ensemble
import bench_executor
import bench_forecast
import bench_graph
import bench_jobs
import bench_latency
import bench_match
import bench_policies
import bench_readers
import bench_submit
import bench_takeover
from rig import Figure, Meter, disk_syncs, figure, met, processes_of, scratch, yardsticks

HERE = Path(__file__).resolve().parent
OPTIONAL = {"big"}


def parts(quick: bool) -> dict[str, Callable[[], list[Figure]]]:
    """Name -> what it measures. quick: smaller numbers, the same questions."""
    both = [(1000, 3), (10_000, 1)]
    return {
        "real": lambda: bench_jobs.real(2, 0.30, [(1000, 2), (3000, 1)] if quick else both, then=True),
        "wide": lambda: bench_jobs.real(16, 0.45, [(1000, 1)] if quick else both),
        "empty": lambda: bench_jobs.empty(*((3000, 1) if quick else (10_000, 3))),
        "single": lambda: bench_jobs.single_submits(300 if quick else 1000),
        "many": lambda: bench_submit.many(*((10_000, 1) if quick else (100_000, 1))),
        "latency": lambda: bench_latency.one_job(20 if quick else 50),
        "commands": lambda: bench_latency.commands(5 if quick else 20),
        "readers": lambda: bench_readers.readers(*((1000, 5000, 3) if quick else (10_000, 100_000, 10))),
        "start": lambda: bench_latency.starts(3 if quick else 7),
        "children": lambda: bench_children.side_by_side(1000 if quick else 5000),
        "executor": lambda: bench_executor.figures(quick),
        "takeover": lambda: bench_takeover.take_over(1 if quick else 3),
        "matcher": lambda: matcher(bench_match.figures()),
        "graph": lambda: matcher(bench_graph.figures((64, 1024) if quick else bench_graph.SIZES)),
        "estimates": lambda: bench_forecast.figures(quick),
        "plans": bench_policies.plans,
        "beside": lambda: bench_beside.figures(quick),
        "ensemble": lambda: bench_ensemble.figures(*((2000, 1, 10_000) if quick else (8000, 5, 100_000))),
        "big": lambda: bench_jobs.many_active(100_000),
    }


def matcher(figures: list[dict[str, Any]]) -> list[Figure]:
    """The matcher's own figures in this table's form."""
    return [
        figure(
            one["name"], one["value"], one["unit"], one["budget"], better="higher" if one["unit"] == "/s" else "lower"
        )
        for one in figures
    ]


def machine(folder: str) -> dict[str, Any]:
    """What the figures were measured on."""
    in_turn, two = yardsticks(0.5)
    return {
        "when": time.strftime("%FT%TZ", time.gmtime()), "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0], "spawn_in_turn_per_s": round(in_turn),
        "spawn_two_per_s": round(two), "fdatasync_per_s": round(disk_syncs(0.5, folder)),
    }  # fmt: skip


def text_of(value: float) -> str:
    """A number as the table has it: three significant digits, or whole."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - len(str(int(abs(value)))) + 1)}f}"


def show(one: Figure) -> None:
    """One line."""
    verdict = {True: "met", False: "MISSED", None: ""}[met(one)]
    sign = ">=" if one["better"] == "higher" else "<="
    budget = "" if one["budget"] is None else f"{sign} {text_of(one['budget'])}"
    low, high = one["spread"]
    spread = f"{text_of(low)}-{text_of(high)}" if one["repeats"] > 1 else ""
    tail = " | ".join(part for part in (spread, one["note"]) if part)
    number = f"{text_of(one['value']):>9} {one['unit']:<8} {budget:>10}"
    print(f"  {one['name']:<68} {number} {verdict:<6} {tail}".rstrip(), flush=True)


def measure(chosen: dict[str, Callable[[], list[Figure]]]) -> tuple[list[Figure], list[str]]:
    """(figures of all parts, names of parts that failed)."""
    found: list[Figure] = []
    failed: list[str] = []
    for name, part in chosen.items():
        start = time.perf_counter()
        try:
            figures = part()
        except Exception as error:
            failed.append(name)
            print(f"{name}: not measured: {type(error).__name__}: {error}", flush=True)
            continue
        print(f"{name} ({time.perf_counter() - start:.1f} s)", flush=True)
        for one in figures:
            one["part"] = name
            one["met"] = met(one)
            show(one)
        found += figures
    return found, failed


def main() -> int:
    """Measure, print, write; the exit status."""
    every = parts(False)
    named = f"{', '.join(every)}; replay and memory belong to real"
    parser = argparse.ArgumentParser(description="fluxkv's figures beside their budgets")
    parser.add_argument("--quick", action="store_true", help="under a minute; smaller numbers, matcher left out")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(every), default=[], help=named)
    parser.add_argument("--json", metavar="FILE", default=str(HERE.parents[1] / "bench-results.json"))
    options = parser.parse_args()
    every = parts(options.quick)
    left_out = OPTIONAL | ({"matcher", "plans", "beside"} if options.quick else set())
    names = [name for name in every if (name in options.only if options.only else name not in left_out)]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(143))  # so that instances are stopped on the way out
    start = time.perf_counter()
    with scratch() as folder:
        host = machine(folder)
        print(", ".join(f"{key} {value}" for key, value in host.items()), flush=True)
        meter = Meter()
        found, failed = measure({name: every[name] for name in names})
        others = meter.others()
        left = processes_of(folder)
    seconds = time.perf_counter() - start
    judged = [one for one in found if one["met"] is not None]
    missed = [one["name"] for one in judged if not one["met"]]
    document = {
        "machine": host, "quick": options.quick, "seconds": round(seconds, 1), "others": round(others, 3),
        "figures": found, "failed": failed,
    }  # fmt: skip
    Path(options.json).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(judged) - len(missed)} of {len(judged)} budgets met in {seconds:.0f} s; {options.json}")
    if others >= 0.05:
        print(f"  others used {others:.0%} of this machine meanwhile: trust the ratios, not what is missed by little")
    for name in missed:
        print(f"  missed: {name}")
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
