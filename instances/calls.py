"""A call of a Python function as a job's payload, and its result: pickling, where results lie, how long. Runs nothing.

The task's side is `pyjob`. A small call travels in the journal with its job; a large one in a file beside the results. The
result is a file in the instance's state directory, so that whoever knows the job's id finds it; it is read once the job is
over. Files go when they are old: `sweep`.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from binascii import b2a_base64
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..kvs.errors import FluxkvError, Rejected, Unavailable
from . import pyjob
from .paths import state_dir_of
from .submit_keys import CALL

INLINE = 8192  # bytes of a pickled call that travel in the journal
MARK = CALL  # below attributes.user: {"results": folder, "call": file or ""}
DAY_S = 86400.0
KEEP_S = 7 * DAY_S  # results that nobody has removed
_CALL_SUFFIX = ".call"


class RemoteTraceback(Exception):
    """The cause of an exception that a function raised in its job: `str()` is the traceback there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class RemoteError(FluxkvError):
    """A function raised what cannot be brought here (it cannot be pickled): its words, and its traceback as `__cause__`."""

    default_code = "remote-error"


class Call(NamedTuple):
    """A pickled call. flags: see `pyjob`. name: of the function, for the job."""

    flags: str
    data: bytes
    name: str


class Outcome(NamedTuple):
    """What a function gave: a value, or an error that is to be raised."""

    value: Any = None
    error: BaseException | None = None


