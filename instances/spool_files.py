"""Spool files of task output: one that nothing was written to never has a name of its attempt's, and serves the next attempt.

Most short jobs print nothing, and making or renaming a file is an operation that the file system journals. So a file is lent
under a name of ours, which the launcher's record has before anything is written to it (`spool`: after a launcher's death its
attempt's name comes from there). It has its attempt's when somebody may look for it: when the attempt has run for `NAME_S`, when
it is over and has written something, or when the launcher is asked what it holds (`name_all`).

A file is lent again only when the kernel has granted a lease on it at its attempt's end, when it has that one's name no more and
nothing in it: that is its word that nobody else has it open, so nobody who still reads (or writes) one attempt's file ever meets
another's bytes. Decides nothing else; knows no attempt.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterable, Sequence

from .watched import size_of

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
_CREATE = _APPEND | os.O_CREAT
_KEPT = 32  # blanks at hand, at most
NAME_S = 0.025  # an agent looks at the files of what it has heard begin after twice that (`forward.LOOK_S`)
_OLD_S = 60.0  # a blank that lay so long may have been taken away by who cleans up what is old
_AGAIN_S = 1.0  # what cannot be renamed, on a full disk say


def blank_path(spool: str, number: int) -> str:
    """The name of a file while it has no attempt's."""
    return f"{spool}/out/.blank-{number}"


def give_names(spool: str, lent: Iterable[tuple[int, str]]) -> None:
    """What a launcher that died had lent: (number, whose path), in the order in which it was."""
    for number, path in dict(lent).items():  # the last one has it
        try:
            os.rename(blank_path(spool, number), path)
        except FileNotFoundError:
            pass  # it has its name
        except OSError as error:
            _complain(blank_path(spool, number), path, error)


class _Lent:
    __slots__ = ("due", "fd", "number", "opened")

    def __init__(self, number: int, due: float, fd: int) -> None:
        self.number = number
        self.due = due  # when it is to have its attempt's name
        self.fd = fd  # -1: it is yet to be made, or opened once more
        self.opened = False


class OutputFiles:
    """The files below `<spool>/out`, by the full paths that their attempts know them by. Times: any clock's, the caller's."""

    __slots__ = ("_blanks", "_count", "_lent", "_spool")

    def __init__(self, spool: str) -> None:
        self._spool = spool
        self._count = 0
        self._blanks: list[tuple[int, int, float]] = []  # (number, descriptor, since when) of empty files that nobody else has open
        self._lent: dict[str, _Lent] = {}  # without their names yet, the longest lent first
        for name in os.listdir(f"{spool}/out"):
            if name.startswith(".blank-"):
                path = f"{spool}/out/{name}"
                if os.stat(path).st_size:  # it could not be given its name
                    self._count = max(self._count, int(name[7:]) if name[7:].isdigit() else 0)
                else:
                    os.unlink(path)

    def lend(self, paths: Sequence[str], now: float) -> list[int]:
        """An empty file for each of these ("": none), to be opened by that path: their numbers (0: none), for the record."""
        numbers = []
        for path in paths:
            if not path:
                numbers.append(0)
                continue
            number, fd = self._blank()
            self._lent[path] = _Lent(number, now + NAME_S, fd)
            numbers.append(number)
        return numbers

    def open(self, path: str, *, append: bool) -> int:
        """For writing at its end: what was lent, else the file of that name (longer by what is appended, or emptied).

        Raises OSError.
        """
        lent = self._lent.get(path)
        if lent is None:
            return os.open(path, _CREATE if append else _CREATE | os.O_TRUNC, 0o600)
        fd, lent.fd = lent.fd, -1
        if fd < 0:
            fd = os.open(blank_path(self._spool, lent.number), _APPEND if lent.opened else _CREATE | os.O_EXCL, 0o600)
        lent.opened = True
        return fd

    def done(self, path: str) -> bool:
        """The attempt is over: whether it has written something, which has its name then. An empty file is nobody's any more."""
        lent = self._lent.pop(path, None)
        number = lent.number if lent is not None else 0
        there = blank_path(self._spool, number) if number else path
        if lent is not None and lent.fd >= 0:
            self._blanks.append((number, lent.fd, time.monotonic()))
            return False
        try:
            fd = os.open(there, _APPEND)
        except FileNotFoundError:
            return False  # the user removed it
        except OSError:  # no descriptor is left, or its task has forbidden it
            return self._left(there, path, size_of(there))
        if not number and len(self._blanks) < _KEPT and not os.fstat(fd).st_size:
            number = self._next()  # whoever opens it from now on, by its name, has none
            blank = blank_path(self._spool, number)
            try:
                os.rename(there, blank)
                there = blank
            except OSError:
                number = 0
        ours = number and len(self._blanks) < _KEPT and self._is_ours_alone(fd)
        found = os.fstat(fd)  # last: nobody writes any more
        if ours and not found.st_size and found.st_nlink == 1 and found.st_mode & 0o600 == 0o600:
            self._blanks.append((number, fd, time.monotonic()))
            return False
        os.close(fd)
        return self._left(there, path, found.st_size)

    def _left(self, there: str, path: str, size: int) -> bool:
        """A file that is not lent again has its name, or goes where it is empty: whether it has something."""
        if not size:
            _unlink(there)
        elif there != path:
            self._rename(there, path)
        return bool(size)

    def due(self) -> float | None:
        """When `name` has something to do next."""
        for lent in self._lent.values():
            return lent.due
        return None

    def name(self, now: float) -> None:
        """Whatever was lent long enough ago gets its name."""
        lent = self._lent
        while lent:
            path = next(iter(lent))
            if lent[path].due > now:
                return
            one = lent.pop(path)
            if not (one.opened and self._rename(blank_path(self._spool, one.number), path)):
                one.due = now + _AGAIN_S
                lent[path] = one

    def name_all(self) -> None:
        """Whatever was lent gets its name: somebody may look now."""
        for path, one in list(self._lent.items()):
            if one.opened and self._rename(blank_path(self._spool, one.number), path):
                del self._lent[path]

    def close(self) -> None:
        """Remove the blanks."""
        while self._blanks:
            number, fd, _ = self._blanks.pop()
            os.close(fd)
            _unlink(blank_path(self._spool, number))

    def _blank(self) -> tuple[int, int]:
        """(number, descriptor or -1) of a file to be lent."""
        while self._blanks:
            number, fd, since = self._blanks.pop()
            if time.monotonic() - since < _OLD_S or os.fstat(fd).st_nlink:
                return number, fd
            os.close(fd)
        return self._next(), -1

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _is_ours_alone(self, fd: int) -> bool:
        """Whether nobody else has it open: the kernel grants a lease on it, then."""
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:  # or this file system has none
            return False
        return True

    def _rename(self, blank: str, path: str) -> bool:
        try:
            os.rename(blank, path)
        except FileNotFoundError:
            pass  # the user removed it
        except OSError as error:
            _complain(blank, path, error)
            return False
        return True


def _complain(blank: str, path: str, error: OSError) -> None:
    print(f"launcher: output for {path} stays in {blank}: {error.strerror}", file=sys.stderr, flush=True)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
