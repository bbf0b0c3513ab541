"""How a simulation is shown: a table of figures side by side, lines of jobs, JSON, a picture. Decides no rules."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..kvs.errors import Rejected

if TYPE_CHECKING:
    from ..schedulers.figures import Figures
    from ..schedulers.resources import Pool
    from ..schedulers.workload import Workload
    from .simulate_cmd import Outcome


def time_text(seconds: float) -> str:
    """Fit for comparing: "0s", "12.3s", "4m05s", "3h12m", "12d4h"."""
    if seconds < 60:
        return f"{seconds:.3g}s" if seconds < 10 else f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    minutes = round(seconds / 60)
    if minutes < 1440:
        return f"{minutes // 60}h{minutes % 60:02}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d{hours % 24:02}h"


def _rate(number: float) -> str:
    return f"{number:,.0f}/h" if number >= 100 else f"{number:.3g}/h"


ROWS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("jobs", lambda f: f"{f.jobs:,}"),
    ("makespan", lambda f: time_text(f.makespan_s)),
    ("wait, mean", lambda f: time_text(f.wait_mean_s)),
    ("wait, median", lambda f: time_text(f.wait_median_s)),
    ("wait, p95", lambda f: time_text(f.wait_p95_s)),
    ("wait, max", lambda f: time_text(f.wait_max_s)),
    ("bounded slowdown, mean", lambda f: f"{f.slowdown_mean:,.2f}"),
    ("bounded slowdown, max", lambda f: f"{f.slowdown_max:,.1f}"),
    ("utilisation", lambda f: f"{100 * f.utilisation:.1f}%"),
    ("throughput", lambda f: _rate(f.throughput)),
    ("started by backfill", lambda f: "-" if f.backfilled < 0 else f"{f.backfilled:,}"),
)


def print_table(workload: Workload, outcomes: list[Outcome], pool: Pool) -> None:
    """Figures, a column for each policy; what was supposed goes to standard error."""
    from . import render

    for note in workload.notes:
        render.say(f"note: {note}")
    rows = [[name, *(value(one.figures) for one in outcomes)] for name, value in ROWS]
    if any(one.figures.never for one in outcomes):
        rows.append(["never started", *(f"{one.figures.never:,}" for one in outcomes)])
    render.table([_about(pool), *(one.name for one in outcomes)], rows, right=range(1, len(outcomes) + 1))


def _about(pool: Pool) -> str:
    from ..schedulers.workload import several

    cores = sum(node.cores.bit_count() for node in pool.nodes)
    gpus = sum(node.gpus.bit_count() for node in pool.nodes)
    with_gpus = f", {several(gpus, 'GPU')}" if gpus else ""
    return f"{several(len(pool.nodes), 'node')}, {several(cores, 'core')}{with_gpus}"


def print_json(workload: Workload, outcomes: list[Outcome], pool: Pool) -> None:
    """One document: the figures of each, in seconds."""
    from . import render

    policies = []
    for one in outcomes:
        values = one.figures._asdict()
        if one.figures.backfilled < 0:
            values["backfilled"] = None
        policies.append({"policy": one.name, **values})
    cores = sum(node.cores.bit_count() for node in pool.nodes)
    render.print_json({"nodes": len(pool.nodes), "cores": cores, "notes": workload.notes, "policies": policies})


COLUMNS = ("policy", "id", "name", "user", "queue", "submit", "ready", "start", "end", "wait", "slowdown", "nodes", "cores",
           "backfilled")  # fmt: skip


def job_rows(workload: Workload, outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """A row for each job and policy, by start. Times are the workload's own (Unix seconds, or from its beginning)."""
    from ..schedulers.figures import cores_held, slowdown

    works = {work.job: work for work in workload.works}
    rows = []
    for outcome in outcomes:
        for one in outcome.begun:
            work, label = works[one.job], workload.labels[one.job]
            rows.append({
                "policy": outcome.name, "id": label.id, "name": label.name, "user": label.user, "queue": work.queue,
                "submit": round(work.submit, 6), "ready": round(one.ready, 6), "start": round(one.start, 6),
                "end": round(one.end, 6), "wait": round(one.start - one.ready, 6), "slowdown": round(slowdown(one), 4),
                "nodes": len(one.claims) or None, "cores": cores_held(one, works),
                "backfilled": one.backfilled if outcome.figures.backfilled >= 0 else None,
            })  # fmt: skip
    return rows


def print_jobs(workload: Workload, outcomes: list[Outcome], form: str) -> None:
    """Jobs as a table, CSV or JSON lines."""
    from . import render

    rows = job_rows(workload, outcomes)
    for note in workload.notes:
        render.say(f"note: {note}")
    if form == "json":
        for row in rows:
            render.print_json(row)
        return
    if form == "csv":
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow(["" if row[name] is None else row[name] for name in COLUMNS])
        return
    several_policies = len(outcomes) > 1
    first = min(one.ready for outcome in outcomes for one in outcome.begun)
    clock = render.human_time if workload.epoch else lambda t: time_text(t - first)
    headers = ["POLICY"] * several_policies + ["JOBID", "NAME", "CORES", "SUBMIT", "START", "WAIT", "RUN", "BF"]
    cells = [
        [row["policy"]] * several_policies
        + [row["id"], row["name"][:12], row["cores"], clock(row["ready"]), clock(row["start"]), time_text(row["wait"]),
           time_text(row["end"] - row["start"]), {True: "yes", False: "", None: "-"}[row["backfilled"]]]
        for row in rows
    ]  # fmt: skip
    at = int(several_policies)
    render.table(headers, cells, right=(at + 2, at + 3, at + 4, at + 5, at + 6))


def check_picture(path: str) -> None:
    """Refuse, before anything is simulated, what no picture can be written to."""
    if path == "-" or path.lower().endswith(".svg"):
        return
    hint = "name a file that ends in .svg: every browser shows it, rsvg-convert and Inkscape make a PNG of it"
    raise Rejected(f"{path}: pictures are SVG", code="bad-file", hint=hint)


def write_picture(path: str, workload: Workload, outcomes: list[Outcome], pool: Pool) -> None:
    """Write the picture, and say how large it is."""

    from ..schedulers.workload import Begun
    from .gantt import Panel, picture
    from .render import write

    began = min((one.start for outcome in outcomes for one in outcome.begun), default=0.0)
    held = [Begun(one.job, began, max(began, workload.begin), one.end, one.claims, False) for one in workload.held]
    panels = [Panel(one.name, one.begun, held) for one in outcomes if one.begun and one.begun[0].claims]
    labels = {job: label.id for job, label in workload.labels.items()}
    text = picture(panels, pool.nodes, labels, workload.epoch)
    write(path, text)
