"""Tasks on terminals: the option, who gets what was typed, and the process between a terminal and its task."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from fluxkv.instances import pty_host
from fluxkv.instances.attempts import Host, build_attempt
from fluxkv.instances.forward import Forwarder
from fluxkv.instances.job_input import JobInput
from fluxkv.instances.shell_options import parse_shell_options
from fluxkv.instances.spool import input_path, output_paths
from fluxkv.instances.terminals import Pty, Wake, framed, hosted, parse_pty, typed, wake_path, window
from fluxkv.journal.wire import pack, unpack
from fluxkv.kvs.errors import Rejected
from fluxkv.kvs.keys import Keys
from fluxkv.kvs.memory_server import MemoryServer
from fluxkv.kvs.memory_store import MemoryStore
from fluxkv.kvs.port import Message


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, None),
        (0, None),
        (1, Pty("0", False)),
        ({"interactive": 1}, Pty("0", True)),
        ({"ranks": "all"}, Pty("all", False)),
        ({"ranks": 2}, Pty("2", False)),
        ({"ranks": "1-2", "capture": 1}, Pty("1-2", False)),
    ],
)
def test_the_option(value: Any, wanted: Pty | None) -> None:
    assert parse_pty(value) == parse_shell_options({"pty": value}).pty == wanted


@pytest.mark.parametrize("value", ["x", 7, [], {"ranks": "x"}, {"ranks": []}, {"ranks": -1}, {"interactive": "yes"}, {"size": 3}])
def test_what_is_no_such_option(value: Any) -> None:
    with pytest.raises(Rejected, match="pty"):
        parse_pty(value)


def test_which_tasks_have_one() -> None:
    assert parse_pty({"ranks": "all"}).among([4, 5]) == [4, 5]  # type: ignore[union-attr]
    assert parse_pty({"ranks": "1-4"}).among([4, 5]) == [4]  # type: ignore[union-attr]


def attempt(pty: Any, first: int = 0, **options: Any) -> dict[str, Any]:
    order = {
        "job": 7, "first": first, "count": 2, "total": 4, "nodes": 2, "index": first // 2, "command": ["prog"], "env": "",
        "shape": "s", "queued": False, "claim": [0, "0-1", "", 0, 2], "name": "prog",
        "system": {"shell": {"options": {"pty": pty, **options}}},
    }  # fmt: skip
    host = Host({0: "h"}, "boot", "spool", "memory:x", "/tmp/x", {})
    return build_attempt(host, 0, order, "7.1-2.0")


def test_what_the_launcher_is_told() -> None:
    """Input is the terminals'; the other tasks have none, and nodes without a terminal ask for none."""
    made = attempt({"interactive": 1})
    assert (made["pty"], made["stdin"]) == ([0], "fifo")
    made = attempt({"interactive": 1}, first=2)
    assert ("pty" in made, made["stdin"]) == (False, "")
    made = attempt(1, input={"stdin": {"path": "file"}})
    assert (made["pty"], made["stdin"]) == ([0], "file")
    assert "pty_spread" not in made
    made = attempt({"ranks": "all"}, first=2, input={"stdin": {"type": "service"}})
    assert (made["pty"], made["stdin"]) == ([2, 3], "fifo")
    assert made["pty_spread"]  # what one node has typed the other may not have yet: it stays in the stream


def test_frames() -> None:
    frames = pty_host.Frames()
    whole = typed(b"abc") + window(30, 100) + typed(b"")
    found = [frame for at in range(len(whole)) for frame in frames.feed(whole[at : at + 1])]
    assert found == [(b"d", b"abc"), (b"w", pty_host.SIZE.pack(30, 100)), (b"d", b"")]
    assert framed(["resize", 30, 100]) == window(30, 100)
    assert window(-1, 1 << 20) == window(0, 65535)
    for wrong in ([], ["resize"], ["resize", "x", "y"], ["data"], ["data", None], ["what", 1]):
        assert framed(wrong) == b""


