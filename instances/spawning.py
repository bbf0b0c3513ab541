"""Starting an attempt's tasks: environment, working directory, files, affinity, `posix_spawn`.

Decides how a task starts and what an attempt that cannot start is told; never waits, never decides who
starts when. Single-threaded by contract: working directory and affinity are the process's own, set just
before each spawn.
"""

from __future__ import annotations

import fcntl
import os
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from . import rlimits
from .attempt_kind import ENCODING, ERRORS, Kind, encoded
from .proctree import ATTEMPT_VARIABLE
from .programs import Programs
from .scratch import Scratch
from .spool import input_path, output_paths
from .spool_files import OutputFiles
from .staging import lay_down
from .terminals import hosted
from .user_files import SpawnError as SpawnError
from .user_files import open_users, users_mode

MAX_ENVIRONMENTS = 1024
_DUP2 = os.POSIX_SPAWN_DUP2
_MARK = ATTEMPT_VARIABLE.encode()


def badness(status: int) -> int:
    """How bad a wait status is, by the shell's convention: exit code, or 128 + signal."""
    return 128 + (status & 127) if status & 127 else status >> 8


class Attempt:
    """One attempt the launcher holds, from the message to the ack. Times: *_boot on the boot-time clock."""

    __slots__ = (
        "alive",
        "cause",
        "cpu_s",
        "ending",
        "event",
        "exits",
        "fifos",
        "grace_s",
        "group",
        "job",
        "key",
        "kill_at",
        "kind",
        "lent",
        "limit_at",
        "limit_s",
        "max_rss_kib",
        "orphans",
        "own_files",
        "pids",
        "spec",
        "spool_files",
        "start_boot",
        "statuses",
        "t_start",
        "tasks",
        "warn_at",
    )

    def __init__(self, spec: dict[str, Any], kind: Kind | None = None) -> None:
        """kind: its, where that is known. Raises KeyError, TypeError or ValueError when the message is not an attempt."""
        key = spec["key"]
        if not isinstance(key, str) or not key or len(key) > 200 or key.split() != [key] or "\0" in key:
            raise ValueError(f"bad attempt key {key!r}")
        self.key: str = key
        self.job: int = spec["job"]
        self.spec = spec
        self.kind = kind = kind or Kind(spec)
        self.tasks = kind.tasks
        self.group = kind.group
        self.limit_s = kind.limit_s
        self.grace_s = kind.grace_s
        self.alive: dict[int, int] = {}  # pid -> task rank
        self.orphans: set[int] = set()  # children that came to us from this attempt's tree, alive
        self.pids: list[int] = []  # of all tasks that were spawned
        self.statuses: dict[int, int] = {}  # task rank -> wait status
        self.exits: list[list[Any]] | None = [] if kind.exits else None  # see `AttemptTable.note_exit`
        self.t_start = self.start_boot = 0.0
        self.ending = 0  # 1: TERM went out, 2: KILL
        self.cause = ""
        self.limit_at = self.warn_at = self.kill_at = 0.0  # 0: none
        self.max_rss_kib = 0
        self.cpu_s = 0.0
        self.fifos: list[tuple[str, int]] = []  # path, our write end (-1: closed)
        self.spool_files: list[str] = []  # output files of ours, to go when they stay empty
        self.lent: list[int] = []  # the numbers of those that were lent, see `OutputFiles.lend`
        self.own_files: tuple[str, str] | None = None  # of those, where all tasks share them
        self.event: list[Any] | None = None  # the over event, once over


