"""Reading commands on a real server, and on the state directory of one that is down."""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from fluxkv.kvs.redis_store import open_store
from fluxkv.kvs.server import start_server
from fluxkv.tools.main import cli

pytestmark = pytest.mark.live


def run(*args: str, uri: str = "") -> str:
    result = CliRunner().invoke(cli, args, env={"FLUXKV_URI": uri, "FLUXKV_STATE_DIR": ""})
    assert result.exit_code == 0, (args, result.output, result.exception)
    return result.output


def test_the_same_answers_up_and_down(sample_journal: ModuleType, tmp_path: Path) -> None:
    folder = str(tmp_path / "s")
    server = start_server(folder, "local")
    try:
        store = open_store(server.url)
        now = time.time()
        store.create(durability="local", origin_ms=int(now * 1000), created=now)
        writer = sample_journal.Writer(store)
        sample_journal.write(writer)
        writer.journal.save_snapshot(writer.journal.at(50))
        jobs = run("jobs", "-a", "-n", "-o", "{id} {status_abbrev} {info}", uri=server.url)
        assert len(jobs.splitlines()) == 14
        assert run("kvs", "put", "late=1", uri=server.url) == ""
        assert "equal to the live state at version 88" in run("replay", "--diff", "live", uri=server.url)
        assert "guards" in run("journal", "stats", uri=server.url)
        store.close()
    finally:
        server.stop()
    assert run("jobs", "-a", "-n", "-o", "{id} {status_abbrev} {info}", "--state-dir", folder) == jobs
    assert run("kvs", "get", "late", "conf.name", "--state-dir", folder) == "1\ndemo\n"
    assert "snapshot of version 50 agrees: sound" in run("journal", "verify", "--state-dir", folder)
    assert run("resource", "list", "-n", "-s", "free", "-o", "{ncores}", "--state-dir", folder) == "2\n"
    assert run("inspect", "node", "node2", "--state-dir", folder).startswith("node2 (rank 2): drained")
