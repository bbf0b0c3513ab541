"""How the server behind an address is, as findings with what to do about each. Judges; changes nothing.

What is asked: INFO, CONFIG GET, and the sentinels' view. A managed server that hides some of it is judged by the rest.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from .errors import Unavailable
from .reach import plain
from .replies import replicas_of
from .resp import Connection, ReplyError
from .server_choice import problems_of, server_facts
from .uri import ServerAddress, host_port, sentinel_at

LAG_WARN_S, LAG_FAIL_S = 3, 30
CERTIFICATE_WARN_S = 21 * 86400.0


class Finding(NamedTuple):
    """result: "ok", "warn" or "fail". mend: what to do, "" when ok."""

    result: str
    name: str
    text: str
    mend: str = ""


def findings(address: ServerAddress, connection: Connection, durability: str) -> Iterator[Finding]:
    """All there is to say of a server but for its memory. Raises ReplyError: INFO is refused."""
    facts = server_facts(connection)
    yield from _persistence(facts, durability)
    yield from _replication(facts, durability, behind_sentinels=address.kind == "sentinel")
    if address.kind == "sentinel":
        yield from _sentinels(address, facts)
    yield from _secrets(address)
    if address.secure:
        yield from _certificate(connection)


def _persistence(facts: dict[str, str], durability: str) -> Iterator[Finding]:
    problems = problems_of(facts, durability)
    for problem in problems:
        mend = "change the server's configuration (docker/server.conf shows it), then restart it"
        yield Finding("fail", "persistence", problem, mend)
    for name, what in (("aof_last_write_status", "its last write to the append-only file"),
                       ("aof_last_bgrewrite_status", "its last rewrite of the append-only file")):  # fmt: skip
        if facts.get(name, "ok") != "ok":
            problems.append(name)
            yield Finding("fail", "persistence", f"{what} failed", "free some disk space, and look at the server's log")
    if not problems:
        version = facts.get("valkey_version") or facts.get("redis_version", "")
        used = int(facts.get("used_memory", 0)) / 1e6
        yield Finding(
            "ok", "persistence", f"{durability}, append-only file, no eviction; server {version}, {used:.3g} MB in memory"
        )


def _replication(facts: dict[str, str], durability: str, *, behind_sentinels: bool) -> Iterator[Finding]:
    every = replicas_of(facts)
    count, least = len(every), int(facts.get("min-replicas-to-write", -1))
    if not count:
        if behind_sentinels or least > 0:
            yield Finding("fail", "replicas", "the primary has no replica: when it goes, nobody takes over", "bring a replica back")
        return
    lags = [f"{host_port(*one.place)} {one.lag} s" for one in every]
    for one in every:
        if one.state != "online" or one.lag > LAG_WARN_S:
            result = "fail" if one.lag > LAG_FAIL_S else "warn"
            behind = f"{one.lag} s behind" if one.state == "online" else one.state
            mend = "look at its log, its disk and the network between the two"
            yield Finding(result, "replicas", f"{host_port(*one.place)} is {behind}", mend)
    yield Finding("ok", "replicas", f"{count}: {', '.join(lags)}")
    if behind_sentinels and durability != "replicated":
        yield Finding(
            "warn", "durability",
            f"durability is {durability}: what a primary acknowledges in the moments before another takes over may be lost "
            "with it; that is noticed, and waits for fluxkv ops adopt",
            "start instances behind sentinels with --durability replicated: then it is on a replica first",
        )  # fmt: skip
    if least == 0:
        yield Finding(
            "fail" if durability == "replicated" else "warn", "min-replicas",
            "min-replicas-to-write is 0: a primary that is cut off goes on acknowledging what a fail-over loses",
            "set min-replicas-to-write 1 and min-replicas-max-lag 5 on every server (docker/replicated.conf)",
        )  # fmt: skip
    elif least > 0:
        spare = count - least
        text = f"writes need {least} of {count} replicas, within {facts.get('min-replicas-max-lag', '?')} s"
        mend = "" if spare else "have one more replica than that: now the loss of any stops all work"
        yield Finding("ok" if spare else "warn", "min-replicas", text, mend)


def _sentinels(address: ServerAddress, facts: dict[str, str]) -> Iterator[Finding]:
    """Each sentinel answers, agrees with the others, and could carry a fail-over."""
    named: dict[str, str] = {}
    late: list[int] = []
    for host in address.hosts:
        try:
            with closing(plain(sentinel_at(address, *host), timeout_s=2.0)) as sentinel:
                flat = [word.decode() for word in sentinel.call("SENTINEL", "MASTER", address.name)]
                known = dict(zip(flat[::2], flat[1::2], strict=True))
                named[host_port(*host)] = f"{known['ip']}:{known['port']}"
                late.append(int(known.get("down-after-milliseconds", 0)))
                sentinel.call("SENTINEL", "CKQUORUM", address.name)
        except (Unavailable, ReplyError) as error:
            mend = "bring it back; with fewer than a majority nobody takes over from a dead primary"
            yield Finding("fail", "sentinels", f"{host_port(*host)}: {error}", mend)
    if len(set(named.values())) > 1:
        text = f"they disagree: {', '.join(f'{one} says {place}' for one, place in named.items())}"
        mend = "a fail-over is under way, or the network between them is cut: wait, then look again"
        yield Finding("fail", "sentinels", text, mend)
    elif named:
        yield Finding("ok", "sentinels", f"{len(named)} of {len(address.hosts)} call {next(iter(named.values()))} the primary")
    if len(address.hosts) < 3:
        mend = "have three, on machines of their own, and name all of them"
        yield Finding("warn", "sentinels", f"the address names {len(address.hosts)}", mend)
    slack = int(facts.get("min-replicas-max-lag", 0)) * 1000
    if late and slack and int(facts.get("min-replicas-to-write", 0)) and min(late) <= slack:
        yield Finding(
            "warn", "sentinels", f"they call a primary dead after {min(late) / 1000:g} s, but one that is cut off acknowledges for "
            f"{slack / 1000:g} s", "have down-after-milliseconds above min-replicas-max-lag",
        )  # fmt: skip


def _secrets(address: ServerAddress) -> Iterator[Finding]:
    for path in (address.password_file, address.sentinel_password_file, address.key):
        try:
            if path and stat.S_IMODE(os.stat(path).st_mode) & 0o077:
                yield Finding("warn", "secrets", f"{path} can be read by others", f"chmod 600 {path}")
        except OSError as error:
            yield Finding("fail", "secrets", f"{path}: {error.strerror}", "the instance's address names it: bring it back")
    if address.password:
        yield Finding("warn", "secrets", "the password stands in the address", "put it into a file: ?password_file=FILE")


def _certificate(connection: Connection) -> Iterator[Finding]:
    ends = getattr(connection, "certificate_ends", lambda: 0.0)()
    if ends:
        left = ends - time.time()
        text = f"the server's certificate ends in {left / 86400:.0f} days"
        low = left < CERTIFICATE_WARN_S
        yield Finding("warn" if low else "ok", "tls", text, "renew it: from then on nobody gets in" if low else "")
