"""Many jobs at once: submitting them as they are made, printing ids, waiting, watching, a bar. Decides what submit,
bulksubmit, resubmit and watch print, and their exit status.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import click

from ..journal.ids import f58
from ..kvs.errors import FluxkvError
from .attaching import PENDING_S, exception_line, why_it_waits
from .options import bad
from .render import out, progress, say

if TYPE_CHECKING:
    from ..instances.client import Instance
    from ..instances.follow import JobResult
    from ..instances.output import OutputWriter

TOLD = 10  # exceptions that are told one by one


class Piece(NamedTuple):
    """A job to submit. log: files of --log and --log-stderr, "" for the terminal."""

    jobspec: dict[str, Any]
    env: Mapping[str, str | None]
    urgency: int
    log: tuple[str, str] = ("", "")
    key: str = ""


class Ensemble:
    """Jobs that are submitted and followed together. values: of the options of `ensemble_options`."""

    def __init__(self, instance: Instance, values: Mapping[str, Any]) -> None:
        self.ids: list[int] = []
        self._instance = instance
        self._values = values
        self._logs = Logs()
        self._log_of: dict[int, tuple[str, str]] = {}
        event = event_name(values.get("wait_event"))
        self._event = "" if event == "clean" else event
        self.waits = bool(event or values.get("wait") or values.get("watch") or values.get("show_progress"))

    def submit(self, pieces: Iterable[Piece], flags: int, blobs: dict[str, bytes] | None = None) -> None:
        """Submit them as they come; ids are printed as soon as their commit is taken. blobs: fills as jobs are made."""
        logs: list[tuple[str, str]] = []

        def items() -> Iterator[tuple[dict[str, Any], Mapping[str, str | None], int, str]]:
            for piece in pieces:
                if blobs:  # before the job that names them
                    put_blobs(self._instance, blobs)
                if piece.log != ("", ""):
                    self._logs.stdout(piece.log)  # a file that cannot be opened is said before its job is submitted
                    self._logs.stderr(piece.log)
                    logs.append(piece.log)
                yield piece.jobspec, piece.env, piece.urgency, piece.key

        try:
            for ids in self._instance.submitter.stream(items(), flags):
                self.ids += ids
                if logs:
                    self._log_of.update(zip(ids, logs, strict=False))
                    del logs[: len(ids)]
                self._print(ids)
            sys.stdout.flush()  # ids that are not taken are told below
        except (FluxkvError, click.ClickException, OSError, KeyboardInterrupt):
            self._logs.close()
            if self.ids:
                with suppress(OSError):
                    sys.stdout.flush()
                many = f"{len(self.ids)} jobs, {f58(self.ids[0])} to {f58(self.ids[-1])}"
                say(f"fluxkv: submitted before this: {many if len(self.ids) > 1 else f'1 job, {f58(self.ids[0])}'}")
            raise

    def _print(self, ids: list[int]) -> None:
        if self._values.get("quiet"):
            return
        if not self._log_of:
            out("\n".join([f58(id) for id in ids]))
            return
        for id in ids:
            self._logs.stdout(self._log_of.get(id)).write(f58(id).encode() + b"\n")

    def finish(self, timeout: float | None) -> int:
        """Wait as asked; the exit status. Ctrl-C leaves the jobs alone."""
        try:
            if not self.waits or not self.ids:
                return 0
            sys.stdout.flush()
            if self._event:
                return wait_event(self._instance, self.ids, self._event, timeout)
            with noted_interrupts() as asked:
                return self._follow(timeout, asked)
        except KeyboardInterrupt:
            say("fluxkv: the jobs go on; fluxkv watch follows them again, fluxkv cancel ends them")
            return 130
        finally:
            self._logs.close()

    def _follow(self, timeout: float | None, asked: Sequence[int]) -> int:
        values = self._values
        if values.get("watch"):
            batches = self._instance.watch(self.ids, self._writers(), timeout)
        else:
            batches = self._instance.batches(self.ids, timeout)
        bar, jps = bool(values.get("show_progress")), bool(values.get("jps"))
        return follow(self._impatiently(batches, asked), len(self.ids), bar=bar, jps=jps)

    def _impatiently(self, batches: Iterable[list[JobResult]], asked: Sequence[int]) -> Iterator[list[JobResult]]:
        """The same; on a terminal it is said once why the first of the jobs waits, while none has ended. asked: of Ctrl-C."""
        asks_at = time.monotonic() + PENDING_S if sys.stderr.isatty() else math.inf
        for batch in batches:
            if batch:
                asks_at = math.inf
            elif time.monotonic() >= asks_at:
                asks_at = math.inf
                if text := why_it_waits(self._instance, self.ids[0]):
                    say(f"fluxkv: job {f58(self.ids[0])} waits: {text}")
            if asked:
                raise KeyboardInterrupt
            yield batch

    def _writers(self) -> Callable[[int], OutputWriter]:
        from ..instances.output import OutputWriter

        label, many = bool(self._values.get("label_io")), len(self.ids) > 1

        def writer(id: int) -> OutputWriter:
            prefix = f"{f58(id)}: " if many and label else ""
            log = self._log_of.get(id)
            return OutputWriter(self._logs.stdout(log), self._logs.stderr(log), label=label, prefix=prefix)

        return writer


@contextmanager
def noted_interrupts() -> Iterator[list[int]]:
    """Ctrl-C raises KeyboardInterrupt as ever, and is noted: in the middle of an import, or of an object's end, that is lost."""
    import signal

    asked: list[int] = []

    def noted(signum: int, frame: object) -> None:
        asked.append(signum)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as it is in the background of a script
        signal.signal(signal.SIGINT, noted)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def event_name(text: str | None) -> str:
    """The event of --wait-event, "" for none. Raises click.BadParameter."""
    if text and text.startswith("exec."):
        raise bad("--wait-event", f"{text!r}: there is no event log of the shell; start says that all tasks run")
    return text or ""


