"""The embedded server: finds a server program, starts it on a state directory, stops it.

Decides how a server of ours is configured (append-only file, no eviction, a private socket) and what to do
about a torn file. Never decides whether an instance's history is whole: that is whoever opens the next epoch.

The directory's lock is a flock whose descriptor the server inherits: it lives exactly as long as the server.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from . import listening
from .errors import Unavailable
from .locks import lock_within
from .resp import Connection, ReplyError, RespConnection
from .server_choice import check_server as check_server
from .server_choice import find_server as find_server
from .server_options import server_args
from .uri import unix_url

_BACK = "state"  # a link in the folder of a socket that lies elsewhere
_SOCKET_LIMIT = 100  # bytes: sun_path holds 108
_IN_USE = "Address already in use"
_LOCK_FD = 100  # where the server finds the lock; far from what it opens itself


class ServerHandle(NamedTuple):
    """A server of ours. url: its address (no namespace). repaired: what was done to its files, or "".

    started: whether this call started it (False: it ran already).
    """

    pid: int
    url: str
    state_dir: str
    repaired: str = ""
    started: bool = True

    def alive(self) -> bool:
        """Whether the process is there (reaps it if it is our dead child)."""
        return not _ended(self.pid)

    def stop(self, timeout_s: float = 10.0) -> None:
        stop_server(self.url, self.pid, timeout_s=timeout_s)


def socket_path(state_dir: str) -> str:
    """Where the socket of this state directory is: inside it, or, if that path is too long, below /tmp."""
    path = os.path.join(os.path.abspath(state_dir), "kv.sock")
    if len(os.fsencode(path)) < _SOCKET_LIMIT:
        return path
    import hashlib

    key = hashlib.blake2b(os.fsencode(os.path.realpath(state_dir)), digest_size=8).hexdigest()
    return f"/tmp/fluxkv-{os.getuid()}-{key}/kv.sock"


def state_dir_behind(socket: str) -> str:
    """The state directory that a socket belongs to: the folder it is in, or the one that folder points back to."""
    folder = os.path.dirname(socket)
    try:
        return os.readlink(os.path.join(folder, _BACK))
    except OSError:
        return folder


def _point_back(state_dir: str) -> None:
    """A socket that lies elsewhere says whose it is, so that its address alone leads to the state directory."""
    folder = os.path.dirname(socket_path(state_dir))
    private_dir(folder)
    if folder != state_dir and state_dir_behind(socket_path(state_dir)) != state_dir:
        scratch = os.path.join(folder, f"{_BACK}.{os.getpid()}")
        os.symlink(state_dir, scratch)
        os.replace(scratch, os.path.join(folder, _BACK))


def start_server(
    state_dir: str, durability: str = "strict", *, program: str = "", timeout_s: float = 60.0,
    lock_wait_s: float = 2.0, listen: listening.Listen | None = None,
) -> ServerHandle:  # fmt: skip
    """Start a server on `state_dir` (made if missing, mode 0700) and wait until it answers.

    listen: where it is to listen for other hosts, who need a password; else it has its socket file only.

    A server that runs there already is returned (`started` False). A torn file is copied aside and cut
    (`repaired` says so). Raises Unavailable: "no-server", "server-died" with the reason, "address-in-use", "timeout", "locked".
    """
    state_dir = os.path.abspath(state_dir)
    private_dir(state_dir)
    _point_back(state_dir)
    program = find_server(program)
    lock = _lock(state_dir, lock_wait_s)
    if lock is None:
        running = attach_server(state_dir)
        if running is not None:
            return running
        raise Unavailable(
            f"{state_dir} is locked by a server that does not answer", code="locked",
            hint=f"look at {state_dir}/server.log",
        )  # fmt: skip
    try:
        if listen is not None:
            listening.prepare(state_dir)
        arguments = partial(server_args, state_dir, socket_path(state_dir), durability, listen=listen)
        handle = _spawn_and_wait(program, state_dir, arguments, lock, timeout_s, truncated=False)
        if handle is None:
            aside = _copy_aside(state_dir)
            handle = _spawn_and_wait(program, state_dir, arguments, lock, timeout_s, truncated=True)
            if handle is None:
                raise Unavailable(
                    f"the files in {state_dir} stay unreadable even when cut", code="server-died",
                    hint=f"a copy is in {aside}",
                )  # fmt: skip
            _rewrite(handle, timeout_s)
            repaired = f"the append-only file was torn and has been cut; the original is in {aside}"
            handle = handle._replace(repaired=repaired)
        return handle
    finally:
        os.close(lock)  # the server holds its own


def attach_server(state_dir: str) -> ServerHandle | None:
    """The server running on this state directory, or None if none answers there."""
    url = unix_url(socket_path(state_dir))
    try:
        connection = RespConnection(url)
    except Unavailable:
        return None
    try:
        return ServerHandle(server_pid(connection), url, os.path.abspath(state_dir), started=False)
    except (Unavailable, ReplyError):
        return None
    finally:
        connection.close()


def stop_server(url: str, pid: int = 0, *, timeout_s: float = 10.0) -> None:
    """Have a server write out everything and end; wait for its end. Nothing happens if it is not there.

    pid 0: ask the server. Raises Unavailable(code="timeout") if it is still there after `timeout_s`.
    """
    try:
        connection = RespConnection(url)
    except Unavailable:
        if pid:
            wait_ended(pid, timeout_s)
        return
    try:
        pid = pid or server_pid(connection)
        connection.call("SHUTDOWN", "NOSAVE")  # with an append-only file this flushes and fsyncs it
    except (Unavailable, ReplyError):
        pass  # it closes the connection instead of answering; a server that is loading refuses
    finally:
        connection.close()
    if pid:
        wait_ended(pid, timeout_s)


def server_pid(connection: Connection) -> int:
    """The process id a server says it has (its own host's)."""
    for line in connection.call("INFO", "server").split(b"\r\n"):
        if line.startswith(b"process_id:"):
            return int(line[11:])
    return 0


def private_dir(path: str) -> None:
    """Make a directory only we can enter; refuse one others can. Raises Unavailable(code="state-dir")."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.lstat(path) if path.startswith("/tmp/fluxkv-") else os.stat(path)
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
            raise Unavailable(f"{path} is not ours", code="state-dir", hint="choose another state directory")
        if found.st_mode & 0o077:
            if os.listdir(path):  # it serves something else: not ours to close
                raise Unavailable(
                    f"{path} is open to others", code="state-dir",
                    hint=f"chmod 700 {path}, or choose another state directory",
                )  # fmt: skip
            os.chmod(path, 0o700)
    except OSError as error:
        raise Unavailable(
            f"can not use {path}: {error.strerror}", code="state-dir", hint="choose another state directory"
        ) from None


def wait_ended(pid: int, timeout_s: float) -> None:
    """Wait for the end of a process, a child of ours or not. Raises Unavailable(code="timeout")."""
    import select

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([descriptor], [], [], timeout_s)
    finally:
        os.close(descriptor)
    if not ready:
        raise Unavailable(f"process {pid} did not end within {timeout_s:g} s", code="timeout")
    _ended(pid)


def _ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _lock(state_dir: str, wait_s: float) -> int | None:
    """The directory's lock, or None if a server that answers has it (or keeps it for `wait_s`)."""
    path = os.path.join(state_dir, "server.lock")
    return lock_within(path, wait_s, lambda: attach_server(state_dir) is not None)  # else it may be on its way out, or up


def _spawn_and_wait(
    program: str, state_dir: str, arguments: Callable[..., list[str]], lock: int, timeout_s: float, *, truncated: bool
) -> ServerHandle | None:
    """Start the program and wait for its first answer; None if it refused its files as torn."""
    log = os.path.join(state_dir, "server.log")
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    begin = os.fstat(out).st_size
    try:
        pid = os.posix_spawn(
            program, [program, *arguments(truncated=truncated)], os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, out, 1),
                (os.POSIX_SPAWN_DUP2, out, 2), (os.POSIX_SPAWN_DUP2, lock, _LOCK_FD),
            ],
            setsid=True, setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE],
        )  # fmt: skip
    finally:
        os.close(out)
    url = unix_url(socket_path(state_dir))
    deadline = time.monotonic() + timeout_s
    connection: RespConnection | None = None
    try:
        while True:
            try:
                connection = connection or RespConnection(url)
                connection.call("PING")
                if truncated:
                    connection.call("CONFIG", "SET", "aof-load-truncated", "no")
                return ServerHandle(pid, url, state_dir)
            except ReplyError:
                pass  # LOADING
            except Unavailable:
                connection = None
            if _ended(pid):
                if not truncated and _torn(log, begin):
                    return None
                raise _died(state_dir, log, begin)
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the server on {state_dir} did not answer within {timeout_s:g} s", code="timeout",
                    hint=f"see {log}",
                )  # fmt: skip
            time.sleep(0.002)
    except BaseException:
        if not _ended(pid):  # it has acknowledged nothing yet
            os.kill(pid, signal.SIGKILL)
            wait_ended(pid, 5.0)
        raise
    finally:
        if connection is not None:
            connection.close()


