"""HAZARD 16: a server loses the guard table. Nobody writes, each error names the way out, tasks run on, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from live import site

pytestmark = pytest.mark.live


@pytest.mark.parametrize("down", [False, True], ids=["running", "all killed"])
def test_a_lost_guard_table_is_made_anew(down: bool, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with site(tmp_path, "--cores", "2") as one:
        assert one.run("queue", "disable", "default", "-m", "before").returncode == 0
        assert one.run("queue", "enable", "default").returncode == 0
        job = one.submit(f"echo $$ > {tmp_path}/began; until [ -e {go} ]; do sleep 0.02; done; exit 7")
        one.running(job)
        one.written(tmp_path / "began")
        one.ask("DEL", one.keys.guards)
        refused = one.run("submit", "true")
        assert refused.returncode == 4
        assert "fluxkv ops rebuild" in refused.stderr
        if down:
            one.kill("keeper", "worker-0", "agent", "server")
        where = ["--state-dir", one.dir.path] if down else ["--uri", one.uri]
        done = one.run("ops", "rebuild", *where)
        assert done.returncode == 0, done.stderr
        assert "made anew" in done.stderr
        one.start("--detach", "--state-dir", one.dir.path)
        assert one.run("submit", "true").returncode == 0
        go.touch()
        assert one.results([job, one.submit("exit 3")]) == [7, 3], "the task that ran was kept"
        assert one.events(job).count("alloc") == 1
        assert "nothing was done" in one.run("ops", "rebuild").stderr
        one.sound()
        one.no_traceback()
