"""The launcher with real processes: trees, limits, files, succession, and every way of dying."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances import proctree
from fluxkv.instances.alike import Alike
from fluxkv.instances.attempts import Host
from fluxkv.instances.launch_client import LaunchClient, start_launcher
from fluxkv.instances.spool import attempt_mark, input_path, output_paths, socket_path
from fluxkv.instances.wire import LIKE
from fluxkv.journal.ids import f58
from fluxkv.kvs.errors import Unavailable

pytestmark = pytest.mark.live
PATIENCE_S = 20.0


class Rig:
    """A launcher, an agent's end, and everything the agent was told."""

    def __init__(self, folder: Path, linger_s: float | None = None, batch_s: float | None = None) -> None:
        self.spool = str(folder / "spool")
        os.makedirs(self.spool, mode=0o700)
        self.work = str(folder)
        self.linger_s, self.batch_s = linger_s, batch_s
        self.events: list[list[Any]] = []
        self.log = str(folder / "launcher.log")
        self.boot()

    def boot(self, fail: str = "") -> None:
        """fail: where it dies."""
        env = {**os.environ, "FLUXKV_FAILPOINT": fail} if fail else None
        self.pid = start_launcher(self.spool, env=env, log=self.log, linger_s=self.linger_s, batch_s=self.batch_s)
        self.connect()

    def connect(self) -> None:
        self.client = LaunchClient(self.spool)
        self.client.connect()
        self.client.environment("base", {"PATH": "/usr/bin:/bin", "HOME": "/"})
        self.next_held()  # every connection asks for it

    def attempt(self, key: str, *command: str, **more: Any) -> dict[str, Any]:
        return {
            "key": key,
            "job": 1,
            "tasks": [[0, list(command), None, {}]],
            "env": "base",
            "cwd": self.work,
            "group": "g",
            "queued": False,
            "kill_grace_s": 0.2,
            **more,
        }

    def launch(self, *attempts: dict[str, Any]) -> None:
        self.client.send(["launch", list(attempts)])

    def shell(self, key: str, script: str, **more: Any) -> None:
        self.launch(self.attempt(key, "sh", "-c", script, **more))

    def until(self, wanted: Callable[[list[Any]], bool], what: str) -> list[Any]:
        """The first event, past or to come, that is wanted."""
        deadline = time.monotonic() + PATIENCE_S
        seen = 0
        while True:
            while seen < len(self.events):
                if wanted(self.events[seen]):
                    return self.events[seen]
                seen += 1
            assert time.monotonic() < deadline, (
                f"no {what} among {self.events}; log: {Path(self.log).read_text()}"
            )
            self.events += self.client.wait(0.5)

    def event(self, name: str, key: Any = None) -> list[Any]:
        return self.until(lambda e: e[0] == name and (key is None or e[1] == key), f"{name} {key}")

    def over(self, key: str) -> list[Any]:
        return self.event("over", key)

    def held(self) -> dict[str, list[Any]]:
        """What the launcher holds now, key -> row."""
        self.client.send(["list"])
        return self.next_held()

    def next_held(self) -> dict[str, list[Any]]:
        count = sum(e[0] == "held" for e in self.events)
        while sum(e[0] == "held" for e in self.events) <= count:
            self.events += self.client.wait(PATIENCE_S)
        return {row[0]: row for row in [e for e in self.events if e[0] == "held"][-1][1]}

    def out(self, key: str, rank: int | None = None) -> str:
        return Path(output_paths(self.spool, 1, key, rank)[0]).read_text()

    def err(self, key: str, rank: int | None = None) -> str:
        return Path(output_paths(self.spool, 1, key, rank)[1]).read_text()

    def wait_file(self, name: str) -> str:
        """Contents of a file a task writes in one go, once it is there and not empty."""
        path = Path(self.work) / name
        deadline = time.monotonic() + PATIENCE_S
        while not (path.exists() and path.stat().st_size):
            assert time.monotonic() < deadline, f"{name} never came"
            self.events += self.client.wait(0.01)
        return path.read_text()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pid = 0
        self.client.close()

    def leave(self) -> int:
        """Shut down, everything ended; the launcher's exit code."""
        self.client.send(["shutdown", True])
        fd = os.pidfd_open(self.pid)
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        gone = poller.poll(PATIENCE_S * 1000)
        os.close(fd)
        assert gone, "the launcher does not leave"
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        self.client.close()
        return code


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    one = Rig(tmp_path)
    yield one
    if one.pid:
        one.leave()
    one.client.close()
    left = [
        p
        for p in proctree.all_pids()
        if any(m.endswith(attempt_mark(one.spool, "")) for m in proctree.marks(p))
    ]
    assert left == []


