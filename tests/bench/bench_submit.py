"""How long it takes to submit very many jobs by one command, printing their ids."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from pathlib import Path

from rig import PROGRAM, Figure, figure, instance

FULL = 100_000
BUDGET_S = 5.0  # for so many


def many(count: int, repeats: int) -> list[Figure]:
    """`--cc` and `bulksubmit` into a stopped queue of an instance that is durable; its worker takes the jobs in meanwhile."""
    budget = BUDGET_S if count == FULL else None
    seconds: dict[str, list[float]] = {"--cc": [], "bulksubmit": []}
    busy: dict[str, float] = {}
    memory = 0
    with instance("-s", "1", "--cores", "2") as rig:
        env = rig.environment()
        subprocess.run([PROGRAM, "queue", "stop"], env=env, check=True, capture_output=True)
        inputs, ids = Path(rig.folder, "inputs"), Path(rig.folder, "ids")
        inputs.write_text("".join(f"{number}\n" for number in range(count)))
        for _ in range(repeats):
            for name, words in (
                ("--cc", ["submit", f"--cc=1-{count}", "true", "{cc}"]),
                ("bulksubmit", ["bulksubmit", "--output=out.{}", "true", "{}", "::::", str(inputs)]),
            ):
                with ids.open("wb") as file:
                    start, used = time.perf_counter(), _children_s()
                    subprocess.run([PROGRAM, *words], env=env, stdout=file, check=True, timeout=300)
                    seconds[name].append(time.perf_counter() - start)
                    busy[name] = _children_s() - used
                lines = ids.read_bytes().count(b"\n")
                if lines != count:
                    raise RuntimeError(f"{name} printed {lines} ids of {count}")
                memory = max(memory, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        os.unlink(ids)
    title = f"{count:,} jobs submitted by one command, ids printed"
    return [
        figure(f"{title}: {name}", each, "s", budget, note=f"{busy[name]:.1f} s of a core, at most {memory / 1024:.0f} MB")
        for name, each in seconds.items()
    ]


def _children_s() -> float:
    """Processor time of commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
