"""Our terminal lent to a job's: raw while the job runs, its window's size sent along, and what a closed terminal means.

Decides what Ctrl-C does before the job runs (it is cancelled), and who ends with whom. Until the job has started the terminal is
as it was; afterwards every key is the job's.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..journal.ids import f58
from ..kvs.errors import FluxkvError
from .attaching import Detached
from .render import say

if TYPE_CHECKING:
    from ..instances.client import Instance
    from ..instances.output import Attachment


class Session:
    """One job on our terminal. ours: it is there for us, so it ends with our terminal; else we merely look in."""

    def __init__(self, instance: Instance, id: int, attachment: Attachment, *, ours: bool) -> None:
        self._instance, self._id, self._attachment, self._ours = instance, id, attachment, ours
        self._before: list[Any] | None = None
        self.began = False

    def handlers(self) -> Mapping[int, Callable[[], None]]:
        """What signals mean, for `attaching.Interrupts`."""
        found: dict[int, Callable[[], None]] = {
            signal.SIGWINCH: self.resized, signal.SIGCONT: self._again,
            signal.SIGHUP: lambda: self._closed(signal.SIGHUP), signal.SIGTERM: lambda: self._closed(signal.SIGTERM),
        }  # fmt: skip
        if self._ours:
            found[signal.SIGINT] = self._interrupted
            found[signal.SIGQUIT] = lambda: self._closed(signal.SIGQUIT)
        return found

    def __enter__(self) -> Session:
        self.resized()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self) -> None:
        """The job runs: what is typed goes to it as it is."""
        self.began = True
        try:
            before = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)
            self._before = self._before or before
        except termios.error:  # it was closed
            pass
        self.resized()

    def end(self) -> None:
        """The terminal as it was."""
        if self._before is not None:
            try:
                termios.tcsetattr(0, termios.TCSADRAIN, self._before)
            except termios.error:
                pass
            self._before = None

    def tell(self, text: str) -> None:
        """A remark among what the job shows."""
        say("\r\n" + text.replace("\n", "\r\n") + "\r" if self._before is not None else text)

    def resized(self) -> None:
        try:
            columns, rows = os.get_terminal_size(0)
        except OSError:
            return
        self._attachment.resize(rows, columns)

    def no_input(self) -> None:
        """Our terminal has nothing more: it was closed, or somebody typed Ctrl-D before the job ran, which means nothing."""
        if self._before is None:
            try:
                termios.tcgetattr(0)
                return
            except termios.error:
                pass
        self._closed(signal.SIGHUP)

    def _again(self) -> None:
        """We were stopped and go on: a shell has had the terminal meanwhile."""
        if self._before is not None:
            self.begin()

    def _interrupted(self) -> None:
        if self._before is None:
            self._cancel("interrupted by ctrl-C", signal.SIGINT)

    def _closed(self, signum: int) -> None:
        if not self._ours:
            raise Detached(signum)
        self._cancel("its terminal was closed" if signum == signal.SIGHUP else "its terminal's program was ended", signum)

    def _cancel(self, note: str, signum: int) -> None:
        self.end()
        try:
            say(f"fluxkv: cancelling job {f58(self._id)}")
        except OSError:
            pass
        try:
            self._instance.cancel([self._id], note)
            if not self.began:
                self._attachment.drop_input()
        except FluxkvError as error:
            say(f"fluxkv: {error}")
        raise Detached(signum)


def on_terminal() -> bool:
    """Whether somebody sits at both ends of us, in the foreground."""
    try:
        return sys.stdin.isatty() and sys.stdout.isatty() and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
