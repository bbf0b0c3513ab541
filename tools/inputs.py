"""What bulksubmit puts into its command and options: input lists (`:::` and so on) and the forms of {}.

Decides Flux's rules: several lists are combined, linked ones are cycled beside them; {} {0} {1} are inputs, {.%} {./} {.//}
{./%} parts of a path, {seq} {seq1} count, other names are --define's. {{...}} is a template of the job and stays.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import click

from .options import bad

MARK = ":::"
MAX_INPUT = 1 << 17  # characters: a command line takes no longer word
_FIELD = re.compile(r"\{\{.*?\}\}|\{([0-9]{0,4}|[A-Za-z_]\w*)(?:\.([^{}:\s]+))?(?::([^{}]*))?\}")
_PARTS: dict[str, Callable[[str], str]] = {
    "%": lambda x: os.path.splitext(x)[0], "/": os.path.basename, "//": os.path.dirname,
    "/%": lambda x: os.path.basename(os.path.splitext(x)[0]),
}  # fmt: skip
_COUNTERS = ("seq", "seq1")


class Lists(NamedTuple):
    """command: the words before the lists. lists: to be combined; a link stands at its place in `links`."""

    command: list[str]
    lists: list[Iterable[str]]
    links: list[tuple[int, list[str]]]


def split_lists(words: Sequence[str], sep: str | None) -> Lists:
    """The command and its input lists, as typed. sep: between the inputs of a file, None for white space."""
    starts = [at for at, word in enumerate(words) if word.startswith(MARK)]
    command = list(words[: starts[0]] if starts else words)
    found = Lists(command or ["{}"], [], [])
    for place, (at, end) in enumerate(zip(starts, [*starts[1:], len(words)], strict=False)):
        mark, given = words[at], list(words[at + 1 : end])
        if mark not in (":::", ":::+", "::::", "::::+"):
            raise click.UsageError(f"{mark} separates nothing; there are ::: :::+ :::: ::::+")
        if mark.startswith("::::"):
            if len(given) != 1:
                raise click.UsageError(f"{mark} takes one file, not {len(given)}")
            inputs: Iterable[str] = read_inputs(given[0], sep)
        else:
            inputs = [_checked(one, mark) for one in given]
            if not given:
                raise click.UsageError(f"no input follows {mark}")
        if not mark.endswith("+"):
            found.lists.append(inputs)
            continue
        linked = list(inputs)
        if not linked:
            raise click.UsageError(f"no input follows {mark}")
        found.links.append((place, linked))
    if not found.lists:
        if found.links:
            raise click.UsageError("a linked list needs another one to be linked to")
        found.lists.append(read_inputs("-", sep))
    return found


def read_inputs(path: str, sep: str | None) -> Iterator[str]:
    """The inputs in a file ("-": standard input), line by line if `sep` is a line break; empty ones are left out."""
    try:
        file = sys.stdin if path == "-" else open(path, encoding="utf-8", newline="\n")  # noqa: SIM115
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None
    where = "standard input" if path == "-" else path
    number = 0
    try:
        pieces: Iterable[str] = file if sep == "\n" else file.read().removesuffix("\n").split(sep)
        for piece in pieces:
            number += 1
            text = piece.removesuffix("\n") if sep == "\n" else piece
            if text:
                yield _checked(text, f"{where}, input {number}")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{where}: not UTF-8 after input {number}: {error.reason}") from None
    finally:
        if path != "-":
            file.close()


def combined(lists: Lists) -> Iterator[tuple[str, ...]]:
    """Each combination of the inputs, linked ones cycled beside. A lone list is not read ahead."""
    import itertools

    if len(lists.lists) == 1:
        rows: Iterable[tuple[str, ...]] = ((one,) for one in lists.lists[0])
    else:
        rows = itertools.product(*lists.lists)
    cycles = [(place, itertools.cycle(linked)) for place, linked in lists.links]
    for row in rows:
        if cycles:
            new = list(row)
            for place, cycle in cycles:
                new.insert(place, next(cycle))
            row = tuple(new)
        yield row


def _checked(text: str, where: str) -> str:
    if "\0" in text:
        raise click.UsageError(f"{where}: a NUL character can stand in no command")
    if len(text) > MAX_INPUT:
        raise click.UsageError(f"{where}: {len(text)} characters are too many")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"{where}: not UTF-8") from None
    return text


Piece = str | tuple[int | str, str, str]  # text, or (counter, input, or -1 - n for the nth {}; part; format)


class Filler:
    """Fills inputs into texts. define: NAME=CODE texts; `x` is the input in the Python expression CODE.

    Call `set` with each combination, then the filler with each text.
    """

    def __init__(self, define: Sequence[str] = ()) -> None:
        self._parts = dict(_PARTS)
        for text in define:
            name, given, code = text.partition("=")
            if not given or not name.isidentifier():
                raise bad("--define", f"{text!r} is not NAME=CODE")
            self._parts[name] = _defined(name, code)
        self._texts: dict[str, list[Piece]] = {}
        self._row: tuple[str, ...] = ()
        self._seq = 0

    def set(self, row: tuple[str, ...], seq: int) -> None:
        """The inputs of the next job, and its number from 0 on."""
        self._row, self._seq = row, seq

    def varies(self, text: str) -> bool:
        """Whether a text has anything to be filled in, {cc} included."""
        return "{cc}" in text or ("{" in text and any(not isinstance(piece, str) for piece in self._pieces(text)))

    def __call__(self, text: str) -> str:
        if "{" not in text:
            return text
        pieces = self._texts.get(text)
        if pieces is None:
            pieces = self._pieces(text)
        if len(pieces) == 1 and isinstance(pieces[0], str):
            return text
        return "".join([piece if isinstance(piece, str) else self._value(text, *piece) for piece in pieces])

    def _pieces(self, text: str) -> list[Piece]:
        made = self._texts.get(text)
        if made is not None:
            return made
        pieces: list[Piece] = []
        at = count = 0
        for match in _FIELD.finditer(text):
            key, part, form = match[1], match[2] or "", match[3] or ""
            if key is None or key == "cc":
                continue  # a job's template, or filled in later
            if key and not key.isdecimal() and key not in _COUNTERS:
                known = "inputs are {} {0} {1}, and there are {seq} {seq1} {cc}"
                raise click.UsageError(f"{match[0]} in {text!r} means nothing: {known}")
            if part and part not in self._parts:
                raise click.UsageError(f"{match[0]} in {text!r}: no part {part!r}; there are {' '.join(self._parts)}")
            if match.start() > at:
                pieces.append(text[at : match.start()])
            at = match.end()
            pieces.append((key if key in _COUNTERS else int(key) if key else -1 - count, part, form))
            count += not key
        if at < len(text) or not pieces:
            pieces.append(text[at:])
        self._texts[text] = pieces
        return pieces

    def _value(self, text: str, key: int | str, part: str, form: str) -> str:
        if isinstance(key, str):
            value: Any = self._seq + (key == "seq1")
        elif key < 0 and len(self._row) == 1:
            value = self._row[0]  # a lone input stands wherever {} does
        elif (key := key if key >= 0 else -1 - key) < len(self._row):
            value = self._row[key]
        else:
            raise click.UsageError(f"{text!r} asks for input {key}, and there are {len(self._row)} (from 0 on)")
        try:
            if part:
                value = self._parts[part](str(value))
            return format(value, form)
        except (ValueError, TypeError) as error:
            raise click.UsageError(f"{text!r}: {error}") from None


def _defined(name: str, code: str) -> Callable[[str], str]:
    """A part by --define: a Python expression of `x`; a list becomes several words."""
    from ..instances.template import SPLIT

    try:
        compiled = compile(code, f"--define={name}", "eval")
    except (SyntaxError, ValueError) as error:
        raise bad("--define", f"{name}: {error}") from None
    modules: Mapping[str, Any] = {module: __import__(module) for module in ("math", "os", "re")}

    def part(x: str) -> str:
        try:
            value = eval(compiled, {**modules, "x": x})
        except Exception as error:
            raise bad("--define", f"{name} of {x!r}: {type(error).__name__}: {error}") from None
        return _checked(SPLIT.join(map(str, value)) if isinstance(value, list) else str(value), f"--define={name}")

    return part


def separator(text: str) -> str | None:
    """--sep: escapes are read, "none" is any white space."""
    if text.lower() == "none":
        return None
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what is no escape is only deprecated in some versions of Python
            found = text.encode("ascii", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError as error:
        raise bad("--sep", f"{text[:40]!r}: {error.reason}") from None
    except DeprecationWarning:
        raise bad("--sep", f"{text[:40]!r}: unknown escape") from None
    if not found:
        raise bad("--sep", "an empty separator")
    return found