def run(how: str, *argv: str, stdin: bytes, spool: Path, env: dict[str, str] | None = None) -> tuple[int, str]:
    """A task on a terminal, to its end: (status as subprocess has it, what it showed)."""
    program = f"/bin/{argv[0]}" if "/" not in argv[0] else argv[0]
    command = hosted(argv, program, str(spool), how == "framed")
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=30, env=env or dict(os.environ), process_group=0)
    assert b"Traceback" not in done.stderr, done.stderr
    return done.returncode, (done.stdout + done.stderr).decode().replace("\r\n", "\n")


def test_a_task_on_a_terminal(tmp_path: Path) -> None:
    script = "test -t 0 -a -t 1 -a -t 2 && stty size; read a; echo got $a; exit 3"
    code, shown = run("framed", "sh", "-c", script, stdin=window(33, 101) + typed(b"word\n"), spool=tmp_path)
    assert (code, shown.splitlines()[-1], "33 101\n" in shown) == (3, "got word", True)
    assert run("plain", "cat", stdin=b"no line's end", spool=tmp_path) == (0, "no line's end" * 2)
    assert run("plain", "sh", "-c", "kill -9 $$", stdin=b"", spool=tmp_path)[0] == -signal.SIGKILL
    code, shown = run("plain", "/nowhere", stdin=b"", spool=tmp_path)
    assert (code, shown) == (127, "fluxkv: /nowhere: No such file or directory\n")
    (tmp_path / "plain").write_text("echo a script without a first line\n")
    (tmp_path / "plain").chmod(0o755)
    assert run("plain", str(tmp_path / "plain"), stdin=b"", spool=tmp_path) == (0, "a script without a first line\n")


def test_more_than_a_terminal_holds(tmp_path: Path) -> None:
    lines = b"".join(b"%d\n" % n for n in range(20_000))
    stdin = typed(b"") + typed(lines[:60_000]) + typed(lines[60_000:])
    code, shown = run("framed", "sh", "-c", "stty -echo; cat", stdin=stdin, spool=tmp_path)
    assert code == 0
    assert shown.encode().endswith(lines[-60_000:])


def test_signals_go_on_to_the_task(tmp_path: Path) -> None:
    script = "trap 'echo told; exit 5' TERM; echo up; while :; do sleep 0.02; done"
    command = hosted(["sh", "-c", script], "/bin/sh", str(tmp_path), True)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(window(1, 1))
        process.stdin.flush()
        assert process.stdout.readline() == b"up\r\n"
        os.killpg(process.pid, signal.SIGTERM)
        assert (process.stdout.read().splitlines()[-1], process.wait(30)) == (b"told", 5)  # its shell may tell of a sleep's end


def test_an_agent_is_told_of_output(tmp_path: Path) -> None:
    wake = Wake(str(tmp_path))
    assert wake.told(100.0) is None
    thread = threading.Thread(target=run, args=("plain", "echo", "x"), kwargs={"stdin": b"", "spool": tmp_path})
    thread.start()
    thread.join(30)
    assert (wake.told(100.0), wake.told(100.0)) == (0.0, None)
    for _ in range(2):  # soon after one another: a moment later
        os.write(wake.fileno(), b".")
        assert wake.told(100.001) == pytest.approx(100.004)
    os.close(wake.fileno())
    os.unlink(wake_path(str(tmp_path)))
    assert Wake("/nowhere").fileno() == -1


class Input:
    """An agent's part in input and output, its launcher's pipe made by hand."""

    def __init__(self, spool: Path) -> None:
        self.store = MemoryStore(MemoryServer(lambda: 1.0, random.Random(1)))
        self.store.create(durability="strict", origin_ms=0, created=1.0)
        self.keys = Keys(self.store.namespace)
        self.spool = str(spool)
        for name in ("in", "out"):
            (spool / name).mkdir(exist_ok=True)
        self.forwarder = Forwarder(self.store, self.keys, self.spool, "h")
        self.passed: list[tuple[str, str]] = []
        self.input = JobInput(
            self.keys, self.forwarder, dict, lambda message: None, lambda stream, id: self.passed.append((stream, id))
        )


