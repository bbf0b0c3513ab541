"""Wait words, the `status` of RFC 21 and RFC 32: what they say, and how several make the status of a job.

A wait word is what wait(2) gives on Linux: an exit code shifted by eight bits, or a signal number, plus
0x80 for a core dump.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..kvs.errors import Rejected
from .shown import shown


class WaitStatus(NamedTuple):
    """A decoded wait word. code: exit code, or None when killed. signal: number, or None when it exited."""

    code: int | None
    signal: int | None
    core: bool

    @property
    def exited(self) -> bool:
        """Whether it ended by itself."""
        return self.code is not None

    @property
    def signaled(self) -> bool:
        """Whether a signal ended it."""
        return self.signal is not None


def decode(status: int) -> WaitStatus:
    """Parts of a wait word. Raises `Rejected` (code bad-status) for one that is not an end."""
    if type(status) is int and 0 <= status <= 0xFFFF:
        low = status & 0x7F
        if low == 0 and not status & 0x80:
            return WaitStatus(status >> 8, None, False)
        if 0 < low < 0x7F and status <= 0xFF:
            return WaitStatus(None, low, bool(status & 0x80))
    raise Rejected(f"bad wait status {shown(status)}", code="bad-status", hint="see wait(2)")


def from_exit(code: int) -> int:
    """The wait word of an exit code (0..255)."""
    return (code & 0xFF) << 8


def from_signal(signal: int, core: bool = False) -> int:
    """The wait word of a death by `signal`."""
    return signal & 0x7F | (0x80 if core else 0)


def from_returncode(code: int) -> int:
    """The wait word of a return code as Python's subprocess gives it: negative for a signal."""
    return from_signal(-code) if code < 0 else from_exit(code)


def shell_exit_code(status: int) -> int:
    """What a shell reports in `$?`: the exit code, or 128 plus the signal."""
    parts = decode(status)
    return parts.code if parts.code is not None else 128 + (parts.signal or 0)


def describe(status: int) -> str:
    """One line for people: "Exited with exit code 3", "Killed by signal 9"."""
    parts = decode(status)
    if parts.signal is None:
        return f"Exited with exit code {parts.code}"
    return f"Killed by signal {parts.signal}" + (" (core dumped)" if parts.core else "")


def finish_status(statuses: Iterable[int], exception_status: int | None = None, fatal: bool = False) -> int:
    """The status of a job's `finish` (RFC 21).

    statuses: wait words of its shells; the greatest counts. exception_status: `wait_status` of the first
    exception of severity 0, if it has one; it wins, in the form of a shell's exit code. fatal: there was
    such an exception; a job with one never ends with status 0.
    """
    exited = exception_status is not None
    status = from_exit(shell_exit_code(exception_status or 0)) if exited else max(statuses, default=0)
    return from_exit(1) if fatal and status == 0 else status
