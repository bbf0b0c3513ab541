"""What a launcher leaves on disk: names of its files, and the record of attempts that outlives a kill -9.

The record is an append-only file of msgpack arrays, written and never fsynced: a new boot voids it, since
no task survives a boot. Decides what is remembered; never signals a process (the launcher does).

    ["head", format, boot id, tag]         first
    ["i", key, job, t_unix, t_boot, ranks or None, tmpdir, files]   intent, before the first spawn. files: numbers of what is lent
                                           for output and error (of each rank), see `spool_files`; 0: nothing
    ["p", key, t_boot, pids]               after the spawns, t_boot taken then
    ["x", over event]                      the attempt is over; the event as the agent gets it
    ["a", keys]                            the agent has it: forgotten
"""

from __future__ import annotations

import os
import stat as stat_module
import time
from typing import Any

import msgpack

from ..kvs.errors import Unavailable
from ..kvs.failpoints import ARMED, reach
from ..kvs.hashes import blake2b
from ..kvs.locks import lock_within
from .spool_files import give_names
from .wire import pack

FORMAT = 1
RECORD_FILE = "launcher.record"
COMPACT_BYTES = 1 << 20
MAX_SOCKET_PATH = 100  # bytes; the kernel takes 107
SOCKET = "launcher.sock"
LOCK_PATIENCE_S = 5.0
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def boot_id() -> str:
    """This boot of this machine. FLUXKV_BOOT_ID says another: in a container, whose boots are not the machine's, or a test."""
    said = os.environ.get("FLUXKV_BOOT_ID", "")
    if said:
        return said
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def boot_time() -> float:
    """Seconds of this boot, sleep included: the clock of time limits."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def spool_id(spool: str) -> str:
    """A spool's identity, made once: a lost spool gets a new one."""
    path = f"{spool}/id"
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        made = os.urandom(8).hex()
        scratch = f"{path}.{os.getpid()}"
        with open(scratch, "w", encoding="ascii") as file:
            file.write(made + "\n")
        os.replace(scratch, path)
        return made


def spool_tag(spool: str) -> str:
    """Eight hex digits that tell this spool's marks from those of another launcher on the host."""
    return blake2b(os.fsencode(os.path.realpath(spool)), digest_size=4).hexdigest()


def attempt_mark(spool: str, key: str) -> str:
    """The word that stands for an attempt in `FLUXKV_ATTEMPT`."""
    return f"{key}@{spool_tag(spool)}"


