"""One `Append` as the script takes it and as it answers: header, keys, arguments, answers. Pure.

Header (msgpack array of nine): producer, seq, decided_at, payload hash, bumps, clears, inbox names, extra, and the
server's time in microseconds, which the script appends as a string of 16 digits.
"""

from __future__ import annotations

from typing import Any

from .blobs import payload_hash
from .errors import Corrupt, Rejected, Unavailable
from .keys import Keys
from .port import Answer, Append, Appended, Conflicted, Gap, StaleEpoch

MARK = "!"  # reserved in the guard table: the version it is of


def header_prefix(request: Append) -> bytes:
    """The header's first eight elements behind its array head: what the client knows. Also a fingerprint."""
    from msgpack import packb

    parts = (
        request.producer, request.seq, request.decided_at, payload_hash(request.payload),
        request.bumps, request.clears, [name for name, _ in request.inbox],
    )  # fmt: skip
    body: bytes = packb(parts)
    return b"\x99" + body[1:] + request.extra  # body[0] is the head of an array of seven


def header_time(header: bytes) -> float:
    """Server time of a stored header, Unix seconds."""
    return int(header[-16:]) / 1e6


def check_request(request: Append) -> None:
    """Raise `Rejected(code="bad-append")` for what could never be written."""
    names = [name for name, _ in request.inbox]
    if len(set(names)) != len(names):
        raise Rejected("two messages to one inbox in one commit", code="bad-append", hint="pack them into one")
    if (request.producer == "") != (request.seq == 0) or any(c.isspace() for c in request.producer):
        raise Rejected("a producer needs a sequence from 1 on, and no blanks", code="bad-append")
    for things in (request.bumps, request.clears):
        if MARK in things or "" in things:
            raise Rejected(f"{MARK!r} and '' are no things", code="bad-append")


def script_keys(keys: Keys, request: Append) -> list[str]:
    return [keys.journal, keys.meta, keys.guards, keys.producers, *[keys.inbox(name) for name, _ in request.inbox]]


def arguments(request: Append, prefix: bytes, *, fenced: bool, limit: int) -> list[Any]:
    """ARGV of `append.lua`, in its order."""
    return [
        request.uid, request.epoch, request.decided_at, prefix, request.payload, request.producer, request.seq,
        payload_hash(request.payload).hex(), len(request.since), len(request.exact), len(request.absent),
        len(request.bumps), len(request.clears), "1" if fenced else "0", limit if request.refusable else 0,
        *request.since, *[thing for thing, _ in request.exact], *[version for _, version in request.exact],
        *request.absent, *request.bumps, *request.clears, *[message for _, message in request.inbox],
    ]  # fmt: skip


def parse_answer(reply: list[Any], request: Append, namespace: str) -> Answer:
    """The script's answer as a value; GONE, CORRUPT and FULL as the errors they are."""
    word = reply[0]
    if word == b"OK" or word == b"DUP":
        version, _, epoch = reply[1].partition(b"-")
        return Appended(int(version), int(epoch), word == b"DUP")
    if word == b"CONFLICT":
        return Conflicted(tuple(dict.fromkeys(thing.decode() for thing in reply[1:])))
    if word == b"GAP":
        return Gap(int(reply[1]))
    if word == b"EPOCH":
        return StaleEpoch(int(reply[1]))
    raise refusal(word.decode(), reply[1].decode() if len(reply) > 1 else "", namespace)


def refusal(word: str, why: str, namespace: str) -> Exception:
    """The error for an answer that is none: GONE, FULL, CORRUPT."""
    if word == "GONE":
        return Rejected(
            f"the instance at {namespace} is not the one it was", code="gone",
            hint="it was removed or created anew; start again",
        )  # fmt: skip
    if word == "FULL":
        return Unavailable(
            f"the server holds {int(why) // 1_000_000} MB, past its soft line: new work is refused", code="full",
            hint="wait for jobs to end, archive, or raise the limit",
        )  # fmt: skip
    return Corrupt(f"{namespace}: {why or word}", hint="stop, copy the state directory, look at the server's log")


def safe_to_resend(request: Append) -> bool:
    """Whether taking this commit a second time is impossible: by its sequence, or by its guards on what it bumps."""
    if request.producer:
        return True
    bumped = set(request.bumps)
    if not bumped.isdisjoint(request.absent) or not bumped.isdisjoint(thing for thing, _ in request.exact):
        return True
    return not bumped.isdisjoint(request.since)
