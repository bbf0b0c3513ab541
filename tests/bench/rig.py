"""What the benchmark stands on: private instances, processor time, yardsticks, figures. Measures; judges nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Figure = dict[str, Any]

PROGRAM = str(Path(sys.executable).parent / "fluxkv")
TRUE = shutil.which("true") or "/bin/true"
_TICK = os.sysconf("SC_CLK_TCK")
_START_S = 60.0


def environment(**more: str) -> dict[str, str]:
    """What a user's shell would give: no bytecode switched off, no other instance named."""
    dropped = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "FLUXKV_URI", "FLUX_URI", "FLUXKV_JOB_ATTEMPT")
    return {**{name: value for name, value in os.environ.items() if name not in dropped}, **more}


def figure(
    name: str,
    values: float | Sequence[float],
    unit: str,
    budget: float | None = None,
    *,
    better: str = "lower",
    note: str = "",
) -> Figure:
    """One line of the table. values: one per repeat; the figure is their median. budget None: shown, not judged."""
    each = [float(values)] if isinstance(values, int | float) else [float(value) for value in values]
    return {
        "name": name, "value": statistics.median(each), "unit": unit, "budget": budget, "better": better,
        "spread": [min(each), max(each)], "repeats": len(each), "note": note,
    }  # fmt: skip


def met(one: Figure) -> bool | None:
    """Whether a figure keeps its budget; None if it has none."""
    if one["budget"] is None:
        return None
    return bool(one["value"] >= one["budget"] if one["better"] == "higher" else one["value"] <= one["budget"])


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of them does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def micros(call: Callable[[], object], repeat: int, rounds: int = 5) -> float:
    """Microseconds a call, the best of some rounds of `repeat` calls."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        best = min(best, time.perf_counter() - start)
    return best / repeat * 1e6


def timed(call: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# -- yardsticks -------------------------------------------------------------------------------------------------------


def spawn_in_turn(seconds: float) -> float:
    """`true` by bare posix_spawn, one after another: starts per second."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(20):
            os.waitpid(os.posix_spawn(TRUE, ["true"], os.environ), 0)
        count += 20
    return count / (time.perf_counter() - start)


def spawn_two(seconds: float) -> float:
    """The same with two of them running at any time."""
    running = {os.posix_spawn(TRUE, ["true"], os.environ) for _ in range(2)}
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(20):
            pid, _ = os.waitpid(-1, 0)
            if pid in running:
                running.discard(pid)
                running.add(os.posix_spawn(TRUE, ["true"], os.environ))
                count += 1
    spent = time.perf_counter() - start
    for pid in running:
        os.waitpid(pid, 0)
    return count / spent


def yardsticks(seconds: float) -> tuple[float, float]:
    """(one after another, two running), in starts per second."""
    return spawn_in_turn(seconds), spawn_two(seconds)


