"""Tasks that are instances, forked from their launcher: nothing tells one from a program, and recovery finds it as it finds others.

The program is a small one of ours here, which says all that it sees; launcher and processes are real.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import Site

from fluxkv.instances import proctree, shown
from fluxkv.instances.launch_client import LaunchClient
from fluxkv.instances.paths import lock_held
from fluxkv.instances.spool import attempt_mark, output_paths
from fluxkv.kvs.failpoints import VARIABLE

pytestmark = [pytest.mark.live, pytest.mark.skipif(not shown.can_show(), reason="this kernel lets no process say what it is")]
PATIENCE_S = 20.0
PROGRAM = """
import atexit, json, os, random, resource, signal, sys, tempfile, time
if sys.argv[1] == "launcher":
    import fluxkv_part, other_package
from fluxkv.instances import forked_tasks, launcher, own_program, proctree, shown, yielding
from fluxkv.kvs import failpoints

def run(words):
    if words[1] == "say":
        print(json.dumps(said()))
        sys.stdout.flush()
        print("not flushed", end="")
        atexit.register(os.write, 1, b"tidied\\n")
        return 3
    if words[1] == "fail":
        raise RuntimeError("a fault of ours")
    with open(words[2], "w") as file:
        file.write(str(os.getpid()))
    while True:
        time.sleep(1000)

def said():
    read = lambda name, pid="self": open(f"/proc/{pid}/{name}").read()
    def signs(pid):
        status = dict(line.split(":\\t") for line in read("status", pid).splitlines() if ":\\t" in line)
        return {name: status[name] for name in ("Umask", "SigBlk", "SigIgn", "SigCgt", "Cpus_allowed", "NoNewPrivs", "Threads")}
    above = os.getppid()
    fds = {n: os.readlink(f"/proc/self/fd/{n}") for n in range(30) if os.path.exists(f"/proc/self/fd/{n}")}
    return {
        "cmdline": read("cmdline"), "environ": read("environ"), "comm": read("comm"), "argv": sys.argv, "orig": sys.orig_argv,
        "env": dict(os.environ), "fds": fds, "cwd": os.getcwd(), "parent": above == int(os.environ["LAUNCHER"]),
        "above": [*(read(name, above) for name in ("cmdline", "environ", "comm")), signs(above)],
        "open": len(os.listdir(f"/proc/{above}/fd")),
        "group": os.getpgrp() == os.getpid(), "session": os.getsid(0) == above, "status": signs("self"),
        "handlers": [str(signal.getsignal(s)) for s in signal.valid_signals()], "timer": signal.getitimer(signal.ITIMER_REAL),
        "limits": [resource.getrlimit(n) for n in range(16)], "nice": os.nice(0), "zone": time.tzname,
        "class": os.sched_getscheduler(0),
        "exe": os.readlink("/proc/self/exe"), "armed": list(failpoints.ARMED), "main": sys.stdout is sys.__stdout__,
        "buffers": [(s.line_buffering, s.write_through, s.encoding, s.errors) for s in (sys.stdin, sys.stdout, sys.stderr)],
        "names": [s.name for s in (sys.stdin, sys.stdout, sys.stderr)], "in": sys.stdin.isatty() or sys.stdin.read(),
        "forked": hasattr(own_program, "launched"), "ahead": "ahead_part" in sys.modules, "ran": random.random(),
        "temp": tempfile.gettempdir(), "oom": open("/proc/self/oom_score_adj").read(), "executable": sys.executable,
    }

def ahead():
    import ahead_part

