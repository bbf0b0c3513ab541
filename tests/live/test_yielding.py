"""Daemons of one-core instances that share their CPUs yield to what runs; nothing that they start has that from them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from live import site

from fluxkv.instances.discover import cpus_by_core

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(len(cpus_by_core()) < 2, reason="one core: whatever runs is bound to it"),
    pytest.mark.skipif(not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"), reason="another C library"),
]
MANY = str(4 * len(cpus_by_core()))
# Its launcher's, and whether it and what it starts are scheduled as ever.
CLASS = "import os; os._exit(os.sched_getscheduler(os.getppid()) + 10 * os.sched_getscheduler(0))"


@pytest.mark.parametrize(
    ("options", "per_node", "found"),
    [
        (("-s", "1", "--cores", MANY), int(MANY), os.SCHED_BATCH),
        (("-s", "1", "--cores", MANY), 2, os.SCHED_OTHER),  # several slots each
        ((), len(cpus_by_core()), os.SCHED_OTHER),  # each has its own
    ],
    ids=["shared", "slots", "bound"],
)
def test_only_those_that_share_their_cpus_yield(options: tuple[str, ...], per_node: int, found: int, tmp_path: Path) -> None:
    with site(tmp_path, *options) as one:
        job = one.client.submit_ensemble([sys.executable, "-c", CLASS], range(4), per_node=per_node, env=one.env)
        with one.client.ensemble(job) as view:
            view.wait(40)
            assert [row.status >> 8 for _, _, row in view.rows()] == [found] * 4


def test_an_instance_that_is_no_job_does_not(tmp_path: Path) -> None:
    with site(tmp_path, "--policy=throughput") as one:
        assert {os.sched_getscheduler(one.pid(role)) for role in ("worker-0", "agent", "launcher")} == {os.SCHED_OTHER}
