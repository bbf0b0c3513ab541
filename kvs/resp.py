"""One synchronous RESP2 connection. Sends commands and reads replies; never retries and never reconnects.

After any failure the connection is closed and stays so: whoever owns it decides whether a command may be sent
again on a new one. Speaks through `hiredis` alone, because a one-shot command must not pay for a full client.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import hiredis

from .errors import Unavailable
from .uri import CHILD_USER, ServerAddress, parse_server, password_beside, secret_of

if TYPE_CHECKING:
    from _socket import socket as RawSocket

NOT_YET: Final = object()  # what `try_read` answers while no whole reply is there

RECEIVE_BYTES = 1 << 17
PASSING_GREETING = ("LOADING", "MASTERDOWN")
# A host that went away without a word, or a link that was cut, is noticed in some ten seconds and not in hours.
_CUT = (("TCP_KEEPIDLE", 4), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 10_000))


class ReplyError(Exception):
    """The server answered with an error; `str(error)` is its message, first word the kind ("WRONGTYPE …")."""


class Connection(Protocol):
    """What a store needs of a connection. Replies are bytes, int, None or lists of them."""

    address: str

    @property
    def closed(self) -> bool: ...

    def call(self, *args: Any) -> Any:
        """Send one command and read its reply. Raises ReplyError, or Unavailable (closed then)."""
        ...

    def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send all, read all; error replies come as ReplyError objects. Raises Unavailable."""
        ...

    def send(self, *args: Any) -> None:
        """Send one command without waiting for its reply."""
        ...

    def try_read(self, timeout_s: float = 0.0) -> Any:
        """The next reply, or NOT_YET after at most `timeout_s`. Raises ReplyError, Unavailable."""
        ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


Connector = Callable[[], Connection]


class Watcher(Protocol):
    """Knows when a connection's server is the wrong one (another is the primary now). See `sentinel.Watch`."""

    def wait(self, descriptor: int, timeout_s: float) -> bool: ...

    def look(self) -> None: ...

    def epoll(self, descriptor: int) -> int: ...

    def close(self) -> None: ...


