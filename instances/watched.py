"""What a forwarder remembers of an attempt whose output it forwards and whose input it feeds. Decides nothing."""

from __future__ import annotations

import os

LIMIT = 4 * 1024 * 1024  # bytes of one stream of one rank that are forwarded, of all attempts of a job together


class Tail:
    """One growing file. taken: bytes read so far, of `limit`; partial: bytes of an unfinished character. base: bytes that the
    target had before this attempt."""

    __slots__ = ("base", "fd", "limit", "line", "partial", "path", "ranks", "stream", "taken", "target", "truncated")

    def __init__(self, path: str, stream: str, ranks: str, target: str, base: int = 0) -> None:
        self.path = path
        self.stream = stream
        self.ranks = ranks
        self.target = target  # a user's file that labelled lines are copied to, or ""
        self.base = base
        self.limit = LIMIT
        self.fd = -1
        self.taken = 0
        self.partial = b""
        self.line = b""
        self.truncated = False


class Watched:
    """An attempt whose output is forwarded. number: which of its job's."""

    __slots__ = (
        "deaf", "dropped", "fifo", "index", "job", "key", "noted", "number", "pending", "pty", "spread", "tails", "taken",
        "total", "unsure",
    )  # fmt: skip

    def __init__(
        self, job: int, key: str, tails: list[Tail], fifo: dict[str, int], index: int, total: int, number: int = 1,
        pty: bool = False, spread: bool = False,
    ) -> None:  # fmt: skip
        self.job = job
        self.key = key
        self.tails = tails
        self.fifo = fifo  # pipe -> rank of the task that reads it
        self.index = index  # of this node in the job
        self.total = total  # tasks of the job
        self.pending = b""  # standard input that some task has not taken yet
        self.dropped = 0  # bytes before it, which all have
        self.taken = dict.fromkeys(fifo, 0)  # pipe -> bytes its task has taken
        self.spread = spread  # whether terminals on other nodes read the same input
        self.pty = pty  # whether some task is on a terminal: somebody may be looking on
        self.deaf: dict[str, int] = {}  # pipe -> how often nobody was there to read it
        self.number = number
        self.noted = number > 1 or pty
        self.unsure = number > 1  # whether the last push may have arrived, or what attempts before it wrote is not known


def may_grow(tail: Tail) -> bool:
    """Whether more of it may come."""
    return not tail.truncated


def has_grown(tail: Tail) -> bool:
    """Whether there is something to read that is wanted."""
    if not may_grow(tail):
        return False
    try:
        return (os.fstat(tail.fd) if tail.fd >= 0 else os.stat(tail.path)).st_size > tail.taken
    except OSError:
        return False


def opened(path: str) -> int:
    """To read a file; -1: there is none of that name. One that loses its name in this moment may be lent to another attempt."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except OSError:
        pass
    os.close(fd)
    return -1


def copied(tail: Tail) -> int:
    """How much of a file is in the user's file already, line by line under its task's label."""
    label = tail.ranks.encode() + b": "
    try:
        with open(tail.target, "rb") as file:
            file.seek(tail.base)
            return sum(len(line) - len(label) for line in file if line.startswith(label))
    except OSError:
        return 0


def size_of(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