leave = lambda status: (atexit._run_exitfuncs(), sys.stdout.flush(), os._exit(status))
own_program.is_run_by(run, leave, ahead)
if sys.argv[1] == "launcher":
    own_program.launched = True
    assert tempfile.gettempdir() and random.random()
    held = open(sys.argv[0])
    yielding.begin()
    if sys.argv[3] == "unknown":
        shown.show = lambda *_: False
    if sys.argv[3] == "closed":
        sys.__stdin__, sys.stdin = None, open(0)  # as the command line does that began without
    forked_tasks.get_ready()
    os.write(1, b"x")
    if sys.argv[3] == "full":
        forked_tasks._resident = lambda: os.listdir(__file__)
    if sys.argv[3] == "stuck":
        sys.stdout = open("/dev/full", "w")
        sys.stdout.write("what nobody takes")
    if sys.argv[3] == "slow":
        close_but = forked_tasks.close_but
        forked_tasks.close_but = lambda kept: (time.sleep(0.5), close_but(kept))
    if sys.argv[3] == "ends":
        proctree.ends = lambda pid: pid == os.getppid()
    if sys.argv[3] == "grown":
        grown = bytearray(b"x") * (64 << 20)
    deeper = lambda left: deeper(left - 1) if left else launcher.main(["--spool", sys.argv[2]])
    sys.exit(deeper(500 if sys.argv[3] == "deep" else 0))
leave(run(sys.argv[1:]))
"""


class Rig:
    """A launcher that has begun as our program, and an agent's end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.spool = folder, str(folder / "spool")
        os.mkdir(self.spool, 0o700)
        self.program = folder / "fluxkv"
        self.program.write_text(f"#!{sys.executable}\n{PROGRAM}")
        self.program.chmod(0o700)
        for name in ("fluxkv_part", "other_package"):  # parts of the program's code
            (folder / f"{name}.py").write_text("")
        self.ahead = folder / "imported"  # there when a launcher with nothing to do has imported what its forks will
        self.part = folder / "ahead_part.py"
        self.part.write_text(f"import os\nopen({str(self.ahead)!r}, 'w').write(str(os.getpid()))\n")
        (folder / "in").write_bytes(b"one\r\ntwo\r")
        self.log = folder / "log"
        self.events: list[list[Any]] = []
        self.process: subprocess.Popen[bytes] | None = None

    def up(self, how: str = "", *, more: dict[str, str] | None = None, **env: str) -> None:
        """more: what launcher and tasks have alike."""
        self.more = more or {}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "launcher", self.spool, how or "known"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**self.env(), **self.more, **env},
            )  # fmt: skip
        self.client = LaunchClient(self.spool)
        deadline, answered = time.monotonic() + PATIENCE_S, False
        while not answered:
            assert time.monotonic() < deadline, f"no launcher answers; log: {self.log.read_text()}"
            if not self.client.connected:  # or was, to the socket of one that is dead, which a fork of it had yet
                self.client.connect(PATIENCE_S)
            answered = "held" in self.hear()

    @staticmethod
    def env(**more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name.startswith(("LC_", "LANG", "PATH", "HOME"))}
        return {**kept, "TZ": "UTC", "GONE": "g", **more}

    def start(self, key: str, *words: str, **more: Any) -> None:
        assert self.process is not None
        env = {**self.env(LAUNCHER=str(self.process.pid), TZ="CET-1", TMPDIR="/var/tmp"), **self.more, **more.pop("env", {})}
        del env["GONE"]
        spec = {
            "key": key, "job": 1, "tasks": [[0, [str(self.program), "start", *words], [0], {}]], "cwd": str(self.folder),
            "env_set": env, "kill_grace_s": 0.2, **more,
        }  # fmt: skip
        self.client.send(["launch", [spec]])

    def event(self, name: str, key: str) -> list[Any]:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := [event for event in self.events if event[:2] == [name, key]]):
            assert time.monotonic() < deadline, f"no {name} {key} among {self.events}; log: {self.log.read_text()}"
            self.hear()
        return found[0]

    def hear(self) -> list[str]:
        """Take what has come; the events' names."""
        heard = self.client.wait(0.5)
        for event in heard:  # what was over before we came stands in the list only
            self.events += [event] if event[0] != "held" else [row[5] for row in event[1] if row[5]]
        return [event[0] for event in heard]

    def out(self, key: str) -> str:
        return Path(output_paths(self.spool, 1, key)[0]).read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.client.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    one = Rig(tmp_path)
    yield one
    if one.process is not None:
        one.process.terminate()
        one.process.wait(PATIENCE_S)
        one.client.close()
    suffix = attempt_mark(one.spool, "")
    assert [p for p in proctree.all_pids() if any(m.endswith(suffix) for m in proctree.marks(p))] == []


