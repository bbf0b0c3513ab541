"""Submission directives: options that a batch script carries in its comments (RFC 36).

Decides which lines are directives and how their words are quoted. Never decides what an option means: the words go to
the option parser of the submitting command, before those of the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import dedent

from ..kvs.errors import Rejected
from .shown import shown

MAX_TEXT = 1 << 24
MAX_WORDS = 4096

_SENTINEL = re.compile(r"([^\w\n]*)(flux|FLUX):")
_HINT = "write directives as lines like '#FLUX: -N4 --queue=batch', all of them above the script's first command"


def fault(line: int, why: str) -> Rejected:
    """What is said of a directive that cannot be (code bad-directive)."""
    return Rejected(f"bad directive in line {line}: {why}", code="bad-directive", hint=_HINT)


def parse_directives(script: str | bytes) -> list[str]:
    """The words of all directives of a script, as a shell would split them, e.g. ["-N4", "--queue=batch"].

    Raises as `placed_words`.
    """
    return [word for _, word in placed_words(script)]


def placed_words(script: str | bytes) -> list[tuple[int, str]]:
    """The same words, each with the number of the line in which its directive begins.

    The first line that matches sets the sentinel (what stands before `flux:`, and the tag's case). Directives end at
    the first line that is not blank and does not begin with that prefix. Raises `Rejected` (code bad-directive) for a
    directive after that, one with another sentinel, one that is no option, and for quotes that do not close.
    """
    text = script.decode("utf-8", "surrogateescape") if isinstance(script, bytes) else script
    if not isinstance(text, str):
        raise fault(1, f"{shown(text)} is no script")
    if len(text) > MAX_TEXT:
        raise fault(1, f"the script is longer than {MAX_TEXT} characters")
    words: list[tuple[int, str]] = []
    lines = _directives(text)
    for number, line in lines:
        stripped = line.strip()
        if stripped and stripped[0] not in "-#":
            raise fault(number, f"{shown(stripped, 40)} is not an option")
        words += [(number, word) for word in _split(number, line, lines)]
        if len(words) > MAX_WORDS:
            raise fault(number, f"more than {MAX_WORDS} words")
    return words


def _directives(text: str) -> Iterator[tuple[int, str]]:
    """(line number, text after the sentinel) of each directive line."""
    sentinel = prefix = ""
    ended = False
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        found = _SENTINEL.match(line)
        if not sentinel:
            if found is None:
                continue
            sentinel, prefix = found[0], found[1]
        if not ended and line.startswith(sentinel):
            yield number, line[len(sentinel) :]
            continue
        stops = bool(line.strip()) and not line.startswith(prefix)
        if found is not None and (found[0] == sentinel or line[found.end() :].lstrip()[:1] == "-"):
            if ended:
                raise fault(number, "it stands below the script's first command, where directives have ended")
            raise fault(number, f"all directives begin alike, with {shown(sentinel)} as the first one")
        ended = ended or stops


def _split(number: int, line: str, following: Iterator[tuple[int, str]]) -> list[str]:
    """Words of a directive. A triple quote that ends its line is closed by one that ends a following directive."""
    words: list[str] = []
    word: list[str] | None = None  # pieces of the word begun; None between words
    at = 0
    while at < len(line):
        char = line[at]
        if char.isspace():
            if word is not None:
                words.append("".join(word))
            word = None
            at += 1
            continue
        if char == "#" and word is None:
            break
        word = [] if word is None else word
        if char in "\"'" and line.startswith(char * 3, at):
            mark = char * 3
            close = line.find(mark, at + 3)
            if close >= 0:
                word.append(line[at + 3 : close])
                at = close + 3
                continue
            if line[at + 3 :].strip():
                raise fault(number, f"{mark} does not close")
            word.append(_block(number, mark, following))
            break
        if char in "\"'":
            at = _quoted(number, line, at, word)
        elif char == "\\":
            if at + 1 >= len(line):
                raise fault(number, "nothing follows its last backslash")
            word.append(line[at + 1])
            at += 2
        else:
            word.append(char)
            at += 1
    if word is not None:
        words.append("".join(word))
    return words


def _quoted(number: int, line: str, at: int, word: list[str]) -> int:
    """Append what one pair of quotes holds; where the line goes on. In double quotes a backslash quotes itself and "."""
    quote = line[at]
    begin = at = at + 1
    while at < len(line) and line[at] != quote:
        if quote == '"' and line[at] == "\\" and line[at + 1 : at + 2] in ('"', "\\"):
            word.append(line[begin:at])
            begin = at + 1
            at += 1
        at += 1
    if at >= len(line):
        raise fault(number, f"{quote} does not close")
    word.append(line[begin:at])
    return at + 1


def _block(number: int, mark: str, following: Iterator[tuple[int, str]]) -> str:
    """The text between marks on lines of their own, without the indentation that all lines share."""
    held: list[str] = []
    for _, line in following:
        if line.rstrip().endswith(mark):
            held.append(line.rstrip()[: -len(mark)])
            return dedent("\n".join(held))
        held.append(line)
    raise fault(number, f"{mark} does not close at the end of a directive")
