"""Daemons that are forked by their keeper before it has anything of its own: no socket, lock, thread or random number is shared.

All that daemons import they then import once, which is most of the processor time that an instance's start costs. Each process
waits until the keeper says that it begins; when the keeper goes first, so does it. Only at a keeper's first start: whatever
dies later is started anew as a program (`daemon.spawn_role`). Decides nothing.
"""

from __future__ import annotations

import gc
import os
from typing import NamedTuple

from .paths import StateDir

LONGEST = 8192  # bytes of what a process is told


class _Waiting(NamedTuple):
    pid: int
    pipe: int


_waiting: dict[str, _Waiting] = {}  # by the daemon's name


def prepare(names: list[str], state_dir: StateDir) -> list[str] | None:
    """Fork a process for each of these daemons. In those it returns what each is to do (as `main.main` takes it), once the
    keeper has said so; in the keeper None."""
    _import(names)
    gc.collect()
    gc.freeze()  # what is shared stays so
    for name in names:
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError:  # too many processes: the keeper will say so, when it starts this one as a program
            os.close(read)
            os.close(write)
            continue
        if not pid:
            _waiting.clear()
            return _wait(name, read, state_dir)
        os.close(read)
        _waiting[name] = _Waiting(pid, write)
    return None


def begin(name: str, words: list[str]) -> int:
    """Have the process that waits for this go on as a daemon: its pid; 0 if there is none."""
    found = _waiting.pop(name, None)
    if found is None:
        return 0
    try:
        os.write(found.pipe, "\0".join(words).encode("utf-8", "surrogateescape"))
    except OSError:  # it was killed
        os.waitpid(found.pid, 0)
        return 0
    finally:
        os.close(found.pipe)
    return found.pid


def dismiss() -> None:
    """Those that are not needed go."""
    for found in _waiting.values():
        os.close(found.pipe)
    for found in _waiting.values():
        os.waitpid(found.pid, 0)
    _waiting.clear()


def _import(names: list[str]) -> None:
    from . import keeper as keeper

    for name in names:
        if name == "agent":
            from . import run_agent as run_agent
        elif name == "launcher":
            from . import launcher as launcher
        else:
            from . import run_worker as run_worker


def _wait(name: str, read: int, state_dir: StateDir) -> list[str]:
    """In the new process: let go of what is the keeper's, and wait."""
    os.setsid()
    role = name.split("-")[0]
    _call([role, "--state-dir", state_dir.path, "--role", name])
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number != read:
            try:
                os.close(number)
            except OSError:
                pass  # the one the list was read by
    told = os.read(read, LONGEST)
    os.close(read)
    if not told:
        os._exit(0)
    log = os.open(state_dir.log_file(role), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    os.environ.pop("FLUXKV_URI", None)
    return told.decode("utf-8", "surrogateescape").split("\0")


def _call(words: list[str]) -> None:
    """Be called by what we do in lists of processes: the keeper's words are written over, as far as there is room."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        begin, end = int(fields[45]), int(fields[46])
        with open("/proc/self/cmdline", "rb") as file:
            before = file.read()
        at = before.index(b"\0keeper\0") + 1
        text = b"\0".join(os.fsencode(word) for word in words) + b"\0"
        if len(text) <= end - begin - at:
            with open("/proc/self/mem", "r+b", buffering=0) as memory:
                memory.seek(begin + at)
                memory.write(text.ljust(end - begin - at, b"\0"))
    except (OSError, ValueError, IndexError):
        pass  # where that is not allowed they all bear the keeper's name
