"""An example to copy: a drug screening that survives whatever is killed, in one file, driven by `fluxkv.Executor`.

Stages: *generate* a library of molecules; *screen* all of it, a small job each, in instances with the policy `throughput`, one on
each part of the machine; *refine* the best with jobs of several cores in an instance with the policy `easy`; *report*.

    fluxkv start --state-dir screening.state python -m fluxkv.tools.screening --directory screening

Kill anything, or everything, and type the same again: every job has a key, so what is over is not repeated, and an instance that
was killed is resumed. Docking and refinement are stand-ins that compute for a moment; all else is real.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import fluxkv

AGAIN = 10  # attempts of one instance before we give up
ATOMS = "CCCCCNOSFPcn"
LIBRARY, DOCK, SCORES, VALUES = "molecules.txt", "dock.sh", "scores", "values"

# The stand-in of a docking program: a small, quick one in another language. It says in one write what it has found.
DOCK_SCRIPT = """#!/bin/sh
# dock.sh MOLECULE FILE: append "MOLECULE ENERGY" to FILE
awk -v m="$1" 'BEGIN {
    for (i = 1; i <= length(m); i++) s = (s * 31 + index("CNOSFPcn", substr(m, i, 1)) + i) % 99991
    printf "%s %.4f\\n", m, -12 * s / 99991
}' >>"$2"
"""


class Plan(NamedTuple):
    """How the machine is divided: `parts` instances of `cores` cores each to screen, one of `whole` cores to refine."""

    parts: int
    cores: int
    whole: int


def divide(nodes: int, cores: int) -> Plan:
    """A part for each node, or two on a single one."""
    each = max(1, cores // nodes)
    if nodes > 1:
        return Plan(nodes, each, each)
    parts = min(2, each)
    return Plan(parts, each // parts, each)


# --- what jobs do


def generate(directory: str, count: int) -> int:
    """Write the library: the same one for the same count, whole or not at all."""
    dice = random.Random(count)
    molecules: dict[str, None] = {}
    while len(molecules) < count:
        molecules["".join(dice.choices(ATOMS, k=dice.randint(12, 24)))] = None
    for name, text, mode in ((DOCK, DOCK_SCRIPT, 0o755), (LIBRARY, "\n".join(molecules) + "\n", 0o644)):
        new = Path(directory, f".{name}.new")
        new.write_text(text)
        new.chmod(mode)
        new.rename(Path(directory, name))
    return len(molecules)


def refined(molecule: str, energy: float) -> float:
    """A better energy for a molecule, by a walk downhill over a rugged curve."""
    dice = random.Random(molecule)
    best, angle = math.inf, 0.0
    for _ in range(20_000):
        turned = angle + dice.gauss(0.0, 0.3)
        value = math.cos(3 * turned) + 0.3 * math.sin(11 * turned) + turned * turned / 50
        if value < best:
            best, angle = value, turned
    return energy + best


# --- the programs of the instances


def screen(directory: Path, part: int, parts: int) -> int:
    """In a child: dock every molecule of this part, a job each; how many failed."""
    library = (directory / LIBRARY).read_text().split()
    scores = str(directory / SCORES / f"{part}.txt")
    with fluxkv.Executor(duration="5m") as executor:
        futures = [
            executor.submit_command([str(directory / DOCK), molecule, scores], key=f"dock-{number}")
            for number, molecule in enumerate(library)
            if number % parts == part
        ]
        return sum(future.result() != 0 for future in futures)


def refine(directory: Path, best: int, cores: int) -> int:
    """In a child: refine the best that were found, each by a job of several cores, and write the table; always 0."""
    with fluxkv.Executor(cores_per_task=min(2, cores), duration="5m", results=directory / VALUES) as executor:
        futures = [
            (molecule, energy, executor.submit_once(f"refine-{molecule}", refined, molecule, energy))
            for molecule, energy in lowest(directory, best)
        ]
        rows = sorted((future.result(), energy, molecule) for molecule, energy, future in futures)
    new = directory / ".refined.new"
    new.write_text(json.dumps(rows))
    new.rename(directory / "refined.json")
    return 0


def lowest(directory: Path, count: int) -> list[tuple[str, float]]:
    """The molecules with the lowest energies. One that was docked twice, since its job was killed at its end, counts once."""
    found: dict[str, float] = {}
    for path in sorted((directory / SCORES).iterdir()):
        for line in path.read_text().splitlines():
            molecule, _, energy = line.partition(" ")
            found[molecule] = float(energy)
    return sorted(found.items(), key=lambda item: (item[1], item[0]))[:count]


# --- the driver


def say(line: str) -> None:
    """A line at once and whole: several threads say some."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def drive(directory: Path, count: int, best: int) -> int:
    """All stages, from wherever an earlier run came to. 0 if every job did its work."""
    began = time.monotonic()
    for name in (SCORES, VALUES):
        (directory / name).mkdir(parents=True, exist_ok=True)
    with fluxkv.connect() as instance:
        there = instance.resources().all
    plan = divide(there.nnodes, there.ncores)
    with fluxkv.Executor(results=directory / VALUES, retry=AGAIN, retry_on="node-failure,shutdown") as executor:
        say(f"generate: {executor.submit_once('generate', generate, str(directory), count).result()} molecules")

        def screened(part: int) -> int:
            words = ["--stage=screen", f"--part={part}", f"--parts={plan.parts}"]
            return inside(executor, directory, f"screen-{part}", "throughput", words, plan.cores)

        with ThreadPoolExecutor(plan.parts) as threads:
            failed = sum(threads.map(screened, range(plan.parts)))
        say(f"screen:   {plan.parts} instances, {count} jobs, {failed} instances failed")
        words = ["--stage=refine", f"--best={best}", f"--cores={plan.whole}"]
        failed += inside(executor, directory, "refine", "easy", words, plan.whole)
    report(directory, time.monotonic() - began)
    return 1 if failed else 0


