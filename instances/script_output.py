"""What a site's scripts print goes to the instance's log, line by line. Decides how much of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..journal.ids import f58
from ..journal.scripts import KINDS, why_failed
from .attempts import Host, split_key
from .script_orders import letter_of
from .spool import output_paths

LINES, LINE = 200, 500
TAKE = 64 * 1024


def tell(host: Host, spool: str, event: list[Any], say: Callable[[str, str], None]) -> None:
    """A script is over: its output (once: the file goes), and what went wrong."""
    key, status, cause = event[1], event[2], event[6]
    job, _, rank = split_key(key)
    what = f"{KINDS[letter_of(key)]} for job {f58(job)} on {host.names.get(rank, rank)}"
    why = "ended" if cause.startswith("ended") else why_failed([status, 0.0, cause])
    lines: list[str] = []
    for path in output_paths(spool, job, key):
        lines += _take(path)
    for line in lines[:LINES]:
        say("info", f"{what}: {line[:LINE]}")
    if len(lines) > LINES:
        say("info", f"{what}: {len(lines) - LINES} more lines are left out")
    if why:
        say("warning", f"{what}: {why}")


def _take(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            text = file.read(TAKE).decode(errors="replace")
        os.unlink(path)
    except OSError:
        return []  # it printed nothing, or it has been told
    return text.splitlines()
