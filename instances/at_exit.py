"""The interpreter's end: executors wait for what is pending, as the standard library's do. Decides only when."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from typing import Protocol


class Ending(Protocol):
    """What has to end before the interpreter does."""

    def close(self) -> None:
        """Take nothing more."""
        ...

    def join(self) -> None:
        """Wait until all is done."""
        ...


_cores: weakref.WeakSet[Ending] = weakref.WeakSet()
_registered = False


def at_exit(core: Ending) -> None:
    """At the interpreter's end wait for what is pending, as the standard library's executors do: before threads are stopped."""
    global _registered
    _cores.add(core)
    if not _registered:
        _registered = True
        register: Callable[[Callable[[], None]], object] = getattr(threading, "_register_atexit", atexit.register)
        register(_finish_all)


def _finish_all() -> None:
    cores = list(_cores)
    for core in cores:
        core.close()
    for core in cores:
        core.join()

