"""A server that comes back with an older history, under real jobs: refused, reported, adopted; nothing runs twice."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path

import pytest

from fluxkv.instances.child import child_uri
from fluxkv.instances.paths import StateDir
from fluxkv.journal.ids import f58, parse_id
from fluxkv.journal.job import SCHED
from fluxkv.kvs.redis_store import open_store
from tests.support import live

HOLD = "while [ ! -e {0} ]; do sleep 0.02; done"


def test_what_a_lost_branch_began_is_adopted_or_ended(tmp_path: Path) -> None:
    """HAZARDS 2, 4, 15, 20 on a real server: its files are put back as they were before three things happened."""
    canary, go, more = tmp_path / "canary", tmp_path / "go", tmp_path / "more"
    with live.site(tmp_path, "--cores", "4") as site:
        ends = site.submit(f"{HOLD.format(go)}; exit 3")
        site.running(ends)
        assert site.run("queue", "stop").returncode == 0
        waits = site.submit(f"echo began >> {canary}; {HOLD.format(more)}; exit 7")
        site.until(lambda state: state.jobs[waits].state == SCHED, "lined up")
        old = tmp_path / "old"
        shutil.copytree(site.dir.join("appendonlydir"), old)
        # From here on all is lost: the queue's start, one job's end, another's start, a third job.
        assert site.run("queue", "start").returncode == 0
        unknown = site.submit("sleep 1000")
        site.running(waits, unknown)
        site.written(canary)
        go.touch()
        assert site.results([ends]) == [3]
        tip = site.client.state().version
        site.witnessed(tip)
        with site.server_dead():
            shutil.rmtree(site.dir.join("appendonlydir"))
            shutil.copytree(old, site.dir.join("appendonlydir"))
        site.said("server.failed", "are lost")
        report = site.run("ops", "adopt", "--json")
        assert report.returncode == 4
        document = json.loads(report.stdout)
        first, last = document["lost"]
        assert last >= tip
        assert {one["job"]: one["what"].split()[1].rstrip(",:") for one in document["tasks"]} == {
            f58(waits): "adopted", f58(unknown): "ended",
        }  # fmt: skip
        assert site.run("submit", "true").returncode == 3
        assert int(site.ask("HGET", site.keys.meta, "version")) == first - 1, "something was written"
        done = site.run("ops", "adopt", "--force")
        assert done.returncode == 0, done.stderr
        # The end is told again as it was; the job whose start was lost goes on, as it is; the third one's task is ended.
        assert site.results([ends]) == [3]
        state = site.until(lambda state: state.jobs[waits].holds and all(node.online for node in state.nodes.values()), "adopted")
        assert state.jobs[waits].epoch != state.epoch
        assert unknown not in state.jobs
        assert "sleep 1000" not in " ".join(site.processes().values())
        assert canary.read_text() == "began\n"
        more.touch()
        assert site.results([waits]) == [7]
        assert canary.read_text() == "began\n", "it was begun twice"
        shown = site.run("journal", "show", "--limit", "1000").stdout
        assert re.search(rf"adopt .*lost=\[{first}, {last}\]", shown)
        assert re.search(rf"fence .*attempt={unknown}\.", shown)
        assert site.run("ops", "adopt").stdout.startswith("nothing is lost")
        assert site.run("queue", "start").returncode == 0
        assert site.results([site.submit("true")]) == [0]
        site.sound()
        site.no_traceback()


def test_a_server_with_nothing_left_is_refused_and_begun_anew_by_an_operator(tmp_path: Path) -> None:
    """FLUSHDB: the instance is not made anew as if it had never been."""
    with live.site(tmp_path, "--cores", "2") as site:
        site.results([site.submit("true")])
        tip = site.client.state().version
        site.witnessed(tip)
        site.ask("FLUSHDB")
        site.said("server.failed", "versions 1 to")
        site.stop()
        again = site.run("start", "--detach", "--state-dir", site.dir.path)
        assert again.returncode == 3
        assert "are lost" in again.stderr
        assert site.run("ops", "adopt", "--state-dir", site.dir.path).returncode == 4
        assert site.run("ops", "adopt", "--force", "--state-dir", site.dir.path).returncode == 0
        site.up()
        site.client.store.close()
        site._client = None  # a client of the instance that was keeps to it
        assert site.client.state().instance["adopted"][1:3] == [1, tip]
        assert site.results([site.submit("true")]) == [0]
        site.sound()


@pytest.mark.parametrize("on_fork", ["adopt", "refuse"])
def test_a_child_of_which_nothing_is_left_begins_anew_or_fails(tmp_path: Path, on_fork: str) -> None:
    """The files are put back as before its job began, and both go on with what is left. The job is adopted; its commands were
    told for ever that there is no instance."""
    with live.site(tmp_path, "--cores", "2", "--on-fork", on_fork) as site:
        assert site.run("queue", "stop").returncode == 0
        out, old = tmp_path / "out", tmp_path / "old"
        script = "while :; do fluxkv run echo told; sleep 0.1; done"
        id = parse_id(site.run("batch", "-n1", f"--output={out}", "--wrap", script).stdout.strip())
        site.until(lambda state: state.jobs[id].state == SCHED, "lined up")
        shutil.copytree(site.dir.join("appendonlydir"), old)
        assert site.run("queue", "start").returncode == 0
        site.wrote(out, "told")
        site.witnessed(site.client.state().version)
        (folder,) = Path(site.dir.join("ns")).iterdir()
        site.witnessed(3, of=StateDir(str(folder)))
        with site.server_dead():
            shutil.rmtree(site.dir.join("appendonlydir"))
            shutil.copytree(old, site.dir.join("appendonlydir"))
        if on_fork == "refuse":
            site.said("server.failed", "are lost")
            assert site.run("ops", "adopt", "--force", "--state-dir", site.dir.path).returncode == 0
            site.until(lambda state: state.jobs[id].t_inactive > 0, "it is over")
            told = site.run("jobs", "-an", "-o", "{result} {exception.type} {exception.note}", f58(id)).stdout
            assert told.startswith("FAILED lost the server has lost all of its journal"), told
            assert not [pid for pid in site.processes() if live.inside(pid)]
            assert site.run("queue", "start").returncode == 0  # that it had been was lost, too
            assert site.run("run", "echo", "goes on").stdout == "goes on\n"
            site.sound()
            return
        site.until(lambda state: bool(state.jobs[id].holds and state.jobs[id].memo), "adopted, and an instance again")
        done = site.run("--instance", f58(id), "run", "echo", "again")
        assert (done.returncode, done.stdout) == (0, "again\n"), done.stderr
        assert "lost=[2, " in site.run("--instance", f58(id), "journal", "show", "--limit", "1000").stdout
        sound = site.run("--instance", f58(id), "replay", "--diff", "live")
        assert sound.returncode == 0, sound.stdout + sound.stderr
        assert site.run("cancel", f58(id)).returncode == 0
        site.until(lambda state: state.jobs[id].t_inactive > 0, "it is over")
        with contextlib.closing(open_store(child_uri(site.uri, id))) as child:
            assert child.meta().sealed
        assert not [pid for pid in site.processes() if live.inside(pid)]
        site.sound()
