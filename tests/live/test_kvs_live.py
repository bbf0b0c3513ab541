"""The user's KVS on real daemons: watchers outlive a server and a worker that are killed; what replay makes is what is live."""

from __future__ import annotations

import threading
from pathlib import Path
from subprocess import PIPE

import live
import pytest

from fluxkv.instances.client import connect

pytestmark = pytest.mark.live


def test_watchers_and_writers_outlive_the_server_and_the_worker(tmp_path: Path) -> None:
    with live.site(tmp_path) as site:
        kvs = site.client.kvs
        kvs.journal.store.patience_s = kvs.journal.patience_s = live.PATIENCE_S
        kvs.create_namespace("results")
        kvs.put({"run.step": "0"})
        kvs.append_event("run.log", "begun")
        watcher = site.popen("kvs", "watch", "-c", "5", "--uri", site.uri, "run", stdout=PIPE)
        assert "run.log = " in watcher.stdout.readline()
        assert watcher.stdout.readline().endswith("run.step = 0\n")
        words = ["kvs", "eventlog", "wait-event", "-v", "--uri", site.uri, "run.log", "done"]
        logs = site.popen(*words, stdout=PIPE, stderr=PIPE)
        assert logs.stdout.readline().split()[1:] == ["begun"]  # it follows by now
        counted: list[int] = []

        def count() -> None:
            with connect(site.uri) as client:
                for _ in range(20):
                    client.kvs.update("count", lambda old: str(int(old or b"0") + 1))
                counted.append(1)

        threads = [threading.Thread(target=count) for _ in range(2)]
        for thread in threads:
            thread.start()
        kvs.put("run.step", "1")
        site.kill("worker-0")
        kvs.namespace("results").put("best", "0.25")
        for thread in threads:
            thread.join()
        site.kill("server")
        kvs.put("run.step", "2")  # waits for the keeper to bring the server back
        kvs.append_event("run.log", "done")
        out, _ = watcher.communicate(timeout=live.PATIENCE_S)
        assert [line.partition(" ")[2] for line in out.splitlines()][:2] == ["run.step = 1", "run.step = 2"], out
        assert "run.log = " in out, out
        out, error = logs.communicate(timeout=live.PATIENCE_S)
        assert (logs.returncode, out.split()[1:2]) == (0, ["done"]), (out, error)
        assert counted == [1, 1]
        assert kvs.get("count") == b"40"
        site.results([site.submit("true")])  # a worker's commit carries the digest of all this
        done = site.run("replay", "--diff", "live")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "equal" in done.stdout
        site.stop()
        site.up()
        assert site.run("kvs", "get", "-N", "results", "best").stdout == "0.25\n"
        site.no_traceback()