class RespConnection:
    """A connected socket to a server (a URL or a parsed one, see `uri.py`), authenticated, with its database selected.

    timeout_s bounds each wait for a reply, connect_timeout_s the connecting. Raises Unavailable.
    """

    __slots__ = ("_poller", "_reader", "_socket", "address", "timeout_s", "watch")

    def __init__(self, url: str | ServerAddress, *, timeout_s: float = 10.0, connect_timeout_s: float = 2.0) -> None:
        parsed = parse_server(url) if isinstance(url, str) else url
        self.address = str(parsed)
        self.timeout_s = timeout_s
        self._reader = hiredis.Reader(replyError=ReplyError, notEnoughData=NOT_YET)
        self._poller: Any = None
        self.watch: Watcher | None = None
        self._socket: RawSocket | None = self._connected(parsed, connect_timeout_s)
        self._socket.settimeout(timeout_s)
        self._greet(parsed)

    def _connected(self, parsed: ServerAddress, timeout_s: float) -> RawSocket:
        return _connect(parsed, timeout_s)

    def _greet(self, parsed: ServerAddress) -> None:
        try:
            password = secret_of(parsed) or (password_beside(parsed.path) if parsed.kind == "unix" else "")
            if password:
                self.call("AUTH", *([parsed.user] if parsed.user else []), password)
            if parsed.db:
                self.call("SELECT", parsed.db)
        except ReplyError as error:
            self.close()
            if str(error).startswith(PASSING_GREETING):  # it starts, or waits for its primary: not now
                raise Unavailable(f"{self.address} does not serve yet: {error}", code="not-now") from None
            hint = "check user, password and database in the address"
            if parsed.user.startswith(CHILD_USER):
                hint = "the instance inside a job that this user is of has ended: fluxkv --parent jobs -R shows what was in it"
            raise Unavailable(f"{self.address} let us not in: {error}", code="refused", hint=hint) from None
        except Unavailable:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        return self._socket is None

    def fileno(self) -> int:
        """The socket's descriptor. Raises Unavailable when closed."""
        descriptor = self._open().fileno()
        return self.watch.epoll(descriptor) if self.watch is not None else descriptor

    def call(self, *args: Any) -> Any:
        try:
            self._write(hiredis.pack_command(args))
            reply = self._read()
        except BaseException:  # also an interrupt: the answer would be taken for the next command's
            self.close()
            raise
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        data = b"".join([hiredis.pack_command(tuple(command)) for command in commands])
        try:
            self._write(data)
            return [self._read() for _ in commands]
        except BaseException:
            self.close()
            raise

    def send(self, *args: Any) -> None:
        self._write(hiredis.pack_command(args))

    def try_read(self, timeout_s: float = 0.0) -> Any:
        deadline = time.monotonic() + timeout_s if timeout_s > 0 else 0.0
        while True:
            reply = self._parse()
            if reply is not NOT_YET:
                if isinstance(reply, ReplyError):
                    raise reply
                return reply
            left = deadline - time.monotonic() if deadline else 0.0
            try:
                if not self._readable(max(0.0, left)):
                    return NOT_YET
            except Unavailable:
                self.close()
                raise
            self._receive(wait=False)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._poller = None
            if self.watch is not None:
                self.watch.close()
                self.watch = None

    def _open(self) -> RawSocket:
        if self._socket is None:
            raise Unavailable(f"the connection to {self.address} is closed", code="disconnected")
        return self._socket

    def _write(self, data: bytes) -> None:
        try:
            self._open().sendall(data)
        except OSError as error:
            raise self._lost(error) from None

    def _read(self) -> Any:
        while True:
            reply = self._parse()
            if reply is not NOT_YET:
                return reply
            self._receive()

    def _parse(self) -> Any:
        try:
            return self._reader.gets()
        except hiredis.HiredisError as error:
            raise self._lost(error) from None

    def _receive(self, wait: bool = True) -> None:
        """Take what comes. wait False: something has come, by the descriptor's word."""
        if self.watch is not None and wait:
            self._wait_watching()
        self._received()

    def _received(self) -> None:
        try:
            data = self._open().recv(RECEIVE_BYTES)
        except OSError as error:
            raise self._lost(error) from None
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        if not data:
            raise self._lost(ConnectionResetError("the server closed the connection"))
        self._reader.feed(data)

    def _wait_watching(self) -> None:
        """Wait for an answer of the server, but no longer than it is the right one."""
        try:
            if self._readable(self.timeout_s):
                return
        except Unavailable:
            self.close()
            raise
        raise self._lost(TimeoutError())

    def _readable(self, timeout_s: float) -> bool:
        if self.watch is not None:
            return self.watch.wait(self._open().fileno(), timeout_s)
        if self._poller is None:
            self._poller = select.poll()
            self._poller.register(self._open().fileno(), select.POLLIN)
        # Rounded up: a wait of less than a millisecond must not become a busy loop.
        return bool(self._poller.poll(int(timeout_s * 1000 + 0.999)))

    def _lost(self, error: Exception) -> Unavailable:
        self.close()
        if isinstance(error, TimeoutError):
            return Unavailable(
                f"{self.address} did not answer within {self.timeout_s:g} s", code="timeout",
                hint="the server or its disk is overloaded, or the network is cut",
            )  # fmt: skip
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return Unavailable(
            f"lost the connection to {self.address}: {why}",
            code="disconnected",
            hint="the server went away, and what was being written may or may not be there: fluxkv status says more",
        )


FULL_BYTES = 500_000  # of free disk, below which a server cannot be expected to live


def disk_is_full(path: str) -> bool:
    """Whether the file system that holds `path` has next to no room left; what is not there has room."""
    try:
        found = os.statvfs(path)
    except OSError:
        return False
    return bool(found.f_blocks) and found.f_bavail * found.f_frsize < FULL_BYTES


def _bring_up(parsed: ServerAddress) -> str:
    """What to do when nothing listens there: an instance's socket lies in its state directory."""
    folder, _, name = parsed.path.rpartition("/") if parsed.kind == "unix" else ("", "", "")
    if name == "kv.sock" and folder and os.path.exists(f"{folder}/instance.json"):
        if disk_is_full(folder):
            return f"the disk is full at {folder}: free some of it, and the instance goes on by itself"
        return f"fluxkv status says more; fluxkv start --detach --state-dir {folder} brings it up"
    return "is it up there, and the address right? An instance's own server comes up with it: fluxkv start --detach --state-dir DIR"


def _connect_file(path: str, timeout_s: float) -> RawSocket:
    """A socket file needs nothing of what the module `socket` adds to `_socket`, and its import takes 4 ms of every command."""
    try:
        import _socket as sockets
    except ImportError:
        import socket as sockets  # type: ignore[no-redef]
    connection = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(parsed: ServerAddress, timeout_s: float) -> RawSocket:
    try:
        if parsed.kind == "unix":
            return _connect_file(parsed.path, timeout_s)
        if parsed.kind not in ("tcp", "tls"):
            raise Unavailable(f"{parsed} can not be reached by a plain connection", code="unreachable")
        import socket

        connection = socket.create_connection((parsed.host, parsed.port), timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _CUT:
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        return connection
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise Unavailable(
            f"no server answers at {parsed}: {why}", code="unreachable",
            hint=_bring_up(parsed),
        ) from None  # fmt: skip
