"""Spool files of task output: made at the start, gone at the end when nothing was written.

Most short jobs print nothing, and making a file costs four times what renaming one does, so empty files are
used again: by whoever starts in the same turn as another ends, at once, else after a rest under another name.
A file is reused only when the kernel grants a lease on it: that is its word that nobody else has it open, so
nobody who still reads (or writes) one attempt's file ever meets another's bytes. Decides nothing else; knows
no attempt.
"""

from __future__ import annotations

import fcntl
import os
from collections import deque

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_REUSE = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
_MIN_REST, _MAX_REST = 6, 32  # how many blanks rest before the oldest is reused, and at most


class OutputFiles:
    """The files below `<spool>/out`, made and removed by their full paths."""

    __slots__ = ("_blank", "_blanks", "_count", "_leases", "_left")

    def __init__(self, spool: str) -> None:
        folder = f"{spool}/out"
        self._blank = f"{folder}/.blank-"
        self._count = 0
        self._blanks: deque[str] = deque()
        self._left: list[str] = []  # of attempts that ended in this turn
        self._leases = True
        for name in os.listdir(folder):
            if name.startswith(".blank-"):
                os.unlink(f"{folder}/{name}")

    def open(self, path: str, *, append: bool) -> int:
        """A new empty file (or the old one, longer by what is appended), for writing at its end.

        Raises OSError.
        """
        if not append:
            while self._left and self._leases:
                fd = self._hand_on(self._left.pop(), path)
                if fd >= 0:
                    return fd
            if len(self._blanks) > _MIN_REST:
                fd = self._hand_on(blank := self._blanks.popleft(), path)
                if fd >= 0:
                    return fd
                _unlink(blank)
        return os.open(path, _CREATE if append else _CREATE | os.O_TRUNC, 0o600)

    def done(self, path: str) -> None:
        """The attempt is over: an empty file goes away, by the next `settle` at the latest, any other stays."""
        self._left.append(path)

    def settle(self) -> None:
        """The end of a turn."""
        for path in self._left:
            self._lay_aside(path)
        self._left.clear()

    def _lay_aside(self, path: str) -> None:
        try:
            if os.stat(path).st_size:
                return
            if self._leases and len(self._blanks) < _MAX_REST:
                self._count += 1
                blank = f"{self._blank}{self._count}"
                os.rename(path, blank)
                self._blanks.append(blank)
            else:
                os.unlink(path)
        except OSError:
            pass  # the user removed it

    def close(self) -> None:
        """Remove the blanks."""
        self.settle()
        while self._blanks:
            _unlink(self._blanks.popleft())

    def _hand_on(self, old: str, path: str) -> int:
        """An empty file under another name, open; -1 if it is not to be had. One that is not empty stays where it is.

        It is renamed first: whoever has it by its old name came before, and then it is not used, or finds it no more.
        """
        try:
            if os.stat(old).st_size:
                return -1
            os.rename(old, path)
            fd = os.open(path, _REUSE)
        except OSError:
            return -1  # the user removed it
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            if os.fstat(fd).st_size == 0:
                return fd
        except BlockingIOError:
            pass  # somebody still has it open
        except OSError:
            self._leases = False  # this file system has none
        os.close(fd)
        _unlink(path)
        return -1


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