def wait_gone(pid: int) -> None:
    """Until a process we cannot reap is gone (or a zombie)."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    assert poller.poll(PATIENCE_S * 1000), f"{pid} lives"
    os.close(fd)


# ---- starts, exits, output


def test_output_exit_codes_and_signals(rig: Rig) -> None:
    rig.shell("a", "echo out; echo err >&2; exit 3")
    rig.shell("b", "kill -9 $$")
    rig.launch(rig.attempt("c", "true"))
    start, over = rig.event("start", "a"), rig.over("a")
    assert over[2] == 3 << 8
    assert over[3] == start[2] <= over[4]
    assert over[5:8] == [None, "", ""]
    assert over[10] == 1
    assert len(start[3]) == 1
    assert (rig.out("a"), rig.err("a")) == ("out\n", "err\n")
    assert rig.over("b")[2] == signal.SIGKILL
    assert rig.over("c")[2] == 0
    assert not any(Path(path).exists() for key in "bc" for path in output_paths(rig.spool, 1, key))


def test_many_tasks_own_environment_and_worst_status(rig: Rig) -> None:
    tasks = [[rank, ["sh", "-c", 'echo "$R $X $SEAT"; exit $R'], None, {"R": str(rank)}] for rank in (4, 5)]
    tasks.append([6, ["sh", "-c", "kill -15 $$"], None, {}])
    rig.launch(
        rig.attempt(
            "a",
            tasks=tasks,
            env_set={"X": "x"},
            seat={"cpus": [], "env": {"SEAT": "s"}},
            per_task_output=True,
        )
    )
    over = rig.over("a")
    assert over[5] == [4 << 8, 5 << 8, signal.SIGTERM]
    assert over[2] == signal.SIGTERM
    assert [rig.out("a", rank) for rank in (4, 5)] == ["4 x s\n", "5 x s\n"]
    assert sorted(e[2] for e in rig.events if e[0] == "exit") == [4, 5, 6]


def test_attempts_that_are_alike_are_told_by_what_differs(rig: Rig) -> None:
    host, alike = Host({0: "n"}, "b", "s", "memory:", f"{rig.work}/tmp", {}), Alike()
    show = ["sh", "-c", "echo $FLUX_JOB_ID $FLUXKV_JOB_ATTEMPT $FLUX_JOB_TMPDIR $FLUX_TASK_RANK $N $HOME"]
    order = {
        "user": 1, "name": "x", "command": show, "env": "base", "claim": [0, "0", "", 0, 1], "index": 0, "nodes": 1, "total": 1,
        "first": 0, "count": 1, "shape": "s", "queued": False,
    }  # fmt: skip
    made = {}
    for job in range(1, 7):
        if job == 6:
            rig.client.close()
            rig.connect()  # what was said before is not known to be remembered
        more = {"env": ""} if job == 4 else {}
        if job == 3:
            rig.client._takes.clear()  # as one of an older version has it
        key = f"{job}.{job}-7.0"
        made[key] = alike.build(host, 0, {**order, "job": job, "system": {"environment": {"N": str(job * 11)}}, **more}, key)
        rig.client.launch([made[key]])
        rig.over(key)
        said = Path(output_paths(rig.spool, job, key)[0]).read_text().split()
        tmpdir = f"{rig.work}/tmp/job-{f58(job).replace('ƒ', 'f')}-0"
        assert said[:2] == [f58(job), f"{job}.{job}-7"]
        assert said[3:] == ["0", str(job * 11), *(["/"] if job != 4 else [])]
        assert os.path.dirname(said[2]) == os.path.dirname(tmpdir)
    assert [LIKE in one for one in made.values()] == [False, True, True, False, False, True]


def test_one_that_is_alike_may_say_more_and_what_is_no_kind_is_said_of_each(rig: Rig) -> None:
    common = {"tasks": [[0, ["sh", "-c", "echo out; echo err >&2"], None, {"N": "1"}]], "cwd": str(rig.work)}
    rig.client.send(["like", common])
    mine = Path(rig.work, "mine")
    plain = {"key": "plain", "job": 1, "like": True}
    rig.client.send(["launch", [plain, {**plain, "key": "more", "stdout": str(mine)}]])
    assert [rig.over(key)[2] for key in ("plain", "more")] == [0, 0]
    assert [Path(path).read_text() for path in output_paths(rig.spool, 1, "plain")] == ["out\n", "err\n"]
    assert mine.read_text() == "out\n"
    rig.client.send(["like", {**common, "tasks": []}])
    rig.client.send(["launch", [{**plain, "key": "bad"}]])
    assert rig.over("bad")[6].startswith("spawn: bad attempt: ")
    rig.client.send(["launch", [{**plain, "key": "own", "tasks": common["tasks"]}]])
    assert rig.over("own")[2] == 0


def test_marks_process_group_signals_and_descriptors_of_a_task(rig: Rig) -> None:
    script = (
        "import os, signal; print(os.environ['FLUXKV_ATTEMPT'].split()[-1], os.getpgrp() == os.getpid(), "
        "sorted(map(int, os.listdir('/proc/self/fd'))), open('/proc/self/status').read())"
    )
    rig.launch(rig.attempt("12-ab/3", sys.executable, "-SE", "-c", script))
    assert rig.over("12-ab/3")[2] == 0
    said = rig.out("12-ab/3")
    assert said.startswith(
        f"{attempt_mark(rig.spool, '12-ab/3')} True [0, 1, 2, 3] "
    )  # 3: the listing itself
    masks = dict(line.split(":\t") for line in said.splitlines() if line.startswith(("SigBlk", "SigIgn")))
    assert int(masks["SigBlk"], 16) == 0
    own = 1 << (signal.SIGPIPE - 1) | 1 << (
        signal.SIGXFSZ - 1
    )  # the task is python, which ignores these itself
    internal = 0b11 << 31  # the C library's own two, which no program can reset
    assert int(masks["SigIgn"], 16) & ~own & ~internal == 0


def test_a_file_that_is_opened_while_its_launcher_asks_for_it_is_no_death(rig: Rig) -> None:
    """The kernel tells it so by a signal, which would end it, and all that runs there."""
    os.kill(rig.pid, signal.SIGIO)
    rig.shell("a", "grep -E '^Sig(Blk|Ign)' /proc/self/status")
    assert rig.over("a")[2] == 0
    masks = dict(line.split(":\t") for line in rig.out("a").splitlines())
    assert not any(int(mask, 16) >> (signal.SIGIO - 1) & 1 for mask in masks.values())


def test_affinity_follows_the_seat_and_strange_cpus_are_no_failure(rig: Rig) -> None:
    cpu = min(os.sched_getaffinity(0))
    show = [sys.executable, "-SE", "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]
    rig.launch(rig.attempt("a", *show, seat={"cpus": [cpu], "env": {}}))
    rig.launch(rig.attempt("b", *show, seat={"cpus": [9999], "env": {}}))
    rig.launch(rig.attempt("c", *show, tasks=[[0, show, [cpu], {}]]))
    for key in "abc":
        assert rig.over(key)[2] == 0
    assert rig.out("a") == rig.out("c") == f"[{cpu}]\n"
    assert rig.out("b") == f"{sorted(os.sched_getaffinity(0))}\n"


def test_a_command_that_cannot_start_says_why(rig: Rig) -> None:
    plain = Path(rig.work) / "plain"
    plain.write_text("echo from a script without a first line\n")
    rig.launch(
        rig.attempt("a", "no-such-command"), rig.attempt("b", "./plain"), rig.attempt("c", "./nothing")
    )
    over = rig.over("a")
    assert over[2] == 127 << 8
    assert over[6] == "spawn: task 0: no-such-command: command not found"
    assert "command not found" in rig.err("a")
    over = rig.over("b")
    assert over[2] == 126 << 8
    assert "ermission denied" in over[6]
    assert rig.over("c")[2] == 127 << 8
    assert not any(e[0] == "start" for e in rig.events)
    plain.chmod(0o755)
    rig.launch(rig.attempt("d", "./plain"))
    assert rig.over("d")[2] == 0
    assert rig.out("d").startswith("from a script")


def test_when_one_of_several_tasks_cannot_start_the_others_end(rig: Rig) -> None:
    rig.launch(rig.attempt("a", tasks=[[0, ["sleep", "1000"], None, {}], [1, ["nope"], None, {}]]))
    over = rig.over("a")
    assert over[5] == [signal.SIGTERM, 127 << 8]
    assert over[6] == "spawn: task 1: nope: command not found"


def test_a_missing_directory_is_replaced_by_tmp_and_said(rig: Rig) -> None:
    rig.launch(rig.attempt("a", "pwd", cwd="/no/such/place"))
    assert rig.over("a")[2] == 0
    assert rig.out("a") == "/tmp\n"
    assert "/no/such/place" in rig.err("a")


def test_user_files_append_truncate_and_unwritable(rig: Rig) -> None:
    path = Path(rig.work) / "user.txt"
    path.write_text("old\n")
    rig.shell("a", "echo one; echo two >&2", stdout="user.txt", stderr="user.txt")
    rig.over("a")
    assert path.read_text() == "one\ntwo\n"
    tasks = [[r, ["echo", str(r)], None, {}] for r in (0, 1)]
    rig.launch(rig.attempt("b", tasks=tasks, stdout="user.txt", append=True, per_task_output=True))
    rig.over("b")
    assert sorted(path.read_text().split()) == ["0", "1", "one", "two"]
    rig.launch(rig.attempt("c", "cat", stdin="user.txt", stdout="/no/dir/x"))
    over = rig.over("c")
    assert over[2] == 1 << 8
    assert over[6] == "spawn: stdout /no/dir/x: No such file or directory"
    os.mkfifo(Path(rig.work) / "pipe")  # nobody reads it: must not stop the launcher
    rig.launch(rig.attempt("d", "true", stdout="pipe"), rig.attempt("e", "cat", stdin="user.txt"))
    assert rig.over("d")[6] == "spawn: stdout pipe: no reader"
    rig.over("e")
    assert rig.out("e") == path.read_text()


def test_stdin_pipe_stays_open_until_eof_is_said(rig: Rig) -> None:
    rig.launch(rig.attempt("a", "cat", stdin="fifo"))
    rig.event("start", "a")
    path = input_path(rig.spool, 1, "a")
    for word in (b"first ", b"second\n"):
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, word)
        os.close(fd)
    assert rig.held()["a"][2] == "running"
    rig.client.send(["eof", "a"])
    assert rig.over("a")[2] == 0
    assert rig.out("a") == "first second\n"
    assert not os.path.exists(path)


def test_tmpdir_is_private_and_its_tree_goes_away(rig: Rig) -> None:
    tmpdir = f"{rig.work}/tmp/of/job"
    rig.shell("a", f"stat -c %a {tmpdir}; mkdir -p {tmpdir}/x/y; touch {tmpdir}/x/y/z", tmpdir=tmpdir)
    rig.over("a")
    assert rig.out("a") == "700\n"
    assert rig.leave() == 0
    deadline = time.monotonic() + PATIENCE_S
    while os.path.exists(tmpdir):
        assert time.monotonic() < deadline


def test_empty_output_files_are_reused_but_never_while_somebody_reads_them(rig: Rig) -> None:
    rig.shell("first", "read x", stdin="fifo")
    rig.event("start", "first")
    rig.held()  # who asks finds the files by their names
    with open(output_paths(rig.spool, 1, "first")[0]) as reader:
        rig.client.send(["eof", "first"])
        rig.over("first")
        for n in range(60):
            rig.shell(f"n{n}", f"echo {n}" if n % 3 == 0 else "true")
        for n in range(60):
            rig.over(f"n{n}")
        assert reader.read() == ""
    kept = {name for name in os.listdir(f"{rig.spool}/out") if not name.startswith(".")}
    assert kept == {f"1.n{n}.out" for n in range(0, 60, 3)}
    assert all(rig.out(f"n{n}") == f"{n}\n" for n in range(0, 60, 3))
    rig.leave()
    assert not [name for name in os.listdir(f"{rig.spool}/out") if name.startswith(".")]


def test_output_has_its_name_while_a_task_runs_on_and_a_quiet_one_none(rig: Rig) -> None:
    rig.shell("said", "echo early; touch began; read x", stdin="fifo")
    rig.launch(rig.attempt("quiet", "true"), rig.attempt("asked", "sh", "-c", "read x", stdin="fifo"))
    assert rig.over("quiet")[11:] == [[], True]
    path = Path(output_paths(rig.spool, 1, "said")[0])
    deadline = time.monotonic() + PATIENCE_S
    while not (path.exists() and path.read_text() == "early\n"):
        assert time.monotonic() < deadline, "it has no name"
        rig.events += rig.client.wait(0.01)
    for key in ("said", "asked"):
        rig.client.send(["eof", key])
    assert rig.over("said")[11:] == [], "it wrote"
    assert rig.over("asked")[11:] == [[], True]
    assert [name for name in os.listdir(f"{rig.spool}/out") if not name.startswith(".")] == [path.name]


def test_what_was_put_out_before_a_launcher_s_death_has_its_name(rig: Rig) -> None:
    rig.leave()
    rig.boot("spawn.after:kill")
    for key in "ab":  # b is not begun
        rig.shell(key, f"echo of {key}; touch {key}")
    os.waitpid(rig.pid, 0)
    rig.client.close()
    while not (Path(rig.work) / "a").exists():  # its launcher is gone, and nobody has ended it
        os.sched_yield()
    rig.boot()
    assert (rig.held()["a"][5] or rig.over("a"))[6] == "lost"
    assert rig.out("a") == "of a\n"
    assert not Path(output_paths(rig.spool, 1, "b")[0]).exists()


# ---- trees


@pytest.mark.parametrize(
    "script",
    [
        "setsid sleep 1000 & echo $! > child; exit 0",
        "sleep 1000 & echo $! > child",
        "(setsid sh -c 'sleep 1000 & echo $! > child; wait' &) ; while ! test -s child; do :; done",
        "env -i setsid sleep 1000 & echo $! > child; exit 0",
        "(env -i setsid sh -c 'trap \"\" TERM; echo $$ > child; while :; do sleep 1; done' &)"
        "; while ! test -s child; do :; done",
    ],
)
def test_an_attempt_is_over_only_when_its_orphans_are_gone(rig: Rig, script: str) -> None:
    rig.shell("a", script)
    over = rig.over("a")
    pid = int((Path(rig.work) / "child").read_text())
    assert not proctree.alive(pid)
    assert over[2] == 0
    assert over[6] == ""


def test_the_seat_passes_on_only_after_the_orphans(rig: Rig) -> None:
    script = (
        "setsid sh -c 'trap \"\" TERM; echo $$ > child; while :; do sleep 0.05; done' & "
        "while ! test -s child; do :; done"
    )
    check = "kill -0 $(cat child) 2>/dev/null && echo alive || echo gone"
    rig.launch(rig.attempt("a", "sh", "-c", script), rig.attempt("b", "sh", "-c", check, queued=True))
    assert rig.over("a")[7] == "b"
    rig.over("b")
    assert rig.out("b") == "gone\n"


def test_neighbours_orphans_are_left_alone(rig: Rig) -> None:
    rig.shell("a", "(setsid sleep 1000 & echo $! > child) ; read x", stdin="fifo")
    pid = int(rig.wait_file("child"))
    for n in range(5):
        rig.shell(f"n{n}", "sleep 0.001 &")
        rig.over(f"n{n}")
    assert proctree.alive(pid)
    rig.client.send(["eof", "a"])
    rig.over("a")
    assert not proctree.alive(pid)


def test_end_kills_a_shell_that_ignores_term_and_its_escapees(rig: Rig) -> None:
    rig.shell(
        "a",
        "trap '' TERM; (setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &"
        " echo $! > child);"
        "while :; do sleep 1; done",
    )
    pid = int(rig.wait_file("child"))
    rig.client.send(["end", "a", "cancel"])
    over = rig.over("a")
    assert over[2] == signal.SIGKILL
    assert over[6] == "ended:cancel"
    assert not proctree.alive(pid)


def test_a_launcher_with_nothing_to_do_does_nothing(rig: Rig) -> None:
    """It looks once more after its last task, leaves that one's directory, and then sleeps until somebody speaks to it."""
    rig.shell("a", "true")
    rig.over("a")
    status = Path(f"/proc/{rig.pid}/status")

    def woken() -> int:
        return int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    deadline = time.monotonic() + PATIENCE_S
    while os.readlink(f"/proc/{rig.pid}/cwd") != "/":
        assert time.monotonic() < deadline
        rig.events += rig.client.wait(0.01)
    before = woken()
    rig.events += rig.client.wait(0.5)  # nothing comes
    assert woken() - before <= 3


