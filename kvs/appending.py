"""One `Append` as the script takes it and as it answers: header, keys, arguments, answers. Pure.

The header is a msgpack array of nine: producer, seq, decided_at, payload hash, bumps, clears, inbox names,
extra, and the server's time in microseconds, which the script appends as a string of 16 digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .blobs import payload_hash
from .children import Child
from .errors import Conflict, Corrupt, Rejected, Unavailable
from .keys import Keys
from .port import Answer, Append, Appended, Conflicted, Gap, StaleEpoch, id_pair

COMPRESS_ABOVE = 300
MOST_TEXT, MOST_THINGS = 8 << 20, 1 << 19  # of one header: a few bytes must not unpack to gigabytes
MARK = "!"  # reserved in the guard table: the version it is of


def header_prefix(request: Append) -> bytes:
    """The header's first eight elements behind its array head: what the client knows. Also a fingerprint."""
    from msgpack import packb

    parts = (
        request.producer, request.seq, request.decided_at, payload_hash(request.payload),
        pack_things((*request.bumps, *(f"{thing}={id}" for thing, id in request.sets))), pack_things(request.clears),
        [name for name, _ in request.inbox],
    )  # fmt: skip
    body: bytes = packb(parts)
    return b"\x99" + body[1:] + request.extra  # body[0] is the head of an array of seven


def pack_things(things: tuple[str, ...]) -> str | bytes:
    """Guard names as one text, compressed when long: hundreds of them stand in every busy commit."""
    text = "\n".join(things)
    if len(text) > MOST_TEXT or len(things) > MOST_THINGS:
        raise Rejected(f"a commit that bumps {len(things)} things is too large", code="too-large", hint="write it in parts")
    if len(text) <= COMPRESS_ABOVE:
        return text
    import zlib

    return zlib.compress(text.encode(), 1)


def unpack_things(value: str | bytes) -> list[str]:
    """Inverse of `pack_things`. Raises `ValueError` (or zlib's error) for what that never makes."""
    if isinstance(value, bytes):
        import zlib

        stream = zlib.decompressobj()
        value = stream.decompress(value, MOST_TEXT).decode()
        if not stream.eof or value.count("\n") >= MOST_THINGS:
            raise ValueError("truncated, or too many things")
    return value.split("\n") if value else []


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
    things = (*request.bumps, *request.clears, *request.since, *request.absent)
    if request.exact:
        things += tuple(thing for thing, _ in request.exact)
    if request.sets:
        things += tuple(thing for thing, _ in request.sets)
        if any(not by_id(thing) or min(id_pair(id)) < 1 for thing, id in request.sets):
            raise Rejected("only an attempt is set to another branch's entry, by its id", code="bad-append")
    if MARK in things or "" in things or "\n" in "".join(things):
        raise Rejected(f"a thing is neither {MARK!r} nor empty and has no newline", code="bad-append")


def by_id(thing: str) -> bool:
    """Whether the guard table keeps the whole id of what last bumped this thing: exact guards name it, and a version alone
    would also fit another branch's entry."""
    return thing == "config" or thing.startswith("attempt/")


def same_bump(found: str, wanted: str) -> bool:
    """Whether two ids are the same; a bare version (of an older program, or of who knows no more) stands for any branch's."""
    return found == wanted or (("-" not in found or "-" not in wanted) and id_pair(found)[0] == id_pair(wanted)[0])


def child_of(field: str, user: str) -> Child | None:
    """A row of the table of children; None for one that nobody of us has written."""
    name, _, rest = field.partition(" ")
    job, _, entry = rest.partition(" ")
    return Child(name, int(job), entry, user) if name and entry and job.isdecimal() else None


def judged(rows: Iterable[Child], guards: Mapping[str, str]) -> list[Child]:
    """The same, with what their attempts' guards say. guards: thing -> id, read at one moment, the table's own mark among them."""
    whole = MARK in guards
    over = (whole and not (row.thing in guards and same_bump(guards[row.thing], row.entry)) for row in rows)
    return sorted(row._replace(over=gone) for row, gone in zip(rows, over, strict=True))


def script_keys(keys: Keys, request: Append) -> list[str]:
    return [
        keys.journal,
        keys.meta,
        keys.guards,
        keys.producers,
        *[keys.inbox(name) for name, _ in request.inbox],
    ]


def arguments(request: Append, prefix: bytes, *, fenced: bool, limit: int) -> list[Any]:
    """ARGV of `append.lua`, in its order. What is guarded and bumped is sent once: it is most of a commit."""
    bumped, since, absent = set(request.bumps), set(request.since), set(request.absent)
    since_bumped = bumped & since
    absent_bumped = (bumped & absent) - since_bumped
    join = "\n".join
    return [
        request.uid, request.epoch, request.decided_at, prefix, request.payload,
        request.producer, request.seq, payload_hash(request.payload).hex(),
        "1" if fenced else "0", (limit or "meta") if request.refusable else 0,
        join(since - since_bumped), join(since_bumped), join(absent - absent_bumped), join(absent_bumped),
        join(bumped - since_bumped - absent_bumped), join(request.clears),
        join([thing for thing, _ in request.exact]), join([str(id) for _, id in request.exact]), request.anchor,
        join([thing for thing, _ in request.sets]), join([id for _, id in request.sets]),
        *[message for _, message in request.inbox],
    ]  # fmt: skip


