"""Staying with a job: its output on ours, our input to it, Ctrl-C. Decides what a user sees of one job as it runs.

Used by run, submit --watch and job attach.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from ..journal.ids import f58
from ..kvs.errors import FluxkvError, Rejected
from .options import bad
from .render import say

if TYPE_CHECKING:
    from ..instances.client import Instance
    from ..instances.output import Attachment, OutputWriter
    from .terminal import Session

SIGINT, SIGALRM = 2, 14  # the module costs more than they
PENDING_S = 1.5  # after which it is said on a terminal that the job waits, and for what
MOST_FILES = 8  # that are named of those with a job's output


def attach_job(
    instance: Instance, id: int, input_fd: int | None, *, ranks: str | None = None, label: bool = False, verbose: bool = False,
    show_exceptions: bool = True, timeout: float | None = None, until: str | None = None, terminal: str = "", ours: bool = False,
    looks_in: bool = False,
) -> int:  # fmt: skip
    """Follow a job to its end, its output on ours; its exit code as a shell gives it.

    ranks: the tasks our input is for, None for all. until: an event that is enough. terminal: "own" if the job has our terminal
    for its own, "shared" if it has one that we look at and type into. ours: the job is for us alone: before it runs, one Ctrl-C
    cancels it. looks_in: somebody has submitted it at some time; which files its output goes to, and how it ended, is said.
    """
    telling = _Telling(id, writers(label, False)(id), verbose, show_exceptions, until)
    if looks_in:
        telling.writer.redirected = lambda stream, path: telling.elsewhere(stream, path, instance)
    attachment = instance.attach(id, telling.writer, telling.hear)
    handlers: dict[int, Callable[[], None]] = {}
    if sys.stderr.isatty():
        handlers[SIGALRM] = lambda: telling.waits(instance, "Ctrl-C cancels it" if ours else f"fluxkv explain {f58(id)} says more")
    if terminal:
        from .terminal import Session

        telling.session = Session(instance, id, attachment, ours=terminal == "own")
        handlers.update(telling.session.handlers())
    if input_fd is not None:
        attachment.forward_input(input_fd, ranks, telling.session.no_input if telling.session is not None else None)
    with Interrupts(instance, id, attachment, handlers, ours=ours) as interrupts, telling.session or nullcontext():
        try:
            telling.begin()
            if not telling.started:
                interrupts.alarm(PENDING_S)
            result = attachment.run(timeout)
        except Detached as detached:
            return 128 + detached.signum
        except Reached:
            return 0
    if looks_in and not result.ok and result.status is not None and not telling.exception:
        from .eventview import status_text

        say(f"fluxkv: {f58(id)}: {status_text(result.status)}")
    return result.returncode


def why_it_waits(instance: Instance, id: int) -> str:
    """What keeps a job from running, and when it is expected to, in one line; "" if nobody can say, or it does not wait."""
    from ..journal.job import NEW, PENDING
    from .foresight import foresee
    from .jobview import View, info

    try:
        state = instance.state()
        job = state.jobs.get(id)
        if job is None or not job.state & (PENDING | NEW):
            return ""
        view = View(state, instance.store.now(), instance.journal)
        foresee(view, [job], ("info",))
        return info(job, view)
    except FluxkvError:  # it is asked once more by whoever follows the job
        return ""


class _Telling:
    """What is said about a job's events while it is attached. Those that have been are kept until `begin`."""

    def __init__(self, id: int, writer: OutputWriter, verbose: bool, exceptions: bool, until: str | None) -> None:
        from .eventlines import EventLines

        self.writer = writer
        self.session: Session | None = None
        self.started = False
        self.exception = False  # whether one was told
        self._files: set[str] = set()
        self._id, self._verbose, self._exceptions, self._until = id, verbose, exceptions, until
        self._lines = EventLines("text", "offset")
        self._past: list[tuple[str, float, dict[str, Any]]] | None = []

    def begin(self) -> None:
        past, self._past = self._past or [], None
        for event in past:
            self.hear(*event)

    def hear(self, name: str, timestamp: float, context: dict[str, Any]) -> None:
        """An event. Raises `Reached` at the one that is enough."""
        if self._past is not None:
            self._past.append((name, timestamp, context))
            return
        if text := self._text(name, timestamp, context):
            self._say(text)
        if name == "start":
            self.started = True
        elif name == "requeue":
            self.exception = False  # of the attempt before
        if self.session is not None and name in ("start", "finish"):
            (self.session.begin if name == "start" else self.session.end)()
        if name == self._until:
            raise Reached

    def _say(self, text: str) -> None:
        (self.session.tell if self.session is not None else say)(text)

    def elsewhere(self, stream: str, path: str, instance: Instance) -> None:
        """One of its streams goes to a file, whose path may begin at its working directory."""
        if path in self._files or len(self._files) > MOST_FILES:
            return
        self._files.add(path)
        if len(self._files) > MOST_FILES:
            text = "more of its output goes to other files"
        else:
            text = f"{stream} goes to {os.path.join(_directory_of(instance, self._id), path)}"
        self._say(f"fluxkv: {f58(self._id)}: {text}")

    def waits(self, instance: Instance, what_now: str) -> None:
        """It does not run yet."""
        if not self.started:
            why = why_it_waits(instance, self._id)
            self._say(f"fluxkv: job {f58(self._id)} waits{f': {why}' if why else ''}; {what_now}")

    def _text(self, name: str, timestamp: float, context: dict[str, Any]) -> str:
        self.exception = self.exception or (name == "exception" and not context["severity"])
        if name == "exception" and self._exceptions:
            if context["note"] in self.writer.said and not self._verbose:
                return ""  # it could not start, and its output says why
            return exception_line(self._id, context["type"], context["note"], context["severity"])
        if name == "requeue" and not self._verbose:
            return requeue_line(self._id, context)
        return self._lines.text(name, timestamp, context) if self._verbose else ""


