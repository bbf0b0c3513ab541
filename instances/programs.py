"""Finding a task's program and starting it by `posix_spawn`. Decides how a command's name becomes a program (execvp's rules)
and what a user is told who names none that can run.
"""

from __future__ import annotations

import errno
import os
import signal
import stat as stat_module
import time
from collections.abc import Mapping
from functools import partial

from . import forked_tasks, yielding
from .rlimits import Limits, by_shell
from .user_files import SpawnError

_PATH_CACHE_S = 1.0
_DEFAULT_PATH = b"/usr/local/bin:/usr/bin:/bin"
_STATUS_NOT_EXECUTABLE, _STATUS_NOT_FOUND = 126 << 8, 127 << 8


def _to_default() -> list[int]:
    """The signals that a spawn names as those that a task is to have by default: what is ignored here, at least.

    A C library that cannot have the kernel take handlers away (glibc before 2.38) asks for the action of each signal and then sets
    it, 120 system calls a task; that of one that is named it only sets. A later one would do for each name what it need not.
    """
    every = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    try:
        library, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        if library == "glibc" and tuple(map(int, version.split(".")[:2])) < (2, 38):
            return sorted(every)
    except (OSError, ValueError):  # another library, or no release
        pass
    ignored = {each for each in every if signal.getsignal(each) is signal.SIG_IGN}
    return sorted(ignored | {signal.SIGPIPE, signal.SIGXFSZ})


class Programs:
    """limits: this process's, which tasks inherit."""

    __slots__ = ("_class", "_default_signals", "_found", "limits")

    def __init__(self) -> None:
        self.limits = Limits()
        self._found: dict[tuple[str, bytes], tuple[float, bytes]] = {}
        self._default_signals = _to_default()
        self._class = yielding.as_before()

    def spawn(
        self,
        argv: list[str],
        env: dict[bytes, bytes],
        files: list[tuple[int, int, int]],
        changes: Mapping[str, int] | None = None,
    ) -> int:
        """Start it in a process group of its own; its pid. changes: limits that differ from ours. Raises `SpawnError`."""
        if not argv or not argv[0]:
            raise SpawnError("empty command", _STATUS_NOT_FOUND)
        name = argv[0]
        program = self._resolve(name, env.get(b"PATH", _DEFAULT_PATH))
        spawn = os.posix_spawn
        if not changes and (pid := forked_tasks.fork(program, argv, env, files)):
            return pid
        if changes:
            argv = by_shell(changes, argv)
            program = os.fsencode(argv[0]) if argv[0] != name else program
            spawn = partial(self.limits.around, changes, os.posix_spawn)
        for attempt_left in (True, False):
            try:
                return spawn(
                    program,
                    argv,
                    env,
                    file_actions=files,
                    setpgroup=0,
                    setsigmask=(),
                    setsigdef=self._default_signals,
                    **self._class,
                )
            except OSError as error:
                if (
                    error.errno == errno.ENOEXEC and attempt_left
                ):  # a script without #!: the shell's, as execvp has it
                    program, argv = b"/bin/sh", ["sh", os.fsdecode(program), *argv[1:]]
                    continue
                self._found.clear()
                if error.errno == errno.ENOENT:
                    raise SpawnError(
                        f"{name}: no such file, or its interpreter is missing", _STATUS_NOT_FOUND
                    ) from None
                if error.errno in (errno.EACCES, errno.ENOEXEC, errno.EISDIR, errno.ENOTDIR):
                    raise SpawnError(f"{name}: {error.strerror}", _STATUS_NOT_EXECUTABLE) from None
                raise SpawnError(f"{name}: {error.strerror}") from None
            except (ValueError, OverflowError) as error:  # a zero byte, or "=" in a variable's name
                raise SpawnError(f"{name}: {error}") from None
        raise AssertionError("unreachable")

    def find(self, argv: list[str], env: Mapping[bytes, bytes]) -> str:
        """The program a command means, for who starts it himself. Raises `SpawnError`."""
        if not argv or not argv[0]:
            raise SpawnError("empty command", _STATUS_NOT_FOUND)
        return os.fsdecode(self._resolve(argv[0], env.get(b"PATH", _DEFAULT_PATH)))

    def _resolve(self, name: str, path: bytes) -> bytes:
        """`execvp`'s search, in the job's PATH seen from the job's directory; remembered for a second."""
        if "/" in name:
            return os.fsencode(name)  # the spawn itself tells what is wrong
        now = time.monotonic()
        cached = self._found.get((name, path))
        if cached is not None and now < cached[0]:
            return cached[1]
        present = False
        for folder in path.split(b":"):
            candidate = (folder or b".") + b"/" + os.fsencode(name)
            try:
                mode = os.stat(candidate).st_mode
            except OSError:
                continue
            if not stat_module.S_ISREG(mode):
                continue
            if os.access(candidate, os.X_OK):
                if folder.startswith(b"/"):
                    if len(self._found) > 1000:
                        self._found.clear()
                    self._found[name, path] = now + _PATH_CACHE_S, candidate
                return candidate
            present = True
        if present:
            raise SpawnError(f"{name}: permission denied", _STATUS_NOT_EXECUTABLE)
        raise SpawnError(f"{name}: command not found", _STATUS_NOT_FOUND)