def wait_gone(pid: int) -> None:
    """Until a process that is not our child is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    assert poller.poll(PATIENCE_S * 1000), f"{pid} lives"
    os.close(fd)


def said(rig: Rig, key: str, **more: Any) -> dict[str, Any]:
    """What a task says of itself; how it ended is the same for all."""
    rig.start(key, "say", **more)
    assert rig.event("over", key)[2] == 3 << 8
    text, rest = rig.out(key).replace("\r\n", "\n").split("\n", 1)
    assert rest == ("not flushedtidied\n" if "PYTHONUNBUFFERED" in rig.more else "tidied\nnot flushed")
    found: dict[str, Any] = json.loads(text)
    hosted = "pty" in more
    assert (found["parent"], found["group"], found["session"]) == (not hosted, True, not hosted)
    assert found["env"]["FLUXKV_ATTEMPT"] == attempt_mark(rig.spool, key)
    library = 1 << 31 | 1 << 32  # which the C library keeps for itself, and has ignored by whom it spawns
    for signs in (found["status"], found["above"][3]):
        signs["SigIgn"] = int(signs["SigIgn"], 16) & ~library
    if not hosted:
        del found["above"], found["open"]  # the launcher's
    elif "env" in more:
        found["above"][1] = found["above"][1].replace("LC_OTHER=x\0", "")
    for name in found.keys() & {"environ", "fds", "env", "above"}:
        found[name] = json.loads(json.dumps(found[name]).replace(key, "KEY"))
    for number, end in (("1", "out"), ("2", "err")):  # which have the attempt's name only when it has run for a while
        found["fds"][number] = re.sub(r"/out/\.blank-\d+$", f"/out/1.KEY.{end}", found["fds"][number])
    return found


OTHERS = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "latin-1:replace", "LC_ALL": "C"}


@pytest.mark.parametrize(
    ("more", "spec"), [({}, {}), (OTHERS, {}), ({}, {"pty": [0]}), ({}, {"stdin": "in"})],
    ids=["", "others", "terminal", "input"],
)
def test_a_fork_is_what_a_program_would_be(rig: Rig, more: dict[str, str], spec: dict[str, Any]) -> None:
    """On a terminal, its host, too."""
    rig.up(more=more)
    fork, program = said(rig, "k-f", **spec), said(rig, "k-p", env={"LC_OTHER": "x"}, **spec)
    again = said(rig, "k-a", **spec)
    assert (fork.pop("forked"), program.pop("forked"), again.pop("forked")) == (True, False, True)
    assert len({fork.pop("ran"), program.pop("ran"), again.pop("ran")}) == 3
    assert program["env"].pop("LC_OTHER") == "x"
    program["environ"] = program["environ"].replace("LC_OTHER=x\0", "")
    assert fork == program == again
    assert (fork["zone"], fork["temp"]) == (["CET", "CET"], "/var/tmp")


OTHERWISE = ("early", "other", "limits", "code", "package", "grown", "deep", "stuck", "full", "closed", "unknown")


@pytest.mark.parametrize("what", OTHERWISE)
def test_what_would_be_another_is_a_program(rig: Rig, what: str) -> None:
    rig.up(what)
    more: dict[str, Any] = {}
    if what == "early":
        more["env"] = {"PYTHONHASHSEED": "7"}
    elif what == "limits":
        more["rlimits"] = {"core": 0, "nofile": 100}
    elif what == "other":
        rig.program.write_text(rig.program.read_text() + "\n")
    elif what in ("code", "package"):
        assert said(rig, "before")["forked"]
        (rig.folder / ("fluxkv_part.py" if what == "code" else "other_package.py")).write_text("another")
    found = said(rig, "a", **more)
    assert not found["forked"]  # unknown: the fork found that it cannot be seen as what it is, and began as a program
    if what == "limits":
        assert found["limits"][7][0] == 100


def test_a_launcher_with_nothing_to_do_imports_what_its_forks_will(rig: Rig) -> None:
    rig.up()
    deadline = time.monotonic() + PATIENCE_S
    while not rig.ahead.exists():
        assert time.monotonic() < deadline, rig.log.read_text()
        rig.hear()
    assert rig.process is not None
    assert rig.ahead.read_text() == str(rig.process.pid)
    after = said(rig, "after")
    assert (after["forked"], after["ahead"]) == (True, True)
    rig.part.write_text("another")  # that, too, is code that has to be what a program would find
    last = said(rig, "last")
    assert (last["forked"], last["ahead"]) == (False, False)


def test_what_cannot_be_imported_ahead_is_in_nobody_s_way(rig: Rig) -> None:
    rig.part.write_text(f"{rig.part.read_text()}raise ImportError('half')\n")
    rig.up()
    deadline = time.monotonic() + PATIENCE_S
    while not rig.ahead.exists():
        assert time.monotonic() < deadline, rig.log.read_text()
        rig.hear()
    assert not said(rig, "after")["forked"]


def test_a_fault_is_said_and_ends_it_as_it_would_a_program(rig: Rig) -> None:
    rig.up()
    for key, env in (("fork", {}), ("program", {"LC_OTHER": "x"})):
        rig.start(key, "fail", env=env)
        assert rig.event("over", key)[2] == 1 << 8
        err = Path(output_paths(rig.spool, 1, key)[1]).read_text()
        assert err.endswith("RuntimeError: a fault of ours\n")
    rig.start("bad", "say", env={VARIABLE: "nonsense"})
    assert rig.event("over", "bad")[2] == 1 << 8
    assert "nonsense" in Path(output_paths(rig.spool, 1, "bad")[1]).read_text()


def test_it_is_signalled_limited_and_reported_as_others(rig: Rig) -> None:
    rig.up()
    rig.start("a", "stay", "a.pid")
    (pid,) = rig.event("start", "a")[3]
    rig.client.send(["signal", "a", signal.SIGUSR1])
    assert rig.event("over", "a")[2] == signal.SIGUSR1
    rig.start("b", "stay", "b.pid", limit_s=0.1)
    assert rig.event("over", "b")[2] == signal.SIGTERM
    assert rig.event("over", "b")[6] == "timeout"
    assert not proctree.alive(pid)


def test_a_launcher_that_dies_before_its_fork_bears_its_mark_leaves_nothing(rig: Rig) -> None:
    """HAZARD 8: there is nothing that a successor could find, so what was forked goes by itself, and has done nothing."""
    rig.up(**{VARIABLE: "fork.unmarked:delay=1"})
    rig.start("a", "stay", "a.pid")
    (pid,) = rig.event("start", "a")[3]
    assert proctree.marks(pid) == []
    rig.kill()
    rig.up()
    over = rig.event("over", "a")
    assert (over[2], over[6]) == (signal.SIGKILL, "lost")
    wait_gone(pid)
    assert not (rig.folder / "a.pid").exists()


def test_a_fork_whose_launcher_has_begun_to_end_does_nothing(rig: Rig) -> None:
    """HAZARD 8: its lock may be its successor's before it is gone."""
    rig.up("ends")
    rig.start("a", "stay", "a.pid")
    assert rig.event("over", "a")[2] == 1 << 8
    assert not (rig.folder / "a.pid").exists()
    assert not proctree.ends(os.getpid())
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert proctree.ends(ended.pid)
    assert proctree.ends(ended.pid)


