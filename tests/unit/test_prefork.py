"""Daemons that are forked before they are told what to do: what they share, what they are called, who of them goes."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fluxkv.instances import own_program
from fluxkv.instances.paths import StateDir

KEEPER = """
import json, os, random, sys
from fluxkv.instances import prefork
from fluxkv.instances.paths import StateDir
how = sys.argv[-1]
held = os.open("/dev/null", os.O_RDONLY)
words = prefork.prepare(["worker-0", "agent"], StateDir(sys.argv[2]))
if words is not None:
    fds = sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 50) if os.path.exists(f"/proc/self/fd/{fd}"))
    args = open("/proc/self/cmdline").read().strip(chr(0)).split(chr(0))
    said = {"words": words, "sid": os.getsid(0) == os.getpid(), "fds": fds, "args": args, "random": random.random()}
    print(json.dumps(said), flush=True)
    os._exit(7)
print(*(one.pid for one in prefork._waiting.values()), flush=True)
if how == "die":
    sys.stdin.read()
for name, other in (("agent", "worker-0"), ("worker-0", "agent")):
    pid = prefork.begin(name, [name, "--state-dir", sys.argv[2], "more"])
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), prefork.begin(name, ["again"]), flush=True)
    if how == "dismiss":
        prefork.dismiss()
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("none left", flush=True)
        break
print(random.random(), flush=True)
"""


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> StateDir:
    made = StateDir(str(tmp_path / "i"))
    made.create()
    return made


def keeper(place: StateDir, how: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", KEEPER, "keeper", place.path, "--owner", "0", "--ready-fd", "3", "and room for other words", how]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_each_becomes_what_it_is_told_and_shares_nothing(place: StateDir) -> None:
    with keeper(place, "all") as process:
        out = process.communicate(timeout=30)[0].splitlines()
    assert out[1:3] == ["7 0", "7 0"]
    said = [json.loads(Path(place.log_file(role)).read_text()) for role in ("agent", "worker")]
    for role, name, one in zip(("agent", "worker"), ("agent", "worker-0"), said, strict=True):
        assert one["words"] == [name, "--state-dir", place.path, "more"]
        assert (one["sid"], one["fds"]) == (True, [])
        assert one["args"][-5:] == [role, "--state-dir", place.path, "--role", name]
    assert len({said[0]["random"], said[1]["random"], float(out[3])}) == 3


def test_who_is_not_needed_goes(place: StateDir) -> None:
    with keeper(place, "dismiss") as process:
        out = process.communicate(timeout=30)[0].splitlines()
    assert out[1:3] == ["7 0", "none left"]


def test_none_outlives_its_keeper(place: StateDir) -> None:
    with keeper(place, "die") as process:
        assert process.stdout is not None
        fds = [os.pidfd_open(int(pid)) for pid in process.stdout.readline().split()]
        assert len(fds) == 2
        process.send_signal(signal.SIGKILL)
        for fd in fds:
            import select

            poller = select.poll()
            poller.register(fd, select.POLLIN)
            assert poller.poll(30_000)
            os.close(fd)


STARTER = """
import os, socket, sys, threading
from fluxkv.instances import main, own_program, prefork, shown
own_program.is_run_by(len, os._exit, dict)
how = sys.argv[-1]
if how.startswith("old kernel"):
    shown.can_show = lambda: False
    shown.show = lambda words, environ, name=b"": False
    how = how[11:]
held = open(os.devnull)
if how == "socket":
    other = socket.socket()
elif how == "thread":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
elif how == "hidden":
    del os.environ["GONE"]
elif how == "module":
    own_program._run = None
def be(words):
    fds = sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in range(4, 50) if os.path.exists(f"/proc/self/fd/{fd}"))
    args = open("/proc/self/cmdline").read().strip(chr(0)).split(chr(0))
    gone = "GONE=" in open("/proc/self/environ").read()
    os.write(3, repr((words, args, fds, os.getsid(0) == os.getpid(), os.environ["KEPT"], gone)).encode())
    print("said", flush=True)
    return 7
main.main = be
read, write = os.pipe()
pid = prefork.keeper(["keeper", "--state-dir", "/s", "--owner", "5", "--ready-fd", "3"], write, sys.argv[1])
os.close(write)
if pid:
    print(os.read(read, 9999).decode())
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
else:
    print("none")
"""


OLD = "old kernel "


@pytest.mark.parametrize("how", ["", "hidden", "short", OLD, "socket", "thread", "module", OLD + "hidden", OLD + "short"])
def test_start_forks_its_keeper_where_nothing_would_be_shared(tmp_path: Path, how: str) -> None:
    log, room = "log", [] if how.endswith("short") else ["room for the words that a daemon has" * 5]
    script = tmp_path / "x"
    script.write_text(f"#!{sys.executable}{STARTER}")
    script.chmod(0o700)
    env = {**os.environ, "KEPT": "k", "GONE": "g"}
    done = subprocess.run(
        [f"./{script.name}", log, *room, how], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30
    )  # fmt: skip
    if how not in ("", "hidden", "short", OLD):
        assert (done.stdout, done.stderr) == ("none\n", "")
        return
    words = ["keeper", "--state-dir", "/s", "--owner", "5", "--ready-fd", "3"]
    args = ["python" if how == OLD else sys.executable, "-P", "-m", "fluxkv.instances.main", *words]
    said = repr((words, args, [], True, "k", how != "hidden"))  # what was taken out of the environment is not shown
    assert done.stdout.splitlines() == [said, "7"], done.stderr
    assert (tmp_path / log).read_text() == "said\n"


def test_a_fork_of_a_fork_looks_only_at_modules_that_came_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "fluxkv"
    script.write_text("#!/usr/bin/python3\n")
    monkeypatch.setattr(own_program, "_run", (len, os._exit, dict))
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", str(script)])
    monkeypatch.setattr(sys, "__stdin__", sys.__stdout__)
    first = own_program.began()
    assert first is not None
    assert own_program.__file__ in first.code
    assert sys.executable in first.code
    assert first.is_current()

    class Untouched:
        def __getattr__(self, name: str) -> str:
            raise AssertionError("it was there before")

    monkeypatch.setitem(sys.modules, "json", Untouched())
    second = own_program.began(first)
    assert second is not None
    assert second == first

    path = tmp_path / "late.py"
    path.write_text("late = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("late")
    try:
        third = own_program.began(second)
    finally:
        del sys.modules["late"]
    assert third is not None
    assert {*third.code} - {*second.code} == {str(path)}
    assert third.is_current()
    path.write_text("late = 22\n")
    assert second.is_current()
    assert not third.is_current(), "who is started as a program would find other code"