def test_end_reaches_a_stopped_task(rig: Rig) -> None:
    rig.launch(rig.attempt("a", "sleep", "1000", kill_grace_s=1000))
    rig.event("start", "a")
    rig.client.send(["signal", "a", signal.SIGSTOP])
    rig.client.send(["end", "a", "x"])
    assert rig.over("a")[2] == signal.SIGTERM


def test_signals_reach_the_whole_group(rig: Rig) -> None:
    rig.shell("a", "trap 'echo usr1; exit 4' USR1; echo > ready; while :; do sleep 0.01; done")
    rig.wait_file("ready")
    rig.client.send(["signal", "a", signal.SIGUSR1])
    assert rig.over("a")[2] == 4 << 8
    assert rig.out("a") == "usr1\n"


def test_limits_warnings_and_new_limits(rig: Rig) -> None:
    rig.launch(rig.attempt("a", "sleep", "1000", limit_s=0.1))
    rig.shell(
        "b",
        "trap 'echo warned' USR2; echo > ready; while :; do sleep 0.01; done",
        limit_s=1000.0,
        warn_s=1.5,
        warn_signal=int(signal.SIGUSR2),
    )
    over = rig.over("a")
    assert over[2] == signal.SIGTERM
    assert over[6] == "timeout"
    assert 0.1 <= over[4] - over[3] < 5
    assert rig.events.index(rig.event("timeout", "a")) < rig.events.index(over)
    rig.wait_file("ready")
    rig.client.send(["limit", "b", 1.9])
    assert rig.over("b")[6] == "timeout"
    assert rig.out("b") == "warned\n"