def parse_answer(reply: list[Any], request: Append, namespace: str) -> Answer:
    """The script's answer as a value; GONE, CORRUPT and FULL as the errors they are."""
    word = reply[0]
    if word == b"OK" or word == b"DUP":
        version, _, epoch = reply[1].partition(b"-")
        return Appended(int(version), int(epoch), word == b"DUP")
    if word == b"CONFLICT":
        return conflicted(request, {thing.decode() for thing in reply[1:]})
    if word == b"GAP":
        return Gap(int(reply[1]))
    if word == b"EPOCH":
        return StaleEpoch(int(reply[1]))
    raise refusal(word.decode(), reply[1].decode() if len(reply) > 1 else "", namespace)


def conflicted(request: Append, moved: set[str]) -> Conflicted:
    """The moved things, each once, in the order in which the request first names them."""
    guarded = (*request.since, *[thing for thing, _ in request.exact], *request.absent)
    return Conflicted(tuple(dict.fromkeys(thing for thing in guarded if thing in moved)))


def refusal(word: str, why: str, namespace: str) -> Exception:
    """The error for an answer that is none: GONE, ENDED, LOST, FORK, FULL, CORRUPT."""
    if word == "GONE":
        return Rejected(
            f"the instance at {namespace} is not the one it was", code="gone",
            hint="it was removed or created anew; start again",
        )  # fmt: skip
    if word == "ENDED":
        around, _, name = namespace.rpartition("/")
        way_on = f"fluxkv {f'--instance {around} ' if around else ''}batch --resume {name.partition('.')[0]} goes on with it"
        return Rejected(
            f"the instance at {namespace} has ended: nothing begins or changes there any more", code="ended",
            hint=f"all of it can be read (fluxkv jobs -a); {way_on}",
        )  # fmt: skip
    if word == "LOST":
        return Unavailable(
            f"the journal of {namespace} has lost entries: {why.partition(':')[0]} was in it and is not any more; nothing is "
            "written until what is left has been adopted", code="forked",
            hint="fluxkv ops adopt says what is lost and who knows of it; restore the server's files, or let it adopt the rest",
        )  # fmt: skip
    if word == "FORK":
        return Corrupt(
            f"{namespace}: this was decided on another history than the journal's, which has {why} there", code="forked",
            hint="read it anew: fluxkv status says whether entries were lost",
        )  # fmt: skip
    if word == "FULL":
        return Unavailable(
            f"{namespace}: the server holds {int(why) >> 20} MiB, past its soft memory line: new work is refused, what runs ends",
            code="full",
            hint="fluxkv journal archive --now --trim frees it; fluxkv start --memory-limit moves the line (see fluxkv status)",
        )  # fmt: skip
    return Corrupt(
        f"{namespace}: {why or word}",
        hint="copy the state directory; fluxkv ops rebuild makes what stands beside the journal anew (guards, producers, inboxes), "
        "fluxkv journal salvage an instance of all that can be read",
    )


def moved_on(namespace: str, epoch: int, tip: int, found_epoch: int, found_tip: int) -> Conflict:
    """The error of who wanted to open an epoch after one (and a tip, unless -1) that is not there any more."""
    at = f"epoch {found_epoch}" + (f", version {found_tip}" if found_tip >= 0 else "")
    wanted = f"{epoch}" + (f", {tip}" if tip >= 0 else "")
    return Conflict(f"{namespace} is at {at}, not at {wanted}", code="epoch", hint="re-read the tail")


def trim_refusal(word: str, why: str, namespace: str, through: str) -> Exception:
    """The error for a journal that was not trimmed: GONE, EPOCH, TIP, SNAPSHOT, OTHER."""
    if word == "GONE":
        return refusal("GONE", "", namespace)
    if word == "TIP":
        return Rejected(f"the tip of {namespace} is never trimmed", code="bad-trim")
    if word == "SNAPSHOT":
        return Conflict(
            f"{namespace} can not be trimmed to {through}: the newest snapshot is of version {why}", code="no-snapshot",
            hint="try again when the worker has taken another",
        )  # fmt: skip
    what = f"its epoch is {why}" if word == "EPOCH" else f"the entry there is {why}"
    return Conflict(f"{namespace} can not be trimmed to {through}: {what}", code="epoch", hint="read the tail again")


def tip_moved(namespace: str, tip: str, found: str) -> Conflict:
    """The error of who has looked through a journal that has gone on."""
    return Conflict(f"{namespace} ends at {found} by now, not at {tip}", code="moved", hint="read the tail")


def not_restored(namespace: str, tip: str) -> Conflict:
    """The error of entries put into a journal that is not at the place for them."""
    return Conflict(f"{namespace} ends at {tip}: these entries can not follow there", code="live")


def no_plain_stream(namespace: str) -> Rejected:
    """The error for a journal handled as a stream of messages."""
    return Rejected(f"the journal of {namespace} is trimmed only by what has archived it", code="bad-trim")


def safe_to_resend(request: Append) -> bool:
    """Whether this commit can not be taken twice: by its sequence, or by its guards on what it bumps."""
    if request.producer:
        return True
    bumped = set(request.bumps)
    if not bumped.isdisjoint(request.absent) or not bumped.isdisjoint(thing for thing, _ in request.exact):
        return True
    return not bumped.isdisjoint(request.since)
