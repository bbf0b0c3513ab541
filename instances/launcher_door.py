"""The launcher's one blocking place: its socket, the agent on it, and the signals, behind one `wait`.

Decides when a batch of events goes out (at once when idle, else after a short linger) and that the newest
agent is the one that counts. Knows no message's meaning.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any

from ..kvs.errors import Corrupt
from .pace import USUAL
from .spool import SOCKET, private_folder, socket_path
from .wire import Decoder, Message, encode

_MANY = 200  # events, two a job: so many wait for no others
_MAX_BACKLOG = 32 * 1024 * 1024  # bytes an agent may leave unread before it is dropped; it asks `list` again


_HEARD = (signal.SIGCHLD, signal.SIGTERM)
_INFO = 128  # bytes of a signal, as it is read; its number is the first four
_FIRST = 0 if sys.byteorder == "little" else 3


def _signals() -> int:
    """A descriptor to read `_HEARD` from. They are blocked, so that no handler runs: each would break off the wait, have a frame,
    fill a pipe, and the wait begin again, at the end of each task of a launcher with one seat."""
    import ctypes

    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    for signum in _HEARD:
        signal.signal(signum, signal.SIG_DFL)  # one that is ignored would have the kernel reap children
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = sum(1 << (signum - 1) for signum in _HEARD)
    fd: int = libc.signalfd(-1, wanted.to_bytes(8, sys.byteorder).ljust(_INFO, b"\0"), os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    return fd


class Door:
    """Listening socket, at most one agent, SIGCHLD and SIGTERM."""

    __slots__ = (
        "_agent",
        "_backlog",
        "_batch_s",
        "_decoder",
        "_events",
        "_folder",
        "_last_sent",
        "_listener",
        "_path",
        "_poll",
        "_wake",
        "_writing",
    )

    def __init__(self, folder: str, batch_s: float = USUAL.batch_s) -> None:
        self._folder = folder
        self._path = path = socket_path(folder)
        self._batch_s = batch_s
        if os.path.dirname(path) != folder:
            private_folder(os.path.dirname(path))
            with open(f"{folder}/launcher.addr", "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(path)
        self._wake = _signals()
        try:
            os.unlink(path)  # the lock says that nobody serves it
        except FileNotFoundError:
            pass
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        self._listener.bind(path)
        os.umask(before)
        self._listener.listen(16)
        self._listener.setblocking(False)
        self._poll = select.epoll()
        self._poll.register(self._wake, select.EPOLLIN)
        self._poll.register(self._listener, select.EPOLLIN)
        self._agent: socket.socket | None = None
        self._decoder = Decoder()
        self._backlog = bytearray()
        self._events: list[list[Any]] = []
        self._last_sent = 0.0
        self._writing = False

    @property
    def idle(self) -> bool:
        """Nothing is left to send to an agent that listens."""
        return self._agent is None or not (self._events or self._backlog)

    def offer(self, events: list[list[Any]], *, last: bool = False) -> None:
        """Events to go out in the next batch;

        the list is emptied. Without an agent they are dropped: it will list. last: none will follow before it has heard
        them, so they go at once.
        """
        if self._agent is not None:
            self._events += events
            if last or len(self._events) >= _MANY:
                self._last_sent = 0.0
        events.clear()

    def send(self, message: Message) -> None:
        """Out now, after the events offered before it."""
        if self._agent is not None:
            self._flush_events()
            self._backlog += encode(message)
            self._push()

    def wait(self, timeout_s: float) -> tuple[list[Message], bytes]:
        """Messages and signal numbers that came within `timeout_s`;

        sends what is due before and after sleeping.
        """
        if self._events:
            left = self._last_sent + self._batch_s - time.monotonic()
            if left <= 0:
                self._flush_events()
                self._push()
            else:
                timeout_s = min(timeout_s, left)
        messages: list[Message] = []
        signals = b""
        wake, listener = self._wake, self._listener.fileno()
        for fd, _ in self._poll.poll(timeout_s):
            if fd == wake:
                signals = os.read(wake, 32 * _INFO)[_FIRST::_INFO]
            elif fd == listener:
                self._accept()
            elif self._agent is not None and fd == self._agent.fileno():
                if self._writing:
                    self._push()
                messages += self._receive()
        return messages, signals

    def close(self) -> None:
        """Nobody is let in any more; to be called while the spool's lock is held, so that the socket is ours."""
        self._drop()
        self._listener.close()
        with suppress(OSError):
            os.unlink(self._path)
            if self._path != f"{self._folder}/{SOCKET}":
                os.rmdir(os.path.dirname(self._path))

    def _accept(self) -> None:
        try:
            agent, _ = self._listener.accept()
        except OSError:
            return
        _, uid, _ = struct.unpack("3i", agent.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.getuid()):
            agent.close()
            return
        self._drop()
        agent.setblocking(False)
        self._poll.register(agent, select.EPOLLIN)
        self._agent = agent

    def _drop(self) -> None:
        if self._agent is not None:
            self._poll.unregister(self._agent)
            self._agent.close()
        self._agent = None
        self._decoder = Decoder()
        self._backlog.clear()
        self._events.clear()
        self._writing = False

    def _receive(self) -> list[Message]:
        messages: list[Message] = []
        while self._agent is not None:
            try:
                data = self._agent.recv(262144)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._drop()  # what it said before it went still counts
                break
            try:
                messages += self._decoder.feed(data)
            except Corrupt:
                self._drop()
                break
            if len(data) < 262144:
                break
        return messages

    def _flush_events(self) -> None:
        if self._events:
            self._backlog += encode(["events", self._events])
            self._events = []
            self._last_sent = time.monotonic()

    def _push(self) -> None:
        agent = self._agent
        if agent is None or not self._backlog:
            return
        try:
            sent = agent.send(self._backlog)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop()
            return
        del self._backlog[:sent]
        if len(self._backlog) > _MAX_BACKLOG:
            self._drop()
            return
        if self._writing != bool(self._backlog):
            self._writing = bool(self._backlog)
            self._poll.modify(agent, select.EPOLLIN | (select.EPOLLOUT if self._writing else 0))
