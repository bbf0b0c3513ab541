"""Places for files outside the server: a local directory, a zip file, or whatever fsspec knows by a URL.

Decides how a file gets there whole: locally it is written beside, synced, renamed, and its folder synced. A place that
fsspec opens is as good as its own promise that a file appears when it is closed (object stores keep it).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .bounded import is_dir, read_file, within
from .errors import Rejected, Unavailable
from .port import Depot

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*(::|://)")
_SCRATCH = ".new-"
SCRATCH_S = 3600.0  # no file takes so long to be written


def open_depot(url: str, *, to_read: bool = False, beside: str = "") -> Depot:
    """The place that a path or URL names. Touches nothing yet. Raises `Rejected(code="bad-archive")`.

    to_read: or where that place is now, if it has moved: FLUXKV_ARCHIVE, or (for a directory) `beside`. A directory that hangs is
    not waited for then (see `bounded`).
    """
    if to_read:
        path = local_path(url)
        moved = beside and path and not is_dir(path, path) and os.path.isdir(beside)
        url = os.environ.get("FLUXKV_ARCHIVE", "") or (beside if moved else url)
    if not url or "\0" in url or "\n" in url:
        raise Rejected(f"bad archive address {url!r}", code="bad-archive", hint="give a directory, or a URL fsspec knows")
    directory = HastyDepot if to_read else LocalDepot
    if url.startswith("file://"):
        return directory(url.removeprefix("file://"))
    if not _SCHEME.match(url):
        return ZipDepot(url) if url.endswith(".zip") else directory(url)
    return FsspecDepot(url)


def to_be_read(url: str) -> Depot:
    """The place that an address of our own names, as it stands there, for who only reads."""
    depot = open_depot(url)
    return HastyDepot(depot.path) if isinstance(depot, LocalDepot) else depot


def local_path(url: str) -> str:
    """The directory or file on this machine that an address names, "" for one that is elsewhere."""
    path = url.removeprefix("file://")
    return "" if _SCHEME.match(path) else os.path.abspath(os.path.expanduser(path))


def _check(name: str) -> str:
    """A name below the place itself: parts of it may come from a journal that anybody has written."""
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise Rejected(f"{name!r} is no name of a file in an archive", code="bad-archive")
    return name


class LocalDepot:
    """A directory. Its folders are private to the user."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        self.url = self.path
        self._swept: set[str] = set()

    def put(self, name: str, data: bytes) -> None:
        path = os.path.join(self.path, _check(name))
        folder = os.path.dirname(path)
        scratch = os.path.join(folder, f"{_SCRATCH}{os.getpid()}@{_host()}-{os.path.basename(path)}")
        try:
            self._make(folder)
            self._sweep(folder)
            fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                with memoryview(data) as view:
                    at = 0
                    while at < len(view):
                        at += os.write(fd, view[at:])
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(scratch, path)
            _sync(folder)
        except OSError as error:
            with suppress(OSError):
                os.unlink(scratch)
            raise failed(self.url, f"{name} can not be written: {error.strerror}") from None

    def _sweep(self, folder: str) -> None:
        """Remove what writers left that were killed: once a folder, when it is first written to."""
        if folder in self._swept:
            return
        self._swept.add(folder)
        with os.scandir(folder) as files:
            for file in files:
                if file.name.startswith(_SCRATCH) and _is_left(file):
                    with suppress(FileNotFoundError):
                        os.unlink(file.path)

    def _make(self, folder: str) -> None:
        """A folder with its parents, each durably in its own."""
        if os.path.isdir(folder):
            return
        above = os.path.dirname(folder)
        self._make(above)
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        _sync(above)

    def get(self, name: str) -> bytes | None:
        try:
            return self._read(os.path.join(self.path, _check(name)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise failed(self.url, f"{name} can not be read: {error.strerror}") from None

    def _read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def names(self, folder: str = "") -> list[str]:
        return self._names(folder, lambda: None)

    def _names(self, folder: str, move: Callable[[], None]) -> list[str]:
        found: list[str] = []

        def complain(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise failed(self.url, f"{error.filename} can not be read: {error.strerror}")

        for at, _, files in os.walk(os.path.join(self.path, _check(folder)), onerror=complain):
            inside = os.path.relpath(at, self.path)
            move()
            found += [os.path.normpath(os.path.join(inside, name)) for name in files if not name.startswith(_SCRATCH)]
        return sorted(found)

    def has(self, name: str) -> bool:
        return os.path.exists(os.path.join(self.path, name))

    def delete(self, name: str) -> None:
        try:
            os.unlink(os.path.join(self.path, _check(name)))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise failed(self.url, f"{name} can not be removed: {error.strerror}") from None


class HastyDepot(LocalDepot):
    """The same, read by who does not wait for one that hangs."""

    def _read(self, path: str) -> bytes:
        return read_file(self.url, path)

    def names(self, folder: str = "") -> list[str]:
        return within(self.url, lambda move: self._names(folder, move))

    def has(self, name: str) -> bool:
        return within(self.url, lambda move: LocalDepot.has(self, name))


def _host() -> str:
    """This host in a file's name."""
    return re.sub(r"[^A-Za-z0-9.]", "_", os.uname().nodename)


def _is_left(file: os.DirEntry[str]) -> bool:
    """Whether nobody writes a scratch file any more: its process was on this host, and is gone, or it is old."""
    with suppress(FileNotFoundError):
        if file.stat(follow_symlinks=False).st_mtime < time.time() - SCRATCH_S:
            return True
    writer, _, rest = file.name.removeprefix(_SCRATCH).partition("@")
    return writer.isdecimal() and rest.startswith(f"{_host()}-") and not os.path.exists(f"/proc/{writer}")


def _sync(folder: str) -> None:
    """Have the names in a folder on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class FsspecDepot:
    """What fsspec opens: memory://, s3://, sftp://, ... Imports fsspec, and the file system's own package, when first used."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if "://" in url.rstrip("/") else url
        self._fs: Any = None
        self._root = ""

    def _open(self) -> Any:
        if self._fs is None:
            try:
                import fsspec
            except ImportError:
                raise Unavailable(
                    f"the archive {self.url} needs the package fsspec, which is not installed", code="archive",
                    hint="pip install 'fluxkv[archive]', and what fsspec needs for this kind of address",
                ) from None  # fmt: skip
            try:
                self._fs, root = fsspec.core.url_to_fs(self.url)
            except ImportError as error:
                raise Unavailable(
                    f"the archive {self.url}: {error}", code="archive", hint="install it beside fluxkv, for the daemons too"
                ) from None
            except Exception as error:
                raise Rejected(f"bad archive address {self.url}: {getattr(error, 'strerror', None) or error}", code="bad-archive",
                               hint="give a directory, or a URL fsspec knows") from None
            self._root = root.rstrip("/")
        return self._fs

    def _run(self, what: str, work: Any) -> Any:
        fs = self._open()
        try:
            return work(fs)
        except FileNotFoundError:
            return None
        except Exception as error:  # each file system has errors of its own
            raise failed(self.url, f"{what}: {type(error).__name__}: {error}") from None

    def put(self, name: str, data: bytes) -> None:
        path = f"{self._path(name)}"

        def work(fs: Any) -> None:
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(path, data)

        self._run(f"{name} can not be written", work)

    def _path(self, name: str) -> str:
        self._open()
        return f"{self._root}/{_check(name)}" if name else self._root

    def get(self, name: str) -> bytes | None:
        found: bytes | None = self._run(f"{name} can not be read", lambda fs: fs.cat_file(self._path(name)))
        return found

    def names(self, folder: str = "") -> list[str]:
        found = self._run("can not be listed", lambda fs: fs.find(self._path(folder))) or []
        root = self._root.lstrip("/") + "/"
        return sorted(path.lstrip("/").removeprefix(root) for path in found)

    def has(self, name: str) -> bool:
        return bool(self._run(f"{name} can not be looked for", lambda fs: fs.exists(self._path(name))))

    def delete(self, name: str) -> None:
        self._run(f"{name} can not be removed", lambda fs: fs.rm_file(self._path(name)))


class ZipDepot:
    """An archive in one file, to be read; `tools` write such files whole."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        self.url = self.path
        self._zip: Any = None

    def _open(self) -> Any:
        if self._zip is None:
            import zipfile

            try:
                self._zip = zipfile.ZipFile(self.path)
            except OSError as error:
                raise failed(self.url, error.strerror or str(error)) from None
            except zipfile.BadZipFile as error:
                raise failed(self.url, str(error)) from None
        return self._zip

    def get(self, name: str) -> bytes | None:
        import zipfile
        import zlib

        opened = self._open()
        try:
            data: bytes = opened.read(name)
            return data
        except KeyError:
            return None
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise failed(self.url, f"{name} can not be read: {error}") from None

    def names(self, folder: str = "") -> list[str]:
        begin = f"{folder.rstrip('/')}/" if folder else ""
        return sorted(name for name in self._open().namelist() if name.startswith(begin))

    def has(self, name: str) -> bool:
        return name in self._open().namelist()

    def put(self, name: str, data: bytes) -> None:
        raise Rejected(f"{self.url} is a file to be read, not an archive that grows", code="bad-archive")

    def delete(self, name: str) -> None:
        raise Rejected(f"{self.url} is a file to be read, not an archive that changes", code="bad-archive")


def failed(url: str, why: str) -> Unavailable:
    """The one error of a place that does not do what it should."""
    return Unavailable(
        f"the archive {url}: {why}", code="archive",
        hint="mount or mend it; if it has moved, name the place it is at now with FLUXKV_ARCHIVE",
    )  # fmt: skip
