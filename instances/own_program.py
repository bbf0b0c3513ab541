"""Where `fluxkv` itself is, for what is run in an environment whose PATH does not lead to it; and whether this process is it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from itertools import islice
from typing import NamedTuple, NoReturn

CommandLine = Callable[[list[str]], int]  # words behind `fluxkv` -> exit status
Leave = Callable[[int], NoReturn]
Ahead = Callable[[], None]
Identity = tuple[int, int, int, int]  # of a file in one version: device, inode, size, time of change


class Began(NamedTuple):
    """How this process began, as `fluxkv`, or one that it is a fork of. script: its file. words: what stood before its path: the
    interpreter, and its option. run: its command lines, in this process; leave: the end of it. ahead: imports what an instance
    inside is going to need. code: the files of all modules of ours that it has, of all others' packages, and the interpreter.
    modules: how many modules it has."""

    script: Identity
    words: list[str]
    run: CommandLine
    leave: Leave
    ahead: Ahead
    code: dict[str, Identity | None]
    modules: int

    def is_current(self) -> bool:
        """Whether who is started as a program now would find the same code."""
        return all(identity(path) == found for path, found in self.code.items())


_run: tuple[CommandLine, Leave, Ahead] | None = None


def is_run_by(run: CommandLine, leave: Leave, ahead: Ahead) -> None:
    """Said where the program begins."""
    global _run
    _run = run, leave, ahead


def is_ours() -> bool:
    """Whether this process runs command lines of ours, and nothing else: no test, no application that has imported us."""
    return _run is not None


def words() -> list[str]:
    """How this process was called, without the arguments: interpreter, options, program."""
    return sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]


def began(before: Began | None = None) -> Began | None:
    """None where this process did not begin by the script of the program, as that names its interpreter, or had a standard stream
    closed (what stands in for it is not what an interpreter makes, and closes its number when it goes). before: what was so of
    the process that this one is a fork of, when it was forked."""
    count = len(sys.orig_argv) - len(sys.argv)
    if _run is None or count < 1 or sys.orig_argv[count] != sys.argv[0] or None in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
        return None
    try:
        with open(sys.argv[0], "rb") as file:
            first = file.readline(4096)
    except OSError:
        return None
    script = identity(sys.argv[0])
    if script is None or not first.startswith(b"#!") or os.fsdecode(first[2:].strip()).split(None, 1) != sys.orig_argv[:count]:
        return None
    had, code = (before.modules, before.code) if before else (0, {sys.executable: identity(sys.executable)})
    have = len(sys.modules)
    # Those that came since stand at the end. To look at each would have all their pages copied, in every fork of a fork.
    fresh = list(islice(reversed(sys.modules), have - had)) if have >= had else list(sys.modules)
    paths = [getattr(sys.modules[name], "__file__", None) for name in fresh if name.startswith("fluxkv") or "." not in name]
    if new := [path for path in paths if path and path not in code]:
        code = {**code, **{path: identity(path) for path in new}}
    return Began(script, sys.orig_argv[:count], *_run, code, have)


def identity(path: str | bytes) -> Identity | None:
    """None if there is no such file, or it cannot be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def with_program(env: Mapping[str, str]) -> dict[str, str]:
    """An environment in which jobs find `fluxkv`: the folder of this one is put in front where PATH leads to none."""
    path = env.get("PATH", os.defpath)
    here = (os.path.dirname(os.path.abspath(sys.argv[0])), os.path.dirname(sys.executable))
    found = [next((one for one in folders if _has_program(one)), "") for folders in (path.split(os.pathsep), here)]
    return {**env, "PATH": f"{found[1]}{os.pathsep}{path}"} if found[1] and not found[0] else dict(env)


def _has_program(folder: str) -> bool:
    return os.access(os.path.join(folder or ".", "fluxkv"), os.X_OK)
