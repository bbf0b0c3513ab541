"""A task that is an instance (`fluxkv start`) is forked from its launcher, where that has imported what it would import, instead of
being started as a program: most of what an empty child costs is Python's start and imports.

Decides which tasks those are: only where nothing could tell the difference. The fork has nothing of the launcher's that an exec
would not leave it: no descriptor, signal handler, limit or variable; and /proc shows it as the program that it is. It never returns
into the launcher's frames, whose objects stay as they are until it ends: nothing of theirs is closed twice. The launcher itself
forks, not a helper that it keeps for that: a task is to be its launcher's child, with its status, its group and its use of
the processor.

Recovery knows a task by the mark in its environment (HAZARD 8). Between fork and mark there is nothing to find, so the fork asks
behind it whether its launcher is there yet, and else goes before it has done anything. (One that ends has let go of its lock before
it is nobody's parent any more.)
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from ..kvs.failpoints import ARMED, arm, reach
from . import own_program, proctree, pty_host, shown, yielding
from .terminals import HOST

# Read by the interpreter, the loader and the libraries before anything of ours runs.
EARLY = (b"PYTHON", b"LD_", b"LC_", b"LANG", b"MALLOC_", b"GLIBC_", b"OPENSSL_", b"SSL_", b"HOME=")
LARGEST = 32 << 20  # bytes by which a launcher may have grown: what it has, its forks have as long as they live
DEEPEST = 400  # frames of this process, which each level of instances adds to
_PAGE = os.sysconf("SC_PAGESIZE")
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})

_began: own_program.Began | None = None
_size = 0


def get_ready() -> None:
    """Called in a keeper, before it forks its daemons: what its launcher is to know of how it began."""
    global _began, _size
    _began = own_program.began(_began) if shown.can_show() else None
    _size = _resident()


def think_ahead() -> None:
    """Import what those tasks would each import, in a launcher that has nothing else to do."""
    global _began, _size
    began, _began = _began, None
    if began is None or not began.is_current():
        return
    with suppress(Exception):  # whoever is started as a program says what is wrong
        began.ahead()
        gc.collect()
        gc.freeze()
        _began, _size = own_program.began(began), _resident()


def fork(
    program: bytes, argv: list[str], env: Mapping[bytes, bytes], files: Iterable[tuple[int, int, int]]
) -> int:
    """Start a task in a process group of its own, in this process's directory, with its affinity, limits and umask: its pid.

    0, and nothing is done, where it is to be started as a program: it is none of ours, or would be another than this process can
    become. program: what argv[0] means. files: (_, descriptor of ours, number that it is to have). One that is to have a terminal
    (`terminals.hosted`) is forked by its host, which is a fork then, too.
    """
    host: list[str] = []
    if argv[1:4] == HOST and len(argv) > 8:
        host, program, argv = [os.fsdecode(program), *argv[1:]], os.fsencode(argv[6]), argv[7:]
    if len(argv) < 2 or argv[1] != "start" or not program.endswith(b"/fluxkv"):
        return 0
    began = _began
    if began is None or own_program.identity(program) != began.script or not _same(env) or not _fits() or not began.is_current():
        return 0
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # what is stuck there would be written by the fork, too
        return 0
    launcher = os.getpid()
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    pid = -1
    try:
        pid = os.fork()
    except OSError:  # too many processes: the spawn says so
        return 0
    finally:
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
    if pid:
        with suppress(OSError):
            os.setpgid(pid, pid)  # as it does itself: whoever is first
        return pid
    gc.freeze()  # what is garbage by now may have descriptors whose numbers are others' soon
    words = [*began.words, os.fsdecode(program), *argv[1:]]
    try:
        os.setpgid(0, 0)
        for _, source, number in files:
            os.dup2(source, number)
        _enter(host or words, env)
        if os.getppid() != launcher or proctree.ends(launcher):
            os._exit(1)
        if host:
            _begin()
            pty_host.main(host[4], host[5], host[6], argv, partial(_be, began, words, env))
        _be(began, words, env, entered=True)
    except BaseException:
        _say_why()
    finally:
        os._exit(1)  # as an interpreter that cannot begin


def _be(began: own_program.Began, words: list[str], env: Mapping[bytes, bytes], *, entered: bool = False) -> NoReturn:
    """Run our program to its end."""
    try:
        if not entered:
            _enter(words, env)
        _become(words, len(began.words), env)
        began.leave(began.run(words[len(began.words) + 1 :]))
    except BaseException:
        _say_why()
    finally:
        os._exit(1)


def _say_why() -> None:
    import traceback

    os.write(2, traceback.format_exc().encode(errors="backslashreplace"))


def _same(env: Mapping[bytes, bytes]) -> bool:
    """Whether an environment has of all that is read early what ours has, and is one at all."""
    early = sorted(pair for pair in (b"%s=%s" % one for one in env.items()) if pair.startswith(EARLY))
    ours = sorted(pair for pair in (b"%s=%s" % one for one in os.environb.items()) if pair.startswith(EARLY))
    return early == ours and not any(b"=" in name or not name or b"\0" in name or b"\0" in env[name] for name in env)


def _fits() -> bool:
    """Whether this process can be copied: without a thread, not much larger than it began, and not too deep in its own frames."""
    try:
        if threading.active_count() > 1 or _resident() > _size + LARGEST:
            return False
        sys._getframe(DEEPEST)
    except ValueError:
        return True
    except OSError:  # no descriptor is left: a fork needs one, a program none
        return False
    return False


def _resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE


def _enter(words: list[str], env: Mapping[bytes, bytes]) -> None:
    """What an exec does: let go of what is another's, and be seen as what we are; where that fails it is done by an exec."""
    close_but(-1)
    yielding.end()
    signal.set_wakeup_fd(-1)
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if ARMED:
        reach("fork.unmarked")
    fsencoded = [os.fsencode(word) for word in words]
    name = os.path.basename(fsencoded[0]) if words[1:4] == HOST else b"fluxkv"
    if not shown.show(fsencoded, env, name):
        os.execve(fsencoded[0], fsencoded, env)


def _begin() -> None:
    """What an interpreter does with signals when it starts."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _become(words: list[str], script: int, env: Mapping[bytes, bytes]) -> None:
    """The rest of what it does. script: which of the words it is to run."""
    import atexit

    _begin()
    os.environ.clear()
    os.environb.update(env)
    time.tzset()
    if "tempfile" in sys.modules:
        import tempfile

        tempfile.tempdir = None  # it remembers TMPDIR
    sys.orig_argv[:] = words
    sys.argv[:] = words[script:]
    atexit._clear()
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)  # of a launcher that began with the same PYTHONUNBUFFERED, PYTHONIOENCODING, ...
        at_once = before.write_through
        whole = os.fdopen(number, "wb" if number else "rb", 0 if number and at_once else -1, closefd=False)
        raw: Any = getattr(whole, "raw", whole)
        raw.name = f"<{name}>"
        by_line = not at_once and (number == 2 or os.isatty(number))
        stream = io.TextIOWrapper(whole, before.encoding, before.errors, "\n", by_line, at_once)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    ARMED.clear()
    arm("")


def close_but(kept: int) -> None:
    """Close all descriptors above 2 but this one."""
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number != kept:
            with suppress(OSError):
                os.close(number)  # one of them is what the list was read by
