"""Instances inside jobs, as people make them: batch and alloc, what they see inside, and what is left when they end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import live
import pytest

from fluxkv.instances.child import child_uri
from fluxkv.instances.client import connect
from fluxkv.instances.final_totals import MEMO, Final, told_of
from fluxkv.journal.ids import f58, parse_id
from fluxkv.kvs.uri import same_instance

pytestmark = pytest.mark.live


class Screen:
    """A command on a terminal of its own."""

    def __init__(self, site: Any, *args: str, rows: int = 24, columns: int = 80) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            try:
                env = {**site.env, "FLUXKV_URI": site.uri, "SHELL": "/bin/sh", "PS1": "> ", "TERM": "dumb"}
                os.execve(live.PROGRAM[0], [*live.PROGRAM, *args], env)
            finally:
                os._exit(99)
        self.seen = b""
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, text: str) -> None:
        """Waits until it shows this; what was shown up to there is forgotten."""
        while text.encode() not in self.seen:
            assert select.select([self.fd], [], [], live.PATIENCE_S)[0], self.seen
            self.seen += os.read(self.fd, 65536)
        self.seen = self.seen.partition(text.encode())[2]

    def code(self) -> int:
        """Its exit code, once it has ended."""
        while select.select([self.fd], [], [], live.PATIENCE_S)[0]:
            try:
                self.seen += os.read(self.fd, 65536)
            except OSError:
                break
        return self.gone()

    def close(self) -> None:
        os.close(self.fd)

    def gone(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


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
        assert lines[:2] + lines[3:6] == ["got a b c", "inside", site.uri, "4294967295", "1"]
        assert same_instance(lines[2], child)
        job = site.client.job(id)
        assert (job.name, job.memo) == ("sims", {"uri": child, MEMO: [1, 1, 0, 0, 0, 0]})
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
        assert [told_of(job) for job in site.client.state().jobs.values()] == [Final(1)], "an instance counts by what is in it"


def test_a_shell_on_a_terminal(tmp_path: Path) -> None:
    """Size, keys, a job of its own on a terminal, an agent that dies meanwhile, the code; another terminal looks in and goes."""
    with live.site(tmp_path, "--cores", "2") as site:
        screen = Screen(site, "alloc", "-n2", rows=33, columns=101)
        screen.until("> ")
        screen.type("stty size; tty\r")
        screen.until("33 101\r\n/dev/pts/")
        screen.resize(20, 50)
        screen.type("until test \"$(stty size)\" = '20 50'; do sleep 0.01; done; echo si$((1))ze; sleep 100\r")
        screen.until("si1ze")
        screen.type("\x03")
        screen.until("> ")
        screen.type("fluxkv run --interactive sh -c 'echo up; read a; echo got $a'\r")
        screen.until("\nup")
        screen.type("word\r")
        screen.until("got word")
        site.kill("agent")
        screen.type("echo af$((1))ter\r")
        screen.until("af1ter")
        (id,) = site.client.state().jobs
        other = Screen(site, "job", "attach", f58(id))
        other.until("af1ter")
        other.type("echo o$((1))ther\r")
        screen.until("o1ther")
        other.close()
        other.gone()
        screen.type("fluxkv resource list -no {ncores}; exit 5\r")
        screen.until("2\r\n0\r\n0\r\n")
        assert screen.code() == 5
        assert not left_inside(site)
        assert not site.client.store.messages(site.keys.input(id))
        site.sound()


def test_a_warning_is_the_script_s(tmp_path: Path) -> None:
    """`--signal` and `job kill` tell all of a job: the program inside does with it what it wants; on both nodes the instance goes
    on."""
    inner = tmp_path / "inner"
    inner.write_text(
        "#!/bin/bash\ntrap 'told=1' USR1\nfluxkv --parent job memo $FLUX_ENCLOSING_ID up=1\nsleep 1000 &\n"
        'until test "$told"; do wait; done\nkill %1\nfluxkv run -N2 sh -c "exit 12"\n'
    )
    with live.site(tmp_path, "-s", "2", "--cores", "1") as site:
        id = parse_id(site.run("batch", "-N2", "--output=none", str(inner)).stdout.strip())
        site.until(lambda s: "'up'" in str(s.jobs[id].memo) + str(s.jobs[id].annotations), "the script is up")
        assert site.run("job", "kill", "-s", "USR1", f58(id)).returncode == 0
        assert site.run("job", "attach", f58(id)).returncode == 12


def test_a_closed_terminal_gives_everything_back(tmp_path: Path) -> None:
    """Whether the job runs or waits; Ctrl-C, or Ctrl-backslash, cancels one that waits."""
    with live.site(tmp_path, "--cores", "1") as site:
        screen = Screen(site, "alloc", "-n1", "sh", "-c", "echo up; exec sleep 1000")
        screen.until("up")
        for key, signum in (("\x03", signal.SIGINT), ("\x1c", signal.SIGQUIT)):
            waiting = Screen(site, "alloc", "-n1")
            waiting.until("waits: needs 1 core on one node; none is free; Ctrl-C cancels it")
            waiting.type(key)
            assert waiting.code() == 128 + signum
        waiting = Screen(site, "submit", "--wait", "--cc=1-2", "true")
        waiting.until(" waits: needs 1 core on one node; none is free")
        waiting.type("\x03")
        assert waiting.code() == 128 + signal.SIGINT
        site.run("cancel", "--all", "--states=pending")
        waiting = Screen(site, "run", "true")
        waiting.until(" says more")
        waiting.type("\x03")
        waiting.until("ctrl-C again within 2 s cancels it")
        waiting.type("\x03")
        assert waiting.code() == 128 + signal.SIGINT
        waiting = Screen(site, "alloc", "-n1")
        waiting.until("Ctrl-C cancels it")
        for one in (waiting, screen):
            one.close()
            one.gone()
        state = site.until(lambda s: all(job.t_inactive for job in s.jobs.values()), "all are over")
        closed = ["cancel", "its terminal was closed"]
        ends = [list(job.exception) for _, job in sorted(state.jobs.items()) if job.name != "true" or job.exception[1]]
        quitted = ["cancel", "its terminal's program was ended"]
        interrupted = ["cancel", "interrupted by ctrl-C"]
        assert ends == [closed, interrupted, quitted, interrupted, closed]
        assert not left_inside(site)
        assert not [key for key in site.ask("KEYS", "*") if b":input:" in key]


def test_ctrl_c_cancels_an_alloc_that_waits_off_a_terminal_too(tmp_path: Path) -> None:
    with live.site(tmp_path, "--cores", "1") as site:
        site.submit("sleep 1000")
        waiting = subprocess.Popen(
            [*live.PROGRAM, "alloc", "-n1", "-v", "true"], env={**site.env, "FLUXKV_URI": site.uri}, stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert waiting.stderr is not None
        while " submit" not in (line := waiting.stderr.readline()):  # events are told once it listens to signals
            assert line
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(live.PATIENCE_S) == 128 + signal.SIGINT
        waiting.stderr.close()
        state = site.until(lambda s: s.jobs[max(s.jobs)].t_inactive, "it is cancelled")
        assert list(state.jobs[max(state.jobs)].exception) == ["cancel", "interrupted by ctrl-C"]



def test_daemons_that_were_all_killed_at_once_are_started_again(tmp_path: Path) -> None:
    """Nobody of them is left who would: whoever runs the instance's program does it."""
    with live.site(tmp_path, "--cores", "2") as site:
        script = tmp_path / "waits"
        script.write_text("#!/bin/sh\necho up >up; while [ ! -e go ]; do sleep 0.05; done; fluxkv run echo after\n")
        id = parse_id(site.run("batch", "-n1", f"--cwd={tmp_path}", "--output=out", str(script)).stdout.strip())
        site.written(tmp_path / "up")
        (folder,) = (tmp_path / "i" / "ns").iterdir()
        pids = [json.loads(file.read_text())["pid"] for file in (folder / "run").glob("*.json")]
        assert len(pids) == 4
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        (tmp_path / "go").touch()
        assert (site.results([id]), (tmp_path / "out").read_text()) == ([0], "after\n")


