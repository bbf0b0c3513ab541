"""Acceptance tests: the installed `fluxkv` command, real daemons and real processes, seen as a user sees them.

Two instances serve most tests; each test that ends or breaks one has its own. Nothing sleeps: tests wait by commands that wait.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = str(Path(sys.executable).parent / "fluxkv")
TIMEOUT_S = 60
NEVER = ("Traceback", "this is a fault in fluxkv")
OURS = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "FLUXKV_TRACEBACK", "FLUXKV_URI", "FLUX_URI",
        "FLUXKV_STATE_DIR", "FLUXKV_JOB_ATTEMPT", "FLUXKV_ATTEMPT")  # fmt: skip


def alive(needle: str) -> list[int]:
    """Processes whose command line or environment names this text."""
    found = []
    wanted = needle.encode()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                text = Path(f"/proc/{name}/cmdline").read_bytes()
                text += b"\0" + Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue
            if wanted in text:
                found.append(int(name))
    return found


def words_of(pid: int) -> str:
    """A process's command line, "" when it is over."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def wait_for_end(pid: int, timeout_s: float = 30.0) -> None:
    """Wait until a process that need not be ours is over."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], timeout_s)[0], f"{pid} goes on: {words_of(pid)}"
    finally:
        os.close(fd)


def has_socket(pid: int) -> bool:
    """Whether a process has connected to something: its imports are over then."""
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:") for name in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


class Done:
    """A finished command: code, out, err."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def __repr__(self) -> str:
        return f"<{self.code}\nout: {self.out}\nerr: {self.err}>"


class Shell:
    """Runs `fluxkv` for one user. No output may hold a traceback."""

    def __init__(self, home: Path, folder: Path, uri: str = "", state_dir: Path | None = None) -> None:
        self.home = home
        self.folder = folder
        self.uri = uri
        self.state_dir = state_dir
        self.started: list[subprocess.Popen[str]] = []
        self.env = {name: text for name, text in os.environ.items() if name not in OURS}
        self.env["XDG_STATE_HOME"] = str(home)
        self.env["PATH"] = os.path.dirname(PROGRAM) + os.pathsep + self.env["PATH"]
        self.env["PYTHONWARNINGS"] = ""
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)  # each of many short processes would compile fluxkv anew
        if uri:
            self.env["FLUXKV_URI"] = uri

    def at(self, folder: Path, uri: str | None = None) -> Shell:
        """The same, in another directory or on another instance."""
        return Shell(self.home, folder, self.uri if uri is None else uri, self.state_dir)

    def __call__(self, *args: str | Path, given: str | None = None, timeout: float = TIMEOUT_S, **env: str) -> Done:
        words = [PROGRAM, *map(str, args)]
        done = subprocess.run(
            words, cwd=self.folder, env={**self.env, **env}, capture_output=True, text=True, timeout=timeout,
            **({"stdin": subprocess.DEVNULL} if given is None else {"input": given}),
        )  # fmt: skip
        for word in NEVER:
            assert word not in done.stdout + done.stderr, (args, done.stderr)
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *args: str | Path, **more: Any) -> str:
        """Standard output of a command that must succeed."""
        done = self(*args, **more)
        assert done.code == 0, (args, done)
        return done.out

    def popen(self, *args: str | Path, **more: Any) -> subprocess.Popen[str]:
        words = [PROGRAM, *map(str, args)]
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(words, cwd=self.folder, env=self.env, text=True, **{**settings, **more})
        self.started.append(process)
        return process

    def on_terminal(self, *args: str | Path, columns: int = 80, interrupt: bool = False, **env: str) -> Done:
        """Run with standard input and output on a terminal of so many columns; out is what it shows.

        interrupt: type Ctrl-C once the command has connected.
        """
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        words = [PROGRAM, *map(str, args)]
        process = subprocess.Popen(
            words, cwd=self.folder, env={**self.env, "TERM": "xterm", **env}, stdin=theirs, stdout=theirs,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.started.append(process)
        os.close(theirs)
        shown = b""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            assert time.monotonic() < deadline, (args, shown)
            if interrupt and has_socket(process.pid):
                os.write(ours, b"\x03")
                interrupt = False
            if select.select([ours], [], [], 0.02)[0]:
                try:
                    shown += os.read(ours, 65536)
                except OSError:  # nobody has the terminal open any more
                    break
        os.close(ours)
        assert process.stderr is not None
        err = process.stderr.read()
        for word in NEVER:
            assert word not in err, (args, err)
        return Done(process.wait(TIMEOUT_S), shown.decode(errors="replace").replace("\r\n", "\n"), err)

    def end(self) -> None:
        """What a failed test left running."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(30)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def submit(self, *args: str | Path) -> str:
        """Submit one job; its id."""
        (id,) = self.ok("submit", *args).split()
        return id

    def processes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.ok("status", "--json"))["processes"]
        return found

    alive = staticmethod(alive)
    has_socket = staticmethod(has_socket)
    words_of = staticmethod(words_of)
    wait_for_end = staticmethod(wait_for_end)

    def pid(self, role: str) -> int:
        """A living daemon's pid."""
        return next(int(one["pid"]) for one in self.processes() if one["role"] == role and one["state"] == "running")


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """A short path: sockets live below it."""
    path = Path(tempfile.mkdtemp(prefix="fkv-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def new_shell() -> type[Shell]:
    """What makes a `Shell`, for tests that prepare a place of their own."""
    return Shell


@pytest.fixture(scope="session")
def _site(base: Path) -> Iterator[Shell]:
    """Three nodes of four cores, two GPUs and 8000 MiB, in one instance that lives as long as the tests."""
    shell = Shell(base / "home", base)
    state = base / "site"
    words = ["start", "--detach", "--state-dir", state, "-s", "3", "--cores", "4", "--gpus", "2", "--memory", "8000"]
    uri = shell.ok(*words).splitlines()[-1]
    yield Shell(base / "home", base, uri, state)
    assert shell("stop", "--state-dir", state).code == 0
    assert alive(str(state)) == []


@pytest.fixture
def site(_site: Shell, tmp_path: Path) -> Iterator[Shell]:
    """Commands on the shared instance, in a directory of this test's own."""
    shell = _site.at(tmp_path)
    yield shell
    shell.end()


@pytest.fixture
def user(base: Path, tmp_path: Path) -> Iterator[Shell]:
    """A user without any instance; whatever is started is stopped at the end."""
    home = Path(tempfile.mkdtemp(prefix="u", dir=base))
    shell = Shell(home, tmp_path)
    yield shell
    shell.end()
    for one in json.loads(shell.ok("list", "--json"))["instances"]:
        if one["state"] != "stopped":
            shell("stop", "--state-dir", one["directory"])


@pytest.fixture
def place(user: Shell) -> Iterator[Path]:
    """A state directory of a test's own; its instance is stopped at the end and leaves no process."""
    path = user.home / "i"
    yield path
    if (path / "instance.json").exists():
        user("stop", "--state-dir", path)
    assert alive(str(path)) == []
