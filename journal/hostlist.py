"""Lists of host names as text, such as "node[0-3,7]" (RFC 29): order and repeats are kept.

Decides the grammar and how names are folded. Never looks a host up. What a text may expand to is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..kvs.errors import Rejected
from .shown import shown

MAX_HOSTS = 1 << 20
MAX_EXPANDED = 1 << 26  # characters of all names together

_PLAIN = r"[!-+\--Z\\^-~]"  # printable ASCII without blank, comma and brackets
_EXPRESSION = re.compile(rf"({_PLAIN}*)(?:\[([0-9,\-]+)\]({_PLAIN}*))?")
_NAME = re.compile(rf"{_PLAIN}+")
_ELEMENT = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_TAIL = re.compile(r"[0-9]{1,18}\Z")
_MAX_TEXT = 1 << 22


def _fault(text: object, why: str) -> Rejected:
    message = f"bad hostlist {shown(text)}: {why}"
    return Rejected(message, code="bad-hostlist", hint='write it like "node[0-3,7]"')


def _split(text: str) -> list[str]:
    """Parts between the commas that stand outside brackets."""
    if "[" not in text:
        return text.split(",")
    parts = []
    begin = 0
    inside = False
    for at, char in enumerate(text):
        if char == "[":
            inside = True
        elif char == "]":
            inside = False
        elif char == "," and not inside:
            parts.append(text[begin:at])
            begin = at + 1
    parts.append(text[begin:])
    return parts


def expand(text: str) -> list[str]:
    """All host names of a hostlist text, in its order. Raises `Rejected` (code bad-hostlist)."""
    if not isinstance(text, str):
        raise _fault(text, "it is not a string")
    if len(text) > _MAX_TEXT:
        raise _fault(text[:60], "it is too long")
    hosts: list[str] = []
    if not text:
        return hosts
    room = MAX_EXPANDED
    for part in _split(text.removeprefix(",").removesuffix(",")):
        found = _EXPRESSION.fullmatch(part)
        if found is None or not part:
            raise _fault(text, f"at {part[:40]!r}")
        prefix, ids, suffix = found[1], found[2], found[3]
        if ids is None:
            hosts.append(part)
            continue
        width = 0
        for element in ids.split(","):
            pair = _ELEMENT.fullmatch(element)
            if pair is None:
                raise _fault(text, f"{element[:40]!r} is not a number or a range")
            if not width:
                width = len(pair[1]) if pair[1][0] == "0" else 1
            low = int(pair[1])
            high = low if pair[2] is None else int(pair[2])
            if high < low:
                raise _fault(text, f"{element!r} descends")
            count = high - low + 1
            room -= count * (len(prefix) + len(suffix) + max(width, len(str(high))))
            if room < 0 or len(hosts) + count > MAX_HOSTS:
                raise _fault(text, f"it stands for too many hosts (at most {MAX_HOSTS})")
            hosts.extend([f"{prefix}{n:0{width}d}{suffix}" for n in range(low, high + 1)])
        if len(hosts) > MAX_HOSTS:
            raise _fault(text, f"it stands for more than {MAX_HOSTS} hosts")
    return hosts


def compress(hosts: Iterable[str]) -> str:
    """Hostlist text of names in order; neighbours that differ in their last digits only are folded.

    `expand(compress(hosts)) == list(hosts)`. Raises `Rejected` for a name that no hostlist can hold.
    """
    parts: list[str] = []
    prefix: str | None = None
    runs: list[list[int]] = []
    width = 1

    def flush() -> None:
        if prefix is not None:
            texts = [f"{a:0{width}d}" if a == b else f"{a:0{width}d}-{b:0{width}d}" for a, b in runs]
            single = len(runs) == 1 and runs[0][0] == runs[0][1]
            parts.append(prefix + texts[0] if single else f"{prefix}[{','.join(texts)}]")

    for host in hosts:
        if not isinstance(host, str) or _NAME.fullmatch(host) is None:
            raise _fault(host, "not a host name")
        tail = _TAIL.search(host)
        if tail is None:
            flush()
            prefix = None
            parts.append(host)
            continue
        stem, digits = host[: tail.start()], tail[0]
        number = int(digits)
        if stem == prefix and f"{number:0{width}d}" == digits:
            if number == runs[-1][1] + 1:
                runs[-1][1] = number
            else:
                runs.append([number, number])
            continue
        flush()
        prefix, runs = stem, [[number, number]]
        width = len(digits) if digits[0] == "0" else 1
    flush()
    return ",".join(parts)
