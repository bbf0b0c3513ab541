"""Files that came with a jobspec (RFC 37): kept by an agent as they are fetched, laid into a job's directory by the launcher.

Decides where blobs lie in the spool and how long, and that a file that cannot be laid down keeps the job from starting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from ..journal.file_archive import File
from .user_files import SpawnError

KEEP_S = 60.0  # the launcher may still need what an attempt in its line named
KEEP_BYTES = 256 << 20
_COPY = 1 << 20

Row = list[Any]  # [path, kind, mode, mtime, data, [[offset, length, blob], ...], size]


def rows_of(files: Iterable[File]) -> list[Row]:
    """Files as an attempt has them."""
    return [[f.path, f.kind, f.mode, f.mtime, f.data, [list(part) for part in f.parts], f.size] for f in files]


class BlobFolder:
    """Blobs on disk, under their names. One agent uses it; agents after it find what it left."""

    def __init__(self, spool: str, fetch: Callable[[list[str]], list[bytes | None]]) -> None:
        self._folder = os.path.join(spool, "blobs")
        self._fetch = fetch

    def provide(self, rows: list[Row], now: float) -> str:
        """Put the blobs of these files on disk and their paths into the rows; what is wrong, "" if nothing is.

        now: Unix seconds, of the files' last use.
        """
        names = sorted({part[2] for row in rows for part in row[5]})
        if not names:
            return ""
        try:
            os.makedirs(self._folder, 0o700, exist_ok=True)
            for name in names:
                problem = self._have(name, now)
                if problem:
                    return problem
            for row in rows:
                for part in row[5]:
                    part[2] = os.path.join(self._folder, part[2])
            self._tidy(now, set(names))
        except OSError as error:
            return f"{error.filename or self._folder}: {error.strerror}"
        return ""

    def _have(self, name: str, now: float) -> str:
        path = os.path.join(self._folder, name)
        try:
            os.utime(path, (now, now))
            return ""
        except FileNotFoundError:
            pass
        (data,) = self._fetch([name])
        if data is None:
            return f"blob {name} is not in the store"
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "wb") as file:
            file.write(data)
        os.utime(temporary, (now, now))
        os.rename(temporary, path)
        return ""

    def _tidy(self, now: float, needed: set[str]) -> None:
        """Above `KEEP_BYTES` the longest unused go, but for those of the last minute."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                about = entry.stat()
                found.append((about.st_mtime, about.st_size, entry.name))
        total = sum(size for _, size, _ in found)
        for used, size, name in sorted(found):
            if total <= KEEP_BYTES or used > now - KEEP_S:
                break
            if name not in needed:
                os.unlink(os.path.join(self._folder, name))
                total -= size


def lay_down(rows: list[Row], folder: str) -> None:
    """Make the files in a job's directory. Raises `SpawnError` that names the file."""
    dated = []
    for path, kind, mode, mtime, data, parts, size in rows:
        target = os.path.join(folder, path)
        try:
            if kind == "directory":
                os.makedirs(target, 0o700, exist_ok=True)
                dated.append((target, mode, mtime))
                continue
            os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
            if kind == "symlink":
                os.symlink(data, os.fsencode(target))
                continue
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _write(fd, data, parts, size)
                os.fchmod(fd, mode)
            finally:
                os.close(fd)
            if mtime:
                os.utime(target, (mtime, mtime))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SpawnError(f"file {path}: {reason}") from None
    for target, mode, mtime in reversed(dated):  # a directory last: it may forbid writing
        os.chmod(target, mode)
        if mtime:
            os.utime(target, (mtime, mtime))


def _write(fd: int, data: bytes, parts: list[list[Any]], size: int) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    for offset, length, path in parts:
        os.lseek(fd, offset, os.SEEK_SET)
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            left = length
            while left:
                sent = os.sendfile(fd, source, None, min(left, _COPY))
                if not sent:
                    raise ValueError("its content is shorter than it should be")
                left -= sent
        finally:
            os.close(source)
    if parts:
        os.ftruncate(fd, size)