def disk_syncs(seconds: float, folder: str) -> float:
    """Small appends with fdatasync per second: what bounds strict commits, one after another, on this disk."""
    fd = os.open(os.path.join(folder, "sync-probe"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            os.write(fd, b"x" * 400)
            os.fdatasync(fd)
            count += 1
        return count / (time.perf_counter() - start)
    finally:
        os.close(fd)


# -- instances --------------------------------------------------------------------------------------------------------


class Rig:
    """A running instance of our own. uri, folder (its state directory), processes by role."""

    def __init__(self, folder: str, uri: str) -> None:
        self.folder = folder
        self.uri = uri

    def pids(self) -> dict[str, int]:
        """Role -> process, as the instance itself has noted them."""
        found = {}
        for path in sorted(Path(self.folder, "run").glob("*.json")):
            try:
                found[path.stem] = int(json.loads(path.read_text())["pid"])
            except (OSError, ValueError, KeyError):
                continue
        return found

    def cpu(self) -> dict[str, float]:
        """Role -> seconds of processor time so far."""
        return {role: cpu_seconds(pid) for role, pid in self.pids().items()}

    def command(self, *words: str) -> list[str]:
        return [PROGRAM, *words]

    def environment(self) -> dict[str, str]:
        return environment(FLUXKV_URI=self.uri)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, without its children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def rss_mib(pid: int) -> float:
    """Resident memory of a process, MiB."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


class Meter:
    """How much of the machine others used while something was measured: figures of a busy machine are worth less."""

    def __init__(self) -> None:
        self._at = time.perf_counter()
        self._busy, self._ours = _machine_busy(), _ours()

    def others(self) -> float:
        """Share of all cores, 0.0 to 1.0, since the meter was made."""
        wall = (time.perf_counter() - self._at) * (os.cpu_count() or 1)
        spent = (_machine_busy() - self._busy) - (_ours() - self._ours)
        return min(1.0, max(0.0, spent / max(wall, 1e-9)))

    def note(self) -> str:
        """A word for the table when it matters."""
        share = self.others()
        return f"others used {share:.0%} of the machine" if share >= 0.05 else ""


def _machine_busy() -> float:
    """Seconds that all cores have worked (or were taken away) since boot."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, soft, steal = (int(word) for word in file.readline().split()[1:9])
    return (user + nice + system + irq + soft + steal) / _TICK


_gone_s = 0.0  # what instances that have been stopped had used


def _ours() -> float:
    """Seconds of this process and of all that runs or ran in our folder, with the children each has reaped."""
    return _gone_s + _spent([os.getpid(), *(pid for pid, _ in processes_of(os.environ["XDG_STATE_HOME"]))])


class Spent:
    """Processor time, of us and of all that is ours, since it was made. By the clock whoever has more processes gets more of a busy
    machine. Exact to the kernel's tick: whoever ends is reaped by one of us."""

    def __init__(self) -> None:
        self._there = {pid for pid, _ in processes_of(os.environ["XDG_STATE_HOME"])}
        self._at = _ours()

    def seconds(self) -> float:
        """When all processes that came since have ended, which is waited for."""
        deadline = time.monotonic() + _START_S
        while left := [one for one in processes_of(os.environ["XDG_STATE_HOME"]) if one[0] not in self._there]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"still running: {left}")
            time.sleep(0.05)
        return _ours() - self._at


def _spent(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15])) / _TICK
    return total


@contextmanager
def scratch() -> Iterator[str]:
    """The benchmark's whole world; whatever still runs from it at the end is killed, with a word about it."""
    folder = tempfile.mkdtemp(prefix="fluxkv-bench-")
    os.environ["XDG_STATE_HOME"] = folder
    for name in ("FLUXKV_URI", "FLUX_URI"):
        os.environ.pop(name, None)
    try:
        yield folder
    finally:
        left = processes_of(folder)
        for pid, what in left:
            print(f"bench: left running, killed: {pid} {what}", file=sys.stderr)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder: str) -> list[tuple[int, str]]:
    """Processes, other than this one, that were started with the folder in their words or their environment."""
    found, mark = [], folder.encode()
    for path in Path("/proc").iterdir():
        if not path.name.isdigit() or int(path.name) == os.getpid():
            continue
        try:
            words = (path / "cmdline").read_bytes()
            if mark in words or mark in (path / "environ").read_bytes():
                found.append((int(path.name), words.replace(b"\0", b" ").decode(errors="replace").strip()))
        except OSError:
            continue
    return found


@contextmanager
def instance(*options: str) -> Iterator[Rig]:
    """An instance with `fluxkv start --detach` and these options, stopped at the end."""
    folder = tempfile.mkdtemp(prefix="i-", dir=os.environ["XDG_STATE_HOME"])
    os.rmdir(folder)
    words = [PROGRAM, "start", "--detach", "--state-dir", folder, *options]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=_START_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    rig = Rig(folder, done.stdout.strip().splitlines()[-1])
    try:
        yield rig
    finally:
        stop(rig)


def stop(rig: Rig) -> None:
    """End it in order; kill what does not go."""
    global _gone_s
    _gone_s += _spent([pid for pid, _ in processes_of(rig.folder)])
    words = [PROGRAM, "stop", "--state-dir", rig.folder]
    try:
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=90)
        if done.returncode:
            print(f"bench: {done.stderr.strip()}", file=sys.stderr)
    except subprocess.TimeoutExpired:
        print(f"bench: {rig.folder} did not stop", file=sys.stderr)
        for pid, _ in processes_of(rig.folder):
            os.kill(pid, signal.SIGKILL)
