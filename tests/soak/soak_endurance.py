"""An hour of short jobs (`make soak SOAK=endurance SOAK_S=3600`): memory, descriptors and lag are sampled, and must be flat.

Flat: the straight line through the samples, without the first quarter, rises by no more from its beginning to its end than noise
does. What grows by design is taken off first.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from live import Site, fds, rss_kib, site

SECONDS = float(os.environ.get("FLUXKV_SOAK_S", "3600"))
SAMPLE_S = max(1.0, SECONDS / 240)
ACTIVE = 20
ROLES = ("worker-0", "agent", "launcher", "keeper", "server")
# By design, KiB for each job, up to so many: records of the live state with their packed copies, forms of ids that are remembered,
# the journal.
JOB_KIB = {"worker-0": (2.6, 20_000), "agent": (0.3, 65_536), "server": (0.8, 1 << 40)}
NOISE = {"KiB": 8192.0, "descriptors": 2.0, "lag": 0.25}


def rise(samples: list[tuple[float, float]]) -> float:
    """How far the least-squares line through (time, value) rises between its ends."""
    settled = samples[len(samples) // 4 :]
    mean_t = sum(t for t, _ in settled) / len(settled)
    mean_v = sum(v for _, v in settled) / len(settled)
    over = sum((t - mean_t) * (v - mean_v) for t, v in settled)
    under = sum((t - mean_t) ** 2 for t, _ in settled)
    return over / under * (settled[-1][0] - settled[0][0]) if under else 0.0


def sample(one: Site, series: dict[str, list[tuple[float, float]]], began: float, jobs: int) -> None:
    now = time.monotonic() - began
    for role in ROLES:
        pid = one.pid(role)
        each, most = JOB_KIB.get(role, (0.0, 0))
        series.setdefault(f"{role} KiB", []).append((now, rss_kib(pid) - each * min(jobs, most)))
        series.setdefault(f"{role} descriptors", []).append((now, float(fds(pid))))
    asked = time.monotonic()
    assert one.client.submit(["true"], urgency=31).wait(60).ok
    series.setdefault("lag", []).append((now, time.monotonic() - asked))


def test_flat(tmp_path: Path) -> None:
    series: dict[str, list[tuple[float, float]]] = {}
    with site(tmp_path, "--cores", "4") as one:
        began = due = time.monotonic()
        ended, ids = 0, [int(one.client.submit(["sleep", "0.1"])) for _ in range(ACTIVE)]
        while time.monotonic() - began < SECONDS:
            for result in one.client.as_ended(ids[:ACTIVE], timeout=120):
                assert result.ok, result
                ended += 1
            ids = one.submit_many([["sleep", "0.1"]] * ACTIVE)
            if time.monotonic() >= due:
                due += SAMPLE_S
                sample(one, series, began, ended)
        report = {name: (values[0][1], values[-1][1], rise(values)) for name, values in series.items()}
        for name, (first, last, risen) in report.items():
            print(f"\n{name}: {first:.2f} at first, {last:.2f} at last, the line rises by {risen:.2f}", end="", flush=True)
        print(f"\n{ended} jobs in {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True)
        for name, (_, _, risen) in report.items():
            assert risen <= NOISE[name.rpartition(" ")[2]], (name, risen)
        one.sound(timeout=900.0)
