"""Instances inside jobs, as people make them: batch and alloc, what they see inside, and what is left when they end."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances.child import child_uri
from fluxkv.instances.client import connect
from fluxkv.journal.ids import f58, parse_id

pytestmark = pytest.mark.live


def _support() -> Any:
    name = "fluxkv_tests_live"
    if name not in sys.modules:
        path = Path(__file__).parent.parent / "support" / "live.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


live = _support()


def left_inside(site: Any) -> dict[int, str]:
    return {pid: line for pid, line in site.processes().items() if live.inside(pid)}


def test_a_batch_script_from_anywhere(tmp_path: Path) -> None:
    """The script is gone when the job runs; its options count, its code is the job's, its commands are the child's."""
    with live.site(tmp_path, "--cores", "2") as site:
        script = tmp_path / "sims.sh"
        script.write_text(
            "#!/bin/sh\n# flux: -n2 --conf=queue.policy=easy --job-name=sims --dump=dump.zip\n"
            'echo "got $*"; fluxkv run echo inside; fluxkv uri; fluxkv --parent uri; fluxkv job timeleft\n'
            'fluxkv --parent job info $FLUX_ENCLOSING_ID jobspec | grep -c "{{tmpdir}}/script"; exit 5\n'
        )
        site.run("queue", "stop")
        (tmp_path / "w").mkdir()
        done = site.run("batch", f"--cwd={tmp_path / 'w'}", str(script), "a b", "c")
        assert done.returncode == 0, done.stderr
        id = parse_id(done.stdout.strip())
        script.unlink()
        site.run("queue", "start")
        assert site.results([id]) == [5]
        child = child_uri(site.uri, id)
        lines = (tmp_path / "w" / f"flux-{f58(id)}.out").read_text().splitlines()
        assert lines[:6] == ["got a b c", "inside", child, site.uri, "4294967295", "1"]
        job = site.client.job(id)
        assert (job.name, job.memo) == ("sims", {"uri": child})
        assert not left_inside(site)
        with contextlib.closing(connect(child)) as inside:  # it answers after its end
            state = inside.state()
            assert (state.instance["policy"], state.config) == ("easy", {"queue": {"policy": "easy"}})
            assert [job.name for job in state.jobs.values()] == ["echo"]
        checked = site.run("journal", "import", str(tmp_path / "w" / "dump.zip"), "--dry-run")
        assert checked.returncode == 0, checked.stderr
        site.sound()


def test_alloc_runs_a_command_and_gives_everything_back(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        program = ["sh", "-c", "cat; fluxkv run -n2 echo in && exit 7"]
        words = [*live.PROGRAM, "alloc", "--uri", site.uri, "-n2", *program]
        done = subprocess.run(words, env=site.env, input="typed\n", capture_output=True, text=True, timeout=live.PATIENCE_S)
        assert (done.returncode, done.stdout) == (7, "typed\nin\nin\n"), done.stderr
        assert not left_inside(site)
        assert all(not node.used_cores for node in site.client.state().nodes.values())


def test_alloc_in_the_background(tmp_path: Path) -> None:
    """Its id is printed when it can be used; it stays until it is ended."""
    with live.site(tmp_path, "--cores", "2") as site:
        done = site.run("alloc", "--bg", "-n2")
        assert done.returncode == 0, done.stderr
        id = parse_id(done.stdout.strip())
        child = child_uri(site.uri, id)
        ran = site.run("run", "--uri", child, "-n2", "echo", "hi")
        assert (ran.returncode, ran.stdout) == (0, "hi\nhi\n"), ran.stderr
        stopped = site.run("stop", "--uri", child)
        assert stopped.returncode == 0, stopped.stderr
        assert site.results([id]) == [0]
        again = parse_id(site.run("alloc", "--bg", "-n1").stdout.strip())
        site.client.cancel([again])
        site.results([again])
        assert not left_inside(site)
        refused = site.run("alloc", "--bg", "-n1", "--env=PATH=/nowhere", "--setattr=system.cwd=/", "--broker-opts=--workers=99")
        assert (refused.returncode, refused.stdout) == (2, "")


def test_five_levels_and_the_lowest_has_one_core(tmp_path: Path) -> None:
    """Each level is a job of the one above; `--parent` leads back up, one at a time."""
    with live.site(tmp_path, "--cores", "2") as site:
        up = " ".join(["--parent"] * 5)
        command = f'fluxkv run sh -c "echo deep" && fluxkv {up} uri && fluxkv resource list -no {{ncores}}'
        for _ in range(4):
            command = f"fluxkv alloc -n1 sh -c {json.dumps(command)}"
        done = site.run("alloc", "-n1", "sh", "-c", command, timeout=3 * live.PATIENCE_S)
        lines = done.stdout.splitlines()
        assert (done.returncode, lines[:2]) == (0, ["deep", site.uri]), (done, site.logs())
        assert lines[2:] == ["1", "0", "0"]
        assert not left_inside(site)
