"""A job's output and input as seen from outside (RFC 24): reading its stream, writing it out, attaching.

Only reads and forwards; what a job's output is, its agent decides.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from ..journal.ids import f58
from ..journal.job import Job
from ..journal.wire import Commit, pack, unpack, well_formed
from ..kvs.keys import Keys
from ..kvs.port import Message, Store
from .follow import Follower, JobResult, Tail, result_of

READ = 65536
LOOK_S = 0.05  # how often output that goes on in a file is looked for

OURS = b"fluxkv: "  # how what we say in a job's output begins
MOST_SAID = 64


class OutputWriter:
    """Writes a job's output events to two binary streams.

    label: put "RANK: " (and `prefix`) before each line. Labelled text is written by whole
    lines, so that those of several ranks never mix.
    """

    def __init__(
        self, stdout: IO[bytes], stderr: IO[bytes], *, label: bool = False, prefix: str = ""
    ) -> None:
        self._streams = {"stdout": stdout, "stderr": stderr}
        self._label = label
        self._prefix = prefix
        self._partial: dict[tuple[str, str], bytes] = {}
        self._rests: list[_Rest] = []
        self._attempt = 1
        self.redirected: Callable[[str, str], None] | None = None  # hears which stream goes to which file
        self.said: set[str] = set()  # our own lines in the job's output: why a task could not start

    def take(self, data: bytes) -> None:
        """One message of the stream."""
        name, context = unpack(data)
        if name == "data":
            self._data(context)
        elif name == "log" and (rest := _Rest.open(context.get("rest"))) is not None:
            self._rests.append(rest)
        elif name == "log":
            self._emit("stderr", f"fluxkv: {self._prefix}{context.get('message', '')}\n".encode())
        elif name == "redirect" and self.redirected is not None:
            self.redirected(str(context.get("stream", "")), str(context.get("path", "")))

    def follow_files(self) -> bool:
        """Write what has come in files that hold what the stream does not; whether there are such files."""
        for file in self._rests:
            while data := os.pread(file.fd, 16 * READ, file.offset):
                file.offset += len(data)
                self._data({"stream": file.stream, "rank": file.rank, "data": data})
        return bool(self._rests)

    def flush(self) -> None:
        """The job is over: write out the rest, lines without an end among it."""
        self.follow_files()
        for file in self._rests:
            os.close(file.fd)
        self._rests.clear()
        self._end_lines()
        for target in self._streams.values():
            target.flush()

    def _end_lines(self) -> None:
        for (stream, rank), rest in self._partial.items():
            if rest:
                self._emit(stream, self._mark(rank) + rest + b"\n")
        self._partial.clear()

    def _data(self, context: dict[str, Any]) -> None:
        text = data_of(context)
        if not text:
            return
        stream, rank = str(context.get("stream", "stdout")), str(context.get("rank", "0"))
        if (attempt := context.get("attempt", 1)) != self._attempt:  # the one before may have left a line without its end
            self._attempt = attempt
            self._end_lines()
        if text.startswith(OURS) and len(self.said) < MOST_SAID:
            self.said.add(text[len(OURS) :].decode(errors="replace").rstrip("\n"))
        if not self._label:
            self._emit(stream, text)
            return
        *lines, rest = (self._partial.pop((stream, rank), b"") + text).split(b"\n")
        if rest:
            self._partial[stream, rank] = rest
        mark = self._mark(rank)
        self._emit(stream, b"".join(mark + line + b"\n" for line in lines))

    def _mark(self, rank: str) -> bytes:
        return f"{self._prefix}{rank}: ".encode()

    def _emit(self, stream: str, text: bytes) -> None:
        target = self._streams.get(stream, self._streams["stdout"])
        if text:
            target.write(text)
            target.flush()


class _Rest:
    """Output beyond what the stream takes, in a file on this host. offset: bytes written out so far."""

    __slots__ = ("fd", "offset", "rank", "stream")

    def __init__(self, fd: int, stream: str, rank: str, offset: int) -> None:
        self.fd, self.stream, self.rank, self.offset = fd, stream, rank, offset

    @classmethod
    def open(cls, where: dict[str, Any] | None) -> _Rest | None:
        """None if nothing was left out, or its file cannot be read from here."""
        if not where:
            return None
        try:
            fd = os.open(where["path"], os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        return cls(fd, str(where["stream"]), str(where["rank"]), int(where["offset"]))


def data_of(context: dict[str, Any]) -> bytes:
    """The bytes of a `data` event."""
    data = context.get("data") or b""
    if isinstance(data, str):
        if context.get("encoding") == "base64":
            import base64

            data = base64.b64decode(data)
        else:
            data = data.encode(errors="surrogateescape")
    return bytes(data) * int(context.get("repeat", 1))


def read_output(store: Store, id: int, writer: OutputWriter, after: str = "0") -> str:
    """Write what a job has put out since message `after`; the id of the last message."""
    key = Keys(store.namespace).output(id)
    while True:
        messages = store.messages(key, after)
        for message in messages:
            writer.take(message.data)
            after = message.id
        if not messages:
            return after


class Attachment:
    """One job followed until it ends: its output is written, other descriptors are served meanwhile.

    tail_at: (version, entry id or "") of the state `job` was taken from. on_event: called with
    (name, timestamp, context) of each of the job's events.
    """

    def __init__(
        self, store: Store, job: Job, tail_at: tuple[int, str], writer: OutputWriter,
        on_event: Callable[[str, float, dict[str, Any]], None] | None = None,
    ) -> None:  # fmt: skip
        self.id = job.id
        self._store = store
        self._job = job
        self._follower = Follower([job])
        self._writer = writer
        self._on_event = on_event
        self._output = Keys(store.namespace).output(self.id)
        self._input = Keys(store.namespace).input(self.id)
        self._seen = "0"
        self._tail = Tail(store, *tail_at, streams={self._output: "0"})
        self._served: dict[int, Callable[[], None]] = {}
        self._wrote = self._input_over = False

    def serve(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call back whenever the descriptor is readable."""
        self._served[descriptor] = callback

    def forward_input(self, descriptor: int, ranks: str | None = None, at_end: Callable[[], None] | None = None) -> None:
        """Send what comes on a descriptor to the standard input of tasks (an idset; None: all of them), and its end.

        at_end: called in place of that.
        """
        for_whom = [ranks] if ranks is not None else []

        def forward() -> None:
            try:
                data = os.read(descriptor, READ)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data and at_end is not None:
                at_end()
                return
            self._store.push(self._input, [pack(["data", data, *for_whom]) if data else pack(["eof"])])
            self._wrote = True
            if not data:
                self._input_over = True
                self._served.pop(descriptor, None)

        self.serve(descriptor, forward)

    def resize(self, rows: int, columns: int) -> None:
        """Say how large the window is that the job's terminal is shown in."""
        self._store.push(self._input, [pack(["resize", rows, columns])])
        self._wrote = True

    def drop_input(self) -> None:
        """The job will never run: nobody else takes away what was written for it."""
        if self._wrote:
            self._store.delete(self._input)

    def run(self, timeout_s: float | None = None) -> JobResult:
        """Follow to the end. Raises Unavailable(code="timeout")."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            if self._job.t_inactive:
                return self._ended(result_of(self._job))
            patience = self._tail.patience()
            while True:
                commits, messages = self._tail.poll(0.0)
                for key, items in messages:
                    if key == self._output:
                        self._write(items)
                for commit in commits:
                    self._tell(commit)
                    for result in self._follower.take(commit):
                        return self._ended(result)
                left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
                if left <= 0:
                    raise patience.late(f"job {f58(self.id)} is still active")
                if commits or messages:
                    patience.something()
                else:
                    patience.nothing()
                    self._wait(min(left, LOOK_S) if self._writer.follow_files() else left)
        finally:
            self._tail.close()

    def _ended(self, result: JobResult) -> JobResult:
        if self._wrote:
            self._store.delete(self._input)  # kept for another attempt, if it is there still
        read_output(self._store, self.id, self._writer, self._seen)
        self._writer.flush()
        return result

    def _write(self, items: list[Message]) -> None:
        for message in items:
            self._writer.take(message.data)
            self._seen = message.id

    def _tell(self, commit: Commit) -> None:
        for name, subject, timestamp, context in well_formed(commit.events):
            if subject == self.id:
                if name == "requeue" and self._input_over:
                    self._store.push(self._input, [pack(["eof"])])  # the next attempt may find no more than that
                if self._on_event is not None:
                    self._on_event(name, timestamp, context or {})

    def _wait(self, timeout_s: float) -> None:
        fileno = self._tail.fileno()
        readable, _, _ = select.select([*([fileno] if fileno >= 0 else []), *self._served], [], [], timeout_s)
        for descriptor in readable:
            callback = self._served.get(descriptor)
            if callback is not None:
                callback()


def watch(
    store: Store, known: list[Job], tail_at: tuple[int, str], writer_of: Callable[[int], OutputWriter],
    deadline: float | None = None, live: int = 64,
) -> Iterator[list[JobResult]]:  # fmt: skip
    """As `follow_results`, writing the output too: of the first `live` jobs as it comes. known: the jobs as of `tail_at`."""
    ended = [result_of(job) for job in known if job.t_inactive]
    for result in ended:
        writer = writer_of(result.id)
        read_output(store, result.id, writer)
        writer.flush()
    if ended:
        yield ended
    follower = Follower(job for job in known if not job.t_inactive)
    if not follower.waiting:
        return
    keys = Keys(store.namespace)
    writers: dict[int, OutputWriter] = {}
    seen: dict[str, str] = {keys.output(id): "0" for id in list(follower.waiting)[:live]}
    ids = {keys.output(id): id for id in list(follower.waiting)[:live]}
    tail = Tail(store, *tail_at, streams=dict(seen))
    patience = tail.patience()
    try:
        while follower.waiting:
            left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            if left <= 0:
                count = len(follower.waiting)
                raise patience.late(f"{count} job{'s' if count > 1 else ''} still active")
            commits, messages = tail.poll(left)
            for key, items in messages:
                writer = writers.setdefault(ids[key], writer_of(ids[key]))
                for message in items:
                    writer.take(message.data)
                    seen[key] = message.id
            for writer in writers.values():
                writer.follow_files()
            ended = []
            for commit in commits:
                ended += follower.take(commit)
            for result in ended:
                writer = writers.pop(result.id) if result.id in writers else writer_of(result.id)
                read_output(store, result.id, writer, seen.get(keys.output(result.id), "0"))
                writer.flush()
            yield ended
            if commits or messages:
                patience.something()
            else:
                patience.nothing()
    finally:
        tail.close()
