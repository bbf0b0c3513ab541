"""Real daemons, killed, stopped, starved and started twice: nothing acknowledged is lost, nothing runs twice."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import time
from pathlib import Path
from subprocess import PIPE
from typing import Any

import live
import pytest

from fluxkv.instances.child import child_uri
from fluxkv.instances.client import connect
from fluxkv.journal.decide import Decision
from fluxkv.journal.ids import f58
from fluxkv.journal.job import INACTIVE, SCHED
from fluxkv.kvs.keys import Keys

pytestmark = pytest.mark.live


class Load:
    """Short jobs, each of which leaves its number in a file; long ones that print, wait for a word, and print again."""

    def __init__(self, site: Any) -> None:
        self.site = site
        self.canary = site.folder / "canary"
        self.word = site.folder / "go"
        self.short: list[int] = []
        self.codes: list[int] = []
        self.long: list[int] = []

    def add(self, count: int) -> None:
        """Short jobs: number n ends with code n % 5."""
        first = len(self.short)
        scripts = [f"echo {n} >>{self.canary}; exit {n % 5}" for n in range(first, first + count)]
        commands = [["sh", "-c", script] for script in scripts]
        self.short += self.site.submit_many(commands)
        self.codes += [n % 5 for n in range(first, first + count)]

    def add_long(self, count: int) -> None:
        """Long jobs, ending with code 7; returns when they run."""
        script = f"echo before; while [ ! -e {self.word} ]; do sleep 0.02; done; echo long >>{self.canary}; echo after; exit 7"
        self.long += [self.site.submit(script) for _ in range(count)]
        self.site.running(*self.long)

    def check(self, *, spared: bool = True) -> None:
        """All end with the right code, once each. spared: the launcher lived, so that the long ones did too."""
        self.word.touch()
        found = self.site.results(self.short)
        wrong = [id for id, code, right in zip(self.short, found, self.codes, strict=True) if code != right]
        assert not wrong, (self.site.run("job", "eventlog", str(wrong[0])).stdout, self.site.logs())
        ended = self.site.results(self.long)
        lines = self.canary.read_text().split()
        numbers = sorted(int(line) for line in lines if line != "long")
        if spared:
            assert numbers == list(range(len(self.short)))
            assert ended == [7] * len(self.long)
            assert lines.count("long") == len(self.long)
            for id in self.long:
                done = self.site.run("job", "attach", str(id))
                assert done.stdout == "before\nafter\n", done
        else:
            assert set(numbers) == set(range(len(self.short)))


@pytest.mark.parametrize(
    "roles",
    [
        ("worker-0",), ("agent",), ("keeper",), ("server",),
        ("keeper", "worker-0"), ("server", "agent"), ("server", "keeper"), ("worker-0", "agent"),
    ],
    ids=" and ".join,
)  # fmt: skip
def test_killed_daemons_come_back_and_nothing_is_lost(roles: tuple[str, ...], tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "4") as site:
        load = Load(site)
        load.add_long(2)
        load.add(20)
        site.kill(*roles)
        load.add(10)
        load.check()
        for role in ("worker-0", "agent", "keeper", "launcher"):
            site.pid(role)
        site.sound()
        site.stop()
        site.nothing_left()


def test_a_killed_launcher_ends_its_tasks_and_everything_else_runs(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "4") as site:
        load = Load(site)
        load.add_long(2)
        site.kill("launcher")
        load.add(20)
        load.word.touch()
        assert site.results(load.short) == load.codes
        for id in load.long:
            assert site.results([id]) == [137]
        load.check(spared=False)
        site.sound()
        site.stop()
        site.nothing_left()


def test_all_but_launcher_and_server_killed_then_started_again(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "4") as site:
        load = Load(site)
        load.add_long(2)
        load.add(10)
        site.kill("keeper", "worker-0", "agent")
        load.add(5)
        site.up()
        load.check()
        site.sound()


def test_a_worker_stopped_longer_than_its_lease_harms_nobody(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2", "--workers", "2") as site:
        script = f"mkdir {tmp_path}/lock || echo twice >>{tmp_path}/bad; echo x >>{tmp_path}/runs; rmdir {tmp_path}/lock"
        ids = [site.submit(script, cores_per_task=2) for _ in range(5)]
        site.results(ids)
        leader = site.ask("GET", site.keys.lease).decode()
        ids += [site.submit(script, cores_per_task=2) for _ in range(10)]
        site.kill(leader, signum=signal.SIGSTOP)
        ids += [site.submit(script, cores_per_task=2) for _ in range(10)]
        assert site.results(ids) == [0] * 25
        other = site.ask("GET", site.keys.lease).decode()
        assert other != leader
        ids += [site.submit(script, cores_per_task=2) for _ in range(10)]
        site.kill(leader, signum=signal.SIGCONT)
        ids += [site.submit(script, cores_per_task=2) for _ in range(10)]
        assert site.results(ids) == [0] * 45
        assert not (tmp_path / "bad").exists()
        assert (tmp_path / "runs").read_text().count("x") == 45
        site.sound()


IGNORES = "trap '' TERM; echo >>{}/ready; while :; do sleep 0.05; done"


def test_stop_with_jobs_in_every_state_then_start_again(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        stubborn = site.submit(IGNORES.format(tmp_path))
        plain = site.submit("sleep 1000")
        site.running(stubborn, plain)
        pending = [site.submit(f"echo {n} >>{tmp_path}/canary; exit 3") for n in range(6)]
        site.until(lambda s: s.jobs[pending[-1]].state == SCHED, "the last job is scheduled")
        site.stop()
        site.nothing_left()
        again = site.run("stop", "--state-dir", site.dir.path)
        assert (again.returncode, "not running" in again.stderr) == (1, True), again.stderr
        assert not (tmp_path / "canary").exists()
        site.up()
        assert site.results(pending) == [3] * 6
        state = site.client.state()
        for id in (stubborn, plain):
            assert state.jobs[id].exception is not None, site.events(id)
            assert "shutdown" in str(state.jobs[id].exception)
            assert site.events(id)[-1] == "clean"
        assert sorted((tmp_path / "canary").read_text().split()) == [str(n) for n in range(6)]
        site.sound()


def test_stop_while_the_server_is_dead(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        id = site.submit("sleep 1000")
        site.running(id)
        site.kill("server")
        assert site.stop() < 20
        site.nothing_left()
        site.up()
        assert site.results([id]) != [0]
        site.sound()


def test_stop_without_a_keeper(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        id = site.submit("sleep 1000")
        site.running(id)
        site.kill("keeper")
        site.stop()
        site.nothing_left()


def test_start_twice_is_start_once(tmp_path: Path) -> None:
    with live.site(tmp_path, start=False) as site:
        both = [
            site.popen("start", "--detach", "--state-dir", site.dir.path, stdout=PIPE, stderr=PIPE)
            for _ in range(2)
        ]
        said = [process.communicate(timeout=40) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        assert len({out for out, _ in said}) == 1
        site.uri = said[0][0].split()[-1]
        keeper = site.pid("keeper")
        site.up()
        assert site.pid("keeper") == keeper
        foreground = site.run("start", "--state-dir", site.dir.path, "true")
        assert foreground.returncode == 1
        assert "running already" in foreground.stderr
        assert site.results([site.submit("exit 4")]) == [4]
        keepers = [line for line in site.processes().values() if "instances.main keeper" in line]
        assert len(keepers) == 1


def test_restart_under_load(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "4") as site:
        load = Load(site)
        load.add_long(2)
        load.add(40)
        before = {role: site.pid(role) for role in ("launcher", "agent", "worker-0", "keeper")}
        done = site.run("restart", "--state-dir", site.dir.path)
        assert done.returncode == 0, done.stderr
        load.add(10)
        load.check()
        after = {role: site.pid(role) for role in before}
        assert {role for role in before if after[role] == before[role]} == {"launcher", "keeper"}
        site.sound()


@pytest.mark.parametrize("victim", ["start", "command", "keeper and start", "interrupt"])
def test_a_foreground_instance_ends_with_whatever_ran_it(victim: str, tmp_path: Path) -> None:
    with live.site(tmp_path, start=False) as site:
        command = ["sh", "-c", 'echo "$FLUXKV_URI $$"; exec sleep 1000']
        process = site.popen("start", "--cores", "2", "--state-dir", site.dir.path, *command, stdout=PIPE, start_new_session=True)
        site.uri, pid = process.stdout.readline().split()
        site.running(site.submit("sleep 1000"))
        if victim == "command":
            os.kill(int(pid), signal.SIGKILL)
            assert process.wait(40) == 137
        elif victim == "interrupt":
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(40) == 130
        else:
            if victim != "start":
                site.kill("keeper")
                site.pid("keeper")
            process.kill()
            process.wait(40)
            os.kill(int(pid), signal.SIGKILL)  # the user's own command: whoever killed its parent knows of it
        process.stdout.close()
        site.nothing_left()
        site.sound()


def test_a_server_that_lost_acknowledged_history_is_refused(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        site.results([site.submit("true")])
        site.stop()
        old = tmp_path / "old"
        shutil.copytree(site.dir.join("appendonlydir"), old)
        site.up()
        site.results([site.submit("true") for _ in range(5)])
        tip = site.client.state().version
        site.witnessed(tip)
        with site.server_dead():
            shutil.rmtree(site.dir.join("appendonlydir"))
            shutil.copytree(old, site.dir.join("appendonlydir"))
        site.said("server.failed", "are lost")
        text = Path(site.dir.join("run", "server.failed")).read_text()
        lost = int(re.search(r"versions (\d+) to (\d+) are lost", text)[1])
        assert int(re.search(r"versions (\d+) to (\d+) are lost", text)[2]) >= tip
        assert int(site.ask("HGET", site.keys.meta, "version")) == lost - 1
        done = site.run("submit", "true")
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert "are lost" in site.run("status", "--state-dir", site.dir.path).stdout
        assert "are lost" in site.run("doctor", "--state-dir", site.dir.path).stdout
        assert int(site.ask("HGET", site.keys.meta, "version")) == lost - 1, "something was written"
        site.stop()
        site.nothing_left()
        again = site.run("start", "--detach", "--state-dir", site.dir.path)
        assert again.returncode != 0
        assert f"versions {lost} to" in again.stderr
        assert "are lost" in site.run("status", "--state-dir", site.dir.path).stdout
        site.nothing_left()


def test_a_torn_tail_is_cut_and_history_goes_on(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        load = Load(site)
        load.add_long(1)
        load.add(2)
        with site.server_dead(), site.journal_file().open("ab") as file:
            file.write(b"*3\r\n$3\r\nSET\r\n$5\r\nab")
        site.said("keeper", "was torn and has been cut")
        site.said("keeper", "history is whole")
        load.add(5)
        load.check()
        site.sound()


def test_a_tail_cut_too_far_is_reported(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        site.results([site.submit("true") for _ in range(3)])
        site.witnessed(site.client.state().version)
        with site.server_dead():
            data = site.journal_file().read_bytes()
            at = data.rindex(site.keys.journal.encode() + b"\r\n")
            site.journal_file().write_bytes(data[: at + 5])
        site.said("server.failed", "are lost")


def test_a_flipped_byte_is_named_and_stops_readers(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        site.results([site.submit("true") for _ in range(3)])
        (entry,) = site.client.store.entries([4])
        with site.server_dead():
            data = bytearray(site.journal_file().read_bytes())
            at = data.index(entry.payload) + len(entry.payload) // 2
            data[at] ^= 4
            site.journal_file().write_bytes(data)
        site.said("keeper", "history is whole")
        verified = site.run("journal", "verify")
        assert verified.returncode != 0
        assert "4-" in verified.stdout + verified.stderr
        jobs = site.run("jobs", "-a")
        assert (jobs.returncode, "Traceback" in jobs.stderr) == (4, False), jobs.stderr
        site.kill("worker-0")
        site.said("worker-0.failed", "does not match its checksum")
        assert "checksum" in site.run("status").stdout
        assert "fluxkv journal quarantine 4" in jobs.stderr
        assert "is set aside" in site.run("journal", "quarantine", "4").stdout  # an operator's word, and all goes on
        assert site.run("restart").returncode == 0
        assert site.results([site.submit("exit 3")]) == [3]
        assert "entry 4" in site.run("journal", "quarantine").stdout
        verified = site.run("journal", "verify")
        assert (verified.returncode, "set aside: it cannot be read" in verified.stdout) == (0, True), verified.stdout


def test_a_daemon_that_cannot_start_is_given_up_with_its_reason(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        site.stop()
        settings = site.dir.read()
        site.dir.write({**settings, "policy": "no-such-policy"})
        site.up()
        site.said("worker-0.failed", "no-such-policy")
        assert "no-such-policy" in site.run("status").stdout
        site.dir.write({**site.dir.read(), "policy": settings["policy"]})
        site.up()
        assert site.results([site.submit("exit 2")]) == [2]
        assert "given up" not in site.run("status").stdout


CHILD = shlex.join(live.PROGRAM)


@pytest.mark.parametrize("how", ["cancel", "timeout", "agent", "start"])
def test_a_child_ends_with_its_job_and_nothing_is_left(how: str, tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        (tmp_path / "task").write_text(f"echo $$ >{tmp_path}/inner; exec sleep 1000")
        submits = f"{CHILD} submit --quiet sh {tmp_path}/task"
        (tmp_path / "command").write_text(f"{submits}; echo $PPID >{tmp_path}/start; exec sleep 1000")
        more = {"duration": 3.0} if how == "timeout" else {}
        job = site.submit(f"exec {CHILD} start sh {tmp_path}/command", cores_per_task=2, **more)
        site.running(job)
        for name in ("inner", "start"):
            site.written(tmp_path / name)
        if how == "cancel":
            site.client.cancel([job])
        elif how == "agent":
            site.kill("agent")
            site.pid("agent")
            site.client.cancel([job])
        elif how == "start":
            os.kill(int((tmp_path / "start").read_text()), signal.SIGKILL)
        site.until(lambda s: bool(s.jobs[job].t_inactive), "the child's job is over")
        left = {pid: line for pid, line in site.processes().items() if live.inside(pid)}
        assert not left, left
        assert site.results([site.submit("true", cores_per_task=2)]) == [0]
        site.sound()


def test_a_child_on_two_nodes(tmp_path: Path) -> None:
    with live.site(tmp_path, "-s", "2", "--cores", "2") as site:
        done = site.run("run", "-N2", *live.PROGRAM, "start", *live.PROGRAM, "run", "-N2", "-n2", "sh", "-c", "echo hi")
        assert (done.returncode, done.stdout) == (0, "hi\nhi\n"), (done, site.logs())
        left = {pid: line for pid, line in site.processes().items() if live.inside(pid)}
        assert not left, left


def test_children_three_levels_deep(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        level = [*live.PROGRAM, "run", *live.PROGRAM, "start"]
        done = site.run(*level[len(live.PROGRAM) :], *level, *live.PROGRAM, "run", "sh", "-c", "echo deep; exit 5")
        assert (done.returncode, done.stdout) == (5, "deep\n"), (done, site.logs())
        left = {pid: line for pid, line in site.processes().items() if live.inside(pid)}
        assert not left, left


def test_a_child_s_end_moves_with_its_job_s_and_with_it_those_inside(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        (tmp_path / "command").write_text(f"{CHILD} submit --quiet sleep 1000; echo up >{tmp_path}/up; exec sleep 1000")
        job = site.submit(f"exec {CHILD} start sh {tmp_path}/command", cores_per_task=2, duration=600)
        site.written(tmp_path / "up")
        site.kill("worker-0")  # of the parent: the update is its submitter's, and the child's keeper reads it
        done = site.run("update", f58(job), "duration=20m")
        assert done.returncode == 0, done.stderr
        end = site.client.state().jobs[job].expiration
        with contextlib.closing(connect(child_uri(site.uri, job))) as inside:
            state = inside.state()
            position = {Keys(inside.store.namespace).journal: f"{state.version}-{state.epoch}"}
            deadline = time.monotonic() + live.PATIENCE_S
            with contextlib.closing(inside.store.subscribe(position)) as subscription:
                while not (state.expiration == end and {one.expiration for one in state.active()} == {end}):
                    assert time.monotonic() < deadline, (state.expiration, end, site.logs())
                    subscription.poll(1.0)
                    inside.journal.catch_up(state)
        site.sound()


def test_a_child_outlives_a_restart_of_the_server(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        waits = f"echo up >{tmp_path}/up; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; exec {CHILD} run sh -c 'exit 6'"
        (tmp_path / "command").write_text(waits)
        job = site.submit(f"exec {CHILD} start sh {tmp_path}/command", cores_per_task=2)
        site.written(tmp_path / "up")
        site.kill("server")
        child = next(path for path in site.folder.rglob("ns/*/log/keeper.log"))
        site.wrote(child, "history is whole")
        (tmp_path / "go").touch()
        assert site.results([job]) == [6]
        site.sound()


def test_a_full_disk_stops_nothing_for_good(tmp_path: Path) -> None:
    with live.small_disk(tmp_path / "small", "6m") as small, live.site(small, "--cores", "2") as site:
        load = Load(site)
        load.canary, load.word = tmp_path / "canary", tmp_path / "go"
        load.add_long(1)
        load.add(5)
        site.results(load.short)
        live.fill(small / "filler")
        errors = [site.run("submit", "--quiet", "sh", "-c", "true " + "x" * 20000) for _ in range(2)]
        assert errors[-1].returncode != 0
        assert len(errors[-1].stderr.strip().splitlines()) <= 2, errors[-1].stderr
        load.word.touch()
        site.said("keeper", "server")
        assert site.run("status", "--state-dir", site.dir.path).returncode in (0, 3)
        (small / "filler").unlink()
        site.said("keeper", "history is whole")  # nobody's word is needed
        load.add(5)
        load.check()
        site.sound()


def test_full_memory_stops_nothing_for_good(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "2") as site:
        load = Load(site)
        load.add_long(1)
        site.ask("CONFIG", "SET", "maxmemory", "1mb")
        done = site.run("submit", "true")
        assert done.returncode == 3
        assert "memory is full" in done.stderr
        load.word.touch()
        site.ask("CONFIG", "SET", "maxmemory", "0")
        load.add(5)
        load.check()
        site.sound()


def test_past_the_soft_line_new_work_is_refused_and_what_runs_ends(tmp_path: Path) -> None:
    """By itself as by a word: a line is drawn at half of the machine's memory, and may be moved while the instance runs."""
    with live.site(tmp_path, "--cores", "2") as site:
        load = Load(site)
        load.add_long(1)
        memory = json.loads(site.run("status", "--json").stdout)["memory"]
        assert memory["used"] < memory["line"] <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        move = ("start", "--detach", "--state-dir", site.dir.path, "--memory-limit")
        assert site.run(*move, "1M").returncode == 0
        done = site.run("submit", "true")
        assert (done.returncode, "soft memory line" in done.stderr) == (3, True), done.stderr
        assert "memory is full" in site.run("status").stdout
        assert "fail memory" in site.run("doctor").stdout
        assert site.run(*move, "many").returncode in (1, 2)
        load.word.touch()
        assert site.results(load.long) == [7]  # its facts pass
        assert site.run(*move, "none").returncode == 0
        load.add(5)
        load.check()
        site.sound()