def test_a_launcher_that_dies_before_it_notes_its_fork_finds_it_by_its_mark(rig: Rig) -> None:
    """HAZARD 8, behind the mark: it runs, and no record knows of it."""
    rig.up(**{VARIABLE: "spawn.after:2:kill"})
    rig.start("a", "stay", "a.pid")
    rig.event("start", "a")
    rig.start("b", "stay", "b.pid")
    assert rig.process is not None
    rig.process.wait(PATIENCE_S)
    rig.client.close()
    pids = proctree.marked({attempt_mark(rig.spool, key) for key in "ab"})
    rig.up()
    for key in "ab":
        over = rig.event("over", key)
        assert (over[2], over[6]) == (signal.SIGKILL, "lost")
    for pid in pids:
        assert not proctree.alive(pid)


def test_a_dead_launcher_s_lock_that_its_fork_still_has_is_waited_for(rig: Rig) -> None:
    rig.up("slow", **{VARIABLE: "spawn.after:kill"})
    rig.start("a", "stay", "a.pid")
    assert rig.process is not None
    rig.process.wait(PATIENCE_S)
    rig.client.close()
    assert lock_held(f"{rig.spool}/launcher.lock")
    rig.up()
    over = rig.event("over", "a")
    assert (over[2], over[6]) == (signal.SIGKILL, "lost")
    assert not (rig.folder / "a.pid").exists()