def _file_name(job: int, key: str, task_rank: int | None) -> str:
    if len(key) > 80 or not key or not _PLAIN.issuperset(key):
        key = "h" + blake2b(key.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    return f"{job}.{key}" if task_rank is None else f"{job}.{key}.{task_rank}"


def output_paths(spool: str, job: int, key: str, task_rank: int | None = None) -> tuple[str, str]:
    """Spool files of standard output and error;

    task_rank only with `per_task_output`. Absent when empty at the end.
    """
    base = f"{spool}/out/{_file_name(job, key, task_rank)}"
    return base + ".out", base + ".err"


def input_path(spool: str, job: int, key: str, task_rank: int | None = None) -> str:
    """The named pipe of `stdin:

    "fifo"`; task_rank when the attempt has more than one task here (a pipe each).
    """
    return f"{spool}/in/{_file_name(job, key, task_rank)}.in"


def socket_path(spool: str) -> str:
    """Where the launcher of `spool` listens:

    in the spool, or in /tmp when that path is too long for a socket.
    """
    path = f"{spool}/{SOCKET}"
    if len(os.fsencode(path)) < MAX_SOCKET_PATH:
        return path
    name = blake2b(os.fsencode(os.path.realpath(spool)), digest_size=10).hexdigest()
    return f"/tmp/fluxkv-{os.getuid()}-{name}/{SOCKET}"


def private_folder(path: str) -> None:
    """Make `path` 0700, or check that it is ours. Raises `Unavailable` when it is somebody else's."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        if not stat_module.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise Unavailable(
                f"{path} is not a private directory of ours", code="unsafe-directory", hint=f"remove {path}"
            ) from None


def take_lock(spool: str, patience_s: float = LOCK_PATIENCE_S) -> int:
    """An fd that holds the launcher's lock of `spool`. Raises `Unavailable` when another launcher has it, and keeps it.

    A dead launcher's lock may be held a moment longer: by what it had forked, or spawned, that has not let go of its descriptors
    yet; and whoever looks whether it is held (`paths.lock_held`) has it for as long.
    """
    fd = lock_within(f"{spool}/launcher.lock", patience_s)
    if fd is None:
        raise Unavailable(f"another launcher serves {spool}", code="launcher-runs")
    return fd


class Lost:
    """An attempt that was started (or about to be) when the launcher died:

    nobody knows how its tasks ended.
    """

    __slots__ = ("files", "job", "key", "pids", "ranks", "spawned_boot", "t_boot", "t_start", "tmpdir")

    def __init__(self, record: list[Any]) -> None:
        self.key: str = record[1]
        self.job: int = record[2]
        self.t_start: float = record[3]
        self.t_boot: float = record[4]
        self.ranks: list[int] | None = record[5]
        self.tmpdir: str = record[6]
        self.files: list[int] = record[7] if len(record) > 7 else []
        self.pids: list[int] = []
        self.spawned_boot = self.t_boot

    def lent(self, spool: str) -> list[tuple[int, str]]:
        """(number, path) of the files that it was lent for its output."""
        each = self.ranks is not None and len(self.files) == 2 * len(self.ranks)
        ranks: list[int | None] = [*(self.ranks or ())] if each else [None]
        paths = [path for rank in ranks for path in output_paths(spool, self.job, self.key, rank)]
        return [(number, path) for number, path in zip(self.files, paths, strict=False) if number]

    def records(self) -> list[bytes]:
        """As read, packed; its files have its name by now."""
        intent = ("i", self.key, self.job, self.t_start, self.t_boot, self.ranks, self.tmpdir)
        return [pack(intent), pack(("p", self.key, self.spawned_boot, self.pids))]


class Record:
    """What the record says: `lost` (attempts not known to be over) and `over` (key -> over event), both in order."""

    __slots__ = ("boot", "folder", "lost", "over", "tag")

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.boot = boot_id()
        self.tag = spool_tag(folder)
        self.lost: dict[str, Lost] = {}
        self.over: dict[str, list[Any]] = {}
        self._read()

    def _read(self) -> None:
        try:
            with open(f"{self.folder}/{RECORD_FILE}", "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return
        unpacker = msgpack.Unpacker(
            raw=False,
            strict_map_key=False,
            unicode_errors="surrogateescape",
            max_buffer_size=max(len(data), 1),
        )
        unpacker.feed(data)
        try:
            if next(unpacker, None) != ["head", FORMAT, self.boot, self.tag]:
                return
            for record in unpacker:  # stops before a torn last record
                self._fold(record)
        except (ValueError, TypeError, IndexError, KeyError, msgpack.UnpackException):
            return  # nothing after a broken record can be trusted; live tasks are found by their marks

    def _fold(self, record: list[Any]) -> None:
        kind = record[0]
        if kind == "i":
            self.lost[record[1]] = Lost(record)
        elif kind == "p":
            if record[1] in self.lost:
                self.lost[record[1]].spawned_boot, self.lost[record[1]].pids = record[2], record[3]
        elif kind == "x":
            self.lost.pop(record[1][1], None)
            self.over[record[1][1]] = record[1]
        elif kind == "a":
            for key in record[1]:
                self.over.pop(key, None)


class Spool(Record):
    """The record, open for appending. One launcher at a time: take the lock first."""

    __slots__ = ("_buffer", "_fd", "_floor", "_size")

    def __init__(self, folder: str) -> None:
        """Reads what an earlier launcher left."""
        for name in ("out", "in"):
            os.makedirs(f"{folder}/{name}", 0o700, exist_ok=True)
        super().__init__(folder)
        give_names(folder, [one for lost in self.lost.values() for one in lost.lent(folder)])
        self._buffer: list[bytes] = []
        self._fd = -1
        self._size = self._floor = 0
        records = [record for lost in self.lost.values() for record in lost.records()]
        self.rewrite(records + [pack(["x", event]) for event in self.over.values()])

    def add(self, packed: bytes) -> None:
        """Remember one packed record at the next `flush`."""
        self._buffer.append(packed)

    def intent(
        self, key: str, job: int, t_unix: float, t_boot: float, ranks: list[int] | None, tmpdir: str, files: list[int]
    ) -> None:
        """On disk when this returns, with all that was added before: a spawn may follow."""
        if ARMED:
            reach("intent.before")
        self._buffer.append(pack(("i", key, job, t_unix, t_boot, ranks, tmpdir, files)))
        self.flush()
        if ARMED:
            reach("intent.after")

    def flush(self) -> None:
        """Hand everything added to the kernel (it then survives us, not the machine).

        Raises OSError: disk full.
        """
        if self._buffer:
            data = b"".join(self._buffer)
            self._buffer.clear()
            self._size += len(data)
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError:
                self._size, self._floor = (
                    COMPACT_BYTES + 1,
                    0,
                )  # maybe half a record: only a rewrite mends that
                raise

    @property
    def pending(self) -> bool:
        """Whether something was added that `flush` has not written."""
        return bool(self._buffer)

    @property
    def wants_rewrite(self) -> bool:
        """Whether the file is over 1 MiB and four times what it was after the last rewrite."""
        return self._size > COMPACT_BYTES and self._size > 4 * self._floor

    def rewrite(self, records: list[bytes]) -> None:
        """Replace the file by these records;

        what was added and not flushed is dropped: the caller gives it all.
        """
        self._buffer.clear()
        data = pack(["head", FORMAT, self.boot, self.tag]) + b"".join(records)
        path = f"{self.folder}/{RECORD_FILE}"
        fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        rest = data
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.rename(path + ".new", path)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._size = self._floor = len(data)

    def close(self) -> None:
        self.flush()
        os.close(self._fd)
