"""An instance whose jobs may go ahead of one that waits, as long as they do not delay it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live


@pytest.mark.parametrize("policy", ["easy", "conservative"])
def test_small_jobs_go_ahead_of_a_large_one_that_waits(policy: str, base: Path, new_shell: Any) -> None:
    place = base / policy
    place.mkdir()
    shell = new_shell(place / "home", place)
    words = ["start", "--detach", "--state-dir", place / "i", "--cores", "4", "--policy", policy]
    shell.env["FLUXKV_URI"] = shell.ok(*words).split()[-1]
    try:
        running = shell.ok("submit", "-n3", "-t", "30m", "sleep", "1000").strip()
        shell.ok("job", "wait-event", running, "start")
        head = shell.ok("submit", "-n4", "-t", "5m", "true").strip()
        assert shell.ok("run", "-n1", "-t", "10m", "echo", "early") == "early\n"
        late = shell.ok("submit", "-n1", "-t", "40m", "true").strip()
        assert shell.ok("run", "-n1", "-t", "10m", "echo", "early") == "early\n"
        assert shell.ok("jobs", "-n", "-o", "{id} {state}", head, late).split() == [head, "SCHED", late, "SCHED"]
        shell.ok("cancel", running)
        shell.ok("job", "wait", head)
        shell.ok("job", "wait", late)
    finally:
        assert shell("stop", "--state-dir", place / "i").code == 0