class Spawner:
    """Knows the environments, and the process-wide state that spawns change."""

    __slots__ = (
        "_affinity",
        "_environments",
        "_limits",
        "_made",
        "_null",
        "_outer",
        "_programs",
        "_spool",
        "_start_affinity",
        "_suffix",
        "away",
        "outputs",
        "scratch",
    )

    def __init__(self, spool: str, tag: str) -> None:
        self._spool = spool
        self._suffix = "@" + tag
        self.away = False  # whether `settle` has something to do
        self.outputs = OutputFiles(spool)
        self.scratch = Scratch()
        outer = os.environ.get(ATTEMPT_VARIABLE, "")
        self._outer = outer + " " if outer else ""
        self._environments: OrderedDict[str, dict[bytes, bytes]] = OrderedDict()
        # What attempts that are alike have: variables over those of an environment, and both together.
        self._made: tuple[dict[str, str], dict[bytes, bytes], dict[bytes, bytes]] = ({}, {}, {})
        self._start_affinity = frozenset(os.sched_getaffinity(0))
        self._affinity = self._start_affinity
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._programs = Programs()
        self._limits: dict[str, dict[str, int]] = {}  # environment -> limits that came with it and differ from ours

    def remember(self, ref: str, variables: dict[str, str]) -> None:
        """A base environment under its content hash, with the limits that came with it."""
        self._environments[ref] = {os.fsencode(k): os.fsencode(v) for k, v in variables.items()}
        self._environments.move_to_end(ref)
        limits = self._environments[ref].pop(rlimits.VARIABLE.encode(), b"")
        self._limits[ref] = self._programs.limits.plan(rlimits.from_text(os.fsdecode(limits)))[0] if limits else {}
        if len(self._environments) > MAX_ENVIRONMENTS:
            del self._limits[self._environments.popitem(last=False)[0]]

    def mark(self, key: str) -> str:
        return key + self._suffix

    def lend(self, attempt: Attempt) -> None:
        """Have empty files of ours ready for what it will put out, where it adds to none and nobody looks on from the beginning."""
        spec, kind = attempt.spec, attempt.kind
        if not kind.lends:
            return
        if kind.plain:
            attempt.own_files = own = output_paths(self._spool, attempt.job, attempt.key)
            attempt.spool_files = paths = list(own)
            attempt.lent = self.outputs.lend(paths, attempt.start_boot)
            return
        users = bool(spec.get("stdout")), bool(spec.get("stderr"))
        if spec.get("per_task_output"):
            files = [output_paths(self._spool, attempt.job, attempt.key, task[0]) for task in attempt.tasks]
        else:
            files = [output_paths(self._spool, attempt.job, attempt.key)]
            attempt.own_files = files[0]
        paths = ["" if theirs else path for own in files for path, theirs in zip(own, users, strict=True)]
        attempt.spool_files = [path for path in paths if path]
        attempt.lent = self.outputs.lend(paths, attempt.start_boot)

    def start(self, attempt: Attempt, seat: dict[str, Any], alive: dict[int, Attempt]) -> None:
        """Spawn all tasks; each goes into `attempt.alive` and `alive` at once.

        Raises `SpawnError` at the first that cannot start (earlier ones run). Never blocks on a named pipe.
        """
        spec, kind = attempt.spec, attempt.kind
        if spec.get("refuse"):
            raise SpawnError(spec["refuse"])
        opened: list[int] = []
        emptied: set[str] = set()
        try:
            self._enter(spec, attempt, opened, emptied)
            environment = self._environment(attempt, seat)
            changes = self._limits.get(kind.env)
            above: list[str] = []
            terminals: Sequence[int] = ()
            many, per_task = kind.many, False
            if not kind.plain:
                if spec.get("rlimits"):
                    changes, above = self._programs.limits.plan(spec["rlimits"])
                for path in spec.get("label_files") or ():  # written by the agent, line by line; they must be writable
                    open_users("output", path, users_mode(spec, path, emptied), opened, spec)
                terminals = spec.get("pty") or ()
                per_task = many and (kind.ranks is not None or "task_files" in spec)
            # A job that was placed ahead is one of a flood of short ones: pinning ourselves before the spawn would have us
            # wait for the task's core each time, so it is pinned right after instead.
            late = kind.late
            files = None
            for rank, argv, cpus, extra in attempt.tasks:
                if files is None or per_task:
                    files = self._files(attempt, rank, many, opened, emptied)
                    for remark in above:
                        self._tell(files[2][1], remark)
                env = {**environment, **encoded(extra)} if extra and many else environment
                self._pin(None if late else cpus or seat.get("cpus"))
                try:
                    if rank in terminals:
                        program = self._programs.find(argv, env)
                        argv = hosted(argv, program, self._spool, spec.get("stdin") == "fifo")
                    pid = self._programs.spawn(argv, env, files, changes)
                except SpawnError as error:
                    error.args = (f"task {rank}: {error}",)
                    self._tell(files[2][1], str(error))
                    raise
                if late:
                    self._pin_task(pid, cpus or seat.get("cpus"))
                attempt.alive[pid] = rank
                attempt.pids.append(pid)
                alive[pid] = attempt
        finally:
            for fd in opened:
                os.close(fd)

    @property
    def pinned(self) -> bool:
        """Whether we still have the affinity of the last task."""
        return self._affinity is not self._start_affinity

    def release(self, attempt: Attempt) -> bool:
        """After the end: close and remove its pipes, let go of its spool files that stayed empty. Whether any did not."""
        for path, fd in attempt.fifos:
            if fd >= 0:
                os.close(fd)
            _unlink(path)
        attempt.fifos.clear()
        wrote = False
        for path in attempt.spool_files:
            wrote |= self.outputs.done(path)
        return wrote

    def settle(self) -> None:
        """Back to our own affinity, so that we do not compete for the last task's core; and out of its directory."""
        if self.away:
            os.chdir("/")
            self.away = False
        if self.pinned:
            os.sched_setaffinity(0, self._start_affinity)
            self._affinity = self._start_affinity

    def _environment(self, attempt: Attempt, seat: dict[str, Any]) -> dict[bytes, bytes]:
        """Of all its tasks; of the only one all there is."""
        spec, kind = attempt.spec, attempt.kind
        base = self._environments.get(kind.env)
        if base is None:
            if kind.env:
                raise SpawnError(f"environment {kind.env} was never sent")
            base = {}
        else:
            self._environments.move_to_end(kind.env)
        common = spec.get("env_set") or {}
        if self._made[0] is not common or self._made[1] is not base:
            self._made = common, base, {**base, **encoded(common)}
        env = self._made[2].copy()
        for changes in (spec.get("env_own"), seat.get("env")):
            if changes:
                for name, value in changes.items():
                    env[_name(name)] = value.encode(ENCODING, ERRORS)
        if "tmpdir_env" in spec:
            env[_name(spec["tmpdir_env"])] = spec["tmpdir"].encode(ENCODING, ERRORS)
        env[_MARK] = (self._outer + attempt.key + self._suffix).encode(ENCODING, ERRORS)
        env.update(kind.extra)
        return env

    def _enter(self, spec: dict[str, Any], attempt: Attempt, opened: list[int], emptied: set[str]) -> None:
        """Into the job's directory, or /tmp with a word about it, as Flux does; and make its tmpdir."""
        tmpdir = spec.get("tmpdir")
        if tmpdir:
            try:
                spec["tmpdir"] = self.scratch.take(tmpdir, exact="tmpdir_exact" in spec)
            except OSError as error:
                raise SpawnError(f"tmpdir {tmpdir}: {error.strerror}") from None
            if "files" in spec:
                lay_down(spec["files"], spec["tmpdir"])
        cwd = spec.get("cwd") or "/"
        self.away = True
        try:
            os.chdir(cwd)  # as cheap as finding out whether we are there already
        except OSError as error:
            os.chdir("/tmp")
            many = len(attempt.tasks) > 1
            files = self._files(attempt, attempt.tasks[0][0], many, opened, emptied, stdin=False)
            self._tell(files[2][1], f"cannot change to {cwd}: {error.strerror}, going to /tmp instead")
            spec["append"] = True  # the line is not to be truncated away

    def _files(
        self,
        attempt: Attempt,
        rank: int,
        many: bool,
        opened: list[int],
        emptied: set[str],
        *,
        stdin: bool = True,
    ) -> list[tuple[int, int, int]]:
        """File actions for one task (or all that share them).

        emptied: the user's files that this attempt has opened before; they are truncated only once.
        """
        spec = attempt.spec
        if attempt.kind.plain and attempt.own_files is not None:
            out, err = attempt.own_files
            opened.append(out_fd := self.outputs.open(out, append=False))
            opened.append(err_fd := self.outputs.open(err, append=False))
            return [(_DUP2, self._null, 0), (_DUP2, out_fd, 1), (_DUP2, err_fd, 2)]
        append = bool(spec.get("append"))
        out_path, err_path = spec.get("stdout"), spec.get("stderr")
        if "task_files" in spec:
            out_path, err_path = spec["task_files"].get(str(rank), (out_path, err_path))
        out_own = err_own = ""
        if not (out_path and err_path):
            out_own, err_own = attempt.own_files or output_paths(
                self._spool, attempt.job, attempt.key, rank if spec.get("per_task_output") else None
            )
        source = self._null
        wanted = spec.get("stdin")
        if wanted and stdin:
            if wanted == "fifo" and spec.get("pty") and rank not in spec["pty"]:
                pass  # input is the terminals'
            elif wanted == "fifo":
                source = self._fifo(attempt, rank if many else None, opened)
            else:
                source = open_users("stdin", wanted, os.O_RDONLY | os.O_CLOEXEC, opened)
        try:
            if out_path:
                how = users_mode(spec, out_path, emptied)
                out_fd = open_users("stdout", out_path, how, opened, spec)
            else:
                opened.append(out_fd := self.outputs.open(out_own, append=append))
                if not attempt.lent:
                    attempt.spool_files.append(out_own)
            if err_path:
                err_fd = out_fd
                if err_path != out_path:
                    how = users_mode(spec, err_path, emptied)
                    err_fd = open_users("stderr", err_path, how, opened, spec)
            else:
                opened.append(err_fd := self.outputs.open(err_own, append=append))
                if not attempt.lent:
                    attempt.spool_files.append(err_own)
        except OSError as error:
            raise SpawnError(f"spool file {error.filename}: {error.strerror}") from None
        return [(_DUP2, source, 0), (_DUP2, out_fd, 1), (_DUP2, err_fd, 2)]

    def _fifo(self, attempt: Attempt, rank: int | None, opened: list[int]) -> int:
        """Make the named pipe; we hold a write end until told `eof`, so that the task sees none too early."""
        path = input_path(self._spool, attempt.job, attempt.key, rank)
        try:
            if os.path.exists(path):
                os.unlink(path)
            os.mkfifo(path, 0o600)
            read = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            opened.append(read)
            attempt.fifos.append((path, os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)))
        except OSError as error:
            raise SpawnError(f"stdin pipe {path}: {error.strerror}") from None
        fcntl.fcntl(read, fcntl.F_SETFL, os.O_RDONLY)
        return read

    def _pin(self, cpus: list[int] | None) -> None:
        """Affinity of the next spawn;

        cpus the machine did not give us are no reason to fail, just not pinned.
        """
        wanted = frozenset(cpus) if cpus else self._start_affinity
        if not wanted < self._start_affinity:  # all of them is no pinning either
            wanted = self._start_affinity
        if wanted != self._affinity:
            os.sched_setaffinity(0, wanted)
            self._affinity = wanted

    def _pin_task(self, pid: int, cpus: list[int] | None) -> None:
        wanted = frozenset(cpus or ())
        if wanted and wanted < self._start_affinity:
            try:
                os.sched_setaffinity(pid, wanted)
            except OSError:
                pass  # over already

    @staticmethod
    def _tell(fd: int, text: str) -> None:
        try:
            os.write(fd, f"fluxkv: {text}\n".encode("utf-8", "surrogateescape"))
        except OSError:
            pass  # the over event says it too


@lru_cache(256)
def _name(variable: str) -> bytes:
    return variable.encode(ENCODING, ERRORS)


def unlink_if_empty(path: str) -> None:
    try:
        if os.stat(path).st_size == 0:
            os.unlink(path)
    except OSError:
        pass


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