# ---- succession


def test_queued_ones_take_seats_in_order_and_never_share_one(rig: Rig) -> None:
    script = 'echo "in $S"; echo "in $S" >> log.$S; echo "out $S" >> log.$S'
    first = [
        rig.attempt(f"h{n}", "sh", "-c", script, seat={"cpus": [], "env": {"S": str(n)}}) for n in (0, 1)
    ]
    line = [rig.attempt(f"q{n}", "sh", "-c", script, queued=True) for n in range(40)]
    line.insert(20, rig.attempt("bad", "nope", queued=True))
    rig.launch(*first, *line)
    for each in (*first, *line):
        rig.over(each["key"])
    starts = [e[1] for e in rig.events if e[0] == "start"]
    assert starts == ["h0", "h1"] + [f"q{n}" for n in range(40)]
    written = [(Path(rig.work) / f"log.{n}").read_text().split("\n")[:-1] for n in (0, 1)]
    for n, lines in enumerate(written):
        assert lines == [f"in {n}", f"out {n}"] * (len(lines) // 2)
    assert sum(map(len, written)) == 2 * 42
    heirs = [e[7] for e in rig.events if e[0] == "over" and e[7]]
    assert heirs == [each["key"] for each in line]
    rig.shell("late", "true", queued=True)
    assert rig.event("unstarted")[1] == ["late"]


def test_recall_and_end_give_back_queued_ones(rig: Rig) -> None:
    rig.launch(rig.attempt("a", "cat", stdin="fifo"), *[rig.attempt(k, "true", queued=True) for k in "bcd"])
    rig.client.send(["recall", ["c", "a", "zz"]], ["end", "b", "x"])
    assert rig.event("unstarted")[1] == ["c"]
    rig.until(lambda e: e == ["unstarted", ["b"]], "b given back")
    rig.client.send(["eof", "a"])
    rig.until(lambda e: e[0] in ("over", "unstarted") and "d" in e[1], "d started or, when slow, given back")
    assert not any(e[0] == "start" and e[1] in "bc" for e in rig.events)


def test_ends_of_a_flood_are_told_together_but_the_last_and_very_many_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, batch_s=1000.0)
    for key in "ab":  # each is the last: nothing else is there to end
        rig.shell(key, "true")
        rig.over(key)
    rig.launch(rig.attempt("long", "cat", stdin="fifo"), rig.attempt("c", "true"))
    rig.launch(*[rig.attempt(f"many{number}", "true", group=f"g{number}") for number in range(100)])
    rig.over("c")  # of two hundred events none waits any more
    rig.client.send(["eof", "long"])
    rig.over("long")
    assert {event[1] for event in rig.events if event[0] == "over"} >= {f"many{number}" for number in range(100)}
    assert rig.leave() == 0