def put_blobs(instance: Instance, blobs: dict[str, bytes]) -> None:
    """Store contents under their names, one by one, and forget them."""
    while blobs:
        name, data = blobs.popitem()
        instance.store.put_blobs({name: data})


class Logs:
    """The files of --log and --log-stderr, opened once; the terminal's streams for those without."""

    def __init__(self) -> None:
        self._open: dict[str, IO[bytes]] = {}
        self._seen: set[str] = set()

    def stdout(self, log: tuple[str, str] | None) -> IO[bytes]:
        """Where ids and output go."""
        return self._file(log[0]) if log and log[0] else sys.stdout.buffer

    def stderr(self, log: tuple[str, str] | None) -> IO[bytes]:
        """Where standard error goes: its own file, else that of the output."""
        return self._file(log[1] or log[0]) if log and (log[1] or log[0]) else sys.stderr.buffer

    def _file(self, path: str) -> IO[bytes]:
        found = self._open.get(path)
        if found is None:
            if len(self._open) >= 256:  # descriptors are few; a file closed before is appended to
                self.close()
            how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if path in self._seen else os.O_TRUNC)
            self._seen.add(path)
            found = self._open[path] = os.fdopen(os.open(path, how, 0o666), "ab")
        return found

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()


def follow(
    batches: Iterable[list[JobResult]], total: int, *, bar: bool, jps: bool = False, done: int = 0, failed: int = 0
) -> int:
    """Take results as they come; the worst exit code. done, failed: of jobs that had ended before."""
    worst = told = 0

    def take(batch: list[JobResult]) -> None:
        nonlocal worst, done, failed, told
        for result in batch:
            done += 1
            failed += not result.ok
            worst = max(worst, result.returncode)
            if result.exception is not None:
                told += 1
                if told <= TOLD:
                    say(exception_line(result.id, *result.exception))

    if bar:
        with progress(total, rate=jps, done=done, failed=failed) as drawn:
            for batch in batches:
                take(batch)
                drawn.update(done, failed)
    else:
        for batch in batches:
            take(batch)
    if told > TOLD:
        say(f"fluxkv: {told - TOLD} more jobs had exceptions; fluxkv jobs -a -f failed,canceled,timeout lists them")
    return worst


def wait_event(instance: Instance, ids: list[int], event: str, timeout: float | None) -> int:
    """Wait until each of these fresh jobs has had an event; 1 if one ended without it."""
    from ..instances.follow import Tail
    from ..journal.wire import well_formed

    deadline = None if timeout is None else time.monotonic() + timeout
    waiting = set(ids)
    without: list[int] = []
    since = instance.submitter.submitted
    old = [id for id in waiting if id not in since]  # they had their keys before: what has happened to them is in the journal
    versions = [since[id] for id in waiting if id in since]
    if old:
        state = instance.state()
        versions.append(state.version)
        for job in instance.journal.known_jobs(state, old):
            names = {one.name for _, one in instance.journal.story(job.commits, job.id)}
            if not names.isdisjoint((event, "clean")):
                waiting.discard(job.id)
                if event not in names:
                    without.append(job.id)
    tail = Tail(instance.store, min(versions))
    patience = tail.patience()
    try:
        while waiting:
            left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            if left <= 0:
                raise patience.late(f"{len(waiting)} job{'s' if len(waiting) > 1 else ''} had no event {event}")
            before = tail.version
            for commit in tail.each(left):
                for name, subject, _, _ in well_formed(commit.events):
                    if subject in waiting and name in (event, "clean", "invalidate"):
                        waiting.discard(subject)
                        if name != event:
                            without.append(subject)
            if tail.version > before:
                patience.something()
            else:
                patience.nothing()
    finally:
        tail.close()
    for id in without[:TOLD]:
        say(f"fluxkv: {f58(id)}: ended without event {event}")
    if len(without) > TOLD:
        say(f"fluxkv: {len(without) - TOLD} more ended without it")
    return 1 if without else 0


F = Callable[..., Any]
_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--quiet",), {"is_flag": True, "help": "Print no ids."}),
    (("--wait",), {"is_flag": True, "help": "Wait until all have ended; exit with the worst code."}),
    (("--wait-event",), {"metavar": "NAME", "help": "Wait until each job has had this event (start, finish, ...)."}),
    (("--watch",), {"is_flag": True, "help": "Show their output, and wait."}),
    (("--progress", "show_progress"), {"is_flag": True, "help": "Show how many are done, and wait."}),
    (("--jps",), {"is_flag": True, "help": "Show jobs per second with --progress."}),
    (("--timeout",), {"metavar": "FSD", "help": "How long to wait at most."}),
)
_LOGS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--log",), {"metavar": "FILE", "help": "Ids and (--watch) output go to this file; {cc} and {} are replaced."}),
    (("--log-stderr",), {"metavar": "FILE", "help": "Standard error of --watch to a file of its own."}),
)


def ensemble_options(command: F) -> F:
    """Adds the options of whoever submits many: ids, waiting, watching."""
    for names, settings in reversed(_OPTIONS):
        command = click.option(*names, **settings)(command)
    return command


def log_options(command: F) -> F:
    """Adds --log and --log-stderr."""
    for names, settings in reversed(_LOGS):
        command = click.option(*names, **settings)(command)
    return command
