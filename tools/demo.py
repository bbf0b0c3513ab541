"""The demonstration behind `make demo`: a parameter sweep of real jobs on an instance of its own.

Drives the public command line, prints each command before its answer, and checks what comes out: every job completed,
every result there, the onset of chaos where mathematics puts it, the replayed state equal to the live one, no process
left. Exits 1 and says what differed otherwise. Decides no rules.

    python -m fluxkv.tools.demo [--jobs N] [--directory DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Any

from ..kvs.errors import FluxkvError

STATE, RESULTS, SCRIPT = "state", "results", "logistic.py"
LOW, HIGH = 2.8, 4.0
ONSET = 3.5699456  # where the period doublings of the logistic map end and chaos begins
COLUMNS, ROWS = 60, 20
CHAOTIC = 0.005  # a Lyapunov exponent above this is not zero by mistake

TASK = f'''"""One point of the sweep: iterate x -> r x (1 - x), print where x goes and how fast neighbours part."""
import json, math, sys

number, count = int(sys.argv[1]), int(sys.argv[2])
r = {LOW} + {HIGH - LOW:g} * (number - 1) / max(1, count - 1)
x = 0.4
for _ in range(5000):
    x = r * x * (1 - x)
cells, total, rounds = set(), 0.0, 30000
for n in range(rounds):
    x = r * x * (1 - x)
    total += math.log(abs(r * (1 - 2 * x)) or 1e-300)
    if n < 2000:
        cells.add(int(x * {ROWS}))
print(json.dumps({{"r": r, "lyapunov": total / rounds, "cells": sorted(cells)}}))
'''


def main() -> int:
    """Run the demonstration; 0 only if all was as it should be."""
    parser = argparse.ArgumentParser(
        prog="python -m fluxkv.tools.demo", description="A parameter sweep of real jobs."
    )
    parser.add_argument("--jobs", type=int, default=240, help="how many (default %(default)s)")
    parser.add_argument("--directory", help="keep journal and results there (default: a temporary directory)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    jobs: int = max(2, options.jobs)
    try:
        if options.inside:
            return inside(jobs)
        return demonstrate(jobs, options.directory)
    except KeyboardInterrupt:
        return 130
    except FluxkvError as error:
        print(f"demo: {error}\n  {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_status


def demonstrate(jobs: int, directory: str | None) -> int:
    """Run it in `directory`, or in a temporary one that is removed at the end."""
    if directory:
        return outside(jobs, os.path.abspath(directory), kept=True)
    with tempfile.TemporaryDirectory(prefix="fluxkv-demo-") as temporary:
        return outside(jobs, temporary, kept=False)


def outside(jobs: int, directory: str, *, kept: bool) -> int:
    """Start an instance that runs `inside`, and look around after its end."""
    from .. import __version__

    prepare(directory)
    state_dir = os.path.join(directory, STATE)
    print(
        f"fluxkv {__version__}: {jobs} points of the logistic map x -> r x (1 - x), one real job each.",
        flush=True,
    )
    environment = {name: text for name, text in os.environ.items() if name not in ("FLUXKV_URI", "FLUX_URI")}
    # `fluxkv` and `python` below are the ones beside this interpreter.
    environment["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", os.defpath)
    words = ["start", "-s", "2", "--cores", "4", "--state-dir", STATE]
    again = ["python", "-m", "fluxkv.tools.demo", "--inside", "--jobs", str(jobs)]
    show(
        ["fluxkv", *words, *again],
        "An instance of two nodes with a server of its own; it lives as long as the command in it.",
    )
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C goes to the command too; stay to see how it ends
    code = subprocess.run(["fluxkv", *words, *again], cwd=directory, env=environment).returncode
    left = still_running(state_dir)
    print(f"\nThe instance has ended; processes left: {len(left)}.")
    for line in left:
        print(f"  {line}")
    if code == 0 and not left and kept:
        place = os.path.relpath(directory)
        where = os.path.join(place, STATE)
        print(
            f"\nResults are in {os.path.join(place, RESULTS)}/. The journal outlives the instance:"
            " with .venv/bin on your PATH try"
        )
        print(f"  fluxkv jobs -a -c 5 --state-dir {where}\n  fluxkv replay --state-dir {where}")
    if code == 130 and not left:
        return 130
    print("\ndemo: all is well" if code == 0 and not left else "\ndemo: FAILED, see above", flush=True)
    return 0 if code == 0 and not left else 1


def prepare(directory: str) -> None:
    """An empty place for state, results and the task's script; what an earlier demonstration left is removed."""
    from ..instances.paths import StateDir
    from ..kvs.errors import Rejected

    if StateDir(os.path.join(directory, STATE)).running():
        raise Rejected(
            f"a demonstration is running in {directory}", code="running", hint="name another --directory"
        )
    for name in (STATE, RESULTS):
        shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
    os.makedirs(os.path.join(directory, RESULTS))
    with open(os.path.join(directory, SCRIPT), "w", encoding="utf-8") as file:
        file.write(TASK)