def dump_call(function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Call:
    """One call, pickled. Raises `Rejected(code="not-picklable")`."""
    return _dump("", function, (function, arguments, keywords))


def dump_chunk(function: Callable[..., Any], items: list[tuple[Any, ...]]) -> Call:
    """Calls of one function with each of these argument tuples; the result is the list of values."""
    return _dump("c", function, (function, items))


def _dump(flags: str, function: Callable[..., Any], what: Any) -> Call:
    inner = function
    while hasattr(inner, "func"):  # functools.partial
        inner = inner.func
    name = getattr(inner, "__name__", type(inner).__name__)
    why = ""
    try:
        data = pickle.dumps(what, 5)
        if b"__main__" not in data:
            return Call(flags, data, name)
        why = "it is defined in what is being run, which no module holds"
    except Exception as error:  # whatever an object's own __reduce__ may raise
        why = f"{type(error).__name__}: {error}"
        data = b""
    try:
        import cloudpickle
    except ImportError:
        if data and main_script():
            return Call(flags + "m", data, name)
    else:
        try:
            return Call(flags, cloudpickle.dumps(what), name)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
    raise Rejected(
        f"{name} and its arguments cannot be sent to a job: {why}",
        code="not-picklable",
        hint="define it at the top level of a module or script; or pip install cloudpickle, which takes lambdas and the like",
    )


def main_script() -> str:
    """How a task finds this process's main script (see `pyjob.MAIN`); "" if there is none that could be run again."""
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", "")
    if name:
        return "" if name.rpartition(".")[2] == "__main__" else f" {name}"
    path = getattr(main, "__file__", None)
    return os.path.abspath(path) if path and os.path.isfile(path) else ""


def search_path(python: str = sys.executable) -> str:
    """This process's module search path, for tasks of an interpreter; for another one than ours what is no part of ours."""
    here = os.getcwd()
    entries = list(dict.fromkeys(entry or here for entry in sys.path if os.pathsep not in entry))
    if python == sys.executable:
        return os.pathsep.join(entries)
    ours = tuple({os.path.join(prefix, "") for prefix in (sys.prefix, sys.base_prefix)})
    return "+" + os.pathsep.join(entry for entry in entries if not entry.startswith(ours))


def root_of(uri: str) -> str:
    """The folder of an instance's results. Raises `Unavailable` if its state directory is not on this host."""
    from ..kvs.uri import public

    directory = state_dir_of(uri)
    if directory is None:
        raise Unavailable(
            f"{public(uri)}: its state directory is not on this host, so results of functions have no place",
            code="no-state-dir",
            hint="name a folder that this host and the nodes share: Executor(results=DIR)",
        )
    return directory.join("python")


class Results:
    """The folder of results of an instance: one folder a day below `root`."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self._day = -1
        self.folder = ""

    def today(self) -> str:
        """The folder for what is submitted now, made. Raises `Unavailable`."""
        day = int(time.time() // DAY_S)
        if day != self._day:
            folder = f"{self.root}/{day}"
            try:
                os.makedirs(folder, 0o700, exist_ok=True)
            except OSError as error:
                raise Unavailable(f"{folder}: {error.strerror}", code="results", hint="Executor(results=DIR)") from None
            self.folder = folder  # first: another thread may look
            self._day = day
        return self.folder

    def payload(self, call: Call, *, sync: bool) -> tuple[dict[str, str], dict[str, str]]:
        """(variables for the task, what `attributes.user` says under `MARK`). A large call is written to a file."""
        folder = self.today()
        flags = call.flags + ("s" if sync else "")
        if len(call.data) <= INLINE:
            text, path = b2a_base64(call.data, newline=False).decode(), ""
        else:
            path = f"{folder}/{os.urandom(12).hex()}{_CALL_SUFFIX}"
            self._write(path, call.data, sync)
            text = f"@{path}"
        return {pyjob.CALL: f"{flags} {text}", pyjob.RESULTS: folder}, {"results": folder, "call": path}

    def _write(self, path: str, data: bytes, sync: bool) -> None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
        except OSError as error:
            raise Unavailable(f"{path}: {error.strerror}", code="results", hint="Executor(results=DIR)") from None


def mark_of(jobspec: Any) -> dict[str, Any]:
    """What a jobspec says of a function's call; {} if it is no function's."""
    try:
        found = jobspec["attributes"]["user"][MARK]
    except (KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def read_result(folder: str, job: int) -> Outcome | None:
    """What a job's function gave; None if the file is not there or not whole. Unpickles, so it may run code of the result's."""
    try:
        with open(pyjob.result_path(folder, job), "rb") as file:
            if file.read(len(pyjob.MAGIC)) != pyjob.MAGIC:
                return None
            kind = file.read(1)
            sys.modules[pyjob.MAIN_NAME] = sys.modules["__main__"]  # as multiprocessing has it
            if kind == b"V":
                return Outcome(pickle.load(file))
            return Outcome(error=_raised(*pickle.load(file))) if kind == b"E" else None
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    except Exception as error:  # a module that is not here, a class that has changed, ...
        error.add_note("fluxkv: the function's value is there, but cannot be read in this process")
        return Outcome(error=error)


def _raised(pickled: bytes | None, words: str, text: str) -> BaseException:
    error: BaseException | None = None
    if pickled is not None:
        try:
            error = pickle.loads(pickled)
        except Exception:  # its module is not here: its words are
            error = None
    if not isinstance(error, BaseException):
        error = RemoteError(words, hint="its traceback is the cause of this error")
    error.__cause__ = RemoteTraceback(text)
    return error


def sweep(root: str, keep_s: float, in_use: Callable[[], Iterable[str]]) -> int:
    """Remove files older than `keep_s` seconds and folders that are empty then; how many files went.

    in_use: gives the call files that active jobs still need; asked only when an old one is found.
    """
    limit = time.time() - keep_s
    gone = 0
    used: set[str] | None = None
    for folder in _folders(root):
        if int(folder.rpartition("/")[2]) * DAY_S >= limit:
            continue  # nothing in it can be older
        for path in _older(folder, limit):
            if path.endswith(_CALL_SUFFIX):
                used = set(in_use()) if used is None else used
                if path in used:
                    continue
            gone += remove(path)
        try:
            os.rmdir(folder)
        except OSError:
            pass  # something younger is in it
    return gone


def _folders(root: str) -> list[str]:
    try:
        return sorted(f"{root}/{name}" for name in os.listdir(root) if name.isdigit())
    except OSError:
        return []


def _older(folder: str, limit: float) -> Iterable[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.stat().st_mtime < limit:
                    yield f"{folder}/{entry.name}"
    except OSError:
        return


def remove(path: str) -> bool:
    """Remove a file that may be gone; whether it was there."""
    try:
        os.unlink(path)
    except OSError:
        return False
    return True
