"""The primary that sentinels name: found anew at each connect, and watched while connected.

Decides which server is connected to (the one the first sentinel that answers calls the primary, if it calls itself one, too)
and when that is over: at the sentinels' `+switch-master`, not at a time-out. Whether anything is sent again is not decided here.
"""

from __future__ import annotations

import select
import time

from .errors import Unavailable
from .reach import plain
from .resp import NOT_YET, Connection, ReplyError, RespConnection
from .uri import ServerAddress, at_host, host_port, sentinel_at

SENTINEL_S = 0.5  # to reach one of them, and for its answer
AGAIN_S, LONGEST_S = 1.0, 60.0  # between tries to find another sentinel when the one that was listened to is gone
SWITCH = "+switch-master"


class SentinelConnector:
    """New connections to the primary. Raises `Unavailable` when no sentinel answers, or none names one that is up.

    reached: whether a sentinel has named a primary yet: there will be one then, though it may not be up just now.
    """

    def __init__(self, address: ServerAddress) -> None:
        self.address = address
        self.reached = False
        self._order = list(address.hosts)

    def __call__(self) -> Connection:
        place, sentinel = self.primary()
        try:
            connection = plain(at_host(self.address, *place))
            try:
                role = connection.call("ROLE")[0]
            except ReplyError as error:
                connection.close()
                raise Unavailable(f"{connection.address} does not say what it is: {error}", code="not-now") from None
            if role != b"master":
                connection.close()
                raise Unavailable(
                    f"the sentinels call {host_port(*place)} the primary {self.address.name}, but it is a replica",
                    code="not-primary", hint="a fail-over is under way: wait",
                )  # fmt: skip
        except BaseException:
            sentinel.close()
            raise
        connection.watch = Watch(self, place, sentinel)
        return connection

    def primary(self) -> tuple[tuple[str, int], RespConnection]:
        """(host, port) of the primary, and a connection to the sentinel that named it, which tells of its switch from then on."""
        silent: list[str] = []
        for host in list(self._order):
            try:
                sentinel = plain(sentinel_at(self.address, *host), timeout_s=SENTINEL_S, connect_timeout_s=SENTINEL_S)
                # Both in one write: no switch falls between the answer and the listening.
                named, _ = sentinel.pipeline(
                    [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.address.name), ("SUBSCRIBE", SWITCH)]
                )
            except Unavailable as error:
                silent.append(f"{host_port(*host)} ({error.code})")
                continue
            if isinstance(named, list) and len(named) == 2:
                self.reached = True
                self._order.remove(host)
                self._order.insert(0, host)  # the next time, first
                return (named[0].decode(), int(named[1])), sentinel
            sentinel.close()
            silent.append(f"{host_port(*host)} ({named if isinstance(named, ReplyError) else 'knows no such name'})")
        raise Unavailable(
            f"no sentinel names a primary called {self.address.name}: {', '.join(silent)}", code="no-primary",
            hint="check hosts and name in the address: redis+sentinel://host:26379,host:26379/NAME",
        )  # fmt: skip


class Watch:
    """Listens to a sentinel while a connection to the primary is in use. See `resp.Watcher`."""

    def __init__(self, connector: SentinelConnector, place: tuple[str, int], sentinel: RespConnection) -> None:
        self._connector = connector
        self._place = place
        self._sentinel: RespConnection | None = sentinel
        self._epoll: select.epoll | None = None
        self._again_at, self._pause = 0.0, AGAIN_S

    def wait(self, descriptor: int, timeout_s: float) -> bool:
        """Wait until the primary's descriptor is readable (True) or the time is over. Raises `Unavailable` at a switch."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.look()
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            if self._sentinel is not None:
                poller.register(self._sentinel.fileno(), select.POLLIN)
            left = max(0.0, deadline - time.monotonic())
            ready = poller.poll(int(min(left, AGAIN_S if self._sentinel is None else left) * 1000 + 0.999))
            if any(fd == descriptor for fd, _ in ready):
                return True
            if not ready and left <= 0:
                return False

    def look(self) -> None:
        """Take what the sentinel has said. Raises `Unavailable(code="switched")` when the primary is another one."""
        if self._sentinel is None:
            return self._find_another()
        try:
            while (said := self._sentinel.try_read()) is not NOT_YET:
                if isinstance(said, list) and said[0] == b"message":
                    words = said[2].decode().split()
                    if words[0] == self._connector.address.name and (words[3], int(words[4])) != self._place:
                        raise self._switched(f"{words[3]}:{words[4]}")
        except ReplyError:
            pass
        except Unavailable as error:
            if error.code == "switched":
                raise
            self._drop()
            self._again_at, self._pause = 0.0, AGAIN_S
            self._find_another()
        return None

    def epoll(self, descriptor: int) -> int:
        """A descriptor that is readable when the primary's is, or the sentinel's."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._epoll.register(descriptor, select.EPOLLIN)
            if self._sentinel is not None:
                self._epoll.register(self._sentinel.fileno(), select.EPOLLIN)
        return self._epoll.fileno()

    def close(self) -> None:
        self._drop()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    def _find_another(self) -> None:
        """The sentinel is gone: listen to another, and ask it first whether anything has changed meanwhile."""
        if time.monotonic() < self._again_at:
            return
        try:
            place, self._sentinel = self._connector.primary()
        except Unavailable:
            self._again_at, self._pause = time.monotonic() + self._pause, min(LONGEST_S, self._pause * 2)
            return
        if place != self._place:
            raise self._switched(host_port(*place))
        if self._epoll is not None:
            self._epoll.register(self._sentinel.fileno(), select.EPOLLIN)

    def _drop(self) -> None:
        if self._sentinel is not None:
            self._sentinel.close()  # which takes it out of the epoll, too
            self._sentinel = None

    def _switched(self, to: str) -> Unavailable:
        name = self._connector.address.name
        return Unavailable(f"{name} has moved from {host_port(*self._place)} to {to}", code="switched", hint="connect again")