def test_queued_ones_do_not_linger(tmp_path: Path) -> None:
    rig = Rig(tmp_path, linger_s=0.02)
    rig.launch(rig.attempt("a", "sleep", "1000"), rig.attempt("b", "true", queued=True))
    assert rig.event("unstarted")[1] == ["b"]
    assert set(rig.held()) == {"a"}
    assert rig.leave() == 0


# ---- deaths


def test_an_agent_that_comes_back_learns_what_happened(rig: Rig) -> None:
    rig.shell("a", "exit 7")
    rig.launch(rig.attempt("b", "cat", stdin="fifo"))
    rig.event("start", "b")
    rig.over("a")
    rig.client.close()
    rig.events.clear()
    rig.connect()
    rows = {row[0]: row for row in rig.event("held")[1]}
    assert rows["a"][2] == "over"
    assert rows["a"][5][2] == 7 << 8
    assert rows["b"][2] == "running"
    rig.client.send(["ack", ["a"]], ["eof", "b"])
    assert rig.over("b")[2] == 0
    assert set(rig.held()) == {"b"}
    rig.launch(rig.attempt("a", "false"))  # resent late: told again, not run again
    assert rig.over("a")[2] == 7 << 8


def test_first_exits_are_told_at_once_again_and_with_the_end(rig: Rig) -> None:
    scripts = ["exit 0", "until test -e fail; do sleep 0.01; done; exit 5", "until test -e last; do sleep 0.01; done; exit 6"]
    tasks = [[rank, ["sh", "-c", script], None, {}] for rank, script in enumerate(scripts)]
    rig.launch(rig.attempt("a", tasks=tasks, first_exits=True), rig.attempt("b", "sh", "-c", "exit 1"))
    assert rig.event("first-exit", "a")[2:4] == [0, 0]
    (Path(rig.work) / "fail").touch()
    rig.until(lambda e: e[:4] == ["first-exit", "a", 1, 5 << 8], "the failure")
    rig.client.close()
    rig.events.clear()
    rig.connect()
    again = rig.until(lambda e: e[:4] == ["first-exit", "a", 1, 5 << 8], "the failure told again")
    assert [e[2] for e in rig.events if e[0] == "first-exit"] == [0, 1]
    (Path(rig.work) / "last").touch()
    assert rig.over("a")[11] == [[0, 0, rig.event("first-exit", "a")[4]], again[2:]]
    assert rig.held()["b"][5][11:] == [[], True], "it asked for none, and wrote nothing"
    rig.launch(rig.attempt("c", "sleep", "600", first_exits=True))
    rig.event("start", "c")
    rig.client.send(["end", "c", "cancel"])
    assert rig.over("c")[11:] == [[], True]  # what we end ourselves is nobody's failure


