"""A graph of resources under real daemons: requests for what is above nodes, a worker that dies, changes, and a child's share."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import live
import pytest
from trees import racks, vertex

from fluxkv.schedulers.tree.record import jgf_of, to_record

pytestmark = pytest.mark.live

POWER = "/cluster0/rack0/power0"


def spec(folder: Path, command: list[str], *resources: dict[str, Any]) -> str:
    path = folder / f"{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps({
        "version": 1, "resources": list(resources), "tasks": [{"command": command, "slot": "t", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 60.0}},
    }))  # fmt: skip
    return str(path)


def powered(folder: Path, kilowatts: int, *command: str) -> str:
    slot = vertex("slot", 1, vertex("core", 1), label="t")
    return spec(folder, list(command), vertex("rack", 1, vertex("power", kilowatts), vertex("node", 1, slot)))


def test_power_is_shared_and_everything_outlives_a_worker(tmp_path: Path) -> None:
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps(jgf_of(to_record(racks(1, 2, 2)))))
    with live.site(tmp_path, "--resources", str(graph)) as site:

        def submit(path: str) -> str:
            done = site.run("job", "submit", path)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        word = tmp_path / "word"
        first = submit(powered(tmp_path, 8, "sh", "-c", f"until test -e {word}; do sleep 0.02; done"))
        second = submit(powered(tmp_path, 8, "true"))
        state = site.until(lambda s: s.drawn and any(job.reason[0] for job in s.jobs.values()), "one runs, one waits")
        assert state.drawn == {POWER: [8, 0]}
        site.kill("worker-0")
        refused = site.run("resource", "remove", POWER)
        assert (refused.returncode, "jobs draw on" in refused.stderr) == (1, True), refused.stderr
        R = json.loads(site.run("job", "info", first, "R").stdout)
        assert {one["metadata"]["name"]: one["metadata"]["size"] for one in R["scheduling"]["graph"]["nodes"]}["power0"] == 8
        whole = tmp_path / "R.json"
        whole.write_text(site.run("resource", "R").stdout)
        assert site.run("resource", "reload", str(whole)).stderr == "fluxkv: nothing has changed\n"
        word.touch()
        for id in (first, second):
            assert site.run("job", "status", id).returncode == 0
        shown = site.run("resource", "property", "set", POWER, "colour=green")
        assert shown.stderr == f"fluxkv: properties of {POWER}\n"
        program = shlex.join(live.PROGRAM)
        script = tmp_path / "inside"
        script.write_text(f"exec {program} resource show --json --path {POWER} > {tmp_path}/shown\n")
        child = submit(powered(tmp_path, 3, *live.PROGRAM, "start", "sh", str(script)))
        assert site.run("job", "status", child).returncode == 0
        assert '"size":3' in (tmp_path / "shown").read_text().replace(" ", "")
        site.sound()
