"""The server's append-only file, cut short by some bytes while the server is dead: what must be said, and that it goes on."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

from live import PATIENCE_S, Site


def most_bytes(draw: random.Random) -> int:
    """1 to 10,000, small ones as often as large ones."""
    return round(10 ** draw.uniform(0, 4))


def cut(site: Site, count: int) -> tuple[int, int]:
    """Take so many bytes off the file. (last version before, last version that is left)."""
    tip = site.client.state().version
    site.witnessed(tip)
    log = Path(site.dir.log_file("keeper"))
    said = len(log.read_text())
    with site.server_dead():
        file = site.journal_file()
        size = file.stat().st_size
        with file.open("r+b") as opened:
            opened.truncate(max(0, size - count))
    deadline = time.monotonic() + PATIENCE_S
    while not re.search(r"history is whole|are lost", text := log.read_text()[said:]):
        assert time.monotonic() < deadline, (count, text, site.logs())
        time.sleep(0.02)
    left = int(site.ask("HGET", site.keys.meta, "version"))
    if left < tip:
        found = re.search(r"versions (\d+) to (\d+) are lost", text)
        assert found, (count, left, tip, text)
        assert int(found[1]) == left + 1, (count, text)
        assert int(found[2]) >= tip, (count, text)
    else:
        assert "are lost" not in text, (count, text)
    return tip, left


def go_on(site: Site) -> None:
    """Take the loss, and run a job."""
    report = site.run("ops", "adopt", "--json")
    assert report.returncode == 4, report
    assert json.loads(report.stdout)
    status = site.run("status").stdout
    assert "agent was given up" not in status, (status, site.logs())
    assert "worker-0 was given up" not in status, (status, site.logs())
    refused = site.run("submit", "true")
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    done = site.run("ops", "adopt", "--force")
    assert done.returncode == 0, done
