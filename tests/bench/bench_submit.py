"""How long it takes to submit very many jobs by one command, printing their ids."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from pathlib import Path

from rig import PROGRAM, Figure, figure, instance

BUDGET_S = 5.0  # for 100,000


def many(count: int, repeats: int) -> list[Figure]:
    """`--cc` and `bulksubmit` into a stopped queue of an instance that is durable; its worker takes the jobs in meanwhile."""
    budget = BUDGET_S * count / 100_000
    seconds: dict[str, list[float]] = {"--cc": [], "bulksubmit": []}
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
                    start = time.perf_counter()
                    subprocess.run([PROGRAM, *words], env=env, stdout=file, check=True, timeout=300)
                    seconds[name].append(time.perf_counter() - start)
                lines = ids.read_bytes().count(b"\n")
                if lines != count:
                    raise RuntimeError(f"{name} printed {lines} ids of {count}")
                memory = max(memory, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        os.unlink(ids)
    title = f"{count:,} jobs submitted by one command, ids printed"
    note = f"at most {memory / 1024:.0f} MB in any command"
    return [figure(f"{title}: {name}", each, "s", budget, note=note) for name, each in seconds.items()]
