"""Tasks on a terminal (shell option `pty`): which have one, how they are started, what is sent to them, and how it is noticed
that they have said something. The task's own side is `pty_host`.

A task with a terminal reads from whoever is attached; the others of its job have no input then. What it shows is its standard
output, errors among it.
"""

from __future__ import annotations

import os
import select
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..journal.idset import ids_of_mask, mask_of
from ..kvs.errors import Rejected
from . import pty_host

INTERACTIVE = "pty.interactive"  # a person sits there: input comes from who is attached
HOST = ["-I", "-S", pty_host.__file__]  # how its words go on
PACE_S = 0.004  # between two looks for the output of tasks that have much
_MOST = select.PIPE_BUF - pty_host.HEAD.size
_KEYS = frozenset(("interactive", "ranks", "capture"))


class Pty(NamedTuple):
    """ranks: tasks with a terminal, as an idset ("all": all of them)."""

    ranks: str
    interactive: bool

    def spread(self, nodes: int) -> bool:
        """Whether those on several nodes may read the same input."""
        return nodes > 1 and not self.ranks.isdecimal()

    def among(self, ranks: Sequence[int]) -> list[int]:
        """Those of these tasks that have one."""
        if self.ranks == "all":
            return list(ranks)
        return sorted(set(ids_of_mask(mask_of(self.ranks))) & set(ranks))


def parse_pty(value: Any) -> Pty | None:
    """The option `pty`: on, or an object as in Flux. Raises `Rejected` (code bad-shell-option)."""
    if value in (None, False, 0):
        return None
    if value in (True, 1):
        return Pty("0", False)
    if not isinstance(value, Mapping) or not _KEYS.issuperset(value):
        raise _bad("pty", value, f"it is 1, or has {', '.join(sorted(_KEYS))}")
    ranks = value.get("ranks", "0")
    text = str(ranks) if type(ranks) is int else ranks
    if text != "all":
        try:
            mask_of(text)
        except (Rejected, AttributeError, TypeError):
            raise _bad("pty.ranks", ranks, "it is all, or ranks of tasks such as 0-3") from None
    for name in ("interactive", "capture"):
        if value.get(name, 0) not in (0, 1):
            raise _bad(f"pty.{name}", value[name], "it is 0 or 1")
    return Pty(text, bool(value.get("interactive")))


def _bad(name: str, value: Any, why: str) -> Rejected:
    return Rejected(f"{name}={str(value)[:60]!r}: {why}", code="bad-shell-option")


def hosted(argv: Sequence[str], program: str, spool: str, framed: bool) -> list[str]:
    """The command that starts a task on a terminal. framed: its input holds frames."""
    how = "framed" if framed else "plain"
    return [sys.executable, *HOST, how, wake_path(spool), program, *argv]


def typed(data: bytes) -> bytes:
    """Bytes for a task, as its terminal's host takes them: in frames that a pipe takes whole or not at all."""
    parts = [data[at : at + _MOST] for at in range(0, max(1, len(data)), _MOST)]
    return b"".join(pty_host.HEAD.pack(b"d", len(part)) + part for part in parts)


def write_frames(pipe: int, data: bytes) -> int:
    """Write what a pipe takes now of these frames: how many bytes. None is cut, or what an agent after us writes would be taken for
    the rest of it."""
    done = 0
    with suppress(BlockingIOError):
        while done < len(data):
            end = done + pty_host.HEAD.size + pty_host.HEAD.unpack_from(data, done)[1]
            os.write(pipe, data[done:end])
            done = end
    return done


def window(rows: int, columns: int) -> bytes:
    """The size of the window, the same way."""
    size = pty_host.SIZE.pack(*(min(max(int(n), 0), 0xFFFF) for n in (rows, columns)))
    return pty_host.HEAD.pack(b"w", len(size)) + size


def framed(message: Sequence[Any]) -> bytes:
    """What a message of the job's input stream is to a terminal; nothing for one that makes no sense."""
    try:
        if message[0] == "data":
            return typed(bytes(message[1]))
        if message[0] == "resize":
            return window(message[1], message[2])
    except (TypeError, ValueError, IndexError, struct.error):
        pass
    return b""


def wake_path(spool: str) -> str:
    """The named pipe by which hosts of terminals tell the agent that there is output."""
    return f"{spool}/wake"


class Wake:
    """The agent's end of it. Nobody loses anything by a byte that is lost: output is looked for now and then anyway."""

    def __init__(self, spool: str) -> None:
        path = wake_path(spool)
        self._fd = -1
        self._last = 0.0
        try:
            if not os.path.exists(path):
                os.mkfifo(path, 0o600)
            self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # a writer of our own: never at its end
        except OSError:  # a file system without pipes
            pass

    def fileno(self) -> int:
        return self._fd

    def told(self, now: float) -> float | None:
        """When to look for what there is: 0.0 is at once; None if there is nothing. now: of a clock that only grows."""
        try:
            if self._fd < 0 or not os.read(self._fd, 65536):
                return None
        except BlockingIOError:
            return None
        if now - self._last < PACE_S:
            return self._last + PACE_S
        self._last = now
        return 0.0
