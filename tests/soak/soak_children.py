"""64 instances inside jobs at once (`make soak SOAK=children`), and nothing of them left. FLUXKV_SOAK_CHILDREN says otherwise."""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from pathlib import Path

from live import PATIENCE_S, inside, site

from fluxkv.instances.child import child_uri
from fluxkv.journal.ids import parse_id
from fluxkv.kvs.redis_store import open_store

CHILDREN = int(os.environ.get("FLUXKV_SOAK_CHILDREN", "64"))
FLUXKV = str(Path(sys.executable).with_name("fluxkv"))
QUIET_S = 25.0  # half a second of processor for each, to start and to end; two cores


def test_so_many_children_at_once(tmp_path: Path) -> None:
    """Each waits until all are there, runs a job, and ends; each has a user, and is sealed; all are in `tree`."""
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    with site(tmp_path, "--cores", str(CHILDREN)) as one:
        up = tmp_path / "up"
        up.mkdir()
        script = f'touch {up}/$1; until [ "$(ls {up} | wc -l)" = {CHILDREN} ]; do sleep 0.1; done; fluxkv run true'
        began = time.monotonic()
        done = one.run("submit", f"--cc=1-{CHILDREN}", FLUXKV, "start", "sh", "-c", script, "sh", "{cc}")
        assert done.returncode == 0, done.stderr
        ids = list(map(parse_id, done.stdout.split()))
        while len(os.listdir(up)) < CHILDREN:
            state = one.client.state()
            assert not any(state.jobs[id].t_inactive for id in ids), one.run("jobs", "-a").stdout
            assert time.monotonic() - began < PATIENCE_S * busy, f"{len(os.listdir(up))} of {CHILDREN}: {one.logs()[-2000:]}"
            time.sleep(0.05)
        all_up = time.monotonic() - began
        most = len(one.ask("ACL", "USERS")) - 1
        one.until(lambda state: all(state.jobs[id].t_inactive for id in ids), "all are over", PATIENCE_S * busy)
        took = time.monotonic() - began
        print(f"\n  {CHILDREN} children: all up after {all_up:.1f} s, over after {took:.1f} s (load {os.getloadavg()[0]:.1f})")
        assert set(one.results(ids)) == {0}
        assert most == CHILDREN
        assert took < QUIET_S or busy > 1.0, "on a machine that is busy with other things the figure says nothing"
        while one.client.store.children():
            time.sleep(0.05)
        assert one.ask("ACL", "USERS") == [b"default"]
        for id in ids:
            with closing(open_store(child_uri(one.uri, id))) as store:
                assert store.meta().sealed
        assert not [pid for pid in one.processes() if inside(pid)]
        one.sound()
