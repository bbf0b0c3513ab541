"""Daemons that, when they have something to do, let what runs on a core finish its turn first (Linux's SCHED_BATCH): what only
moves a flood of short jobs along gains nothing by breaking into their tasks, and each time that costs two switches, with all that
the core's caches had. Decides how this process is scheduled among others, and that whatever it starts is scheduled as before.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

_USUAL = {"scheduler": (os.SCHED_OTHER, os.sched_param(0))}
_yields = False


def begin() -> None:
    """From now on. Nothing is done where somebody has chosen another class for us, or where the C library could not start a process
    in the usual one (musl)."""
    global _yields
    try:
        if os.sched_getscheduler(0) == os.SCHED_OTHER and (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            _yields = True
    except (OSError, ValueError):  # a sandbox forbids it; another C library
        pass


def as_before() -> dict[str, Any]:
    """Arguments of `os.posix_spawn` for what is to be scheduled as this process was when it began."""
    return _USUAL if _yields else {}


def end() -> None:
    """In a fork that is to be as this process was when it began."""
    global _yields
    if _yields:
        with suppress(OSError):
            os.sched_setscheduler(0, *_USUAL["scheduler"])
        _yields = False
