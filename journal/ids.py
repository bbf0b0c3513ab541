"""Job ids (RFC 19, FLUID): milliseconds, generator and sequence in 64 bits; how they are written and made.

Decides the text forms and the uniqueness rule. Never reads a clock: the caller gives one. The forms `words`
and `emoji` are in `id_words`, loaded when one is met.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from ..kvs.errors import Rejected
from .shown import shown

MAX_JOB_ID = (1 << 64) - 1
FORMS = ("dec", "hex", "dothex", "kvs", "f58", "f58plain", "words", "emoji")
LOADED = ("words", "emoji")  # those of `id_words`

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUE = {digit: value for value, digit in enumerate(_ALPHABET)}
_DECIMAL = re.compile(r"[0-9]{1,20}")
_HEX = re.compile(r"0[xX]([0-9a-fA-F]{1,16})")
_DOTHEX = re.compile(r"([0-9a-fA-F]{1,4})\.([0-9a-fA-F]{1,4})\.([0-9a-fA-F]{1,4})\.([0-9a-fA-F]{1,4})")
_HINT = "write it as it was printed, e.g. ƒ2UzHM, f2UzHM, 16777216 or 0x1000000"


def _fault(text: object, why: str) -> Rejected:
    return Rejected(f"bad job id {shown(text)}: {why}", code="bad-jobid", hint=_HINT)


@lru_cache(maxsize=65536)
def _digits(job: int) -> str:
    text = ""
    rest = job
    while rest:
        rest, value = divmod(rest, 58)
        text = _ALPHABET[value] + text
    return text or "1"


def f58(job: int) -> str:
    """The usual text of a job id, e.g. "ƒuZZybuNNy". `job` must be a valid id. Cached."""
    return "ƒ" + _digits(job)


def encode(job: int, form: str = "f58") -> str:
    """Text of a job id in one of `FORMS`. Raises `Rejected` for an id out of range or an unknown form."""
    if isinstance(job, bool) or not isinstance(job, int) or not 0 <= job <= MAX_JOB_ID:
        raise _fault(job, "not an unsigned 64-bit number")
    if form == "f58":
        return "ƒ" + _digits(job)
    if form == "f58plain":
        return "f" + _digits(job)
    if form == "dec":
        return str(job)
    if form == "hex":
        return hex(job)
    if form in ("dothex", "kvs"):
        digits = f"{job:016x}"
        dotted = f"{digits[:4]}.{digits[4:8]}.{digits[8:12]}.{digits[12:]}"
        return dotted if form == "dothex" else "job." + dotted
    if form in LOADED:
        from . import id_words

        return id_words.to_words(job) if form == "words" else id_words.to_emoji(job)
    raise Rejected(
        f"unknown job id form {shown(form)}", code="bad-jobid-form", hint=f"use one of {', '.join(FORMS)}"
    )


def parse_id(text: str | int) -> int:
    """The id named by any supported text form (or by an int already). Raises `Rejected` (code bad-jobid).

    The form is told by the rules of RFC 19 in their order: a dot means dothex, a hyphen words, ƒ or f base
    58, 0x hexadecimal, anything else decimal. White space around it and a leading "job." are ignored.
    """
    if isinstance(text, str):
        if len(text) <= 64:
            return _parse(text)
        text = text.strip()
        if len(text) <= 64:
            return _parse(text)
        raise _fault(text, "it is too long")
    if isinstance(text, bool) or not isinstance(text, int) or not 0 <= text <= MAX_JOB_ID:
        raise _fault(text, "not an unsigned 64-bit number")
    return text


@lru_cache(maxsize=65536)
def _parse(original: str) -> int:
    text = original.strip().removeprefix("job.")
    if not text:
        raise _fault(original, "it is empty")
    if "." in text:
        found = _DOTHEX.fullmatch(text)
        if found is None:
            if not re.search(r"[0-9a-fA-F]\.[0-9a-fA-F]", text):  # nobody has meant that form
                raise _fault(original, "not an id in any known form")
            raise _fault(original, "dothex has four groups of one to four hexadecimal digits")
        return int(found[1], 16) << 48 | int(found[2], 16) << 32 | int(found[3], 16) << 16 | int(found[4], 16)
    if "-" in text:
        return _long_form(original, text, "words")
    if text[0] in "ƒf":
        return _parse_f58(original, text[1:])
    if text.encode("utf-8", "replace")[:2] == b"\xf0\x9f":
        return _long_form(original, text, "emoji")
    found = _HEX.fullmatch(text)
    if found is not None:
        return int(found[1], 16)
    if _DECIMAL.fullmatch(text) is None:
        raise _fault(original, "not an id in any known form")
    job = int(text)
    if job > MAX_JOB_ID:
        raise _fault(original, "it exceeds 64 bits")
    return job


def _long_form(original: str, text: str, form: str) -> int:
    from . import id_words

    job = id_words.from_words(text) if form == "words" else id_words.from_emoji(text)
    if job is None:
        known = "two groups of three words of mnemonicode" if form == "words" else "emoji of RFC 19"
        raise _fault(original, f"not {known}")
    if job > MAX_JOB_ID:
        raise _fault(original, "it exceeds 64 bits")
    return job


def _parse_f58(original: str, digits: str) -> int:
    if not digits or len(digits) > 12:
        raise _fault(original, "base 58 has 1 to 12 digits")
    job = 0
    for digit in digits:
        value = _VALUE.get(digit)
        if value is None:
            raise _fault(original, f"{digit!r} is not a base 58 digit")
        job = job * 58 + value
    if job > MAX_JOB_ID:
        raise _fault(original, "it exceeds 64 bits")
    return job


def compose(timestamp_ms: int, generator: int, sequence: int) -> int:
    """The id of milliseconds since the instance's origin (40 bits), generator (14) and sequence (10)."""
    if not 0 <= timestamp_ms < 1 << 40:
        raise Rejected(f"job id time {timestamp_ms} ms does not fit 40 bits", code="bad-jobid")
    if not 0 <= generator < 1 << 14:
        raise Rejected(f"job id generator {generator} does not fit 14 bits", code="bad-jobid")
    if not 0 <= sequence < 1 << 10:
        raise Rejected(f"job id sequence {sequence} does not fit 10 bits", code="bad-jobid")
    return timestamp_ms << 24 | generator << 10 | sequence


