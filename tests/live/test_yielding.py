"""Daemons of an instance for floods of short jobs yield to what runs; nothing that they start has that from them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from live import PROGRAM, Site, site

pytestmark = pytest.mark.live
CLASS = [sys.executable, "-c", "import os; raise SystemExit(10 + os.sched_getscheduler(0))"]
MOVERS = ("worker-0", "agent", "launcher")


def classes(one: Site) -> dict[str, int]:
    return {role: os.sched_getscheduler(one.pid(role)) for role in ("keeper", "server", *MOVERS)}


@pytest.mark.skipif(not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"), reason="another C library")
def test_daemons_of_a_flood_yield_and_what_they_start_does_not(tmp_path: Path) -> None:
    mine = os.sched_getscheduler(0)
    assert mine == os.SCHED_OTHER
    yielding = {"keeper": mine, "server": mine, **dict.fromkeys(MOVERS, os.SCHED_BATCH)}
    with site(tmp_path, "--policy=throughput") as one:
        assert classes(one) == yielding
        plain = one.client.submit(CLASS)
        inside = one.client.submit([*PROGRAM, "start", *CLASS])
        assert one.results([int(plain), int(inside)]) == [10 + mine, 10 + mine]
        one.kill("keeper", "agent", "launcher")  # whoever finds that brings up others, which are the worker's children then
        assert one.results([int(one.client.submit(CLASS))]) == [10 + mine]
        assert classes(one) == yielding


def test_daemons_of_others_do_not(tmp_path: Path) -> None:
    with site(tmp_path) as one:
        assert set(classes(one).values()) == {os.sched_getscheduler(0)}
