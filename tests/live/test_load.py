"""Many jobs that wait and many who wait for jobs, in small; `make soak SOAK=load` takes 100,000 and 10,000."""

from __future__ import annotations

from pathlib import Path

import pytest
from crowd import waiters, waiting_jobs
from live import site

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]  # others may use the machine


def test_a_crowd_of_jobs_and_of_waiters(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "2") as one:
        figures = waiting_jobs(one, 800)
        assert figures["worker, MiB"] < 150
        watched = waiters(one, 400)
        assert watched["clients while they wait"] <= watched["clients before"] + 3, "one subscription for all of them"
        print({**figures, **watched})
        one.sound()
