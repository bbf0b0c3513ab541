"""Forwards what tasks write to spool files to the job's capped stream, and standard input the other way.

The runner's helper beside an agent. Files are read as they grow (a look every `LOOK_S` while anything runs, and once at
the end, before the end is reported), so that nothing hangs on a pipe of a daemon. Truncation is visible; the file stays.
"""

from __future__ import annotations

import base64
import errno
import os
import time
from collections.abc import Callable
from typing import Any

from ..journal import stdio
from ..journal.idset import mask_of
from ..journal.wire import pack, unpack
from ..kvs.errors import Unavailable
from ..kvs.keys import Keys
from ..kvs.port import Store
from .paths import write_json
from .spool import input_path, output_paths
from .terminals import write_frames
from .watched import LIMIT as LIMIT
from .watched import Tail, Watched, copied, has_grown, may_grow, opened, size_of, unlink

LOOK_S = 0.05
DEAF = 4  # looks after which a pipe without a reader is given up
CHUNK = 64 * 1024
LEAST = 64 * 1024  # that are forwarded of each attempt whatever those before it wrote


class Forwarder:
    """Knows the running attempts of an agent. `collect` and `finish` push to the store."""

    def __init__(self, store: Store, keys: Keys, spool: str, host: str) -> None:
        self.store = store
        self.keys = keys
        self.spool = spool
        self.host = host
        self.watched: dict[str, Watched] = {}
        self.fresh: dict[str, dict[str, Any]] = {}
        self.full = False  # past the soft memory line: what tasks print stays in its files
        self.asking: list[tuple[int, str, bool]] = []
        self.young: dict[str, float] = {}  # started, and not looked at yet: when
        self.looked = 0.0  # when all sizes were looked at

    def add(self, attempt: dict[str, Any]) -> None:
        """An attempt goes to the launcher. Costs nothing until it is looked at."""
        self.fresh[attempt["key"]] = attempt
        if attempt["stdin"] == "fifo":
            keep = attempt.get("keep_input", False) and not attempt.get("pty")
            self.asking.append((attempt["job"], attempt["key"], keep))
        if attempt.get("number", 1) > 1 or attempt.get("pty"):
            self._note(attempt)  # or an agent after us would take for this one's what an earlier attempt has put out

    def _watch(self, attempt: dict[str, Any]) -> Watched:
        job, key = attempt["job"], attempt["key"]
        targets = attempt.get("label") or {}
        files = attempt.get("task_files") or {}
        both = [attempt["stdout"], attempt["stderr"]]
        tails: list[Tail] = []
        ranks = [task[0] for task in attempt["tasks"]]
        per_task = attempt["per_task_output"]
        for rank in ranks if per_task else [None]:
            out, err = output_paths(self.spool, job, key, rank)
            text = str(rank if rank is not None else ranks[0])
            target = targets.get(text) or targets.get("") or ("", "")
            users = files.get(text) or both
            for stream, path, gone, wanted in zip(("stdout", "stderr"), (out, err), users, target, strict=True):
                if not gone:
                    tails.append(Tail(path, stream, text, wanted, (attempt.get("base") or {}).get(wanted, 0)))
        fifo = {}
        if attempt["stdin"] == "fifo":
            many = len(ranks) > 1
            readers = attempt.get("pty") or ranks
            fifo = {input_path(self.spool, job, key, rank if many else None): rank for rank in readers}
        return Watched(
            job, key, tails, fifo, attempt["index"], attempt["total"], attempt.get("number") or 1,
            bool(attempt.get("pty")), bool(attempt.get("pty_spread")),
        )  # fmt: skip

    def adopt(self, job: int, key: str) -> None:
        """An attempt that an earlier agent watched: go on behind what that one forwarded."""
        if key in self.watched or key in self.fresh:
            return
        noted = self._noted(key)
        if noted is not None:
            watched = self._watch(noted)
            watched.noted = True
            if watched.pty and watched.fifo and not watched.spread:  # what was passed on is gone from the stream
                self.asking.append((job, key, False))
        else:
            watched = Watched(job, key, self._found(job, key), {input_path(self.spool, job, key): 0}, 1, 1)
        self._recount(watched)
        for tail in watched.tails:
            if tail.target:
                tail.taken = copied(tail)
        self.watched[key] = watched

    def _found(self, job: int, key: str) -> list[Tail]:
        """The output files an attempt has in the spool."""
        out, err = output_paths(self.spool, job, key)
        tails: list[Tail] = []
        base = out.removesuffix(".out")
        try:
            names = sorted(os.listdir(os.path.dirname(out)))
        except OSError:
            names = []
        for name in names:
            path = os.path.join(os.path.dirname(out), name)
            if path in (out, err) or path.startswith(base + "."):
                middle = path[len(base) :].rpartition(".")[0].lstrip(".")
                tails.append(Tail(path, "stdout" if path.endswith(".out") else "stderr", middle or "0", ""))
        return tails

    def _note(self, attempt: dict[str, Any]) -> bool:
        """Write down what an agent after us could not find out from the files: whose they are, and where copies go."""
        names = ("job", "key", "stdout", "stderr", "per_task_output", "stdin", "index", "total", "label", "task_files", "number",
                 "pty", "pty_spread")
        kept = {name: attempt.get(name) for name in names}
        if attempt.get("label") and attempt.get("append"):
            attempt["base"] = kept["base"] = {path: size_of(path) for path in attempt["label_files"]}
        kept["tasks"] = [[task[0]] for task in attempt["tasks"]]
        try:
            os.makedirs(os.path.join(self.spool, "watch"), mode=0o700, exist_ok=True)
            write_json(self._note_file(attempt["key"]), kept)
        except OSError:
            return False  # on a full disk an agent after us sees to what it can
        return True

    def _note_file(self, key: str) -> str:
        return os.path.join(self.spool, "watch", key)

    def _noted(self, key: str) -> dict[str, Any] | None:
        import json

        try:
            with open(self._note_file(key)) as file:
                return dict(json.load(file))
        except (OSError, ValueError):
            return None

    def _recount(self, watched: Watched) -> None:
        """Begin again behind what the store has of these files."""
        sizes: dict[tuple[str, str], int] = {}
        earlier: dict[tuple[str, str], int] = {}  # of other attempts
        for message in self.store.messages(self.keys.output(watched.job), limit=100_000):
            name, context = unpack(message.data)
            if name != "data" or not context.get("data"):
                continue
            text = context["data"]
            size = len(base64.b64decode(text)) if context.get("encoding") == "base64" else len(text.encode())
            whose = (context["stream"], str(context["rank"]))
            those = sizes if context.get("attempt", 1) == watched.number else earlier
            those[whose] = those.get(whose, 0) + size
        for tail in watched.tails:
            if not tail.target:
                tail.taken = sizes.get((tail.stream, tail.ranks), 0)
                tail.partial = b""
                tail.limit = max(LEAST, LIMIT - earlier.get((tail.stream, tail.ranks), 0))
                tail.truncated = tail.taken >= tail.limit

    def collect(self, keys: list[str] | None = None) -> None:
        """Forward what has grown: of all attempts, or of these."""
        now = time.monotonic()
        for key in [key for key, begun in self.young.items() if now - begun >= LOOK_S]:
            del self.young[key]
            if key in self.fresh:
                self._begin(key)
        for watched in list(self.watched.values()) if keys is None else [self.watched[k] for k in keys if k in self.watched]:
            self._forward(watched, last=False)

    def looks_on(self) -> bool:
        """Whether there are files of which more is wanted."""
        return bool(self.young) or any(watched.unsure or any(map(may_grow, watched.tails)) for watched in self.watched.values())

    def has_news(self) -> bool:
        """Whether `collect` would find something, by the sizes of the files alone."""
        now = self.looked = time.monotonic()
        if any(now - begun >= LOOK_S for begun in self.young.values()):
            return True
        return any(watched.unsure or any(map(has_grown, watched.tails)) for watched in self.watched.values())

    def sleep(self, hears: Callable[[float], bool], timeout_s: float) -> bool:
        """Wait until a file has news (True: `collect` is due), something else has, or the time is over.

        hears: waits so many seconds, and says whether there was something. While tasks are silent their agent's loop has no turn:
        that is many times the work of a look. Where there is always something, they are looked at as often.
        """
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > LOOK_S and self.looks_on():
            if hears(LOOK_S):
                break
            if self.has_news():
                return True
        else:
            hears(max(0.0, left))
        return time.monotonic() - self.looked >= LOOK_S and self.has_news()

    def _begin(self, key: str) -> Watched:
        """Watch an attempt from now on, and write down what an agent after us would have to know."""
        attempt = self.fresh.pop(key)
        watched = self.watched[key] = self._watch(attempt)
        if not watched.noted and (watched.total > 1 or attempt.get("label")):
            watched.noted = self._note(attempt)
        return watched

    def hurry(self) -> None:
        """Forward what tasks on terminals have shown, without waiting for the next look."""
        self.young.update((key, 0.0) for key, attempt in self.fresh.items() if attempt.get("pty"))
        self.collect([])
        self.collect([key for key, watched in self.watched.items() if watched.pty])

    def finish(self, key: str, *, quiet: bool = False) -> bool:
        """The attempt is over: forward the rest and forget it. True if it had written anything. quiet: it has not, its launcher
        says."""
        attempt = self.fresh.get(key)
        self.young.pop(key, None)
        if attempt is not None:
            self._redirects(attempt)
            if quiet and attempt.get("number", 1) == 1 and not attempt.get("pty"):  # else a note of it is to be removed
                del self.fresh[key]
                return False
            watched = self._watch(attempt)
            del self.fresh[key]
        else:
            found = self.watched.get(key)
            if found is None:
                return False
            watched = found
        self.watched[key] = watched
        wrote = self._forward(watched, last=True)
        del self.watched[key]
        if watched.noted:
            unlink(self._note_file(key))
        return wrote

    def unstarted(self, key: str) -> None:
        """It came back and never ran: there is nothing to look at."""
        attempt = self.fresh.pop(key, None)
        if attempt is not None and (attempt.get("number", 1) > 1 or attempt.get("pty")):
            unlink(self._note_file(key))
        found = self.watched.pop(key, None)
        if found is not None and found.noted:
            unlink(self._note_file(key))

    def started(self, key: str) -> None:
        """It runs: look at its files from now on, if it runs long enough; say where output went that is not forwarded."""
        attempt = self.fresh.get(key)
        if attempt is not None:
            self.young[key] = time.monotonic()
            self._redirects(attempt)

    def _redirects(self, attempt: dict[str, Any]) -> None:
        """`redirect` events for output that goes to users' files (RFC 24), once; by the job's first node if it is for all."""
        if attempt.get("said"):
            return
        files = attempt.get("task_files") or attempt.get("label") or {"": [attempt["stdout"], attempt["stderr"]]}
        if "" in files and attempt["index"]:
            return
        events = []
        for rank, paths in files.items():
            for stream, path in zip(("stdout", "stderr"), paths, strict=True):
                if path:
                    events.append(["redirect", stdio.redirect(stream, rank or "all", path)])
        if events:
            self.store.push(self.keys.output(attempt["job"]), [pack(event) for event in events])
        attempt["said"] = True

    def _forward(self, watched: Watched, last: bool) -> bool:
        """Push what is new. Raises `Unavailable`; the next call then asks the store what it has got."""
        if watched.unsure:
            self._recount(watched)
            watched.unsure = False
        events: list[Any] = []
        wrote = False
        fresh = not any(tail.taken for tail in watched.tails)
        for tail in watched.tails:
            self._read(tail, events, last, watched.number)
            wrote = wrote or tail.taken > 0
        if events:
            if fresh and not watched.index:  # RFC 24: a header comes first, from the job's first node
                events.insert(0, ["header", stdio.header({"stdout": watched.total, "stderr": watched.total})])
            try:
                self.store.push(self.keys.output(watched.job), [pack(event) for event in events])
            except Unavailable:
                watched.unsure = True
                raise
        for tail in watched.tails if last else ():
            if tail.fd >= 0:
                os.close(tail.fd)
                tail.fd = -1
                if not tail.truncated:
                    unlink(tail.path)
        return wrote

    def _read(self, tail: Tail, events: list[Any], last: bool, number: int) -> None:
        if tail.fd < 0:
            tail.fd = opened(tail.path)
        if tail.fd < 0:  # it is empty and gone, or has no name yet (`spool_files`): it may be there when we look again
            return
        while not tail.truncated:
            data = os.pread(tail.fd, CHUNK, tail.taken)
            if not data:
                break
            tail.taken += len(data)
            if tail.target:
                self._copy(tail, data, events)
                continue
            full = tail.taken >= tail.limit or self.full
            events.append(self._event(tail, data, full, number))
            if full:
                tail.truncated = True
                where = f"all of it is in {self.host}:{tail.path}"
                note = f"{tail.stream} of task {tail.ranks} truncated after {tail.taken} bytes; {where}"
                rest = {"stream": tail.stream, "rank": tail.ranks, "path": tail.path, "offset": tail.taken}
                events.append(["log", {**stdio.log(4, note), "rest": rest}])  # readers here go on in the file
        if last and tail.partial:
            events.append(self._event(tail, b"", True, number))
        if last and tail.line:
            self._copy(tail, b"\n", events)

    def _event(self, tail: Tail, data: bytes, last: bool, number: int) -> Any:
        data = tail.partial + data
        tail.partial = b""
        if not last:
            try:
                data.decode()
            except UnicodeDecodeError as error:  # a character cut in two waits for its other half
                if error.reason == "unexpected end of data" and error.start >= len(data) - 3:
                    data, tail.partial = data[: error.start], data[error.start :]
        found = stdio.data(tail.stream, tail.ranks, data)
        return ["data", {**found, "attempt": number} if number > 1 else found]

    def _copy(self, tail: Tail, data: bytes, events: list[Any]) -> None:
        """Labelled lines to the user's file: "<task>: line".

        What cannot be written stays in the spool, and the job's log says so.
        """
        lines = (tail.line + data).split(b"\n")
        tail.line = lines.pop()
        rest = b"".join(tail.ranks.encode() + b": " + line + b"\n" for line in lines)
        try:
            fd = os.open(tail.target, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                while rest:
                    rest = rest[os.write(fd, rest) :]
            finally:
                os.close(fd)
        except OSError as error:
            if not tail.truncated:
                note = f"{tail.target}: {error.strerror}; {tail.stream} of task {tail.ranks} is in {self.host}:{tail.path}"
                events.append(["log", stdio.log(3, note)])
            tail.truncated = True

    # -- standard input -------------------------------------------------------------------------------------------

    def wants_input(self) -> list[tuple[int, str, bool]]:
        """(job, key, whether another attempt may want it too) of new attempts that read standard input from whoever is
        attached; each is told once."""
        asking, self.asking = self.asking, []
        return asking

    def on_terminal(self, key: str) -> bool:
        """Whether what the attempt reads goes to terminals."""
        if (attempt := self.fresh.get(key)) is not None:
            return bool(attempt.get("pty"))
        return key in self.watched and self.watched[key].pty

    def alone(self, key: str) -> bool:
        """Whether no other node reads the input that this attempt reads."""
        return key in self.watched and not self.watched[key].spread

    def feed(self, key: str, data: bytes, ranks: str | None = None) -> bool:
        """Write to the attempt's pipes what they take now; False if something had to be kept.

        ranks: an idset of the tasks it is for; from then on the others get no more. None: all of them.
        """
        watched = self._begin(key) if key in self.fresh else self.watched.get(key)
        if watched is None:
            return True
        watched.pending += data
        taken = watched.taken
        if ranks is not None:
            wanted = mask_of(ranks)
            for path in [path for path in taken if not wanted >> watched.fifo[path] & 1]:
                del taken[path]
        for path in list(taken):
            try:
                fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno == errno.ENXIO and len(taken) > 1 and (watched.dropped or any(taken.values())):
                    # The tasks run, and this one does not read (any more): the others go on without it.
                    watched.deaf[path] = watched.deaf.get(path, 0) + 1
                    if watched.deaf[path] >= DEAF:
                        del taken[path]
                continue
            rest = watched.pending[taken[path] - watched.dropped :]
            try:
                taken[path] += write_frames(fd, rest) if watched.pty else os.write(fd, rest)
            except BlockingIOError:
                pass
            except BrokenPipeError:
                taken[path] = watched.dropped + len(watched.pending)
            finally:
                os.close(fd)
        done = min(taken.values(), default=watched.dropped + len(watched.pending)) - watched.dropped  # what every task has
        watched.pending = watched.pending[done:]
        watched.dropped += done
        return not watched.pending