def _rewrite(handle: ServerHandle, timeout_s: float) -> None:
    """Have a server write its files anew, from memory, before anybody trusts them.

    Redis 7.4 may cut a torn file inside a transaction; what is acknowledged later would be written behind
    that open MULTI, and be lost or mangled at the next start.
    """
    deadline = time.monotonic() + timeout_s
    connection = RespConnection(handle.url)
    try:
        connection.call("BGREWRITEAOF")
        while True:
            facts = connection.call("INFO", "persistence")
            if b"aof_rewrite_in_progress:0" in facts and b"aof_rewrite_scheduled:0" in facts:
                break
            if time.monotonic() > deadline:
                raise Unavailable(f"the repair of {handle.state_dir} does not end", code="timeout")
            time.sleep(0.005)
        if b"aof_last_bgrewrite_status:ok" not in facts:
            raise Unavailable(
                f"the server on {handle.state_dir} can not write its repaired files", code="server-died",
                hint=f"is the disk full? see {handle.state_dir}/server.log",
            )  # fmt: skip
    except BaseException:
        handle.stop()
        raise
    finally:
        connection.close()


def _log_since(log: str, begin: int) -> list[str]:
    try:
        with open(log, "rb") as file:
            file.seek(begin)
            return [line for line in file.read()[-16384:].decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []


def _torn(log: str, begin: int) -> bool:
    return any("Unexpected end of file reading the append only file" in line for line in _log_since(log, begin))


def _died(state_dir: str, log: str, begin: int) -> Unavailable:
    lines = _log_since(log, begin)
    telling = [line for line in lines if " # " in line or "FATAL" in line or "***" in line or ">>>" in line]
    telling = [line for line in telling if "vm.overcommit_memory" not in line and "Transparent Huge Pages" not in line]
    why = " / ".join(line.partition(" # ")[2] or line for line in (telling or lines)[-3:]) or "it said nothing"
    hint, code = f"see {log}", "server-died"
    for sign, advice in (
        ("No space left", "the disk is full: free some space"),
        (_IN_USE, "another program listens there: start --listen=ADDR:PORT takes another port"),
        ("Permission denied", "check who owns the state directory"),
        (
            "Bad file format",
            "the append-only file is damaged in the middle: restore it from an archive or a copy",
        ),
    ):
        if sign in "\n".join(lines):
            hint, code = f"{advice}; see {log}", "address-in-use" if sign == _IN_USE else code
    return Unavailable(f"the server on {state_dir} ended while starting: {why}", code=code, hint=hint)


def _copy_aside(state_dir: str) -> str:
    import shutil

    number = 1
    while os.path.exists(aside := os.path.join(state_dir, f"appendonlydir.torn-{number}")):
        number += 1
    shutil.copytree(os.path.join(state_dir, "appendonlydir"), aside)
    return aside