def _directory_of(instance: Instance, id: int) -> str:
    """The working directory of a job, "" where nobody knows."""
    from ..instances.job_path import jobspec_of

    try:
        return str(jobspec_of(instance.job(id), instance.journal)["attributes"]["system"].get("cwd") or "")
    except (FluxkvError, KeyError):
        return ""


class Reached(Exception):
    """The event that was waited for has come."""


class Detached(Exception):
    """The user left the job alone (second Ctrl-C, or a closed terminal)."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Interrupts:
    """Ctrl-C while attached: once, SIGINT goes to the job; again within two seconds, or if it is `ours` and does not run, it is
    cancelled. handlers: what other signals mean, and SIGINT where it means something else."""

    def __init__(
        self, instance: Instance, id: int, attachment: Attachment, handlers: Mapping[int, Callable[[], None]] | None = None, *,
        ours: bool = False,
    ) -> None:  # fmt: skip
        self._ours = ours
        self._instance = instance
        self._id = id
        self._attachment = attachment
        self._last = 0.0
        self._pipe: tuple[int, int] | None = None
        self._handlers = {SIGINT: self._interrupted, **(handlers or {})}
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        import signal
        import threading

        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._attachment.serve(self._pipe[0], self._told)
        self._before = {signum: signal.signal(signum, lambda *_: None) for signum in self._handlers}
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        import signal

        if self._pipe is not None:
            self.alarm(0.0)
            signal.set_wakeup_fd(self._wakeup)
            for signum, before in self._before.items():
                signal.signal(signum, before)
            for descriptor in self._pipe:
                os.close(descriptor)

    def alarm(self, after_s: float) -> None:
        """SIGALRM then, if anybody here takes it; 0: none any more."""
        import signal

        if self._pipe is not None and SIGALRM in self._handlers:
            signal.setitimer(signal.ITIMER_REAL, after_s)

    def _told(self) -> None:
        assert self._pipe is not None
        told = os.read(self._pipe[0], 64)
        for signum in dict.fromkeys(told):
            if signum in self._handlers:
                self._handlers[signum]()

    def _interrupted(self) -> None:
        import time

        now = time.monotonic()
        try:
            if self._last and now - self._last < 2.0:
                self._cancel()
            self._last = now
            self._instance.kill(self._id, SIGINT)
            say("fluxkv: SIGINT sent to the job; ctrl-C again within 2 s cancels it")
        except FluxkvError as error:
            if self._ours and error.code == "not-running":
                with suppress(FluxkvError):  # it has ended
                    self._cancel()
            say(f"fluxkv: {error}; ctrl-C again within 2 s cancels it")

    def _cancel(self) -> None:
        say(f"fluxkv: cancelling job {f58(self._id)}")
        self._instance.cancel([self._id], "interrupted by ctrl-C")
        raise Detached(SIGINT)


def exception_line(id: int, kind: str, note: str, severity: int = 0) -> str:
    """How an exception is shown, on one line."""
    return f"fluxkv: {f58(id)}: exception: type={kind} severity={severity} note={' '.join(str(note).split())}"


def requeue_line(id: int, context: dict[str, Any]) -> str:
    """How it is said that another attempt follows."""
    from ..journal.retry import describe

    return f"fluxkv: {f58(id)}: attempt {context.get('attempt')}: {' '.join(describe(context).split())}"


def terminal_for(jobspec: Mapping[str, Any] | None, how: str) -> str:
    """`how` if the job wants a terminal and we have one, else nothing."""
    system = ((jobspec or {}).get("attributes") or {}).get("system") or {}
    pty = ((system.get("shell") or {}).get("options") or {}).get("pty")
    if not isinstance(pty, Mapping) or not pty.get("interactive"):
        return ""
    from .terminal import on_terminal

    return how if on_terminal() else ""


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
