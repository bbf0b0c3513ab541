"""Throw-away servers on copies of files, for who reads an instance that is down. They end with who reads.

Whoever is told to end (TERM, HUP) ends them first; what somebody left who was killed, the next reader on this host removes.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import NamedTuple

from .errors import FluxkvError, Unavailable
from .server import ServerHandle, socket_path, start_server, state_dir_behind, stop_server, wait_ended
from .uri import parse_server, unix_url

_COPY = "fluxkv-read-"  # begins the name of a folder; behind it is whose it is: PID@HOST-
_ENDS = (signal.SIGTERM, signal.SIGHUP)


class ReadOnlyServer(NamedTuple):
    """A throw-away server on a copy of a state directory. Use `close()`, or it as a context manager."""

    handle: ServerHandle
    folder: str

    @property
    def url(self) -> str:
        return self.handle.url

    def close(self) -> None:
        if self.handle.alive():
            os.kill(self.handle.pid, signal.SIGKILL)  # nothing of it is kept
            wait_ended(self.handle.pid, 10.0)
        _remove(self.folder)

    def __enter__(self) -> ReadOnlyServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_readonly(state_dir: str, *, program: str = "", timeout_s: float = 60.0) -> ReadOnlyServer:
    """Start a throw-away server on a copy of a state directory whose instance is down.

    The original stays as it is. Raises Unavailable(code="no-instance") if there is nothing to read.
    """
    import shutil

    source = os.path.join(os.path.abspath(state_dir), "appendonlydir")
    if not os.path.isdir(source):
        raise Unavailable(f"{state_dir} holds no journal", code="no-instance", hint="name a state directory")
    folder = make_folder()
    try:
        shutil.copytree(source, os.path.join(folder, "appendonlydir"))
        return ReadOnlyServer(start_server(folder, "none", program=program, timeout_s=timeout_s), folder)
    except BaseException:
        _remove(folder)
        raise


def make_folder() -> str:
    """A folder for the files of such a server. Those of readers that are no more go."""
    import tempfile  # which many a command that only asks `is_copy` does without

    _end_in_order()
    _sweep(tempfile.gettempdir())
    return tempfile.mkdtemp(prefix=f"{_COPY}{os.getpid()}@{_host()}-")


def is_copy(url: str) -> bool:
    """Whether this is the address of a throw-away server."""
    address = parse_server(url)
    return address.kind == "unix" and os.path.basename(state_dir_behind(address.path)).startswith(_COPY)


def _sweep(place: str) -> None:
    mine = re.compile(rf"{_COPY}(\d+)@{re.escape(_host())}-")
    with suppress(OSError), os.scandir(place) as files:
        for file in files:
            found = mine.match(file.name)
            with suppress(OSError, FluxkvError):
                if found and file.stat(follow_symlinks=False).st_uid == os.getuid() and not os.path.exists(f"/proc/{found[1]}"):
                    stop_server(unix_url(socket_path(file.path)))
                    _remove(file.path)


def _remove(folder: str) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", os.uname().nodename)


def _end_in_order() -> None:
    """Where a signal would end this process at once, it ends it by way of what is to be tidied up."""
    if threading.current_thread() is threading.main_thread():
        for signum in _ENDS:
            if signal.getsignal(signum) is signal.SIG_DFL:
                signal.signal(signum, _exit)


def _exit(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
