"""How answers look: tables, JSON, times, progress. Data goes to stdout, everything else to stderr.

rich is imported only for a progress bar on a terminal; NO_COLOR, FORCE_COLOR and TERM=dumb are respected. Off a
terminal every table is plain columns, whole and made for awk.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

STDOUT = "standard output"  # as errors name it
LOG_S = 60.0  # between two lines about progress, where no bar is

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress


def is_terminal(stream: IO[str] | None = None) -> bool:
    """Whether a stream (stdout when not given) is a terminal that can show more than plain text."""
    stream = stream if stream is not None else sys.stdout
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except (ValueError, AttributeError):
        return False


def console(*, stderr: bool = False) -> Console:
    """A rich console on stdout or stderr; it obeys NO_COLOR by itself."""
    from rich.console import Console

    from ..instances.user_settings import value_of

    return Console(stderr=stderr, highlight=False, soft_wrap=True, no_color=value_of("color") == "never" or None)


def write(path: str, text: str) -> None:
    """A whole document, into a file, or to stdout where the path is "-"."""
    if path == "-":
        out(text, end="")
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        import click

        raise click.FileError(path, str(error.strerror)) from None


def out(text: str, *, end: str = "\n") -> None:
    """Data, to stdout. A reader that went away raises BrokenPipeError, which the command line answers."""
    stream = sys.stdout
    try:
        stream.write(text + end)
    except UnicodeEncodeError:  # a locale without ƒ
        stream.write((text + end).encode("ascii", "replace").decode())
    except OSError as error:
        raise _of_stdout(error) from None


def _of_stdout(error: OSError) -> OSError:
    """The same, named."""
    error.filename = STDOUT
    return error


def print_id(id: int) -> None:
    """The id of a job that was just submitted. Where stdout does not take it stderr has it: the job is there all the same."""
    from ..journal.ids import f58

    try:
        out(f58(id))
        sys.stdout.flush()
    except OSError:
        say(f"fluxkv: submitted before this: 1 job, {f58(id)}")
        raise


def say(text: str) -> None:
    """A remark, to stderr."""
    try:
        sys.stderr.write(text + "\n")
    except UnicodeEncodeError:
        sys.stderr.write((text + "\n").encode("ascii", "replace").decode())
    sys.stderr.flush()


def coloured(when: str = "auto", stream: IO[str] | None = None) -> bool:
    """Whether to colour what goes to a stream (stdout when not given). when: auto, always, never.

    auto: as the user's setting `color` says; is that auto too, NO_COLOR says no, FORCE_COLOR yes, else a terminal that is not dumb.
    """
    if when == "auto":
        from ..instances.user_settings import value_of

        when = value_of("color")
    if when != "auto":
        return when == "always"
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal(stream)


def columns() -> int:
    """Columns of the terminal on stdout (COLUMNS if set); 0 when it is none: nothing is cut then."""
    try:
        if not sys.stdout.isatty():
            return 0
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (ValueError, OSError, AttributeError):
        return 0


def fit(lines: list[str]) -> list[str]:
    """Lines cut to the terminal's width, a "+" where something is missing."""
    from .formats import cut, width_of

    most = columns()
    if not most:
        return lines
    return [line if width_of(line) <= most else cut(line, most - 1) + "+" for line in lines]


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    right: Iterable[int] = (),
) -> None:
    """Print rows under headers ([] for none) in columns.

    right: indices of columns set flush right.
    On a terminal too narrow the last column is cut, or, where others do not fit either, each row becomes a block of lines.
    """
    from .formats import clean, width_of

    texts = [["" if cell is None else clean(str(cell)) for cell in row] for row in rows]
    numbers = frozenset(right)
    widths: list[int] = []
    for line in [list(headers), *texts] if headers else texts:
        widths += [0] * (len(line) - len(widths))
        for index, cell in enumerate(line):
            widths[index] = max(widths[index], width_of(cell))
    most = columns()
    if headers and most and sum(widths[:-1]) + len(widths) - 1 > most - 10:
        _blocks(headers, texts)
        return

    def drawn(line: Sequence[str]) -> str:
        cells = [
            cell.rjust(size) if index in numbers else cell.ljust(size)
            for index, cell in enumerate(line)
            for size in (widths[index] - width_of(cell) + len(cell),)
        ]
        return " ".join(cells).rstrip()

    lines = fit([drawn(line) for line in ([headers, *texts] if headers else texts)])
    if lines:
        out("\n".join(lines))