def test_a_newer_agent_replaces_the_older(rig: Rig) -> None:
    older = rig.client
    rig.connect()
    rig.shell("a", "exit 2")
    assert rig.over("a")[2] == 2 << 8
    events: list[list[Any]] = []
    while older.connected:
        events += older.wait(PATIENCE_S)
    assert events[-1] == ["gone"]
    assert not any(e[0] == "over" for e in events)


def test_a_killed_launcher_leaves_nothing_running_and_forgets_nothing(rig: Rig) -> None:
    rig.shell("done", "exit 5")
    rig.over("done")
    rig.shell("acked", "true")
    rig.over("acked")
    rig.client.send(["ack", ["acked"]])
    rig.launch(rig.attempt("plain", "sleep", "1000"))
    rig.shell(
        "tree", "(setsid sleep 1000 & echo $! > child); exec env -i sleep 1000", tmpdir=f"{rig.work}/tmp-tree"
    )
    child = int(rig.wait_file("child"))
    pids = rig.event("start", "plain")[3] + rig.event("start", "tree")[3]
    rig.held()
    rig.kill()
    rig.events.clear()
    rig.boot()
    over = {}
    for key in ("plain", "tree"):
        row = rig.until(
            lambda e, k=key: (
                (e[0] == "over" and e[1] == k) or (e[0] == "held" and any(r[0] == k and r[5] for r in e[1]))
            ),
            f"{key} lost",
        )
        over[key] = row if row[0] == "over" else next(r[5] for r in row[1] if r[0] == key)
        assert over[key][2] == signal.SIGKILL
        assert over[key][6] == "lost"
    for pid in (*pids, child):
        assert not proctree.alive(pid)
    rows = rig.held()
    assert set(rows) == {"done", "plain", "tree"}
    assert rows["done"][5][2] == 5 << 8
    assert not os.path.exists(f"{rig.work}/tmp-tree")
    rig.client.send(["ack", list(rows)])
    assert rig.held() == {}
    rig.kill()
    rig.boot()
    assert rig.held() == {}


