"""A whole instance of real daemons for tests that hurt it: start, kill, stop, and what must hold afterwards.

Waits follow the journal, or a process's end; nothing sleeps for a guessed time.
"""

from __future__ import annotations

import contextlib
import json
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

from fluxkv.instances.client import Instance, connect
from fluxkv.instances.paths import StateDir, lock_held, lock_holder
from fluxkv.instances.witness import read_tip
from fluxkv.journal.state import State
from fluxkv.kvs.errors import FluxkvError, Unavailable
from fluxkv.kvs.keys import Keys

PROGRAM = [str(Path(sys.executable).parent / "fluxkv")]
PATIENCE_S = 40.0
MARK = "FLUXKV_TEST_SITE"


class Site:
    """One state directory and its daemons. All its processes, tasks included, carry `MARK` in their environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dir = StateDir(str(folder / "i"))
        self.mark = f"{os.getpid()}-{os.urandom(4).hex()}"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("FLUX", "COV_"))}
        self.env |= {MARK: self.mark, "XDG_STATE_HOME": str(folder / "home")}
        self.uri = ""
        self._client: Instance | None = None

    # -- commands

    def run(self, *args: str, timeout: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """`fluxkv ARGS` against this instance."""
        env = {**self.env, **({"FLUXKV_URI": self.uri} if self.uri else {})}
        return subprocess.run(
            [*PROGRAM, *args], env=env, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )

    def popen(self, *args: str, **more: Any) -> subprocess.Popen[str]:
        """The same, not waited for."""
        return subprocess.Popen([*PROGRAM, *args], env=self.env, text=True, stdin=subprocess.DEVNULL, **more)

    def up(self, *args: str) -> Site:
        """`start --detach`, which must succeed."""
        done = self.start(*args)
        assert done.returncode == 0, done.stderr
        self.uri = done.stdout.split()[-1]
        return self

    def start(self, *args: str) -> subprocess.CompletedProcess[str]:
        """`start --detach`."""
        return self.run("start", "--detach", "--state-dir", self.dir.path, *args)

    def stop(self, *args: str) -> float:
        """`stop`; how long it took."""
        began = time.monotonic()
        done = self.run("stop", "--state-dir", self.dir.path, *args, timeout=70)
        assert done.returncode == 0, done.stderr
        return time.monotonic() - began

    # -- processes

    def pid(self, role: str) -> int:
        """Who holds the role's lock; waits until somebody does."""
        path = self.dir.lock_file(role)
        if role == "server":
            return int(json.loads(Path(self.dir.run_file("server")).read_text())["pid"])
        deadline = time.monotonic() + PATIENCE_S
        while not (found := lock_holder(path)):
            assert time.monotonic() < deadline, f"no {role}: {self.logs()}"
            time.sleep(0.005)
        return found

    def kill(self, *roles: str, signum: int = signal.SIGKILL) -> None:
        """Signal all of them as nearly at once as can be; waits for the end of those that are killed."""
        fds = [os.pidfd_open(self.pid(role)) for role in roles]
        for fd in fds:
            signal.pidfd_send_signal(fd, signum)
        for fd in fds:
            if signum == signal.SIGKILL:
                assert ends(fd), roles
            os.close(fd)

    def processes(self) -> dict[int, str]:
        """Everything that lives and carries the mark: pid -> command line."""
        found = {}
        wanted = f"{MARK}={self.mark}".encode()
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    words = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(name)] = words.decode(errors="replace").strip()
        return found

    def kill_inside(self, job: int) -> None:
        """kill -9 of everything of a child, daemons and tasks, as nearly at once as can be."""
        mine = f"FLUXKV_ATTEMPT={job}.".encode()
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if any(word.startswith(mine) for word in words):
                    found.append(pid)
        for pid in sorted(found):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def nothing_left(self, patience_s: float = PATIENCE_S) -> None:
        """Waits until no process of this instance is left."""
        deadline = time.monotonic() + patience_s
        while found := self.processes():
            left = deadline - time.monotonic()
            assert left > 0, f"left over: {found}; {self.logs()}"
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(next(iter(found)))
                ends(fd, left)
                os.close(fd)

    # -- the journal

    @property
    def client(self) -> Instance:
        if self._client is None:
            self._client = connect(self.uri)
        return self._client

    def submit(self, script: str, **options: Any) -> int:
        """A shell job."""
        return int(self.client.submit(["sh", "-c", script], env=self.env, **options))

    def submit_many(self, commands: list[list[str]], **options: Any) -> list[int]:
        """Jobs in one commit; asks again while a restarted server's history has not been taken up (nothing was taken)."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.client.submit_many(commands, env=self.env, **options)
            except Unavailable as error:
                if error.code != "epoch" or time.monotonic() > deadline:
                    raise

    def until(self, wanted: Callable[[State], bool], what: str, patience_s: float = PATIENCE_S) -> State:
        """Follow the journal until its fold is as wanted; survives restarts of the server."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                state = self.client.state()
                subscription = self.client.store.subscribe(
                    {Keys(self.client.store.namespace).journal: f"{state.version}-{state.epoch}"}
                )
                with contextlib.closing(subscription):
                    while not wanted(state):
                        left = deadline - time.monotonic()
                        assert left > 0, f"not in time: {what}; {self.describe(state)}; {self.logs()}"
                        subscription.poll(min(left, 1.0))
                        self.client.journal.catch_up(state)
                    return state
            except Unavailable:
                assert time.monotonic() < deadline, f"not in time: {what}; {self.logs()}"

    @staticmethod
    def describe(state: State) -> str:
        """A fold in a few words."""
        return f"{dict(state.counts)}, nodes online {[n.online for n in state.nodes.values()]}, v{state.version}"

    def running(self, *ids: int) -> State:
        """Waits until these jobs have started."""
        return self.until(lambda s: all(s.jobs[id].started for id in ids), f"jobs {ids} started")

    def results(self, ids: list[int]) -> list[int]:
        """Waits for jobs; their exit codes."""
        state = self.until(lambda s: all(s.jobs[id].t_inactive for id in ids), f"{len(ids)} jobs ended")
        assert all(state.jobs[id].t_inactive for id in ids)
        return [result.returncode for result in self.client.wait(ids, PATIENCE_S)]

    def events(self, id: int) -> list[str]:
        return [event.name for event in self.client.events(id)]

    def ask(self, *command: Any) -> Any:
        """One command to the server."""
        from fluxkv.kvs.resp import RespConnection
        from fluxkv.kvs.uri import parse_uri

        connection = RespConnection(parse_uri(self.uri).server)
        try:
            return connection.call(*command)
        finally:
            connection.close()

    @property
    def keys(self) -> Keys:
        return Keys(self.client.store.namespace)

    def journal_file(self) -> Path:
        """The part of the append-only file that grows."""
        return max(Path(self.dir.join("appendonlydir")).glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)

    @contextlib.contextmanager
    def server_dead(self) -> Iterator[None]:
        """Inside, the server has been killed and the keeper does not know it yet."""
        keeper = self.pid("keeper")
        os.kill(keeper, signal.SIGSTOP)
        try:
            self.kill("server")
            yield
        finally:
            os.kill(keeper, signal.SIGCONT)

    def said(self, role: str, text: str, patience_s: float = PATIENCE_S) -> None:
        """Waits until a daemon's log, or a file of that name in run/, has these words."""
        self.wrote(Path(self.dir.join("run", role) if role.endswith(".failed") else self.dir.log_file(role)), text, patience_s)

    def wrote(self, path: Path, text: str, patience_s: float = PATIENCE_S) -> None:
        """Waits until a file has these words."""
        deadline = time.monotonic() + patience_s
        while not (path.exists() and text in path.read_text(errors="replace")):
            assert time.monotonic() < deadline, f"{path} never said {text!r}: {self.logs()}"
            time.sleep(0.01)

    def witnessed(self, version: int, patience_s: float = PATIENCE_S, of: StateDir | None = None) -> None:
        """Waits until the keeper has noted a version outside the server; that of a child in this folder."""
        deadline = time.monotonic() + patience_s
        while (tip := read_tip(of or self.dir)) is None or tip.version < version:
            assert time.monotonic() < deadline, "the tip is not noted"
            time.sleep(0.02)

    def written(self, path: Path, patience_s: float = PATIENCE_S) -> str:
        """What a task wrote into a file, once it has."""
        deadline = time.monotonic() + patience_s
        while not (path.exists() and path.stat().st_size):
            assert time.monotonic() < deadline, f"{path.name} never came: {self.logs()}"
            time.sleep(0.01)
        return path.read_text()

    # -- what must hold

    def sound(self, timeout: float = PATIENCE_S) -> None:
        """The journal is whole, and the live state is what it says. timeout: seconds for each of two readings of all of it."""
        where = ["--uri", self.uri] if self.dir.running() else ["--state-dir", self.dir.path]
        for command in (["replay", "--diff", "live"], ["journal", "verify"]):
            done = self.run(*command, *where, timeout=timeout)
            assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"

    def logs(self) -> str:
        """All daemons' logs."""
        texts = [f"== {path}\n{path.read_text(errors='replace')}" for path in sorted(self.folder.rglob("log/*.log"))]
        return "\n".join(text[-3000:] for text in texts)

    def no_traceback(self) -> None:
        assert "Traceback" not in self.logs(), self.logs()

    def end(self) -> None:
        """Whatever happened: nothing stays behind."""
        if self._client is not None:
            self._client.close()
            self._client = None
        held = [role for role in ("keeper", "server", "launcher", "agent", "worker-0") if lock_held(self.dir.lock_file(role))]
        if held:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self.run("stop", "--state-dir", self.dir.path, timeout=70)
        for _ in range(20):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not self.processes():
                break


