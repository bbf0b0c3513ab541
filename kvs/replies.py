"""What a server's replies mean: entries, messages, stream ids, and error replies as our errors. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from .errors import Corrupt, FluxkvError, Rejected, Unavailable
from .port import Entry, Message, Meta
from .resp import ReplyError

# Replies that mean "not now": the command has not run and may be sent again.
PASSING = ("LOADING", "READONLY", "MASTERDOWN", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "NOREPLICAS", "UNBLOCKED", "MOVED", "ASK")
WRONG_TYPE = "WRONGTYPE"  # a key holds something else than it should
_MEANS = {  # what to do about each of them when it does not pass
    "LOADING": "the server reads its files: wait",
    "READONLY": "this server is a replica now: name the primary, or its sentinels (redis+sentinel://)",
    "MASTERDOWN": "this replica has lost its primary: wait for the fail-over, or name the primary",
    "NOREPLICAS": "the server has fewer replicas than min-replicas-to-write: bring one back; nothing was written",
    "MOVED": "this server is part of a cluster: redis+cluster://HOST:PORT finds the node",
    "CLUSTERDOWN": "the cluster has slots that nobody serves: redis-cli --cluster check HOST:PORT",
}
_REFUSED = "check user and password (redis://USER@HOST?password_file=FILE), and what the server's ACL lets the user do"


def reply_failure(error: ReplyError, where: str) -> FluxkvError:
    """What a server's error reply means to us."""
    text = str(error)
    word = text.partition(" ")[0]
    if word == WRONG_TYPE:
        return wrong_type(where, text)
    if word == "OOM":
        return Unavailable(f"{where}: the server's memory is full", code="full",
                           hint="fluxkv journal archive --now --trim, or raise the server's maxmemory")  # fmt: skip
    if word == "MISCONF":
        return Unavailable(f"{where}: the server can not write its disk: {text}", code="disk", hint="free some space")
    if word in ("NOAUTH", "NOPERM", "WRONGPASS") or "unauthenticated" in text:  # the latter of whatever has many words
        return Rejected(f"{where}: {text}", code="refused", hint=_REFUSED)
    if word == "NOREPLICAS":
        return Unavailable(
            f"{where}: the server takes no writes: too few of its replicas are there (min-replicas-to-write)",
            code="not-replicated", hint="nothing was written; bring the replicas back, or wait",
        )  # fmt: skip
    if word in PASSING:
        return Unavailable(f"{where}: {text}", code="not-now", hint=_MEANS.get(word, "wait until the server is ready"))
    return Unavailable(f"{where}: unexpected reply: {text}", code="bad-reply")


def wrong_type(key: str, text: str = f"{WRONG_TYPE} Operation against a key holding the wrong kind of value") -> Corrupt:
    """The error of a key that holds something else than it should: whoever wrote that, it was none of us."""
    return Corrupt(
        f"{key}: {text}", code="wrong-type",
        hint="redis-cli TYPE KEY says what it is; fluxkv journal salvage makes an instance of what can be had of its journal",
    )  # fmt: skip


def as_entry(raw: Any) -> Entry:
    """One journal entry from an XRANGE item `[id, [field, value, ...]]`. One that nobody of us has written has neither header
    nor payload: whoever reads it says so, and what stands beside it can be read."""
    name, fields = raw
    version, _, epoch = name.partition(b"-")
    if len(fields) == 4 and fields[0] == b"h":
        return Entry(int(version), int(epoch), fields[1], fields[3])
    return Entry(int(version), int(epoch), b"", b"")


META_FIELDS = (
    "uid", "epoch", "version", "floor", "origin_ms", "durability", "schema", "created", "epochs", "fork", "trimmed", "archive",
    "room", "replicas", "sealed", "origin_uid", "leaving", "back",
)  # fmt: skip


def as_meta(values: list[Any], namespace: str) -> Meta | None:
    """An instance's identity and tip from the `META_FIELDS` of its table, None if there is none."""
    if values[0] is None:
        return None
    try:
        uid, epoch, version, floor, origin_ms, durability, schema, created = [value.decode() for value in values[:8]]
        epochs, fork, trimmed, archive, *later = [value.decode() if value is not None else "" for value in values[8:]]
        room, replicas, sealed, origin_uid, leaving, back = later
        numbers = int(epoch), int(version), int(floor), int(origin_ms)
        kept = trimmed or "0-0", archive, int(room or 0), replicas
        ended = int(sealed or 0), origin_uid, int(leaving or 0), int(back or 0)
        return Meta(uid, *numbers, durability, int(schema), float(created), epochs, fork, *kept, *ended)
    except (AttributeError, ValueError):
        raise Corrupt(f"the meta table of {namespace} is damaged: {values!r}") from None


def as_message(raw: Any) -> Message:
    """One message of a plain stream from an XRANGE item."""
    return Message(raw[0].decode(), raw[1][1])


class Replica(NamedTuple):
    """A replica as its primary sees it. state: "online" when it follows. lag: seconds since it last said so. offset: in bytes."""

    place: tuple[str, int]
    state: str
    lag: int
    offset: int


def facts_of(reply: bytes) -> dict[str, str]:
    """What an INFO reply tells, by name."""
    lines = reply.decode(errors="replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


def replicas_of(facts: dict[str, str]) -> list[Replica]:
    """The replicas in what INFO replication says."""
    found = []
    for number in range(int(facts.get("connected_slaves", 0))):
        words = dict(part.split("=", 1) for part in facts.get(f"slave{number}", "").split(",") if "=" in part)
        place = (words.get("ip", ""), int(words.get("port", 0)))
        found.append(Replica(place, words.get("state", ""), int(words.get("lag", 0)), int(words.get("offset", 0))))
    return found
