"""Daemons that, when they have something to do, let what runs on a core finish its turn first (Linux's SCHED_BATCH). Where many
instances share the CPUs, for floods of short jobs and with one slot each, breaking into another's task gains nothing, and each time
costs two switches, with all that the core's caches had. Decides which instances those are, how this process is scheduled among
others, and that whatever it starts is scheduled as before.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

_USUAL = {"scheduler": (os.SCHED_OTHER, os.sched_param(0))}
_yields = False


def shares(policy: str, cores: int) -> bool:
    """Whether the daemons of an instance that is a job are to yield: one for floods with one core, which nobody has bound to its
    CPUs (see `discover.binding`), so others are there, too. One with more slots is slower for it: its launcher serves them all."""
    from .discover import cpus_by_core

    return policy == "throughput" and cores == 1 and len(cpus_by_core()) > 1


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