def ends(fd: int, patience_s: float = PATIENCE_S) -> bool:
    """Whether the process behind a pidfd ends in time."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(patience_s * 1000))


def inside(pid: int) -> bool:
    """Whether a process belongs to some attempt."""
    try:
        return b"FLUXKV_ATTEMPT=" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def rss_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


def families(site: Site) -> dict[str, int]:
    """How much of what the server holds: keys, inbox messages, guards, journal entries, all members by key."""
    keys = site.keys
    found = {"keys": int(site.ask("DBSIZE")), "inbox": int(site.ask("XLEN", keys.inbox("node/0")))}
    found["guards"] = int(site.ask("HLEN", keys.guards))
    found["journal"] = int(site.ask("XLEN", keys.journal))
    for name in sorted(site.ask("KEYS", "*")):
        kind = site.ask("TYPE", name).decode()
        count = {"stream": "XLEN", "hash": "HLEN", "list": "LLEN", "set": "SCARD"}.get(kind)
        found[name.decode()] = int(site.ask(count, name)) if count else 1
    return found


@contextlib.contextmanager
def site(folder: Path, *args: str, start: bool = True) -> Iterator[Site]:
    """A site, started detached; at the end no log holds a traceback and nothing stays behind."""
    made = Site(folder)
    try:
        if start:
            made.up(*args)
        yield made
        made.no_traceback()
    finally:
        made.end()


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, of this size. Skips where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this test mounts a small file system: it must be root, and may")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def fill(path: Path) -> None:
    """Write until there is no room."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while os.write(fd, b"x" * 4096):
            pass
    os.close(fd)


__all__ = ["FluxkvError", "Site", "ends", "site"]
