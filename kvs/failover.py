"""A planned fail-over that loses nothing that was acknowledged: what stands against it, its steps, and the proof afterwards.

`SENTINEL FAILOVER` alone promotes a replica while the old primary goes on acknowledging for seconds, and throws that away when it
is made a replica. So writes are stopped first: by the servers themselves where the sentinels know `COORDINATED` (Valkey 9), else by
`CLIENT PAUSE WRITE` on the old primary until every replica has all, and it is a replica itself. Looking comes first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

from .errors import Corrupt, Rejected, Unavailable
from .keys import Keys
from .reach import plain
from .replies import facts_of, replicas_of
from .resp import ReplyError, RespConnection
from .sentinel import SentinelConnector
from .uri import ServerAddress, at_host, host_port, parse_server, parse_uri, sentinel_at

PAUSE_S = 90.0  # beyond the time for a step: a pause ends by itself, whatever becomes of whoever asked for it
POLL_S = 0.02
LAG_S = 5

Place = tuple[str, int]


class Survey(NamedTuple):
    """What is there. tip: the journal's newest entry id by the primary's word. warnings: what should be mended, in lines."""

    primary: Place
    replicas: tuple[Place, ...]
    tip: str
    coordinated: bool
    warnings: tuple[str, ...]


class FailOver:
    """One planned fail-over of the primary behind a `redis+sentinel:` URI.

    user, password_file: an administrator's, where the address' user may not pause writers (INFO, ROLE, CLIENT PAUSE and UNPAUSE,
    REPLICAOF are needed). coordinated: None to see what the sentinels can do. say: told each step as it is done.
    """

    def __init__(
        self, uri: str, *, user: str = "", password_file: str = "", timeout_s: float = 30.0, coordinated: bool | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:  # fmt: skip
        parsed = parse_uri(uri)
        self.address = _sentinels(parse_server(parsed.server))
        if user or password_file:
            self.address = self.address._replace(user=user or "default", password="", password_file=password_file)
        self.keys = Keys(parsed.namespace)
        self.timeout_s = timeout_s
        self.wanted = coordinated
        self.say = say
        self._under_way = False  # whether the sentinels said last that there is a fail-over, which may promote another any time

    def survey(self) -> Survey:
        """Look at primary, replicas and sentinels. Raises `Rejected` for what forbids a fail-over, `Unavailable`."""
        primary = self._named()
        with closing(self._sentinel()) as sentinel, closing(self._at(primary)) as connection:
            try:
                sentinel.call("SENTINEL", "CKQUORUM", self.address.name)
                facts = _replication(connection)
                tip = connection.call("HGET", self.keys.meta, "tip") or b"0-0"
                least = connection.call("CONFIG", "GET", "min-replicas-to-write")
            except ReplyError as error:
                raise Rejected(f"no fail-over now: {error}", code="no-failover", hint=_RIGHTS) from None
            coordinated = self.wanted if self.wanted is not None else _knows_coordinated(sentinel)
        replicas = tuple(one.place for one in replicas_of(facts) if one.state == "online" and one.lag <= LAG_S)
        if not replicas:
            raise Rejected(
                f"no replica of {host_port(*primary)} is up to date: nobody could take over", code="no-failover",
                hint="fluxkv doctor says how its replicas are",
            )  # fmt: skip
        warnings = []
        if least[1:] == [b"0"]:
            warnings.append(
                "min-replicas-to-write is 0: in an unplanned fail-over a primary that is cut off goes on acknowledging "
                "what will be lost; set it to 1 on each server"
            )
        return Survey(primary, replicas, tip.decode(), coordinated, tuple(warnings))

    def steps(self, found: Survey) -> list[str]:
        """What `run` does, in words."""
        old, name = host_port(*found.primary), self.address.name
        if found.coordinated:
            how = "stops taking writes, waits for a replica that has all, and hands over"
            first = [f"SENTINEL FAILOVER {name} COORDINATED: {old} {how}"]
        else:
            first = [
                f"CLIENT PAUSE WRITE on {old}: writers wait, nothing is acknowledged from here on",
                f"wait until {', '.join(host_port(*one) for one in found.replicas)} have all that {old} has",
                f"SENTINEL FAILOVER {name}: the sentinels promote one of them",
                f"REPLICAOF on {old}, so that it can take no more writes; then CLIENT UNPAUSE",
            ]
        last = f"check that the new primary has the old one's last entry of the journal ({found.tip} now)"
        return [*first, last, "wait for the keeper's new epoch"]

    def run(self, found: Survey) -> Place:
        """Do it. The new primary's place. Raises `Unavailable` when it did not come about (then the old primary goes on), `Corrupt`
        when the new one lacks what was acknowledged."""
        try:
            tip = self._coordinated(found) if found.coordinated else self._paused(found)
            new = self._named()
            self._check(new, tip)
        except ReplyError as error:
            raise Rejected(f"the fail-over was not carried out: {error}", code="no-failover", hint=_RIGHTS) from None
        return new

    def _coordinated(self, found: Survey) -> str:
        with closing(self._sentinel()) as sentinel:
            self._ask_sentinel(sentinel, found.primary, "COORDINATED")
        self.say(f"the sentinels have {host_port(*found.primary)} hand over")
        self._until(lambda: self._named() != found.primary, "the sentinels have not named another primary")
        # It closes its connections when it becomes a replica, so each look is a new one.
        self._until(lambda: self._role(found.primary) == b"slave", f"{host_port(*found.primary)} has not become a replica")
        with closing(self._at(found.primary)) as old:
            tip = old.call("HGET", self.keys.meta, "tip") or b"0-0"
        return max(found.tip, str(tip.decode()), key=_version)

    def _role(self, place: Place) -> bytes:
        with closing(self._at(place)) as connection:
            return bytes(connection.call("ROLE")[0])

    def _paused(self, found: Survey) -> str:
        place = host_port(*found.primary)
        with closing(self._at(found.primary)) as old:
            pause_s = self.timeout_s + PAUSE_S
            old.call("CLIENT", "PAUSE", int(pause_s * 1000), "WRITE")
            self.say(f"{place} takes no writes")
            begun = False  # from then on only a replica may be let go: the sentinels may promote another at any time
            try:
                tip = str((old.call("HGET", self.keys.meta, "tip") or b"0-0").decode())
                offset = int(_replication(old)["master_repl_offset"])
                self._until(
                    lambda: {one.place for one in replicas_of(_replication(old)) if one.offset >= offset} >= set(found.replicas),
                    "not all replicas have what the primary has",
                )
                self.say(f"all replicas have its journal up to {tip}")
                with closing(self._sentinel()) as sentinel:
                    self._ask_sentinel(sentinel, found.primary)
                begun = True
                self._until(lambda: self._named() != found.primary, "the sentinels have not named another primary")
                new = self._named()
                self.say(f"the sentinels call {host_port(*new)} the primary")
                old.call("REPLICAOF", *new)
                self._until(lambda: self._role(found.primary) == b"slave", f"{place} has not become a replica")
                begun = False
                return tip
            finally:
                if begun or self._under_way:
                    self.say(f"{place} stays paused until it is a replica, or for {pause_s:g} s: it must acknowledge nothing now")
                else:
                    self._let_go(found.primary, pause_s)

    def _let_go(self, place: Place, pause_s: float) -> None:
        try:
            with closing(self._at(place)) as connection:
                connection.call("CLIENT", "UNPAUSE")
            self.say(f"{host_port(*place)} answers again")
        except (ReplyError, Unavailable) as error:
            self.say(f"{host_port(*place)} could not be told to go on ({error}): its pause ends by itself within {pause_s:g} s")

    def _check(self, new: Place, tip: str) -> None:
        """The new primary has the entry that was the old one's last."""
        self._until(lambda: self._role(new) == b"master", f"{host_port(*new)} is not a primary yet")
        with closing(self._at(new)) as connection:
            there = connection.call("XRANGE", self.keys.journal, tip, tip) if tip != "0-0" else [tip]
        if not there:
            raise Corrupt(
                f"the new primary {host_port(*new)} lacks entry {tip} of the journal, which the old one had", code="history-lost",
                hint="nobody allocates on it; fluxkv status says what is known to be lost",
            )  # fmt: skip
        self.say(f"{host_port(*new)} has entry {tip}, the old primary's last")

    def _ask_sentinel(self, sentinel: RespConnection, old: Place, *how: str) -> None:
        """Have it begin. Soon after another fail-over it first has to see how the replicas are, or has not done with that one
        (INPROG): that is waited for. Where its answer is lost it may have begun: what it names from then on tells."""

        def begins() -> bool:
            named, self._under_way = self._named(), False
            if named != old:  # somebody else's, that was under way
                return True
            try:
                return bool(sentinel.call("SENTINEL", "FAILOVER", self.address.name, *how) == b"OK")
            except Unavailable:
                return True
            except ReplyError as error:
                self._under_way = str(error).startswith("INPROG")
                raise

        self._until(begins, "the sentinels do not begin a fail-over")

    def _until(self, holds: Callable[[], bool], otherwise: str) -> None:
        """Ask until it holds. What is lost or refused on the way is no answer yet, and said when the time is over."""
        deadline, why = time.monotonic() + self.timeout_s, ""
        while True:
            try:
                if holds():
                    return
            except (ReplyError, Unavailable) as error:
                why = f" ({error})"
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{otherwise}{why} within {self.timeout_s:g} s", code="no-failover",
                    hint="the sentinels' and servers' logs say why; what they may do is in docker/users.acl",
                )  # fmt: skip
            time.sleep(POLL_S)

    def _named(self) -> Place:
        place, sentinel, _ = SentinelConnector(self.address).primary()
        sentinel.close()
        return place

    def _at(self, place: Place) -> RespConnection:
        return plain(at_host(self.address, *place))

    def _sentinel(self) -> RespConnection:
        for host in self.address.hosts:
            try:
                return plain(sentinel_at(self.address, *host))
            except Unavailable:
                continue
        raise Unavailable(f"no sentinel of {self.address} answers", code="no-primary", hint="check the address")


_RIGHTS = "name an administrator of the servers (--admin-user, --admin-password-file), or mend what it says"


def _sentinels(address: ServerAddress) -> ServerAddress:
    if address.kind == "sentinel":
        return address
    hint = {
        "unix": "its own server has no replicas; start an instance with --redis redis+sentinel://... for that",
        "cluster": "redis-cli -h REPLICA CLUSTER FAILOVER is coordinated by itself",
    }.get(address.kind, "FAILOVER TO HOST PORT on the primary is coordinated by itself; then fluxkv start --redis NEW-ADDRESS")
    raise Rejected(f"{address} has no sentinels that could promote another server", code="no-sentinel", hint=hint)


def _knows_coordinated(sentinel: RespConnection) -> bool:
    version = facts_of(sentinel.call("INFO", "server")).get("valkey_version", "0")
    return int(version.partition(".")[0]) >= 9


def _replication(connection: RespConnection) -> dict[str, str]:
    return facts_of(connection.call("INFO", "replication"))


def _version(id: str) -> int:
    return int(id.partition("-")[0])