def inside(executor: fluxkv.Executor, directory: Path, name: str, policy: str, words: Sequence[str], cores: int) -> int:
    """Run a stage of this file in an instance of its own; 0 if it did its work.

    An instance that was killed is resumed by the next job: what ended in it stays ended, the rest runs.
    """
    program = [sys.executable, "-P", __file__, f"--directory={directory}", *words]
    resume: list[str] = []
    for attempt in range(1, AGAIN + 1):
        start = ["fluxkv", "start", *(resume or [f"--policy={policy}"]), *program]
        job = executor.submit_command(start, key=f"{name}-{attempt}", name=name, cores_per_task=cores, retry=0)
        try:
            code = job.result()
            if 0 <= code < 128:
                return int(code != 0)
            why = f"killed ({code})"  # by a signal: itself, or its program
        except fluxkv.JobException as error:
            if error.type in ("cancel", "exec"):  # somebody's wish, or a program that is not there
                raise
            why = error.type
        say(f"{name}: {why}, resumed")
        resume = [f"--resume={job.jobid()}"]
    return 1


def report(directory: Path, took_s: float) -> None:
    """The ten best, and how long it took."""
    rows = json.loads((directory / "refined.json").read_text())
    print(f"refine:   {len(rows)} molecules\n\n{'MOLECULE':26} {'DOCKED':>9} {'REFINED':>9}")
    for after, before, molecule in rows[:10]:
        print(f"{molecule:26} {before:9.4f} {after:9.4f}")
    print(f"\n{took_s:.1f} s in this run; fluxkv tree and fluxkv jobs -a -R show what ran where")


def main() -> int:
    """The driver, or one of the programs that it starts in instances of their own."""
    parser = argparse.ArgumentParser(prog="python -m fluxkv.tools.screening", description="A drug screening, restarted at will.")
    parser.add_argument("--directory", default="screening", help="for everything it writes (default %(default)s)")
    parser.add_argument("--molecules", type=int, default=5000, help="how many are screened (default %(default)s)")
    parser.add_argument("--best", type=int, default=50, help="how many of them are refined (default %(default)s)")
    for name, kind in (("stage", str), ("part", int), ("parts", int), ("cores", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    directory = Path(os.path.abspath(options.directory))
    try:
        if options.stage == "screen":
            return 1 if screen(directory, options.part, options.parts) else 0
        if options.stage == "refine":
            return refine(directory, options.best, options.cores)
        return drive(directory, max(1, options.molecules), max(1, options.best))
    except (fluxkv.FluxkvError, OSError) as error:
        print(f"screening: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
