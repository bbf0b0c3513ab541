"""Hosts as network namespaces on one bridge, made and removed by a test: each with a host name, a state directory, a link to cut.

Needs root and `ip`; the names begin with fx-, and with what the test is about. The machine's own interfaces are never touched:
the bridge lives in a namespace of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live


def missing() -> str:
    """Why there can be no namespaces here, "" if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "unshare", "hostname"):
        if shutil.which(program) is None:
            return f"there is no program {program}"
    name = f"fx-hosts-{os.getpid()}-try"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "ip netns add is refused here"
    made = subprocess.run(["ip", "-n", name, "link", "add", "br0", "type", "bridge"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return "" if made.returncode == 0 else "this kernel makes no bridges"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Network:
    """A bridge, and hosts on it. about: a word in the names of its namespaces."""

    def __init__(self, about: str) -> None:
        self.prefix = f"fx-{about}-{os.getpid()}-{os.urandom(2).hex()}"
        self.switch = f"{self.prefix}-sw"
        self.spaces: list[str] = []

    def build(self) -> None:
        self._add(self.switch)
        _ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", self.switch, "link", "set", "br0", "up")

    def _add(self, name: str) -> None:
        _ip("netns", "add", name)
        self.spaces.append(name)

    def host(self, folder: Path, name: str, number: int) -> Host:
        space = f"{self.prefix}-{name}"
        self._add(space)
        _ip("-n", self.switch, "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("-n", self.switch, "link", "set", f"p{number}", "master", "br0", "up")
        _ip("-n", space, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")
        return Host(self, folder / name, name, number, space)

    def remove(self) -> None:
        """Nothing stays behind: no process, no namespace."""
        for space in self.spaces:
            kill(space)
        for space in reversed(self.spaces):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
        left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
        assert self.prefix not in left


def pids(space: str) -> list[int]:
    found = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def kill(space: str) -> None:
    """As when the power is cut: nobody hears of another's end."""
    held: set[int] = set()
    while more := set(pids(space)) - held:
        held |= more
        for pid in more:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
    while left := pids(space):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                os.kill(pid, signal.SIGKILL)
                live.ends(fd)
                os.close(fd)


class Host(live.Site):
    """A host: commands run in its namespace, under its name."""

    def __init__(self, network: Network, folder: Path, name: str, number: int, space: str) -> None:
        folder.mkdir()
        super().__init__(folder)
        self.network = network
        self.name = name
        self.number = number
        self.space = space

    def words(self, *args: str) -> list[str]:
        into = ["ip", "netns", "exec", self.space, "unshare", "--uts", "sh", "-c", f'hostname {self.name} && exec "$@"', "sh"]
        return [*into, *live.PROGRAM, *args]

    def run(self, *args: str, timeout: float = live.PATIENCE_S) -> subprocess.CompletedProcess[str]:
        env = {**self.env, **({"FLUXKV_URI": self.uri} if self.uri else {})}
        return subprocess.run(
            self.words(*args), env=env, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False
        )

    def popen(self, *args: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(self.words(*args), env=self.env, text=True, stdin=subprocess.DEVNULL, **more)

    def ok(self, *args: str) -> str:
        done = self.run(*args)
        assert done.returncode == 0, f"{args}: {done.stdout} {done.stderr} {self.logs()}"
        return done.stdout

    def join(self, address: str) -> None:
        """Joins, with its state directory in `dir`."""
        self.ok("agent", "--join", address, "--state-dir", self.dir.path, "--cores", "2", "--detach")

    def cut(self) -> None:
        _ip("-n", self.network.switch, "link", "set", f"p{self.number}", "down")

    def heal(self) -> None:
        _ip("-n", self.network.switch, "link", "set", f"p{self.number}", "up")

    def power_off(self) -> None:
        kill(self.space)

    def next_boot(self) -> None:
        """What is started from now on finds another boot id."""
        self.env["FLUXKV_BOOT_ID"] = os.urandom(8).hex()


@contextlib.contextmanager
def network(about: str = "hosts") -> Iterator[Network]:
    made = Network(about)
    try:
        made.build()
        yield made
    finally:
        made.remove()
