"""The same small connection, on top of a redis-py client: that is how fakeredis is reached. Retries are off.

Takes one raw connection from the client's pool and never lets redis-py reconnect it. The client must speak
RESP2 (`protocol=2`) and must not decode replies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fluxkv.kvs.errors import Unavailable
from fluxkv.kvs.resp import NOT_YET, ReplyError


class PyRedisConnection:
    """A `Connection` on a redis-py (or fakeredis) client. See `resp.Connection`."""

    __slots__ = ("_raw", "address")

    def __init__(self, client: Any, address: str = "redis") -> None:
        self.address = address
        self._raw: Any = None
        try:
            self._raw = client.connection_pool.get_connection()
        except Exception as error:
            raise self._translated(error) from None

    @property
    def closed(self) -> bool:
        return self._raw is None

    def call(self, *args: Any) -> Any:
        self._send(args)
        reply = self._read()
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        replies = []
        for command in commands:  # one at a time: fakeredis answers as it is asked
            self._send(command)
            replies.append(self._read())
        return replies

    def send(self, *args: Any) -> None:
        self._send(args)

    def try_read(self, timeout_s: float = 0.0) -> Any:
        try:
            ready = self._open().can_read(timeout_s)
        except Exception as error:
            raise self._translated(error) from None
        if not ready:
            return NOT_YET
        reply = self._read()
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def fileno(self) -> int:
        socket: Any = getattr(self._open(), "_sock", None)
        if not hasattr(socket, "fileno"):
            raise Unavailable(f"{self.address} has no descriptor to wait on", code="no-descriptor")
        return int(socket.fileno())

    def close(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.disconnect()

    def _open(self) -> Any:
        if self._raw is None:
            raise Unavailable(f"the connection to {self.address} is closed", code="disconnected")
        return self._raw

    def _send(self, args: Sequence[Any]) -> None:
        try:
            self._open().send_command(*args, check_health=False)
        except Exception as error:
            raise self._translated(error) from None

    def _read(self) -> Any:
        try:
            return self._open().read_response()
        except Exception as error:
            translated = self._translated(error)
            if isinstance(translated, ReplyError):
                return translated
            raise translated from None

    def _translated(self, error: Exception) -> Exception:
        """redis-py's error as ours. It drops the first word of some replies: put it back."""
        from redis import exceptions as theirs

        if isinstance(error, Unavailable):
            return error
        for kind, word in (
            ("BusyLoadingError", "LOADING"), ("NoScriptError", "NOSCRIPT"), ("ReadOnlyError", "READONLY"),
            ("OutOfMemoryError", "OOM"), ("NoPermissionError", "NOPERM"), ("MasterDownError", "MASTERDOWN"),
            ("TryAgainError", "TRYAGAIN"), ("ClusterDownError", "CLUSTERDOWN"),
        ):  # fmt: skip
            if isinstance(error, getattr(theirs, kind, ())):
                text = str(error)
                return ReplyError(text if text.startswith(word) else f"{word} {text}")
        self_made = isinstance(error, theirs.ResponseError) and not isinstance(error, theirs.AuthenticationError)
        if self_made:
            return ReplyError(str(error))
        self.close()
        code = "timeout" if isinstance(error, theirs.TimeoutError | TimeoutError) else "disconnected"
        return Unavailable(f"lost the connection to {self.address}: {error}", code=code)