def fed(here: Input) -> tuple[dict[str, Any], int]:
    """An interactive attempt of one task that has been added, and the reading end of its input."""
    one = attempt({"interactive": 1}) | {"tasks": [[0, ["sh"], None, {}]], "total": 1, "per_task_output": False}
    path = input_path(here.spool, 7, one["key"])
    os.mkfifo(path)
    read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    here.forwarder.add(one)
    return one, read


def test_what_was_typed_is_framed_and_leaves_the_stream(tmp_path: Path) -> None:
    here = Input(tmp_path)
    one, read = fed(here)
    here.input.follow(None)
    stream = here.keys.input(7)
    messages = [pack(["resize", 3, 4]), pack(["data", b"x"]), pack(["data", b"y", "0"])]
    here.input.take(stream, [Message(f"{n}-0", data) for n, data in enumerate(messages, 1)])
    assert os.read(read, 1000) == window(3, 4) + typed(b"x") + typed(b"y")
    assert here.passed == [(stream, "3-0")]

    after = Input(tmp_path)  # an agent after that one: it goes on with what has not been passed
    after.forwarder.adopt(7, one["key"])
    after.input.follow(None)
    assert list(after.input.streams) == [stream]
    after.input.take(stream, [Message("4-0", pack(["data", b"z"]))])
    assert os.read(read, 1000) == typed(b"z")
    os.close(read)


def test_output_is_forwarded_at_once(tmp_path: Path) -> None:
    here = Input(tmp_path)
    one = attempt({"interactive": 1}) | {"tasks": [[0, ["sh"], None, {}]], "total": 1, "per_task_output": False}
    here.forwarder.add(one)
    Path(output_paths(here.spool, 7, one["key"])[0]).write_bytes(b"shown")
    here.forwarder.hurry()
    names = [unpack(message.data)[0] for message in here.store.messages(here.keys.output(7))]
    assert names == ["header", "data"]


def notes(here: Input) -> list[str]:
    folder = Path(here.spool, "watch")
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("fed", [False, True])
@pytest.mark.parametrize("end", ["finish", "unstarted"])
def test_what_is_noted_for_an_agent_to_come_goes_with_the_attempt(tmp_path: Path, fed: bool, end: str) -> None:
    here = Input(tmp_path)
    one = attempt({"interactive": 1}) | {"tasks": [[0, ["sh"], None, {}]], "total": 1, "per_task_output": False}
    here.forwarder.add(one)
    assert notes(here) == [one["key"]]
    if fed:
        here.forwarder.feed(one["key"], window(3, 4))
    getattr(here.forwarder, end)(one["key"])
    assert notes(here) == []


def test_tasks_that_are_fed_before_they_are_looked_at_are_noted_all_the_same(tmp_path: Path) -> None:
    here = Input(tmp_path)
    one = attempt({}) | {"tasks": [[0, ["sh"], None, {}], [1, ["sh"], None, {}]], "total": 2, "stdin": "fifo", "pty": []}
    here.forwarder.add(one)
    here.forwarder.feed(one["key"], b"x")
    assert notes(here) == [one["key"]]


def test_a_frame_is_never_cut(tmp_path: Path) -> None:
    """An agent that dies while a task does not read must leave no half of one in the pipe."""
    here = Input(tmp_path)
    one, read = fed(here)
    assert not here.forwarder.feed(one["key"], typed(bytes(300_000)))
    here.forwarder.feed(one["key"], typed(b"tail"))
    frames = pty_host.Frames()
    got = b"".join(data for _, data in frames.feed(os.read(read, 1 << 20)))
    assert 0 < len(got) < 300_000
    after = Input(tmp_path)
    after.forwarder.adopt(7, one["key"])
    assert after.forwarder.feed(one["key"], typed(b"next"))
    assert frames.feed(os.read(read, 1 << 20)) == [(b"d", b"next")]
    os.close(read)
