"""A daemon that cannot work, and a keeper that is killed: given up with the reason, restarted by any other, one at a time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from live import PATIENCE_S, Site, site

pytestmark = pytest.mark.live


def only_one_keeper(one: Site) -> None:
    """A lock decides who it is; others that were started at the same time leave."""
    deadline = time.monotonic() + PATIENCE_S
    while len(keepers := [line for line in one.processes().values() if "instances.main keeper" in line]) != 1:
        assert time.monotonic() < deadline, keepers
        time.sleep(0.02)


def test_given_up_with_the_reason_and_brought_back(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "2") as one:
        right = one.dir.read()
        one.dir.write({**right, "policy": "nosuch"})
        one.kill("worker-0")
        one.said("worker-0.failed", "no queue policy is called 'nosuch'")
        problem = one.run("status").stdout.splitlines()[0]
        assert problem.startswith("! the worker-0 was given up: worker-0 died 3 times within 30 s: ")
        assert "no queue policy is called 'nosuch'" in problem
        waits = one.submit("exit 3")  # nobody is needed for that
        # No worker lives: the agent sees to it that there is a keeper. It knows who was given up.
        before = one.pid("keeper")
        one.kill("keeper")
        assert one.pid("keeper") != before
        only_one_keeper(one)
        one.dir.write(right)
        one.start("--detach", "--state-dir", one.dir.path)
        assert one.results([waits]) == [3]
        assert "given up" not in one.run("status").stdout
        one.no_traceback()


def test_whoever_lives_starts_a_dead_keeper(tmp_path: Path) -> None:
    with site(tmp_path, "--cores", "2", "--workers", "2") as one:
        for round_ in range(2):
            before = one.pid("keeper")
            one.kill("keeper", *(["agent"] if round_ else ["worker-0", "worker-1"]))
            assert one.pid("keeper") != before
            assert one.results([one.submit("exit 4")]) == [4]
            only_one_keeper(one)
        one.sound()