def test_three_thousand_jobs_leave_nothing_behind(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "4") as site:
        roles = ("agent", "worker-0", "launcher", "keeper")
        site.results(site.submit_many([["true"]] * 300))
        before = {role: (live.fds(site.pid(role)), live.rss_kib(site.pid(role))) for role in roles}
        families = live.families(site)
        assert set(site.results(site.submit_many([["true"]] * 3000))) == {0}
        after = {role: (live.fds(site.pid(role)), live.rss_kib(site.pid(role))) for role in roles}
        for role in roles:
            assert after[role][0] <= before[role][0] + 4, (role, before, after)
            assert after[role][1] <= before[role][1] + 40_000, (role, before, after)
        spooled = [path for path in Path(site.dir.spool).glob("*/**/*") if path.is_file() and path.name[0] != "."]
        assert len(spooled) <= 8, spooled
        now = live.families(site)
        grown = {name: (families.get(name, 4), count) for name, count in now.items() if count > families.get(name, 4) + 60}
        # Guards go with each snapshot, which is made when there is much in the journal: they may have gone since, or before.
        assert grown.keys() <= {"journal", "guards", site.keys.journal, site.keys.guards}, grown
        journal = site.client.journal
        event = ["lively", "resource", 0.0, {"idset": "0"}]
        for _ in range(1100):
            journal.append(Decision([event]), journal.meta.version)
        before_snapshot = site.ask("HGET", site.keys.snapshot, "head")
        journal.append(Decision([event] * 11_000), journal.meta.version)
        site.results([site.submit("true")])  # a worker looks when it has written
        deadline = time.monotonic() + 20
        while site.ask("HGET", site.keys.snapshot, "head") == before_snapshot or site.ask("HLEN", site.keys.guards) > 100:
            assert time.monotonic() < deadline, live.families(site)
        site.sound()


