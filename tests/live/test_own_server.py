"""Children with servers of their own: looked into as any, handed up when they end, whatever dies on the way."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import live
import pytest

from fluxkv.instances.child import child_uri
from fluxkv.instances.client import connect
from fluxkv.instances.handover import MARK
from fluxkv.instances.parent_row import LOST
from fluxkv.instances.paths import StateDir
from fluxkv.journal.ids import encode, f58, parse_id
from fluxkv.journal.job import SCHED
from fluxkv.kvs.failpoints import VARIABLE
from fluxkv.kvs.redis_store import open_store
from fluxkv.kvs.server_copy import open_readonly
from fluxkv.kvs.uri import same_instance

pytestmark = pytest.mark.live


def folder_of(site: Any, id: int) -> StateDir:
    """The state directory of the first node of a child, once it is there."""
    deadline = time.monotonic() + live.PATIENCE_S
    while not (found := list(Path(site.dir.path, "ns").glob(f"{encode(id, 'f58plain')}-*-0/instance.json"))):
        assert time.monotonic() < deadline, site.logs()
        time.sleep(0.01)
    return StateDir(str(found[0].parent))


def handed_up(site: Any, id: int, space: int = 0) -> None:
    """Waits until a child's journal is handed up, and compares it with the files of its server. space: the job whose namespace it
    has."""
    folder = folder_of(site, id)
    deadline = time.monotonic() + live.PATIENCE_S
    while not os.path.exists(folder.join(MARK)):
        assert time.monotonic() < deadline, site.logs()
        time.sleep(0.02)
    namespace = child_uri(site.uri, space or id).partition("#")[2]
    there = open_store(f"{site.uri}#{namespace}")
    with open_readonly(folder.path) as copy:
        here = open_store(f"{copy.url}#{namespace}")
        assert there.read(0, 10_000) == here.read(0, 10_000)
        assert there.meta().sealed
        assert here.meta().sealed, "nobody writes any more to what is handed up"
        assert there.meta()._replace(room=0, sealed=0, floor=0) == here.meta()._replace(room=0, sealed=0, floor=0)  # it is at rest
        names = here.idle_blobs(float("inf"))
        assert there.get_blobs(names) == here.get_blobs(names)
        assert there.outputs() == here.outputs()
        here.close()
    there.close()


def test_it_is_looked_into_alike_while_it_runs_and_after(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        id = parse_id(site.run("alloc", "--bg", "-n1", "--kvs=own", "--conf=queue.policy=easy").stdout.strip())
        path = f58(id)
        inside = site.run("uri", path).stdout.strip()
        assert inside == f"unix:{folder_of(site, id).path}/kv.sock#/{path}"
        assert site.client.job(id).memo == {"uri": inside}
        one = site.run("--instance", path, "submit", "--job-name=one", "sh", "-c", "echo said; exit 3").stdout.strip()
        assert site.run("--instance", path, "kvs", "put", f"big={'x' * 5000}").returncode == 0
        assert "exit code 3" in site.run("job", "wait", f"{path}/{one}").stderr
        looks = [
            ["jobs", "-an", "-o", "{name} {status} {returncode}", f"{path}/"], ["job", "attach", f"{path}/{one}"],
            ["job", "info", f"{path}/{one}", "R"], ["--instance", path, "kvs", "get", "big"], ["job", "eventlog", f"{path}/{one}"],
        ]  # fmt: skip
        running = [site.run(*words).stdout for words in looks]
        assert running[0] == "one FAILED 3\n"
        assert site.run("jobs", "-R", "-no", "{name}").stdout.splitlines() == ["alloc", "", f"{path}:"]
        assert site.run("proxy", path, *live.PROGRAM, "--parent", "uri").stdout == f"{site.uri}\n"
        assert site.run("proxy", path, *live.PROGRAM, "jobs", "-an", "-o", "{name}", f"/{path}").stdout == "alloc\n"
        assert site.run("stop", "--uri", inside).returncode == 0
        assert site.results([id]) == [0]
        handed_up(site, id)
        assert site.run("uri", path).stdout.strip() == child_uri(site.uri, id)
        assert [site.run(*words).stdout for words in looks] == running
        assert f"{path}:\none\n" in site.run("jobs", "-aR", "-no", "{name}").stdout
        sound = site.run("--instance", path, "replay", "--diff", "live")
        assert sound.returncode == 0, sound.stderr
        site.sound()


def test_several_nodes_and_levels_with_and_without(tmp_path: Path) -> None:
    """Nodes of the child come in over TCP; in it are one that shares its server, and one with its own, again on two nodes."""
    with live.site(tmp_path, "-s", "3", "--cores", "1") as site:
        script = tmp_path / "wide"
        script.write_text(
            "#!/bin/sh\n# flux: -N3 --kvs=own --output=none\nfluxkv run -N3 echo wide\n"
            "fluxkv batch -N1 --output=none --wrap --job-name=shares 'fluxkv run echo shares; fluxkv uri'\n"
            "fluxkv batch -N2 --kvs=own --output=none --wrap --job-name=own "
            "'fluxkv run -N2 echo own; fluxkv --parent uri | sed s/.*#//'\n"
            "fluxkv queue drain; fluxkv uri; fluxkv uri --remote\n"
        )
        id = parse_id(site.run("batch", str(script)).stdout.strip())
        assert site.results([id]) == [0]
        path = f58(id)
        lines = site.run("job", "attach", path).stdout.splitlines()
        assert lines[:3] == ["wide"] * 3
        server = f"unix:{folder_of(site, id).path}/kv.sock"
        assert lines[-2] == f"{server}#/{path}"
        assert lines[-1].startswith("redis://join:")
        assert site.run("tree", "-a", path).stdout.splitlines()[0] == f"/{path} (3/3 done)"
        inner = dict(line.split() for line in site.run("jobs", "-an", "-o", "{name} {id}", f"{path}/").stdout.splitlines())
        own = f"{path}/{inner['own']}"
        assert site.run("job", "attach", own).stdout.splitlines() == ["own", "own", f"/{path}"]
        shares = f"{path}/{inner['shares']}"
        said, uri = site.run("job", "attach", shares).stdout.splitlines()
        assert said == "shares"
        assert same_instance(uri, f"{server}#/{shares}")
        assert site.run("jobs", "-an", "-o", "{name} {status}", f"{own}/").stdout == "echo COMPLETED\n"
        assert site.run("uri", own).stdout.strip() == f"{site.uri}#/{own}"
        handed_up(site, id)


def everything_of(*folders: StateDir) -> None:
    """Kills all daemons of these at once: they are stopped first, so that nobody starts another again."""
    pids = [json.loads(path.read_text())["pid"] for folder in folders for path in Path(folder.join("run")).glob("*.json")]
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, signum)


def test_killed_with_their_servers_they_are_handed_up_all_the_same(tmp_path: Path) -> None:
    """Two levels. While they are dead and their job lives, lists go on; then the parent's keeper reads their files. The second time
    the parent is dead, too: its files and theirs are read, and all is handed up when it is back."""
    with live.site(tmp_path, "--cores", "2") as site:
        for whole in (False, True):
            id = parse_id(site.run("alloc", "--bg", "-n1", "--kvs=own").stdout.strip())
            path, folder = f58(id), folder_of(site, id)
            inner = site.run("--instance", path, "alloc", "--bg", "-n1", "--kvs=own").stdout.strip()
            assert site.run("--instance", f"{path}/{inner}", "run", "echo", "was").returncode == 0
            names = ["jobs", "-an", "-o", "{name}", f"{path}/{inner}/"]
            below = StateDir(str(next(Path(folder.join("ns")).iterdir())))
            starts = [pid for pid, line in site.processes().items() if " start " in line and "--stay" in line]
            assert len(starts) == 2
            for pid in starts:  # which would start keepers again
                os.kill(pid, signal.SIGSTOP)
            everything_of(*([site.dir] if whole else []), folder, below)
            if whole:
                assert site.run(*names, "--state-dir", site.dir.path).stdout == "echo\n"
                site.up()
            else:
                listed = site.run("jobs", "-R", "-no", "{name}")
                assert (listed.returncode, listed.stdout) == (0, "alloc\n"), listed
                assert "does not answer" in listed.stderr
                assert "does not answer" in site.run("--instance", path, "submit", "true").stderr
                assert site.run("tree").returncode == 0
                assert "its journal is not handed up" in site.run("doctor").stdout
                site.client.cancel([id])
            for pid in starts:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            site.until(lambda s, id=id: bool(s.jobs[id].t_inactive), "its job is over")
            assert site.run(*names).stdout == "echo\n", "from a copy of its files, or handed up"
            handed_up(site, id)
            assert site.run(*names).stdout == "echo\n"


def test_what_was_inside_a_child_on_the_parent_s_server_is_handed_up_when_both_were_killed(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "1") as site:
        id = parse_id(site.run("alloc", "--bg", "-n1").stdout.strip())
        path, folder = f58(id), folder_of(site, id)
        inner = site.run("--instance", path, "alloc", "--bg", "-n1", "--kvs=own").stdout.strip()
        below = StateDir(str(next(Path(folder.join("ns")).iterdir())))
        everything_of(folder, below)
        site.client.cancel([id])
        site.until(lambda s: bool(s.jobs[id].t_inactive), "its job is over")
        site.wrote(Path(below.join(MARK)), site.uri)
        assert site.run("uri", f"{path}/{inner}").stdout.strip() == f"{site.uri}#/{path}/{inner}"


@pytest.mark.timeout(300)
def test_a_hand_over_broken_off_anywhere_is_finished(tmp_path: Path) -> None:
    site = live.Site(tmp_path)
    armed = tmp_path / "armed"
    armed.mkdir()
    site.env[VARIABLE] = f"@{armed}"
    try:
        site.up("--cores", "4")
        for first, second in (("before", "entries"), ("end", "after")):
            (armed / "keeper").write_text(f"handover.{first}:kill")
            (armed / "handover").write_text(f"handover.{second}:kill")
            done = site.run("alloc", "-n1", "--kvs=own", "fluxkv", "run", "echo", first)
            assert (done.returncode, done.stdout) == (0, f"{first}\n"), done
        ids = sorted(site.client.state().jobs)
        for id in ids:
            handed_up(site, id)
        assert not list(armed.iterdir()), "each place was reached"
        assert site.run("jobs", "-aR", "-no", "{name}").stdout.split().count("echo") == 2
        site.sound()
        site.no_traceback()
    finally:
        site.end()


def test_a_parent_whose_server_is_away_gets_it_later(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        os.mkfifo(tmp_path / "go")
        script = f"fluxkv run true; echo up >{tmp_path}/up; read x <{tmp_path}/go"
        id = parse_id(site.run("batch", "-n1", "--kvs=own", "--output=none", "--wrap", script).stdout.strip())
        folder = folder_of(site, id)
        site.written(tmp_path / "up")
        with site.server_dead():
            (tmp_path / "go").write_text("x\n")
            site.wrote(Path(folder.log_file("keeper")), "stays in")
        assert site.results([id]) == [0]
        handed_up(site, id)
        with connect(child_uri(site.uri, id)) as inside:
            assert [job.name for job in inside.state().jobs.values()] == ["true"]


def test_it_outlives_what_its_parent_s_server_loses(tmp_path: Path) -> None:
    """The files of its parent are put back as they were before the child's job had begun. The child is adopted, found again,
    and, when it is killed later, sealed and handed up."""
    with live.site(tmp_path, "--cores", "2", "--on-fork", "adopt") as site:
        assert site.run("queue", "stop").returncode == 0
        id = parse_id(site.run("batch", "-n1", "--kvs=own", "--output=none", "--wrap", "sleep 1000").stdout.strip())
        path, old = f58(id), tmp_path / "old"
        site.until(lambda state: state.jobs[id].state == SCHED, "it is lined up")
        shutil.copytree(site.dir.join("appendonlydir"), old)
        assert site.run("queue", "start").returncode == 0
        site.until(lambda state: bool(state.jobs[id].memo), "it is an instance")
        one = site.run("--instance", path, "submit", "sh", "-c", "exit 3").stdout.strip()
        assert "exit code 3" in site.run("job", "wait", f"{path}/{one}").stderr
        site.witnessed(site.client.state().version)
        with site.server_dead():
            shutil.rmtree(site.dir.join("appendonlydir"))
            shutil.copytree(old, site.dir.join("appendonlydir"))
        site.until(lambda state: bool(state.jobs[id].holds and state.jobs[id].memo), "it is adopted, and known as an instance")
        assert site.run("jobs", "-an", "-o", "{id} {status}", f"{path}/").stdout == f"{one} FAILED\n"
        (row,) = site.client.store.children()
        assert (row.job, row.over) == (id, False)
        for pid in site.processes():
            if live.inside(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        handed_up(site, id)
        deadline = time.monotonic() + live.PATIENCE_S
        while site.client.store.children():
            assert time.monotonic() < deadline, site.logs()
            time.sleep(0.02)
        site.sound()


def stay(folder: Path, name: str) -> str:
    """A command that submits two jobs: one ends, one stays until a file is there; what each did is in a diary."""
    told = f">>{folder}/diary"
    return (f"fluxkv submit --quiet --output=none --job-name={name}-short sh -c 'echo {name}-short {told}'; "
            f"fluxkv submit --quiet --output=none --job-name={name}-long "
            f"sh -c 'echo {name}-long $FLUX_JOB_ATTEMPT {told}; [ -e {folder}/go ] || exec sleep 1000'")  # fmt: skip


def batch(site: Any, *words: str) -> int:
    done = site.run("batch", "--output=none", *words)
    assert done.returncode == 0, done.stderr
    return parse_id(done.stdout.strip())


def test_gone_on_with_it_goes_down_and_comes_up_again(tmp_path: Path) -> None:
    """On its parent's server, then on its own on two nodes, then on its parent's again: with a child inside that always has one.
    What had ended stays, and the paths lead to it all the time."""
    with live.site(tmp_path, "-s", "2", "--cores", "3") as site:
        inner = tmp_path / "inner"
        inner.write_text(f"#!/bin/sh\n# flux: -n1 --kvs=own --output=none\n{stay(tmp_path, 'b')}\nfluxkv queue drain\n")
        ids = [batch(site, "-N2", "-n4", "--wrap", f"{stay(tmp_path, 'a')}; fluxkv batch {inner}; fluxkv queue drain")]
        path, below = f58(ids[0]), ""
        for life, kvs in enumerate(("own", "parent", ""), 1):
            for name in "ab":
                site.wrote(tmp_path / "diary", f"{name}-long {life}\n")
            where = site.run("uri", "--wait", f58(ids[-1])).stdout.strip()
            assert where.endswith(f"#/{path}")
            assert same_instance(where, f"{site.uri}#/{path}") == (life != 2)
            listed = dict(line.split() for line in site.run("jobs", "-an", "-o", "{name} {id}", f"{path}/").stdout.splitlines())
            below = below or f"{path}/{listed['inner']}"
            assert site.run("uri", "--wait", below).returncode == 0
            assert sorted(site.run("jobs", "-an", "-o", "{name}", f"{below}/").stdout.split()) == ["b-long", "b-short"]
            if life == 2:
                assert f"{f58(ids[-1])} goes on with the instance" in site.run("batch", "--output=none", "--resume", path).stderr
            if not kvs:
                break
            site.kill_inside(ids[-1])
            site.results(ids[-1:])
            if life == 2:
                (tmp_path / "go").write_text("")
            ids.append(batch(site, f"--kvs={kvs}", "--resume", f58(ids[-1])))
        assert site.results(ids[-1:]) == [0], site.logs()
        told = (tmp_path / "diary").read_text().split("\n")[:-1]
        assert sorted(told) == [f"{n}-{m}" for n in "ab" for m in ("long 1", "long 2", "long 3", "short")]
        for one in (path, below):
            sound = site.run("--instance", one, "replay", "--diff", "live")
            assert sound.returncode == 0, sound.stderr
            assert site.run("uri", one).stdout.strip() == f"{site.uri}#/{one}"
        site.sound()


@pytest.mark.parametrize("killed", ["server", "all"])
def test_one_whose_own_server_alone_lost_everything_fails_a_minute_later_and_is_tried_again(killed: str, tmp_path: Path) -> None:
    """Nobody is there to adopt anything. With all its daemons dead no keeper comes up either, and says it all the same."""
    with live.site(tmp_path, "--cores", "1") as site:
        told = f"echo $FLUX_JOB_ATTEMPT >>{tmp_path}/runs; [ $FLUX_JOB_ATTEMPT = 2 ] || sleep 1000"
        id = batch(site, "-n1", "--kvs=own", "--retry=1", "--wrap", told)
        site.written(tmp_path / "runs")
        folder = folder_of(site, id)
        site.wrote(Path(folder.join("tip")), "version")
        Path(folder.join("run", LOST)).write_text("0.0\n")  # known since the host came up
        names = ["server"] if killed == "server" else [path.stem for path in Path(folder.join("run")).glob("*.json")]
        pids = [json.loads(Path(folder.run_file(name)).read_text())["pid"] for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        shutil.rmtree(folder.join("appendonlydir"))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert site.results([id]) == [0]
        assert (tmp_path / "runs").read_text() == "1\n2\n"
        told = {event.name: event.context for event in site.client.events(id)}
        assert "its own server has lost all of its journal" in told["exception"]["note"]
        assert told["requeue"]["cause"] == "node-failure"
        log = Path(folder.log_file("keeper")).read_text()
        assert "within a minute, or its job ends" in log
        assert "can not be sealed" not in log
        # What is left goes nowhere, and is not taken for what has been handed up.
        site.wrote(Path(folder.join(MARK)), '"to": ""')
        site.sound()


def test_one_that_is_made_anew_keeps_its_nodes(tmp_path: Path) -> None:
    """Its server lost all, and it is set to go on: the part of the node that follows begins anew, too."""
    with live.site(tmp_path, "-s", "2", "--cores", "1", "--on-fork", "adopt") as site:
        waits = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"
        begun = f"fluxkv submit --requires=rank:1 sleep 1000; echo up >{tmp_path}/up"
        inside = f"{begun}; {waits}; fluxkv run -N2 echo both; fluxkv jobs -an"
        id = batch(site, "-N2", "--kvs=own", "--wrap", inside)
        site.written(tmp_path / "up")
        folder = folder_of(site, id)
        server = json.loads(Path(folder.run_file("server")).read_text())["pid"]
        os.kill(server, signal.SIGSTOP)
        shutil.rmtree(folder.join("appendonlydir"))
        os.kill(server, signal.SIGKILL)
        site.wrote(Path(folder.log_file("keeper")), "it is made anew")
        (tmp_path / "go").touch()
        assert site.results([id]) == [0]
        lines = site.run("job", "attach", f58(id)).stdout.splitlines()
        assert lines[1:3] == ["both"] * 2
        assert len(lines) == 4, "what had run is known to nobody"
        assert site.events(id).count("release") == 1, "its nodes stayed to the end"
        assert not [line for pid, line in site.processes().items() if live.inside(pid)]


@pytest.mark.timeout(300)
def test_a_journal_that_goes_down_and_breaks_off_anywhere_is_gone_on_with(tmp_path: Path) -> None:
    site = live.Site(tmp_path)
    armed = tmp_path / "armed"
    armed.mkdir()
    site.env[VARIABLE] = f"@{armed}"
    try:
        site.up("--cores", "2")
        ids = [batch(site, "-n1", "--wrap", f"{stay(tmp_path, 'a')}; fluxkv queue drain")]
        site.wrote(tmp_path / "diary", "a-long 1\n")
        site.client.cancel(ids)
        site.results(ids)
        (tmp_path / "go").write_text("")
        for point in ("handover.entries", "handdown.door", "handdown.after"):
            (armed / "keeper").write_text(f"{point}:kill")
            ids.append(batch(site, "--kvs=own", "--resume", f58(ids[-1])))
            assert site.results(ids[-1:]) != [0]
        assert not list(armed.iterdir()), "each place was reached"
        ids.append(batch(site, "--resume", f58(ids[-1])))  # on a server of its own as before
        assert site.results(ids[-1:]) == [0], site.logs()
        assert sorted((tmp_path / "diary").read_text().split("\n")) == ["", "a-long 1", "a-long 2", "a-short"]
        handed_up(site, ids[-1], ids[0])
        site.sound()
        site.no_traceback()
    finally:
        site.end()
