"""A host that only plans: when everything on the host that was started first is gone, jobs are placed and run on the others."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from live import site
from servers import Served

from fluxkv.instances.paths import StateDir, lock_holder
from fluxkv.journal.ids import parse_id

pytestmark = pytest.mark.live


def test_another_host_plans_when_the_first_is_gone(tmp_path: Path) -> None:
    with Served(tmp_path / "s") as served, site(tmp_path / "i", start=False) as made:
        made.up("--redis", served.url, "--cores", "2", "--policy", "easy")
        address = made.run("uri", "--remote").stdout.strip()
        node, plans = StateDir(str(tmp_path / "node")), StateDir(str(tmp_path / "plans"))
        try:
            agent = made.run("agent", "--join", address, "--name", "n1", "--cores", "2", "--state-dir", node.path, "--detach")
            assert agent.returncode == 0, agent.stderr
            joined = made.run("worker", "--join", address, "--name", "h2", "--state-dir", plans.path, "--detach")
            assert (joined.returncode, "(policy easy)" in joined.stderr) == (0, True), joined.stderr
            twice = made.run("worker", "--join", address, "--name", "h2", "--state-dir", plans.path)
            assert (twice.returncode, "joined already" in twice.stderr) == (1, True), twice.stderr
            wrong = made.run("worker", "--join", address, "--state-dir", node.path)
            assert (wrong.returncode, "a node has joined from here" in wrong.stderr or "runs" in wrong.stderr) == (1, True)
            made.kill("keeper", "worker-0", "agent", "launcher", signum=signal.SIGSTOP)  # so that none starts another
            made.kill("keeper", "worker-0", "agent", "launcher")
            left = parse_id(made.run("submit", "--requires=host:n1", "true").stdout.strip())
            assert made.results([left]) == [0]
            pid = lock_holder(plans.lock_file("worker-0@h2"))
            assert pid
            assert made.run("stop", "--state-dir", plans.path).returncode == 0
            assert made.run("status", "--state-dir", made.dir.path).returncode in (0, 1)
            made.up()
            assert made.results([made.submit("true")]) == [0]
        finally:
            for directory in (plans, node):
                made.run("stop", "--state-dir", directory.path)
