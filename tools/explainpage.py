"""How `fluxkv explain` puts things: one sentence first, then what it rests on, in 80 columns. Decides wording and layout only."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..journal.ids import f58
from ..journal.shown import counted
from .reading import user_name

if TYPE_CHECKING:
    from ..journal.state import State

WIDTH = 80
LABEL = 12
NEAR_S = 600.0  # moments nearer than this are told to the second
_FAR = re.compile(r" \((in [^()]*|[^()]* ago)\)$")
NAMED = 5  # of a list of jobs, so many by their ids


class Page:
    """The answer, then labelled evidence. Text of others' may stand in it: control characters are shown as "?"."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.rows: list[tuple[str, str | list[list[str]]]] = []

    def add(self, label: str, text: str) -> None:
        """A line of evidence, wrapped; nothing for an empty text."""
        if text:
            self.rows.append((label, text))

    def table(self, label: str, rows: Iterable[Sequence[str]], more: int = 0, what: str = "") -> None:
        """Evidence in columns; more: how many further `what` there are."""
        cells = [list(row) for row in rows]
        if cells:
            self.rows.append((label, cells))
            if more > 0:
                self.rows.append(("", f"and {count(more, f'more {what}')}{'' if more == 1 else 's'}"))

    def text(self, width: int = WIDTH) -> str:
        """All of it."""
        from .formats import clean

        lines = textwrap.wrap(clean(self.answer), width, break_on_hyphens=False)
        for label, what in self.rows:
            if isinstance(what, str):
                inside = textwrap.wrap(clean(what), max(20, width - LABEL - 2), break_on_hyphens=False)
            else:
                inside = _columns([[clean(cell) for cell in row] for row in what], width - LABEL - 2)
            lines += [f"  {(label if not n else ''):<{LABEL}}{line}" for n, line in enumerate(inside)]
        return "\n".join(lines)


def _columns(rows: list[list[str]], width: int) -> list[str]:
    from .formats import cut, width_of

    lines = _drawn(rows)
    if any(width_of(line) > width for line in lines):  # how far off a moment is can be left out
        lines = _drawn([[*row[:-1], _FAR.sub("", row[-1])] for row in rows])
    return [line if width_of(line) <= width else cut(line, width - 1) + "+" for line in lines]


def _drawn(rows: list[list[str]]) -> list[str]:
    from .formats import width_of

    widths = [max(width_of(row[at]) for row in rows if len(row) > at) for at in range(max(map(len, rows)))]
    return [
        " ".join(cell + " " * (widths[at] - width_of(cell)) for at, cell in enumerate(row)).rstrip() for row in rows
    ]  # fmt: skip


def span(seconds: float) -> str:
    """A length of time with three digits at most: "42s", "49.8m", "2.5h"."""
    from ..journal.duration import format_duration

    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{round(seconds * 1000)}ms" if seconds else "0s"
    text = format_duration(float(round(seconds)) if seconds >= 10 else round(seconds, 1))
    number = text.rstrip("smhd")
    return f"{float(number):.3g}{text[len(number):]}" if float(number) < 1000 else text


def clock(t: float, now: float) -> str:
    """A moment as local time: with the day where that is not now's, with seconds where it is near."""
    there, here = time.localtime(t), time.localtime(now)
    seconds = "%H:%M:%S" if abs(t - now) < NEAR_S else "%H:%M"
    if there[:3] == here[:3]:
        return time.strftime(seconds, there)
    return time.strftime(("%b %d " if there[0] == here[0] else "%Y %b %d ") + seconds, there)


def moment(t: float, now: float) -> str:
    """A moment and how far off it is: "22:10 (in 49.8m)", "21:05 (12m ago)"."""
    if abs(t - now) < 1:
        return "just now" if t <= now else "now"
    return f"{clock(t, now)} ({f'in {span(t - now)}' if t > now else f'{span(now - t)} ago'})"


def until(t: float, now: float) -> str:
    """By when somebody gives back what he holds."""
    if not t:
        return "no time limit"
    return f"until {moment(t, now)}" if t > now else f"past its limit for {span(now - t)}"


def several(ids: Sequence[int], most: int = NAMED) -> str:
    """Jobs by their ids: the first few, and how many more."""
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(map(f58, ids[:most])) + more


def whose(state: State, id: int) -> tuple[str, str]:
    """(name, user) of a job, as far as the state knows it."""
    job = state.jobs.get(id)
    return (job.name, user_name(job.userid)) if job is not None else ("?", "?")


def hosts_of(state: State, ranks: Iterable[int]) -> str:
    """Nodes as a hostlist."""
    from ..journal.hostlist import compress

    return compress([state.nodes[rank].host if rank in state.nodes else f"rank{rank}" for rank in sorted(ranks)])


def count(n: int, noun: str, of: str = "") -> str:
    """ "1 core", "2 cores", "512 MB"; of: what is measured, "60 W of power"."""
    return f"{n:,} {noun} of {of}" if of else counted(n, noun)
