"""Opening the files a user names for a task's input and output: any path, which may be anything. Decides when an output
file is emptied, and what a user is told who cannot have it; knows no attempt but its message.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any

_STATUS_ERROR = 1 << 8


class SpawnError(Exception):
    """A task cannot start. status: the wait status to report; str(error): what to tell the user."""

    def __init__(self, text: str, status: int = _STATUS_ERROR) -> None:
        super().__init__(text)
        self.status = status


def users_mode(spec: dict[str, Any], path: str, emptied: set[str]) -> int:
    """How to open a user's output file: the first time in an attempt it is emptied, unless it is appended to."""
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    if path in emptied or spec.get("append"):
        return how
    emptied.add(path)
    return how | os.O_TRUNC


def open_users(
    what: str, path: str, how: int, opened: list[int], spec: dict[str, Any] | None = None
) -> int:
    """Open a path that may be anything: a named pipe without its other end must not stop every job."""
    try:
        fd = os.open(path, how | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
    except OSError as error:
        reason = "no reader" if error.errno == errno.ENXIO else error.strerror
        raise SpawnError(f"{what} {path}: {reason}") from None
    except ValueError as error:
        raise SpawnError(f"{what}: {error}") from None
    opened.append(fd)
    # Nodes of one job share the file: whoever opens it first empties it if it is older than the job.
    if spec is not None and not how & os.O_TRUNC and os.fstat(fd).st_mtime < spec.get("empty_before", 0.0):
        try:
            os.ftruncate(fd, 0)
            os.utime(fd)
        except OSError:
            pass  # a pipe or a device
    fcntl.fcntl(fd, fcntl.F_SETFL, how & os.O_APPEND)
    return fd
