"""Output formats as Flux has them: Python format strings over named fields, compiled once for any number of
rows.

Beside Python's own syntax: conversions `!d` (a datetime, spec as strftime, `::` before an alignment), `!D`
(ISO time), `!F` (Flux Standard Duration), `!H` (h:mm:ss), `!P` (percentage), empty for 0; a spec ending in `h` shows a hyphen
for nothing, one ending in `+` marks what was cut; before a field `?:` drops its column when all of it is
empty, `+:` widens it to fit.
"""

from __future__ import annotations

import re
import string
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..kvs.errors import Rejected

Getter = Callable[[Any, Any], Any]
Fields = Mapping[str, tuple[str, Getter]]
_SIMPLE = re.compile(r"(?P<align>[<>^]?)(?P<width>\d*)(?:\.(?P<limit>\d+))?s?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_FIRST_WIDE = "\u1100"  # no character before it takes two columns of a terminal
_EMPTY = frozenset(("", "0", "0s", "0.0", "0:00:00"))


def iso_time(t: float) -> str:
    """Local time as "2026-11-23T10:30:05"; "" for 0."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(t)) if t else ""


def fsd(seconds: float) -> str:
    """A duration with four digits, as Flux prints it: "11.25s", "1.5h"; "" for 0."""
    if not seconds:
        return ""
    from ..journal.duration import format_duration

    text = format_duration(seconds)
    number = text.rstrip("mshd") if text != "infinity" else ""
    return f"{float(number):.4g}{text[len(number) :]}" if number else text


def clock_time(seconds: float) -> str:
    """A duration as h:mm:ss, to the nearest second; "" for 0."""
    if not seconds:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}-" if days else "") + f"{hours}:{minutes:02d}:{rest:02d}"


def clean(text: str) -> str:
    """Text for one cell: control characters, which would break the table or command the terminal, become "?"."""
    return text if text.isprintable() else _CONTROL.sub("?", text)


def width_of(text: str) -> int:
    """How many columns a terminal needs for it."""
    if not text or max(text) < _FIRST_WIDE:
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, columns: int) -> str:
    """As much of its beginning as fits so many columns."""
    text = text[:columns]
    while width_of(text) > columns:
        text = text[:-1]
    return text


def percentage(share: float) -> str:
    """A share of one in at most five characters: "50%", "1.5%", "0.05%"."""
    value = share * 100
    if value and abs(value) < 1:
        return f"{value:.2f}".rstrip("0").rstrip(".") + "%"
    return f"{value:.3g}%" if abs(value) < 100 else f"{value:.0f}%"


class Column:
    """One field of a format: its literal before, and how a value becomes text."""

    __slots__ = (
        "align", "before", "convert", "dash", "get", "header", "limit", "name", "optional", "plus", "spec",
        "stretch", "strftime", "width",
    )  # fmt: skip

    def __init__(self, before: str, name: str, spec: str, conversion: str, fields: Fields) -> None:
        self.optional = before.endswith(("?:", "?+:"))
        self.stretch = before.endswith("+:")
        self.before = re.sub(r"(\?\+:|\?:|\+:)$", "", before)
        self.name = name
        self.header, self.get = fields[name]
        self.convert = conversion
        self.strftime, self.spec = "", spec
        if conversion == "d":
            self.strftime, _, self.spec = spec.partition("::")
            if not self.strftime or _SIMPLE.fullmatch(self.strftime):
                self.spec = self.spec or self.strftime
                self.strftime = "%Y-%m-%dT%H:%M:%S"
        self.plus = self.spec.endswith("+")
        self.spec = self.spec.removesuffix("+")
        self.dash = self.spec.endswith("h")
        self.spec = self.spec.removesuffix("h")
        self.plus = self.plus or self.spec.endswith("+")
        self.spec = self.spec.removesuffix("+")
        if wide := re.search(r"\d{5,}", self.spec):
            raise _bad(name, f"{wide[0][:20]} is no width or precision, which go up to 9999")
        found = _SIMPLE.fullmatch(self.spec)
        self.align = found["align"] if found else None
        self.width = int(found["width"] or 0) if found else 0
        self.limit = int(found["limit"] or 0) if found and found["limit"] else 0

    def text(self, value: Any) -> str:
        """A value, converted and formatted."""
        convert = self.convert
        if convert:
            value = self._converted(value)
        if self.dash and (value in _EMPTY if value.__class__ is str else not value):
            value = "-"
        if self.align is None:
            return self._formatted(value)
        text = clean(value if value.__class__ is str else str(value))
        size = width_of(text)
        if self.limit and size > self.limit:
            text = cut(text, self.limit - 1) + "+" if self.plus else cut(text, self.limit)
            size = width_of(text)
        if size < self.width:
            width = self.width - size + len(text)
            right = self.align == ">" or (not self.align and value.__class__ is not str)
            if self.align == "^":
                return text.center(width)
            return text.rjust(width) if right else text.ljust(width)
        return text

    def _converted(self, value: Any) -> Any:
        convert = self.convert
        if convert == "s":
            return str(value)
        if convert == "r":
            return repr(value)
        if convert == "a":
            return ascii(value)
        if convert == "S":
            return ",".join(sorted(str(value).split(",")))
        if convert == "P":
            return percentage(value) if isinstance(value, int | float) else ""
        number = value if isinstance(value, int | float) else 0.0
        if convert == "d":
            return time.strftime(self.strftime, time.localtime(number)) if number else ""
        if convert == "D":
            return iso_time(number)
        return fsd(number) if convert == "F" else clock_time(number)

    def _formatted(self, value: Any) -> str:
        try:
            return clean(format(value, self.spec))
        except (ValueError, TypeError):  # a number's format asked of an empty value
            plain = re.sub(r"[,_+ #]|\.\d+|[bcdeEfFgGnoxX%]$", "", self.spec)
            try:
                return clean(format(str(value), plain))
            except (ValueError, TypeError):
                raise _bad(self.name, f"{self.spec!r} does not fit it") from None

    def narrowed(self, cells: list[str]) -> list[str]:
        """Without the blanks that all of them have on the same side."""
        if not self.align or self.align not in "<>":
            return cells
        bare = [cell.strip() for cell in cells]
        most = max(map(width_of, bare))
        blanks = [" " * (most - width_of(text)) for text in bare]
        return [gap + text if self.align == ">" else text + gap for text, gap in zip(bare, blanks, strict=True)]

    def heading(self) -> str:
        """The header, laid out like the values."""
        if self.align is None:
            try:
                return format(self.header, re.sub(r"[,_+#]|\.\d+|[bcdeEfFgGnoxX%]$", "", self.spec))
            except ValueError:
                return self.header
        if self.align == "^":
            return self.header.center(self.width)
        return self.header.rjust(self.width) if self.align == ">" else self.header.ljust(self.width)


def _bad(name: str, why: str) -> Rejected:
    return Rejected(f"bad output format: field {name!r}: {why}", code="bad-format")


def _texts(text: Callable[[Any], str], values: list[Any]) -> list[str]:
    """Each value's text; equal values of a column are formatted once."""
    try:
        known = {value: text(value) for value in set(values)}
    except TypeError:  # values that cannot be hashed
        return [text(value) for value in values]
    return [known[value] for value in values]


class Format:
    """A compiled format."""

    def __init__(self, text: str, fields: Fields) -> None:
        self.columns: list[Column] = []
        self.tail = ""
        try:
            parts = list(string.Formatter().parse(text.replace("\\n", "\n").replace("\\t", "\t")))
        except ValueError as error:
            raise Rejected(
                f"bad output format: {error}", code="bad-format", hint="write {id} {name}"
            ) from None
        before = ""
        for literal, name, spec, conversion in parts:
            before += literal
            if name is None:
                continue
            if name not in fields:
                import difflib

                near = difflib.get_close_matches(name, fields, 3) or sorted(fields)
                raise Rejected(
                    f"bad output format: no field is called {name!r}",
                    code="bad-format",
                    hint=f"try {', '.join(near)}",
                )
            if conversion and conversion not in "dDFHPSsra":
                raise _bad(name, f"no conversion is called !{conversion}; there are !d !D !F !H !P !S !s !r")
            self.columns.append(Column(before, name, spec or "", conversion or "", fields))
            before = ""
        self.tail = before

    def lines(self, rows: Sequence[Any], view: Any, *, header: bool = True, within: int = 0) -> list[str]:
        """The header (if wanted) and one line a row, blanks at line ends cut off.

        within: columns to be kept to, if that can be done by leaving out blanks (0: they are as the format says).
        """
        texts: list[list[str]] = []
        for column in self.columns:
            get, text = column.get, column.text
            values = [get(row, view) for row in rows]
            if column.optional and not any(value != "" and value != 0 for value in values):
                texts.append([])
                continue
            if column.stretch and column.width:
                column.width = (
                    max(column.width, *(width_of(str(value)) for value in values)) if values else column.width
                )
                column.limit = max(column.limit, column.width) if column.limit else 0
            texts.append(_texts(text, values))
        kept = [
            (column, cells)
            for column, cells in zip(self.columns, texts, strict=True)
            if cells or not column.optional
        ]
        if not rows:
            kept = [(column, []) for column in self.columns if not column.optional]
        if header:
            kept = [(column, [column.heading(), *cells]) for column, cells in kept]
        if not kept:
            return [self.tail] * (len(rows) + header)
        lines = self._joined(kept)
        if within and any(width_of(line) > within for line in lines):
            lines = self._joined([(column, column.narrowed(cells)) for column, cells in kept])
        return lines

    def _joined(self, kept: Sequence[tuple[Column, list[str]]]) -> list[str]:
        template = "".join(c.before.replace("%", "%%") + "%s" for c, _ in kept) + self.tail.replace("%", "%%")
        return [(template % cells).rstrip() for cells in zip(*(cells for _, cells in kept), strict=True)]