def test_one_that_dies_at_once_is_reported(rig: Rig) -> None:
    rig.up(**{VARIABLE: "fork.unmarked:kill"})
    rig.start("a", "stay", "a.pid")
    assert rig.event("over", "a")[2] == signal.SIGKILL
    rig.start("b", "say")
    rig.event("over", "b")


def test_instances_in_instances_are_forks_of_one_program(tmp_path: Path) -> None:
    """Each of them shows its own words, and the marks of all attempts that it is in."""
    site = Site(tmp_path)
    try:
        site.up("--cores", "2")
        inner = "fluxkv alloc -n1 sh -c 'echo $FLUXKV_ATTEMPT; cat /proc/$PPID/auxv | od -An -tx1 | md5sum; sleep 0'"
        caught = "sed -n s/SigCgt:.//p /proc/$(grep -o '[0-9]*' {0}/run/worker-0.json | head -1)/status"
        there, ignored = caught.format("$FLUXKV_STATE_DIR"), "sed -n s/SigIgn:.//p /proc/self/status"
        done = site.run("alloc", "-n1", "sh", "-c", f"{there}; {ignored}; {inner}; cat /proc/$PPID/auxv | od -An -tx1 | md5sum")
        assert done.returncode == 0, done.stderr
        signals, deaf, marks, *sums = done.stdout.splitlines()
        assert signals == subprocess.check_output(["sh", "-c", caught.format(site.dir.path)], text=True).strip(), "start's handlers"
        assert not int(deaf, 16) & (1 << 12 | 1 << 24), "SIGPIPE and SIGXFSZ are as from a shell"
        assert len(marks.split()) == 2
        launcher = int(json.loads(Path(site.dir.path, "run", "launcher.json").read_text())["pid"])
        whole = subprocess.run(
            f"cat /proc/{launcher}/auxv | od -An -tx1 | md5sum", shell=True, capture_output=True, text=True, check=True
        ).stdout.strip()
        assert sums == [whole, whole]
    finally:
        site.end()


def test_what_leads_and_feeds_an_ensemble_is_called_so(tmp_path: Path) -> None:
    site = Site(tmp_path)
    try:
        site.up("--cores", "2")
        look = f"for one in /proc/[0-9]*; do tr '\\0' ' ' <$one/cmdline; echo; done >{tmp_path}/seen"
        done = site.run("ensemble", "run", "--per-node=1", "--cc=1", "sh", "-c", look)
        assert done.returncode == 0, done.stderr
        seen = [line.split() for line in (tmp_path / "seen").read_text().splitlines() if str(tmp_path / "i") in line]
        program = [sys.executable, str(Path(sys.executable).parent / "fluxkv")]
        (lead,) = [words for words in seen if words[2:4] == ["ensemble", "lead"]]
        assert lead[:2] == program, seen
        (feed,) = [words for words in seen if words[-3:-1] == ["ensemble", "feed"]]
        assert feed[:3] == [*program, "start"], seen  # of a child one process
    finally:
        site.end()
