"""What lists of processes show of this one: its words and its environment in /proc, from which recovery knows whose a process is.

A fork shows those of the process that it was forked from. Decides nothing. Linux only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

_PR_SET_MM, _MM_MAP, _MM_MAP_SIZE = 35, 14, 15
_MAP = "12QIi"  # struct prctl_mm_map
_kept: list[Any] = []  # the memory that is shown
_libc: Any = None  # made once, before the forks that use it


def can_show() -> bool:
    """Whether `show` can: the kernel knows how (CONFIG_CHECKPOINT_RESTORE), nothing forbids it, and we can say where we are."""
    import ctypes
    import struct

    try:
        size = ctypes.c_uint(0)
        known = _library().prctl(_PR_SET_MM, _MM_MAP_SIZE, ctypes.addressof(size), 0, 0)
        return known == 0 and size.value == struct.calcsize(_MAP) and len(_places()) == 10
    except (OSError, AttributeError, ValueError, IndexError):
        return False


def show(words: Sequence[bytes], environ: Mapping[bytes, bytes], name: bytes = b"") -> bool:
    """From now on /proc shows these words, this environment, and this name of the program (b"": as before). False, and nothing is
    changed, where that is not possible."""
    import ctypes
    import struct

    text = b"".join([word + b"\0" for word in words])
    memory = ctypes.create_string_buffer(text + b"".join([b"%s=%s\0" % pair for pair in environ.items()]))
    at = ctypes.addressof(memory)
    end = at + len(text)
    try:
        libc = _library()
        start_code, end_code, start_stack, start_data, end_data, start_brk = _places()[:6]
        made = ctypes.create_string_buffer(struct.pack(
            _MAP, start_code, end_code, start_data, end_data, start_brk, libc.sbrk(0), start_stack,
            at, end, end, at + len(memory) - 1, 0, 0, -1,
        ))  # fmt: skip
        if libc.prctl(_PR_SET_MM, _MM_MAP, ctypes.addressof(made), len(made) - 1, 0) != 0:
            return False
    except (OSError, AttributeError, ValueError, IndexError, struct.error):
        return False
    _kept[:] = [memory]
    if name:
        try:
            with open("/proc/self/comm", "wb", buffering=0) as file:
                file.write(name)
        except OSError:
            pass  # only a name
    return True


def _library() -> Any:
    global _libc
    if _libc is None:
        import ctypes

        libc = ctypes.CDLL(None)
        libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
        libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_long]
        _libc = libc
    return _libc


def write_over(words: Sequence[bytes], at: int) -> None:
    """Where `show` cannot: the words from byte `at` on are written over, as far as there is room."""
    try:
        begin, end = words_at()
        text = b"".join([word + b"\0" for word in words])
        if len(text) <= end - begin - at:
            with open("/proc/self/mem", "r+b", buffering=0) as memory:
                memory.seek(begin + at)
                memory.write(text.ljust(end - begin - at, b"\0"))
    except (OSError, ValueError, IndexError):
        pass  # where that is not allowed we bear the name of whom we were forked from


def words_at() -> tuple[int, int]:
    """Where in memory this process's words begin and end. Raises OSError, ValueError, IndexError."""
    begin, end = _places()[6:8]
    return begin, end


def room() -> int:
    """Bytes for the words of this process; 0 where they cannot be written over."""
    try:
        begin, end = words_at()
        with open("/proc/self/mem", "r+b", buffering=0):
            return end - begin
    except (OSError, ValueError, IndexError):
        return 0


def _places() -> list[int]:
    """start_code, end_code, start_stack, start_data, end_data, start_brk, arg_start, arg_end, env_start, env_end."""
    fd = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fields = os.read(fd, 4096).rpartition(b")")[2].split()
    finally:
        os.close(fd)
    return [int(fields[at]) for at in (23, 24, 25, 42, 43, 44, 45, 46, 47, 48)]
