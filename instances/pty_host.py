"""A task on a terminal of its own: makes the pseudo-terminal, starts the task as its session's leader, and copies both ways.

Run as a program, by its path, in place of the task, whose exit status becomes its own; imports nothing of fluxkv, since each
such task pays for Python's start. Outlives agents: its output goes to the file that is its standard output, and a byte into
the named pipe WAKE tells whichever agent listens that there is some. The other side is `terminals`.

`pty_host.py framed|plain WAKE PROGRAM ARGV0 [ARG]...` ("-": no WAKE)

framed: standard input holds frames, `kind (1 byte), length (4), bytes`: "d" for the task, "w" a window's rows and columns (2 each).
plain: all of it is for the task. At the end of input the terminal's end-of-file character is typed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import struct
import sys
import termios
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 65536
FULL = 1 << 18  # bytes the task has not read, above which no more are taken
FIRST_WAIT_S = 0.2  # for the size of the window, which whoever is attached sends first
HEAD = struct.Struct(">cI")
SIZE = struct.Struct(">HH")
_OURS = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGWINCH, signal.SIGSEGV, signal.SIGBUS,
         signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT}  # fmt: skip


class Frames:
    """Takes frames apart as they come."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """(kind, bytes) of each frame that is whole by now."""
        self._rest += data
        found, at = [], 0
        while at + HEAD.size <= len(self._rest):
            kind, size = HEAD.unpack_from(self._rest, at)
            end = at + HEAD.size + size
            if end > len(self._rest):
                break
            found.append((kind, self._rest[at + HEAD.size : end]))
            at = end
        self._rest = self._rest[at:]
        return found


class Terminal:
    """The master side of a task's terminal."""

    def __init__(self, master: int, wake: str, framed: bool) -> None:
        self.master = master
        self.typed = b""  # what the task has not taken yet
        self._within_line = False
        self._frames = Frames() if framed else None
        self._wake_path, self._wake = wake, -1

    def take(self, data: bytes) -> None:
        """What came on standard input; nothing: its end."""
        if not data:  # within a line the first one only ends what was typed of it
            self.typed += termios.tcgetattr(self.master)[6][termios.VEOF] * (1 + self._within_line)
        elif self._frames is None:
            self._add(data)
        else:
            for kind, what in self._frames.feed(data):
                if kind == b"d":
                    self._add(what)
                elif kind == b"w" and len(what) == SIZE.size:
                    rows, columns = SIZE.unpack(what)
                    fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _add(self, data: bytes) -> None:
        self.typed += data
        self._within_line = not data.endswith((b"\n", b"\r"))

    def type(self) -> None:
        """Give the task what it takes now."""
        try:
            self.typed = self.typed[os.write(self.master, self.typed) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody has the terminal open any more
            self.typed = b""

    def show(self) -> bool:
        """Write out what the task has; False when there is nothing (now, or for good)."""
        try:
            data = os.read(self.master, CHUNK)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EIO):
                raise
            return False
        while data:
            try:
                data = data[os.write(1, data) :]
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    break  # the task goes on without being seen
                raise
        self._tell()
        return True

    def _tell(self) -> None:
        try:
            if self._wake < 0 and self._wake_path != "-":
                self._wake = os.open(self._wake_path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if self._wake >= 0:
                os.write(self._wake, b".")
        except BlockingIOError:
            pass  # told already
        except OSError:  # no agent listens
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1


def start(
    program: str, argv: list[str], slave: int, signals: set[signal.Signals], be: Callable[[], NoReturn] | None = None
) -> int:
    """The task's pid; it leads a session whose terminal this is. be: what a task does that is no program, but a fork of us."""
    pid = os.fork()
    if pid:
        return pid
    code = 126
    try:
        signal.set_wakeup_fd(-1)
        for signum in {*signals, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ}:
            signal.signal(signum, signal.SIG_DFL)
        os.login_tty(slave)
        if be is not None:
            be()
        try:
            os.execve(program, argv, os.environ)
        except OSError as error:
            if error.errno == errno.ENOEXEC:  # a script without #!: the shell's, as execvp has it
                os.execve("/bin/sh", ["sh", program, *argv[1:]], os.environ)
            code = 127 if error.errno == errno.ENOENT else 126
            os.write(2, f"fluxkv: {argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(code)


def pass_on(pid: int, signum: int) -> None:
    """A signal to the task's process group, or to a task that leads none yet."""
    for send in (os.killpg, os.kill):
        try:
            send(pid, signum)
            return
        except OSError:
            continue


def leave_as(status: int) -> NoReturn:
    """End the way the task did."""
    if os.WIFSIGNALED(status):
        import resource

        signum = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # the task has left its own
        if signum not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    os._exit(os.waitstatus_to_exitcode(status) & 255)


def main(how: str, wake: str, program: str, argv: list[str], be: Callable[[], NoReturn] | None = None) -> NoReturn:
    """Until the task has ended and what it wrote is out. be: as for `start`."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    terminal = Terminal(master, wake, how == "framed")
    ended, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    signals = {signum for signum in signal.valid_signals() if isinstance(signum, signal.Signals)} - _OURS
    for signum in {*signals, signal.SIGCHLD}:
        signal.signal(signum, lambda *_: None)
    reads = True
    poller = select.poll()
    poller.register(0, select.POLLIN)
    if how == "framed" and poller.poll(FIRST_WAIT_S * 1000):
        data = os.read(0, CHUNK)
        reads = bool(data)
        terminal.take(data)
    pid = start(program, argv, slave, signals, be)
    os.close(slave)
    while True:
        poller = select.poll()
        poller.register(ended, select.POLLIN)
        poller.register(master, select.POLLIN | (select.POLLOUT if terminal.typed else 0))
        if reads and len(terminal.typed) < FULL:
            poller.register(0, select.POLLIN)
        ready = dict(poller.poll())
        if ended in ready:
            for number in os.read(ended, 4096):
                if number != signal.SIGCHLD:
                    pass_on(pid, number)
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                while terminal.show():
                    pass
                leave_as(status)
        if 0 in ready:
            data = os.read(0, CHUNK)
            reads = bool(data)
            terminal.take(data)
        if terminal.typed:
            terminal.type()
        if ready.get(master, 0) & (select.POLLIN | select.POLLHUP) and not terminal.show():
            select.select([ended], [], [], 0.05)  # no process has the terminal open, and the task still runs


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
