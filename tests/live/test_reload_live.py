"""Another inventory under a running instance: new nodes come up by themselves, what runs goes on, what is in use stays."""

from __future__ import annotations

import json
from pathlib import Path

import live
import pytest

pytestmark = pytest.mark.live



def R(path: Path, ranks: str, *hosts: str) -> str:
    document = {"version": 1, "execution": {"R_lite": [{"rank": ranks, "children": {"core": "0-1"}}], "nodelist": [*hosts]}}
    path.write_text(json.dumps(document))
    return str(path)


def test_nodes_come_and_go(tmp_path: Path) -> None:
    with live.site(tmp_path, "-s", "1", "--cores", "2") as site:
        host = site.client.state().nodes[0].host
        word = tmp_path / "word"
        long = site.submit(f"until test -e {word}; do sleep 0.02; done; exit 5")
        site.running(long)
        done = site.run("resource", "reload", R(tmp_path / "a", "0-2", host, "b", "c"))
        assert (done.returncode, "added b,c (ranks 1-2)" in done.stderr) == (0, True), done.stderr
        both = int(site.client.submit(["sh", "-c", "echo $FLUXKV_NODE_RANK"], env=site.env, nodes=2, ntasks=2, cores_per_task=2))
        assert site.results([both]) == [0]
        site.kill("agent")  # the next one reads the inventory as it is
        refused = site.run("resource", "reload", R(tmp_path / "b", "1-2", "b", "c"))
        assert (refused.returncode, "rank 0" in refused.stderr) == (1, True)
        done = site.run("resource", "reload", R(tmp_path / "c", "0,2", host, "c"))
        assert (done.returncode, done.stderr) == (0, "fluxkv: removed b (rank 1)\n")
        site.until(lambda s: s.nodes[2].online and sorted(s.nodes) == [0, 2], "two nodes")
        word.touch()
        assert site.results([long, site.submit("exit 0")]) == [5, 0]
        site.sound()