def test_a_task_without_any_record_is_found_by_its_mark(rig: Rig) -> None:
    """The launcher died between spawn and record, or the record was lost."""
    rig.launch(rig.attempt("a", "sleep", "1000"))
    pid = rig.event("start", "a")[3][0]
    rig.kill()
    os.unlink(f"{rig.spool}/launcher.record")
    rig.boot()
    wait_gone(pid)
    assert rig.held() == {}


def test_another_boot_voids_the_record(rig: Rig) -> None:
    rig.shell("a", "exit 5")
    rig.over("a")
    rig.kill()
    path = Path(rig.spool) / "launcher.record"
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    assert boot in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(boot, boot[::-1]))
    rig.boot()
    assert rig.held() == {}


def test_a_torn_record_keeps_what_comes_before(rig: Rig) -> None:
    rig.shell("a", "exit 5")
    rig.over("a")
    rig.held()
    rig.kill()
    with open(f"{rig.spool}/launcher.record", "ab") as file:
        file.write(b"\x92\xa1x\x9b\xa4ov")
    rig.boot()
    assert rig.held()["a"][5][2] == 5 << 8


def test_one_launcher_per_spool(rig: Rig) -> None:
    with pytest.raises(Unavailable, match="another launcher serves"):
        start_launcher(rig.spool)
    rig.shell("a", "true")
    rig.over("a")
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break


