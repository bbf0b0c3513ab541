"""Staying with a job: its output on ours, our input to it, Ctrl-C. Decides what a user sees of one job as it runs.

Used by run, submit --watch and job attach.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..journal.ids import f58
from ..kvs.errors import FluxkvError, Rejected
from .options import bad
from .render import say

if TYPE_CHECKING:
    from ..instances.client import Instance
    from ..instances.output import Attachment, OutputWriter


def attach_job(
    instance: Instance, id: int, input_fd: int | None, *, ranks: str | None = None, label: bool = False, verbose: bool = False,
    show_exceptions: bool = True, timeout: float | None = None, until: str | None = None,
) -> int:  # fmt: skip
    """Follow a job to its end, its output on ours; its exit code as a shell gives it.

    ranks: the tasks our input is for, None for all. until: an event that is enough.
    """
    from .eventlines import EventLines

    lines = EventLines("text", "offset")

    writer = writers(label, False)(id)

    def tell(name: str, timestamp: float, context: dict[str, Any]) -> None:
        if name == "exception" and show_exceptions:
            if context["note"] in writer.said and not verbose:
                return  # it could not start, and its output says why
            say(exception_line(id, context["type"], context["note"], context["severity"]))
        elif name == "requeue" and not verbose:
            say(requeue_line(id, context))
        elif verbose:
            say(lines.text(name, timestamp, context))
        if name == until:
            raise Reached

    attachment = instance.attach(id, writer, tell)
    if input_fd is not None:
        attachment.forward_input(input_fd, ranks)
    with Interrupts(instance, id, attachment) as interrupts:
        try:
            result = attachment.run(timeout)
        except Detached:
            return 128 + interrupts.signum
        except Reached:
            return 0
    return result.returncode


class Reached(Exception):
    """The event that was waited for has come."""


class Detached(Exception):
    """The user left the job alone (second Ctrl-C)."""


class Interrupts:
    """Ctrl-C while attached: once, SIGINT goes to the job; again within two seconds, it is cancelled."""

    def __init__(self, instance: Instance, id: int, attachment: Attachment) -> None:
        self._instance = instance
        self._id = id
        self._attachment = attachment
        self._last = 0.0
        self._pipe: tuple[int, int] | None = None
        self.signum = 2

    def __enter__(self) -> Interrupts:
        import signal
        import threading

        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._attachment.serve(self._pipe[0], self._interrupted)
        self._handler = signal.signal(signal.SIGINT, lambda *_: None)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        import signal

        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup)
            signal.signal(signal.SIGINT, self._handler)
            for descriptor in self._pipe:
                os.close(descriptor)

    def _interrupted(self) -> None:
        import time

        assert self._pipe is not None
        if self.signum not in os.read(self._pipe[0], 64):
            return
        now = time.monotonic()
        try:
            if self._last and now - self._last < 2.0:
                say(f"fluxkv: cancelling job {f58(self._id)}")
                self._instance.cancel([self._id], "interrupted by ctrl-C")
                raise Detached
            self._last = now
            self._instance.kill(self._id, self.signum)
            say("fluxkv: SIGINT sent to the job; ctrl-C again within 2 s cancels it")
        except FluxkvError as error:
            say(f"fluxkv: {error}; ctrl-C again within 2 s cancels it")


def exception_line(id: int, kind: str, note: str, severity: int = 0) -> str:
    """How an exception is shown, on one line."""
    return f"fluxkv: {f58(id)}: exception: type={kind} severity={severity} note={' '.join(str(note).split())}"


def requeue_line(id: int, context: dict[str, Any]) -> str:
    """How it is said that another attempt follows."""
    from ..journal.retry import describe

    return f"fluxkv: {f58(id)}: attempt {context.get('attempt')}: {' '.join(describe(context).split())}"


def writers(label: bool, many: bool) -> Callable[[int], OutputWriter]:
    from ..instances.output import OutputWriter

    def writer(id: int) -> OutputWriter:
        prefix = f"{f58(id)}: " if many and label else ""
        return OutputWriter(sys.stdout.buffer, sys.stderr.buffer, label=label, prefix=prefix)

    return writer


def input_ranks(values: dict[str, Any]) -> str | None:
    """The tasks that --input names instead of a file, as `ranks_of_input`. It is no file then, and taken out of the values."""
    text = values.get("input") or ""
    if not text or (text != "all" and text.strip("0123456789-,[]")):
        return None
    values["input"] = None
    return ranks_of_input("--input", text)


def ranks_of_input(option: str, text: str | None) -> str | None:
    """The tasks that get our standard input, as an idset; None for all of them."""
    if text is None or text == "all":
        return None
    from ..journal.idset import mask_of, text_of

    try:
        return text_of(mask_of(text))
    except Rejected as error:
        raise bad(option, error) from None


def forwarded_input(values: dict[str, Any]) -> int | None:
    """The descriptor whose bytes go to the job: ours, unless it is closed, /dev/null or not ours to read."""
    if values.get("input"):
        return None
    try:
        found = os.fstat(0)
        if found.st_rdev == os.stat(os.devnull).st_rdev and found.st_rdev:
            return None
        if os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
            return None  # in the background: reading would stop us
    except OSError:
        return None
    return 0
