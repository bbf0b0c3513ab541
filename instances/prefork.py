"""Daemons that are forked by their keeper before it has anything of its own: no socket, lock, thread or random number is shared.
A keeper is forked by `start` in the same way (`keeper`).

All that daemons import they then import once, which is most of the processor time that an instance's start costs. Each process
waits until the keeper says that it begins; when the keeper goes first, so does it. Only at a keeper's first start: whatever
dies later is started anew as a program (`daemon.spawn_role`). Decides nothing.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from typing import NamedTuple

from . import forked_tasks, own_program, shown
from .forked_tasks import close_but
from .paths import StateDir

LONGEST = 8192  # bytes of what a process is told
PROGRAM = ("python", "-P", "-m", "fluxkv.instances.main")  # how a daemon's words begin in lists of processes


class _Waiting(NamedTuple):
    pid: int
    pipe: int


_waiting: dict[str, _Waiting] = {}  # by the daemon's name


def keeper(words: list[str], ready: int, log: str) -> int:
    """Fork the keeper from this process, which is to bring up an instance: its pid. 0, and nothing is done, where this one has a
    thread or a socket, or did not begin as our program; and, where the kernel lets no process say what it is (`shown`), if it has
    taken something out of its environment (a password: a copy's would still be shown with it), or its own words leave no room for
    a daemon's in lists of processes.

    words: as `main.main` takes them. ready: the descriptor that it is to find as 3. log: its file.
    """
    from . import main as program
    from .daemon import leave

    if not own_program.is_ours():
        return 0
    gc.collect()  # a connection that was forgotten is closed
    if threading.active_count() > 1 or _has_socket() or not (shown.can_show() or _can_write_over(words[2])):
        return 0
    sys.stdout.flush()
    sys.stderr.flush()
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = -1
    try:
        pid = os.fork()
    except OSError:  # too many processes: whoever starts it as a program says so
        return 0
    finally:
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
    if pid:
        return pid
    try:
        os.setsid()
        handled = {signum for signum in signal.valid_signals() if callable(signal.getsignal(signum))}
        for signum in (*handled, signal.SIGTERM, signal.SIGHUP):  # an exec leaves no handler, either
            signal.signal(signum, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _write_to(log)
        os.dup2(ready, 3)
        close_but(3)
        _call(words)
        leave(program.main(words))
    finally:
        os._exit(70)


def prepare(names: list[str], state_dir: StateDir) -> list[str] | None:
    """Fork a process for each of these daemons. In those it returns what each is to do (as `main.main` takes it), once the
    keeper has said so; in the keeper None."""
    _import(names)
    forked_tasks.get_ready()
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
    from ..kvs import subscription as subscription  # who reads on wants it
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
    os.environ.pop("FLUXKV_URI", None)
    _call([role, "--state-dir", state_dir.path, "--role", name])
    close_but(read)
    told = os.read(read, LONGEST)
    os.close(read)
    if not told:
        os._exit(0)
    _write_to(state_dir.log_file(role))
    return told.decode("utf-8", "surrogateescape").split("\0")


def _write_to(path: str) -> None:
    """What is said goes to a file."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)


def _has_socket() -> bool:
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("socket:") and int(number) > 2:
                return True
        except OSError:
            continue  # the one the list was read by
    return False


def _has_hidden() -> bool:
    """Whether the environment that we began with, which stays to be seen, has something that ours has not."""
    try:
        with open("/proc/self/environ", "rb") as file:
            return any(pair.partition(b"=")[0] not in os.environb for pair in file.read().split(b"\0") if pair)
    except OSError:
        return True


def _can_write_over(state_dir: str) -> bool:
    """Whether our words leave room for those of the longest daemon, and our environment is what began it."""
    longest = sum(len(os.fsencode(word)) + 1 for word in (*PROGRAM, "worker", "--state-dir", state_dir, "--role", "worker-00"))
    return shown.room() >= longest and not _has_hidden()


def _call(words: list[str]) -> None:
    """Be called by what we do in lists of processes."""
    whole = [os.fsencode(word) for word in (*PROGRAM, *words)]
    if not shown.show([os.fsencode(sys.executable), *whole[1:]], os.environb, os.path.basename(os.fsencode(sys.executable))):
        shown.write_over(whole, 0)