def _blocks(headers: Sequence[str], rows: list[list[str]]) -> None:
    """Each row as lines of "HEADER value", for a terminal that has no room for columns."""
    wide = max(map(len, headers))
    for number, row in enumerate(rows):
        if number:
            out("")
        for header, cell in zip(headers, row, strict=False):
            if cell:
                out(f"{header.ljust(wide)} {cell}")


def print_json(value: Any, *, indent: int | None = None) -> None:
    """One JSON document on one line (or indented); text is not escaped."""
    out(json_text(value, indent=indent))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Compact JSON of a value; bytes are shown as text where they are UTF-8."""
    import json

    def other(one: Any) -> Any:
        if isinstance(one, bytes):
            return one.decode(errors="replace")
        if isinstance(one, set | frozenset | tuple):
            return sorted(one)
        return str(one)

    separators = (",", ":") if indent is None else None
    return json.dumps(value, ensure_ascii=False, separators=separators, indent=indent, default=other)


def human_time(t: float, *, seconds: bool = True) -> str:
    """Local time of Unix seconds, "2026-11-23 10:30:05"; "-" for 0."""
    if not t:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M", time.localtime(t))


def ago(t: float, now: float) -> str:
    """How long before `now` that was: "12s ago"; "-" for 0."""
    return f"{duration_text(max(0.0, now - t))} ago" if t else "-"


def duration_text(seconds: float) -> str:
    """A duration for a table: "0.25s", "12.3s", "5m", "1.5h"; "-" for 0."""
    if not seconds:
        return "-"
    from ..journal.duration import format_duration

    if seconds >= 1:
        seconds = round(seconds, 1) if seconds < 60 else round(seconds)
    elif seconds >= 0.001:
        seconds = round(seconds, 3)
    text = format_duration(seconds)
    if "." in text:
        number = text.rstrip("mshd")
        unit = text[len(number) :]
        text = f"{float(number):.4g}{unit}"
    return text


class Progress:
    """A live bar on stderr; off a terminal a line each minute, and one at the end. Use as a context manager.

    Call `update(done, failed)` with totals, as often as you like. rate: show how many a second, on the bar too.
    done, failed: how many were before it began; they count, but not for the rate.
    """

    def __init__(self, total: int, *, label: str = "jobs", rate: bool = True, done: int = 0, failed: int = 0) -> None:
        self.total = total
        self.label = label
        self.done, self.failed = done, failed
        self._before = done
        self._shows_rate = rate
        self._began = time.monotonic()
        self._tells_at = self._began + LOG_S
        self._bar: RichProgress | None = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if is_terminal(sys.stderr):
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("{task.fields[left]}"),
                console=console(stderr=True),
            )  # fmt: skip
            self._task = self._bar.add_task(self._text(), total=self.total, completed=self.done, rate="", left="")
            self._bar.start()
        return self

    @property
    def is_live(self) -> bool:
        """Whether somebody may see it move."""
        return self._bar is not None

    def update(self, done: int, failed: int = 0) -> None:
        """So many are done, of which so many failed."""
        self.done, self.failed = done, failed
        if self._bar is not None:
            rate = self._rate() if self._shows_rate else ""
            self._bar.update(self._task, completed=done, description=self._text(), rate=rate, left=self._left())
        elif done < self.total and time.monotonic() >= self._tells_at:
            self._tells_at += LOG_S
            say(", ".join(filter(None, (self._line(), self._left()))))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            say(self._line())

    def _line(self) -> str:
        return f"{self.label}: {self.done}/{self.total} done, {self.failed} failed, {self._rate()}"

    def _text(self) -> str:
        return f"{self.label}" + (f", {self.failed} failed" if self.failed else "")

    def _rate(self) -> str:
        elapsed = max(1e-6, time.monotonic() - self._began)
        return f"{(self.done - self._before) / elapsed:.1f}/s"

    def _left(self) -> str:
        """How long the rest takes at the rate so far, "" if nothing can be said."""
        newly = self.done - self._before
        if not newly or self.done >= self.total:
            return ""
        seconds = (self.total - self.done) * (time.monotonic() - self._began) / newly
        return f"{duration_text(max(1.0, round(seconds)))} left"


def progress(
    total: int, *, label: str = "jobs", rate: bool = True, done: int = 0, failed: int = 0
) -> Progress:
    """A `Progress` for `total` things."""
    return Progress(total, label=label, rate=rate, done=done, failed=failed)
