"""Hosts that join over TCP: all of them are this machine, each with a state directory and a name of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import live
import pytest

from fluxkv.instances.paths import StateDir
from fluxkv.journal.ids import parse_id

pytestmark = pytest.mark.live


@pytest.fixture
def site(tmp_path: Path) -> Iterator[live.Site]:
    with live.site(tmp_path, "--listen=127.0.0.1", "--cores", "2") as made:
        try:
            yield made
        finally:
            for directory in tmp_path.glob("h*/instance.json"):
                made.run("stop", "--state-dir", str(directory.parent))


def join(site: live.Site, name: str) -> StateDir:
    """This machine once more, as another host."""
    address = site.run("uri", "--remote", "--state-dir", site.dir.path).stdout.strip()
    (site.folder / "join.uri").write_text(address + "\n")
    where = site.folder / name
    done = site.run("agent", "--join", str(site.folder / "join.uri"), "--name", name, "--cores", "2", "--state-dir", str(where),
                    "--detach")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return StateDir(str(where))


def test_hosts_join_run_jobs_and_leave(site: live.Site) -> None:
    there = join(site, "h1")
    join(site, "h2")
    state = site.client.state()
    assert {node.host: bool(node.joined) for node in state.nodes.values()} == {state.nodes[0].host: False, "h1": True, "h2": True}
    done = site.run("run", "-N3", "sh", "-c", "echo on {{node.name}} $FLUXKV_URI; cat", "--add-file=x=hi")
    assert done.returncode == 0, done.stderr
    assert {line.split()[1] for line in done.stdout.splitlines()} == {state.nodes[0].host, "h1", "h2"}
    secret = re.search(r":([^@:]+)@", (site.folder / "join.uri").read_text())
    assert secret is not None
    commands = " ".join(site.processes().values())
    assert secret[1] not in done.stdout + site.logs() + commands + site.run("journal", "show").stdout
    missing = site.run("run", "--requires=host:h1", "--cwd=/no/such/place", "true")
    assert "cannot change to /no/such/place" in missing.stderr  # and goes on in /tmp, as Flux's shell does
    # inside a job over there the same instance answers, and so it is for a child instance over both
    inner = site.run("run", "-N2", "-n2", "-c1", "--requires=host:h1,h2", *live.PROGRAM, "start", *live.PROGRAM, "run", "-N2",
                     "sh", "-c", "echo in $FLUXKV_NODE_RANK")  # fmt: skip
    assert sorted(inner.stdout.split()) == ["0", "1", "in", "in"], inner.stderr
    running = parse_id(site.run("submit", "--requires=host:h1", "sleep", "600").stdout.strip())
    site.running(running)
    assert site.run("stop", "--state-dir", there.path).returncode == 0
    state = site.until(lambda s: s.jobs[running].t_inactive > 0, "the job of a host that was stopped is over")
    assert not state.nodes[1].online
    assert state.nodes[1].down is not None
    again = site.run("agent", "--state-dir", there.path, "--detach")
    assert again.returncode == 0, again.stderr
    assert site.until(lambda s: s.nodes[1].online, "h1 is back").nodes[1].host == "h1"
    gone = site.run("agent", "--leave", "--state-dir", there.path)
    assert gone.returncode == 0, gone.stderr
    assert sorted(site.client.state().nodes) == [0, 2]
    site.sound()


def test_who_may_join(site: live.Site) -> None:
    join(site, "h1")
    address = (site.folder / "join.uri").read_text().strip()
    twice = site.run("agent", "--join", address, "--name", "h1", "--state-dir", str(site.folder / "h2"), "--detach")
    assert (twice.returncode, "has joined already" in twice.stderr) == (1, True), twice.stderr
    own = site.client.state().nodes[0].host
    taken = site.run("agent", "--join", address, "--name", own, "--state-dir", str(site.folder / "h3"), "--detach")
    assert (taken.returncode, "--name" in taken.stderr) == (1, True), taken.stderr
    running = parse_id(site.run("submit", "--requires=host:h1", "sleep", "600").stdout.strip())
    site.running(running)
    first = StateDir(str(site.folder / "h1"))
    site.run("stop", "--state-dir", first.path)
    site.until(lambda s: s.jobs[running].t_inactive > 0, "its job is over")
    lost = site.run("agent", "--join", address, "--name", "h1", "--state-dir", str(site.folder / "h1-new"), "--detach")
    assert lost.returncode == 0, lost.stderr  # the state directory of before was lost, its name was not
    assert [node.host for node in site.client.state().nodes.values()] == [own, "h1"]
    back = site.run("agent", "--state-dir", first.path, "--cores", "2", "--detach")  # it is of another time
    assert (back.returncode, "has joined already" in back.stderr) == (1, True), back.stderr
    for wrong in (re.sub(r":[^@:]+@", ":guess@", address), re.sub(r"//.*@", "//", address)):
        refused = site.run("agent", "--join", wrong, "--name", "h4", "--state-dir", str(site.folder / "h4"), "--detach")
        assert (refused.returncode in (1, 3), "check user" in refused.stderr) == (True, True), refused.stderr
        assert not (site.folder / "h4" / "instance.json").exists()
    assert len(site.client.state().nodes) == 2


def test_the_command_stays_and_shows_no_password(site: live.Site, tmp_path: Path) -> None:
    address = site.run("uri", "--remote", "--state-dir", site.dir.path).stdout.strip()
    (tmp_path / "here" / "fluxkv").mkdir(parents=True)  # what lies in the directory it is typed in is not imported
    words = [*live.PROGRAM, "agent", "--join", address, "--name", "h1"]
    words += ["--state-dir", str(tmp_path / "h1")]
    with subprocess.Popen(words, env=site.env, cwd=tmp_path / "here", stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        assert "this host is h1" in command.stdout.readline()
        secret = re.search(r":([^@:]+)@", address)
        assert secret is not None
        assert secret[1] not in " ".join(site.processes().values())
        # All its daemons are killed at once: nobody else would start them again.
        pids = [json.loads(path.read_text())["pid"] for path in (tmp_path / "h1" / "run").glob("*.json")]
        assert len(pids) == 3
        for signum in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, signum)
        assert site.run("run", "--requires=host:h1", "echo", "again").stdout == "again\n"
        command.terminate()
        assert command.wait(live.PATIENCE_S) == 0
    assert not site.client.state().nodes[1].online
