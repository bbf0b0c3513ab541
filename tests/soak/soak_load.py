"""100,000 active jobs, 10,000 waiters (`make soak SOAK=load`). FLUXKV_SOAK_JOBS, FLUXKV_SOAK_WAITERS say otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from crowd import waiters, waiting_jobs
from live import site

JOBS = int(os.environ.get("FLUXKV_SOAK_JOBS", "100000"))
WAITERS = int(os.environ.get("FLUXKV_SOAK_WAITERS", "10000"))
PATIENCE_S = 900.0


def busy() -> float:
    """How much longer than on a quiet machine things may take."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def show(figures: dict[str, float]) -> None:
    lines = [f"{name}: {value:.2f}" for name, value in figures.items()]
    print("", *lines, f"(load {os.getloadavg()[0]:.1f})", sep="\n  ", flush=True)


def test_so_many_active_jobs(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "2") as one:
        figures = waiting_jobs(one, JOBS, PATIENCE_S)
        show(figures)
        assert figures["worker, MiB"] <= 1024
        assert figures["new worker, MiB"] <= 1024
        assert figures["take-over of the worker"] <= 5.0 * busy()
        assert figures["fluxkv submit"] <= 1.0 * busy()
        one.sound(timeout=900.0)


def test_so_many_waiters_at_a_flat_price(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "2") as one:
        few = waiters(one, max(1, WAITERS // 10), PATIENCE_S)
        many = waiters(one, WAITERS, PATIENCE_S)
        show(few)
        show(many)
        for figures in (few, many):
            assert figures["clients while they wait"] <= figures["clients before"] + 3
        assert many["ms of processor for each"] <= 2 * few["ms of processor for each"] + 0.1
