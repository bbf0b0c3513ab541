"""What all daemons share: the role's lock, its run file, the log, ends by signal, watching the keeper.

A daemon is whoever holds its role's lock: the kernel lets go of it however the process dies.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TypeVar

from ..journal.wire import pack
from ..kvs.errors import FluxkvError, Unavailable
from ..kvs.keys import Keys
from ..kvs.locks import lock_within
from ..kvs.port import Store
from . import prefork, yielding
from .paths import StateDir, lock_held, write_json

LOG_LIMIT = 5000
RETRY_S = 0.05
EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # no fault of ours
STARVED = 75  # exit status of a daemon that found no room, memory or descriptors (EX_TEMPFAIL)
RUNNING = "running"  # the error code of a lock that somebody else holds
KEPT: list[object] = []  # what is not taken apart before the process ends: where a state is large that takes many seconds
KEEPER_AGAIN_S = 2.0  # a keeper that could not bring the instance up is not started again before
_revived: list[int] = []  # keepers that this process started

_T = TypeVar("_T")


class Stopping(Exception):
    """Raised in a daemon's main loop when it has been told to end."""


class Daemon:
    """One role of an instance in this process. `stopping` becomes true on SIGTERM or SIGINT."""

    def __init__(self, state_dir: StateDir, role: str, patience_s: float = 5.0) -> None:
        """Take the role's lock. Raises `Unavailable` (code "running") if somebody else holds it."""
        self.state_dir = state_dir
        self.role = role
        self.stopping = False
        self._lock = take_lock(state_dir.lock_file(role), patience_s)
        self.wake_read, self.wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGTERM, self._told)
        signal.signal(signal.SIGINT, self._told)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        self._looked = 0.0
        started = time.time()
        write_json(state_dir.run_file(role), {"pid": os.getpid(), "role": role.split("-")[0], "started": started})

    def _told(self, signum: int, frame: object) -> None:
        self.stopping = True

    def drain_wakeups(self) -> None:
        """Empty the pipe that signals write to."""
        try:
            while os.read(self.wake_read, 4096):
                pass
        except BlockingIOError:
            pass

    def keeper_revived(self) -> bool:
        """Start a new keeper if there is none; True if one was started. Looks once a second at most."""
        now = time.monotonic()
        if now - self._looked < 1.0:
            return False
        self._looked = now
        return revive_keeper(self.state_dir)

    def reached(self, make: Callable[[], _T]) -> _T:
        """What `make` gives as soon as the server answers it. Raises `Stopping` when told to end meanwhile."""
        while True:
            if self.stopping:
                raise Stopping
            try:
                return make()
            except Unavailable:
                self.keeper_revived()
                time.sleep(RETRY_S)

    def done(self) -> None:
        """Leave no run file behind; the lock goes with the process."""
        try:
            os.unlink(self.state_dir.run_file(self.role))
        except OSError:
            pass


def take_lock(path: str, patience_s: float) -> int:
    """An exclusive lock on a file, as a descriptor to keep. Raises `Unavailable` (code "running")."""
    fd = lock_within(path, patience_s)
    if fd is None:
        raise Unavailable(f"{path} is held by another process", code=RUNNING)
    return fd


class Log:
    """The daemons' own log: the store's capped stream (`fluxkv dmesg`), and stderr, which is the role's log file.

    store: one that does not wait for a server that is away (patience 0): what it misses is in the file.
    """

    def __init__(self, role: str, store: Store | None, keys: Keys | None) -> None:
        self.role = role
        self.store = store
        self.keys = keys

    def say(self, level: str, text: str) -> None:
        """level: info, warning or error. Never raises."""
        now = time.time()
        line = f"{time.strftime('%FT%T', time.localtime(now))} {self.role} {level}: {text}\n"
        try:
            os.write(2, line.encode(errors="backslashreplace"))  # no buffer: a full disk costs this line only
        except OSError:
            pass
        if self.store is not None and self.keys is not None:
            for _ in range(2):  # a connection from before a restart of the server fails once
                try:
                    self.store.push(self.keys.log, [pack([now, self.role, level, text])], limit=LOG_LIMIT)
                    return
                except FluxkvError:
                    continue


def guarded(log: Callable[[], Log | None], body: Callable[[], None]) -> int:
    """Run a daemon's body; whatever happens ends as one line in the log and an exit status."""
    try:
        body()
    except Stopping:
        return 0
    except FluxkvError as error:
        if error.code == RUNNING:
            return error.exit_status  # two were started at once, and one is enough
        where = log()
        text = f"{error}" + (f" ({error.hint})" if error.hint else "")
        (where or Log("daemon", None, None)).say("error", text)
        return error.exit_status
    except Exception as error:
        import traceback

        where = log() or Log("daemon", None, None)
        if isinstance(error, OSError) and error.errno in EXHAUSTED:
            where.say("error", f"{error.filename or 'writing'}: {error.strerror}")
            return STARVED
        where.say("error", traceback.format_exc())
        return 70
    return 0


def leave(status: int) -> NoReturn:
    """The end of a daemon's process, at once; what it has to tidy up, it has."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def spawn_role(state_dir: StateDir, role: str, *options: str) -> int:
    """Start a daemon as a process of its own session; its pid. Its stderr goes to the role's log file."""
    words = [role, "--state-dir", state_dir.path, *options]
    if pid := prefork.begin(options[1] if options[:1] == ("--role",) else role, words):
        return pid
    argv = [sys.executable, "-P", "-m", "fluxkv.instances.main", *words]
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, state_dir.log_file(role), how, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "FLUXKV_URI"}
    return os.posix_spawn(
        sys.executable, argv, environment, file_actions=actions, setsid=True, setsigmask=(), **yielding.as_before()
    )  # fmt: skip


def revive_keeper(state_dir: StateDir) -> bool:
    """Start a new keeper if the old one is gone and the instance is not being stopped; True if one was started."""
    _revived[:] = [pid for pid in _revived if _is_there(pid)]
    if os.path.exists(state_dir.join("run", "stopping")) or lock_held(state_dir.lock_file("keeper")):
        return False
    try:
        if time.time() - os.path.getmtime(state_dir.join("run", "keeper.failed")) < KEEPER_AGAIN_S:
            return False
    except OSError:
        pass
    _revived.append(spawn_role(state_dir, "keeper"))
    return True


def _is_there(pid: int) -> bool:
    """Whether a keeper that we started has not ended; one that has is reaped, as nobody else does: where none can be brought up
    there is another every few seconds, as long as we live."""
    try:
        return not os.waitpid(pid, os.WNOHANG)[0]
    except ChildProcessError:
        return False