@pytest.mark.parametrize("roles", [("agent",), ("worker-0",), ("server",), ("keeper", "agent")], ids=" and ".join)
def test_killed_again_and_again_in_a_flood(roles: tuple[str, ...], tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "4") as site:
        load = Load(site)
        for round in (1, 2):
            load.add(150)
            site.until(lambda s, n=round: s.count(INACTIVE) >= 150 * n - 100, "some have ended")
            site.kill(*roles)
        load.check()
        site.sound()


def test_stop_in_a_flood_loses_no_pending_job(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "4") as site:
        load = Load(site)
        load.add(400)
        site.until(lambda s: s.count(INACTIVE) >= 50, "some have ended")
        site.stop()
        site.nothing_left()
        site.up()
        codes = site.results(load.short)
        assert sum(code != right for code, right in zip(codes, load.codes, strict=True)) <= 8  # what ran was ended
        numbers = [int(line) for line in load.canary.read_text().split()]
        assert len(numbers) == len(set(numbers)), "something ran twice"
        site.sound()


def test_output_of_two_nodes_is_whole_after_the_agents_death(tmp_path: Path) -> None:
    with live.site(tmp_path, "-s", "2", "--cores", "2") as site:
        text = f"echo before; echo x >>{tmp_path}/up; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo after"
        job = site.submit(text, nodes=2, ntasks=2)
        while site.written(tmp_path / "up").count("x") < 2:
            pass
        while site.ask("XLEN", site.keys.output(job)) < 3:  # a header, and a line of each
            pass
        site.kill("agent")
        (tmp_path / "go").touch()
        assert site.results([job]) == [0]
        done = site.run("job", "attach", "-l", str(job))
        assert sorted(done.stdout.splitlines()) == ["0: after", "0: before", "1: after", "1: before"]
