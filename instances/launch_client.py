"""The agent's end of the launcher's socket, and how a launcher is started.

Decides nothing about attempts. Never blocks but in `connect` and `start_launcher`. After a loss of the
connection the caller connects again: tasks run on meanwhile, and `held` (asked for on every connection)
tells what happened.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from typing import Any

from ..kvs.errors import Corrupt, Unavailable
from . import yielding
from .spool import socket_path
from .wire import LIKE, Decoder, Message, differs, encode, whole

Event = list[Any]

_RETRY_S = 0.01
_REMEMBERED_ENVIRONMENTS = 512  # half of what the launcher keeps


class LaunchClient:
    """One connection at a time to the launcher of one spool."""

    __slots__ = ("_backlog", "_common", "_decoder", "_refs", "_socket", "_takes", "spool")

    def __init__(self, spool: str) -> None:
        self.spool = os.path.abspath(spool)
        self._socket: socket.socket | None = None
        self._decoder = Decoder()
        self._backlog = bytearray()
        self._refs: set[str] = set()
        self._common: dict[str, Any] | None = None  # what attempts that are alike share, as the launcher knows it
        self._takes: list[str] = []  # what it has said that it takes; one of an older version, nothing

    @property
    def connected(self) -> bool:
        return self._socket is not None

    def fileno(self) -> int:
        """For a selector; -1 when not connected."""
        return -1 if self._socket is None else self._socket.fileno()

    def connect(self, timeout_s: float = 5.0) -> None:
        """Connect, waiting for a launcher that is starting; asks for `held`.

        Raises `Unavailable` when none answers in time. What an earlier connection left unsent is dropped.
        """
        deadline = time.monotonic() + timeout_s
        while not self.try_connect():
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"no launcher answers at {socket_path(self.spool)}",
                    code="no-launcher",
                    hint="the instance's keeper starts one; see its log",
                )
            time.sleep(_RETRY_S)

    def try_connect(self) -> bool:
        """One attempt, at once; True when connected (and `held` is asked for)."""
        self.close()
        path = socket_path(self.spool)
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(path)
        except OSError:
            link.close()
            return False
        link.setblocking(False)
        self._socket = link
        self.send(["list"])
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._decoder = Decoder()
        self._backlog.clear()
        self._refs.clear()
        self._common, self._takes = None, []

    def environment(self, ref: str, variables: dict[str, str]) -> None:
        """Make sure the launcher has this base environment; sent once per connection."""
        if ref not in self._refs:
            if len(self._refs) >= _REMEMBERED_ENVIRONMENTS:
                self._refs.clear()
            self._refs.add(ref)
            self.send(["env", ref, variables])

    def launch(self, attempts: list[dict[str, Any]]) -> None:
        """Have attempts started; what those that are alike share (`alike`) is sent once."""
        messages: list[Message] = []
        told: list[dict[str, Any]] = []
        for attempt in attempts:
            if LIKE in attempt and LIKE not in self._takes:
                attempt = whole(attempt)
            elif LIKE in attempt:
                if attempt[LIKE] is not self._common:
                    self._common = attempt[LIKE]
                    messages += [["launch", told]] if told else []
                    messages.append(["like", self._common])
                    told = []
                attempt = differs(attempt)
            told.append(attempt)
        self.send(*messages, ["launch", told])

    def send(self, *messages: Message) -> None:
        """Hand messages to the kernel, or keep what it does not take now.

        Without a connection they are dropped.
        """
        if self._socket is None:
            return
        for message in messages:
            self._backlog += encode(message)
        self.flush()

    def flush(self) -> None:
        """Send what was kept. A broken connection shows in the next `poll`."""
        if self._socket is None or not self._backlog:
            return
        try:
            del self._backlog[: self._socket.send(self._backlog)]
        except BlockingIOError:
            pass
        except OSError:
            self._backlog.clear()

    def poll(self) -> list[Event]:
        """Events that have come, without waiting; `["held", rows]` stands among them, in its place.

        `["gone"]` is the last one when the launcher (or its connection) went away: then `connected` is False.
        """
        events: list[Event] = []
        while self._socket is not None:
            try:
                data = self._socket.recv(262144)
                messages = self._decoder.feed(data)
            except BlockingIOError:
                break
            except (OSError, Corrupt):
                data, messages = b"", []
            for message in messages:
                if message[0] == "held":
                    self._takes = message[2] if len(message) > 2 else []
                if message[0] == "events":
                    events += message[1]
                else:
                    events.append(message)
            if not data:
                self.close()
                events.append(["gone"])
            elif len(data) < 262144:
                break
        return events

    def wait(self, timeout_s: float) -> list[Event]:
        """`poll`, after waiting up to `timeout_s` for something to come. For tests and short commands."""
        if self._socket is not None:
            poller = select.poll()
            poller.register(self._socket, select.POLLIN | (select.POLLOUT if self._backlog else 0))
            poller.poll(max(timeout_s, 0.0) * 1000)
            self.flush()
        return self.poll()


def end_all(spool: str) -> None:
    """Nobody asks for what runs here any more, and nobody would hear of its end."""
    client = LaunchClient(spool)
    if client.try_connect():
        client.send(["shutdown", True])
        client.close()


def start_launcher(
    spool: str,
    *,
    env: dict[str, str] | None = None,
    log: str = "/dev/null",
    linger_s: float | None = None,
    batch_s: float | None = None,
    timeout_s: float = 10.0,
) -> int:
    """Start a launcher and wait until it listens;

    its pid (our child: reap it). Raises `Unavailable` with its reason.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    argv = [sys.executable, "-P", "-m", "fluxkv.instances.launcher", "--spool", spool, "--owner-fd", "3"]
    if linger_s is not None:
        argv += ["--linger", repr(linger_s)]
    if batch_s is not None:
        argv += ["--batch", repr(batch_s)]
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_DUP2, write, 3),
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, how, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        pid = os.posix_spawn(
            sys.executable, argv, os.environ if env is None else env, file_actions=actions, setsigmask=(),
            **yielding.as_before(),
        )  # fmt: skip
    finally:
        os.close(write)
    try:
        poller = select.poll()
        poller.register(read, select.POLLIN)
        answer = os.read(read, 4096).decode() if poller.poll(timeout_s * 1000) else "error: silent"
    finally:
        os.close(read)
    if not answer.startswith("ready"):
        raise Unavailable(
            f"launcher of {spool} did not start: {answer.strip() or 'it died'}",
            code="no-launcher",
            hint=f"see {log}",
        )
    return pid
