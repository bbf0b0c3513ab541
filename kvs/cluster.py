"""The node of a Redis or Valkey cluster that has a namespace's slot: found at each connect; MOVED and ASK are followed.

All keys of an instance share one hash tag, so one node has them all and one connection is enough. MOVED means that nothing has
run: the store connects again, which finds the new node. ASK (a slot on its way) is answered here, one command at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from .asking import Asks, Command, answers
from .errors import Unavailable
from .keys import Keys
from .reach import plain
from .replies import reply_failure
from .resp import Connection, ReplyError, RespConnection
from .uri import ServerAddress, at_host, host_port, parse_server

HOPS = 5


class ClusterConnector:
    """New connections to the node that has the slot of a namespace. Raises `Unavailable` when none of the nodes answers.

    reached: whether any node of the cluster has answered yet.
    """

    def __init__(self, address: ServerAddress, namespace: str) -> None:
        self.address = address
        self.key = Keys(namespace).meta
        self.reached = False
        self._known = list(address.hosts)

    def __call__(self) -> Connection:
        silent: list[str] = []
        for host in list(self._known):
            try:
                return self._owner(host)
            except Unavailable as error:
                silent.append(f"{host_port(*host)} ({error})")
                if host not in self.address.hosts:
                    self._known.remove(host)  # learnt on the way, and gone
        raise Unavailable(
            f"no node of the cluster serves {self.key.partition('}')[0]}}}: {'; '.join(silent)}", code="unreachable",
            hint="redis-cli --cluster check HOST:PORT says which slots nobody serves",
        )  # fmt: skip

    def _owner(self, host: tuple[str, int]) -> Connection:
        for _ in range(HOPS):
            connection = plain(at_host(self.address, *host))
            try:
                connection.call("EXISTS", self.key)
            except ReplyError as error:
                word = str(error).partition(" ")[0]
                self.reached = True
                if word == "MOVED":
                    connection.close()
                    host = target(error, host)
                    continue
                if word not in ("ASK", "TRYAGAIN"):  # those are the owner's own words
                    connection.close()
                    raise reply_failure(error, connection.address) from None
            self.reached = True
            if host in self._known:
                self._known.remove(host)
            self._known.insert(0, host)
            return ClusterConnection(self.address, host, connection)
        raise Unavailable("its nodes send us round in circles", code="not-now")


class ClusterConnection:
    """A `Connection` to one node, which asks another where that node says so."""

    def __init__(self, address: ServerAddress, host: tuple[str, int], connection: RespConnection) -> None:
        self._server, self._host = address, host
        self._connection = connection
        self._other: tuple[tuple[str, int], RespConnection] | None = None
        self.address = connection.address

    @property
    def closed(self) -> bool:
        return self._connection.closed

    def call(self, *args: Any) -> Any:
        try:
            return self._connection.call(*args)
        except ReplyError as error:
            if not str(error).startswith("ASK "):
                raise
            reply = self._ask(target(error, self._host), args)
            if isinstance(reply, ReplyError):
                raise reply from None
            return reply

    def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        replies = self._connection.pipeline(commands)
        for index, reply in enumerate(replies):
            if isinstance(reply, ReplyError) and str(reply).startswith("ASK "):
                replies[index] = self._ask(target(reply, self._host), commands[index])
        return replies

    def _ask(self, host: tuple[str, int], command: Sequence[Any]) -> Any:
        if self._other is not None and self._other[0] != host:
            self._other[1].close()
            self._other = None
        if self._other is None:
            self._other = host, plain(at_host(self._server, *host))
        try:
            return self._other[1].pipeline([("ASKING",), command])[1]
        except Unavailable:
            self._other = None
            self.close()
            raise

    def send(self, *args: Any) -> None:
        self._connection.send(*args)

    def try_read(self, timeout_s: float = 0.0) -> Any:
        return self._connection.try_read(timeout_s)

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()
        if self._other is not None:
            self._other[1].close()
            self._other = None


def primaries(server: str, slots: Sequence[Any]) -> Iterator[Asks]:
    """What asks each node that has slots, one after the other: several commands at once, about keys of that node. slots: what
    CLUSTER SLOTS says. Raises `Unavailable` where one does not answer, or has handed over meanwhile what it is asked about."""
    address = parse_server(server)
    asked = address.hosts[0][0]
    for host in sorted({(_text(first[0]) or asked, int(first[1])) for _, _, first, *_ in slots}):
        with closing(ClusterConnection(address, host, plain(at_host(address, *host)))) as node:

            def ask(commands: Sequence[Command], *, each: bool = False, node: ClusterConnection = node) -> list[Any]:
                try:
                    return answers(node, commands, each=each)
                except ReplyError as error:
                    raise reply_failure(error, node.address) from None

            yield ask


def _text(word: Any) -> str:
    """A node's host; "" where it does not know by which name it was asked."""
    text = word.decode() if isinstance(word, bytes) else ""
    return "" if text == "?" else text


def target(error: ReplyError, asked: tuple[str, int]) -> tuple[str, int]:
    """The node that "MOVED slot host:port" or ASK names; a host left out is the one that was asked."""
    host, _, port = str(error).split()[2].rpartition(":")
    return host or asked[0], int(port)