def test_daemons_of_a_node_that_follows_are_started_again_when_all_were_killed_at_once(tmp_path: Path) -> None:
    """The node stays the instance's; what its launcher's death ended is heard of, and begins again by policy."""
    with live.site(tmp_path, "-s", "2", "--cores", "1") as site:
        told = f"echo $FLUX_JOB_ATTEMPT >>{tmp_path}/runs; [ $FLUX_JOB_ATTEMPT = 2 ] || exec sleep 1000"
        inside = f"fluxkv run --requires=rank:1 --retry=1 sh -c '{told}'; echo $?; fluxkv run -N2 echo both"
        (tmp_path / "inside").write_text(f"#!/bin/sh\n{inside}\n")
        id = parse_id(site.run("batch", "-N2", "--kvs=own", "--output=none", str(tmp_path / "inside")).stdout.strip())
        site.written(tmp_path / "runs")
        (folder,) = (tmp_path / "i" / "ns").glob("*-1")
        pids = [json.loads(file.read_text())["pid"] for file in (folder / "run").glob("*.json")]
        assert len(pids) == 3
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert site.results([id]) == [0]
        assert site.run("job", "attach", f58(id)).stdout.split() == ["0", "both", "both"]
        assert (tmp_path / "runs").read_text() == "1\n2\n"
        assert site.events(id).count("release") == 1, "its node stayed to the end"
        site.sound()


