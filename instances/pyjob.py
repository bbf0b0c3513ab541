"""What runs as the task of a submitted Python function: takes the call, calls it, leaves the result in a file.

Run as a program, by its path, and imports nothing of fluxkv: a task pays for Python's own start and for what its function
imports. Never speaks to a server. The other side is `calls`; what both must know stands here.

FLUXKV_CALL: flags, a blank, and the pickled call in base64, or @ and the path of a file that holds it. Flags: "c" the call
is a function and a list of argument tuples, "m" the main script is run first, "s" the result is on disk before the task ends.
FLUXKV_RESULTS: the folder results go to, one file named after the job. FLUXKV_PYTHONPATH: where modules are found;
with a plus before it, beside where this interpreter finds them anyway.
FLUXKV_MAIN: path of the submitter's main script, or a blank and its module name.
"""

from __future__ import annotations

import os
import pickle
import sys
from binascii import a2b_base64
from typing import IO, Any

CALL, RESULTS, PATHS, MAIN = "FLUXKV_CALL", "FLUXKV_RESULTS", "FLUXKV_PYTHONPATH", "FLUXKV_MAIN"
MAIN_NAME = "__mp_main__"  # the name under which multiprocessing, too, runs a main script again
MAGIC = b"fluxkv-result-1\n"
NO_RESULT = 125  # exit code when the result could not be kept
_HOW = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_kept: list[Any] = []
Described = tuple[bytes | None, str, str]  # the exception pickled if it can be, "Type: message", the traceback


def result_path(folder: str, job: int) -> str:
    """The file that holds a job's result."""
    return f"{folder}/{job}.result"


def run_main_again(where: str) -> None:
    """Make what the submitter's main script defines known as `__main__`; what it guards by its name does not run."""
    import runpy
    from types import ModuleType

    module = ModuleType(MAIN_NAME)
    if where.startswith(" "):
        found = runpy.run_module(where[1:], run_name=MAIN_NAME, alter_sys=True)
    else:
        found = runpy.run_path(where, run_name=MAIN_NAME)
    module.__dict__.update(found)
    _kept.append(sys.modules.get("__main__"))  # this module goes on
    sys.modules["__main__"] = sys.modules[MAIN_NAME] = module


def read_call(call: str) -> bytes:
    """The pickled call of the variable's second word."""
    if not call.startswith("@"):
        return a2b_base64(call)
    try:
        with open(call[1:], "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise RuntimeError(f"{call[1:]} is gone: a large call is kept until its job has ended, so submit it anew") from error


def make_call(flags: str, data: bytes, main: str) -> Any:
    """Call what was submitted; its value."""
    if "m" in flags:
        run_main_again(main)
    if "c" in flags:
        function, items = pickle.loads(data)
        return [function(*arguments) for arguments in items]
    function, arguments, keywords = pickle.loads(data)
    return function(*arguments, **keywords)


def described(error: BaseException) -> Described:
    """What a function raised, in a form that can travel."""
    import traceback

    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename == __file__:
        frame = frame.tb_next  # our own frames are nobody's business
    text = "".join(traceback.format_exception(type(error), error, frame))
    pickled: bytes | None
    try:
        pickled = _dumps(error)
        pickle.loads(pickled)
    except Exception:  # it, or something it holds, cannot travel: its text can
        pickled = None
    return pickled, "".join(traceback.format_exception_only(type(error), error)).strip(), text


def _dumps(value: Any) -> bytes:
    from io import BytesIO

    file = BytesIO()
    dump(value, file)
    return file.getvalue()


def dump(value: Any, file: IO[bytes]) -> None:
    """Pickle into a file without a copy in memory: plainly, else by cloudpickle where that is installed."""
    start = file.tell()
    try:
        pickle.dump(value, file, 5)
    except OSError:
        raise
    except Exception:
        file.seek(start)
        file.truncate()
        try:
            import cloudpickle
        except ImportError:
            cloudpickle = None
        if cloudpickle is None:
            raise
        cloudpickle.dump(value, file)


def open_result(path: str) -> IO[bytes]:
    """The result file, emptied. Raises OSError."""
    try:
        fd = os.open(path, _HOW, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        fd = os.open(path, _HOW, 0o600)
    return open(fd, "w+b")


def keep(path: str, value: Any, error: Described | None, sync: bool) -> Described | None:
    """Write the result file: magic, "V" or "E", the pickle of the value or of what was raised; the error, if it is one now.

    Raises OSError when it cannot be written.
    """
    with open_result(path) as file:
        file.write(MAGIC)
        if error is None:
            try:
                file.write(b"V")
                dump(value, file)
            except OSError:
                raise
            except Exception as problem:
                problem.add_note("fluxkv: the function has returned, but its value cannot be pickled")
                error = described(problem)
                file.seek(len(MAGIC))
                file.truncate()
        if error is not None:
            file.write(b"E" + pickle.dumps(error, 5))
        file.flush()
        if sync:
            os.fsync(file.fileno())
    return error


def main() -> int:
    """The task; its exit code: 0, or 1 when the function raised (the traceback is on standard error)."""
    environ = os.environ
    flags, _, call = environ.pop(CALL).partition(" ")
    folder = environ.pop(RESULTS)
    main_script = environ.pop(MAIN, "")
    paths = environ.pop(PATHS, "")
    if paths.startswith("+"):
        sys.path += paths[1:].split(os.pathsep)
    elif paths:
        sys.path[:] = paths.split(os.pathsep)
    path = result_path(folder, int(environ["FLUXKV_JOB_ATTEMPT"].partition(".")[0]))
    value, error = None, None
    try:
        value = make_call(flags, read_call(call), main_script)
    except BaseException as problem:
        error = described(problem)
    try:
        error = keep(path, value, error, "s" in flags)
    except OSError as problem:
        print(f"fluxkv: the result cannot be kept: {path}: {problem.strerror}", file=sys.stderr)
        return NO_RESULT
    if error is not None:
        print(error[2], end="", file=sys.stderr)
    return 0 if error is None else 1


if __name__ == "__main__":
    sys.exit(main())
