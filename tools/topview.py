"""`fluxkv top` on a terminal: textual's application around one window that `toppage` lays out. Decides what keys do, no more.

The only module that imports textual, which comes with the extra `top`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from ..journal.log import Journal
from ..kvs.errors import FluxkvError
from ..kvs.uri import heading
from . import toppage
from .topfeed import Feed, Sight, opener, way_in
from .topmodel import SORTS
from .toprows import PAGES, JobRow, Wishes, mark_of

COLOURS = {"bold": "bold", "dim": "dim", "good": "green", "bad": "bold red", "warn": "yellow", "inside": "bold cyan",
           "mark": "reverse", "head": "bold underline"}  # fmt: skip
PLAIN = {"bold": "bold", "bad": "bold", "warn": "bold", "inside": "bold", "mark": "reverse", "head": "bold underline"}
MOVES = {"up": -1, "k": -1, "down": 1, "j": 1}


class Seen(Message):
    """A feed has something to show."""

    def __init__(self, level: Level, sight: Sight) -> None:
        self.level, self.sight = level, sight
        super().__init__()


class Level:
    """One instance on the way down: what is seen of it, and what is wished to be."""

    def __init__(self, uri: str, wishes: Wishes) -> None:
        self.uri = uri
        self.wishes = wishes
        self.sight = Sight(None)
        self.feed: Feed | None = None


class Window(Widget):
    """The whole terminal, line by line."""

    can_focus = True
    DEFAULT_CSS = "Window { width: 100%; height: 100%; background: ansi_default; color: ansi_default; }"

    def __init__(self) -> None:
        super().__init__()
        names = PLAIN if os.environ.get("NO_COLOR") else COLOURS
        self._palette = {name: Style.parse(text) for name, text in names.items()}
        self.shown: list[toppage.Text] = []

    def put(self, lines: list[toppage.Text]) -> None:
        """Show these, if they are others than those that are shown."""
        if lines != self.shown:
            self.shown = lines
            self.refresh()

    def render_line(self, y: int) -> Strip:
        line = self.shown[y] if y < len(self.shown) else []
        pieces = [Segment(text, self._palette.get(style, Style.null())) for text, style in line]
        return Strip(pieces).adjust_cell_length(self.size.width)


class Start(NamedTuple):
    """Where to begin: the instance, what opens its journal, what is wished for, and seconds between two pictures."""

    uri: str
    open: Callable[[], Journal]
    wishes: Wishes
    interval_s: float


class Top(App[str]):
    """The application; its result is why it ended by itself, "" if it was told to."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[Any]] = []

    def __init__(self, start: Start) -> None:
        super().__init__(ansi_color=True)
        self._begin = start
        self._levels = [Level(start.uri, start.wishes)]
        self._typing: str | None = None
        self._help = False
        self._said = ""
        self.window = Window()

    def compose(self) -> list[Widget]:
        return [self.window]

    def on_mount(self) -> None:
        self.window.focus()
        self._enter(self._begin.open)

    def on_unmount(self) -> None:
        for level in self._levels:
            if level.feed is not None:
                level.feed.close()

    @property
    def level(self) -> Level:
        """The instance that is looked at."""
        return self._levels[-1]

    def _enter(self, open: Callable[[], Journal]) -> None:
        """Follow the last level's instance; those around it rest."""
        level = self.level
        level.feed = Feed(open, lambda sight: self._arrived(level, sight), self._begin.interval_s, level.wishes)

    def _arrived(self, level: Level, sight: Sight) -> None:
        self.post_message(Seen(level, sight))

    def on_seen(self, message: Seen) -> None:
        """A feed has seen something (also of a level that was left meanwhile)."""
        level = message.level
        if level not in self._levels:
            return
        level.sight = message.sight
        fault = message.sight.fault
        if fault and len(self._levels) > 1 and level is self.level:
            self._leave()
            self._said = fault
        elif fault:
            self.exit(fault)
        picture = message.sight.picture
        if picture is not None and picture.wishes.same_list(level.wishes):
            level.wishes = level.wishes._replace(offset=picture.wishes.offset)
        self._show()
        self._fill()

    def on_resize(self, event: events.Resize) -> None:
        self._show(event.size)
        self._fill(event.size)

    # -- showing --------------------------------------------------------------------------------------------------

    def _show(self, size: Size | None = None) -> None:
        width, height = size or self.size
        level = self.level
        frame = toppage.Frame(heading(level.uri), len(self._levels) - 1, level.sight.lost_s, self._said, self._typing, self._help)
        self.window.put(toppage.page(level.sight.picture, frame, width, height))

    def _fill(self, size: Size | None = None) -> None:
        """Ask for as many lines as the window has room for."""
        width, height = size or self.size
        picture = self.level.sight.picture
        limit = toppage.room(picture, width, height)
        if picture is not None and limit != self.level.wishes.limit:
            self._wish(limit=limit)

    def _wish(self, **changes: Any) -> None:
        level = self.level
        level.wishes = level.wishes._replace(serial=level.wishes.serial + 1, **changes)
        if level.feed is not None:
            level.feed.wish(level.wishes)

    # -- keys -----------------------------------------------------------------------------------------------------

    def on_key(self, event: events.Key) -> None:
        event.stop()
        self._said = ""
        key = event.key
        if self._typing is not None:
            self._typed(key, event.character)
        elif self._help:
            self._help = False
        elif key in ("q", "ctrl+c"):
            self.exit("")
        elif key == "question_mark":
            self._help = True
        elif key == "slash":
            self._typing = self.level.wishes.match
        elif key in ("escape", "backspace", "b"):
            self._back()
        elif key == "enter":
            self._into()
        else:
            self._choose(key)
        self._show()

    def _typed(self, key: str, character: str | None) -> None:
        assert self._typing is not None
        if key in ("enter", "escape", "ctrl+c"):
            text, self._typing = self._typing, None
            if key == "enter":
                self._wish(match=text, cursor=0, marked=0, offset=0, page="jobs")
        elif key == "backspace":
            self._typing = self._typing[:-1]
        elif character is not None and character.isprintable():
            self._typing += character

    def _choose(self, key: str) -> None:
        wishes = self.level.wishes
        steps = {**MOVES, "pageup": -wishes.limit, "pagedown": wishes.limit}
        if key in steps or key in ("home", "end"):
            self._move(steps.get(key), to_end=key == "end")
        elif key == "s":
            names = list(SORTS)
            self._wish(sort=names[(names.index(wishes.sort) + 1) % len(names)], offset=0, cursor=0, marked=0)
        elif key == "r":
            self._wish(reverse=not wishes.reverse, offset=0, cursor=0, marked=0)
        elif key in ("tab", "1", "2", "3"):
            page = PAGES[(PAGES.index(wishes.page) + 1) % len(PAGES)] if key == "tab" else PAGES[int(key) - 1]
            self._wish(page=page, offset=0, cursor=0, marked=0)
        elif key in ("left", "right"):
            self._queue(1 if key == "right" else -1)

    def _here(self) -> tuple[int, Any]:
        """(where the cursor is, the row there, None if it is not shown yet): where the last keys have led, or where the cursor has
        followed its job to."""
        picture, wishes = self.level.sight.picture, self.level.wishes
        if picture is None or not picture.wishes.same_list(wishes):
            return wishes.cursor, None
        here = picture.wishes.cursor if picture.wishes.serial == wishes.serial else wishes.cursor
        return here, self._row(here)

    def _row(self, place: int) -> Any:
        picture = self.level.sight.picture
        if picture is None or not 0 <= place - picture.wishes.offset < len(picture.rows):
            return None
        return picture.rows[place - picture.wishes.offset]

    def _move(self, by: int | None, *, to_end: bool) -> None:
        picture = self.level.sight.picture
        if picture is None or not picture.wishes.same_list(self.level.wishes):
            return
        last = max(0, picture.total - 1)
        there = min(last, max(0, self._here()[0] + by)) if by is not None else last if to_end else 0
        row = self._row(there)
        self._wish(cursor=there, marked=mark_of(row) if there and row is not None else 0)

    def _queue(self, step: int) -> None:
        picture = self.level.sight.picture
        if picture is None:
            return
        names = ["", *(row.name for row in picture.queues)]
        here = names.index(self.level.wishes.queue) if self.level.wishes.queue in names else 0
        self._wish(queue=names[(here + step) % len(names)], page="jobs", offset=0, cursor=0, marked=0)

    def _into(self) -> None:
        row = self._here()[1]
        if row is None:
            return
        if not isinstance(row, JobRow) or not row.inside:
            self._said = "this is no job that runs as an instance (those are marked with >)"
            return
        try:
            address = way_in(self.level.uri, row.id, row.attempt, row.inside)
        except FluxkvError as error:  # it has a server of its own, which is away
            self._said = f"{error}"
            return
        level = Level(address, Wishes(limit=self.level.wishes.limit))
        if self.level.feed is not None:  # only who is looked at is followed
            self.level.feed.close()
            self.level.feed = None
        self._levels.append(level)
        self._enter(opener(level.uri))

    def _back(self) -> None:
        if self.level.wishes.match or self.level.wishes.queue:
            self._wish(match="", queue="", cursor=0, marked=0, offset=0)
        elif len(self._levels) > 1:
            self._leave()

    def _leave(self) -> None:
        gone = self._levels.pop()
        if gone.feed is not None:
            gone.feed.close()
        self._enter(self._begin.open if len(self._levels) == 1 else opener(self.level.uri))