def test_nested_launchers_die_with_the_outer_attempt(rig: Rig, tmp_path: Path) -> None:
    inner = str(tmp_path / "inner")
    env = {k: v for k, v in os.environ.items() if k.startswith(("PATH", "PYTHON", "VIRTUAL", "HOME"))}
    rig.launch(
        rig.attempt(
            "outer",
            sys.executable,
            "-m",
            "fluxkv.instances.launcher",
            "--spool",
            inner,
            env_set=env,
            kill_grace_s=0.05,
        )
    )
    rig.event("start", "outer")
    client = LaunchClient(inner)
    client.connect(PATIENCE_S)
    script = (
        f"echo $FLUXKV_ATTEMPT; trap '' TERM; setsid sleep 1000 & echo $! > {tmp_path}/child; wait; sleep 9"
    )
    client.send(
        [
            "launch",
            [
                {
                    "key": "inner",
                    "job": 1,
                    "tasks": [[0, ["/bin/sh", "-c", script], None, {}]],
                    "env_set": {"PATH": "/usr/bin:/bin"},
                    "cwd": "/",
                    "kill_grace_s": 1000,
                }
            ],
        ]
    )
    pid = int(rig.wait_file("child"))
    said = rig.wait_file(os.path.relpath(output_paths(inner, 1, "inner")[0], rig.work))
    assert said.split() == [attempt_mark(rig.spool, "outer"), attempt_mark(inner, "inner")]
    rig.client.send(["end", "outer", "cancel"])
    assert rig.over("outer")[2] == signal.SIGKILL
    assert not proctree.alive(pid)
    client.close()


def test_shutdown_waits_or_ends(rig: Rig) -> None:
    rig.launch(rig.attempt("a", "cat", stdin="fifo"))
    rig.event("start", "a")
    rig.client.send(["shutdown", False])
    rig.launch(rig.attempt("b", "true"))
    assert rig.event("unstarted")[1] == ["b"]
    rig.client.send(["eof", "a"])
    rig.over("a")
    rig.event("gone")
    assert os.waitstatus_to_exitcode(os.waitpid(rig.pid, 0)[1]) == 0
    rig.boot()
    assert rig.held()["a"][2] == "over"
    rig.launch(rig.attempt("c", "sleep", "1000"))
    rig.event("start", "c")
    os.kill(rig.pid, signal.SIGTERM)
    over = rig.over("c")
    assert over[2] == signal.SIGTERM
    assert over[6] == "ended:shutdown"
    rig.event("gone")
    assert os.waitstatus_to_exitcode(os.waitpid(rig.pid, 0)[1]) == 0
    rig.pid = 0


@pytest.mark.parametrize("told", [["end", "a", "cancel"], ["shutdown", True]])
def test_what_has_ended_by_itself_was_not_told_to_end(tmp_path: Path, told: list[Any]) -> None:
    """Also when nobody has looked for its end yet. The launcher's loop stands still here, as on a busy host."""
    script = f"""
import os
from fluxkv.instances.launcher import Launcher, prepare_process
prepare_process()
launcher = Launcher({str(tmp_path / "spool")!r})
launcher.on_env(["env", "base", {{"PATH": "/usr/bin:/bin"}}])
attempt = {{"key": "a", "job": 1, "tasks": [[0, ["true"], None, {{}}]], "env": "base", "cwd": "/", "group": "g", "queued": False}}
launcher.handle(["launch", [attempt]])
os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
launcher.handle({told!r})
launcher.reap()
(over,) = launcher.over.values()
print(over[2], repr(over[6]))
"""
    (tmp_path / "spool").mkdir(0o700)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.stdout, done.stderr) == ("0 ''\n", "")


def test_a_long_spool_path_listens_elsewhere(tmp_path: Path) -> None:
    rig = Rig(tmp_path / ("long" * 30))
    assert socket_path(rig.spool).startswith("/tmp/fluxkv-")
    assert (Path(rig.spool) / "launcher.addr").read_text() == socket_path(rig.spool)
    rig.shell("a", "true")
    assert rig.over("a")[2] == 0
    assert rig.leave() == 0
    assert not os.path.exists(os.path.dirname(socket_path(rig.spool)))


def test_bad_messages_are_survived(rig: Rig) -> None:
    rig.client.send(["launch", [{"key": "x y", "job": 1, "tasks": []}]], ["nonsense"], ["end"], ["launch", 3])
    rig.launch(rig.attempt("a", "true", env="never-sent"))
    assert rig.over("a")[6] == "spawn: environment never-sent was never sent"
    rig.launch(rig.attempt("b", "true", env_set={"A=B": "c"}), rig.attempt("c", "tr\0ue"))
    assert rig.over("b")[6].startswith("spawn: ")
    assert rig.over("c")[6].startswith("spawn: ")
    assert rig.over("x y")[6].startswith("spawn: bad attempt")
