"""Questions on a connection, whose errors name the key that they are about. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from .errors import Corrupt
from .replies import WRONG_TYPE, reply_failure
from .resp import Connection, ReplyError

Command = Sequence[Any]
STEP = 1_000  # rows, or keys, in one command


class Asks(Protocol):
    """Asks a server several things at once, as `answers` does."""

    def __call__(self, commands: Sequence[Command], *, each: bool = False) -> list[Any]: ...


def answer(connection: Connection, command: Command) -> Any:
    """The reply to a command. Raises `Corrupt` (code wrong-type) where its key holds something else, and `ReplyError`."""
    try:
        return connection.call(*command)
    except ReplyError as error:
        raise _named(error, command) from None


def answers(connection: Connection, commands: Sequence[Command], *, each: bool = False) -> list[Any]:
    """The replies to commands that are sent at once; raises as `answer` does, of the first that fails. each: a key that holds
    something else is no reason to have no others: its error stands in its place."""
    replies = connection.pipeline(commands)
    for at, (command, reply) in enumerate(zip(commands, replies, strict=True)):
        if isinstance(reply, ReplyError):
            error = _named(reply, command)
            if not (each and isinstance(error, Corrupt)):
                raise error
            replies[at] = error
    return replies


def _named(error: ReplyError, command: Command) -> Exception:
    return reply_failure(error, str(command[1])) if str(error).startswith(WRONG_TYPE) else error


def scanned(ask: Asks, pattern: str) -> Iterator[list[str]]:
    """The keys of a server that a pattern matches, some at a time; one may come twice."""
    cursor = b"0"
    while True:
        ((cursor, names),) = ask([("SCAN", cursor, "MATCH", pattern, "COUNT", STEP)])
        yield [text for name in names if (text := _text(name))]
        if cursor == b"0":
            return


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:  # it is none of ours
        return ""