def inside(jobs: int) -> int:
    """What runs in the instance: submit, wait, look, replay. Returns 1 if anything differs from what it should be."""
    wrong = []
    sweep = ["fluxkv", "submit", "--quiet", "--progress", "--jps", f"--cc=1-{jobs}", f"--output={RESULTS}/{{cc}}.json",
             "python", "-IS", SCRIPT, "{cc}", str(jobs)]  # fmt: skip
    if run(
        sweep, f"{jobs} jobs in one command; each computes for some hundredths of a second and writes a file."
    ):
        wrong.append("not every job succeeded")
    run(["fluxkv", "jobs", "-a", "-c", "8"], "The last of them.")
    wrong += check_jobs(jobs)
    found, missing = read_results(jobs)
    if missing:
        wrong.append(f"{missing} of {jobs} results are missing")
    else:
        wrong += show_results(found)
    half = halfway()
    run(
        ["fluxkv", "jobs", "--stats-only", "--at", str(half)],
        f"The same instance as it was half-way, at version {half}.",
    )
    if run(
        ["fluxkv", "replay", "--diff", "live"],
        "Fold the whole journal from its first entry and compare with the live state.",
    ):
        wrong.append("the replayed state differs from the live one")
    for line in wrong:
        print(f"demo: {line}", file=sys.stderr)
    return 1 if wrong else 0


def show(words: list[str], why: str) -> None:
    """A command, as one would type it, under a line that says what it is for."""
    print(f"\n# {why}\n$ {shlex.join(words)}", flush=True)


def run(words: list[str], why: str) -> int:
    """Show a command and run it; its exit code."""
    show(words, why)
    return subprocess.run(words).returncode


def check_jobs(jobs: int) -> list[str]:
    """Ask by the Python API what became of the jobs, and print their rate; what is wrong with them."""
    from ..instances.client import connect

    with connect() as instance:
        records = list(instance.state().jobs.values())
    print()
    if len(records) != jobs or not all(job.t_inactive for job in records):
        return [f"{len(records)} jobs are known, {jobs} were submitted"]
    seconds = max(job.t_inactive for job in records) - min(job.t_submit for job in records)
    computing = sum(job.t_finish - job.t_run for job in records)
    nodes = len({rank for job in records for rank in job.ranks})
    print(
        f"{jobs} jobs in {seconds:.2f} s on {nodes} nodes: {jobs / seconds:.0f} jobs/s, {computing:.1f} s of tasks."
    )
    return []


def halfway() -> int:
    """The version in the middle of the journal."""
    from ..instances.client import connect

    with connect() as instance:
        return max(1, instance.state().version // 2)


def read_results(jobs: int) -> tuple[list[dict[str, Any]], int]:
    """(what the tasks wrote, in the order of r; how many wrote nothing that can be read)."""
    found = []
    for number in range(1, jobs + 1):
        try:
            with open(os.path.join(RESULTS, f"{number}.json"), encoding="utf-8") as file:
                found.append(json.load(file))
        except (OSError, ValueError):
            continue
    return found, jobs - len(found)


def show_results(found: list[dict[str, Any]]) -> list[str]:
    """Draw where x goes for each r, and where neighbours part; what contradicts mathematics."""
    columns = min(COLUMNS, len(found))
    print(f"\nWhere x goes as r grows from {LOW} to {HIGH} ({len(found)} results; + marks chaos):\n")
    groups = [
        found[column * len(found) // columns : (column + 1) * len(found) // columns]
        for column in range(columns)
    ]
    for row in reversed(range(ROWS)):
        marks = (sum(row in point["cells"] for point in group) / len(group) for group in groups)
        label = f"{row / ROWS:.1f}" if row % 5 == 0 else ""
        print(f"  {label:>4} |" + "".join(" .:*#"[round(mark * 4)] for mark in marks))
    signs = (
        "+" if sum(point["lyapunov"] > CHAOTIC for point in group) * 2 > len(group) else "-"
        for group in groups
    )
    print("       |" + "".join(signs))
    print(f"   r =  {LOW:<{columns - 4}}{HIGH:>4}\n")
    chaotic = [point["r"] for point in found if point["lyapunov"] > CHAOTIC]
    onset = chaotic[0] if chaotic else float("nan")
    step = (HIGH - LOW) / max(1, len(found) - 1)
    print(
        f"{len(chaotic)} of {len(found)} are chaotic; chaos begins at r = {onset:.3f}"
        f" (theory: {ONSET:.3f}, step {step:.3f})."
    )
    if not ONSET - step <= onset <= ONSET + 3 * step:
        return [f"chaos begins at {onset:.4f}, which cannot be"]
    return []


def still_running(state_dir: str) -> list[str]:
    """`pid command` of every process that names this state directory or works below it."""
    needle = os.fsencode(state_dir)
    left = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read()
            where = os.fsencode(os.readlink(f"/proc/{name}/cwd"))
        except OSError:
            continue  # over, or not ours
        if needle in words or (where + b"/").startswith(needle + b"/"):
            left.append(f"{name} {words.replace(bytes(1), b' ').decode(errors='replace').strip()}")
    return sorted(left)


if __name__ == "__main__":
    sys.exit(main())
