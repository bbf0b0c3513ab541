"""Standard input of the jobs on this host: from the streams that attached users write to the pipes of the tasks.

Every task on every node gets all of it, unless the writer names the ranks it is for. Decides when the end of input is said.
Messages: ["data", bytes] or ["data", bytes, ranks as an idset], ["resize", rows, columns] of a terminal's window, and ["eof"].
What was typed at a terminal leaves the stream as it is passed on, so that an agent after us does not type it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..journal.wire import unpack
from ..kvs.keys import Keys
from ..kvs.port import Message, Subscription
from .attempts import Placed
from .forward import Forwarder
from .terminals import framed


class JobInput:
    """placed: the agent's attempts by launcher key. send: to the launcher. passed: told of (stream, id) when
    all up to there has been passed to a terminal. streams: input stream -> attempts that read it."""

    def __init__(
        self, keys: Keys, forwarder: Forwarder, placed: Callable[[], Mapping[str, Placed]], send: Callable[[list[Any]], Any],
        passed: Callable[[str, str], None] = lambda stream, id: None,
    ) -> None:
        self.streams: dict[str, dict[str, None]] = {}
        self._keys = keys
        self._forwarder = forwarder
        self._placed = placed
        self._send = send
        self._passed = passed
        self._kept: set[str] = set()  # attempts whose failure may not be their job's end
        self._ending: dict[str, None] = {}  # attempts whose input has ended, but is not read yet

    def follow(self, subscription: Subscription | None) -> None:
        """Take up the attempts that are new."""
        for job, key, kept in self._forwarder.wants_input():
            stream = self._keys.input(job)
            if kept:
                self._kept.add(key)
            if stream not in self.streams and subscription is not None:
                subscription.follow(stream, "0")
            self.streams.setdefault(stream, {})[key] = None

    def leave(self, key: str, subscription: Subscription | None, failed: bool = False) -> list[str]:
        """An attempt reads no more (it is over, or came back): the streams that nobody will read any more. What an attempt
        that failed has read, the next one may want: who wrote it takes it away at the job's end."""
        self._ending.pop(key, None)
        kept = failed and key in self._kept
        self._kept.discard(key)
        done = []
        for stream, readers in list(self.streams.items()):
            if key in readers:
                del readers[key]
                if not readers:
                    del self.streams[stream]
                    if not kept:
                        done.append(stream)
                    if subscription is not None:
                        subscription.forget(stream)
        return done

    def take(self, stream: str, messages: list[Message]) -> None:
        """What somebody wrote."""
        readers = self.streams.get(stream, {})
        terminals = False
        for message in messages:
            what, *given = unpack(message.data)
            for key in readers:
                if what == "eof":
                    self._ending[key] = None
                elif self._forwarder.on_terminal(key):
                    self._forwarder.feed(key, framed([what, *given]))
                    terminals = terminals or self._forwarder.alone(key)
                elif what == "data":
                    self._forwarder.feed(key, *given)
        self.go_on()
        if terminals and messages:
            self._passed(stream, messages[-1].id)

    def waits(self) -> bool:
        """Whether `go_on` may have something to do soon."""
        return bool(self._ending) or any(one.pending for one in self._forwarder.watched.values())

    def go_on(self) -> None:
        """Input that its tasks have not read yet; its end is said behind the last byte."""
        watched = self._forwarder.watched
        for key in [key for key, one in watched.items() if one.pending]:
            self._forwarder.feed(key, b"")
        for key in list(self._ending):
            placed, one = self._placed().get(key), watched.get(key)
            if placed is not None and not placed.t_start:
                continue  # placed ahead: its pipes are made when it starts
            if one is None or not one.pending:
                del self._ending[key]
                self._send(["eof", key])
