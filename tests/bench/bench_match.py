"""How fast the matcher is, beside its budgets. Run it, or import `figures()`."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from rig import micros

from fluxkv.journal.rset import NodeRecord
from fluxkv.schedulers.fcfs import Fcfs
from fluxkv.schedulers.policy import Pending, Place
from fluxkv.schedulers.request import Request, compile_request
from fluxkv.schedulers.resources import Pool, Unmatched

CORES = 32


def _ask(nnodes: int, nslots: int, cores: int, exclusive: bool = False) -> Request:
    return compile_request(_jobspec(nnodes, nslots, cores, exclusive))


def _jobspec(nnodes: int, nslots: int, cores: int, exclusive: bool = False) -> dict[str, Any]:
    top: dict[str, Any] = {
        "type": "slot",
        "count": nslots,
        "label": "t",
        "with": [{"type": "core", "count": cores}],
    }
    if nnodes:
        top = {"type": "node", "count": nnodes, "exclusive": exclusive, "with": [top]}
    return {"resources": [top]}


def _pool(count: int) -> Pool:
    return Pool(NodeRecord(i, f"n{i}", (1 << CORES) - 1, 0, 0, ()) for i in range(count))


def _filled(count: int, share: float) -> Pool:
    """A pool with this share of its nodes full (the low ranks, so that what is free comes last)."""
    pool = _pool(count)
    full = int(count * share)
    if full:
        got = pool.match(_ask(full, 1, CORES))
        assert not isinstance(got, Unmatched)
        pool.take(got)
    return pool


def figures() -> list[dict[str, Any]]:
    """`[{name, value, unit, budget}, ...]`. A budget is the most allowed, or for a rate ("/s") the least."""
    found: list[dict[str, Any]] = []

    def add(name: str, value: float, unit: str, budget: float | None) -> None:
        found.append({"name": name, "value": round(value, 2), "unit": unit, "budget": budget})

    one, one_spec = _ask(0, 1, 1), _jobspec(0, 1, 1)
    for count in (1, 16, 64):
        pool = _pool(count)
        add(f"match 1 core, {count} nodes", micros(lambda pool=pool: pool.match(one), 2000), "us", 10)
    for count, budget in ((1024, 1000.0), (4096, 3000.0)):
        for word, share in (("empty", 0.0), ("half full", 0.5), ("nearly full", 0.99)):
            pool = _filled(count, share)
            left = count - int(count * share)
            for text, request in (
                ("1 core", one),
                ("8 whole nodes", _ask(8, 1, CORES)),
                (f"all {left} free nodes", _ask(left, 1, CORES)),
                (f"all {left} free nodes, exclusive", _ask(left, 1, 1, True)),
                ("one node too many", _ask(left + 1, 1, CORES)),
                (f"{left * 8} four-core slots", _ask(0, left * 8, 4)),
            ):
                value = micros(lambda pool=pool, request=request: pool.match(request), 20)
                add(f"match {text}, {count} nodes {word}", value, "us", budget)
    everything = _ask(4096, 1, CORES)
    pool = _pool(4096)
    got = pool.match(everything)
    assert not isinstance(got, Unmatched)
    add("take and give 4096 nodes", micros(lambda: (pool.take(got), pool.give(got)), 3), "us", None)
    add("fill 1024 nodes with 8192 four-core jobs", _fill(), "/s", 2400)
    add("the same through fcfs", _fill_by_policy(), "/s", 2400)
    add(
        "compile a request seen before",
        micros(lambda: compile_request(one_spec), 2000),
        "us",
        10,
    )
    return found


def _fill() -> float:
    pool, request = _pool(1024), _ask(0, 1, 4)
    start = perf_counter()
    for _ in range(8192):
        got = pool.match(request)
        assert not isinstance(got, Unmatched)
        pool.take(got)
    return 8192 / (perf_counter() - start)


def _fill_by_policy() -> float:
    pool, request = _pool(1024), _ask(0, 1, 4)
    pending = [Pending(job, 16, job, request) for job in range(10_000)]
    start = perf_counter()
    placed = sum(isinstance(decision, Place) for decision in Fcfs().plan(pending, pool, 0.0))
    assert placed == 8192
    return placed / (perf_counter() - start)


def main() -> None:
    """Print the figures beside their budgets."""
    for line in figures():
        budget, value = line["budget"], line["value"]
        within = budget is None or (value >= budget if line["unit"] == "/s" else value <= budget)
        shown = "" if budget is None else f"budget {budget:>8,.0f}  {'ok' if within else 'MISSED'}"
        print(f"{line['name']:<58} {value:>12,.2f} {line['unit']:<3} {shown}")


if __name__ == "__main__":
    main()