@pytest.mark.parametrize("how", ["end", "keepers"])
def test_children_of_children_end_in_one_go(how: str, tmp_path: Path) -> None:
    """Whatever of them is left, and whoever of their keepers is: no process, no core held, no scratch folder of theirs."""
    with live.site(tmp_path, "--cores", "4") as site:
        inner = tmp_path / "inner"
        inner.write_text(f"#!/bin/sh\nfluxkv submit --quiet sleep 1000; echo $1 >>{tmp_path}/up; exec sleep 1000\n")
        outer = tmp_path / "outer"
        outer.write_text(
            f"#!/bin/sh\nfluxkv batch -n1 --output=none {inner} a; fluxkv batch -n1 --output=none {inner} b\n"
            f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done\n"
        )
        id = parse_id(site.run("batch", "-n4", "--output=none", str(outer)).stdout.strip())
        lines: list[str] = []
        deadline = time.monotonic() + 2 * live.PATIENCE_S
        while len(lines) < 2:
            assert time.monotonic() < deadline, site.logs()
            lines = site.written(tmp_path / "up").split()
        left = left_inside(site)
        assert sum(line == "sleep 1000" for line in left.values()) >= 2
        if how == "keepers":
            keepers = [pid for pid, line in left.items() if " keeper " in line]
            assert len(keepers) == 3
            for pid in keepers:
                os.kill(pid, signal.SIGKILL)
            site.client.cancel([id])
        else:
            (tmp_path / "go").touch()
        state = site.until(lambda s: bool(s.jobs[id].t_inactive), "it is over")
        assert not left_inside(site)
        assert not any(node.used_cores for node in state.nodes.values())
        assert site.results([site.submit("true", cores_per_task=4)]) == [0]
        site.sound()


def test_a_child_on_four_nodes_with_its_own_config(tmp_path: Path) -> None:
    """Each node's part reads the config from its own folder; its queues are the child's alone; a second child is a sibling."""
    with live.site(tmp_path, "-s", "4", "--cores", "1") as site:
        script = tmp_path / "wide"
        script.write_text(
            "#!/bin/sh\n# flux: -N2 --output=none\n# flux: --conf=queues.a.policy.jobspec.defaults.system.duration=5m\n"
            "# flux: --conf=policy.jobspec.defaults.system.queue=a --conf=queue.policy=conservative\n"
            "fluxkv run -N2 sh -c 'echo $FLUX_TASK_RANK of $FLUX_JOB_NNODES'; fluxkv queue list -no {queue}\n"
            "fluxkv config get queue.policy\n"
        )
        ids = [parse_id(site.run("batch", str(script)).stdout.strip()) for _ in range(2)]
        assert site.results(ids) == [0, 0]
        for id in ids:
            shown = site.run("job", "attach", f58(id)).stdout.split("\n")
            assert sorted(shown[:2]) == ["0 of 2", "1 of 2"]
            assert (shown[2], shown[3].strip('"')) == ("a", "conservative"), shown
        assert site.run("queue", "list", "-no", "{queue}").stdout.split() == ["default"]
        claims = [{claim.rank for claim in site.client.job(id).claims or ()} for id in ids]
        assert not left_inside(site)
        assert len(claims) == 2
        site.sound()


def test_a_child_on_several_nodes_that_is_cancelled_hears_of_the_ends_on_all_of_them(tmp_path: Path) -> None:
    """Each of its nodes is told to end at once, and the others stay until the leading one has what is to be known."""
    with live.site(tmp_path, "-s", "3", "--cores", "1") as site:
        script = tmp_path / "wide"
        script.write_text(
            "#!/bin/sh\nfor job in $(fluxkv submit --cc=1-3 sleep 1000); do\n"
            "  fluxkv job wait-event $job start && fluxkv job hostpids $job || exit\n"
            "done\n"
            f"echo all run >{tmp_path}/up; sleep 1000\n"
        )
        id = parse_id(site.run("batch", "-N3", "--output=none", str(script)).stdout.strip())
        site.written(tmp_path / "up")
        site.client.cancel([id])
        state = site.until(lambda s: bool(s.jobs[id].t_inactive), "it is over")
        assert state.jobs[id].status == signal.SIGTERM, "it has ended by itself"
        assert not left_inside(site)
        with connect(child_uri(site.uri, id)) as inside:
            jobs = inside.state().jobs.values()
            assert [(job.number, job.holds) for job in jobs] == [(2, False)] * 3, "all are to be begun again"
        who = {line.split()[2].partition(".")[0] for line in site.run("--instance", f58(id), "dmesg").stdout.splitlines()}
        assert {"keeper", "keeper@rank1", "keeper@rank2"} <= who
        site.sound()
