"""The primary that sentinels name: found anew at each connect, and watched while connected.

Decides which server is connected to (the one the first sentinel that answers, and hears a majority of them, calls the
primary, if it calls itself one, too) and when that is over: at the sentinels' `+switch-master`, not at a time-out. A sentinel
that is cut off together with an old primary goes on naming it: once it misses others, another one is asked. Whether anything
is sent again is not decided here.
"""

from __future__ import annotations

import select
import time
from typing import NamedTuple

from .errors import Unavailable
from .reach import plain
from .resp import NOT_YET, Connection, ReplyError, RespConnection
from .uri import ServerAddress, at_host, host_port, sentinel_at

SENTINEL_S = 0.5  # to reach one of them, and for its answer
AGAIN_S, LONGEST_S = 1.0, 60.0  # between tries to find another sentinel when the one that was listened to is gone
SILENT_S = 3.0  # of a primary that is waited for, after which its sentinel is asked once more, or another one
DOUBT_S = 8.0  # the longest between tries to find one that hears a majority
SWITCH, MISSED = "+switch-master", "+sdown"


class Named(NamedTuple):
    """place: (host, port) of the primary. sentinel: a connection to who named it, and tells of its switch from then on.
    sure: whether that one hears a majority of the sentinels: then it knows if there is another."""

    place: tuple[str, int]
    sentinel: RespConnection
    sure: bool


class SentinelConnector:
    """New connections to the primary. Raises `Unavailable` when no sentinel answers, or none names one that is up.

    reached: whether a sentinel has named a primary yet: there will be one then, though it may not be up just now.
    """

    def __init__(self, address: ServerAddress) -> None:
        self.address = address
        self.reached = False
        self._order = list(address.hosts)

    def __call__(self) -> Connection:
        named = self.primary()
        try:
            connection = plain(at_host(self.address, *named.place))
            try:
                role = connection.call("ROLE")[0]
            except ReplyError as error:
                connection.close()
                raise Unavailable(f"{connection.address} does not say what it is: {error}", code="not-now") from None
            if role != b"master":
                connection.close()
                raise Unavailable(
                    f"the sentinels call {host_port(*named.place)} the primary {self.address.name}, but it is a replica",
                    code="not-primary", hint="a fail-over is under way: wait",
                )  # fmt: skip
        except BaseException:
            named.sentinel.close()
            raise
        connection.watch = Watch(self, named)
        return connection

    def primary(self) -> Named:
        """Whom the first sentinel names that hears a majority of them; where none does, the first that names one."""
        silent: list[str] = []
        unsure: Named | None = None
        for host in list(self._order):
            found = self._asked(host, silent)
            if found is None:
                continue
            self.reached = True
            if found.sure:
                if unsure is not None:
                    unsure.sentinel.close()
                self._order.remove(host)
                self._order.insert(0, host)  # the next time, first
                return found
            if unsure is None:
                unsure = found
            else:
                found.sentinel.close()
        if unsure is not None:
            return unsure
        raise Unavailable(
            f"no sentinel names a primary called {self.address.name}: {', '.join(silent)}", code="no-primary",
            hint="check hosts and name in the address: redis+sentinel://host:26379,host:26379/NAME",
        )  # fmt: skip

    def _asked(self, host: tuple[str, int], silent: list[str]) -> Named | None:
        """One sentinel's word; None, and why in `silent`, where it has none."""
        name = self.address.name
        try:
            sentinel = plain(sentinel_at(self.address, *host), timeout_s=SENTINEL_S, connect_timeout_s=SENTINEL_S)
            # All in one write: no switch falls between the answer and the listening.
            named, quorum, *_ = sentinel.pipeline([
                ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name), ("SENTINEL", "CKQUORUM", name),
                ("SUBSCRIBE", SWITCH), ("SUBSCRIBE", MISSED),
            ])  # fmt: skip
        except Unavailable as error:
            silent.append(f"{host_port(*host)} ({error.code})")
            return None
        if not (isinstance(named, list) and len(named) == 2):
            sentinel.close()
            silent.append(f"{host_port(*host)} ({named if isinstance(named, ReplyError) else 'knows no such name'})")
            return None
        # One that may not be asked about the others (an ACL) is believed.
        return Named((named[0].decode(), int(named[1])), sentinel, not str(quorum).startswith("NOQUORUM"))


