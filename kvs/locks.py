"""Locks on files: who holds one is who serves a directory, until it is dead. Decides only how one is waited for."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable

LOOK_S = 0.01


def lock_within(path: str, patience_s: float, in_vain: Callable[[], bool] = lambda: False) -> int | None:
    """An exclusive lock on a file, as a descriptor to keep; None where another process keeps it for `patience_s`, or waiting is
    in vain: that is asked while it is held. Raises OSError of the file."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except OSError:
            if in_vain() or time.monotonic() >= deadline:
                os.close(fd)
                return None
            time.sleep(LOOK_S)
