"""The keeper's archiver at work: history leaves the server by itself, the instance comes up without it, and knows it all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live
import pytest

from fluxkv.journal.wire import unpack
from fluxkv.kvs.keys import Keys

pytestmark = pytest.mark.live

CONFIG = """
[archive]
url = "{place}"
after = "0s"
every = "1s"

[retention]
keep = "0s"
keep-commits = 5
"""


def log_lines(site: live.Site, word: str) -> Iterator[str]:
    """Lines of the daemons' log with a word in them, as they come."""
    store: Any = site.client.store
    key = Keys(store.namespace).log
    subscription = store.subscribe({key: "0"})
    deadline = time.monotonic() + live.PATIENCE_S
    try:
        while time.monotonic() < deadline:
            for _, messages in subscription.poll(1.0):
                for message in messages:
                    text = unpack(message.data)[3]
                    if word in text:
                        yield text
        raise AssertionError(f"nobody said {word!r}: {site.logs()}")
    finally:
        subscription.close()


def test_history_leaves_the_server_and_is_known(tmp_path: Path) -> None:
    config = tmp_path / "site.toml"
    config.write_text(CONFIG.format(place=tmp_path / "archive"))
    with live.site(tmp_path, "--fake", "-s", "2", "--cores", "8", "--config", str(config)) as site:
        ids = site.client.submit_many([["true"]] * 60)
        site.client.wait(ids, live.PATIENCE_S)
        end = site.client.store.meta().version
        for line in log_lines(site, "taken out of the server"):
            if int(line.split()[3]) >= end - 5:
                break
        meta = site.client.store.meta()
        assert meta.first > end - 5
        assert meta.archive == str(tmp_path / "archive")
        site.kill("worker-0", "keeper", "agent", "server")
        site.up()  # from snapshot and what is left
        (more,) = site.client.submit_many([["true"]])
        site.client.wait([more], live.PATIENCE_S)
        done = site.run("jobs", "-a", "-o", "{id} {result}")
        assert done.stdout.count("COMPLETED") == 61, done.stderr
        assert site.run("job", "eventlog", str(ids[0])).stdout.count("\n") > 8
        done = site.run("journal", "verify")
        assert done.returncode == 0, done.stdout
        assert "sound" in done.stdout
        site.stop()
        (tmp_path / "archive").rename(tmp_path / "elsewhere")
        done = site.run("jobs", "-a", "--state-dir", site.dir.path)
        assert done.stdout.count("\n") == 62, done.stderr
        done = site.run("replay", "--state-dir", site.dir.path)
        assert done.returncode == 3
        assert f"no longer in the server, and the archive {tmp_path / 'archive'}" in done.stderr
        site.env["FLUXKV_ARCHIVE"] = str(tmp_path / "elsewhere")
        assert site.run("replay", "--state-dir", site.dir.path).returncode == 0
        del site.env["FLUXKV_ARCHIVE"]
        (tmp_path / "elsewhere").rename(Path(site.dir.path) / "archive")  # as in a state directory that was moved as a whole
        assert site.run("replay", "--state-dir", site.dir.path).returncode == 0