class Watch:
    """Listens to a sentinel while a connection to the primary is in use. See `resp.Watcher`."""

    def __init__(self, connector: SentinelConnector, named: Named) -> None:
        self._connector = connector
        self._place = named.place
        self._sentinel: RespConnection | None = named.sentinel
        self._sure = named.sure
        self._epoll: select.epoll | None = None
        self._silent_since = 0.0  # since when the primary has been waited for in vain
        self._pause = AGAIN_S
        self._again_at = time.monotonic() + self._pause

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
            ready = poller.poll(int(min(left, SILENT_S if self._settled else AGAIN_S) * 1000 + 0.999))
            if any(fd == descriptor for fd, _ in ready):
                self._silent_since = 0.0
                return True
            self._mistrust()
            if not ready and left <= 0:
                return False

    def look(self) -> None:
        """Take what the sentinel has said. Raises `Unavailable(code="switched")` when the primary is another one."""
        self._listen()
        if not self._settled:
            self._find_another()

    def _mistrust(self) -> None:
        """The primary says nothing. Who is cut off from it may be cut off from the sentinel on its host, too, which is silent then:
        neither connection would break before its time-out."""
        now = time.monotonic()
        if not self._silent_since:
            self._silent_since = now
        elif now - self._silent_since > SILENT_S:
            self._silent_since = now
            self._sure = False
            self._again_at, self._pause = 0.0, AGAIN_S

    def _listen(self) -> None:
        if self._sentinel is None:
            return
        try:
            while (said := self._sentinel.try_read()) is not NOT_YET:
                if isinstance(said, list) and said[0] == b"message":
                    self._told(said[1].decode(), said[2].decode().split())
        except ReplyError:
            pass
        except Unavailable as error:
            if error.code == "switched":
                raise
            self._drop()
            self._again_at, self._pause = 0.0, AGAIN_S

    @property
    def _settled(self) -> bool:
        """Whether there is a sentinel to listen to, and it may be believed."""
        return self._sentinel is not None and self._sure

    def _told(self, channel: str, words: list[str]) -> None:
        if channel == SWITCH and words[0] == self._connector.address.name and (words[3], int(words[4])) != self._place:
            raise self._switched(f"{words[3]}:{words[4]}")
        if channel == MISSED and words[0] == "sentinel":
            self._sure = False  # either that one is gone, or this one is cut off from it
            self._again_at, self._pause = 0.0, AGAIN_S

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
        """The sentinel is gone, or misses others: listen to one that does not, and ask it first whether anything has changed."""
        if time.monotonic() < self._again_at:
            return
        try:
            found = self._connector.primary()
        except Unavailable:
            found = None
        if found is None or not found.sure:
            self._again_at = time.monotonic() + self._pause
            self._pause = min(LONGEST_S if found is None else DOUBT_S, self._pause * 2)
        if found is None:
            return
        self._drop()
        self._sentinel, self._sure = found.sentinel, found.sure
        if found.place != self._place:
            raise self._switched(host_port(*found.place))
        if self._epoll is not None:
            self._epoll.register(self._sentinel.fileno(), select.EPOLLIN)

    def _drop(self) -> None:
        if self._sentinel is not None:
            self._sentinel.close()  # which takes it out of the epoll, too
            self._sentinel = None

    def _switched(self, to: str) -> Unavailable:
        name = self._connector.address.name
        return Unavailable(f"{name} has moved from {host_port(*self._place)} to {to}", code="switched", hint="connect again")
