"""Tasks of an instance inside an instance are bound to their job's CPUs, or to none: never to those of others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from live import PROGRAM, Site, site

from fluxkv.instances.discover import cpus_by_core

CORES = cpus_by_core()
pytestmark = [pytest.mark.live, pytest.mark.skipif(len(CORES) < 2, reason="one core: whatever runs is bound to it")]
WHOLE = sorted(os.sched_getaffinity(0))
SHOW = "import os, sys; open(sys.argv[1], 'w').write(str(sorted(os.sched_getaffinity(0))))"


def inside(one: Site, where: Path, depth: int = 1) -> str:
    """Where a task of one core may run that many instances below."""
    command = [sys.executable, "-c", SHOW, str(where)]
    for _ in range(depth):
        command = [*PROGRAM, "start", *PROGRAM, "run", *command]
    assert one.results([int(one.client.submit(command, ntasks=1))]) == [0]
    return where.read_text()


@pytest.mark.parametrize(
    "options", [("-s", "1", "--cores", str(4 * len(CORES))), ("-s", "2", "--cores", "1")], ids=["more-cores", "two-nodes"]
)
def test_where_an_instance_binds_nothing_none_inside_does(options: tuple[str, ...], tmp_path: Path) -> None:
    """Each child would take the first CPU for its only core, and all of them would share that one."""
    with site(tmp_path, *options) as one:
        assert inside(one, tmp_path / "one") == str(WHOLE)
        assert inside(one, tmp_path / "two", depth=2) == str(WHOLE)


def test_where_an_instance_binds_each_inside_has_its_job_s_cores(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "held")
    with site(tmp_path) as one:
        other = one.submit(f"cat {tmp_path / 'held'}", ntasks=1)
        one.running(other)
        found = {inside(one, tmp_path / "one"), inside(one, tmp_path / "two", depth=2)}
        with open(tmp_path / "held", "w"):
            pass
        assert one.results([other]) == [0]
    assert found == {str(CORES[1])}