def timestamp_ms_of(job: int) -> int:
    """Milliseconds after its instance's origin at which `job` was made."""
    return job >> 24


class IdSource:
    """Makes job ids for one generator number of one instance; ids of one source only grow.

    origin_ms: when the instance began (epoch milliseconds). generator: 0..16383, held by nobody else at a
    time. clock_ms: the time now in epoch milliseconds. after: an id already given out; all new ones are
    made later. A millisecond has 1024 ids. More of them are taken from milliseconds to come rather than by
    waiting, and a clock that steps back changes nothing: the source goes on from its last id. Not for
    several threads at once.
    """

    __slots__ = ("_clock_ms", "_generator", "_next", "_origin_ms")

    def __init__(self, origin_ms: int, generator: int, clock_ms: Callable[[], int], after: int = 0) -> None:
        compose(0, generator, 0)
        self._origin_ms = origin_ms
        self._generator = generator
        self._clock_ms = clock_ms
        self._next = (timestamp_ms_of(after) + 1) << 10 if after else 0  # time and sequence as one counter

    def next(self) -> int:
        """One new id."""
        return self.take(1)[0]

    def take(self, count: int) -> list[int]:
        """`count` new ids, ascending. Raises `Rejected` once 35 years (40 bits of ms) are used up."""
        first = max(self._next, int(self._clock_ms() - self._origin_ms) << 10)
        if count < 0 or (first + count) >> 50:
            raise Rejected(f"cannot make {count} job ids", code="bad-jobid", hint="start a new instance")
        self._next = first + count
        middle = self._generator << 10
        return [(n >> 10) << 24 | middle | (n & 1023) for n in range(first, first + count)]
